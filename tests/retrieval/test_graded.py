from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from visual_search.retrieval.graded import hierarchy_gains, ideal_gains, ndcg_at_k

# Worked by hand: gains, ideal, k -> nDCG. Discounts: 1, 1 / log2(3) = 0.6309, 0.5, ...
LOG3 = math.log2(3)
HAND_WORKED = [
    ([3, 2, 1], [3, 2, 1], 3, 1.0),
    ([1, 0, 3], [3, 2, 1], 3, (1 + 3 / 2) / (3 + 2 / LOG3 + 1 / 2)),
    ([1, 2, 3], [3, 2, 1], 3, (1 + 2 / LOG3 + 3 / 2) / (3 + 2 / LOG3 + 1 / 2)),
    ([0, 1, 0], [1, 0, 0], 3, 1 / LOG3),
    ([0, 0, 1], [1, 1, 1], 2, 0.0),  # behind k
    ([1, 1, 0], [1, 1, 1], 2, 1.0),  # nothing better fits into two places
    ([1, 0, 0], [3, 3, 3], 1, 1 / 3),
    ([0, 0, 0], [2, 1, 0], 3, 0.0),
    ([0, 0, 0], [0, 0, 0], 3, math.nan),
    ([True, False, True], [True, True, False], 3, 1.5 / (1 + 1 / LOG3)),  # a gain of one
    ([1, 7], [7, 1], 2, (1 + 7 / LOG3) / (7 + 1 / LOG3)),  # 2^gain - 1: a matter of the caller
]


@pytest.mark.parametrize(("gains", "ideal", "k", "expected"), HAND_WORKED)
def test_hand_worked_table(gains, ideal, k, expected):
    values = ndcg_at_k(np.array([gains]), np.array([ideal]), k)
    assert values.dtype == np.float64
    assert values.tolist() == pytest.approx([expected], abs=1e-12, nan_ok=True)


def slow_ndcg(ranked: list[int], gallery: list[int], k: int) -> float:
    def dcg(gains: list[int]) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], start=1))

    best = dcg(sorted(gallery, reverse=True))
    return dcg(ranked) / best if best else math.nan


GALLERIES = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)  # no timing is a test here
@given(GALLERIES, st.randoms(use_true_random=False), st.data())
def test_against_a_slow_loop_and_scikit_learn(gallery, random, data):
    ranked = list(gallery)
    random.shuffle(ranked)
    k = data.draw(st.integers(1, len(gallery)))
    ideal = sorted(gallery, reverse=True)[:k]
    value = ndcg_at_k(np.array([ranked]), np.array([ideal]), k)[0]
    assert value == pytest.approx(slow_ndcg(ranked, gallery, k), abs=1e-12, nan_ok=True)
    if any(gallery):  # scikit-learn gives 0.0 where the ideal is 0
        scores = np.arange(len(ranked), 0, -1)
        assert value == pytest.approx(ndcg_score([ranked], [scores], k=k), abs=1e-12)
        assert 0 <= value <= 1


@pytest.mark.parametrize("unit", [1e-300, 1.0, 1e300, 1.7e308])
def test_the_unit_of_the_gains_does_not_matter(unit):
    gains, ideal = np.array([[0.5, 0.0, 1.0]]) * unit, np.array([[1.0, 1.0, 0.5]]) * unit
    expected = 1.0 / (1 + 1 / LOG3 + 0.25)
    assert ndcg_at_k(gains, ideal, 3).tolist() == pytest.approx([expected])


def test_no_queries_give_no_numbers():
    nobody = np.zeros((0, 2), dtype=str)
    assert ndcg_at_k(np.zeros((0, 5)), np.zeros((0, 5)), 5).shape == (0,)
    assert hierarchy_gains(nobody, np.zeros((0, 5, 2), dtype=str)).shape == (0, 5)
    assert ideal_gains(np.zeros((0, 2), dtype=int), 5).shape == (0, 5)


BAD = [-1.0, math.nan, math.inf]


@pytest.mark.parametrize(
    ("gains", "ideal", "k", "error", "message"),
    [
        ([["shoe"]], [[1]], 1, TypeError, r"gains have dtype <U4"),
        ([[1]], [[1]], 1.5, TypeError, r"k is 1\.5 \(float\)"),
        ([[1]], [[1]], 0, ValueError, r"k is 0; expected at least 1"),
        ([1], [[1]], 1, ValueError, r"^gains have shape \(1,\); expected two"),
        ([[1]], [1], 1, ValueError, r"^ideal_gains have shape \(1,\); expected two"),
        ([[1]], [[1, 1]], 2, ValueError, r"k is 2, but gains hold 1 rank"),
        ([[1, 1]], [[1]], 2, ValueError, r"k is 2, but ideal_gains hold 1 rank"),
        ([[1]], [[1], [1]], 1, ValueError, r"gains hold 1 queries and ideal_gains 2"),
        *(([[x]], [[1.0]], 1, ValueError, r"^gains of query row 0 .*finite") for x in BAD),
        *(([[1.0]], [[x]], 1, ValueError, r"^ideal_gains of query row 0 .*finite") for x in BAD),
        ([[0, 0]] * 2, [[2, 1], [1, 2]], 2, ValueError, r"query row 1 are \[1\.0, 2\.0\]; .*desc"),
        ([[2, 0]], [[1, 0]], 2, ValueError, r"row 0 has the gains .*no more than the ideal"),
        ([[1, 1]], [[1, 0]], 2, ValueError, r"row 0 has the gains .*no more than the ideal"),
        # also behind k the list holds items of the gallery
        ([[0, 1]], [[0]], 1, ValueError, r"row 0 has the gains \[1\.0\], but the ideal is"),
    ],
)
def test_gains_that_cannot_be_scored_are_refused(gains, ideal, k, error, message):
    with pytest.raises(error, match=message):
        ndcg_at_k(np.array(gains), np.array(ideal), k)


LEVELS = [["shoe", "hat", ""], ["boot", "heel", ""], ["red", "blue", ""]]


def slow_gain(asked: tuple[str, ...], found: tuple[str | None, ...]) -> int:
    gain = 0
    for mine, theirs in zip(asked, found, strict=True):
        if not mine or mine != theirs:
            break
        gain += 1
    return gain


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([object, str]))
def test_gains_and_ideal_against_slow_loops(seed, dtype):
    """From labels alone: the best list, sorted by gain, is what the counts say it is."""
    rng = np.random.default_rng(seed)
    items = [tuple(str(rng.choice(level)) for level in LEVELS) for _ in range(9)]
    gallery = np.array(items, dtype=dtype)  # [N, L]
    num_queries, k = 4, 6
    found = np.broadcast_to(gallery, (num_queries, *gallery.shape))
    gains = hierarchy_gains(gallery[:num_queries], found)
    slow = [[slow_gain(query, item) for item in items] for query in items[:num_queries]]
    assert gains.dtype == np.int64
    assert gains.tolist() == slow
    num_matching = np.array([[sum(g >= level for g in row) for level in (1, 2, 3)] for row in slow])
    best = ideal_gains(num_matching, k)
    assert best.tolist() == [sorted(row, reverse=True)[:k] for row in slow]
    assert ndcg_at_k(gains, best, k).tolist() == pytest.approx(
        [slow_ndcg(row, row, k) for row in slow], nan_ok=True
    )


def test_nothing_agrees_with_an_empty_label():
    asked = np.array([["shoe", "", "red"], ["", "boot", "red"]], dtype=object)
    found = np.array([[asked[0], ["shoe", "boot", "red"]], [asked[1], [None] * 3]], dtype=object)
    assert hierarchy_gains(asked, found).tolist() == [[1, 1], [0, 0]]
    nobody = np.array([[None, "boot"]], dtype=object)
    assert hierarchy_gains(nobody, nobody[:, None, :]).tolist() == [[0]]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize(
    ("num_matching", "k", "expected"),
    [
        ([4, 2, 1], 5, [3, 2, 1, 1, 0]),
        ([4, 2, 1], 2, [3, 2]),
        ([0, 0, 0], 3, [0, 0, 0]),
        ([3, 3, 3], 3, [3, 3, 3]),
        ([999], 5, [1, 1, 1, 1, 1]),  # one level: plain relevance
        ([3], 5, [1, 1, 1, 0, 0]),
    ],
)
def test_ideal_gains_by_hand(num_matching, k, expected, dtype):
    assert ideal_gains(np.array([num_matching], dtype=dtype), k).tolist() == [expected]


@pytest.mark.parametrize(
    ("asked", "found", "error", "message"),
    [
        (["a"], [[["a"]]], ValueError, r"expected \[Q, L\] and \[Q, K, L\]"),
        ([["a"]], [["a"]], ValueError, r"expected \[Q, L\] and \[Q, K, L\]"),
        ([["a"]], [[["a", "b"]]], ValueError, r"expected \[Q, L\] and \[Q, K, L\]"),
        ([["a"]], [[["a"]], [["a"]]], ValueError, r"expected \[Q, L\] and \[Q, K, L\]"),
        ([[]], [[[]] * 5], ValueError, r"with at least"),
        ([[7]], [[["a"]]], TypeError, r"query_labels hold 7 .*expected text"),
        ([[math.nan]], [[["a"]]], TypeError, r"query_labels hold nan .*expected text"),
        ([["a"]], [[[7]]], TypeError, r"neighbour_labels hold 7 .*expected text"),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(asked, found, error, message):
    with pytest.raises(error, match=message):
        hierarchy_gains(np.array(asked, dtype=object), np.array(found, dtype=object))


@pytest.mark.parametrize(
    ("counts", "k", "error", "message"),
    [
        ([[1.0]], 5, TypeError, r"num_matching has dtype float64"),
        ([[1]], "5", TypeError, r"k is '5' \(str\)"),
        ([[1]], 0, ValueError, r"k is 0; expected at least 1"),
        ([1], 5, ValueError, r"expected \[Q, L\] with at least one level"),
        (np.zeros((2, 0), dtype=int), 5, ValueError, r"expected \[Q, L\] with at least one level"),
        ([[0], [-1]], 5, ValueError, r"row 1 is .*never grow from coarse to fine"),
        ([[0, 0], [1, 2]], 5, ValueError, r"row 1 is .*never grow from coarse to fine"),
        ([[0, 0, 0], [2, 1, -1]], 5, ValueError, r"row 1 is .*never grow from coarse to fine"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts, k, error, message):
    with pytest.raises(error, match=message):
        ideal_gains(np.array(counts), k)
