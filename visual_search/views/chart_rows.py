"""What charts of horizontal rows share: the page and its notes, measured names, axes, whiskers."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from visual_search.views.sheet import MARGIN_IN, new_figure
from visual_search.views.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    bold,
)
from visual_search.wording import first_by_size, interval, many, one_line

if TYPE_CHECKING:
    import pandas as pd

NAME_COLUMNS = 28  # longer category names are cut
MAX_HIGH_IN = 27  # of a chart's rows, 100 categories; FreeType ends at 65,536 pixels
LINE_IN = 0.19  # from one line of notes to the next
# Letters are fitted to whole pixels, which makes a coarser drawing up to 7 % wider.
_MEASURED_DPI = (80, 100)
_ROUNDING = 1e-9  # means of fractions leave [0, 1] by less


def text_width_in(text: str, size: float = 10.0, *, heavy: bool = False) -> float:
    """Returns the width of ``text`` in inches as it is drawn within `quiet_style`.

    Example:
        >>> text_width_in("WWWW") > 2 * text_width_in("iiii")
        True
    """
    fonts = (*rcParams["font.family"], *rcParams["font.sans-serif"])  # of the style that holds
    return _width_in(text, size, heavy, fonts)


@functools.lru_cache(maxsize=4096)  # the same categories stand in every chart of a run
def _width_in(text: str, size: float, heavy: bool, fonts: tuple[str, ...]) -> float:
    settings = bold(text) if heavy else {}
    font = FontProperties(
        family=settings.get("fontfamily"), weight=settings.get("fontweight"), size=size
    )
    with warnings.catch_warnings():
        # a glyph that no font has is drawn, and measured, as a box; the drawing itself warns
        warnings.simplefilter("ignore", UserWarning)
        renderer: Any = RendererAgg
        widths = [
            renderer(1, 1, dpi).get_text_width_height_descent(text, font, False)[0] / dpi
            for dpi in _MEASURED_DPI
        ]
    return float(max(widths))


def fit_width(
    text: str,
    width_in: float,
    size: float = 10.0,
    *,
    heavy: bool = False,
) -> str:
    """Returns the text on one line, cut in the middle where it is wider than ``width_in``.

    Example:
        >>> fit_width("run_0123456789", 0.8)
        'run_…789'
    """

    def cut_to(length: int) -> str:
        tail = length // 2
        return shown[: length - tail] + "…" + shown[len(shown) - tail :]

    shown = one_line(text, 1000)
    if text_width_in(shown, size, heavy=heavy) <= width_in:
        return shown
    low, high = 1, len(shown)  # the longest cut that fits, by halving
    while low < high:
        middle = (low + high + 1) // 2
        if text_width_in(cut_to(middle - 1), size, heavy=heavy) <= width_in:
            low = middle
        else:
            high = middle - 1
    return cut_to(low - 1)


def names_width_in(names: Sequence[str]) -> float:
    """Returns the room that the longest name needs left of an axis, in inches."""
    return max(0.4, *(text_width_in(name) for name in names)) + 0.15


def chart_page(
    width_in: float,
    body_in: float,
    title: str,
    notes: Sequence[str],
    legend: Sequence[tuple[str, str, str]] = (),
) -> tuple[Figure, float]:
    """Returns a figure with its title, notes and legend, and the depth at which the body starts.

    Args:
        width_in: Of the page.
        body_in: The height that the body needs below the header.
        title: Cut where it is wider than the page.
        notes: Sentences below the title; each starts a line and is wrapped.
        legend: ``(marker, colour, text)``, each on a line of its own below the notes.
    """
    room_in = width_in - 2 * MARGIN_IN
    lines = [line for note in notes for line in _wrapped(note, room_in, 9.5)]
    header_in = 0.61 + LINE_IN * (len(lines) + len(legend))
    height_in = header_in + body_in
    figure = new_figure(width_in, height_in, fit_width(title, room_in, 13.0, heavy=True))
    depth_in = 0.57
    left = MARGIN_IN / width_in
    for line in lines:
        y = 1 - depth_in / height_in
        figure.text(left, y, line, fontsize=9.5, va="baseline", color=MUTED)
        depth_in += LINE_IN
    for marker, color, text in legend:
        y = 1 - depth_in / height_in
        figure.add_artist(
            Line2D(
                [left + 0.06 / width_in], [y + 0.045 / height_in], linestyle="none",
                marker=marker, color=color, markeredgecolor=INK if marker == "d" else color,
                markersize=7, markeredgewidth=0.8, transform=figure.transFigure,
            )
        )  # fmt: skip
        shown = fit_width(text, room_in - 0.2, 9.5)
        x = left + 0.2 / width_in
        figure.text(x, y, shown, fontsize=9.5, va="baseline", color=INK)
        depth_in += LINE_IN
    return figure, header_in


def _wrapped(note: str, width_in: float, size: float) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in note.split(" "):  # not at a no-break space
        longer = f"{line} {word}" if line else word
        if line and text_width_in(longer, size) > width_in:
            lines.append(line)
            line = word
        else:
            line = longer
    return [fit_width(each, width_in, size) for each in [*lines, line]]


def horizontal_axes(axes: Axes, names: Sequence[str], limit: float) -> None:
    """Prepares axes for horizontal bars: names from top to bottom, values from 0 to ``limit``."""
    axes.set_xlim(0, limit)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", pad=6)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)


def fraction_axis(axes: Axes, metric_title: str) -> None:
    """Returns the x axis its ticks from 0 to 1 and says which way is better."""
    axes.set_xticks(np.linspace(0, 1, 6))
    shown = fit_width(metric_title, 2.2, 9.5)
    axes.set_xlabel(f"{shown} (0 to 1, higher is better)", fontsize=9.5)


ROUGH_NOTE = "dotted: a rough interval, which fewer than 6 effective groups carry"


def whisker(
    axes: Axes, y: float, low: float, high: float, color: str = INK, *, rough: bool = False
) -> None:
    """Draws an interval as a line with caps at height ``y``, dotted where it is rough.

    Nothing is drawn where an end is NaN.
    """
    if math.isnan(low) or math.isnan(high):
        return
    axes.plot(
        [low, high], [y, y], color=color, linewidth=1.2, marker="|", markersize=5,
        markeredgewidth=1.2, linestyle=(0, (1, 1.5)) if rough else "-", solid_capstyle="butt",
        clip_on=False, zorder=4, label="_whisker",
    )  # fmt: skip


def point(
    axes: Axes, value: float, y: float, low: float, high: float, color: str, marker: str,
    *, filled: bool = True, rough: bool = False,
) -> None:  # fmt: skip
    """Draws a value with its interval at height ``y``; nothing where the value is NaN."""
    if math.isnan(value):
        return
    whisker(axes, y, low, high, color, rough=rough)
    axes.plot(
        [value], [y], linestyle="none", marker=marker, markersize=5.5, markeredgecolor=color,
        markerfacecolor=color if filled else PAPER, markeredgewidth=1.1, clip_on=False, zorder=5,
        label="_point",
    )  # fmt: skip


def row_lines(axes: Axes, num_rows: int) -> None:
    """Separates rows that hold several points each."""
    for y in range(num_rows - 1):
        axes.axhline(y + 0.5, color=RULE, linewidth=0.8, zorder=0)


def bracket(axes: Axes, x: float, y: float, low: float, high: float) -> None:
    """Writes an interval beside the plot, left-aligned at ``x``; nothing where an end is NaN."""
    if not (math.isnan(low) or math.isnan(high)):
        number_cell(axes, x, y, interval(low, high), ha="left")


def number_cell(axes: Axes, x: float, y: float, text: str, **kwargs: Any) -> None:
    """Writes one number of a column beside the plot, right-aligned at ``x``."""
    settings: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": 9, "color": MUTED}
    axes.text(x, y, text, **(settings | kwargs))


def best_first(names: Sequence[str], values: NDArray[np.float64]) -> list[int]:
    """Returns the rows in the order drawn: highest value first, NaN last, ties by name.

    Example:
        >>> best_first(["b", "a", "c"], np.array([0.5, 0.5, np.nan]))
        [1, 0, 2]
    """
    return sorted(
        range(len(names)),
        key=lambda i: (math.isnan(values[i]), -np.nan_to_num(values[i]), names[i].casefold()),
    )


def largest_rows(
    names: Sequence[str], sizes: Sequence[int], what: str, row_in: float = 0.27
) -> tuple[list[int], str]:
    """Returns the categories that a chart has room for, in their order, and a note that says so.

    Args:
        names: Of all categories.
        sizes: What makes one weigh more than another.
        what: That is in words, as "queries".
        row_in: Height of a row.

    Example:
        >>> largest_rows(["a", "b"], [1, 2], "items")
        ([0, 1], '2 categories')
        >>> largest_rows(["a", "b", "c"], [1, 3, 2], "items", row_in=10)
        ([1, 2], '3 categories (drawn: the 2 with most items)')
    """
    chosen = first_by_size(names, sizes, int(MAX_HIGH_IN / row_in))
    note = many(len(names), "category", "categories")
    if len(chosen) < len(names):
        note += f" (drawn: the {len(chosen):,} with most {what})"
    return chosen, note


def check_columns(table: pd.DataFrame, columns: Sequence[str], name: str, remedy: str) -> None:
    """Refuses a table without one of the columns, or without a row.

    Raises:
        ValueError: A column is missing, or there is no row.
    """
    for column in columns:
        if column not in table:
            raise ValueError(
                f"{name} has no column {column!r}, only {list(table.columns)}; {remedy}."
            )
    if len(table) == 0:
        raise ValueError(f"{name} has 0 rows, expected at least one; check that there are queries.")


def check_fractions(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Returns the values as ``float64``; they must lie in [0, 1] or be NaN.

    Raises:
        ValueError: A value lies outside.
    """
    checked = np.asarray(values, dtype=np.float64)
    outside = checked[(checked < -_ROUNDING) | (checked > 1 + _ROUNDING)]
    if len(outside):
        raise ValueError(
            f"{name} has the value {outside[0]}, expected values in [0, 1] (or NaN where no "
            "query was scored); draw metrics that are fractions."
        )
    return checked


def check_intervals(
    low: NDArray[np.float64], high: NDArray[np.float64], names: Sequence[str]
) -> None:
    """Refuses an interval that ends below its start; a NaN end means that there is none.

    Raises:
        ValueError: A low end lies above its high end.
    """
    crossed = np.flatnonzero(low > high)
    if len(crossed):
        i = int(crossed[0])
        raise ValueError(
            f"the interval of {names[i]!r} runs from {low[i]} to {high[i]}, expected its low end "
            "first; give the columns the other way round."
        )


def rough_rows(
    rough: Sequence[bool | None], low: NDArray[np.float64], high: NDArray[np.float64]
) -> list[bool]:
    """Returns which of the intervals that are drawn are rough; none where nothing is said of it."""
    said = [False] * len(low) if len(rough) == 0 else [bool(each) for each in rough]
    drawn = ~(np.isnan(low) | np.isnan(high))
    return [bool(each and there) for each, there in zip(said, drawn, strict=True)]


def checked_intervals(
    names: Sequence[str], value: ArrayLike, low: ArrayLike, high: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns means and the ends of their intervals, ``[N] float64`` each, in [0, 1] or NaN.

    Raises:
        ValueError: A number lies outside [0, 1], or an interval ends below its start.
    """
    checked = check_fractions(value, "the mean")
    ends = check_fractions(low, "the low end"), check_fractions(high, "the high end")
    check_intervals(*ends, names)
    return checked, *ends
