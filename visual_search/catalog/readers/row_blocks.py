"""Data that is larger than memory: some rows or a file at a time, as its reader reads the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from visual_search.catalog.catalog import (
    REQUIRED_COLUMNS,
    BadItemsError,
    Catalog,
    Choice,
    PictureSource,
    RefusedItem,
)
from visual_search.catalog.readers import OnBadItem, without_bad_ids
from visual_search.catalog.readers.delimited import RawTable, check_names, decode, read_csv
from visual_search.catalog.readers.listings import FLAGS, Items
from visual_search.catalog.readers.object_source import ObjectSource
from visual_search.catalog.readers.parquet import parquet_paths, queries_of, rows_of
from visual_search.catalog.readers.parquet_columns import (
    open_parquet,
    plain_columns,
    read_blocks,
    texts_of,
    whole_numbers,
)
from visual_search.catalog.readers.parquet_source import ParquetFile, ParquetSource
from visual_search.catalog.readers.shop_exports import recognised
from visual_search.catalog.readers.sources import ZipSource, num_bytes_of, stem_of
from visual_search.catalog.readers.table import (
    Roles,
    TableFile,
    TableSettings,
    find_roles,
    has_several,
    items_of,
    named_columns,
    open_table,
)
from visual_search.catalog.readers.tar_source import ListedTars, TarSource
from visual_search.catalog.readers.webdataset import samples_of, tar_paths
from visual_search.storage.bucket import in_parallel
from visual_search.storage.copies import copied_file
from visual_search.storage.uris import ObjectUri, Place

Part = tuple[pd.DataFrame, list[RefusedItem]]
"""Items of some rows, with a catalogue's columns, and the rows that are left out."""

_Read = Callable[[Sequence[str] | None], Iterator[RawTable]]
# What reads the blocks of a table; of Parquet certain further columns, all where they are None.

# Beyond these a table is read in blocks, of so much each: some 30,000 rows, which as Python's texts
# take some tens of megabytes. Parquet with pictures and tars are read a file at a time.
LARGE_BYTES, BLOCK_CHARACTERS = 2**24, 2**21
LARGE_ROWS, BLOCK_ROWS = 250_000, 2**15
LARGE_TAR_BYTES = 2**30  # of all tars
_HEAD_BYTES = 2**20  # that the encoding is found by
_MOST_BLOCKS = 4  # that are looked through for the end of a row: a quote may never be closed
_TEXTS = (".csv", ".tsv", ".tab", ".txt")


@dataclass(frozen=True)
class RowBlocks:
    """A large table, to be read once.

    Attributes:
        name: Of the catalogue.
        source: Loads the pictures.
        choices: What was found out by the first rows.
        parts: The items, some rows at a time. An id that stands in two parts is not seen.
    """

    name: str
    source: PictureSource
    choices: tuple[Choice, ...]
    parts: Iterator[Part]


def large_table(
    asked: TableSettings, *, name: str | None, category_depth: int | None, on_bad_item: OnBadItem
) -> RowBlocks | None:
    """Returns the blocks of a table that is too large to be read whole; None where it is not.

    Which column says what is found out by the first block. Items are those of `table`, but that the
    further pictures of a product are taken from rows that follow each other alone, and that no
    split is drawn: ``split`` is what the table says.

    Args:
        asked: What is told of the table.
        name: Of the catalogue; None for the file's.
        category_depth: As of `table`.
        on_bad_item: The same.

    Raises:
        FileNotFoundError: Nothing is at the path.
        ValueError: It cannot be read, or ``category_depth`` is set, which takes all categories.
    """
    file = open_table(asked)
    read = _block_reader(file, asked)
    if read is None:
        return None
    if category_depth is not None:
        raise ValueError(
            f"data.category_depth is {category_depth}, which looks at all categories, and "
            f"{file.origin} is read in parts; expected null: leave it out"
        )
    roles = find_roles(file, asked, lambda kept: next(read(kept)))
    several = has_several(roles, file, asked)
    choices = (*roles.raw.choices, *roles.choices)
    roles = replace(roles, raw=RawTable([], [], []))  # as large as a block
    if isinstance(file.source, ObjectSource):  # more names than a listing may hold
        file = replace(file, source=file.source.unlisted())
    # the shape of an export may come of any column
    blocks = read(None if roles.is_export else [*named_columns(roles.columns), *roles.attributes])
    parts = _parts(blocks, roles, several, file, asked, name or file.name, on_bad_item)
    return RowBlocks(name or file.name, file.source, choices, parts)


def large_parquet(
    path: Place,
    *,
    files: Sequence[str],
    sides: bool,
    image: str,
    name: str | None,
    on_bad_item: OnBadItem,
    attributes: Sequence[str] | None,
    on_progress: object = None,
    **told: Any,
) -> RowBlocks | None:
    """Returns a folder of Parquet files with pictures, a file at a time; None of few rows.

    Which columns are kept is found out by the first file.

    Args:
        path: As of `parquet`; so are the others.
        files: The same.
        sides: The same.
        image: The same.
        name: The same.
        on_bad_item: The same.
        attributes: The same.
        on_progress: Not called: nothing is copied.
        **told: The same.

    Raises:
        FileNotFoundError: Nothing is at the path.
        ValueError: A file cannot be read.
    """
    paths = parquet_paths(path, files)
    listed = {}
    for inner, file in paths.items():
        with open_parquet(file) as (opened, stamp):
            groups = opened.metadata
            sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
            listed[inner] = ParquetFile(file, tuple(sizes), stamp)
    num_rows = sum(sum(file.row_groups) for file in listed.values())
    if len(paths) < 2 or num_rows <= LARGE_ROWS:
        return None
    asking = queries_of(paths) if sides else None

    def read(inner: str, kept: Sequence[str] | None) -> Items:
        return rows_of(
            {inner: paths[inner]},
            image=image,
            attributes=kept,
            asking=asking,
            origin=str(path),
            **told,
        )

    source = ParquetSource(listed, image)
    further = FLAGS if sides else ()
    return _by_files(path, name, [*paths], read, attributes, further, source, on_bad_item)


def large_webdataset(
    path: Place,
    *,
    name: str | None,
    on_bad_item: OnBadItem,
    attributes: Sequence[str] | None,
    on_progress: object = None,
    **told: Any,
) -> RowBlocks | None:
    """Returns a folder of tars, a tar at a time; None of few bytes.

    Which fields of the json are kept is found out by the first tar.

    Args:
        path: As of `webdataset`; so are the others.
        name: The same.
        on_bad_item: The same.
        attributes: The same.
        on_progress: Not called: nothing is copied.
        **told: The same.

    Raises:
        FileNotFoundError: Nothing is at the path.
        ValueError: A tar cannot be read.
    """
    paths = tar_paths(path)
    if len(paths) < 2 or sum(in_parallel(num_bytes_of, [*paths.values()])) <= LARGE_TAR_BYTES:
        return None
    tars = ListedTars(paths)

    def read(inner: str, kept: Sequence[str] | None) -> Items:
        return samples_of({inner: tars[inner]}, attributes=kept, **told)

    return _by_files(path, name, [*paths], read, attributes, (), TarSource(tars), on_bad_item)


def _by_files(
    path: Place,
    name: str | None,
    names: Sequence[str],
    read: Callable[[str, Sequence[str] | None], Items],
    attributes: Sequence[str] | None,
    further: Sequence[str],
    source: PictureSource,
    on_bad_item: OnBadItem,
) -> RowBlocks:
    """Returns the blocks of data in several files.

    Args:
        path: Of the data.
        name: Of the catalogue; None for the path's.
        names: Of the files.
        read: Gives the items of one, with these attributes.
        attributes: Those that are asked for; None: those of the first file.
        further: Columns that are added to them.
        source: Loads the pictures of all files.
        on_bad_item: As of the readers.
    """
    called = name or stem_of(path)
    first = read(names[0], attributes)
    kept = [one for one in first.columns if one not in (*REQUIRED_COLUMNS, *further)]

    def parts() -> Iterator[Part]:
        for inner in names:
            items = read(inner, kept)
            yield _part(items, called, f"{path} ({inner})", source, on_bad_item)

    return RowBlocks(called, source, first.choices, parts())


def _part(
    items: Items, name: str, origin: str, source: PictureSource, on_bad_item: OnBadItem
) -> Part:
    columns, refused = without_bad_ids(items.columns, items.refused)
    if refused and on_bad_item == "error":
        raise BadItemsError(refused, origin)
    return Catalog(name, pd.DataFrame(columns, dtype=object), source).table, refused


def _block_reader(file: TableFile, asked: TableSettings) -> _Read | None:
    """Returns what reads the blocks of a table, which may be done more than once; None of a small.

    What is packed, or no text of separated fields and no Parquet, is read whole or not at all.
    """
    if isinstance(file.source, ZipSource):
        return None
    path = file.source.root / file.inner
    name = path.name.lower()
    if name.endswith(_TEXTS) and num_bytes_of(path) > LARGE_BYTES:
        copy = copied_file(path) if isinstance(path, ObjectUri) else path
        return lambda kept: _text_blocks(copy, asked.separator, asked.encoding, file.needed)
    if name.endswith(".parquet"):
        with open_parquet(path) as (opened, _):
            is_large = opened.metadata.num_rows > LARGE_ROWS
        if is_large:
            return lambda kept: _parquet_blocks(path, file.needed, kept)
    return None


def _parts(
    blocks: Iterator[RawTable],
    roles: Roles,
    several: bool,
    file: TableFile,
    asked: TableSettings,
    name: str,
    on_bad_item: OnBadItem,
) -> Iterator[Part]:
    column = roles.columns.product or roles.columns.item_id
    for raw in _whole_products(_shaped(blocks, roles, file), column):
        items = items_of(raw, roles, file, asked, several)
        if not several and any(one.key == "data.further_pictures" for one in items.choices):
            raise ValueError(
                f"{file.origin}: of {raw.places[0]} to {raw.places[-1]} a product has several "
                "pictures, and none in the rows before; expected some in the first rows too: set "
                "data.further_pictures=false, which takes the first picture of each, or sort it"
            )
        yield _part(items, name, file.origin, file.source, on_bad_item)


def _shaped(blocks: Iterator[RawTable], roles: Roles, file: TableFile) -> Iterator[RawTable]:
    for raw in blocks:
        export = recognised(raw, file.is_there) if roles.is_export else None
        yield raw if export is None else export.raw


def _whole_products(blocks: Iterator[RawTable], column: str) -> Iterator[RawTable]:
    """Yields the rows so that those of one product that follow each other come together."""
    left: RawTable | None = None
    for raw in blocks:
        whole = raw if left is None else _joined(left, raw)
        place = whole.columns.index(column)
        end = len(whole.rows)
        while end > 1 and whole.rows[end - 1][place] == whole.rows[-1][place]:
            end -= 1
        left = _sliced(whole, end, len(whole.rows))
        if end:
            yield _sliced(whole, 0, end)
    if left is not None and left.rows:
        yield left


def _sliced(raw: RawTable, start: int, end: int) -> RawTable:
    lists = {name: values[start:end] for name, values in raw.lists.items()}
    refused = raw.refused if start == 0 else ()
    rows, places = raw.rows[start:end], raw.places[start:end]
    return replace(raw, rows=rows, places=places, lists=lists, refused=refused)


def _joined(first: RawTable, second: RawTable) -> RawTable:
    lists = {name: [*first.lists[name], *second.lists[name]] for name in second.lists}
    return replace(
        second,
        rows=[*first.rows, *second.rows],
        places=[*first.places, *second.places],
        refused=(*first.refused, *second.refused),
        lists=lists,
    )


def _text_blocks(
    path: Path, separator: str | None, encoding: str | None, needed: Sequence[str]
) -> Iterator[RawTable]:
    """Yields the rows of a text of separated fields, the first with what was found out of it."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if b"\0" not in head:  # of UTF-16 every second byte is one, and a line's end no whole sign
        head = head[: head.rfind(b"\n") + 1] or head
    _, chosen = decode(head, encoding)
    name = encoding or (chosen.value if chosen is not None else "utf-8")
    sign, columns, num_lines = separator, list(needed), 0
    with open(path, encoding="utf-8-sig" if name == "utf-8" else name, newline="") as text:
        for number, block in enumerate(_cut(text)):
            if number == 0:
                raw = read_csv(block.encode(), sign, "utf-8", name=path.name, needed=columns)
                raw = replace(raw, choices=(*([chosen] if chosen else []), *raw.choices))
                told = {one.key: one.setting for one in raw.choices}
                usual = "tab" if path.suffix.lower() == ".tsv" else ","
                sign = str(told.get("data.separator") or separator or usual)
                columns = raw.columns
                header = _header(columns, "\t" if sign == "tab" else sign)
            else:
                raw = read_csv((header + block).encode(), sign, "utf-8", needed=columns)
                raw = _further(raw, num_lines - 1)
            yield raw
            num_lines += len(block.splitlines()) if "\n" not in block else block.count("\n")


def _cut(text: TextIO) -> Iterator[str]:
    """Yields a text in blocks that end with a row: at a line's end outside of quotes."""
    held = ""
    while more := text.read(BLOCK_CHARACTERS):
        held += more
        end = held.rfind("\n") + 1
        while end and held.count('"', 0, end) % 2:
            end = held.rfind("\n", 0, end - 1) + 1
        if not end and len(held) >= _MOST_BLOCKS * BLOCK_CHARACTERS:
            end = held.rfind("\n") + 1 or len(held)
        if end:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _header(columns: Sequence[str], sign: str) -> str:
    quoted = ['"' + name.replace('"', '""') + '"' for name in columns]
    return sign.join(quoted) + "\n"


def _further(raw: RawTable, num_lines: int) -> RawTable:
    """Returns rows with the places that they have in the whole file."""

    def there(place: str) -> str:
        return re.sub(r"[0-9]+", lambda found: str(int(found[0]) + num_lines), place)

    refused = tuple(replace(one, item_id=there(one.item_id)) for one in raw.refused)
    return replace(raw, places=[*map(there, raw.places)], refused=refused, choices=())


def _parquet_blocks(
    path: Place, needed: Sequence[str], further: Sequence[str] | None
) -> Iterator[RawTable]:
    """Yields the rows of a Parquet file, a part of a row group at a time."""
    with open_parquet(path) as (opened, _):
        check_names(opened.schema_arrow.names)
        kept, choices = plain_columns(opened.schema_arrow, used=needed)
        if further is not None:
            kept, choices = list(further), ()
        columns = [name for name in opened.schema_arrow.names if name in {*needed, *kept}]
        whole = {name: whole_numbers(opened, name) for name in columns}
        start = 0
        for values in read_blocks(opened, columns, str(path), BLOCK_ROWS):
            texts = [texts_of(values[name], whole=whole[name]) for name in columns]
            rows = [list(row) for row in zip(*texts, strict=True)]
            places = [f"row {start + i + 1}" for i in range(len(rows))]
            yield RawTable(columns, rows, places, choices=choices)
            start += len(rows)
