"""Exact nearest rows of a store that is read block by block, among all or the allowed ones.

A float32 pass over the blocks only proposes, see `visual_search.knn.exact`; ties go by row. What
stays unclear (hundreds of copies at one distance) is searched in float64 altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.engine import load_faiss
from visual_search.knn.exact import (
    BLOCK_BYTES,
    MARGIN,
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    common_offset,
    row_lengths,
    tolerance,
)
from visual_search.knn.store import ArrayStore, EmbeddingStore

BLOCK_VALUES = 2**22  # float32 numbers a block, 16 MB
BATCH_VALUES = 2**23  # rounded distances at a time, 32 MB
OFFSET_SAMPLE = 1024  # rows that tell whether the embeddings share a large offset
# FAISS turns to matrix products at 128,000 query numbers and compares row by row below. Between
# 4 queries and there a NumPy product is 2 to 8 times as fast: 64 queries among 50,000 x 512 on one
# core take 56 ms against 488 ms, one query 15 ms against 10 ms.
MIN_PRODUCT_QUERIES = 4
FAISS_PRODUCT_VALUES = 128_000

Block = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]


class ExactSearcher:
    """Finds exact neighbours in a store, among all rows or the allowed ones.

    Args:
        store: The N embeddings, finite.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store
        sample = np.linspace(0, max(0, len(store) - 1), min(len(store), OFFSET_SAMPLE))
        # float32 would lose the distances behind a large common offset: it is subtracted first.
        self._centre = np.zeros(store.dim, dtype=np.float32)
        if len(store):
            self._centre = common_offset(store.take(sample.astype(np.int64)))
        self._is_centred = bool(self._centre.any())

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns each query's k nearest rows by (squared distance, row).

        Args:
            queries: ``[Q, D] float32``, finite, contiguous.
            k: Neighbours; at least 1, at most the rows that are allowed.
            allowed: ``[N] bool``; None allows all.
            on_progress: Called with (queries answered, Q).

        Returns:
            Rows ``[Q, k] int64`` and squared distances ``[Q, k] float64``.
        """
        rows = np.empty((len(queries), k), dtype=np.int64)
        squared = np.empty((len(queries), k))
        available = len(self.store) if allowed is None else int(np.count_nonzero(allowed))
        count = k + MARGIN
        # A batch's rounded distances to one block, and its candidates, stay within BATCH_VALUES.
        block_rows = max(1, BLOCK_VALUES // self.store.dim)
        batch = max(1, BATCH_VALUES // max(2 * count, block_rows))
        for start in range(0, len(queries), batch):
            asked = queries[start : start + batch]  # [q, D]
            stop = start + len(asked)
            if count >= available:
                found = self._in_float64(asked, k, allowed)
            else:
                found = self._proposed(asked, k, count, allowed)
            rows[start:stop], squared[start:stop] = found
            if on_progress is not None:
                on_progress(stop, len(queries))
        return rows, squared

    def _proposed(
        self,
        queries: NDArray[np.float32],
        k: int,
        count: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        centred = queries - self._centre  # [q, D]
        best = np.full((len(queries), 0), np.inf, dtype=np.float32)  # [q, <= count]
        candidates = np.empty((len(queries), 0), dtype=np.int64)
        for block_rows, block, mask in self._blocks(allowed):
            rounded, places = _nearest_in_block(
                centred, block - self._centre if self._is_centred else block, count, mask
            )
            best = np.concatenate([best, rounded], axis=1)
            candidates = np.concatenate([candidates, block_rows[places]], axis=1)
            if best.shape[1] > count:
                kept = np.argpartition(best, count, axis=1)[:, :count]
                best = np.take_along_axis(best, kept, axis=1)
                candidates = np.take_along_axis(candidates, kept, axis=1)
        candidates[~np.isfinite(best)] = -1  # what a mask left out
        rows, squared = rank_candidates(self.store, queries, candidates, k)
        # A row outside the candidates was rounded to at least the worst of them. To be as near as
        # the k-th it would be no longer than |x| + sqrt(kth), which bounds its rounding.
        lengths = row_lengths(centred)  # [q]
        kth = squared[:, -1]
        reach = 2 * lengths + np.sqrt(kth) * 1.001
        worst = best.max(axis=1)
        unclear = np.flatnonzero(
            ~(np.isfinite(worst) & (worst - tolerance(reach, self.store.dim) > kth))
        )
        if len(unclear):
            rows[unclear], squared[unclear] = self._in_float64(queries[unclear], k, allowed)
        return rows, squared

    def _in_float64(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Compares every query with every row by subtraction in float64."""
        rows = np.empty((len(queries), k), dtype=np.int64)
        squared = np.full((len(queries), k), np.inf)
        step = max(1, BLOCK_BYTES // (8 * self.store.dim))
        for block_rows, block, mask in self._blocks(allowed):
            if mask is not None:
                block_rows, block = block_rows[mask], block[mask]
            for start in range(0, len(block), step):
                part = block[start : start + step].astype(np.float64)  # [n, D]
                part_rows = block_rows[start : start + step]
                for number, query in enumerate(queries):
                    distances = np.square(part - query).sum(axis=1)  # [n]
                    near = distances < squared[number, -1]
                    if not near.any():
                        continue  # a later row does not displace an equally near earlier one
                    joined = np.concatenate([squared[number], distances[near]])
                    # Rows come in ascending order, so that a stable sort breaks ties by row.
                    order = np.argsort(joined, kind="stable")[:k]
                    rows[number] = np.concatenate([rows[number], part_rows[near]])[order]
                    squared[number] = joined[order]
        return rows, squared

    def _blocks(self, allowed: NDArray[np.bool_] | None) -> Iterator[Block]:
        """Returns (rows ``[n]``, embeddings ``[n, D]``, mask ``[n]`` of those allowed, or None)."""
        size = max(1, BLOCK_VALUES // self.store.dim)
        if allowed is not None and np.count_nonzero(allowed) * 4 < len(allowed):
            # Reading whole blocks would cost more than picking the rows out.
            rows = np.flatnonzero(allowed)
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                yield part, self.store.take(part), None
            return
        for first, block in self.store.blocks(size):
            rows = np.arange(first, first + len(block))
            block = np.ascontiguousarray(block)
            if allowed is None:
                yield rows, block, None
                continue
            mask = allowed[first : first + len(block)]
            if mask.all():
                yield rows, block, None
            elif mask.any():
                yield rows, block, mask


def _nearest_in_block(
    queries: NDArray[np.float32],
    block: NDArray[np.float32],
    count: int,
    mask: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns rounded squared distances and places ``[q, <= count]`` in a block, in any order.

    What the mask does not allow is at an infinite distance.
    """
    faiss = load_faiss()
    is_product = len(queries) >= MIN_PRODUCT_QUERIES
    if not is_product or queries.size >= FAISS_PRODUCT_VALUES:
        if mask is None:
            rounded, places = faiss.knn(queries, block, min(count, len(block)))
            return rounded, places
        num_out = len(mask) - int(np.count_nonzero(mask))
        if num_out > count:
            places_in = np.flatnonzero(mask)
            rounded, places = faiss.knn(queries, block[mask], min(count, len(places_in)))
            return rounded, places_in[places]
        # A few that are left out cost less as so many more candidates than as a copied block.
        rounded, places = faiss.knn(queries, block, min(count + num_out, len(block)))
        rounded[~mask[places]] = np.inf
        return rounded, places
    rounded = queries @ block.T  # [q, n]
    rounded *= -2
    rounded += np.einsum("nd,nd->n", block, block)
    rounded += np.einsum("qd,qd->q", queries, queries)[:, None]
    if mask is not None:
        rounded[:, ~mask] = np.inf
    if count >= len(block):
        return rounded, np.broadcast_to(np.arange(len(block)), rounded.shape)
    places = np.argpartition(rounded, count, axis=1)[:, :count]
    return np.take_along_axis(rounded, places, axis=1), places


def rank_candidates(
    store: EmbeddingStore,
    queries: NDArray[np.float32],
    candidates: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the k nearest of each query's candidates by (exact squared distance, row).

    Args:
        store: The N embeddings.
        queries: ``[Q, D] float32``, finite.
        candidates: ``[Q, C] int64`` rows, each once a query; -1 where there is none.
        k: How many to keep; at most C.

    Returns:
        Rows ``[Q, k] int64`` and squared distances ``[Q, k] float64``; -1 and infinity at the end
        of a query that has fewer candidates.

    Example:
        >>> from visual_search.knn.store import ArrayStore
        >>> store = ArrayStore(np.array([[0], [3], [5]], dtype=np.float32))
        >>> rank_candidates(store, store.take(np.array([0])), np.array([[2, 1, -1]]), 1)
        (array([[1]]), array([[9.]]))
    """
    num_queries, num_candidates = candidates.shape
    rows = np.empty((num_queries, k), dtype=np.int64)
    squared = np.empty((num_queries, k))
    step = max(1, BLOCK_BYTES // (8 * store.dim * max(1, num_candidates)))
    for start in range(0, num_queries, step):
        part = candidates[start : start + step]  # [q, C]
        asked = queries[start : start + step, None]  # [q, 1, D]
        missing = part < 0
        taken = store.take(np.where(missing, 0, part).reshape(-1))
        taken = taken.reshape(*part.shape, store.dim)  # [q, C, D]
        if num_candidates > 2 * (k + MARGIN):
            places = _within_reach(asked, taken, missing, k)  # [q, c]
            part = np.take_along_axis(part, places, axis=1)
            missing = np.take_along_axis(missing, places, axis=1)
            taken = np.take_along_axis(taken, places[:, :, None], axis=1)
        difference = taken.astype(np.float64)
        difference -= asked
        distances = np.square(difference, out=difference).sum(axis=2)  # [q, c]
        distances[missing] = np.inf
        order = np.lexsort((part, distances), axis=-1)[:, :k]
        rows[start : start + step] = np.take_along_axis(part, order, axis=1)
        squared[start : start + step] = np.take_along_axis(distances, order, axis=1)
    return rows, squared


def rank_by_float32(
    store: EmbeddingStore,
    queries: NDArray[np.float32],
    candidates: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns what `rank_candidates` gives, with distances in float32 where those are clear.

    A query whose distances lie so close that rounding could have changed their order, or tie, is
    ranked in float64; so is every query of a store without ``squared_distances``. A quarter of the
    time of `rank_candidates`, for the same order.

    Args:
        store: The N embeddings.
        queries: ``[Q, D] float32``, finite.
        candidates: ``[Q, C] int64`` rows, each once a query; -1 where there is none.
        k: How many to keep; at most C.

    Returns:
        Rows ``[Q, k] int64`` and squared distances ``[Q, k] float64``, off by at most (D + 3) u of
        themselves; -1 and infinity at the end of a query that has fewer candidates.
    """
    if not isinstance(store, ArrayStore):
        return rank_candidates(store, queries, candidates, k)
    rounded = store.squared_distances(queries, candidates)  # [Q, C]
    order = rounded.argsort(axis=1)[:, : k + 1]  # the next one, too, could be the k-th
    places = np.arange(len(queries))[:, None]
    rows, squared = candidates[places, order], rounded[places, order].astype(np.float64)
    # Neighbours in the order are each off by at most (D + 3) u of themselves: the nearer one has to
    # be below what the farther one may be at least.
    slack = store.dim + 8
    at_least = squared[:, 1:] * (1 - 2 * slack * UNIT_ROUNDOFF) - 4 * slack * SMALLEST_NORMAL
    is_near = at_least <= squared[:, :-1]  # [Q, K]
    rows, squared = rows[:, :k], squared[:, :k].copy()
    if is_near.any():
        is_near &= np.isfinite(at_least)  # infinity after infinity: there is nothing to rank
        asked = np.flatnonzero(is_near.any(axis=1))
        rows[asked], squared[asked] = rank_candidates(store, queries[asked], candidates[asked], k)
    return rows, squared


def _within_reach(
    queries: NDArray[np.float32],
    taken: NDArray[np.float32],
    missing: NDArray[np.bool_],
    k: int,
) -> NDArray[np.int64]:
    """Returns the places ``[q, c]`` of those that can be among the k nearest, after float32.

    A squared distance by subtraction, unlike one by products, is off by at most (D + 3) u of
    itself, whatever the lengths; the bound leaves four times that.
    """
    difference = taken - queries  # [q, C, D]
    rounded = np.einsum("qcd,qcd->qc", difference, difference)
    rounded[missing] = np.inf
    kth = np.partition(rounded, k - 1, axis=1)[:, k - 1 : k].astype(np.float64)
    margin = (taken.shape[2] + 8) * (4 * UNIT_ROUNDOFF * kth + 4 * SMALLEST_NORMAL)
    kept = max(k, int((rounded <= kth + margin).sum(axis=1).max()))
    if kept == rounded.shape[1]:
        return np.broadcast_to(np.arange(kept), rounded.shape)
    return np.argpartition(rounded, kept, axis=1)[:, :kept]
