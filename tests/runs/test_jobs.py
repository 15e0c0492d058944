"""The record that a job of a multirun leaves, and the value that a sweeper maximises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visual_search.config.builders import ConfigError
from visual_search.reports.sweep_summary import tally
from visual_search.runs.jobs import Job, Record, read_records, told_apart, validation_headline
from visual_search.runs.run import Run

HISTORY = """epoch,train/loss,val/map_at_5,val/macro_map_at_5,val/loss
1,0.9,0.3,0.2,0.8
2,0.8,,,0.7
3,0.7,0.5,0.4,0.6
4,0.6,,,0.5
"""


@pytest.fixture
def measured(tmp_path: Path) -> Run:
    """A run with a history, whose test queries say something else."""
    metrics = tmp_path / "run" / "metrics"
    metrics.mkdir(parents=True)
    summary = {"headline": {"title": "mAP@5", "mean": "map_at_5"}, "micro_map_at_5": 0.9}
    (metrics / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (metrics / "history.csv").write_text(HISTORY, encoding="utf-8")
    return Run(tmp_path / "run")


def test_the_newest_validation_counts_and_no_test_query(measured: Run) -> None:
    assert validation_headline(measured) == ("val/map_at_5", 0.5)


def test_the_study_s_rule_is_about_the_macro_mean(measured: Run) -> None:
    summary = {"headline": {"title": "reference_2023", "mean": "map_at_5"}}
    (measured.folder / "metrics" / "summary.json").write_text(json.dumps(summary))
    assert validation_headline(measured) == ("val/macro_map_at_5", 0.4)


def test_a_dry_run_has_no_value(tmp_path: Path) -> None:
    assert validation_headline(Run(tmp_path)) == ("val", None)


@pytest.mark.parametrize("history", [None, "epoch,val/loss\n1,0.5\n", "val/map_at_5\nnan\n"])
def test_a_sweeper_without_a_value_says_what_to_set(
    measured: Run, tmp_path: Path, history: str | None
) -> None:
    path = measured.folder / "metrics" / "history.csv"
    path.unlink()
    if history is not None:
        path.write_text(history, encoding="utf-8")
    job = Job(tmp_path / "0" / "job.json", Record(0))
    job.opened(measured)
    job.finish(needs_value=False)
    assert job.value is None
    with pytest.raises(
        ConfigError, match=r"no val/map_at_5.*evaluate_every_n_epochs.*val_fraction"
    ):
        job.finish(needs_value=True)


@pytest.mark.parametrize(
    ("state", "has_checkpoint", "began"),
    [
        ("finished", True, "finished"),
        ("interrupted", True, "goes on"),
        ("running", True, "goes on"),
        ("failed", False, "new"),
        ("new", False, "new"),
    ],
)
def test_a_record_tells_how_the_run_was_found(
    tmp_path: Path, state: str, has_checkpoint: bool, began: str
) -> None:
    run = Run(tmp_path / "run")
    if has_checkpoint:
        run.checkpoint.parent.mkdir(parents=True)
        run.checkpoint.touch()
    run.set_state(state)  # type: ignore[arg-type]
    job = Job(tmp_path / "sweep" / "3" / "job.json", Record(3, ["seed=1"]))
    job.opened(run)
    (record,) = read_records(tmp_path / "sweep")
    assert (record.number, record.overrides, record.state) == (3, ["seed=1"], "running")
    assert (record.run, record.began) == (str(run.folder), began)


def test_outside_a_multirun_nothing_is_written(tmp_path: Path) -> None:
    job = Job()
    job.opened(Run(tmp_path / "run"))
    job.save()
    assert job.value is None
    assert not list(tmp_path.iterdir())


def test_records_come_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        Job(tmp_path / str(number) / "job.json", Record(number)).save()
    assert [record.number for record in read_records(tmp_path)] == [0, 2, 10]


def test_jobs_of_the_same_overrides_are_told_apart_as_such() -> None:
    same = [Record(0, ["a=1"]), Record(1, ["a=1"])]
    assert told_apart(same) == ["(the same overrides)"] * 2
    assert told_apart([]) == []


def test_the_tally_names_every_way_to_end() -> None:
    records = [
        Record(0, state="finished", began="finished"),
        Record(1, state="finished", began="goes on"),
        Record(2, state="finished"),
        Record(3, state="finished", kind="evaluation"),
        Record(4, state="failed", began="goes on"),
        Record(5, state="running"),
    ]
    assert tally(records, 8) == (
        "8 jobs: 1 found finished, 1 gone on with, 1 trained, 1 measured, 2 failed, 2 never began."
    )
    assert tally([], 0) == "0 jobs: none began."
