"""A search's answers as one picture: a row a query, the picture that asked and what it found.

Pillow alone draws it: a search on a server has no plotting library. Its own font has hardly more
than ASCII, so each text is drawn in the first font of the machine that has all of its letters.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL_PX, GAP_PX, MARGIN_PX = 160, 14, 20
SMALL_PX, SMALL_GAP_PX = 37, 4  # of a product's other pictures: as many as the cell is wide
MAX_SMALL = (CELL_PX + SMALL_GAP_PX) // (SMALL_PX + SMALL_GAP_PX)
_TEXT_PX = 13
_LINE_PX = 18
_INK, _FAINT, _FRAME, _PAPER = "#1c1e21", "#6a6f76", "#d5d8dc", "#ffffff"
_QUERY = "#c2571a"  # the colour of queries in all figures of the package
_FONT_FILES = (  # as systems name them: Linux, macOS, Windows
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "segoeui.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc",
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
)  # fmt: skip
_NO_LETTER = "\U0010ffff"  # what every font draws as its sign for a letter that it lacks

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class GridPicture:
    """A picture and what stands below it.

    Attributes:
        picture: An encoded picture; ``b""`` draws an empty frame.
        lines: Short texts, the first in ink, the further ones fainter. One with letters that no
            font has is drawn as "no font": the table beside the grid has it.
        others: The product's other pictures, encoded, drawn small below it: `MAX_SMALL` at most.
    """

    picture: bytes
    lines: tuple[str, ...]
    others: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class GridRow:
    """A query and the items that it found, the nearest first."""

    query: GridPicture
    found: tuple[GridPicture, ...]


def draw_grid(rows: Sequence[GridRow]) -> Image.Image:
    """Returns the grid as an RGB picture: the query at the left, framed, its neighbours beside it.

    Args:
        rows: At least one.

    Raises:
        ValueError: There is no row.

    Example:
        >>> found = GridPicture(b"", ("1  shoe-7", "Shoes", "0.13"))
        >>> draw_grid([GridRow(GridPicture(b"", ("query",)), (found,))]).size
        (374, 254)
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one query: search for something first")
    num_columns = 1 + max(len(row.found) for row in rows)
    num_lines = max(len(cell.lines) for row in rows for cell in (row.query, *row.found))
    strip = 0
    if any(cell.others for row in rows for cell in row.found):
        strip = SMALL_GAP_PX + SMALL_PX
    height = CELL_PX + strip + num_lines * _LINE_PX
    width = 2 * MARGIN_PX + num_columns * CELL_PX + (num_columns - 1) * GAP_PX
    sheet = Image.new(
        "RGB", (width, 2 * MARGIN_PX + len(rows) * height + (len(rows) - 1) * GAP_PX), _PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = MARGIN_PX + number * (height + GAP_PX)
        for column, cell in enumerate((row.query, *row.found)):
            left = MARGIN_PX + column * (CELL_PX + GAP_PX)
            _draw_cell(sheet, pen, cell, (left, top), strip, is_query=column == 0)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    cell: GridPicture,
    place: tuple[int, int],
    strip: int,
    *,
    is_query: bool,
) -> None:
    left, top = place
    _draw_picture(sheet, pen, cell.picture, place, CELL_PX, is_query=is_query)
    for number, picture in enumerate(cell.others[:MAX_SMALL]):
        beside = left + number * (SMALL_PX + SMALL_GAP_PX)
        _draw_picture(sheet, pen, picture, (beside, top + CELL_PX + SMALL_GAP_PX), SMALL_PX)
    for line, text in enumerate(cell.lines):
        place_of_line = (left, top + CELL_PX + strip + 4 + line * _LINE_PX)
        drawn, font = _drawable(text)
        pen.text(place_of_line, _shortened(drawn, font), fill=_FAINT if line else _INK, font=font)


def _draw_picture(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    picture: bytes,
    place: tuple[int, int],
    side: int,
    *,
    is_query: bool = False,
) -> None:
    """Draws a picture, fitted into a framed square of ``side`` pixels."""
    left, top = place
    if picture:
        with Image.open(io.BytesIO(picture)) as image:
            fitted = ImageOps.contain(image.convert("RGB"), (side - 2, side - 2))
        sheet.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
    frame = (left, top, left + side - 1, top + side - 1)
    pen.rectangle(frame, outline=_QUERY if is_query else _FRAME, width=2 if is_query else 1)


def _drawable(text: str) -> tuple[str, Font]:
    """Returns a text on one line and a font that has its letters."""
    text = " ".join(text.split())
    fonts = _fonts()
    for font in fonts:
        if all(_has(font, letter) for letter in set(text)):
            return text, font
    # the rank before it, if any, stays
    start, sign, _ = text.partition(" · ")
    known = f"{start}{sign}" if sign and start.isascii() else ""
    return f"{known}(no font)", fonts[0]


@functools.cache
def _fonts() -> tuple[Font, ...]:
    """Returns the fonts of this machine that a text is looked for in, Pillow's own as the last."""
    files = list(_FONT_FILES)
    plotting = importlib.util.find_spec("matplotlib")  # found, not imported: it carries a font
    if plotting is not None and plotting.origin is not None:
        files.insert(0, str(Path(plotting.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"))
    found: list[Font] = []
    for file in files:
        try:
            found.append(ImageFont.truetype(file, _TEXT_PX))
        except OSError:
            continue  # it is not installed
    return (*found, ImageFont.load_default(_TEXT_PX))


@functools.lru_cache(maxsize=4096)
def _has(font: Font, letter: str) -> bool:
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


def _shortened(text: str, font: Font) -> str:
    """Returns the text, or as much of it as a cell is wide: ids often differ at their end alone."""
    if font.getlength(text) <= CELL_PX:
        return text
    for length in range(len(text) - 1, 0, -1):
        start = text[: length - length // 2].rstrip()
        cut = f"{start}…{text[len(text) - length // 2 :].lstrip()}"
        if font.getlength(cut) <= CELL_PX:
            return cut
    return "…"
