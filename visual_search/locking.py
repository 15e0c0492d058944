"""One holder at a time, by a lock on a file or folder that ends with the process that took it.

The kernel keeps such a lock for as long as any process has the open file. A forked child, as a
loader's worker, would hold it seconds longer than its dead parent: it closes what it inherits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

_POLL_SECONDS = 0.02

_open_files: set[int] = set()
# Held while a file is opened, so that no child is forked with one that nobody has noted. Reentrant:
# a handler of signals may write files.
_forking = threading.RLock()


def _close_inherited() -> None:
    for descriptor in _open_files:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open_files.clear()
    _forking.release()


os.register_at_fork(
    before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_close_inherited
)


class FileLock:
    """An exclusive lock; processes and threads that ask for the same one exclude each other.

    Args:
        path: Of the file that carries it, made if missing and never deleted; or of a folder.

    Example:
        >>> import tempfile
        >>> lock = FileLock(Path(tempfile.mkdtemp()) / "lock")
        >>> lock.acquire()
        >>> is_held(lock.path)
        True
        >>> lock.release()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.descriptor = -1  # of the open file while it is held

    def acquire(self, wait_seconds: float | None = 0.0) -> None:
        """Takes the lock.

        Args:
            wait_seconds: How long to wait for another holder; None for as long as it takes.

        Raises:
            BlockingIOError: Another one still holds it.
            OSError: The file is a link, cannot be opened, or its filesystem has no locks.
        """
        descriptor = _opened(self.path)
        try:
            if wait_seconds is None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            else:
                _wait_for(descriptor, wait_seconds)
        except BaseException:
            _close(descriptor)
            raise
        self.descriptor = descriptor

    def release(self) -> None:
        """Returns it back; nothing happens where it is not held."""
        descriptor, self.descriptor = self.descriptor, -1
        _close(descriptor)

    def write(self, content: bytes) -> None:
        """Puts a note into the locked file for those who wait, in the place of the one before."""
        os.pwrite(self.descriptor, content, 0)
        os.truncate(self.descriptor, len(content))


def is_held(path: str | os.PathLike[str]) -> bool:
    """Returns whether anybody holds the lock on a file, this process included.

    Raises:
        OSError: The file cannot be opened, or its filesystem has no locks.
    """
    try:
        descriptor = _opened(Path(path), for_reading=True)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        _close(descriptor)
    return False


def _opened(path: Path, *, for_reading: bool = False) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= os.O_RDONLY if for_reading or path.is_dir() else os.O_RDWR | os.O_CREAT
    with _forking:
        descriptor = os.open(path, flags, 0o666)
        _open_files.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _forking:
        if descriptor in _open_files:  # a forked child has closed its own
            _open_files.remove(descriptor)
            os.close(descriptor)


def _wait_for(descriptor: int, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left = until - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(_POLL_SECONDS, left))
        else:
            return
