"""A folder of pictures with one sub-folder a category: the layout that everybody has already."""

from __future__ import annotations

import os
from pathlib import Path

from visual_search.catalog.catalog import Catalog, RefusedItem
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.sources import (
    FolderSource,
    ZipSource,
    is_clutter,
    open_source,
)

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)


def folder(root: str | os.PathLike[str], on_bad_item: OnBadItem = "error") -> Catalog:
    """Gives the catalogue of ``root/<category>/**/<picture>``.

    The item id is the path below ``root`` with ``/``, suffix included, so that it names the same
    picture on every machine. Deeper folders belong to the category at the top. Hidden files and
    those of the operating system (``.DS_Store``, ``Thumbs.db``) do not count.

    Args:
        root: The folder, or a ``.zip`` with the same layout. A zip that wraps it all in one more
            folder, as packing a folder does, is read from inside that folder.
        on_bad_item: ``error`` stops when something cannot be an item, ``skip`` leaves it out and
            keeps it in ``refused``: files that are no pictures by their suffix, pictures outside
            every category, links out of the root, categories without a picture.

    Returns:
        The items sorted by id, each a group of its own, no split assigned.

    Raises:
        FileNotFoundError: Nothing is at ``root``.
        BadItemsError: There are bad items and ``on_bad_item`` is ``error``.
        ValueError: ``root`` is a file but no zip, or holds no picture; or ``on_bad_item`` is
            another word.
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    base = _wrapping_folder(source)
    item_ids: list[str] = []
    refused: list[RefusedItem] = []
    filled: set[str] = set()
    for name in source.names():
        item_id = name.removeprefix(base)
        if is_clutter(item_id) or not name.startswith(base):
            continue
        reason = source.problem(name) or _reason_to_refuse(item_id)
        if reason:
            refused.append(RefusedItem(item_id, name, reason))
        else:
            item_ids.append(item_id)
            filled.add(item_id.split("/")[0])
    folders = source.top_folders(base) if isinstance(source, ZipSource) else source.top_folders()
    for category in folders:
        if category not in filled and not is_clutter(category):
            reason = "the category has no picture; put some into it or remove the folder"
            refused.append(RefusedItem(category, base + category, reason))
    columns = {
        "item_id": item_ids,
        "image": [base + item_id for item_id in item_ids],
        "category": [item_id.split("/")[0] for item_id in item_ids],
        "group": item_ids,
        "split": [""] * len(item_ids),
    }
    return conclude(
        Path(root).absolute().stem,
        columns,
        source,
        refused,
        on_bad_item=on_bad_item,
        origin=str(root),
    )


def _reason_to_refuse(item_id: str) -> str:
    suffix = os.path.splitext(item_id)[1].lower()
    if suffix not in PICTURE_SUFFIXES:
        return f"{suffix or 'no suffix'} is no picture's; expected {sorted(PICTURE_SUFFIXES)}"
    category, slash, _ = item_id.partition("/")
    if not slash or not category.strip():
        return "lies in no category; move it into a sub-folder that is named after its category"
    return ""


def _wrapping_folder(source: FolderSource | ZipSource) -> str:
    """Gives ``photos/`` when a zip holds only that folder and it only folders, else nothing."""
    if isinstance(source, FolderSource):
        return ""
    paths = [name.split("/") for name in source.names() if not is_clutter(name)]
    if len({path[0] for path in paths}) == 1 and all(len(path) > 2 for path in paths):
        return paths[0][0] + "/"
    return ""
