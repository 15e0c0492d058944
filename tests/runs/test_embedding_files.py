"""Embeddings from files: what is read, and that whatever is not numbers is refused by name."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from visual_search.runs.embedding_files import GivenEmbeddings, read_embeddings, saved_embeddings

IDS = ["a", "b", "c"]
VALUES = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


def as_npy(folder: Path, values: Any = VALUES) -> str:
    np.save(folder / "clip.npy", values)
    return str(folder / "clip.npy")


def as_parquet(folder: Path, **columns: Any) -> str:
    pd.DataFrame({"item_id": IDS, **columns}).to_parquet(folder / "clip.parquet")
    return str(folder / "clip.parquet")


def write_ids(path: Path, ids: list[str] = IDS) -> str:
    if path.suffix == ".parquet":
        pd.DataFrame({"item_id": ids, "price": [1.5] * len(ids)}).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame({"name": ["x"] * len(ids), "item_id": ids}).to_csv(path, index=False)
    else:
        path.write_text("\n".join(ids) + "\n")
    return str(path)


def assert_is_the_three(given: GivenEmbeddings) -> None:
    assert list(given.item_ids) == IDS
    assert given.embeddings.dtype == np.float32
    assert given.dim == 2
    np.testing.assert_array_equal(given.embeddings, VALUES)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".parquet"])
def test_ids_lie_beside_an_array_or_are_given(tmp_path: Path, ending: str) -> None:
    array = as_npy(tmp_path)
    write_ids(tmp_path / f"clip{ending}")
    assert_is_the_three(read_embeddings(array))
    (tmp_path / f"clip{ending}").rename(tmp_path / f"names{ending}")
    assert_is_the_three(read_embeddings(array, str(tmp_path / f"names{ending}")))


def test_ids_are_text_however_they_are_written(tmp_path: Path) -> None:
    array = as_npy(tmp_path)
    (tmp_path / "clip.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\nc\r\n")  # as on Windows
    assert_is_the_three(read_embeddings(array))
    quoted = ["a,1", 'b"2', "c;3"]
    ids = write_ids(tmp_path / "quoted.csv", quoted)
    assert list(read_embeddings(array, ids).item_ids) == quoted
    numbered = {"item_id": [7, 8, 9], "embedding": VALUES.tolist()}
    pd.DataFrame(numbered).to_parquet(tmp_path / "n.parquet")
    assert list(read_embeddings(str(tmp_path / "n.parquet")).item_ids) == ["7", "8", "9"]


def test_a_table_holds_lists_or_a_column_a_value(tmp_path: Path) -> None:
    assert_is_the_three(read_embeddings(as_parquet(tmp_path, embedding=VALUES.tolist())))
    assert_is_the_three(read_embeddings(as_parquet(tmp_path, embedding=list(VALUES), x=[9, 9, 9])))
    columns = {"label": [7, 8, 9], "x1": [2, 4, 6], "title": ["p", "q", "r"], "x0": [1.0, 3, 5]}
    given = read_embeddings(as_parquet(tmp_path, **columns))
    assert_is_the_three(given)  # by number, and without the label
    assert given.columns == ("x0", "x1")
    assert given.left_out == ("label", "title")
    assert "x0, x1" in given.sentence()
    assert "label, title" in given.sentence()


@pytest.mark.parametrize(
    "kind", ["float16", "float32", "float64", "int8", "uint16", "int64", ">f8"]
)
def test_numbers_of_every_kind_become_float32(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path / "clip.txt")
    assert_is_the_three(read_embeddings(as_npy(tmp_path, VALUES.astype(kind))))
    assert_is_the_three(read_embeddings(as_npy(tmp_path, np.asfortranarray(VALUES).astype(kind))))


def test_items_are_found_by_id_and_those_without_an_embedding_named(tmp_path: Path) -> None:
    write_ids(tmp_path / "clip.txt")
    given = read_embeddings(as_npy(tmp_path))
    np.testing.assert_array_equal(given.of_items(["c", "a"]), [[5, 6], [1, 2]])
    assert given.of_items([]).shape == (0, 2)
    with pytest.raises(ValueError, match=r"2 of 3 items .*\['x', 'y'\].*'a', 'b'"):
        given.of_items(["a", "x", "y"])


def test_the_digest_is_of_ids_and_values(tmp_path: Path) -> None:
    write_ids(tmp_path / "clip.txt")
    first = read_embeddings(as_npy(tmp_path)).digest()
    assert read_embeddings(as_npy(tmp_path, VALUES.astype(np.float64))).digest() == first
    assert read_embeddings(as_npy(tmp_path, VALUES + 1)).digest() != first
    write_ids(tmp_path / "clip.txt", ["a", "b", "d"])
    assert read_embeddings(as_npy(tmp_path)).digest() != first


class _Loud:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["object array", "pickle", "npz of objects"])
def test_nothing_is_ever_unpickled(tmp_path: Path, kind: str) -> None:
    harm, file = tmp_path / "harm", tmp_path / "clip.npy"
    write_ids(tmp_path / "clip.txt")
    objects = np.array([_Loud(harm)] * 3, dtype=object)
    if kind == "pickle":
        file.write_bytes(pickle.dumps(_Loud(harm)))
    elif kind == "object array":
        np.save(file, objects, allow_pickle=True)
    else:
        np.savez(tmp_path / "clip.npz", objects)
        (tmp_path / "clip.npz").rename(file)
    with pytest.raises(ValueError, match=r"clip\.npy .*\[items, width\]"):
        read_embeddings(str(file))
    assert not harm.exists()


def test_what_is_no_finite_number_an_item_is_refused(tmp_path: Path) -> None:
    write_ids(tmp_path / "clip.txt")
    for values, message in (
        (VALUES[0], r"shape \(2,\)"),
        (VALUES[None], r"shape \(1, 3, 2\)"),
        (VALUES[:, :0], r"shape \(3, 0\)"),
        (VALUES[:2], r"2 embeddings, and there are 3 ids"),
        (VALUES.astype(np.complex64), "complex64"),
        (VALUES.astype(bool), "bool"),
        (VALUES.astype(str), "<U"),
        (np.where(VALUES == 3, np.nan, VALUES), "embedding of 'b' is not finite"),
        (np.where(VALUES == 6, np.inf, VALUES), "embedding of 'c' is not finite"),
        (VALUES.astype(np.float64) * 1e300, r"'a' is not finite as float32 \(3 such"),
    ):
        with pytest.raises(ValueError, match=message):
            read_embeddings(as_npy(tmp_path, values))


def test_a_table_of_other_things_is_refused(tmp_path: Path) -> None:
    integers = pd.array([1, None, 3], dtype="Int64")
    for columns, message in (
        ({"embedding": [[1.0], [1.0, 2.0], [1.0]]}, "2 different lengths"),
        ({"embedding": [[1.0], None, [1.0]]}, "cannot be read"),
        ({"embedding": ["x", "y", "z"]}, "cannot be read"),
        ({"embedding": [[1.0], [None], [2.0]]}, "'b' is not finite"),
        ({"embedding": [1.0, 2.0, 3.0]}, "cannot be read"),
        ({"title": ["x", "y", "z"]}, "expected a column 'embedding'"),
        ({"x1": integers, "x0": [1.0, 2.0, 3.0]}, "'b' is not finite"),
        ({"x0": [1.0, float("nan"), 3], "x1": [1, 2, 3]}, "'b' is not finite"),
        # numbers of which nobody said that they are an embedding
        ({"x": [1.0, 2.0, 3.0]}, "numeric columns x, "),
        ({"x0": [1.0, 2.0, 3.0], "label": [1, 2, 3]}, "numeric columns x0, label"),
        ({"e0": [1, 2, 3], "e2": [1, 2, 3]}, "numeric columns e0, e2"),
        ({"vector": [[1.0], [2.0], [3.0]]}, "lists vector"),
        ({name: [1, 2, 3] for name in ("e0", "e1", "f0", "f1")}, "columns e0, e1, f0, f1"),
    ):
        with pytest.raises(ValueError, match=message):
            read_embeddings(as_parquet(tmp_path, **columns))


def test_ids_that_are_missing_empty_or_twice_are_named(tmp_path: Path) -> None:
    array, csv = as_npy(tmp_path), tmp_path / "clip.csv"
    with pytest.raises(FileNotFoundError, match=r"clip\.csv', 'clip\.txt', 'clip\.parquet'.*ids="):
        read_embeddings(array)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_embeddings(array, str(tmp_path / "nowhere.txt"))
    for text, message in (
        ("item_id\na\nb\nb\n", "id 'b' stands twice"),
        ('item_id\na\n""\nc\n', "row 1 has no id"),
        ("sku\na\nb\nc\n", r"columns \['sku'\]; expected 'item_id'"),
    ):
        csv.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_embeddings(array)
    (tmp_path / "ids.npy").write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(ValueError, match="is no text"):
        read_embeddings(array, str(tmp_path / "ids.npy"))
    numbers, table = {"x0": [1, 2, 3], "x1": [1, 2, 3]}, tmp_path / "t.parquet"
    with pytest.raises(ValueError, match="leave ids out"):  # a table has its own
        read_embeddings(as_parquet(tmp_path, **numbers), write_ids(tmp_path / "ids.txt"))
    for columns, message in (
        ({"item_id": ["a", None, "c"], **numbers}, "row 1 has no id"),
        ({"sku": IDS, "x": [1, 2, 3]}, r"columns \['sku', 'x'\]; expected 'item_id'"),
    ):
        pd.DataFrame(columns).to_parquet(table)
        with pytest.raises(ValueError, match=message):
            read_embeddings(str(table))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file at .*lost\.npy"):
        read_embeddings(str(tmp_path / "lost.npy"))
    write_ids(tmp_path / "clip.txt")
    whole = Path(as_npy(tmp_path, np.zeros((12, 8), np.float32))).read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    shape = b"(12, 8), }        "
    for name, content, message in (
        ("clip.pt", b"x", r"ends in '\.pt'; expected \.npy or \.parquet"),
        ("clip.parquet", b"x", "not a readable Parquet file"),
        ("clip.npy", b"\x93NUMPY\x01\x00", r"clip\.npy cannot be read as \.npy"),
        ("clip.npy", zipped.getvalue(), r"clip\.npy .*numpy\.save"),
        ("clip.npy", whole.replace(shape, b"(1000000000, 8), }"), "cannot be read as"),  # it lies
        ("clip.npy", whole.replace(shape, b"(((((((, }"), "cannot be read as"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_embeddings(str(tmp_path / name))


def save_side(folder: Path, side: str, keys: list[str], values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{side}.npy", values)
    table = pd.DataFrame({"item_id": keys, "content_key": keys})
    table.to_parquet(folder / f"{side}.parquet")


def test_saved_embeddings_are_found_by_content(tmp_path: Path) -> None:
    save_side(tmp_path / "run", "gallery", IDS, VALUES)
    save_side(tmp_path / "run", "queries", ["q"], VALUES[:1] + 9)
    save_side(tmp_path / "more", "queries", ["r"], VALUES[:1] + 8)
    known = saved_embeddings([tmp_path / "run", tmp_path / "more", tmp_path / "nowhere"])
    assert set(known) == {*IDS, "q", "r"}
    np.testing.assert_array_equal(known["b"], VALUES[1])
    np.testing.assert_array_equal(known["r"], VALUES[0] + 8)
    # What an older version saved without content is passed over.
    save_side(tmp_path / "old", "gallery", IDS, VALUES)
    pd.DataFrame({"item_id": IDS}).to_parquet(tmp_path / "old" / "gallery.parquet")
    assert saved_embeddings([tmp_path / "old"]) == {}
