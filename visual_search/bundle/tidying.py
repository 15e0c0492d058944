"""When small segments are merged and removed rows dropped, and how.

Merging puts the last, small segments into one and keeps every row's number, so that the index and
the list of removed rows stay. Rebuilding writes all rows but the removed ones into one segment and
builds the index anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.files import check_file
from visual_search.bundle.generation import MAX_REMOVED_SHARE, Draft
from visual_search.bundle.indexing import is_late, open_index
from visual_search.bundle.manifest import SegmentRecord, segment_files
from visual_search.bundle.segments import Segment, open_segment, write_segment
from visual_search.knn import indexes
from visual_search.knn.store import ArrayStore

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SEGMENTS = 32  # each costs every opening four files and every search a step

Progress = Callable[[int, int], None]


def first_to_merge(sizes: Sequence[int]) -> int | None:
    """Returns the segment from which on all are merged into one; None where they are few.

    A segment joins while it is at most twice as large as all behind it together: the sizes that
    remain more than double from the last to the first, and a row is copied about as often as the
    number of rows has binary digits.

    Example:
        >>> first_to_merge([100_000] + [1] * 32)
        1
        >>> first_to_merge([5, 3]) is None
        True
    """
    if len(sizes) <= MAX_SEGMENTS:
        return None
    first, total = len(sizes) - 1, sizes[-1]
    while first > 0 and sizes[first - 1] <= 2 * total:
        first -= 1
        total += sizes[first]
    return min(first, len(sizes) - 2)


def is_worn(draft: Draft) -> bool:
    """Returns whether so many rows are removed that dropping them is worth a rebuild."""
    return draft.num_items > 0 and len(draft.removed) > MAX_REMOVED_SHARE * draft.num_rows


def merge_segments(draft: Draft) -> None:
    """Merges the draft's last segments where there are many; rows keep their numbers."""
    first = first_to_merge([one.num_rows for one in draft.segments])
    if first is None:
        return
    parts = [(segment, np.arange(len(segment))) for segment in _opened(draft, first)]
    _replaced(draft, first, parts)


def rebuild_rows(draft: Draft) -> None:
    """Puts all rows but the removed ones into one new segment, in their order."""
    live = np.ones(draft.num_rows, dtype=np.bool_)
    live[draft.removed] = False
    parts, start = [], 0
    for segment in _opened(draft, 0):
        parts.append((segment, np.flatnonzero(live[start : start + len(segment)])))
        start += len(segment)
    _replaced(draft, 0, parts)
    draft.removed = np.empty(0, np.int64)


def build_index(
    draft: Draft,
    *,
    kind: str | None = None,
    target_recall: float | None = None,
    max_bytes: int | None = None,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Builds the draft's index anew over all its rows; None asks for what was asked before."""
    asked = draft.index.asked
    chosen: Any = asked["kind"] if kind is None else kind
    recall = asked["target_recall"] if target_recall is None else target_recall
    index = indexes.build_index(
        ArrayStore([segment.embeddings for segment in _opened(draft, 0)]),
        chosen,
        target_recall=recall,
        max_bytes=max_bytes,
        num_threads=num_threads,
        on_progress=on_progress,
    )
    draft.index = replace(draft.index, asked={"kind": chosen, "target_recall": recall})
    draft.save_index(index)


def complete_index(draft: Draft, num_threads: int | None) -> None:
    """Brings the draft's index to all of its rows; its file only where it is far behind."""
    record = draft.index
    if record.file is None:
        draft.index = replace(record, num_rows=draft.num_rows)
    elif is_late(draft.num_rows, record.num_rows):
        check_file(draft.folder, record.file, draft.base.files[record.file], hashed=True)
        embeddings = [segment.embeddings for segment in _opened(draft, 0)]
        draft.save_index(open_index(draft.folder, record, embeddings, num_threads))


def add_segment(
    draft: Draft,
    table: pa.Table,
    embeddings: Iterable[NDArray[np.float32]],
    thumbnails: Iterable[bytes],
) -> None:
    """Writes a new segment behind the draft's others; see `write_segment`."""
    folder = draft.new_name("segments")
    draft.new_files |= write_segment(
        draft.folder, folder, table, embeddings, draft.base.dim, thumbnails
    )
    draft.segments.append(SegmentRecord(folder, table.num_rows))


def _opened(draft: Draft, first: int) -> Iterator[Segment]:
    """Opens segments from one on; what is copied is compared with its hash before."""
    for record in draft.segments[first:]:
        for name in segment_files(record.folder):
            old = name in draft.base.files
            check_file(draft.folder, name, draft.record_of(name), hashed=old)
        yield open_segment(draft.folder, record, draft.base.columns, draft.base.dim)


def _replaced(draft: Draft, first: int, parts: list[tuple[Segment, NDArray[np.int64]]]) -> None:
    """Puts rows of opened segments into a new one, in the place of those from ``first`` on."""
    import pyarrow as pa

    del draft.segments[first:]
    add_segment(
        draft,
        pa.concat_tables([segment.table(rows) for segment, rows in parts]),
        (block for segment, rows in parts for block in segment.embedding_blocks(rows)),
        (segment.thumbnail(row) for segment, rows in parts for row in rows.tolist()),
    )
