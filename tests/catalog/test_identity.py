"""Ids that could be found nowhere again do not become items, whoever reads or writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.catalog.shops import catalog_of, one_refused, refuses
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.identity import id_problem
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.table import table
from visual_search.runs.embedding_files import read_embeddings

UNUSABLE = (" ", "\u00a0", "a\nb", "a\x00", "\x7f", "a\u2028b", "\u200b", ".", "..", "a\x85")
USABLE = ("a/thumbnail", " a ", "7E5", "1.10", "ä #1?&=", "אב", "a.b", "...", "‍👗", "100 %", "\\")


def test_an_unusable_id_is_told_why_and_every_script_is_fine() -> None:
    assert [item_id for item_id in UNUSABLE if "expected" not in id_problem(item_id)] == []
    assert [item_id for item_id in USABLE if id_problem(item_id)] == []


@pytest.mark.parametrize("item_id", ["a\nb", "\u200b", ".."])
def test_readers_refuse_it_by_its_id_and_keep_the_others(item_id: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    listing = pd.DataFrame({"item_id": ["good", item_id], "category": "hats", "image": "a.jpg"})
    listing.to_csv(tmp_path / "t.csv", index=False)
    frame = listing.assign(image=[{"bytes": b"1", "path": None}] * 2, label="hats")
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    reason = rf"^{item_id}: " if item_id.isprintable() and item_id != ".." else ""
    assert one_refused(reason, table, tmp_path / "t.csv") == ["good"]
    assert one_refused(reason, parquet, tmp_path / "t.parquet", item_id="item_id") == ["good"]
    refused = table(tmp_path / "t.csv", on_bad_item="skip").refused
    assert [item.item_id for item in refused] == [item_id]


def test_a_catalogue_and_outside_embeddings_refuse_it_too(tmp_path: Path) -> None:
    refuses(ValueError, r"'a\\nb' holds the control character", catalog_of, item_id=["a\nb"])
    np.save(tmp_path / "e.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "e.txt").write_text("good\na\tb\n", encoding="utf-8")
    refuses(ValueError, r"'a\\tb' holds the control", read_embeddings, str(tmp_path / "e.npy"))


def test_lists_of_ids_keep_blanks_and_lose_the_byte_order_mark(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "e.txt").write_bytes("\ufeff 007 \r\n1e5\r\n\r\nNA\r\ninf\r\n".encode())
    assert read_embeddings(str(tmp_path / "e.npy")).item_ids == [" 007 ", "1e5", "NA", "inf"]


def test_a_catalogue_says_what_its_table_lacks() -> None:
    good = catalog_of(split=["train", ""]).table
    for frame, message in (
        (good.drop(columns=["group", "split"]), r"lacks the column\(s\) \['group', 'split'\]"),
        (good[1:], r"an index other than 0\.\.0"),
        (good.assign(price=["1", 2.5]), r"row 1, column 'price' holds 2\.5 \(float\)"),
        (good.assign(category=["hats", ""]), r"row 1, column 'category' is empty \(1 such"),
        (good.assign(item_id="i000"), "1 duplicate item.*'i000'"),
        (good.assign(split=["train", "valid"]), r"the split\(s\) \['valid'\]"),
    ):
        refuses(ValueError, message, Catalog, "toy", frame, None)
