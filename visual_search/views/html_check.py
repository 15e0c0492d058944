"""The check of a catalogue: what was found before anybody trains, and what the pictures look like.

One page: the findings, the gravest first, the categories, attributes and pictures in numbers, who
was refused, and a contact sheet for each category.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.views.html_figures import picture_uri
from visual_search.views.html_page import Detail, picture, render
from visual_search.views.html_tables import plain_table
from visual_search.views.picture_grids import check_pictures

SIGNS = {"error": "✗", "warning": "!", "note": ""}
_MAX_PAIRS = 8  # pictures or pairs a finding
_SHEET_COLUMNS = 12
_SHEET_PX = 72  # so that twelve fit into the width of the page
_GAP_PX = 3


@dataclass(frozen=True, eq=False)
class ShownPair:
    """One picture or two side by side.

    Attributes:
        pictures: One or two, ``[3, S, S] uint8``.
        labels: Their item ids.
        note: What they have.
    """

    pictures: Sequence[NDArray[np.uint8]]
    labels: Sequence[str]
    note: str = ""


@dataclass(frozen=True, eq=False)
class CheckFinding:
    """One finding.

    Attributes:
        severity: ``error``, ``warning`` or ``note``.
        what: One sentence.
        advice: What to do.
        table: Who is concerned, or None.
        num_items: All who are concerned; the table may hold the first of them.
        pairs: Some of them as pictures.
    """

    severity: str
    what: str
    advice: str = ""
    table: pd.DataFrame | None = None
    num_items: int = 0
    pairs: Sequence[ShownPair] = ()


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Some pictures of one category, evenly spread over its items.

    Attributes:
        category: Its name.
        num_items: All its items.
        pictures: ``[n, 3, S, S] uint8``.
    """

    category: str
    num_items: int
    pictures: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CheckPage:
    """What the page shows.

    Attributes:
        name: The catalogue's.
        standing: One sentence: may one train?
        numbers: Name -> value and a remark, such as ``{"Items": ("300", "")}``.
        findings: The gravest first.
        categories: One row a category; see `catalog.checks.category_table`.
        attributes: One row an attribute.
        pictures: One row a format and mode.
        sheets: One a category.
        rule: What the gallery keeps, in a sentence.
        date: When it was made, as it is to be written.
    """

    name: str
    standing: str
    numbers: Mapping[str, tuple[str, str]]
    findings: Sequence[CheckFinding]
    categories: pd.DataFrame
    attributes: pd.DataFrame
    pictures: pd.DataFrame
    sheets: Sequence[ContactSheet] = ()
    rule: str = ""
    date: str = ""


def check_page(page: CheckPage) -> str:
    """Returns the check as one HTML text of at most 5,000,000 bytes as UTF-8.

    Where there are too many pictures and rows, they become smaller and fewer, and the page says
    how many there are.

    Args:
        page: What to show.

    Raises:
        ValueError: A severity is another word, or a picture is no ``[3, S, S] uint8``.

    Example:
        >>> empty = pd.DataFrame({"category": ["hat"], "items": [3]})
        >>> found = [CheckFinding("note", "All is well.")]
        >>> page = CheckPage("shop", "Fit to train on.", {}, found, empty, empty, empty)
        >>> "Fit to train on." in check_page(page)
        True
    """
    for finding in page.findings:
        if finding.severity not in SIGNS:
            raise ValueError(
                f"a finding's severity is {finding.severity!r}; expected one of {list(SIGNS)}: "
                "give it one of these"
            )
    for sheet in page.sheets:
        check_pictures(sheet.pictures, f"the sheet of {sheet.category!r}")
    return render("check.html", lambda detail: _context(page, detail))


def _context(page: CheckPage, detail: Detail) -> dict[str, object]:
    sections = [("findings", "Findings"), ("categories", "Categories")]
    sections += [("attributes", "Attributes")] * bool(len(page.attributes))
    sections += [("pictures", "Pictures")] * bool(len(page.pictures))
    sections += [("sheets", "Contact sheets")] * bool(page.sheets)
    return {
        "page": page,
        "sections": sections,
        "findings": [_finding(finding, detail) for finding in page.findings],
        "categories": _titled(page.categories, detail),
        "attributes": _titled(page.attributes, detail),
        "pictures": _titled(page.pictures, detail),
        "sheets": [_sheet(sheet, detail) for sheet in page.sheets],
    }


def _titled(table: pd.DataFrame, detail: Detail) -> dict[str, object]:
    titles = {"num_filled": "filled", "num_values": "values", "median_kb": "median kB"}
    return plain_table(table.rename(columns=titles), detail.max_table_rows)


def _finding(finding: CheckFinding, detail: Detail) -> dict[str, object]:
    table = finding.table
    # Every finding has a table of its own: together they may hold no more than one page does.
    most = max(20, detail.max_table_rows // 15)
    return {
        "severity": finding.severity,
        "sign": SIGNS[finding.severity],
        "what": finding.what,
        "advice": finding.advice,
        "table": plain_table(table, most) if table is not None and len(table) else None,
        "given": finding.num_items,
        "pairs": [
            {
                "pictures": [picture(each, detail) for each in pair.pictures],
                "labels": list(pair.labels),
                "note": pair.note,
            }
            for pair in finding.pairs[:_MAX_PAIRS]
        ],
    }


def _sheet(sheet: ContactSheet, detail: Detail) -> dict[str, object]:
    side = min(detail.picture_px, _SHEET_PX, sheet.pictures.shape[-1])
    pixels = sheet_pixels(sheet.pictures, side)
    source, width, height = picture_uri(pixels, max(pixels.shape[:2]), detail.quality)
    return {
        "category": sheet.category,
        "num_items": sheet.num_items,
        "shown": len(sheet.pictures),
        "source": source,
        "width": width,
        "height": height,
    }


def sheet_pixels(pictures: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Returns pictures in rows of twelve on white: ``[n, 3, S, S] -> [H, W, 3] uint8``.

    Example:
        >>> sheet_pixels(np.zeros((13, 3, 8, 8), np.uint8), 4).shape  # 12 columns of 4 + 3, 2 rows
        (11, 81, 3)
    """
    from PIL import Image

    columns = min(max(len(pictures), 1), _SHEET_COLUMNS)
    rows = max(math.ceil(len(pictures) / columns), 1)
    step = side_px + _GAP_PX
    canvas = np.full((rows * step - _GAP_PX, columns * step - _GAP_PX, 3), 255, np.uint8)
    for place, pixels in enumerate(pictures):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        small = np.asarray(image.resize((side_px, side_px), Image.Resampling.LANCZOS))
        row, column = divmod(place, columns)
        top, left = row * step, column * step
        canvas[top : top + side_px, left : left + side_px] = small
    return canvas
