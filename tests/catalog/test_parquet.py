"""Pictures and texts in Parquet files, and what is refused before memory is taken for it."""

import datetime
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.catalog.shops import one_refused, refuses, saved
from visual_search.bundle.files import DamagedError
from visual_search.bundle.segments import read_items
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import parquet_source
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.parquet_columns import (
    TextBudget,
    open_parquet,
    read_columns,
    texts_of,
)
from visual_search.catalog.readers.parquet_source import ParquetSource, list_pictures
from visual_search.catalog.readers.table import table
from visual_search.runs.embedding_files import read_embeddings

PICTURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["T-shirt", "Shoe"]


def hugging_face(**names: list[str]) -> dict[str, str]:
    """Returns the metadata with which the library ``datasets`` marks pictures and names."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {column: {"names": each, "_type": "ClassLabel"} for column, each in names.items()}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def write(
    path: Path,
    labels: list[Any],
    pictures: list[Any] | None = None,
    metadata: dict[str, str] | None = None,
    kind: pa.DataType = PICTURES,
    statistics: bool = True,
    **columns: Any,
) -> Path:
    if pictures is None:
        pictures = [{"bytes": f"{path.name} {i}".encode(), "path": "x"} for i in range(len(labels))]
    written = pa.table({"image": pa.array(pictures, type=kind), "label": labels, **columns})
    written = written.replace_schema_metadata(metadata or hugging_face(label=NAMES))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(written, path, row_group_size=2, write_statistics=statistics)
    return path


def test_a_folder_of_shards(tmp_path: Path) -> None:
    first, second, test = (
        f"data/{part}.parquet" for part in ("train-0-of-2", "train-1-of-2", "test-0-of-1")
    )
    write(tmp_path / first, [0, 1, 1], price=[1.5, 2.0, None])
    write(tmp_path / second, [1], price=[3.0])
    write(tmp_path / test, [0], price=[float("nan")])
    saved(tmp_path, {"README.md": "a card"})
    catalog = parquet(tmp_path, name="shop")
    ids = [f"{test}#0", *(f"{first}#{row}" for row in range(3)), f"{second}#0"]
    assert catalog.table.to_dict("list") == {
        "item_id": ids,
        "image": ids,
        "category": ["T-shirt", "T-shirt", "Shoe", "Shoe", "Shoe"],
        "group": ids,
        "split": ["test", "train", "train", "train", "train"],
        "price": ["", "1.5", "2.0", "", "3.0"],  # one of them is not whole
    }
    assert catalog.name == "shop"
    assert catalog.source.load(f"{first}#2") == b"train-0-of-2.parquet 2"
    assert catalog.source.load(f"{second}#0") == b"train-1-of-2.parquet 0"
    (choice,) = catalog.choices
    assert (choice.key, "train-0-of-2.parquet" in choice.why) == ("data.split", True)
    without = parquet(tmp_path, split=False)
    assert (set(without.table["split"]), without.choices) == ({""}, ())


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1], split=["test", "train"], tags=[["a"], []])
    write(tmp_path / "b.parquet", [0], extra=["x"], split=["train"], tags=[["a"]])
    catalog = parquet(tmp_path)
    assert (catalog.attributes, set(catalog.table["split"])) == ([], {""})
    said = " ".join(map(str, catalog.choices))
    assert [name in said for name in ("split", "tags", "extra")] == [True] * 3
    assert list(parquet(tmp_path, split="split").table["split"]) == ["test", "train", "train"]
    message = r"a\.parquet has no column \['extra'\]"
    refuses(ValueError, message, parquet, tmp_path, attributes=["extra"])


def test_columns_are_named_by_the_caller(tmp_path: Path) -> None:
    path = write(
        tmp_path / "shop.parquet",
        [0, 1],
        kind=pa.large_binary(),
        pictures=[b"a", b"b"],
        metadata=hugging_face(label=NAMES, colour=["red", "blue"]),
        sku=["007", "008"],
        colour=[1, 0],
        board=["b", None],
        part=["Validation", "train"],
        text=["NA", "x"],
        tags=[["a"], []],
        raw=[b"x", b"y"],
        day=[datetime.date(2024, 3, 1), None],
        sold=[True, False],
        kind_of=pa.array(["x", "y"]).dictionary_encode(),
    )
    catalog = parquet(path, category="colour", item_id="sku", group="board", split="part")
    assert catalog.table.to_dict("list") == {
        "item_id": ["007", "008"],
        "image": ["shop.parquet#0", "shop.parquet#1"],
        "category": ["blue", "red"],
        "group": ["b", "008"],
        "split": ["val", "train"],
        "label": NAMES,
        "text": ["NA", "x"],
        "day": ["2024-03-01", ""],
        "sold": ["True", "False"],
        "kind_of": ["x", "y"],
    }
    assert [catalog.source.load(image) for image in catalog.table["image"]] == [b"a", b"b"]
    assert parquet(path, attributes=["text"]).attributes == ["text"]
    for label in (["a", "b"], [7, 8]):  # labels without names are themselves
        for metadata in ({"x": "y"}, {"huggingface": "[]"}, {"huggingface": "no json"}):
            path = write(tmp_path / "a.parquet", label, metadata=metadata)
            assert list(parquet(path).table["category"]) == [str(each) for each in label]


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_without_a_picture_are_refused(tmp_path: Path, statistics: bool) -> None:
    pictures = [{"bytes": b"%d" % i, "path": "x"} for i in range(6)]
    pictures[2], pictures[4]["bytes"] = None, None  # type: ignore[call-overload]
    path = write(tmp_path / "a.parquet", [0] * 6, pictures, statistics=statistics)
    refuses(BadItemsError, r"2 bad item(.|\n)*row 2: the row holds no picture", parquet, path)
    catalog = parquet(path, on_bad_item="skip")
    assert [item.item_id for item in catalog.refused] == ["a.parquet#2", "a.parquet#4"]
    assert list(catalog.table["image"]) == [f"a.parquet#{row}" for row in (0, 1, 3, 5)]
    assert catalog.source.load("a.parquet#5") == b"5"
    refuses(ValueError, r"'a\.parquet#4' holds no picture", catalog.source.load, "a.parquet#4")


@pytest.mark.parametrize(
    ("label", "sku", "part", "message"),
    [
        (-1, "2", "train", "the category is empty"),
        (2, "2", "train", "the category is empty"),
        (None, "2", "train", "the category is empty"),
        (1, "1", "train", "the id stands in a.parquet, row 0 already"),
        (1, None, "train", "the id is empty"),
        (1, "2", "extra", r"the split is 'extra'; expected one of \['train'"),
    ],
)
def test_a_bad_row_is_refused_and_named(
    tmp_path: Path, label: int, sku: str, part: str, message: str
) -> None:
    path = write(tmp_path / "a.parquet", [0, label], sku=["1", sku], part=["test", part])
    reason = rf"a\.parquet, row 1: {message}"
    assert one_refused(reason, parquet, path, item_id="sku", split="part") == ["1"]


def test_what_is_no_such_file(tmp_path: Path) -> None:
    refuses(FileNotFoundError, r"nothing at .*nowhere", parquet, tmp_path / "nowhere")
    refuses(FileNotFoundError, r"no \.parquet file in", parquet, tmp_path)
    path = write(tmp_path / "a.parquet", [0, 1], tags=[["a"], []], group=["x", "y"])
    for settings, message in (
        ({"on_bad_item": "drop"}, "on_bad_item is 'drop'"),
        ({"image": "picture"}, r"no column 'picture'; it has \['image', .*data\.image"),
        ({"image": "label"}, "column 'label' of .* holds int64; expected bytes.*data=table"),
        ({"category": "labels"}, r"no column \['labels'\].*nearest is 'label'.*by data\.category"),
        ({"category": "tags"}, "column 'tags' of .* holds list.*; expected text"),
        ({"attributes": ("image",)}, "column 'image' of .* holds struct.*; expected text"),
        ({"attributes": ("group",)}, r"column\(s\) \['group'\] cannot be attributes"),
    ):
        refuses(ValueError, message, parquet, path, **settings)
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    refuses(ValueError, r"c\.parquet is not a readable", parquet, tmp_path / "c.parquet")
    path = write(tmp_path / "d.parquet", [-1])
    refuses(ValueError, "gives no item", parquet, path, on_bad_item="skip")


# ---- the source


@pytest.fixture
def source(tmp_path: Path) -> ParquetSource:
    return parquet(write(tmp_path / "a.parquet", [0] * 7)).source


def test_no_such_picture(source: ParquetSource) -> None:
    names = ["a.parquet#7", "a.parquet#-1", "a.parquet#x", "a.parquet", "b.parquet#0"]
    for image in (*names, "a.parquet#²", "#0", ""):
        refuses(FileNotFoundError, "no picture", source.load, image)
        refuses(FileNotFoundError, "no picture", source.content_keys, [image])
        assert "no picture" in (source.problem(image) or "")
    assert source.problem("a.parquet#6") is None


def test_any_order_and_any_thread(source: ParquetSource) -> None:
    again = pickle.loads(pickle.dumps(source))
    rows = [(seed * 5 + 3 * i) % 7 for seed in range(4) for i in range(14)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda row: again.load(f"a.parquet#{row}"), rows))
    assert got == [b"a.parquet %d" % row for row in rows]


def test_row_groups_are_unpacked_once(
    source: ParquetSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = source._read
    groups: list[int] = []
    monkeypatch.setattr(source, "_read", lambda f, g: groups.append(g) or read(f, g))
    keys = source.content_keys([f"a.parquet#{row}" for row in range(7)])
    assert len(set(keys)) == 7
    assert groups == [0, 1, 2, 3]
    # hashed once a process: a check asks twice, and the pictures may be many gigabytes
    assert source.content_keys(["a.parquet#6", "a.parquet#0"]) == [keys[6], keys[0]]
    assert groups == [0, 1, 2, 3]
    source.load("a.parquet#5")  # one of the last two
    source.load("a.parquet#0")
    assert groups == [0, 1, 2, 3, 0]


def test_a_file_that_changes_is_refused(source: ParquetSource, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1] * 9)
    refuses(ValueError, r"a\.parquet has changed since it was listed", source.load, "a.parquet#0")
    path.unlink()
    refuses(FileNotFoundError, r"a\.parquet", source.load, "a.parquet#0")


def test_pictures_are_not_read_to_list_them_damage_is_found_when_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", [0], [{"bytes": b"ab" * 999, "path": "x"}])
    source = parquet(path).source
    status, data = path.stat(), path.read_bytes()
    at = data.index(b"abab")
    path.write_bytes(data[: at - 40] + b"\xff" * 60 + data[at + 20 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    refuses(ValueError, r"a\.parquet is not a readable Parquet", source.load, "a.parquet#0")
    path = write(tmp_path / "a.parquet", [0, 1, 1])
    monkeypatch.setattr(parquet_source, "_row_group", lambda *_: pytest.fail("read a row group"))
    with open_parquet(path) as (opened, _):
        assert list_pictures(opened, "image", "a") == ((2, 1), set())
    assert len(parquet(path)) == 3


# ---- texts and limits

NUM = 200
IDS = [str(number) for number in range(NUM)]
# 200 rows that share one text: 4 GB as texts, some kilobytes in the file
SHARED = pa.DictionaryArray.from_arrays(pa.array([0] * NUM, pa.int32()), ["x" * 20_000_000])
VECTORS = pa.array([[1.0, 2.0]] * NUM, pa.list_(pa.float32()))


def pack(path: Path, **columns: Any) -> Path:
    saved(path.parent, {"1.jpg": ""})
    pq.write_table(pa.table(columns), path, compression="zstd")
    assert path.stat().st_size < 100_000
    return path


def test_texts_that_rows_share_are_bounded_in_every_reader(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.parquet", item_id=IDS, image=IDS, category=IDS, note=SHARED)
    refuses(ValueError, "'note'", table, path)
    refuses(ValueError, "'label'", parquet, pack(path, image=[b"1"] * NUM, label=SHARED))
    path = pack(path, item_id=SHARED, category=SHARED)
    refuses(DamagedError, r"a\.parquet", read_items, path, NUM, ("item_id", "category"))
    path = pack(path, item_id=SHARED, embedding=VECTORS)
    refuses(ValueError, "'item_id'", read_embeddings, str(path))
    # a column that is not used does no harm
    columns = {"item_id": IDS, "image": ["1.jpg"] * NUM, "category": IDS, "note": SHARED}
    path = pack(path, **columns, tags=[["a", "b"]] * NUM, raw=[b"x"] * NUM)
    assert len(table(path, attributes=[])) == NUM
    given = read_embeddings(str(pack(path, item_id=IDS, embedding=VECTORS, note=SHARED)))
    assert (given.dim, given.left_out) == (2, ("note",))


def test_rows_without_end_are_bounded(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.parquet", item_id=IDS, category=IDS)
    columns = ["item_id", "category"]
    with open_parquet(path) as (opened, _):
        budget = TextBudget("a.parquet", max_values=2 * NUM)
        assert read_columns(opened, columns, "a.parquet", budget)["item_id"] == IDS
        num_bytes = 2 * (sum(map(len, IDS)) + NUM)  # as CSV would have them
        for settings in ({"max_bytes": num_bytes}, {"max_values": 2 * NUM}):
            assert read_columns(opened, columns, "a.parquet", TextBudget("a.parquet", **settings))
        budget = TextBudget("a.parquet", max_bytes=num_bytes - 1)
        message = r"texts of a\.parquet.*'category'"
        refuses(ValueError, message, read_columns, opened, columns, "a.parquet", budget)
        budget = TextBudget("a.parquet", max_values=2 * NUM - 1)
        message = r"a\.parquet has over 399 values.*'category'"
        refuses(ValueError, message, read_columns, opened, columns, "a.parquet", budget)
    budget, message = TextBudget("a.parquet", max_bytes=2**30), r"over 1\.0 GiB, .*'note'"
    refuses(ValueError, message, budget.spend, 2**30 + 1, "note")


@pytest.mark.parametrize("struct", [True, False])
def test_pictures_are_bounded_one_by_one_by_row_group_and_where_rows_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, struct: bool
) -> None:
    source = parquet(write(tmp_path / "a.parquet", [0, 1])).source
    monkeypatch.setattr(parquet_source, "MAX_PICTURE_BYTES", 3)
    refuses(ValueError, r"'a\.parquet#1' has 0 MiB; expected at most", source.load, "a.parquet#1")
    monkeypatch.setattr(parquet_source, "MAX_PICTURE_BYTES", 1000)
    pictures = pa.array([b"x" * 1000] * NUM)
    if struct:
        pictures = pa.StructArray.from_arrays([pictures], ["bytes"])
    path = pack(tmp_path / "b.parquet", image=pictures, label=IDS)
    for most in (1000 * NUM, 1000 * NUM - 1):  # exactly what the row group comes to, and less
        monkeypatch.setattr(parquet_source, "MAX_ROW_GROUP_BYTES", most)
        source = parquet(path).source
        if most == 1000 * NUM:
            assert source.load("b.parquet#7") == b"x" * 1000
        else:
            refuses(ValueError, "row group 0.*rows share them", source.load, "b.parquet#7")
    monkeypatch.setattr(parquet_source, "MAX_ROW_GROUP_BYTES", 3)
    refuses(ValueError, r"row group 0 of .*b\.parquet unpacks to .*fewer rows", parquet, path)


def test_repeated_numbers_are_no_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = {f"e{place}": np.zeros(100_000, np.float32) for place in range(8)}
    path = pack(tmp_path / "a.parquet", item_id=np.zeros(100_000, np.int8), **zeros)
    monkeypatch.setattr("visual_search.catalog.readers.parquet_columns.MAX_NUMBER_BYTES", 1_000_000)
    refuses(ValueError, r"a\.parquet.*unpacks to", read_embeddings, str(path))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, None, 3.0], ["1", "", "3"]),
        ([1, None, 3.0], ["1", "", "3"]),
        ([1.0, 2.5], ["1.0", "2.5"]),
        ([float("nan"), 1e22], ["", "10000000000000000000000"]),
        ([float("inf"), 1.0], ["inf", "1.0"]),
        (["1.0", "007", None], ["1.0", "007", ""]),
        ([True, None], ["True", ""]),
    ],
)
def test_texts_are_what_was_written(values: list[object], texts: list[str]) -> None:
    assert texts_of(values) == texts


def test_two_readers_give_the_same_texts_and_leave_out_lists_by_name(tmp_path: Path) -> None:
    columns = {
        "item_id": pa.array([1.0, None, 3.0]),
        "image": pa.array([b"1", b"2", b"3"]),
        "category": ["Hats"] * 3,
        "price": np.array([0.1, 2.5, np.nan], np.float32),  # 0.1, not 0.10000000149011612
        "year": [2012.0, None, 2014.0],
        "tags": [["a", "b"]] * 3,
    }
    embedded = pack(tmp_path / "a.parquet", **columns)
    beside = pack(tmp_path / "b.parquet", **columns | {"image": ["1.jpg"] * 3, "raw": [b"x"] * 3})
    inside = parquet(embedded, category="category", item_id="item_id", on_bad_item="skip").table
    outside = table(beside, on_bad_item="skip")
    for column in ("item_id", "category", "price", "year"):
        assert list(inside[column]) == list(outside.table[column])
    assert list(inside["item_id"]) == ["1", "3"]
    assert list(inside["price"]) == ["0.1", ""]
    assert outside.attributes == ["price", "year"]
    assert ["tags" in str(outside.choices[0]), "raw" in str(outside.choices[0])] == [True] * 2
    refuses(ValueError, "'tags'", table, beside, attributes=["tags"])
