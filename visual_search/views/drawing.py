"""Figures that were drawn before, read back from their files."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from visual_search.views.scripts import take_key

_DPI = 150.0


def read_figure(path: str | os.PathLike[str]) -> Figure:
    """Returns a figure that consists of a PNG, pixel by pixel.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))  # [H, W, 3] uint8: imread's floats take long
            texts = dict(image.info)
    except (SyntaxError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} is no picture that can be read: {error}; expected a PNG; draw it again"
        ) from error
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(pixels, aspect="auto", interpolation="none")
    axes.set_axis_off()
    take_key(figure, texts)
    return figure


def read_pixels(path: str | os.PathLike[str], scale: float = 1.0) -> NDArray[np.uint8]:
    """Returns a PNG as ``[H, W, 3] uint8`` RGB, its sides times ``scale``.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with Image.open(path) as image:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pixels: NDArray[np.uint8] = np.asarray(
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        )
    return pixels
