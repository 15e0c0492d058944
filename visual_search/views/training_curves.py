"""How a training went: losses and retrieval over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from visual_search.views.chart_rows import (
    LINE_IN,
    chart_page,
    check_columns,
    check_fractions,
    fit_width,
    text_width_in,
)
from visual_search.views.sheet import MARGIN_IN, axes_in_inches
from visual_search.views.style import (
    BAR,
    MACRO,
    MICRO,
    MUTED,
    RULE,
    bold,
    metric_title,
    quiet_style,
    show_literally,
)
from visual_search.wording import many, number, one_line, three_digits

if TYPE_CHECKING:
    import pandas as pd

_LEFT_IN, _WIDE_IN, _HIGH_IN = 0.7, 4.0, 3.0  # room left of a panel, and its size
_LOG_FROM = 20.0  # where the largest loss is so many times the smallest, the axis is logarithmic


def training_curves(
    history: pd.DataFrame,
    *,
    metric: str = "map_at_5",
    floors: Mapping[str, float] | None = None,
) -> Figure:
    """Returns losses (left) and retrieval, micro and macro (right), over the epochs trained.

    A quantity is joined over epochs at which it was not measured; points show where it was. Values
    that are not finite are left out and counted. Rows of the same epoch are taken together: the
    last measurement of each column counts. The axes need not begin at 0.

    Args:
        history: ``epoch`` (whole epochs trained so far) and any of ``train/loss``, ``val/loss``
            (every column ``<split>/loss`` is drawn), ``val/map_at_5``, ``val/macro_map_at_5``
            (``<split>/<metric>`` and ``<split>/macro_<metric>``); NaN where not measured.
        metric: What the right panel draws.
        floors: Title and value, drawn as horizontal lines in the right panel; NaN is left out.

    Raises:
        ValueError: ``epoch`` is missing or no whole number, nothing was measured, or a retrieval
            metric or floor lies outside [0, 1].
    """
    table = _by_epoch(history)
    epochs = table["epoch"].to_numpy(dtype=np.int64)
    splits = list(dict.fromkeys(str(name).partition("/")[0] for name in table.columns))
    losses = _measured(table, [f"{split}/loss" for split in splits])
    retrieval = _measured(
        table, [f"{split}/{part}{metric}" for split in splits for part in ("", "macro_")]
    )
    if not losses and not retrieval:
        raise ValueError(
            f"history has the columns {list(history.columns)} and no finite value in "
            f"'<split>/loss', '<split>/{metric}' or '<split>/macro_{metric}', expected at least "
            "one measurement; train an epoch or name another metric."
        )
    for name, values in retrieval.items():
        check_fractions(values, name)
    lines = {str(name): float(value) for name, value in (floors or {}).items()}
    for name, value in lines.items():
        check_fractions([value], f"the floor {name!r}")
    lines = {
        f"{one_line(name, 34)} {number(value)}": value
        for name, value in lines.items()
        if not math.isnan(value)
    }
    of_loss = [name for name in table.columns if str(name).partition("/")[2] == "loss"]
    num_broken = int(np.isinf(table[of_loss].to_numpy(dtype=np.float64)).sum())
    notes = [
        f"{many(int(epochs[-1]), 'epoch')} trained; a point where it "
        "was measured; axes need not begin at 0"
    ]
    if retrieval:
        notes[0] += "; micro: mean over queries, macro: mean over categories"
    if num_broken:
        notes.append(f"{many(num_broken, 'loss', 'losses')} not finite, left out")
    with quiet_style():
        keys_in = 0.24 + LINE_IN * max(len(losses), len(retrieval), 1)
        beside_in = max((text_width_in(name, 9) for name in lines), default=0.0) + 0.2
        figure, header_in = chart_page(
            MARGIN_IN + 2 * (_LEFT_IN + _WIDE_IN) + beside_in + MARGIN_IN,
            keys_in + _HIGH_IN + 0.6,
            "Training",
            notes,
        )
        top = header_in + keys_in
        left = axes_in_inches(figure, MARGIN_IN + _LEFT_IN, top, _WIDE_IN, _HIGH_IN)
        right = axes_in_inches(figure, MARGIN_IN + 2 * _LEFT_IN + _WIDE_IN, top, _WIDE_IN, _HIGH_IN)
        _panel(left, "loss (lower is better)", epochs, losses, np.nanargmin, keys_in)
        heading = f"{fit_width(metric_title(metric), 1.8)} (higher is better)"
        _panel(right, heading, epochs, retrieval, np.nanargmax, keys_in)
        _loss_scale(left, losses)
        _fraction_scale(right, retrieval, lines)
    return show_literally(figure)


def _by_epoch(history: pd.DataFrame) -> pd.DataFrame:
    """Returns one row an epoch, ascending, with the last measurement of each column."""
    check_columns(history, ("epoch",), "history", "give the epochs trained at each measurement")
    epochs = history["epoch"].to_numpy(dtype=np.float64)
    broken = epochs[~(np.isfinite(epochs) & (epochs >= 0) & (epochs == np.round(epochs)))]
    if len(broken):
        raise ValueError(
            f"history has the epoch {broken[0]}, expected whole epochs trained so far, from 0; "
            "count finished epochs."
        )
    # GroupBy.last takes the last value that is not NaN
    return history.assign(epoch=epochs.astype(np.int64)).groupby("epoch").last().reset_index()


def _measured(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Returns the columns that hold a finite value, NaN in the place of all others."""
    found = {}
    for column in columns:
        if column in table:
            values = table[column].to_numpy(dtype=np.float64)
            values = np.where(np.isinf(values), np.nan, values)
            if not np.isnan(values).all():
                found[column] = values
    return found


def _panel(
    axes: Axes,
    heading: str,
    epochs: NDArray[np.int64],
    curves: Mapping[str, NDArray[np.float64]],
    best: Callable[[NDArray[np.float64]], np.intp],
    keys_in: float,
) -> None:
    """Draws the curves, and above them what each is with its best value."""
    per_inch = 1 / _HIGH_IN
    axes.text(0, 1 + (keys_in - 0.14) * per_inch, heading, transform=axes.transAxes, **bold("loss"))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_xlabel("epochs trained", fontsize=9.5)
    axes.tick_params(labelcolor=MUTED, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(*_padded(float(epochs[0]), float(epochs[-1]), 0.5))
    if not curves:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set_yticks([])
    for place, (name, values) in enumerate(curves.items()):
        color, marker, dashes = _style(name, list(curves))
        there = ~np.isnan(values)
        axes.plot(
            epochs[there], values[there], color=color, marker=marker, linestyle=dashes,
            markersize=4.5 if there.sum() <= 40 else 2.5, linewidth=1.5, zorder=3, label=name,
        )  # fmt: skip
        at = int(best(values))
        y = 1 + (keys_in - 0.14 - LINE_IN * (place + 1)) * per_inch
        axes.plot(
            [0, 0.055], [y + 0.045 * per_inch] * 2, color=color, marker=marker, markersize=4.5,
            linestyle=dashes, linewidth=1.5, transform=axes.transAxes, clip_on=False,
            label=f"_key of {name}",
        )  # fmt: skip
        split, _, quantity = name.partition("/")
        written = three_digits(values[at])
        if quantity != "loss":
            quantity = "macro" if quantity.startswith("macro_") else "micro"
            written = number(values[at])
        shown = f"{one_line(split, 12)} {quantity}, best {written} after epoch {epochs[at]:,}"
        axes.text(0.085, y, shown, transform=axes.transAxes, fontsize=9.5)


def _style(name: str, names: Sequence[str]) -> tuple[str, str, str]:
    """Returns colour, marker and dashes of a curve."""
    split, _, quantity = name.partition("/")
    if quantity == "loss":
        known = {"train": (MUTED, "o", "-"), "val": (BAR, "s", "-")}
        return known.get(split, (MACRO, "^", "--"))
    first = split == names[0].partition("/")[0]
    macro = quantity.startswith("macro_")
    return (MACRO if macro else MICRO, "s" if macro else "o", "-" if first else "--")


def _padded(low: float, high: float, least: float) -> tuple[float, float]:
    """Widens a range by a twentieth, and by at least ``least`` where it is a single point.

    A range below a thousandth of its values is widened to that: such a curve is flat, and ticks
    that told it from a flat one would have more digits than there is room.
    """
    room = 0.05 * (high - low) if high > low else least
    room = max(room, (1e-3 * max(abs(low), abs(high)) - (high - low)) / 2)
    return low - room, high + room


def _loss_scale(axes: Axes, losses: Mapping[str, NDArray[np.float64]]) -> None:
    if not losses:
        return
    values = np.concatenate(list(losses.values()))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low > 0 and high > _LOG_FROM * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("logarithmic", fontsize=9.5)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(*_padded(low, high, max(abs(low) * 0.1, 1e-3)))
        _whole_numbers_on_axis(axes)


def _whole_numbers_on_axis(axes: Axes) -> None:
    """Writes every tick in full: matplotlib would put what ticks share above the axis."""
    low, high = axes.get_ylim()
    digits = math.ceil(math.log10(max(abs(low), abs(high)) / (high - low))) + 2
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.{max(digits, 3)}g}")


def _fraction_scale(
    axes: Axes, retrieval: Mapping[str, NDArray[np.float64]], lines: Mapping[str, float]
) -> None:
    """Sets the range from what is drawn, and draws the floors with their names at the right."""
    if not retrieval and not lines:
        return
    values = np.concatenate([*retrieval.values(), list(lines.values())])
    low, high = _padded(float(np.nanmin(values)), float(np.nanmax(values)), 0.05)
    # within [0, 1], with room for a point that lies on the edge
    low, high = max(low, -0.02 * (high - low)), min(high, 1 + 0.02 * (high - low))
    axes.set_ylim(low, high)
    _whole_numbers_on_axis(axes)
    apart = (high - low) * 0.17 / _HIGH_IN
    right = axes.get_xlim()[1]
    for (name, value), y in zip(
        sorted(lines.items(), key=lambda line: line[1]),
        spread(sorted(lines.values()), apart),
        strict=True,
    ):
        axes.axhline(value, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.1, label="_floor")
        beside = right + 0.12 * (right - axes.get_xlim()[0]) / _WIDE_IN
        axes.plot(
            [right, beside], [value, y], color=MUTED, linewidth=0.7, clip_on=False, label="_lead"
        )
        axes.text(beside, y, f" {name}", fontsize=9, va="center", color=MUTED)


def spread(values: Sequence[float], apart: float) -> list[float]:
    """Moves ascending values so far that neighbours are ``apart``, each group about its middle."""
    groups: list[tuple[float, int]] = []  # the middle, and how many
    for value in values:
        groups.append((value, 1))
        while len(groups) > 1:
            (below, few), (above, more) = groups[-2:]
            if above - below >= apart * (few + more) / 2:
                break
            groups[-2:] = [((below * few + above * more) / (few + more), few + more)]
    return [
        middle + apart * (i - (number - 1) / 2) for middle, number in groups for i in range(number)
    ]
