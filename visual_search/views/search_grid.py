"""A search's answers as one picture: a row a query, the picture that asked and what it found.

Pillow alone draws it: a search on a server has no plotting library.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL_PX, GAP_PX, MARGIN_PX = 160, 14, 20
_TEXT_PX = 13
_LINE_PX = 18
_INK, _FAINT, _FRAME, _PAPER = "#1c1e21", "#6a6f76", "#d5d8dc", "#ffffff"
_QUERY = "#c2571a"  # the colour of queries in all figures of the package


@dataclass(frozen=True)
class Cell:
    """A picture and what stands below it.

    Attributes:
        picture: An encoded picture; ``b""`` draws an empty frame.
        lines: Short texts, the first in ink, the further ones fainter.
    """

    picture: bytes
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A query and the items that it found, the nearest first."""

    query: Cell
    found: tuple[Cell, ...]


def draw_grid(rows: Sequence[Row]) -> Image.Image:
    """Gives the grid as an RGB picture: the query at the left, framed, its neighbours beside it.

    Args:
        rows: At least one.

    Raises:
        ValueError: There is no row.

    Example:
        >>> row = Row(Cell(b"", ("query",)), (Cell(b"", ("1  shoe-7", "Shoes", "0.13")),))
        >>> draw_grid([row]).size
        (374, 254)
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one query: search for something first")
    num_columns = 1 + max(len(row.found) for row in rows)
    num_lines = max(len(cell.lines) for row in rows for cell in (row.query, *row.found))
    height = CELL_PX + num_lines * _LINE_PX
    width = 2 * MARGIN_PX + num_columns * CELL_PX + (num_columns - 1) * GAP_PX
    sheet = Image.new(
        "RGB", (width, 2 * MARGIN_PX + len(rows) * height + (len(rows) - 1) * GAP_PX), _PAPER
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PX)
    for number, row in enumerate(rows):
        top = MARGIN_PX + number * (height + GAP_PX)
        for column, cell in enumerate((row.query, *row.found)):
            left = MARGIN_PX + column * (CELL_PX + GAP_PX)
            _draw_cell(sheet, pen, font, cell, (left, top), is_query=column == 0)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    cell: Cell,
    place: tuple[int, int],
    *,
    is_query: bool,
) -> None:
    left, top = place
    if cell.picture:
        with Image.open(io.BytesIO(cell.picture)) as image:
            inside = CELL_PX - 2
            fitted = ImageOps.contain(image.convert("RGB"), (inside, inside))
        sheet.paste(
            fitted, (left + (CELL_PX - fitted.width) // 2, top + (CELL_PX - fitted.height) // 2)
        )
    frame = (left, top, left + CELL_PX - 1, top + CELL_PX - 1)
    pen.rectangle(frame, outline=_QUERY if is_query else _FRAME, width=2 if is_query else 1)
    for line, text in enumerate(cell.lines):
        place_of_line = (left, top + CELL_PX + 4 + line * _LINE_PX)
        pen.text(place_of_line, _shortened(text, font), fill=_FAINT if line else _INK, font=font)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Gives the text, or as much of its start as a cell is wide, on one line."""
    text = " ".join(text.split())
    if font.getlength(text) <= CELL_PX:
        return text
    while text and font.getlength(text + "…") > CELL_PX:
        text = text[:-1]
    return text + "…"
