"""Where a download stands, and what has become of the pictures that were wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from visual_search.catalog.downloads.manifest import PictureRecord
from visual_search.catalog.downloads.settings import Status


@dataclass(frozen=True)
class DownloadProgress:
    """Where a download stands.

    Attributes:
        done: Pictures with an outcome, those of earlier runs among them.
        total: Pictures wanted.
        num_saved: Of ``done``; and so for the others.
        num_gone: The server says that there is none.
        num_refused: By the rules or by the server.
        num_failed: After all tries.
        pictures_per_s: With an outcome in this run, over its last minute.
        bytes_per_s: Of saved pictures, over the last minute.
        remaining_s: Estimate of what is left at this rate; ``None`` while there is none.
    """

    done: int
    total: int
    num_saved: int
    num_gone: int
    num_refused: int
    num_failed: int
    pictures_per_s: float
    bytes_per_s: float
    remaining_s: float | None


@dataclass(frozen=True)
class DownloadReport:
    """What became of the pictures that were wanted.

    Attributes:
        folder: Where they are.
        manifest: The file with one line a picture.
        num_wanted: Different pictures.
        records: Those with an outcome, of this run or an earlier one, in the order wanted.
        not_tried: Names of the others, in the order wanted: the run was stopped, or their host was
            given up. The next run tries them.
        given_up: Host -> why it was not asked any more.
        num_new: Saved by this run.
        num_new_bytes: Their size.
        duration_s: Of this run.
        was_stopped: Whether the caller ended it early.
    """

    folder: Path
    manifest: Path
    num_wanted: int
    records: tuple[PictureRecord, ...]
    not_tried: tuple[str, ...]
    given_up: Mapping[str, str]
    num_new: int
    num_new_bytes: int
    duration_s: float
    was_stopped: bool

    def of(self, status: Status) -> tuple[PictureRecord, ...]:
        """Returns the records with one status, in the order wanted."""
        return tuple(record for record in self.records if record.status == status)

    @property
    def is_complete(self) -> bool:
        """Whether another run would have nothing to do: all is saved, gone or refused."""
        return not self.not_tried and not self.of("failed")
