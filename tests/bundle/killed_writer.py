"""Writers in processes of their own, each of which is killed at a given step.

They are forked by a server that has loaded everything and started no threads: that takes a
millisecond where an interpreter takes half a second, and is sound.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from tests.bundle.small_bundles import IDS, create, items_of, use_stand_in
from visual_search.bundle import generation, tidying
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items

# What Python tells of before it does it, and what changes a folder or a file: reading leaves both
# as the step before did.
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
        self._fsync = os.fsync
        os.__dict__["fsync"] = self.fsync  # tells nobody of itself
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in STEPS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        here = writes and str(arguments[0]).startswith(self._folder)
        if here or event == "fcntl.flock":
            self.step()

    def fsync(self, handle: int) -> None:
        self.step()
        self._fsync(handle)

    def step(self) -> None:
        self.num_steps += 1
        if self.num_steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def _write_and_tell(kind: str, folder: Path, at: int, told: SimpleQueue[int]) -> None:
    use_stand_in()
    generation.__dict__["KEPT_SECONDS"] = 1e6  # or the steps would depend on the time
    killer = Killer(folder, at)
    write(kind, folder)
    told.put(killer.num_steps)


def write_in_a_child(kind: str, folder: Path, at: int = 0) -> tuple[int, int]:
    """Returns the signal that ended the writer, 0 for none, and then the number of its steps."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        [__name__, "pytest", "faiss", "pyarrow.compute", "pyarrow.parquet"]
    )
    told: SimpleQueue[int] = server.SimpleQueue()
    child = server.Process(target=_write_and_tell, args=(kind, folder, at, told))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), f"writing {kind} failed by itself"
    return (signal.SIGKILL, 0) if child.exitcode else (0, told.get())
