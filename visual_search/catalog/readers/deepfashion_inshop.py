"""DeepFashion, In-shop Clothes Retrieval (CVPR 2016): 52,712 pictures of 7,982 products."""

from __future__ import annotations

import os

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.deepfashion import CLOTHES, Benchmark, Pictures
from visual_search.catalog.readers.listings import FLAGS, Items, flags

INSHOP = Benchmark(
    "In-shop",
    "list_bbox_inshop.txt",
    ("clothes_type", "pose_type"),
    "img/<gender>/<category>/<product>/<file>",
)
PARTITION_COLUMNS = ("image_name", "item_id", "evaluation_status")

SPLIT_OF_ROLE = {"train": "train", "query": "test", "gallery": "test"}
POSES = {  # the numbers in list_bbox_inshop.txt, as the data's README explains them
    "1": "front",
    "2": "side",
    "3": "back",
    "4": "zoom out",
    "5": "zoom in",
    "6": "stand-alone",
}


@builder("data")
def deepfashion_inshop(
    root: str | os.PathLike[str],
    crop: bool = False,
    pictures: Pictures = "img",
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the benchmark's pictures; the same product is to be found in another picture of it.

    An item is a picture, its id the path as published (``img/WOMEN/Dresses/id_00000002/...``). Its
    group is the product, so that ``protocol=published protocol.relevance=[group]`` is the published
    measurement: the pictures flagged ``is_query`` search among those flagged ``is_gallery``. Both
    are the split ``test``; what is published as training is ``train``, and gives up some of its
    products to ``val``. Relevance by category needs ``protocol.exclude=group``: another picture of
    the query's own product is no find then.

    The other attributes are ``product`` (the group once more), ``role`` (``train``, ``query``,
    ``gallery``), ``gender`` and, where the boxes are there, ``clothes`` and ``pose``.

    Args:
        root: The folder or zip with ``list_eval_partition.txt`` (usually in ``Eval/``), the
            pictures (``Img/img/``, unpacked) and, for the boxes, ``list_bbox_inshop.txt``
            (``Anno/``), each at any depth.
        crop: Whether to cut each picture to its box. The boxes are pixels of the pictures in
            ``img``, of 256 x 256 px.
        pictures: The folder of the pictures: ``img``, or ``img_highres`` as they were.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or a listing or the folder of pictures is not
            in it.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: fewer than three fields,
            another role, a path that is not ``img/<gender>/<category>/<product>/<file>``, a picture
            that is missing or stands twice, no box or an empty one where it is to be cropped.
        ValueError: A listing has another header or number of rows than it says, boxes are asked
            for in ``img_highres``, no row is good, or an argument is another word.
    """
    check_on_bad_item(on_bad_item)
    opened = INSHOP.open(root, pictures, crop=crop)
    attributes = ["product", "role", *FLAGS, "gender"]
    has_boxes = opened.boxes is not None
    items = Items(opened.source, [*attributes, *(["clothes", "pose"] if has_boxes else [])])
    for place, fields in opened.rows(PARTITION_COLUMNS):
        if len(fields) < len(PARTITION_COLUMNS):
            items.refuse(place, "", "", f"has {len(fields)} field(s); expected three")
            continue
        image, product, role = fields
        path, fragment, reason = opened.place(image)
        if role not in SPLIT_OF_ROLE:
            reason = f"the role is {role!r}; expected one of {list(SPLIT_OF_ROLE)}"
        if reason:
            items.refuse(place, image, image, reason)
            continue
        _, gender, category, *_ = image.split("/")
        clothes, pose = opened.kinds(image)
        items.add(
            place,
            item_id=image,
            image=path,
            category=category,
            group=product,
            split=SPLIT_OF_ROLE[role],
            attributes=[
                product,
                role,
                *flags(role == "query", role == "gallery"),
                gender,
                *([CLOTHES.get(clothes, clothes), POSES.get(pose, pose)] if has_boxes else []),
            ],
            fragment=fragment,
        )
    return opened.conclude(items, "deepfashion_inshop", on_bad_item)
