"""Where a run stands against its floors: the embeddings that learn nothing, on the same queries.

A floor says what a number is worth: an mAP@5 of 0.33 is poor where gradients of grey values alone
reach 0.72. One sentence says which of the two is better, or that the queries do not tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from visual_search.reading import Summary
from visual_search.retrieval.resampling import STATISTICS, Draws, Statistic
from visual_search.retrieval.statistics import (
    NUM_PERMUTATIONS,
    NUM_RESAMPLES,
    align_queries,
    bootstrap_interval,
    holm,
    paired_difference,
)
from visual_search.wording import SAME_ANSWERS, difference, interval, number, p_value, sign_shown

# The floors that are the run's own network before its first step, and what they are called.
OWN = {
    "untrained": "its own untrained network",
    "not_adapted": "its own pretrained network, not adapted",
}
STUDY_RULE = "reference_2023"  # the study of 2023 averaged over categories
NO_INTERVAL = "(no interval)"
WORDS = {1: "above", 0: "not told apart from", -1: "below"}

DIFFERENCE = ["difference", "difference_low", "difference_high"]
FLOOR_COLUMNS = [
    "name",
    *(f"{statistic}{end}" for statistic in STATISTICS for end in ("", "_low", "_high")),
    "statistic",
    *DIFFERENCE,
    "p_value",
    "p_holm",
]


def headline_statistic(title: str) -> Statistic:
    """Returns the mean that a headline's verdict is about: macro for the study's rule, else micro.

    Args:
        title: The headline's column, mean or title; the study's rule has one name for all three.

    Example:
        >>> headline_statistic("mAP@5"), headline_statistic("reference_2023")
        ('micro', 'macro')
    """
    return "macro" if title == STUDY_RULE else "micro"


def p_text(p: float) -> str:
    """Returns a p-value in words.

    Example:
        >>> p_text(0.0001), p_text(0.0312), p_text(float("nan"))
        ('p < 0.001', 'p = 0.031', 'not tested')
    """
    if math.isnan(p):
        return "not tested"
    return f"p {'= ' * (p >= 0.001)}{p_value(p)}"


def right_by_definition(summary: Summary) -> str:
    """Returns what must stand beside numbers that no embedding can miss, or nothing.

    Args:
        summary: `RetrievalReport.summary`; an older one, without ``all_relevant``, says nothing.

    Example:
        >>> right_by_definition({"all_relevant": False, "headline": {"title": "mAP@5"}})
        ''
    """
    if not summary.get("all_relevant"):
        return ""
    return (
        f"{summary['headline']['title']}: every item that a query may find is relevant to it, as "
        "where there is one category, so every answer is right by definition, and nothing can be "
        "said of the embedding."
    )


def difference_text(value: float, low: float, high: float, p: float) -> str:
    """Returns a difference with its interval and p-value in words.

    Example:
        >>> difference_text(-0.396, -0.42, -0.37, 0.0002)
        'difference -0.396 [-0.420, -0.370], p < 0.001'
    """
    found = difference(value, low, high, none=NO_INTERVAL)
    if found == SAME_ANSWERS:
        return f"difference 0: {SAME_ANSWERS}"
    return f"difference {found}, {p_text(p)}"


class _Line(NamedTuple):
    """A floor as `standing` speaks of it."""

    title: str
    value: float
    own: bool
    difference: float
    low: float
    high: float
    p_holm: float

    @property
    def sign(self) -> int:
        return sign_shown(self.difference, self.low, self.high, self.p_holm)

    @property
    def test(self) -> str:
        return difference_text(self.difference, self.low, self.high, self.p_holm)


def floor_differences(
    run_per_query: pd.DataFrame,
    floors: pd.DataFrame,
    headline_column: str = "average_precision",
    *,
    statistic: Statistic | None = None,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    confidence: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Measures every floor, and the run against it, on the same queries.

    Formula and source: `statistics.bootstrap_interval`, `statistics.paired_difference` and
    `statistics.holm`. Empty case: where no query is scored, all numbers are NaN; without a floor
    the table has no row.

    Args:
        run_per_query: A report's ``per_query``: ``query_id``, ``category``, ``group`` and the
            headline's column.
        floors: ``query_id`` and one float column in [0, 1] a floor, in any row order; NaN for the
            same queries as the run.
        headline_column: Column of ``run_per_query``.
        statistic: Mean that the difference is of; by default `headline_statistic` of the column.
        num_resamples: As `statistics.bootstrap_interval`.
        num_permutations: As `statistics.paired_difference`.
        confidence: Of the intervals.
        seed: Of draws and flips.
        on_progress: Called with (floors done, floors) after each.

    Returns:
        One row a floor, in the columns' order: ``name``, ``micro``, ``micro_low``, ``micro_high``,
        ``macro``, ``macro_low``, ``macro_high``, ``statistic``, ``difference`` (run minus floor, of
        that statistic), ``difference_low``, ``difference_high``, ``p_value`` (of one test),
        ``p_holm`` (corrected over the floors, which is what `standing` uses).

    Raises:
        ValueError: A column is missing, the queries of run and floors differ, a floor leaves other
            queries out than the run, or a value or setting is none of those above.

    Example:
        >>> run = pd.DataFrame({"query_id": ["x", "y"], "category": ["hat", "hat"],
        ...                     "group": ["g", "h"], "average_precision": [0.5, 1.0]})
        >>> floors = pd.DataFrame({"query_id": ["y", "x"], "random": [0.25, 0.25]})
        >>> table = floor_differences(run, floors)
        >>> table[["name", "micro", "difference", "p_value"]].values.tolist()
        [['random', 0.25, 0.5, 0.5]]
    """
    check_columns(run_per_query, ["query_id", "category", "group", headline_column])
    run, beside = align_queries(run_per_query, floors)
    names = [column for column in floors.columns if column != "query_id"]
    of = headline_statistic(headline_column) if statistic is None else statistic
    labels = run["group"], run["category"]
    ours = run[headline_column].to_numpy(dtype=np.float64)  # [Q]
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    lines: list[dict[str, object]] = []
    for name in names:
        theirs = beside[name].to_numpy(dtype=np.float64)  # [Q]
        line: dict[str, object] = dict.fromkeys(FLOOR_COLUMNS, math.nan)
        line |= {"name": name, "statistic": of}
        if not (np.isnan(ours).all() and np.isnan(theirs).all()):
            try:
                found = paired_difference(
                    ours, theirs, *labels, of, num_permutations=num_permutations, **draws
                )
                for mean in STATISTICS:
                    ends = bootstrap_interval(theirs, *labels, mean, **draws)
                    line |= {mean: ends.mean, f"{mean}_low": ends.low, f"{mean}_high": ends.high}
            except ValueError as error:
                raise ValueError(f"run (a) against the floor {name!r} (b): {error}") from error
            line |= dict(zip(DIFFERENCE, (found.difference, found.low, found.high), strict=True))
            line["p_value"] = found.p_value
        lines.append(line)
        if on_progress is not None:
            on_progress(len(lines), len(names))
    table = pd.DataFrame(lines, columns=FLOOR_COLUMNS)
    table = table.astype({"name": object, "statistic": object})
    tested = table["p_value"].notna()
    table["p_holm"] = math.nan
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p_value"].to_numpy(dtype=np.float64))
    return table


def standing(
    title: str,
    run_value: float,
    run_interval: tuple[float, float],
    floors: pd.DataFrame,
    *,
    titles: Mapping[str, str] | None = None,
    rough: str = "",
) -> str:
    """Says in one sentence where a run stands against the best floor and its untrained network.

    The best floor is the one with the highest mean of the statistic that the differences are of
    (the first of equal ones). p is the one that Holm corrected over all floors (``p_holm``); above
    or below is said where `sign_shown` shows it, and else "not told apart", which is not "equal".

    Args:
        title: Of the headline, such as ``mAP@5``.
        run_value: The run's own mean: micro, but macro for ``reference_2023``.
        run_interval: Its ends, NaN where there is none.
        floors: From `floor_differences`.
        titles: Floor -> what it is called in the sentence; by default its name.
        rough: Of the run's interval, from `rough_text`.

    Raises:
        ValueError: A column of `floor_differences` is missing.

    Example:
        >>> floors = pd.DataFrame({
        ...     "name": ["hog_pca_256_unit", "untrained"], "statistic": ["micro", "micro"],
        ...     "micro": [0.722, 0.489], "difference": [-0.396, -0.163],
        ...     "difference_low": [-0.42, -0.18], "difference_high": [-0.37, -0.14],
        ...     "p_holm": [0.0002, 0.0002]})
        >>> print(standing("mAP@5", 0.326, (0.304, 0.349), floors,
        ...                titles={"hog_pca_256_unit": "HOG + PCA-256 + unit length"}))
        mAP@5 0.326 [0.304, 0.349]: below HOG + PCA-256 + unit length (0.722; difference -0.396 \
[-0.420, -0.370], p < 0.001), and below its own untrained network (0.489, p < 0.001).
    """
    if math.isnan(run_value):
        return f"{title}: no query is scored, so nothing can be said."
    ends = interval(*run_interval, none=NO_INTERVAL)
    start = f"{title} {number(run_value)} {ends}"
    if rough and ends != NO_INTERVAL:
        start += f" ({rough})"
    if floors.empty:
        return f"{start}: no floor was measured, so nothing can be said of where it stands."
    check_columns(floors, ["name", "statistic", *DIFFERENCE, "p_holm"])
    statistic = str(floors["statistic"].iloc[0])
    check_columns(floors, [statistic])
    if statistic == "macro":
        start += " (mean over the categories)"
    lines = []
    for row in floors.to_dict("records"):
        test = tuple(float(row[column]) for column in [*DIFFERENCE, "p_holm"])
        own = row["name"] in OWN
        called = OWN.get(row["name"]) or (titles or {}).get(row["name"], row["name"])
        lines.append(_Line(called, float(row[statistic]), own, *test))
    best = max(lines, key=lambda line: line.value)  # the first of equal ones
    reached = f"({number(best.value)}; {best.test})"
    if all(line.sign > 0 for line in lines):
        reaches = f"{best.title}, reaches {number(best.value)} ({best.test})"
        return f"{start}: above every floor: the best, {reaches}."
    called = best.title if best.sign < 0 else f"the best floor, {best.title}"
    clauses = [f"{WORDS[best.sign]} {called} {reached}"]
    last = best.sign
    for line in lines:
        odd = best.sign > 0 and line.sign <= 0  # the best is beaten, but not this one
        if line is not best and (line.own or odd):
            join = "and" if line.sign == last else "but"
            found = f"{number(line.value)}, {p_text(line.p_holm)}"
            clauses.append(f"{join} {WORDS[line.sign]} {line.title} ({found})")
            last = line.sign
    return f"{start}: {', '.join(clauses)}."


def check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Holds a table to the columns that are read from it.

    Raises:
        ValueError: One is missing.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"the table has the columns {list(table.columns)} and not {missing}; expected them "
            "too: if the run was evaluated by an older version, evaluate it again"
        )
