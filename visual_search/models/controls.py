"""Embeddings that learn nothing, or nothing from labels or by gradient: the floors of a result.

A score means little until one knows what chance, colour and a classic descriptor reach on the same
gallery and queries. Whatever is fitted (PCA) is fitted on the gallery alone.

Shapes: ``N`` gallery items, ``Q`` queries, ``n`` items of a block, ``D`` embedding width, ``S``
side of a picture in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]
OnProgress = Callable[[int, int], None]
Describe = Callable[[NDArray[np.uint8]], Floats]
"""Describes each picture by itself: ``[n, 3, S, S] uint8 -> [n, D] float32``."""
EmbedPictures = Callable[[nn.Module, NDArray[np.uint8]], Floats]

BLOCK_BYTES = 8 * 2**20  # of uint8 pixels at a time: 170 pictures of 128 px
MAX_FIT_ITEMS = 16_384  # that PCA is fitted on: 400 MB at 3,072 float64 values
NO_VARIANCE = 1e-10  # of the largest variance: what is smaller is rounding, its direction arbitrary

UNTRAINED = "untrained"  # the control that is not in CONTROLS, since it needs a network
RANDOM_DIM = 64
HISTOGRAM_BINS = 16  # a channel
HISTOGRAM_DIM = 3 * HISTOGRAM_BINS
HOG_SIZE_PX = 64
HOG_DIM = 7 * 7 * 2 * 2 * 12  # blocks (they step by one cell), cells of each, orientations


class PictureRows(Protocol):
    """Pictures by row number: an array ``[n, 3, S, S] uint8``, or the catalogue's cache of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class ControlItems:
    """One side of a search, the gallery or the queries: ids and pictures in the same order.

    Raises:
        ValueError: There is no item, or the lengths differ.
    """

    item_ids: Sequence[str]
    pictures: PictureRows

    def __post_init__(self) -> None:
        if not len(self.pictures) or len(self.item_ids) != len(self.pictures):
            raise ValueError(
                f"got {len(self.item_ids)} item ids and {len(self.pictures)} pictures; expected "
                "one id for each of at least one picture: take both from the same rows"
            )

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True, eq=False)
class ControlEmbeddings:
    """What a control gave.

    Attributes:
        gallery: ``[N, D] float32``, contiguous, finite.
        queries: ``[Q, D] float32``, contiguous, finite.
    """

    gallery: Floats
    queries: Floats

    @property
    def dim(self) -> int:
        """D as it came out: below `Control.dim` where PCA found fewer components."""
        return int(self.gallery.shape[1])


Embed = Callable[[ControlItems, ControlItems, int, OnProgress | None], ControlEmbeddings]


@dataclass(frozen=True)
class Control:
    """An embedding to read a result against.

    Attributes:
        name: As in tables and charts.
        dim: Embedding width D; for PCA the most that it can be.
        definition: What a number of it means, in one sentence.
        embed: ``(gallery, queries, seed, on_progress) -> ControlEmbeddings``. A pure function: the
            same arguments give the same embeddings, and an item's does not depend on the queries.
            ``on_progress`` is called with (items done, N + Q). ``TypeError`` or ``ValueError``
            where a block of pictures is not ``[n, 3, S, S] uint8``.
    """

    name: str
    dim: int
    definition: str
    embed: Embed


def random_embeddings(item_ids: Sequence[str], seed: int) -> Floats:
    """Gives a random embedding an item, ``[n, 64] float32``, uniform in -1..1.

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
    """Gives each channel's share of pixels in 16 equal bins: ``[n, 48] float32``, red first.

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
    _check_pictures(pictures)
    channels = pictures.reshape(3 * len(pictures), -1)  # [n * 3, S * S]
    first_bins = np.arange(len(channels))[:, None] * HISTOGRAM_BINS
    bins = channels // (256 // HISTOGRAM_BINS) + first_bins
    counts = np.bincount(bins.ravel(), minlength=HISTOGRAM_BINS * len(channels))
    return (counts / channels.shape[1]).reshape(-1, HISTOGRAM_DIM).astype(np.float32)


def resized_pixels(pictures: NDArray[np.uint8], size_px: int) -> Floats:
    """Gives the pixels at s x s, s being ``size_px``: ``[n, 3 * s * s] float32`` in 0..1.

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
    """Gives histograms of oriented gradients of the pictures at 64 x 64 px.

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


def untrained(network: nn.Module, embed_pictures: EmbedPictures, dim: int) -> Control:
    """Gives the control that a run's own network is before its first step.

    Args:
        network: The network with its first random weights; it is left as it is.
        embed_pictures: Gives ``[n, D] float32`` of the network and ``[n, 3, S, S] uint8``, each
            picture by itself; called in evaluation mode, without gradients.
        dim: D.

    Raises:
        ValueError: From ``embed``: ``embed_pictures`` gave another shape or dtype.
    """

    def describe(pictures: NDArray[np.uint8]) -> Floats:
        modes = {module: module.training for module in network.modules()}
        network.eval()
        try:
            with torch.inference_mode():
                found = embed_pictures(network, pictures)
        finally:
            for module, mode in modes.items():
                module.training = mode
        if found.shape != (len(pictures), dim) or found.dtype != np.float32:
            raise ValueError(
                f"embed_pictures gave {found.dtype} of shape {found.shape}; expected float32 of "
                f"shape {(len(pictures), dim)}: check dim, and convert to NumPy as float32"
            )
        return found

    definition = "The run's own network with its first random weights, before any training."
    return Control(UNTRAINED, dim, definition, _each(describe, dim))


def _each(describe: Describe, dim: int) -> Embed:
    """Embeds every item by itself."""

    def embed(
        gallery: ControlItems, queries: ControlItems, seed: int, on_progress: OnProgress | None
    ) -> ControlEmbeddings:
        found = [np.empty((len(side), dim), np.float32) for side in (gallery, queries)]
        total = len(gallery) + len(queries)
        for side, embeddings, done in zip(
            (gallery, queries), found, (0, len(gallery)), strict=True
        ):
            for rows, pictures in _blocks(side, np.arange(len(side)), done, total, on_progress):
                embeddings[rows] = describe(pictures)
        return ControlEmbeddings(*found)

    return embed


def _random(
    gallery: ControlItems, queries: ControlItems, seed: int, on_progress: OnProgress | None
) -> ControlEmbeddings:
    """Embeds by item id; the pictures are not looked at."""
    found = [random_embeddings(side.item_ids, seed) for side in (gallery, queries)]
    if on_progress is not None:
        on_progress(len(gallery) + len(queries), len(gallery) + len(queries))
    return ControlEmbeddings(*found)


def _reduced(describe: Describe, dim: int, num_components: int, *, unit: bool = False) -> Embed:
    """Describes every item by itself, then projects it on the gallery's principal components."""

    def embed(
        gallery: ControlItems, queries: ControlItems, seed: int, on_progress: OnProgress | None
    ) -> ControlEmbeddings:
        num, total = len(gallery), len(gallery) + len(queries)
        fit_rows, other_rows = _fit_rows(gallery.item_ids, seed)
        described = np.empty((len(fit_rows), dim), np.float64)
        for rows, pictures in _blocks(gallery, fit_rows, 0, total, on_progress):
            described[np.searchsorted(fit_rows, rows)] = describe(pictures)
        components = _principal_components(described, num_components)  # [C, D]
        offset = described.mean(axis=0) @ components.T  # [C]

        def project(features: NDArray[Any]) -> Floats:
            projected: NDArray[np.float64] = features @ components.T - offset  # [n, C]
            if unit:
                lengths = np.linalg.norm(projected, axis=1, keepdims=True)  # [n, 1]
                projected /= np.where(lengths > 0, lengths, 1)  # what is 0 stays 0
            return projected.astype(np.float32)

        found = [np.empty((len(side), len(components)), np.float32) for side in (gallery, queries)]
        found[0][fit_rows] = project(described)
        del described
        for rows, pictures in _blocks(gallery, other_rows, len(fit_rows), total, on_progress):
            found[0][rows] = project(describe(pictures))
        for rows, pictures in _blocks(queries, np.arange(len(queries)), num, total, on_progress):
            found[1][rows] = project(describe(pictures))
        return ControlEmbeddings(*found)

    return embed


def _fit_rows(item_ids: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives the rows that PCA is fitted on and the others: the ids decide, where there are many."""
    keys = [hashlib.sha256(f"{seed}\x1f{item_id}".encode()).digest() for item_id in item_ids]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    return np.sort(order[:MAX_FIT_ITEMS]), np.sort(order[MAX_FIT_ITEMS:])


def _principal_components(described: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Gives the first principal components, ``[C, D]``, of ``[n, D]``: C is at most ``most``.

    Directions in which nothing varies are left out; where all rows are the same, one component of
    zeros stands for them. The solver is exact, and a component has the sign that makes its largest
    loading positive (scikit-learn's rule since 1.5), so that the rows' order does not matter.
    """
    from sklearn.decomposition import PCA

    num, dim = described.shape
    if not np.ptp(described, axis=0).any():
        return np.zeros((1, dim))
    pca = PCA(
        min(most, num - 1, dim),  # n points differ in at most n - 1 directions
        svd_solver="covariance_eigh" if num >= dim else "full",
        random_state=0,
    ).fit(described)
    varies = pca.explained_variance_ > NO_VARIANCE * pca.explained_variance_[0]
    components: NDArray[np.float64] = pca.components_[varies]
    return components


def _blocks(
    side: ControlItems,
    rows: NDArray[np.int64],
    done: int,
    total: int,
    on_progress: OnProgress | None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Gives these rows with their pictures, as many at a time as fit the memory meant for them."""
    if not len(rows):
        return
    first = side.pictures[rows[:1]]
    _check_pictures(first)
    step = max(1, BLOCK_BYTES // first.nbytes)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        yield block, side.pictures[block]
        if on_progress is not None:
            on_progress(done + start + len(block), total)


def _check_pictures(pictures: NDArray[np.uint8]) -> None:
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
    _check_pictures(pictures)
    if size_px < 1:
        raise ValueError(f"size_px is {size_px}; expected at least 1 pixel: try 32")
    side = pictures.shape[-1]
    edges, pixels = np.arange(size_px + 1) * side / size_px, np.arange(side)  # in source pixels
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = (np.clip(covered, 0, None) * size_px / side).astype(np.float32)  # [s, S]
    averaged: Floats = weights @ pictures.astype(np.float32) @ weights.T
    return averaged


_pixels_8 = partial(resized_pixels, size_px=8)
_pixels_32 = partial(resized_pixels, size_px=32)
_HOG = "Histograms of oriented gradients (64 px, 8 x 8 px cells, 12 bins, 2 x 2 blocks)"
_ON_64 = "on the first 64 principal components of the gallery"
_ON_256 = "on the first 256 principal components of the gallery"
_HISTOGRAM = "Share of pixels in each of 16 bins of red, green and blue."

_TABLE = (
    Control("random", RANDOM_DIM, "Random numbers that the item's id decides.", _random),
    Control("colour_histogram", HISTOGRAM_DIM, _HISTOGRAM, _each(colour_histogram, HISTOGRAM_DIM)),
    Control("pixels_8", 192, "The pixels at 8 x 8.", _each(_pixels_8, 192)),
    Control("pixels_32", 3072, "The pixels at 32 x 32.", _each(_pixels_32, 3072)),
    Control(
        "pixels_32_pca_64", 64, f"The pixels at 32 x 32, {_ON_64}.", _reduced(_pixels_32, 3072, 64)
    ),
    Control("hog", HOG_DIM, f"{_HOG}.", _each(hog, HOG_DIM)),
    Control("hog_pca_256", 256, f"{_HOG}, {_ON_256}.", _reduced(hog, HOG_DIM, 256)),
    Control(
        "hog_pca_256_unit",
        256,
        f"{_HOG}, {_ON_256}, scaled to unit length.",
        _reduced(hog, HOG_DIM, 256, unit=True),
    ),
)
CONTROLS: dict[str, Control] = {control.name: control for control in _TABLE}
"""In the order of a report's table; `untrained` makes the one that needs a network."""
