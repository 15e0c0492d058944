"""Starts commands that are killed at a given step; a process that has the imports done.

It imports what the commands import, starts no thread and computes nothing, so that its forks are
sound; each runs one command as ``python -m`` does, in a process group of its own, and saves the
seconds of the imports. Run as ``python -m benchmarks.reliability.starting``: each line of the input
is the fields of `Order`, each line of the output those of `End`.
"""

from __future__ import annotations

import json
import mmap
import os
import runpy
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.reliability.child import Child, child

# What Python tells of before it does it, and what changes a file or a folder. What libraries write
# from C++ (torch, FAISS, Arrow) it does not tell of: kills at a moment meet those.
STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NOTES = struct.Struct("=qdd")  # number of steps, when the first and the last of them began
MAX_SECONDS = 300.0


@dataclass(frozen=True)
class Order:
    """A command, and where it is killed.

    Attributes:
        command: Module and arguments, as ``python -m`` has them.
        folder: In which it runs; writing outside of it is not counted.
        log: File for what it prints.
        step: It is killed before its so-manieth step, from 1.
        seconds: It is killed so long after its first step. Neither: it is not killed.
    """

    command: Sequence[str]
    folder: str
    log: str
    step: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class End:
    """How it ended.

    Attributes:
        status: Its exit status; minus the signal that ended it.
        num_steps: Steps that it came to.
        seconds: Between its first and its last step.
        step: What it was about to do at the last one.
    """

    status: int
    num_steps: int
    seconds: float
    step: str


class Steps:
    """Counts the steps of this process in memory that its parent reads after its death."""

    def __init__(self, notes: mmap.mmap, folder: str, at: int | None) -> None:
        self._notes, self._folder, self._at = notes, folder, at
        self._num, self._first = 0, 0.0
        self._fsync = os.fsync
        os.__dict__["fsync"] = self.fsync  # tells nobody of itself
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Counts what changes something in the folder."""
        if event == "open":
            writes = isinstance(arguments[2], int) and bool(arguments[2] & WRITING)
        else:
            writes = event in STEPS
        path = arguments[0] if writes else None
        if isinstance(path, str | bytes | os.PathLike):
            absolute = os.path.abspath(os.fsdecode(path))
            if absolute.startswith(self._folder + os.sep):
                self.step(f"{event} {os.path.relpath(absolute, self._folder)}")

    def fsync(self, handle: int) -> None:
        """Is a step too: what was written before may not be on the disk."""
        self.step("fsync")
        self._fsync(handle)

    def step(self, what: str) -> None:
        """Counts, and kills where it is time."""
        self._num += 1
        now = time.monotonic()
        self._first = self._first or now
        note = what.encode()[:200]
        self._notes[: NOTES.size] = NOTES.pack(self._num, self._first, now)
        self._notes[NOTES.size : NOTES.size + 201] = note.ljust(201, b"\0")
        if self._num == self._at:
            os.killpg(0, signal.SIGKILL)
            time.sleep(60)  # it arrives


def run(order: Order) -> End:
    """Runs a command in a child, and kills its whole group where the order says."""
    notes = mmap.mmap(-1, 4096)
    child = os.fork()
    if not child:
        _be(order, notes)
    status, deadline = None, time.monotonic() + MAX_SECONDS
    while status is None:
        first = NOTES.unpack(notes[: NOTES.size])[1]
        late = order.seconds is not None and first and time.monotonic() - first >= order.seconds
        if late or time.monotonic() > deadline:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(child, signal.SIGKILL)  # it has no group of its own yet
        ended, how = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(how)
        else:
            time.sleep(0.001)
    num, first, last = NOTES.unpack(notes[: NOTES.size])
    what = notes[NOTES.size :].split(b"\0")[0].decode(errors="replace")
    return End(status, num, last - first, what)


def _be(order: Order, notes: mmap.mmap) -> None:
    """Becomes the command; never comes back."""
    code = 1
    try:
        os.setsid()
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(order.folder)
        module, *arguments = order.command
        sys.argv = [module, *arguments]
        Steps(notes, os.path.abspath(order.folder), order.step)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Starter:
    """Runs commands, each in a process group of its own."""

    def __init__(self, starting: Child) -> None:
        self._child = starting

    def run(self, order: Order) -> End:
        """Comes back when the command has ended."""
        return End(**self._child.ask(order))


@contextmanager
def starter() -> Iterator[Starter]:
    """Yields a starter of commands; ends it."""
    with child("benchmarks.reliability.starting") as starting:
        yield Starter(starting)


def main() -> None:
    """Imports what the commands import, then runs what it is told."""
    import faiss  # noqa: F401
    import hydra  # noqa: F401
    import lightning  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch.onnx
    import torch.utils.tensorboard  # noqa: F401

    import visual_search.training.module
    import visual_search.training.trainer  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(asdict(run(Order(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
