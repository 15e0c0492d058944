"""Charts of an evaluation: a run beside its floors, runs beside each other, rule by rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.chart_rows import (
    NAME_COLUMNS,
    ROUGH_NOTE,
    best_first,
    bracket,
    chart_page,
    check_columns,
    check_fractions,
    check_intervals,
    checked_intervals,
    fit_width,
    fraction_axis,
    horizontal_axes,
    largest_rows,
    names_width_in,
    number_cell,
    point,
    rough_rows,
    row_lines,
    whisker,
)
from visual_search.views.sheet import MARGIN_IN, axes_in_inches
from visual_search.views.style import (
    BAR,
    FLOOR,
    INK,
    MUTED,
    PAPER,
    RULE,
    RUN_STYLES,
    bold,
    quiet_style,
    show_literally,
)
from visual_search.wording import (
    ALPHA,
    MISSING,
    Number,
    as_float,
    many,
    number,
    one_line,
    p_value,
    signed,
)

if TYPE_CHECKING:
    import pandas as pd

_TITLE_COLUMNS = 44  # longer names of runs and floors are cut
_ROW_IN = 0.27
_PLOT_IN = 5.0


class FloorBar(TypedDict):
    """A bar of `floor_bars`; the numbers are in [0, 1] or missing."""

    title: str
    value: Number
    low: Number
    high: Number
    rough: NotRequired[bool]
    is_run: bool


def floor_bars(rows: Sequence[FloorBar], title: str, metric_title: str) -> Figure:
    """Returns a bar for the run and for each floor (what learns nothing), best at the top.

    The run's bar is coloured and its name bold; a dotted line carries its value down to the floors.

    Args:
        rows: Dicts with ``title``, ``value`` (in [0, 1] or NaN), ``low`` and ``high`` (the ends of
            the interval, in [0, 1], NaN where there is none) and ``is_run``; ``rough`` where the
            interval is.
        title: What stands above.
        metric_title: The metric in print, such as "mAP@5, mean over queries".

    Raises:
        ValueError: There is no row, a row lacks a key, a value lies outside [0, 1], or an interval
            ends below its start.
    """
    if not rows:
        raise ValueError("rows is empty, expected the run and its floors; give at least one.")
    for row in rows:
        for key in ("title", "value", "low", "high", "is_run"):
            if key not in row:
                raise ValueError(
                    f"a row has no {key!r}, only {list(row)}; give title, value, low, high and "
                    "is_run."
                )
    names = [str(row["title"]) for row in rows]
    numbers = {key: [as_float(row[key]) for row in rows] for key in ("value", "low", "high")}
    value, low, high = checked_intervals(names, **numbers)
    rough = rough_rows([row.get("rough") for row in rows], low, high)
    order = best_first(names, value)
    is_run = [bool(row["is_run"]) for row in rows]
    with quiet_style():
        shown = [one_line(names[i], _TITLE_COLUMNS) for i in order]
        left = MARGIN_IN + 1.06 * names_width_in(shown)  # the run's name is bold
        figure, header_in = chart_page(
            max(left + _PLOT_IN + 1.75 + MARGIN_IN, 8.0),
            0.15 + _ROW_IN * len(rows) + 0.65,
            title,
            [
                "coloured: the run; grey: floors, which learn nothing"
                + _whisker_note(low, "; whiskers and brackets: 95\u00a0% intervals", rough)
            ],
        )
        axes = axes_in_inches(figure, left, header_in + 0.15, _PLOT_IN, _ROW_IN * len(rows))
        horizontal_axes(axes, shown, limit=1.0)
        fraction_axis(axes, metric_title)
        for y, i in enumerate(order):
            if is_run[i]:
                axes.get_yticklabels()[y].set(**bold(shown[y]))
            if math.isnan(value[i]):
                axes.text(0.008, y, "not measured", va="center", fontsize=9, color=MUTED)
                continue
            axes.barh(y, value[i], height=0.7, color=BAR if is_run[i] else FLOOR)
            whisker(axes, y, low[i], high[i], rough=rough[i])
            if is_run[i]:
                axes.plot(
                    [value[i]] * 2, [-0.5, len(rows) - 0.5], color=BAR, linewidth=1.2,
                    linestyle=(0, (1, 2)), zorder=3, label="_run",
                )  # fmt: skip
            number_cell(
                axes, 1 + 0.5 / _PLOT_IN, y, number(value[i]), color=INK, fontsize=9.5,
                **(bold("0") if is_run[i] else {}),
            )  # fmt: skip
            bracket(axes, 1 + 0.58 / _PLOT_IN, y, low[i], high[i])
    return show_literally(figure)


def comparison_bars(
    per_category: pd.DataFrame,
    run_names: Sequence[str],
    metric_title: str,
) -> Figure:
    """Returns each run's mean by category with its interval; for two runs also their difference.

    Two runs are sorted by their difference (first minus second, the first one's gains at the top),
    more by the first run's mean; NaN comes last. A difference is filled and its p value bold where
    Holm's correction over the categories leaves p < 0.05.

    Args:
        per_category: ``category``, ``num_queries``, optionally ``few_queries``, and for every run
            ``mean:<run>``, ``low:<run>``, ``high:<run>`` (in [0, 1] or NaN); where ``rough`` is
            true, whiskers are dotted. For two runs also
            ``difference`` (first minus second), ``difference_low``, ``difference_high`` and
            ``p_holm``.
        run_names: 2 or more, all different. Of more than 6 those with the highest mean over the
            queries are drawn.
        metric_title: The metric in print, such as "mAP@5".

    Raises:
        ValueError: There are not 2 or more different runs, a column is missing, there is no
            category, a mean lies outside [0, 1] or a difference outside [-1, 1], or an interval
            ends below its start.
    """
    runs = [str(run) for run in run_names]
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ValueError(
            f"run_names is {runs}, expected two or more different names; name each run once."
        )
    columns = [f"{part}:{run}" for run in runs for part in ("mean", "low", "high")]
    two = len(runs) == 2
    if two:
        columns += ["difference", "difference_low", "difference_high", "p_holm"]
    remedy = "give one row a category with the means and intervals of every run"
    check_columns(per_category, ["category", "num_queries", *columns], "per_category", remedy)
    names = [str(name) for name in per_category["category"]]
    means = [
        checked_intervals(names, *(per_category[f"{p}:{run}"] for p in ("mean", "low", "high")))
        for run in runs
    ]  # fmt: skip
    differences = _checked_differences(per_category, names) if two else None
    queries = [int(number) for number in per_category["num_queries"]]
    num_runs = len(runs)
    if num_runs > len(RUN_STYLES):
        best = _highest(means, queries)[: len(RUN_STYLES)]
        runs, means = [runs[i] for i in best], [means[i] for i in best]
    row_in = max(_ROW_IN, 0.1 * len(runs) + 0.1)
    chosen, which = largest_rows(names, queries, "queries", row_in)
    sorted_by = means[0][0] if differences is None else differences[0]
    order = [chosen[i] for i in best_first([names[i] for i in chosen], sorted_by[chosen])]
    few = [bool(each) for each in per_category.get("few_queries", [False] * len(names))]
    rough = rough_rows(list(per_category.get("rough", [])), *means[0][1:])

    cut = [one_line(run, 60) for run in runs]
    notes = [
        f"{which}, {many(sum(queries), 'query', 'queries')}, "
        + ("sorted by the difference" if two else f"sorted by the first run, {cut[0]}")
        + "; whiskers: 95\u00a0% intervals"
        + (f" ({ROUGH_NOTE})" if any(rough) else "")
    ]
    if two:
        notes.append(
            "difference: first run minus second over the same queries; filled and bold: p < "
            f"{ALPHA} after Holm's correction over the categories"
        )
    if num_runs > len(runs):
        notes.append(f"{len(runs)} of {num_runs} runs, those with the highest mean over queries")
    if differences is not None and any(
        _all_same(*ends) for ends in zip(*differences[:3], strict=True)
    ):
        notes.append("same: both runs answer every query alike")
    if any(few[i] for i in order):
        notes.append("few: fewer than 20 scored queries, the mean says little")
    with quiet_style():
        shown = [one_line(names[i], NAME_COLUMNS) for i in order]
        left = MARGIN_IN + names_width_in(shown)
        plot_in, second_in = (4.2, 3.0) if two else (_PLOT_IN, 0.0)
        after_in = 1.25 if any(few[i] for i in order) else 0.95  # the number of queries
        width_in = left + plot_in + after_in + (second_in + 1.55 if two else 0.0) + MARGIN_IN
        figure, header_in = chart_page(
            max(width_in, 8.0),
            0.35 + row_in * len(order) + 0.65,
            f"{fit_width(metric_title, 3, 13)} by category, {num_runs} runs",
            notes,
            [
                (marker, color, run)
                for (color, marker), run in zip(RUN_STYLES, runs, strict=False)
            ],
        )  # fmt: skip
        top, height_in = header_in + 0.35, row_in * len(order)
        axes = axes_in_inches(figure, left, top, plot_in, height_in)
        horizontal_axes(axes, shown, limit=1.0)
        fraction_axis(axes, metric_title)
        row_lines(axes, len(order))
        step = 0.72 / len(runs)  # of a row
        queries_x = 1 + 0.75 / plot_in
        number_cell(axes, queries_x, -0.5 - 0.06 / row_in, "n queries", va="bottom")
        for y, i in enumerate(order):
            for place, (mean, low, high) in enumerate(means):
                color, marker = RUN_STYLES[place]
                at = y + (place - (len(runs) - 1) / 2) * step
                point(axes, mean[i], at, low[i], high[i], color, marker, rough=rough[i])
            if all(math.isnan(mean[i]) for mean, _, _ in means):
                axes.text(0.008, y, "no scored query", va="center", fontsize=9, color=MUTED)
            number_cell(axes, queries_x, y, f"{queries[i]:,}")
            if few[i]:
                number_cell(axes, queries_x + 0.06 / plot_in, y, "few", ha="left")
        if differences is not None:
            second = axes_in_inches(figure, left + plot_in + after_in, top, second_in, height_in)
            _differences(second, order, row_in, second_in, rough, *differences)
    return show_literally(figure)


def _highest(means: Sequence[tuple[NDArray[np.float64], ...]], queries: Sequence[int]) -> list[int]:
    """Returns the runs in the order of their means over all queries, the highest first."""
    micro = [float(np.nansum(mean[0] * np.asarray(queries))) for mean in means]
    return sorted(range(len(micro)), key=lambda i: -micro[i])


def _differences(
    axes: Axes,
    order: Sequence[int],
    row_in: float,
    plot_in: float,
    rough: Sequence[bool],
    difference: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    p_holm: NDArray[np.float64],
) -> None:
    """Draws the panel of paired differences: zero in the middle, numbers to the right."""
    ends = np.abs(np.concatenate([difference, low, high]))
    limit = min(1.0, max(0.02, 1.08 * float(np.nanmax(ends, initial=0.0, where=~np.isnan(ends)))))
    horizontal_axes(axes, [""] * len(order), limit=limit)
    axes.set_xlim(-limit, limit)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2g}" if value else "0")
    axes.set_xlabel("second is better  |  first is better", fontsize=9.5)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=1.0)
    row_lines(axes, len(order))
    per_inch = 2 * limit / plot_in
    head = -0.5 - 0.06 / row_in
    number_cell(axes, limit + 0.75 * per_inch, head, "difference", va="bottom")
    number_cell(axes, limit + 1.45 * per_inch, head, "p (Holm)", va="bottom")
    for y, i in enumerate(order):
        if math.isnan(difference[i]):
            number_cell(axes, limit + 0.75 * per_inch, y, MISSING)
            continue
        significant = bool(p_holm[i] < ALPHA)
        ends = (low[i], high[i])
        point(
            axes, difference[i], y, *ends, INK, "o", filled=significant, rough=rough[i],
        )  # fmt: skip
        strong = {"color": INK} | bold("0") if significant else {}
        same = _all_same(difference[i], low[i], high[i])
        written = "same" if same else signed(difference[i])
        number_cell(axes, limit + 0.75 * per_inch, y, written, **strong)
        number_cell(axes, limit + 1.45 * per_inch, y, p_value(p_holm[i]), **strong)


def attribute_bars(
    table: pd.DataFrame, metric_title: str, *, title: str = "By what counts as relevant"
) -> Figure:
    """Returns one group a relevance rule: every embedding as a point with whisker, best at the top.

    Groups keep the table's order; within a group one sees which embedding wins. The run is
    coloured and bold, floors are grey.

    Args:
        table: ``relevance``, ``embedding``, ``is_run`` (bool), ``value``, ``low`` and ``high`` (in
            [0, 1] or NaN); one row for each pair of relevance and embedding.
        metric_title: The metric in print, such as "mAP@5, mean over queries".
        title: What stands above.

    Raises:
        ValueError: A column is missing, there is no row, a pair stands twice, a value lies outside
            [0, 1], or an interval ends below its start.
    """
    columns = ["relevance", "embedding", "is_run", "value", "low", "high"]
    remedy = "give one row for each pair of relevance and embedding"
    check_columns(table, columns, "table", remedy)
    rules = [str(rule) for rule in table["relevance"]]
    names = [str(name) for name in table["embedding"]]
    pairs = list(zip(rules, names, strict=True))
    if len(set(pairs)) < len(pairs):
        twice = Counter(pairs).most_common(1)[0][0]
        raise ValueError(
            f"table holds {twice} more than once, expected one row for each pair of relevance and "
            "embedding; drop the repeats."
        )
    value, low, high = checked_intervals(names, table["value"], table["low"], table["high"])
    is_run = [bool(each) for each in table["is_run"]]
    lines: list[int | str] = []  # what stands on each line: the name of a rule, or a row
    for rule in dict.fromkeys(rules):
        rows = [i for i, other in enumerate(rules) if other == rule]
        lines.append(rule)
        lines += [rows[i] for i in best_first([names[i] for i in rows], value[rows])]
    num_rules = len(set(rules))
    row_in = 0.23
    with quiet_style():
        shown = [
            "" if isinstance(line, str) else one_line(names[line], _TITLE_COLUMNS)
            for line in lines
        ]  # fmt: skip
        left = MARGIN_IN + 1.06 * names_width_in(shown)
        figure, header_in = chart_page(
            max(left + _PLOT_IN + 1.75 + MARGIN_IN, 8.0),
            row_in * len(lines) + 0.65,
            title,
            [
                f"{many(num_rules, 'rule')}, each with the best embedding "
                "at its top; coloured: the run; grey: floors, which learn nothing"
                + _whisker_note(low, "; whiskers and brackets: 95\u00a0% intervals")
            ],
        )
        axes = axes_in_inches(figure, left, header_in, _PLOT_IN, row_in * len(lines))
        horizontal_axes(axes, shown, limit=1.0)
        axes.spines["left"].set_visible(False)
        fraction_axis(axes, metric_title)
        for y, line in enumerate(lines):
            if isinstance(line, str):
                rule = fit_width(line, left + 2.0, 10, heavy=True)
                axes.text(
                    (MARGIN_IN - left) / _PLOT_IN, y + 0.1, rule, va="center",
                    bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
                    **bold(rule),
                )  # fmt: skip
                continue
            if is_run[line]:
                axes.get_yticklabels()[y].set(**bold(shown[y]))
            if math.isnan(value[line]):
                axes.text(0.008, y, "not measured", va="center", fontsize=9, color=MUTED)
                continue
            axes.plot([0, 1], [y, y], color=RULE, linewidth=0.8, zorder=1, label="_row")
            color, marker = (BAR, "o") if is_run[line] else (FLOOR, "s")
            point(axes, value[line], y, low[line], high[line], color, marker)
            strong = bold("0") if is_run[line] else {}
            number_cell(
                axes, 1 + 0.5 / _PLOT_IN, y, number(value[line]), color=INK, **strong
            )  # fmt: skip
            bracket(axes, 1 + 0.58 / _PLOT_IN, y, low[line], high[line])
    return show_literally(figure)


def _whisker_note(low: NDArray[np.float64], note: str, rough: Sequence[bool] = ()) -> str:
    if np.isnan(low).all():
        return ""
    return f"{note} ({ROUGH_NOTE})" if any(rough) else note


def _all_same(difference: float, low: float, high: float) -> bool:
    """A difference that is 0 for every query has no interval but 0."""
    return difference == low == high == 0


def _checked_differences(
    table: pd.DataFrame, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns difference, low end, high end and p value, ``[N] float64`` each."""
    difference, low, high = (
        # from [-1, 1] to [0, 1] and back, so that one check serves both
        2 * check_fractions((table[column].astype(float) + 1) / 2, f"({column} + 1) / 2") - 1
        for column in ("difference", "difference_low", "difference_high")
    )
    check_intervals(low, high, names)
    return difference, low, high, check_fractions(table["p_holm"], "p_holm")
