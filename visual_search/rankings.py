"""The leaderboard: finished runs gathered from a folder, ranked, printed and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.config import ConfigError
from visual_search.wording import many

if TYPE_CHECKING:
    from visual_search.retrieval.ranking import Group
    from visual_search.runs import Run
    from visual_search.views.html import LeaderboardGroup

MARKDOWN_FILE, CSV_FILE, HTML_FILE = "leaderboard.md", "leaderboard.csv", "leaderboard.html"


@dataclass(frozen=True)
class Leaderboard:
    """Ranked runs and where the tables were written.

    Attributes:
        folder: With ``leaderboard.md``, ``.csv`` and ``.html``.
        groups: One table for every way of measuring.
        left_out: (folder, reason) of what could not be ranked.
    """

    folder: Path
    groups: list[Group]
    left_out: list[tuple[str, str]]


def rank_runs(settings: dict[str, Any]) -> Leaderboard:
    """Ranks every finished run below a folder, from what it stored; no model is touched.

    Args:
        settings: The composed ``conf/leaderboard.yaml``.

    Raises:
        ConfigError: There is no such folder, or nothing in it can be ranked.
    """
    outputs = Path(settings["outputs"])
    if not outputs.is_dir():
        raise ConfigError(f"no folder at {outputs}; expected the folder with the runs")
    folder = Path(settings["out"] or outputs)
    return rank_these(_runs(outputs), folder, seed=settings["seed"], searched=outputs)


def rank_these(
    runs: Iterable[Run],
    folder: Path,
    *,
    seed: int,
    names: Mapping[str, str] | None = None,
    searched: Path | None = None,
) -> Leaderboard:
    """Ranks runs from what they stored, and writes the tables.

    Args:
        runs: What is not finished or holds no numbers is left out.
        folder: Of the tables.
        seed: Of resamples and permutations.
        names: Folder of a run -> what it is called; its experiment where there is none.
        searched: Where the runs were looked for, for the message that there is none; the folder.

    Raises:
        ConfigError: None of them can be ranked.
    """
    from visual_search.retrieval.ranking import Entry, rank
    from visual_search.retrieval.report_files import load_report
    from visual_search.tables import run_name

    entries, per_query, left_out = [], {}, []
    for run in runs:
        path = str(run.folder)
        if run.state != "finished":
            left_out.append((path, f"it is {run.state}"))
            continue
        summary = run.summary()
        if not summary:
            left_out.append((path, "it holds no numbers"))
            continue
        if not {"identity", "headline"} <= summary.keys():
            left_out.append((path, "an older version measured it: evaluate it again"))
            continue
        try:
            report = load_report(run.folder / "metrics")
        except (OSError, ValueError) as error:
            left_out.append((path, str(error).splitlines()[0]))
            continue
        kind = report.summary.get("kind", "run")
        name = (names or {}).get(path) or run_name(run.folder)
        entries.append(Entry(path, name, report.summary, run.status()["since"], kind=kind))
        per_query[path] = report.per_query
    if not entries:
        reasons = "".join(f"\n  {path}: {reason}" for path, reason in left_out[:10])
        raise ConfigError(
            f"no finished run with numbers below {searched or folder}; expected at least one; "
            f"train one with python -m visual_search.train{reasons}"
        )
    groups = rank(entries, per_query, seed=seed)
    _write(folder, groups, left_out)
    return Leaderboard(folder, groups, left_out)


def _runs(outputs: Path) -> Iterator[Run]:
    """Gives the folders of runs and of their evaluations, in order."""
    from visual_search.runs import Run

    for path in sorted(outputs.rglob("status.json")):
        if not any(part.startswith(".") for part in path.relative_to(outputs).parts):
            yield Run(path.parent)


def _write(folder: Path, groups: list[Group], left_out: list[tuple[str, str]]) -> None:
    from visual_search.atomic import write_text
    from visual_search.retrieval.leaderboard import to_csv, to_markdown
    from visual_search.views.html import LeaderboardPage, leaderboard_page

    text = "\n".join(["# Leaderboard\n", *(to_markdown(group) for group in groups)])
    write_text(folder / MARKDOWN_FILE, text)
    write_text(folder / CSV_FILE, to_csv(groups))
    page = LeaderboardPage(
        groups=[_shown(group, folder) for group in groups],
        left_out=left_out,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )
    write_text(folder / HTML_FILE, leaderboard_page(page))


def _shown(group: Group, folder: Path) -> LeaderboardGroup:
    """Gives a table as the page shows it."""
    from visual_search.pages import relative_to
    from visual_search.views.html import LeaderboardEntry, LeaderboardGroup

    entries = [
        LeaderboardEntry(
            name=str(line["name"]),
            **{
                f"{mean}{end}": float(line[f"{mean}{end}"])
                for mean in ("micro", "macro")
                for end in ("", "_low", "_high")
            },
            dim=_integer(line["dim"]),
            index_bytes=_integer(line["index_bytes"]),
            epochs=_integer(line["epochs"]),
            date="" if line["is_floor"] else str(line["finished"])[:16].replace("T", " "),
            href="" if line["is_floor"] else relative_to(folder, Path(line["path"])),
            floor=bool(line["is_floor"]),
            tied=bool(line["tied_with_above"]),
        )
        for line in group.table.to_dict("records")
    ]
    return LeaderboardGroup(
        data=str(group.identity["data"]),
        protocol=_protocol(group),
        entries=entries,
        headline=group.headline["title"],
        note=f"{_sizes(group)} " + " ".join(group.rules),
        statistic=group.headline["statistic"],
    )


def _sizes(group: Group) -> str:
    return (
        f"{many(group.num_queries, 'query', 'queries')} in "
        f"{many(group.num_gallery, 'gallery item')}."
    )


def _protocol(group: Group) -> str:
    names = group.identity
    return str(names.get("protocol_title", names["protocol_name"]))


def _integer(value: Any) -> int | None:
    import pandas as pd

    return None if pd.isna(value) else int(value)


def print_leaderboard(leaderboard: Leaderboard, *, short: bool = False) -> None:
    """Prints the tables, what was left out, and where they lie; short without the rules."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from visual_search.tables import interval, number, table_style

    console = Console(highlight=False)
    for group in leaderboard.groups:
        title = f"{group.identity['data']}, {_protocol(group)}: {group.headline['title']}"
        table = Table(title=title, **table_style())
        table.add_column("", justify="right")
        table.add_column("Run", overflow="fold")
        for column in ("micro", "95 % interval", "macro", "P@k", "dim", "Epochs"):
            table.add_column(column, justify="right", no_wrap=True)
        for line in group.table.to_dict("records"):
            is_floor = line["is_floor"]
            mark = "=" if line["tied_with_above"] else ""
            rank = "floor" if is_floor else f"{mark}{_whole(line['rank'])}"
            table.add_row(
                rank,
                Text(str(line["name"])),
                number(line["micro"], 3),
                interval(line["micro_low"], line["micro_high"]),
                number(line["macro"], 3),
                number(line["precision"], 3),
                _whole(line["dim"]),
                _whole(line["epochs"]),
                style="dim" if is_floor else "bold",
            )
        console.print(table)
        console.print(f"{_sizes(group)}\n", markup=False)
    rules = [] if short else [rule for group in leaderboard.groups for rule in group.rules]
    for rule in dict.fromkeys(rules):
        console.print(rule, markup=False)
    for path, reason in leaderboard.left_out:
        console.print(f"left out: {path}: {reason}", markup=False, soft_wrap=True)
    for name in (MARKDOWN_FILE, CSV_FILE, HTML_FILE):
        console.print(f"  {leaderboard.folder / name}", markup=False, soft_wrap=True)


def _whole(value: Any) -> str:
    whole = _integer(value)
    return "" if whole is None else f"{whole:,}"
