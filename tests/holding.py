"""Processes that wait where a test wants them, so that a signal meets them there on any machine.

A test that looks for a file every few milliseconds and then kills counts on being quick: where it
is held up, the process has ended before. Here the process itself stops, at a rename.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

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
        """The environment of a process that is to wait."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def reached(self, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
        """Comes back when a process waits."""
        deadline = time.monotonic() + 600
        while not list(self.folder.glob("held-*")):
            assert process.poll() is None, "it ended before it came to where it was to wait"
            assert time.monotonic() < deadline, "it did not come there within ten minutes"
            time.sleep(0.02)

    def go_on(self) -> None:
        """Lets all of them go on, for good."""
        (self.folder / "go").touch()
