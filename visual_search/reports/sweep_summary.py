"""How a sweep ended: its runs side by side, their leaderboard, counts, and what failed."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.runs.jobs import Record, read_records, told_apart
from visual_search.wording import listed, many, number

if TYPE_CHECKING:
    from visual_search.reports.rankings import Leaderboard
    from visual_search.runs.run import Run


MAX_NAMED = 20  # jobs that never began


def conclude(folder: Path, jobs: Sequence[Sequence[str]], stopped: bool) -> bool:
    """Prints a sweep's tables, how its jobs ended, and what failed or never began.

    Args:
        folder: Of the sweep, with a record a job that began.
        jobs: Each planned job's overrides; empty where they are not known.
        stopped: Somebody ended it; then only what is finished is printed, and how it goes on.

    Returns:
        Whether every job has finished.
    """
    records = read_records(folder)
    runs, left_out = finished_runs(records)
    all_ranked = _print_leaderboard(runs, folder, records) if runs else True
    if stopped:
        finished = sum(record.state == "finished" for record in records)
        print(
            f"\nThe sweep was stopped with {finished} of {many(len(jobs), 'job')} finished; the "
            "same command goes on.",
            file=sys.stderr,
        )
        return False
    measured = [one for one in records if one.kind == "evaluation" and one.state == "finished"]
    if measured:
        left_out += _print_overview(measured, folder)
    for path, reason in left_out:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    print(f"\n{tally(records, len(jobs))}")
    begun = {record.number for record in records}
    left = [Record(n, list(job)) for n, job in enumerate(jobs) if n not in begun]
    names = told_apart([*records, *left])
    failed = [
        (name, record)
        for name, record in zip(names, records, strict=False)
        if record.state != "finished"
    ]
    reasons: dict[str, list[str]] = {}
    for name, record in failed:
        reasons.setdefault(record.error or _without_a_word(record), []).append(name)
    for reason, shared in reasons.items():
        which = shared[0]
        if len(shared) > 1:
            which = f"{len(shared)} jobs ({listed(shared, MAX_NAMED)})"
        print(f"failed: {which}: {reason}", file=sys.stderr)
    unbegun = [name for name, one in zip(names[len(records) :], left, strict=True) if one.overrides]
    for name in unbegun[:MAX_NAMED]:
        print(f"never began: {name}", file=sys.stderr)
    if left:
        more = f"{len(unbegun) - MAX_NAMED:,} more never began; " * (len(unbegun) > MAX_NAMED)
        print(f"{more}the same command begins what is left", file=sys.stderr)
    return all_ranked and not failed and not left and not left_out


def tally(records: list[Record], num_jobs: int) -> str:
    """Returns how the jobs ended in a line.

    >>> done = [Record(0, state="finished"), Record(1, state="finished", began="finished")]
    >>> tally([*done, Record(2, state="failed")], 4)
    '4 jobs: 1 found finished, 1 trained, 1 failed, 1 never began.'
    """
    counts: dict[str, int] = {}
    for record in records:
        new = "trained" if record.kind == "run" else "measured"
        ways = {"finished": "found finished", "goes on": "gone on with", "new": new}
        way = ways[record.began] if record.state == "finished" else "failed"
        counts[way] = counts.get(way, 0) + 1
    if num_jobs > len(records):
        counts["never began"] = num_jobs - len(records)
    order = ("found finished", "gone on with", "trained", "measured", "failed", "never began")
    parts = ", ".join(f"{counts[way]} {way}" for way in order if way in counts)
    return f"{many(num_jobs, 'job')}: {parts or 'none began'}."


def finished_runs(records: list[Record]) -> tuple[list[Run], list[tuple[str, str]]]:
    """Returns the trained runs that hold numbers, each once, in the order of the jobs.

    Returns:
        The runs, and (folder, reason) of those whose files are not what a run writes.
    """
    from visual_search.reports.rankings import ranked_report
    from visual_search.runs.run import Run

    folders = [one.run for one in records if one.kind == "run" and one.state == "finished"]
    runs, left_out = [], []
    for run in [Run(Path(folder)) for folder in dict.fromkeys(folders) if folder]:
        try:
            if run.summary():  # a dry run has none
                ranked_report(run)
                runs.append(run)
        except (OSError, ValueError) as error:
            left_out.append((str(run.folder), " ".join(str(error).split())))
    return runs, left_out


def _print_leaderboard(runs: list[Run], folder: Path, records: list[Record]) -> bool:
    """Prints the runs' leaderboard, writes it beside the records, and names the best to choose.

    Returns:
        Whether all runs are in it.
    """
    from visual_search.reports.rankings import print_leaderboard, rank_these

    leaderboard = rank_these(runs, folder, seed=0)
    print_leaderboard(leaderboard, short=True)
    if len(leaderboard.groups) == 1:
        _print_best(leaderboard, records)
    return not leaderboard.left_out


def _print_best(leaderboard: Leaderboard, records: list[Record]) -> None:
    """Names the row with the highest mean on the validation queries, where all have been asked."""
    values = {one.run: one.value for one in records if one.value is not None}
    names = {one.value_name for one in records if one.value is not None}
    (group,) = leaderboard.groups
    table = group.table[~group.table["is_floor"]]
    of_rows = [[run.path for run in leaderboard.runs[path]] for path in table["path"]]
    if (
        len(values) < 2
        or len(names) != 1
        or not all(run in values for row in of_rows for run in row)
    ):
        return
    means = [statistics.fmean(values[run] for run in row) for row in of_rows]
    best = max(range(len(means)), key=means.__getitem__)
    found = [values[run] for run in of_rows[best]]
    over = ""
    if len(found) > 1:
        over = f", the mean of {len(found)} seeds (SD {number(statistics.stdev(found))}),"
    print(
        f"\nHighest {names.pop()}: {number(means[best])}{over} with {table['name'].iloc[best]} "
        f"({', '.join(of_rows[best])}). Choose by this one, of the validation queries: what is "
        "chosen on test queries looks too good."
    )


def _print_overview(records: list[Record], folder: Path) -> list[tuple[str, str]]:
    """Returns (folder, reason) of what could not be read."""
    from visual_search.reports.overviews import conclude as print_overview
    from visual_search.reports.rankings import ranked_report
    from visual_search.runs.finished import Measured
    from visual_search.runs.run import Run

    measured, left_out = [], []
    for one in records:
        run = Run(Path(one.run))
        try:
            ranked_report(run)
            run.config()
            measured.append(Measured(run, is_new=one.began != "finished"))
        except (OSError, ValueError) as error:
            left_out.append((one.run, " ".join(str(error).split())))
    if measured:
        print_overview(measured, folder)
    return left_out


def _without_a_word(record: Record) -> str:
    return (
        f"it was {record.state} when process {record.pid} ended; expected it to finish; it may "
        "have been killed, as for want of memory; the same command goes on"
    )
