"""Locks: who holds one keeps others out, until its process ends however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from visual_search.locking import FolderLock, file_lock, is_held

HOLDER = """
import os, sys, time
from pathlib import Path
from visual_search.locking import FolderLock, file_lock
path = Path(sys.argv[1])
lock = FolderLock(path) if path.is_dir() else file_lock(path)
lock.acquire()
if not os.fork():  # as a loader's worker that has not seen yet that its parent is dead
    print(os.getpid(), flush=True)  # it is through the fork, and has closed what it must not hold
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_killed_holder_leaves_no_lock_though_its_child_lives(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    lock = FolderLock(path) if path.is_dir() else file_lock(path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(Timeout):
            lock.acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        lock.acquire()
        lock.release()
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.communicate()


def test_a_lock_leaves_what_its_file_holds_and_refuses_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "lock", tmp_path / "link"
    path.write_text("by an earlier version")
    link.symlink_to(path)
    with file_lock(path):
        assert is_held(path)
        with pytest.raises(Timeout):
            file_lock(path, 0.05).acquire()
    assert path.read_text() == "by an earlier version"
    for look in (file_lock(link).acquire, lambda: is_held(link)):
        with pytest.raises(OSError, match="symbolic link"):
            look()
    assert not is_held(tmp_path / "missing")
    path.chmod(0o444)
    assert not is_held(path)


def test_two_who_look_at_the_same_moment_see_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    other = file_lock(path)
    other.acquire()
    waited: Callable[[float], None] = lambda _: other.release()  # noqa: E731
    monkeypatch.setattr("time.sleep", waited)
    assert not is_held(path)


def test_a_folder_that_is_swept_as_it_is_locked_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = tmp_path / "folder", os.open
    folder.mkdir()

    def removed_meanwhile(path: Path, flags: int) -> int:
        descriptor = opened(path, flags)
        folder.rmdir()
        return descriptor

    monkeypatch.setattr(os, "open", removed_meanwhile)
    with pytest.raises(Timeout):
        FolderLock(folder).acquire()
