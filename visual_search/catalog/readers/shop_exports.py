"""Exports of shop systems, known by the names of their columns.

Each says what its columns mean, and which of its rows are one product: variants, translations and
further pictures have rows of their own. Names are compared without capitals and signs, as
``image link`` and ``image_link`` are both written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from visual_search.catalog.catalog import Choice
from visual_search.catalog.readers.delimited import RawTable
from visual_search.catalog.readers.products import Columns, IsThere, pictures_in
from visual_search.wording import many

# Where Magento keeps pictures, below what its export names.
_MAGENTO_FOLDERS = ("", "catalog/product/", "media/catalog/product/", "pub/media/catalog/product/")
_NO_PICTURE = "no_selection"  # Magento's


@dataclass(frozen=True)
class Export:
    """What is known of an export by its columns.

    Attributes:
        name: Of the shop system.
        columns: Which of them say what.
        raw: The same table with a row for each product.
        choices: What to say of it.
    """

    name: str
    columns: Columns
    raw: RawTable
    choices: tuple[Choice, ...]


def recognised(raw: RawTable, is_there: IsThere) -> Export | None:
    """Returns what is known of a table by the names of its columns; None where they are no shop's.

    Args:
        raw: The table.
        is_there: Whether a path, as the table writes it, is that of a picture.

    Example:
        >>> columns = ["Handle", "Title", "Vendor", "Type", "Image Src"]
        >>> rows = [["hat", "A hat", "Acme", "Hats", "1.jpg"], ["hat", "", "", "", "2.jpg"]]
        >>> export = recognised(RawTable(columns, rows, ["line 2", "line 3"]), lambda path: True)
        >>> export.name, export.columns.category, export.raw.lists
        ('Shopify', 'Type', {'Image Src': [('1.jpg', '2.jpg')]})
    """
    names: dict[str, str] = {}
    for name in raw.columns:
        names.setdefault(re.sub(r"[^a-z0-9]+", "", name.lower()), name)
    for read in (_shopify, _magento, _woocommerce, _google):
        export = read(raw, names, is_there)
        if export is not None:
            return export
    return None


def _shopify(raw: RawTable, names: Mapping[str, str], is_there: IsThere) -> Export | None:
    handle = names.get("handle") or names.get("urlhandle", "")
    image = names.get("imagesrc") or names.get("productimageurl", "")
    if not (handle and image and "title" in names and ("vendor" in names or "tags" in names)):
        return None
    variant = names.get("variantimage") or names.get("variantimageurl")
    position = names.get("imageposition")
    kinds = ("type", "productcategory", "customproducttype", "standardizedproducttype")
    products: dict[str, list[int]] = {}
    ids = _column(raw, handle)
    for row, item_id in enumerate(ids):
        # a row without one stays, to be refused by its number
        products.setdefault(item_id if item_id.strip() else f"\0{row}", []).append(row)
    pictures, places = _column(raw, image), _column(raw, position)
    variants = _column(raw, variant)

    def place(row: int) -> tuple[int, int]:
        return int(places[row]) if places[row].strip().isdecimal() else row + 1, row

    kept, lists = [], []
    for rows in products.values():
        named = [pictures[row] for row in sorted(rows, key=place)]
        kept.append(rows[0])
        lists.append(_listed([*named, *(variants[row] for row in rows)], is_there))
    folded = _rows(raw, kept, {image: lists})
    category = _most_filled(folded, [names[kind] for kind in kinds if kind in names])
    if not category:
        return None
    columns = Columns(handle, (image,), category)
    return _export("Shopify", columns, folded, raw, "variants and further pictures")


def _google(raw: RawTable, names: Mapping[str, str], is_there: IsThere) -> Export | None:
    told = [names.get(name, "") for name in ("id", "imagelink")]
    beside = ("price", "availability", "link", "googleproductcategory", "producttype", "condition")
    if not all(told) or sum(name in names for name in beside) < 2:
        return None
    item_id, image = told
    more = [name for plain, name in names.items() if plain.startswith("additionalimagelink")]
    kinds = [names[name] for name in ("producttype", "googleproductcategory") if name in names]
    category = _most_filled(raw, kinds)
    if not category:
        return None
    folded = raw
    if category in raw.lists:
        firsts = [one[0] if one else "" for one in raw.lists[category]]
        folded = _with_texts(raw, {category: firsts})
    group = names.get("itemgroupid")
    filled = [value for value in _column(raw, group) if value.strip()]
    columns = Columns(
        item_id, (image, *more), category, group if len(set(filled)) < len(filled) else None
    )
    return _export("Google Merchant", columns, folded, raw, "")


def _woocommerce(raw: RawTable, names: Mapping[str, str], is_there: IsThere) -> Export | None:
    needed = ("type", "sku", "name", "categories", "images")
    beside = ("isfeatured", "visibilityincatalog", "regularprice", "published", "taxstatus")
    if not all(name in names for name in needed) or not any(name in names for name in beside):
        return None
    kinds, skus, images = (_column(raw, names[name]) for name in ("type", "sku", "images"))
    ids = _column(raw, names.get("id"))
    parents = _column(raw, names.get("parent"))
    by_name = {sku.strip(): row for row, sku in enumerate(skus) if sku.strip()}
    by_name |= {f"id:{one.strip()}": row for row, one in enumerate(ids) if one.strip()}
    kept: list[int] = []
    further: dict[int, list[str]] = {}
    for row, kind in enumerate(kinds):
        parent = by_name.get(parents[row].strip(), row)
        is_variation = "variation" in re.split(r"[,\s]+", kind.lower())
        if is_variation and parent != row:
            further.setdefault(parent, []).append(images[row])
        else:
            kept.append(row)
    lists = [_listed([images[row], *further.get(row, [])], is_there) for row in kept]
    folded = _rows(raw, kept, {names["images"]: lists})
    category = names["categories"]
    folded = _with_texts(folded, {category: [*map(_deepest, _column(folded, category))]})
    named = [one for one in _column(folded, names.get("id")) if one.strip()]
    item_id = names["id"] if len(set(named)) == len(kept) else names["sku"]
    columns = Columns(item_id, (names["images"],), category)
    return _export("WooCommerce", columns, folded, raw, "variations")


def _magento(raw: RawTable, names: Mapping[str, str], is_there: IsThere) -> Export | None:
    beside = ("storeviewcode", "attributesetcode", "additionalimages", "configurablevariations")
    if not all(name in names for name in ("sku", "baseimage", "categories")):
        return None
    if not any(name in names for name in beside):
        return None
    skus, views = _column(raw, names["sku"]), _column(raw, names.get("storeviewcode"))
    seen = _column(raw, names.get("visibility"))
    main, more = _column(raw, names["baseimage"]), _column(raw, names.get("additionalimages"))
    own = {sku.strip(): row for row, sku in reversed([*enumerate(skus)]) if not views[row].strip()}
    parent_of: dict[str, str] = {}
    for row, text in enumerate(_column(raw, names.get("configurablevariations"))):
        for child in re.findall(r"(?:^|[|,])sku=([^,|]+)", text):
            parent_of.setdefault(child.strip(), skus[row].strip())
    kept: list[int] = []
    further: dict[int, list[str]] = {}
    for row, sku in enumerate(map(str.strip, skus)):
        parent = own.get(parent_of.get(sku, ""), row)
        if views[row].strip() and own.get(sku, row) != row:
            continue  # a translation
        if parent != row and "not visible" in seen[row].lower():
            further.setdefault(parent, []).extend((main[row], more[row]))
        else:
            kept.append(row)

    def without_slash(text: str) -> str:
        return ",".join(
            part.strip().lstrip("/") for part in text.split(",") if part.strip() != _NO_PICTURE
        )

    listed = [
        _listed([*map(without_slash, [main[row], more[row], *further.get(row, [])])], is_there)
        for row in kept
    ]
    some = [one[0] for one in listed if one][:50]
    folder = max(_MAGENTO_FOLDERS, key=lambda before: sum(is_there(before + one) for one in some))
    lists = [
        tuple(folder + one if not one.startswith("http") else one for one in each)
        for each in listed
    ]
    folded = _rows(raw, kept, {names["baseimage"]: lists})
    category = names["categories"]
    folded = _with_texts(folded, {category: [*map(_deepest, _column(folded, category))]})
    columns = Columns(names["sku"], (names["baseimage"],), category)
    return _export("Magento", columns, folded, raw, "translations and variations")


def _export(name: str, columns: Columns, folded: RawTable, raw: RawTable, what: str) -> Export:
    why = "by the names of its columns"
    gone = len(raw.rows) - len(folded.rows)
    if gone:
        why += f"; {many(gone, 'row')} of {what} belong to the products of others"
    return Export(name, columns, folded, (Choice("", f"read as an export of {name}", why),))


def _column(raw: RawTable, name: str | None) -> Sequence[str]:
    """Returns the texts of a column; of none empty ones."""
    if name is None:
        return [""] * len(raw.rows)
    place = raw.columns.index(name)
    return [row[place] for row in raw.rows]


def _listed(cells: Sequence[str], is_there: IsThere) -> tuple[str, ...]:
    """Returns the pictures of cells, each once."""
    found = (picture for cell in cells for picture in pictures_in(cell, is_there))
    return tuple(dict.fromkeys(found))


def _rows(
    raw: RawTable, kept: Sequence[int], lists: Mapping[str, Sequence[tuple[str, ...]]]
) -> RawTable:
    """Returns some of the rows, with lists in the place of some columns' texts."""
    own = {name: [texts[row] for row in kept] for name, texts in raw.lists.items()}
    return replace(
        raw,
        rows=[raw.rows[row] for row in kept],
        places=[raw.places[row] for row in kept],
        lists={**own, **lists},
    )


def _with_texts(raw: RawTable, texts: Mapping[str, Sequence[str]]) -> RawTable:
    """Returns the same table with other texts in some columns."""
    places = {raw.columns.index(name): values for name, values in texts.items()}
    rows = [
        [places[at][n] if at in places else text for at, text in enumerate(row)]
        for n, row in enumerate(raw.rows)
    ]
    return replace(raw, rows=rows, lists={k: v for k, v in raw.lists.items() if k not in texts})


def _most_filled(raw: RawTable, names: Sequence[str]) -> str:
    """Returns the column that most rows fill, the first of several; nothing where there is none."""

    def num_filled(name: str) -> int:
        return sum(bool(text.strip()) for text in _column(raw, name))

    return max(names, key=num_filled, default="")


def _deepest(text: str) -> str:
    """Returns the deepest of several paths, the first of those that are as deep.

    >>> _deepest("Default/Gear,Default/Gear/Bags"), _deepest("Sale, Women > Shoes"), _deepest("")
    ('Default/Gear/Bags', 'Women > Shoes', '')
    """
    paths = [path.strip().replace("\\,", ",") for path in re.split(r"(?<!\\)[,|]", text)]
    return max(paths, key=lambda path: (bool(path), len(re.split(r" > |/", path))))
