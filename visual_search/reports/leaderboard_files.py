"""What a leaderboard says, as one description for terminal, page and Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from visual_search.reading import Summary, ends_of, number_in
from visual_search.wording import (
    Number,
    count,
    duration,
    encodable,
    escaped,
    file_size,
    interval,
    is_formula,
    is_missing,
    many,
    number,
    three_digits,
)

if TYPE_CHECKING:
    from visual_search.retrieval.ranking import RankedGroup
    from visual_search.views.table import Cell, Table

STATISTICS = ("micro", "macro")
RUN_COLUMNS = (
    "rank", "name", "seed",
    *(f"{mean}{end}" for mean in STATISTICS for end in ("", "_low", "_high")),
    "test_loss", "seconds", "finished", "path",
)  # fmt: skip
CSV_START = ("data", "protocol", "k", "headline", "num_queries", "num_groups", "num_gallery")


def label(path: str) -> str:
    """Returns a run's folder as typed, or without the place that only its owner has."""
    from visual_search.runs.places import without_place
    from visual_search.runs.run import run_label

    return path if without_place(path) == path else run_label(Path(path))


def protocol_of(group: RankedGroup) -> str:
    """Returns what the protocol is called."""
    names = group.identity
    return str(names.get("protocol_title") or names.get("protocol_name", "unknown"))


@dataclass(frozen=True)
class RankedRun:
    """A run of a leaderboard's row.

    Attributes:
        path: Its folder.
        seed: Of its training; None of what was not trained here.
        summary: Of its report.
        finished: When, in ISO 8601.
        seconds: That it took, if that is known.
    """

    path: str
    seed: int | None
    summary: Summary
    finished: str
    seconds: float | None


Runs: TypeAlias = "Mapping[str, Sequence[RankedRun]]"  # path of a row -> its runs, by seed


def has_seeds(group: RankedGroup) -> bool:
    """Returns whether a row is the mean of several runs."""
    return bool((group.table["num_runs"].fillna(1) > 1).any())


def leaderboard_table(group: RankedGroup, runs: Runs, folder: Path | None = None) -> Table:
    """Returns the runs in their order, and the floors where their values put them, without a rank.

    Args:
        group: Ranked.
        runs: Of its rows.
        folder: From which runs are linked to; None links nothing.
    """
    from visual_search.reports.run_page import relative_to
    from visual_search.retrieval.ranking import TIED
    from visual_search.views.html_page import mark, scale_limit
    from visual_search.views.table import Cell, Row, Table, TableColumn, cells, valued

    lines = group.table.to_dict("records")
    title, k, ranked_by = group.headline["title"], group.identity["k"], group.headline["statistic"]
    limit = scale_limit([line[f"{ranked_by}{end}"] for line in lines for end in ("", "_high")])
    seeds = has_seeds(group)

    def mean(value: float, low: float, high: float) -> Cell:
        return valued(number(value), value, interval(low, high, none=""))

    others = (
        ("precision", number),
        ("hit_at_1", number),
        ("dim", count),
        ("index_bytes", file_size),
        ("embedding_ms_per_item", three_digits),
        ("epochs", count),
    )
    rows = []
    for line in lines:
        ends = line[f"{ranked_by}_low"], line[f"{ranked_by}_high"]
        is_floor, path = line["is_floor"], str(line["path"])
        rank, ranks, folders = "floor", "", label(path)
        if not is_floor:
            rank = TIED * (line["for_the_top"] and line["rank"] > 1) + count(line["rank"])
            ranks = _ranks(line["rank_low"], line["rank_high"])
            folders = ", ".join(label(run.path) for run in runs[path])
        single = not is_floor and line["num_runs"] == 1
        href = relative_to(folder, Path(path)) if single and folder is not None else ""
        means = {
            which: mean(*(line[f"{which}{end}"] for end in ("", "_low", "_high")))
            for which in ("micro", "macro")
        }
        other = "macro" if ranked_by == "micro" else "micro"
        sd = line[f"{ranked_by}_sd"]
        spread = Cell() if is_floor else valued(f"{number(sd)} ({count(line['num_runs'])})", sd)
        row = cells(
            valued(rank, line["rank"], ranks and f"[{ranks}]" if folder else ""),
            valued(ranks, line["rank_low"]),
            Cell(str(line["name"]), href=href),
            means[ranked_by],
            *([spread] if seeds else []),
            Cell(mark=mark(line[ranked_by], *ends, limit)),
            means[other],
            *(valued(write(line[name]), line[name]) for name, write in others),
            str(line["finished"])[:10],
            folders,
        )
        rows.append(Row(row, "floor" if is_floor else "run"))
    columns = [
        TableColumn("#"),
        TableColumn("ranks", on_page=False),
        TableColumn("Run", "name"),
        TableColumn(f"{title} {ranked_by}", with_ends=True),
        *([TableColumn("SD (n)")] if seeds else []),
        TableColumn(number(limit, 1), "mark", narrow=False),
        TableColumn(other),
        TableColumn(f"P@{k}", narrow=not seeds),
        TableColumn("hit@1", narrow=False),
        TableColumn("Dim"),
        TableColumn("Index", narrow=False),
        TableColumn("ms a picture", narrow=False),
        TableColumn("Epochs", narrow=False, on_page=not seeds),
        TableColumn("Finished", "words", narrow=False, on_page=not seeds),
        TableColumn("Folder", "words", narrow=False, on_page=False),
    ]
    data = group.identity.get("data", "unknown")
    return Table(f"{data}, {protocol_of(group)}: {title}", columns, rows)


def _ranks(low: Number, high: Number) -> str:
    if is_missing(low):
        return ""
    return count(low) if low == high else f"{count(low)}-{count(high)}"


def runs_table(group: RankedGroup, runs: Runs, folder: Path | None = None) -> Table:
    """Returns every run of the leaderboard's rows, in their order, with its folder.

    Args:
        group: Ranked.
        runs: Of its rows.
        folder: From which runs are linked to; None links nothing.
    """
    from visual_search.reports.run_page import relative_to
    from visual_search.runs.machine import device_sentence
    from visual_search.runs.run import run_label
    from visual_search.views.table import Cell, Row, Table, TableColumn, cells, valued

    title, ranked_by = group.headline["title"], group.headline["statistic"]
    other = "macro" if ranked_by == "micro" else "micro"
    rows, devices = [], []
    for line in group.table[~group.table["is_floor"]].to_dict("records"):
        for run in runs[str(line["path"])]:
            summary, path = run.summary, Path(run.path)
            ends = ends_of(summary, ranked_by)
            values = [
                number_in(summary, f"{m}_{group.headline['mean']}") for m in (ranked_by, other)
            ]
            loss = summary.get("test_loss")
            row = cells(
                valued(count(line["rank"]), line["rank"]),
                Cell(str(line["name"]), href=relative_to(folder, path) if folder else ""),
                valued(count(run.seed), run.seed),
                valued(
                    number(values[0]),
                    values[0],
                    interval(ends["low"], ends["high"], rough=ends.get("rough"), none=""),
                    rough=ends.get("rough"),
                ),
                valued(number(values[1]), values[1]),
                valued(three_digits(loss), loss),
                valued(duration(run.seconds), run.seconds),
                run.finished[:10],
                run_label(path),
            )
            rows.append(Row(row, "run"))
            if summary.get("device"):
                devices.append(device_sentence(summary))
    columns = [
        TableColumn("#"),
        TableColumn("Run", "name", narrow=False),
        TableColumn("Seed"),
        TableColumn(f"{title} {ranked_by}", with_ends=True),
        TableColumn(other),
        TableColumn("Loss"),
        TableColumn("Time"),
        TableColumn("Finished", "words", narrow=False),
        TableColumn("Folder", "words"),
    ]
    devices = list(dict.fromkeys(devices))
    several = "different devices, by which trained numbers move: " * (len(devices) > 1)
    caption = f"Computed on {several}{'; '.join(devices)}." if devices else ""
    return Table("The runs by their rank", columns, rows, caption)


def to_markdown(group: RankedGroup, runs: Runs) -> str:
    r"""Returns a table with what it was measured on above it and its definitions below.

    Names are data: what Markdown or HTML would read as markup is escaped, and what would break a
    line is a space.
    """
    from visual_search.views.table import markdown

    table, identity = leaderboard_table(group, runs), group.identity
    seeds = ["", markdown(runs_table(group, runs))] if has_seeds(group) else []
    title = escaped(str(group.headline["title"]))
    names = [escaped(name) for name in (str(identity.get("data", "unknown")), protocol_of(group))]
    in_groups = "" if group.num_groups is None else f" in {many(group.num_groups, 'group')}"
    lines = [
        f"## {names[0]}, protocol {names[1]}",
        "",
        f"{many(group.num_queries, 'query', 'queries')}{in_groups} ({group.num_left_out:,} left "
        f"out), {many(group.num_gallery, 'gallery item')}, k = {identity['k']}; ranked by the "
        f"{group.headline['statistic']} mean of {title}.",
        "",
        markdown(table),
        *seeds,
        "",
        *(f"- {escaped(rule)}" for rule in group.rules),
        "- floor: an embedding that learned nothing of this task, on the same queries; no rank.",
    ]
    return "\n".join(lines) + "\n"


def to_csv(groups: Sequence[RankedGroup], runs: Runs) -> str:
    """Returns all tables as one CSV: ``data``, ``protocol``, ``k``, ``headline``, sizes, columns.

    A row that is the mean of several runs has all of their folders in ``path``, by a comma.

    Numbers are written in full, and what is missing is empty. Text is quoted; where it begins with
    ``=``, ``+``, ``-``, ``@``, a tab or a line break and is no number, an apostrophe goes before
    it, so that a spreadsheet shows it and does not run it: take it away when reading it as data.
    """
    from visual_search.retrieval.ranking import COLUMNS

    lines = []
    for group in groups:
        start = _start(group)
        for line in group.table.to_dict("records"):
            its_runs = [] if line["is_floor"] else runs[str(line["path"])]
            line["path"] = ", ".join(label(one.path) for one in its_runs) or label(line["path"])
            lines.append([*start, *(line[name] for name in COLUMNS)])
    return _as_csv([*CSV_START, *COLUMNS], lines)


def runs_csv(groups: Sequence[RankedGroup], runs: Runs) -> str:
    """Returns every run as a line of a CSV, with the rank and the name of its row; as `to_csv`."""
    lines: list[list[object]] = []
    for group in groups:
        mean = group.headline["mean"]
        for line in group.table[~group.table["is_floor"]].to_dict("records"):
            for run in runs[str(line["path"])]:
                ends = [ends_of(run.summary, which) for which in STATISTICS]
                values = [number_in(run.summary, f"{which}_{mean}") for which in STATISTICS]
                means = [
                    part
                    for value, end in zip(values, ends, strict=True)
                    for part in (value, end["low"], end["high"])
                ]
                loss = run.summary.get("test_loss")
                shown = [run.seed, *means, loss, run.seconds, run.finished, label(run.path)]
                lines.append([*_start(group), line["rank"], line["name"], *shown])
    return _as_csv([*CSV_START, *RUN_COLUMNS], lines)


def _start(group: RankedGroup) -> list[object]:
    return [
        *(group.identity.get(part) for part in ("data", "protocol_name", "k")),
        group.headline["title"],
        *(group.num_queries, group.num_groups, group.num_gallery),
    ]


def _as_csv(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        text = encodable(value)
        return f"'{text}" if is_formula(text) else text
    return "" if is_missing(value) else value
