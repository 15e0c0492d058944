"""The report of a run: one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.reading import Summary, ends_of, number_in
from visual_search.views.drawing import DrawnFigure
from visual_search.views.html_page import (
    Detail,
    PictureWriter,
    clean,
    picture,
    render,
    script_json,
    search_row,
)
from visual_search.views.html_page import asset as page_asset
from visual_search.views.html_projection import ProjectionView, plotly_script, projection_data
from visual_search.views.html_tables import (
    category_table,
    headline_of,
    plain_table,
    products_table,
    standing_table,
)
from visual_search.views.picture_grids import SearchRow
from visual_search.views.projection import projection_figure
from visual_search.wording import is_missing, rough_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ExampleGroup:
    """Queries of one category, those that went best and those that went worst.

    Attributes:
        title: The category.
        best: Queries with what was found, best first.
        worst: The same, worst first.
        note: What else to say, such as the category's mean.
    """

    title: str
    best: Sequence[SearchRow] = ()
    worst: Sequence[SearchRow] = ()
    note: str = ""


@dataclass(frozen=True, eq=False)
class PicturePair:
    """Two pictures that are suspected to be the same.

    Attributes:
        pictures: Two of ``[3, S, S] uint8``; their sizes may differ.
        labels: Their item ids.
        note: What was found, such as "distance 2 of 64 bits".
    """

    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    labels: tuple[str, str]
    note: str = ""


@dataclass(frozen=True, eq=False)
class DataFinding:
    """One check of the data and what it found.

    Attributes:
        title: Such as "Near-duplicate pictures".
        sentence: The finding with its numbers.
        table: What was found in detail.
        pairs: Pictures to look at.
        good: True where nothing is wrong, False where something is; None makes no claim.
    """

    title: str
    sentence: str
    table: pd.DataFrame | None = None
    pairs: Sequence[PicturePair] = ()
    good: bool | None = None


@dataclass(frozen=True, eq=False)
class RunPage:
    """What a run report shows. Whatever is None or empty is left out, with its heading.

    Attributes:
        experiment: The experiment's name, as "baseline".
        run: The run's hash.
        summary: `RetrievalReport.summary`; other values in it are ignored.
        date: When the run ended, as it is to be written.
        per_category: `RetrievalReport.per_category`.
        floors_per_category: Column ``category`` and one a floor, named as in ``summary["floors"]``.
        floors_chart: The run among its floors.
        category_chart: The headline by category.
        curves: Losses and metrics by epoch.
        reconstructions: Figures that consist of pictures.
        feature_maps: Likewise, one an item.
        projection: Points to turn.
        examples: Best and worst queries, one group a category.
        num_example_categories: Categories that could be among them.
        confusion: Categories asked for against categories retrieved.
        class_distribution: Items by category and set.
        findings: Leaks and near-duplicates.
        config: The run's ``config.yaml`` as text.
        environment: Names and values, which may be mappings themselves.
        command: The command that started the run, in one line.
        facts: More to know, in the order given: parameters, epochs, training time, index bytes.
    """

    experiment: str
    run: str
    summary: Summary
    date: str = ""
    per_category: pd.DataFrame | None = None
    floors_per_category: pd.DataFrame | None = None
    floors_chart: Figure | None = None
    category_chart: Figure | None = None
    curves: Figure | None = None
    reconstructions: Figure | Sequence[Figure | DrawnFigure] | None = None
    feature_maps: Figure | Sequence[Figure | DrawnFigure] | None = None
    projection: ProjectionView | None = None
    examples: Sequence[ExampleGroup] = ()
    num_example_categories: int = 0
    confusion: Figure | None = None
    class_distribution: Figure | None = None
    findings: Sequence[DataFinding] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def run_report(page: RunPage) -> str:
    """Returns a run's report as one HTML text of at most 5,000,000 bytes as UTF-8.

    It loads nothing, follows light and dark, prints, and reads without JavaScript; where that is
    there, tables can be sorted and the projection turned (plotly.js travels within). What is too
    much is shrunk, and the page says so: fewer points, smaller pictures, fewer rows.

    Args:
        page: What to show.

    Raises:
        ValueError: A picture of a finding has the wrong shape or dtype, or ``per_category`` lacks
            the headline's column or ``category``.

    Example:
        >>> page = run_report(RunPage("baseline", "1a2b", {"standing": "Above <all> floors."}))
        >>> "Above &lt;all&gt; floors." in page, "://" in page
        (True, False)
    """
    pictures = PictureWriter()
    scripts = [plotly_script(), page_asset("projection.js")] if page.projection else []
    return render("run.html", lambda detail: _context(page, detail, pictures), scripts)


def _definitions(summary: Summary) -> dict[str, str]:
    products = summary.get("products")
    over = {products["title"]: products["definition"]} if products else {}
    return {**(summary.get("definitions") or {}), **over}


def _context(page: RunPage, detail: Detail, pictures: PictureWriter) -> dict[str, object]:
    summary = page.summary
    headline = headline_of(summary)
    context: dict[str, object] = {
        "page": page,
        "summary": summary,
        "headline": headline,
        "identity": summary.get("identity") or {},
        "numbers": _key_numbers(summary, headline["mean"]),
        "standing": standing_table(summary, page.experiment),
        "over_products": products_table(summary, page.experiment),
        "categories": None,
        "definitions": _named(_definitions(summary)),
        "rules": _named(summary.get("rules")),
        "config": page.config[: detail.max_text],
        "config_cut": len(page.config) > detail.max_text,
        "environment": _flat(page.environment),
        "floors": [
            (floor.get("title") or floor["name"], floor.get("definition", ""))
            for floor in summary.get("floors") or []
        ],
    }
    if page.per_category is not None and len(page.per_category):
        context["categories"] = category_table(
            page.per_category, summary, page.floors_per_category, detail.max_table_rows
        )
    title = headline["title"]
    for name, figure, alt, themed in (
        ("floors_chart", page.floors_chart, f"{title} of this run and of every floor; the numbers "
         "are in the table above.", True),
        ("category_chart", page.category_chart, f"{title} by category; the numbers are in the "
         "table below.", True),
        ("curves", page.curves, "Losses and metrics by epoch.", True),
        ("confusion", page.confusion, "Heat map: the category asked for against the categories of "
         "the items found.", False),
        ("class_distribution", page.class_distribution, "Number of items by category and set.",
         True),
    ):  # fmt: skip
        context[name] = None if figure is None else pictures.chart(figure, alt, themed=themed)
    for name, figures, what in (
        ("reconstructions", page.reconstructions, "Pictures, what the network made of them, and "
         "the squared error of each pixel"),
        ("feature_maps", page.feature_maps, "What each layer of the encoder makes of an item"),
    ):  # fmt: skip
        given = [figures] if isinstance(figures, Figure) else list(figures or [])
        context[name] = [
            pictures.figure(each, f"{what}, figure {place} of {len(given)}.", detail)
            for place, each in enumerate(given[: detail.max_figures], start=1)
        ]
        context[f"{name}_given"] = len(given)
    context |= _projection(page.projection, detail, pictures)
    context |= _examples(page, detail)
    context["findings"] = [_finding(finding, detail) for finding in page.findings]
    context["sections"] = [
        (key, heading) for key, heading, there in _sections(page, context) if there
    ]
    return context


def _sections(page: RunPage, context: Mapping[str, object]) -> list[tuple[str, str, object]]:
    """Returns id, heading, and whether there is something under it, in the page's order."""
    return [
        ("floors", "Against embeddings that learn nothing",
         context["standing"] or context["floors_chart"]),
        ("categories", "By category", context["categories"] or context["category_chart"]),
        ("curves", "Training", context["curves"]),
        ("reconstructions", "Reconstructions", context["reconstructions"]),
        ("feature-maps", "Feature maps", context["feature_maps"]),
        ("projection", "The gallery in three dimensions", context["projection"]),
        ("examples", "Best and worst queries", context["groups"]),
        ("confusion", "What was found instead", context["confusion"]),
        ("distribution", "The data", context["class_distribution"]),
        ("findings", "Leaks and near-duplicates", context["findings"]),
        ("definitions", "What the numbers mean",
         context["definitions"] or context["rules"] or context["floors"]),
        ("provenance", "How to get this again",
         page.config or context["environment"] or page.command or context["identity"]
         or page.facts),
    ]  # fmt: skip


def _key_numbers(summary: Summary, mean: str) -> list[dict[str, object]]:
    """Returns the numbers at the top: both means with their intervals, then what they rest on."""
    measured = {kind: ends_of(summary, kind) for kind in ("micro", "macro")}
    return [
        {"kind": kind, "value": value, "interval": ends, "rough": rough_text(ends)}
        for kind, ends in measured.items()
        if not is_missing(value := number_in(summary, f"{kind}_{mean}"))
    ]


def _projection(
    view: ProjectionView | None, detail: Detail, pictures: PictureWriter
) -> dict[str, object]:
    if view is None:
        return {"projection": None}
    data = projection_data(view, detail)
    # the static figure shows every point, also those that the turnable one leaves out
    figure = view.figure or pictures.made("projection", lambda: _drawn_projection(view))
    return {
        "projection": {
            "json": script_json(data),
            "groups": data["groups"],
            "shown": len(data["ids"]),
            "num_points": len(view.points),
            "num_all": view.num_all or len(view.points),
            "description": view.description,
            "has_pictures": "sprite" in data,
            "figure": pictures.figure(
                figure, "Four views of the projected gallery, coloured by category.", detail
            ),
        }
    }


def _drawn_projection(view: ProjectionView) -> Figure:
    categories = [clean(str(category)) for category in view.categories]  # fonts refuse halves
    points = np.asarray(view.points, dtype=np.float32)
    return projection_figure(points, categories, "Gallery", view.description, view.num_all)


def _examples(page: RunPage, detail: Detail) -> dict[str, object]:
    """Returns the rows of pictures; of many queries every group keeps its first ones."""
    groups = [group for group in page.examples if len(group.best) or len(group.worst)]
    given = sum(len(group.best) + len(group.worst) for group in groups)
    groups = groups[: max(detail.max_search_rows // 2, 1)]
    each = max(detail.max_search_rows // max(2 * len(groups), 1), 1)
    return {
        "groups": [
            {
                "title": group.title,
                "note": group.note,
                "best": [search_row(row, detail) for row in group.best[:each]],
                "worst": [search_row(row, detail) for row in group.worst[:each]],
            }
            for group in groups
        ],
        "queries_given": given,
        "queries_shown": sum(len(of[:each]) for one in groups for of in (one.best, one.worst)),
    }


def _finding(finding: DataFinding, detail: Detail) -> dict[str, object]:
    max_pairs = max(detail.max_search_rows // 4, 1)
    return {
        "title": finding.title,
        "sentence": finding.sentence,
        "good": finding.good,
        "table": None
        if finding.table is None or len(finding.table) == 0
        else plain_table(finding.table, min(detail.max_table_rows, 200)),
        "pairs": [
            {
                "pictures": [picture(each, detail) for each in pair.pictures],
                "labels": pair.labels,
                "note": pair.note,
            }
            for pair in finding.pairs[:max_pairs]
        ],
        "pairs_given": len(finding.pairs),
    }


def _named(definitions: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [(str(name), str(text)) for name, text in (definitions or {}).items()]


def _flat(values: Mapping[str, object], above: str = "") -> list[tuple[str, str]]:
    """Returns nested names and values as one list: ``packages.torch`` and its version."""
    flat: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{above}{name}.")
        elif isinstance(value, list | tuple):
            flat.append((f"{above}{name}", " ".join(map(str, value))))
        elif value is not None:
            flat.append((f"{above}{name}", str(value)))
    return flat
