"""Approximate indexes of FAISS: a graph (HNSW) and lists around centres (IVF, IVF-PQ).

FAISS holds shortened codes and proposes candidates; the store's exact embeddings decide. Ids in
the FAISS index are the store's rows, in whatever order they were added.
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.knn.engine import candidate_rows, faiss_threads, load_faiss
from visual_search.knn.exact_store import rank_by_float32
from visual_search.knn.faiss_files import rows_by_list
from visual_search.knn.faiss_parts import first_params, trained_index, tuning_steps
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import Progress, SearchIndex
from visual_search.knn.store import EmbeddingStore, blocks_from
from visual_search.knn.tuning import hold_out, tuned_plan

ADD_VALUES = 2**25  # float32 numbers that are added at a time, 128 MB
# Up to so many numbers (4,096 rows of 512) the allowed rows are compared exactly, about as quick as
# an approximate search among them: 1 ms against 0.5 ms for 5,000 rows of 256.
EXACT_VALUES = 2**21
# A restricted query may lie far from all that is allowed, where a fifth of the items in one
# direction had a recall@10 of 0.84 and a twentieth 0.78 (IVF tuned to 0.95, 50,000 items of 256).
# Sixteen times as many lists bring 0.975 for 20 of 100 categories of 1,000,000 items, where eight
# times bring 0.916, in the same 7 ms. A graph: 0.87 and 0.84, and 0.97 with four times its ef.
LIST_GROWTH, LIST_POWER = 16, 8
GRAPH_GROWTH, GRAPH_POWER = 4, 2
# Both grow into that: a few removed items must not slow every search down.
PICK_LISTS_SHARE = 0.6  # below, only lists that hold an allowed row are looked into


class FaissIndex(SearchIndex):
    """Proposes candidates by FAISS and ranks them by the exact embeddings; kind as in the plan.

    Where few rows are allowed, or there are few at all (`EXACT_VALUES`), the answer is exact, and
    so it is for a query for which FAISS comes across fewer than k.

    Args:
        store: The N exact embeddings.
        plan: How it was built and how far it looks.
        index: The FAISS index over the first rows of the store.
        num_threads: As in `SearchIndex`.
    """

    def __init__(
        self, store: EmbeddingStore, plan: SearchPlan, index: Any, num_threads: int | None = None
    ) -> None:
        super().__init__(store, plan, num_threads)
        self._index = index
        self._list_of = np.empty(0, dtype=np.int32)  # [N] at the first restricted search

    @classmethod
    def made(
        cls,
        store: EmbeddingStore,
        kind: str,
        reason: str,
        *,
        target_recall: float,
        recall_k: int,
        num_threads: int | None,
        on_progress: Progress | None,
    ) -> Self:
        """Trains, fills and tunes an index, see `visual_search.knn.indexes.build_index`.

        Raises:
            ValueError: The store is too small for the kind, or holds an embedding that is not
                finite or longer than 2.3e18.
        """
        params = first_params(kind, len(store), store.dim)
        if on_progress is not None:
            on_progress(0, len(store))
        for _ in blocks_from(store, 0, max(1, ADD_VALUES // store.dim)):
            pass  # a value that k-means cannot bear is named before it starts
        with faiss_threads(num_threads):
            held_out = hold_out(store, recall_k)
            index = trained_index(store, kind, params, held_out.rows)
            others = np.ones(len(store), dtype=np.bool_)
            others[held_out.rows] = False
            # A graph depends on what is added together: not on where the store's arrays end.
            size = _block_rows(kind, store.dim)
            for start in range(0, len(store), size):
                rows = start + np.flatnonzero(others[start : start + size])
                _add(index, kind, store.take(rows), rows)
                if on_progress is not None and start + size < len(store):
                    on_progress(start + size, len(store))
            ladder, max_factor, bytes_per_effort = tuning_steps(kind, params, len(store), store.dim)
            plan = tuned_plan(
                kind,
                reason,
                params,
                store,
                held_out,
                lambda queries, effort, count: _search(index, kind, queries, count, effort),
                ladder,
                effort_name=_EFFORT[kind],
                target_recall=target_recall,
                recall_k=recall_k,
                max_factor=max_factor,
                bytes_per_effort=bytes_per_effort,
            )
            _add(index, kind, held_out.queries, held_out.rows)
        if on_progress is not None:
            on_progress(len(store), len(store))
        return cls(store, plan, index, num_threads)

    @classmethod
    def opened(
        cls,
        path: str | os.PathLike[str],
        store: EmbeddingStore,
        plan: SearchPlan,
        num_threads: int | None,
    ) -> Self:
        """Opens a file, see `visual_search.knn.indexes.load_index`."""
        from visual_search.knn.faiss_files import read_index

        source = Path(path)
        index = read_index(source, plan, store)
        opened = cls(store, plan, index, num_threads)
        opened._add_from(index.ntotal)
        return opened

    @property
    def num_bytes(self) -> int:
        """Memory of codes, ids, links and centres; FAISS's small tables are left out."""
        faiss = load_faiss()
        if self.plan.kind == "hnsw":
            graph = faiss.downcast_index(self._index.index)
            storage = faiss.downcast_index(graph.storage)
            links = 4 * graph.hnsw.neighbors.size() + 8 * graph.hnsw.offsets.size()
            return int(links + self._index.ntotal * (storage.sa_code_size() + 4 + 8))
        centres = 4 * self._index.nlist * self.dim
        if self.plan.kind == "ivfpq":
            centres += 4 * 2 ** int(self.plan.params["part_bits"]) * self.dim
        return int(self._index.ntotal * (self._index.code_size + 8) + centres)

    def add_rows(self, store: EmbeddingStore) -> None:
        """Takes over a longer store, see `SearchIndex.add_rows`."""
        known = len(self)
        super().add_rows(store)
        self._add_from(known)

    def _twin(self) -> Self:
        twin = super()._twin()
        twin._index = load_faiss().clone_index(self._index)
        return twin

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the FAISS index to one file, atomically."""
        faiss = load_faiss()
        with atomic_path(path) as temporary:
            faiss.write_index(self._index, str(temporary))

    def _add_from(self, first: int) -> None:
        with faiss_threads(self.num_threads):
            for start, block in blocks_from(
                self.store, first, _block_rows(self.plan.kind, self.dim)
            ):
                _add(self._index, self.plan.kind, block, np.arange(start, start + len(block)))

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        num_allowed: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        params = self.plan.params
        count = max(k, math.ceil(k * params["num_candidates"] / self.plan.recall_k))
        if num_allowed <= max(EXACT_VALUES // self.dim, 2 * count):
            return self._exact.nearest(queries, k, allowed)
        effort = int(params[_EFFORT[self.plan.kind]])
        growth = max(1.0, k / self.plan.recall_k)  # more neighbours lie farther out
        share = num_allowed / len(self)
        if self.plan.kind == "hnsw":
            # The graph is walked through allowed and other rows alike, but keeps the allowed only.
            growth *= min(GRAPH_GROWTH, share**-GRAPH_POWER) / share
            effort = max(math.ceil(effort * growth), count)
            if allowed is not None and effort * int(params["num_links"]) >= num_allowed:
                return self._exact.nearest(queries, k, allowed)
        else:
            growth *= min(LIST_GROWTH, share**-LIST_POWER)
            if allowed is not None and share < PICK_LISTS_SHARE:
                return self._among_lists(queries, k, count, math.ceil(effort * growth), allowed)
            items_a_list = num_allowed / int(params["num_lists"])
            effort = max(math.ceil(effort * growth / share), math.ceil(2 * count / items_a_list))
        candidates = _search(self._index, self.plan.kind, queries, count, effort, allowed)
        rows, squared = rank_by_float32(self.store, queries, candidates, k)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):  # fewer than k were come across, although k exist
            if allowed is None or self.plan.kind == "hnsw":
                found = self._exact.nearest(queries[short], k, allowed)
            else:
                found = self._among_lists(queries[short], k, count, effort, allowed)
            rows[short], squared[short] = found
        return rows, squared

    def _among_lists(
        self,
        queries: NDArray[np.float32],
        k: int,
        count: int,
        effort: int,
        allowed: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Looks into the nearest of those lists alone that hold an allowed row, then everywhere."""
        lists, share = self._lists_with(allowed)
        items_a_list = int(np.count_nonzero(allowed)) / int(lists.sum())
        effort = max(math.ceil(effort / share), math.ceil(2 * count / items_a_list))
        candidates = _search(self._index, self.plan.kind, queries, count, effort, allowed, lists)
        rows, squared = rank_by_float32(self.store, queries, candidates, k)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):
            rows[short], squared[short] = self._exact.nearest(queries[short], k, allowed)
        return rows, squared

    def _lists_with(self, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
        """Returns lists that hold an allowed row, ``[L] bool``, and the allowed share in them."""
        list_of = self._list_of
        if len(list_of) != len(self):
            list_of = np.empty(len(self), dtype=np.int32)
            for number, rows in enumerate(rows_by_list(self._index)):
                list_of[rows] = number
            self._list_of = list_of  # two threads may both come here: each leaves the same
        num_lists = int(self.plan.params["num_lists"])
        num_allowed_in = np.bincount(list_of[allowed], minlength=num_lists)  # [L]
        lists = num_allowed_in > 0
        num_in = np.bincount(list_of, minlength=num_lists)
        return lists, float(num_allowed_in.sum() / num_in[lists].sum())


_EFFORT = {"hnsw": "ef_search", "ivf": "num_probes", "ivfpq": "num_probes"}


def _block_rows(kind: str, dim: int) -> int:
    # A graph grows by a millisecond an item: smaller blocks let the caller see it.
    return max(1, ADD_VALUES // dim // (16 if kind == "hnsw" else 1))


def _add(index: Any, kind: str, embeddings: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
    if not len(rows):
        return
    # A graph's links depend on who came first: several threads would make another one each time.
    with faiss_threads(1 if kind == "hnsw" else None):
        index.add_with_ids(np.ascontiguousarray(embeddings), rows.astype(np.int64))


def _search(
    index: Any,
    kind: str,
    queries: NDArray[np.float32],
    count: int,
    effort: int,
    allowed: NDArray[np.bool_] | None = None,
    lists: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Returns FAISS's candidates, ``[Q, <= count] int64``, -1 where it came across fewer."""
    if kind == "hnsw":
        count = min(count, effort)  # a graph gives no more than it keeps
    else:
        effort = min(effort, index.nlist if lists is None else int(lists.sum()))
    if allowed is None:
        params = _unrestricted(kind, effort)
    else:
        faiss = load_faiss()
        selected = {"sel": faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))}
        if lists is not None:
            bits = np.packbits(lists, bitorder="little")
            among = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            selected["quantizer_params"] = among
        params = _params(kind, effort, **selected)
    return candidate_rows(index, queries, count, params)


def _params(kind: str, effort: int, **selected: Any) -> Any:
    faiss = load_faiss()
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=effort, **selected)
    return faiss.SearchParametersIVF(nprobe=effort, **selected)


@functools.lru_cache(maxsize=64)
def _unrestricted(kind: str, effort: int) -> Any:
    """Returns FAISS's parameters, which it only reads; making them takes ten microseconds."""
    return _params(kind, effort)
