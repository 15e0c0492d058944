"""The comparison of runs: one HTML file with the verdict, the tests and the pictures behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from visual_search.views.html_page import Detail, PictureWriter, relative_link, render, search_row
from visual_search.views.html_tables import (
    add_marks,
    best_first,
    extra_means,
    floor_row,
    headline_of,
    measured_table,
    overall_row,
)
from visual_search.views.picture_grids import SearchRow

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run as it stands in a comparison.

    Attributes:
        name: Short and different from the others', as "plus_layer 9b86a50168".
        summary: `RetrievalReport.summary`, with ``index``, ``embedding_ms_per_item``,
            ``embedding_dim`` and ``epochs`` where the run has them.
        href: The run's report, relative to the folder of the comparison's page; "" links nothing.
    """

    name: str
    summary: Mapping[str, Any]
    href: str = ""


@dataclass(frozen=True, eq=False)
class ComparedQuery:
    """What every run found for one query.

    Attributes:
        rows: Run name and what it found, in the runs' order; the query is the same in each.
        note: What is remarkable, such as "AP@5 differs by 0.800".
    """

    rows: Sequence[tuple[str, SearchRow]]
    note: str = ""


@dataclass(frozen=True, eq=False)
class ComparisonPage:
    """What a comparison shows. Whatever is None or empty is left out, with its heading.

    Attributes:
        title: Such as "baseline and plus_layer".
        verdict: The one sentence that says which is better, or that none clearly is.
        runs: The runs in the order to name them; the table sorts them by the headline.
        date: When the comparison was made, as it is to be written.
        tests: One row a pair: names of both runs, ``difference``, ``low``, ``high``, ``p_value``,
            ``holm_p_value``, ``verdict``; every column is shown, in its order.
        charts: Drawings of the headline by run and by category.
        category_differences: One row a category, such as the table of `comparison_bars`.
        queries: Those where the runs differ most first.
        settings: Setting, to run name, to value: those that differ.
        notes: What a reader must know, a sentence each.
    """

    title: str
    verdict: str
    runs: Sequence[ComparedRun]
    date: str = ""
    tests: pd.DataFrame | None = None
    charts: Sequence[Figure] = ()
    category_differences: pd.DataFrame | None = None
    queries: Sequence[ComparedQuery] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def comparison_page(page: ComparisonPage) -> str:
    """Returns a comparison as one HTML text of at most 5,000,000 bytes as UTF-8.

    It loads nothing, follows light and dark, prints, and reads without JavaScript. Floors, rules
    and definitions are those of the runs' summaries; a floor that is the same for all runs stands
    in the table once.

    Args:
        page: What to show.

    Raises:
        ValueError: There is no run, or a ``href`` is absolute.

    Example:
        >>> runs = [ComparedRun("a<b", {"k": 5, "micro_map_at_5": 0.5})]
        >>> "a&lt;b" in comparison_page(ComparisonPage("Two runs", "Neither is better.", runs))
        True
    """
    if not page.runs:
        raise ValueError("runs is empty, expected at least one run; choose runs to compare.")
    pictures = PictureWriter()
    return render("comparison.html", lambda detail: _context(page, detail, pictures))


def _context(page: ComparisonPage, detail: Detail, pictures: PictureWriter) -> dict[str, Any]:
    first = page.runs[0].summary
    headline, extras = headline_of(first), extra_means(first)
    rows = _rows(page.runs, headline["mean"], extras)
    title = headline["title"]
    context: dict[str, Any] = {
        "page": page,
        "headline": headline,
        "identity": first.get("identity") or {},
        "summary": first,
        "rows": rows,
        "limit": add_marks(rows),
        "extras": extras,
        "tests": measured_table(page.tests, detail.max_table_rows),
        "charts": [
            pictures.chart(figure, f"Chart {place} of {len(page.charts)}: {title} of the runs.")
            for place, figure in enumerate(page.charts[: detail.max_figures], start=1)
        ],
        "differences": measured_table(page.category_differences, detail.max_table_rows),
        "queries": _queries(page.queries, detail),
        "run_names": [run.name for run in page.runs],
        "settings": list(page.settings.items()),
        "definitions": list((first.get("definitions") or {}).items()),
        "rules": list((first.get("rules") or {}).items()),
    }
    sections = [
        ("runs", "The runs and the floors", rows),
        ("tests", "Tests, query by query", context["tests"]),
        ("categories", "By category", context["charts"] or context["differences"]),
        ("queries", "Where they differ most", context["queries"]),
        ("settings", "What was set differently", context["settings"]),
        ("definitions", "What the numbers mean", context["definitions"] or context["rules"]),
    ]
    context["sections"] = [(key, heading) for key, heading, there in sections if there]
    return context


def _rows(runs: Sequence[ComparedRun], mean: str, extras: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the runs and their floors in one order, best first."""
    rows: list[dict[str, Any]] = []
    floors: dict[tuple[str, Any], tuple[dict[str, Any], list[str]]] = {}  # the row, its owners
    for run in runs:
        index = run.summary.get("index") or {}
        rows.append(
            overall_row(run.summary, mean, extras)
            | {
                "name": run.name,
                "floor": False,
                "href": relative_link(run.href) if run.href else "",
                "index_bytes": index.get("bytes"),
                "embedding_ms": run.summary.get("embedding_ms_per_item"),
                "epochs": run.summary.get("epochs"),
            }
        )
        for floor in run.summary.get("floors") or []:
            row = floor_row(floor, mean, extras)
            floors.setdefault((row["name"], row["micro"]), (row, []))[1].append(run.name)
    for row, owners in floors.values():
        if len(owners) < len(runs):  # such as an untrained network, which each run has of its own
            row["name"] += f": {', '.join(owners)}"
        row |= {"href": "", "index_bytes": None, "embedding_ms": None, "epochs": None}
        rows.append(row)
    return best_first(rows)


def _queries(queries: Sequence[ComparedQuery], detail: Detail) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    left = detail.max_search_rows
    for query in queries:
        left -= len(query.rows)
        if left < 0 and shown:
            break
        rows = [(name, search_row(row, detail)) for name, row in query.rows]
        if rows:
            shown.append({"note": query.note, "query": rows[0][1], "rows": rows})
    return shown
