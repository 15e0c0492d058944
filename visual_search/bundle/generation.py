"""The next generation of a bundle in the making: new files first, then ``bundle.json``, at once.

A writer may be killed at any moment. New files have names that nobody knows yet, and lie on the
disk before ``bundle.json`` names them; files of the generation before stay for a while, for readers
who are opening them. What a killed writer left is named by nobody, and the next one deletes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import FULL_DISK, DiskFullError, atomic_path, sweep
from visual_search.bundle.files import DamagedError, sync_folder
from visual_search.bundle.locking import write_lock
from visual_search.bundle.manifest import (
    BundleManifest,
    IndexRecord,
    RetiredFile,
    SegmentRecord,
    read_manifest,
    segment_files,
    write_manifest,
)
from visual_search.bundle.snapshot import read_removed
from visual_search.knn.search_index import SearchIndex
from visual_search.reading import FileRecord, record_file

KEPT_SECONDS = 30.0  # how long files of an earlier generation stay
MAX_KEPT_FILES = 256  # many small writes would make bundle.json long
FOLDERS = ("segments", "index", "removed")
MAX_REMOVED_SHARE = 0.2  # of the rows, before they are written anew without the removed ones
RESERVE_FILE = ".reserve"  # room for a removal on a full disk
_RESERVE_BYTES = 2**16  # and 8 for each row that may be removed before the bundle is rebuilt
_DISK_ERRORS = (*FULL_DISK, errno.EROFS, errno.EIO)


@dataclass
class Draft:
    """What the next generation is to be; nothing of it counts before `commit`.

    Attributes:
        folder: The bundle's folder.
        base: The generation that it starts from.
        segments: Its rows.
        removed: Its removed rows, rising, ``[n] int64``.
        index: Its index.
        new_files: The files that were written for it.
    """

    folder: Path
    base: BundleManifest
    segments: list[SegmentRecord]
    removed: NDArray[np.int64]
    index: IndexRecord
    new_files: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """All rows, removed ones included."""
        return sum(segment.num_rows for segment in self.segments)

    @property
    def num_items(self) -> int:
        """The items that can be found."""
        return self.num_rows - len(self.removed)

    def new_name(self, kind: str) -> str:
        """Returns a name in one of `FOLDERS` that no file has ever had."""
        return f"{kind}/{self.base.generation + 1:06d}-{uuid.uuid4().hex[:8]}"

    def record_of(self, name: str) -> FileRecord:
        """Returns the record of a file of the base, or of one that was written for the draft."""
        return self.new_files.get(name) or self.base.files[name]

    def save_index(self, index: SearchIndex) -> None:
        """Writes the file of an index over all rows, where it needs one."""
        name = None
        if index.needs_file:
            name = f"{self.new_name('index')}.faiss"
            path = self.folder / name
            index.save(path)  # atomic, and on the disk
            sync_folder(path.parent)
            self.new_files[name] = record_file(path)
        plan = index.plan.to_json()
        self.index = replace(self.index, file=name, num_rows=len(index), plan=plan)

    def commit(self) -> BundleManifest:
        """Makes the draft the generation that is read, and gives its manifest."""
        removed = self._save_removed()
        needed = {removed, self.index.file}
        needed |= {name for one in self.segments for name in segment_files(one.folder)}
        kept = {name for name in self.base.files if name.partition("/")[0] not in FOLDERS}
        names = sorted(kept | {name for name in needed if name is not None})
        files = {name: self.record_of(name) for name in names}
        now = time.time()
        left = [RetiredFile(name, now) for name in self.base.files if name not in files]
        manifest = replace(
            self.base,
            generation=self.base.generation + 1,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            num_items=self.num_items,
            num_removed=len(self.removed),
            index=self.index,
            segments=tuple(self.segments),
            removed=removed,
            files=files,
            retired=(*_still_kept(self.base, now), *left)[-MAX_KEPT_FILES:],
        )
        sync_folder(self.folder)  # new folders are there before somebody is sent into them
        write_manifest(manifest, self.folder)
        for name in self.new_files.keys() - files.keys():  # merged again at once
            (self.folder / name).unlink(missing_ok=True)
        _keep_reserve(self.folder, manifest.num_rows)
        return manifest

    def _save_removed(self) -> str | None:
        if not len(self.removed):
            return None
        known = read_removed(self.folder, self.base)
        if self.base.removed is not None and np.array_equal(known, self.removed):
            return self.base.removed
        name = f"{self.new_name('removed')}.npy"
        with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array(file, self.removed.astype("<i8"), (1, 0), allow_pickle=False)
        sync_folder((self.folder / name).parent)
        self.new_files[name] = record_file(self.folder / name)
        return name


@contextlib.contextmanager
def next_generation(folder: Path, wait_seconds: float) -> Iterator[Draft]:
    """Returns a draft that starts from the newest generation, alone in the bundle.

    Where the block fails, the bundle stays as it was and what was written is deleted.

    Args:
        folder: The bundle's folder.
        wait_seconds: How long to wait for another writer.

    Raises:
        FileNotFoundError: There is no bundle.
        ValueError: It is damaged or foreign.
        BundleLockedError: Another writer did not finish in time.
        OSError: The disk is full, or cannot be written; the message says that nothing changed.
    """
    read_manifest(folder)  # a folder that is no bundle gets no lock file
    with write_lock(folder, wait_seconds):
        base, _ = read_manifest(folder)
        _refuse_links(folder)
        try:
            delete_leftovers(folder, base)
            removed = read_removed(folder, base)
            yield Draft(folder, base, list(base.segments), removed, base.index)
        except BaseException as error:
            is_old = True
            with contextlib.suppress(OSError, ValueError):  # the first error is the one to tell
                now, _ = read_manifest(folder)
                is_old = now.generation == base.generation
                delete_leftovers(folder, now)
            if is_old and isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise OSError(
                    error.errno,
                    f"{folder} cannot be written ({error.strerror}); the bundle stays as it was, "
                    f"generation {base.generation}: make room on its disk and try again",
                ) from error
            raise


def use_reserve(folder: Path) -> bool:
    """Frees the room that a bundle keeps for a removal on a full disk; says whether it had any."""
    try:
        (folder / RESERVE_FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def _keep_reserve(folder: Path, num_rows: int) -> None:
    """Takes room for a later removal, as much as the disk has to give."""
    path = folder / RESERVE_FILE
    wanted = _RESERVE_BYTES + 8 * int(MAX_REMOVED_SHARE * num_rows)
    if path.is_file() and path.lstat().st_size >= wanted:
        return
    for num_bytes in (wanted, wanted // 2, wanted // 4):
        with contextlib.suppress(DiskFullError):  # then less, or none
            with atomic_path(path) as temporary, temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return


def delete_leftovers(folder: Path, manifest: BundleManifest) -> None:
    """Deletes files that neither the generation names nor the readers of one before may need.

    Only a writer that holds the lock may do so. Files of the user's own beside them stay.
    """
    kept = {*manifest.files, *(one.file for one in _still_kept(manifest, time.time()))}
    sweep(folder)
    for top in FOLDERS:
        for here, _, names in os.walk(folder / top, topdown=False):
            for name in names:
                path = Path(here, name)
                if path.relative_to(folder).as_posix() not in kept:
                    path.unlink(missing_ok=True)
            if here != str(folder / top):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(here)


def _refuse_links(folder: Path) -> None:
    """Keeps a writer from writing and deleting behind a link that somebody else put there."""
    for top in FOLDERS:
        if (folder / top).is_symlink():
            raise DamagedError(
                f"{folder / top} is a link; expected a folder of the bundle: copy what it leads to "
                "in its place"
            )


def _still_kept(manifest: BundleManifest, now: float) -> list[RetiredFile]:
    """Returns the retired files whose time is not over; a clock that was set back ends it too."""
    return [one for one in manifest.retired if 0 <= now - one.since < KEPT_SECONDS]
