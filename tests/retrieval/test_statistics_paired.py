from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval.test_statistics import average_precisions, slow_p_value, statistic_of
from visual_search.retrieval import resampling
from visual_search.retrieval.statistics import (
    SAME,
    align_queries,
    holm,
    paired_difference,
    rank_intervals,
)

# --- the paired test ----------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["micro", "macro"])
def test_exact_p_value_is_that_of_all_flips(statistic):
    rng = np.random.default_rng(14)
    a, b = rng.random((2, 20)).round(2)
    groups = [f"g{i}" for i in range(8)] + [f"g{i}" for i in rng.integers(8, size=12)]
    categories = rng.integers(3, size=20).tolist()
    found = paired_difference(a, b, groups, categories, statistic)
    assert found.p_value == slow_p_value(a - b, groups, categories, statistic)
    assert "all 2^8 sign flips" in found.method
    assert found.difference == pytest.approx(statistic_of(range(20), a - b, categories, statistic))


def test_sampled_flips_agree_with_all_of_them(monkeypatch):
    rng = np.random.default_rng(15)
    b = rng.uniform(0, 0.5, 12)
    a = b + rng.normal(0.08, 0.15, 12).clip(-0.2, 0.5).clip(-b)
    exact = paired_difference(a, b, range(12)).p_value
    monkeypatch.setattr(resampling, "EXACT_GROUPS", 5)
    monkeypatch.setattr(resampling, "BLOCK_VALUES", 1000)
    found = paired_difference(a, b, range(12), num_permutations=20_000)
    assert 0.02 < exact < 0.5
    assert found.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert "20000 sign flips" in found.method


@pytest.mark.parametrize("statistic", ["micro", "macro"])
def test_the_interval_holds_the_differences_that_the_test_does_not_reject(statistic):
    rng = np.random.default_rng(16)
    groups = np.repeat(range(8), [1, 1, 2, 3, 3, 4, 6, 20])
    categories = rng.integers(3, size=40)
    a, b = np.clip(rng.normal([[0.7], [0.5]], 0.3, (2, 40)), 0, 1)
    found = paired_difference(a, b, groups, categories, statistic)
    for end, inwards in ((found.low, 1), (found.high, -1)):
        for step, rejected in ((1e-7, False), (-1e-7, True)):
            shifted = a - b - (end + inwards * step)
            assert (slow_p_value(shifted, groups, categories, statistic) < 0.05) == rejected
    turned = paired_difference(b, a, groups, categories, statistic)
    assert (turned.difference, turned.low, turned.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )


@settings(deadline=None)  # no timing is a test here
@given(
    st.integers(0, 100_000),
    st.sampled_from([2, 4, 5, 6, 7, 11, 12, 30]),
    st.sampled_from(["micro", "macro"]),
    st.sampled_from([0.9, 0.95, 0.99]),
    st.booleans(),
)
def test_interval_and_test_never_disagree(seed, num_groups, statistic, confidence, constant):
    rng = np.random.default_rng(seed)
    groups = np.arange(24) % num_groups if rng.random() < 0.5 else rng.integers(num_groups, size=24)
    categories = rng.integers(3, size=24)
    a, b = rng.choice([0.0, 0.2, 0.25, 0.5, 1.0], (2, 24))
    a = np.full(24, 0.5) if constant else np.where(rng.random(24) < 0.3, b, np.maximum(a, b))
    b = np.full(24, 0.25) if constant else b
    found = paired_difference(
        a, b, groups, categories, statistic,
        num_resamples=200, num_permutations=199, confidence=confidence, seed=seed,
    )  # fmt: skip
    alpha = {0.9: 0.1, 0.95: 0.05, 0.99: 0.01}[confidence]
    assert (found.low > 0 or found.high < 0) == (found.p_value < alpha)
    assert math.isnan(found.low) or -1 <= found.low <= found.difference <= found.high <= 1


def test_equal_models_and_one_group():
    values = np.random.default_rng(18).random(50)
    found = paired_difference(values, values, range(50))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert found.method.startswith(SAME)
    one = paired_difference([1.0, 1.0], [0.0, 0.5], ["a", "a"])
    assert (one.difference, one.p_value, one.num_groups) == (0.75, 1, 1)
    assert math.isnan(one.low)
    few = paired_difference([1, 1, np.nan, 0.5, 0.5], [0, 0.5, np.nan, 0.5, 0.5], range(5))
    assert (few.difference, few.p_value, math.isnan(few.low)) == (0.375, 0.5, True)
    assert (few.num_queries, few.num_groups, few.num_left_out) == (4, 4, 1)


def test_exact_limit_is_small_enough_to_enumerate():
    assert 2**resampling.EXACT_GROUPS * resampling.EXACT_GROUPS * 8 < 100e6  # bytes


# --- simulations -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_groups", [10, 40])  # all flips, and a sample of them
def test_a_model_against_itself_on_two_query_samples_cries_wolf_rarely(num_groups):
    rng, num_draws, wolf = np.random.default_rng(12), 300, 0
    for seed in range(num_draws):
        a, b = (average_precisions(rng, num_groups) for _ in range(2))
        found = paired_difference(
            a, b, range(num_groups), num_resamples=100, num_permutations=500, seed=seed
        )
        wolf += found.p_value <= 0.05
    assert wolf <= scipy.stats.binom.ppf(0.999, num_draws, 0.05)


def test_the_interval_of_a_difference_covers_where_groups_are_unequal():
    rng, num_draws, covered = np.random.default_rng(19), 300, 0
    groups = np.repeat(range(43), [60] * 3 + [1] * 40)
    for seed in range(num_draws):
        shared = rng.beta(0.5, 0.5, (2, 43))[:, groups]  # a group's rates, of either model
        a, b = (average_precisions(rng, len(groups), rates) for rates in shared)
        found = paired_difference(a, b, groups, num_resamples=199, num_permutations=199, seed=seed)
        covered += found.low <= 0 <= found.high
    low, high = scipy.stats.binom.ppf([0.001, 0.999], num_draws, [0.93, 0.97])
    assert low <= covered <= high


def test_a_better_model_is_found():
    rng = np.random.default_rng(13)
    b = rng.uniform(0, 0.8, 100)
    found = paired_difference(b + rng.uniform(0, 0.2, 100), b, range(100))
    assert found.p_value == 1 / 10_001
    assert 0.08 < found.low < found.difference < found.high < 0.12


# --- Holm ---------------------------------------------------------------------------------------


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, without a step down .06 last."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)
    assert holm([0.7, 0.9]).tolist() == [1.0, 1.0]


@settings(deadline=None)  # no timing is a test here
@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values, alpha):
    """Holm's own words: go up the sorted p-values, stop at the first that is too large."""
    left = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = set()
    while left and p_values[left[0]] * len(left) <= alpha:
        rejected.add(left.pop(0))
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))


# --- aligning -----------------------------------------------------------------------------------


def per_query(ids, **columns):
    return pd.DataFrame({"query_id": ids, **columns})


def test_aligned_tables_have_the_same_query_in_every_row():
    a = per_query(["x", "y", "z"], category=["h", "s", "s"], value=[1, 2, 3])
    b = per_query(["z", "x", "y"], category=["s", "h", "s"], value=[30, 10, 20])
    left, right = align_queries(a, b)
    assert left["query_id"].tolist() == right["query_id"].tolist() == ["x", "y", "z"]
    assert right["value"].tolist() == [10, 20, 30]
    assert right.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (pd.DataFrame({"id": ["x"]}), per_query(["x"]), "table a has the columns .'id'.; expected"),
        (per_query(["x"]), per_query(["x", "x"]), "query 'x' stands more than once in table b"),
        (per_query(["x", "y"]), per_query(["x", "z"]), r"1 .* only in a \['y'\] and 1 .*\['z'\]"),
        (per_query(["x"], category=["hat"]), per_query(["x"], category=["shoe"]),
         "'x' has category hat in a and shoe in b .*expected the same: evaluate both"),
        (per_query(["x", "y"], num_relevant=[3, 4]), per_query(["y", "x"], num_relevant=[4, 5]),
         "'x' has num_relevant 3 in a and 5 in b"),
    ],
)  # fmt: skip
def test_tables_that_do_not_match_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        align_queries(a, b)


# --- errors -------------------------------------------------------------------------------------


def test_pairs_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"a holds 2 and b 1 queries; .*align_queries"):
        paired_difference([0.5, 1.0], [0.5], ["a", "b"])
    with pytest.raises(ValueError, match=r"row 1 is NaN in b only .1 such row.*on one gallery"):
        paired_difference([0.5, 1.0], [0.5, np.nan], ["a", "b"])
    with pytest.raises(ValueError, match="num_permutations is 10; expected at least 100"):
        paired_difference([0.5], [0.5], ["a"], num_permutations=10)


@pytest.mark.parametrize(
    ("p_values", "message"),
    [
        ([[0.5]], "shape .1, 1.; expected .m."),
        ([0.5, math.nan, 2.0, -1.0], "p-value 1 is nan; expected within .0, 1.: leave out"),
        ([1.5], "p-value 0 is 1.5"),
        ([-0.1], "p-value 0 is -0.1"),
    ],
)
def test_wrong_p_values_are_refused(p_values, message):
    with pytest.raises(ValueError, match=message):
        holm(p_values)


# --- ranks --------------------------------------------------------------------------------------


def slow_ranks(values, groups, alpha=0.05):
    """Ranks by the definition: all flips, and step by step the farthest of the pairs that are left.

    The same as `rank_intervals` for few groups, in loops over pairs.
    """
    sums = np.array([[row[groups == group].sum() for group in np.unique(groups)] for row in values])
    pairs = {
        (a, b): sums[a] - sums[b]
        for a, b in itertools.permutations(range(len(values)), 2)
        if (sums[a] - sums[b]).any()
    }
    far = {
        pair: np.array([
            abs(np.dot(signs, apart)) / np.sqrt(np.dot(apart, apart))
            for signs in itertools.product((1, -1), repeat=sums.shape[1])
        ])
        for pair, apart in pairs.items()
    }  # fmt: skip
    left, better = sorted(far, key=lambda pair: -far[pair][0]), set()
    while left:
        farthest = np.max([far[pair] for pair in left], axis=0)
        shown = [p for p in left if np.mean(farthest >= far[p][0] - 1e-9) < alpha]
        if not shown:
            break
        better |= {pair for pair in shown if pairs[pair].sum() > 0}
        left = [pair for pair in left if pair not in shown]
    models = range(len(values))
    above = [sum((other, one) in better for other in models) for one in models]
    below = [sum((one, other) in better for other in models) for one in models]
    return [[1 + up, len(values) - down] for up, down in zip(above, below, strict=True)]


@pytest.mark.parametrize("seed", range(6))
def test_ranks_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(9), rng.integers(9, size=15)])
    hard = rng.uniform(0.1, 0.4, 24)
    lifts = rng.choice([0, 0.02, 0.1, 0.3], 6)
    values = np.clip(hard + lifts[:, None] + rng.normal(0, 0.06, (6, 24)), 0, 1)
    values[5] = values[4]
    found = rank_intervals(values, groups).tolist()
    assert found == slow_ranks(values, groups)
    assert found[5] == found[4]
    order = rng.permutation(6)
    assert rank_intervals(values[order], groups).tolist() == [found[place] for place in order]


def test_ranks_of_two_models_say_what_their_paired_test_says():
    rng = np.random.default_rng(3)
    for lift in (0.0, 0.03, 0.06, 0.2):
        b = rng.uniform(0, 0.5, 40)
        a = np.clip(b + lift + rng.normal(0, 0.2, 40), 0, 1)
        ranks = rank_intervals([a, b], range(40), num_resamples=10_000).tolist()
        p_value = paired_difference(a, b, range(40)).p_value
        assert abs(p_value - 0.05) > 0.005  # else the draws would decide
        assert ranks == ([[1, 1], [2, 2]] if p_value < 0.05 else [[1, 2], [1, 2]])


def test_true_ranks_lie_within_their_intervals():
    """Of 300 tables with ties at least 92 % hold all at once: 95 % less three standard errors."""
    rng, num_held = np.random.default_rng(5), 0
    lost = np.array([0.0, 0.0, 0.0, 0.15, 0.15, 0.4])
    lowest = [1 + (lost < one).sum() for one in lost]
    highest = [(lost <= one).sum() for one in lost]
    groups = np.repeat(np.arange(25), 2)
    shown = 0
    for draw in range(300):
        rates = rng.beta(0.7, 0.7, 25)[groups] * (1 - lost[:, None])
        values = [average_precisions(rng, 50, own) for own in rates]
        found = rank_intervals(values, groups, num_resamples=200, seed=draw)
        num_held += bool((found[:, 0] <= lowest).all() and (found[:, 1] >= highest).all())
        shown += int(found[5, 0] > 1)
    assert num_held >= 0.92 * 300
    assert shown > 100  # they are not as wide as the table


def test_what_cannot_be_ranked_is_refused_and_one_has_rank_1():
    assert rank_intervals([[0.5, 0.2]], "ab").tolist() == [[1, 1]]
    assert rank_intervals([[0.9] * 5, [0.1] * 5], range(5)).tolist() == [[1, 2], [1, 2]]
    with pytest.raises(ValueError, match="no model"):
        rank_intervals([], [])
    with pytest.raises(ValueError, match="values 1 and values 0 do not score the same queries"):
        rank_intervals([[0.5, 0.2], [0.5, math.nan]], "ab")
