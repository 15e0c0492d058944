"""Annotations as COCO's: boxes of named categories on photos; Fashionpedia's are of this format.

A file ``instances_<split>.json`` is one object with the lists ``images`` (``id``, ``file_name``,
``width``, ``height``), ``categories`` (``id``, ``name``, ``supercategory``) and ``annotations``
(``id``, ``image_id``, ``category_id``, ``bbox`` as left, top, width, height in pixels,
``iscrowd``, ``segmentation``). Fashionpedia adds ``attributes`` (``id``, ``name``,
``supercategory``), named by an annotation's ``attribute_ids``. Source of the format:
https://cocodataset.org/#format-data and https://github.com/KMnP/fashionpedia-api, whose
``data/sample.json`` has polygons and no boxes: a box is then what holds them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from visual_search import builder
from visual_search.catalog.catalog import Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.crops import Box, BoxError, CropSource
from visual_search.catalog.readers.json_files import is_number, read_json
from visual_search.catalog.readers.listings import (
    Items,
    attribute_column,
    check_choice,
    split_choice,
    split_of_name,
)
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.sources import FileSource, open_source, stem_of
from visual_search.wording import listed, many

SUPERCATEGORY = "supercategory"
_ANNOTATIONS = re.compile(r"instances.*\.json", re.IGNORECASE)
_EXPECTED = "COCO's annotations: an object with the lists images, annotations and categories"


@dataclass(frozen=True)
class _Photo:
    """A photo of a file: its path as published, its size in pixels, and where it lies."""

    file_name: str
    width: object
    height: object
    path: str
    problem: str = ""


@dataclass
class _Listing:
    """What a file says, by the ids in it."""

    inner: str
    split: str
    photos: dict[object, _Photo] = field(default_factory=dict)
    categories: dict[object, tuple[str, str]] = field(default_factory=dict)  # name, supercategory
    attributes: dict[object, tuple[str, str]] = field(default_factory=dict)  # name, column
    annotations: list[object] = field(default_factory=list)


@builder("data")
def coco(
    root: str | os.PathLike[str],
    annotations: str | Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    split: Literal[False] | None = None,
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
) -> Catalog:
    """Returns the crops of all boxes, their photo being the group that no split parts.

    An item is an annotation, its id ``<photo>-<annotation>``, its picture the box, in fractions of
    the photo, so that photos that were made smaller fit as well. What sticks out of the photo is
    cut off. The category is the category's name. Attributes are ``supercategory``, where there is
    one, and for each kind of attribute (``textile_pattern``, ``length``) the names of an item's,
    with ``; `` between. Annotations of crowds (``iscrowd``) mark many things at once; they are left
    out, and counted.

    Args:
        root: The folder or zip that holds annotations and photos, each at any depth.
        annotations: Which files, by their paths below ``root``; None takes each
            ``instances*.json``.
        leave_out: Categories and supercategories that are no items, as ``[garment parts]``.
        split: None takes the splits from the files' names (``train``, ``val``, ``test``); where no
            file is of ``test``, what is published for validation is the split ``test``, since
            ``val`` is for choosing a model and comes out of ``train``. False takes none.
        on_bad_item: ``error`` stops when an annotation cannot be an item, ``skip`` leaves it out
            and keeps it in ``refused``.
        name: Name of the catalogue; the name of ``root`` by default.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or no such file is in it.
        BadItemsError: There are bad annotations and ``on_bad_item`` is ``error``: an image, a
            category or an attribute of an id that the file lacks, an id that stands twice, a box
            that is not four numbers, has no area or lies outside its photo, a photo without its
            size, or that is missing, or fits several files.
        ValueError: A file is not of this format, ``leave_out`` names no category, no annotation is
            good, or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    files = _files(source, annotations)
    splits = {inner: "" if split is False else _split_of(inner) for inner in files}
    choices: tuple[Choice, ...] = ()
    if "val" in splits.values() and "test" not in splits.values():
        splits = {inner: "test" if one == "val" else one for inner, one in splits.items()}
        why = "val is for choosing a model, and comes out of train"
        choices += (Choice("", "what is published for validation is the test split", why),)
    choices += split_choice(splits)
    places = _by_file_name(source)
    listings = [_read(source, inner, splits[inner], places) for inner in files]
    known = {name for one in listings for pair in one.categories.values() for name in pair if name}
    for one in leave_out:
        check_choice("data.leave_out", one, sorted(known))
    supercategories = any(above for one in listings for _, above in one.categories.values())
    kinds = list(dict.fromkeys(kind for one in listings for _, kind in one.attributes.values()))

    items = Items(source, [*([SUPERCATEGORY] if supercategories else []), *kinds], choices)
    num_crowds = num_left_out = 0
    for listing in listings:
        for place, annotation in _in_order(listing):
            if isinstance(annotation, dict) and annotation.get("iscrowd"):
                num_crowds += 1
                continue
            try:
                found = _item(listing, annotation)
            except ValueError as error:
                items.refuse(place, "", "", str(error))
                continue
            if {found.category, found.above} & {*leave_out}:
                num_left_out += 1
                continue
            if found.photo.problem:
                items.refuse(place, found.item_id, found.photo.file_name, found.photo.problem)
                continue
            values = [found.attributes.get(kind, "") for kind in kinds]
            items.add(
                place,
                item_id=found.item_id,
                image=found.photo.path,
                category=found.category,
                group=found.photo.file_name,
                split=listing.split,
                attributes=[*([found.above] if supercategories else []), *values],
                fragment=f"#{found.box}",
            )
    items.choices += _said(num_crowds, num_left_out, leave_out)
    return items.conclude(
        name or stem_of(root),
        on_bad_item=on_bad_item,
        origin=str(root),
        source=CropSource(source),
    )


@dataclass(frozen=True)
class _Item:
    item_id: str
    photo: _Photo
    category: str
    above: str
    box: Box
    attributes: Mapping[str, str]


def _files(source: FileSource, annotations: str | Sequence[str] | None) -> list[str]:
    """Returns the files of annotations."""
    names = [name for name in source.names() if not is_clutter(name)]
    if annotations is not None:
        asked = [annotations] if isinstance(annotations, str) else list(annotations)
        for one in asked:
            check_choice("data.annotations", one, [name for name in names if _is_json(name)])
        return asked
    found = [name for name in names if _ANNOTATIONS.fullmatch(name.split("/")[-1])]
    if not found:
        others = [name for name in names if _is_json(name)]
        raise FileNotFoundError(
            f"there is no instances*.json in {source!r}; it has the JSON {others[:5]}: name COCO's "
            "annotations by data.annotations"
        )
    return found


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _split_of(inner: str) -> str:
    """Returns the split that a file's name says: years stand behind it, as in ``train2020``."""
    return split_of_name(re.sub("[0-9]+", "", inner))


def _by_file_name(source: FileSource) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for path in source.names():
        if not is_clutter(path):
            places.setdefault(path.split("/")[-1], []).append(path)
    return places


def _read(
    source: FileSource, inner: str, split: str, places: Mapping[str, Sequence[str]]
) -> _Listing:
    """Returns what a file says.

    Raises:
        ValueError: It is not of the format.
    """
    content = read_json(source, inner, _EXPECTED, _without_outlines)
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories", "attributes"):
        value = (
            content.get(key, [] if key == "attributes" else None)
            if isinstance(content, dict)
            else None
        )
        if not isinstance(value, list):
            raise ValueError(f"{inner} in {source!r} has no list {key!r}; expected {_EXPECTED}")
        lists[key] = value
    listing = _Listing(inner, split, annotations=lists["annotations"])
    for one in lists["categories"]:
        number, label = _id_and(one, "name", f"{inner}: a category")
        listing.categories[number] = (label.strip(), str(one.get(SUPERCATEGORY) or "").strip())
    for one in lists["attributes"]:
        number, label = _id_and(one, "name", f"{inner}: an attribute")
        kind = str(one.get(SUPERCATEGORY) or "")
        listing.attributes[number] = (label.strip(), attribute_column(kind, [SUPERCATEGORY]))
    for one in lists["images"]:
        number, file_name = _id_and(one, "file_name", f"{inner}: an image")
        path, problem = _place(file_name.replace("\\", "/"), split, places)
        listing.photos[number] = _Photo(
            file_name, one.get("width"), one.get("height"), path, problem
        )
    return listing


def _without_outlines(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Returns an object without its outline, of which a file mostly consists."""
    found = dict(pairs)
    outline = found.pop("segmentation", None)
    if "bbox" not in found and isinstance(outline, list) and outline:
        points = [one for polygon in outline if isinstance(polygon, list) for one in polygon]
        if len(points) >= 6 and all(map(is_number, points)):
            left, top = min(points[::2]), min(points[1::2])
            found["bbox"] = [left, top, max(points[::2]) - left, max(points[1::2]) - top]
    return found


def _id_and(one: object, key: str, what: str) -> tuple[object, str]:
    """Returns an object's id and a text of it.

    Raises:
        ValueError: It has none.
    """
    number, text = (one.get("id"), one.get(key)) if isinstance(one, dict) else (None, None)
    if not isinstance(number, int | str) or not isinstance(text, str) or not text.strip():
        raise ValueError(
            f"{what} is {str(one)[:80]}; expected an object with id and {key}: {_EXPECTED}"
        )
    return number, text


def _place(file_name: str, split: str, places: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Returns where a photo lies, and why that cannot be told."""
    fitting = [
        path
        for path in places.get(file_name.split("/")[-1], ())
        if path == file_name or path.endswith(f"/{file_name}")
    ]
    alike = [path for path in fitting if split and _split_of(path) == split]
    chosen = fitting if len(fitting) == 1 else alike
    if len(chosen) == 1 or not fitting:
        return (chosen or [file_name])[0], ""
    return file_name, (
        f"the photo stands {len(fitting)} times, as {fitting[:3]}; expected one: give a folder "
        "with one of them"
    )


def _in_order(listing: _Listing) -> Iterable[tuple[str, object]]:
    """Yields where each annotation stands, and it: those of a photo in a row."""
    order = {number: place for place, number in enumerate(listing.photos)}
    found = []
    for number, one in enumerate(listing.annotations, 1):
        one_id = one.get("id") if isinstance(one, dict) else None
        where = f"annotation {number} of the list" if one_id is None else f"annotation id {one_id}"
        image = one.get("image_id") if isinstance(one, dict) else None
        last = order.get(image, len(order)) if isinstance(image, int | str) else len(order)
        found.append((last, number, f"{listing.inner}, {where}", one))
    for _, _, place, one in sorted(found, key=lambda each: each[:2]):
        yield place, one


def _item(listing: _Listing, annotation: object) -> _Item:
    """Returns what an annotation says.

    Raises:
        ValueError: It cannot be an item; the message says why.
    """
    if not isinstance(annotation, dict):
        raise ValueError(f"is a JSON {type(annotation).__name__}; expected an object")
    number = annotation.get("id")
    if not isinstance(number, int | str):
        raise ValueError(f"the id is {number!r}; expected a number")
    photo = _of_id(listing.photos, annotation, "image_id", "images")
    category, above = _of_id(listing.categories, annotation, "category_id", "categories")
    names: dict[str, list[str]] = {}
    numbers = annotation.get("attribute_ids") or []
    if not isinstance(numbers, list):
        raise ValueError(f"attribute_ids is {numbers!r}; expected a list")
    for one in numbers:
        if not isinstance(one, int | str) or one not in listing.attributes:
            raise ValueError(f"the attribute id is {one!r}; expected one of the file's attributes")
        label, column = listing.attributes[one]
        names.setdefault(column, []).append(label)
    return _Item(
        f"{os.path.splitext(photo.file_name)[0]}-{number}",
        photo,
        category,
        above,
        _box(annotation.get("bbox"), photo),
        {column: "; ".join(dict.fromkeys(labels)) for column, labels in names.items()},
    )


def _of_id(known: Mapping[object, Any], annotation: Mapping[str, object], key: str, of: str) -> Any:
    number = annotation.get(key)
    if not isinstance(number, int | str) or number not in known:
        raise ValueError(f"the {key} is {number!r}; expected the id of one of the file's {of}")
    return known[number]


def _box(bbox: object, photo: _Photo) -> Box:
    """Returns the box in fractions of its photo.

    Raises:
        ValueError: It is none, or cuts nothing out.
    """
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise ValueError(f"bbox is {bbox!r}; expected four numbers: left, top, width, height")
    width, height = photo.width, photo.height
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        width = height = 0
    if width <= 0 or height <= 0:
        raise ValueError(
            f"the photo {photo.file_name!r} has width {photo.width!r} and height {photo.height!r}; "
            "expected both in pixels, since boxes are"
        )
    try:
        return Box(bbox[0] / width, bbox[1] / height, bbox[2] / width, bbox[3] / height)
    except (BoxError, OverflowError) as error:
        raise ValueError(
            f"bbox {bbox} cuts nothing out of a photo of {width} x {height} px; expected left, "
            "top, width and height in its pixels"
        ) from error


def _said(num_crowds: int, num_left_out: int, leave_out: Sequence[str]) -> tuple[Choice, ...]:
    choices: tuple[Choice, ...] = ()
    if num_crowds:
        what = f"{many(num_crowds, 'annotation')} left out"
        choices += (Choice("", what, "iscrowd: they mark many things at once"),)
    if num_left_out:
        what = f"{many(num_left_out, 'annotation')} left out"
        choices += (Choice("", what, f"data.leave_out names {listed(list(leave_out), 8)}"),)
    return choices
