"""Amazon Berkeley Objects (CVPR 2022): 147,702 listings of a marketplace, 398,212 pictures."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, get_args

from visual_search import builder
from visual_search.catalog.catalog import Catalog, Choice
from visual_search.catalog.identity import PRODUCT, picture_id
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    find_file,
    join,
    read_csv_listing,
    read_listing,
    unpacked,
)
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.sources import FileSource, open_source
from visual_search.wording import many

Pictures = Literal["small", "original"]

# Each a list of values, most of them by language
TEXTS = ("item_name", "brand", "color", "material", "fabric_type", "style", "pattern",
         "finish_type", "item_shape", "model_name")  # fmt: skip
STANDARD_COLOR = "standard_color"
PLAIN = ("domain_name", "country")
_LISTINGS = re.compile(r"listings_[0-9a-z]+\.json(\.gz)?")
_IMAGES = ("images.csv.gz", "images.csv")


@builder("data")
def amazon_berkeley_objects(
    root: str | os.PathLike[str],
    pictures: Pictures = "small",
    language: str = "en_US",
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the products of all listings, with all of their pictures.

    A product is an ``item_id``; listings of it in further marketplaces add their pictures to the
    first. An item is a picture: the main one has the product's id, the next ``<item_id>~2``, and
    ``product`` names the product of each. Listings share pictures, variants above all: each picture
    is an item once, of the first listing that names it, and products that share one are one group,
    which no split parts. The category is ``product_type``. No split is assigned.

    The other attributes are the texts of a listing in one language (several of them with ``; ``
    between), ``standard_color``, ``domain_name`` and ``country``, empty where a listing has none.

    Source of the format: the README of
    https://amazon-berkeley-objects.s3.us-east-1.amazonaws.com/index.html, whose
    ``product_type`` is a text; its files have a list of values, and both are read.

    Args:
        root: The folder or zip with ``listings/metadata/listings_*.json.gz``,
            ``images/metadata/images.csv.gz`` and ``images/small``, at any depth.
        pictures: The folder of the pictures: ``small``, of at most 256 px, or ``original``.
        language: Of the texts, as ``en_US``; where a listing has none in it, one in the same
            language of another country (``en_GB``), or else the first that it has.
        on_bad_item: ``error`` stops when a listing cannot be read, ``skip`` leaves it out and keeps
            it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or no listings, or no ``images.csv.gz``.
        BadItemsError: There are bad listings and ``on_bad_item`` is ``error``: a line that is no
            JSON object, no ``item_id``, the same twice in a marketplace, no ``product_type``, no
            picture, one that ``images.csv.gz`` lacks or that is missing.
        ValueError: A file is damaged, ``images.csv.gz`` lacks a column, no picture is good, or an
            argument is another word.
    """
    check_on_bad_item(on_bad_item)
    check_choice("data.pictures", pictures, get_args(Pictures))
    source = open_source(root)
    paths = _paths(source, str(root), pictures)
    files = [
        name
        for name in source.names()
        if _LISTINGS.fullmatch(name.split("/")[-1]) and not is_clutter(name)
    ]
    if not files:
        raise FileNotFoundError(
            f"there is no listings_*.json.gz in {source!r}; unpack abo-listings.tar there"
        )
    items = Items(source, [PRODUCT, *TEXTS, STANDARD_COLOR, *PLAIN])
    products: dict[str, _Product] = {}
    places: dict[tuple[str, str], str] = {}
    for inner in files:
        for place, line in _lines(source, inner):
            try:
                listing = _listing(line, language)
                first = places.setdefault((listing.item_id, listing.domain), place)
                if first != place:
                    raise ValueError(f"the listing stands in {first} already; it is one product")
            except ValueError as error:
                items.refuse(place, "", "", str(error))
                continue
            product = products.setdefault(
                listing.item_id, _Product(place, listing.category, listing.attributes)
            )
            product.images += [one for one in listing.images if one not in product.images]

    owner: dict[str, str] = {}
    groups = _Groups()
    num_shared = 0
    for name, product in products.items():
        own = []
        for image in product.images:
            first = owner.setdefault(image, name)
            groups.join(first, name)
            if first == name:
                own.append(image)
        num_shared += not own
        product.images = own
    for name, product in products.items():
        for number, image in enumerate(product.images, 1):
            item_id = picture_id(name, number)
            if image not in paths:
                reason = f"the picture {image!r} is not in {_IMAGES[0]}"
                items.refuse(product.place, item_id, image, reason)
                continue
            items.add(
                product.place,
                item_id=item_id,
                image=paths[image],
                category=product.category,
                group=groups.of(name),
                attributes=[name, *product.attributes],
            )
    if num_shared:
        what = f"{many(num_shared, 'product')} left out"
        items.choices += (Choice("", what, "all of their pictures are those of another"),)
    return items.conclude("amazon_berkeley_objects", on_bad_item=on_bad_item, origin=str(root))


@dataclass
class _Product:
    place: str
    category: str
    attributes: tuple[str, ...]
    images: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Listing:
    item_id: str
    domain: str
    category: str
    images: tuple[str, ...]
    attributes: tuple[str, ...]


class _Groups:
    """Names that belong together, each group called after the first of it."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Returns the group of a name."""
        while (above := self._above.get(name, name)) != name:
            self._above[name] = self._above.get(above, above)  # half the way for the next
            name = above
        return name

    def join(self, one: str, other: str) -> None:
        """Makes one group of two."""
        first, second = self.of(one), self.of(other)
        if first != second:
            self._above[second] = first


def _paths(source: FileSource, root: str, pictures: str) -> dict[str, str]:
    """Returns where the picture of each id lies."""
    names = {name.split("/")[-1] for name in source.names()}
    listing = next((name for name in _IMAGES if name in names), _IMAGES[0])
    hint = "unpack abo-images-small.tar there, or give the folder that holds it"
    inner = find_file(source, listing, hint)
    raw = read_csv_listing(source, inner, f"{root} ({inner})", ["image_id", "path"], ",", "utf-8")
    base = PurePosixPath(inner).parent.parent / pictures
    return {row["image_id"]: join(base, row["path"]) for _, row in raw.named()}


def _lines(source: FileSource, inner: str) -> Iterator[tuple[str, bytes]]:
    """Yields where each line stands, and it."""
    data = unpacked(read_listing(source, inner), inner)
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.strip():
            yield f"{inner}, line {number}", line


def _listing(line: bytes, language: str) -> _Listing:
    """Returns what a line says.

    Raises:
        ValueError: It cannot be a product; the message says why.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"is a JSON {type(content).__name__}; expected an object")
    item_id, category = (
        "".join(_values(content.get(key), language)[:1]).strip()
        for key in ("item_id", "product_type")
    )
    if not item_id or not category:
        raise ValueError(
            f"has the item_id {content.get('item_id')!r} and the product_type "
            f"{content.get('product_type')!r}; expected a text of each"
        )
    images = [
        image
        for key in ("main_image_id", "other_image_id")
        for image in _values(content.get(key), language)
    ]
    if not images:
        raise ValueError(f"names no picture of {item_id}; expected main_image_id")
    colors = content.get("color")
    standard = [
        text
        for one in (colors if isinstance(colors, list) else ())
        if isinstance(one, dict)
        for text in _values(one.get("standardized_values"), language)
    ]
    texts = ["; ".join(_values(content.get(key), language)) for key in TEXTS]
    plain = ["; ".join(_values(content.get(key), language)) for key in PLAIN]
    return _Listing(
        item_id,
        plain[0],
        category,
        tuple(dict.fromkeys(images)),
        (*texts, "; ".join(dict.fromkeys(standard)), *plain),
    )


def _values(value: object, language: str) -> list[str]:
    """Returns the texts of a value, each once: of a list by language those in the nearest one."""
    listed = value if isinstance(value, list) else [value]
    texts = [str(one) for one in listed if isinstance(one, str | int | float)]
    by_tag: dict[str, list[str]] = {}
    for one in listed:
        if isinstance(one, dict) and isinstance(one.get("value"), str | int | float):
            by_tag.setdefault(str(one.get("language_tag") or ""), []).append(str(one["value"]))
    if by_tag:
        texts += by_tag[_nearest(list(by_tag), language)]
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _nearest(tags: Sequence[str], language: str) -> str:
    spoken = language.partition("_")[0]
    same = [tag for tag in tags if tag.partition("_")[0] == spoken]
    return language if language in tags else [*same, *tags][0]
