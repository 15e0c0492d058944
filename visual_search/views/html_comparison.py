"""The comparison of runs: one HTML file with the verdict, the tests and the pictures behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from visual_search.reading import MeasuredFloor, Summary, number_in
from visual_search.views.html_page import Detail, PictureWriter, render, search_row
from visual_search.views.html_tables import (
    Measurement,
    best_first,
    headline_of,
    measured_table,
    measurements_table,
)
from visual_search.views.picture_grids import SearchRow
from visual_search.views.table import Cell, valued
from visual_search.wording import count, file_size, seed_text, three_digits

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
    summary: Summary
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
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
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


def _context(page: ComparisonPage, detail: Detail, pictures: PictureWriter) -> dict[str, object]:
    first = page.runs[0].summary
    headline = headline_of(first)
    title = headline["title"]
    context: dict[str, object] = {
        "page": page,
        "headline": headline,
        "identity": first.get("identity") or {},
        "summary": first,
        "runs": _runs(page.runs),
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
        ("runs", "The runs and the floors", True),
        ("tests", "Tests, query by query", context["tests"]),
        ("categories", "By category", context["charts"] or context["differences"]),
        ("queries", "Where they differ most", context["queries"]),
        ("settings", "What was set differently", context["settings"]),
        ("definitions", "What the numbers mean", context["definitions"] or context["rules"]),
    ]
    context["sections"] = [(key, heading) for key, heading, there in sections if there]
    return context


def _runs(runs: Sequence[ComparedRun]) -> dict[str, object]:
    """Returns the table of the runs and their floors, best first."""
    mean, none = headline_of(runs[0].summary)["mean"], valued(count(None), None)
    seeds = any(run.summary.get("seeds") for run in runs)
    rows = []
    floors: dict[tuple[str, float], tuple[MeasuredFloor, list[str]]] = {}  # and whose they are
    for run in runs:
        summary = run.summary
        size, time = (summary.get("index") or {}).get("bytes"), summary.get("embedding_ms_per_item")
        others = [valued(file_size(size), size), valued(three_digits(time), time)]
        epochs = valued(count(summary.get("epochs")), summary.get("epochs"))
        others.append(Cell(seed_text(summary, "micro")) if seeds else epochs)
        rows.append(Measurement(Cell(run.name, href=run.href), "run", summary, others))
        for floor in summary.get("floors") or []:
            key = floor.get("title") or floor["name"], number_in(floor, f"micro_{mean}")
            floors.setdefault(key, (floor, []))[1].append(run.name)
    for (name, _), (floor, owners) in floors.items():
        if len(owners) < len(runs):  # such as an untrained network, which each run has of its own
            name += f": {', '.join(owners)}"
        rows.append(Measurement(Cell(name, tag="floor"), "floor", floor, [none, none, none]))
    titles = ("index", "ms an item", "SD (n)" if seeds else "epochs")
    return measurements_table(best_first(rows, mean), runs[0].summary, titles)


def _queries(queries: Sequence[ComparedQuery], detail: Detail) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    left = detail.max_search_rows
    for query in queries:
        left -= len(query.rows)
        if left < 0 and shown:
            break
        rows = [(name, search_row(row, detail)) for name, row in query.rows]
        if rows:
            shown.append({"note": query.note, "query": rows[0][1], "rows": rows})
    return shown
