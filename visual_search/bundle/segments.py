"""A segment: some of a bundle's rows, in four files that never change.

``items.parquet`` has ``item_id`` and the text columns, ``embeddings.npy`` ``[n, D] float32``,
``thumbnails.bin`` the JPEG files one after another, ``thumbnails.npy`` where each begins, ``[n + 1]
uint64``. Embeddings and thumbnails are mapped into memory, texts are kept as codes of their values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.bundle.arrow import integer_array, integers_of, text_array
from visual_search.bundle.files import (
    DamagedError,
    MissingFileError,
    open_array,
    sync_folder,
)
from visual_search.bundle.manifest import SegmentRecord, segment_files
from visual_search.reading import FileRecord, record_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK_BYTES = 2**24  # of embeddings copied at a time
_ROWS_PER_GROUP = 2**20
_MAX_ID_BYTES = 2**31  # of all rows; ten million ids of 200 bytes
_MAX_TEXT_BYTES = 2**16  # a row and column, unpacked: above what `items.py` lets in


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column as codes ``[n] int32`` of its different values (an Arrow array of texts)."""

    codes: NDArray[np.int32]
    values: pa.Array


class Segment:
    """A segment that was opened; thread-safe, and shared by the generations that hold it.

    Attributes:
        folder: Its folder's name in the bundle.
        embeddings: ``[n, D] float32``, mapped into memory, read-only.
        item_ids: Arrow array of n texts; an id that was replaced stands more than once, and its
            last row is the one that may count.
        columns: Column -> its texts.
    """

    def __init__(
        self,
        folder: str,
        embeddings: NDArray[np.float32],
        item_ids: pa.Array,
        columns: Mapping[str, TextColumn],
        offsets: NDArray[np.uint64],
        thumbnails: NDArray[np.uint8],
    ) -> None:
        self.folder = folder
        self.embeddings = embeddings
        self.item_ids = item_ids
        self.columns = columns
        self._offsets = offsets
        self._thumbnails = thumbnails
        self._row_of: dict[str, int] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.embeddings)

    def row_of(self, item_id: str) -> int:
        """Returns the last row of an id within the segment, or -1."""
        return self._rows_by_id().get(item_id, -1)

    def _rows_by_id(self) -> dict[str, int]:
        with self._lock:  # at the first look-up: 0.8 s for a million ids, which opening need not
            if self._row_of is None:
                ids = self.item_ids.to_pylist()
                self._row_of = dict(zip(ids, range(len(ids)), strict=True))
            return self._row_of

    def texts(self, column: str, rows: NDArray[np.int64]) -> list[str]:
        """Returns a column's texts, or the ids for ``item_id``, of rows of the segment."""
        if column == "item_id":
            return self.item_ids.take(integer_array(rows)).to_pylist()  # type: ignore[no-any-return]
        own = self.columns[column]
        return own.values.take(integer_array(own.codes[rows])).to_pylist()  # type: ignore[no-any-return]

    def thumbnail(self, row: int) -> bytes:
        """Returns a row's JPEG file; empty where there is none."""
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        return self._thumbnails[start:end].tobytes()

    def table(self, rows: NDArray[np.int64]) -> pa.Table:
        """Returns ids and columns of rows of the segment as an Arrow table of texts."""
        import pyarrow as pa

        columns = {
            name: own.values.take(integer_array(own.codes[rows])).cast(pa.large_string())
            for name, own in self.columns.items()
        }
        return pa.table({"item_id": self.item_ids.take(integer_array(rows)), **columns})

    def embedding_blocks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Returns the embeddings of rows of the segment, some at a time."""
        size = max(1, BLOCK_BYTES // (4 * self.embeddings.shape[1]))
        for start in range(0, len(rows), size):
            yield self.embeddings[rows[start : start + size]]


def open_segment(bundle: Path, record: SegmentRecord, columns: Sequence[str], dim: int) -> Segment:
    """Opens a segment whose files were compared with their records.

    Raises:
        ValueError: A file does not hold what the manifest says.
        MissingFileError: A file is missing.
    """
    items, embeddings, thumbnails, offsets = (
        bundle / name for name in segment_files(record.folder)
    )
    mapped = open_array(embeddings, np.float32, (record.num_rows, dim))
    starts = open_array(offsets, np.uint64, (record.num_rows + 1,))
    pictures = _mapped_bytes(thumbnails)
    if starts[0] != 0 or starts[-1] != len(pictures) or (starts[1:] < starts[:-1]).any():
        raise DamagedError(
            f"{offsets} does not cut {thumbnails.name} of {len(pictures):,} bytes into "
            f"{record.num_rows} pictures; expected rising offsets from 0 to its end: copy the "
            "whole bundle again, or create it again"
        )
    table = read_items(items, record.num_rows, ("item_id", *columns))
    texts = {name: _codes(table[name]) for name in columns}
    return Segment(record.folder, mapped, table["item_id"], texts, starts, pictures)


def read_items(path: Path, num_rows: int, columns: Sequence[str]) -> dict[str, pa.Array]:
    """Reads an item table: ``item_id`` as texts, the other columns as codes of their values.

    Args:
        path: The Parquet file.
        num_rows: The rows that it has to have.
        columns: What to read; other columns are left alone.

    Raises:
        ValueError: It is damaged, or holds something else.
        MissingFileError: There is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    coded = [name for name in columns if name != "item_id"]
    try:
        # ids as codes too: rows may share a text of any length, which the file holds once
        with pq.ParquetFile(path, read_dictionary=list(columns)) as file:
            _check_announced(file, num_rows, columns)
            table = file.read(columns=list(columns)).unify_dictionaries().combine_chunks()
        _check_ids(table["item_id"])
        if any(column.null_count for column in table.columns):
            raise ValueError("a text is missing")
        kinds = {name: pa.dictionary(pa.int32(), pa.large_string()) for name in coded}
        return {name: _one(table[name], kinds.get(name, pa.large_string())) for name in columns}
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is missing; it was there a moment ago") from error
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise DamagedError(
            f"{path} cannot be used: {str(error)[:300]}; expected an item table of {num_rows} "
            f"row(s) with the text columns {', '.join(columns)}: copy the whole bundle again, or "
            "create it again"
        ) from error


def write_segment(
    bundle: Path,
    folder: str,
    table: pa.Table,
    embeddings: Iterable[NDArray[np.float32]],
    dim: int,
    thumbnails: Iterable[bytes],
) -> dict[str, FileRecord]:
    """Writes a segment's four files, brings them to the disk and gives their records.

    Args:
        bundle: The bundle's folder.
        folder: The segment's folder within it, which is new.
        table: ``item_id`` and the columns, n rows.
        embeddings: Blocks ``[*, D] float32``, together n rows.
        dim: Width D.
        thumbnails: n JPEG files, empty where there is none.
    """
    import pyarrow.parquet as pq

    names = segment_files(folder)
    items, numbers, pictures, starts = (bundle / name for name in names)
    with atomic_path(items) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=_ROWS_PER_GROUP)
    # Written and not mapped: a full disk then is an error, where a mapped page ends the process.
    with atomic_path(numbers) as temporary, temporary.open("wb") as file:
        _write_header(file, "<f4", (table.num_rows, dim))
        for block in embeddings:
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
    ends = [0]
    with atomic_path(pictures) as temporary, temporary.open("wb") as file:
        for data in thumbnails:
            file.write(data)
            ends.append(ends[-1] + len(data))
    with atomic_path(starts) as temporary, temporary.open("wb") as file:
        _write_header(file, "<u8", (len(ends),))
        file.write(np.array(ends, dtype="<u8").data)
    sync_folder(bundle / folder)
    sync_folder((bundle / folder).parent)
    return {name: record_file(bundle / name) for name in names}


def text_table(item_ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> pa.Table:
    """Returns ids and columns as an Arrow table of texts, ``item_id`` first."""
    import pyarrow as pa

    given = {"item_id": item_ids, **columns}
    return pa.table({name: text_array(texts) for name, texts in given.items()})


def _check_announced(file: pq.ParquetFile, num_rows: int, columns: Sequence[str]) -> None:
    """Looks at what a Parquet file says of itself before anything of it is unpacked."""
    import pyarrow.types as types

    if file.metadata.num_rows != num_rows:
        raise ValueError(f"it has {file.metadata.num_rows} row(s)")
    num_bytes = sum(
        file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups)
    )
    if num_bytes > (num_rows + 1) * file.metadata.num_columns * _MAX_TEXT_BYTES:
        raise ValueError(f"it announces {num_bytes:,} bytes of texts")
    schema = file.schema_arrow
    for name in columns:
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise ValueError(f"the column {name!r} holds {kind}")


def _check_ids(column: pa.ChunkedArray) -> None:
    """Refuses ids whose texts, one a row, would take more memory than ids do."""
    import pyarrow.compute as pc

    num_bytes = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary).cast("int64")
        num_bytes += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if num_bytes > _MAX_ID_BYTES:
        raise ValueError(f"its ids come to {num_bytes:,} bytes; expected {_MAX_ID_BYTES:,} at most")


def _one(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Returns a column of the wanted kind as one array, also where it has no chunk."""
    import pyarrow as pa

    chunked = column.cast(kind)
    return chunked.chunk(0) if chunked.num_chunks == 1 else pa.concat_arrays(chunked.chunks)


def _codes(column: pa.DictionaryArray) -> TextColumn:
    return TextColumn(integers_of(column.indices), column.dictionary)


def _mapped_bytes(path: Path) -> NDArray[np.uint8]:
    try:
        if not path.stat().st_size:  # nothing to map
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is missing; it was there a moment ago") from error


def _write_header(file: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
