"""A table of products in any of the usual formats, with their pictures beside it."""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import Items, check_columns, split_of_word
from visual_search.catalog.readers.table_files import find_table, read_table_file

ADVICE = (
    "name its columns by data.item_id, data.image (or data.image_pattern), data.category, "
    "data.group, data.split, data.attributes"
)


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
        path: A ``.csv``, ``.tsv``, ``.tab`` or ``.txt`` of separated fields, as `read_csv` reads
            them; JSON lines (``.jsonl``, ``.ndjson``) or a list of objects (``.json``); each of
            these packed (``.gz``); an ``.xlsx`` or ``.xlsm`` workbook; a ``.parquet`` file; or a
            folder or ``.zip`` that holds one.
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
        separator: What separates the fields of a text: one character, or ``tab``; None finds it out
            and says so.
        encoding: Of a text or JSON, as ``cp1252``; None finds it out and says so, where it is
            certain.

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
    source, inner = find_table(Path(path), table_name)
    origin = f"{path}" if Path(path).name == inner else f"{path} ({inner})"
    pattern = "{" + image + "}" if image_pattern is None else image_pattern
    needed = [item_id, category, *_pattern_columns(pattern, image_pattern, image)]
    needed += [column for column in (group, split) if column is not None]
    try:
        raw = read_table_file(
            source,
            inner,
            origin,
            separator=separator,
            encoding=encoding,
            needed=needed,
            attributes=attributes,
        )
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
