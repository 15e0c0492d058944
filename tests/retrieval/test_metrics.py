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
    return np.isin(np.arange(1, length + 1), hits)[None]


# Worked by hand: hits at, R, k -> AP, precision, recall, hit, reciprocal rank.
HAND_WORKED = [
    # The two cases on which metric libraries disagree (reference study): 0.200 and 0.756.
    ((1,), 999, 5, 0.200, 0.2, 1 / 999, 1, 1),
    ((1, 3, 5), 3, 5, (1 + 2 / 3 + 3 / 5) / 3, 0.6, 1, 1, 1),
    ((1, 2, 3, 4, 5), 999, 5, 1.0, 1.0, 5 / 999, 1, 1),  # nothing better fits into the list
    ((1,), 1, 5, 1.0, 0.2, 1, 1, 1),  # one relevant item, found first: AP 1, precision only 0.2
    ((5,), 1, 5, 0.2, 0.2, 1, 1, 0.2),
    ((), 3, 5, 0.0, 0.0, 0, 0, 0),
    ((4,), 2, 3, 0.0, 0.0, 0, 0, 0),  # a hit behind k does not count, for the first rank either
    ((2, 3), 2, 5, (1 / 2 + 2 / 3) / 2, 0.4, 1, 1, 0.5),
    ((1, 2), 10, 1, 1.0, 1.0, 0.1, 1, 1),
    ((), 0, 5, *[math.nan] * 5),  # nothing to find
]


@pytest.mark.parametrize(
    ("hits", "found", "k", "ap", "precision", "recall", "hit", "rr"), HAND_WORKED
)
def test_hand_worked_table(hits, found, k, ap, precision, recall, hit, rr):
    values = [metric(ranks(*hits), np.array([found]), k)[0] for metric in ALL]
    assert values == pytest.approx([ap, precision, recall, hit, rr], abs=1e-12, nan_ok=True)


def slow_values(relevance: list[bool], found: int, k: int) -> list[float]:
    """What each of ALL gives for one query."""
    if not found:
        return [math.nan] * 5
    total, first, hits = 0.0, 0.0, sum(relevance[:k])
    for rank in range(1, k + 1):
        if relevance[rank - 1]:
            total += relevance[:rank].count(True) / rank
            first = first or 1 / rank
    return [total / min(found, k), hits / k, hits / found, float(hits > 0), first]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_against_a_slow_loop(data):
    length = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, length))
    row = st.lists(st.booleans(), min_size=length, max_size=length)
    rows = data.draw(st.lists(row, min_size=1, max_size=6))
    found = [sum(row) + data.draw(st.integers(0, 20)) for row in rows]
    slow = np.array([slow_values(row, n, k) for row, n in zip(rows, found, strict=True)])
    for metric, expected in zip(ALL, slow.T, strict=True):
        values = metric(np.array(rows), np.array(found), k)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_no_queries_give_no_numbers(metric):
    assert metric(np.zeros((0, 5), dtype=bool), np.zeros(0, dtype=int), 5).shape == (0,)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("relevance", "found", "k", "error", "message"),
    [
        (np.zeros((1, 5)), [1], 5, TypeError, r"dtype float64; expected bool"),
        (ranks(1), [1.0], 5, TypeError, r"num_relevant has dtype float64"),
        (ranks(1), [1], 2.5, TypeError, r"k is 2\.5 \(float\)"),
        (ranks(1)[0], [1], 5, ValueError, r"relevance has shape \(5,\); expected \[Q, K\]"),
        (ranks(1), [1, 1], 5, ValueError, r"1 row\(s\) and num_relevant shape .*\[Q, K\] and"),
        (ranks(1), [[1]], 5, ValueError, r"1 row\(s\) and num_relevant shape .*\[Q, K\] and"),
        (ranks(1), 1, 5, ValueError, r"1 row\(s\) and num_relevant shape .*\[Q, K\] and"),
        (ranks(1), [1], 6, ValueError, r"k is 6, but relevance holds 5 rank"),
        (ranks(1), [1], 0, ValueError, r"k is 0; expected at least 1"),
        (ranks(), [-1], 5, ValueError, r"row 0 has num_relevant -1, but 0"),
        (ranks(1, 2), [1], 5, ValueError, r"row 0 has num_relevant 1, but 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, relevance, found, k, error, message):
    with pytest.raises(error, match=message):
        metric(relevance, np.array(found), k)


@pytest.mark.parametrize("k", [True, "5", None])
def test_k_must_be_a_number(k):
    with pytest.raises(TypeError, match="expected a whole number"):
        check_k(k)


def test_definitions_name_every_mean_and_its_k():
    names = {name.replace("_at_k", "_at_10") for name in DEFINITIONS}
    assert set(definitions(10)) == {*names, "hit_at_1"}
    assert "min(R, 10)" in definitions(10)["map_at_10"]
    assert len(definitions(1)) == len(DEFINITIONS)  # hit_at_1 is hit_at_k there
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


@pytest.mark.parametrize(
    ("hits", "k", "expected"),
    [
        ((1,), 5, 0.2),  # the study's one necktie: a category of one
        ((1, 2, 3), 5, 0.6),  # a category of three, found perfectly
        ((1, 2, 3, 4, 5), 5, 1.0),
        ((1, 5), 5, 0.4),
        ((2,), 5, 0.2),  # a copy of another category came first: the rank does not matter
        ((), 5, 0.0),
        ((1, 4, 5), 3, 1 / 3),  # only the first k ranks count
    ],
)
def test_the_rule_of_2023_by_hand(hits, k, expected):
    """The query stays in the gallery and is relevant to itself."""
    assert reference_2023(ranks(*hits), k).tolist() == pytest.approx([expected])


def test_the_rule_of_2023_finds_the_query_for_certain_and_others_by_chance():
    """Also what noise scores, against a slow loop over a gallery with the queries in it."""
    rng, k, sizes = np.random.default_rng(0), 5, [1, 3, 9, 2]
    labels = np.repeat(range(4), sizes)
    rows, slow = [], []
    for query in range(len(labels)):
        ranked = [query, *rng.permutation(np.delete(np.arange(len(labels)), query))][:k]
        rows.append(labels[ranked] == labels[query])
        slow.append(len([item for item in ranked if labels[item] == labels[query]]) / k)
    values = reference_2023(np.array(rows), k)
    assert values.tolist() == pytest.approx(slow)
    assert values.min() >= 1 / k
    best = np.minimum(np.array(sizes)[labels], k) / k  # what a perfect model could have
    assert (values <= best + 1e-12).all()
    nobody = reference_2023(np.zeros((0, 5), dtype=bool), 5)
    assert (nobody.shape, nobody.dtype) == ((0,), np.float64)


@pytest.mark.parametrize(
    ("relevance", "k", "error", "message"),
    [
        (np.zeros((1, 5)), 5, TypeError, r"dtype float64; expected bool"),
        (ranks(1), 2.5, TypeError, r"k is 2\.5 \(float\)"),
        (ranks(1)[0], 5, ValueError, r"relevance has shape \(5,\); expected \[Q, K\]"),
        (ranks(1), 6, ValueError, r"k is 6, but relevance holds 5 rank"),
        (ranks(1), 0, ValueError, r"k is 0; expected at least 1"),
    ],
)
def test_the_rule_of_2023_refuses_what_the_metrics_refuse(relevance, k, error, message):
    with pytest.raises(error, match=message):
        reference_2023(relevance, k)
