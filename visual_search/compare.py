"""Compares finished runs on the same queries: differences, intervals, tests, pictures.

``python -m visual_search.compare runs=[A,B]``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import CompareSchema
from visual_search.reading import MeasuredFloor
from visual_search.runs.finished import measured_in
from visual_search.runs.places import settings_without_places, text_without_places
from visual_search.wording import (
    as_float,
    count,
    difference,
    file_size,
    first_by_size,
    interval,
    number,
    of_all,
    p_value,
    shown,
    three_digits,
)

if TYPE_CHECKING:
    import pandas as pd

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.retrieval.comparison import Comparison
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.runs.run import Run
    from visual_search.views.html import ComparedQuery
    from visual_search.views.table import Table


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("compare", compare_command)


def compare_command(settings: CompareSchema) -> None:
    """Compares what the composed config names, prints the verdict, and writes the page."""
    print_comparison(compare_runs(settings))


@dataclass(frozen=True)
class Compared:
    """A comparison and where it lies.

    Attributes:
        folder: With ``report.html`` and the tables.
        runs: Name -> run.
        comparison: The tests.
        without_pictures: Why the page has no search results; empty where it has.
    """

    folder: Path
    runs: Mapping[str, Run]
    comparison: Comparison
    without_pictures: str


def compare_runs(settings: CompareSchema) -> Compared:
    """Compares runs and writes the comparison's folder.

    Args:
        settings: The composed ``conf/compare.yaml``.

    Raises:
        ConfigError: Fewer than two runs are named, or one is not finished, or names do not fit.
        NotComparableError: The runs were measured differently.
    """
    from visual_search.progress import progress_bar
    from visual_search.retrieval.comparison import compare_reports
    from visual_search.runs.run import run_root

    runs = _named_runs(settings.runs, settings.names)
    reports = {name: _report(run) for name, run in runs.items()}
    paths = {name: str(run.folder) for name, run in runs.items()}
    roots = {name: str(run_root(run.folder)) for name, run in runs.items()}
    with progress_bar("Comparing", " tests") as advance:
        comparison = compare_reports(reports, paths=roots, seed=settings.seed, on_progress=advance)
    digest = hashlib.sha256("\x1f".join([*paths.values(), str(settings.seed)]).encode())
    folder = Path(settings.out or Path(settings.outputs) / "comparisons" / digest.hexdigest()[:10])
    _write_tables(folder, comparison)
    cached, problem = _pictures(runs, settings.pictures.cache_dir)
    queries = _queries(reports, comparison, cached, settings.num_queries_shown)
    notes = [f"Search results are not shown: {problem}."] if problem else []
    _write_page(folder, runs, reports, comparison, queries, notes)
    return Compared(folder, runs, comparison, problem)


def _report(run: Run) -> RetrievalReport:
    """Returns what a run measured; one of an older version says itself what is to be done.

    Raises:
        ValueError: A file of it is not what a measurement writes; the message names it.
        FileNotFoundError: A file is missing.
    """
    from visual_search.reports.rankings import ranked_report
    from visual_search.retrieval.report_files import load_report

    if {"identity", "headline"} <= run.summary().keys():
        return ranked_report(run)
    return load_report(run.folder / "metrics")


def _named_runs(paths: Sequence[str], names: Sequence[str] | None) -> dict[str, Run]:
    from visual_search.runs.run import run_name

    if len(paths) < 2:
        raise ConfigError(
            f"runs={list(paths)} names {len(paths)} run(s); expected two or more: "
            "runs=[outputs/baseline/0123456789,outputs/plus_layer/0123456789]"
        )
    runs = [measured_in(path) for path in paths]
    if names is None:
        names = [run_name(run.folder) for run in runs]
        names = [
            f"{name}/{run.folder.name}" if names.count(name) > 1 else name
            for name, run in zip(names, runs, strict=True)
        ]
    if len(set(names)) < len(runs) or len(names) != len(runs):
        raise ConfigError(
            f"names={list(names)} for {len(runs)} run(s); expected as many different names; "
            "name each run once"
        )
    return dict(zip(names, runs, strict=True))


def _write_tables(folder: Path, comparison: Comparison) -> None:
    from visual_search.retrieval.report_files import save_table

    # First away and last written: what lies there with it belongs together.
    (folder / "report.html").unlink(missing_ok=True)
    for name in ("runs", "pairs", "per_category", "queries"):
        save_table(getattr(comparison, name), folder / f"{name}.csv")


def _pictures(runs: Mapping[str, Run], cache_dir: str) -> tuple[CachedCatalog | None, str]:
    """Returns the first run's catalogue with its pictures, or why it cannot be read."""
    from visual_search.runs.parts import Parts

    run = next(iter(runs.values()))
    try:
        own = run.settings()
        own.pictures.cache_dir = cache_dir
        parts = Parts(own)
        if parts.catalog.fingerprint() != run.summary()["catalog_fingerprint"]:
            return None, "the catalogue has changed since the runs were measured"
        return parts.cached, ""
    except (OSError, ValueError) as error:
        return None, f"the catalogue cannot be read: {str(error).splitlines()[0]}"


def _write_page(
    folder: Path,
    runs: Mapping[str, Run],
    reports: Mapping[str, RetrievalReport],
    comparison: Comparison,
    queries: Sequence[ComparedQuery],
    notes: Sequence[str],
) -> None:
    from visual_search.atomic import write_text
    from visual_search.reports.run_page import relative_to
    from visual_search.views.evaluation_charts import comparison_bars
    from visual_search.views.figures import save_figure
    from visual_search.views.html import ComparedRun, ComparisonPage, comparison_page

    chart = comparison_bars(comparison.per_category, list(runs), comparison.headline["title"])
    save_figure(chart, folder / "figures" / "by_category.png")
    page = ComparisonPage(
        title=" and ".join(runs) if len(runs) == 2 else f"{len(runs)} runs compared",
        verdict=comparison.sentence,
        runs=[
            ComparedRun(name, reports[name].summary, relative_to(folder, run.folder))
            for name, run in runs.items()
        ],
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        tests=_with_names(comparison.pairs.drop(columns=["num_groups"]), *runs),
        charts=[chart],
        category_differences=_with_names(
            comparison.per_category.drop(columns=["num_groups", "effective_groups", "few_queries"]),
            *runs,
        ),
        queries=queries,
        settings=_differing(
            {name: settings_without_places(run.config()) for name, run in runs.items()}
        ),
        notes=[text_without_places(note) for note in notes],
    )
    write_text(folder / "report.html", comparison_page(page))


def _with_names(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Returns the table with runs by name in its verdicts, instead of a and b."""
    if "verdict" not in table.columns:
        return table
    shown = table.copy()
    for side, name in zip("ab", names[:2], strict=True):
        named = table[side] if side in table.columns else name  # a pair's own, or the two runs'
        better = table["verdict"] == f"{side} is better"
        shown["verdict"] = shown["verdict"].mask(better, named + " is better")
    return shown


def _queries(
    reports: Mapping[str, RetrievalReport],
    comparison: Comparison,
    cached: CachedCatalog | None,
    num_shown: int,
) -> list[ComparedQuery]:
    """Returns what each run found for the queries where they differ most."""
    from visual_search.reports.shown_items import search_rows
    from visual_search.views.html import ComparedQuery

    if cached is None:
        return []
    column, title = comparison.headline["column"], comparison.headline["title"]
    chosen = comparison.queries[comparison.queries["spread"] > 0].head(num_shown)
    found = {}
    for name, report in reports.items():
        lines = report.per_query.set_index("query_id", drop=False).loc[chosen["query_id"]]
        found[name] = search_rows(lines, column, cached.catalog, cached.pictures)
    return [
        ComparedQuery(
            rows=[(name, rows[place]) for name, rows in found.items()],
            note=f"{title.removeprefix('m')} differs by {number(spread)}",
        )
        for place, spread in enumerate(chosen["spread"])
    ]


def _differing(configs: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, str]]:
    """Returns the settings that are not the same for all runs: dotted name -> run -> value."""
    from visual_search.retrieval.comparability import flat

    settings = {name: flat(config) for name, config in configs.items()}
    keys = sorted({key for of_run in settings.values() for key in of_run})
    found = {
        key: {name: str(held.get(key, "-")) for name, held in settings.items()} for key in keys
    }
    return {key: values for key, values in found.items() if len(set(values.values())) > 1}


def print_comparison(compared: Compared) -> None:
    """Prints runs, paired tests, categories and the verdict, and where the page lies."""
    from rich.console import Console

    from visual_search.reports.tables import P_RULE
    from visual_search.views.scripts import font_advice
    from visual_search.views.table import terminal

    console = Console(highlight=False)
    comparison = compared.comparison
    console.print(terminal(_runs_table(compared)))
    console.print(terminal(_pairs_table(comparison, compared.folder)))
    if len(compared.runs) == 2:
        console.print(terminal(_categories_table(comparison, list(compared.runs))))
    headline = comparison.headline
    console.print(f"{headline['title']}: {headline['definition']}", markup=False)
    console.print(
        f"{P_RULE.format('the pairs of one mean, or over the categories')} ~ marks a rough "
        "interval, which few groups carry.",
        markup=False,
    )
    if line := font_advice([*compared.runs, *comparison.per_category["category"]]):
        console.print(shown(line), markup=False)
    if compared.without_pictures:
        console.print(f"No search results on the page: {compared.without_pictures}.", markup=False)
    console.print(f"\n{comparison.sentence}\n", style="bold", markup=False)
    console.print(f"  {compared.folder / 'report.html'}", markup=False, soft_wrap=True)


def _runs_table(compared: Compared) -> Table:
    from visual_search.reports.tables import or_low
    from visual_search.views.table import Cell, Row, Table, TableColumn, cells

    headline = compared.comparison.headline
    lines: list[tuple[float, Row]] = []
    for line in compared.comparison.runs.to_dict("records"):
        summary = compared.runs[line["run"]].summary()
        row = cells(
            line["run"],
            Cell(
                number(line["micro"]),
                interval(line["micro_low"], line["micro_high"], rough=line["rough"]),
            ),
            number(line["macro"]),
            count(summary["embedding_dim"]),
            file_size(summary["index"]["bytes"]),
            three_digits(summary.get("embedding_ms_per_item")),
        )
        lines.append((line[headline["statistic"]], Row(row, "run")))
    for title, floor in _floors(compared.runs).items():
        ends = interval(floor["micro_low"], floor["micro_high"])
        means = Cell(number(floor["micro"]), ends), number(floor["macro"])
        row = cells(title, *means, count(floor["dim"]), "floor", "")
        lines.append((as_float(floor[headline["statistic"]]), Row(row, "floor")))
    lines.sort(key=lambda line: -or_low(line[0]))
    columns = [TableColumn("Run", "name"), TableColumn("micro", with_ends=True)]
    columns += map(TableColumn, ("macro", "Dim", "Index", "ms a picture"))
    return Table(f"Runs, {headline['title']}", columns, [row for _, row in lines])


def _floors(runs: Mapping[str, Run]) -> dict[str, MeasuredFloor]:
    """Returns the floors by title, each once; a run's own untrained network by the run's name."""
    from visual_search.retrieval.floor_comparison import OWN

    floors: dict[str, MeasuredFloor] = {}
    for name, run in runs.items():
        for floor in run.summary()["floors"]:
            own = floor["name"] in OWN
            floors.setdefault(
                f"{name}, {floor['name'].replace('_', ' ')}" if own else floor["title"], floor
            )
    return floors


def _pairs_table(comparison: Comparison, folder: Path) -> Table:
    """Returns the tested pairs; of many those of the best run."""
    from visual_search.reports.tables import MAX_ROWS
    from visual_search.views.table import Row, Table, TableColumn, cells

    pairs, title = comparison.pairs, "Paired differences, a minus b"
    if len(pairs) > MAX_ROWS:
        best = comparison.runs.sort_values(comparison.headline["statistic"])["run"].iloc[-1]
        pairs = pairs[(pairs["a"] == best) | (pairs["b"] == best)]
        title += (
            f": {of_all(len(pairs), len(comparison.pairs), 'test')}, those of {best}; "
            f"{folder / 'pairs.csv'} holds all"
        )
    rows = [
        Row(
            cells(
                line["a"],
                line["b"],
                line["statistic"],
                *_tested(line, "low", "high"),
                line["verdict"],
            )
        )
        for line in pairs.to_dict("records")
    ]
    numbers = map(TableColumn, ("mean", "a - b [95 %]", "p", "Holm"))
    names = TableColumn("a", "name"), TableColumn("b", "words")
    return Table(title, [*names, *numbers, TableColumn("verdict", "words")], rows)


def _tested(line: Mapping[Hashable, float], low: str, high: str) -> list[str]:
    """Returns a difference with its interval, its p and that after Holm's correction."""
    found = difference(line["difference"], line[low], line[high], rough=bool(line["rough"]))
    return [found, p_value(line["p_value"]), p_value(line["p_holm"])]


def _categories_table(comparison: Comparison, names: Sequence[str]) -> Table:
    from visual_search.reports.tables import MAX_ROWS
    from visual_search.views.table import Row, Table, TableColumn, cells

    per_category = comparison.per_category
    title = "By category, the largest gain of the first first"
    queries = per_category["num_queries"].tolist()
    chosen = first_by_size(per_category["category"].tolist(), queries, MAX_ROWS)
    if len(chosen) < len(per_category):
        shown_of = of_all(len(chosen), len(per_category), "category", "categories")
        title += f": {shown_of}, those with most queries; per_category.csv holds all"
    ordered = per_category.iloc[chosen].sort_values(
        ["difference", "category"], ascending=[False, True], na_position="last"
    )
    rows = []
    for line in ordered.to_dict("records"):
        asked = count(line["num_queries"]) + "*" * bool(line["few_queries"])
        means = [number(line[f"mean:{name}"]) for name in names]
        tested = _tested(line, "difference_low", "difference_high")
        rows.append(Row(cells(line["category"], asked, *means, *tested)))
    titles = ("Queries", *names, "a - b [95 %]", "p", "Holm")
    return Table(title, [TableColumn("Category", "name"), *map(TableColumn, titles)], rows)


if __name__ == "__main__":
    main()
