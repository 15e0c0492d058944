"""The table of Open Metric Learning: one CSV says what trains, what asks and what is searched."""

from __future__ import annotations

import os
from collections.abc import Mapping

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.delimited import read_csv
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    check_columns,
    listing_at,
    taken_choice,
)
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import open_source, stem_of
from visual_search.storage.uris import place_of

NEEDED = ("label", "path", "split", "is_query", "is_gallery")
BOX = ("x_1", "y_1", "x_2", "y_2")  # left, top, right, bottom; the file may have another order
SPLIT = {"train": "train", "validation": "test"}
# What pandas writes for True, False and None, and for columns that it has turned into floats
FLAG = {
    "true": "1", "1": "1", "1.0": "1", "false": "0", "0": "0", "0.0": "0",
    "": "", "none": "", "nan": "",
}  # fmt: skip


@builder("data")
def open_metric_learning(
    path: str | os.PathLike[str],
    dataset_root: str | os.PathLike[str] | None = None,
    sep: str | None = None,
    group: str | None = "label",
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
    category: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Catalog:
    """Returns the catalogue of an Open Metric Learning table.

    The table has the columns ``label``, ``path``, ``split`` (``train``, ``validation``),
    ``is_query`` and ``is_gallery`` (True, False, or nothing where ``split`` is ``train``), and may
    have ``category``, ``sequence`` and the box ``x_1``, ``x_2``, ``y_1``, ``y_2`` (left, right,
    top, bottom, in pixels; right and bottom excluded; all empty where a picture has none). A
    picture with a box is cut to it. Source of the format:
    https://open-metric-learning.readthedocs.io/en/latest/oml/data.html

    An item is a row, its id the path, followed by the box where it has one. The category is
    ``category``, or the label where there is no such column. ``validation`` becomes the split
    ``test``, since ``val`` is for choosing a model, and comes out of ``train``. With
    ``protocol=published`` the flags decide who asks whom, and ``protocol.relevance=[group]`` is the
    measurement that the table was made for (``[label]`` where ``group`` is None). ``sequence`` is
    an attribute and excludes nothing. Every column that is not named above is an attribute as well,
    unless it has a name that the catalogue uses itself.

    Args:
        path: The CSV.
        dataset_root: The folder that the paths are relative to; the CSV's own by default. Absolute
            paths must lie below it.
        sep: The older name of ``separator``.
        group: The column of what must not be split, None for none: give that where labels of
            ``train`` are asked for in ``validation`` as well.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.
        name: Name of the catalogue; the stem of ``path`` by default.
        category: The column of the categories; None takes ``category`` or, where there is none,
            ``label``, and says so.
        separator: What separates the fields: one character, or ``tab``; None finds it out and says
            so.
        encoding: As ``cp1252``; None finds it out and says so, where it is certain.

    Raises:
        FileNotFoundError: Nothing is at ``path``, or ``dataset_root`` is no folder.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of
            fields than the header, an empty label or category, another split, a flag that is none
            or is set in a training row, neither flag set in a validation row, a box that is not
            four whole numbers or is empty, a picture that is missing, outside the root or stands
            twice.
        ValueError: The table lacks a column, has only some of the box's, is no UTF-8 or over
            2 GiB; ``sep`` is no single character; no row is good; or ``on_bad_item`` is another
            word.
    """
    check_on_bad_item(on_bad_item)
    listing = place_of(path)
    data = listing_at(path, "the CSV")
    try:
        raw = read_csv(data, separator or sep, encoding, name=listing.name, needed=NEEDED)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    has_boxes = any(column in raw.columns for column in BOX)
    needed = [*NEEDED, *(BOX if has_boxes else ()), *([group] if group is not None else [])]
    check_columns(raw.columns, needed, str(path))
    source = open_source(listing.parent if dataset_root is None else dataset_root)
    unlisted = {*REQUIRED_COLUMNS, *BOX, "path"}
    kept = [column for column in raw.columns if column not in unlisted]
    unused = [name for name in raw.columns if name not in {*NEEDED, *BOX, "category"}]
    choices = raw.choices + taken_choice(name for name in unused if name != group)
    if category is None:
        category = "category" if "category" in raw.columns else "label"
        if category == "label":
            choices += (Choice("data.category", "label", "there is no column 'category'"),)
    check_choice("data.category", category, raw.columns)

    items = Items(source, kept, choices, raw.refused)
    any_box = False
    for place, row in raw.named():
        image = row["path"]
        try:
            image = source.below(image)
            split = _split(row)
            fragment = _fragment(row) if has_boxes else ""
            if not row["label"].strip():
                raise ValueError("the label is empty")
        except ValueError as error:
            items.refuse(place, image, image, str(error))
            continue
        any_box = any_box or bool(fragment)
        row |= {flag: FLAG[row[flag].strip().lower()] for flag in ("is_query", "is_gallery")}
        items.add(
            place,
            item_id=image + fragment,
            image=image,
            category=row[category],
            group=row[group] if group is not None else "",
            split=split,
            attributes=[row[column] for column in kept],
            fragment=fragment,
        )
    return items.conclude(
        name or stem_of(path),
        on_bad_item=on_bad_item,
        origin=str(path),
        source=PixelCropSource(source) if any_box else None,
    )


def _split(row: Mapping[str, str]) -> str:
    """Returns the split; ValueError where it or the flags are not as the format has them."""
    split = row["split"].strip()
    if split not in SPLIT:
        raise ValueError(f"the split is {split!r}; expected one of {list(SPLIT)}")
    flags = [FLAG.get(row[column].strip().lower()) for column in ("is_query", "is_gallery")]
    if None in flags:
        raise ValueError(
            f"is_query is {row['is_query']!r} and is_gallery {row['is_gallery']!r}; expected True "
            "or False, or nothing in a training row"
        )
    if (split == "validation") != ("1" in flags):
        raise ValueError(
            f"the split is {split!r}, is_query {row['is_query']!r} and is_gallery "
            f"{row['is_gallery']!r}; expected at least one to be True in a validation row, and "
            "none in a training row"
        )
    return SPLIT[split]


def _fragment(row: Mapping[str, str]) -> str:
    """Returns fragment of the row's box, nothing where it has none; ValueError for a bad one."""
    texts = [row[column].strip() for column in BOX]
    if all(text.lower() in ("", "nan") for text in texts):
        return ""
    try:
        numbers = [float(text) for text in texts]  # pandas writes 12.0 beside an empty row
        corners = [int(number) for number in numbers]
    except (ValueError, OverflowError):
        corners, numbers = [], [0.0]
    if corners != numbers:
        named = ", ".join(f"{c}={row[c]!r}" for c in BOX)
        raise ValueError(f"the box is {named}; expected four whole numbers, or none of them")
    return pixel_box(*corners)
