"""What an approximate index of FAISS is made of: parameters, training, the steps of tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.choice import MIN_PRODUCT_ROWS, list_count, part_count
from visual_search.knn.engine import load_faiss
from visual_search.knn.store import EmbeddingStore
from visual_search.knn.tuning import SEED, efforts

# 8 bits a number need rows that show each dimension's range; below this, rows stay as given.
MIN_ROUNDED_ROWS = 10_000
TRAIN_ROWS_A_LIST = 64  # FAISS asks for 39 at least
PRODUCT_TRAIN_ROWS = 256 * 64
NUM_LINKS, EF_CONSTRUCTION = 24, 100
MAX_EF = 2048


def first_params(kind: str, num_rows: int, dim: int) -> dict[str, int]:
    """Returns a kind's parameters before they are tuned.

    Raises:
        ValueError: So few items do not suffice for the kind.
    """
    needed = MIN_PRODUCT_ROWS if kind == "ivfpq" else 1
    if num_rows < needed:
        raise ValueError(
            f"the store holds {num_rows} embedding(s); expected at least {needed:,} for {kind}: "
            "use flat or auto"
        )
    code_bits = 8 if num_rows >= MIN_ROUNDED_ROWS else 32
    if kind == "hnsw":
        return {
            "num_links": NUM_LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "code_bits": code_bits,
        }
    lists = {"num_lists": list_count(num_rows)}
    if kind == "ivf":
        return {**lists, "code_bits": code_bits}
    return {**lists, "num_parts": part_count(dim), "part_bits": 8}


def empty_index(kind: str, dim: int, params: Mapping[str, int | float]) -> Any:
    """Returns FAISS's index of this kind and these parameters, neither trained nor filled."""
    faiss = load_faiss()
    code = "SQ8" if params.get("code_bits") == 8 else "Flat"
    if kind == "hnsw":
        index = faiss.index_factory(dim, f"IDMap,HNSW{params['num_links']}_{code}")
        graph = faiss.downcast_index(index.index)
        graph.hnsw.efConstruction = int(params["ef_construction"])
        return index
    if kind == "ivfpq":
        # np: no polysemous training, which renumbers centroids.
        code = f"PQ{params['num_parts']}x{params['part_bits']}np"
    index = faiss.index_factory(dim, f"IVF{params['num_lists']},{code}")
    if kind == "ivfpq":
        # Tables for every list would take 260 MB at 4,000 lists and 64 parts; without them a probe
        # costs 15 microseconds more.
        index.use_precomputed_table = -1
        index.pq.cp.seed = SEED
        index.pq.cp.min_points_per_centroid = 1  # or else FAISS prints what is only advice
    index.cp.seed = SEED
    index.cp.min_points_per_centroid = 1
    return index


def trained_index(
    store: EmbeddingStore, kind: str, params: Mapping[str, int], left_out: NDArray[np.int64]
) -> Any:
    """Returns an index trained on a sample of the store, without the rows ``[n]`` left out."""
    index = empty_index(kind, store.dim, params)
    others = np.ones(len(store), dtype=np.bool_)
    others[left_out] = False
    rows = np.flatnonzero(others)
    wanted = TRAIN_ROWS_A_LIST * params.get("num_lists", 1)
    wanted = max(wanted, MIN_ROUNDED_ROWS, PRODUCT_TRAIN_ROWS if kind == "ivfpq" else 0)
    if len(rows) > wanted:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, wanted, replace=False))
    index.train(store.take(rows))
    return index


def tuning_steps(
    kind: str, params: Mapping[str, int], num_rows: int, dim: int
) -> tuple[list[int], int, float]:
    """Returns the efforts to try, the largest multiple of candidates and the bytes an effort."""
    if kind == "hnsw":
        code_bytes = dim * params["code_bits"] // 8
        return efforts(16, MAX_EF), 4, 2.0 * params["num_links"] * code_bytes
    items_a_list = num_rows / params["num_lists"]
    ladder = efforts(1, params["num_lists"])
    if kind == "ivf":
        return ladder, 8, items_a_list * dim * params["code_bits"] / 8
    # Besides its codes, a probed list costs a table of 256 distances a part.
    return ladder, 64, items_a_list * params["num_parts"] + 256 * 4 * dim
