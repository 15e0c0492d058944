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
]


@pytest.mark.parametrize(("gains", "ideal", "k", "expected"), HAND_WORKED)
def test_hand_worked_table(gains, ideal, k, expected):
    values = ndcg_at_k(np.array([gains]), np.array([ideal]), k)
    assert values.dtype == np.float64
    assert values.tolist() == pytest.approx([expected], abs=1e-12, nan_ok=True)


def slow_dcg(gains: list[float], k: int) -> float:
    total = 0.0
    for rank, gain in enumerate(gains[:k], start=1):
        total += gain / math.log2(rank + 1)
    return total


def slow_ndcg(ranked: list[int], gallery: list[int], k: int) -> float:
    best = slow_dcg(sorted(gallery, reverse=True), k)
    return slow_dcg(ranked, k) / best if best else math.nan


GALLERIES = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@settings(deadline=None)  # no timing is a test here
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


def test_many_queries_are_the_queries_one_by_one():
    rng = np.random.default_rng(0)
    galleries = rng.integers(0, 4, size=(50, 9))
    ideal = -np.sort(-galleries, axis=1)[:, :5]
    together = ndcg_at_k(galleries, ideal, 5)
    alone = [slow_ndcg(row.tolist(), row.tolist(), 5) for row in galleries]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_bool_relevance_is_a_gain_of_one():
    relevance = np.array([[True, False, True]])
    ideal = np.array([[True, True, False]])
    assert ndcg_at_k(relevance, ideal, 3) == pytest.approx([1.5 / (1 + 1 / LOG3)])


def test_the_exponential_form_is_a_matter_of_the_gains_passed():
    gains, ideal = np.array([[1, 3]]), np.array([[3, 1]])
    linear, exponential = ndcg_at_k(gains, ideal, 2), ndcg_at_k(2**gains - 1, 2**ideal - 1, 2)
    assert linear.tolist() == pytest.approx([(1 + 3 / LOG3) / (3 + 1 / LOG3)])
    assert exponential.tolist() == pytest.approx([(1 + 7 / LOG3) / (7 + 1 / LOG3)])


@pytest.mark.parametrize("unit", [1e-300, 1.0, 1e300, 1.7e308])
def test_the_unit_of_the_gains_does_not_matter(unit):
    gains, ideal = np.array([[0.5, 0.0, 1.0]]) * unit, np.array([[1.0, 1.0, 0.5]]) * unit
    expected = 1.0 / (1 + 1 / LOG3 + 0.25)
    assert ndcg_at_k(gains, ideal, 3).tolist() == pytest.approx([expected])


def test_no_queries_give_no_numbers():
    assert ndcg_at_k(np.zeros((0, 5)), np.zeros((0, 5)), 5).shape == (0,)
    assert hierarchy_gains(np.zeros((0, 2), dtype=str), np.zeros((0, 5, 2), dtype=str)).shape == (
        0,
        5,
    )
    assert ideal_gains(np.zeros((0, 2), dtype=int), 5).shape == (0, 5)


class TestNdcgRefusals:
    def test_text(self):
        with pytest.raises(TypeError, match=r"gains have dtype <U4; expected numbers"):
            ndcg_at_k(np.array([["shoe"]]), np.array([[1]]), 1)

    def test_k_that_is_not_integer(self):
        with pytest.raises(TypeError, match=r"k is 1\.5 \(float\)"):
            ndcg_at_k(np.array([[1]]), np.array([[1]]), 1.5)

    def test_k_below_one(self):
        with pytest.raises(ValueError, match=r"k is 0; expected at least 1"):
            ndcg_at_k(np.array([[1]]), np.array([[1]]), 0)

    @pytest.mark.parametrize(
        ("gains", "ideal", "name"), [([1], [[1]], "gains"), ([[1]], [1], "ideal_gains")]
    )
    def test_shapes(self, gains, ideal, name):
        with pytest.raises(ValueError, match=rf"^{name} have shape \(1,\); expected two"):
            ndcg_at_k(np.array(gains), np.array(ideal), 1)

    @pytest.mark.parametrize(
        ("gains", "ideal", "name"), [([[1]], [[1, 1]], "gains"), ([[1, 1]], [[1]], "ideal_gains")]
    )
    def test_k_beyond_the_list(self, gains, ideal, name):
        with pytest.raises(ValueError, match=rf"k is 2, but {name} hold 1 rank"):
            ndcg_at_k(np.array(gains), np.array(ideal), 2)

    def test_other_queries(self):
        with pytest.raises(ValueError, match=r"gains hold 1 queries and ideal_gains 2"):
            ndcg_at_k(np.array([[1]]), np.array([[1], [1]]), 1)

    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    @pytest.mark.parametrize("name", ["gains", "ideal_gains"])
    def test_negative_and_not_finite(self, value, name):
        good, bad = np.array([[1.0]]), np.array([[value]])
        arrays = (bad, good) if name == "gains" else (good, bad)
        with pytest.raises(ValueError, match=rf"^{name} of query row 0 .*finite gains of 0 or"):
            ndcg_at_k(*arrays, 1)

    def test_an_ideal_that_is_not_descending(self):
        with pytest.raises(ValueError, match=r"query row 1 are \[1\.0, 2\.0\]; expected them desc"):
            ndcg_at_k(np.zeros((2, 2)), np.array([[2, 1], [1, 2]]), 2)

    @pytest.mark.parametrize("gains", [[2, 0], [1, 1]])
    def test_more_than_the_ideal(self, gains):
        with pytest.raises(ValueError, match=r"row 0 has the gains .*no more than the ideal"):
            ndcg_at_k(np.array([gains]), np.array([[1, 0]]), 2)

    def test_more_than_the_ideal_behind_k(self):
        """Also at K > k the list holds items of the gallery."""
        with pytest.raises(ValueError, match=r"row 0 has the gains \[1\.0\], but the ideal is"):
            ndcg_at_k(np.array([[0, 1]]), np.array([[0]]), 1)


LEVELS = [["shoe", "hat", ""], ["boot", "heel", ""], ["red", "blue", ""]]


def slow_gain(asked: tuple[str, ...], found: tuple[str | None, ...]) -> int:
    gain = 0
    for mine, theirs in zip(asked, found, strict=True):
        if not mine or mine != theirs:
            break
        gain += 1
    return gain


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([object, str]))
def test_gains_and_ideal_against_slow_loops(seed, dtype):
    """From labels alone: the best list, sorted by gain, is what the counts say it is."""
    rng = np.random.default_rng(seed)
    items = [tuple(str(rng.choice(level)) for level in LEVELS) for _ in range(9)]
    gallery = np.array(items, dtype=dtype)  # [N, L]
    num_queries, k = 4, 6
    asked = gallery[:num_queries]
    found = np.broadcast_to(gallery, (num_queries, *gallery.shape))
    gains = hierarchy_gains(asked, found)
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
    found = np.array(
        [[["shoe", "", "red"], ["shoe", "boot", "red"]], [["", "boot", "red"], [None] * 3]],
        dtype=object,
    )
    assert hierarchy_gains(asked, found).tolist() == [[1, 1], [0, 0]]
    nobody = np.array([[None, "boot"]], dtype=object)
    assert hierarchy_gains(nobody, nobody[:, None, :]).tolist() == [[0]]


def test_a_level_behind_one_that_differs_does_not_count():
    asked, found = np.array([["shoe", "boot", "red"]]), np.array([[["shoe", "heel", "red"]]])
    assert hierarchy_gains(asked, found).tolist() == [[1]]


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
def test_ideal_gains_by_hand(num_matching, k, expected):
    assert ideal_gains(np.array([num_matching]), k).tolist() == [expected]


def test_ideal_gains_takes_unsigned_counts():
    assert ideal_gains(np.array([[3, 1]], dtype=np.uint64), 3).tolist() == [[2, 1, 1]]


class TestHierarchyRefusals:
    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            (np.array(["a"]), np.array([[["a"]]])),
            (np.array([["a"]]), np.array([["a"]])),
            (np.array([["a"]]), np.array([[["a", "b"]]])),
            (np.array([["a"]]), np.array([[["a"]], [["a"]]])),
            (np.zeros((1, 0), dtype=str), np.zeros((1, 5, 0), dtype=str)),
        ],
    )
    def test_shapes(self, asked, found):
        with pytest.raises(ValueError, match=r"expected \[Q, L\] and \[Q, K, L\] with at least"):
            hierarchy_gains(asked, found)

    @pytest.mark.parametrize("odd", [7, math.nan])
    def test_labels_that_are_no_text(self, odd):
        text = np.array([["a"]], dtype=object)
        numbers = np.array([[odd]], dtype=object)
        with pytest.raises(TypeError, match=rf"query_labels hold {odd} .*expected text"):
            hierarchy_gains(numbers, text[:, None, :])
        with pytest.raises(TypeError, match=rf"neighbour_labels hold {odd} .*expected text"):
            hierarchy_gains(text, numbers[:, None, :])

    def test_counts_that_are_not_integer(self):
        with pytest.raises(TypeError, match=r"num_matching has dtype float64"):
            ideal_gains(np.array([[1.0]]), 5)

    def test_k(self):
        with pytest.raises(TypeError, match=r"k is '5' \(str\)"):
            ideal_gains(np.array([[1]]), "5")
        with pytest.raises(ValueError, match=r"k is 0; expected at least 1"):
            ideal_gains(np.array([[1]]), 0)

    @pytest.mark.parametrize("counts", [np.array([1]), np.zeros((2, 0), dtype=int)])
    def test_shape_of_the_counts(self, counts):
        with pytest.raises(ValueError, match=r"expected \[Q, L\] with at least one level"):
            ideal_gains(counts, 5)

    @pytest.mark.parametrize("counts", [[-1], [1, 2], [2, 1, -1]])
    def test_impossible_counts(self, counts):
        with pytest.raises(ValueError, match=r"row 1 is .*never grow from coarse to fine"):
            ideal_gains(np.array([[0] * len(counts), counts]), 5)
