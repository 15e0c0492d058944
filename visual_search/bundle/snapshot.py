"""One generation of a bundle, opened: its manifest, its rows, and which of them were removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.arrow import flag_array
from visual_search.bundle.files import (
    DamagedError,
    MissingFileError,
    check_file,
    open_array,
)
from visual_search.bundle.indexing import open_index
from visual_search.bundle.manifest import BundleManifest, read_manifest
from visual_search.bundle.segments import Segment, open_segment
from visual_search.knn.plan import SearchPlan
from visual_search.knn.store import ArrayStore
from visual_search.reading import FileRecord

if TYPE_CHECKING:
    from visual_search.knn.search_index import SearchIndex

# A writer may take files away while a reader opens them; the next generation then is there.
MAX_ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What one generation's files hold.

    Attributes:
        manifest: What ``bundle.json`` said.
        digest: SHA-256 of its bytes: another one is another generation.
        segments: The rows, in order.
        starts: ``[segments + 1] int64``, the first row of each segment, then N.
        live: ``[N] bool``, False where a row was removed.
        index: The index over all rows.
    """

    manifest: BundleManifest
    digest: str
    segments: tuple[Segment, ...]
    starts: NDArray[np.int64]
    live: NDArray[np.bool_]
    index: SearchIndex

    def row_of(self, item_id: str) -> int:
        """Returns the row of an item that can be found, or -1."""
        for segment, start in zip(reversed(self.segments), self.starts[-2::-1], strict=True):
            row = segment.row_of(item_id)
            if row >= 0:  # the newest row of the id; where that was removed, all were
                return int(start) + row if self.live[start + row] else -1
        return -1

    def place_of(self, row: int) -> tuple[Segment, int]:
        """Returns the segment of a row, and the row within it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[number], row - int(self.starts[number])

    def texts(self, column: str, rows: NDArray[np.int64]) -> list[str]:
        """Returns a column's texts, or the ids for ``item_id``, of ``[n] int64`` rows, in order."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        found: list[str] = [""] * len(rows)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            local = rows[places] - self.starts[number]
            texts = self.segments[number].texts(column, local)
            for place, text in zip(places.tolist(), texts, strict=True):
                found[place] = text
        return found


def open_snapshot(
    folder: Path,
    *,
    hashed: bool,
    num_threads: int | None = None,
    known: Snapshot | None = None,
    is_exact: bool = False,
) -> Snapshot:
    """Opens the generation that ``bundle.json`` names at this moment.

    Args:
        folder: The bundle's folder.
        hashed: Compare every file with its SHA-256, else with its size alone.
        num_threads: Of the index; None for as many as there are cores.
        known: A generation of the same bundle; what stands in both is taken over from it.
        is_exact: Leave the bundle's index file alone, and compare every row.

    Raises:
        FileNotFoundError: There is no bundle, or a file of it is missing.
        ValueError: It is damaged, foreign, or does not fit itself.
    """
    checked: dict[str, FileRecord] = dict(known.manifest.files) if known else {}
    attempts = 0
    while True:
        attempts += 1
        manifest, digest = read_manifest(folder)
        if known is not None and digest == known.digest:
            return known
        try:
            for name, record in manifest.files.items():
                if checked.get(name) != record:
                    check_file(folder, name, record, hashed=hashed)
                    checked[name] = record
            return _opened(folder, manifest, digest, known, num_threads, is_exact)
        except MissingFileError:
            # Gone with a generation that a writer has replaced since, or truly missing.
            if attempts == MAX_ATTEMPTS or read_manifest(folder)[1] == digest:
                raise


def _opened(
    folder: Path,
    manifest: BundleManifest,
    digest: str,
    known: Snapshot | None,
    num_threads: int | None,
    is_exact: bool,
) -> Snapshot:
    same = known is not None and known.manifest.columns == manifest.columns
    opened = {segment.folder: segment for segment in known.segments} if known and same else {}
    segments = tuple(
        opened.get(record.folder) or open_segment(folder, record, manifest.columns, manifest.dim)
        for record in manifest.segments
    )
    starts = np.cumsum([0, *(len(segment) for segment in segments)], dtype=np.int64)
    live = np.ones(manifest.num_rows, dtype=np.bool_)
    live[read_removed(folder, manifest)] = False
    live.flags.writeable = False
    if known is None:
        _check_ids(folder, segments, live)
    if manifest.product_column is not None:
        _check_products(folder, manifest.product_column, segments, starts, live)
    embeddings = [segment.embeddings for segment in segments]
    record = manifest.index
    if is_exact:
        plan = SearchPlan("flat", "a vector database proposes what is compared")
        record = replace(record, file=None, plan=plan.to_json())
    if known is None or record.file is None or known.manifest.index != manifest.index:
        index = open_index(folder, record, embeddings, num_threads)
    elif known.manifest.segments == manifest.segments:
        index = known.index
    else:  # only a rebuild numbers rows anew, and it writes an index file of a new name
        index = known.index.extended(ArrayStore(embeddings))
    return Snapshot(manifest, digest, segments, starts, live, index)


def read_removed(folder: Path, manifest: BundleManifest) -> NDArray[np.int64]:
    """Returns the removed rows, rising, ``[num_removed] int64``.

    Raises:
        ValueError: The file holds something else.
        MissingFileError: There is no such file.
    """
    if manifest.removed is None:
        return np.empty(0, np.int64)
    path = folder / manifest.removed
    rows: NDArray[np.int64] = open_array(path, np.int64, (manifest.num_removed,))
    if rows[0] < 0 or rows[-1] >= manifest.num_rows or (rows[1:] <= rows[:-1]).any():
        raise DamagedError(
            f"{path} lists rows that do not rise from 0 to {manifest.num_rows - 1}; expected the "
            "removed rows: copy the whole bundle again, or create it again"
        )
    return rows


def _check_ids(folder: Path, segments: Sequence[Segment], live: NDArray[np.bool_]) -> None:
    """Checks that no two rows that can be found have one id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array([segment.item_ids for segment in segments])
    if not live.all():
        ids = ids.filter(flag_array(live))
    num_ids = pc.count_distinct(ids).as_py()
    if num_ids != len(ids):
        raise DamagedError(
            f"the bundle in {folder} has {len(ids)} searchable rows and {num_ids} different ids; "
            "expected each id once: create the bundle again"
        )


def _check_products(
    folder: Path,
    column: str,
    segments: Sequence[Segment],
    starts: NDArray[np.int64],
    live: NDArray[np.bool_],
) -> None:
    """Checks that every row that can be found is some product's picture."""
    import pyarrow.compute as pc

    for segment, start in zip(segments, starts[:-1].tolist(), strict=True):
        own = segment.columns[column]
        blank = pc.index(own.values, "").as_py()
        if blank >= 0 and (own.codes[live[start : start + len(segment)]] == blank).any():
            raise DamagedError(
                f"the bundle in {folder} says by the column {column!r} whose picture an item is, "
                "and leaves it empty for some; expected a product's id for each: create the bundle "
                "again"
            )
