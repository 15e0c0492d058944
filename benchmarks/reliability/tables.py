"""The table of ``docs/reliability.md``, from the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.laboratory import with_table

COLUMNS = ("what", "tried", "survived", "lost", "what is left")
MARK = "reliability"
LEFT = {
    "old": "as before", "new": "changed", "part": "begun", "read": "read", "named": "named",
    "opened": "opened", "refused": "refused by name", "another error": "another error",
    "killed": "died", "hung": "hung", "too much memory": "too much memory",
}  # fmt: skip


def what_is_left(part: str, row: dict[str, Any]) -> str:
    """Returns a row's last cell: what became of those that were tried."""
    if part == "requests":
        if "all_ms" not in row:
            return ""
        times, searches = row["all_ms"], row["picture_searches_ms"]
        return (
            f"{row['in_flight']} in flight; {times['p50']:.0f} ms at p50, {times['p99']:.0f} at "
            f"p99, searches by picture {searches['p50']:.0f} and {searches['p99']:.0f}"
        )
    counts = [
        f"{number:,} {LEFT.get(name, 'answered ' + name)}"
        for name, number in row.get("left", {}).items()
        if number
    ]
    if "memory_mib" in row:
        memory = row["memory_mib"]
        counts.append(f"{memory['peak']} MiB at most, {memory['before']} before")
    return ", ".join(counts)


def table(results: dict[str, Any]) -> str:
    """Returns the Markdown table, one row a kind."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for part in ("kills", "pictures", "files", "requests"):
        for row in results.get(part, {"rows": []})["rows"]:
            name = f"kills of {row['kind']}" if part == "kills" else row["kind"]
            cells = [name, *(f"{row[one]:,}" for one in ("tried", "survived", "lost"))]
            lines.append(f"| {' | '.join([*cells, what_is_left(part, row)])} |")
    return "\n".join(lines)


def write_table(results: Path, page: Path) -> None:
    """Puts the table between its markers, and prints it."""
    made = table(json.loads(results.read_text()))
    text = page.read_text(encoding="utf-8")
    page.write_text(with_table(text, made, page.name, MARK), encoding="utf-8")
    print(made)
