"""Ids that could be found nowhere again do not become items, whoever reads or writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visual_search.catalog.catalog import BadItemsError, Catalog
from visual_search.catalog.identity import id_problem
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.table import table
from visual_search.runs.embedding_files import read_embeddings

UNUSABLE = (" ", "\u00a0", "a\nb", "a\x00", "\x7f", "a\u2028b", "\u200b", ".", "..", "a\x85")
USABLE = ("a/thumbnail", " a ", "7E5", "1.10", "ä #1?&=", "אב", "a.b", "...", "‍👗", "100 %", "\\")


@pytest.mark.parametrize("item_id", UNUSABLE)
def test_an_unusable_id_is_told_why_and_what_to_do(item_id: str) -> None:
    assert "expected" in id_problem(item_id)


@pytest.mark.parametrize("item_id", USABLE)
def test_slashes_blanks_and_every_script_are_fine(item_id: str) -> None:
    assert id_problem(item_id) == ""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg")
    return tmp_path


@pytest.mark.parametrize("item_id", ["a\nb", "\u200b", ".."])
def test_readers_refuse_the_item_by_its_id_and_keep_the_others(
    item_id: str, pictures: Path
) -> None:
    listing = pd.DataFrame({"item_id": ["good", item_id], "category": "hats", "image": "a.jpg"})
    listing.to_csv(pictures / "t.csv", index=False)
    with pytest.raises(BadItemsError) as error:
        table(pictures / "t.csv")
    assert repr(item_id) in str(error.value)
    kept = table(pictures / "t.csv", on_bad_item="skip")
    assert kept.table["item_id"].tolist() == ["good"]
    assert [refused.item_id for refused in kept.refused] == [item_id]

    picture = {"bytes": (pictures / "a.jpg").read_bytes(), "path": None}
    frame = listing.assign(image=[picture, picture], label="hats")
    frame.to_parquet(pictures / "t.parquet", index=False)
    kept = parquet(pictures / "t.parquet", item_id="item_id", on_bad_item="skip")
    assert [refused.item_id for refused in kept.refused] == [item_id]


def test_a_catalogue_and_outside_embeddings_refuse_it_too(pictures: Path) -> None:
    columns = {"item_id": ["a\nb"], "image": "a", "category": "c", "group": "g", "split": ""}
    with pytest.raises(ValueError, match=r"'a\\nb' holds the control character"):
        Catalog("shop", pd.DataFrame(columns), None)  # type: ignore[arg-type]
    np.save(pictures / "e.npy", np.eye(2, dtype=np.float32))
    (pictures / "e.txt").write_text("good\na\tb\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'a\\tb' holds the control character"):
        read_embeddings(str(pictures / "e.npy"))


def test_lists_of_ids_keep_blanks_and_lose_the_byte_order_mark(pictures: Path) -> None:
    np.save(pictures / "e.npy", np.eye(4, dtype=np.float32))
    (pictures / "e.txt").write_bytes("\ufeff 007 \r\n1e5\r\n\r\nNA\r\ninf\r\n".encode())
    assert read_embeddings(str(pictures / "e.npy")).item_ids == [" 007 ", "1e5", "NA", "inf"]
