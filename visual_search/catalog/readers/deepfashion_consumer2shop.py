"""DeepFashion, Consumer-to-shop Clothes Retrieval (CVPR 2016): buyers' photos ask for a shop's."""

from __future__ import annotations

import os

from visual_search import builder
from visual_search.catalog.catalog import SPLITS, Catalog
from visual_search.catalog.identity import PRODUCT, PictureIds
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.deepfashion import CLOTHES, Benchmark, Pictures
from visual_search.catalog.readers.listings import FLAGS, Items, flags

CONSUMER2SHOP = Benchmark(
    "Consumer-to-shop",
    "list_bbox_consumer2shop.txt",
    ("clothes_type", "source_type"),
    "img/<section>/<category>/<product>/<file>",
)
PAIR_COLUMNS = ("image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status")
DOMAINS = ("consumer", "shop")  # in the order of a pair
ASKING = ("val", "test")


@builder("data")
def deepfashion_consumer2shop(
    root: str | os.PathLike[str],
    crop: bool = False,
    pictures: Pictures = "img",
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the pictures of all pairs, each once; a buyer's photo is to find those of the shop.

    An item is a picture. The first of a product has the product's id (``id_00000001``), the next
    ``<product>~2``; the product is the group, and the attribute ``product``. Splits are as
    published. The published measurement is ``protocol=published 'protocol.relevance=[product]'``:
    photos of consumers (``is_query``) search among the shop's of ``val`` and ``test``
    (``is_gallery``). ``protocol=cross_domain protocol.column=domain`` with
    ``protocol.query_value=consumer protocol.gallery_value=shop`` searches among all of the shop's.

    The other attributes are ``domain`` (``consumer``, ``shop``), ``section`` (the folder above the
    category's) and, where the boxes are there, ``clothes``.

    Source of the format: the benchmark's README, as
    https://github.com/open-mmlab/mmfashion (``docs/dataset/CONSUMER_TO_SHOP_DATASET.md``) has it.

    Args:
        root: The folder or zip with ``list_eval_partition.txt`` (usually in ``Eval/``), the
            pictures (``Img/img/``, unpacked) and, for the boxes, ``list_bbox_consumer2shop.txt``
            (``Anno/``), each at any depth.
        crop: Whether to cut each picture to its box. The boxes are pixels of the pictures in
            ``img``, whose longer side has 300 px.
        pictures: The folder of the pictures: ``img``, or ``img_highres`` as they were.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or a listing or the folder of pictures is not
            in it.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: fewer than four fields,
            another split, a path that is not ``img/<section>/<category>/<product>/<file>``, a
            picture that is missing or is of another product, split or side elsewhere, no box or an
            empty one where it is to be cropped.
        ValueError: A listing has another header or number of rows than it says, boxes are asked
            for in ``img_highres``, no row is good, or an argument is another word.
    """
    check_on_bad_item(on_bad_item)
    opened = CONSUMER2SHOP.open(root, pictures, crop=crop)
    clothes = ["clothes"] if opened.boxes is not None else []
    items = Items(opened.source, [PRODUCT, *FLAGS, "domain", "section", *clothes])
    ids = PictureIds()
    seen: dict[str, tuple[str, str, str, str]] = {}
    for place, fields in opened.rows(PAIR_COLUMNS):
        if len(fields) < len(PAIR_COLUMNS):
            items.refuse(place, "", "", f"has {len(fields)} field(s); expected four")
            continue
        *pair, product, split = fields
        for image, domain in zip(pair, DOMAINS, strict=True):
            first = seen.setdefault(image, (place, product, split, domain))
            if first[0] != place and first[1:] == (product, split, domain):
                continue  # of another pair
            path, fragment, reason = opened.place(image)
            if first[1:] != (product, split, domain):
                reason = f"stands in {first[0]} as {list(first[1:])}; it is one picture of one"
            elif split not in SPLITS:
                reason = f"the evaluation_status is {split!r}; expected one of {list(SPLITS)}"
            if reason:
                items.refuse(place, image, image, reason)
                continue
            _, section, category, *_ = image.split("/")
            kind, _ = opened.kinds(image)
            asks = split in ASKING
            items.add(
                place,
                item_id=ids.of_next(product),
                image=path,
                category=category,
                group=product,
                split=split,
                attributes=[
                    product,
                    *flags(asks and domain == "consumer", asks and domain == "shop"),
                    domain,
                    section,
                    *([CLOTHES.get(kind, kind)] if clothes else []),
                ],
                fragment=fragment,
            )
    return opened.conclude(items, "deepfashion_consumer2shop", on_bad_item)
