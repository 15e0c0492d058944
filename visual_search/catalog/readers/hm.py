"""H&M's articles (Kaggle, 2022): 105,542 articles of a fashion shop, with many attributes."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    find_file,
    join,
    read_csv_listing,
)
from visual_search.catalog.readers.sources import open_source

LISTING = "articles.csv"
HIERARCHY = ("index_group_name", "product_group_name", "product_type_name")  # coarse to fine
NEEDED = ("article_id", "product_code", "product_group_name", "product_type_name")

_ARTICLE_ID = re.compile(r"[0-9]{10}", re.ASCII)


@builder("data")
def hm(
    root: str | os.PathLike[str],
    category: str = "product_type_name",
    on_bad_item: OnBadItem = "error",
    separator: str | None = None,
    encoding: str | None = None,
) -> Catalog:
    """Returns articles of ``articles.csv``, with ``images/<first 3 digits of the id>/<id>.jpg``.

    An article is one colour of a product; the articles of a product are one group. Every column
    but the id is an attribute, the category's and the group's too, so that
    ``protocol.hierarchy=[index_group_name,product_group_name,product_type_name]`` always works.
    Ids are texts of ten digits, the first of them a zero.

    Args:
        root: The folder or zip with ``articles.csv``, or one around it.
        category: The column that is the category: ``product_type_name`` (as ``Vest top``), the
            coarser ``product_group_name`` (as ``Garment Upper body``), or any other.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``. Some articles are published without a picture.
        separator: What separates the fields: one character, or ``tab``; None finds it out and says
            so.
        encoding: As ``cp1252``; None finds it out and says so, where it is certain.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or there is no ``articles.csv`` in it.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of
            fields than the header, an id that has not ten digits or stands twice, an empty
            category, a picture that is missing.
        ValueError: The table lacks a column or is no UTF-8, ``category`` names no column, no row
            is good, or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    inner = find_file(source, LISTING, "give the folder or zip with Kaggle's files")
    origin = f"{root} ({inner})"
    raw = read_csv_listing(source, inner, origin, NEEDED, separator, encoding)
    kept = [column for column in raw.columns if column != "article_id"]
    check_choice("data.category", category, kept)
    images = PurePosixPath(inner).parent / "images"

    items = Items(source, kept, raw.choices, raw.refused)
    for place, row in raw.named():
        article = row["article_id"]
        image = join(images, article[:3], f"{article}.jpg")
        if _ARTICLE_ID.fullmatch(article) is None:
            reason = (
                f"the article_id is {article!r}; expected ten digits: a program that reads ids as "
                "numbers drops the zero in front, so take the file as it is published"
            )
            items.refuse(place, article, image, reason)
            continue
        items.add(
            place,
            item_id=article,
            image=image,
            category=row[category],
            group=row["product_code"],
            attributes=[row[column] for column in kept],
        )
    return items.conclude("hm", on_bad_item=on_bad_item, origin=origin)
