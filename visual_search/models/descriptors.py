"""What describes a picture, or an item, by itself: random numbers, colours, pixels, gradients.

Nothing is learned or fitted here, and what a picture gets does not depend on the pictures beside
it. `visual_search.models.floors` makes embeddings of these.

Shapes: ``n`` items, ``S`` side of a picture in pixels, ``s`` the side that it is brought to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RANDOM_DIM = 64
HISTOGRAM_BINS = 16  # a channel
HISTOGRAM_DIM = 3 * HISTOGRAM_BINS

HOG_SIZE_PX = 64
HOG_DIM = 7 * 7 * 2 * 2 * 12  # blocks (they step by one cell), cells of each, orientations


def random_embeddings(item_ids: Sequence[str], seed: int) -> Floats:
    """Returns a random embedding an item, ``[n, 64] float32``, uniform in -1..1.

    An item's numbers are the SHAKE-256 of seed and id: wherever and beside whatever it stands, on
    every machine and with every version of NumPy, they are the same.

    Example:
        >>> both = random_embeddings(["hat-1", "shoe-1"], seed=0)
        >>> both.shape, bool((both[1] == random_embeddings(["shoe-1"], seed=0)[0]).all())
        ((2, 64), True)
    """
    keys = [f"{seed}\x1f{item_id}".encode() for item_id in item_ids]
    digests = [hashlib.shake_256(key).digest(4 * RANDOM_DIM) for key in keys]
    whole = np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, RANDOM_DIM)  # [n, 64]
    return (whole / 2**31 - 1).astype(np.float32)


def colour_histogram(pictures: NDArray[np.uint8]) -> Floats:
    """Returns each channel's share of pixels in 16 equal bins: ``[n, 48] float32``, red first.

    Bin b of a channel holds the values 16 b to 16 b + 15; each channel's shares add up to 1.

    Raises:
        TypeError: The dtype is not uint8.
        ValueError: The shape is not ``[n, 3, S, S]``.

    Example:
        >>> picture = np.zeros((1, 3, 2, 2), np.uint8)
        >>> picture[0, 0] = [[0, 15], [16, 255]]
        >>> colour_histogram(picture)[0, :16].tolist()
        [0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25]
    """
    check_pictures(pictures)
    channels = pictures.reshape(3 * len(pictures), -1)  # [n * 3, S * S]
    first_bins = np.arange(len(channels))[:, None] * HISTOGRAM_BINS
    bins = channels // (256 // HISTOGRAM_BINS) + first_bins
    counts = np.bincount(bins.ravel(), minlength=HISTOGRAM_BINS * len(channels))
    return (counts / channels.shape[1]).reshape(-1, HISTOGRAM_DIM).astype(np.float32)


def resized_pixels(pictures: NDArray[np.uint8], size_px: int) -> Floats:
    """Returns the pixels at s x s, s being ``size_px``: ``[n, 3 * s * s] float32`` in 0..1.

    The red plane comes first, row by row. A pixel of the result is the mean of what it covers, by
    the share that it covers.

    Raises:
        TypeError: The dtype is not uint8.
        ValueError: The shape is not ``[n, 3, S, S]``, or ``size_px`` is below 1.

    Example:
        >>> picture = np.zeros((1, 3, 2, 2), np.uint8)
        >>> picture[0, 1] = [[0, 255], [0, 255]]
        >>> resized_pixels(picture, size_px=1).tolist()
        [[0.0, 0.5, 0.0]]
    """
    return _averaged(pictures, size_px).reshape(len(pictures), -1) / np.float32(255)


def hog(pictures: NDArray[np.uint8]) -> Floats:
    """Returns histograms of oriented gradients of the pictures at 64 x 64 px.

    8 x 8 px cells, 12 unsigned orientations, of each pixel the channel with the largest gradient,
    overlapping blocks of 2 x 2 cells, L2-Hys: scaled to unit length, clipped at 0.2, scaled again.
    Source: N. Dalal and B. Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR
    2005 (they: 64 x 128 px and 9 orientations), as scikit-image computes it.

    Returns:
        ``[n, 2352] float32`` in 0..1: 7 x 7 blocks, 2 x 2 cells each, 12 orientations each.

    Raises:
        TypeError: The dtype is not uint8.
        ValueError: The shape is not ``[n, 3, S, S]``.
    """
    from skimage.feature import hog as describe

    # Whole 8-bit values: the block norm blows rounding errors in flat regions up to full gradients.
    whole = np.rint(_averaged(pictures, HOG_SIZE_PX))  # [n, 3, 64, 64]
    found = np.empty((len(pictures), HOG_DIM), np.float32)
    for row, picture in enumerate(whole.transpose(0, 2, 3, 1)):
        found[row] = describe(
            picture,
            orientations=12,
            pixels_per_cell=(8, 8),
            cells_per_block=(2, 2),
            channel_axis=-1,
        )
    return found


def check_pictures(pictures: NDArray[np.uint8]) -> None:
    """Checks that these are pictures as the cache holds them.

    Raises:
        TypeError: The dtype is not uint8.
        ValueError: The shape is not ``[n, 3, S, S]``.
    """
    if pictures.dtype != np.uint8:
        raise TypeError(
            f"the pictures are {pictures.dtype}; expected uint8, not yet scaled: pass them as the "
            "cache holds them"
        )
    shape = pictures.shape
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not shape[2]:
        raise ValueError(
            f"the pictures have shape {shape}; expected [n, 3, S, S]: pass one picture as "
            "pictures[None]"
        )


def _averaged(pictures: NDArray[np.uint8], size_px: int) -> Floats:
    """Averages areas: ``[n, 3, S, S] uint8 -> [n, 3, s, s] float32`` in 0..255."""
    check_pictures(pictures)
    if size_px < 1:
        raise ValueError(f"size_px is {size_px}; expected at least 1 pixel: try 32")
    side = pictures.shape[-1]
    if side % size_px == 0:
        return _averaged_squares(pictures, side // size_px)
    edges, pixels = np.arange(size_px + 1) * side / size_px, np.arange(side)  # in source pixels
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = (np.clip(covered, 0, None) * size_px / side).astype(np.float32)  # [s, S]
    averaged: Floats = weights @ pictures.astype(np.float32) @ weights.T
    return averaged


def _averaged_squares(pictures: NDArray[np.uint8], step: int) -> Floats:
    """Averages squares of step x step pixels.

    Whole numbers are summed exactly, in a third of the time that the small matrix products of
    `_averaged` take on a machine that is idle; on a busy one, BLAS's threads wait for each other.
    """
    rows = pictures[:, :, ::step].astype(np.uint32)  # [n, 3, s, S]
    for start in range(1, step):
        rows += pictures[:, :, start::step]
    sums = rows[..., ::step].copy()  # [n, 3, s, s]
    for start in range(1, step):
        sums += rows[..., start::step]
    return (sums / step**2).astype(np.float32)
