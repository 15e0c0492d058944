"""A table of products, CSV or Parquet, with their pictures beside it in a folder or a zip."""

from __future__ import annotations

import csv
import difflib
import io
import os
import string
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from visual_search.catalog.catalog import REQUIRED_COLUMNS, SPLITS, Catalog, RefusedItem
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.listings import split_of_word
from visual_search.catalog.readers.sources import (
    FolderSource,
    ZipSource,
    is_clutter,
    open_source,
    safe_name,
)

if TYPE_CHECKING:
    import pyarrow

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
MAX_TABLE_BYTES = 2**31
_SPREADSHEETS = (".ods", ".xls", ".xlsm", ".xlsx")


@dataclass(frozen=True)
class RawTable:
    """The texts of a table as they stand in the file.

    Attributes:
        columns: Names of the columns, each once.
        rows: One list of texts a row, as long as ``columns``.
        places: Where each row stands, as ``line 12``.
        refused: Rows that could not be told apart into fields.
    """

    columns: list[str]
    rows: list[list[str]]
    places: list[str]
    refused: tuple[RefusedItem, ...] = ()


def table(
    path: str | os.PathLike[str],
    item_id: str = "item_id",
    image: str = "image",
    category: str = "category",
    group: str | None = None,
    split: str | None = None,
    attributes: Sequence[str] | None = None,
    image_pattern: str | None = None,
    table_name: str | None = None,
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
) -> Catalog:
    """Gives the catalogue of a table whose columns the caller names.

    Every value stays the text that it is: ids keep leading zeros, ``NA`` is no missing value; an
    integer or a whole number of a Parquet column becomes ``"12"``, a null ``""``. Categories, and
    splits, lose the white space around them.

    Args:
        path: A ``.csv`` (of commas, or of semicolons or tabs), ``.tsv`` or ``.parquet`` file, or a
            folder or ``.zip`` that holds one.
        item_id: Column of the ids; an id names one item, the first row with it wins.
        image: Column of the picture paths, relative to the table, separated by ``/``. They may not
            leave the folder of the table (or the folder or zip given as ``path``).
        category: Column of the categories.
        group: Column of what must not be split (a board, a product); an empty value, or ``None``,
            makes the item a group of its own.
        split: Column of the splits, each ``train``, ``val``, ``test``, another word for one of them
            such as ``validation``, or empty.
        attributes: Columns to keep as attributes; ``None`` keeps every other column.
        image_pattern: Builds the picture path from other columns, in the place of ``image``:
            ``"images/{id}.jpg"``, or ``"images/{id:.3}/{id}.jpg"`` for the id's first three
            characters.
        table_name: Which table, where a folder or zip holds several.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.
        name: Name of the catalogue; the stem of ``path`` by default.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of
            fields than the header, an id twice, an empty id or category, a picture that is missing
            or unsafe, an unknown split.
        ValueError: ``path`` holds no table, or several and ``table_name`` names none of them; the
            table lacks a column, names one twice, keeps a column as an attribute whose name the
            catalogue uses itself, or is not readable; no row is good; or ``on_bad_item`` is
            another word.
    """
    check_on_bad_item(on_bad_item)
    source, inner = _find_table(Path(path), table_name)
    raw = _read(source, inner)
    origin = f"{path}" if Path(path).name == inner else f"{path} ({inner})"
    pattern = "{" + image + "}" if image_pattern is None else image_pattern
    needed = [item_id, category, *_pattern_columns(pattern, image_pattern, image)]
    needed += [column for column in (group, split) if column is not None]
    _check_columns(raw.columns, [*needed, *(attributes or [])], origin)
    if attributes is None:
        attributes = [column for column in raw.columns if column not in needed]
    attributes = list(dict.fromkeys(attributes))
    _check_attributes(attributes, origin)

    base = PurePosixPath(inner).parent
    columns: dict[str, list[str]] = {c: [] for c in (*REQUIRED_COLUMNS, *attributes)}
    refused = list(raw.refused)
    seen: dict[str, str] = {}
    for texts, place in zip(raw.rows, raw.places, strict=True):
        row = dict(zip(raw.columns, texts, strict=True))
        item = {
            "item_id": row[item_id],
            "image": pattern.format_map(row) if image_pattern is not None else row[image],
            "category": row[category].strip(),
            "group": (row[group] if group is not None else "") or row[item_id],
            "split": split_of_word(row[split]) if split is not None else "",
        }
        reason = _reason_to_refuse(item, seen, place)
        if not reason:
            try:
                item["image"] = safe_name(str(base / safe_name(item["image"])))
            except ValueError as error:
                reason = str(error)
            else:
                reason = source.problem(item["image"])
        if reason:
            shown = item["item_id"] or place
            refused.append(RefusedItem(shown, item["image"], f"{place}: {reason}"))
            continue
        seen[item["item_id"]] = place
        for column in REQUIRED_COLUMNS:
            columns[column].append(item[column])
        for column in attributes:
            columns[column].append(row[column])
    return conclude(
        name or Path(path).absolute().stem,
        columns,
        source,
        refused,
        on_bad_item=on_bad_item,
        origin=origin,
    )


def separator_of(name: str, data: bytes) -> str:
    """Gives what separates the fields of a table: a tab in a ``.tsv``, else a comma.

    A header without any comma is one of semicolons, as spreadsheets write where the comma is the
    decimal sign, or of tabs: with commas the table would have a single column.

    Example:
        >>> separator_of("a.csv", b"sku,type"), separator_of("a.csv", b"sku;type")
        (',', ';')
    """
    if name.lower().endswith(".tsv"):
        return "\t"
    header = data.partition(b"\n")[0]
    return next((sign for sign in (",", ";", "\t") if sign.encode() in header), ",")


def read_csv(data: bytes, delimiter: str) -> RawTable:
    """Gives the texts of a CSV in UTF-8, rows with another number of fields than the header apart.

    Raises:
        ValueError: The bytes are not UTF-8, there is no header, or it names a column twice.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8 (byte {data[error.start]:#04x}); save the table as UTF-8"
        ) from error
    refused: list[RefusedItem] = []
    rows: list[list[str]] = []
    places: list[str] = []
    columns: list[str] | None = None
    for place, fields, reason in _csv_rows(text, delimiter):
        if columns is None:
            if reason:
                raise ValueError(f"the header is unreadable: {reason}; mend the first line")
            # pandas writes its index under an empty name
            columns = [name.strip() or f"column_{i + 1}" for i, name in enumerate(fields)]
        elif reason or len(fields) != len(columns):
            reason = reason or f"has {len(fields)} field(s); the header has {len(columns)}"
            hint = "quote the fields that hold a separator, a quote or a line break"
            refused.append(RefusedItem(place, "", f"{reason}; {hint}"))
        else:
            rows.append(fields)
            places.append(place)
    if columns is None:
        raise ValueError("the table is empty; expected a header line with the names of the columns")
    _check_names(columns)
    return RawTable(columns, rows, places, tuple(refused))


def _csv_rows(text: str, delimiter: str) -> Iterator[tuple[str, list[str], str]]:
    # strict: a quote that is never closed is an error, and does not swallow the rest of the table
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        fields, reason = [], ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"is malformed ({error})"
        last = reader.line_num
        if fields or reason:
            yield (f"line {first}" if last <= first else f"lines {first}-{last}", fields, reason)


def read_parquet(data: bytes) -> RawTable:
    """Gives the texts of a Parquet table.

    Raises:
        ValueError: The bytes are no Parquet table, or a column is named twice.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        arrow = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"not a readable Parquet file: {error}") from error
    # pandas keeps a named or filtered index as a column of this name; it is no attribute
    kept = [name for name in arrow.column_names if not name.startswith("__index_level_")]
    _check_names(kept)
    texts = [_arrow_texts(name, arrow.column(name)) for name in kept]
    rows = [list(row) for row in zip(*texts, strict=True)]
    return RawTable(kept, rows, [f"row {i + 1}" for i in range(len(rows))])


def _arrow_texts(name: str, column: pyarrow.ChunkedArray) -> list[str]:
    import pyarrow.types as types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise ValueError(
            f"column {name!r} holds {column.type}; expected text, numbers, dates or booleans: "
            "write the table without it, and pictures into files"
        )
    values = column.to_pylist()
    if types.is_floating(kind):
        # pandas turns an integer column with a null into float64: 12 must not become "12.0"
        values = [None if value is None or value != value else value for value in values]
        if all(value is None or value.is_integer() for value in values):
            values = [None if value is None else int(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def _find_table(path: Path, table_name: str | None) -> tuple[FolderSource | ZipSource, str]:
    """Gives the root of the pictures and the table's path below it."""
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return FolderSource(path.absolute().parent), path.name
    # a spreadsheet is a zip, too: of XML
    if path.is_file() and (path.suffix.lower() in _SPREADSHEETS or not zipfile.is_zipfile(path)):
        raise ValueError(
            f"{path} is no table that is read here; expected a suffix of {list(TABLE_SUFFIXES)}, "
            "or a folder or .zip with one: save a spreadsheet as CSV in UTF-8"
        )
    source = open_source(path)
    tables = [
        name
        for name in source.names()
        if name.lower().endswith(TABLE_SUFFIXES) and not is_clutter(name)
    ]
    if table_name is not None:
        if table_name not in tables:
            raise ValueError(f"{path} has no table {table_name!r}; expected one of {tables[:10]}")
        return source, table_name
    if len(tables) != 1:
        raise ValueError(
            f"{path} holds {len(tables)} tables {tables[:10]}; expected one with a suffix of "
            f"{list(TABLE_SUFFIXES)}: " + ("name it by data.table_name" if tables else "add one")
        )
    return source, tables[0]


def _read(source: FolderSource | ZipSource, inner: str) -> RawTable:
    if isinstance(source, ZipSource):
        data = source.read(inner, MAX_TABLE_BYTES)
    else:
        data = (source.root / inner).read_bytes()
    suffix = PurePosixPath(inner).suffix.lower()
    try:
        if suffix == ".parquet":
            return read_parquet(data)
        return read_csv(data, separator_of(inner, data))
    except ValueError as error:
        raise ValueError(f"the table {inner!r} in {source!r}: {error}") from error


def _pattern_columns(pattern: str, image_pattern: str | None, image: str) -> list[str]:
    """Gives the columns that the picture path is made of."""
    if image_pattern is None:
        return [image]
    try:
        fields = [
            field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None
        ]
        pattern.format_map(dict.fromkeys(fields, ""))  # refuses here a format for numbers
    except (ValueError, LookupError, AttributeError) as error:
        raise ValueError(
            f"data.image_pattern {pattern!r} is malformed: {error}; expected columns in braces, as "
            "'images/{id}.jpg'"
        ) from error
    if not fields:
        raise ValueError(
            f"data.image_pattern {pattern!r} names no column; expected one in braces, as "
            "'images/{id}.jpg'"
        )
    return fields


def _check_names(columns: Sequence[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"the column(s) {twice} stand twice; expected each name once: rename one")


def _check_columns(columns: Sequence[str], needed: Sequence[str], origin: str) -> None:
    for column in needed:
        if column not in columns:
            lower = {name.lower(): name for name in columns}
            near = difflib.get_close_matches(column.lower(), lower, n=1, cutoff=0.65)
            hint = f", the nearest is {lower[near[0]]!r}" if near else ""
            raise ValueError(
                f"{origin} has no column {column!r}; it has {list(columns)}{hint}; name its "
                "columns by data.item_id, data.image (or data.image_pattern), data.category, "
                "data.group, data.split, data.attributes"
            )


def _check_attributes(attributes: Sequence[str], origin: str) -> None:
    taken = [column for column in attributes if column in REQUIRED_COLUMNS]
    if taken:
        raise ValueError(
            f"{origin} has the column(s) {taken} as attributes, names that the catalogue uses "
            f"itself; use one by its role (as data.{taken[0]}={taken[0]}), or list the attributes "
            "to keep without it, as data.attributes=[colour]"
        )


def _reason_to_refuse(item: dict[str, str], seen: dict[str, str], place: str) -> str | None:
    for column in ("item_id", "category"):
        if not item[column].strip():
            return f"the {column} is empty"
    if item["item_id"] in seen:
        return f"the id stands in {seen[item['item_id']]} already; an id names one item"
    if item["split"] not in {*SPLITS, ""}:
        return f"the split is {item['split']!r}; expected one of {list(SPLITS)}, or nothing"
    return None
