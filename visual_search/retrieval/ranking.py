"""A leaderboard: runs ranked beside their floors, one table for every way of measuring.

Only runs of the same data, gallery, queries, protocol and k stand in one table. A rank alone
overstates: beside it stand the ranks that the queries leave a run, and whether one of them is the
first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.reading import Identity, MeasuredFloor, Summary, ends_of, number_in
from visual_search.retrieval.comparability import MUST_AGREE, check_comparable, identity_of
from visual_search.retrieval.comparison import ComparedBy, headline_of
from visual_search.retrieval.floor_comparison import (
    OWN,
    check_columns,
    right_by_definition,
)
from visual_search.retrieval.resampling import STATISTICS, Draws, Statistic
from visual_search.retrieval.statistics import NUM_RESAMPLES, align_queries, rank_intervals
from visual_search.wording import as_float, many, rough_text

FLOOR = "floor"
KEY = ("data", *MUST_AGREE)
COLUMNS: dict[str, str | type] = {
    "rank": "Int64",
    "rank_low": "Int64",
    "rank_high": "Int64",
    "for_the_top": bool,
    "name": object,
    "is_floor": bool,
    "kind": object,
    **{f"{mean}{end}": float for mean in STATISTICS for end in ("", "_low", "_high", "_sd")},
    "num_runs": "Int64",
    "precision": float,
    "hit_at_1": float,
    "dim": "Int64",
    "index_bytes": "Int64",
    "embedding_ms_per_item": float,
    "epochs": "Int64",
    "finished": object,
    "path": object,
}
TIED = "="  # before the rank of a run that is not told apart from the first
RANK_RULE = (
    "ranks: with {} % confidence every run's true rank lies within its own (paired on the same "
    f"queries, whole groups flipped, all pairs at once). {TIED}: the first rank is among them, so "
    "the run is not told apart from the first."
)
SEED_RULE = (
    "n: runs that differ in the seed alone, of which the row is the mean; SD is over their means. "
    "Intervals and ranks are those of the mean, for other queries: other seeds move it besides."
)


@dataclass(frozen=True, eq=False)
class Entry:
    """One evaluated run, or several that differ in the seed alone (`seeds.over_seeds`).

    Attributes:
        path: Its folder, which tells it from others; of several the first one's.
        name: What it is called, such as its experiment.
        summary: Of its report.
        finished: When it was evaluated, in ISO 8601; without a zone it is UTC.
        kind: What it is, such as ``run`` or ``encoder``; shown as it is.
        settings: What tells it from others of its name, as ``model.width=8``.

    Raises:
        ValueError: ``finished`` is not in ISO 8601.
    """

    path: str
    name: str
    summary: Summary
    finished: str
    kind: str = "run"
    settings: str = ""

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.finished)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} finished at {self.finished!r}; expected ISO 8601, such as "
                "2024-05-31T09:30:00+00:00: evaluate the run again"
            ) from error

    @property
    def full_name(self) -> str:
        """The name with the settings that tell it from others of that name."""
        return " ".join(part for part in (self.name, self.settings) if part)

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
        rules: Sentences that explain the table: the headline, micro and macro, ranks, seeds.
        table: Best first, floors among the runs: ``rank`` (NA for a floor and for a run without a
            scored query; runs of the same value share it), ``rank_low`` and ``rank_high`` (the
            ranks that the queries leave it; as NA), ``for_the_top`` (the first is one of them),
            ``name``, ``is_floor``, ``kind``, ``micro``, ``micro_low``, ``micro_high``,
            ``micro_sd`` (over seeds), ``macro`` and likewise, ``num_runs`` (that the row is the
            mean of), ``precision`` (micro, at k), ``hit_at_1`` (micro), ``dim``, ``index_bytes``,
            ``embedding_ms_per_item``, ``epochs``, ``finished``, ``path``. What an entry does not
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
    confidence: float = 0.95,
    seed: int = 0,
) -> list[RankedGroup]:
    """Returns the leaderboard's tables, sorted by data, protocol and k.

    Runs are ranked by the headline's micro mean, under ``reference_2023`` by its macro mean. The
    order of the entries changes nothing. The ranks that a run may have are
    `statistics.rank_intervals` of the runs that have ``per_query``; of another nothing is shown.

    A floor is taken from the newest run that has it, since floors do not depend on the run. The
    untrained network does: it stands once a run's name and value, the highest of a name's settings
    where they differ.

    Args:
        entries: Evaluated runs; none give no table.
        per_query: Path of a run -> its report's ``per_query``.
        num_resamples: As `statistics.rank_intervals`.
        confidence: Of the ranks.
        seed: Of flips.

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
        groups.setdefault(question_of(entry.summary), []).append(entry)
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    found = [_group(members, per_query or {}, draws) for members in groups.values()]
    return sorted(found, key=_group_order)


def question_of(summary: Summary) -> tuple[object, ...]:
    """Returns what two summaries must share to stand in one table."""
    identity = identity_of(summary)
    return tuple(identity.get(part) for part in KEY)


def _group_order(group: RankedGroup) -> tuple[str, str, int, list[str]]:
    identity = group.identity
    hashes = [str(identity[part]) for part in ("protocol", "gallery", "queries")]
    return str(identity.get("data")), str(identity.get("protocol_name")), identity["k"], hashes


def _group(
    entries: Sequence[Entry], per_query: Mapping[str, pd.DataFrame], draws: Draws
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
    _find_ranks(runs, statistic, headline["column"], per_query, draws)
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
    if len(runs) > 1:
        rules.append(RANK_RULE.format(f"{100 * draws['confidence']:g}"))
    if any(entry.summary.get("seeds") for entry in entries):
        rules.append(SEED_RULE)
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
    mean_name, epochs = headline_of(summary)["mean"], summary.get("epochs")
    numbers |= _means(summary, mean_name)
    others = {
        "is_floor": False,
        "kind": entry.kind,
        "dim": summary.get("embedding_dim"),
        "index_bytes": (summary.get("index") or {}).get("bytes"),
        "epochs": None if epochs is None else round(epochs),
        "finished": entry.finished,
        "for_the_top": False,
        "num_runs": 1,
    }
    if seeds := summary.get("seeds"):
        others["num_runs"] = seeds["num_runs"]
        numbers |= {f"{mean}_sd": as_float(seeds[mean]) for mean in STATISTICS}
    return _Line(entry.full_name, entry.path, numbers, others)


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
    found: dict[object, _Line] = {}
    best: dict[tuple[str, str, str], tuple[Entry, MeasuredFloor]] = {}
    for entry in sorted(entries, key=lambda one: (one.finished_at, one.path)):  # the newest last
        for floor in entry.summary.get("floors") or []:
            if floor["name"] not in OWN:
                label = floor.get("title", floor["name"])
                found[floor["name"]] = _floor_line(label, entry, floor, mean_name, k)
                continue
            key = floor["name"], entry.name, entry.settings
            value = _descending(number_in(floor, f"{statistic}_{mean_name}"))
            older = best.get(key)
            if older and _descending(number_in(older[1], f"{statistic}_{mean_name}")) < value:
                continue
            best[key] = entry, floor
    # Settings that the untrained network does not feel, such as the rate, give one row.
    alike: dict[tuple[object, ...], list[tuple[Entry, MeasuredFloor]]] = {}
    for (name, run, _), (entry, floor) in best.items():
        reached = str(number_in(floor, f"{statistic}_{mean_name}"))
        alike.setdefault((name, run, reached, floor.get("dim")), []).append((entry, floor))
    several = Counter(same[:2] for same in alike)
    for same, members in alike.items():
        entry, floor = members[-1]
        of = entry.name
        if several[same[:2]] > 1:
            more = len(members) - 1
            of = entry.full_name + f" and {many(more, 'other')}" * bool(more)
        label = f"{floor['name'].replace('_', ' ')} {of}".strip()
        found[same] = _floor_line(label, entry, floor, mean_name, k)
    return list(found.values())


def _floor_line(label: str, entry: Entry, floor: MeasuredFloor, mean_name: str, k: int) -> _Line:
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
        "for_the_top": False,
    }
    return _Line(label, entry.path, numbers, others)


def _find_ranks(
    runs: Sequence[_Line],
    statistic: Statistic,
    column: str,
    per_query: Mapping[str, pd.DataFrame],
    draws: Draws,
) -> None:
    """Sets ``rank_low``, ``rank_high`` and ``for_the_top`` of the runs that have a rank."""
    ranked = [line for line in runs if not math.isnan(line.numbers[statistic])]
    tested = [line for line in ranked if line.path in per_query]
    ranks = np.ones((len(tested), 2), dtype=np.int64)
    if len(tested) > 1:
        ranks = _tested_ranks(tested, statistic, column, per_query, draws)
    untested = len(ranked) - len(tested)
    for line in ranked:
        line.others |= {"rank_low": 1, "rank_high": len(ranked), "for_the_top": True}
    for line, (low, high) in zip(tested, ranks.tolist(), strict=True):
        line.others |= {"rank_low": low, "rank_high": high + untested, "for_the_top": low == 1}


def _tested_ranks(
    runs: Sequence[_Line],
    statistic: Statistic,
    column: str,
    per_query: Mapping[str, pd.DataFrame],
    draws: Draws,
) -> NDArray[np.int64]:
    first = per_query[runs[0].path]
    aligned = []
    for line in runs:
        try:
            for table in (first, per_query[line.path]):
                check_columns(table, ["query_id", "category", "group", column])
            aligned.append(align_queries(first, per_query[line.path])[1][column])
        except ValueError as error:
            raise ValueError(f"runs {runs[0].path} (a) and {line.path} (b): {error}") from error
    try:
        return rank_intervals(aligned, first["group"], first["category"], statistic, **draws)
    except ValueError as error:
        paths = ", ".join(line.path for line in runs)
        raise ValueError(f"of the runs {paths}: {error}") from error


def _descending(value: float) -> float:
    """A sort key: the highest first, NaN last."""
    return math.inf if math.isnan(value) else -value
