"""Runs that differ in the seed alone, as one: means over the seeds, and how far these lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from visual_search.reading import MeasuredFloor, SeedSpread, Summary, number_in
from visual_search.retrieval.comparability import check_comparable, identity_of
from visual_search.retrieval.floor_comparison import OWN, headline_statistic
from visual_search.retrieval.report import RetrievalReport, headline_intervals
from visual_search.retrieval.report_files import LIST_COLUMNS
from visual_search.retrieval.resampling import STATISTICS, Draws
from visual_search.retrieval.statistics import NUM_RESAMPLES, align_queries

AVERAGED = ("val_loss", "test_loss", "embedding_ms_per_item", "epochs")  # beside all the means


def over_seeds(
    reports: Mapping[str, RetrievalReport],
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> RetrievalReport:
    """Returns the mean of several runs' reports: of every query, category and number.

    ``summary["seeds"]`` says how many runs there are, and the standard deviation over them of the
    headline's micro and macro mean, (sum (m - mean)^2 / (n - 1))^0.5; it is NaN where one has no
    number. The intervals are those of the mean over the seeds, for other queries: how far
    another seed would move it is the standard deviation's to say. What a single run found (its
    neighbours) is left out. A floor is the first run's, but of the runs' own untrained networks
    the best.

    Args:
        reports: Run -> its report, of at least one, on the same queries.
        num_resamples: As `statistics.bootstrap_interval`.
        confidence: As there.
        seed: Of the flips.

    Raises:
        NotComparableError: They were not measured alike.
        ValueError: There is none, or their queries differ.
    """
    if not reports:
        raise ValueError("there is no report; expected one or more: name a run")
    check_comparable({name: identity_of(report.summary) for name, report in reports.items()})
    names, held = list(reports), list(reports.values())
    first = held[0]
    aligned = [first.per_query]
    for name, report in zip(names[1:], held[1:], strict=True):
        try:
            aligned.append(align_queries(first.per_query, report.per_query)[1])
        except ValueError as error:
            raise ValueError(f"runs {names[0]!r} (a) and {name!r} (b): {error}") from error
    lists = [column for column in LIST_COLUMNS if column in first.per_query]
    mean = RetrievalReport(
        _mean([table.reset_index(drop=True) for table in aligned]).drop(columns=lists),
        _mean([report.per_category for report in held]),
        _mean_summary([report.summary for report in held]),
    )
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    mean.summary["intervals"] = headline_intervals(mean, draws)
    return mean


def _mean(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first table with the mean over all of every column of fractions."""
    found = tables[0].copy()
    for column in found.columns:
        if found[column].dtype.kind == "f" and all(column in table for table in tables):
            found[column] = sum(table[column].to_numpy() for table in tables) / len(tables)
    return found


def _mean_summary(summaries: Sequence[Summary]) -> Summary:
    found: dict[str, Any] = {**summaries[0]}
    for key in found:
        if key.startswith(("micro_", "macro_")) or key in AVERAGED:
            values = [number_in(summary, key) for summary in summaries]
            found[key] = math.fsum(values) / len(values)
    headline = summaries[0]["headline"]
    spread: dict[str, float] = {}
    for mean in STATISTICS:
        values = [number_in(summary, f"{mean}_{headline['mean']}") for summary in summaries]
        known = len(values) > 1 and not any(map(math.isnan, values))
        spread[mean] = statistics.stdev(values) if known else math.nan
    found["seeds"] = SeedSpread(
        num_runs=len(summaries), micro=spread["micro"], macro=spread["macro"]
    )
    found["floors"] = _floors(summaries)
    return cast("Summary", found)


def _floors(summaries: Sequence[Summary]) -> list[MeasuredFloor]:
    headline = summaries[0]["headline"]
    key = f"{headline_statistic(headline['title'])}_{headline['mean']}"
    found: dict[str, MeasuredFloor] = {}
    for summary in summaries:
        for floor in summary.get("floors") or []:
            best = found.setdefault(floor["name"], floor)
            if floor["name"] in OWN and number_in(floor, key) > number_in(best, key):
                found[floor["name"]] = floor
    return list(found.values())
