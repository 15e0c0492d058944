"""DeepFashion2 (CVPR 2019): 491,000 photos of shops and buyers, with a box for each garment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from visual_search import builder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.identity import PRODUCT, PictureIds
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.json_files import read_json
from visual_search.catalog.readers.listings import (
    FLAGS,
    Items,
    flags,
    join,
    split_of_name,
)
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import open_source

ANNOTATIONS, PICTURES = "annos", "image"  # folders beside each other
DOMAINS = ("user", "shop")
SPLIT = {"train": "train", "val": "test", "test": "test", "": ""}
# The numbers of an item, as the data's README explains them
STATES = {
    "scale": ("small", "modest", "large"),
    "occlusion": ("slight", "medium", "heavy"),
    "zoom_in": ("no", "medium", "large"),
    "viewpoint": ("no wear", "frontal", "side or back"),
}
_ITEM = re.compile(r"item[ _]?([0-9]{1,9})", re.ASCII)
_EXPECTED = "an annotation of DeepFashion2: source, pair_id, item1, item2, ..."


@builder("data")
def deepfashion2(root: str | os.PathLike[str], on_bad_item: OnBadItem = "error") -> Catalog:
    """Returns the crops of all boxes; a buyer's photo is to find the same garment in the shop's.

    Garments of photos with one ``pair_id`` and one ``style`` above 0 are one product,
    ``train-<pair_id>-<style>``; others are products of their own, ``train-<photo>-item1``, and
    nothing is to be found for them. The first crop of a product has the product's id, the next
    ``<product>~2``. All photos of a ``pair_id`` are one group. The category is ``category_name``.

    ``train`` is published as training, ``validation`` becomes the split ``test``, since ``val`` is
    for choosing a model and comes out of ``train``. With ``protocol=published
    'protocol.relevance=[product]'`` users' garments that are products (``is_query``) search among
    all of the shops' (``is_gallery``), which is the published task with the boxes given.

    The other attributes are ``domain`` (``user``, ``shop``), and ``scale``, ``occlusion``,
    ``zoom_in`` and ``viewpoint`` in words.

    Source of the format: https://github.com/switchablenorms/DeepFashion2, its README.

    Args:
        root: The folder or zip with ``train/annos``, ``train/image``, ``validation/annos``,
            ``validation/image``, or some of them, at any depth. A JSON of each photo is read.
        on_bad_item: ``error`` stops when a garment or photo cannot be read, ``skip`` leaves it out
            and keeps it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or no JSON in a folder ``annos`` is in it.
        BadItemsError: There are bad garments or photos and ``on_bad_item`` is ``error``: a file
            that is no such JSON, another source, a ``pair_id``, ``style`` or box that is no whole
            number or below 0, a box without area, a picture that is missing.
        ValueError: No garment is good, or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    files = [
        path
        for path in map(PurePosixPath, source.names())
        if path.parent.name == ANNOTATIONS
        and path.suffix.lower() == ".json"
        and not is_clutter(str(path))
    ]
    if not files:
        raise FileNotFoundError(
            f"there is no {ANNOTATIONS}/*.json in {source!r}; expected those of DeepFashion2: "
            "unpack train.zip and validation.zip there"
        )
    items = Items(source, [PRODUCT, *FLAGS, "domain", *STATES])
    ids = PictureIds()
    for path in files:
        part = path.parent.parent.name or "photos"
        split = SPLIT[split_of_name(part)]
        image = join(path.parent.parent, PICTURES, f"{path.stem}.jpg")
        try:
            photo = _photo(read_json(source, str(path), _EXPECTED))
        except ValueError as error:
            items.refuse(str(path), f"{part}-{path.stem}", image, str(error))
            continue
        for name, content in photo.garments.items():
            own = f"{part}-{path.stem}-{name}"
            place = f"{path}, {name}"
            try:
                garment = _garment(content)
            except ValueError as error:
                items.refuse(place, own, image, str(error))
                continue
            product = f"{part}-{photo.pair_id}-{garment.style}" if garment.style else own
            asks = split == "test" and photo.source == "user" and garment.style > 0
            items.add(
                place,
                item_id=ids.of_next(product),
                image=image,
                category=garment.category,
                group=f"{part}-{photo.pair_id}",
                split=split,
                attributes=[
                    product,
                    *flags(asks, split == "test" and photo.source == "shop"),
                    photo.source,
                    *garment.states,
                ],
                fragment=garment.fragment,
            )
    return items.conclude(
        "deepfashion2", on_bad_item=on_bad_item, origin=str(root), source=PixelCropSource(source)
    )


@dataclass(frozen=True)
class _Photo:
    source: str
    pair_id: int
    garments: Mapping[str, object]


@dataclass(frozen=True)
class _Garment:
    category: str
    style: int
    fragment: str
    states: tuple[str, ...]


def _photo(content: object) -> _Photo:
    """Returns what a file says of its photo, with the garments in the order of their numbers.

    Raises:
        ValueError: It is no such file; the message says why.
    """
    if not isinstance(content, dict):
        raise ValueError(f"holds a JSON {type(content).__name__}; expected {_EXPECTED}")
    source, pair_id = content.get("source"), content.get("pair_id")
    if source not in DOMAINS:
        raise ValueError(f"the source is {source!r}; expected one of {list(DOMAINS)}")
    numbers = {key: int(found[1]) for key in content if (found := _ITEM.fullmatch(key))}
    garments = {key: content[key] for key in sorted(numbers, key=lambda key: numbers[key])}
    return _Photo(source, _whole(pair_id, "pair_id"), garments)


def _garment(content: object) -> _Garment:
    """Returns what a file says of a garment.

    Raises:
        ValueError: It cannot be an item; the message says why.
    """
    if not isinstance(content, dict):
        raise ValueError(f"is a JSON {type(content).__name__}; expected an object")
    category, box = content.get("category_name"), content.get("bounding_box")
    if not isinstance(category, str) or not category.strip():
        raise ValueError(f"the category_name is {category!r}; expected a text")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"the bounding_box is {box!r}; expected left, top, right, bottom")
    left, top, right, bottom = (_whole(one, "bounding_box") for one in box)
    states = []
    for state, words in STATES.items():
        number = content.get(state)
        is_known = isinstance(number, int) and 1 <= number <= len(words)
        states.append(words[int(number or 0) - 1] if is_known else "")
    style = _whole(content.get("style"), "style")
    return _Garment(category, style, pixel_box(left, top, right, bottom), tuple(states))


def _whole(value: object, name: str) -> int:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 <= value == value // 1
    ):
        raise ValueError(f"the {name} holds {value!r}; expected whole numbers from 0")
    return int(value)
