"""The grid of a search's answers: frames, pictures where they belong, long texts."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visual_search.views.search_grid import (
    CELL_PX,
    GAP_PX,
    MARGIN_PX,
    MAX_SMALL,
    SMALL_GAP_PX,
    SMALL_PX,
    GridPicture,
    GridRow,
    draw_grid,
)

RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 180, 0), (0, 0, 220), (255, 255, 255)


def shown(colour: tuple[int, int, int], *lines: str, width: int = 40) -> GridPicture:
    file = io.BytesIO()
    Image.new("RGB", (width, 1600 // width), colour).save(file, "JPEG", quality=95)
    return GridPicture(file.getvalue(), lines)


def grid_of(query: str, *lines: str) -> Image.Image:
    return draw_grid([GridRow(GridPicture(b"", (query,)), (GridPicture(b"", lines),))])


def test_every_picture_stands_in_its_place() -> None:
    wide = shown(GREEN, "2", width=80)
    grid = draw_grid(
        [
            GridRow(shown(RED, "query", "a"), (shown(GREEN, "1", "x", "0.1"),)),
            GridRow(shown(BLUE, "query", "b"), (shown(RED, "1"), wide)),
        ]
    )
    height = (grid.height - 2 * MARGIN_PX - GAP_PX) // 2  # of a row: the longest cell's

    def at(row: int, column: int, above_px: int = 0) -> Any:
        x = MARGIN_PX + column * (CELL_PX + GAP_PX) + CELL_PX // 2
        y = MARGIN_PX + row * (height + GAP_PX) + CELL_PX // 2 - above_px
        return grid.getpixel((x, y))

    found = [at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(1, 2)]
    np.testing.assert_allclose(found, [RED, GREEN, BLUE, RED, GREEN], atol=8)
    assert at(1, 2, above_px=CELL_PX // 3) == WHITE, "a wide one keeps its shape"
    assert at(0, 2) == WHITE, "nothing was found there"
    assert grid.getpixel((MARGIN_PX, MARGIN_PX)) == (194, 87, 26), "the query's frame"


def test_long_texts_stay_in_their_column_and_keep_their_ends() -> None:
    short, long = grid_of("query", "1"), grid_of("query" * 40, "1")
    assert short.size == long.size
    left = MARGIN_PX + CELL_PX
    assert (np.asarray(long)[:, left + 2 : left + GAP_PX - 2] == 255).all()
    assert short.tobytes() != long.tobytes()
    assert grid_of("q", "1 · " + "a" * 60 + "1") != grid_of("q", "1 · " + "a" * 60 + "2")


def test_letters_are_drawn_or_told_to_have_no_font() -> None:
    told = grid_of("q", "1 · (no font)", "(no font)")
    assert grid_of("q", "1 · \U000102a0", "\U000102a0") == told
    names = ("Röcke", "Rocke", "Räcke", "(no font)")
    assert len({grid_of("q", name).tobytes() for name in names}) == 4


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty; expected at least one query"):
        draw_grid([])


def test_a_products_other_pictures_stand_small_below_it() -> None:
    alone, others = shown(GREEN, "1"), (shown(RED).picture, b"", *[shown(BLUE).picture] * 9)
    found = GridPicture(shown(GREEN).picture, ("1",), others)
    grid = draw_grid([GridRow(shown(RED, "query"), (found, alone))])
    left, middle = MARGIN_PX + CELL_PX + GAP_PX, MARGIN_PX + CELL_PX + SMALL_GAP_PX + SMALL_PX // 2
    step = SMALL_PX + SMALL_GAP_PX
    seen = [grid.getpixel((left + SMALL_PX // 2 + step * n, middle)) for n in range(MAX_SMALL)]
    np.testing.assert_allclose(seen, [RED, WHITE, *[BLUE] * (MAX_SMALL - 2)], atol=8)
    assert MAX_SMALL * step - SMALL_GAP_PX <= CELL_PX
    beside = grid.getpixel((left + CELL_PX + GAP_PX + SMALL_PX // 2, middle))
    np.testing.assert_allclose(beside, WHITE, atol=8)
    without = draw_grid([GridRow(shown(RED, "query"), (alone,))])
    assert grid.height == without.height + step
