"""What readers of published listings share: finding the files, and turning rows into items."""

from __future__ import annotations

import difflib
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

from visual_search.catalog.catalog import (
    REQUIRED_COLUMNS,
    SPLITS,
    Catalog,
    Choice,
    PictureSource,
    RefusedItem,
)
from visual_search.catalog.readers import OnBadItem, conclude
from visual_search.catalog.readers.delimited import MAX_TEXT_BYTES, RawTable, read_csv
from visual_search.catalog.readers.picture_names import is_clutter, safe_name
from visual_search.catalog.readers.sources import FileSource, is_file, open_source
from visual_search.storage.uris import place_of

MAX_LISTING_BYTES = MAX_TEXT_BYTES
_GZIP = 16 + zlib.MAX_WBITS
FLAGS = ("is_query", "is_gallery")  # the columns of `visual_search.retrieval.protocols.published`

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "testing": "test",
    "test": "test",
}
_SPLIT = re.compile(rf"(?<![a-z0-9])({'|'.join(_SPLIT_WORDS)})(?![a-z0-9])")


class CheckableSource(PictureSource, Protocol):
    """A source that can say, without reading it, why a picture cannot be loaded."""

    def problem(self, image: str) -> str | None:
        """Returns the reason, or ``None``."""
        ...


def find_file(source: FileSource, name: str, hint: str) -> str:
    """Returns the path of the file of this name below the root: the one that lies least deep.

    A published archive is unpacked in many ways, and some hold a second copy of everything one
    folder deeper; the least deep one is then the same.

    Args:
        source: Where to look.
        name: The file's name, without folders.
        hint: What to do when it is not there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Several lie equally deep.
    """
    places = [
        path for path in source.names() if path.split("/")[-1] == name and not is_clutter(path)
    ]
    if not places:
        raise FileNotFoundError(f"there is no {name} in {source!r}; {hint}")
    depth = min(path.count("/") for path in places)
    nearest = [path for path in places if path.count("/") == depth]
    if len(nearest) > 1:
        raise ValueError(
            f"{name} stands {len(nearest)} times in {source!r}, as {nearest[:5]}; expected one: "
            "give the folder that holds the one to read"
        )
    return nearest[0]


def read_listing(source: FileSource, inner: str) -> bytes:
    """Returns the bytes of a listing of up to 2 GiB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger, or a damaged member of a zip.
    """
    return source.read(inner, MAX_LISTING_BYTES)


def listing_at(path: str | os.PathLike[str], expected: str) -> bytes:
    """Returns the bytes of a listing of up to 2 GiB.

    Args:
        path: Of the file, or its address on object storage.
        expected: What it should be, for messages.

    Raises:
        FileNotFoundError: No file is there.
        ValueError: It is larger.
        StorageError: Object storage does not answer, or refuses.
    """
    place = place_of(path)
    if not is_file(place):
        raise FileNotFoundError(f"no file at {path}; give the path of {expected}")
    return open_source(place.parent).read(place.name, MAX_LISTING_BYTES)


def unpacked(data: bytes, origin: str) -> bytes:
    """Returns what gzip packed, of one part or several, never more than 2 GiB; other data as it is.

    Raises:
        ValueError: It is more, or damaged.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    found = bytearray()
    while data:
        opened = zlib.decompressobj(_GZIP)
        try:
            found += opened.decompress(data, MAX_LISTING_BYTES + 1 - len(found))
        except zlib.error as error:
            raise ValueError(f"{origin} is damaged ({error}); fetch it again") from error
        if len(found) > MAX_LISTING_BYTES:
            raise ValueError(
                f"{origin} unpacks to over {MAX_LISTING_BYTES / 2**30:.1f} GiB; expected at most "
                "that: split it"
            )
        if not opened.eof:
            raise ValueError(f"{origin} is damaged (it ends early); fetch it again")
        data = opened.unused_data.lstrip(b"\0")  # padding, as of tapes
    return bytes(found)


def read_text(source: FileSource, inner: str) -> str:
    """Returns the text of a listing in UTF-8, a byte order mark removed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not UTF-8, larger than 2 GiB, or a damaged member of a zip.
    """
    data = read_listing(source, inner)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} of {inner!r} in {source!r} is not UTF-8 (byte {data[error.start]:#04x}); "
            "save it as UTF-8"
        ) from error


def check_columns(
    columns: Sequence[str],
    needed: Sequence[str],
    origin: str,
    advice: str = "expected the file as it is published: fetch it again, or read it with "
    "data=table",
) -> None:
    """Refuses a listing that lacks one of the columns it is to have.

    Args:
        columns: What it has.
        needed: What it is to have; by default what it is published with.
        origin: What was read, for messages.
        advice: What was expected, and what to do.

    Raises:
        ValueError: Names the missing ones, what there is, and the nearest name.
    """
    missing = [column for column in needed if column not in columns]
    if missing:
        lower = {name.lower(): name for name in columns}
        near = difflib.get_close_matches(missing[0].lower(), lower, n=1)
        hint = f", the nearest is {lower[near[0]]!r}" if near else ""
        raise ValueError(
            f"{origin} has no column {missing}; it has {list(columns)}{hint}; {advice}"
            f"{separator_hint(columns)}"
        )


def read_csv_listing(
    source: FileSource,
    inner: str,
    origin: str,
    needed: Sequence[str],
    separator: str | None,
    encoding: str | None,
    mend: Callable[[str, int, str], list[str]] | None = None,
) -> RawTable:
    """Returns the rows of a published CSV, packed by gzip or not, with the columns it is to have.

    Args:
        source: Where it lies.
        inner: Its path there.
        origin: What is read, for messages.
        needed: Its columns.
        separator: As of `read_csv`; so are the next two.
        encoding: The same.
        mend: The same.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or lacks a column.
    """
    try:
        data = unpacked(read_listing(source, inner), inner)
        raw = read_csv(data, separator, encoding, name=inner, needed=needed, mend=mend)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error
    check_columns(raw.columns, needed, origin)
    return raw


def separator_hint(columns: Sequence[str]) -> str:
    """Returns what to do where a table was not cut into columns, nothing where it was."""
    if len(columns) > 1:
        return ""
    return "; where another sign separates its fields, give it by data.separator"


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a value that is not one of the choices.

    Raises:
        ValueError: It is another.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{argument} is {value!r}; expected one of {list(choices)}{hint}")


def join(base: PurePosixPath, *parts: str) -> str:
    """Returns the path below a folder of the source, which may be the root itself.

    Example:
        >>> join(PurePosixPath("."), "images", "1.jpg")
        'images/1.jpg'
    """
    return str(base.joinpath(*parts))


def split_of_name(path: str) -> str:
    """Returns the split that a shard's name says, or its folders' names, the nearest first.

    Example:
        >>> split_of_name("data/train-00000-of-00002.parquet"), split_of_name("valid/0.tar")
        ('train', 'val')
        >>> split_of_name("trainers/contest.tar")
        ''
    """
    for part in reversed(path.lower().split("/")):
        found = _SPLIT.search(part)
        if found is not None:
            return _SPLIT_WORDS[found[1]]
    return ""


def left_out_choice(columns: Iterable[str], why: str) -> tuple[Choice, ...]:
    """Returns what to say of columns that are not read, nothing where there are none.

    Example:
        >>> print(*left_out_choice(["tags"], "they hold lists"))
        column(s) left out: tags: they hold lists
    """
    named = sorted(set(columns))
    shown = ", ".join(named[:20]) + (f" and {len(named) - 20} more" if len(named) > 20 else "")
    return (Choice("", f"column(s) left out: {shown}", why),) if named else ()


def taken_choice(columns: Iterable[str]) -> tuple[Choice, ...]:
    """Returns what to say of unused columns that are called as the catalogue calls its own."""
    taken = [column for column in columns if column in REQUIRED_COLUMNS]
    return left_out_choice(
        taken, "the catalogue uses these names itself; give one by its role, as data.split=split"
    )


def split_choice(split_of: Mapping[str, str]) -> tuple[Choice, ...]:
    """Returns what to say of splits that the names of files and folders decided.

    Example:
        >>> (chosen,) = split_choice({"a/train.tar": "train", "x.tar": ""})
        >>> chosen.why.partition(";")[0]
        "named by 1 of 2 file(s), train as in 'a/train.tar'"
    """
    first: dict[str, str] = {}
    for path, split in split_of.items():
        if split:
            first.setdefault(split, path)
    if not first:
        return ()
    number = sum(map(bool, split_of.values()))
    shown = ", ".join(f"{split} as in {path!r}" for split, path in first.items())
    why = (
        f"named by {number:,} of {len(split_of):,} file(s), {shown}; data.split=false reads none "
        "from names"
    )
    return (Choice("data.split", "null", why),)


def attribute_column(kind: str, taken: Collection[str] = ()) -> str:
    """Returns what the column of a kind of attribute is called, as one types it.

    Args:
        kind: As the data names it.
        taken: Names of other columns; those of the catalogue's own are taken in any case.

    Example:
        >>> attribute_column("textile finishing, techniques"), attribute_column("Category")
        ('textile_finishing_techniques', 'category_attribute')
        >>> attribute_column("")
        'attributes'
    """
    plain = re.sub(r"\W+", "_", kind.lower()).strip("_") or "attributes"
    return f"{plain}_attribute" if plain in {*REQUIRED_COLUMNS, *taken} else plain


def flags(is_query: bool, is_gallery: bool) -> tuple[str, str]:
    """Returns what stands in the columns `FLAGS` of an item.

    Example:
        >>> dict(zip(FLAGS, flags(True, False)))
        {'is_query': '1', 'is_gallery': '0'}
    """
    return str(int(is_query)), str(int(is_gallery))


def split_of_word(word: str) -> str:
    """Returns the split that a word means; a word that means none stays as it is.

    Example:
        >>> split_of_word(" Validation"), split_of_word("extra")
        ('val', 'extra')
    """
    word = word.strip()
    return _SPLIT_WORDS.get(word.lower(), word)


class Items:
    """Collects the items of a listing, and names those that cannot be one.

    Args:
        pictures: Where the pictures are; asked whether each is there, none is read.
        attributes: Names of the attribute columns.
        choices: What the reader found out or chose by itself.
        refused: What could not be read as a row.
        folder: What the paths of pictures are relative to, below the source's root.

    Attributes:
        columns: Texts of the good items, by column.
        refused: The others.
        choices: What is to be said.

    Raises:
        ValueError: An attribute has a name that the catalogue uses itself, or stands twice.
    """

    def __init__(
        self,
        pictures: CheckableSource,
        attributes: Sequence[str] = (),
        choices: Sequence[Choice] = (),
        refused: Sequence[RefusedItem] = (),
        folder: str | None = None,
    ) -> None:
        taken = sorted({c for c in attributes if c in REQUIRED_COLUMNS or attributes.count(c) > 1})
        if taken:
            raise ValueError(
                f"the column(s) {taken} cannot be attributes: expected each name once, and none of "
                f"{list(REQUIRED_COLUMNS)}, which the catalogue uses itself; rename them in the "
                "listing"
            )
        self._pictures = pictures
        self._folder = folder
        self._attributes = tuple(attributes)
        self.columns: dict[str, list[str]] = {
            column: [] for column in (*REQUIRED_COLUMNS, *self._attributes)
        }
        self._seen: dict[str, str] = {}
        self.choices = tuple(choices)
        self.refused = list(refused)

    def refuse(self, place: str, item_id: str, image: str, reason: str) -> None:
        """Leaves a row out, because of ``reason``; ``place`` tells where it stands."""
        self.refused.append(RefusedItem(item_id or place, image, f"{place}: {reason}"))

    def add(
        self,
        place: str,
        *,
        item_id: str,
        image: str,
        category: str,
        group: str = "",
        split: str = "",
        attributes: Sequence[str] = (),
        fragment: str = "",
    ) -> None:
        """Takes a row as an item, unless something about it cannot be used.

        Args:
            place: Where the row stands, as ``line 12``.
            item_id: The id; the first row with it wins.
            image: The picture's path below the source's root.
            category: Its category; white space around it goes.
            group: Its group; the item id where it is empty.
            split: A split, or nothing; a row with another word is refused.
            attributes: One text for each of the attribute columns.
            fragment: What follows the path in the name of the picture: the box of a crop.
        """
        category = category.strip()
        reason: str | None = None
        if not item_id.strip():
            reason = "the id is empty"
        elif not category:
            reason = "the category is empty"
        elif item_id in self._seen:
            reason = f"the id stands in {self._seen[item_id]} already; an id names one item"
        elif split not in (*SPLITS, ""):
            reason = f"the split is {split!r}; expected one of {list(SPLITS)}, or nothing"
        else:
            try:
                image = self._below(image)
            except ValueError as error:
                reason = str(error)
            else:
                reason = self._pictures.problem(image)
                if reason and self._num_named(image) > 1:
                    reason += "; it names several pictures, and an item has one: give each a row"
        if reason is not None:
            self.refuse(place, item_id, image, reason)
            return
        self._seen[item_id] = place
        values = (item_id, image + fragment, category, group or item_id, split)
        for column, value in zip(REQUIRED_COLUMNS, values, strict=True):
            self.columns[column].append(value)
        for column, value in zip(self._attributes, attributes, strict=True):
            self.columns[column].append(value)

    def holds_pictures(self, column: str) -> bool:
        """Returns whether the first values of an attribute name pictures, one or several each."""
        values = self.columns[column]
        firsts = [re.split(r"[|;,]", value)[0].strip() for value in values if value.strip()]
        return bool(firsts) and all(
            "." in first and self._pictures.problem(f"{self._folder or '.'}/{first}") is None
            for first in firsts[:8]
        )

    def _below(self, image: str) -> str:
        if self._folder is not None and isinstance(self._pictures, FileSource):
            return self._pictures.below(image, self._folder)
        return safe_name(image)

    def _num_named(self, text: str) -> int:
        """Returns how many pictures a text names, if it is a list of them, else 0."""
        for sign in "|;,":
            names = [name.strip() for name in text.split(sign) if name.strip()]
            if len(names) > 1 and self._pictures.problem(names[0]) is None:
                return len(names)
        return 0

    def conclude(
        self,
        name: str,
        *,
        on_bad_item: OnBadItem,
        origin: str,
        source: PictureSource | None = None,
    ) -> Catalog:
        """Returns the catalogue, as `visual_search.catalog.readers.conclude` does.

        Args:
            name: Short name of the data.
            on_bad_item: ``error`` stops when there is a refused item, ``skip`` goes on.
            origin: What was read, for messages.
            source: Loads the pictures; those that were asked for by default.

        Raises:
            BadItemsError: Rows were refused and ``on_bad_item`` is ``error``.
            ValueError: No item is left.
        """
        return conclude(
            name,
            self.columns,
            self._pictures if source is None else source,
            self.refused,
            on_bad_item=on_bad_item,
            origin=origin,
            choices=self.choices,
        )
