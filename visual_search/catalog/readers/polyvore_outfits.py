"""Polyvore Outfits (ECCV 2018): 251,008 items, of which people have made 68,306 outfits."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, get_args

from visual_search import builder
from visual_search.catalog.catalog import Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.json_files import read_json
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    find_file,
    join,
    read_text,
    split_of_name,
)
from visual_search.catalog.readers.sources import FileSource, open_source
from visual_search.wording import many

Version = Literal["nondisjoint", "disjoint"]
Category = Literal["semantic_category", "fine_category"]

METADATA, CATEGORIES = "polyvore_item_metadata.json", "categories.csv"
OUTFITS = ("train.json", "valid.json", "test.json")  # in the order in which an item is taken
HIERARCHY = ("semantic_category", "fine_category")  # coarse to fine
_HINT = "give the folder into which polyvore_outfits was unpacked"
_KEPT = ("title", "url_name", "category_id", "semantic_category", "items", "set_id", "item_id")


@builder("data")
def polyvore_outfits(
    root: str | os.PathLike[str],
    version: Version = "nondisjoint",
    category: Category = "semantic_category",
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the items of all outfits, each once.

    An item has one split, that of its outfits: ``valid.json`` is ``val``. In ``nondisjoint``, where
    items are in outfits of several splits, it is the first of train, val and test, so that nothing
    is tested that was trained on; how many that are is said. Its group is the first of its outfits
    there, all of which the attribute ``outfits`` names; others that share an item with it are other
    groups, since by shared items nearly all outfits hang together.

    The category is the semantic one (11), or the fine one of ``categories.csv``; both are
    attributes, for ``protocol.hierarchy=[semantic_category,fine_category]``, and so is ``title``
    (or the name in the item's address, where it has none).

    Source of the format: https://github.com/mvasil/fashion-compatibility, and MMFashion's
    ``docs/dataset/FASHION_COMPATIBILITY_DATASET.md``.

    Args:
        root: The folder or zip with ``polyvore_item_metadata.json``, ``categories.csv``,
            ``images/<item_id>.jpg`` and the folders ``nondisjoint`` and ``disjoint``.
        version: Which of the two ways to split the outfits.
        category: ``semantic_category`` or ``fine_category``.
        on_bad_item: ``error`` stops when an item cannot be one, ``skip`` leaves it out and keeps it
            in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``root``, or a listing is not in it.
        BadItemsError: There are bad items and ``on_bad_item`` is ``error``: an outfit that is no
            object with ``set_id`` and ``items``, an item without an id, without an entry in the
            metadata, or without a category, a picture that is missing.
        ValueError: A listing is not of this format, no item is good, or an argument is another
            word.
    """
    check_on_bad_item(on_bad_item)
    check_choice("data.version", version, get_args(Version))
    check_choice("data.category", category, get_args(Category))
    source = open_source(root)
    inner = find_file(source, METADATA, _HINT)
    base = PurePosixPath(inner).parent
    content = read_json(source, inner, "an object, item -> its texts", _only_what_is_kept)
    if not isinstance(content, dict):
        raise ValueError(f"{inner} in {source!r} holds no object; expected item -> its texts")
    names = _category_names(source, join(base, CATEGORIES))
    items = Items(source, ["title", *HIERARCHY, "outfits"])
    found: dict[str, _Found] = {}
    num_several: set[str] = set()
    for listing in OUTFITS:
        path = join(base, version, listing)
        split = split_of_name(listing)
        for place, outfit in _outfits(source, path):
            try:
                set_id, item_ids = _outfit(outfit)
            except ValueError as error:
                items.refuse(place, "", "", str(error))
                continue
            for item_id in item_ids:
                first = found.setdefault(item_id, _Found(f"{path}, outfit {set_id}", split))
                if first.split == split:
                    first.outfits.append(set_id)
                else:
                    num_several.add(item_id)
    if num_several:
        what = f"{many(len(num_several), 'item')} of outfits of several splits"
        items.choices += (Choice("", what, "each is of the first: train, val, test"),)
    for item_id, one in found.items():
        image = join(base, "images", f"{item_id}.jpg")
        said = content.get(item_id)
        if not isinstance(said, dict):
            items.refuse(one.place, item_id, image, f"{METADATA} has no entry of it")
            continue
        number = str(said.get("category_id"))
        fine, above = names.get(number, ("", ""))
        levels = {
            "fine_category": fine,
            "semantic_category": _text(said, "semantic_category") or above,
        }
        items.add(
            one.place,
            item_id=item_id,
            image=image,
            category=levels[category],
            group=one.outfits[0],
            split=one.split,
            attributes=[
                _text(said, "title") or _text(said, "url_name"),
                *(levels[level] for level in HIERARCHY),
                " ".join(dict.fromkeys(one.outfits)),
            ],
        )
    return items.conclude("polyvore_outfits", on_bad_item=on_bad_item, origin=f"{root} ({version})")


@dataclass
class _Found:
    place: str
    split: str
    outfits: list[str] = field(default_factory=list)


def _only_what_is_kept(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Returns an object without descriptions and what was shown beside it, most of the file."""
    return {key: value for key, value in pairs if key in _KEPT or isinstance(value, dict)}


def _category_names(source: FileSource, inner: str) -> dict[str, tuple[str, str]]:
    """Returns the fine and the semantic category of each number."""
    try:
        text = read_text(source, inner)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {inner} in {source!r}; {_HINT}") from error
    rows = [row for row in csv.reader(text.splitlines()) if row]
    bad = next((row for row in rows if len(row) != 3), None)
    if bad is not None:
        raise ValueError(
            f"{inner} in {source!r} has the row {bad}; expected number, fine and semantic "
            "category: fetch it again"
        )
    return {number.strip(): (fine.strip(), above.strip()) for number, fine, above in rows}


def _outfits(source: FileSource, inner: str) -> Iterator[tuple[str, object]]:
    """Yields where each outfit stands, and it."""
    try:
        content = read_json(source, inner, "a list of outfits", _only_what_is_kept)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {inner} in {source!r}; {_HINT}") from error
    if not isinstance(content, list):
        raise ValueError(f"{inner} in {source!r} holds no list; expected one of outfits")
    for number, outfit in enumerate(content, 1):
        yield f"{inner}, entry {number}", outfit


def _outfit(outfit: object) -> tuple[str, list[str]]:
    """Returns an outfit's id and those of its items.

    Raises:
        ValueError: It has none.
    """
    set_id, items = (
        (outfit.get("set_id"), outfit.get("items")) if isinstance(outfit, dict) else (None, None)
    )
    if not isinstance(set_id, int | str) or not isinstance(items, list):
        raise ValueError(f"is {str(outfit)[:80]}; expected an object with set_id and items")
    ids = [one.get("item_id") if isinstance(one, dict) else None for one in items]
    if not all(isinstance(one, int | str) for one in ids):
        raise ValueError(
            f"outfit {set_id} has the items {str(items)[:80]}; expected an item_id each"
        )
    return str(set_id), list(map(str, ids))


def _text(said: Mapping[str, object], key: str) -> str:
    value = said.get(key)
    return " ".join(value.split()) if isinstance(value, str) else ""
