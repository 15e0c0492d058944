"""What the terminal shows: numbers with their intervals, floors and meaning, in 80 columns."""

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from visual_search.config.schemas import EvaluateSchema, TrainSchema
from visual_search.reports.tables import (
    category_table,
    explains,
    floor_table,
    print_evaluation,
    print_measurement,
    print_result,
)
from visual_search.retrieval.report_files import load_report, save_report
from visual_search.runs.finished import Measured
from visual_search.runs.run import Run
from visual_search.views.table import Table, terminal

NASTY = ["[bold]Hats[/bold]", "[/] :shoe: [link=x]", "red\x1b[2J"]
EARLIER = Path(__file__).parents[1] / "data" / "earlier" / "outputs" / "residual"
RULES = {"report_by": ["category"], "hierarchy": []}


def kept(folder: Path, columns: dict[str, list[Any]] | None = None, **more: Any) -> Run:
    """A copy of a finished run of three categories; more stands in its summary than was there."""
    (source,) = EARLIER.iterdir()
    shutil.copytree(source / "metrics", folder / "metrics")
    report = load_report(folder / "metrics")
    table = report.per_category.assign(**columns or {})
    summary = {**report.summary, **more}
    save_report(replace(report, per_category=table, summary=summary), folder / "metrics")
    run = Run(folder)
    run.set_state("finished", seconds=75.2)
    return run


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
    index = {"bytes": 4096, "bytes_per_item": 2048.0}
    run = kept(folder, index=index, embedding_ms_per_item=None)
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
        "12 of 12 queries scored, 12 groups",
        "95 % interval by group",
    ):  # fmt: skip
        assert expected in text, expected


def test_what_the_numbers_mean_is_said_once_a_day_or_where_it_is_asked_for(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSchema(outputs=str(tmp_path))
    assert [explains(settings) for _ in range(3)] == [True, False, False]
    assert explains(TrainSchema(outputs=str(tmp_path), explain=True))
    (tmp_path / ".explained").write_text("2020-01-01\n")
    assert explains(EvaluateSchema(outputs=str(tmp_path)))
    assert not explains(settings)
    gone = str(tmp_path / "nothing_here")
    assert explains(EvaluateSchema(outputs=gone))
    assert not Path(gone).exists()
    meaning = run.summary()["definitions"]["map_at_5"]
    for explain in (True, False):
        print_result(run, explain=explain)
        text = flowing(capsys.readouterr().out)
        assert (meaning in text, "explain=true" in text) == (explain, not explain)
        assert "12 of 12 queries scored, 12 groups" in text
        assert run.summary()["standing"] in text


def test_nothing_is_wider_than_80_columns(tmp_path: Path) -> None:
    long = "A very long category of a shop that names its shelves in whole sentences " * 2
    folder = tmp_path / "an_experiment_with_a_long_name_of_its_own" / "0123456789"
    run = kept(folder, {"category": [long, "B", "C"]})
    assert max(map(len, printed(run).splitlines())) <= 80


def test_names_from_the_data_are_shown_as_they_are(tmp_path: Path) -> None:
    rules = {"report_by": ["[red]colour", ":hat:"], "hierarchy": []}
    text = categories_of(kept(tmp_path / "a", {"category": NASTY}, identity={"rules": rules}))
    assert all(name in text for name in NASTY[:-1])
    assert "[red]colour / :hat:" in text
    assert "\x1b" not in text
    assert "red\N{REPLACEMENT CHARACTER}[2J" in text
    others = kept(tmp_path / "b", {"category": ["", "T-shirt/top", "=cmd()"]})
    assert all(name in categories_of(others) for name in ("(empty)", "T-shirt/top", " =cmd()"))


def test_the_split_is_named_and_categories_of_few_queries_are_marked(tmp_path: Path) -> None:
    columns = {"num_queries_scored": [19, 20, 21], "few_queries": [True, False, False]}
    text = categories_of(kept(tmp_path, columns, query_split="val"))
    shown = [name in text for name in ("19*", "20*", "21*", "val queries")]
    assert shown == [True, False, False, True]


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
        ({"identity": {"rules": {**RULES, "hierarchy": ["category", "style"]}}}, "nDCG@5"),
        # what computed and what searched
        ({"device_name": "AMD EPYC 9", "num_threads": 1}, "AMD EPYC 9"),
        ({"num_threads": 2}, "2 threads"),
        ({"precision": "bf16-mixed"}, "bf16-mixed"),
        ({"computed_before_on": ["NVIDIA H200 (cuda:0), bf16-mixed"]}, "NVIDIA H200"),
        ({"index": {"bytes": 1, "bytes_per_item": 1.0, "device": "cpu", "gpu_failed": True,
                    "device_reason": "FAISS cannot use GPU 0"}}, "FAISS cannot use GPU 0"),
        ({"floors": [], "standing": "no floor was measured"}, "no floor was measured"),
    ],
)  # fmt: skip
def test_what_one_has_to_know_before_quoting_is_said(
    tmp_path: Path, run: Run, more: dict[str, Any], expected: str
) -> None:
    text = flowing(printed(kept(tmp_path, **more)))
    assert expected not in flowing(printed(run))
    assert expected in text
    assert ("Run minus floor" in text) == ("floors" not in more)


def test_the_run_stands_among_its_floors_best_first(run: Run) -> None:
    summary = run.summary()
    titles = ("HOG", "pixels 8 x 8", "colour histogram", "random")
    summary["floors"] = [floor for floor in summary["floors"] if floor["title"] in titles]
    text = printed(run, floor_table(summary, "plus_layer"))
    values = {floor["title"]: floor["micro_map_at_5"] for floor in summary["floors"]}
    values["plus_layer"] = summary["micro_map_at_5"]
    shown = [name for line in text.splitlines() for name in values if name in line]
    assert shown == sorted(values, key=lambda name: -values[name])
    assert f"{summary['floors'][0]['difference']:+.3f}" in text


def test_what_has_no_number_is_a_dash(tmp_path: Path, run: Run) -> None:
    names = ("difference", "difference_low", "difference_high", "p_holm", "micro_map_at_5")
    floor = {**run.summary()["floors"][0], **dict.fromkeys(names)}
    run = kept(tmp_path / "a" / "0", floors=[floor], intervals={})
    assert " – " in printed(run)  # noqa: RUF001
    assert run.summary()["intervals"] == {}


def test_a_finished_run_says_where_everything_lies(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(run)
    text = capsys.readouterr().out
    for expected in (f"{run.folder / 'report.html'}  everything on one page",
                     "16 values\n", "2,048 bytes an item", "2 epochs on 29 pictures, 1 min 15 s",
                     "Test loss (MSE in -1..1): 0.697"):  # fmt: skip
        assert expected in text
    assert "checkpoints/last.ckpt" not in text  # it is not there


def test_a_long_name_of_a_loss_keeps_its_distance(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(kept(tmp_path / "a" / "0", loss_name="a loss with quite a long name"))
    (loss,) = re.findall("^Test loss.*$", capsys.readouterr().out, re.MULTILINE)
    assert loss == "Test loss (a loss with quite a long name): 0.697"


def test_a_dry_run_says_that_it_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Run(tmp_path))
    assert "holds no numbers: the dry run passed." in flowing(capsys.readouterr().out)


def test_a_measurement_that_was_found_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(Measured(run, is_new=True))
    assert "was measured before" not in capsys.readouterr().out
    print_evaluation(Measured(run, is_new=False))
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"{run.folder} was measured before; rerun=true measures again."
