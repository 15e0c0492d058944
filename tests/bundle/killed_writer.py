"""A process that writes in children of its own, each of which is killed at a given step.

It starts no threads itself, so that its forks are sound: a fork takes a millisecond where an
interpreter takes half a second. Run as ``python -m tests.bundle.killed_writer``; each line of the
input is ``["kind", "folder", step]``, each line of the output ``[signal, steps]``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bundle.small_bundles import create, items_of, use_stand_in
from visual_search.bundle import generation, tidying
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items

# What Python tells of before it does it, and what changes a folder or a file.
STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "fcntl.flock")
IDS = [f"item-{n}" for n in range(12)]


def write(kind: str, folder: Path) -> None:
    if kind == "add":
        add_items(folder, items_of(["a", "item-5"], mark="b-"))
    elif kind == "remove":
        remove_items(folder, ["item-2"], tidy=False)
    elif kind == "merge":
        tidying.__dict__["MAX_SEGMENTS"] = 1
        add_items(folder, items_of(["a"], mark="b-"), tidy=False)
    elif kind == "rebuild":
        rebuild_bundle(folder)
    else:
        create(folder / "bundle", IDS, encoder_onnx=folder / "other/encoder.onnx")


class Killer:
    """Ends this process by SIGKILL at its n-th step within a folder; never where n is 0."""

    def __init__(self, folder: Path, at: int) -> None:
        self.num_steps = 0
        self._folder, self._at = str(folder), at
        self._fsync = os.fsync
        os.__dict__["fsync"] = self.fsync  # tells nobody of itself
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        here = event in STEPS and str(arguments[0]).startswith(self._folder)
        if here or event == "fcntl.flock":
            self.step()

    def fsync(self, handle: int) -> None:
        self.step()
        self._fsync(handle)

    def step(self) -> None:
        self.num_steps += 1
        if self.num_steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(kind: str, folder: Path, at: int) -> tuple[int, int]:
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            killer = Killer(folder, at)
            write(kind, folder)
            os.write(tell, str(killer.num_steps).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    with open(told, "rb") as pipe:
        num_steps = int(pipe.read() or 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status), num_steps
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"writing {kind} failed by itself")
    return 0, num_steps


class WriterToKill:
    """Talks to the process above."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, kind: str, folder: Path, at: int = 0) -> tuple[int, int]:
        """Returns the signal that ended the writer, 0 for none, and the number of its steps."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([kind, str(folder), at]) + "\n")
        self._process.stdin.flush()
        ended_by, num_steps = json.loads(self._process.stdout.readline())
        return ended_by, num_steps


@contextmanager
def writer_to_kill() -> Iterator[WriterToKill]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bundle.killed_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield WriterToKill(process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    import faiss  # noqa: F401 - loaded once, and not in each child
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    use_stand_in()
    generation.__dict__["KEPT_SECONDS"] = 1e6  # or the steps would depend on the time
    for line in sys.stdin:
        kind, folder, at = json.loads(line)
        print(json.dumps(in_a_child(kind, Path(folder), at)), flush=True)


if __name__ == "__main__":
    main()
