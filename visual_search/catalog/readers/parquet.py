"""Parquet with the pictures inside: what Hugging Face gives for a data set of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.catalog.catalog import REQUIRED_COLUMNS, SPLITS, Catalog
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import (
    Items,
    check_columns,
    split_of_name,
    split_of_word,
)
from visual_search.catalog.readers.parquet_source import (
    ParquetFile,
    ParquetSource,
    list_pictures,
    open_parquet,
)
from visual_search.catalog.readers.sources import FolderSource, is_clutter

if TYPE_CHECKING:
    import pyarrow

ADVICE = (
    "expected those that are named: name its columns by data.category, data.item_id, data.group, "
    "data.split, data.attributes"
)


def parquet(
    path: str | os.PathLike[str],
    image: str = "image",
    category: str = "label",
    item_id: str | None = None,
    group: str | None = None,
    split: str | None = None,
    attributes: Sequence[str] | None = None,
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
) -> Catalog:
    """Gives the catalogue of Parquet files that hold their pictures.

    Numbers that stand for names become the names, where the file has Hugging Face's list of them
    (``ClassLabel``); other values are the text that they are, nulls are empty. Pictures are read
    with their row group (of at most 2 GiB), never unpacked to the disk.

    Args:
        path: A ``.parquet`` file, or a folder with any number of them at any depth.
        image: The column of the pictures: bytes, or Hugging Face's struct of bytes and path.
        category: The column of the categories. A row with -1 for a name has none.
        item_id: The column of the ids; None numbers the rows of each file, as
            ``train-00000-of-00002.parquet#17``.
        group: The column of what must not be split; None makes each item a group of its own.
        split: The column of the splits; None takes them from the names of the files and folders
            (``train``, ``validation``, ``test``), where these say one.
        attributes: Columns to keep; None keeps every other column of plain values that has no name
            which the catalogue uses itself.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.
        name: Name of the catalogue; the stem of ``path`` by default.

    Raises:
        FileNotFoundError: Nothing is at ``path``, or it is a folder without such a file.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: no picture, an empty or
            unknown category, an id that is empty or stands twice, an unknown split.
        ValueError: A file is not readable, lacks a column, has pictures or categories of another
            kind or too large a row group; an attribute has a name of the catalogue's; no row is
            good; or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    paths = _paths(Path(path))
    named = [category, *(column for column in (item_id, group, split) if column is not None)]
    files: dict[str, ParquetFile] = {}
    tables: dict[str, tuple[list[dict[str, str]], set[int]]] = {}
    for inner, file in paths.items():
        with open_parquet(file) as (opened, stamp):
            origin = str(file)
            row_groups, empty = list_pictures(opened, image, origin)
            if attributes is None:
                attributes = _plain_columns(opened.schema_arrow, {*named, image, *REQUIRED_COLUMNS})
            columns = list(dict.fromkeys([*named, *attributes]))
            check_columns(opened.schema_arrow.names, columns, origin, ADVICE)
            texts = _texts(opened.read(columns=columns), origin)
        files[inner] = ParquetFile(file, row_groups, stamp)
        tables[inner] = (texts, empty)

    source = ParquetSource(files, image)
    items = Items(source, list(attributes or ()))
    for inner, (texts, empty) in tables.items():
        file_split = split_of_name(inner)
        for number, row in enumerate(texts):
            place, picture = f"{inner}, row {number}", f"{inner}#{number}"
            said = file_split if split is None else split_of_word(row[split])
            row_id = picture if item_id is None else row[item_id]
            if said not in (*SPLITS, ""):
                reason = f"the split is {said!r}; expected one of {list(SPLITS)}, or nothing"
                items.refuse(place, row_id, picture, reason)
            elif number in empty:
                items.refuse(place, row_id, picture, "the row holds no picture; leave it out")
            else:
                items.add(
                    place,
                    item_id=row_id,
                    image=picture,
                    category=row[category],
                    group=row[group] if group is not None else "",
                    split=said,
                    attributes=[row[column] for column in attributes or ()],
                )
    return items.conclude(
        name or Path(path).absolute().stem, on_bad_item=on_bad_item, origin=str(path)
    )


def _paths(path: Path) -> dict[str, Path]:
    """Gives the files by their name below ``path``, sorted."""
    if path.is_file():
        return {path.name: path.absolute()}
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path.absolute()}; give a Parquet file or a folder")
    folder = FolderSource(path)
    found = {
        name: folder.root / name
        for name in folder.names()
        if name.lower().endswith(".parquet") and not is_clutter(name)
    }
    if not found:
        raise FileNotFoundError(f"no .parquet file in {path.absolute()}; give the folder with them")
    return found


def _plain_columns(schema: pyarrow.Schema, taken: set[str]) -> list[str]:
    """Gives the columns that hold one plain value a row and are not used otherwise."""
    return [
        field.name
        for field in schema
        if _is_plain(field.type)
        and field.name not in taken
        # pandas keeps a named or filtered index as a column of this name; it is no attribute
        and not field.name.startswith("__index_level_")
    ]


def _is_plain(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return not (
        types.is_nested(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )


def _texts(table: pyarrow.Table, origin: str) -> list[dict[str, str]]:
    """Gives the columns of each row as texts."""
    names_of = _class_labels(table.schema)
    columns: dict[str, list[str]] = {}
    for column in table.column_names:
        if not _is_plain(table.schema.field(column).type):
            raise ValueError(
                f"column {column!r} of {origin} holds {table.schema.field(column).type}; expected "
                "text, numbers, dates or booleans: name another one, or leave it out"
            )
        values = table.column(column).to_pylist()
        columns[column] = [_text(value, names_of.get(column)) for value in values]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _text(value: Any, names: Sequence[str] | None) -> str:
    if value is None or value != value:  # not a number: pandas' way to write null
        return ""
    if names is not None and isinstance(value, int):
        # -1 is what unlabelled rows hold; Python would take the last name
        return names[value] if 0 <= value < len(names) else ""
    # pandas turns an integer column with a null into floats: 12 must not become "12.0"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _class_labels(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Gives the names that numbers stand for, by column, as Hugging Face's metadata has them."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # written by somebody else: the numbers themselves are the categories
