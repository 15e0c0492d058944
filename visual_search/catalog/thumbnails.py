"""Small JPEGs of a catalogue's pictures, for pages and tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.images import PictureLimits, decode, fit_array, to_display

if TYPE_CHECKING:  # a search has no pandas to load
    from visual_search.catalog.catalog import Catalog

THUMBNAIL_PX = 192
QUALITY = 85
_LIMITS = PictureLimits()
_TASK = 64  # pictures between two reports of progress


def thumbnail(
    picture: bytes | NDArray[np.uint8],
    size_px: int = THUMBNAIL_PX,
    limits: PictureLimits = _LIMITS,
) -> bytes:
    """Returns a JPEG of ``size_px`` x ``size_px``: the whole picture, padded with white.

    Args:
        picture: An encoded file, or decoded ``[H, W]`` or ``[H, W, 3] uint8``.
        size_px: Side in pixels.
        limits: Beyond these a file is refused without decoding it.

    Raises:
        ValueError: ``size_px`` is below 1, or the array has another shape.
        PictureError: The file does not decode.

    Example:
        >>> small = thumbnail(np.zeros((10, 20, 3), np.uint8), 8)
        >>> Image.open(io.BytesIO(small)).size
        (8, 8)
    """
    if isinstance(picture, bytes):
        pixels = decode(picture, size_px, "letterbox", limits)
    else:
        pixels = fit_array(picture, size_px, "letterbox")
    return jpeg(pixels)


def jpeg(picture: NDArray[np.uint8], quality: int = QUALITY) -> bytes:
    """Returns ``[3, H, W] uint8`` as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(to_display(picture)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def thumbnails(
    catalog: Catalog,
    rows: Sequence[int] | NDArray[np.int64],
    size_px: int = THUMBNAIL_PX,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[bytes]:
    """Returns a JPEG for each of these rows of a catalogue, in their order.

    Args:
        catalog: Its source loads the pictures.
        rows: Rows of its table.
        size_px: Side in pixels.
        on_progress: Called with (done, number of rows).

    Raises:
        PictureError: A picture does not decode.
        FileNotFoundError: A picture is not there.
    """
    from visual_search.catalog.streaming import num_reading  # with pandas; a server has none

    images = catalog.table["image"].iloc[np.asarray(rows, np.int64)].tolist()
    made: list[bytes] = []
    with ThreadPoolExecutor(num_reading(catalog.source)) as pool:
        for start in range(0, len(images), _TASK):
            part = images[start : start + _TASK]
            made += pool.map(lambda image: thumbnail(catalog.source.load(image), size_px), part)
            if on_progress is not None:
                on_progress(len(made), len(images))
    return made
