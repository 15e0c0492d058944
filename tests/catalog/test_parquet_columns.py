"""Columns of Parquet files: their texts, and what is refused before memory is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visual_search.bundle.files import DamagedError
from visual_search.bundle.segments import read_items
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.parquet_columns import (
    TextBudget,
    open_parquet,
    read_columns,
    texts_of,
)
from visual_search.catalog.readers.table import table
from visual_search.runs.embedding_files import read_embeddings

NUM = 200
IDS = [str(number) for number in range(NUM)]
# 200 rows that share one text: 4 GB as texts, some kilobytes in the file
SHARED = pa.DictionaryArray.from_arrays(pa.array([0] * NUM, pa.int32()), ["x" * 20_000_000])


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd")
    assert path.stat().st_size < 100_000
    return path


def test_texts_that_rows_share_are_bounded_in_every_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", item_id=IDS, image=IDS, category=IDS, note=SHARED)
    with pytest.raises(ValueError, match="'note'"):
        table(path)
    path = write(tmp_path / "b.parquet", image=[b"1"] * NUM, label=SHARED)
    with pytest.raises(ValueError, match="'label'"):
        parquet(path)
    path = write(tmp_path / "c.parquet", item_id=SHARED, category=SHARED)
    with pytest.raises(DamagedError, match=r"c\.parquet"):
        read_items(path, NUM, ("item_id", "category"))
    vectors = pa.array([[1.0, 2.0]] * NUM, pa.list_(pa.float32()))
    path = write(tmp_path / "d.parquet", item_id=SHARED, embedding=vectors)
    with pytest.raises(ValueError, match="'item_id'"):
        read_embeddings(str(path))


def test_rows_without_end_are_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", item_id=IDS, category=IDS)
    with open_parquet(path) as (opened, _):
        budget = TextBudget("a.parquet", max_values=2 * NUM)
        assert read_columns(opened, ["item_id", "category"], "a.parquet", budget)["item_id"] == IDS
        budget = TextBudget("a.parquet", max_values=2 * NUM - 1)
        with pytest.raises(ValueError, match=r"a\.parquet has over 399 values.*'category'"):
            read_columns(opened, ["item_id", "category"], "a.parquet", budget)


def test_a_column_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    path = write(
        tmp_path / "a.parquet",
        item_id=IDS,
        image=["1.jpg"] * NUM,
        category=IDS,
        note=SHARED,
        tags=[["a", "b"]] * NUM,
        raw=[b"x"] * NUM,
    )
    assert len(table(path, attributes=[])) == NUM
    vectors = pa.array([[1.0, 2.0]] * NUM, pa.list_(pa.float32()))
    path = write(tmp_path / "b.parquet", item_id=IDS, embedding=vectors, note=SHARED)
    given = read_embeddings(str(path))
    assert (given.dim, given.left_out) == (2, ("note",))


def test_lists_and_bytes_are_left_out_by_name(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    columns = {"item_id": ["1"], "image": ["1.jpg"], "category": ["Hats"]}
    path = write(tmp_path / "a.parquet", **columns, tags=[["a", "b"]], raw=[b"x"], size=["S"])
    catalog = table(path)
    assert catalog.attributes == ["size"]
    assert "tags" in str(catalog.choices[0])
    assert "raw" in str(catalog.choices[0])
    with pytest.raises(ValueError, match="'tags'"):
        table(path, attributes=["tags"])


def test_pictures_that_rows_share_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = pa.array([b"x" * 1000] * NUM)
    path = write(tmp_path / "a.parquet", image=pictures, label=IDS)
    assert parquet(path).source.load("a.parquet#7") == b"x" * 1000
    monkeypatch.setattr("visual_search.catalog.readers.parquet_source.MAX_ROW_GROUP_BYTES", 50_000)
    with pytest.raises(ValueError, match="row group 0"):
        parquet(path).source.load("a.parquet#7")


def test_numbers_that_repeat_are_no_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = {f"e{place}": np.zeros(100_000, np.float32) for place in range(8)}
    path = write(tmp_path / "a.parquet", item_id=np.zeros(100_000, np.int8), **zeros)
    monkeypatch.setattr("visual_search.catalog.readers.parquet_columns.MAX_NUMBER_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"a\.parquet.*unpacks to"):
        read_embeddings(str(path))


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


def test_numbers_of_32_bits_are_written_short(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    columns = {"item_id": ["1"], "image": ["1.jpg"], "category": ["Hats"]}
    path = write(tmp_path / "a.parquet", **columns, price=np.array([0.1], np.float32))
    assert list(table(path).table["price"]) == ["0.1"]


def test_two_readers_give_the_same_texts(tmp_path: Path) -> None:
    columns = {
        "item_id": pa.array([1.0, None, 3.0]),
        "image": pa.array([b"1", b"2", b"3"]),
        "category": ["Hats"] * 3,
        "price": [1.0, 2.5, None],
        "year": [2012.0, None, 2014.0],
    }
    embedded = write(tmp_path / "a.parquet", **columns)
    (tmp_path / "1.jpg").write_bytes(b"")
    beside = write(tmp_path / "b.parquet", **(columns | {"image": ["1.jpg"] * 3}))
    inside = parquet(embedded, category="category", item_id="item_id", on_bad_item="skip").table
    outside = table(beside, on_bad_item="skip").table
    for column in ("item_id", "category", "price", "year"):
        assert list(inside[column]) == list(outside[column])
    assert list(inside["item_id"]) == ["1", "3"]
