"""How sure a mean is: intervals by group, paired tests, correction for many tests.

Queries of one group (a board, a product) resemble each other, so the *group* is what is flipped
and counted. Two statistics, as in a report: ``micro`` is the mean over the scored queries,
``macro`` the mean over the categories of the category's own mean. NaN is a query that is left out
(R = 0). Values are within ``bounds``, which is [0, 1] for every metric of this room.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from visual_search.retrieval.resampling import (
    FEW,
    FEWEST_EFFECTIVE,
    FEWEST_QUERIES,
    FLIPS,
    ONE_GROUP,
    SAME,
    STUDENT,
    UNSEEN,
    Bounds,
    Floats,
    Labels,
    Statistic,
    Sums,
    better_flips,
    check_number,
    check_settings,
    check_values,
    codes,
    difference_ends,
    effective_groups,
    mean_ends,
    shares_of,
    sign_flips,
    sum_by_group,
)
from visual_search.wording import many

__all__ = [
    "FEW",
    "FEWEST_EFFECTIVE",
    "FEWEST_QUERIES",
    "FLIPS",
    "MIN_QUERIES",
    "NUM_PERMUTATIONS",
    "NUM_RESAMPLES",
    "ONE_GROUP",
    "SAME",
    "STUDENT",
    "UNSEEN",
    "Interval",
    "PairedDifference",
    "align_queries",
    "bootstrap_interval",
    "category_intervals",
    "holm",
    "paired_difference",
    "rank_intervals",
]

MIN_QUERIES = 20  # fewer scored queries than this, and a category's mean says little
NUM_RESAMPLES = 2000
NUM_PERMUTATIONS = 10_000  # the smallest p-value is then 0.0001


@dataclass(frozen=True)
class Interval:
    """A mean and where the truth may lie.

    Attributes:
        mean: Micro or macro mean, as in the report.
        low: Lower end; NaN where nothing can be said (see `bootstrap_interval`).
        high: Upper end; likewise.
        num_queries: Scored queries, which is n.
        num_groups: Their groups, which is what is flipped.
        num_left_out: Queries that were NaN.
        confidence: Such as 0.95.
        method: `FLIPS`, `STUDENT`, `UNSEEN`, `ONE_GROUP` or `FEW`.
        effective_groups: How many groups of one size would carry the mean as these do; NaN
            where there is none.
        rough: They are fewer than `FEWEST_EFFECTIVE`: whether the interval covers hangs on them.
    """

    mean: float
    low: float
    high: float
    num_queries: int
    num_groups: int
    num_left_out: int
    confidence: float
    method: str
    effective_groups: float
    rough: bool


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over the same queries, its interval, and the test of no difference.

    Attributes:
        difference: Mean of a - b: above 0 where a is better.
        low: Lower end of the interval, as in `Interval`.
        high: Upper end.
        p_value: Two-sided, not corrected: see `holm`.
        num_queries: Queries scored in both.
        num_groups: Their groups.
        num_left_out: Queries that were NaN in both.
        confidence: Of the interval.
        method: Of the interval (as there, or `SAME`, with both ends 0), and of the test.
        effective_groups: As in `Interval`.
        rough: As there.
    """

    difference: float
    low: float
    high: float
    p_value: float
    num_queries: int
    num_groups: int
    num_left_out: int
    confidence: float
    method: str
    effective_groups: float
    rough: bool


Compared: TypeAlias = Callable[..., PairedDifference]  # `paired_difference` with its draws chosen


def bootstrap_interval(
    values: ArrayLike,
    groups: Labels,
    categories: Labels | None = None,
    statistic: Statistic = "micro",
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> Interval:
    """Returns a mean with its interval over queries, by group: a wild cluster bootstrap, inverted.

    Formula: a group has the share h of the mean (micro: N / Q; macro: the mean over the C
    categories of N_c / Q_c) and the error e, its part of (value - mean). Moving the mean by x makes
    that e - x h; flipping the sign of whole groups at random gives what such errors may sum to, and
    x is in the interval where at least 1 - confidence of the flips sum to as far from 0 as x itself
    (Cameron, Gelbach and Miller's null-imposed wild bootstrap, solved for x: no group is taken to
    be small). Macro errors are about each category's own mean, times sqrt((1 - h) / (1 - N_c /
    Q_c)). With `bounds` an end moves on to |x| (v(mean + x) / v(mean))^(d^1.5 / 2), v being the
    variance of values at the bounds and d = 1 - 1 / effective groups, as in Wilson's interval of a
    share, since near a bound there is less room to err; and where few groups hold the errors, the
    far end's variance grows towards that of 0/1 values (`UNSEEN_VALUES`). Where all flips together
    are too few for the confidence (under 6 groups at 95 %), Student's t with Bell and McCaffrey's
    degrees of freedom takes their place.

    By ``benchmarks/statistics_coverage.py`` the 95 % interval covers 92-98 % of AP@5 from 10 groups
    on, whether queries of a group are alike or not, weak models and strong: 1,150 groups of which
    one holds 300 queries 93-96 %; 100 of Pareto sizes 92-96 %; 50 of which one in twenty holds 100
    queries 93-98 %; means of 0.002 to 0.03 over 300 queries 94-97 %; macro over categories of
    unequal groups 91-99 %. 91-92 % where 10 groups of a weak model hold 1 to 40 queries; over
    97 %, so too wide, for 5 queries. It does not cover (66-72 %) where a single group holds a fifth
    of all queries and its mean is another than that of the rest, of which nothing else tells: such
    an interval is called `rough`.

    Empty case: one group tells nothing of the next one, and under `FEWEST_QUERIES` queries little,
    so low and high are NaN. Where no group differs from the mean (every AP is 1), flipping would
    give width 0; instead a share p = 1 - (alpha / 2)^(1 / G) of groups could be unseen, and each
    end moves by p towards its bound (Clopper and Pearson at 0 and 1; macro: G is the categories
    times the groups of the smallest one); without bounds it is NaN.

    Source: Cameron, Gelbach & Miller, Bootstrap-Based Improvements for Inference with Clustered
    Errors (2008); Bell & McCaffrey, Bias Reduction in Standard Errors for Linear Regression with
    Multi-Stage Samples (2002); Wilson, Probable Inference (1927).

    Args:
        values: ``[Q]`` float, one metric; NaN is left out and counted.
        groups: ``[Q]`` text or whole numbers.
        categories: ``[Q]`` text or whole numbers; needed for macro, unused for micro.
        statistic: ``micro`` or ``macro``.
        num_resamples: Flips, at least 100; where there are no more, all are taken.
        confidence: Within (0, 1).
        bounds: Lowest and highest possible value; None where there are none.
        seed: Of the flips, 0 or more; the order of the queries changes nothing.

    Raises:
        TypeError: Groups or categories are neither all text nor all whole numbers.
        ValueError: There is no scored query, a value is infinite or outside the bounds, lengths
            differ, macro has no categories, or ``statistic``, ``num_resamples``, ``confidence``,
            ``bounds`` or ``seed`` is none of those above.

    Example:
        >>> values, groups = [0.0, 1.0, 0.5, 1.0, 0.5, np.nan], ["a", "a", "b", "c", "c", "d"]
        >>> interval = bootstrap_interval(values, groups)
        >>> interval.mean, interval.num_queries, interval.num_groups, interval.num_left_out
        (0.6, 5, 3, 1)
        >>> round(interval.effective_groups, 2), interval.rough
        (2.45, True)
        >>> perfect = bootstrap_interval(np.ones(20), range(20))
        >>> round(perfect.low, 3), perfect.high, perfect.method == UNSEEN
        (0.832, 1.0, True)
    """
    check_settings(statistic, num_resamples, confidence, bounds, seed)
    cells = sum_by_group(check_values(values, bounds, "values"), groups, categories, statistic)
    low, high, method = mean_ends(cells, num_resamples, confidence, bounds, seed)
    sizes = (cells.num_queries, cells.num_groups, cells.num_left_out)
    return Interval(cells.mean, low, high, *sizes, confidence, method, *_carried(cells))


def _carried(cells: Sums) -> tuple[float, bool]:
    """How many groups carry a mean, and whether these are few."""
    number = effective_groups(shares_of(cells))
    return number, round(number, 6) < FEWEST_EFFECTIVE


def category_intervals(
    values: ArrayLike,
    groups: Labels,
    categories: Labels,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> pd.DataFrame:
    """Returns every category's own `bootstrap_interval`, sorted by category.

    Each has draws of its own, made from the seed and its name: what other categories hold does
    not change its line. The intervals are not corrected for being many. Empty case: a category
    without a scored query has NaN for mean, low and high. Formula and source: as there.

    Args:
        values: As `bootstrap_interval`.
        groups: As there.
        categories: ``[Q]`` text or whole numbers.
        num_resamples: At least 100.
        confidence: Within (0, 1).
        bounds: Of the values.
        seed: Of the draws.

    Returns:
        ``category``, ``mean``, ``low``, ``high``, ``num_queries`` (scored), ``num_groups``,
        ``num_left_out``, ``few_queries`` (fewer than `MIN_QUERIES` scored),
        ``effective_groups``, ``rough``, ``method``.

    Raises:
        TypeError: As `bootstrap_interval`.
        ValueError: As there, but for a category without a scored query.

    Example:
        >>> table = category_intervals([0.5, 1.0, np.nan], ["a", "b", "c"], ["hat", "hat", "shoe"])
        >>> table[["category", "mean", "num_queries", "few_queries"]].values.tolist()
        [['hat', 0.75, 2, True], ['shoe', nan, 0, True]]
    """
    check_settings("micro", num_resamples, confidence, bounds, seed)
    scores = check_values(values, bounds, "values")
    names, category_of = codes(categories, len(scores), "categories")
    _, group_of = codes(groups, len(scores), "groups")
    lines = []
    for code, name in enumerate(names.tolist()):
        rows = np.flatnonzero(category_of == code)
        if np.isnan(scores[rows]).all():
            empty = "none: no scored query"
            nan, left_out = math.nan, len(rows)
            ends = Interval(nan, nan, nan, 0, 0, left_out, confidence, empty, nan, True)
        else:
            digest = hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()
            ends = bootstrap_interval(
                scores[rows],
                group_of[rows],
                num_resamples=num_resamples,
                confidence=confidence,
                bounds=bounds,
                seed=int.from_bytes(digest[:8], "big"),
            )
        few = ends.num_queries < MIN_QUERIES
        lines.append({"category": name, **vars(ends), "few_queries": few})
    counts = ["num_queries", "num_groups", "num_left_out", "few_queries"]
    carried = ["effective_groups", "rough"]
    columns = ["category", "mean", "low", "high", *counts, *carried, "method"]
    return pd.DataFrame(lines, columns=columns).astype({"category": object})


def align_queries(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns two reports' ``per_query`` tables with the same query in the same row (a's order).

    Args:
        a: One row a query, with ``query_id``.
        b: The same for the other run.

    Raises:
        ValueError: ``query_id`` is missing, a query stands twice, the queries differ, or a query
            has another ``category`` or ``num_relevant`` (where both have it), which means another
            catalogue or gallery.

    Example:
        >>> a = pd.DataFrame({"query_id": ["x", "y"], "average_precision": [0.1, 0.2]})
        >>> b = pd.DataFrame({"query_id": ["y", "x"], "average_precision": [0.4, 0.3]})
        >>> align_queries(a, b)[1]["average_precision"].tolist()
        [0.3, 0.4]
    """
    for name, table in (("a", a), ("b", b)):
        if "query_id" not in table.columns:
            raise ValueError(
                f"table {name} has the columns {list(table.columns)}; expected query_id among "
                "them: pass a report's per_query"
            )
        twice = table["query_id"][table["query_id"].duplicated()]
        if len(twice):
            raise ValueError(
                f"query {twice.iloc[0]!r} stands more than once in table {name}; expected each "
                "query once: drop what is repeated"
            )
    only_a, only_b = (
        sorted(set(one["query_id"]) - set(other["query_id"]), key=str)
        for one, other in ((a, b), (b, a))
    )
    if only_a or only_b:
        raise ValueError(
            f"{many(len(only_a), 'query is', 'queries are')} only in a {only_a[:3]} "
            f"and {len(only_b):,} only in b {only_b[:3]}; expected the same {len(a)} in both: "
            "evaluate both runs on one catalogue, split and protocol"
        )
    left = a.reset_index(drop=True)
    rows = pd.Index(b["query_id"]).get_indexer(pd.Index(left["query_id"]))  # [Q]
    right = b.iloc[rows].reset_index(drop=True)
    shared = left.columns.intersection(right.columns)
    for column in shared.intersection(["category", "num_relevant"]):
        rows = np.flatnonzero((left[column] != right[column]).to_numpy())
        if len(rows):
            row = int(rows[0])
            raise ValueError(
                f"query {left['query_id'][row]!r} has {column} {left[column][row]} in a and "
                f"{right[column][row]} in b ({many(len(rows), 'such query', 'such queries')}); "
                "expected the same: evaluate both runs on one catalogue and gallery"
            )
    return left, right


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Labels,
    categories: Labels | None = None,
    statistic: Statistic = "micro",
    *,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    confidence: float = 0.95,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> PairedDifference:
    """Compares two models on the same queries: the mean of a - b, its interval and a p-value.

    Formula: the test flips the sign of d = a - b for whole groups, which changes nothing if neither
    model is better. With a group's contribution t to the mean (macro: sum over categories of its
    sum / (C N_c)) the flipped mean is sum(+-t), and p is the share of flips at least as far from 0
    as what was seen: all 2^G flips up to 16 groups with t != 0, else (b + 1) / (m + 1) over m
    random flips. The interval holds the differences x that the same test does not reject when x is
    taken from every d: as `bootstrap_interval`, but about one mean and not scaled to the bounds.
    So 0 lies outside exactly where p < 1 - confidence; under 6 groups, where no flip can be that
    rare, Student's interval is stretched to 0. By ``benchmarks/statistics_coverage.py`` it covers
    93-97 % from 10 groups on, equal or not (1,150 of which one holds 300 queries: 95 %), and leaves
    0 out in 4-7 % where neither model is better.

    Empty case: where the models agree on every query, p = 1 and both ends are 0 (`SAME`); with one
    group p = 1 and the interval is NaN, as it is under `FEWEST_QUERIES` queries. Source: as
    `bootstrap_interval`; Phipson & Smyth, Permutation P-values should never be zero (2010).

    Args:
        a: ``[Q]`` float, one metric of the first model.
        b: ``[Q]`` float, of the second, in the same order (`align_queries`).
        groups: ``[Q]`` text or whole numbers.
        categories: ``[Q]``, needed for macro.
        statistic: ``micro`` or ``macro``.
        num_resamples: As `bootstrap_interval`.
        num_permutations: At least 100; the smallest p-value is 1 / (1 + this).
        confidence: As `bootstrap_interval`.
        bounds: Of a and b, not of their difference.
        seed: Of draws and flips.

    Raises:
        TypeError: As `bootstrap_interval`.
        ValueError: As there, ``num_permutations`` is too small, a and b differ in length, or a
            query is NaN in one only.

    Example:
        >>> found = paired_difference([0.5, 1.0, 0.75], [0.25, 0.5, 0.5], ["x", "y", "z"])
        >>> round(found.difference, 3), found.p_value  # 2 of the 8 flips are as far from 0
        (0.333, 0.25)
    """
    check_settings(statistic, num_resamples, confidence, bounds, seed)
    check_number("num_permutations", num_permutations)
    first, second = check_values(a, bounds, "a"), check_values(b, bounds, "b")
    if len(first) != len(second):
        raise ValueError(
            f"a holds {len(first)} and b {len(second)} queries; expected the same: align the "
            "tables with align_queries"
        )
    one_only = np.flatnonzero(np.isnan(first) != np.isnan(second))
    if len(one_only):
        raise ValueError(
            f"query row {one_only[0]} is NaN in {'a' if np.isnan(first[one_only[0]]) else 'b'} "
            f"only ({len(one_only)} such row(s)); expected the same queries left out: evaluate "
            "both runs on one gallery"
        )
    cells = sum_by_group(first - second, groups, categories, statistic)
    wide = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    p_value, test = sign_flips(cells, num_permutations, seed)
    settings = (num_resamples, confidence, wide, seed)
    low, high, method = difference_ends(cells, p_value, *settings)
    sizes = (cells.num_queries, cells.num_groups, cells.num_left_out)
    how = confidence, f"{method}; {test}"
    return PairedDifference(cells.mean, low, high, p_value, *sizes, *how, *_carried(cells))


def rank_intervals(
    values: Sequence[ArrayLike],
    groups: Labels,
    categories: Labels | None = None,
    statistic: Statistic = "micro",
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Returns the ranks that each of several models may have, on the same queries; 1 is the best.

    Formula: model j may have the ranks from 1 + (models shown to be better than j) to J - (models
    shown to be worse). A pair is shown where its difference d, over its root of the summed squares
    of the groups' parts, lies farther from 0 than in 1 - alpha of the flips: the signs of whole
    groups are flipped for all models at once, and what is looked at is the farthest of this pair
    and all pairs that were seen nearer to 0 (the step-down maximum). So the intervals hold
    together: with the confidence, every model's true rank lies within its own. Where k models are
    equal, all ranks that they share are true of each. Of two models it is `paired_difference`'s
    test.

    By ``benchmarks/statistics_coverage.py`` all intervals of a table of 4 to 20 models hold at once
    in 94-100 % of the draws, with 8 groups or 300, equal or not; in 92 % where one of 1,150 groups
    holds a fifth of the queries and the models err on different ones.

    Empty case: one model has rank 1. Where all answers of a pair are the same, or there are under 6
    groups (2 of 2^5 flips are 6 %), nothing is shown. Source: Mogstad, Romano, Shaikh & Wilhelm,
    Inference for Ranks with Applications to Mobility across Neighbourhoods and Academic
    Achievement across Countries (2024); Westfall & Young, Resampling-Based Multiple Testing (1993).

    Args:
        values: J rows of ``[Q]`` float, one metric of J models; a query is NaN in all or in none.
        groups: ``[Q]`` text or whole numbers.
        categories: ``[Q]``, needed for macro.
        statistic: ``micro`` or ``macro``.
        num_resamples: As `bootstrap_interval`.
        confidence: Of all intervals together.
        bounds: Of the values.
        seed: Of the flips; the order of models and queries changes nothing else.

    Returns:
        ``[J, 2] int64``: lowest and highest rank.

    Raises:
        TypeError: As `bootstrap_interval`.
        ValueError: As there, or a query is NaN in some models only.

    Example:
        >>> first = np.linspace(0.1, 0.6, 12)
        >>> third = first + 0.02 * (np.arange(12) % 4 - 1.5)
        >>> rank_intervals([first, first + 0.3, third], range(12)).tolist()
        [[2, 3], [1, 1], [2, 3]]
    """
    check_settings(statistic, num_resamples, confidence, bounds, seed)
    models = [check_values(one, bounds, f"values {row}") for row, one in enumerate(values)]
    if not models:
        raise ValueError("values hold no model; expected [J, Q]: pass a row for each")
    for row, model in enumerate(models):
        if len(model) != len(models[0]) or (np.isnan(model) != np.isnan(models[0])).any():
            raise ValueError(
                f"values {row} and values 0 do not score the same queries; expected the same ones "
                "NaN in every model: evaluate all on one gallery"
            )
    cells = [sum_by_group(model, groups, categories, statistic) for model in models]
    better = better_flips(cells, num_resamples, round(1 - confidence, 12), seed)
    lowest, highest = 1 + better.sum(axis=0), len(models) - better.sum(axis=1)
    return np.stack([lowest, highest], axis=1).astype(np.int64)


def holm(p_values: ArrayLike) -> Floats:
    """Returns p-values corrected for being many: below alpha, no more than alpha of families err.

    Formula: with p sorted ascending, the i-th (from 0) of m becomes
    max over j <= i of min(1, (m - j) p_j); given back in the order that came. Any dependence
    between the tests is allowed. Empty case: no p-values give none. Source: Holm, A Simple
    Sequentially Rejective Multiple Test Procedure (1979).

    Args:
        p_values: ``[m]`` float in [0, 1].

    Returns:
        ``[m] float64`` in [0, 1].

    Raises:
        ValueError: They are not one-dimensional, or one is NaN or outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1:
        raise ValueError(f"p_values have shape {raw.shape}; expected [m]: pass one list of them")
    wrong = np.flatnonzero(~((raw >= 0) & (raw <= 1)))
    if len(wrong):
        raise ValueError(
            f"p-value {wrong[0]} is {raw[wrong[0]]}; expected within [0, 1]: leave out tests that "
            "were not made"
        )
    order = np.argsort(raw, kind="stable")
    stepped = np.minimum(raw[order] * np.arange(len(raw), 0, -1), 1.0)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted
