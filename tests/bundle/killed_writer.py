"""A process that writes in children of its own, each of which is killed at a given step.

It starts no threads itself, so that its forks are sound: a fork takes a millisecond where an
interpreter takes half a second. Run as ``python -m tests.bundle.killed_writer``; each line of the
input is ``["kind", "folder", step]``, each line of the output what `in_a_child` returns.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bundle.small_bundles import IDS, create, items_of, use_stand_in
from visual_search.bundle import generation, tidying
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items

# What Python tells of before it does it, and what changes a folder or a file: a reader, or a sync,
# leaves both as the step before did, for whoever looks after a kill.
STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "fcntl.flock")


def write(kind: str, folder: Path) -> None:
    if kind == "add and merge":
        tidying.__dict__["MAX_SEGMENTS"] = 1
        add_items(folder, items_of(["a", "item-5"], mark="b-"))
    elif kind == "remove":
        remove_items(folder, ["item-2"], tidy=False)
    elif kind == "rebuild":
        rebuild_bundle(folder)
    else:
        create(folder / "bundle", IDS, encoder_onnx=folder / "other/encoder.onnx")


class Killer:
    """Ends this process by SIGKILL at its n-th step within a folder; never where n is 0."""

    def __init__(self, folder: Path, at: int) -> None:
        self.num_steps = 0
        self._folder, self._at = str(folder), at
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in STEPS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        here = writes and str(arguments[0]).startswith(self._folder)
        if here or event == "fcntl.flock":
            self.num_steps += 1
            if self.num_steps == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(kind: str, folder: Path, at: int) -> int:
    """Returns the number of steps that the writer took, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        code = 255  # more than any writer's steps: it failed by itself
        try:
            killer = Killer(folder, at)
            write(kind, folder)
            code = killer.num_steps
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def writer_to_kill() -> Iterator[Callable[..., int]]:
    """Yields `in_a_child` of a process that has loaded everything and started no threads."""
    command = [sys.executable, "-m", "tests.bundle.killed_writer"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:

        def write(kind: str, folder: Path, at: int = 0) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([kind, str(folder), at]), file=process.stdin, flush=True)
            steps = int(process.stdout.readline())
            assert steps < 255
            return steps

        yield write


def main() -> None:
    import faiss  # noqa: F401 - loaded once, and not in each child
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    use_stand_in()
    generation.__dict__["KEPT_SECONDS"] = 1e6  # or the steps would depend on the time
    for line in sys.stdin:
        kind, folder, at = json.loads(line)
        print(in_a_child(kind, Path(folder), at), flush=True)


if __name__ == "__main__":
    main()
