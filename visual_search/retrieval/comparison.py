"""Runs side by side: refused unless measured alike, then every difference with its interval and p.

Runs are compared on the same queries, so what is tested is the difference a query, never two means
with an interval each. Where the queries do not tell two runs apart, the words are "no difference
shown": that is a statement about how much was measured, not that the runs are equal.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from visual_search.reading import Headline, Summary
from visual_search.retrieval.comparability import (
    NotComparableError,
    check_comparable,
    identity_of,
)
from visual_search.retrieval.floor_comparison import (
    NO_INTERVAL,
    check_columns,
    difference_text,
    headline_statistic,
    p_text,
    right_by_definition,
)
from visual_search.retrieval.report import RetrievalReport
from visual_search.retrieval.resampling import STATISTICS, Draws, Floats, Statistic
from visual_search.retrieval.statistics import (
    NUM_PERMUTATIONS,
    NUM_RESAMPLES,
    Compared,
    align_queries,
    bootstrap_interval,
    category_intervals,
    holm,
    paired_difference,
)
from visual_search.wording import interval, many, number, rough_text, sign_shown

__all__ = [
    "Comparison",
    "NotComparableError",
    "check_comparable",
    "compare_reports",
    "headline_of",
    "identity_of",
]

VERDICTS = {1: "a is better", 0: "no difference shown", -1: "b is better"}
SIZES = ["num_queries", "num_groups", "effective_groups", "rough"]
TEST_COLUMNS = ["difference", "low", "high", "p_holm"]
ONE_GROUP_VERDICT = "one group: not tested"
NO_QUERY_VERDICT = "no scored query"


class ComparedBy(Headline):
    """A headline, the mean of it that decides, and what it means."""

    statistic: Statistic
    definition: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two or more runs on the same queries. Intervals have the confidence that was asked for.

    Attributes:
        runs: One row a run, in the order given: ``run``, ``micro``, ``micro_low``, ``micro_high``,
            ``macro``, ``macro_low``, ``macro_high`` (of the headline), ``num_queries`` (scored),
            ``num_groups``, ``effective_groups`` and ``rough`` (of the headline's own mean; see
            `statistics.Interval`), and every micro mean of the summary, as
            ``micro_precision_at_5``.
        pairs: One row a pair of runs and a ``statistic`` (``micro``, ``macro``) of the headline:
            ``a``, ``b``, ``statistic``, ``difference`` (a - b), ``low``, ``high``, ``p_value``,
            ``p_holm`` (corrected over all pairs of that statistic), ``num_queries``,
            ``num_groups``, ``effective_groups``, ``rough``, ``verdict``: "a is better", "b is
            better" or "no difference shown".
        per_category: One row a category, sorted: ``category``, ``num_queries`` (scored),
            ``num_groups``, ``effective_groups``, ``rough``, ``few_queries``, and ``mean:<run>``,
            ``low:<run>``, ``high:<run>`` for every run. For exactly two runs (a and b, in the order
            given) also ``difference``, ``difference_low``, ``difference_high``, ``p_value``,
            ``p_holm`` (corrected over the
            categories with at least two groups; NaN for others) and ``verdict``, which has two
            more values: "one group: not tested", "no scored query".
        queries: One row a query: ``query_id``, ``category``, ``group``, ``value:<run>`` and
            ``spread`` (the highest value minus the lowest), largest spread first, then by id;
            queries that are left out (NaN) last.
        headline: ``column``, ``mean``, ``title``, ``definition`` of what is compared, and
            ``statistic``, the mean that the sentence begins with.
        sentence: The verdict in plain text. Run names in it are data: escape them.
    """

    runs: pd.DataFrame
    pairs: pd.DataFrame
    per_category: pd.DataFrame
    queries: pd.DataFrame
    headline: ComparedBy
    sentence: str


def compare_reports(
    reports: Mapping[str, RetrievalReport],
    *,
    paths: Mapping[str, str] | None = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    confidence: float = 0.95,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compares runs query by query.

    A difference is shown (see `wording.sign_shown`) where the Holm-corrected p-value is below
    0.05. The difference's interval is not corrected: it goes with ``p_value``. Formulas, sources:
    `statistics.paired_difference`, `statistics.bootstrap_interval`, `statistics.holm`.

    Args:
        reports: Run -> its report, two or more. Their order is that of the result; it decides which
            run of a pair is a, and nothing else.
        paths: Run -> its folder, for the command in an error.
        seed: Of draws and flips.
        num_resamples: As `statistics.bootstrap_interval`.
        num_permutations: As `statistics.paired_difference`.
        confidence: Of the intervals.
        on_progress: Called with (runs and pairs done, runs and pairs) after each.

    Raises:
        NotComparableError: As `check_comparable`.
        ValueError: There are fewer than two runs, their headlines, queries, categories or groups
            differ, a query is left out in one only, none is scored, a column is missing, or a
            setting is none of those above.
    """
    names = list(reports)
    if len(names) < 2:
        raise ValueError(f"there are {len(names)} run(s); expected two or more: name another one")
    check_comparable({name: identity_of(reports[name].summary) for name in names}, paths)
    headline = headline_of(reports[names[0]].summary)
    for name in names[1:]:
        other = headline_of(reports[name].summary)
        if other["column"] != headline["column"]:
            raise ValueError(
                f"run {name!r} has the headline {other['title']}, and {names[0]!r} "
                f"{headline['title']}; expected the same: evaluate both again"
            )
    queries = _aligned({name: reports[name].per_query for name in names}, headline["column"])
    labels = queries["group"], queries["category"]
    values = {name: queries[f"value:{name}"].to_numpy(dtype=np.float64) for name in names}
    if np.isnan(values[names[0]]).all():
        raise ValueError(
            f"none of the {len(queries)} queries is scored; expected a query with a relevant "
            "gallery item: there is nothing to compare, so check the gallery's categories"
        )
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    compared = functools.partial(paired_difference, num_permutations=num_permutations, **draws)
    couples = list(itertools.combinations(names, 2))
    total = len(names) + len(couples)

    runs, by_category = [], {}
    for done, name in enumerate(names, start=1):
        line: dict[str, object] = {"run": name}
        for mean in STATISTICS:
            ends = bootstrap_interval(values[name], *labels, mean, **draws)
            line |= {mean: ends.mean, f"{mean}_low": ends.low, f"{mean}_high": ends.high}
            if mean == headline["statistic"]:
                line |= {name: getattr(ends, name) for name in SIZES}
        summary = reports[name].summary
        line |= {key: value for key, value in summary.items() if key.startswith("micro_")}
        runs.append(line)
        by_category[name] = category_intervals(values[name], *labels, **draws)
        if on_progress is not None:
            on_progress(done, total)

    pairs = []
    for done, (a, b) in enumerate(couples, start=len(names) + 1):
        for mean in STATISTICS:
            test = _tested(a, b, values, *labels, mean, compared)
            pairs.append({"a": a, "b": b, "statistic": mean, **test})
        if on_progress is not None:
            on_progress(done, total)

    run_table, pair_table = pd.DataFrame(runs), _corrected(pd.DataFrame(pairs))
    return Comparison(
        runs=run_table,
        pairs=pair_table,
        per_category=_per_category(by_category, values, *labels, compared),
        queries=queries,
        headline=headline,
        sentence=right_by_definition(next(iter(reports.values())).summary)
        or _sentence(run_table, pair_table, headline, confidence),
    )


def headline_of(summary: Summary) -> ComparedBy:
    """Returns a summary's headline with its ``statistic`` and ``definition``.

    Raises:
        ValueError: The summary has no headline, as an older run's.

    Example:
        >>> headline_of({"headline": {"column": "precision", "mean": "p_at_5", "title": "P@5"}})
        {'column': 'precision', 'mean': 'p_at_5', 'title': 'P@5', 'statistic': 'micro', \
'definition': ''}
    """
    headline = summary.get("headline")
    if not isinstance(headline, Mapping) or not {"column", "mean", "title"} <= headline.keys():
        raise ValueError(
            f"the summary's headline is {headline!r}; expected column, mean and title: evaluate "
            "the run again"
        )
    definition = (summary.get("definitions") or {}).get(headline["mean"], "")
    statistic = headline_statistic(headline["column"])
    return {**headline, "statistic": statistic, "definition": definition}


def _aligned(per_query: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """All runs' values of the same queries: the table that `Comparison` calls ``queries``.

    Raises:
        ValueError: Queries, categories, groups or what is left out differ, or a column is missing.
    """
    names = list(per_query)
    for table in per_query.values():
        check_columns(table, ["query_id", "category", "group", column])
    a = names[0]
    first = per_query[a].sort_values("query_id", ignore_index=True)
    found = first[["query_id", "category", "group"]].astype(object)
    for name in names:
        try:
            held = align_queries(first, per_query[name])[1]
        except ValueError as error:
            raise ValueError(f"runs {a!r} (a) and {name!r} (b): {error}") from error
        other = np.flatnonzero((held["group"] != first["group"]).to_numpy())
        values = held[column].to_numpy(dtype=np.float64)  # [Q]
        found[f"value:{name}"] = values
        one_only = np.flatnonzero(np.isnan(values) != np.isnan(found[f"value:{a}"].to_numpy()))
        if len(other):
            row = int(other[0])
            raise ValueError(
                f"query {first['query_id'][row]!r} has the group {first['group'][row]!r} in run "
                f"{a!r} and {held['group'][row]!r} in {name!r}; expected the same: evaluate both "
                "on one catalogue"
            )
        if len(one_only):
            raise ValueError(
                f"query {first['query_id'][int(one_only[0])]!r} is left out (NaN) in only one of "
                f"the runs {a!r} and {name!r} "
                f"({many(len(one_only), 'such query', 'such queries')}); expected the same in "
                "both: evaluate both on one gallery"
            )
    all_values = found[[f"value:{name}" for name in names]].to_numpy(dtype=np.float64)  # [Q, runs]
    found["spread"] = all_values.max(axis=1) - all_values.min(axis=1)
    return found.sort_values(
        ["spread", "query_id"], ascending=[False, True], ignore_index=True, na_position="last"
    )


def _tested(
    a: str,
    b: str,
    values: Mapping[str, Floats],
    groups: pd.Series[str],
    categories: pd.Series[str],
    statistic: Statistic,
    compared: Compared,
) -> dict[str, float]:
    try:
        found = compared(values[a], values[b], groups, categories, statistic)
    except ValueError as error:
        raise ValueError(f"runs {a!r} (a) and {b!r} (b): {error}") from error
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        **{name: getattr(found, name) for name in SIZES},
    }


def _corrected(pairs: pd.DataFrame) -> pd.DataFrame:
    pairs["p_holm"] = math.nan
    for mean in STATISTICS:
        rows = pairs["statistic"] == mean
        pairs.loc[rows, "p_holm"] = holm(pairs.loc[rows, "p_value"].to_numpy(dtype=np.float64))
    signs = [sign_shown(*test) for test in pairs[TEST_COLUMNS].itertuples(index=False)]
    pairs["verdict"] = pd.Series([VERDICTS[sign] for sign in signs], dtype=object)
    columns = ["a", "b", "statistic", "difference", "low", "high", "p_value", "p_holm"]
    return pairs[[*columns, *SIZES, "verdict"]].astype(
        {"a": object, "b": object, "statistic": object}
    )


def _per_category(
    by_category: Mapping[str, pd.DataFrame],
    values: Mapping[str, Floats],
    groups: pd.Series[str],
    categories: pd.Series[str],
    compared: Compared,
) -> pd.DataFrame:
    names = list(by_category)
    table = by_category[names[0]][["category", *SIZES, "few_queries"]].copy()
    for name in names:
        for column in ("mean", "low", "high"):
            table[f"{column}:{name}"] = by_category[name][column]
    if len(names) != 2:
        return table
    a, b = names
    tests = []
    rows_of = categories.groupby(categories).indices
    for category, num_queries in zip(table["category"], table["num_queries"], strict=True):
        test: dict[str, float] = {}
        if num_queries:
            rows = rows_of[category]
            mine = {name: values[name][rows] for name in names}
            labels = groups.iloc[rows], categories.iloc[rows]
            test = _tested(a, b, mine, *labels, "micro", compared)
        tests.append([test.get(name, math.nan) for name in (*TEST_COLUMNS[:3], "p_value")])
    columns = ["difference", "difference_low", "difference_high", "p_value"]
    table[columns] = np.array(tests, dtype=np.float64)
    table["p_holm"] = math.nan
    several = table["num_groups"] >= 2
    p_values = table.loc[several, "p_value"].to_numpy(dtype=np.float64)
    table.loc[several, "p_holm"] = holm(p_values)
    corrected = table[[*columns[:3], "p_holm"]].itertuples(index=False)
    verdicts = [VERDICTS[sign_shown(*found)] for found in corrected]
    for row, num_groups in enumerate(table["num_groups"]):
        if num_groups < 2:
            verdicts[row] = ONE_GROUP_VERDICT if num_groups else NO_QUERY_VERDICT
    table["verdict"] = pd.Series(verdicts, dtype=object)
    return table


def _sentence(
    runs: pd.DataFrame, pairs: pd.DataFrame, headline: ComparedBy, confidence: float
) -> str:
    """The headline's own statistic first; two runs also get the other one."""
    statistic = headline["statistic"]
    # Every run answered the same queries of the same groups: whose sizes these are does not matter.
    one = {str(key): value for key, value in next(iter(runs.to_dict("records"))).items()}
    sizes = f"{many(one['num_queries'], 'query', 'queries')} in {many(one['num_groups'], 'group')}"
    intervals = f"{100 * confidence:g} % intervals"
    if rough := rough_text(one):
        intervals += f", {rough}"
    value_of = {mean: dict(zip(runs["run"], runs[mean], strict=True)) for mean in STATISTICS}
    if len(runs) == 2:
        pair_of = dict(zip(pairs["statistic"], _pairs(pairs), strict=True))
        first, second = (
            f"by {mean} mean {_clause(pair_of[mean], value_of[mean])}"
            for mean in sorted(STATISTICS, key=lambda mean: mean != statistic)
        )
        start = f"{headline['title']} over {sizes} ({intervals}): {first}."
        return f"{start} {second[0].upper()}{second[1:]}."
    order = sorted(value_of[statistic], key=lambda name: (-value_of[statistic][name], name))
    best, better, other, largest = order[0], [], [], 0.0
    mine = {frozenset(pair[:2]): pair for pair in _pairs(pairs[pairs["statistic"] == statistic])}
    for name in order[1:]:
        pair = mine[frozenset((best, name))]
        test = (pair.turned() if pair.a == name else pair).test
        if sign_shown(*test) > 0:
            better.append(_name(name))
            largest = max(largest, pair.p_holm)
        else:
            other.append(f"{_name(name)} ({difference_text(*test)})")
    line = runs.set_index("run").loc[best]
    ends = interval(line[f"{statistic}_low"], line[f"{statistic}_high"], none=NO_INTERVAL)
    clauses = [f"{_name(best)} has the highest, {number(line[statistic])} {ends}"]
    if better:
        names = ", ".join(better) if other else "every other run"
        at_most = p_text(largest).replace("=", "<=")
        clauses.append(f"it is better than {names} ({at_most})")
    if other:
        clauses.append(f"no difference shown between it and {', '.join(other)}")
    return (
        f"{headline['title']} by {statistic} mean over {sizes} ({intervals}, p corrected over "
        f"{len(mine)} pairs by Holm): {'; '.join(clauses)}."
    )


class _Pair(NamedTuple):
    """Two runs, and the test of their difference."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_holm: float

    @property
    def test(self) -> tuple[float, float, float, float]:
        return self[2:]

    def turned(self) -> _Pair:
        """The same pair seen from b."""
        return _Pair(self.b, self.a, -self.difference, -self.high, -self.low, self.p_holm)


def _pairs(table: pd.DataFrame) -> list[_Pair]:
    columns = ["a", "b", *TEST_COLUMNS]
    return [_Pair(*line) for line in table[columns].itertuples(index=False, name=None)]


def _clause(pair: _Pair, value_of: Mapping[str, float]) -> str:
    """The verdict over one pair, the better run first."""
    sign = sign_shown(*pair.test)
    pair = pair.turned() if sign < 0 else pair
    a, b = pair.a, pair.b
    values = f"{number(value_of[a])} and {number(value_of[b])}"
    test = difference_text(*pair.test)
    if sign == 0:
        return f"no difference shown between {_name(a)} and {_name(b)}: {values}, {test}"
    return f"{_name(a)} is better than {_name(b)}: {values}, {test}"


def _name(name: str) -> str:
    """A run's name on one line."""
    return " ".join(name.split())
