"""The tables of `ranking` as Markdown and CSV, where a run's name is data and never markup."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from visual_search.retrieval.floor_comparison import NO_INTERVAL
from visual_search.retrieval.ranking import COLUMNS, FLOOR, RankedGroup
from visual_search.wording import encodable, escaped, interval, is_formula, many

CSV_START = ("data", "protocol", "k", "headline", "num_queries", "num_groups", "num_gallery")


def to_markdown(group: RankedGroup) -> str:
    r"""Returns a table with what it was measured on above it and its definitions below.

    Names are data: what Markdown or HTML would read as markup is escaped, and what would break a
    line is a space.
    """
    identity, title = group.identity, escaped(str(group.headline["title"]))
    k = identity["k"]
    named = identity.get("protocol_title", identity.get("protocol_name", "unknown"))
    names = [escaped(str(name)) for name in (identity.get("data", "unknown"), named)]
    in_groups = "" if group.num_groups is None else f" in {many(group.num_groups, 'group')}"
    head = ["#", "name", f"{title} micro", f"{title} macro", f"precision@{k}", "hit@1", "dim"]
    head += ["index", "ms an item", "epochs", "finished", "run"]
    rows = [head, ["--:", "---", *["--:"] * 8, "---", "---"]]
    for line in _lines(group):
        rows.append(
            [
                _rank_text(line),
                escaped(line["name"]),
                *(_mean_text(line, mean) for mean in ("micro", "macro")),
                _digits(line["precision"], 3),
                _digits(line["hit_at_1"], 3),
                _digits(line["dim"], 0),
                _digits(line["index_bytes"], 1, 1e6, " MB"),
                _digits(line["embedding_ms_per_item"], 2),
                _digits(line["epochs"], 0),
                escaped(line["finished"][:10]),
                escaped(line["path"]),
            ]
        )
    lines = [
        f"## {names[0]}, protocol {names[1]}",
        "",
        f"{many(group.num_queries, 'query', 'queries')}{in_groups} ({group.num_left_out:,} left "
        f"out), {many(group.num_gallery, 'gallery item')}, k = {k}; ranked by the "
        f"{group.headline['statistic']} mean of {title}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {escaped(rule)}" for rule in group.rules),
        "- floor: an embedding that learned nothing of this task, on the same queries; no rank.",
    ]
    return "\n".join(lines) + "\n"


def _lines(group: RankedGroup) -> list[dict[str, Any]]:
    return [
        {str(name): value for name, value in line.items()}
        for line in group.table.to_dict("records")
    ]


def _rank_text(line: Mapping[str, Any]) -> str:
    if line["is_floor"]:
        return FLOOR
    return "" if pd.isna(line["rank"]) else f"{line['rank']}{' =' * line['tied_with_above']}"


def _mean_text(line: Mapping[str, Any], mean: str) -> str:
    if math.isnan(line[mean]):
        return ""
    ends = interval(line[f"{mean}_low"], line[f"{mean}_high"], none=NO_INTERVAL)
    return f"{line[mean]:.3f} {ends}"


def _digits(value: Any, digits: int, unit: float = 1, name: str = "") -> str:
    return "" if pd.isna(value) else f"{value / unit:,.{digits}f}{name}"


def to_csv(groups: Sequence[RankedGroup]) -> str:
    """Returns all tables as one CSV: ``data``, ``protocol``, ``k``, ``headline``, sizes, columns.

    Numbers are written in full, and what is missing is empty. Text is quoted; where it begins with
    ``=``, ``+``, ``-``, ``@``, a tab or a line break and is no number, an apostrophe goes before
    it, so that a spreadsheet shows it and does not run it: take it away when reading it as data.
    """
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
        for line in _lines(group):
            writer.writerow([_cell(value) for value in [*start, *line.values()]])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = encodable(value)
        return f"'{text}" if is_formula(text) else text
    return "" if pd.isna(value) else value
