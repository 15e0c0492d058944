"""A leaderboard: runs ranked beside their floors, one table for every way of measuring.

Only runs of the same data, gallery, queries, protocol and k stand in one table. A rank alone
overstates: a run that is not shown to differ from the one above it carries a mark.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from visual_search.reading import Identity, MeasuredFloor, Summary, ends_of, number_in
from visual_search.retrieval.comparability import MUST_AGREE, check_comparable, identity_of
from visual_search.retrieval.comparison import ComparedBy, headline_of
from visual_search.retrieval.floor_comparison import (
    OWN,
    check_columns,
    right_by_definition,
)
from visual_search.retrieval.resampling import STATISTICS, Statistic
from visual_search.retrieval.statistics import (
    NUM_PERMUTATIONS,
    NUM_RESAMPLES,
    Compared,
    align_queries,
    holm,
    paired_difference,
)
from visual_search.wording import as_float, rough_text, sign_shown

FLOOR = "floor"
KEY = ("data", *MUST_AGREE)
COLUMNS: dict[str, str | type] = {
    "rank": "Int64",
    "name": object,
    "is_floor": bool,
    "kind": object,
    **{f"{mean}{end}": float for mean in STATISTICS for end in ("", "_low", "_high")},
    "precision": float,
    "hit_at_1": float,
    "dim": "Int64",
    "index_bytes": "Int64",
    "embedding_ms_per_item": float,
    "epochs": "Int64",
    "finished": object,
    "path": object,
    "tied_with_above": bool,
}
TESTED_RULE = (
    "=: no difference shown from the run above (paired test on the same queries, Holm over the "
    "neighbours in the table)."
)
INTERVAL_RULE = "=: its interval overlaps that of the run above (no values a query to test with)."


@dataclass(frozen=True, eq=False)
class Entry:
    """One evaluated run.

    Attributes:
        path: Its folder, which tells it from others.
        name: What it is called, such as its experiment.
        summary: Of its report.
        finished: When it was evaluated, in ISO 8601; without a zone it is UTC.
        kind: What it is, such as ``run`` or ``encoder``; shown as it is.

    Raises:
        ValueError: ``finished`` is not in ISO 8601.
    """

    path: str
    name: str
    summary: Summary
    finished: str
    kind: str = "run"

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.finished)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} finished at {self.finished!r}; expected ISO 8601, such as "
                "2024-05-31T09:30:00+00:00: evaluate the run again"
            ) from error

    @property
    def finished_at(self) -> datetime:
        """The time with its zone."""
        moment = datetime.fromisoformat(self.finished)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class RankedGroup:
    """The runs of one data, gallery, queries, protocol and k.

    Attributes:
        identity: ``data``, ``gallery``, ``queries``, ``protocol``, ``k``, ``protocol_name``, ....
        headline: As `comparison.headline_of`; runs are ranked by its ``statistic``.
        num_queries: Scored queries.
        num_left_out: Queries without a relevant item.
        num_groups: Groups of the scored queries; None where the summary has no intervals.
        num_gallery: Items that are searched.
        rules: Sentences that explain the table: the headline, micro and macro, the mark.
        table: Best first, floors among the runs: ``rank`` (NA for a floor and for a run without a
            scored query; runs of the same value share it), ``name``, ``is_floor``, ``kind``,
            ``micro``, ``micro_low``, ``micro_high``, ``macro``, ``macro_low``, ``macro_high``,
            ``precision`` (micro, at k), ``hit_at_1`` (micro), ``dim``, ``index_bytes``,
            ``embedding_ms_per_item``, ``epochs``, ``finished``, ``path``, ``tied_with_above`` (not
            shown to differ from the next run above, floors passed over). What an entry does not
            say is NaN or NA.
    """

    identity: Identity
    headline: ComparedBy
    num_queries: int
    num_left_out: int
    num_groups: int | None
    num_gallery: int
    rules: tuple[str, ...]
    table: pd.DataFrame


def rank(
    entries: Sequence[Entry],
    per_query: Mapping[str, pd.DataFrame] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[RankedGroup]:
    """Returns the leaderboard's tables, sorted by data, protocol and k.

    Runs are ranked by the headline's micro mean, under ``reference_2023`` by its macro mean. The
    order of the entries changes nothing. Whether a run is shown to differ from the run above it is
    a paired test (`statistics.paired_difference`, corrected by Holm over all such neighbours of a
    table, and `wording.sign_shown`) where both have ``per_query``; else overlapping intervals, or
    none, count as not shown, which is the more careful of the two.

    A floor is taken from the newest run that has it, since floors do not depend on the run. The
    untrained network does: it stands once a run's name, with the highest value among its runs.

    Args:
        entries: Evaluated runs; none give no table.
        per_query: Path of a run -> its report's ``per_query``.
        num_resamples: As `statistics.bootstrap_interval`.
        num_permutations: As `statistics.paired_difference`.
        confidence: Of the differences' intervals.
        seed: Of draws and flips.

    Raises:
        NotComparableError: A run has no identity (an older one); see `comparability.identity_of`.
        ValueError: Two entries have one path, a summary has no headline, two runs of one table have
            different headlines or different ``per_query`` queries, or a setting is none of those
            above.
    """
    paths = [entry.path for entry in entries]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"path {twice[0]!r} stands twice among the entries; expected each once")
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        identity = identity_of(entry.summary)
        check_comparable({entry.name: identity}, {entry.name: entry.path})
        groups.setdefault(tuple(identity.get(part) for part in KEY), []).append(entry)
    compared = functools.partial(
        paired_difference,
        num_resamples=num_resamples,
        num_permutations=num_permutations,
        confidence=confidence,
        seed=seed,
    )
    found = [_group(members, per_query or {}, compared) for members in groups.values()]
    return sorted(found, key=_group_order)


def _group_order(group: RankedGroup) -> tuple[str, str, int, list[str]]:
    identity = group.identity
    hashes = [str(identity[part]) for part in ("protocol", "gallery", "queries")]
    return str(identity.get("data")), str(identity.get("protocol_name")), identity["k"], hashes


def _group(
    entries: Sequence[Entry], per_query: Mapping[str, pd.DataFrame], compared: Compared
) -> RankedGroup:
    newest = max(entries, key=lambda entry: (entry.finished_at, entry.path))
    headline = headline_of(newest.summary)
    for entry in entries:
        if (title := headline_of(entry.summary)["title"]) != headline["title"]:
            raise ValueError(
                f"{entry.path} has the headline {title}, and {newest.path} {headline['title']}; "
                "expected the same for one protocol: evaluate both again"
            )
    statistic, k = headline["statistic"], newest.summary["k"]
    runs = [_run_line(entry, k) for entry in entries]
    runs.sort(key=lambda line: (_descending(line.numbers[statistic]), line.name, line.path))
    values = [line.numbers[statistic] for line in runs]
    for line, value in zip(runs, values, strict=True):
        if not math.isnan(value):
            line.others["rank"] = 1 + sum(other > value for other in values)
    tested = _mark_ties(runs, statistic, headline["column"], per_query, compared)
    lines = runs + _floor_lines(entries, headline["mean"], statistic, k)
    lines.sort(
        key=lambda line: (
            _descending(line.numbers[statistic]),
            not line.others["is_floor"],
            line.name,
            line.path,
        )
    )
    rows = [{"name": line.name, "path": line.path, **line.numbers, **line.others} for line in lines]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    summary = newest.summary
    interval = (summary.get("intervals") or {}).get(statistic) or {}
    rules = [f"{headline['title']}: {headline['definition']}".rstrip(": ")]
    rules += [(summary.get("rules") or {}).get(mean, "") for mean in STATISTICS]
    if said := right_by_definition(summary):
        rules.insert(0, said)
    if rough := rough_text(interval):
        rules.append(f"Intervals: {rough}.")
    rules += [TESTED_RULE] * (True in tested) + [INTERVAL_RULE] * (False in tested)
    return RankedGroup(
        identity=identity_of(summary),
        headline=headline,
        num_queries=int(summary["num_queries_scored"]),
        num_left_out=int(summary["num_left_out"]),
        num_groups=interval.get("num_groups"),
        num_gallery=int(summary["num_gallery"]),
        rules=tuple(rule for rule in rules if rule),
        table=table,
    )


@dataclass
class _Line:
    """A run or a floor as it is ranked: its name, its numbers, the table's other columns."""

    name: str
    path: str
    numbers: Mapping[str, float]
    others: dict[str, object]


def _run_line(entry: Entry, k: int) -> _Line:
    summary = entry.summary
    numbers = {
        "precision": number_in(summary, f"micro_precision_at_{k}"),
        "hit_at_1": number_in(summary, "micro_hit_at_1"),
        "embedding_ms_per_item": number_in(summary, "embedding_ms_per_item"),
    }
    mean_name = headline_of(summary)["mean"]
    numbers |= _means(summary, mean_name)
    others = {
        "is_floor": False,
        "kind": entry.kind,
        "dim": summary.get("embedding_dim"),
        "index_bytes": (summary.get("index") or {}).get("bytes"),
        "epochs": summary.get("epochs"),
        "finished": entry.finished,
        "tied_with_above": False,
    }
    return _Line(entry.name, entry.path, numbers, others)


def _means(measured: Summary | MeasuredFloor, name: str) -> dict[str, float]:
    """The columns of both means with their intervals."""
    numbers: dict[str, float] = {}
    for mean in STATISTICS:
        ends = ends_of(measured, mean)
        numbers[mean] = number_in(measured, f"{mean}_{name}")
        numbers |= {f"{mean}_low": as_float(ends["low"]), f"{mean}_high": as_float(ends["high"])}
    return numbers


def _floor_lines(
    entries: Sequence[Entry], mean_name: str, statistic: Statistic, k: int
) -> list[_Line]:
    found: dict[str, _Line] = {}
    for entry in sorted(entries, key=lambda one: (one.finished_at, one.path)):  # the newest last
        for floor in entry.summary.get("floors") or []:
            name, own = floor["name"], floor["name"] in OWN
            label = f"{name.replace('_', ' ')} {entry.name}" if own else floor.get("title", name)
            numbers = {
                "precision": number_in(floor, f"micro_precision_at_{k}"),
                "hit_at_1": number_in(floor, "micro_hit_at_1"),
            }
            numbers |= _means(floor, mean_name)
            others = {
                "is_floor": True,
                "kind": FLOOR,
                "dim": floor.get("dim"),
                "finished": entry.finished,
                "tied_with_above": False,
            }
            key = f"{name}\x1f{entry.name}" if own else name
            best, older = _descending(numbers[statistic]), found.get(key)
            if not (own and older and _descending(older.numbers[statistic]) < best):
                found[key] = _Line(label, entry.path, numbers, others)
    return list(found.values())


def _mark_ties(
    runs: Sequence[_Line],
    statistic: Statistic,
    column: str,
    per_query: Mapping[str, pd.DataFrame],
    compared: Compared,
) -> set[bool]:
    """Sets ``tied_with_above``; gives which ways were used: True tested, False by intervals."""
    used, tests = set(), []
    for above, line in itertools.pairwise(runs):
        if math.isnan(line.numbers[statistic]):
            continue
        tables = [per_query[run.path] for run in (above, line) if run.path in per_query]
        used.add(len(tables) == 2)
        if len(tables) == 2:
            try:
                for table in tables:
                    check_columns(table, ["query_id", "category", "group", column])
                a, b = align_queries(*tables)
                labels = a["group"], a["category"]
                found = compared(a[column], b[column], *labels, statistic)
            except ValueError as error:
                raise ValueError(f"runs {above.path} (a) and {line.path} (b): {error}") from error
            tests.append((line, found))
        else:  # written so that NaN counts as overlap
            ends = line.numbers[f"{statistic}_high"], above.numbers[f"{statistic}_low"]
            line.others["tied_with_above"] = not ends[0] < ends[1]
    corrected = holm([found.p_value for _, found in tests])
    for (line, found), p_holm in zip(tests, corrected, strict=True):
        shown = sign_shown(found.difference, found.low, found.high, float(p_holm))
        line.others["tied_with_above"] = shown == 0
    return used


def _descending(value: float) -> float:
    """A sort key: the highest first, NaN last."""
    return math.inf if math.isnan(value) else -value
