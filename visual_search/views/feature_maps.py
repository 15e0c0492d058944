"""What every encoder layer makes of one item."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.chart_rows import fit_width
from visual_search.views.picture_grids import check_pictures
from visual_search.views.sheet import HEADER_IN, MARGIN_IN, Sheet
from visual_search.views.style import (
    MUTED,
    bold,
    quiet_style,
    show_literally,
)
from visual_search.wording import many, one_line

_CELL_IN = 0.95
_GAP_IN = 0.07
_NAMES_IN = 1.35
_ROW_IN = _CELL_IN + 0.26
_LAYERS_A_BLOCK = 10
_STRONGEST = 5  # channels of a layer
TIMES = "\u00d7"


def feature_map_grid(
    original: NDArray[np.uint8],
    layers: Mapping[str, NDArray[np.float32]],
    label: str,
) -> Figure:
    """Returns viridis maps of every layer: the mean over the channels, then the strongest channels.

    A channel's strength is the mean of its absolute values. Every map has its own scale from its
    lowest (dark) to its highest value (bright); a map whose values are all the same is dark. A
    layer of 1 × 1 shows its C values as one tile, row by row, twice as wide as high.

    Args:
        original: ``[3, S, S] uint8``.
        layers: In the network's order, name to ``[C, h, w] float32`` of this one item.
        label: The item's name.

    Raises:
        ValueError: The original is no picture, there is no layer, or a layer is not ``[C, h, w]``
            or not finite.
    """
    check_pictures(np.asarray(original)[None], "original[None]")
    if not layers:
        raise ValueError("layers is empty, expected name -> [C, h, w]; give the encoder's layers.")
    for name, maps in layers.items():
        if maps.ndim != 3 or 0 in maps.shape:
            raise ValueError(
                f"layer {name!r} is {list(maps.shape)}, expected [C, h, w] of one item; take one "
                "item out of the batch."
            )
        if not np.isfinite(maps).all():
            raise ValueError(
                f"layer {name!r} holds NaN or infinity, expected finite activations; check the "
                "weights and the input."
            )
    num_blocks = math.ceil(len(layers) / _LAYERS_A_BLOCK)
    layers_a_block = math.ceil(len(layers) / num_blocks)
    block_in = _NAMES_IN + (1 + _STRONGEST) * (_CELL_IN + _GAP_IN)
    maps_top = HEADER_IN + 0.25
    original_in = 1.5
    with quiet_style():
        sheet = Sheet(
            max(MARGIN_IN + original_in + 0.35 + num_blocks * (block_in + 0.35), 7.2),
            maps_top + max(layers_a_block * _ROW_IN, original_in + 0.4) + 0.05,
            f"What every encoder layer sees: {one_line(label, 40)}",
            f"{many(len(layers), 'layer')} in order; mean over channels, then the {_STRONGEST} "
            "strongest (largest mean |activation|); each map on its own scale, bright is high",
        )
        sheet.text(MARGIN_IN, HEADER_IN, "original", 9, color=MUTED)
        sheet.picture(
            np.ascontiguousarray(original.transpose(1, 2, 0)),
            MARGIN_IN, maps_top, original_in, original_in,
        )  # fmt: skip
        sheet.text(MARGIN_IN, maps_top + original_in + 0.06, fit_width(label, original_in, 9), 9)
        for number, (name, maps) in enumerate(layers.items()):
            block, row = divmod(number, layers_a_block)
            x = MARGIN_IN + original_in + 0.35 + block * (block_in + 0.35)
            if row == 0:
                sheet.text(x, HEADER_IN, "layer", 9, color=MUTED)
                sheet.text(x + _NAMES_IN, HEADER_IN, "mean", 9, color=MUTED)
                after = x + _NAMES_IN + _CELL_IN + _GAP_IN
                sheet.text(after, HEADER_IN, "strongest channels", 9, color=MUTED)
            _layer_row(sheet, x, maps_top + row * _ROW_IN, name, maps)
    return show_literally(sheet.figure)


def _layer_row(sheet: Sheet, x: float, y: float, name: str, maps: NDArray[np.float32]) -> None:
    channels, height, width = maps.shape
    strength = np.abs(maps).mean(axis=(1, 2), dtype=np.float64)  # [C]
    strongest = np.argsort(-strength, kind="stable")[:_STRONGEST]
    sheet.text(x, y + 0.05, one_line(name, 16), 10, **bold(name))
    sheet.text(x, y + 0.26, f"{channels} {TIMES} {height} {TIMES} {width}", 9, color=MUTED)
    sheet.text(x, y + 0.44, f"{maps.min():.3g} to {maps.max():.3g}", 8, color=MUTED)
    first_x = x + _NAMES_IN
    if height * width == 1:
        columns = math.ceil(math.sqrt(2 * channels))  # twice as wide as high: 512 -> 16 × 32
        tile = np.full(math.ceil(channels / columns) * columns, np.nan, dtype=np.float32)
        tile[:channels] = maps[:, 0, 0]
        tile = tile.reshape(-1, columns)
        _map(sheet, tile, first_x, y, 2 * _CELL_IN + _GAP_IN, _CELL_IN)
        rows = len(tile)
        caption = f"all {channels} values, row by row, {rows} {TIMES} {columns}"
        sheet.text(first_x, y + _CELL_IN + 0.03, caption, 7.5, color=MUTED)
        listed = "\n".join(f"ch {c}:  {maps[c, 0, 0]:.3g}" for c in strongest)
        after = first_x + 2 * (_CELL_IN + _GAP_IN) + 0.1
        sheet.text(after, y, listed, 8, color=MUTED, linespacing=1.35, va="top")
        return
    mean = maps.mean(axis=0, dtype=np.float64)  # [C, h, w] -> [h, w]
    _map(sheet, mean, first_x, y, _CELL_IN, _CELL_IN)
    for place, channel in enumerate(strongest, start=1):
        at = first_x + place * (_CELL_IN + _GAP_IN)
        _map(sheet, maps[channel], at, y, _CELL_IN, _CELL_IN)
        sheet.text(at, y + _CELL_IN + 0.03, f"ch {channel}", 7.5, color=MUTED)


def _map(
    sheet: Sheet, values: NDArray[np.floating], x: float, y: float, width: float, height: float
) -> None:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    norm = Normalize(low, high if high > low else low + 1.0)
    sheet.picture(values, x, y, width, height, cmap="viridis", norm=norm, interpolation="nearest")
