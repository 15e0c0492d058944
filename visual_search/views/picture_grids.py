"""Grids of pictures: reconstructions beside originals, search results as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.chart_rows import fit_width
from visual_search.views.sheet import HEADER_IN, MARGIN_IN, Sheet
from visual_search.views.style import (
    INK,
    MUTED,
    RIGHT,
    RULE,
    WRONG,
    bold,
    quiet_style,
    show_literally,
)
from visual_search.wording import many, number, three_digits

_BRIGHTEST_ERROR = 1.0  # from which on a map is brightest
_ITEMS_A_BAND = 8  # so many columns before a new band begins below
_CELL_IN = 1.3
_GAP_IN = 0.14


@dataclass(frozen=True, eq=False)
class SearchRow:
    """One query and what the search found for it, nearest first.

    Attributes:
        query_image: ``[3, S, S] uint8``.
        query_label: The query's item id, or what else should name it.
        query_category: Its category.
        neighbour_images: ``[K, 3, S, S] uint8``; K may be 0.
        neighbour_labels: K item ids.
        neighbour_categories: K categories.
        squared_distances: ``[K]`` float, >= 0, ascending.
        correct: ``[K] bool``, whether the neighbour counts as relevant under the run's protocol.
        score: The query's average precision in [0, 1]; NaN where the gallery holds nothing
            relevant.

    Raises:
        ValueError: A picture has the wrong shape or dtype, or the lists differ in length.
    """

    query_image: NDArray[np.uint8]
    query_label: str
    query_category: str
    neighbour_images: NDArray[np.uint8]
    neighbour_labels: Sequence[str]
    neighbour_categories: Sequence[str]
    squared_distances: NDArray[np.floating]
    correct: NDArray[np.bool_]
    score: float

    def __post_init__(self) -> None:
        check_pictures(np.asarray(self.query_image)[None], "query_image[None]")
        check_pictures(self.neighbour_images, "neighbour_images")
        lengths = {
            "neighbour_images": len(self.neighbour_images),
            "neighbour_labels": len(self.neighbour_labels),
            "neighbour_categories": len(self.neighbour_categories),
            "squared_distances": len(self.squared_distances),
            "correct": len(self.correct),
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"query {self.query_label!r}: the neighbours' lists differ in length: {lengths}; "
                "give one entry a neighbour in each."
            )


def check_pictures(pictures: NDArray[np.uint8], name: str) -> None:
    """Refuses what is not a stack of RGB pictures.

    Raises:
        ValueError: ``pictures`` is not ``[B, 3, H, W] uint8``.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(
            f"{name} is {list(pictures.shape)} {pictures.dtype}, expected [B, 3, S, S] uint8 "
            "(channels first, values 0 to 255); convert it before."
        )


def _display(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture.transpose(1, 2, 0))  # [3, S, S] -> [S, S, 3]


def reconstruction_grid(
    originals: NDArray[np.uint8],
    reconstructions: NDArray[np.uint8],
    squared_errors: NDArray[np.floating],
    labels: Sequence[str],
    epoch: int | None = None,
) -> Figure:
    """Returns original above reconstruction above a map of the error, one item a column.

    The error of a pixel is the mean over the channels of the squared difference, on the network's
    scale [-1, 1] (at most 4). The map's scale is fixed, so that figures of different epochs can be
    laid side by side, and colours follow its square root, so that small errors show.

    Args:
        originals: ``[B, 3, S, S] uint8``.
        reconstructions: ``[B, 3, S, S] uint8``, same items.
        squared_errors: ``[B]`` mean squared error of each item on [-1, 1], as the loss has it.
        labels: B names, such as the category.
        epoch: Shown in the title as given.

    Raises:
        ValueError: There is no item, shapes differ or are no pictures, or a list has another
            length.
    """
    check_pictures(originals, "originals")
    check_pictures(reconstructions, "reconstructions")
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"originals are {list(originals.shape)} and reconstructions "
            f"{list(reconstructions.shape)}, expected the same shape; give the same items."
        )
    num_items = len(originals)
    if num_items == 0:
        raise ValueError("there are 0 items, expected at least one; choose items to show.")
    if len(squared_errors) != num_items or len(labels) != num_items:
        raise ValueError(
            f"{num_items} items have {len(squared_errors)} squared errors and {len(labels)} "
            "labels, expected one of each an item."
        )
    # uint8 0..255 stands for -1..1: a difference of d is 2 d / 255 there
    difference = (originals.astype(np.float32) - reconstructions.astype(np.float32)) * (2 / 255)
    error_maps = (difference**2).mean(axis=1)  # [B, 3, S, S] -> [B, S, S]
    norm = PowerNorm(gamma=0.5, vmin=0, vmax=_BRIGHTEST_ERROR, clip=True)
    columns = min(num_items, _ITEMS_A_BAND)
    bands = math.ceil(num_items / _ITEMS_A_BAND)
    names_in, step = 1.2, _CELL_IN + _GAP_IN
    band_in = 0.28 + 3 * (_CELL_IN + 0.06) + 0.42
    when = "" if epoch is None else f", epoch {epoch}"
    mean = float(np.mean(squared_errors))
    with quiet_style():
        sheet = Sheet(
            max(MARGIN_IN * 2 + names_in + columns * step - _GAP_IN, 7.2),
            HEADER_IN + bands * band_in + 0.5,
            f"Reconstructions{when}",
            f"mean squared error of {many(num_items, 'item')}: {three_digits(mean)}, "
            "pixels in [-1, 1]",
        )
        for item in range(num_items):
            band, column = divmod(item, _ITEMS_A_BAND)
            x = MARGIN_IN + names_in + column * step
            y = HEADER_IN + band * band_in
            sheet.text(x, y, fit_width(labels[item], _CELL_IN, 9), 9)
            tops = [y + 0.22 + row * (_CELL_IN + 0.06) for row in range(3)]
            sheet.picture(_display(originals[item]), x, tops[0], _CELL_IN, _CELL_IN)
            sheet.picture(_display(reconstructions[item]), x, tops[1], _CELL_IN, _CELL_IN)
            sheet.picture(
                error_maps[item], x, tops[2], _CELL_IN, _CELL_IN, cmap="inferno", norm=norm
            )
            for top in tops:
                sheet.frame(x, top, _CELL_IN, _CELL_IN, RULE, 0.8)
            below = tops[2] + _CELL_IN + 0.05
            error = three_digits(float(squared_errors[item]))
            sheet.text(x, below, f"MSE {error}", 9.5, **bold("MSE"))
            if column == 0:
                for row, name in enumerate(("original", "reconstruction", "squared error")):
                    sheet.text(
                        MARGIN_IN, tops[row] + _CELL_IN / 2, name, 9.5, va="center", color=MUTED
                    )
        sheet.scale(
            MARGIN_IN + names_in,
            HEADER_IN + bands * band_in,
            2.6,
            norm,
            "inferno",
            [_BRIGHTEST_ERROR * part for part in (0, 0.04, 0.25, 1)],
            "squared error of a pixel, mean of R, G, B in [-1, 1]; brightest at "
            f"{_BRIGHTEST_ERROR:g} and above"
            if columns > 4
            else f"squared error of a pixel (max. {_BRIGHTEST_ERROR:g})",
        )
    return show_literally(sheet.figure)


def search_grid(
    rows: Sequence[SearchRow], title: str = "Search results", score_name: str = "AP@5"
) -> Figure:
    """Returns one row a query: the query at the left, then its neighbours, nearest first.

    Right and wrong are told by the frame's colour and by a sign, so that colour is never needed.

    Args:
        rows: The queries in the order to show; all rows may have different numbers of neighbours.
        title: What these queries are, such as "Worst queries".
        score_name: The name of ``SearchRow.score``.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError("rows is empty, expected at least one query; choose queries to show.")
    num_neighbours = max(len(row.neighbour_labels) for row in rows)
    step, row_in, query_gap_in = _CELL_IN + _GAP_IN, _CELL_IN + 0.78, 0.3
    top_in = HEADER_IN + 0.25
    num_scored = sum(not math.isnan(row.score) for row in rows)
    mean = sum(row.score for row in rows if not math.isnan(row.score)) / max(num_scored, 1)
    summary = f"mean {score_name} of these {num_scored}: {number(mean)}; " if num_scored > 1 else ""
    with quiet_style():
        sheet = Sheet(
            max(MARGIN_IN * 2 + (1 + num_neighbours) * step - _GAP_IN + query_gap_in, 7.2),
            top_in + len(rows) * row_in + 0.02,
            title,
            f"{summary}✓ relevant, ✗ not relevant; d²: squared distance between embeddings",
        )
        sheet.text(MARGIN_IN, HEADER_IN, "query", 9.5, color=MUTED)
        first_x = MARGIN_IN + step + query_gap_in
        for rank in range(num_neighbours):
            name = "nearest in gallery" if rank == 0 else str(rank + 1)
            sheet.text(first_x + rank * step, HEADER_IN, name, 9.5, color=MUTED)
        for place, row in enumerate(rows):
            y = top_in + place * row_in
            score = "no relevant item" if math.isnan(row.score) else number(row.score)
            _search_cell(
                sheet, MARGIN_IN, y, row.query_image, row.query_category, row.query_label,
                f"{score_name} {score}" if not math.isnan(row.score) else score,
            )  # fmt: skip
            sheet.frame(MARGIN_IN, y, _CELL_IN, _CELL_IN, "#555555", 1.2)
            for rank in range(len(row.neighbour_labels)):
                x = first_x + rank * step
                right = bool(row.correct[rank])
                distance = three_digits(float(row.squared_distances[rank]))
                _search_cell(
                    sheet, x, y, row.neighbour_images[rank], row.neighbour_categories[rank],
                    row.neighbour_labels[rank], f"d² {distance}",
                )  # fmt: skip
                color = RIGHT if right else WRONG
                sheet.frame(x, y, _CELL_IN, _CELL_IN, color)
                sheet.badge(x + _CELL_IN - 0.08, y + 0.08, "✓" if right else "✗", color)
    return show_literally(sheet.figure)


def _search_cell(
    sheet: Sheet,
    x: float,
    y: float,
    picture: NDArray[np.uint8],
    category: str,
    label: str,
    number: str,
) -> None:
    sheet.picture(_display(picture), x, y, _CELL_IN, _CELL_IN)
    below = y + _CELL_IN + 0.05
    sheet.text(x, below, fit_width(category, _CELL_IN, 9), 9, color=INK)
    sheet.text(x, below + 0.17, number, 9, **bold(number))
    sheet.text(x, below + 0.34, fit_width(label, _CELL_IN, 8), 8, color=MUTED)
