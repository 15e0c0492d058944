"""LanceDB's side of the kind ``lancedb``: its table, what is written to it, its vector index."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import scratch_folder
from visual_search.knn.search_index import CHECK_ROWS, Progress
from visual_search.knn.store import EmbeddingStore, blocks_from

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

EXTRA = "visual-search[lancedb]"
TABLE = "embeddings"
ROW, EMBEDDING = "row", "embedding"

MIN_INDEXED = 20_000  # 30,000 x 96 in one graph: 12 s to build, recall@10 0.996 at 22 candidates
MAX_GRAPH_ROWS = 200_000
NUM_LINKS, EF_CONSTRUCTION = 20, 150
PRODUCT_ITERATIONS = 20  # of k-means, where LanceDB's own 50 took 94 s with those embeddings
PROBE_ROWS = 32  # rows that have to be those of the store


class Scratch:
    """A folder of its own among the temporary files, removed when nobody uses it any more.

    Attributes:
        folder: It, empty at first.
    """

    def __init__(self) -> None:
        made = contextlib.ExitStack()
        self.folder = made.enter_context(scratch_folder(tempfile.gettempdir(), "lancedb"))
        self._num_users = 0
        self._remove = weakref.finalize(self, made.close)

    def used_by(self, user: object) -> Callable[[], object]:
        """Counts a user; it ends with a call of what this returns, or with the object.

        A saved index calls it: until when an interpreter keeps an object is its own affair.
        """
        self._num_users += 1
        return weakref.finalize(user, self._give_back)

    def _give_back(self) -> None:
        self._num_users -= 1
        if not self._num_users:
            self._remove()


def load_lancedb() -> ModuleType:
    """Returns the module ``lancedb``, which the extra of that name brings.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the kind lancedb needs a package that is not installed ({error}); expected the extra "
            f"'lancedb'; run: pip install '{EXTRA}', or choose another kind"
        ) from error
    return lancedb


def structure_for(num_rows: int) -> str:
    """Returns LanceDB's name of the vector index for so many rows; nothing where a scan does.

    Example:
        >>> structure_for(1_000), structure_for(100_000), structure_for(1_000_000)
        ('', 'IVF_HNSW_SQ', 'IVF_PQ')
    """
    if num_rows < MIN_INDEXED:
        return ""
    return "IVF_HNSW_SQ" if num_rows <= MAX_GRAPH_ROWS else "IVF_PQ"


def product_parts(dim: int) -> int:
    """Returns the parts of a product code: the largest divisor of D up to D / 4, at least 1.

    Example:
        >>> product_parts(512), product_parts(96), product_parts(7)
        (128, 24, 1)
    """
    return max(parts for parts in range(1, max(1, dim // 4) + 1) if dim % parts == 0)


def create_index(table: Table, structure: str, num_rows: int, dim: int) -> dict[str, int]:
    """Makes the vector index and gives its parameters."""
    import lancedb.index as kinds

    made: kinds.IvfHnswSq | kinds.IvfPq
    if structure == "IVF_HNSW_SQ":
        params = {"num_partitions": 1, "num_links": NUM_LINKS, "ef_construction": EF_CONSTRUCTION}
        made = kinds.IvfHnswSq(
            distance_type="l2", num_partitions=1, m=NUM_LINKS, ef_construction=EF_CONSTRUCTION
        )
    else:
        params = {
            # LanceDB trains on 256 rows a partition, and makes fewer where there are not so many
            "num_partitions": max(1, min(round(math.sqrt(num_rows)), num_rows // 300)),
            "num_parts": product_parts(dim),
        }
        made = kinds.IvfPq(
            distance_type="l2",
            num_partitions=params["num_partitions"],
            num_sub_vectors=params["num_parts"],
            max_iterations=PRODUCT_ITERATIONS,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        table.create_index(EMBEDDING, config=made)
    return params


def schema_of(dim: int) -> pa.Schema:
    """Returns the table's columns: the row's number and its embedding of so many numbers."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(ROW, pa.int64(), nullable=False),
            pa.field(EMBEDDING, pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def reader_of(
    store: EmbeddingStore,
    first: int,
    chosen: NDArray[np.bool_],
    on_progress: Progress | None = None,
) -> pa.RecordBatchReader:
    """Returns the chosen rows (``[N] bool``) from ``first`` on as a stream that LanceDB writes."""
    import pyarrow as pa

    schema = schema_of(store.dim)

    def batches() -> Iterator[pa.RecordBatch]:
        for start, block in blocks_from(store, first, CHECK_ROWS):
            here = np.flatnonzero(chosen[start : start + len(block)])
            flat = pa.array(np.ascontiguousarray(block[here]).reshape(-1))
            embeddings = pa.FixedSizeListArray.from_arrays(flat, store.dim)
            yield pa.record_batch([pa.array(start + here), embeddings], schema=schema)
            if on_progress is not None:
                on_progress(start + len(block), len(store))

    return pa.RecordBatchReader.from_batches(schema, batches())


def check_same_embeddings(table: Table, num_rows: int, store: EmbeddingStore) -> None:
    """Refuses a table that does not hold the first rows of the store, once each."""
    if table.schema != schema_of(store.dim):
        raise ValueError(f"its columns are {table.schema}")
    rows = np.sort(table.search().select([ROW]).to_arrow()[ROW].to_numpy())
    if len(rows) != num_rows or not np.array_equal(rows, np.arange(num_rows)):
        raise ValueError(f"it holds {len(rows)} rows, or not each once")
    if num_rows > len(store):
        raise ValueError(f"it holds {num_rows} rows, the store {len(store)}")
    probes = np.unique(np.linspace(0, num_rows - 1, PROBE_ROWS).astype(np.int64))
    listed = ", ".join(map(str, probes))
    found = table.search().where(f"{ROW} IN ({listed})").select([ROW, EMBEDDING]).to_arrow()
    held = found[EMBEDDING].combine_chunks().flatten().to_numpy().reshape(-1, store.dim)
    if not np.array_equal(held, store.take(found[ROW].to_numpy())):
        raise ValueError("its embeddings are others than the store's")


def flush(folder: Path) -> None:
    """Brings every file of a folder, and their names, to the disk."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
