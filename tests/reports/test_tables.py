"""What the terminal shows: numbers with their intervals, floors and meaning, in 80 columns."""

import io
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.retrieval.searching import evaluate_retrieval
from visual_search.knn.gallery_index import NearestItems
from visual_search.reports.tables import (
    category_table,
    floor_table,
    print_evaluation,
    print_measurement,
    print_result,
    runs_table,
)
from visual_search.retrieval.floor_comparison import floor_differences, standing
from visual_search.retrieval.report import with_intervals
from visual_search.retrieval.report_files import save_report
from visual_search.runs.finished import Measured
from visual_search.runs.run import Run, write_json
from visual_search.views.table import Table, terminal

NASTY = ["[bold]Hats[/bold]", "[/] :shoe: [link=x]", "T-shirt/top", "=cmd()", "red\x1b[2J"]
TITLES = {"random": "random", "untrained": "own network, untrained"}


def saved_run(
    folder: Path, categories: list[str], *, num_queries: int = 60, floors: bool = True,
    **more: Any,
) -> Run:  # fmt: skip
    """A finished run: its queries find more of their category than the floors' do."""
    rng, num = np.random.default_rng(0), len(categories)
    names, queries = [f"g{n:03d}" for n in range(80)], [f"q{n:03d}" for n in range(num_queries)]
    held, asked = ([categories[n % num] for n in range(count)] for count in (80, num_queries))
    same = np.equal.outer(np.array(asked, object), np.array(held, object))

    def report_of(signal: float) -> Any:
        rows = np.argsort(rng.random(same.shape) - signal * same, axis=1)[:, :5]
        texts = np.array(queries, dtype=object), np.array(names, dtype=object)[rows]
        found = NearestItems(*texts, rows, np.sort(rng.random(rows.shape), axis=1))
        return with_intervals(evaluate_retrieval(found, asked, held, names), num_resamples=200)

    run, floor_reports = report_of(0.5), {name: report_of(0.05) for name in TITLES}
    per_query = pd.DataFrame({"query_id": queries})
    for name, report in floor_reports.items():
        per_query[name] = report.per_query["average_precision"]
    lines = floor_differences(run.per_query, per_query, num_resamples=200, num_permutations=200)
    summary = run.summary
    stood: list[dict[str, Any]] = []
    for line in lines.to_dict("records") if floors else ():
        means = floor_reports[line["name"]].summary
        means = {k: v for k, v in means.items() if k.startswith(("micro_", "macro_"))}
        stood.append({"title": TITLES[line["name"]], "dim": 64, "definition": "", **means, **line})
    ends = summary["intervals"]["micro"]
    at = ("mAP@5", summary["micro_map_at_5"], (ends["low"], ends["high"]), pd.DataFrame(stood))
    summary |= {
        "embedding_dim": 512, "num_parameters": 10, "epochs": 3, "num_training": 40,
        "device": "cpu", "precision": "32-true", "embedding_ms_per_item": math.nan,
        "test_loss": 0.25, "index": {"bytes": 4096, "bytes_per_item": 2048.0}, "refused": [],
        "query_split": "test", "identity": {"rules": {"report_by": ["category"], "hierarchy": []}},
        "leaks": {"on_leak": "error", "num_dropped": 0}, "floors": stood,
        "standing": standing(*at, titles=TITLES), **more,
    }  # fmt: skip
    save_report(run, folder / "metrics")
    found = Run(folder)
    found.set_state("finished", seconds=75.2)
    return found


def printed(run: Run, table: Table | None = None) -> str:
    """The measurement, or a table, as 80 columns show it."""
    file = io.StringIO()
    console = Console(file=file, width=80, highlight=False, emoji=False)
    if table is None:
        print_measurement(console, run.folder, run.summary())
    else:
        console.print(terminal(table))
    return file.getvalue()


def flowing(text: str) -> str:
    return " ".join(text.split())


def categories_of(run: Run) -> str:
    return printed(run, category_table(run.folder, run.summary()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "plus_layer" / "0123456789"
    run = saved_run(folder, ["Hats", "Shoes", "Bags"])
    (folder / "report.html").write_text("x")
    return run


def test_numbers_stand_with_interval_floors_and_meaning(run: Run) -> None:
    text, summary = flowing(printed(run)), run.summary()
    low, high = (summary["intervals"]["micro"][end] for end in ("low", "high"))
    for expected in (
        "Retrieval by category, test queries: plus_layer",
        f"{summary['micro_map_at_5']:.3f}",
        f"[{low:.3f}, {high:.3f}]",
        "micro mean", "macro mean", "own network, untrained", "random", "Run minus floor",
        summary["standing"],
        summary["definitions"]["map_at_5"],
        "60 of 60 queries scored, 60 groups",
        "95 % interval by group",
    ):  # fmt: skip
        assert expected in text, expected
    assert "nDCG@5" not in text


def test_nothing_is_wider_than_80_columns(tmp_path: Path) -> None:
    long = ["A very long category of a shop that names its shelves in whole sentences " * 2, "B"]
    run = saved_run(tmp_path / "an_experiment_with_a_long_name_of_its_own" / "0123456789", long)
    assert max(map(len, printed(run).splitlines())) <= 80
    assert max(map(len, printed(run, runs_table([run, run])).splitlines())) <= 80


def test_names_from_the_data_are_shown_as_they_are(tmp_path: Path) -> None:
    rules = {"report_by": ["[red]colour", ":hat:"], "hierarchy": []}
    run = saved_run(tmp_path / "plus_layer" / "0123456789", NASTY, identity={"rules": rules})
    text = categories_of(run)
    assert all(name in text for name in NASTY[:-1])
    assert "[red]colour / :hat:" in text
    assert "\x1b" not in text
    assert "red\N{REPLACEMENT CHARACTER}[2J" in text
    path = run.folder / "metrics" / "per_category.csv"
    table = pd.read_csv(path)
    table.assign(category=["", *table["category"][1:]]).to_csv(path, index=False)
    assert "(empty)" in categories_of(run)


@pytest.mark.parametrize(("num_queries", "marked"), [(38, True), (40, False)])
def test_the_split_is_named_and_categories_of_few_queries_are_marked(
    tmp_path: Path, num_queries: int, marked: bool
) -> None:
    run = saved_run(tmp_path / "a", ["x", "y"], num_queries=num_queries, query_split="val")
    assert (f"{num_queries // 2}*" in categories_of(run)) == marked
    assert "val queries" in categories_of(run)


def leaks(on_leak: str, num_dropped: int = 0, **found: int) -> dict[str, Any]:
    more = {name: {"num_queries": num} for name, num in found.items()}
    return {"leaks": {"on_leak": on_leak, "num_dropped": num_dropped, **more}}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (leaks("drop", 3, between_sides=3),
         "Leaks: 3 queries share pixels or a group with the gallery; 3 queries were left out."),
        (leaks("allow", between_sides=2),
         "Leaks: 2 queries share pixels or a group with the gallery, and are counted "
         "(protocol.on_leak=allow)."),
        (leaks("allow", with_training=1),
         "Leaks: 1 item shares an id, pixels or a group with the training items"),
        ({"num_queries_trained_on": 7}, "Trained on: 7 of "),
        ({"near_duplicates": {"num_queries": 4, "num_pairs": 11}},
         "Near-duplicates: 4 queries have one in the gallery (11 pairs;"),
        ({"num_left_out": 2}, "(2 left out: nothing relevant in the gallery)"),
        ({"identity": {"rules": {"report_by": ["category"], "hierarchy": ["category", "style"]}}},
         "nDCG@5"),
        # what computed and what searched
        ({"device_name": "AMD EPYC", "num_threads": 2}, "AMD EPYC"),
        ({"num_threads": 2}, "2 threads"),
        ({"computed_before_on": ["NVIDIA H200 (cuda:0), bf16-mixed"]}, "NVIDIA H200"),
        ({"index": {"bytes": 1, "bytes_per_item": 1.0, "device": "cpu", "gpu_failed": True,
                    "device_reason": "FAISS cannot use GPU 0"}}, "FAISS cannot use GPU 0"),
    ],
)  # fmt: skip
def test_what_one_has_to_know_before_quoting_is_said(
    tmp_path: Path, run: Run, more: dict[str, Any], expected: str
) -> None:
    shutil.copytree(run.folder, tmp_path / "a")
    warned = Run(tmp_path / "a")
    write_json(tmp_path / "a" / "metrics" / "summary.json", {**run.summary(), **more})
    assert expected not in flowing(printed(run))
    assert expected in flowing(printed(warned))


def test_without_floors_their_table_is_left_out(tmp_path: Path) -> None:
    text = printed(saved_run(tmp_path / "a" / "0", ["x", "y"], floors=False))
    assert "Run minus floor" not in text
    assert "no floor was measured" in text


def test_the_run_stands_among_its_floors_best_first(run: Run) -> None:
    summary = run.summary()
    text = printed(run, floor_table(summary, "plus_layer"))
    values = {floor["title"]: floor["micro_map_at_5"] for floor in summary["floors"]}
    values["plus_layer"] = summary["micro_map_at_5"]
    shown = [name for line in text.splitlines() for name in values if name in line]
    assert shown == sorted(values, key=lambda name: -values[name])
    assert f"{summary['floors'][0]['difference']:+.3f}" in text


def test_what_has_no_number_is_a_dash(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "a" / "0", ["x", "y"])
    summary = run.summary()
    names = ("difference", "difference_low", "difference_high", "p_holm", "micro_map_at_5")
    summary["floors"][0].update(dict.fromkeys(names))
    summary["intervals"] = {}
    write_json(run.folder / "metrics" / "summary.json", summary)
    assert " – " in printed(run)  # noqa: RUF001
    assert run.summary()["intervals"] == {}
    assert "0123" not in printed(run, runs_table([run]))


def test_a_finished_run_says_where_everything_lies(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(run)
    text = capsys.readouterr().out
    for expected in (f"{run.folder / 'report.html'}  everything on one page",
                     "512 values\n", "2,048 bytes an item", "3 epochs on 40 pictures, 1 min 15 s",
                     "Test loss (MSE in -1..1): 0.25"):  # fmt: skip
        assert expected in text
    assert "checkpoints/last.ckpt" not in text  # it is not there


def test_a_dry_run_says_that_it_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Run(tmp_path))
    assert "holds no numbers: the dry run passed." in flowing(capsys.readouterr().out)


def test_a_measurement_that_was_found_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(Measured(run, is_new=True))
    assert "was measured before" not in capsys.readouterr().out
    print_evaluation(Measured(run, is_new=False))
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"{run.folder} was measured before; rerun=true measures again."


def test_runs_of_one_name_are_told_apart(tmp_path: Path, run: Run) -> None:
    other = Run(shutil.copytree(run.folder, tmp_path / "plus_layer" / "bbbb"))
    text = printed(run, runs_table([run, other, Run(tmp_path / "without" / "numbers")]))
    for expected in ("plus_layer/0123", "plus_layer/bbbb", "mAP@5", "512", "1 min 15 s"):
        assert expected in text
    assert "without" not in text
