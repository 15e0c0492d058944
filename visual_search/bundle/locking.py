"""One writer at a time; readers need no lock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from visual_search.bundle.files import DamagedError
from visual_search.locking import file_lock

LOCK_FILE = ".lock"


class BundleLockedError(RuntimeError):
    """Somebody else is writing the bundle."""


@contextlib.contextmanager
def write_lock(folder: Path, wait_seconds: float) -> Iterator[None]:
    """Keeps other writers, processes and threads, out of a bundle while the block runs.

    The lock ends with the process that holds it, however that ends. The file that carries it stays.

    Args:
        folder: The bundle's folder.
        wait_seconds: How long to wait for another writer to finish.

    Raises:
        BundleLockedError: The other one did not finish in time; the message says who holds it.
        ValueError: ``wait_seconds`` is below 0 or no number, or the lock's file is a link.

    Example:
        >>> import tempfile
        >>> with write_lock(Path(tempfile.mkdtemp()), wait_seconds=1):
        ...     pass
    """
    if not wait_seconds >= 0:
        raise ValueError(
            f"wait_seconds is {wait_seconds}; expected 0 or more: how long to wait for another "
            "writer"
        )
    path = folder / LOCK_FILE
    descriptors: list[int] = []  # of the lock's open file: its folder may be renamed meanwhile
    lock = file_lock(path, wait_seconds, descriptors.append)
    try:
        lock.acquire()
    except Timeout as error:
        raise BundleLockedError(
            f"{folder} is being written by {_holder(path)}, and this write waited "
            f"{wait_seconds:g} seconds; expected one writer at a time: try again later, or "
            "wait longer (wait_seconds, at the command line wait_s)"
        ) from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DamagedError(
            f"{path} is a link; expected a file of the bundle, which is written to: delete the link"
        ) from error
    note = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds, those who wait learn less
            _write(descriptors[0], json.dumps(note).encode())
        yield
        _write(descriptors[0], b"")  # a bundle that is given away names no machine
    finally:
        lock.release()


def _write(descriptor: int, note: bytes) -> None:
    os.pwrite(descriptor, note, 0)
    os.truncate(descriptor, len(note))


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
