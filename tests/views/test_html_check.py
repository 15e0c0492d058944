"""The page of a check: what stands in it, that it stays small and that nothing in it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.views.test_html import Page
from visual_search.views import html_page
from visual_search.views.html_check import (
    CheckFinding,
    CheckPage,
    ContactSheet,
    ShownPair,
    check_page,
    sheet_pixels,
)
from visual_search.views.html_page import DETAILS, MAX_BYTES

RNG = np.random.default_rng(0)
SHOWN = RNG.integers(0, 256, (3, 64, 64), dtype=np.uint8)
CATEGORIES = pd.DataFrame({"category": ["hat", "shoe"], "items": [3, 1], "gallery": [2, 1]})
EMPTY = pd.DataFrame(columns=["attribute", "num_filled"])


def page_of(**more: Any) -> CheckPage:
    named = pd.DataFrame({"name": ["a", "b"], "why": ["no file", "twice"]})
    pair = ShownPair([SHOWN, SHOWN], ["a", "b"], "0 bits")
    found = [
        CheckFinding("error", "It leaks.", "Mend it.", named, 2, [pair]),
        CheckFinding("note", "It is so."),
    ]
    page = CheckPage(
        "shop", "Not fit.", {"Items": ("4", "1 refused")}, found, CATEGORIES, EMPTY, EMPTY
    )
    return replace(page, **more)


def text_of(page: CheckPage) -> str:
    return " ".join(" ".join(Page(check_page(page)).texts).split())


def test_the_page_says_what_was_found() -> None:
    text = text_of(page_of(rule="The gallery keeps 3 items."))
    for part in ("shop", "Not fit.", "1 refused", "It leaks.", "Mend it.", "All 2 , by name"):
        assert part.replace(" ,", ",") in text.replace(" ,", ","), part
    assert "The gallery keeps 3 items." in text
    assert "no file" in text  # why an item is named, beside it
    assert text.index("It leaks.") < text.index("It is so.")
    read = Page(check_page(page_of()))
    assert [image["alt"] for image in read.all("img")] == ["a", "b"]


def test_sections_without_content_are_left_out() -> None:
    def headings(page: CheckPage) -> set[str | None]:
        return {section["id"] for section in Page(check_page(page)).all("section")}

    assert headings(page_of()) == {"findings", "categories"}
    sheet = ContactSheet("hat", 3, np.stack([SHOWN] * 2))
    full = page_of(
        sheets=[sheet],
        attributes=pd.DataFrame({"attribute": ["colour"], "num_filled": [3]}),
        pictures=pd.DataFrame({"format": ["JPEG"], "mode": ["RGB"]}),
    )
    assert headings(full) == {"findings", "categories", "attributes", "pictures", "sheets"}
    assert "Nothing was found" in text_of(page_of(findings=[]))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (500, "of 500; findings.json names all"),
        (9000, "of 9,000; findings.json names the first 500"),
    ],
)
def test_more_items_than_are_shown_are_counted(number: int, said: str) -> None:
    named = pd.DataFrame({"name": [f"i{place}" for place in range(500)], "why": ["x"] * 500})
    found = CheckFinding("warning", "Many.", "", named, number)
    assert f"The first 200 {said}" in text_of(page_of(findings=[found]))


def test_a_large_shop_stays_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "DETAILS", DETAILS[-1:])  # below which nothing is left to try
    pictures = RNG.integers(0, 256, (24, 3, 64, 64), dtype=np.uint8)  # noise: hard to compress
    sheets = [ContactSheet(f"c{place}", 24, pictures) for place in range(60)]
    page = check_page(page_of(sheets=sheets))
    assert len(page.encode()) <= MAX_BYTES
    assert page.count("<img") == 62


def test_names_from_the_data_are_text() -> None:
    evil = "<script>alert(1)</script>"
    sheet = ContactSheet(evil, 1, SHOWN[None])
    found = [CheckFinding("error", evil, evil, pd.DataFrame({"name": [evil]}), 1)]
    page = check_page(
        page_of(
            name=evil, findings=found, sheets=[sheet],
            categories=pd.DataFrame({"category": [evil], "items": [1]}),
        )
    )  # fmt: skip
    assert evil not in page
    assert "&lt;script&gt;" in page


def test_a_sheet_keeps_its_pictures_in_order() -> None:
    values = np.arange(14, dtype=np.uint8) * 10
    pictures = np.broadcast_to(values[:, None, None, None], (14, 3, 8, 8)).copy()
    sheet = sheet_pixels(pictures, 8)
    assert sheet.shape == (8 + 3 + 8, 12 * 11 - 3, 3)
    assert sheet[4, [4 + 11 * column for column in range(12)], 0].tolist() == values[:12].tolist()
    assert sheet[15, [4, 15, 26], 0].tolist() == [120, 130, 255]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="severity is 'fatal'; expected one of"):
        check_page(page_of(findings=[CheckFinding("fatal", "It burns.")]))
    sheet = ContactSheet("hat", 1, SHOWN.astype(np.float32)[None])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the sheet of 'hat' is"):
        check_page(page_of(sheets=[sheet]))
