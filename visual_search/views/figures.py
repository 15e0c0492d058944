"""Charts: retrieval quality by category, class distributions; and what becomes of a figure."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.views.chart_rows import (
    NAME_COLUMNS,
    ROUGH_NOTE,
    best_first,
    chart_page,
    check_columns,
    check_fractions,
    check_intervals,
    fraction_axis,
    horizontal_axes,
    largest_rows,
    names_width_in,
    number_cell,
    rough_rows,
    whisker,
)
from visual_search.views.scripts import key_as_metadata
from visual_search.views.sheet import HEADER_IN, MARGIN_IN, axes_in_inches, new_figure
from visual_search.views.style import (
    BAR,
    BAR_PALE,
    FLOOR_MARK,
    INK,
    MACRO,
    MICRO,
    MUTED,
    PAPER,
    alphabetical,
    bold,
    metric_title,
    quiet_style,
    show_literally,
)
from visual_search.wording import many, number, one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.typing import LineStyleType


def category_bars(
    per_category: pd.DataFrame,
    metric: str,
    *,
    micro: float,
    macro: float,
    title: str | None = None,
    whiskers: bool = True,
    floors: pd.DataFrame | None = None,
    floor: str | None = None,
    floor_title: str | None = None,
) -> Figure:
    """Returns a bar chart of one metric by category, best at the top, with both overall means.

    Beside each bar stand the number of queries behind it and of items in the gallery. Categories
    without a scored query (NaN) come last and say so. Ties are sorted by name. Of more than 100
    categories those with the most queries are drawn, and the notes say of how many.

    Args:
        per_category: Columns ``category``, ``num_gallery``, ``num_queries`` and ``metric``; where
            there is ``num_queries_scored`` it is shown instead of ``num_queries``. Columns
            ``headline_low`` and ``headline_high`` (in [0, 1], NaN where there is none) become
            whiskers, dotted where ``rough`` is true; bars whose ``few_queries`` is true are pale.
        metric: The column to draw, such as "map_at_5"; values in [0, 1] or NaN.
        micro: The mean over queries, in [0, 1] or NaN.
        macro: The mean over categories, in [0, 1] or NaN.
        title: Replaces "mAP@5 by category".
        whiskers: False where ``metric`` is not the headline, whose intervals the table holds.
        floors: ``category`` and one column a floor with its mean of the same metric; a category
            that it lacks gets no mark.
        floor: The column of ``floors`` that is marked on each row, usually the best.
        floor_title: The floor's name in print; without it the column's.

    Raises:
        ValueError: A column is missing, there is no category, a value lies outside [0, 1], an
            interval ends below its start, only one of ``floors`` and ``floor`` is given, or
            ``floors`` holds a category twice.
    """
    queries_column = "num_queries_scored" if "num_queries_scored" in per_category else "num_queries"
    needed = ("category", "num_gallery", queries_column, metric)
    remedy = "give the table of a retrieval report, or another metric"
    check_columns(per_category, needed, "per_category", remedy)
    names = [str(name) for name in per_category["category"]]
    values = check_fractions(per_category[metric], metric)
    check_fractions([micro, macro], metric)
    low, high = _headline_intervals(per_category, names, whiskers)
    rough = rough_rows(list(per_category.get("rough", [])), low, high)
    marks = _floor_values(floors, floor)
    few = [bool(each) for each in per_category.get("few_queries", [False] * len(names))]
    queries = [int(number) for number in per_category[queries_column]]
    gallery = [int(number) for number in per_category["num_gallery"]]
    chosen, which = largest_rows(names, queries, "queries")
    order = [chosen[i] for i in best_first([names[i] for i in chosen], values[chosen])]

    written = metric_title(metric)
    scored = ("query", "queries")
    if queries_column == "num_queries_scored":
        scored = ("scored query", "scored queries")
    has_whiskers = not np.isnan(low).all()
    notes = [
        f"{which}, {many(sum(queries), *scored)}; "
        "micro: mean over queries, macro: mean over categories"
        + ("; whiskers: 95\u00a0% intervals" if has_whiskers else "")
        + (f" ({ROUGH_NOTE})" if any(rough) else "")
    ]
    legend = []
    if marks is not None:
        called = one_line(floor_title or str(floor), 60)
        legend.append(("d", FLOOR_MARK, f"{called}, which learns nothing (floor)"))
    if any(few[i] for i in order):
        legend.append(("s", BAR_PALE, "few: fewer than 20 scored queries, the mean says little"))
    with quiet_style():
        shown = [one_line(names[i], NAME_COLUMNS) for i in order]
        left = MARGIN_IN + names_width_in(shown)
        bar_in, plot_in = 0.27, 5.2
        columns = _columns_in(
            has_whiskers or marks is not None, marks is not None, any(few[i] for i in order)
        )
        figure, header_in = chart_page(
            max(left + plot_in + columns["gallery"] + 0.1 + MARGIN_IN, 8.0),
            0.42 + bar_in * len(order) + 0.65,
            title or f"{written} by category",
            notes,
            legend,
        )
        axes = axes_in_inches(figure, left, header_in + 0.42, plot_in, bar_in * len(order))
        horizontal_axes(axes, shown, limit=1.0)
        fraction_axis(axes, written)
        # the numbers stand in columns right of the plot
        at = {column: 1 + inches / plot_in for column, inches in columns.items()}
        for y, i in enumerate(order):
            value = float(values[i])
            if math.isnan(value):
                axes.text(0.008, y, "no scored query", va="center", fontsize=9, color=MUTED)
            else:
                axes.barh(y, value, height=0.7, color=BAR_PALE if few[i] else BAR)
                whisker(axes, y, float(low[i]), float(high[i]), rough=rough[i])
                if "mean" in at:
                    number_cell(axes, at["mean"], y, number(value), color=INK, fontsize=9.5)
                else:
                    axes.text(
                        value + 0.008, y, number(value), va="center", fontsize=9.5, zorder=4,
                        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
                    )  # fmt: skip
            mark = math.nan if marks is None else marks.get(names[i], math.nan)
            if not math.isnan(mark):
                axes.plot(
                    [mark], [y], linestyle="none", marker="d", markersize=7, color=FLOOR_MARK,
                    markeredgecolor=INK, markeredgewidth=0.8, clip_on=False, zorder=5,
                    label="_floor",
                )  # fmt: skip
                number_cell(axes, at["floor"], y, number(mark))
            number_cell(axes, at["queries"], y, f"{queries[i]:,}")
            if few[i]:
                number_cell(axes, at["queries"] + 0.06 / plot_in, y, "few", ha="left")
            number_cell(axes, at["gallery"], y, f"{gallery[i]:,}")
        for column, x in at.items():
            head = column if column in ("mean", "floor") else f"n {column}"
            number_cell(axes, x, -0.62, head, va="bottom")
        _mean_lines(axes, micro, macro, len(order))
    return show_literally(figure)


def _headline_intervals(
    per_category: pd.DataFrame, names: list[str], wanted: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns low and high ends ``[N] float64``; all NaN where the table has none."""
    if not wanted or not {"headline_low", "headline_high"} <= set(per_category.columns):
        none = np.full(len(names), np.nan)
        return none, none
    low = check_fractions(per_category["headline_low"], "headline_low")
    high = check_fractions(per_category["headline_high"], "headline_high")
    check_intervals(low, high, names)
    return low, high


def _floor_values(floors: pd.DataFrame | None, floor: str | None) -> dict[str, float] | None:
    """Returns the marked floor's mean by category."""
    if floors is None and floor is None:
        return None
    if floors is None or floor is None:
        missing, given = ("floors", "floor") if floors is None else ("floor", "floors")
        raise ValueError(
            f"{missing} is None although {given} is given, expected both; give the table of floors "
            "and the name of its column to mark."
        )
    check_columns(floors, ("category", floor), "floors", "mark one of its columns")
    values = check_fractions(floors[floor], floor)
    names = [str(name) for name in floors["category"]]
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"floors holds the category {twice!r} more than once, expected one row each; give the "
            "means by category."
        )
    return dict(zip(names, values.tolist(), strict=True))


def _columns_in(with_mean: bool, with_floor: bool, with_few: bool) -> dict[str, float]:
    """Returns where the columns beside the bars end, in inches from the plot's right edge."""
    # without a column of means, a bar of 1.0 leaves room for the value that stands at its end
    columns = {"mean": 0.55} if with_mean else {}
    if with_floor:
        columns["floor"] = 1.1
    columns["queries"] = max(columns.values(), default=0.3) + 0.75
    columns["gallery"] = columns["queries"] + (1.0 if with_few else 0.75)
    return columns


def _mean_lines(axes: Axes, micro: float, macro: float, num_rows: int) -> None:
    """Draws both means as lines; their names stand on opposite sides, so that they never meet."""
    top = -1.55  # above the heads of the columns, so that a mean of 1.0 does not cross them
    means: list[tuple[str, float, str, LineStyleType]] = [
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
            f"{name} {number(value)}",
            color=color,
            fontsize=9.5,
            ha="right" if left_side else "left",
            va="bottom",
            **bold(name),
        )


def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Returns one panel a set with the number of items in each category, sorted alphabetically.

    All panels share the rows (a category that a set lacks shows 0); each has its own scale,
    since sets differ in size by orders. Of more than 100 categories the largest are drawn.

    Args:
        counts: Items by set and category, such as ``{"training": {"hat": 3}, "gallery": ...}``.

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
    sizes: Counter[str] = Counter()
    for of_set in counts.values():
        sizes.update({str(category): count for category, count in of_set.items()})
    every = alphabetical(list(sizes))
    if not every:
        raise ValueError(
            f"the sets {list(counts)} hold no category, expected at least one; check the catalogue."
        )
    chosen, which = largest_rows(every, [sizes[name] for name in every], "items")
    categories = [every[i] for i in chosen]
    subtitle = "number of items in each category"
    if len(counts) > 1:
        subtitle += "; every panel has its own scale"
    if len(categories) < len(every):
        subtitle += f"; {which}"
    with quiet_style():
        shown = [one_line(name, NAME_COLUMNS) for name in categories]
        left = MARGIN_IN + names_width_in(shown)
        bar_in, panel_in, gap_in = 0.27, 2.7 if len(counts) > 1 else 5.0, 0.75
        header_in = HEADER_IN + 0.3
        figure = new_figure(
            max(left + len(counts) * (panel_in + gap_in), 6.5),
            header_in + bar_in * len(categories) + 0.65,
            "Class distribution",
            subtitle,
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
            horizontal_axes(axes, shown if panel == 0 else [""] * len(shown), limit=limit)
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
            present = sum(count > 0 for count in of_set.values())
            axes.text(
                0,
                -0.75,
                f"{one_line(name, 16)}: {many(sum(of_set.values()), 'item')}, "
                f"{many(present, 'category', 'categories')}",
                fontsize=9.5,
                va="bottom",
                **bold(name),
            )
    return show_literally(figure)


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
        key = key_as_metadata(figure)
        # compress_level 3: half the time of 6 at a few percent more bytes
        packed = {"compress_level": 3}
        figure.savefig(
            temporary, dpi=dpi, format="png", facecolor="white", metadata=key, pil_kwargs=packed
        )
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
