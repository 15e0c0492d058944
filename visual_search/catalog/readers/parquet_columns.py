"""Columns of Parquet files as texts and numbers, bounded before memory is taken.

A file of some kilobytes may hold gigabytes: a text that all rows share is written once, and so is a
number. What a file announces and what its texts come to is counted before any of it is made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from visual_search.catalog.catalog import Choice
from visual_search.catalog.readers.delimited import MAX_TEXT_BYTES, MAX_VALUES
from visual_search.catalog.readers.listings import left_out_choice
from visual_search.storage.seekable import open_object
from visual_search.storage.uris import ObjectUri

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    from numpy.typing import NDArray

# Embeddings shrink by a tenth when they are written; what shrinks to a hundredth is none.
MAX_NUMBER_BYTES, MAX_RATIO = 2**31, 100
_ROWS_AT_ONCE = 2**16


class TextBudget:
    """How many values and bytes of text may still be read, each with a separator, as in CSV.

    Args:
        origin: What is read, for messages.
        max_bytes: Of all values together.
        max_values: Their number.
    """

    def __init__(
        self, origin: str, max_bytes: int = MAX_TEXT_BYTES, max_values: int = MAX_VALUES
    ) -> None:
        self._origin = origin
        self._max_bytes, self._max_values = max_bytes, max_values
        self._left, self._values_left = max_bytes, max_values

    def spend(self, num_bytes: int, column: str, num_values: int = 0) -> None:
        """Counts texts that are about to be made.

        Raises:
            ValueError: They are too many.
        """
        self._left -= num_bytes
        self._values_left -= num_values
        if self._values_left < 0:
            raise ValueError(
                f"{self._origin} has over {self._max_values:,} values, those of column {column!r} "
                "included; expected at most that: split the file, or write it without the column"
            )
        if self._left < 0:
            raise ValueError(
                f"the texts of {self._origin} come to over {self._max_bytes / 2**30:.1f} GiB, that "
                f"of column {column!r} included; expected at most that: split the file, or write "
                "it without the column"
            )


@contextlib.contextmanager
def open_parquet(
    path: Path | ObjectUri,
) -> Iterator[tuple[pyarrow.parquet.ParquetFile, tuple[int, int]]]:
    """Opens a Parquet file; gives it with its size in bytes and time of modification in ns.

    One on object storage is read there, by parts.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        ValueError: It is no Parquet file, or what is read of it is damaged.
        StorageError: Object storage does not answer, or refuses.
    """
    if isinstance(path, ObjectUri):
        opened = open_object(path)
        with readable(str(path)):
            yield (
                parquet_file(cast("IO[bytes]", opened)),
                (opened.status.num_bytes, opened.status.mtime_ns),
            )
        return
    with open(path, "rb") as file, readable(str(path)):
        status = os.fstat(file.fileno())
        yield parquet_file(file), (status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def readable(origin: str) -> Iterator[None]:
    """Turns what Arrow raises within into a ValueError that names what was read."""
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{origin} is not a readable Parquet file: {error}; fetch it again"
        ) from error


def parquet_file(file: IO[bytes]) -> pyarrow.parquet.ParquetFile:
    """Opens a Parquet file whose texts are read as codes of their values, each value once."""
    import pyarrow.parquet
    import pyarrow.types as types

    metadata = pyarrow.parquet.read_metadata(file)
    texts = [
        field.name
        for field in metadata.schema.to_arrow_schema()
        if types.is_string(field.type) or types.is_large_string(field.type)
    ]
    return pyarrow.parquet.ParquetFile(file, metadata=metadata, read_dictionary=texts)


def is_plain(kind: pyarrow.DataType) -> bool:
    """Returns whether a column holds one text, number, date or boolean a row."""
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return not (
        types.is_nested(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )


def plain_columns(
    schema: pyarrow.Schema, used: Sequence[str] = ()
) -> tuple[list[str], tuple[Choice, ...]]:
    """Returns the columns of plain values, and what to say of those that were passed over.

    Args:
        schema: The file's.
        used: Columns that are used otherwise, of which nothing is said.
    """
    # pandas keeps a named or filtered index as a column of this name; it is no attribute
    fields = [field for field in schema if not field.name.startswith("__index_level_")]
    plain = [field.name for field in fields if is_plain(field.type)]
    others = [field.name for field in fields if field.name not in plain and field.name not in used]
    return plain, left_out_choice(others, "they hold lists or bytes")


def read_columns(
    opened: pyarrow.parquet.ParquetFile, columns: Sequence[str], origin: str, budget: TextBudget
) -> dict[str, list[object]]:
    """Returns values of plain columns, None where there is none; `texts_of` makes texts of them.

    Args:
        opened: By `parquet_file`.
        columns: What to read; the others are not unpacked.
        origin: What is read, for messages.
        budget: What is left for it.

    Raises:
        ValueError: A column holds no plain values, or they are more than the budget has.
    """
    _check_plain(opened, columns, origin)
    for name, num_bytes in _announced(opened, columns).items():
        TextBudget(origin).spend(num_bytes, name)
    values: dict[str, list[object]] = {name: [] for name in columns}
    for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
        for name in columns:
            column = batch.column(name)
            budget.spend(_text_bytes(column), name, len(column))
            values[name] += _values(column)
    return values


def _check_plain(opened: pyarrow.parquet.ParquetFile, columns: Sequence[str], origin: str) -> None:
    schema = opened.schema_arrow
    for name in columns:
        if not is_plain(schema.field(name).type):
            raise ValueError(
                f"column {name!r} of {origin} holds {schema.field(name).type}; expected text, "
                "numbers, dates or booleans: name another one, or leave it out"
            )


def read_blocks(
    opened: pyarrow.parquet.ParquetFile, columns: Sequence[str], origin: str, num_rows: int
) -> Iterator[dict[str, list[object]]]:
    """Yields values of plain columns, some rows at a time; see `read_columns`.

    Args:
        opened: By `parquet_file`.
        columns: What to read.
        origin: What is read, for messages.
        num_rows: Of a block; what shares a row group is in one block at most.

    Raises:
        ValueError: A column holds no plain values, or a block's texts are more than a table may
            have.
    """
    _check_plain(opened, columns, origin)
    for batch in opened.iter_batches(batch_size=num_rows, columns=list(columns)):
        budget = TextBudget(origin)
        for name in columns:
            budget.spend(_text_bytes(batch.column(name)), name, len(batch))
        yield {name: _values(batch.column(name)) for name in columns}


def whole_numbers(opened: pyarrow.parquet.ParquetFile, column: str) -> bool:
    """Returns whether a column is of floats that are all whole; reads it in parts."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    if not types.is_floating(opened.schema_arrow.field(column).type):
        return False
    for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
        values = compute.drop_null(batch.column(0)).cast("float64")
        values = values.filter(compute.invert(compute.is_nan(values)))
        if not compute.all(compute.equal(compute.floor(values), values), min_count=0).as_py():
            return False
    return True


def texts_of(values: Sequence[object], *, whole: bool | None = None) -> list[str]:
    """Returns the texts of a column's values: what their owner wrote, as near as the file lets one.

    Nulls and NaN are empty. pandas turns an integer column with a null into floats: where every
    number of the column is whole, they are written without their fraction.

    Args:
        values: Of the column, or a part of it.
        whole: Whether every number of the whole column is; None looks at these values.

    Example:
        >>> texts_of([12.0, None, 7]), texts_of([1.5, 2.0, float("nan")]), texts_of([True, "007"])
        (['12', '', '7'], ['1.5', '2.0', ''], ['True', '007'])
    """
    filled = [None if value is None or value != value else value for value in values]
    numbers = [value for value in filled if isinstance(value, float)]
    if whole is None:
        whole = bool(numbers) and all(value.is_integer() for value in numbers)
    if whole:
        filled = [int(value) if isinstance(value, float) else value for value in filled]
    return ["" if value is None else str(value) for value in filled]


def read_numbers(
    opened: pyarrow.parquet.ParquetFile, columns: Sequence[str], origin: str, num_bytes: int
) -> NDArray[np.float32]:
    """Returns columns of numbers, or one of lists of as many numbers each, as ``[n, D] float32``.

    A number that is missing is NaN.

    Args:
        opened: The file.
        columns: One column a value, or the one with the lists.
        origin: What is read, for messages.
        num_bytes: The file's size.

    Raises:
        ValueError: A value is no number, a list is missing, the lists have different lengths, or
            the file unpacks to over 2 GiB and a hundred times its size.
    """
    import numpy as np
    import pyarrow.compute
    import pyarrow.types as types

    announced = sum(_announced(opened, columns).values())
    if announced > max(MAX_NUMBER_BYTES, MAX_RATIO * num_bytes):
        raise ValueError(
            f"{origin} has {num_bytes:,} bytes and unpacks to {announced / 2**30:.1f} GiB; "
            f"expected at most {MAX_NUMBER_BYTES / 2**30:.1f} GiB, or {MAX_RATIO} times its size: "
            "numbers that repeat so are no embeddings"
        )
    table = opened.read(columns=list(columns))
    arrays = []
    for name in columns:
        column = table.column(name).combine_chunks()
        kind = column.type
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            if column.null_count:
                raise ValueError(f"{name!r} has {column.null_count} row(s) without a list")
            widths = pyarrow.compute.unique(pyarrow.compute.list_value_length(column))
            if len(widths) > 1:
                raise ValueError(f"lists of {len(widths)} different lengths")
            column, kind = column.flatten(), kind.value_type
        if not (types.is_floating(kind) or types.is_integer(kind)):
            raise ValueError(f"{name!r} holds {table.column(name).type}")
        arrays.append(np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32))
    if len(arrays) == 1:
        return arrays[0].reshape(table.num_rows, -1)  # [n, D]
    return np.stack(arrays, axis=1)  # [n, D]


def _announced(opened: pyarrow.parquet.ParquetFile, columns: Sequence[str]) -> dict[str, int]:
    """Returns what each column is to hold by the file's own word: bytes, or values where more."""
    sizes = dict.fromkeys(columns, 0)
    metadata = opened.metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            top = chunk.path_in_schema
            name = top if top in sizes else top.split(".")[0]
            if name in sizes:
                # a number that repeats takes no room: it is counted as the 4 bytes that it becomes
                width = 1 if chunk.physical_type == "BYTE_ARRAY" else 4
                sizes[name] += max(chunk.total_uncompressed_size, width * chunk.num_values)
    return sizes


def _text_bytes(column: pyarrow.Array) -> int:
    """Returns the bytes of a column's texts as CSV would have them, a separator each."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return 8 * len(column)
    if types.is_dictionary(column.type):
        lengths = compute.binary_length(column.dictionary).cast("int64").take(column.indices)
    else:
        lengths = compute.binary_length(column).cast("int64")
    return int(compute.sum(lengths).as_py() or 0) + len(column)


def _values(column: pyarrow.Array) -> list[object]:
    """Returns Python's values; rows that share a text share one object."""
    import numpy as np
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        once = column.dictionary.to_pylist()
        return [None if code is None else once[code] for code in column.indices.to_pylist()]
    values: list[Any] = column.to_pylist()
    if types.is_float32(column.type) or types.is_float16(column.type):
        narrow = np.float32 if types.is_float32(column.type) else np.float16
        # 0.1 as its owner wrote it, and not 0.10000000149011612
        return [None if value is None else float(str(narrow(value))) for value in values]
    return values
