"""Which file of a folder or zip is the table, and the texts in it: told apart by its suffix."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zipfile import is_zipfile

from visual_search.catalog.readers.delimited import RawTable, check_names, read_csv
from visual_search.catalog.readers.feed import read_feed
from visual_search.catalog.readers.json_rows import read_json_lines, read_json_list
from visual_search.catalog.readers.listings import read_listing, unpacked
from visual_search.catalog.readers.parquet_columns import (
    TextBudget,
    parquet_file,
    plain_columns,
    read_columns,
    readable,
    texts_of,
)
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.sources import FileSource, is_file, open_source
from visual_search.catalog.readers.workbook import read_workbook
from visual_search.storage.uris import ObjectUri, Place

_Kind = Literal["text", "lines", "list", "feed", "workbook", "parquet"]
_KINDS: dict[str, _Kind] = {
    ".csv": "text",
    ".tsv": "text",
    ".tab": "text",
    ".txt": "text",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "list",
    ".xml": "feed",
    ".rss": "feed",
    ".atom": "feed",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".parquet": "parquet",
}
# A folder's table is looked for among the first; where there is none, among the second. The others
# may well be notes and settings, and are read where they are named.
_USUAL, _FURTHER = (".csv", ".tsv", ".parquet"), (".jsonl", ".ndjson", ".xlsx", ".xml")
_EXPECTED = (
    f"expected a suffix of {[*_KINDS]}, packed as .gz or not, or a folder or .zip with one: save "
    "it as CSV in UTF-8"
)


def find_table(path: Place, table_name: str | None) -> tuple[FileSource, str]:
    """Returns the root of the pictures and the table's path below it.

    Args:
        path: The table, or a folder or zip that holds it.
        table_name: Which, where it holds several.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        ValueError: It is no table, or holds none or several and ``table_name`` names none of them.
    """
    there = is_file(path)
    if there and _suffix(path.name):
        return open_source(path.parent), path.name
    # a spreadsheet is a zip, too
    is_spreadsheet = path.name.lower().endswith((".ods", ".xls", ".xlsb", ".numbers"))
    if there and (is_spreadsheet or not _is_zip(path)):
        raise ValueError(f"{path} is no table that is read here; {_EXPECTED}")
    source = open_source(path)
    names = [name for name in source.names() if not is_clutter(name)]
    if table_name is not None:
        tables = [name for name in names if _suffix(name)]
        if table_name not in names:
            raise ValueError(f"{path} has no table {table_name!r}; expected one of {tables[:10]}")
        return source, table_name
    tables = [name for name in names if name.lower().endswith(_USUAL)]
    tables = tables or [name for name in names if _suffix(name) in (*_USUAL, *_FURTHER)]
    if len(tables) != 1:
        raise ValueError(
            f"{path} holds {len(tables)} tables {tables[:10]}; expected one with a suffix of "
            f"{[*_USUAL, *_FURTHER]}: "
            + (
                "name it by data.table_name"
                if tables
                else "add one, or name a .txt by data.table_name"
            )
        )
    return source, tables[0]


def _is_zip(path: Place) -> bool:
    return path.name.lower().endswith(".zip") if isinstance(path, ObjectUri) else is_zipfile(path)


def read_table_file(
    source: FileSource,
    inner: str,
    origin: str,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    needed: Sequence[str] = (),
    attributes: Sequence[str] | None = None,
) -> RawTable:
    """Returns the texts of a table in whatever format its suffix says.

    Args:
        source: Where it lies.
        inner: Its path there.
        origin: What is read, for messages.
        separator: As of `read_csv`, for text.
        encoding: As of `read_csv`, for text and JSON.
        needed: Columns that it is to have.
        attributes: Of Parquet, the further columns to read; None reads all of plain values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, unpacks to over 2 GiB, or is of a format that has no
            separator or encoding and one was given.
    """
    data = read_listing(source, inner)
    data = unpacked(data, origin)
    kind = _KINDS.get(_suffix(inner), "text")
    for key, value, kinds in (
        ("separator", separator, ("text",)),
        ("encoding", encoding, ("text", "lines", "list")),
    ):
        if value is not None and kind not in kinds:
            raise ValueError(
                f"data.{key}={value} says how a text is read, and {inner!r} is none; expected "
                f"nothing: leave it out, or give data.{key}=null"
            )
    if kind == "lines":
        return read_json_lines(data, encoding)
    if kind == "list":
        return read_json_list(data, encoding)
    if kind == "feed":
        return read_feed(data)
    if kind == "workbook":
        return read_workbook(data, origin, needed)
    if kind == "parquet":
        return read_parquet(data, origin, needed, attributes)
    return read_csv(
        data, separator, encoding, name=inner.lower().removesuffix(".gz"), needed=needed
    )


def read_parquet(
    data: bytes, origin: str, needed: Sequence[str] = (), attributes: Sequence[str] | None = None
) -> RawTable:
    """Returns the texts of a Parquet table, of at most 2 GiB.

    Args:
        data: The file's bytes.
        origin: What is read, for messages.
        needed: Columns that are read in any case, where the file has them.
        attributes: Further columns; None reads all that hold plain values.

    Raises:
        ValueError: The bytes are no Parquet table, a column is named twice, one that is read
            by name holds lists or bytes, or the texts come to more.
    """
    with readable(origin):
        opened = parquet_file(io.BytesIO(data))
        schema = opened.schema_arrow
        check_names(schema.names)
        kept, choices = plain_columns(schema, used=needed)
        if attributes is not None:
            kept, choices = list(attributes), ()
        columns = [name for name in schema.names if name in {*needed, *kept}]
        values = read_columns(opened, columns, origin, TextBudget(origin))
    texts = [texts_of(values[name]) for name in columns]
    rows = [list(row) for row in zip(*texts, strict=True)]
    return RawTable(columns, rows, [f"row {i + 1}" for i in range(len(rows))], choices=choices)


def _suffix(name: str) -> str:
    """Returns the suffix by which a table is known, without that of its packing; or nothing."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in _KINDS else ""
