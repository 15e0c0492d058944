"""A table of products in any of the usual formats, with their pictures beside it."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice
from visual_search.catalog.identity import PRODUCT, PictureIds, picture_id
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.category_levels import with_levels
from visual_search.catalog.readers.columns import (
    NotFoundOutError,
    find_columns,
    no_header,
    rows_may_be_pictures,
)
from visual_search.catalog.readers.delimited import RawTable
from visual_search.catalog.readers.listings import Items, check_columns, taken_choice
from visual_search.catalog.readers.products import (
    Columns,
    IsThere,
    Product,
    is_url,
    products_of,
    roles_told,
    told_of_pictures,
)
from visual_search.catalog.readers.shop_exports import recognised
from visual_search.catalog.readers.sources import FileSource, stem_of
from visual_search.catalog.readers.table_files import find_table, read_table_file
from visual_search.catalog.readers.url_pictures import pictures_of_urls
from visual_search.storage.uris import Place, place_of

ADVICE = (
    "name its columns by data.item_id, data.image (or data.image_pattern), data.category, "
    "data.group, data.product, data.split, data.attributes"
)


@builder("data")
def table(
    path: str | os.PathLike[str],
    item_id: str = "item_id",
    image: str | Sequence[str] = "image",
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
    further_pictures: bool = True,
    product: str | None = None,
    category_depth: int | None = None,
    download: bool | Mapping[str, object] = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Returns the catalogue of a table whose columns the caller names, or are found out.

    Where the table has no column of a usual name (``item_id``, ``image``, ``category``) and no
    other is named, all that is not named is found out and said: see `find_columns`.

    Every value stays the text that it is: ids keep leading zeros, ``NA`` is no missing value; an
    integer or a whole number of a Parquet column becomes ``"12"``, a null ``""``. Categories, and
    splits, lose the white space around them.

    Args:
        path: A ``.csv``, ``.tsv``, ``.tab`` or ``.txt`` of separated fields, as `read_csv` reads
            them; JSON lines (``.jsonl``, ``.ndjson``) or a list of objects (``.json``); each of
            these packed (``.gz``); an ``.xlsx`` or ``.xlsm`` workbook; a ``.parquet`` file; or a
            folder or ``.zip`` that holds one.
        item_id: Column of the ids; an id names one item, the first row with it wins.
        image: Column of the picture paths, relative to the table, separated by ``/``; or several
            columns. The paths may not leave the folder of the table (or the folder or zip given as
            ``path``); an absolute one has to lie below it. A product may have several, in a cell,
            in columns or in further rows of its id.
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
        further_pictures: Read all pictures of a product: each is an item, the first with the
            product's id, the next with ``<id>~2``, and an attribute ``product`` holds the
            product's id; where no group is named, a product is one. False reads the first.
        product: Column of the product that each row is a picture of, where rows are pictures: the
            first has the product's id, the next ``<id>~2``, and each keeps the category and the
            attributes of its row. An empty value makes the row a product itself.
        category_depth: Of categories that are paths, as ``Women > Shoes > Boots``: the level that
            is the category; see `with_levels`.
        download: Whether to fetch pictures whose URLs stand in the table, into a folder beside it,
            where they are read from then on; or settings of `DownloadSettings`, which mean yes.
        on_progress: Called with how many pictures of how many are fetched.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of
            fields than the header, an id twice, an empty id or category, a picture that is missing
            or unsafe, an unknown split.
        ValueError: ``path`` holds no table, or several and ``table_name`` names none of them; the
            table lacks a column or none can be taken for it, names one twice, is to keep a column
            as an attribute whose name the catalogue uses itself, or is not readable; no row is
            good; ``product`` is named and further pictures are not to be read; or ``on_bad_item``
            is another word.
    """
    check_on_bad_item(on_bad_item)
    asked = TableSettings(
        place_of(path), item_id, image, category, group, split, product, attributes, image_pattern,
        table_name, separator, encoding, further_pictures, download, on_progress,
    )  # fmt: skip
    file = open_table(asked)
    roles = find_roles(file, asked, lambda kept: _whole(file, asked, kept))
    items = items_of(roles.raw, roles, file, asked)
    items.choices = (*roles.raw.choices, *roles.choices, *items.choices)
    catalog = items.conclude(name or file.name, on_bad_item=on_bad_item, origin=file.origin)
    return with_levels(catalog, category_depth)


@dataclass(frozen=True)
class TableSettings:
    """What `table` is told of a table, under the same names."""

    path: Place
    item_id: str
    image: str | Sequence[str]
    category: str
    group: str | None
    split: str | None
    product: str | None
    attributes: Sequence[str] | None
    image_pattern: str | None
    table_name: str | None
    separator: str | None
    encoding: str | None
    further_pictures: bool
    download: bool | Mapping[str, object]
    on_progress: Callable[[int, int], None] | None


@dataclass(frozen=True)
class TableFile:
    """A table, opened, and what is told of its columns.

    Attributes:
        source: Where it and its pictures lie.
        inner: Its path there.
        origin: What is read, for messages.
        name: The catalogue's, unless another is given.
        told: Its columns, as they are told or usual.
    """

    source: FileSource
    inner: str
    origin: str
    name: str
    told: Columns

    @property
    def base(self) -> str:
        """What pictures' paths are relative to, below the source's root."""
        return str(PurePosixPath(self.inner).parent)

    @property
    def needed(self) -> list[str]:
        """The columns that it is to have."""
        told = self.told
        further = [one for one in (told.group, told.split, told.product) if one is not None]
        return [told.item_id, told.category, *told.images, *further]

    def is_there(self, text: str) -> bool:
        """Returns whether a path, as the table writes it, is that of a picture."""
        try:
            return self.source.problem(self.source.below(text, self.base)) is None
        except ValueError:
            return False


@dataclass(frozen=True)
class Roles:
    """Which columns of a table say what.

    Attributes:
        raw: The rows that this was found by.
        columns: By their roles.
        attributes: Those that are kept.
        choices: What was found out.
        is_export: Whether rows are brought into shape by the shop system that exported them.
    """

    raw: RawTable
    columns: Columns
    attributes: tuple[str, ...]
    choices: tuple[Choice, ...]
    is_export: bool


def open_table(asked: TableSettings) -> TableFile:
    """Returns the table's file.

    Raises:
        FileNotFoundError: Nothing is at the path.
        ValueError: It holds no table, or several; or what is told does not go together.
    """
    source, inner = find_table(asked.path, asked.table_name)
    origin = f"{asked.path}" if asked.path.name == inner else f"{asked.path} ({inner})"
    images = (asked.image,) if isinstance(asked.image, str) else tuple(asked.image)
    if not images:
        raise ValueError("data.image names no column; expected one or several, as data.image=image")
    if asked.image_pattern is not None:
        images = tuple(_pattern_columns(asked.image_pattern))
    product, item_id = asked.product, asked.item_id
    if product is not None and not asked.further_pictures:
        raise ValueError(
            f"data.product is {product!r} and data.further_pictures is false; expected one of "
            "them: the first makes pictures of one product of rows, the second reads one picture "
            "of each"
        )
    if product is not None and item_id == _USUAL_NAMES["item_id"]:
        item_id = product  # its pictures are named after it, and need no ids of their own
    told = Columns(
        item_id, images, asked.category, asked.group, asked.split, asked.image_pattern, product
    )
    return TableFile(source, inner, origin, stem_of(asked.path), told)


def _whole(file: TableFile, asked: TableSettings, kept: Sequence[str] | None) -> RawTable:
    try:
        return read_table_file(
            file.source,
            file.inner,
            file.origin,
            separator=asked.separator,
            encoding=asked.encoding,
            needed=file.needed,
            attributes=kept,
        )
    except ValueError as error:
        raise ValueError(f"the table {file.inner!r} in {file.source!r}: {error}") from error


def find_roles(
    file: TableFile, asked: TableSettings, read: Callable[[Sequence[str] | None], RawTable]
) -> Roles:
    """Returns which columns say what, told or found out.

    Args:
        file: The table.
        asked: What is told of it.
        read: Gives its rows, or the first; of Parquet with the columns that are needed and these
            alone, or all where they are None.

    Raises:
        ValueError: A column is missing or none can be taken for it, or an attribute has a name that
            the catalogue uses itself.
    """
    told, attributes, origin = file.told, asked.attributes, file.origin
    raw = read(attributes)
    left = {role for role, name in _USUAL_NAMES.items() if _is_left(name, told, raw)}
    if left and attributes is not None:
        raw = read(None)  # of Parquet what may be taken for them was not read
    choices: tuple[Choice, ...] = ()
    is_export = False
    export = recognised(raw, file.is_there)
    if export is not None and not left:
        is_export = (export.columns.item_id, export.columns.category) == (
            asked.item_id,
            asked.category,
        )
        raw, choices = (export.raw, export.choices) if is_export else (raw, ())
    elif export is not None and len(left) == len(_USUAL_NAMES):
        its, group, split = export.columns, told.group, told.split  # but for what was named
        own = replace(its, group=None if group else its.group, split=None if split else its.split)
        raw, is_export = export.raw, True
        choices = (*export.choices, *roles_told(own, f"as {export.name} has it"))
        told = replace(its, group=group or its.group, split=split or its.split)
    elif left:
        told, choices = _found_out(told, left, raw, origin, file.source, file.is_there, file.base)
    if not left and attributes is None:
        told, named = _by_their_own_name(told, raw)
        choices += named
    check_columns(raw.columns, [*named_columns(told), *(attributes or [])], origin, ADVICE)
    if export is None and asked.further_pictures:
        choices += rows_may_be_pictures(raw, told, file.is_there)
    if attributes is None:
        attributes = [name for name in raw.columns if name not in named_columns(told)]
        choices += taken_choice(attributes)
        attributes = [name for name in attributes if name not in REQUIRED_COLUMNS]
    attributes = tuple(dict.fromkeys(attributes))
    _check_attributes(attributes, origin)
    return Roles(raw, told, attributes, choices, is_export)


def items_of(
    raw: RawTable,
    roles: Roles,
    file: TableFile,
    asked: TableSettings,
    several: bool | None = None,
) -> Items:
    """Returns the items of a table's rows, and with them what is to be said of these.

    Args:
        raw: All rows, or some.
        roles: Of its columns.
        file: The table.
        asked: What is told of it.
        several: Whether products have several pictures, and a column of their own; None: where some
            of these rows say so.
    """
    told, attributes = roles.columns, roles.attributes
    products, rows = products_of(raw, told, attributes, file.is_there)
    if several is None:
        several = _show_several(products, told, asked)
    shown = [one.pictures[: None if several else 1] for one in products]
    urls = sorted({picture for pictures in shown for picture in pictures if is_url(picture)})
    of_urls = pictures_of_urls(urls, file.source, file.inner, asked.download, asked.on_progress)
    choices = rows
    if told.product is None:
        choices += told_of_pictures(products, read=asked.further_pictures)
    choices += of_urls.choices
    kept = [name for name in attributes if not (several and name == PRODUCT)]
    if len(kept) < len(attributes):
        why = "a column of that name says whose picture an item is"
        choices += (Choice("", f"the column {PRODUCT!r} is not kept", why),)

    items = Items(file.source, [*kept, *([PRODUCT] * several)], choices, raw.refused, file.base)
    ids = PictureIds()
    for one, pictures in zip(products, shown, strict=True):
        texts = dict(zip(attributes, one.attributes, strict=True))
        whose = one.of if one.of.strip() else one.item_id
        for number, picture in enumerate(pictures or ("",), start=1):
            own_id = picture_id(whose, number) if told.product is None else ids.of_next(whose)
            if picture in of_urls.problems:
                items.refuse(one.place, own_id, picture, of_urls.problems[picture])
                continue
            items.add(
                one.place,
                item_id=own_id,
                image=of_urls.names.get(picture, picture),
                category=one.category,
                group=one.group or whose,
                split=one.split,
                attributes=[*(texts[name] for name in kept), *([whose] * several)],
            )
    further = [column for column in kept if items.holds_pictures(column)]
    if further:
        why = "they name pictures, and an item has the one of data.image"
        items.choices += (Choice("", f"the pictures of column(s) {further} are not read", why),)
    return items


def has_several(roles: Roles, file: TableFile, asked: TableSettings) -> bool:
    """Returns whether products have several pictures, by the rows that the roles were found by."""
    products, _ = products_of(roles.raw, roles.columns, roles.attributes, file.is_there)
    return _show_several(products, roles.columns, asked)


def _show_several(products: Sequence[Product], told: Columns, asked: TableSettings) -> bool:
    of_rows = told.product is not None
    return asked.further_pictures and (of_rows or any(len(one.pictures) > 1 for one in products))


_USUAL_NAMES = {"item_id": "item_id", "images": "image", "category": "category"}


def named_columns(columns: Columns) -> list[str]:
    """Returns the columns that say something, each once."""
    more = (columns.group, columns.split, columns.product)
    further = [name for name in more if name is not None]
    return list(dict.fromkeys([columns.item_id, columns.category, *columns.images, *further]))


def _is_left(usual: str, told: Columns, raw: RawTable) -> bool:
    """Returns whether a column has its usual name, which nobody need have given, and is missing."""
    if usual in raw.columns:
        return False
    if usual == "image":
        return told.image_pattern is None and told.images == (usual,)
    return usual in (told.item_id, told.category)


def _found_out(
    told: Columns,
    left: Collection[str],
    raw: RawTable,
    origin: str,
    source: FileSource,
    is_there: IsThere,
    base: str,
) -> tuple[Columns, tuple[Choice, ...]]:
    """Returns the columns with those that nobody named, and says which these are.

    Raises:
        ValueError: None can be taken for one of them; or one that was named is missing.
    """
    if problem := no_header(raw.columns):
        raise ValueError(f"{origin}: {problem}; expected names of the columns: write them above it")
    named = Columns(
        "" if "item_id" in left else told.item_id,
        () if "images" in left else told.images,
        "" if "category" in left else told.category,
        told.group,
        told.split,
        told.image_pattern,
        told.product,
    )
    check_columns(raw.columns, [name for name in named_columns(named) if name], origin, ADVICE)
    try:
        return find_columns(raw, named, source, is_there, base)
    except NotFoundOutError as error:
        missing = [_USUAL_NAMES[role] for role in _USUAL_NAMES if role in left]
        advice = f"and {error}: {ADVICE}"
        check_columns(raw.columns, missing, origin, advice)
        raise


def _by_their_own_name(told: Columns, raw: RawTable) -> tuple[Columns, tuple[Choice, ...]]:
    """Returns the columns with a group and a split that are called so, which no attribute is."""
    unused = [name for name in raw.columns if name not in named_columns(told)]
    group = "group" if told.group is None and "group" in unused else told.group
    split = "split" if told.split is None and "split" in unused else told.split
    choices = [
        Choice(f"data.{role}", role, "it has that name", role)
        for role, before, now in (("group", told.group, group), ("split", told.split, split))
        if now is not None and now != before
    ]
    return replace(told, group=group, split=split), tuple(choices)


def _pattern_columns(pattern: str) -> list[str]:
    """Returns the columns that the picture path is made of."""
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
