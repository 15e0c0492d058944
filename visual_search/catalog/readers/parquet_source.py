"""Pictures that are embedded in Parquet files, as Hugging Face's data sets have them."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visual_search.catalog.readers.parquet_columns import open_parquet
from visual_search.catalog.readers.picture_names import MAX_PICTURE_BYTES
from visual_search.catalog.readers.sources import HashedSource
from visual_search.storage.uris import Place

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MAX_ROW_GROUP_BYTES = 2**31  # of pictures, unpacked; Hugging Face writes 100 to 1,000 a row group
_BATCH_BYTES = 2**28
_KEPT_ROW_GROUPS = 2  # threads that decode one after the other are at most one border apart


@dataclass(frozen=True)
class ParquetFile:
    """One file, as it was when its listing was read.

    Attributes:
        path: Where it lies.
        row_groups: Number of rows of each row group.
        stamp: Size in bytes and time of modification in ns.
    """

    path: Place
    row_groups: tuple[int, ...]
    stamp: tuple[int, int]


class ParquetSource(HashedSource):
    """Pictures in a binary column of Parquet files, named ``<file>#<row>``.

    A picture can only be read with its whole row group: the last two are kept, so that reading in
    the order of the rows unpacks each once.

    Args:
        files: The files by name.
        image: The column: binary, or a struct with a binary field ``bytes``.
    """

    def __init__(self, files: Mapping[str, ParquetFile], image: str) -> None:
        super().__init__()
        self._files = dict(files)
        self._image = image
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Sequence[Any]] = OrderedDict()

    def __repr__(self) -> str:
        return f"ParquetSource({len(self._files)} file(s), column {self._image!r})"

    def __reduce__(self) -> tuple[type[ParquetSource], tuple[Mapping[str, ParquetFile], str]]:
        return type(self), (self._files, self._image)

    def load(self, image: str) -> bytes:
        """Returns the encoded picture.

        Raises:
            FileNotFoundError: No row has this name, or the file is gone.
            ValueError: The row holds no picture or one over 64 MiB, or the file is damaged or has
                changed since it was listed.
        """
        name, group, position = self._locate(image)
        value = self._row_group(name, group)[position].as_py()
        if not isinstance(value, bytes):
            raise ValueError(f"{image!r} holds no picture; expected its bytes: leave the row out")
        if len(value) > MAX_PICTURE_BYTES:
            raise ValueError(
                f"{image!r} has {len(value) / 2**20:.0f} MiB; expected at most "
                f"{MAX_PICTURE_BYTES / 2**20:.0f} MiB"
            )
        return value

    def problem(self, image: str) -> str | None:
        """Returns the reason why no row has this name, or ``None``; reads no picture."""
        try:
            self._locate(image)
        except FileNotFoundError as error:
            return str(error)
        return None

    def _locate(self, image: str) -> tuple[str, int, int]:
        """Returns file, row group and the row within it."""
        name, _, row = image.rpartition("#")
        file = self._files.get(name)
        if file is not None and re.fullmatch("[0-9]{1,15}", row):
            position = int(row)
            for group, num_rows in enumerate(file.row_groups):
                if position < num_rows:
                    return name, group, position
                position -= num_rows
        raise FileNotFoundError(f"no picture {image!r} among the rows of {self!r}")

    def _row_group(self, name: str, group: int) -> Sequence[Any]:
        with self._lock:  # else every thread would unpack the same row group
            key = (name, group)
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                while len(self._kept) >= _KEPT_ROW_GROUPS:  # first, or three are in memory
                    self._kept.popitem(last=False)
                self._kept[key] = self._read(self._files[name], group)
            return self._kept[key]

    def _read(self, file: ParquetFile, group: int) -> Sequence[Any]:
        with open_parquet(file.path) as (opened, stamp):
            if stamp != file.stamp:
                raise ValueError(
                    f"{file.path} has changed since it was listed; expected the same file: start "
                    "again"
                )
            return _row_group(opened, group, self._image)


def list_pictures(
    opened: pyarrow.parquet.ParquetFile, image: str, origin: str
) -> tuple[tuple[int, ...], set[int]]:
    """Returns the number of rows of each row group, and the rows that hold no picture.

    Pictures are read only where the file does not say that a row group has none missing.

    Raises:
        ValueError: There is no such column or it holds something else than bytes, or a row group
            unpacks to over 2 GiB.
    """
    leaf = _leaf(opened, image, origin)
    metadata = opened.metadata
    empty: set[int] = set()
    sizes = []
    start = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == leaf)
        if chunk.total_uncompressed_size > MAX_ROW_GROUP_BYTES:
            raise ValueError(
                f"row group {number} of {origin} unpacks to "
                f"{chunk.total_uncompressed_size / 2**30:.1f} GiB of pictures; expected at most "
                f"{MAX_ROW_GROUP_BYTES / 2**30:.1f} GiB: write the file with fewer rows a row group"
            )
        said = chunk.statistics
        if said is None or not said.has_null_count or said.null_count:
            pictures = _row_group(opened, number, image)
            empty |= {start + i for i, picture in enumerate(pictures) if not picture.is_valid}
        sizes.append(group.num_rows)
        start += group.num_rows
    return tuple(sizes), empty


def _leaf(opened: pyarrow.parquet.ParquetFile, image: str, origin: str) -> str:
    """Returns the path of the column with the bytes, as Parquet names it."""
    import pyarrow.types as types

    schema = opened.schema_arrow
    if image not in schema.names:
        raise ValueError(
            f"{origin} has no column {image!r}; it has {schema.names}; name the column of the "
            "pictures by data.image"
        )
    kind = schema.field(image).type
    field = kind
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        field = kind.field("bytes").type
    if not (types.is_binary(field) or types.is_large_binary(field)):
        raise ValueError(
            f"column {image!r} of {origin} holds {kind}; expected bytes, or a struct with a field "
            "'bytes': for a table of paths give data=table"
        )
    return image if field is kind else f"{image}.bytes"


def _row_group(opened: pyarrow.parquet.ParquetFile, number: int, image: str) -> Sequence[Any]:
    """Returns the pictures of a row group: Arrow's scalars, not valid where there is none."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.types

    leaf = _leaf(opened, image, "the file")
    group = opened.metadata.row_group(number)
    chunks = [group.column(i) for i in range(group.num_columns)]
    unpacked = next(c.total_uncompressed_size for c in chunks if c.path_in_schema == leaf)
    # rows may share one picture, which the file holds once: few at a time, and counted; of 1,000
    # pictures of 100 KB each alone takes 0.2 s, all at once 0.7 s
    at_once = max(1, _BATCH_BYTES // max(1, unpacked))
    parts, num_bytes = [], 0
    for batch in opened.iter_batches(batch_size=at_once, row_groups=[number], columns=[leaf]):
        column = batch.column(image)
        if pyarrow.types.is_struct(column.type):
            column = pyarrow.compute.struct_field(column, "bytes")
        lengths = pyarrow.compute.binary_length(column)
        num_bytes += pyarrow.compute.sum(lengths).as_py() or 0
        if num_bytes > MAX_ROW_GROUP_BYTES:
            raise ValueError(
                f"the pictures of row group {number} come to over "
                f"{MAX_ROW_GROUP_BYTES / 2**30:.1f} GiB, since rows share them; expected at most "
                "that: write the file with fewer rows a row group"
            )
        parts.append(column)
    return pyarrow.chunked_array(parts) if parts else pyarrow.array([], pyarrow.binary())  # type: ignore[no-any-return]
