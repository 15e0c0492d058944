"""Stanford Online Products (CVPR 2016): 120,053 pictures of 22,634 products from a marketplace."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.identity import PRODUCT, PictureIds
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import Items, find_file, join, read_csv_listing
from visual_search.catalog.readers.sources import open_source

LISTINGS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}  # by split
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
_ENDING = "_final"  # of the folders, as bicycle_final


@builder("data")
def stanford_online_products(
    root: str | os.PathLike[str], on_bad_item: OnBadItem = "error"
) -> Catalog:
    """Returns the benchmark's pictures; the same product is to be found in another picture of it.

    An item is a picture. The first of a product has the product's ``class_id`` for its id, the next
    ``<class_id>~2``; the product is the group, and the attribute ``product``. The category is what
    the folder is called after (``bicycle`` of ``bicycle_final``), ``super_class_id`` by name. What
    is published for training is ``train``, and gives up some of its products to ``val``; the other
    11,316 products are ``test``, where ``protocol=instance`` is the published measurement: each
    picture asks all others, hit@1, hit@10, ... are Recall@1, Recall@10. ``image_id`` is an
    attribute.

    Source of the format: the archive of https://cvgl.stanford.edu/projects/lifted_struct/, as Open
    Metric Learning's converter reads it (``convert_sop.py``): fields separated by blanks.

    Args:
        root: The folder or zip with ``Ebay_train.txt``, ``Ebay_test.txt`` and the folders of
            pictures beside them, or one around it.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or a listing is not in it.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of
            fields than four, an empty ``class_id``, a path without a folder, a picture that is
            missing or stands twice.
        ValueError: A listing lacks a column or is no UTF-8, no row is good, or ``on_bad_item`` is
            another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    items = Items(source, [PRODUCT, "image_id"])
    ids = PictureIds()
    seen: dict[str, str] = {}
    for split, listing in LISTINGS.items():
        inner = find_file(source, listing, "give the folder into which the archive was unpacked")
        raw = read_csv_listing(source, inner, f"{root} ({inner})", COLUMNS, " ", "utf-8")
        base = PurePosixPath(inner).parent
        items.refused += raw.refused
        for line, row in raw.named():
            place, path, product = f"{inner}, {line}", row["path"], row["class_id"]
            reason = ""
            if not product.strip():
                reason = "the class_id is empty; expected the product's number"
            elif "/" not in path:
                reason = f"the path is {path!r}; expected <category>_final/<file>"
            elif path in seen:
                reason = f"the picture stands in {seen[path]} already; it is one item"
            if reason:
                items.refuse(place, path, path, reason)
                continue
            seen[path] = place
            items.add(
                place,
                item_id=ids.of_next(product),
                image=join(base, path),
                category=path.split("/")[-2].removesuffix(_ENDING),
                group=product,
                split=split,
                attributes=[product, row["image_id"]],
            )
    return items.conclude("stanford_online_products", on_bad_item=on_bad_item, origin=str(root))
