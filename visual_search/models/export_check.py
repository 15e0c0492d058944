"""Whether an exported encoder gives what its network gives, and finds what it finds.

Shapes: ``n`` pictures, ``S`` side of a picture in pixels, ``D`` width of the embedding, ``N`` items
of a gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visual_search.models.embedding import EmbeddingHead
from visual_search.models.encoder import Encoder
from visual_search.models.exporting import on_cpu, scaled

TOLERANCE = 1e-4  # of the largest absolute value of the embeddings, where that is above 1
_PICTURES = 16  # at once
_ITEMS = 16_384  # of a gallery at once


class ExportError(ValueError):
    """An exported encoder gives something else than the network that it was made of."""


@dataclass(frozen=True)
class ExportCheck:
    """How near an exported encoder is to its network.

    Attributes:
        num_pictures: How many were embedded by both.
        largest_difference: Of any value of any embedding.
        largest_value: Of PyTorch's embeddings, the largest absolute value.
        allowed_difference: `TOLERANCE`, times ``largest_value`` where that is above 1.
        k: How many neighbours of each picture were compared; 0 without a gallery.
        num_gallery: Items N that they were looked for among.
        num_ties: Neighbours, of all pictures together, that stand at another rank because several
            are equally far, see `check_export`.
    """

    num_pictures: int
    largest_difference: float
    largest_value: float
    allowed_difference: float
    k: int
    num_gallery: int
    num_ties: int


def check_export(
    encoder: Encoder,
    head: EmbeddingHead,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    pictures: NDArray[np.uint8],
    *,
    gallery: NDArray[np.float32] | None = None,
    item_ids: Sequence[str] = (),
    k: int = 10,
) -> ExportCheck:
    """Compares an exported encoder with its network on real pictures, and what both find.

    The network is asked as training asks it, in PyTorch on the CPU, in float32. Two neighbours are
    tied for a picture where their squared distances differ by at most 1 part in 10,000 of the
    larger, or by what `TOLERANCE` alone may make of a distance of 0. At every rank both have to
    find the same item, or two that are tied.

    Args:
        encoder: The network.
        head: What is taken of it, fitted.
        embed: The exported one as it will be used: ``[n, 3, S, S] uint8 -> [n, D] float32``, such
            as ``OnnxEncoder.embed``.
        pictures: ``[n, 3, S, S] uint8``.
        gallery: Embeddings ``[N, D]`` of the items to find; None compares embeddings alone. A
            distance of every picture to every item is held at once.
        item_ids: Of the N items, for messages; without them they are numbered.
        k: How many neighbours of each picture to compare; of fewer items, all.

    Raises:
        ValueError: There is no picture or no item, or a shape is wrong.
        ExportError: An embedding differs by more than is allowed, or another item is found.
    """
    side = encoder.image_size_px
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (3, side, side) or not len(pictures):
        raise ValueError(
            f"got pictures of shape {list(pictures.shape)} and dtype {pictures.dtype}, expected "
            f"[n, 3, {side}, {side}] uint8 with n of at least 1; give pictures as the network is "
            "shown them"
        )
    expected, found = _embedded(encoder, head, pictures), np.asarray(embed(pictures))
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported encoder gives embeddings of shape {list(found.shape)}, PyTorch "
            f"{list(expected.shape)}; they are not of one network: export it again"
        )
    largest = float(np.abs(expected).max())
    allowed = TOLERANCE * max(1.0, largest)
    apart = np.abs(found - expected).max(axis=1)  # [n]
    worst = int(np.nan_to_num(apart, nan=np.inf).argmax())
    if not apart[worst] <= allowed:  # NaN is not either
        raise ExportError(
            f"the exported encoder's embedding of picture {worst} differs from PyTorch's by "
            f"{apart[worst]:.3g}, expected at most {allowed:.3g} (of values up to {largest:.3g}); "
            "an operation of the network does not export faithfully: do not use the file"
        )
    k, num_gallery, num_ties = 0 if gallery is None else k, 0, 0
    if gallery is not None:
        k, num_gallery = min(k, len(gallery)), len(gallery)
        least = expected.shape[1] * allowed**2
        num_ties = _compare_neighbours(expected, found, gallery, item_ids, k, least)
    return ExportCheck(
        len(pictures), float(apart[worst]), largest, allowed, k, num_gallery, num_ties
    )


def _embedded(
    encoder: Encoder, head: EmbeddingHead, pictures: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Returns the network's embeddings ``[n, D]``, not by way of `ServedEncoder`."""
    encoder, head = on_cpu(encoder, head)
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _PICTURES):
            block = torch.from_numpy(pictures[start : start + _PICTURES])
            found.append(head(head.features(encoder, scaled(block))).numpy())
    return np.concatenate(found)


def _compare_neighbours(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    gallery: NDArray[np.float32],
    item_ids: Sequence[str],
    k: int,
    least: float,
) -> int:
    """Returns how many of the first k stand elsewhere, being tied; raises where others are found.

    Args:
        expected: PyTorch's embeddings ``[n, D]``.
        found: Those of the exported encoder.
        gallery: ``[N, D]``.
        item_ids: Of the gallery, or none.
        k: At most N.
        least: Squared distances that differ by less are tied.
    """
    if gallery.ndim != 2 or gallery.shape[1] != expected.shape[1] or not len(gallery) or k < 1:
        raise ValueError(
            f"got a gallery of shape {list(gallery.shape)} and k {k}, expected [N, "
            f"{expected.shape[1]}] and k, both at least 1; give the embeddings that are searched"
        )
    if len(item_ids) not in (0, len(gallery)):
        raise ValueError(
            f"got {len(item_ids)} item_ids for {len(gallery)} items, expected one each or none"
        )
    distances = _squared_distances(expected, gallery)  # [n, N]
    first = distances.argsort(axis=1, kind="stable")[:, :k]
    other = _squared_distances(found, gallery).argsort(axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(distances, first, axis=1)  # [n, k], both by PyTorch's distances
    far = np.take_along_axis(distances, other, axis=1)
    tied = np.abs(near - far) <= np.maximum(least, TOLERANCE * np.maximum(near, far))
    if not tied.all():
        picture, rank = np.argwhere(~tied)[0].tolist()
        rows = (int(first[picture, rank]), int(other[picture, rank]))
        names = [item_ids[row] if item_ids else f"row {row}" for row in rows]
        raise ExportError(
            f"picture {picture} has {names[0]} at rank {rank + 1} by PyTorch (squared distance "
            f"{near[picture, rank]:.6g}) and {names[1]} ({far[picture, rank]:.6g}) by the exported "
            "encoder; expected the same item: do not use the file"
        )
    return int((first != other).sum())


def _squared_distances(
    queries: NDArray[np.float32], gallery: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns ``[n, N]``, in float64: a product of lengths hides what is near 0 in float32."""
    asked = queries.astype(np.float64)
    distances = np.empty((len(queries), len(gallery)))
    for start in range(0, len(gallery), _ITEMS):
        block = gallery[start : start + _ITEMS].astype(np.float64)
        lengths = (asked**2).sum(axis=1)[:, None] + (block**2).sum(axis=1)
        distances[:, start : start + len(block)] = lengths - 2 * asked @ block.T
    return np.maximum(distances, 0)
