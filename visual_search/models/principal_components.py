"""PCA of descriptions, fitted on the gallery alone.

Shapes: ``N`` gallery items, ``Q`` queries, ``n`` items that it is fitted on, ``D`` width of a
description, ``C`` components.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_search.models.descriptors import Floats
from visual_search.models.floor_items import Described, FloorEmbeddings

MAX_FIT_ITEMS = 16_384  # that PCA is fitted on: 400 MB at 3,072 float64 values
NO_VARIANCE = 1e-10  # of the largest variance: what is smaller is rounding, its direction arbitrary


def project(
    gallery: Described, queries: Described, num_components: int, seed: int
) -> FloorEmbeddings:
    """Returns both sides on the gallery's first principal components, its mean at 0.

    Args:
        gallery: ``[N, D]``; PCA is fitted on all, or on `MAX_FIT_ITEMS` of them.
        queries: ``[Q, D]``.
        num_components: The most that C may be. C is lower where the gallery varies in fewer
            directions; 1, and all embeddings 0, where it does not vary.
        seed: Decides together with the ids which items of a larger gallery it is fitted on.
    """
    num_queries = len(queries.item_ids)
    rows_to_fit, other_rows = fit_rows(gallery.item_ids, seed)
    described = np.empty((len(rows_to_fit), gallery.dim), np.float64)
    for rows, descriptions in gallery.blocks(rows_to_fit):
        described[np.searchsorted(rows_to_fit, rows)] = descriptions
    components = principal_components(described, num_components)  # [C, D]
    offset = described.mean(axis=0) @ components.T  # [C]

    def projected(descriptions: NDArray[Any]) -> Floats:
        found: Floats = (descriptions @ components.T - offset).astype(np.float32)  # [n, C]
        return found

    shapes = [(len(side.item_ids), len(components)) for side in (gallery, queries)]
    found = FloorEmbeddings(*(np.empty(shape, np.float32) for shape in shapes))
    found.gallery[rows_to_fit] = projected(described)
    del described
    for rows, descriptions in gallery.blocks(other_rows):
        found.gallery[rows] = projected(descriptions)
    for rows, descriptions in queries.blocks(np.arange(num_queries)):
        found.queries[rows] = projected(descriptions)
    return found


def unit_length(embeddings: FloorEmbeddings) -> FloorEmbeddings:
    """Returns the embeddings scaled to length 1; what is 0 stays 0.

    Example:
        >>> found = FloorEmbeddings(np.float32([[3, 4], [0, 0]]), np.float32([[0, -2]]))
        >>> scaled = unit_length(found)
        >>> scaled.gallery.round(3).tolist(), scaled.queries.tolist()
        ([[0.6000000238418579, 0.800000011920929], [0.0, 0.0]], [[0.0, -1.0]])
    """

    def scaled(side: Floats) -> Floats:
        lengths = np.sqrt(np.einsum("nd,nd->n", side, side, dtype=np.float64))[:, None]  # [n, 1]
        found = np.empty_like(side)
        return np.divide(side, np.where(lengths > 0, lengths, 1), out=found, casting="same_kind")

    return FloorEmbeddings(scaled(embeddings.gallery), scaled(embeddings.queries))


def fit_rows(item_ids: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows that PCA is fitted on and the others: the ids decide, where there are many."""
    keys = [hashlib.sha256(f"{seed}\x1f{item_id}".encode()).digest() for item_id in item_ids]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    return np.sort(order[:MAX_FIT_ITEMS]), np.sort(order[MAX_FIT_ITEMS:])


def principal_components(described: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Returns the first principal components, ``[C, D]``, of ``[n, D]``: C is at most ``most``.

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
