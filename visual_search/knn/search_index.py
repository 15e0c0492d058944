"""`SearchIndex`: the nearest rows of a store, exactly or nearly so, among all or the allowed ones.

Where `knn.gallery_index.EmbeddingIndex` measures (a gallery in memory, answers by item id), a
`SearchIndex` serves: its embeddings stay in a store, usually on disk, its rows are numbers, and for
large stores an approximate index proposes what is then compared exactly.
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_array, check_k, check_lengths
from visual_search.knn.engine import faiss_threads
from visual_search.knn.exact_store import ExactSearcher
from visual_search.knn.plan import SearchPlan
from visual_search.knn.store import EmbeddingStore, blocks_from

Kind: TypeAlias = Literal["flat", "hnsw", "ivf", "ivfpq", "auto"]
Progress: TypeAlias = Callable[[int, int], None]

CHECK_ROWS = 2**13  # rows that are looked at together when only their values are checked


class SearchIndex(ABC):
    """Finds the nearest rows of a store; made by `build` or `load`.

    Searching changes nothing and may happen in several threads at once; `add_rows` may not happen
    beside it (`extended` may).

    Args:
        store: The N exact embeddings; they must not change.
        plan: How the index answers.
        num_threads: OpenMP threads that FAISS may use in a search; None leaves it to the process.

    Attributes:
        store: The N exact embeddings.
        plan: What kind it is, why, and what was measured.
        num_threads: As given.

    Raises:
        ValueError: ``num_threads`` is below 1.

    Example:
        >>> from visual_search.knn.store import ArrayStore
        >>> store = ArrayStore(np.array([[0, 0], [3, 4], [0, 1]], dtype=np.float32))
        >>> from visual_search.knn.indexes import build_index
        >>> index = build_index(store)
        >>> rows, squared_distances = index.search(np.zeros((1, 2), np.float32), k=2)
        >>> rows.tolist(), squared_distances.tolist(), index.plan.kind
        ([[0, 2]], [[0.0, 1.0]], 'flat')
        >>> index.search(np.zeros((1, 2), np.float32), 5, np.array([False, True, True]))[0]
        array([[2, 1]])
    """

    def __init__(
        self, store: EmbeddingStore, plan: SearchPlan, num_threads: int | None = None
    ) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(
                f"num_threads is {num_threads}; expected at least 1, or None for the process's own"
            )
        self.store = store
        self.plan = plan
        self.num_threads = num_threads
        self._exact = ExactSearcher(store)

    @classmethod
    @abstractmethod
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
        """Builds an index over all rows; `visual_search.knn.indexes.build_index` says how."""

    @classmethod
    @abstractmethod
    def opened(
        cls,
        path: str | os.PathLike[str],
        store: EmbeddingStore,
        plan: SearchPlan,
        num_threads: int | None,
    ) -> Self:
        """Opens what `save` wrote; `visual_search.knn.indexes.load_index` says how."""

    def __len__(self) -> int:
        """Rows, N."""
        return len(self.store)

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return self.store.dim

    @property
    def needs_file(self) -> bool:
        """Whether `save` writes a file that `load` needs; False where the store is all there is."""
        return True

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory that the index itself holds; the store's embeddings are not counted."""

    def add_rows(self, store: EmbeddingStore) -> None:
        """Takes over what a longer store holds beyond the rows that are known.

        Args:
            store: Begins with the rows that are known, unchanged; replaces `store`.

        Raises:
            ValueError: It is shorter, or of another width, or a new embedding is not finite or
                longer than 2.3e18; the index then stays as it was.
        """
        known = len(self)
        if store.dim != self.dim or len(store) < known:
            raise ValueError(
                f"the store holds {len(store)} embedding(s) of {store.dim} numbers, the index "
                f"knows {known} of {self.dim}; expected these and more: rows are appended, never "
                "removed"
            )
        for _ in blocks_from(store, known, CHECK_ROWS):
            pass  # a value that is refused is found before anything changes
        self.store, self._exact = store, ExactSearcher(store)

    def extended(self, store: EmbeddingStore) -> Self:
        """Returns a second index over a longer store, as `add_rows`, and leaves this one as it is.

        Raises:
            ValueError: As in `add_rows`.
        """
        longer = self._twin()
        longer.add_rows(store)
        return longer

    def _twin(self) -> Self:
        """Returns a second index over the same rows, which may grow alone."""
        return copy.copy(self)

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to one file, atomically; nothing where `needs_file` is False."""

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the k nearest rows of each query.

        Args:
            queries: ``[Q, D] float32``, finite.
            k: Neighbours a query.
            allowed: ``[N] bool``, the rows that may be found; None allows all.

        Returns:
            Rows ``[Q, K] int64`` and squared distances ``[Q, K] float32``, the nearest first, ties
            by row; K is k, or the number of allowed rows where that is smaller. Whatever the kind,
            distances are between the exact embeddings, by subtraction, and what float32 could rank
            wrongly is ranked in float64.

        Raises:
            TypeError: ``queries`` is no float32 array, ``k`` no integer or ``allowed`` no bool
                array.
            ValueError: A shape is wrong, a query is not finite or longer than 2.3e18, or ``k`` is
                below 1.
        """
        k = check_k(k)
        check_array(queries, "query", dim=self.dim)
        queries = np.ascontiguousarray(queries)
        check_lengths(queries, "query")
        num_allowed = len(self)
        if allowed is not None:
            num_allowed = _count_allowed(allowed, len(self))
            if num_allowed == len(self):
                allowed = None
        k = min(k, num_allowed)
        empty = np.empty((len(queries), k), dtype=np.int64)
        if not empty.size:
            return empty, empty.astype(np.float32)
        with faiss_threads(self.num_threads):
            rows, squared = self._nearest(queries, k, allowed, num_allowed)
        return rows, squared.astype(np.float32)

    @abstractmethod
    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        num_allowed: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns k neighbours, ``[Q, k]``; 1 <= k <= num_allowed and everything checked."""


def _count_allowed(allowed: NDArray[np.bool_], num_rows: int) -> int:
    if not isinstance(allowed, np.ndarray) or allowed.dtype != np.bool_:
        kind = getattr(allowed, "dtype", type(allowed).__name__)
        raise TypeError(
            f"allowed is {kind}; expected a NumPy array of bool, one a row: make it with "
            "np.zeros(len(index), bool) and set the rows that may be found"
        )
    if allowed.shape != (num_rows,):
        raise ValueError(
            f"allowed has shape {allowed.shape}; expected ({num_rows},), one a row of the index: "
            "make it anew when rows were added"
        )
    return int(np.count_nonzero(allowed))
