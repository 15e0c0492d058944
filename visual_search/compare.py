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
from visual_search.runs.code import UNKNOWN_CODE
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
    seed_text,
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
        runs: Name -> its runs by seed, mostly one.
        reports: Name -> what they measured, over the seeds.
        comparison: The tests.
        without_pictures: Why the page has no search results; empty where it has.
    """

    folder: Path
    runs: Mapping[str, Sequence[Run]]
    reports: Mapping[str, RetrievalReport]
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
    from visual_search.retrieval.comparison import compare_reports
    from visual_search.retrieval.seeds import over_seeds
    from visual_search.runs.run import run_root
    from visual_search.views.progress import progress_bar

    runs = _named_runs(settings.runs, settings.names)
    of_runs = {
        name: {str(run.folder): _report(run) for run in members} for name, members in runs.items()
    }
    reports = {
        name: over_seeds(held, seed=settings.seed) if len(held) > 1 else next(iter(held.values()))
        for name, held in of_runs.items()
    }
    paths = [str(run.folder) for members in runs.values() for run in members]
    roots = {name: str(run_root(members[0].folder)) for name, members in runs.items()}
    with progress_bar("Comparing", " tests") as advance:
        comparison = compare_reports(reports, paths=roots, seed=settings.seed, on_progress=advance)
    digest = hashlib.sha256("\x1f".join([*paths, str(settings.seed)]).encode())
    folder = Path(settings.out or Path(settings.outputs) / "comparisons" / digest.hexdigest()[:10])
    _write_tables(folder, comparison)
    cached, problem = _pictures(runs, settings.pictures.cache_dir)
    firsts = {name: next(iter(held.values())) for name, held in of_runs.items()}
    queries = _queries(firsts, comparison, cached, settings.num_queries_shown)
    compared = Compared(folder, runs, reports, comparison, problem)
    _write_page(compared, queries)
    return compared


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


def _named_runs(paths: Sequence[str], names: Sequence[str] | None) -> dict[str, list[Run]]:
    """Returns the runs by what they are called; those that differ in the seed alone are one.

    Where names are given, or there are no others than seeds, each stands by itself.
    """
    from visual_search.runs.run import run_name
    from visual_search.runs.variants import SEED, Variant, seed_groups, told_apart, variant_of

    if len(paths) < 2:
        raise ConfigError(
            f"runs={list(paths)} names {len(paths)} run(s); expected two or more: "
            "runs=[outputs/baseline/0123456789,outputs/plus_layer/0123456789]"
        )
    runs = [measured_in(path) for path in paths]
    groups = [[run] for run in runs]
    if names is None:
        variants = [variant_of(run) for run in runs]
        by_seed = seed_groups(variants)
        if len(by_seed) > 1:
            groups = [[runs[place] for place in places] for places in by_seed]
            variants = [variants[places[0]] for places in by_seed]
        else:
            variants = [Variant({**(one.settings or {}), SEED: one.seed}, 0) for one in variants]
        firsts = [group[0].folder for group in groups]
        called = [run_name(folder) for folder in firsts]
        apart = told_apart(list(zip(called, variants, firsts, strict=True)))
        if all(apart) and len(set(called)) == 1:
            called = [""] * len(called)
        names = [
            " ".join(part for part in pair if part) for pair in zip(called, apart, strict=True)
        ]
    if len(set(names)) < len(groups) or len(names) != len(groups):
        raise ConfigError(
            f"names={list(names)} for {len(groups)} run(s); expected as many different names; "
            "name each run once"
        )
    return dict(zip(names, groups, strict=True))


def _write_tables(folder: Path, comparison: Comparison) -> None:
    from visual_search.retrieval.report_files import save_table

    # First away and last written: what lies there with it belongs together.
    (folder / "report.html").unlink(missing_ok=True)
    for name in ("runs", "pairs", "per_category", "queries"):
        save_table(getattr(comparison, name), folder / f"{name}.csv")


def _pictures(
    runs: Mapping[str, Sequence[Run]], cache_dir: str
) -> tuple[CachedCatalog | None, str]:
    """Returns the first run's catalogue with its pictures, or why it cannot be read."""
    from visual_search.runs.parts import Parts

    run = next(iter(runs.values()))[0]
    try:
        own = run.settings()
        own.pictures.cache_dir = cache_dir
        parts = Parts(own)
        if parts.catalog.fingerprint() != run.summary()["catalog_fingerprint"]:
            return None, "the catalogue has changed since the runs were measured"
        return parts.cached, ""
    except (OSError, ValueError) as error:
        return None, f"the catalogue cannot be read: {str(error).splitlines()[0]}"


def _write_page(compared: Compared, queries: Sequence[ComparedQuery]) -> None:
    from visual_search.atomic import write_text
    from visual_search.reports.run_page import relative_to
    from visual_search.views.evaluation_charts import comparison_bars
    from visual_search.views.figures import save_figure
    from visual_search.views.html import ComparedRun, ComparisonPage, comparison_page

    folder, runs, comparison = compared.folder, compared.runs, compared.comparison
    chart = comparison_bars(comparison.per_category, list(runs), comparison.headline["title"])
    save_figure(chart, folder / "figures" / "by_category.png")
    notes = _seed_notes(compared)
    if compared.without_pictures:
        notes.append(f"Search results are not shown: {compared.without_pictures}.")
    page = ComparisonPage(
        title=" and ".join(runs) if len(runs) == 2 else f"{len(runs)} runs compared",
        verdict=comparison.sentence,
        runs=[
            ComparedRun(
                name, compared.reports[name].summary, relative_to(folder, members[0].folder)
            )
            for name, members in runs.items()
        ],
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        tests=_with_names(comparison.pairs.drop(columns=["num_groups"]), *runs),
        charts=[chart],
        category_differences=_with_names(
            comparison.per_category.drop(columns=["num_groups", "effective_groups", "few_queries"]),
            *runs,
        ),
        queries=queries,
        settings=_differing({name: _settings_of(members) for name, members in runs.items()}),
        notes=[text_without_places(note) for note in notes],
    )
    write_text(folder / "report.html", comparison_page(page))


def _settings_of(members: Sequence[Run]) -> dict[str, object]:
    """Returns the settings of runs that differ in the seed alone, with all their seeds."""
    from visual_search.runs.run import Run, run_root

    settings: dict[str, object] = settings_without_places(members[0].config())
    if "model" in settings:
        settings["code"] = Run(run_root(members[0].folder)).status().get("code", UNKNOWN_CODE)
    if len(members) > 1:
        settings["seed"] = [run.config()["seed"] for run in members]
    return settings


def _seed_notes(compared: Compared) -> list[str]:
    """Returns which runs a row is the mean of, and of runs of one recipe how far they lie apart."""
    import statistics

    from visual_search.reports.leaderboard_files import label
    from visual_search.runs.variants import seed_groups, variant_of

    notes = []
    for name, members in compared.runs.items():
        if len(members) > 1:
            which = [f"{label(str(run.folder))} (seed {run.config()['seed']})" for run in members]
            notes.append(
                f"{name} is the mean of {len(members)} runs that differ in the seed alone: "
                f"{', '.join(which)}; pictures are of the first. Intervals and tests are those of "
                "the mean, for other queries; SD is over the runs."
            )
    firsts = [members[0] for members in compared.runs.values()]
    if not notes and len(seed_groups([variant_of(run) for run in firsts])) == 1:
        headline = compared.comparison.headline
        values = compared.comparison.runs[headline["statistic"]].tolist()
        notes.append(
            f"These {len(values)} runs differ in the seed alone: {headline['title']} "
            f"{headline['statistic']} {number(statistics.fmean(values))} in the mean, SD "
            f"{number(statistics.stdev(values))}."
        )
    return notes


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
    for note in _seed_notes(compared):
        console.print(note, markup=False, soft_wrap=True)
    if compared.without_pictures:
        console.print(f"No search results on the page: {compared.without_pictures}.", markup=False)
    console.print(f"\n{comparison.sentence}\n", style="bold", markup=False)
    console.print(f"  {compared.folder / 'report.html'}", markup=False, soft_wrap=True)


def _runs_table(compared: Compared) -> Table:
    from visual_search.reports.tables import or_low
    from visual_search.views.table import Cell, Row, Table, TableColumn, cells

    headline = compared.comparison.headline
    lines: list[tuple[float, Row]] = []
    seeds = any(len(members) > 1 for members in compared.runs.values())
    for line in compared.comparison.runs.to_dict("records"):
        summary = compared.reports[line["run"]].summary
        row = cells(
            line["run"],
            Cell(
                number(line["micro"]),
                interval(line["micro_low"], line["micro_high"], rough=line["rough"]),
            ),
            *(seed_text(summary, "micro") for _ in range(seeds)),
            number(line["macro"]),
            count(summary["embedding_dim"]),
            file_size(summary["index"]["bytes"]),
            three_digits(summary.get("embedding_ms_per_item")),
        )
        lines.append((line[headline["statistic"]], Row(row, "run")))
    for title, floor in _floors(compared.reports).items():
        ends = interval(floor["micro_low"], floor["micro_high"])
        micro, macro = Cell(number(floor["micro"]), ends), number(floor["macro"])
        row = cells(title, micro, *[""] * seeds, macro, count(floor["dim"]), "floor", "")
        lines.append((as_float(floor[headline["statistic"]]), Row(row, "floor")))
    lines.sort(key=lambda line: -or_low(line[0]))
    columns = [TableColumn("Run", "name"), TableColumn("micro", with_ends=True)]
    spread = ("SD (n)",) * seeds
    columns += map(TableColumn, (*spread, "macro", "Dim", "Index"))
    columns.append(TableColumn("ms a picture", narrow=not seeds))
    return Table(f"Runs, {headline['title']}", columns, [row for _, row in lines])


def _floors(reports: Mapping[str, RetrievalReport]) -> dict[str, MeasuredFloor]:
    """Returns the floors by title, each once; a run's own untrained network by the run's name."""
    from visual_search.retrieval.floor_comparison import OWN

    floors: dict[str, MeasuredFloor] = {}
    for name, report in reports.items():
        for floor in report.summary["floors"]:
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
