"""Pairs of a query and a gallery item that may be one picture, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.picture_grids import check_pictures
from visual_search.views.sheet import HEADER_IN, MARGIN_IN, Sheet
from visual_search.views.style import (
    INK,
    MUTED,
    RULE,
    WRONG,
    bold,
    quiet_style,
    show_literally,
)
from visual_search.wording import many, one_line, three_digits

MAX_SHOWN = 24

_CELL_IN = 1.2
_INSIDE_IN = 0.04  # between the two pictures of a pair
_GAP_IN = 0.3
_PAIR_IN = 2 * _CELL_IN + _INSIDE_IN
_ROW_IN = _CELL_IN + 0.78
_PAIRS_A_ROW = 4
_COLUMNS_A_CELL = 17  # characters of 9 points that fit under a picture


@dataclass(frozen=True, eq=False)
class DuplicatePair:
    """A query and a gallery item, and how near they are to each other.

    Attributes:
        query_image: ``[3, S, S] uint8``.
        query_label: The query's item id.
        query_category: Its category.
        gallery_image: ``[3, S, S] uint8``.
        gallery_label: The gallery item's id.
        gallery_category: Its category.
        hash_bits: Bits in which the perceptual hashes differ, -1 where they are not close.
        relative_squared_distance: Of the embeddings, in units of the median of random pairs; NaN
            where it is not known.

    Raises:
        ValueError: A picture has the wrong shape or dtype.
    """

    query_image: NDArray[np.uint8]
    query_label: str
    query_category: str
    gallery_image: NDArray[np.uint8]
    gallery_label: str
    gallery_category: str
    hash_bits: int = -1
    relative_squared_distance: float = math.nan

    def __post_init__(self) -> None:
        check_pictures(np.asarray(self.query_image)[None], "query_image[None]")
        check_pictures(np.asarray(self.gallery_image)[None], "gallery_image[None]")


def duplicate_pairs(
    pairs: Sequence[DuplicatePair],
    num_pairs: int | None = None,
) -> Figure:
    """Returns a page of pairs, the query at the left and the gallery item at the right of each.

    Pairs whose categories differ are framed and say so: either the picture is the same and a
    category is wrong, or the pictures only look alike.

    Args:
        pairs: The pairs in the order to show, such as the closest first; the first 24 are shown.
        num_pairs: How many pairs there are in all, also those not given; None for ``len(pairs)``.

    Raises:
        ValueError: There is no pair, or ``num_pairs`` is below ``len(pairs)``.
    """
    if not pairs:
        raise ValueError("pairs is empty, expected at least one; draw no page without duplicates.")
    total = len(pairs) if num_pairs is None else num_pairs
    if total < len(pairs):
        raise ValueError(
            f"num_pairs is {num_pairs} for {len(pairs)} pairs, expected the number of all pairs; "
            "leave it out for those of the list."
        )
    shown = pairs[:MAX_SHOWN]
    columns = min(_PAIRS_A_ROW, len(shown))
    rows = math.ceil(len(shown) / columns)
    which = "" if len(shown) == total else f", {len(shown)} shown"
    num_differ = sum(pair.query_category != pair.gallery_category for pair in shown)
    with quiet_style():
        sheet = Sheet(
            max(MARGIN_IN * 2 + columns * (_PAIR_IN + _GAP_IN) - _GAP_IN, 7.2),
            HEADER_IN + 0.05 + rows * _ROW_IN,
            f"Near duplicates: {many(total, 'pair')}{which}",
            f"left query, right gallery; ≠ categories differ ({num_differ}); "
            "bits of 64; rel. d²: random pair = 1",
        )
        for number, pair in enumerate(shown):
            row, column = divmod(number, columns)
            _draw_pair(
                sheet,
                MARGIN_IN + column * (_PAIR_IN + _GAP_IN),
                HEADER_IN + 0.05 + row * _ROW_IN,
                pair,
            )
    return show_literally(sheet.figure)


def _draw_pair(sheet: Sheet, x: float, y: float, pair: DuplicatePair) -> None:
    differ = pair.query_category != pair.gallery_category
    sides = (
        (x, pair.query_image, pair.query_category, pair.query_label),
        (x + _CELL_IN + _INSIDE_IN, pair.gallery_image, pair.gallery_category, pair.gallery_label),
    )
    below = y + _CELL_IN + 0.05
    for left, picture, category, label in sides:
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))  # [3, S, S] -> [S, S, 3]
        sheet.picture(pixels, left, y, _CELL_IN, _CELL_IN)
        shown = one_line(category, _COLUMNS_A_CELL)
        sheet.text(left, below, shown, 9, color=WRONG if differ else INK)
        sheet.text(left, below + 0.17, one_line(label, 17), 8, color=MUTED)
    closeness = _closeness(pair)
    sheet.text(x, below + 0.34, closeness, 9, **bold(closeness))
    sheet.frame(x, y, _PAIR_IN, _CELL_IN, WRONG if differ else RULE, 2.5 if differ else 0.8)
    if differ:
        sheet.badge(x + _CELL_IN + _INSIDE_IN / 2, y + 0.12, "≠", WRONG)


def _closeness(pair: DuplicatePair) -> str:
    parts = []
    if pair.hash_bits >= 0:
        parts.append(f"{many(pair.hash_bits, 'bit')}")
    if not math.isnan(pair.relative_squared_distance):
        parts.append(f"rel. d² {three_digits(pair.relative_squared_distance)}")
    return ", ".join(parts) or "not measured"
