"""Size against quality: what retrieval is left when a gallery is stored in fewer bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from visual_search.views.chart_rows import (
    chart_page,
    check_columns,
    check_fractions,
    check_intervals,
    fit_width,
    text_width_in,
)
from visual_search.views.sheet import MARGIN_IN, axes_in_inches
from visual_search.views.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    RUN_STYLES,
    bold,
    quiet_style,
    show_literally,
)
from visual_search.wording import number, one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.typing import LineStyleType

FLAT = "flat"
# Families by colour and marker; scalar codes and float16 are one: fewer bits a number.
_FAMILIES = {
    "half": RUN_STYLES[0], "scalar": RUN_STYLES[0], "product": RUN_STYLES[1],
    "pca": RUN_STYLES[2], "truncated": RUN_STYLES[5],
}  # fmt: skip
# Of a family's series, in turn.
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))
_TITLED = ("half", "scalar")  # every point is named; in other families sizes tell them apart
_LEFT_IN, _WIDE_IN, _HIGH_IN = 0.75, 7.6, 4.8
_APART_IN = 0.05  # between points of one size, which stand side by side
_LABEL = 8.5
_LEAD_FROM_IN = 0.25  # so far from its point a name needs a line back to it
_LABEL_HIGH_IN = 0.16


class _Box(NamedTuple):
    """A rectangle on the plot in inches from its lower left corner."""

    left: float
    bottom: float
    right: float
    top: float

    def covers(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def compression_chart(
    table: pd.DataFrame,
    metric_title: str,
    *,
    max_loss: float = 0.01,
    times_smaller: float = 8.0,
    marked: Sequence[str] = (),
    rough: bool = False,
    title: str = "Size against quality",
) -> Figure:
    """Returns quality over bytes an item: a line a way to store embeddings, flat float32 beside it.

    Whiskers are intervals of the difference to flat over the same queries, drawn about flat's own
    value: a whisker that stays above the grey band's lower edge says that no more than ``max_loss``
    is lost. Points of one size stand side by side. A codec whose every answer is flat's has no
    whisker, and a frame about its point.

    Args:
        table: ``codec``, ``title``, ``family``, ``series``, ``bytes_per_item``, ``value`` (in
            [0, 1]), and of the difference to flat ``low`` and ``high`` (NaN where there is none);
            one row of family ``flat``. The table of `retrieval.size_quality.SizeQuality`.
        metric_title: The metric in print, such as "mAP@5, mean over queries".
        max_loss: Depth of the band below flat.
        times_smaller: The goal: a vertical line at flat's bytes divided by it.
        rough: The whiskers are rough, since few groups carry them: they are dotted.
        marked: Codecs that are written out and printed bold, such as the smallest that holds.
        title: What stands above.

    Raises:
        ValueError: A column is missing, there is not one flat row, a family is unknown, a size is
            not positive, a value lies outside [0, 1], an interval ends below its start,
            ``max_loss`` is negative, or ``times_smaller`` is not above 1.
    """
    columns = ["codec", "title", "family", "series", "bytes_per_item", "value", "low", "high"]
    check_columns(table, columns, "table", "give one row a codec")
    families = [str(family) for family in table["family"]]
    unknown = sorted(set(families) - set(_FAMILIES) - {FLAT})
    if families.count(FLAT) != 1 or unknown:
        raise ValueError(
            f"table has {families.count(FLAT)} row(s) of family 'flat' and unknown families "
            f"{unknown}, expected one flat row beside {', '.join(_FAMILIES)}; keep one flat result."
        )
    if not max_loss >= 0 or not 1 < times_smaller < math.inf:
        raise ValueError(
            f"max_loss is {max_loss} and times_smaller {times_smaller}, expected 0 or more and "
            "above 1; set them to 0.01 and 8."
        )
    sizes = table["bytes_per_item"].to_numpy(dtype=np.float64)
    if not (sizes > 0).all():
        raise ValueError(
            f"a codec has {sizes.min():g} bytes an item, expected above 0; count them."
        )
    values = check_fractions(table["value"], "the value")
    flat = families.index(FLAT)
    low, high = (values[flat] + table[name].to_numpy(dtype=np.float64) for name in ("low", "high"))
    check_intervals(low, high, [str(name) for name in table["codec"]])
    same = (table["low"] == 0) & (table["high"] == 0)
    low[same] = high[same] = math.nan
    low[flat] = high[flat] = math.nan
    whiskers = "whiskers, dotted: rough 95" if rough else "whiskers: 95"
    framed = "; framed: the same answers as flat" if same.sum() > 1 else ""

    notes = [
        f"points of one size stand side by side; {whiskers}\u00a0% intervals of the difference to "
        f"flat over the same queries{framed}; grey: at most {max_loss:g} below flat; ids and what "
        "is stored once for all items are not counted",
    ]
    with quiet_style():
        beside = [f"flat {number(values[flat])}", f"{max_loss:g} less"]
        beside_in = max(text_width_in(text, 9) for text in beside) + 0.2
        figure, header_in = chart_page(
            MARGIN_IN + _LEFT_IN + _WIDE_IN + beside_in + MARGIN_IN,
            0.3 + _HIGH_IN + 0.65,
            title,
            notes,
        )
        axes = axes_in_inches(figure, MARGIN_IN + _LEFT_IN, header_in + 0.3, _WIDE_IN, _HIGH_IN)
        _scales(axes, sizes, sizes[flat], values, low, high, values[flat] - max_loss)
        axes.set_ylabel(f"{fit_width(metric_title, 3.4, 9.5)} (higher is better)", fontsize=9.5)
        _goal(axes, sizes[flat], values[flat], max_loss, times_smaller, beside)
        shown = table.assign(
            family=families, bytes_per_item=sizes, value=values, low=low, high=high, same=same
        )
        _points(axes, shown, {str(name) for name in marked}, sizes[flat] / times_smaller, rough)
    return show_literally(figure)


def _scales(
    axes: Axes,
    sizes: NDArray[np.float64],
    flat_bytes: float,
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    limit: float,
) -> None:
    """Sets both ranges, and the ticks: flat's bytes halved again and again."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes.min() / 2.2, max(float(sizes.max()), flat_bytes) * 1.5)
    num_ticks = math.floor(math.log2(flat_bytes / sizes.min()) + 1e-9) + 1
    ticks = [flat_bytes / 2**halved for halved in range(num_ticks)]
    octave_in = _WIDE_IN / math.log2(axes.get_xlim()[1] / axes.get_xlim()[0])
    step = math.ceil((text_width_in(f"{flat_bytes:,.0f} B", 9) + 0.08) / octave_in)
    axes.set_xticks(ticks[::step], labels=[f"{size:,.4g} B" if size < 1000 else f"{size:,.0f} B"
                                           for size in ticks[::step]])  # fmt: skip
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bytes an item (logarithmic)", fontsize=9.5)
    ends = np.concatenate([values, low, high, [limit]])
    ends = ends[np.isfinite(ends)]
    room = 0.06 * max(float(np.ptp(ends)), 0.02)
    axes.set_ylim(max(float(ends.min()) - room, -room), min(float(ends.max()) + room, 1 + room))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.tick_params(axis="y", labelsize=9, labelcolor=MUTED)


def _goal(
    axes: Axes,
    flat_bytes: float,
    flat_value: float,
    max_loss: float,
    times_smaller: float,
    beside: Sequence[str],
) -> None:
    """Draws flat's value with the band below it, and the size that is aimed at."""
    axes.axhspan(
        flat_value - max_loss, flat_value, color=MUTED, alpha=0.18, linewidth=0, label="_band"
    )
    axes.axhline(flat_value, color=INK, linewidth=1.2, label="_flat")
    goal = flat_bytes / times_smaller
    if axes.get_xlim()[0] < goal:
        axes.axvline(goal, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), label="_goal")
        axes.annotate(
            f"{times_smaller:g} times smaller", (goal, 1), (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=9, color=MUTED,
        )  # fmt: skip
    bottom, top = axes.get_ylim()
    per_inch = (top - bottom) / _HIGH_IN
    below = min(flat_value - max_loss, flat_value - 0.16 * per_inch)
    right = 1 + 0.08 / _WIDE_IN
    for text, y, color in ((beside[0], flat_value, INK), (beside[1], below, MUTED)):
        axes.text(
            right, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
            color=color,
        )  # fmt: skip


def _points(axes: Axes, table: pd.DataFrame, marked: set[str], goal: float, rough: bool) -> None:
    """Draws the lines of all series, then names where nothing lies."""
    rows = [row for row in table.to_dict("records") if row["family"] != FLAT]
    flat = next(row for row in table.to_dict("records") if row["family"] == FLAT)
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    x_limits, y_limits = axes.get_xlim(), axes.get_ylim()
    octaves = math.log2(x_limits[1] / x_limits[0])

    def place(size: float, value: float, aside_in: float = 0.0) -> tuple[float, float]:
        x = math.log2(size / x_limits[0]) / octaves * _WIDE_IN + aside_in
        return x, (value - y_limits[0]) / (y_limits[1] - y_limits[0]) * _HIGH_IN

    def data(x_in: float, y_in: float) -> tuple[float, float]:
        x = x_limits[0] * 2 ** (x_in / _WIDE_IN * octaves)
        return x, y_limits[0] + y_in / _HIGH_IN * (y_limits[1] - y_limits[0])

    taken: list[_Box] = [_around(*place(flat["bytes_per_item"], flat["value"]), 0.06)]
    goal_in = place(goal, flat["value"])[0]
    taken.append(_Box(goal_in - 0.02, 0, goal_in + 0.02, _HIGH_IN))
    taken += [_around(x, place(1, flat["value"])[1], 0.02) for x in np.arange(0, _WIDE_IN, 0.04)]
    axes.plot(
        [flat["bytes_per_item"]], [flat["value"]], marker="d", markersize=7, color=INK, zorder=6,
        linestyle="none", label="_flat point",
    )  # fmt: skip
    wanted: list[tuple[bool, float, float, str, str]] = []  # bold, x, y, text, colour
    seen: dict[str, int] = {}
    for place_of, name in enumerate(names):
        line = sorted(
            (row for row in rows if str(row["series"]) == name), key=lambda r: r["bytes_per_item"]
        )
        color, marker = _FAMILIES[line[0]["family"]]
        turn = seen.get(color, 0)
        seen[color] = turn + 1
        aside_in = (place_of - (len(names) - 1) / 2) * _APART_IN
        at = [place(row["bytes_per_item"], row["value"], aside_in) for row in line]
        xs, ys = zip(*(data(*point) for point in at), strict=True)
        axes.plot(
            xs, ys, color=color, marker=marker, markersize=5, linewidth=1.3, zorder=5,
            linestyle=_DASHES[turn % len(_DASHES)], label=name, clip_on=False,
            markerfacecolor=color if turn == 0 else PAPER,
        )  # fmt: skip
        for row, x, (x_in, y_in) in zip(line, xs, at, strict=True):
            taken.append(_around(x_in, y_in, 0.06))
            if math.isfinite(row["low"]) and math.isfinite(row["high"]):
                axes.plot(
                    [x, x], [row["low"], row["high"]], color=color, linewidth=1.0, marker="_",
                    markersize=4, alpha=0.75, zorder=4, label="_whisker", clip_on=False,
                    linestyle=(0, (1, 1.5)) if rough else "-",
                )  # fmt: skip
                ends = [place(1, row[end])[1] for end in ("low", "high")]
                taken.append(_Box(x_in - 0.03, ends[0], x_in + 0.03, ends[1]))
            if row["same"]:
                axes.plot(
                    [x], [row["value"]], marker="s", markersize=10, markerfacecolor="none",
                    markeredgecolor=color, linestyle="none", zorder=6, label="_same", clip_on=False,
                )  # fmt: skip
            is_marked = str(row["codec"]) in marked
            titled = row["family"] in _TITLED
            if row is line[0]:
                text = f"{name}, {row['title']}" if titled else name
                wanted.append((False, x_in, y_in, text, color))
            elif titled:
                wanted.append((is_marked, x_in, y_in, str(row["title"]), color))
            if is_marked and not (titled and row is not line[0]):
                wanted.append((True, x_in, y_in, str(row["title"]), INK))
        for (x0, y0), (x1, y1) in itertools.pairwise(at):
            steps = np.linspace(0, 1, max(2, math.ceil(math.hypot(x1 - x0, y1 - y0) / 0.05)))
            taken += [_around(x0 + s * (x1 - x0), y0 + s * (y1 - y0), 0.012) for s in steps]
    written: list[_Box] = []  # names, which no line to another one crosses
    for heavy, x_in, y_in, text, color in sorted(wanted, key=lambda one: not one[0]):
        _name(axes, taken, written, (x_in, y_in), one_line(text, 40), color, heavy=heavy)


def _around(x: float, y: float, half: float) -> _Box:
    return _Box(x - half, y - half, x + half, y + half)


def _nearest_of(box: _Box, point: tuple[float, float]) -> tuple[float, float]:
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)


def _name(
    axes: Axes,
    taken: list[_Box],
    names: list[_Box],
    point: tuple[float, float],
    text: str,
    color: str,
    *,
    heavy: bool,
) -> None:
    """Writes a name as near to its point as there is room, and notes its box in both lists."""
    wide = text_width_in(text, _LABEL, heavy=heavy) + 0.1
    best: tuple[float, _Box, float] | None = None
    # clockwise from the left: there the line ends; a step outwards where a ring is full
    for ring, angle in itertools.product(np.arange(0.1, 2.5, 0.1), range(180, 540, 20)):
        x = point[0] + ring * math.cos(math.radians(angle))
        y = point[1] + ring * math.sin(math.radians(angle))
        x -= wide * (1 - math.cos(math.radians(angle))) / 2  # the side that faces the point
        box = _Box(x, y - _LABEL_HIGH_IN / 2, x + wide, y + _LABEL_HIGH_IN / 2)
        if box.left < 0.02 or box.right > _WIDE_IN or box.bottom < 0.02 or box.top > _HIGH_IN:
            continue
        end = _nearest_of(box, point)
        lead = [
            _around(point[0] + s * (end[0] - point[0]), point[1] + s * (end[1] - point[1]), 0.01)
            for s in np.linspace(0, 1, 20 if ring > _LEAD_FROM_IN else 0)
        ]
        crossed = any(part.covers(name) for part in lead for name in names)
        over = sum(box.covers(name) for name in names)  # names on names cannot be read at all
        hidden = sum(box.covers(other) for other in taken)
        cost = 1000.0 * over + 30.0 * crossed + 10.0 * hidden + float(ring)
        if best is None or cost < best[0]:
            best = (cost, box, float(ring))
        if not (hidden or crossed):
            break
    if best is None:
        return
    _, box, ring = best
    taken.append(box)
    names.append(box)
    if ring > _LEAD_FROM_IN:
        end = _nearest_of(box, point)
        axes.plot(
            [point[0] / _WIDE_IN, end[0] / _WIDE_IN], [point[1] / _HIGH_IN, end[1] / _HIGH_IN],
            transform=axes.transAxes, color=color, linewidth=0.6, alpha=0.7, label="_lead",
            zorder=3,
        )  # fmt: skip
    axes.text(
        (box.left + 0.05) / _WIDE_IN, (box.bottom + box.top) / 2 / _HIGH_IN, text,
        transform=axes.transAxes, fontsize=_LABEL, va="center", color=color, zorder=7,
        **(bold(text) if heavy else {}),
    )  # fmt: skip
