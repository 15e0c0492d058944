"""Large tables, some rows at a time: the items that reading them whole gives."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.catalog.shops import refuses, saved
from visual_search.catalog.catalog import BadItemsError, RefusedItem
from visual_search.catalog.readers import row_blocks
from visual_search.catalog.readers.row_blocks import large_table
from visual_search.catalog.readers.table import TableSettings, table

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
