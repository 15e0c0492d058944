"""The kind ``lancedb``: what it finds, with and without a vector index, and what is refused."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.knn.galleries import brute_force, recall_of
from visual_search.knn import lancedb_index, lancedb_table, tuning
from visual_search.knn.indexes import build_index
from visual_search.knn.lancedb_index import LanceIndex
from visual_search.knn.lancedb_table import load_lancedb, product_parts
from visual_search.knn.store import ArrayStore

pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
pytestmark = pytest.mark.slow

N, D = 1500, 24
STRUCTURES = {"scanned": (10**9, 10**9), "IVF_HNSW_SQ": (100, 10**9), "IVF_PQ": (100, 0)}


def drawn(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Embeddings near a plane of 8 dimensions, as networks give them."""
    plane = np.random.default_rng(99).normal(size=(8, D))
    numbers = np.random.default_rng(seed)
    values = numbers.normal(size=(count, 8)) @ plane + 0.2 * numbers.normal(size=(count, D))
    return values.astype(np.float32)


GALLERY = drawn(N)


def build(structure: str, gallery: NDArray[np.float32]) -> LanceIndex:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lancedb_table, "MIN_INDEXED", STRUCTURES[structure][0])
        patch.setattr(lancedb_table, "MAX_GRAPH_ROWS", STRUCTURES[structure][1])
        index = build_index(ArrayStore(gallery), "lancedb", target_recall=0.9)
    assert isinstance(index, LanceIndex)
    return index


@pytest.fixture(scope="module", params=STRUCTURES)
def index(request: pytest.FixtureRequest) -> LanceIndex:
    return build(request.param, GALLERY)


def is_exact(index: LanceIndex) -> bool:
    return index.plan.recall is None


def test_the_plan_says_what_was_built_and_measured(index: LanceIndex) -> None:
    plan = index.plan
    assert plan.kind == "lancedb"
    assert plan.reason.startswith("lancedb was asked for; LanceDB 0.")
    assert plan.params["num_rows"] == N == plan.num_trained_rows == len(index)
    if is_exact(index):
        assert plan.reason.endswith("scanned")
        assert (index.num_bytes, plan.num_sample) == (0, 0)
    else:
        assert plan.recall is not None
        assert 0.9 <= plan.recall <= 1
        assert plan.num_sample == N // 10
        assert 0 < index.num_bytes < 40 * N * D
    assert type(plan).from_json(plan.to_json()) == plan


def test_it_finds_the_nearest_with_exact_distances(
    index: LanceIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = drawn(300, seed=1)
    monkeypatch.setattr(index, "_exact", None)  # what LanceDB proposes settles it
    rows, squared = index.search(queries, 10)
    exact_rows, exact_squared = brute_force(GALLERY, queries, 10)
    assert (rows.dtype, squared.dtype) == (np.int64, np.float32)
    own = ((GALLERY[rows].astype(np.float64) - queries[:, None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(squared, own.astype(np.float32))
    assert (np.diff(squared, axis=1) >= 0).all()
    assert all(len(set(line)) == 10 for line in rows.tolist())
    if is_exact(index):
        np.testing.assert_array_equal(rows, exact_rows)
        np.testing.assert_array_equal(squared, exact_squared.astype(np.float32))
    else:  # of queries that it was not tuned on
        assert index.plan.recall is not None
        assert abs(recall_of(rows, exact_rows) - index.plan.recall) < 0.05
    alone = np.concatenate([index.search(queries[n : n + 1], 10)[0] for n in range(5)])
    np.testing.assert_array_equal(alone, rows[:5])


@pytest.mark.parametrize("share", [0.002, 0.3, 0.97])
def test_allowed_rows_alone_are_found_and_exactly_k_of_them(
    index: LanceIndex, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = drawn(40, seed=3)
    allowed = np.random.default_rng(5).random(N) < share
    k = min(10, int(allowed.sum()))
    exact_rows, exact_squared = brute_force(GALLERY, queries, k, allowed)
    rows, squared = index.search(queries, 10, allowed)
    np.testing.assert_array_equal(rows, exact_rows)  # few enough to compare one by one
    np.testing.assert_array_equal(squared, exact_squared.astype(np.float32))

    monkeypatch.setattr(lancedb_index, "EXACT_ROWS", 0)
    rows, _ = index.search(queries, 10, allowed)
    assert rows.shape == (40, k)
    assert allowed[rows].all()
    assert all(len(set(line)) == k for line in rows.tolist())
    assert recall_of(rows, exact_rows) >= 0.85


def test_allowed_rows_far_from_the_query_are_found_too(
    index: LanceIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates run out before k of them are allowed: the store is searched."""
    monkeypatch.setattr(lancedb_index, "EXACT_ROWS", 0)
    monkeypatch.setattr(lancedb_index, "MAX_FETCH", 200)
    queries = drawn(10, seed=4)
    order = ((GALLERY - queries.mean(axis=0)) ** 2).sum(axis=1).argsort()
    allowed = np.isin(np.arange(N), order[-400:])
    rows, _ = index.search(queries, 10, allowed)
    assert allowed[rows].all()
    assert recall_of(rows, brute_force(GALLERY, queries, 10, allowed)[0]) >= 0.85


def test_more_neighbours_than_rows_and_none_allowed(index: LanceIndex) -> None:
    queries = drawn(2, seed=6)
    rows, _ = index.search(queries, N + 5)
    np.testing.assert_array_equal(np.sort(rows, axis=1), [np.arange(N)] * 2)
    rows, squared = index.search(queries, 3, np.zeros(N, dtype=np.bool_))
    assert rows.shape == squared.shape == (2, 0)


def test_threads_get_their_own_answers(index: LanceIndex) -> None:
    queries = drawn(32, seed=7)
    expected = index.search(queries, 5)[0]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: index.search(queries[n : n + 1], 5)[0][0], range(32)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spread", [0, 1])
def test_what_lancedb_cannot_tell_apart_is_ranked_exactly(spread: int) -> None:
    """300 at one distance but for rounding: far more than a scan fetches at first."""
    gallery = spread * drawn(300) + np.float32(1 - spread)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    middle = np.zeros((1, D), dtype=np.float32)
    rows, squared = build("scanned", gallery).search(middle, 30)
    expected_rows, expected = brute_force(gallery, middle, 30)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(squared, expected.astype(np.float32))


def test_a_target_that_is_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = tuning.Tuned(1, 10, 0.5, is_reached=False)
    monkeypatch.setattr(tuning, "tune", lambda *args, **kwargs: hopeless)
    index = build("IVF_PQ", GALLERY)
    assert "the target of 0.9 was not safely reached" in index.plan.reason
    assert index.plan.recall == 0.5


def test_progress_ends_with_all_rows() -> None:
    seen: list[tuple[int, int]] = []
    store = ArrayStore([drawn(20), drawn(15, seed=8)])
    build_index(store, "lancedb", on_progress=lambda *done: seen.append(done))
    assert seen == [(20, 35), (35, 35)]


def test_product_codes_fit_any_width() -> None:
    assert [product_parts(dim) for dim in (1, 4, 37, 128)] == [1, 1, 1, 32]
    gallery = np.ascontiguousarray(drawn(600)[:, :7])
    index = build("IVF_PQ", gallery)
    assert index.plan.params["num_parts"] == 1
    rows, _ = index.search(gallery[:50], 1)
    assert recall_of(rows, np.arange(50)[:, None]) >= 0.9


def test_what_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the store is empty; expected at least one embedding"):
        build_index(ArrayStore(drawn(0)), "lancedb")
    spoilt = drawn(30)
    spoilt[17, 3] = np.nan
    with pytest.raises(ValueError, match="gallery embedding row 17 holds NaN"):
        build_index(ArrayStore(spoilt), "lancedb")
    monkeypatch.setitem(sys.modules, "lancedb", None)  # a missing package names the extra
    with pytest.raises(ValueError, match=r"run: pip install 'visual-search\[lancedb\]', or"):
        load_lancedb()
    with pytest.raises(ValueError, match="kind lancedb needs a package that is not installed"):
        build_index(ArrayStore(drawn(5)), "lancedb")
