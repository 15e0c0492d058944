"""What a leaderboard says, as one description for terminal, page and Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.wording import (
    count,
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


def leaderboard_table(group: RankedGroup, folder: Path | None = None) -> Table:
    """Returns the runs in their order, and the floors where their values put them, without a rank.

    Args:
        group: Ranked.
        folder: From which runs are linked to; None links nothing.
    """
    from visual_search.reports.run_page import relative_to
    from visual_search.views.html_page import mark, scale_limit
    from visual_search.views.table import Cell, Row, Table, TableColumn, cells, valued

    lines = group.table.to_dict("records")
    title, k, ranked_by = group.headline["title"], group.identity["k"], group.headline["statistic"]
    limit = scale_limit([line[f"{ranked_by}{end}"] for line in lines for end in ("", "_high")])

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
        is_floor = line["is_floor"]
        rank = "floor" if is_floor else "=" * line["tied_with_above"] + count(line["rank"])
        href = "" if is_floor or folder is None else relative_to(folder, Path(line["path"]))
        means = {
            which: mean(*(line[f"{which}{end}"] for end in ("", "_low", "_high")))
            for which in ("micro", "macro")
        }
        other = "macro" if ranked_by == "micro" else "micro"
        row = cells(
            valued(rank, line["rank"]),
            Cell(str(line["name"]), href=href),
            means[ranked_by],
            Cell(mark=mark(line[ranked_by], *ends, limit)),
            means[other],
            *(valued(write(line[name]), line[name]) for name, write in others),
            str(line["finished"])[:10],
            label(str(line["path"])),
        )
        rows.append(Row(row, "floor" if is_floor else "run"))
    columns = [
        TableColumn("#"),
        TableColumn("Run", "name"),
        TableColumn(f"{title} {ranked_by}", with_ends=True),
        TableColumn(number(limit, 1), "mark", narrow=False),
        TableColumn(other),
        TableColumn(f"P@{k}"),
        TableColumn("hit@1", narrow=False),
        TableColumn("Dim"),
        TableColumn("Index", narrow=False),
        TableColumn("ms a picture", narrow=False),
        TableColumn("Epochs"),
        TableColumn("Finished", "words", narrow=False),
        TableColumn("Folder", "words", narrow=False, on_page=False),
    ]
    data = group.identity.get("data", "unknown")
    return Table(f"{data}, {protocol_of(group)}: {title}", columns, rows)


def to_markdown(group: RankedGroup) -> str:
    r"""Returns a table with what it was measured on above it and its definitions below.

    Names are data: what Markdown or HTML would read as markup is escaped, and what would break a
    line is a space.
    """
    from visual_search.views.table import markdown

    identity, title = group.identity, escaped(str(group.headline["title"]))
    names = [escaped(name) for name in (str(identity.get("data", "unknown")), protocol_of(group))]
    in_groups = "" if group.num_groups is None else f" in {many(group.num_groups, 'group')}"
    lines = [
        f"## {names[0]}, protocol {names[1]}",
        "",
        f"{many(group.num_queries, 'query', 'queries')}{in_groups} ({group.num_left_out:,} left "
        f"out), {many(group.num_gallery, 'gallery item')}, k = {identity['k']}; ranked by the "
        f"{group.headline['statistic']} mean of {title}.",
        "",
        markdown(leaderboard_table(group)),
        "",
        *(f"- {escaped(rule)}" for rule in group.rules),
        "- floor: an embedding that learned nothing of this task, on the same queries; no rank.",
    ]
    return "\n".join(lines) + "\n"


def to_csv(groups: Sequence[RankedGroup]) -> str:
    """Returns all tables as one CSV: ``data``, ``protocol``, ``k``, ``headline``, sizes, columns.

    Numbers are written in full, and what is missing is empty. Text is quoted; where it begins with
    ``=``, ``+``, ``-``, ``@``, a tab or a line break and is no number, an apostrophe goes before
    it, so that a spreadsheet shows it and does not run it: take it away when reading it as data.
    """
    from visual_search.retrieval.ranking import COLUMNS

    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([*CSV_START, *COLUMNS])
    for group in groups:
        identity = group.identity
        start = [
            *(identity.get(part) for part in ("data", "protocol_name", "k")),
            group.headline["title"],
            *(group.num_queries, group.num_groups, group.num_gallery),
        ]
        for line in group.table.itertuples(index=False, name=None):
            writer.writerow([_cell(value) for value in [*start, *line]])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        text = encodable(value)
        return f"'{text}" if is_formula(text) else text
    return "" if is_missing(value) else value
