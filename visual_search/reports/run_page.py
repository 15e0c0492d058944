"""Pages written from what runs left: a run's report. Nothing is measured here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.reading import SAVED, MeasuredFloor, Summary, ends_of, number_in, read_table
from visual_search.reports.shown_items import (
    ShownItems,
    examples,
    near_pairs,
    near_table,
    projection,
)
from visual_search.reports.tables import or_low
from visual_search.runs.machine import device_sentence
from visual_search.runs.run import run_name
from visual_search.wording import count, duration, is_missing, three_digits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from visual_search.catalog.cache import Pictures
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.runs.run import Environment, Run
    from visual_search.views.drawing import DrawnFigure
    from visual_search.views.evaluation_charts import FloorBar
    from visual_search.views.html import DataFinding

REPORT_FILE = "report.html"


def write_run_report(folder: Path, catalog: Catalog, pictures: Pictures) -> Path:
    """Writes ``report.html`` from what a run, or one of its evaluations, left in its folder.

    Args:
        folder: With ``metrics``, ``figures`` and ``embeddings``.
        catalog: As measured.
        pictures: Row i is the picture of the catalogue's row i.
    """
    from visual_search.atomic import write_text
    from visual_search.retrieval.report_files import load_report
    from visual_search.runs.run import Run
    from visual_search.views.html import RunPage, run_report

    run = Run(folder)
    report = load_report(folder / "metrics")
    summary = report.summary
    shop = ShownItems(catalog, pictures)
    environment = run.environment()
    floors = _floors_per_category(folder)
    name = run_name(folder)
    further = folder.parent.name == "evaluations"
    page = RunPage(
        experiment=name,
        run=f"{folder.parent.parent.name}, {folder.name}" if further else folder.name,
        summary=summary,
        date=_date(run),
        per_category=report.per_category,
        floors_per_category=floors,
        floors_chart=_floors_chart(name, summary),
        category_chart=_category_chart(report, floors),
        curves=_curves(folder, summary),
        reconstructions=_first_and_last(_drawn(folder, "reconstructions")),
        feature_maps=_drawn(folder, "feature_maps"),
        projection=projection(folder, report, shop),
        examples=examples(report, shop),
        num_example_categories=summary["num_categories_scored"],
        confusion=_confusion(report),
        class_distribution=_class_distribution(folder, catalog),
        findings=_findings(folder, summary, shop),
        config=_settings(run),
        environment=_environment(environment),
        command=str(environment.get("command", "")),
        facts=_facts(run, summary),
    )
    return write_text(folder / REPORT_FILE, run_report(page))


def _floors_chart(name: str, summary: Summary) -> Figure | None:
    from visual_search.views.evaluation_charts import floor_bars

    if not summary["floors"]:
        return None
    headline = summary["headline"]
    statistic = summary["floors"][0]["statistic"]
    of_run = ends_of(summary, statistic)
    value = number_in(summary, f"{statistic}_{headline['mean']}")
    bars: list[FloorBar] = [
        {
            "title": title,
            "value": value,
            "low": ends["low"],
            "high": ends["high"],
            "rough": of_run.get("rough", False),  # carried by the same groups
            "is_run": ends is of_run,
        }
        for title, value, ends in (
            (name, value, of_run),
            *((one["title"], one[statistic], ends_of(one, statistic)) for one in summary["floors"]),
        )
    ]
    over = "queries" if statistic == "micro" else "categories"
    return floor_bars(bars, "The run and its floors", f"{headline['title']}, mean over {over}")


def _category_chart(report: RetrievalReport, floors: pd.DataFrame | None) -> Figure:
    from visual_search.views.figures import category_bars

    summary = report.summary
    mean = summary["headline"]["mean"]
    key = f"micro_{mean}"
    best: MeasuredFloor = {}
    if floors is not None:
        best = max(summary["floors"], key=lambda floor: or_low(number_in(floor, key)))
    return category_bars(
        report.per_category,
        mean,
        micro=number_in(summary, f"micro_{mean}"),
        macro=number_in(summary, f"macro_{mean}"),
        floors=floors,
        floor=best.get("name"),
        floor_title=best.get("title"),
    )


def _curves(folder: Path, summary: Summary) -> Figure | None:
    from visual_search.retrieval.floor_comparison import OWN
    from visual_search.views.training_curves import training_curves

    path = folder / "metrics" / "history.csv"
    if not path.is_file():
        return None
    floors: dict[str, float] = {}
    beside = path.with_name("val_floors.csv")
    if beside.is_file():  # where the training starts from, and the best that learns nothing
        reached = read_table(beside, SAVED).dropna()
        best = reached["value"] == reached["value"].max()
        shown = reached[best | reached["name"].isin(OWN)]
        floors = dict(zip(shown["title"], shown["value"], strict=True))
    history = read_table(path, SAVED)
    return training_curves(history, metric=summary["headline"]["mean"], floors=floors or None)


def _drawn(folder: Path, name: str) -> list[DrawnFigure]:
    """Returns the pictures that callbacks drew: ``figures/<name>.png`` or a folder of that name."""
    from visual_search.views.drawing import read_figure

    figures = folder / "figures"
    paths = [figures / f"{name}.png", *sorted((figures / name).glob("*.png"))]
    return [read_figure(path) for path in paths if path.is_file()]


def _first_and_last(figures: Sequence[DrawnFigure]) -> list[DrawnFigure]:
    """Leaves out what lies between: 40 epochs of reconstructions would fill the page."""
    return [*figures[:1], *figures[1:][-1:]]


def _confusion(report: RetrievalReport) -> Figure | None:
    from visual_search.views.confusion import confusion_matrix

    table = report.per_query
    if not any(map(len, table["neighbour_categories"])):
        return None
    return confusion_matrix(table["category"].tolist(), table["neighbour_categories"].tolist())


def _class_distribution(folder: Path, catalog: Catalog) -> Figure:
    from visual_search.views.figures import class_distribution

    sets = {
        name: read_table(folder / "embeddings" / f"{name}.parquet", SAVED)["category"]
        for name in ("gallery", "queries")
    }
    if (folder / "metrics" / "trained_items.parquet").is_file():  # else it was trained elsewhere
        sets = {"training": catalog.table["category"].iloc[catalog.rows_of_split("train")], **sets}
    return class_distribution({name: Counter(values.tolist()) for name, values in sets.items()})


def _findings(folder: Path, summary: Summary, shop: ShownItems) -> list[DataFinding]:
    """Returns what the checks of both sides found."""
    import pandas as pd

    from visual_search.views.html import DataFinding

    findings, of_all = [], summary["leaks"]
    for leaks, title, text in (
        (of_all.get("between_sides"), "Leaks between queries and gallery",
         "queries share pixels or a group with a gallery item"),
        (of_all.get("with_training"), "Leaks into the training items",
         "items share an id, pixels or a group with a training item"),
    ):  # fmt: skip
        if leaks is None:
            continue
        columns = ["shared", "query", "other item", "key"]
        kinds = " or ".join(leaks["num_pairs"])
        findings.append(
            DataFinding(
                title=title,
                sentence=f"{leaks['num_queries']:,} {text} (checked: {kinds}); "
                f"protocol.on_leak={of_all['on_leak']}, {of_all['num_dropped']:,} left out.",
                table=pd.DataFrame(leaks["pairs"], columns=columns) if leaks["pairs"] else None,
                good=not leaks["num_queries"] or bool(of_all["num_dropped"]),
            )
        )
    trained = summary.get("num_queries_trained_on")
    if not is_missing(trained):
        sentence = f"{count(trained)} of {count(summary['num_queries'])} queries were trained on."
        findings.append(DataFinding("Queries that were trained on", sentence, good=not trained))
    near = summary.get("near_duplicates")
    if near is not None:
        findings.append(
            DataFinding(
                title="Near-duplicates",
                sentence=f"{near['num_queries']:,} queries have a near-duplicate in the gallery "
                f"({near['num_pairs']:,} pairs). {near['definition']} By the hash alone there are "
                f"{near['num_by_hash_alone']:,} more pairs, by the embedding alone "
                f"{near['num_by_embedding_alone']:,}: most of these only look alike.",
                table=near_table(folder),
                pairs=near_pairs(folder, shop),
            )
        )
    return findings


def _environment(environment: Environment) -> dict[str, object]:
    """Returns what the page lists: the command has a place of its own, devices are named parts."""
    devices = environment.get("computed_on", [])
    shown = {
        name: value for name, value in environment.items() if name not in ("command", "computed_on")
    }
    if len(devices) == 1:
        return shown | {"computed_on": devices[0]}
    return shown | {f"computed_on.{place}": one for place, one in enumerate(devices, 1)}


def _facts(run: Run, summary: Summary) -> dict[str, str]:
    from visual_search.reports.tables import index_size, loss_fact

    facts = {}
    if not is_missing(summary.get("num_parameters")):
        facts["Parameters"] = count(summary["num_parameters"])
    facts["Embedding width"] = f"{summary['embedding_dim']:,}"
    if not is_missing(summary.get("epochs")):
        facts["Epochs"] = count(summary["epochs"])
    if not is_missing(summary.get("num_training")):
        facts["Training items"] = count(summary["num_training"])
    facts |= loss_fact(summary)
    if not is_missing(summary.get("embedding_ms_per_item")):
        facts["Embedding time"] = f"{three_digits(summary['embedding_ms_per_item'])} ms a picture"
    facts["Index"] = index_size(summary)
    if run.state != "new":
        facts["Time"] = duration(run.seconds_until_now())
    if summary.get("device"):
        earlier = summary.get("computed_before_on") or []
        facts["Computed on"] = "; then on ".join([*earlier, device_sentence(summary)])
    if summary["refused"]:
        facts["Items left out"] = f"{len(summary['refused']):,}, listed in metrics/summary.json"
    facts["Data fingerprint"] = str(summary["catalog_fingerprint"])
    return facts


def relative_to(folder: Path, run_folder: Path) -> str:
    """Returns the link from a page in ``folder`` to a run's report; empty where it has none."""
    import os
    from urllib.parse import quote

    report = run_folder / REPORT_FILE
    if not report.is_file():
        return ""
    return quote(os.path.relpath(report.resolve(), folder.resolve()))


def _floors_per_category(folder: Path) -> pd.DataFrame | None:
    from visual_search.wording import from_cell

    path = folder / "metrics" / "floors_per_category.csv"
    if not path.is_file():
        return None
    table = read_table(path, SAVED, dtype={"category": str}, keep_default_na=False, na_values=[""])
    table["category"] = table["category"].fillna("").map(from_cell)
    return table


def _settings(run: Run) -> str:
    """Returns the settings as YAML, without the places in them: the page is handed around."""
    import yaml

    from visual_search.runs.places import settings_without_places

    if not (run.folder / "config.yaml").exists():
        return ""
    shown = settings_without_places(run.config())
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)


def _date(run: Run) -> str:
    """Returns when the run ended: now, where its report is its last step."""
    ended = run.state in ("finished", "failed", "interrupted")
    moment = datetime.fromisoformat(run.status()["since"]) if ended else datetime.now(UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
