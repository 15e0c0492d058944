"""Tables for the terminal: a run by category, beside its floors."""

from __future__ import annotations

import contextlib
import datetime
import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.atomic import write_text
from visual_search.reading import Ends, MeasuredFloor, OverProducts, Summary, number_in
from visual_search.runs.machine import device_sentence
from visual_search.runs.run import run_name
from visual_search.wording import (
    count,
    difference,
    duration,
    file_size,
    first_by_size,
    interval,
    is_missing,
    many,
    number,
    p_value,
    shown,
    three_digits,
)

if TYPE_CHECKING:
    from rich.console import Console

    from visual_search.config.schemas import EvaluateSchema, TrainSchema
    from visual_search.runs.finished import Measured
    from visual_search.runs.run import Run
    from visual_search.views.table import Cell, Table

EXPLAINED = ".explained"  # the day on which a terminal was last told what the numbers mean
P_RULE = (
    "p is two-sided, from a paired test that flips whole groups; [ ] holds what the same test does "
    "not reject, so it leaves 0 out where p < 0.05. Holm is that p corrected over {}: it decides."
)


def print_result(run: Run, *, explain: bool = True) -> None:
    """Prints a finished run: by category, beside its floors, where everything lies.

    Args:
        run: To print.
        explain: Whether to say what the numbers mean; see `explains`.
    """
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    summary = run.summary()
    if not summary:
        text = f"{run.folder} holds no numbers: the dry run passed."
        console.print(text, markup=False, soft_wrap=True)
        return
    print_measurement(console, run.folder, summary, explain=explain)
    facts = loss_fact(summary) | {
        "Embedding": f"{many(summary['embedding_dim'], 'value')}{_speed(summary)}",
        "Index": index_size(summary),
        "Trained": f"{many(summary['epochs'] or 0, 'epoch')} on "
        f"{many(summary['num_training'] or 0, 'picture')}, {duration(run.status().get('seconds'))}",
    }
    width = max(24, *map(len, facts))
    for name, text in facts.items():
        console.print(f"{name + ':':<{width + 2}}{text}", markup=False, soft_wrap=True)
    print_left_behind(console, run.folder)
    if (run.folder / "tensorboard").exists():
        line = f"{_tensorboard()} --logdir {shlex.quote(str(run.folder / 'tensorboard'))}"
        console.print(f"\nLook at it:\n  {line}", markup=False, soft_wrap=True)
    if (run.folder / "tensorboard" / run.folder.parent.name).exists():  # not of an earlier version
        line = "http://localhost:6006/#custom_scalars has loss, and retrieval beside a floor"
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print("\nPut it into a shop:", markup=False)
    print(f"  python -m visual_search.export {shlex.quote(f'run={run.folder}')} out=shop")


def index_size(summary: Summary) -> str:
    """Returns how large a run's index is, and what an item takes of it."""
    index = summary["index"]
    return f"{file_size(index['bytes'])}, {count(index['bytes_per_item'])} bytes an item"


def loss_fact(summary: Summary) -> dict[str, str]:
    """Returns the test loss under what it measures; nothing where the objective has none."""
    if is_missing(summary.get("test_loss")):
        return {}
    # Runs from before there was a choice of objectives reconstructed.
    return {
        f"Test loss ({summary.get('loss_name', 'MSE in -1..1')})": three_digits(
            summary["test_loss"]
        )
    }


def print_evaluation(measured: Measured, *, explain: bool = True) -> None:
    """Prints a measurement of `visual_search.evaluate`, and where it lies; see `print_result`."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    folder = measured.run.folder
    if not measured.is_new:
        text = f"{folder} was measured before; rerun=true measures again."
        console.print(text, markup=False, soft_wrap=True)
    summary = measured.run.summary()
    print_measurement(console, folder, summary, explain=explain)
    print_left_behind(console, folder)


def print_measurement(
    console: Console, folder: Path, summary: Summary, *, explain: bool = True
) -> None:
    """Prints one measurement: by category, beside its floors, what the numbers mean, leaks."""
    from visual_search.views.table import terminal

    console.print(terminal(category_table(folder, summary)))
    if summary["floors"]:
        console.print(terminal(floor_table(summary, run_name(folder))))
        if explain:
            console.print(P_RULE.format("the floors"), markup=False)
    if explain:
        _explain(console, summary)
    scored, groups = summary["num_queries_scored"], summary["intervals"].get("micro", {})
    console.print(
        f"{scored:,} of {many(summary['num_queries'], 'query', 'queries')} scored"
        f"{_left_out(summary)}, {many(groups.get('num_groups', 0), 'group')}."
        + " explain=true says what the numbers mean."
        * (not explain),
        markup=False,
    )
    if "micro_map_at_r" in summary:
        console.print(at_r_line(summary), markup=False)
    if products := summary.get("products"):
        console.print(products_line(products), markup=False)
        if explain:
            console.print(products["definition"], markup=False)
    if summary.get("device"):
        console.print(f"Computed on {device_sentence(summary)}.", markup=False)
    for line in [*_warnings(summary), _fonts(folder)]:
        if line:
            console.print(line, markup=False)
    console.print(f"\n{summary['standing']}\n", style="bold", markup=False)
    if products and (said := products.get("standing")):
        console.print(f"{said}\n", markup=False)


def at_r_line(summary: Summary) -> str:
    """Returns what papers on instance retrieval report, as this project calls it.

    Example:
        >>> at_r_line({"k": 5, "micro_hit_at_1": 0.5, "micro_hit_at_5": 0.7, "micro_map_at_r": 0.4})
        'hit@1 0.500, hit@5 0.700 (Recall@1 and Recall@5 in papers), mAP@R 0.400'
    """
    k = summary["k"]
    hits = ", ".join(
        f"hit@{depth} {number(number_in(summary, f'micro_hit_at_{depth}'))}"
        for depth in dict.fromkeys((1, k))
    )
    papers = " and ".join(f"Recall@{depth}" for depth in dict.fromkeys((1, k)))
    at_r = number(number_in(summary, "micro_map_at_r"))
    return f"{hits} ({papers} in papers), mAP@R {at_r}"


def products_line(products: OverProducts) -> str:
    """Returns the headline over products in a sentence, beside what it is over.

    Example:
        >>> products_line({"title": "mAP@5 over products", "mean": 0.5, "low": 0.4, "high": 0.6,
        ...     "num_products_scored": 9, "num_products_asking": 10, "num_products_gallery": 90,
        ...     "definition": ""})
        'mAP@5 over products 0.500 [0.400, 0.600]: 9 of 10 asking products scored, 90 searched.'
    """
    asking = many(products["num_products_asking"], "asking product")
    return (
        f"{products['title']} {number(products['mean'])} "
        f"{interval(products['low'], products['high'], rough=products.get('rough'))}: "
        f"{products['num_products_scored']:,} of {asking} scored, "
        f"{products['num_products_gallery']:,} searched."
    )


def _explain(console: Console, summary: Summary) -> None:
    """Prints what the numbers mean, and what is marked."""
    from visual_search.retrieval.resampling import FEWEST_EFFECTIVE, FEWEST_QUERIES

    headline = summary["headline"]
    console.print(
        f"{headline['title']}: {summary['definitions'][headline['mean']]}\n"
        f"[ ] is the 95 % interval by group, none under {FEWEST_QUERIES} queries; ~ marks "
        f"a rough one, which fewer than {FEWEST_EFFECTIVE} effective groups carry; * marks fewer "
        "than 20 queries; micro is the mean over queries, macro over categories.\n"
        f"{summary['rules']['question']}",
        markup=False,
    )


def explains(settings: TrainSchema | EvaluateSchema) -> bool:
    """Returns whether a command says what its numbers mean: the day's first, or by ``explain``.

    The day is noted in the folder of all runs. Files and pages always have the definitions.
    """
    outputs, today = Path(settings.outputs), datetime.date.today().isoformat()
    if not outputs.is_dir():
        return True
    note = outputs / EXPLAINED
    with contextlib.suppress(OSError):  # where nothing can be written it is said every time
        if note.is_file() and note.read_text(encoding="utf-8", errors="replace").strip() == today:
            return settings.explain
        write_text(note, f"{today}\n")
    return True


def _fonts(folder: Path) -> str:
    """Returns which fonts the figures lack; nothing where there are none to draw them with."""
    from visual_search.retrieval.report_files import load_report
    from visual_search.views.scripts import font_advice

    per_query = load_report(folder / "metrics").per_query
    names = {*per_query["category"], *per_query["query_id"]}
    advice = font_advice(names) if not all(map(str.isascii, names)) else ""
    return shown(advice) if advice else ""


def print_left_behind(console: Console, folder: Path) -> None:
    """Prints the files of a folder, and what they are."""
    console.print("")
    for name, what in LEFT_BEHIND.items():
        if (folder / name).exists():
            console.print(f"  {folder / name}  {what}", markup=False, soft_wrap=True)


def _warnings(summary: Summary) -> list[str]:
    """Returns what a reader has to know before quoting a number."""
    lines = []
    if refused := len(summary.get("refused", ())):
        lines.append(f"Left out: {many(refused, 'bad item')}, listed in metrics/summary.json.")
    leaks = summary["leaks"]
    for found, one, more, text in (
        (leaks.get("between_sides"), "query", "queries", "pixels or a group with the gallery"),
        (leaks.get("with_training"), "item", "items", "an id, pixels or a group with the training "
         "items"),
    ):  # fmt: skip
        if found and (num := found["num_queries"]):
            dropped = many(leaks["num_dropped"], "query was", "queries were")
            what = {"drop": f"; {dropped} left out"}
            what["allow"] = ", and are counted (protocol.on_leak=allow)"
            which = many(num, f"{one} shares", f"{more} share")
            lines.append(f"Leaks: {which} {text}{what.get(leaks['on_leak'], '')}.")
    if trained_on := summary.get("num_queries_trained_on"):
        whole = many(summary["num_queries"], "query", "queries")
        lines.append(f"Trained on: {trained_on:,} of {whole}.")
    index = summary.get("index")
    if index and index.get("gpu_failed"):
        lines.append(f"The CPU searched, with the same answers: {index['device_reason']}.")
    if earlier := summary.get("computed_before_on"):
        lines.append(f"Trained on one device after another; before on {'; '.join(earlier)}.")
    near = summary.get("near_duplicates")
    if near and near["num_queries"]:
        which = many(near["num_queries"], "query has", "queries have")
        lines.append(
            f"Near-duplicates: {which} one in the gallery "
            f"({many(near['num_pairs'], 'pair')}; figures/near_duplicates.png)."
        )
    return lines


def _tensorboard() -> str:
    """Returns the command to type, also where no virtual environment is active."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    program = Path(sys.executable).parent / "tensorboard"
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


MEANS = ("micro", "macro")
MAX_ROWS = 60  # categories or pairs in a table of the terminal; the files hold all
LEFT_BEHIND = {
    "report.html": "everything on one page",
    "checkpoints/last.ckpt": "the weights",
    "index": "the gallery's index, with its manifest",
    "embeddings": "embeddings of gallery and queries, and their items",
    "metrics/per_category.csv": "this table",
    "metrics/per_query.parquet": "every query with its neighbours",
    "metrics/summary.json": "the numbers, their definitions, the floors",
    "figures": "reconstructions, feature maps, projection, charts, search results",
}


def category_table(folder: Path, summary: Summary) -> Table:
    """Returns the table of a measurement by category with intervals, micro and macro means last."""
    from visual_search.retrieval.report_files import load_report
    from visual_search.views.table import Row, Table, TableColumn, cells, valued

    headline, k = summary["headline"], summary["k"]
    others = [f"precision_at_{k}"] * (f"micro_precision_at_{k}" in summary)
    others += [f"ndcg_at_{k}"] * bool(summary["identity"]["rules"]["hierarchy"])
    by = " / ".join(summary["identity"]["rules"]["report_by"])
    title = f"Retrieval by {by}, {summary.get('query_split', 'test')} queries: {run_name(folder)}"

    def row(
        name: str, sizes: Sequence[int], few: str, values: Sequence[float], ends: Ends
    ) -> tuple[Cell, ...]:
        rough = ends.get("rough") is True
        shown_ends = interval(ends.get("low"), ends.get("high"), rough=rough)
        written = [valued(number(value), value) for value in values]
        written[0] = replace(written[0], ends=shown_ends, rough=rough)
        return cells(name, count(sizes[0]), f"{count(sizes[1])}{few}", *written)

    per_category = load_report(folder / "metrics").per_category
    names, queries = (per_category[name].tolist() for name in ("category", "num_queries_scored"))
    chosen = first_by_size(names, queries, MAX_ROWS)
    rows = []
    for values in per_category.iloc[chosen].to_dict("records"):
        sizes = values["num_gallery"], values["num_queries_scored"]
        ends: Ends = {
            "low": values["headline_low"],
            "high": values["headline_high"],
            "rough": values.get("rough", False),
        }
        means = [values[name] for name in (headline["mean"], *others)]
        few = "*" * bool(values["few_queries"])
        rows.append(Row(row(str(values["category"]), sizes, few, means, ends)))
    rest = per_category.drop(per_category.index[chosen])
    if len(rest):
        sums = [count(rest[name].sum()) for name in ("num_gallery", "num_queries_scored")]
        more = f"{len(rest):,} more, with fewer queries: per_category.csv"
        rows.append(Row(cells(more, *sums, *[""] * (1 + len(others))), "rest"))
    for which in ("micro", "macro"):
        sizes = summary["num_gallery"], summary["num_queries_scored"]
        means = [number_in(summary, f"{which}_{name}") for name in (headline["mean"], *others)]
        found = summary["intervals"].get(which, {})
        rows.append(Row(row(f"{which} mean", sizes, "", means, found), "mean"))
    columns = [TableColumn("Category", "name"), TableColumn("Gallery"), TableColumn("Queries")]
    columns += [
        TableColumn(headline["title"], with_ends=True),
        *map(TableColumn, map(_short_title, others)),
    ]
    return Table(title, columns, rows)


def _short_title(metric: str) -> str:
    from visual_search.views.style import metric_title

    return metric_title(metric).replace("precision", "P")


def floor_table(summary: Summary, name: str) -> Table:
    """Returns run among its floors, the best first; the difference is the run minus the floor.

    Where products have several pictures, their means over products stand last.
    """
    from visual_search.views.table import Row, Table, TableColumn, cells

    headline = summary["headline"]
    over = means_over_products(summary)
    statistic = summary["floors"][0]["statistic"]

    def means(measured: Summary | MeasuredFloor) -> dict[str, float]:
        return {which: number_in(measured, f"{which}_{headline['mean']}") for which in MEANS}

    of_run = means(summary)
    of_products = [number(summary["products"]["mean"])] if over else []
    written = [*map(number, of_run.values()), "", "", "", *of_products]
    lines = [(of_run[statistic], Row(cells(name, *written), "run"))]
    for floor in summary["floors"]:
        tested = ["", "", ""]
        if not is_missing(floor["difference"]):
            ends = floor["difference_low"], floor["difference_high"]
            tested = [difference(floor["difference"], *ends)]
            tested += [p_value(floor.get("p_value")), p_value(floor["p_holm"])]
        of_floor = means(floor)
        tested += [number(over[floor["name"]]["micro"])] if over else []
        row = Row(cells(floor["title"], *map(number, of_floor.values()), *tested), "floor")
        lines.append((of_floor[statistic], row))
    rows = [row for _, row in sorted(lines, key=lambda line: -or_low(line[0]))]
    columns = [
        TableColumn("Embedding", "name"),
        *map(TableColumn, (*MEANS, "Run minus floor", "p", "Holm")),
        *([TableColumn("products")] if over else []),
    ]
    return Table(f"Beside what learns nothing: {headline['title']}", columns, rows)


def means_over_products(summary: Summary) -> dict[str, MeasuredFloor]:
    """Returns the floors over products by name; none where nothing is measured over products."""
    products = summary.get("products")
    return {floor["name"]: floor for floor in products.get("floors", ())} if products else {}


def _left_out(summary: Summary) -> str:
    num = summary["num_left_out"]
    return f" ({num:,} left out: nothing relevant in the gallery)" if num else ""


def _speed(summary: Summary) -> str:
    time = summary["embedding_ms_per_item"]
    return "" if is_missing(time) else f", {three_digits(time)} ms a picture"


def or_low(value: float) -> float:
    """Returns the value to sort by; what is no number comes last."""
    return -math.inf if is_missing(value) else value
