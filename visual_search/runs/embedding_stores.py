"""Where shards lie: files by their names, each there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from visual_search.atomic import atomic_path, sweep
from visual_search.locking import file_lock
from visual_search.reading import MAX_TEXT_BYTES, DamagedFileError, read_text
from visual_search.runs.run import LOCK_WAIT_SECONDS, Run, RunLockedError
from visual_search.storage.bucket import Bucket, ObjectStatus
from visual_search.storage.copies import (
    copied_file,
    dropped,
    made_folder,
    passing_copy,
    passing_file,
)
from visual_search.storage.uris import ObjectUri, place_of


class ShardStore(Protocol):
    """Files by their names below a place, as ``shards/00000.parquet``; any process may open it."""

    @property
    def place(self) -> Path | ObjectUri:
        """Where they lie."""
        ...

    def names(self) -> list[str]:
        """Returns the files and folders directly there, sorted; none where there is no place."""
        ...

    def listed(self, folder: str) -> dict[str, ObjectStatus]:
        """Returns the files of a folder by their names below the place."""
        ...

    def status(self, name: str) -> ObjectStatus:
        """Returns size and time of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def text(self, name: str, expected: str) -> str:
        """Returns a file's text.

        Args:
            name: Of the file.
            expected: As of `read_text`.

        Raises:
            FileNotFoundError: There is none.
            DamagedFileError: It is no text.
        """
        ...

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yields a path of this machine that becomes the file when the block succeeds."""
        ...

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yields a path of this machine to read the file at, within the block.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def kept(self, name: str) -> Path:
        """Returns a path of this machine to read the file at until it is removed.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is none to remove."""
        ...

    def sweep(self, folder: str) -> None:
        """Removes what processes that were killed had begun to write to a folder."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other commands from writing there within the block, of this machine at least.

        Raises:
            RunLockedError: Another one is at it.
        """
        ...


def open_store(folder: str | Path | ObjectUri) -> ShardStore:
    """Returns the store at a path, or at an address of object storage.

    Raises:
        ValueError: As of `place_of`.
    """
    place = place_of(folder)
    return BucketStore(place) if isinstance(place, ObjectUri) else FolderStore(place.absolute())


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine, or on a disk that several see.

    Attributes:
        place: Its path.
    """

    place: Path

    def names(self) -> list[str]:
        """Returns the files and folders directly there, sorted; none where there is no place."""
        return sorted(one.name for one in self.place.iterdir()) if self.place.is_dir() else []

    def listed(self, folder: str) -> dict[str, ObjectStatus]:
        """Returns the files of a folder by their names below the place."""
        parent, found = self.place / folder, {}
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            with suppress(FileNotFoundError):  # another process's, which has its name only now
                found[f"{folder}/{path.name}"] = self.status(f"{folder}/{path.name}")
        return found

    def status(self, name: str) -> ObjectStatus:
        """Returns size and time of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        found = (self.place / name).stat()
        return ObjectStatus(found.st_size, found.st_mtime_ns)

    def text(self, name: str, expected: str) -> str:
        """Returns a file's text.

        Args:
            name: Of the file.
            expected: As of `read_text`.

        Raises:
            FileNotFoundError: There is none.
            DamagedFileError: It is no text.
        """
        return read_text(self.place / name, expected)

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yields a path beside the file that becomes it when the block succeeds."""
        return atomic_path(self.place / name)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Yields the file's own path.

        Raises:
            FileNotFoundError: There is none.
        """
        yield self.kept(name)

    def kept(self, name: str) -> Path:
        """Returns the file's own path.

        Raises:
            FileNotFoundError: There is none.
        """
        path = self.place / name
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}; check the path")
        return path

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is none to remove."""
        (self.place / name).unlink(missing_ok=True)

    def sweep(self, folder: str) -> None:
        """Removes what processes that were killed had begun to write to a folder."""
        sweep(self.place / folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other commands from writing there within the block, also those of other machines.

        Raises:
            RunLockedError: Another one is at it.
        """
        folder = Run(self.place)
        folder.lock()
        try:
            yield
        finally:
            folder.unlock()


@dataclass(frozen=True)
class BucketStore:
    """Objects below an address, which any machine reaches that has its credentials.

    A file is written on this machine first, then sent as a whole; one that is read is copied here.

    Attributes:
        place: The address.
    """

    place: ObjectUri

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.place)

    def names(self) -> list[str]:
        """Returns the objects and folders directly there, sorted; none where nothing is below it.

        Raises:
            StorageError: The bucket does not answer, is not there, or refuses: as of all that
                follows.
        """
        return self._bucket.names()

    def listed(self, folder: str) -> dict[str, ObjectStatus]:
        """Returns the objects of a folder by their names below the place."""
        return self._bucket.listed(folder)

    def status(self, name: str) -> ObjectStatus:
        """Returns size and time of an object.

        Raises:
            FileNotFoundError: There is none.
        """
        found = self._bucket.status(name)
        if found is None:
            raise FileNotFoundError(f"nothing at {self.place / name}; check the address")
        return found

    def text(self, name: str, expected: str) -> str:
        """Returns an object's text.

        Args:
            name: Of the object.
            expected: As of `read_text`.

        Raises:
            FileNotFoundError: There is none.
            DamagedFileError: It is no text.
        """
        try:
            return self._bucket.read(name, MAX_TEXT_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            reason = "it is no text (not UTF-8)"
            raise DamagedFileError(str(self.place / name), reason, expected) from error

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yields a path of this machine, whose file becomes the object when the block succeeds."""
        return passing_file(self._bucket, name)

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yields a copy of this process's own, gone at the end of the block.

        Raises:
            FileNotFoundError: There is none.
        """
        return passing_copy(self._bucket, name)

    def kept(self, name: str) -> Path:
        """Returns a copy that the processes of this machine share.

        Raises:
            FileNotFoundError: There is none.
        """
        return copied_file(self.place / name)

    def remove(self, name: str) -> None:
        """Removes an object, and this machine's copy; one that is not there is none to remove."""
        self._bucket.remove(name)
        dropped(self._bucket, [name])

    def sweep(self, folder: str) -> None:
        """Does nothing: what a killed process had begun lies on its machine, and goes there."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other commands of this machine from writing there within the block.

        A bucket that does not answer is told now, and not once a long catalogue is listed.

        Raises:
            RunLockedError: Another one is at it.
        """
        lock = file_lock(made_folder(self.place) / "written", LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunLockedError(
                f"{self.place} is in use by another command of this machine; expected to be alone "
                "there; wait for it, or give another out"
            ) from error
        try:
            self.names()
            yield
        finally:
            lock.release()
