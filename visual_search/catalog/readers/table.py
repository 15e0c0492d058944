"""A table of products, CSV or Parquet, with their pictures beside it in a folder or a zip."""

from __future__ import annotations

import io
import os
import string
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.delimited import RawTable, check_names, read_csv
from visual_search.catalog.readers.listings import Items, check_columns, read_listing, split_of_word
from visual_search.catalog.readers.parquet_columns import (
    TextBudget,
    parquet_file,
    plain_columns,
    read_columns,
    readable,
    texts_of,
)
from visual_search.catalog.readers.sources import (
    FolderSource,
    ZipSource,
    is_clutter,
    open_source,
)

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
ADVICE = (
    "name its columns by data.item_id, data.image (or data.image_pattern), data.category, "
    "data.group, data.split, data.attributes"
)
_SPREADSHEETS = (".ods", ".xls", ".xlsm", ".xlsx")


@builder("data")
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
    separator: str | None = None,
    encoding: str | None = None,
) -> Catalog:
    """Returns the catalogue of a table whose columns the caller names.

    Every value stays the text that it is: ids keep leading zeros, ``NA`` is no missing value; an
    integer or a whole number of a Parquet column becomes ``"12"``, a null ``""``. Categories, and
    splits, lose the white space around them.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.txt`` of separated fields, as `read_csv` reads them, or a
            ``.parquet`` file; or a folder or ``.zip`` that holds one.
        item_id: Column of the ids; an id names one item, the first row with it wins.
        image: Column of the picture paths, relative to the table, separated by ``/``. They may not
            leave the folder of the table (or the folder or zip given as ``path``); an absolute one
            has to lie below it.
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
        separator: What separates the fields of a CSV: one character, or ``tab``; None finds it out
            and says so.
        encoding: Of a CSV, as ``cp1252``; None finds it out and says so, where it is certain.

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
    origin = f"{path}" if Path(path).name == inner else f"{path} ({inner})"
    pattern = "{" + image + "}" if image_pattern is None else image_pattern
    needed = [item_id, category, *_pattern_columns(pattern, image_pattern, image)]
    needed += [column for column in (group, split) if column is not None]
    try:
        data = read_listing(source, inner)
        if inner.lower().endswith(".parquet"):
            raw = read_parquet(data, origin, needed, attributes)
        else:
            raw = read_csv(data, separator, encoding, name=inner, needed=needed)
    except ValueError as error:
        raise ValueError(f"the table {inner!r} in {source!r}: {error}") from error
    check_columns(raw.columns, [*needed, *(attributes or [])], origin, ADVICE)
    if attributes is None:
        attributes = [column for column in raw.columns if column not in needed]
    attributes = list(dict.fromkeys(attributes))
    _check_attributes(attributes, origin)

    base = str(PurePosixPath(inner).parent)
    items = Items(source, attributes, raw.choices, raw.refused, base)
    for place, row in raw.named():
        items.add(
            place,
            item_id=row[item_id],
            image=pattern.format_map(row) if image_pattern is not None else row[image],
            category=row[category],
            group=row[group] if group is not None else "",
            split=split_of_word(row[split]) if split is not None else "",
            attributes=[row[column] for column in attributes],
        )
    further = [column for column in attributes if items.holds_pictures(column)]
    if further:
        why = "they name pictures, and an item has the one of data.image"
        items.choices += (Choice("", f"the pictures of column(s) {further} are not read", why),)
    return items.conclude(
        name or Path(path).absolute().stem, on_bad_item=on_bad_item, origin=origin
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


def _find_table(path: Path, table_name: str | None) -> tuple[FolderSource | ZipSource, str]:
    """Returns the root of the pictures and the table's path below it."""
    if path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, ".txt"):
        return FolderSource(path.absolute().parent), path.name
    # a spreadsheet is a zip, too: of XML
    if path.is_file() and (path.suffix.lower() in _SPREADSHEETS or not zipfile.is_zipfile(path)):
        raise ValueError(
            f"{path} is no table that is read here; expected a suffix of "
            f"{[*TABLE_SUFFIXES, '.txt']}, or a folder or .zip with one: save a spreadsheet as CSV "
            "in UTF-8"
        )
    source = open_source(path)
    names = [name for name in source.names() if not is_clutter(name)]
    tables = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    if table_name is not None:
        if table_name not in names:
            raise ValueError(f"{path} has no table {table_name!r}; expected one of {tables[:10]}")
        return source, table_name
    if len(tables) != 1:
        raise ValueError(
            f"{path} holds {len(tables)} tables {tables[:10]}; expected one with a suffix of "
            f"{list(TABLE_SUFFIXES)}: "
            + (
                "name it by data.table_name"
                if tables
                else "add one, or name a .txt by data.table_name"
            )
        )
    return source, tables[0]


def _pattern_columns(pattern: str, image_pattern: str | None, image: str) -> list[str]:
    """Returns the columns that the picture path is made of."""
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


def _check_attributes(attributes: Sequence[str], origin: str) -> None:
    taken = [column for column in attributes if column in REQUIRED_COLUMNS]
    if taken:
        raise ValueError(
            f"{origin} has the column(s) {taken} as attributes, names that the catalogue uses "
            f"itself; use one by its role (as data.{taken[0]}={taken[0]}), or list the attributes "
            "to keep without it, as data.attributes=[colour]"
        )
