"""Charts: retrieval quality by category, class distributions; and what becomes of a figure."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.views.sheet import HEADER_IN, MARGIN_IN, axes_in_inches, new_figure
from visual_search.views.style import (
    BAR,
    INK,
    MACRO,
    MICRO,
    MUTED,
    RULE,
    alphabetical,
    bold,
    metric_title,
    one_line,
    quiet_style,
    show_literally,
)

if TYPE_CHECKING:
    import pandas as pd

_NAME_COLUMNS = 28  # longer category names are cut
_CHARACTER_IN = 0.079  # the width of a character at 10 points


def category_bars(
    per_category: pd.DataFrame,
    metric: str,
    *,
    micro: float,
    macro: float,
    title: str | None = None,
) -> Figure:
    """Gives a bar chart of one metric by category, best at the top, with both overall means.

    Beside each bar stand the number of queries behind it and of items in the gallery. Categories
    without a scored query (NaN) come last and say so. Ties are sorted by name.

    Args:
        per_category: Columns ``category``, ``num_gallery``, ``num_queries`` and ``metric``; where
            there is ``num_queries_scored`` it is shown instead of ``num_queries``.
        metric: The column to draw, such as "map_at_5"; values in [0, 1] or NaN.
        micro: The mean over queries, in [0, 1] or NaN.
        macro: The mean over categories, in [0, 1] or NaN.
        title: Replaces "mAP@5 by category".

    Raises:
        ValueError: A column is missing, there is no category, or a value lies outside [0, 1].
    """
    queries_column = "num_queries_scored" if "num_queries_scored" in per_category else "num_queries"
    for column in ("category", "num_gallery", queries_column, metric):
        if column not in per_category:
            raise ValueError(
                f"per_category has no column {column!r}, only {list(per_category.columns)}; "
                "give the table of a retrieval report, or another metric."
            )
    if len(per_category) == 0:
        raise ValueError(
            "per_category has 0 rows, expected one a category; check that there are queries."
        )
    values = per_category[metric].to_numpy(dtype=np.float64)
    checked = np.append(values, [micro, macro])
    outside = checked[(checked < 0) | (checked > 1) | np.isinf(checked)]
    if len(outside):
        raise ValueError(
            f"{metric} has the value {outside[0]}, expected values in [0, 1] (or NaN where no "
            "query was scored); draw metrics that are fractions."
        )
    names = [str(name) for name in per_category["category"]]
    order = sorted(
        range(len(names)),
        key=lambda i: (math.isnan(values[i]), -np.nan_to_num(values[i]), names[i].casefold()),
    )
    rows = [
        (
            names[i],
            float(values[i]),
            int(per_category[queries_column].iloc[i]),
            int(per_category["num_gallery"].iloc[i]),
        )
        for i in order
    ]
    written = metric_title(metric)
    num_queries = sum(row[2] for row in rows)
    scored = "scored queries" if queries_column == "num_queries_scored" else "queries"
    with quiet_style():
        shown = [one_line(row[0], _NAME_COLUMNS) for row in rows]
        left = MARGIN_IN + _names_width_in(shown)
        bar_in, plot_in, header_in = 0.27, 5.2, HEADER_IN + 0.42
        height = header_in + bar_in * len(rows) + 0.65
        figure = new_figure(
            max(left + plot_in + 1.9 + MARGIN_IN, 8.0),
            height,
            title or f"{written} by category",
            f"{len(rows)} {_plural(len(rows), 'category', 'categories')}, "
            f"{num_queries:,} {scored}; "
            "micro: mean over queries, macro: mean over categories",
        )
        axes = axes_in_inches(figure, left, header_in, plot_in, bar_in * len(rows))
        _horizontal_axes(axes, shown, limit=1.0)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_xlabel(f"{written} (0 to 1, higher is better)", fontsize=9.5)
        # the numbers stand in columns right of the plot; a bar of 1.0 leaves room for its value
        beyond = 1 + 0.45 / plot_in
        queries_x, gallery_x = beyond + 0.6 / plot_in, beyond + 1.35 / plot_in
        for y, (_, value, queries, gallery) in enumerate(rows):
            if math.isnan(value):
                axes.text(0.008, y, "no scored query", va="center", fontsize=9, color=MUTED)
            else:
                axes.barh(y, value, height=0.7, color=BAR)
                axes.text(
                    value + 0.008, y, f"{value:.3f}", va="center", fontsize=9.5, zorder=4,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
                )  # fmt: skip
            small: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": 9, "color": MUTED}
            axes.text(queries_x, y, f"{queries:,}", **small)
            axes.text(gallery_x, y, f"{gallery:,}", **small)
        top = -0.62
        small = {"va": "bottom", "ha": "right", "fontsize": 9, "color": MUTED}
        axes.text(queries_x, top, "n queries", **small)
        axes.text(gallery_x, top, "n gallery", **small)
        _mean_lines(axes, micro, macro, len(rows))
    return show_literally(figure)


def _mean_lines(axes: Axes, micro: float, macro: float, num_rows: int) -> None:
    """Draws both means as lines; their names stand on opposite sides, so that they never meet."""
    top = -1.55  # above the heads of the columns, so that a mean of 1.0 does not cross them
    means: list[tuple[str, float, str, Any]] = [
        ("micro", micro, MICRO, "-"),
        ("macro", macro, MACRO, (0, (4, 2))),
    ]
    means = sorted((m for m in means if not math.isnan(m[1])), key=lambda m: m[1])
    for place, (name, value, color, dashes) in enumerate(means):
        axes.plot(
            [value, value], [num_rows - 0.5, top], color=color, linestyle=dashes, linewidth=1.4,
            clip_on=False, zorder=3,
        )  # fmt: skip
        left_side = place == 0 and len(means) == 2
        axes.text(
            value + (-0.006 if left_side else 0.006),
            top + 0.4,
            f"{name} {value:.3f}",
            color=color,
            fontsize=9.5,
            ha="right" if left_side else "left",
            va="bottom",
            **bold(name),
        )


def class_distribution(
    counts: Mapping[str, Mapping[str, int]], title: str = "Class distribution"
) -> Figure:
    """Gives one panel a set with the number of items in each category, sorted alphabetically.

    All panels share the rows (a category that a set lacks shows 0); each has its own scale,
    since sets differ in size by orders.

    Args:
        counts: Items by set and category, such as ``{"training": {"hat": 3}, "gallery": ...}``.
        title: What stands above.

    Raises:
        ValueError: There is no set, no category, or a count is negative.
    """
    if not counts:
        raise ValueError('counts holds no set, expected for example {"training": {"hat": 3}}.')
    for name, of_set in counts.items():
        for category, count in of_set.items():
            if count < 0:
                raise ValueError(
                    f"counts[{name!r}][{category!r}] is {count}, expected a number of items >= 0."
                )
    categories = alphabetical(list({str(c) for of_set in counts.values() for c in of_set}))
    if not categories:
        raise ValueError(
            f"the sets {list(counts)} hold no category, expected at least one; check the catalogue."
        )
    with quiet_style():
        shown = [one_line(name, _NAME_COLUMNS) for name in categories]
        left = MARGIN_IN + _names_width_in(shown)
        bar_in, panel_in, gap_in = 0.27, 2.7 if len(counts) > 1 else 5.0, 0.75
        header_in = HEADER_IN + 0.3
        figure = new_figure(
            max(left + len(counts) * (panel_in + gap_in), 6.5),
            header_in + bar_in * len(categories) + 0.65,
            title,
            "number of items in each category; every panel has its own scale"
            if len(counts) > 1
            else "number of items in each category",
        )
        for panel, (name, of_set) in enumerate(counts.items()):
            numbers = [int(of_set.get(category, 0)) for category in categories]
            axes = axes_in_inches(
                figure,
                left + panel * (panel_in + gap_in),
                header_in,
                panel_in,
                bar_in * len(categories),
            )
            limit = max(max(numbers), 1)
            _horizontal_axes(axes, shown if panel == 0 else [""] * len(shown), limit=limit)
            axes.locator_params(axis="x", nbins=3, integer=True)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.set_xlabel("items", fontsize=9.5)
            axes.barh(range(len(numbers)), numbers, height=0.7, color=BAR)
            for y, number in enumerate(numbers):
                axes.text(
                    number + limit * 0.02,
                    y,
                    f"{number:,}",
                    va="center",
                    fontsize=9,
                    color=INK if number else MUTED,
                )
            present = sum(number > 0 for number in numbers)
            axes.text(
                0,
                -0.75,
                f"{one_line(name, 16)}: {sum(numbers):,} items, {present} "
                f"{_plural(present, 'category', 'categories')}",
                fontsize=9.5,
                va="bottom",
                **bold(name),
            )
    return show_literally(figure)


def _names_width_in(names: list[str]) -> float:
    wide = max(sum(2 if ord(c) > 0x2E80 else 1 for c in name) for name in names)
    return max(wide * _CHARACTER_IN, 0.4) + 0.15


def _horizontal_axes(axes: Axes, names: list[str], limit: float) -> None:
    """Prepares axes for horizontal bars: names from top to bottom, values from 0 to ``limit``."""
    axes.set_xlim(0, limit)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", pad=6)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)


def _plural(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Writes the figure as PNG, whole or not at all, and gives the path back.

    Args:
        figure: Any figure of this room.
        path: Must end in ".png"; missing parent folders are made.
        dpi: Pixels an inch; the figures are laid out for 100 and get finer above.

    Raises:
        ValueError: The path does not end in ".png", or ``dpi`` is not positive.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"{target} does not end in '.png', the one format written; rename it.")
    if dpi <= 0:
        raise ValueError(f"dpi is {dpi}, expected a positive number of pixels an inch, as 150.")
    with quiet_style(), atomic_path(target) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, dpi=dpi, format="png", facecolor="white")
    return target


def figure_to_array(figure: Figure, dpi: int | None = None) -> NDArray[np.uint8]:
    """Renders the figure to ``[H, W, 3] uint8`` RGB, as TensorBoard's ``add_image`` takes it (HWC).

    Args:
        figure: Any figure of this room.
        dpi: Pixels an inch; None keeps the figure's own (100).

    Raises:
        ValueError: ``dpi`` is not positive.
    """
    if dpi is not None and dpi <= 0:
        raise ValueError(f"dpi is {dpi}, expected a positive number of pixels an inch, as 100.")
    before = figure.get_dpi()
    with quiet_style():
        figure.set_dpi(dpi or before)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        figure.set_dpi(before)
    return cast("NDArray[np.uint8]", pixels)
