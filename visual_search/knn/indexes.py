"""Search indexes by kind: built anew, or opened from what was saved."""

from __future__ import annotations

import os

from visual_search.knn.flat_index import FlatIndex
from visual_search.knn.plan import KINDS, SearchPlan, check_targets
from visual_search.knn.search_index import Kind, Progress, SearchIndex
from visual_search.knn.store import EmbeddingStore


def build_index(
    store: EmbeddingStore,
    kind: Kind = "auto",
    *,
    target_recall: float = 0.95,
    recall_k: int = 10,
    max_bytes: int | None = None,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> SearchIndex:
    """Builds an index over all rows of a store.

    On one machine, the same store, kind and number of threads give the same index.

    Args:
        store: The N embeddings, finite.
        kind: ``flat`` (exact), ``hnsw``, ``ivf``, ``ivfpq``, or ``auto``: chosen by
            the number of items and the memory.
        target_recall: Share of the ``recall_k`` exact nearest that an approximate kind is to find;
            its parameters are raised until items that it does not hold yet find so many.
        recall_k: Neighbours that the recall counts.
        max_bytes: Memory for the index, for ``auto``; by default half of what is free.
        num_threads: OpenMP threads of FAISS, to build and later to search; None leaves it to the
            process. ``hnsw`` is built by one thread, since its graph depends on the order.
        on_progress: Called with (rows added, N).

    Raises:
        ValueError: ``kind`` is unknown, a number is out of its range, an embedding is not finite
            or longer than 2.3e18, or the store is too small for the kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    check_targets(target_recall, recall_k)
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes}; expected at least 1, or None")
    name, reason = str(kind), f"{kind} was asked for"
    if kind == "auto":
        from visual_search.knn.choice import choose_kind

        name, reason = choose_kind(len(store), store.dim, max_bytes)
    return _maker(name).made(
        store,
        name,
        reason,
        target_recall=target_recall,
        recall_k=recall_k,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def load_index(
    path: str | os.PathLike[str] | None,
    store: EmbeddingStore,
    plan: SearchPlan,
    *,
    num_threads: int | None = None,
) -> SearchIndex:
    """Opens what `SearchIndex.save` wrote, and adds the rows that the store has beyond it.

    Args:
        path: The file; None for a kind without one (`SearchIndex.needs_file`).
        store: The embeddings that the index was made of, in the same order, and perhaps more.
        plan: The plan that was stored with it.
        num_threads: As in `build_index`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ``path`` is missing or not expected; the file is damaged, holds another kind,
            width or parameters than the plan, more rows than the store, or other embeddings.
    """
    if plan.kind == "flat":
        return FlatIndex.opened(path, store, plan, num_threads)
    if path is None:
        raise ValueError(f"path is None; expected the file of the {plan.kind} index: name it")
    return _maker(plan.kind).opened(path, store, plan, num_threads)


def _maker(kind: str) -> type[SearchIndex]:
    """Returns the class behind a kind, loaded when asked for: each needs a library of its own."""
    if kind == "flat":
        return FlatIndex
    from visual_search.knn.faiss_index import FaissIndex

    return FaissIndex
