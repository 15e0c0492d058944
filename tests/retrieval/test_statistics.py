from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from visual_search.retrieval.statistics import (
    FEW,
    FLIPS,
    MIN_QUERIES,
    ONE_GROUP,
    STUDENT,
    UNSEEN,
    bootstrap_interval,
    category_intervals,
    paired_difference,
)


def scores(seed: int, num_queries: int = 40, num_groups: int = 15, num_categories: int = 3):
    """Values with exact zeros and ones, groups and categories that cross, some left out."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(0.6, 0.5, num_queries), 0, 1)
    values[rng.random(num_queries) < 0.1] = np.nan
    groups = [f"board-{i}" for i in rng.integers(num_groups, size=num_queries)]
    categories = [f"category-{i}" for i in rng.integers(num_categories, size=num_queries)]
    return values, groups, categories


def statistic_of(rows, values, categories, statistic):
    """Micro or macro mean of rows, of which some may stand several times: the obvious way."""
    if statistic == "micro":
        return sum(values[row] for row in rows) / len(rows)
    means = []
    for category in {categories[row] for row in rows}:
        mine = [values[row] for row in rows if categories[row] == category]
        means.append(sum(mine) / len(mine))
    return sum(means) / len(means)


def slow_p_value(values, groups, categories, statistic):
    """Flips the groups' signs in every way: how often the mean is then as far from 0."""
    names = sorted(set(groups))
    rows = range(len(groups))
    seen = abs(statistic_of(rows, values, categories, statistic))
    as_far = 0
    for signs in itertools.product([1, -1], repeat=len(names)):
        sign_of = dict(zip(names, signs, strict=True))
        flipped = [value * sign_of[group] for value, group in zip(values, groups, strict=True)]
        as_far += abs(statistic_of(rows, flipped, categories, statistic)) >= seen - 1e-12
    return as_far / 2 ** len(names)


# --- the interval -------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.95])
def test_ends_are_where_the_slow_test_of_another_mean_begins_to_reject(confidence):
    rng = np.random.default_rng(2)
    groups = np.repeat(range(8), [1, 1, 2, 3, 3, 4, 6, 30])
    values = np.clip(rng.normal(0.6, 0.4, 8)[groups] + rng.normal(0, 0.2, 50), 0, 1)
    found = bootstrap_interval(values, groups, bounds=None, confidence=confidence)
    for end, inwards in ((found.low, 1), (found.high, -1)):
        for step, rejected in ((1e-7, False), (-1e-7, True)):
            p_value = slow_p_value(values - (end + inwards * step), groups, None, "micro")
            assert (p_value < 1 - confidence - 1e-9) == rejected
    assert (found.mean, found.num_queries) == (pytest.approx(values.mean()), 50)
    assert found.method == FLIPS


def test_few_hits_among_many_are_wilsons_interval():
    values = np.zeros(300)
    values[:2] = 1
    found = bootstrap_interval(values, range(300))
    wilson = scipy.stats.binomtest(2, 300).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), rel=0.05)


def test_a_mean_near_a_bound_has_room_on_the_other_side():
    values = np.random.default_rng(4).beta(0.3, 5, 60)
    found = bootstrap_interval(values, range(60))
    assert found.high - found.mean > 1.1 * (found.mean - found.low)
    turned = bootstrap_interval(1 - values, range(60))
    assert (1 - turned.high, 1 - turned.low) == pytest.approx((found.low, found.high), abs=1e-6)


def test_width_of_a_normal_mean():
    values = np.random.default_rng(5).normal(3, 2, 2000)
    found = bootstrap_interval(values, range(2000), bounds=None, num_resamples=10_000)
    expected = 2 * 1.96 * values.std() / math.sqrt(2000)
    assert found.high - found.low == pytest.approx(expected, rel=0.05)
    assert (found.low + found.high) / 2 == pytest.approx(found.mean, abs=0.05 * expected)


@pytest.mark.parametrize("num_queries", [5, 12])
def test_few_queries_get_students_width(num_queries):
    values = np.random.default_rng(6).normal(0, 1, num_queries)
    found = bootstrap_interval(values, range(num_queries), bounds=None)
    student = scipy.stats.t.interval(0.95, num_queries - 1, values.mean(), scipy.stats.sem(values))
    tolerance = 1e-9 if num_queries == 5 else 0.2
    assert found.high - found.low == pytest.approx(student[1] - student[0], rel=tolerance)
    assert (found.method == STUDENT) == (num_queries == 5)


@pytest.mark.parametrize(
    ("values", "groups", "mean", "method"),
    [
        ([0.0, 0.5, 1.0, 1.0, np.nan], range(5), 0.625, FEW),  # fewer than five queries
        ([0.25, 0.75, np.nan], ["a", "a", "b"], 0.5, ONE_GROUP),
    ],
)
def test_too_little_has_a_mean_and_no_interval(values, groups, mean, method):
    found = bootstrap_interval(values, groups)
    assert (found.mean, found.num_queries, found.method) == (mean, len(values) - 1, method)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_number_of_effective_groups():
    equal = bootstrap_interval(np.linspace(0, 1, 40), np.repeat(range(8), 5))
    assert (equal.effective_groups, equal.rough) == (pytest.approx(8), False)
    sizes = [300, *[1] * 1149]
    one = bootstrap_interval(np.linspace(0, 1, 1449), np.repeat(range(1150), sizes))
    by_hand = (300**2 + 1149) ** 2 / (300**4 + 1149)
    assert (one.effective_groups, one.rough) == (pytest.approx(by_hand), True)
    assert one.num_groups == 1150


def test_queries_that_repeat_within_groups_add_nothing():
    values = np.random.default_rng(7).random(50)
    alone = bootstrap_interval(values, range(50), seed=1)
    repeated, groups = np.repeat(values, 4), np.repeat(range(50), 4)
    grouped = bootstrap_interval(repeated, groups, seed=1)
    ungrouped = bootstrap_interval(repeated, range(200), seed=1)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    ratio = (grouped.high - grouped.low) / (ungrouped.high - ungrouped.low)
    assert ratio == pytest.approx(2, rel=0.15)  # a quarter of the evidence


def test_a_higher_confidence_is_wider():
    values, groups, _ = scores(8)
    widths = [
        (found := bootstrap_interval(values, groups, confidence=level)).high - found.low
        for level in (0.5, 0.8, 0.95, 0.99)
    ]
    assert widths == sorted(widths)
    assert widths[0] < 0.5 * widths[-1]


@pytest.mark.parametrize("statistic", ["micro", "macro"])
def test_order_changes_nothing_and_the_seed_decides(statistic):
    values, groups, categories = scores(9)
    order = np.random.default_rng(0).permutation(len(values))
    shuffled = values[order], [groups[i] for i in order], [categories[i] for i in order]
    first = bootstrap_interval(values, groups, categories, statistic, seed=5)
    assert bootstrap_interval(*shuffled, statistic, seed=5) == first
    assert bootstrap_interval(values, groups, categories, statistic, seed=6) != first
    b = np.where(np.isnan(values), np.nan, 0.5)
    paired = paired_difference(values, b, groups, categories, statistic, seed=5)
    assert paired_difference(shuffled[0], b[order], *shuffled[1:], statistic, seed=5) == paired


def test_global_random_state_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    paired_difference([0.0, 1.0], [1.0, 0.5], ["a", "b"])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("num_queries", [5, 20, 500])
def test_all_perfect_is_the_exact_binomial_interval(num_queries):
    found = bootstrap_interval(np.ones(num_queries), range(num_queries))
    exact = scipy.stats.binomtest(num_queries, num_queries).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.method == UNSEEN


def test_without_spread_every_end_moves_towards_its_bound():
    share = 1 - 0.025 ** (1 / 10)
    found = bootstrap_interval(np.full(10, 0.7), range(10))
    assert (found.low, found.high) == pytest.approx((0.7 - share * 0.7, 0.7 + share * 0.3))
    unbounded = bootstrap_interval(np.full(10, 0.7), range(10), bounds=None)
    assert math.isnan(unbounded.low)
    assert unbounded.mean == pytest.approx(0.7)


def test_macro_without_spread_counts_the_smallest_category():
    values, categories = [1.0] * 8 + [0.5] * 2, ["hat"] * 8 + ["shoe"] * 2
    found = bootstrap_interval(values, range(10), categories, "macro")
    share = 1 - 0.025 ** (1 / 4)
    assert (found.mean, found.low) == pytest.approx((0.75, 0.75 - share * 0.75))


@settings(deadline=None)  # no timing is a test here
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from(["micro", "macro"]))
def test_ends_stay_within_the_bounds_and_hold_the_mean(seed, num_groups, statistic):
    values, groups, categories = scores(seed, num_queries=20, num_groups=num_groups)
    found = bootstrap_interval(values, groups, categories, statistic, num_resamples=200)
    assert 0 <= found.low <= found.mean + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12


# --- simulations: the bounds are such that few other seeds would fail; these do not -------------


def average_precisions(
    rng: np.random.Generator, num_queries: int, rates: np.ndarray | None = None
) -> np.ndarray:
    """AP@5 of ranks that are hits at the query's own rate: many exact zeros and ones."""
    rates = rng.beta(0.5, 0.5, num_queries) if rates is None else rates
    hits = rng.random((num_queries, 5)) < rates[:, None]
    return (np.cumsum(hits, axis=1) / np.arange(1, 6) * hits).sum(axis=1) / 5


# E AP = sum over ranks r of (E p + (r - 1) E p^2) / r / 5 with E p = 1/2 and E p^2 = 3/8
TRUTH = sum((1 / 2 + (rank - 1) * 3 / 8) / rank for rank in range(1, 6)) / 5


def of_groups(sizes, *more):
    """Queries of a group share their rate."""
    groups = np.repeat(range(len(sizes)), sizes)

    def draw(rng):
        rates = rng.beta(0.5, 0.5, len(sizes))[groups]
        return average_precisions(rng, len(groups), rates), groups, *(f(groups) for f in more)

    return draw


def copied(times):
    groups = np.repeat(range(30), times)
    return lambda rng: (np.repeat(average_precisions(rng, 30), times), groups)


def rare(rate):
    return lambda rng: ((rng.random(300) < rate) * 1.0, range(300))


DRAWS = {
    "alone": (copied(1), TRUTH),
    "in-threes": (copied(3), TRUTH),
    "one-of-a-fifth": (of_groups([100, *[1] * 399]), TRUTH),
    "three-of-most": (of_groups([60] * 3 + [1] * 40), TRUTH),
    "near-0": (rare(0.003), 0.003),
    "low": (rare(0.01), 0.01),
    "macro-unequal": (
        of_groups([1, 1, 2, 3, 5, 20] * 6, lambda groups: groups // 6, lambda groups: "macro"),
        TRUTH,
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_interval_covers_the_truth(name):
    rng, num_draws, covered = np.random.default_rng(11), 300, 0
    draw, truth = DRAWS[name]
    for seed in range(num_draws):
        found = bootstrap_interval(*draw(rng), num_resamples=199, seed=seed)
        covered += found.low <= truth <= found.high
        assert found.rough or "of" not in name  # few groups hold most
    low, high = scipy.stats.binom.ppf([0.001, 0.999], num_draws, [0.93, 0.97])
    assert low <= covered <= high


def test_ignoring_groups_would_not_cover():
    """The simulation can fail: the same draws, taken as if every query stood alone."""
    rng, num_draws, covered = np.random.default_rng(11), 150, 0
    for seed in range(num_draws):
        values, _ = copied(3)(rng)
        found = bootstrap_interval(values, range(90), num_resamples=199, seed=seed)
        covered += found.low <= TRUTH <= found.high
    assert covered < scipy.stats.binom.ppf(0.001, num_draws, 0.93)


# --- categories ---------------------------------------------------------------------------------


def test_category_lines_are_sorted_marked_and_independent():
    values, groups, categories = scores(19, num_queries=90, num_groups=60)
    categories = ["a" if i < MIN_QUERIES - 1 else "b" for i in range(90)]
    values = np.nan_to_num(values, nan=0.5)
    values[-1] = np.nan
    table = category_intervals(values, groups, categories)
    assert table["category"].tolist() == ["a", "b"]
    assert table["num_queries"].tolist() == [19, 70]
    assert table["num_left_out"].tolist() == [0, 1]
    assert table["few_queries"].tolist() == [True, False]
    alone = category_intervals(values[19:], groups[19:], categories[19:])
    pd.testing.assert_frame_equal(alone, table[1:].reset_index(drop=True))
    assert (table["low"] < table["mean"]).all()
    assert (table["mean"] < table["high"]).all()
    assert table["num_groups"].tolist() == [len(set(groups[:19])), len(set(groups[19:89]))]


def test_a_category_without_scores_has_a_line():
    table = category_intervals([1.0, 0.5, np.nan], [1, 2, 3], ["hat", "hat", "shoe"])
    line = table.set_index("category").loc["shoe"]
    assert math.isnan(line["mean"])
    assert math.isnan(line["low"])
    assert (line["num_queries"], line["num_left_out"], line["few_queries"]) == (0, 1, True)
    assert len(category_intervals([], [], [])) == 0


# --- errors -------------------------------------------------------------------------------------

WRONG = [
    ({"values": [[0.5]]}, "values have shape .1, 1.; expected .Q.|a have shape"),
    ({"values": [0.5, math.inf]}, "hold inf in query row 1; expected finite values within"),
    ({"values": [1.0, 1.5, 0.5, 2.0, -1.0]}, "hold 1.5 in query row 1; .* pass the bounds"),
    ({"groups": ["a"]}, "there are 1 groups for 2 queries; expected one each"),
    ({"num_resamples": 99}, "num_resamples is 99; expected at least 100"),
    ({"confidence": 95}, r"confidence is 95; expected within \(0, 1\)"),
    ({"bounds": (1, 0)}, r"bounds are \(1, 0\); expected \(lowest, highest\)"),
    ({"seed": -1}, "seed is -1; expected 0 or more"),
    ({"categories": ["hat"]}, "there are 1 categories for 2 queries"),
]
GIVEN = {"values": [0.5, 1.0], "groups": ["a", "b"], "categories": ["hat", "hat"]}
ONLY_MEANS = [
    ({"values": [np.nan, np.nan]}, "none of the 2 queries is scored; .* check that the gallery"),
    ({"categories": None}, "categories are None; expected one a query for macro"),
    ({"statistic": "median"}, "statistic is 'median'; expected 'micro' or 'macro'"),
]
KINDS = [
    ({"groups": ["a", None]}, "groups hold None .NoneType. among others; expected all text or"),
    ({"groups": [0.5, 1.0]}, "groups hold 0.5 .float. among others"),
    ({"groups": ["a", 1]}, "groups hold 'a' .str. among others"),
    ({"categories": ["hat", 1.0]}, "categories hold 1.0 .float. among others"),
]


def macro_interval(**arguments):
    return bootstrap_interval(**{"statistic": "macro", **arguments})


def macro_difference(values, **arguments):
    return paired_difference(values, values, **{"statistic": "macro", **arguments})


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [(f, *case) for f in (macro_interval, macro_difference) for case in WRONG + ONLY_MEANS]
    + [(category_intervals, *case) for case in WRONG],
)
def test_wrong_values_are_refused(function, change, message):
    function(**GIVEN)
    with pytest.raises(ValueError, match=message):
        function(**{**GIVEN, **change})


@pytest.mark.parametrize("function", [macro_interval, macro_difference, category_intervals])
@pytest.mark.parametrize(("change", "message"), KINDS)
def test_wrong_kinds_are_refused(function, change, message):
    with pytest.raises(TypeError, match=message):
        function(**{**GIVEN, **change})
