"""The exact index: every query against every embedding of a store."""

from __future__ import annotations

import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import CHECK_ROWS, Progress, SearchIndex
from visual_search.knn.store import EmbeddingStore, blocks_from


class FlatIndex(SearchIndex):
    """Compares every query with every embedding: exact, and nothing to build or to save."""

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
        """Checks every embedding of the store and gives the index over it."""
        for start, block in blocks_from(store, 0, CHECK_ROWS):
            if on_progress is not None:
                on_progress(start + len(block), len(store))
        plan = SearchPlan(
            kind,
            reason,
            target_recall=target_recall,
            recall_k=recall_k,
            num_trained_rows=len(store),
        )
        return cls(store, plan, num_threads)

    @classmethod
    def opened(
        cls,
        path: str | os.PathLike[str] | None,
        store: EmbeddingStore,
        plan: SearchPlan,
        num_threads: int | None,
    ) -> Self:
        """Returns the index over the store; there is no file."""
        if path is not None:
            raise ValueError(
                f"a flat index has no file, but {os.fspath(path)} is given; expected None: its "
                "store is all there is"
            )
        return cls(store, plan, num_threads)

    @property
    def needs_file(self) -> bool:
        """False: the store is all there is."""
        return False

    @property
    def num_bytes(self) -> int:
        """0: a search reads the store."""
        return 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes nothing."""

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        num_allowed: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return self._exact.nearest(queries, k, allowed)
