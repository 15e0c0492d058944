"""Large tables, some rows at a time: the items that reading them whole gives."""

from __future__ import annotations

import csv
import inspect
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.catalog.shops import refuses, saved
from tests.catalog.test_webdataset import pack
from visual_search.catalog.catalog import BadItemsError, Catalog, RefusedItem
from visual_search.catalog.readers import row_blocks, tar_source
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.row_blocks import large_parquet, large_table, large_webdataset
from visual_search.catalog.readers.table import TableSettings, table
from visual_search.catalog.readers.webdataset import webdataset

ROWS = 40


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows are many."""
    for name, value in (("LARGE_BYTES", 200), ("BLOCK_CHARACTERS", 300), ("LARGE_ROWS", 9)):
        monkeypatch.setattr(row_blocks, name, value)
    monkeypatch.setattr(row_blocks, "BLOCK_ROWS", 7)


def read(path: Path, **told: Any) -> tuple[pd.DataFrame, list[RefusedItem], row_blocks.RowBlocks]:
    bound = inspect.signature(table).bind(path, **told)
    bound.apply_defaults()
    given = bound.arguments
    asked = TableSettings(**{one.name: given[one.name] for one in fields(TableSettings)})
    more = {name: given[name] for name in ("name", "category_depth", "on_bad_item")}
    found = large_table(asked, **more)
    assert found is not None
    tables, refused = zip(*found.parts, strict=True)
    assert len(tables) > 3
    return pd.concat(tables, ignore_index=True), [one for part in refused for one in part], found


def shop(folder: Path, rows: Sequence[Sequence[object]], header: Sequence[str]) -> Path:
    folder.mkdir(exist_ok=True)
    saved(folder, {f"{number}.jpg": "x" for number in range(5)})
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / "products.csv"


HEADER = ["sku", "photo", "type", "title"]
TOLD = {"item_id": "sku", "image": "photo", "category": "type"}
TITLES = ['plain "quoted", with\na line', "Jäckchen 帽子", ""]


def plain_rows() -> list[list[object]]:
    return [
        [f"p{n:03d}", f"{n % 5}.jpg", ("Hats", "Shoes")[n % 2], TITLES[n % 3]] for n in range(ROWS)
    ]


def test_a_text_gives_the_items_that_it_gives_whole(tmp_path: Path) -> None:
    path = shop(tmp_path, plain_rows(), HEADER)
    found, refused, blocks = read(path)
    whole = table(path)
    pd.testing.assert_frame_equal(found, whole.table, check_dtype=False)
    assert (refused, len(found)) == ([], ROWS)
    found_out = [(one.key, one.setting) for one in blocks.choices]
    assert found_out == [(one.key, one.setting) for one in whole.choices]
    other = path.with_name("other.csv")
    other.write_bytes(path.read_text(encoding="utf-8").replace(",", ";").encode("utf-16"))
    again, _, _ = read(other)
    assert again["item_id"].tolist() == whole.table["item_id"].tolist()


def test_pictures_of_a_product_stay_together_over_a_blocks_end(tmp_path: Path) -> None:
    rows = [[f"p{n // 3:03d}", f"{n % 3}.jpg", "Hats", "x"] for n in range(3 * ROWS)]
    path = shop(tmp_path, rows, HEADER)
    found, refused, _ = read(path, **TOLD)
    whole = table(path, **TOLD)
    pd.testing.assert_frame_equal(found, whole.table, check_dtype=False)
    assert (refused, len(found)) == ([], 3 * ROWS)
    late = [[f"p{n:03d}", "0.jpg", "Hats", "x"] for n in range(ROWS)]
    late += [["last", "1.jpg", "Hats", "x"], ["last", "2.jpg", "Hats", "x"]]
    message = "a product has several pictures, and none in the rows before"
    refuses(ValueError, message, read, shop(tmp_path / "late", late, HEADER), **TOLD)
    found, _, _ = read(tmp_path / "late" / "products.csv", further_pictures=False, **TOLD)
    assert len(found) == ROWS + 1


def test_bad_rows_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    rows = plain_rows()
    rows[30][1], rows[31][2] = "gone.jpg", ""
    path = shop(tmp_path, rows, HEADER)
    refuses(BadItemsError, r"'p030' \(gone\.jpg\).*no picture 'gone\.jpg'", read, path, **TOLD)
    found, refused, _ = read(path, on_bad_item="skip", **TOLD)
    whole = table(path, on_bad_item="skip", **TOLD)
    assert refused == list(whole.refused)
    assert len(found) == ROWS - 2


def frames() -> Iterator[tuple[str, pd.DataFrame]]:
    plain = pd.DataFrame(plain_rows(), columns=HEADER)
    yield "whole numbers", plain.assign(size=[float(n) for n in range(ROWS)])
    yield "some halves", plain.assign(size=[float(n) for n in range(ROWS - 1)] + [0.5])
    yield "missing", plain.assign(size=[None] * (ROWS - 1) + [7.0], made=[True, None] * (ROWS // 2))


@pytest.mark.parametrize(("name", "frame"), frames(), ids=lambda value: str(value)[:12])
def test_parquet_gives_the_items_that_it_gives_whole(
    tmp_path: Path, name: str, frame: pd.DataFrame
) -> None:
    saved(tmp_path, {f"{number}.jpg": "x" for number in range(5)})
    frame.to_parquet(tmp_path / "products.parquet", row_group_size=11)
    for more in ({}, {"attributes": ["size"]}):
        found, refused, _ = read(tmp_path / "products.parquet", **more)
        whole = table(tmp_path / "products.parquet", **more)
        pd.testing.assert_frame_equal(found, whole.table, check_dtype=False)
        assert refused == []


def test_what_needs_all_rows_is_refused(tmp_path: Path) -> None:
    path = shop(tmp_path, plain_rows(), HEADER)
    refuses(ValueError, "category_depth is 1, which looks at all", read, path, category_depth=1)


def defaults(reader: Any, **told: Any) -> dict[str, Any]:
    bound = inspect.signature(reader).bind(**told)
    bound.apply_defaults()
    return bound.arguments


def check_like_whole(found: row_blocks.RowBlocks | None, whole: Catalog) -> None:
    assert found is not None
    tables, refused = zip(*found.parts, strict=True)
    together = pd.concat(tables, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole.table, check_dtype=False)
    assert [one for part in refused for one in part] == list(whole.refused)
    images = whole.table["image"].tolist()
    for source in (found.source, pickle.loads(pickle.dumps(found.source))):
        assert [source.load(image) for image in images] == [*map(whole.source.load, images)]
        assert source.content_keys(images[::-1]) == whole.source.content_keys(images[::-1])


def test_tars_are_read_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        sample = {"0.jpg": f"{number}".encode(), "0.cls": "hat", "0.json": {"colour": "red"}}
        bad = {"1.jpg": b"x", "1.json": {"colour": "red"}} if number == 5 else {}
        pack(tmp_path / "train" / f"{number}.tar", {**sample, **bad})
    told = defaults(webdataset, path=tmp_path, on_bad_item="skip")
    assert large_webdataset(**told) is None
    monkeypatch.setattr(row_blocks, "LARGE_TAR_BYTES", 100)
    monkeypatch.setattr(tar_source, "_KEPT_TARS", 2)
    found = large_webdataset(**told)
    check_like_whole(found, webdataset(**told))
    assert found is not None
    message = "has no|the category is empty"
    stopping = large_webdataset(**told | {"on_bad_item": "error"})
    assert stopping is not None
    refuses(BadItemsError, message, list, stopping.parts)
    pack(tmp_path / "train" / "0.tar", {"0.jpg": b"another", "0.cls": "hat"})
    refuses(ValueError, "has changed since it was listed", found.source.load, "train/0.tar/0.jpg")


def test_parquet_with_pictures_is_read_a_file_at_a_time(tmp_path: Path) -> None:
    for number, side in enumerate(("query", "gallery", "gallery")):
        columns = {
            "image": pa.array([{"bytes": b"%d" % n, "path": "x"} for n in range(5)]),
            "label": ["Hats", "Shoes", "", "Hats", "Hats"],
            "price": [1.0, 2.0, None, 3.0, 4.0],
        }
        pq.write_table(pa.table(columns), tmp_path / f"{side}-{number}.parquet", row_group_size=2)
    for sides in (False, True):
        told = defaults(parquet, path=tmp_path, sides=sides, on_bad_item="skip")
        check_like_whole(large_parquet(**told), parquet(**told))
    assert large_parquet(**told | {"files": ["query*"]}) is None
