"""Which categories are found where another was asked for: shares, and a heat map of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from visual_search.views.chart_rows import (
    chart_page,
    names_width_in,
    number_cell,
)
from visual_search.views.sheet import MARGIN_IN, axes_in_inches
from visual_search.views.style import (
    HEAT,
    HEAT_INK,
    HEAT_PAPER,
    INK,
    MUTED,
    OTHER_NAME,
    alphabetical,
    group_rare,
    quiet_style,
    show_literally,
)
from visual_search.wording import MISSING, one_line

TITLE = "What was found where a category was asked for"
MAX_SHOWN = 40  # more categories are too small to read; the rarest become one
_NAME_COLUMNS = 24
# Where each colour begins. The steps grow with the share: small shares are what a confusion is
# about, and an even scale would leave them all white.
_STEPS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
_MIN_CELL_IN = 0.25  # smaller cells carry no number
_FIRST_DARK = 6  # the step from which on numbers are written light: both are at least 4.9 to 1


def confusion_matrix(asked: Sequence[str], found: Sequence[Iterable[str]]) -> Figure:
    """Returns a heat map of shares: a row a query category, a column a retrieved one.

    Share of category c in row q = (items of category c among those found for all queries of
    category q) / (items found for all queries of category q). Every retrieved item counts once,
    also for queries that are left out of the metrics; queries with an empty list add nothing.

    Both are in alphabetical order, as in every other table, so that a name is found; the outlined
    cells are the right ones. Beyond 40 categories the rarest become "other". Numbers are per cent,
    written where the cells are large enough (up to about 32 categories).

    Args:
        asked: Q categories of the queries.
        found: Q lists of the categories of what was retrieved, best first; they may be empty.

    Raises:
        ValueError: There is no query, or the lengths differ.
    """
    if len(asked) != len(found):
        raise ValueError(
            f"there are {len(asked)} categories asked for and {len(found)} lists of what was "
            "found, expected one list a query; take both from the same table."
        )
    if len(asked) == 0:
        raise ValueError("asked is empty, expected one category a query; check the queries.")
    asked = [str(name) for name in asked]
    lists = [[] if names is None else [str(name) for name in names] for names in found]
    everything = [*asked, *(name for names in lists for name in names)]
    kept = group_rare(everything, MAX_SHOWN)
    num_grouped = len(set(everything)) - len(set(kept)) + 1
    last = None
    if len(set(everything)) > MAX_SHOWN:
        renamed = dict(zip(everything, kept, strict=True))
        asked = [renamed[name] for name in asked]
        lists = [[renamed[name] for name in names] for names in lists]
        last = OTHER_NAME
    rows, columns, counts = _counts(asked, lists, last)
    shares = _shares(counts)
    notes = [
        "rows: category of the query; columns: category of what was retrieved; per cent of all "
        "that was retrieved for the row",
        "both alphabetical; outlined: the query's own category",
    ]
    if last is not None:
        notes[1] += f"; {last}: the {num_grouped} rarest categories together"
    if not counts.sum(axis=1).all():
        notes.append("a row of dashes: nothing was retrieved")
    with quiet_style():
        row_names = [one_line(name, _NAME_COLUMNS) for name in rows]
        column_names = [one_line(name, _NAME_COLUMNS) for name in columns]
        cell_in = min(max(8.0 / len(columns), 0.2), 0.5)
        left = MARGIN_IN + max(names_width_in(row_names), 1.2)
        above = names_width_in(column_names)
        wide, high = cell_in * len(columns), cell_in * len(rows)
        figure, header_in = chart_page(
            max(left + wide + 1.75 + MARGIN_IN, 8.0), above + high + 0.75, TITLE, notes
        )
        axes = axes_in_inches(figure, left, header_in + above, wide, high)
        _cells(axes, shares, cell_in)
        axes.set_xticks(np.arange(len(columns)) + 0.5, labels=column_names, rotation=90)
        axes.set_yticks(np.arange(len(rows)) + 0.5, labels=row_names)
        axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, pad=4)
        axes.tick_params(axis="both", labelsize=min(10.0, 50 * cell_in), labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for y, name in enumerate(rows):
            x = columns.index(name)
            axes.add_patch(
                Rectangle(
                    (x, y), 1, 1, fill=False, edgecolor=HEAT_INK, linewidth=1.1, zorder=3,
                    clip_on=False,
                )
            )  # fmt: skip
        _totals(axes, asked, rows, counts, cell_in)
        _scale(figure, left, header_in + above + high + 0.2)
    return show_literally(figure)


def _counts(
    asked: Sequence[str], found: Sequence[Sequence[str]], last: str | None = None
) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Returns row names, column names and ``[rows, columns] int64`` items; ``last`` ends both."""

    def ordered(names: set[str]) -> list[str]:
        return sorted(alphabetical(list(names)), key=lambda name: name == last)

    rows = ordered(set(asked))
    columns = ordered({*asked, *(name for names in found for name in names)})
    row_at = {name: i for i, name in enumerate(rows)}
    column_at = {name: i for i, name in enumerate(columns)}
    pairs = Counter(
        (row_at[name], column_at[other])
        for name, others in zip(asked, found, strict=True)
        for other in others
    )
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for (row, column), number in pairs.items():
        counts[row, column] = number
    return rows, columns, counts


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divides each row by its sum; a row of zeros becomes NaN."""
    totals = counts.sum(axis=1, keepdims=True).astype(np.float64)
    totals[totals == 0] = np.nan
    shares: NDArray[np.float64] = counts / totals
    return shares


def _cells(axes: Axes, shares: NDArray[np.float64], cell_in: float) -> None:
    """Draws one square a cell, and its number where there is room."""
    num_rows, num_columns = shares.shape
    axes.set_xlim(0, num_columns)
    axes.set_ylim(num_rows, 0)
    steps = np.searchsorted(_STEPS, np.nan_to_num(shares) + 1e-12, side="right") - 1
    axes.pcolormesh(
        steps, cmap=ListedColormap(HEAT), vmin=-0.5, vmax=len(HEAT) - 0.5,
        edgecolors=HEAT_PAPER, linewidth=0.6,
    )  # fmt: skip
    size = min(9.0, 26 * cell_in)
    for y, x in np.ndindex(num_rows, num_columns):
        empty = np.isnan(shares[y, x])
        # a number below half a per cent would read 0
        if not empty and (cell_in < _MIN_CELL_IN or shares[y, x] < _STEPS[1]):
            continue
        axes.text(
            x + 0.5, y + 0.52, MISSING if empty else f"{100 * shares[y, x]:.0f}",
            ha="center", va="center", fontsize=size,
            color=HEAT_PAPER if steps[y, x] >= _FIRST_DARK else HEAT_INK,
        )  # fmt: skip


def _totals(
    axes: Axes, asked: Sequence[str], rows: list[str], counts: NDArray[np.int64], cell_in: float
) -> None:
    """Writes beside each row how many queries asked, and how many items they retrieved."""
    asked_by = Counter(asked)
    size = min(9.0, 50 * cell_in)
    width = counts.shape[1]
    for inches, head, numbers in (
        (0.75, "n queries", [asked_by[name] for name in rows]),
        (1.55, "n retrieved", counts.sum(axis=1).tolist()),
    ):
        x = width + inches / cell_in
        number_cell(axes, x, -0.06 / cell_in, head, va="bottom")
        for y, number in enumerate(numbers):
            number_cell(axes, x, y + 0.52, f"{number:,}", fontsize=size)


def _scale(figure: Figure, left: float, top: float) -> None:
    """Draws what the colours stand for: one box a step, with the share at which it begins."""
    axes = axes_in_inches(figure, left, top, 0.42 * len(HEAT), 0.16)
    axes.set_xlim(0, len(HEAT))
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    for step, color in enumerate(HEAT):
        axes.add_patch(Rectangle((step, 0), 1, 1, facecolor=color, edgecolor="none"))
        below = f"{100 * _STEPS[step]:g}"
        axes.text(step, -0.3, below, va="top", ha="center", fontsize=8, color=MUTED)
    axes.text(len(HEAT), -0.3, "100 %", va="top", ha="center", fontsize=8, color=MUTED)
