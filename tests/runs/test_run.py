"""A run's folder: who is in it, how it stands after a kill, and what a fresh start leaves."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from visual_search.atomic import DiskFullError
from visual_search.runs.run import Run, RunLockedError, open_run, write_json


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    """A finished run with a finished evaluation."""
    run = Run(tmp_path / "plus_layer" / "0123456789")
    for place in (run, Run(run.folder / "evaluations" / "leave_one_out-01234567")):
        write_json(place.folder / "metrics" / "summary.json", {"micro_map_at_5": 0.5})
        place.set_state("finished")
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(b"weights")
    return run


def statuses(run: Run) -> list[Path]:
    return list(run.folder.rglob("status.json"))


@pytest.mark.parametrize("removals", range(4))
def test_a_clearing_that_is_cut_short_leaves_nothing_that_counts(
    finished: Run, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    """Killed after so many of its entries were removed."""
    left = iter(range(removals))

    def removing(remove: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if arguments[0].name not in ("status.json", ".clearing") and next(left, None) is None:
                raise KeyboardInterrupt
            return remove(*arguments, **options)

        return step

    finished.lock()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", removing(shutil.rmtree))
        patched.setattr(Path, "unlink", removing(Path.unlink))
        with contextlib.suppress(KeyboardInterrupt):
            finished.clear()
    kept = [path for path in finished.folder.iterdir() if path.is_dir()]
    assert len(kept) == 3 - removals
    finished.unlock()
    assert finished.state == "new"
    assert not statuses(finished)
    again = Run(finished.folder)
    again.lock()  # the next start goes on with it
    again.unlock()
    assert [path.name for path in finished.folder.iterdir()] == [".lock"]


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.lock()
    run.set_state("running")
    other = Run(tmp_path)
    assert other.state == "running"
    with pytest.raises(RunLockedError, match=str(json.loads(statuses(run)[0].read_text())["pid"])):
        other.lock()
    run.unlock()
    assert other.state == "interrupted"
    run.set_state("failed", error="x")
    assert other.state == "failed"


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    run = Run(tmp_path)
    run.lock()
    run.set_state("running")
    here, go = context.Event(), context.Event()
    worker = context.Process(target=lambda: (here.set(), go.wait(60)))
    worker.start()
    try:
        assert here.wait(60)
        run.unlock()  # as its end would
        assert run.state == "interrupted"
        other = Run(tmp_path)
        other.lock()
        assert worker.is_alive()
        assert Run(tmp_path).state == "running"
        other.unlock()
    finally:
        go.set()
        worker.join()


def test_a_full_disk_leaves_a_status_that_says_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.set_state("running", catalog="shop", error="")
    fsync = os.fsync

    def full(handle: int) -> None:
        if "status.json" not in os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2][:11]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    run.set_state("failed", catalog="shop", error="no room " * 10_000)
    assert (run.state, run.status()["catalog"]) == ("failed", "shop")
    assert len(statuses(run)[0].read_bytes()) < 4096  # in the block that it had
    assert os.listdir(tmp_path) == ["status.json"]
    with pytest.raises(DiskFullError, match=r"new/status\.json"):
        Run(tmp_path / "new").set_state("running")


@pytest.mark.parametrize("name", ["../escape", "/abs", "", "a b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        open_run(tmp_path, name, "0" * 10)
