"""Exact nearest items of a gallery in memory, ties by id, out of a searcher's rounded candidates.

The searcher is a FAISS index over all items, on whatever device; see `visual_search.knn.exact`. As
long as an item that it did not propose might be as near as the k-th, its list doubles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.exact import MARGIN, exact_squared_distances, row_lengths, tolerance

BATCH_PAIRS = 2**22  # candidates at a time: 50 MB of rows and distances


class RoundedSearcher(Protocol):
    """A FAISS index over the centred embeddings, on whatever device."""

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns rounded squared distances and rows, both ``[Q, k]``, the nearest first."""
        ...


@dataclass(frozen=True, eq=False)
class Gallery:
    """What exact answers need beside the searcher.

    Attributes:
        embeddings: ``[N, D] float32``, as they were given.
        centre: ``[D] float32``, subtracted from what the searcher holds and is asked: distances do
            not change, but float32 does not lose them behind a large common offset.
        lengths: ``[N] float64``, Euclidean length of each centred embedding.
        id_order: ``[N] int64``, place of each row's item id among the sorted ids.
    """

    embeddings: NDArray[np.float32]
    centre: NDArray[np.float32]
    lengths: NDArray[np.float64]
    id_order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: NDArray[np.int64]) -> Gallery:
        """Returns the gallery of these rows."""
        return Gallery(self.embeddings[rows], self.centre, self.lengths[rows], self.id_order[rows])


def copies_before(
    embeddings: NDArray[np.float32], id_order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns how many identical embeddings have a smaller item id (``[N] int64``).

    Of copies, only the k + 1 with the smallest ids can be among a query's k neighbours (one may be
    excluded): a collapsed network, which gives thousands of items one embedding, costs nothing.

    Example:
        >>> same = np.array([[1, 2], [0, 0], [1, 2]], dtype=np.float32)
        >>> copies_before(same, np.array([2, 1, 0]))
        array([1, 0, 0])
    """
    seen: dict[bytes, int] = {}
    copies = np.empty(len(embeddings), dtype=np.int64)
    for row in np.argsort(id_order):
        key = hashlib.blake2b(embeddings[row].tobytes(), digest_size=16).digest()
        copies[row] = seen.get(key, 0)
        seen[key] = int(copies[row]) + 1
    return copies


def nearest(
    gallery: Gallery,
    searcher: RoundedSearcher,
    queries: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.int64],
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns each query's k nearest rows, by (exact squared distance, item id).

    The searcher decides how long it takes, never what comes out.

    Args:
        gallery: The N items.
        searcher: Proposes candidates among the same items, centred.
        queries: ``[Q, D] float32``, finite.
        k: Neighbours a query; at most N, or N - 1 where one is excluded.
        excluded: ``[Q] int64``, the row that is left out of each query's answer, or -1.
        on_progress: Called with (queries answered, Q).

    Returns:
        Rows ``[Q, k] int64`` and squared distances ``[Q, k] float64``.
    """
    rows = np.empty((len(queries), k), dtype=np.int64)
    squared = np.empty((len(queries), k))
    centred = queries - gallery.centre  # [Q, D]
    lengths = row_lengths(centred)  # [Q]
    pending = np.arange(len(queries))
    num_candidates = k + 1 + MARGIN
    while len(pending):
        count = min(num_candidates, len(gallery))
        batch = max(1, BATCH_PAIRS // count)
        again = []
        for start in range(0, len(pending), batch):
            asked = pending[start : start + batch]  # [q]
            rounded, candidates = _propose(gallery, searcher, centred[asked], count)  # [q, c]
            exact = exact_squared_distances(gallery.embeddings, queries[asked], candidates)
            ranked = np.where(candidates == excluded[asked, None], np.inf, exact)
            order = np.lexsort((gallery.id_order[candidates], ranked), axis=-1)[:, :k]
            rows[asked] = np.take_along_axis(candidates, order, axis=1)
            squared[asked] = np.take_along_axis(ranked, order, axis=1)
            if rounded is not None:
                clear = _is_clear(
                    gallery, lengths[asked], rounded, candidates, exact, squared[asked, -1]
                )
                again.append(asked[~clear])
            if on_progress is not None:
                waiting = len(pending) - start - len(asked) + sum(map(len, again))
                on_progress(len(queries) - waiting, len(queries))
        pending = np.concatenate(again) if again else pending[:0]
        num_candidates *= 2
    return rows, squared


def _propose(
    gallery: Gallery, searcher: RoundedSearcher, centred: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64]]:
    """Returns rounded distances and candidate rows ``[q, count]``; None and all rows at the end."""
    if count == len(gallery):
        everything = np.arange(len(gallery), dtype=np.int64)
        return None, np.broadcast_to(everything, (len(centred), count))
    rounded, candidates = searcher.search(centred, count)
    # FAISS fills a list that came out short with -1, which NumPy would read as the last item: such
    # a query is marked as unclear and asks for more.
    short = candidates < 0
    return np.where(short, -np.inf, rounded), np.where(short, 0, candidates)


def _is_clear(
    gallery: Gallery,
    query_lengths: NDArray[np.float64],
    rounded: NDArray[np.float32],
    candidates: NDArray[np.int64],
    exact: NDArray[np.float64],
    kth: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Says for which queries no item outside the candidates can be as near as the k-th, [q] bool.

    An item y outside has a rounded distance of at least the worst candidate's. To be as near as the
    k-th it would need |y| <= |x| + sqrt(kth), which bounds its rounding: one huge outlier in the
    gallery does not make everybody uncertain. A searcher whose own distances are further off than
    rounding allows is not believed at all.
    """
    dim = gallery.embeddings.shape[1]
    reach = np.minimum(gallery.lengths.max(), (query_lengths + np.sqrt(kth)) * 1.001)
    beyond = rounded.max(axis=1) - tolerance(query_lengths + reach, dim) > kth
    allowed = tolerance(query_lengths[:, None] + gallery.lengths[candidates], dim)
    sound = (np.abs(rounded - exact) <= allowed).all(axis=1)
    return np.asarray(beyond & sound & np.isfinite(rounded).all(axis=1))
