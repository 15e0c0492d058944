"""Exact squared distances, and how far a fast float32 one may be off.

FAISS computes batched squared distances in float32 as ``|x|^2 + |y|^2 - 2 x.y``: two copies of one
picture may come out at different distances, and which of them is listed depends on the batch, the
threads and the order of the gallery. Here such distances only propose. The candidates' are
computed again, row by row in float64 as ``((x - y) ** 2).sum()``, so that copies tie exactly. A
query's answer is accepted once what was left out lies beyond the k-th neighbour by more than
rounding can explain: `visual_search.knn.exact_gallery` among items in memory, ties by id,
`visual_search.knn.exact_store` among the rows of a store, ties by row.

The rounding bound, with unit roundoff u = 2^-24: each of the three products has an error of at
most g = Du / (1 - Du) relative to the sum of its absolute terms, whatever the order of summation
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), hence at most g (|x| + |y|)^2
together. The few additions after them, and the rounding of the centred copies that FAISS searches,
add a handful of u: `tolerance` uses D + 8 in the place of D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT_ROUNDOFF = 2.0**-24
SMALLEST_NORMAL = 2.0**-126
MARGIN = 16  # candidates beyond k: of 6,000 crops (pixels, PCA-64) none had to ask for more
BLOCK_BYTES = 2**21  # float64 differences at a time: they stay in a core's cache


def row_lengths(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the Euclidean length of each row (``[N] float64``); not finite where the row is not.

    Example:
        >>> row_lengths(np.array([[3, 4], [0, 0]], dtype=np.float32))
        array([5., 0.])
    """
    lengths = np.empty(len(embeddings))
    step = max(1, BLOCK_BYTES // (8 * max(1, embeddings.shape[1])))
    with np.errstate(invalid="ignore"):  # inf - inf inside a row that the caller refuses
        for start in range(0, len(embeddings), step):
            block = embeddings[start : start + step].astype(np.float64)  # [n, D]
            lengths[start : start + step] = np.sqrt(np.square(block, out=block).sum(axis=1))
    return lengths


def common_offset(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns mean embedding (``[D] float32``), or zeros where it is not what fills the lengths.

    Zeros save a second copy of the gallery. Subtracting pays once the mean's squared length is
    above four times the mean squared deviation: the rounding bound is then five times too wide.
    """
    mean = embeddings.mean(axis=0, dtype=np.float64)  # [D]
    squared_length = float(mean @ mean)
    deviation = float(np.mean(row_lengths(embeddings) ** 2)) - squared_length
    if squared_length > 4 * deviation:
        return np.asarray(mean, dtype=np.float32)
    return np.zeros(embeddings.shape[1], dtype=np.float32)


def exact_squared_distances(
    embeddings: NDArray[np.float32], queries: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns ``((queries[q] - embeddings[rows[q, c]]) ** 2).sum()`` in float64, for every q and c.

    One pair's distance does not depend on which other pairs are asked with it.

    Args:
        embeddings: ``[N, D] float32``.
        queries: ``[Q, D] float32``.
        rows: ``[Q, C] int64``, in 0..N-1.

    Returns:
        ``[Q, C] float64``.

    Example:
        >>> gallery = np.array([[0, 0], [3, 4]], dtype=np.float32)
        >>> exact_squared_distances(gallery, gallery[:1], np.array([[1, 0]]))
        array([[25.,  0.]])
    """
    flat_rows = rows.reshape(-1)  # [Q * C]
    flat_queries = np.repeat(np.arange(len(rows)), rows.shape[1])
    distances = np.empty(len(flat_rows))
    step = max(1, BLOCK_BYTES // (8 * embeddings.shape[1]))
    for start in range(0, len(flat_rows), step):
        block = slice(start, start + step)
        difference = embeddings[flat_rows[block]].astype(np.float64)  # [n, D]
        difference -= queries[flat_queries[block]]
        distances[block] = np.square(difference, out=difference).sum(axis=1)
    return distances.reshape(rows.shape)


def tolerance(length_sum: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """Returns how far a float32 squared distance may be off, where ``length_sum`` is |x| + |y|.

    The first term bounds rounding, the second what underflows to zero in embeddings of about 1e-20.
    """
    relative = (dim + 8) * UNIT_ROUNDOFF / (1 - (dim + 8) * UNIT_ROUNDOFF)
    return relative * length_sum**2 + 4 * (dim + 8) * SMALLEST_NORMAL
