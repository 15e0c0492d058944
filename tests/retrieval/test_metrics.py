from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visual_search.knn.embeddings import check_k
from visual_search.retrieval import metrics
from visual_search.retrieval.metrics import (
    DEFINITIONS,
    average_precision_at_k,
    definitions,
    hit_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
    reference_2023,
    reference_definition,
)

ALL = [average_precision_at_k, precision_at_k, recall_at_k, hit_at_k, reciprocal_rank_at_k]


def ranks(*hits: int, length: int = 5) -> np.ndarray:
    """One query's relevance, [1, length] bool, with hits at these ranks (from 1)."""
    relevance = np.zeros((1, length), dtype=bool)
    relevance[0, [rank - 1 for rank in hits]] = True
    return relevance


# Worked by hand: hits at, R, k -> AP, precision, recall, hit, reciprocal rank.
HAND_WORKED = [
    # The two cases on which metric libraries disagree (reference study).
    ((1,), 999, 5, 0.200, 0.2, 1 / 999, 1, 1),
    ((1, 3, 5), 3, 5, (1 + 2 / 3 + 3 / 5) / 3, 0.6, 1, 1, 1),
    ((1, 2, 3, 4, 5), 999, 5, 1.0, 1.0, 5 / 999, 1, 1),  # nothing better fits into the list
    ((1,), 1, 5, 1.0, 0.2, 1, 1, 1),  # one relevant item, found first: AP 1, precision only 0.2
    ((5,), 1, 5, 0.2, 0.2, 1, 1, 0.2),
    ((), 3, 5, 0.0, 0.0, 0, 0, 0),
    ((4,), 2, 3, 0.0, 0.0, 0, 0, 0),  # a hit behind k does not count, for the first rank either
    ((2, 3), 2, 5, (1 / 2 + 2 / 3) / 2, 0.4, 1, 1, 0.5),
    ((1, 2), 10, 1, 1.0, 1.0, 0.1, 1, 1),
]


@pytest.mark.parametrize(
    ("hits", "found", "k", "ap", "precision", "recall", "hit", "rr"), HAND_WORKED
)
def test_hand_worked_table(hits, found, k, ap, precision, recall, hit, rr):
    values = [metric(ranks(*hits), np.array([found]), k)[0] for metric in ALL]
    assert values == pytest.approx([ap, precision, recall, hit, rr], abs=1e-12)


def test_the_two_cases_of_the_reference_study_to_its_three_digits():
    relevance = np.concatenate([ranks(1), ranks(1, 3, 5)])
    values = average_precision_at_k(relevance, np.array([999, 3]), 5)
    assert values.round(3).tolist() == [0.200, 0.756]


def slow_average_precision(relevance: list[bool], found: int, k: int) -> float:
    total = 0.0
    for rank in range(1, k + 1):
        if relevance[rank - 1]:
            total += relevance[:rank].count(True) / rank
    return total / min(found, k) if found else math.nan


def slow_reciprocal_rank(relevance: list[bool], found: int, k: int) -> float:
    if not found:
        return math.nan
    return next((1 / rank for rank in range(1, k + 1) if relevance[rank - 1]), 0.0)


@given(st.data())
def test_against_a_slow_loop(data):
    length = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, length))
    rows = data.draw(
        st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=6)
    )
    found = [sum(row) + data.draw(st.integers(0, 20)) for row in rows]
    relevance, num_relevant = np.array(rows), np.array(found)
    hits = [sum(row[:k]) for row in rows]
    expected = {
        average_precision_at_k: [
            slow_average_precision(r, n, k) for r, n in zip(rows, found, strict=True)
        ],
        precision_at_k: [h / k if n else math.nan for h, n in zip(hits, found, strict=True)],
        recall_at_k: [h / n if n else math.nan for h, n in zip(hits, found, strict=True)],
        hit_at_k: [float(h > 0) if n else math.nan for h, n in zip(hits, found, strict=True)],
        reciprocal_rank_at_k: [
            slow_reciprocal_rank(r, n, k) for r, n in zip(rows, found, strict=True)
        ],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(metric(relevance, num_relevant, k), values, atol=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_a_query_with_nothing_to_find_is_nan_and_the_others_are_not(metric):
    relevance = np.concatenate([ranks(), ranks(1)])
    values = metric(relevance, np.array([0, 1]), 5)
    assert values.dtype == np.float64
    assert np.isnan(values).tolist() == [True, False]


@pytest.mark.parametrize("metric", ALL)
def test_no_queries_give_no_numbers(metric):
    assert metric(np.zeros((0, 5), dtype=bool), np.zeros(0, dtype=int), 5).shape == (0,)


@pytest.mark.parametrize("metric", ALL)
class TestRefusals:
    def test_relevance_that_is_not_bool(self, metric):
        with pytest.raises(TypeError, match=r"dtype float64; expected bool"):
            metric(np.zeros((1, 5)), np.array([1]), 5)

    def test_a_count_that_is_not_integer(self, metric):
        with pytest.raises(TypeError, match=r"num_relevant has dtype float64"):
            metric(ranks(1), np.array([1.0]), 5)

    def test_k_that_is_not_integer(self, metric):
        with pytest.raises(TypeError, match=r"k is 2\.5 \(float\)"):
            metric(ranks(1), np.array([1]), 2.5)

    def test_relevance_of_another_shape(self, metric):
        with pytest.raises(ValueError, match=r"relevance has shape \(5,\); expected \[Q, K\]"):
            metric(np.zeros(5, dtype=bool), np.array([1]), 5)

    @pytest.mark.parametrize("found", [[1, 1], [[1]], 1])
    def test_counts_of_another_shape(self, metric, found):
        with pytest.raises(ValueError, match=r"1 row\(s\) and num_relevant shape .*\[Q, K\] and"):
            metric(ranks(1), np.array(found), 5)

    def test_k_beyond_the_list(self, metric):
        with pytest.raises(ValueError, match=r"k is 6, but relevance holds 5 rank"):
            metric(ranks(1), np.array([1]), 6)

    def test_k_below_one(self, metric):
        with pytest.raises(ValueError, match=r"k is 0; expected at least 1"):
            metric(ranks(1), np.array([1]), 0)

    @pytest.mark.parametrize(("hits", "found"), [((), -1), ((1, 2), 1)])
    def test_more_hits_than_there_are(self, metric, hits, found):
        with pytest.raises(ValueError, match=rf"row 0 has num_relevant {found}, but {len(hits)}"):
            metric(ranks(*hits), np.array([found]), 5)


@pytest.mark.parametrize("k", [True, "5", None])
def test_k_must_be_a_number(k):
    with pytest.raises(TypeError, match="expected a whole number"):
        check_k(k)


def test_definitions_name_every_mean_and_its_k():
    assert set(definitions(10)) == {
        *(name.replace("_at_k", "_at_10") for name in DEFINITIONS),
        "hit_at_1",
    }
    assert "min(R, 10)" in definitions(10)["map_at_10"]
    assert len(definitions(1)) == len(DEFINITIONS) == 6  # hit_at_1 is hit_at_k there
    for text in definitions(7).values():
        assert "{" not in text
        assert metrics.LEFT_OUT in text
    assert "log2(rank + 1) over the first 7" in definitions(7)["ndcg_at_7"]


def test_the_rule_of_2023_is_not_among_the_definitions_and_is_no_map():
    text = reference_definition(5)
    assert "hits / 5" in text
    assert "{" not in text
    assert "map" not in text.lower()
    assert "average precision" not in text.lower()
    assert text not in definitions(5).values()
    with pytest.raises(ValueError, match=r"k is 0; expected at least 1"):
        reference_definition(0)


class TestReference2023:
    """The query stays in the gallery and is relevant to itself."""

    @pytest.mark.parametrize(
        ("hits", "expected"),
        [
            ((1,), 0.2),  # the study's one necktie: a category of one
            ((1, 2, 3), 0.6),  # a category of three, found perfectly
            ((1, 2, 3, 4, 5), 1.0),
            ((1, 5), 0.4),
            ((2,), 0.2),  # a copy of another category came first: the rank does not matter
            ((), 0.0),
        ],
    )
    def test_by_hand(self, hits, expected):
        assert reference_2023(ranks(*hits), 5).tolist() == pytest.approx([expected])

    def test_only_the_first_k_ranks_count(self):
        assert reference_2023(ranks(1, 4, 5), 3).tolist() == pytest.approx([1 / 3])

    @settings(deadline=None)  # no timing is a test here
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
    def test_noise_against_a_slow_loop_over_a_gallery_with_the_queries_in_it(self, sizes, seed):
        """Also what noise scores: the query is found for certain, the others by chance."""
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(len(sizes)), sizes)
        k = min(5, len(labels))
        rows, slow = [], []
        for query in range(len(labels)):
            others = rng.permutation(np.delete(np.arange(len(labels)), query))
            ranked = [query, *others][:k]
            rows.append(labels[ranked] == labels[query])
            slow.append(len([item for item in ranked if labels[item] == labels[query]]) / k)
        values = reference_2023(np.array(rows), k)
        assert values.tolist() == pytest.approx(slow)
        assert values.min() >= 1 / k
        best = np.minimum(np.array(sizes)[labels], k) / k  # what a perfect model could have
        assert (values <= best + 1e-12).all()

    def test_no_queries_give_no_numbers(self):
        values = reference_2023(np.zeros((0, 5), dtype=bool), 5)
        assert (values.shape, values.dtype) == ((0,), np.float64)

    def test_refusals(self):
        with pytest.raises(TypeError, match=r"dtype float64; expected bool"):
            reference_2023(np.zeros((1, 5)), 5)
        with pytest.raises(TypeError, match=r"k is 2\.5 \(float\)"):
            reference_2023(ranks(1), 2.5)
        with pytest.raises(ValueError, match=r"relevance has shape \(5,\); expected \[Q, K\]"):
            reference_2023(np.zeros(5, dtype=bool), 5)
        with pytest.raises(ValueError, match=r"k is 6, but relevance holds 5 rank"):
            reference_2023(ranks(1), 6)
        with pytest.raises(ValueError, match=r"k is 0; expected at least 1"):
            reference_2023(ranks(1), 0)
