"""FAISS as the search indexes use it: loaded with the first index, and its threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load_faiss() -> Any:
    """Returns the module ``faiss``; its type stubs know only a part of it, hence ``Any``."""
    import faiss

    return faiss


def candidate_rows(
    index: Any, queries: NDArray[np.float32], count: int, params: Any
) -> NDArray[np.int64]:
    """Returns what FAISS proposes for queries ``[Q, D]``, ``[Q, count]``; -1 fills up.

    Where somebody imported ``faiss.contrib.torch_utils`` (PyTorch Metric Learning does),
    ``search`` takes no parameters any more, and the one that does is called ``search_numpy``.
    """
    search = getattr(index, "search_numpy", index.search)
    return np.asarray(search(queries, count, params=params)[1])


@contextlib.contextmanager
def faiss_threads(num_threads: int | None) -> Iterator[None]:
    """Lets FAISS use so many OpenMP threads inside the block; None changes nothing.

    OpenMP keeps this number for each calling thread by itself: other threads' searches are not
    disturbed, and the caller's own number is put back.
    """
    if num_threads is None:
        yield
        return
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
