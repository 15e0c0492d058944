"""Sweeps for real: killed in the middle and started again, by several workers, by Optuna."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.test_sweep_plugins import needs_extra
from tests.processes import Command, Hold
from tests.small_runs import numbers, run_here, small
from visual_search.runs.jobs import Record, read_records
from visual_search.runs.run import Run
from visual_search.train import main
from visual_search.wording import number

pytestmark = pytest.mark.slow

# Jobs that only wait, for what is about processes and signals alone.
WAITING = """
import os, pathlib, signal, sys, time
from visual_search.cli.command_line import run_command
from visual_search.cli.multirun import record_job
from visual_search.reports.sweep_summary import conclude

def wait(config):
    if config.seed == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    with record_job(config) as job:
        if config.seed == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.seed == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        if config.seed == 14:
            sys.exit(3)
        try:
            time.sleep(0 if config.seed > 14 else 600)
        finally:
            pathlib.Path(config.outputs, f"ended-{config.seed}").touch()

if __name__ == "__main__":
    run_command("train", wait, conclude)
"""


SETTINGS = ("data.items_per_category=12", "training.checkpoint_every_n_seconds=0")


def overrides(folder: Path, *more: str) -> list[str]:
    return ["-m", *small(folder, *SETTINGS, *more)]


def sweep_here(folder: Path, *more: str) -> int:
    """Runs the command in this process, and gives its status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *overrides(folder, *more)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def started(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 240
    while not what():
        if process is not None and process.poll() is not None:
            pytest.fail(f"it ended too early: {process.communicate()}")
        assert time.monotonic() < deadline, "it did not happen within four minutes"
        time.sleep(0.02)


def end(process: subprocess.Popen[str], sign: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(sign)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def newest(folder: Path) -> Path:
    found = folder.glob("**/.sweeps/*")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def records(folder: Path) -> list[Record]:
    return read_records(newest(folder))


def runs(folder: Path) -> dict[int, Run]:
    """Returns the runs by their seed."""
    found = [Run(path.parent) for path in folder.glob("outputs/*/*/status.json")]
    return {run.config()["seed"]: run for run in found if (run.folder / "config.yaml").exists()}


def finished(folder: Path) -> dict[int, int]:
    """Returns the finished runs' seeds, and when each was written."""
    return {
        seed: (run.folder / "status.json").stat().st_mtime_ns
        for seed, run in runs(folder).items()
        if run.state == "finished"
    }


def test_a_sweep_that_is_stopped_and_then_killed_ends_as_one_that_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    seeds = "seed=1,2,3"

    # The second job has saved a checkpoint.
    def cut(name: str, sign: signal.Signals, *before: str) -> tuple[int, str, str]:
        hold = Hold(tmp_path / name, [*before, r"/last\.ckpt$", r"/last\.ckpt$"])
        process = Command("train", overrides(broken, seeds), hold=hold)
        hold.reached(process)
        process.send(sign)
        if sign == signal.SIGTERM:
            hold.go_on()
        return process.end()

    status, out, error = cut("first", signal.SIGTERM, r"/metrics/summary\.json$")
    assert status == 128 + signal.SIGTERM
    first = finished(broken)
    assert list(first) == [1]
    assert "leaderboard.html" in out
    assert "stopped with 1 of 3 jobs finished; the same command goes on" in error
    assert [record.state for record in records(broken)] == ["finished", "interrupted"]

    assert cut("second", signal.SIGKILL)[0] == -signal.SIGKILL
    assert finished(broken) == first
    assert [record.state for record in records(broken)] == ["finished", "running"]

    assert sweep_here(broken, seeds) == 0
    assert "3 jobs: 1 found finished, 1 gone on with, 1 trained." in capsys.readouterr().out
    assert [record.state for record in records(broken)] == ["finished"] * 3
    assert first.items() <= finished(broken).items()

    uncut, resumed = run_here(whole, *SETTINGS, "seed=2"), runs(broken)[2]
    assert uncut.folder.name == resumed.folder.name
    assert numbers(uncut) == numbers(resumed)
    galleries = [run.folder / "embeddings" / "gallery.npy" for run in (uncut, resumed)]
    np.testing.assert_array_equal(*map(np.load, galleries))


def test_what_all_jobs_have_wrong_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep_here(tmp_path, "seed=1,2,3", "model.width=0") == 1  # the network refuses it
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("error: ") == 1
    (line,) = [line for line in error.splitlines() if line.startswith("failed: ")]
    assert all(part in line for part in ("3 jobs", "seed=1", "seed=3", "model.width"))
    assert sweep_here(tmp_path, "seed=1,2,3", "model.width=x") == 2  # before any job begins
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.width='x'" in line


def test_the_end_is_a_leaderboard_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep_here(tmp_path, "seed=1", "training.learning_rate=1e-4,1e30,1e-3") == 1
    shown = capsys.readouterr()
    assert "3 jobs: 2 trained, 1 failed." in shown.out
    assert shown.err.count("failed: ") == 1
    assert "failed: training.learning_rate=1e+30: NonFiniteLossError: the" in shown.err
    folder = newest(tmp_path)
    written = {path.name for path in folder.glob("leaderboard*")}
    assert written == {
        "leaderboard.md", "leaderboard.csv", "leaderboard_runs.csv", "leaderboard.html"
    }  # fmt: skip
    table = (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert "training.learning_rate=0.0001" in table
    assert "1e+30" not in table
    best = max(records(tmp_path), key=lambda record: record.value or 0.0)
    assert f"Highest val/map_at_5: {number(best.value)} with training.learning_rate" in shown.out


@needs_extra
def test_workers_share_the_cores_and_one_waits_for_the_run_of_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from joblib import cpu_count

    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    # Two train at once. The third differs from the first in its reading processes alone: it waits.
    jobs = ["loader.num_workers=0,1", "seed=1,2", "hydra.launcher.n_jobs=3"]
    assert sweep_here(tmp_path, "sweep=joblib", *jobs) == 0
    assert os.environ["OMP_NUM_THREADS"] == "64"
    found = records(tmp_path)
    assert os.getpid() not in {record.pid for record in found}
    assert {record.num_threads for record in found} == {max(1, cpu_count() // 3)}
    assert len({record.run for record in found}) == 2
    shown = capfd.readouterr().out
    assert "4 jobs: 2 found finished, 2 trained." in shown
    assert "finished: loader.num_workers=1 seed=1, val/map_at_5" in shown
    assert "Retrieval by" not in shown  # each job's own tables are in its file
    for record in found:
        printed = newest(tmp_path) / str(record.number) / "output.txt"
        assert "Retrieval by" in printed.read_text(encoding="utf-8")
        assert not Run(Path(record.run)).config()["trainer"]["enable_progress_bar"]
    assert (newest(tmp_path) / "leaderboard.html").is_file()


@needs_extra
def test_optuna_maximises_validation_and_asks_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    search = ["sweep=optuna", "training.learning_rate=tag(log,interval(1e-5,1e-2))"]
    assert sweep_here(tmp_path, *search, "hydra.sweeper.n_trials=1") == 0
    before = finished_by_rate(tmp_path)
    assert sweep_here(tmp_path, *search, "hydra.sweeper.n_trials=2") == 0
    out = capsys.readouterr().out
    assert "2 jobs: 1 found finished, 1 trained." in out
    after = finished_by_rate(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == 2
    assert all(1e-5 <= rate <= 1e-2 for rate in after)
    values = [record.value for record in records(tmp_path)]
    results = yaml.safe_load((newest(tmp_path) / "optimization_results.yaml").read_text())
    assert results["best_value"] == max(value for value in values if value is not None)
    assert (
        f"Highest val/map_at_5: {number(results['best_value'])} with training.learning_rate" in out
    )


def finished_by_rate(folder: Path) -> dict[float, int]:
    return {
        run.config()["training"]["learning_rate"]: (run.folder / "status.json").stat().st_mtime_ns
        for run in (Run(path.parent) for path in folder.glob("outputs/*/*/status.json"))
        if run.state == "finished"
    }


@pytest.fixture
def waiting(tmp_path: Path) -> list[str]:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING, encoding="utf-8")
    return [str(script), "-m", f"outputs={tmp_path}", "sweep=joblib"]


def at_work(folder: Path) -> bool:
    """Whether both workers have a job."""
    found = [json.loads(path.read_text()) for path in folder.glob(".sweeps/*/*/job.json")]
    return len(found) == 2


@needs_extra
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_workers_first(
    tmp_path: Path, waiting: list[str], sign: signal.Signals
) -> None:
    process = started([*waiting, "seed=1,2,3"])
    wait_for(lambda: at_work(tmp_path), process)
    status, _, error = end(process, sign)
    assert status == 128 + sign
    assert "stopped with 0 of 3 jobs finished" in error
    assert [record.state for record in records(tmp_path)] == ["interrupted"] * 2
    assert {path.name for path in tmp_path.glob("ended-*")} == {"ended-1", "ended-2"}


@needs_extra
def test_workers_of_a_killed_sweep_end_by_themselves(tmp_path: Path, waiting: list[str]) -> None:
    process = started([*waiting, "seed=1,2,3"])
    wait_for(lambda: at_work(tmp_path), process)
    pids = [record.pid for record in records(tmp_path)]
    process.kill()
    process.wait(timeout=300)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    process.communicate(timeout=300)
    assert [record.state for record in records(tmp_path)] == ["interrupted"] * 2
    assert len(list(tmp_path.glob("ended-*"))) == 2


@needs_extra
def test_a_worker_that_is_killed_ends_no_other(tmp_path: Path, waiting: list[str]) -> None:
    process = started([*waiting, "seed=15,13,12,11,16"])
    out, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"failed: seed=13: it was running when process \d+ ended", error)
    assert "SIGKILL" in next(line for line in error.splitlines() if "failed: seed=12: " in line)
    assert "the same command goes on" in error
    assert "failed: seed=11: it was interrupted" in error
    assert re.search(r"5 jobs: .*3 failed\.", out)
    ended = {path.name for path in tmp_path.glob("ended-*")} - {"ended-11"}
    assert ended == {f"ended-{seed}" for seed in (15, 16)}


def test_jobs_that_never_began_are_named(tmp_path: Path, waiting: list[str]) -> None:
    process = started([waiting[0], "-m", f"outputs={tmp_path}", "seed=14,16,17"])
    out, error = process.communicate(timeout=300)
    assert process.returncode != 0
    assert re.search(r"3 jobs: .*1 failed, 2 never began\.", out)
    assert "failed: seed=14: " in error
    named = [line for line in error.splitlines() if line.startswith("never began: ")]
    assert named == ["never began: seed=16", "never began: seed=17"]


def test_two_sweeps_of_one_second_know_nothing_of_each_other(
    tmp_path: Path, waiting: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second stands still, so that both start in it.
    still = "import datetime, hydra.core.utils as utils\nmoment = datetime.datetime(2026, 1, 1)\n"
    still += "class Still(datetime.datetime):\n"
    still += "    now = classmethod(lambda kind, tz=None: moment)\n"
    still += "utils.datetime = Still\n"
    script = Path(waiting[0])
    script.write_text(still + script.read_text(encoding="utf-8"), encoding="utf-8")
    common = [str(script), "-m", f"outputs={tmp_path}"]
    first = started([*common, "seed=1,2"])
    wait_for(lambda: list(tmp_path.glob(".sweeps/*/0/job.json")), first)
    second = started([*common, "seed=15,16"])
    out, error = second.communicate(timeout=300)
    assert second.returncode == 0, error
    assert "2 jobs: " in out
    assert first.poll() is None
    status, _, error = end(first, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert "stopped with 0 of 2 jobs finished" in error
    folders = sorted((tmp_path / ".sweeps").iterdir())
    assert len(folders) == 2
    assert sorted(len(read_records(folder)) for folder in folders) == [1, 2]


def test_a_folder_that_was_named_holds_one_sweep_at_a_time(
    tmp_path: Path, waiting: list[str]
) -> None:
    common = [waiting[0], "-m", f"outputs={tmp_path}", f"hydra.sweep.dir={tmp_path / 'mine'}"]
    first = started([*common, "seed=1"])
    wait_for(lambda: list(tmp_path.glob("mine/0/job.json")), first)
    second = started([*common, "seed=15"])
    _, error = second.communicate(timeout=300)
    assert second.returncode == 2
    assert f"{tmp_path / 'mine'} is in use" in error
    assert end(first, signal.SIGTERM)[0] == 128 + signal.SIGTERM
    again = started([*common, "seed=15"])
    out, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert "1 job: 1 trained." in out


def test_a_sweep_that_cannot_write_its_end_says_so(tmp_path: Path, waiting: list[str]) -> None:
    (tmp_path / "file").touch()
    process = started([waiting[0], "-m", f"outputs={tmp_path / 'file'}", "seed=15"])
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: NotADirectoryError: " in error
    assert str(tmp_path / "file") in error


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
