"""What became of each picture of a download: one line of JSON a picture, only ever appended.

Lines and not SQLite: a kill at any time leaves at most one half line at the end, which is passed
over, and the file can be read by anything, as by ``pandas.read_json(path, lines=True)``. Of
several lines with one name the last counts. A line is written after its picture has its final
name, so a picture that the manifest calls saved is there, and whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import get_type_hints

from filelock import Timeout

from visual_search.atomic import telling_full_disk, write_text
from visual_search.catalog.downloads.settings import STATUSES, Status
from visual_search.locking import file_lock

# Hidden, so that a folder of pictures stays one for those who read it.
MANIFEST_NAME = ".downloads.jsonl"
LOCK_NAME = ".downloads.lock"


@dataclass(frozen=True)
class PictureRecord:
    """What became of one picture.

    Attributes:
        name: Its path below the folder.
        url: What was asked for.
        status: ``saved``; ``gone`` (the server said 404 or 410); ``refused`` (by the rules here, or
            by another final answer of the server); ``failed`` (after all tries).
        size: Of a saved picture, in bytes; else 0.
        sha256: Of a saved picture, in hex; else empty.
        tries: How often it was asked for in the run that wrote this; 0 when the rules refused its
            URL, or it lay there already.
        error: Why it is not saved; else empty.
        at: When, in UTC, as ``2024-05-31T12:00:00Z``.
    """

    name: str
    url: str
    status: Status
    size: int
    sha256: str
    tries: int
    error: str
    at: str


_FIELDS = {
    name: str if name == "status" else kind for name, kind in get_type_hints(PictureRecord).items()
}


def utc_now() -> str:
    """Returns the time as a record holds it.

    Example:
        >>> len(utc_now()), utc_now()[-1]
        (20, 'Z')
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_manifest(path: str | os.PathLike[str]) -> dict[str, PictureRecord]:
    """Returns the last record of each picture, by its name; empty where there is no file.

    A line that is damaged, as the half one that a kill leaves, is passed over: its picture counts
    as not tried yet.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, PictureRecord], bool]:
    """Returns the records, and whether the file is to be written anew before it is added to."""
    records: dict[str, PictureRecord] = {}
    num_lines = 0
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return records, False
    for line in data.split(b"\n"):
        if line:
            num_lines += 1
            record = _parsed(line)
            if record is not None:
                records[record.name] = record
    # The next line would run into an end without a line break.
    is_torn = bool(data) and not data.endswith(b"\n")
    num_useless = num_lines - len(records)  # damaged, or replaced by later ones
    return records, is_torn or num_useless > len(records)


def _parsed(line: bytes) -> PictureRecord | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.keys() != _FIELDS.keys():
        return None
    if any(type(content[name]) is not kind for name, kind in _FIELDS.items()):
        return None
    return PictureRecord(**content) if content["status"] in STATUSES else None


class Manifest:
    """The manifest of one folder, held by one process at a time; a context manager.

    Opening it makes the folder, and writes a manifest anew that a kill has left with a half line,
    or that holds more old lines than valid ones.

    Args:
        folder: Of the pictures.

    Raises:
        ValueError: Another process downloads into the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / MANIFEST_NAME
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = file_lock(self.folder / LOCK_NAME)
        try:
            self._lock.acquire()
            self._records, is_to_mend = _read(self.path)
            if is_to_mend:
                write_text(self.path, "".join(map(_line, self._records.values())))
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except Timeout:
            raise ValueError(
                f"another process downloads into {self.folder}; expected one at a time; wait for "
                "it, or choose another folder"
            ) from None
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)
            self._lock.release()

    @property
    def records(self) -> Mapping[str, PictureRecord]:
        """The last record of each picture, by its name."""
        return self._records

    def add(self, record: PictureRecord) -> None:
        """Appends a record; from one thread at a time."""
        rest = _line(record).encode()
        with telling_full_disk(self.path):
            while rest:  # one write, but on a full disk, which then raises
                rest = rest[os.write(self._file, rest) :]
        self._records[record.name] = record


def _line(record: PictureRecord) -> str:
    # ASCII: a name with any letter in it stays one line, whatever a reader calls a line break.
    return json.dumps(asdict(record), separators=(",", ":")) + "\n"
