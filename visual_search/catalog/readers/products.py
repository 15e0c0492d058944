"""What a table says of its products: each with all of its pictures, in order.

A product may have several pictures: in a cell that lists them, in several columns, in further rows
of its id. `Product.pictures` holds them all, and each becomes an item: the first with the product's
id, the next with ``<id>~2``, beside the product's id in a column of its own. Or each row is an
item, and a column names the product that it is a picture of: `Product.of`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from visual_search.catalog.catalog import Choice
from visual_search.catalog.readers.delimited import RawTable
from visual_search.catalog.readers.listings import split_of_word
from visual_search.wording import many

# What names a picture, whether or not it is there; each is decoded: see `catalog.images`.
PICTURE_SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png"),
        *(".tif", ".tiff", ".webp"),
    }
)
_URL = re.compile(r"(https?:)?//[^/\s]\S*", re.IGNORECASE)  # exports leave the scheme out

IsThere = Callable[[str], bool]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what.

    Attributes:
        item_id: The id.
        images: The pictures; several columns are read in this order. With a pattern, its columns.
        category: The category.
        group: What must not be split; None where each item is its own.
        split: The split, or None.
        image_pattern: Builds a picture's path of other columns, in the place of ``images``.
        product: The product that a row is a picture of; None where a row is a product.
    """

    item_id: str
    images: tuple[str, ...]
    category: str
    group: str | None = None
    split: str | None = None
    image_pattern: str | None = None
    product: str | None = None


@dataclass(frozen=True)
class Product:
    """What a table says of one product, or of one row that is a picture of it.

    Attributes:
        place: Where it stands, as ``line 12``; of several rows the first.
        item_id: The id.
        pictures: Paths or URLs as they are written, in the table's order, each once; none where the
            table names none.
        category: As it is written.
        group: As it is written; empty where there is none.
        split: ``train``, ``val`` or ``test``, another word, or nothing.
        attributes: One text for each of the attribute columns.
        of: The product that it is a picture of; empty where it is one itself.
    """

    place: str
    item_id: str
    pictures: tuple[str, ...]
    category: str
    group: str
    split: str
    attributes: tuple[str, ...]
    of: str = ""


def roles_told(columns: Columns, why: str) -> tuple[Choice, ...]:
    """Returns a choice for each column that says something, all for the same reason.

    Example:
        >>> print(*roles_told(Columns("sku", ("a", "b"), "type"), "by name"), sep="; ")
        data.item_id=sku (by name); data.image=[a,b] (by name); data.category=type (by name)
    """
    images = columns.images if len(columns.images) > 1 else columns.images[0]
    settings = (
        ("item_id", columns.item_id),
        ("image", images),
        ("category", columns.category),
        ("group", columns.group),
        ("split", columns.split),
    )
    return tuple(role_told(role, setting, why) for role, setting in settings if setting is not None)


def role_told(role: str, setting: str | tuple[str, ...], why: str) -> Choice:
    """Returns the choice of the column, or columns, of a role."""
    shown = setting if isinstance(setting, str) else f"[{','.join(setting)}]"
    return Choice(f"data.{role}", shown, why, setting)


def products_of(
    raw: RawTable, columns: Columns, attributes: Sequence[str], is_there: IsThere
) -> tuple[list[Product], tuple[Choice, ...]]:
    """Returns the products of a table, and what to say of rows that are no product of their own.

    A row with the id of another above it that has no category, or nothing but another picture, is
    a further row of that product: exports write one for each picture.

    Args:
        raw: The table.
        columns: Which of its columns say what.
        attributes: The columns to keep.
        is_there: Whether a path is that of a picture.
    """
    found: list[Product] = []
    first: dict[str, int] = {}
    num_rows = num_pictures = 0
    for row, (place, texts) in enumerate(raw.named()):
        product = Product(
            place,
            texts[columns.item_id],
            tuple(dict.fromkeys(_pictures_of(raw, row, texts, columns, is_there))),
            texts[columns.category],
            texts[columns.group] if columns.group is not None else "",
            split_of_word(texts[columns.split]) if columns.split is not None else "",
            tuple(texts[name] for name in attributes),
            texts[columns.product] if columns.product is not None else "",
        )
        at = (
            first.setdefault(product.item_id, len(found)) if product.item_id.strip() else len(found)
        )
        if at == len(found) or not _continues(product, found[at]):
            found.append(product)
            continue
        whole = tuple(dict.fromkeys([*found[at].pictures, *product.pictures]))
        num_rows += 1
        num_pictures += len(whole) - len(found[at].pictures)
        found[at] = replace(found[at], pictures=whole)
    if not num_rows:
        return found, ()
    why = f"they repeat its id without a category of their own, and name {num_pictures:,} more"
    told = f"{many(num_rows, 'row')} read as further pictures of the product above"
    return found, (Choice("", told, f"{why} pictures"),)


def told_of_pictures(products: Sequence[Product], *, read: bool) -> tuple[Choice, ...]:
    """Returns what to say of products with several pictures; nothing where there are none.

    Args:
        products: All of them.
        read: Whether their further pictures are read.

    Example:
        >>> shoe = Product("line 2", "1", ("a.jpg", "b.jpg"), "Shoes", "", "", ())
        >>> print(*told_of_pictures([shoe], read=True))
        data.further_pictures=true (2 pictures of 1 product; false reads the first of each)
        >>> print(*told_of_pictures([shoe], read=False))
        1 further picture of 1 product is not read: data.further_pictures=false
    """
    counts = [len(product.pictures) for product in products if product.pictures]
    more = [number - 1 for number in counts if number > 1]
    if not more:
        return ()
    if read:
        what = f"{many(sum(counts), 'picture')} of {many(len(counts), 'product')}"
        why = f"{what}; false reads the first of each"
        return (Choice("data.further_pictures", "true", why),)
    what = f"{many(sum(more), 'further picture')} of {many(len(more), 'product')}"
    verb = "is" if sum(more) == 1 else "are"
    return (Choice("", f"{what} {verb} not read", "data.further_pictures=false"),)


def pictures_in(text: str, is_there: IsThere) -> list[str]:
    """Returns the pictures that a cell names: one, or a list with any of the usual signs between.

    A name that holds such a sign stays whole where there is a file of it, or where the parts are no
    pictures' names.

    Args:
        text: The cell.
        is_there: Whether a path is that of a picture.

    Example:
        >>> pictures_in("a.jpg|b.jpg", lambda path: False)
        ['a.jpg', 'b.jpg']
        >>> pictures_in("red, blue.jpg", lambda path: False)
        ['red, blue.jpg']
        >>> pictures_in('["https://x.example/1", "https://x.example/2"]', lambda path: False)
        ['https://x.example/1', 'https://x.example/2']
    """
    if not text.strip():
        return []
    if not re.search(r"[|;,\s]", text) or is_there(text):
        return [text]
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return [one for one in listed if one.strip()]
    for sign in (r"\s*\n\s*", r"\s*\|\s*", r"\s*;\s*", r"\s*,\s*", r"\s+"):
        parts = [part for part in re.split(sign, text.strip()) if part]
        if len(parts) < 2:
            continue
        # of URLs all parts are some; blanks stand in names, too
        urls = [is_url(part) for part in parts]
        known = is_there if sign == r"\s+" and not all(urls) else _may_be_one(is_there)
        if all(urls) or (not any(urls) and all(map(known, parts))):
            return parts
    return [text.strip()] if is_url(text.strip()) else [text]


def names_picture(text: str) -> bool:
    """Returns whether a text looks like the name of a picture, or is a URL.

    Example:
        >>> [names_picture(text) for text in ("a.JPG", "https://x.example/1.png?w=2", "9.90")]
        [True, True, False]
    """
    return is_url(text) or has_picture_suffix(text)


def is_url(text: str) -> bool:
    """Returns whether a text is an http or https URL, with its scheme or from ``//`` on."""
    return _URL.fullmatch(text) is not None


def has_picture_suffix(text: str) -> bool:
    """Returns whether a path or URL ends as pictures' names do, what follows a ``?`` aside.

    Example:
        >>> has_picture_suffix("https://x.example/a.jpeg?v=1"), has_picture_suffix("a.html")
        (True, False)
    """
    path = re.split(r"[?#]", text, maxsplit=1)[0] if is_url(text) else text
    dot = path.rfind(".")
    return dot > 0 and path[dot:].lower() in PICTURE_SUFFIXES


def _pictures_of(
    raw: RawTable, row: int, texts: dict[str, str], columns: Columns, is_there: IsThere
) -> Iterator[str]:
    if columns.image_pattern is not None:
        alone = columns.images[0] if len(columns.images) == 1 else ""
        listed = pictures_in(texts[alone], is_there) if alone else []
        for text in listed if len(listed) > 1 else [texts.get(alone, "")]:
            yield columns.image_pattern.format_map({**texts, alone: text})
        return
    for name in columns.images:
        if name in raw.lists:
            yield from (text for text in raw.lists[name][row] if text.strip())
        else:
            yield from pictures_in(texts[name], is_there)


def _may_be_one(is_there: IsThere) -> IsThere:
    return lambda text: names_picture(text) or is_there(text)


def _continues(row: Product, product: Product) -> bool:
    """Returns whether a row with a product's id says no more than a picture, or less."""
    if not row.category.strip():
        return bool(product.category.strip())
    same = replace(row, place=product.place, pictures=product.pictures) == product
    return same and bool(set(row.pictures) - set(product.pictures))
