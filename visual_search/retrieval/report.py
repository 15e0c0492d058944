"""From neighbours and labels to numbers: per query, per category, overall."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.reading import Ends, Summary
from visual_search.retrieval.graded import ideal_gains, ndcg_at_k
from visual_search.retrieval.metrics import (
    MAP_AT_R_DEFINITION,
    Metric,
    average_precision_at_k,
    average_precision_at_r,
    definitions,
    hit_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
    reference_2023,
    reference_definition,
)
from visual_search.retrieval.resampling import STATISTICS, Draws
from visual_search.retrieval.statistics import (
    MIN_QUERIES,
    NUM_RESAMPLES,
    Interval,
    bootstrap_interval,
    category_intervals,
)

MICRO_RULE = "micro: mean over the queries that are scored (num_queries_scored)."
MACRO_RULE = (
    "macro: mean over the categories with at least one scored query (num_categories_scored) of the "
    "category's own mean."
)
REFERENCE = "reference_2023"
MEAN_AT_R = {"average_precision_at_r": "map_at_r"}


@dataclass(frozen=True, eq=False)
class RetrievalReport:
    """How well an index answers its queries; a lower-case ``k`` stands for the number itself.

    Attributes:
        per_query: One row a query, in the order asked: ``query_id``, ``category`` (what the table
            is broken down by), ``group``, ``num_relevant`` (R), ``average_precision``,
            ``precision``, ``recall``, ``hit_at_1``, ``hit_at_k``, ``reciprocal_rank``, ``ndcg``
            (all within the first k; NaN where R = 0), ``average_precision_at_r`` where the
            protocol asks for it, and lists of at most k, the nearest first:
            ``neighbour_ids``, ``neighbour_categories``, ``neighbour_squared_distances``,
            ``neighbour_relevant``. Under the rule of 2023 the one metric is ``reference_2023``.
        per_category: One row a category of gallery or queries, sorted: ``category``,
            ``num_gallery``, ``num_queries``, ``num_queries_scored``, ``num_left_out`` and the means
            ``map_at_5``, ``precision_at_5``, ``recall_at_5``, ``hit_at_1``, ``hit_at_5``,
            ``mrr_at_5``, ``ndcg_at_5`` (for k = 5; NaN where no query is scored); after
            `with_intervals` also ``headline_low``, ``headline_high``, ``num_groups``,
            ``few_queries``, ``effective_groups`` and ``rough`` (see `statistics.Interval`).
        summary: Plain values: ``k``, the counts, ``micro_map_at_5``, ``macro_map_at_5``, ...,
            ``headline`` (the metric that a run is known by: ``column``, ``mean``, ``title``),
            ``definitions`` (name -> sentence), ``rules``, and ``all_relevant``: whether every
            answer is right by definition; after `with_intervals` also ``intervals``.
    """

    per_query: pd.DataFrame
    per_category: pd.DataFrame
    summary: Summary


@dataclass(frozen=True, eq=False)
class Answers:
    """What the first k of every query are worth; the input of `build_report`.

    Where a query has fewer than k answers, ``lists`` is shorter and the arrays hold False and 0.

    Attributes:
        query_ids: Q ids.
        categories: Q labels that the report is broken down by.
        groups: Q groups, which intervals resample.
        relevance: ``[Q, k] bool``, or deeper where mAP@R is measured.
        num_relevant: ``[Q] int64``, R: what there is to find.
        gains: ``[Q, k] int64``, the grade of each answer; 0 or 1 without a hierarchy.
        num_matching: ``[Q, L] int64``: gallery items whose first l levels are the query's.
        lists: ``neighbour_ids``, ``neighbour_categories``, ``neighbour_squared_distances`` and
            ``neighbour_relevant``: Q lists each.
    """

    query_ids: Sequence[str]
    categories: Sequence[str]
    groups: Sequence[str]
    relevance: NDArray[np.bool_]
    num_relevant: NDArray[np.int64]
    gains: NDArray[np.int64]
    num_matching: NDArray[np.int64]
    lists: Mapping[str, Sequence[Sequence[object]]]


def build_report(
    answers: Answers,
    gallery_categories: Sequence[str],
    *,
    k: int,
    rules: Mapping[str, str],
    counts_the_query: bool = False,
    to_r: bool = False,
    all_relevant: bool = False,
) -> RetrievalReport:
    """Returns the numbers of answered queries.

    Args:
        answers: Of Q queries, at least one.
        gallery_categories: N labels that the report is broken down by.
        k: How deep one looks.
        rules: Sentences to store beside the numbers.
        counts_the_query: The rule of 2023: the query is among its own answers.
        to_r: Measure mAP@R too: ``relevance`` is as deep as the largest R.
        all_relevant: Every item that a query may find is relevant to it, as where there is one
            category: every answer is right by definition.
    """
    relevance, num_relevant = answers.relevance, answers.num_relevant
    values: dict[str, NDArray[np.float64]]
    if counts_the_query:
        values = {REFERENCE: reference_2023(relevance, k)}
    else:
        metrics: dict[str, tuple[Metric, int]] = {
            "average_precision": (average_precision_at_k, k),
            "precision": (precision_at_k, k),
            "recall": (recall_at_k, k),
            "hit_at_1": (hit_at_k, 1),
            "hit_at_k": (hit_at_k, k),
            "reciprocal_rank": (reciprocal_rank_at_k, k),
        }
        values = {
            name: metric(relevance, num_relevant, depth)
            for name, (metric, depth) in metrics.items()
        }
        graded = ndcg_at_k(answers.gains, ideal_gains(answers.num_matching, k), k)
        values["ndcg"] = np.where(num_relevant > 0, graded, np.nan)
        if to_r:
            values["average_precision_at_r"] = average_precision_at_r(relevance, num_relevant)
    per_query = pd.DataFrame(
        {
            "query_id": pd.Series(list(answers.query_ids), dtype=object),
            "category": pd.Series(list(answers.categories), dtype=object),
            "group": pd.Series(list(answers.groups), dtype=object),
            "num_relevant": num_relevant,
            **values,
            **{name: list(lists) for name, lists in answers.lists.items()},
        }
    )
    means = _means(k, counts_the_query)
    if to_r:
        means |= MEAN_AT_R
    per_category = _per_category(per_query, gallery_categories, means)
    summary = _summary(per_query, per_category, len(gallery_categories), k, means)
    summary["all_relevant"] = all_relevant
    summary["rules"] = {**rules, "micro": MICRO_RULE, "macro": MACRO_RULE}
    return RetrievalReport(per_query, per_category, summary)


def _means(k: int, counts_the_query: bool) -> dict[str, str]:
    """Column of `per_query` -> name of its mean; at k = 1 both hit columns have one mean."""
    if counts_the_query:
        return {REFERENCE: REFERENCE}
    return {
        "average_precision": f"map_at_{k}",
        "precision": f"precision_at_{k}",
        "recall": f"recall_at_{k}",
        "hit_at_1": "hit_at_1",
        "hit_at_k": f"hit_at_{k}",
        "reciprocal_rank": f"mrr_at_{k}",
        "ndcg": f"ndcg_at_{k}",
    }


def _mean(values: Iterable[float]) -> float:
    """The mean of what is not NaN, exactly rounded: the order of the queries cannot matter."""
    scored = [value for value in values if not math.isnan(value)]
    return math.fsum(scored) / len(scored) if scored else math.nan


def _per_category(
    per_query: pd.DataFrame, gallery_categories: Sequence[str], means: Mapping[str, str]
) -> pd.DataFrame:
    num_gallery = Counter(gallery_categories)
    rows_of: dict[str, list[int]] = {}  # plain lists: tables of 20,000 categories take minutes
    for row, name in enumerate(per_query["category"].tolist()):
        rows_of.setdefault(name, []).append(row)
    values_of = {column: per_query[column].tolist() for column in means}
    headline = next(iter(means))
    lines = []
    for category in sorted(num_gallery.keys() | rows_of.keys()):
        rows = rows_of.get(category, [])
        num_scored = sum(not math.isnan(values_of[headline][row]) for row in rows)
        lines.append(
            {
                "category": category,
                "num_gallery": num_gallery[category],
                "num_queries": len(rows),
                "num_queries_scored": num_scored,
                "num_left_out": len(rows) - num_scored,
                **{
                    mean: _mean(values_of[column][row] for row in rows)
                    for column, mean in means.items()
                },
            }
        )
    return pd.DataFrame(lines).astype({"category": object})


def _summary(
    per_query: pd.DataFrame,
    per_category: pd.DataFrame,
    num_gallery: int,
    k: int,
    means: Mapping[str, str],
) -> Summary:
    num_scored = int(per_category["num_queries_scored"].sum())
    counts: Summary = {
        "k": k,
        "num_gallery": num_gallery,
        "num_queries": len(per_query),
        "num_queries_scored": num_scored,
        "num_left_out": len(per_query) - num_scored,
        "num_categories": len(per_category),
        "num_categories_scored": int((per_category["num_queries_scored"] > 0).sum()),
    }
    by_name: dict[str, float] = {}
    for column, mean in means.items():
        by_name[f"micro_{mean}"] = _mean(per_query[column])
        by_name[f"macro_{mean}"] = _mean(per_category[mean])
    column, mean = next(iter(means.items()))
    reference = column == REFERENCE
    said: Summary = {
        "headline": {
            "column": column,
            "mean": mean,
            "title": REFERENCE if reference else f"mAP@{k}",
        },
        "definitions": {REFERENCE: reference_definition(k)} if reference else definitions(k),
    }
    if MEAN_AT_R.items() <= means.items():
        said["definitions"] |= {"map_at_r": MAP_AT_R_DEFINITION}
    return cast("Summary", {**counts, **by_name, **said})  # the means' names depend on k


def with_intervals(
    report: RetrievalReport,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> RetrievalReport:
    """Returns the report with the headline's intervals, by group, overall and by category.

    Args:
        report: As measured.
        num_resamples: See `visual_search.retrieval.statistics.bootstrap_interval`.
        confidence: Likewise.
        seed: Of the flips.

    Returns:
        ``summary["intervals"]`` holds ``micro`` and ``macro`` as plain dicts of an `Interval`'s
        fields (NaN where no query is scored); ``per_category`` has six more columns.

    Raises:
        ValueError: ``num_resamples``, ``confidence`` or ``seed`` is none of those there.
    """
    table = report.per_query
    values = table[report.summary["headline"]["column"]].to_numpy(dtype=np.float64)
    groups, categories = table["group"].tolist(), table["category"].tolist()
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    by_category = category_intervals(values, groups, categories, **draws).set_index("category")
    by_category = by_category.reindex(report.per_category["category"])
    per_category = report.per_category.assign(
        effective_groups=by_category["effective_groups"].to_numpy(dtype=np.float64),
        rough=by_category["rough"].fillna(True).to_numpy(dtype=bool),
        headline_low=by_category["low"].to_numpy(dtype=np.float64),
        headline_high=by_category["high"].to_numpy(dtype=np.float64),
        num_groups=by_category["num_groups"].fillna(0).to_numpy(dtype=np.int64),
        few_queries=(report.per_category["num_queries_scored"] < MIN_QUERIES).to_numpy(),
    )
    summary: Summary = {**report.summary, "intervals": headline_intervals(report, draws)}
    return replace(report, per_category=per_category, summary=summary)


def headline_intervals(report: RetrievalReport, draws: Draws) -> dict[str, Ends]:
    """Returns ``micro`` and ``macro`` of the headline with their ends, NaN if no query is scored.

    Args:
        report: As measured.
        draws: As `with_intervals` takes them.

    Raises:
        ValueError: As there.
    """
    table = report.per_query
    values = table[report.summary["headline"]["column"]].to_numpy(dtype=np.float64)
    groups, categories = table["group"].tolist(), table["category"].tolist()
    intervals: dict[str, Ends] = {}
    for statistic in STATISTICS:
        ends = (
            bootstrap_interval(values, groups, categories, statistic, **draws)
            if np.isfinite(values).any()
            else _no_interval(len(values), draws["confidence"])
        )
        intervals[statistic] = cast("Ends", dict(vars(ends)))
    return intervals


def _no_interval(num_left_out: int, confidence: float) -> Interval:
    nan = math.nan
    method = "none: no scored query"
    return Interval(nan, nan, nan, 0, 0, num_left_out, confidence, method, nan, True)
