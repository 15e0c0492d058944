"""Where a search gets exact embeddings from: by row, without holding them all in memory.

Rows are numbered 0..N-1 in the order of adding. `ArrayStore` puts arrays or memory-mapped files,
one a segment, behind that numbering; it copies nothing but what is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_array, check_lengths
from visual_search.knn.engine import faiss_threads, load_faiss

# Up to so many numbers (128 rows of 512) one thread compares: 15 candidates take as long as with
# two on a quiet machine, and waiting for the second took 7 ms on one whose cores were busy.
ONE_THREAD_VALUES = 2**16


class EmbeddingStore(Protocol):
    """Exact embeddings by row.

    Attributes:
        dim: Embedding width D.
    """

    dim: int

    def __len__(self) -> int:
        """Rows, N."""
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the embeddings of ``[n] int64`` rows, in that order, ``[n, D] float32``."""
        ...

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Returns (first row, ``[<= size, D] float32``) in the order of the rows, each once."""
        ...


class ArrayStore:
    """The rows of one or several arrays, one after the other.

    Args:
        arrays: ``[n, D] float32``, or several of one width; memory-mapped ones stay on disk. They
            must not change while a search uses them.

    Attributes:
        dim: Embedding width D.

    Raises:
        TypeError: An array is no NumPy array of float32.
        ValueError: There is none, or one is not two-dimensional or of another width.

    Example:
        >>> first, second = np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)
        >>> store = ArrayStore([first, second])
        >>> len(store), store.dim, store.take(np.array([2, 0])).tolist()
        (3, 3, [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    """

    def __init__(self, arrays: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> None:
        given = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
        if not given:
            raise ValueError(
                "arrays is empty; expected one array of embeddings or more: give one of shape "
                "(0, width) where there is no item yet"
            )
        for array in given:
            check_array(array, "gallery")
            check_array(array, "gallery", dim=given[0].shape[1])
        self.dim = int(given[0].shape[1])
        # np.ascontiguousarray drops the memmap subclass, whose every slice costs microseconds; the
        # view still holds the mapping.
        self._arrays = [np.ascontiguousarray(array) for array in given if len(array)]
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])  # [segments + 1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the embeddings of these rows.

        Args:
            rows: ``[n] int64``, in 0..N-1.

        Returns:
            ``[n, D] float32``, a copy, in the order of ``rows``.

        Raises:
            IndexError: A row is negative or not below N.
        """
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            bad = int(rows[(rows < 0) | (rows >= len(self))][0])
            raise IndexError(f"row {bad} is asked of {len(self)}; expected 0 to {len(self) - 1}")
        if len(self._arrays) == 1:
            return np.take(self._arrays[0], rows, axis=0)
        taken = np.empty((len(rows), self.dim), dtype=np.float32)
        segment_of = np.searchsorted(self._starts, rows, side="right") - 1  # [n]
        for segment in np.unique(segment_of):
            here = segment_of == segment
            taken[here] = self._arrays[segment][rows[here] - self._starts[segment]]
        return taken

    def squared_distances(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns each query's squared distances to its own rows, without copying the rows.

        Args:
            queries: ``[Q, D] float32``.
            rows: ``[Q, C] int64``, below N; -1 where there is none.

        Returns:
            ``[Q, C] float32``: computed by subtraction in float32, off by at most (D + 3) u of
            itself, u = 2^-24; infinity for row -1.

        Raises:
            IndexError: A row is not below N.
            ValueError: The shapes do not fit together.
        """
        faiss = load_faiss()
        # FAISS reads what the addresses say: nothing may reach it that is not there.
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        if queries.shape != (len(rows), self.dim):
            raise ValueError(
                f"queries have shape {queries.shape}; expected ({len(rows)}, {self.dim}): one a "
                "row of candidates, as wide as the store"
            )
        if rows.size and rows.max() >= len(self):
            raise IndexError(f"row {rows.max()} is asked of {len(self)}; expected less: see take")
        found: NDArray[np.float32] | None = None
        for start, array in zip(self._starts, self._arrays, strict=False):
            here = rows
            if len(self._arrays) > 1:
                here = np.where((rows >= start) & (rows < start + len(array)), rows - start, -1)
            part = np.empty(rows.shape, dtype=np.float32)
            with faiss_threads(1 if rows.size * self.dim <= ONE_THREAD_VALUES else None):
                faiss.fvec_L2sqr_by_idx(
                    faiss.swig_ptr(part),
                    faiss.swig_ptr(queries),
                    faiss.swig_ptr(array),
                    faiss.swig_ptr(here),
                    self.dim,
                    *rows.shape,
                )
            found = part if found is None else np.minimum(found, part, out=found)
        return np.full(rows.shape, np.inf, dtype=np.float32) if found is None else found

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Returns all rows in order, as views; a block ends where its array ends.

        Args:
            size: Rows a block at most.

        Yields:
            The first row and ``[<= size, D] float32``.

        Raises:
            ValueError: ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}; expected at least 1 row a block")
        for first, array in zip(self._starts, self._arrays, strict=False):
            for start in range(0, len(array), size):
                yield int(first) + start, array[start : start + size]


def blocks_from(
    store: EmbeddingStore, first: int, size: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Returns the rows of ``store`` from ``first`` on, as (first row, ``[<= size, D] float32``).

    Raises:
        ValueError: An embedding is not finite or longer than 2.3e18; the message names its row.
    """
    for start, block in store.blocks(size):
        if start + len(block) <= first:
            continue
        skipped = max(0, first - start)
        part = np.ascontiguousarray(block[skipped:])
        check_lengths(part, "gallery", start + skipped)
        yield start + skipped, part
