"""Whole files of object storage, copied to this machine once and then read from its disk.

::

    <XDG_CACHE_HOME or ~/.cache>/visual_search/objects/<hash of the address>/
      files/<name>          the copies, by their names below the address
      records/<name>.json   size and time that each had there; beside it, the lock of who copies it
      hashes.txt            of pictures that were read, see ``hashes.py``
      lock                  held by the process that writes these

A file is looked at before each use, and copied anew where it has another size or time there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from visual_search.atomic import (
    atomic_path,
    check_space,
    scratch_folder,
    telling_full_disk,
    write_text,
)
from visual_search.locking import file_lock
from visual_search.storage.bucket import Bucket, ObjectStatus, StorageError, in_parallel
from visual_search.storage.uris import ObjectUri

_LONGEST_NAME = 230  # bytes; the 255 of a file's name also hold what is added to a temporary one


def copied_file(place: ObjectUri) -> Path:
    """Returns the copy of one object, which has its name.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Its name is none that a file can have.
        StorageError: The bucket does not answer, or refuses.
    """
    bucket = Bucket(place.parent)
    status = bucket.status(place.name)
    if status is None:
        raise FileNotFoundError(f"nothing at {place}; check the address")
    return copied_files(bucket, {place.name: status})[place.name]


def copied_files(
    bucket: Bucket,
    wanted: Mapping[str, ObjectStatus],
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Returns the copies of some objects of a bucket by name; several are copied at a time.

    Args:
        bucket: With the address that they lie below.
        wanted: Size and time of each, as they were listed.
        on_progress: Called with how many of how many are there.

    Raises:
        FileNotFoundError: One is gone.
        ValueError: One has a name that no file can have.
        OSError: The folder of the copies cannot be written, or the disk is full.
        StorageError: The bucket does not answer or refuses, or one has changed since it was listed.
    """
    folder = made_folder(bucket.root)
    paths = {name: _inside(folder / "files", name) for name in wanted}

    def copy(name: str) -> None:
        path, status = paths[name], wanted[name]
        record = folder / "records" / f"{name}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(record.with_suffix(".lock"), wait_seconds=None):
            if _is_copied(path, record, status):
                return
            with atomic_path(path, num_bytes=status.num_bytes) as temporary:
                _copy(bucket, name, status, temporary)
            write_text(record, json.dumps(asdict(status)))

    in_parallel(copy, list(wanted), on_progress)
    return paths


@contextmanager
def passing_copy(bucket: Bucket, name: str) -> Iterator[Path]:
    """Yields a copy of one object that nobody else has, gone at the end of the block.

    Raises:
        FileNotFoundError: There is no such object.
        ValueError: Its name is none that a file can have.
        StorageError: The bucket does not answer or refuses, or the object changes meanwhile.
    """
    status = bucket.status(name)
    if status is None:
        raise FileNotFoundError(f"nothing at {bucket.root / name}; check the address")
    with scratch_folder(made_folder(bucket.root), "copy") as folder:
        path = _inside(folder, name.rpartition("/")[2])
        check_space(path, status.num_bytes)
        with telling_full_disk(path, path):
            _copy(bucket, name, status, path)
        yield path


@contextmanager
def passing_file(bucket: Bucket, name: str) -> Iterator[Path]:
    """Yields a path of this machine, whose file becomes an object when the block succeeds.

    Raises:
        StorageError: The bucket does not answer, or refuses.
    """
    with scratch_folder(made_folder(bucket.root), "new") as folder:
        path = _inside(folder, name.rpartition("/")[2])
        with telling_full_disk(path, path):
            yield path
        bucket.write(name, path)


def dropped(bucket: Bucket, names: Sequence[str]) -> None:
    """Removes the copies of some objects of a bucket from this machine."""
    folder = kept_folder(bucket.root)
    for name in names:
        _inside(folder / "files", name).unlink(missing_ok=True)
        (folder / "records" / f"{name}.json").unlink(missing_ok=True)


def _copy(bucket: Bucket, name: str, status: ObjectStatus, path: Path) -> None:
    with open(path, "wb") as file:
        written = bucket.copy_to(name, file)
    if written != status.num_bytes or bucket.status(name) != status:
        raise StorageError(
            f"{bucket.root / name} has changed since it was listed; expected the same file: start "
            "again"
        )


def _is_copied(path: Path, record: Path, status: ObjectStatus) -> bool:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return bool(known == asdict(status) and path.stat().st_size == status.num_bytes)
    except (OSError, ValueError):
        return False


def kept_folder(place: ObjectUri) -> Path:
    """Returns the folder of this machine for what is kept of an address; it may not be there."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    return Path(cache).absolute() / "visual_search" / "objects" / digest


def made_folder(place: ObjectUri) -> Path:
    """Returns the same folder, which is there and can be written.

    Raises:
        OSError: It cannot be.
    """
    folder = kept_folder(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}), and keeps what was read of {place}; "
            "expected a folder of your own: set XDG_CACHE_HOME to one"
        ) from error
    return folder


def _inside(folder: Path, name: str) -> Path:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name:
        raise ValueError(
            f"the object {name!r} has a name that no file can have; expected parts without "
            "'\\', between single '/': rename it"
        )
    longest = max(len(os.fsencode(part)) for part in parts)
    if longest > _LONGEST_NAME:
        raise ValueError(
            f"the object {name!r} has a part of {longest} bytes, and its copy a longer name than a "
            f"file can have; expected at most {_LONGEST_NAME}: rename it"
        )
    return folder.joinpath(*parts)
