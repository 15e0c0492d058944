"""Runs gathered and ranked: seeds as one, names that tell apart, and how a sweep ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.composing import typed
from visual_search.compare import compare_runs, print_comparison
from visual_search.reports.rankings import (
    Leaderboard,
    conclusion,
    print_leaderboard,
    rank_these,
)
from visual_search.reports.sweep_summary import conclude
from visual_search.runs.jobs import Record
from visual_search.runs.run import Run, write_json

EARLIER = Path(__file__).parents[1] / "data" / "earlier" / "outputs" / "residual"
VALUES = {0: 0.3, 1: 0.4, 2: 0.6}  # of every query, by seed


def made(folder: Path, seed: int, value: float, **settings: Any) -> Run:
    """A copy of a finished run with another seed, other settings and the same answers to all."""
    (source,) = EARLIER.iterdir()
    for name in ("metrics", "status.json"):
        (shutil.copytree if name == "metrics" else shutil.copy)(source / name, folder / name)
    config = yaml.safe_load((source / "config.yaml").read_text()) | {"seed": seed}
    for group, changes in settings.items():
        config[group] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "report.html").touch()
    path = folder / "metrics" / "per_query.parquet"
    table = pd.read_parquet(path)
    table.assign(average_precision=value).to_parquet(path)
    summary = json.loads((folder / "metrics" / "summary.json").read_text())
    summary |= {"micro_map_at_5": value, "macro_map_at_5": value}
    write_json(folder / "metrics" / "summary.json", summary)
    return Run(folder)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two rates with three and two seeds, and a network of another name."""
    found = []
    for rate, lift in ((0.1, 0.3), (0.2, 0.0)):
        for seed, value in list(VALUES.items())[: 3 if lift else 2]:
            folder = tmp_path / "outputs" / "residual" / f"{rate}-{seed}"
            changes = {"learning_rate": rate}
            found.append(made(folder, seed, value + lift, training=changes))
    found.append(made(tmp_path / "outputs" / "plain" / "lone", 0, 0.5))
    return found


def ranked(runs: Sequence[Run], folder: Path) -> tuple[Leaderboard, list[dict[str, Any]]]:
    board = rank_these(runs, folder, seed=0)
    (group,) = board.groups
    return board, group.table[~group.table["is_floor"]].to_dict("records")


def test_seeds_are_one_row_and_every_run_stands_beside_it(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board, rows = ranked(runs, tmp_path)
    assert [row["name"] for row in rows] == [
        "residual training.learning_rate=0.1", "plain", "residual training.learning_rate=0.2",
    ]  # fmt: skip
    assert [row["num_runs"] for row in rows] == [3, 1, 2]
    assert rows[0]["micro"] == pytest.approx(0.3 + sum(VALUES.values()) / 3)
    assert rows[0]["micro_sd"] == pytest.approx(pd.Series(VALUES).std())
    found = {row["name"]: [run.seed for run in board.runs[row["path"]]] for row in rows}
    assert list(found.values()) == [[0, 1, 2], [0], [0, 1]]
    lines = pd.read_csv(tmp_path / "leaderboard_runs.csv")
    assert lines["seed"].tolist() == [0, 1, 2, 0, 0, 1]
    assert lines["micro"].tolist() == pytest.approx([0.6, 0.7, 0.9, 0.5, 0.3, 0.4])
    print_leaderboard(board)
    printed = capsys.readouterr().out
    assert max(map(len, printed.partition("mAP@5: ")[0].splitlines())) <= 80
    texts = [
        (tmp_path / name).read_text()
        for name in ("leaderboard.md", "leaderboard.csv", "leaderboard_runs.csv")
    ]
    page = (tmp_path / "leaderboard.html").read_text()
    for run in runs:
        assert run.folder.name in printed
        assert all(run.folder.name in text for text in texts)
        assert f"{run.folder.name}/report.html" in page
        assert str(tmp_path) not in "".join([*texts, page])


def test_a_table_is_said_in_a_sentence(runs: list[Run], tmp_path: Path) -> None:
    low = made(tmp_path / "outputs" / "low" / "lone", 0, 0.001)
    board, rows = ranked([*runs[:3], low], tmp_path)
    (group,) = board.groups
    floors = group.table[group.table["is_floor"]]
    best = floors.loc[floors["micro"].idxmax()]
    said = conclusion(group, board.runs)
    assert said.startswith(
        f"residual: seed 0, {board.runs[rows[0]['path']][0].summary['standing']}"
    )
    assert said.endswith(
        f"Lower than {best['name']} ({best['micro']:.3f}), which learns nothing: low (0.001)."
    )
    board, _ = ranked(runs[:3], tmp_path)
    assert "Lower" not in conclusion(board.groups[0], board.runs)


def test_runs_of_one_name_are_told_apart_by_their_settings_alone(
    runs: list[Run], tmp_path: Path
) -> None:
    _, rows = ranked(runs[:5], tmp_path)
    assert [row["name"] for row in rows] == [
        "training.learning_rate=0.1", "training.learning_rate=0.2"
    ]  # fmt: skip
    _, rows = ranked(runs[:3], tmp_path)
    assert [row["name"] for row in rows] == ["residual"]


def test_a_copy_of_a_run_is_no_further_seed(runs: list[Run], tmp_path: Path) -> None:
    copy = tmp_path / "outputs" / "residual" / "copied"
    shutil.copytree(runs[0].folder, copy)
    _, rows = ranked([*runs[:3], Run(copy)], tmp_path)
    assert [row["num_runs"] for row in rows] == [3, 1]
    assert len({row["name"] for row in rows}) == 2


def test_a_run_whose_settings_are_gone_is_named(runs: list[Run], tmp_path: Path) -> None:
    (runs[0].folder / "config.yaml").write_text("training: [")
    board, rows = ranked(runs, tmp_path)
    assert [row["num_runs"] for row in rows] == [2, 1, 2]
    ((path, reason),) = board.left_out
    assert path == str(runs[0].folder)
    assert "config.yaml" in reason


def test_a_sweep_ends_with_the_best_mean_over_seeds(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The highest single validation value is not of the settings that are best over seeds.
    values = [0.5, 0.5, 0.5, 0.9, 0.0]
    for place, (run, value) in enumerate(zip(runs, values, strict=False)):
        overrides = ["training.learning_rate=0.1", f"seed={place}"]
        record = Record(place, overrides, "finished", "run", str(run.folder), "new", value, "val/m")
        write_json(tmp_path / "sweep" / str(place) / "job.json", asdict(record))
    assert conclude(tmp_path / "sweep", [["seed=0"]] * 5, False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 jobs: 5 trained." in printed
    best = printed[printed.index("Highest val/m: ") :]
    assert best.startswith("Highest val/m: 0.500, the mean of 3 seeds (SD 0.000)")
    assert "training.learning_rate=0.1" in best
    assert all(str(run.folder) in best for run in runs[:3])


def test_a_comparison_takes_seeds_as_one_and_names_each(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compared(*of: Run) -> Any:
        folders = ",".join(str(run.folder) for run in of)
        own = [f"out={tmp_path / 'out'}", f"pictures.cache_dir={tmp_path / 'cache'}"]
        return compare_runs(typed("compare", f"runs=[{folders}]", *own, "num_queries_shown=1"))

    found = compared(*runs[:5])
    slow, quick = ("training.learning_rate=0.1", "training.learning_rate=0.2")
    assert found.comparison.runs["run"].tolist() == [slow, quick]
    means = found.comparison.runs["micro"].tolist()
    assert means == pytest.approx([0.3 + sum(VALUES.values()) / 3, 0.35])
    print_comparison(found)
    printed = capsys.readouterr().out
    spread = pd.Series(VALUES).std()
    assert f"{spread:.3f} (3)" in printed
    page = (found.folder / "report.html").read_text()
    for run in runs[:5]:
        assert f"residual/{run.folder.name}" in printed
        assert f"residual/{run.folder.name}" in page
    assert f"{spread:.3f} (3)" in page

    found = compared(*runs[:3])  # nothing else to compare
    assert found.comparison.runs["run"].tolist() == ["seed=0", "seed=1", "seed=2"]
    print_comparison(found)
    assert f"SD {spread:.3f}" in capsys.readouterr().out
