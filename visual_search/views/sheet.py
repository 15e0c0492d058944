"""A page measured in inches on which pictures and texts are placed.

One axes object carries everything: a grid of 200 small axes takes seconds to draw, one axes with
200 pictures a fraction of that, and nothing can overlap that was not placed so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from visual_search.views.style import (
    INK,
    MUTED,
    bold,
)
from visual_search.wording import one_line

MARGIN_IN = 0.25
HEADER_IN = 0.8
DPI = 100


def new_figure(width_in: float, height_in: float, title: str, subtitle: str = "") -> Figure:
    """Returns an empty figure with its title and subtitle at the upper left, without pyplot."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    FigureCanvasAgg(figure)
    # 13 points bold take about 0.117 inches a character, 9.5 points 0.077
    shown = one_line(title, int((width_in - 2 * MARGIN_IN) / 0.117))
    x = MARGIN_IN / width_in
    figure.text(
        x, 1 - 0.32 / height_in, shown, fontsize=13, va="baseline", color=INK, **bold(shown)
    )
    if subtitle:
        shown = one_line(subtitle, int((width_in - 2 * MARGIN_IN) / 0.072), cut="end")
        figure.text(x, 1 - 0.57 / height_in, shown, fontsize=9.5, va="baseline", color=MUTED)
    return figure


def axes_in_inches(
    figure: Figure, left: float, top: float, width: float, height: float, **kwargs: Any
) -> Axes:
    """Adds axes at ``left``, ``top`` (from the upper left corner), all four in inches."""
    page_width, page_height = figure.get_size_inches()
    box = (
        left / page_width,
        1 - (top + height) / page_height,
        width / page_width,
        height / page_height,
    )
    return figure.add_axes(box, **kwargs)


class Sheet:
    """A page of ``width_in`` × ``height_in`` inches; positions run from the upper left corner."""

    def __init__(self, width_in: float, height_in: float, title: str, subtitle: str = "") -> None:
        self.figure = new_figure(width_in, height_in, title, subtitle)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set_xlim(0, width_in)
        self._axes.set_ylim(height_in, 0)
        self._axes.set_autoscale_on(False)

    def picture(
        self,
        pixels: NDArray[Any],
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        cmap: str | None = None,
        norm: Normalize | None = None,
        interpolation: Literal["auto", "nearest"] = "auto",
    ) -> None:
        """Places ``pixels`` ([H, W] with ``cmap`` and ``norm``, or [H, W, 3] uint8) at x, y."""
        self._axes.imshow(
            pixels,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            cmap=cmap,
            norm=norm,
            interpolation=interpolation,
        )

    def text(self, x: float, y: float, text: str, size: float = 9.5, **kwargs: Any) -> None:
        """Writes ``text`` with its upper left corner at x, y; ``ha`` and ``va`` change that.

        Lines at the same y share a baseline, whatever letters they hold.
        """
        if "va" not in kwargs:
            y += 0.93 * size / 72  # the ascent of DejaVu Sans
        settings: dict[str, Any] = {
            "ha": "left",
            "va": "baseline",
            "color": INK,
            "clip_on": False,
        } | kwargs
        self._axes.text(x, y, text, fontsize=size, **settings)

    def frame(
        self, x: float, y: float, width: float, height: float, color: str, line_width: float = 2.5
    ) -> None:
        """Draws a frame around the rectangle; half of its line lies outside."""
        self._axes.add_patch(
            Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=line_width)
        )

    def badge(self, x: float, y: float, sign: str, color: str) -> None:
        """Puts a white sign on a coloured disc with its centre at x, y."""
        # a marker keeps a true circle whatever the sign's width; 15 points are 0.21 inches
        self._axes.plot(
            [x], [y], marker="o", markersize=15, color=color, markeredgecolor="white",
            markeredgewidth=1.2, linestyle="none", clip_on=False,
        )  # fmt: skip
        self.text(x, y, sign, 9, color="white", ha="center", va="center_baseline")

    def scale(
        self,
        x: float,
        y: float,
        width: float,
        norm: Normalize,
        cmap: str,
        ticks: list[float],
        label: str,
        tick_text: Callable[[float], str] = "{:g}".format,
    ) -> None:
        """Draws a horizontal colour scale with its ticks below and its meaning to the right."""
        low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
        # position along the bar is the colour's position, so that the bar is an even ramp
        ramp = np.linspace(0.0, 1.0, 256)[None, :]
        self.picture(ramp, x, y, width, 0.13, cmap=cmap, norm=Normalize(0, 1))
        for tick in ticks:
            at = float(np.asarray(norm(min(max(tick, low), high))))
            self.text(x + width * at, y + 0.16, tick_text(tick), 8, ha="center", color=MUTED)
        self.text(x + width + 0.25, y + 0.065, label, 9, va="center", color=MUTED)
