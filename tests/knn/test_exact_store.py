from __future__ import annotations

import numpy as np
import pytest

from tests.knn.galleries import HARD_GALLERIES, PlainStore, brute_force, noise
from visual_search.knn import exact_store
from visual_search.knn.exact_store import ExactSearcher, rank_by_float32, rank_candidates
from visual_search.knn.store import ArrayStore

MASKS = {
    "all": lambda n: None,
    "all-but-three": lambda n: np.isin(np.arange(n), [0, 5, n - 1], invert=True),
    "every-second": lambda n: np.arange(n) % 2 == 0,
    "every-tenth": lambda n: np.arange(n) % 10 == 3,
    "the-first-block": lambda n: np.arange(n) < n // 3,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_equals_brute_force(name, mask, monkeypatch):
    gallery = HARD_GALLERIES[name]()
    # Blocks of 64 rows: candidates have to be merged across them.
    monkeypatch.setattr(exact_store, "BLOCK_VALUES", 64 * gallery.shape[1])
    third = len(gallery) // 3
    searcher = ExactSearcher(ArrayStore([gallery[:third], gallery[third:]]))
    allowed = MASKS[mask](len(gallery))
    some = gallery[::37]
    near = some + np.float32(0.01) * noise(*some.shape, seed=5)
    expected_rows, expected = brute_force(gallery, np.concatenate([some, near]), 7, allowed)
    for start, queries in ((0, some[:1]), (0, some), (len(some), near)):  # one is searched
        rows, squared = searcher.nearest(queries, 7, allowed)  # otherwise than several
        stop = start + len(queries)
        np.testing.assert_array_equal(rows, expected_rows[start:stop])
        np.testing.assert_allclose(squared, expected[start:stop], rtol=1e-12)


def test_large_batches_of_queries_equal_brute_force(monkeypatch):
    monkeypatch.setattr(exact_store, "FAISS_PRODUCT_VALUES", 100)  # FAISS multiplies
    monkeypatch.setattr(exact_store, "BATCH_VALUES", 2**10)  # in several batches
    gallery, queries = noise(300, 8), noise(40, 8, seed=1)
    done: list[tuple[int, int]] = []
    for allowed in (None, np.arange(300) % 3 > 0):
        rows, _ = ExactSearcher(ArrayStore(gallery)).nearest(
            queries, 5, allowed, lambda *numbers: done.append(numbers)
        )
        np.testing.assert_array_equal(rows, brute_force(gallery, queries, 5, allowed)[0])
    assert done[-1] == (40, 40)
    assert len(done) > 4


def test_k_may_be_all_there_is():
    gallery = noise(50, 4)
    allowed = np.arange(50) % 2 == 0
    rows, _ = ExactSearcher(ArrayStore(gallery)).nearest(gallery[:3], 25, allowed)
    np.testing.assert_array_equal(rows, brute_force(gallery, gallery[:3], 25, allowed)[0])


@pytest.mark.parametrize("rank", [rank_candidates, rank_by_float32])
@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_candidates_are_ranked_as_brute_force_ranks_them(name, rank):
    gallery = HARD_GALLERIES[name]()
    queries = gallery[::37]
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(len(gallery)) for _ in queries])
    rows, squared = rank(ArrayStore(gallery), queries, shuffled, 6)
    expected_rows, expected = brute_force(gallery, queries, 6)
    np.testing.assert_array_equal(rows, expected_rows)
    tolerance = 1e-12 if rank is rank_candidates else 1e-5
    np.testing.assert_allclose(squared, expected, rtol=tolerance)


@pytest.mark.parametrize("make", [ArrayStore, PlainStore])
@pytest.mark.parametrize("rank", [rank_candidates, rank_by_float32])
def test_missing_candidates_come_last(make, rank):
    store = make(np.array([[0], [3], [5]], dtype=np.float32))
    rows, squared = rank(store, store.take(np.array([0, 0])), np.array([[2, -1, 1], [-1] * 3]), 3)
    assert rows.tolist() == [[1, 2, -1], [-1, -1, -1]]
    assert squared.tolist() == [[9, 25, np.inf], [np.inf] * 3]
