"""Embedding in shards by real processes: two at once, and killed in the middle."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.holding import Hold
from tests.test_train import run_here
from visual_search.runs.embedding_shards import read_shard_manifest, read_shards
from visual_search.runs.run import Run

pytestmark = pytest.mark.slow

NUM_ITEMS = 3 * 60
TWO = ("trainer.strategy=ddp", "trainer.devices=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    more = ("callbacks=none", "logger={}", "embedding.pca=8", "embedding.normalize=true")
    return run_here(tmp_path_factory.mktemp("run"), *more)


def command(run: Run, out: Path, *more: str) -> list[str]:
    """Of a catalogue that the run has not seen: more of the drawn products."""
    words = [
        f"run={run.folder}",
        f"out={out}",
        f"pictures.cache_dir={run.folder.parents[2] / 'cache'}",
    ]
    words += ["+data.items_per_category=60", "shard_size=16", "trainer.accelerator=cpu"]
    return [sys.executable, "-m", "visual_search.embed", *words, "loader.batch_size=4", *more]


def embed(run: Run, out: Path, *more: str) -> str:
    done = subprocess.run(
        command(run, out, *more), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


@pytest.fixture(scope="module")
def alone(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    said = embed(run, out)
    assert "180 items of synthetic, 8 numbers each, in 12 shards" in " ".join(said.split())
    return out


def ids(out: Path) -> list[str]:
    return [item_id for table, _ in read_shards(out) for item_id in table["item_id"]]


def test_two_processes_write_every_item_exactly_once(run: Run, alone: Path, tmp_path: Path) -> None:
    said = embed(run, tmp_path / "two", *TWO)
    assert said.count("numbers each, in 12 shards") == 1  # the second process says nothing
    found = ids(tmp_path / "two")
    assert len(found) == len(set(found)) == NUM_ITEMS
    assert found == ids(alone)
    assert list(files(tmp_path / "two")) == list(files(alone))
    for (_, one), (_, two) in zip(read_shards(alone), read_shards(tmp_path / "two"), strict=True):
        np.testing.assert_array_equal(one, two)
    assert read_shard_manifest(tmp_path / "two") == read_shard_manifest(alone)


def test_more_processes_than_shards(run: Run, alone: Path, tmp_path: Path) -> None:
    embed(run, tmp_path / "out", *TWO, "shard_size=200")
    assert ids(tmp_path / "out") == ids(alone)


def kill_after_first_shard(words: list[str], out: Path) -> int:
    """Returns how many shards were recorded as finished when the process was dead."""
    hold = Hold(out.with_name("hold"), [r"/finished/\d+\.json$"] * 2)
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=hold.environment
    )
    try:
        hold.reached(process)
        children = _children(process.pid)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        hold.go_on()  # a child may wait there as well
        deadline = time.monotonic() + 300
        while any(_is_running(child) for child in children):  # they end by themselves
            assert time.monotonic() < deadline, f"{children} outlive their first process"
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
    return len(list(out.glob("finished/[0-9]*.json")))


def _times_of_finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("finished/[0-9]*.json")}


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.is_file() else []


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and nobody has asked for its status yet


@pytest.mark.parametrize(("first", "then"), [((), TWO), (TWO, ())], ids=["1 to 2", "2 to 1"])
def test_a_killed_command_goes_on_where_it_was(
    run: Run, alone: Path, tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    out = tmp_path / "cut"
    finished = kill_after_first_shard(command(run, out, *first), out)
    assert 1 <= finished < 12, "it was killed too late to show anything"
    assert not (out / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="it is unfinished: start its command again"):
        next(read_shards(out))
    times = _times_of_finished(out)  # without a file whose writing the kill cut short

    said = embed(run, out, *then)
    assert f"Finished: {finished} of 12 shards; going on with" in said
    assert said.count("going on with") == 1
    kept = _times_of_finished(out)
    assert {name: kept[name] for name in times} == times  # what was finished stayed
    assert files(out) == files(alone)
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]
