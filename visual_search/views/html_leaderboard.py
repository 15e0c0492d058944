"""The leaderboard: every run beside those that answered the same question, and the floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from visual_search.views.html_page import Detail, relative_link, render
from visual_search.views.html_tables import add_marks, best_first


@dataclass(frozen=True)
class LeaderboardEntry:
    """A run, or a floor, with its overall numbers.

    Attributes:
        name: The run's or the floor's name.
        micro: Mean of the headline over queries.
        micro_low: Lower end of its interval.
        micro_high: Upper end.
        macro: Mean over categories.
        macro_low: Lower end of its interval.
        macro_high: Upper end.
        dim: Embedding width.
        index_bytes: Size of the index.
        epochs: Epochs trained.
        date: When the run ended, as it is to be written.
        href: The run's report, relative to the folder of the leaderboard; "" links nothing.
        floor: Whether it is a floor: an embedding that learns nothing, which takes no rank.
        tied: Whether no difference is shown from the next run above.
    """

    name: str
    micro: float | None
    micro_low: float | None = None
    micro_high: float | None = None
    macro: float | None = None
    macro_low: float | None = None
    macro_high: float | None = None
    dim: int | None = None
    index_bytes: int | None = None
    epochs: int | None = None
    date: str = ""
    href: str = ""
    floor: bool = False
    tied: bool = False


@dataclass(frozen=True)
class LeaderboardGroup:
    """Runs that answered the same question: the same gallery, queries and protocol.

    Attributes:
        data: The data's name.
        protocol: The protocol's name.
        entries: Runs and floors in any order.
        headline: The metric's name, as "mAP@5".
        note: Such as "1,196 queries against 11,029 items; gallery 12ff7076".
        statistic: ``micro`` or ``macro``: the mean that ranks.
    """

    data: str
    protocol: str
    entries: Sequence[LeaderboardEntry]
    headline: str = "mAP@5"
    note: str = ""
    statistic: str = "micro"


@dataclass(frozen=True)
class LeaderboardPage:
    """What the leaderboard shows.

    Attributes:
        groups: One table each; those without an entry are left out.
        left_out: Name of a run's folder, and why it is not ranked.
        title: The page's title.
        date: When it was made, as it is to be written.
    """

    groups: Sequence[LeaderboardGroup]
    left_out: Sequence[tuple[str, str]] = ()
    title: str = "Leaderboard"
    date: str = ""


def leaderboard_page(page: LeaderboardPage) -> str:
    """Returns the leaderboard as one HTML text of at most 5,000,000 bytes as UTF-8.

    Within a group runs are ranked by its statistic; equal values share a rank. Floors stand where
    their value puts them, without a rank.

    Args:
        page: What to show.

    Raises:
        ValueError: A ``href`` is absolute.

    Example:
        >>> group = LeaderboardGroup("shop", "gallery_query", [LeaderboardEntry("baseline", 0.5)])
        >>> "baseline" in leaderboard_page(LeaderboardPage([group]))
        True
    """
    return render("leaderboard.html", lambda detail: _context(page, detail))


def _context(page: LeaderboardPage, detail: Detail) -> dict[str, Any]:
    groups = [
        _group(place, group, detail.max_table_rows)
        for place, group in enumerate((g for g in page.groups if g.entries), start=1)
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


def _group(place: int, group: LeaderboardGroup, max_rows: int) -> dict[str, Any]:
    rows = best_first(
        [
            vars(entry) | {"href": relative_link(entry.href) if entry.href else ""}
            for entry in group.entries
        ],
        group.statistic,
    )
    rank, num_runs, before = 0, 0, None
    for row in rows:
        row["rank"] = None
        if row["floor"]:
            continue
        num_runs += 1
        if row[group.statistic] != before:
            rank, before = num_runs, row[group.statistic]
        row["rank"] = rank
    return {
        "id": f"group-{place}",
        "data": group.data,
        "protocol": group.protocol,
        "headline": group.headline,
        "note": group.note,
        "rows": rows[:max_rows],
        "given": len(rows),
        "num_runs": num_runs,
        "limit": add_marks(rows),
    }
