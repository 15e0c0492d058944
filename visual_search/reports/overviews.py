"""Several evaluations in one table: which embedding wins where, the run or what learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.reading import ends_of, number_in
from visual_search.runs.embeddings import changed_embedding
from visual_search.runs.run import EVALUATIONS, Run
from visual_search.wording import as_float, number

if TYPE_CHECKING:
    import pandas as pd

    from visual_search.runs.finished import Measured
    from visual_search.views.table import Table

TABLE_FILE, FIGURE_FILE = "overview.csv", "overview.png"


def overview(measured: Sequence[Measured]) -> pd.DataFrame:
    """Returns a row for each evaluation and embedding, the run first, then its floors.

    Returns:
        ``relevance`` (what counts as relevant, and the protocol where they differ in it),
        ``embedding`` (and how it was made, where one network has several), ``is_run``, ``value``,
        ``low``, ``high`` (headline: micro, under ``reference_2023`` macro), ``num_queries``.
    """
    import pandas as pd

    from visual_search.retrieval.floor_comparison import OWN, headline_statistic
    from visual_search.runs.run import run_name

    summaries = [one.run.summary() for one in measured]
    protocols = {summary["identity"]["protocol_name"] for summary in summaries}
    runs = {run_name(one.run.folder) for one in measured}
    embedded = [_embedded(one.run) for one in measured]
    differ = len(set(embedded)) > 1  # several embeddings of one network
    lines: list[dict[str, object]] = []
    for one, summary, how in zip(measured, summaries, embedded, strict=True):
        suffix = f", {how}" if differ and how else ""
        rules = summary["identity"]["rules"]
        label = " + ".join(rules["relevance"])
        if len(protocols) > 1:
            label = f"{label}, {rules['name']}"
        if len(runs) > 1:
            label = f"{label}, {run_name(one.run.folder)}"
        mean = summary["headline"]["mean"]
        statistic = headline_statistic(summary["headline"]["title"])
        value, ends = number_in(summary, f"{statistic}_{mean}"), ends_of(summary, statistic)
        embeddings = [(run_name(one.run.folder) + suffix, value, ends)]
        for floor in summary["floors"]:
            title = floor["title"] + (suffix if floor["name"] in OWN else "")
            embeddings.append((title, as_float(floor[statistic]), ends_of(floor, statistic)))
        lines += [
            {
                "relevance": label,
                "num_queries": summary["num_queries_scored"],
                "embedding": title,
                "is_run": place == 0,
                "value": value,
                "low": ends["low"],
                "high": ends["high"],
            }
            for place, (title, value, ends) in enumerate(embeddings)
        ]
    return pd.DataFrame(lines).drop_duplicates(["relevance", "embedding"], ignore_index=True)


def _embedded(run: Run) -> str:
    """Returns how an evaluation's embedding differs from its run's, as ``pca=64``; empty if not."""
    if run.folder.resolve().parent.name != EVALUATIONS:
        return ""
    trained = Run(run.folder.parent.parent).settings()
    return " ".join(changed_embedding(trained.embedding, run.settings().embedding))


def conclude(measured: Sequence[Measured], folder: Path) -> None:
    """Prints the overview of a multirun's evaluations, and writes it as a table and a figure.

    Args:
        measured: The evaluations.
        folder: Of the multirun, where no other's overview lies.
    """
    from rich.console import Console

    from visual_search.retrieval.report_files import save_table
    from visual_search.views.evaluation_charts import attribute_bars
    from visual_search.views.figures import save_figure
    from visual_search.views.table import terminal

    table = overview(measured)
    console = Console(highlight=False)
    title = measured[0].run.summary()["headline"]["title"]
    console.print(terminal(overview_table(table, title)))
    save_table(table, folder / TABLE_FILE)
    several = len(set(table.loc[table["is_run"], "embedding"])) > 1
    heading = {"title": "By what is indexed of the network"} if several else {}
    save_figure(attribute_bars(table, title, **heading), folder / FIGURE_FILE)
    for name in (TABLE_FILE, FIGURE_FILE):
        console.print(f"  {folder / name}", markup=False, soft_wrap=True)


def overview_table(table: pd.DataFrame, title: str) -> Table:
    """Returns the overview with a column an evaluation; ▲ marks the best of each."""
    from visual_search.views.table import Row, Table, TableColumn, cells

    labels = list(dict.fromkeys(table["relevance"]))
    values = table.pivot_table(index="embedding", columns="relevance", values="value", sort=False)
    best = values.max()
    of_runs = set(table.loc[table["is_run"], "embedding"])
    rows = []
    for embedding, line in values.reindex(columns=labels).iterrows():
        marks = ["▲ " * bool(line[label] == best[label]) for label in labels]
        written = [mark + number(line[label]) for mark, label in zip(marks, labels, strict=True)]
        of = cells(str(embedding), *written)
        rows.append(Row(of, "run") if embedding in of_runs else Row(of, "floor"))
    heading = f"{title} by what counts as relevant"
    return Table(heading, [TableColumn("Embedding", "name"), *map(TableColumn, labels)], rows)
