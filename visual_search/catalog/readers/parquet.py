"""Parquet with the pictures inside: what Hugging Face gives for a data set of pictures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import (
    FLAGS,
    Items,
    check_columns,
    flags,
    left_out_choice,
    split_choice,
    split_of_name,
    split_of_word,
    taken_choice,
)
from visual_search.catalog.readers.parquet_columns import (
    TextBudget,
    open_parquet,
    plain_columns,
    read_columns,
    texts_of,
)
from visual_search.catalog.readers.parquet_source import ParquetFile, ParquetSource, list_pictures
from visual_search.catalog.readers.sources import files_below, is_file, local_files, stem_of
from visual_search.storage.uris import Place, place_of

if TYPE_CHECKING:
    import pyarrow

_QUERY = re.compile(r"(?<![a-z0-9])quer(y|ies)(?![a-z0-9])")
ADVICE = (
    "expected those that are named: name its columns by data.category, data.item_id, data.group, "
    "data.split, data.attributes"
)


@builder("data")
def parquet(
    path: str | os.PathLike[str],
    image: str = "image",
    category: str = "label",
    item_id: str | None = None,
    group: str | None = None,
    split: str | Literal[False] | None = None,
    attributes: Sequence[str] | None = None,
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
    files: Sequence[str] = (),
    sides: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Returns the catalogue of Parquet files that hold their pictures.

    Numbers that stand for names become the names, where the file has Hugging Face's list of them
    (``ClassLabel``); other values are the text that they are, nulls are empty, and the numbers of a
    column that are all whole are written so. Texts are bounded to 2 GiB. Pictures are read with
    their row group (of at most 2 GiB), never unpacked to the disk.

    Args:
        path: A ``.parquet`` file, or a folder with any number of them at any depth.
        image: The column of the pictures: bytes, or Hugging Face's struct of bytes and path.
        category: The column of the categories. A row with -1 for a name has none.
        item_id: The column of the ids; None numbers the rows of each file, as
            ``train-00000-of-00002.parquet#17``.
        group: The column of what must not be split; None makes each item a group of its own.
        split: The column of the splits; None takes them from the names of the files and folders
            (``train``, ``validation``, ``test``), where these say one, and says so; False takes
            none.
        attributes: Columns to keep; None keeps every other column of plain values that has no name
            which the catalogue uses itself.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.
        name: Name of the catalogue; the stem of ``path`` by default.
        files: Which files of a folder, by patterns of the end of their paths, as
            ``real_studio_flat/*``; all by default.
        sides: Whether files are the sides of a benchmark, for ``protocol=published``: those named
            ``query`` (or in a folder of that name) ask, the others are searched, whose names are
            ``gallery``, ``corpus`` or none of these. All are ``test`` where their names say no
            split.
        on_progress: Called with how many files of how many are copied from object storage.

    Raises:
        FileNotFoundError: Nothing is at ``path``, it is a folder without such a file, a pattern
            fits none, or none is of queries where ``sides`` is set.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: no picture, an empty or
            unknown category, an id that is empty or stands twice, an unknown split.
        ValueError: A file is not readable, lacks a column, has pictures or categories of another
            kind or too large a row group; an attribute has a name of the catalogue's; no row is
            good; or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    paths = local_files(parquet_paths(place_of(path), files), on_progress)
    asking = queries_of(paths) if sides else None
    if asking is not None and not asking:
        raise FileNotFoundError(
            f"data.sides=true, and none of the files is named query: {list(paths)[:10]}; expected "
            "one of queries: give the folder with it, or data.sides=false"
        )
    items = rows_of(
        paths,
        image=image,
        category=category,
        item_id=item_id,
        group=group,
        split=split,
        attributes=attributes,
        asking=asking,
        origin=str(path),
    )
    return items.conclude(name or stem_of(path), on_bad_item=on_bad_item, origin=str(path))


def queries_of(names: Iterable[str]) -> set[str]:
    """Returns the files whose names, or folders' names, say that they hold queries."""
    return {name for name in names if _QUERY.search(name.lower())}


def rows_of(
    paths: Mapping[str, Place],
    *,
    image: str,
    category: str,
    item_id: str | None,
    group: str | None,
    split: str | Literal[False] | None,
    attributes: Sequence[str] | None,
    asking: Collection[str] | None,
    origin: str,
) -> Items:
    """Returns the items of some files, by the names that these have below the data's folder.

    The others are the arguments of `parquet`.

    Args:
        paths: The files by name.
        image: As of `parquet`; so are the next five.
        category: The same.
        item_id: The same.
        group: The same.
        split: The same.
        attributes: The same.
        asking: Which of the files hold queries; None where there are no sides.
        origin: What is read, for messages.

    Raises:
        ValueError: A file is not readable, lacks a column, or has columns of another kind.
    """
    named = [category, *(column for column in (item_id, group) if column is not None)]
    named += [split] if isinstance(split, str) else []
    shards: dict[str, ParquetFile] = {}
    values: dict[str, list[object]] = {}
    names_of: dict[str, list[str]] = {}
    places: list[tuple[str, int, bool]] = []  # file, row and whether it has a picture
    choices: tuple[Choice, ...] = ()
    first: list[str] = []
    later: set[str] = set()
    budget = TextBudget(origin)
    for inner, file in paths.items():
        with open_parquet(file) as (opened, stamp):
            schema = opened.schema_arrow
            row_groups, empty = list_pictures(opened, image, str(file))
            if attributes is None:
                plain, choices = plain_columns(schema, used=[image])
                first = schema.names
                choices += taken_choice(name for name in plain if name not in named)
                attributes = [name for name in plain if name not in (*named, *REQUIRED_COLUMNS)]
            columns = list(dict.fromkeys([*named, *attributes]))
            later |= set(schema.names) - set(first or schema.names)
            check_columns(schema.names, columns, str(file), ADVICE)
            for column, found in read_columns(opened, columns, str(file), budget).items():
                values.setdefault(column, []).extend(found)
            names_of |= _class_labels(schema)
        shards[inner] = ParquetFile(file, row_groups, stamp)
        places += [(inner, row, row not in empty) for row in range(sum(row_groups))]
    # of all files together: whether a column is of whole numbers must not hang on the shard
    texts = {column: _named(found, names_of.get(column)) for column, found in values.items()}
    file_splits = {inner: split_of_name(inner) if split is None else "" for inner in paths}
    choices += left_out_choice(later, "the first file lacks them")
    choices += split_choice(file_splits)
    if asking is not None and split is None:
        file_splits = {inner: one or "test" for inner, one in file_splits.items()}

    source = ParquetSource(shards, image)
    items = Items(source, [*(attributes or ()), *(FLAGS if asking is not None else ())], choices)
    for place, (inner, number, has_picture) in enumerate(places):
        row = {column: found[place] for column, found in texts.items()}
        where, picture = f"{inner}, row {number}", f"{inner}#{number}"
        said = split_of_word(row[split]) if isinstance(split, str) else file_splits[inner]
        row_id = picture if item_id is None else row[item_id]
        if not has_picture:
            items.refuse(where, row_id, picture, "the row holds no picture; leave it out")
        else:
            items.add(
                where,
                item_id=row_id,
                image=picture,
                category=row[category],
                group=row[group] if group is not None else "",
                split=said,
                attributes=[
                    *(row[column] for column in attributes or ()),
                    *(flags(inner in asking, inner not in asking) if asking is not None else ()),
                ],
            )
    return items


def parquet_paths(path: Place, patterns: Sequence[str]) -> dict[str, Place]:
    """Returns the files by their name below ``path``, sorted."""
    if is_file(path):
        return {path.name: path}
    if isinstance(path, Path) and not path.exists():
        raise FileNotFoundError(f"nothing at {path.absolute()}; give a Parquet file or a folder")
    found = files_below(path, ".parquet")
    if not found:
        raise FileNotFoundError(f"no .parquet file in {path}; give the folder with them")
    for pattern in patterns:
        if not any(PurePosixPath(name).match(pattern) for name in found):
            raise FileNotFoundError(
                f"data.files names {pattern!r}, which fits none of {list(found)[:10]} in "
                f"{path}; expected the end of a path, as 'gallery/*.parquet'"
            )
    return {
        name: file
        for name, file in found.items()
        if not patterns or any(PurePosixPath(name).match(pattern) for pattern in patterns)
    }


def _named(values: Sequence[object], names: Sequence[str] | None) -> list[str]:
    """Returns the texts of a column, or the names that its numbers stand for."""
    if names is None:
        return texts_of(values)
    # -1 is what unlabelled rows hold; Python would take the last name
    found = [
        names[value] if isinstance(value, int) and 0 <= value < len(names) else value
        for value in values
    ]
    return ["" if isinstance(each, int) or each is None else str(each) for each in found]


def _class_labels(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Returns the names that numbers stand for, by column, as Hugging Face's metadata has them."""
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
