"""The leaderboard: every run beside those that answered the same question, and the floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visual_search.views.html_page import Detail, render
from visual_search.views.html_tables import shown_table
from visual_search.views.table import Table


@dataclass(frozen=True)
class LeaderboardGroup:
    """Runs that answered the same question: the same gallery, queries and protocol.

    Attributes:
        data: The data's name.
        protocol: The protocol's name.
        table: Runs and floors, ranked.
        note: Such as "1,196 queries against 11,029 items; gallery 12ff7076".
        runs: Every run of the table's rows; None where each row is one.
    """

    data: str
    protocol: str
    table: Table
    note: str = ""
    runs: Table | None = None


@dataclass(frozen=True)
class LeaderboardPage:
    """What the leaderboard shows.

    Attributes:
        groups: One table each; those without a row are left out.
        left_out: Name of a run's folder, and why it is not ranked.
        date: When it was made, as it is to be written.
    """

    groups: Sequence[LeaderboardGroup]
    left_out: Sequence[tuple[str, str]] = ()
    date: str = ""


def leaderboard_page(page: LeaderboardPage) -> str:
    """Returns the leaderboard as one HTML text of at most 5,000,000 bytes as UTF-8.

    Args:
        page: What to show.

    Raises:
        ValueError: A ``href`` is absolute.

    Example:
        >>> from visual_search.views.table import TableColumn, Row, cells
        >>> table = Table("", [TableColumn("Run", "name")], [Row(cells("baseline"), "run")])
        >>> group = LeaderboardGroup("shop", "gallery_query", table)
        >>> "baseline" in leaderboard_page(LeaderboardPage([group]))
        True
    """
    return render("leaderboard.html", lambda detail: _context(page, detail))


def _context(page: LeaderboardPage, detail: Detail) -> dict[str, object]:
    groups = [
        {
            "id": f"group-{place}",
            "data": group.data,
            "protocol": group.protocol,
            "note": group.note,
            "num_runs": sum(row.kind == "run" for row in (group.runs or group.table).rows),
            "table": shown_table(group.table, detail.max_table_rows),
            "runs": shown_table(group.runs, detail.max_table_rows) if group.runs else None,
        }
        for place, group in enumerate((g for g in page.groups if g.table.rows), start=1)
    ]
    left_out = list(page.left_out)
    sections = [(group["id"], f"{group['data']}, {group['protocol']}") for group in groups]
    if left_out:
        sections.append(("left-out", "Left out"))
    return {
        "page": page,
        "groups": {group["id"]: group for group in groups},
        "left_out": left_out[: detail.max_table_rows],
        "left_out_given": len(left_out),
        "sections": sections,
    }
