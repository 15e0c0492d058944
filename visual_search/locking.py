"""One holder at a time, by a lock on a file or folder that ends with the process that took it.

`filelock` keeps those on files: the system releases them however the process ends, a lock's file is
neither cut short nor deleted, a link in its place is refused, and a forked child, as a loader's
worker, closes what it inherits, which it would hold seconds longer than its dead parent. What it
does not do stands here: to lock a folder, and to look without wanting to hold.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout, lock_descriptor

_POLL_SECONDS = 0.02
_LOOKS = 3  # two who look at the same moment hinder each other
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

_locked_folders: set[int] = set()  # open descriptors


def file_lock(
    path: str | os.PathLike[str],
    wait_seconds: float | None = 0.0,
    on_acquired: Callable[[int], None] | None = None,
) -> BaseFileLock:
    """Returns a lock on a file, to be taken by ``with`` or ``acquire()``; any thread may release.

    Processes and threads that ask for one exclude each other. Where another one still holds it
    after the wait, ``filelock.Timeout`` is raised, which is an `OSError` too; the others are: the
    file is a link, cannot be opened, or its filesystem has no locks.

    Args:
        path: Of the file that carries it, made if missing and never deleted.
        wait_seconds: How long to wait for another holder; None for as long as it takes.
        on_acquired: Called with the open file's descriptor once the lock is held.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with file_lock(path):
        ...     is_held(path)
        True
        >>> is_held(path)
        False
    """
    return FileLock(
        path,
        -1 if wait_seconds is None else wait_seconds,
        thread_local=False,
        poll_interval=_POLL_SECONDS,
        fallback_to_soft=False,  # a mark that a kill leaves would lock everybody out
        on_acquired=on_acquired,
    )


def is_held(path: str | os.PathLike[str]) -> bool:
    """Returns whether anybody holds the lock on a file, this process included.

    Where nobody can tell, as on a network disk that is read-only here, it counts as held.

    Raises:
        OSError: The file cannot be opened, or its filesystem has no locks.
    """
    access = os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY
    try:
        descriptor = os.open(path, access | _NO_LINK)
    except FileNotFoundError:
        return False
    try:
        for look in range(_LOOKS):
            if look:
                time.sleep(_POLL_SECONDS / 2)
            if lock_descriptor(descriptor, blocking=False):
                return False
        return True
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return True
    finally:
        os.close(descriptor)


class FolderLock:
    """A lock on a folder itself, which excludes as `file_lock` does.

    Args:
        path: Of the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            Timeout: Another one holds it, or the folder has been deleted meanwhile.
            OSError: The folder cannot be opened, or its filesystem has no locks.
        """
        descriptor = os.open(self._path, os.O_RDONLY | _NO_LINK)
        try:
            if not lock_descriptor(descriptor, blocking=False) or not os.path.lexists(self._path):
                raise Timeout(str(self._path))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _locked_folders.add(descriptor)

    def release(self) -> None:
        """Gives it back; nothing happens where it is not held."""
        if self._descriptor in _locked_folders:  # a forked child has closed its own
            _locked_folders.remove(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = -1


def _close_inherited() -> None:
    while _locked_folders:
        os.close(_locked_folders.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
