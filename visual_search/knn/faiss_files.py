"""Reads an approximate index from its file, and refuses what is damaged or belongs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.engine import candidate_rows, load_faiss
from visual_search.knn.plan import SearchPlan
from visual_search.knn.store import EmbeddingStore

# The first four bytes of FAISS's files: nothing else is handed to its reader, which knows dozens
# of formats.
_SIGNATURES = {"hnsw": (b"IxMp",), "ivf": (b"IwSq", b"IwFl"), "ivfpq": (b"IwPQ",)}
PROBE_ROWS = 32  # rows that have to recognise themselves
MAX_PROBE_ERROR = 0.5  # of a row's squared distance to another row


def read_index(path: Path, plan: SearchPlan, store: EmbeddingStore) -> Any:
    """Returns the FAISS index in a file, over the first rows of the store.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, is not what the plan says, or holds other rows than the store.
    """
    faiss = load_faiss()
    if not path.is_file():
        raise FileNotFoundError(f"there is no search index {path}: build it and save it there")
    with open(path, "rb") as file:
        signature = file.read(4)
    expected = f"expected the {plan.kind} index of its plan: build and save it again"
    if signature not in _SIGNATURES[plan.kind]:
        raise ValueError(f"{path} begins with {signature!r}; {expected}")
    try:
        # Product tables would be computed in full: 260 MB that a search does not need.
        index = faiss.read_index(str(path), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {expected}") from error
    found, wanted = _described(index), _expected(plan, store.dim)
    if found != wanted:
        raise ValueError(f"{path} holds {found}, the plan says {wanted}; {expected}")
    if isinstance(index, faiss.IndexIDMap):
        rows = np.sort(faiss.vector_to_array(index.id_map))
    else:
        rows = np.sort(np.concatenate(rows_by_list(index)))
    if len(rows) != index.ntotal or not np.array_equal(rows, np.arange(len(rows))):
        raise ValueError(
            f"{path} does not hold the rows 0 to {index.ntotal - 1} once each; {expected}"
        )
    if len(rows) > len(store):
        raise ValueError(
            f"{path} holds {len(rows)} rows, the store {len(store)}; expected no more than the "
            "store's: give the store that the index was made of"
        )
    if plan.kind == "ivfpq":
        index.use_precomputed_table = -1
    _check_same_embeddings(index, plan, store, path)
    return index


def _described(index: Any) -> dict[str, object]:
    """Returns what an index is, as far as its plan says it."""
    faiss = load_faiss()
    found: dict[str, object] = {"type": type(index).__name__, "dim": index.d}
    if isinstance(index, faiss.IndexIDMap):
        graph = faiss.downcast_index(index.index)
        found["type"] = type(graph).__name__
        if isinstance(graph, faiss.IndexHNSW):
            found["storage"] = type(faiss.downcast_index(graph.storage)).__name__
            found["num_links"] = graph.hnsw.nb_neighbors(1)
    elif isinstance(index, faiss.IndexIVF):
        found["num_lists"] = index.nlist
        found["centres"] = type(faiss.downcast_index(index.quantizer)).__name__
        found["num_centres"] = index.quantizer.ntotal
        if isinstance(index, faiss.IndexIVFPQ):
            found |= {"num_parts": index.pq.M, "part_bits": index.pq.nbits}
    return found


def _expected(plan: SearchPlan, dim: int) -> dict[str, object]:
    params = plan.params
    if plan.kind == "hnsw":
        rounded = params["code_bits"] == 8
        return {
            "type": "IndexHNSWSQ" if rounded else "IndexHNSWFlat",
            "dim": dim,
            "storage": "IndexScalarQuantizer" if rounded else "IndexFlatL2",
            "num_links": params["num_links"],
        }
    wanted: dict[str, object] = {
        "dim": dim,
        "num_lists": params["num_lists"],
        "centres": "IndexFlatL2",
        "num_centres": params["num_lists"],
    }
    if plan.kind == "ivfpq":
        names = ("num_parts", "part_bits")
        return {"type": "IndexIVFPQ", **wanted, **{name: params[name] for name in names}}
    rounded = params["code_bits"] == 8
    return {"type": "IndexIVFScalarQuantizer" if rounded else "IndexIVFFlat", **wanted}


def rows_by_list(index: Any) -> list[NDArray[np.int64]]:
    """Returns the rows in each list of an IVF index, as they lie there."""
    faiss = load_faiss()
    lists = index.invlists
    members = []
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            members.append(np.array(faiss.rev_swig_ptr(lists.get_ids(number), size)))
        else:
            members.append(np.empty(0, dtype=np.int64))
    return members


def _check_same_embeddings(index: Any, plan: SearchPlan, store: EmbeddingStore, path: Path) -> None:
    """Asks the index for some of its own rows: it has to hold what the store holds there.

    A row's own code is at nearly no distance from it, compared with the code of the row beside it.
    """
    faiss = load_faiss()
    rows = np.unique(np.linspace(0, index.ntotal - 1, PROBE_ROWS).astype(np.int64))
    queries = store.take(rows)
    params = (
        faiss.SearchParametersHNSW(efSearch=64)
        if plan.kind == "hnsw"
        else faiss.SearchParametersIVF(nprobe=1)
    )
    nearest = candidate_rows(index, queries, 1, params)[:, 0]
    found = nearest >= 0
    own = store.take(np.where(found, nearest, 0)).astype(np.float64) - queries
    other = store.take(np.roll(rows, 1)).astype(np.float64) - queries
    squared, scale = np.square(own).sum(axis=1), np.square(other).sum(axis=1)
    recognised = found & (squared <= MAX_PROBE_ERROR * scale)
    if 2 * int(recognised.sum()) < len(rows):
        raise ValueError(
            f"{path} recognises {int(recognised.sum())} of {len(rows)} rows of the store; expected "
            "nearly all: it was made of other embeddings, build and save it again"
        )
