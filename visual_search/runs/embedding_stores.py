"""Where shards lie: files by their names, each there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from visual_search.atomic import atomic_path, sweep
from visual_search.reading import read_text
from visual_search.runs.run import Run

if TYPE_CHECKING:
    from visual_search.storage.bucket import ObjectStatus


class ShardStore(Protocol):
    """Files by their names below a place, as ``shards/00000.parquet``; any process may open it."""

    @property
    def place(self) -> Path:
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
        """Keeps other commands from writing there within the block.

        Raises:
            RunLockedError: Another one is at it.
        """
        ...


def open_store(folder: str | Path) -> ShardStore:
    """Returns the store at a path."""
    return FolderStore(Path(folder).absolute())


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
        from visual_search.storage.bucket import ObjectStatus

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
