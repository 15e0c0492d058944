"""Commands in processes of their own, which wait where a test wants them.

Loading torch and Lightning takes most of what a small command's process takes. One process loads
them for all tests, and each command is forked from it: killed and signalled like any other.

A test that looks for a file every few milliseconds and then kills counts on being quick: where it
is held up, the process has ended before. Here the process itself stops, at a rename.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LOADED = ["visual_search.cli.multirun", "visual_search.reports.run_page",
          "visual_search.runs.results", "visual_search.training.trainer"]  # fmt: skip
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(LOADED)


class Command:
    """A command's process, as ``python -m visual_search.<name> <arguments>`` starts it.

    Args:
        name: Of the command.
        arguments: Behind it.
        more: Environment beside the test's own.
        hold: Where it is to wait, if it is.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        more: Mapping[str, str] | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._said = tempfile.TemporaryDirectory()
        given = (name, list(arguments), {**os.environ, **(more or {})}, self._said.name, hold)
        self._process = _FORKS.Process(target=_run, args=given, daemon=False)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def send(self, sign: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, sign)

    def end(self, timeout: float = 300) -> tuple[int, str, str]:
        """Waits for its end, and returns its status, negative for a signal, and what it said."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            self._process.kill()
            raise AssertionError(f"it did not end within {timeout} s: {self.said('err')}")
        return status, self.said("out"), self.said("err")

    def said(self, where: str) -> str:
        """Returns what it has printed, to ``out`` or ``err``."""
        return Path(self._said.name, where).read_text(encoding="utf-8")


def _run(
    name: str, arguments: list[str], environment: dict[str, str], said: str, hold: Hold | None
) -> None:
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        stream.flush()
        file = os.open(Path(said, ("out", "err")[number - 1]), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    if hold is not None:
        runpy.run_path(str(hold.folder / "sitecustomize.py"))
        os.environ.update(hold.environment)
    sys.argv = [name, *arguments]
    runpy.run_module(f"visual_search.{name}", run_name="__main__", alter_sys=True)


# `site` imports this module at the start of every Python process that finds it, children included.
HOLDER = """
import os, pathlib, re, time

folder = pathlib.Path(__file__).parent
awaited = (folder / "awaited").read_text().splitlines()
replace = os.replace

def waiting(source, target, **more):
    if awaited and re.search(awaited[0], str(target)):
        del awaited[0]
        if not awaited:
            (folder / f"held-{os.getpid()}").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)  # a signal's handler runs meanwhile
    return replace(source, target, **more)

os.replace = waiting
"""


class Hold:
    """Makes processes wait before a rename.

    Args:
        folder: An own folder for what process and test tell each other.
        awaited: Regular expressions, one rename each: a process waits before the one that matches
            the last of them, after those that matched the others in this order.
    """

    def __init__(self, folder: Path, awaited: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        (folder / "awaited").write_text("\n".join(awaited))
        (folder / "sitecustomize.py").write_text(HOLDER)
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """What a process that the held one starts finds the same by."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def reached(self, command: Command) -> None:
        """Comes back when a process waits."""
        deadline = time.monotonic() + 600
        while not list(self.folder.glob("held-*")):
            assert command.is_running(), f"it did not come to where it was to wait: {command.end()}"
            assert time.monotonic() < deadline, "it did not come there within ten minutes"
            time.sleep(0.02)

    def go_on(self) -> None:
        """Lets all of them go on, for good."""
        (self.folder / "go").touch()
