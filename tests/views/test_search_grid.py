"""The grid of a search's answers: sizes, frames, pictures where they belong, long texts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from visual_search.views.search_grid import (
    CELL_PX,
    GAP_PX,
    MARGIN_PX,
    GridPicture,
    GridRow,
    draw_grid,
)


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def middle(column: int, row_height: int, row: int = 0) -> tuple[int, int]:
    left = MARGIN_PX + column * (CELL_PX + GAP_PX)
    top = MARGIN_PX + row * (row_height + GAP_PX)
    return left + CELL_PX // 2, top + CELL_PX // 2


def test_every_picture_stands_in_its_place() -> None:
    colours = [(200, 0, 0), (0, 180, 0), (0, 0, 220)]
    rows = [
        GridRow(
            GridPicture(jpeg(colours[0]), ("query", "a")),
            (GridPicture(jpeg(colours[1]), ("1", "x", "0.1")),),
        ),
        GridRow(
            GridPicture(jpeg(colours[2]), ("query", "b")),
            (
                GridPicture(jpeg(colours[0]), ("1",)),
                GridPicture(jpeg(colours[1], (80, 20)), ("2",)),
            ),
        ),
    ]
    grid = draw_grid(rows)
    height = (grid.height - 2 * MARGIN_PX - GAP_PX) // 2  # of a row: the longest cell's
    for row, column, colour in (
        (0, 0, colours[0]), (0, 1, colours[1]),
        (1, 0, colours[2]), (1, 1, colours[0]), (1, 2, colours[1]),
    ):  # fmt: skip
        found = grid.getpixel(middle(column, height, row))
        assert np.abs(np.subtract(found, colour)).max() < 8
    x, y = middle(2, height, 1)
    assert grid.getpixel((x, y - CELL_PX // 3)) == (255, 255, 255)  # a wide one keeps its shape
    assert grid.getpixel(middle(2, height, 0)) == (255, 255, 255)  # nothing was found there
    assert grid.getpixel((MARGIN_PX, MARGIN_PX)) == (194, 87, 26)  # the query's frame


def test_long_texts_stay_in_their_column() -> None:
    short = draw_grid([GridRow(GridPicture(b"", ("query",)), (GridPicture(b"", ("1",)),))])
    long = draw_grid([GridRow(GridPicture(b"", ("query" * 40,)), (GridPicture(b"", ("1",)),))])
    assert short.size == long.size
    left = MARGIN_PX + CELL_PX
    gap = np.asarray(long)[:, left + 2 : left + GAP_PX - 2]
    assert (gap == 255).all()
    assert (np.asarray(long) != np.asarray(short)).any()


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty; expected at least one query"):
        draw_grid([])


def texts(*lines: str) -> bytes:
    return draw_grid([GridRow(GridPicture(b"", ("query",)), (GridPicture(b"", lines),))]).tobytes()


def test_letters_are_drawn_or_told_to_have_no_font() -> None:
    assert texts("1 · \U000102a0", "\U000102a0") == texts("1 · (no font)", "(no font)")
    assert len({texts(name) for name in ("Röcke", "Rocke", "Räcke", "(no font)")}) == 4


def test_long_ids_keep_their_ends() -> None:
    assert texts("1 · " + "a" * 60 + "1") != texts("1 · " + "a" * 60 + "2")
