import datetime
import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import parquet_source
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.parquet_columns import open_parquet
from visual_search.catalog.readers.parquet_source import ParquetSource, list_pictures

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
    *,
    pictures: list[Any] | None = None,
    metadata: dict[str, str] | None = None,
    row_group_size: int = 2,
    kind: pa.DataType = PICTURES,
    statistics: bool = True,
    **columns: list[Any],
) -> Path:
    if pictures is None:
        pictures = [{"bytes": f"{path.name} {i}".encode(), "path": "x"} for i in range(len(labels))]
    table = pa.table({"image": pa.array(pictures, type=kind), "label": labels, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata(metadata or hugging_face(label=NAMES)),
        path,
        row_group_size=row_group_size,
        write_statistics=statistics,
    )
    return path


def test_a_folder_of_shards(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 1], price=[1.5, 2.0, None])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [1], price=[3.0])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [0], price=[float("nan")])
    (tmp_path / "README.md").write_text("a card")
    catalog = parquet(tmp_path, name="shop")
    first, second = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"
    test = "data/test-00000-of-00001.parquet"
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
    assert catalog.source.load(f"{first}#2") == b"train-00000-of-00002.parquet 2"
    assert catalog.source.load(f"{second}#0") == b"train-00001-of-00002.parquet 0"


def test_splits_of_names_are_said_and_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [0, 1])
    write(tmp_path / "rest.parquet", [0])
    catalog = parquet(tmp_path)
    assert list(catalog.table["split"]) == ["", "train", "train"]
    (choice,) = catalog.choices
    assert choice.key == "data.split"
    assert "train-0.parquet" in choice.why
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


def test_labels_without_names_are_themselves(tmp_path: Path) -> None:
    for label in (["a", "b"], [7, 8]):
        for metadata in ({}, {"huggingface": "[]"}, {"huggingface": "no json"}):
            path = write(tmp_path / "a.parquet", label, metadata={"x": "y", **metadata})
            assert list(parquet(path).table["category"]) == [str(each) for each in label]


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_without_a_picture_are_refused(tmp_path: Path, statistics: bool) -> None:
    whole = [{"bytes": b"%d" % i, "path": "x"} for i in range(6)]
    pictures = [whole[0], whole[1], None, whole[3], {"bytes": None, "path": "x.jpg"}, whole[5]]
    path = write(tmp_path / "a.parquet", [0] * 6, pictures=pictures, statistics=statistics)
    with pytest.raises(BadItemsError, match=r"2 bad item(.|\n)*row 2: the row holds no picture"):
        parquet(path)
    catalog = parquet(path, on_bad_item="skip")
    assert [item.item_id for item in catalog.refused] == ["a.parquet#2", "a.parquet#4"]
    assert list(catalog.table["image"]) == [f"a.parquet#{row}" for row in (0, 1, 3, 5)]
    assert catalog.source.load("a.parquet#5") == b"5"
    with pytest.raises(ValueError, match=r"'a\.parquet#4' holds no picture"):
        catalog.source.load("a.parquet#4")


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
    with pytest.raises(BadItemsError, match=rf"a\.parquet, row 1: {message}"):
        parquet(path, item_id="sku", split="part")
    catalog = parquet(path, item_id="sku", split="part", on_bad_item="skip")
    assert (list(catalog.table["item_id"]), len(catalog.refused)) == (["1"], 1)


def test_what_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at .*nowhere"):
        parquet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \.parquet file in"):
        parquet(tmp_path)
    path = write(tmp_path / "a.parquet", [0, 1], tags=[["a"], []], group=["x", "y"])
    for arguments, message in {
        ("on_bad_item", "drop"): "on_bad_item is 'drop'",
        ("image", "picture"): r"no column 'picture'; it has \['image', .*data\.image",
        ("image", "label"): "column 'label' of .* holds int64; expected bytes.*data=table",
        ("category", "labels"): r"no column \['labels'\].*nearest is 'label'.*by data\.category",
        ("category", "tags"): "column 'tags' of .* holds list.*; expected text",
        ("attributes", ("image",)): "column 'image' of .* holds struct.*; expected text",
        ("attributes", ("group",)): r"column\(s\) \['group'\] cannot be attributes",
    }.items():
        with pytest.raises(ValueError, match=message):
            parquet(path, **dict([arguments]))  # type: ignore[arg-type]
    write(tmp_path / "b" / "a.parquet", [0])
    write(tmp_path / "b" / "b.parquet", [0], extra=[1])
    assert len(parquet(tmp_path / "b")) == 2
    with pytest.raises(ValueError, match=r"a\.parquet has no column \['extra'\]"):
        parquet(tmp_path / "b", attributes=["extra"])
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"c\.parquet is not a readable Parquet file"):
        parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match="gives no item"):
        parquet(write(tmp_path / "d.parquet", [-1]), on_bad_item="skip")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [0, 1])
    source = parquet(path).source
    monkeypatch.setattr(parquet_source, "MAX_PICTURE_BYTES", 3)
    with pytest.raises(ValueError, match=r"'a\.parquet#1' has 0 MiB; expected at most"):
        source.load("a.parquet#1")
    monkeypatch.setattr(parquet_source, "MAX_ROW_GROUP_BYTES", 3)
    with pytest.raises(ValueError, match=r"row group 0 of .*a\.parquet unpacks to .*fewer rows"):
        parquet(path)


class TestSource:
    def source(self, tmp_path: Path, num_rows: int = 7) -> ParquetSource:
        source = parquet(write(tmp_path / "a.parquet", [0] * num_rows)).source
        assert isinstance(source, ParquetSource)
        return source

    @pytest.mark.parametrize("image", ["a.parquet#7", "a.parquet#-1", "a.parquet#x", "a.parquet",
                                       "b.parquet#0", "a.parquet#²", "#0", ""])  # fmt: skip
    def test_no_such_picture(self, tmp_path: Path, image: str) -> None:
        source = self.source(tmp_path)
        with pytest.raises(FileNotFoundError, match="no picture"):
            source.load(image)
        with pytest.raises(FileNotFoundError, match="no picture"):
            source.content_keys([image])
        reason = source.problem(image)
        assert reason is not None
        assert "no picture" in reason
        assert source.problem("a.parquet#6") is None

    def test_any_order_and_any_thread(self, tmp_path: Path) -> None:
        source = pickle.loads(pickle.dumps(self.source(tmp_path)))
        got: dict[int, list[bytes]] = {}

        def read(seed: int) -> None:
            rows = [(seed * 5 + 3 * i) % 7 for i in range(14)]
            got[seed] = [source.load(f"a.parquet#{row}") for row in rows]

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {
            seed: [b"a.parquet %d" % ((seed * 5 + 3 * i) % 7) for i in range(14)]
            for seed in range(4)
        }

    def test_reading_in_order_unpacks_each_row_group_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.source(tmp_path)
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

    def test_a_file_that_changes_is_refused(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        write(tmp_path / "a.parquet", [1] * 9)
        with pytest.raises(ValueError, match=r"a\.parquet has changed since it was listed"):
            source.load("a.parquet#0")
        os.remove(tmp_path / "a.parquet")
        with pytest.raises(FileNotFoundError, match=r"a\.parquet"):
            source.load("a.parquet#0")


def test_damaged_pictures_are_found_when_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [0], pictures=[{"bytes": b"ab" * 999, "path": "x"}])
    source = parquet(path).source
    status, data = path.stat(), path.read_bytes()
    at = data.index(b"abab")
    path.write_bytes(data[: at - 40] + b"\xff" * 60 + data[at + 20 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match=r"a\.parquet is not a readable Parquet file"):
        source.load("a.parquet#0")


def test_pictures_are_not_read_to_list_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", [0, 1, 1])

    def read(*_: object) -> None:
        pytest.fail("read a row group")

    monkeypatch.setattr(parquet_source, "_row_group", read)
    with open_parquet(path) as (opened, _):
        assert list_pictures(opened, "image", "a") == ((2, 1), set())
    assert len(parquet(path)) == 3
