"""Fashion Product Images (Kaggle): a shop's catalogue with ten columns of attributes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.identity import PRODUCT, picture_id
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.fashion_product_styles import Style, columns_of, read_style
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    find_file,
    join,
    read_csv_listing,
)
from visual_search.catalog.readers.sources import open_source
from visual_search.catalog.readers.url_pictures import pictures_of_urls

LISTING = "styles.csv"
HIERARCHY = ("masterCategory", "subCategory", "articleType")  # from coarse to fine
# what the published file has, and each copy of it that leaves out the names at the end
NEEDED = ("id", "gender", *HIERARCHY, "baseColour", "season", "year", "usage")

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@builder("data")
def fashion_product_images(
    root: str | os.PathLike[str],
    category: str = "articleType",
    on_bad_item: OnBadItem = "error",
    separator: str | None = None,
    encoding: str | None = None,
    styles: bool = False,
    views: bool = False,
    download: bool | Mapping[str, object] = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Returns the shop catalogue of ``styles.csv`` and ``images/<id>.jpg``.

    Every other column is an attribute, and so are the three levels of the hierarchy, whichever of
    them is the category: ``protocol.hierarchy=[masterCategory,subCategory,articleType]`` always
    works. Every value stays the text that it is: ``NA`` is a value of ``usage``, not a missing one.

    Args:
        root: The folder or zip with ``styles.csv``, or one around it; where the archive holds its
            data twice, as some copies do, the outer one is read.
        category: The level that is the category, or any other column. An article type is what a
            buyer would accept as an answer to a query: ``Topwear`` holds shirts, kurtas and jackets
            alike, and ``Shoes`` heels and sports shoes. The price are many rare categories (123
            against 40 in a sample of 6,000 items); ``subCategory`` has fewer.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``. A few ids are published without a picture.
        separator: What separates the fields: one character, or ``tab``; None finds it out and says
            so.
        encoding: As ``cp1252``; None finds it out and says so, where it is certain.
        styles: Whether to read ``styles/<id>.json`` of the large edition as well: brand, age group,
            further colours, price, and attributes of the article (``pattern``, ``sleeve_length``)
            that a hundredth of the products has at least.
        views: Whether the views that these name are pictures of the product, too: front, back and
            others. The first picture of a product has its id, the next ``<id>~2``, and ``product``
            names the product of each. They are URLs, to be fetched.
        download: Whether to fetch them, as of `visual_search.catalog.readers.table.table`.
        on_progress: Called with how many files or pictures of how many are read or fetched.

    Returns:
        Each item a group of its own, no split assigned.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or there is no ``styles.csv`` in it.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: fewer fields than the
            header, an id twice, an empty id or category, a picture that is missing or was not
            fetched, a ``styles/<id>.json`` that is none.
        ValueError: The table lacks a column or is no UTF-8, ``category`` names no column, no row
            is good, or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    inner = find_file(source, LISTING, "give the folder or zip into which Kaggle's was unpacked")
    origin = f"{root} ({inner})"
    raw = read_csv_listing(source, inner, origin, NEEDED, separator, encoding, mend=split_row)
    check_choice("data.category", category, raw.columns[1:])
    kept = [column for column in raw.columns if column != "id"]
    if category not in HIERARCHY:
        kept.remove(category)
    images = PurePosixPath(inner).parent / "images"

    found: dict[str, Style] = {}
    problems: dict[str, str] = {}
    ids = [row["id"] for _, row in raw.named()] if styles or views else []
    for number, item_id in enumerate(ids, 1):
        path = join(images.parent, "styles", f"{item_id}.json")
        try:
            found[item_id] = read_style(source, path, raw.columns)
        except FileNotFoundError:
            pass  # counted below
        except ValueError as error:
            problems[item_id] = str(error)
        if on_progress is not None:
            on_progress(number, len(ids))
    further, choices = columns_of(list(found.values()), len(ids) - len(problems))
    further = further if styles else []
    urls = [url for style in found.values() for url in style.views] if views else []
    of_urls = pictures_of_urls(urls, source, inner, download, on_progress)

    choices = (*raw.choices, *choices, *of_urls.choices)
    items = Items(source, [*kept, *further, *([PRODUCT] * views)], choices, raw.refused)
    for place, row in raw.named():
        item_id = row["id"]
        style = found.get(item_id, Style({}, ()))
        picture = join(images, f"{item_id}.jpg")
        if item_id in problems:
            items.refuse(place, item_id, picture, problems[item_id])
            continue
        for number, image in enumerate([picture, *(style.views if views else ())], 1):
            if image in of_urls.problems:
                items.refuse(place, picture_id(item_id, number), image, of_urls.problems[image])
                continue
            fetched = of_urls.names.get(image)
            items.add(
                place,
                item_id=picture_id(item_id, number),
                image=image if fetched is None else join(images.parent, fetched),
                category=row[category],
                group=item_id,
                attributes=[
                    *(row[column] for column in kept),
                    *(style.attributes.get(column, "") for column in further),
                    *([item_id] * views),
                ],
            )
    return items.conclude("fashion_product_images", on_bad_item=on_bad_item, origin=origin)


def split_row(line: str, num_columns: int, separator: str = ",") -> list[str]:
    """Returns the fields of a line; what is too much for the columns belongs to the last.

    The names at the end of the published lines hold commas without quotes around them.

    Example:
        >>> split_row('1,Women,Turtle Check, Long Sleeve', 3)
        ['1', 'Women', 'Turtle Check, Long Sleeve']
        >>> split_row('1,"Wo""men","Check, Long"', 3)
        ['1', 'Wo"men', 'Check, Long']

    Returns:
        ``num_columns`` texts, or fewer where the line has no more.
    """
    sign = re.escape(separator)
    # a field in quotes, where two stand for one, or all up to the next separator; then that
    field = re.compile(rf'(?:"((?:[^"]|"")*)"|([^{sign}]*)){sign}')
    fields: list[str] = []
    start = 0
    while len(fields) < num_columns - 1:
        found = field.match(line, start)
        if found is None:
            break
        fields.append(_text(found))
        start = found.end()
    rest = line[start:]
    quoted = _QUOTED.fullmatch(rest)
    return [*fields, rest if quoted is None else quoted[1].replace('""', '"')]


def _text(field: re.Match[str]) -> str:
    return field[2] if field[1] is None else field[1].replace('""', '"')
