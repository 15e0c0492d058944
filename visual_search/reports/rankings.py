"""The leaderboard: finished runs gathered from a folder, ranked, printed and written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from visual_search.config.builders import ConfigError
from visual_search.config.schemas import LeaderboardSchema
from visual_search.reports.leaderboard_files import (
    RankedRun,
    has_seeds,
    label,
    leaderboard_table,
    protocol_of,
    runs_csv,
    runs_table,
    to_csv,
    to_markdown,
)
from visual_search.wording import listed, many, number

if TYPE_CHECKING:
    from visual_search.retrieval.ranking import Entry, RankedGroup
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.runs.run import Run
    from visual_search.runs.variants import Variant

_MOST_NAMED = 5  # runs in a sentence
MARKDOWN_FILE, CSV_FILE, HTML_FILE = "leaderboard.md", "leaderboard.csv", "leaderboard.html"
RUNS_FILE = "leaderboard_runs.csv"


@dataclass(frozen=True)
class Leaderboard:
    """Ranked runs and where the tables were written.

    Attributes:
        folder: With ``leaderboard.md``, ``.csv``, ``.html`` and ``leaderboard_runs.csv``.
        groups: One table for every way of measuring, a row for runs that differ in the seed alone.
        runs: Path of a row -> its runs, by seed.
        left_out: (folder, reason) of what could not be ranked.
    """

    folder: Path
    groups: list[RankedGroup]
    runs: Mapping[str, Sequence[RankedRun]]
    left_out: list[tuple[str, str]]


def rank_runs(settings: LeaderboardSchema) -> Leaderboard:
    """Ranks every finished run below a folder, from what it stored; no model is touched.

    Args:
        settings: The composed ``conf/leaderboard.yaml``.

    Raises:
        ConfigError: There is no such folder, or nothing in it can be ranked.
    """
    outputs = Path(settings.outputs)
    if not outputs.is_dir():
        raise ConfigError(f"no folder at {outputs}; expected the folder with the runs")
    folder = Path(settings.out or outputs)
    return rank_these(_runs(outputs), folder, seed=settings.seed, searched=outputs)


def rank_these(
    runs: Iterable[Run], folder: Path, *, seed: int, searched: Path | None = None
) -> Leaderboard:
    """Ranks runs from what they stored, and writes the tables.

    Runs that differ in the seed alone are ranked as one; others of one name are told apart by the
    settings in which they differ.

    Args:
        runs: What is not finished or holds no numbers is left out.
        folder: Of the tables.
        seed: Of resamples and permutations.
        searched: Where the runs were looked for, for the message that there is none; the folder.

    Raises:
        ConfigError: None of them can be ranked.
    """
    from visual_search.retrieval.ranking import question_of, rank
    from visual_search.runs.variants import variant_of

    tables: dict[object, list[_Ranked]] = {}
    left_out = []
    for run in runs:
        try:
            report = ranked_report(run)
            found = _Ranked(run, report, variant_of(run))
        except (OSError, ValueError) as error:
            left_out.append((str(run.folder), " ".join(str(error).split())))
            continue
        tables.setdefault(question_of(report.summary), []).append(found)
    if not tables:
        reasons = "".join(f"\n  {path}: {reason}" for path, reason in left_out[:10])
        raise ConfigError(
            f"no finished run with numbers below {searched or folder}; expected at least one; "
            f"train one with python -m visual_search.train{reasons}"
        )
    entries, per_query, members = [], {}, {}
    for ranked in tables.values():
        for entry, report, its_runs in _rows(ranked, seed):
            entries.append(entry)
            per_query[entry.path] = report.per_query
            members[entry.path] = its_runs
    groups = rank(entries, per_query, seed=seed)
    leaderboard = Leaderboard(folder, groups, members, left_out)
    _write(leaderboard)
    return leaderboard


class _Ranked(NamedTuple):
    """A run with its numbers, and by what it was made."""

    run: Run
    report: RetrievalReport
    variant: Variant


def _rows(
    found: Sequence[_Ranked], seed: int
) -> list[tuple[Entry, RetrievalReport, list[RankedRun]]]:
    """Returns the rows of one table: a run, or the mean of those that differ in the seed alone."""
    from visual_search.retrieval.seeds import over_seeds
    from visual_search.runs.run import run_name
    from visual_search.runs.variants import seed_groups, told_apart

    groups = [[found[place] for place in one] for one in seed_groups([one[2] for one in found])]
    firsts = [(run_name(one[0].run.folder), one[0].variant, one[0].run.folder) for one in groups]
    apart = told_apart(firsts)
    if len(firsts) > 1 and all(apart) and len({name for name, _, _ in firsts}) == 1:
        firsts = [("", variant, folder) for _, variant, folder in firsts]  # settings say it all
    rows = []
    for members, (name, *_), settings in zip(groups, firsts, apart, strict=True):
        report = members[0].report
        if len(members) > 1:
            reports = {str(one.run.folder): one.report for one in members}
            report = over_seeds(reports, seed=seed)
        newest = max((one.run for one in members), key=_since)
        entry = _entry(members[0].run, report, name, settings, finished=_since(newest))
        runs = [
            RankedRun(
                str(one.run.folder),
                None if one.variant.settings is None else one.variant.seed,
                one.report.summary,
                _since(one.run),
                one.run.status().get("seconds"),
            )
            for one in members
        ]
        rows.append((entry, report, runs))
    return rows


def _since(run: Run) -> str:
    return run.status().get("since", "")


def ranked_report(run: Run) -> RetrievalReport:
    """Returns what a run measured, if it can stand beside others.

    Raises:
        ValueError: The run is not finished, holds no numbers, is older than what is ranked, or a
            file of it is not what a measurement writes; the message names the file.
        FileNotFoundError: A file is missing.
    """
    from visual_search.retrieval.ranking import rank
    from visual_search.retrieval.report_files import load_report

    if run.state != "finished":
        raise ValueError(f"it is {run.state}")
    summary = run.summary()
    if not summary:
        raise ValueError("it holds no numbers")
    if not {"identity", "headline"} <= summary.keys():
        raise ValueError("an older version measured it: evaluate it again")
    report = load_report(run.folder / "metrics")
    path = run.folder / "metrics" / "summary.json"
    try:  # alone there is nothing to test, so it costs little, and reads all that a table reads
        entry = _entry(run, report)
        (group,) = rank([entry], {entry.path: report.per_query})
        num_scored = int(report.per_query[group.headline["column"]].notna().sum())
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be ranked ({type(error).__name__}: {error}); expected what a "
            "measurement writes: evaluate the run again"
        ) from error
    if num_scored != group.num_queries:
        raise ValueError(
            f"{path} says {group.num_queries:,} scored queries, and per_query.parquet beside it "
            f"has {num_scored:,}; expected files of one measurement: evaluate the run again"
        )
    return report


def _entry(
    run: Run, report: RetrievalReport, name: str = "", settings: str = "", finished: str = ""
) -> Entry:
    from visual_search.retrieval.ranking import Entry

    return Entry(
        str(run.folder),
        name,
        report.summary,
        finished or _since(run),
        kind=str(report.summary.get("kind", "run")),
        settings=settings,
    )


def _runs(outputs: Path) -> Iterator[Run]:
    """Returns the folders of runs and of their evaluations, in order, each once.

    A folder may be a link, to a run on another disk; one that leads back is not followed again.
    """
    from visual_search.runs.run import Run

    seen: set[str] = set()
    for place, folders, files in os.walk(outputs, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "status.json" in files or "status.json" in folders:
            yield Run(Path(place))


def _write(leaderboard: Leaderboard) -> None:
    from visual_search.atomic import write_text
    from visual_search.runs.places import text_without_places
    from visual_search.views.html import LeaderboardGroup, LeaderboardPage, leaderboard_page

    folder, groups, runs = leaderboard.folder, leaderboard.groups, leaderboard.runs
    text = "\n".join(["# Leaderboard\n", *(to_markdown(group, runs) for group in groups)])
    write_text(folder / MARKDOWN_FILE, text)
    write_text(folder / CSV_FILE, to_csv(groups, runs))
    write_text(folder / RUNS_FILE, runs_csv(groups, runs))
    page = LeaderboardPage(
        groups=[
            LeaderboardGroup(
                data=str(group.identity["data"]),
                protocol=protocol_of(group),
                table=leaderboard_table(group, runs, folder),
                runs=runs_table(group, runs, folder) if has_seeds(group) else None,
                note=f"{_sizes(group)} " + " ".join(group.rules),
            )
            for group in groups
        ],
        left_out=[
            (label(path), text_without_places(reason)) for path, reason in leaderboard.left_out
        ],
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )
    write_text(folder / HTML_FILE, leaderboard_page(page))


def _sizes(group: RankedGroup) -> str:
    return (
        f"{many(group.num_queries, 'query', 'queries')} in "
        f"{many(group.num_gallery, 'gallery item')}."
    )


def conclusion(group: RankedGroup, runs: Mapping[str, Sequence[RankedRun]]) -> str:
    """Returns a table in a sentence: where its first run stands, and who is lower than a floor.

    Args:
        group: Ranked.
        runs: Of its rows.
    """
    ranked_by = group.headline["statistic"]
    is_floor = group.table["is_floor"].to_numpy(dtype=bool)
    own, floors = group.table[~is_floor], group.table[is_floor]
    first = own.iloc[0]
    one, *more = runs[str(first["path"])]
    seed = f"seed {one.seed}, " if more else ""
    sentence = f"{first['name']}: {seed}{one.summary['standing']}"
    if len(floors):
        best = floors.sort_values(ranked_by, na_position="first").iloc[-1]
        below = own[(own[ranked_by] < best[ranked_by]) & (own["path"] != first["path"])]
        named = [f"{row['name']} ({number(row[ranked_by])})" for _, row in below.iterrows()]
        if named:
            floor = f"{best['name']} ({number(best[ranked_by])}), which learns nothing"
            sentence += f" Lower than {floor}: {listed(named, _MOST_NAMED)}."
    return sentence


def print_leaderboard(leaderboard: Leaderboard, *, short: bool = False) -> None:
    """Prints the tables and their runs, what was left out, and the files; short: not the rules."""
    from rich.console import Console

    from visual_search.views.table import terminal

    console = Console(highlight=False)
    for group in leaderboard.groups:
        console.print(terminal(leaderboard_table(group, leaderboard.runs)))
        console.print(f"{_sizes(group)}\n", markup=False)
        console.print(terminal(runs_table(group, leaderboard.runs)))
        console.print("")
    rules = [] if short else [rule for group in leaderboard.groups for rule in group.rules]
    for rule in dict.fromkeys(rules):
        console.print(rule, markup=False)
    for path, reason in leaderboard.left_out:
        console.print(f"left out: {path}: {reason}", markup=False, soft_wrap=True)
    for name in (MARKDOWN_FILE, CSV_FILE, RUNS_FILE, HTML_FILE):
        console.print(f"  {leaderboard.folder / name}", markup=False, soft_wrap=True)
    for group in leaderboard.groups:  # last: what a reader takes along
        console.print(f"\n{conclusion(group, leaderboard.runs)}", markup=False)
