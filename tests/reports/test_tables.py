"""What the terminal shows: numbers with their intervals, floors and meaning, in 80 columns."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.retrieval.searching import evaluate_retrieval
from visual_search.knn.gallery_index import EmbeddingIndex
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
    """A finished run whose numbers were measured on random embeddings."""
    rng = np.random.default_rng(0)
    names = [f"g{n:03d}" for n in range(80)]
    held = [categories[n % len(categories)] for n in range(80)]
    asked = [categories[n % len(categories)] for n in range(num_queries)]
    queries = [f"q{n:03d}" for n in range(num_queries)]

    def report_of(signal: float) -> Any:
        centres = rng.normal(size=(len(categories), 8))
        sides = [
            (signal * centres[[categories.index(c) for c in of]] + rng.normal(size=(len(of), 8)))
            for of in (held, asked)
        ]
        index = EmbeddingIndex.build(sides[0].astype(np.float32), names, device="cpu")
        found = index.search(sides[1].astype(np.float32), 5, query_ids=queries)
        return with_intervals(evaluate_retrieval(found, asked, held, names), num_resamples=200)

    run, floor_reports = report_of(1.0), {name: report_of(0.1) for name in TITLES}
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
    summary |= {
        "embedding_dim": 512,
        "num_parameters": 10,
        "epochs": 3,
        "num_training": 40,
        "device": "cpu",
        "precision": "32-true",
        "embedding_ms_per_item": math.nan,
        "test_loss": 0.25,
        "index": {"bytes": 4096, "bytes_per_item": 2048.0},
        "refused": [],
        "query_split": "test",
        "identity": {"rules": {"report_by": ["category"], "hierarchy": []}},
        "leaks": {"on_leak": "error", "num_dropped": 0},
        "floors": stood,
        "standing": standing(
            "mAP@5", summary["micro_map_at_5"], (ends["low"], ends["high"]), pd.DataFrame(stood),
            titles=TITLES,
        ),
        **more,
    }  # fmt: skip
    save_report(run, folder / "metrics")
    found = Run(folder)
    found.set_state("finished", seconds=75.2)
    return found


def printed(run: Run, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False)
    print_measurement(console, run.folder, run.summary())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def of_table(table: Table) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False, emoji=False)
    console.print(terminal(table))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return saved_run(tmp_path / "plus_layer" / "0123456789", ["Hats", "Shoes", "Bags"])


def test_numbers_stand_with_interval_floors_and_meaning(run: Run) -> None:
    text, summary = printed(run), run.summary()
    flowing = " ".join(text.split())
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
        assert expected in flowing, expected


def test_what_computed_and_what_searched_stand_beside_the_numbers(tmp_path: Path) -> None:
    run = saved_run(
        tmp_path / "plus_layer" / "0123456789",
        ["Hats", "Shoes"],
        device_name="AMD EPYC",
        num_threads=2,
        computed_before_on=["NVIDIA H200 (cuda:0), bf16-mixed"],
        index={"bytes": 1, "bytes_per_item": 1.0, "device": "cpu", "gpu_failed": True,
               "device_reason": "FAISS cannot use GPU 0"},
    )  # fmt: skip
    flowing = " ".join(printed(run).split())
    for expected in ("AMD EPYC", "2 threads", "32-true", "NVIDIA H200", "FAISS cannot use GPU 0"):
        assert expected in flowing, expected


def test_nothing_is_wider_than_80_columns(tmp_path: Path) -> None:
    long = ["A very long category of a shop that names its shelves in whole sentences " * 2, "B"]
    run = saved_run(tmp_path / "an_experiment_with_a_long_name_of_its_own" / "0123456789", long)
    assert max(map(len, printed(run).splitlines())) <= 80
    assert max(map(len, of_table(runs_table([run, run])).splitlines())) <= 80


def test_names_from_the_data_are_shown_as_they_are(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "plus_layer" / "0123456789", NASTY)
    text = of_table(category_table(run.folder, run.summary()))
    for name in NASTY[:-1]:
        assert name in text
    assert "\x1b" not in text
    assert "red\N{REPLACEMENT CHARACTER}[2J" in text


def test_names_of_columns_are_shown_as_they_are(tmp_path: Path) -> None:
    rules = {"report_by": ["[red]colour", ":hat:"], "hierarchy": []}
    run = saved_run(tmp_path / "a" / "0", ["x", "y"], identity={"rules": rules})
    assert "[red]colour / :hat:" in of_table(category_table(run.folder, run.summary()))


def test_an_empty_label_is_said_to_be_empty(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "a" / "0", ["x", "y"])
    path = run.folder / "metrics" / "per_category.csv"
    table = pd.read_csv(path).assign(category=["", "y"])
    table.to_csv(path, index=False)
    assert "(empty)" in of_table(category_table(run.folder, run.summary()))


@pytest.mark.parametrize(("num_queries", "marked"), [(38, True), (40, False)])
def test_categories_of_few_queries_are_marked(
    tmp_path: Path, num_queries: int, marked: bool
) -> None:
    run = saved_run(tmp_path / "a" / "0", ["x", "y"], num_queries=num_queries)
    text = of_table(category_table(run.folder, run.summary()))
    assert (f"{num_queries // 2}*" in text) == marked


def test_the_split_that_asked_is_named(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "a" / "0", ["x", "y"], query_split="val")
    assert "val queries" in of_table(category_table(run.folder, run.summary()))


def test_graded_relevance_has_a_column_of_its_own(tmp_path: Path, run: Run) -> None:
    assert "nDCG@5" not in printed(run)
    rules = {"report_by": ["category"], "hierarchy": ["category", "style"]}
    graded = saved_run(tmp_path / "a" / "0", ["x", "y"], identity={"rules": rules})
    assert "nDCG@5" in printed(graded)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"leaks": {"on_leak": "drop", "num_dropped": 3, "between_sides": {"num_queries": 3}}},
            "Leaks: 3 queries share pixels or a group with the gallery; 3 queries were left out.",
        ),
        (
            {"leaks": {"on_leak": "allow", "num_dropped": 0, "between_sides": {"num_queries": 2}}},
            "Leaks: 2 queries share pixels or a group with the gallery, and are counted "
            "(protocol.on_leak=allow).",
        ),
        (
            {"leaks": {"on_leak": "allow", "num_dropped": 0, "with_training": {"num_queries": 1}}},
            "Leaks: 1 item shares an id, pixels or a group with the training items",
        ),
        ({"num_queries_trained_on": 7}, "Trained on: 7 of "),
        (
            {"near_duplicates": {"num_queries": 4, "num_pairs": 11}},
            "Near-duplicates: 4 queries have one in the gallery (11 pairs;",
        ),
        ({"num_left_out": 2}, "(2 left out: nothing relevant in the gallery)"),
    ],
)
def test_what_one_has_to_know_before_quoting_is_said(
    tmp_path: Path, run: Run, more: dict[str, Any], expected: str
) -> None:
    assert expected not in " ".join(printed(run).split())
    warned = saved_run(tmp_path / "a" / "0", ["x", "y"], **more)
    assert expected in " ".join(printed(warned).split())


def test_without_floors_their_table_is_left_out(tmp_path: Path) -> None:
    text = printed(saved_run(tmp_path / "a" / "0", ["x", "y"], floors=False))
    assert "Run minus floor" not in text
    assert "no floor was measured" in text


def test_the_run_stands_among_its_floors_best_first(run: Run) -> None:
    summary = run.summary()
    lines = of_table(floor_table(summary, "plus_layer")).splitlines()
    values = {floor["title"]: floor["micro_map_at_5"] for floor in summary["floors"]}
    values["plus_layer"] = summary["micro_map_at_5"]
    order = sorted(values, key=lambda name: -values[name])
    shown = [
        next(n for n in values if n in line) for line in lines if any(n in line for n in values)
    ]
    assert shown == order
    first = summary["floors"][0]
    assert f"{first['difference']:+.3f}" in "\n".join(lines)


def test_what_has_no_number_is_a_dash(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "a" / "0", ["x", "y"])
    summary = run.summary()
    for name in ("difference", "difference_low", "difference_high", "p_holm", "micro_map_at_5"):
        summary["floors"][0][name] = None
    summary["intervals"] = {}
    write_json(run.folder / "metrics" / "summary.json", summary)
    assert " – " in printed(run)  # noqa: RUF001
    assert json.loads((run.folder / "metrics" / "summary.json").read_text())["intervals"] == {}
    assert "0123" not in of_table(runs_table([run]))


def test_a_finished_run_says_where_everything_lies(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.folder / "report.html").write_text("x")
    print_result(run)
    text = capsys.readouterr().out
    for expected in (f"{run.folder / 'report.html'}  everything on one page",
                     "512 values\n", "2,048 bytes an item", "3 epochs on 40 pictures, 1 min 15 s",
                     "Test loss (MSE in -1..1): 0.25"):  # fmt: skip
        assert expected in text
    assert "checkpoints/last.ckpt" not in text  # it is not there


def test_a_dry_run_says_that_it_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Run(tmp_path))
    assert "holds no numbers: the dry run passed." in " ".join(capsys.readouterr().out.split())


def test_a_measurement_that_was_found_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(Measured(run, is_new=True))
    assert "was measured before" not in capsys.readouterr().out
    print_evaluation(Measured(run, is_new=False))
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"{run.folder} was measured before; rerun=true measures again."


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [saved_run(tmp_path / "plus_layer" / name, ["x", "y"]) for name in ("aaaa", "bbbb")]
    text = of_table(runs_table([*runs, Run(tmp_path / "without" / "numbers")]))
    for expected in ("plus_layer/aaaa", "plus_layer/bbbb", "mAP@5", "512", "1 min 15 s"):
        assert expected in text
    assert "without" not in text
