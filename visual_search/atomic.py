"""Files that a reader sees whole or not at all, and what is left of those that were not finished.

Every file that a run leaves is written to a temporary name in the same folder, flushed to the
disk and renamed. The temporary file lies beside its target because a rename is atomic only within
one filesystem (``TMPDIR`` may be another one).

A temporary name says that it is one, and its writer holds a lock on it. What a killed writer left
is thus told from what a living one is at, and goes when the next process writes into that folder.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, Timeout

from visual_search.locking import FolderLock, file_lock
from visual_search.wording import file_size

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.[^.]*)?", re.DOTALL)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)  # of some network disks
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE = bytes(2**16)

_swept: set[str] = set()  # folders in which this process has removed what others left


class DiskFullError(OSError):
    """There is no room for a file; says for which, how much was wanted and how much is free."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, num_bytes: int | None = None) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    The temporary name keeps the target's suffix, since some writers choose their format by it.
    When the block raises, the temporary file is removed and ``path`` stays as it was. Missing
    parent folders are made.

    Args:
        path: Of the file.
        num_bytes: How large it will be, where that is known: a disk without so much room is told
            before anything is written.

    Raises:
        DiskFullError: There is no room for it, whatever the block raised on that account.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_path(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> (folder / "note.txt").read_text()
        'whole'
    """
    target = Path(path)
    with telling_full_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(target.parent)
        check_space(target, num_bytes or 0)
        temporary, lock = _claimed(target, target.suffix)
    try:
        with telling_full_disk(target, temporary):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        lock.release()


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes ``text`` as UTF-8 to ``path`` atomically and returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """Yields a new folder, gone at the end, and where this process is killed at the next start.

    Args:
        parent: Where it lies; made if missing.
        name: What it is called, between the dot and the numbers of its own.
    """
    place = Path(parent)
    with telling_full_disk(place):
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
        folder, lock = _claimed(place / name, "", is_folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def sweep(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files and folders of killed processes; those of living ones stay."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
                    _remove_left(Path(entry.path))


def _sweep_once(folder: Path) -> None:
    place = os.path.abspath(folder)
    if place not in _swept:
        _swept.add(place)
        sweep(place)


def _remove_left(path: Path) -> None:
    if path.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    lock = FolderLock(path) if path.is_dir() else file_lock(path)
    try:
        lock.acquire()
    except Timeout:
        return  # its writer lives
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return  # nobody can tell
        raise
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        lock.release()


def _claimed(
    target: Path, suffix: str, *, is_folder: bool = False
) -> tuple[Path, BaseFileLock | FolderLock]:
    """Makes and locks a temporary file or folder with a name that no other has."""
    stem = target.name.removesuffix(suffix) if suffix else target.name
    while True:
        path = target.with_name(f".{stem}.{uuid.uuid4().hex[:8]}.tmp{suffix}")
        if is_folder:
            path.mkdir()
        lock = FolderLock(path) if is_folder else file_lock(path)
        try:
            lock.acquire()
        except (Timeout, FileNotFoundError):
            continue  # a sweep came between the making and the locking
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return path, lock


def check_space(path: Path, num_bytes: int) -> None:
    """Refuses a file for which its disk has no room.

    Args:
        path: Of the file; its folder exists.
        num_bytes: That it will have.

    Raises:
        DiskFullError: Fewer are free.
    """
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise DiskFullError(
            errno.ENOSPC,
            f"{path} takes {file_size(num_bytes)}, and {file_size(free)} are free on its disk; "
            "make room there, or choose another folder",
        )


@contextlib.contextmanager
def telling_full_disk(path: Path, written_to: Path | None = None) -> Iterator[None]:
    """Turns what writers raise when a disk is full into one error that names the file.

    Some raise an `OSError` that names nothing, others errors of their own.

    Args:
        path: What is to be written.
        written_to: The file that the block writes it to; None for ``path``.

    Raises:
        DiskFullError: The block failed, and the disk is full.
    """
    file = written_to or path
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        written = file.stat().st_size if file.is_file() else 0
        code = _full_code(error, file if written_to else None)
        if code is None:
            raise
        raise DiskFullError(code, _no_room(code, path, written)) from error


def _full_code(error: Exception, written_to: Path | None) -> int | None:
    """Returns the number of the error that a full disk is; None where it is something else."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return error.errno
    if written_to is None or not written_to.is_file():
        return None
    try:  # writers of other libraries do not say why: more of the same tells
        with written_to.open("ab") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as probed:
        return probed.errno if probed.errno in FULL_DISK else None
    return None


def _no_room(code: int, path: Path, written: int) -> str:
    place = path.parent if path.parent.is_dir() else Path(path.anchor or ".")
    reason = f"{file_size(shutil.disk_usage(place).free)} are free on its disk"
    if code == errno.EDQUOT:
        reason = "the user's quota on its disk is used up"
    if code == errno.EFBIG:
        import resource  # there is none on Windows

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        allowed = f"of at most {file_size(limit)} here (ulimit -f)" if limit >= 0 else "so large"
        reason = f"its disk or this process allows no file {allowed}"
    done = f" after {file_size(written)} of it" if written else ""
    return f"{path} could not be written{done}: {reason}; make room there, or choose another folder"


def new_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder that nobody else has made, and returns it: ``path``, or ``path_2``, ...

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp(), "sweep")
        >>> [new_folder(folder).name for _ in range(3)]
        ['sweep', 'sweep_2', 'sweep_3']
    """
    wanted = Path(path)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder
