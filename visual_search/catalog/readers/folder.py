"""A folder of pictures with one sub-folder a category: the layout that everybody has already."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from visual_search import builder
from visual_search.catalog.catalog import SPLITS, Catalog, Choice, RefusedItem
from visual_search.catalog.identity import PRODUCT, picture_id
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.category_levels import levels_told, with_levels
from visual_search.catalog.readers.listings import split_of_word
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.product_folders import products_found_out
from visual_search.catalog.readers.products import PICTURE_SUFFIXES
from visual_search.catalog.readers.sources import FileSource, ZipSource, open_source, stem_of


@builder("data")
def folder(
    root: str | os.PathLike[str],
    on_bad_item: OnBadItem = "error",
    splits: bool = False,
    products: bool | None = None,
    category_depth: int | None = None,
) -> Catalog:
    """Returns the catalogue of ``root/<category>/**/<picture>``.

    The item id is the path below ``root`` with ``/``, suffix included, so that it names the same
    picture on every machine. Deeper folders belong to the category at the top. Hidden files and
    those of the operating system (``.DS_Store``, ``Thumbs.db``) do not count.

    With ``splits`` the layout is ``root/<split>/<category>/**/<picture>``, as for torchvision's
    ``ImageFolder``. The item id begins with the split's folder then: ``train/coats/1.jpg`` and
    ``val/coats/1.jpg`` are two items.

    Args:
        root: The folder, or a ``.zip`` with the same layout. A zip that wraps it all in one more
            folder, as packing a folder does, is read from inside that folder.
        on_bad_item: ``error`` stops when something cannot be an item, ``skip`` leaves it out and
            keeps it in ``refused``: files that are no pictures by their suffix, pictures outside
            every category (or split), links out of the root, categories without a picture.
        splits: The folders at the top are splits. ``train``, ``val`` and ``test`` are meant by
            their names in capital or small letters, and by ``training``, ``valid``,
            ``validation``, ``dev`` and ``testing``; not all three need to be there.
        products: The folder that a picture lies in is a product, ``root/<category>/**/<product>/``:
            its first picture, by name, has the folder's path as its id, the next ``<path>~2``, the
            attribute ``product`` holds the path, and the product is the group. Where no picture
            lies deeper than ``root/<product>/``, the product is its category too. None finds it
            out: see `product_folders`.
        category_depth: How many folders below the root make the category; those between it and the
            picture are further levels: see `with_levels`. None takes the one at the top alone.

    Returns:
        The items sorted by id, each a group of its own, or its product's; no split assigned, but
        with ``splits``.

    Raises:
        FileNotFoundError: Nothing is at ``root``.
        BadItemsError: There are bad items and ``on_bad_item`` is ``error``.
        ValueError: ``root`` is a file but no zip, or holds no picture; with ``splits``, no folder
            at the top is a split; without, the folders at the top are splits; or ``on_bad_item``
            is another word.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("train/coats/1.jpg", "valid/coats/1.jpg"):
        ...     (root / name).parent.mkdir(parents=True)
        ...     _ = (root / name).write_bytes(b"")
        >>> print(folder(root, splits=True).table[["item_id", "category", "split"]])
                     item_id category  split
        0  train/coats/1.jpg    coats  train
        1  valid/coats/1.jpg    coats    val
    """
    check_on_bad_item(on_bad_item)
    source = open_source(root)
    base = _wrapping_folder(source, splits)
    tops = _folders(source, base)
    _check_layout(tops, splits, root)
    level = 1 if splits else 0  # where in the path the category stands
    item_ids: list[str] = []
    refused: list[RefusedItem] = []
    filled: set[str] = set()
    names = [name for name in source.names() if name.startswith(base)]
    names = [name for name in names if not is_clutter(name.removeprefix(base))]
    deepest = max((name.removeprefix(base).count("/") for name in names), default=0)
    below_category = bool(products) and deepest > level + 1
    for name in names:
        item_id = name.removeprefix(base)
        parts = item_id.split("/")
        reason = source.problem(name) or _reason_to_refuse(parts, level, products=below_category)
        if reason:
            refused.append(RefusedItem(item_id, name, reason))
        else:
            item_ids.append(item_id)
            filled.update("/".join(parts[: depth + 1]) for depth in range(level + 1))
    expected = tops
    if splits:
        expected = [top for top in tops if split_of_word(top) in SPLITS]
        expected += [
            f"{top}/{category}"
            for top in expected
            for category in _folders(source, f"{base}{top}/")
        ]
    for path in expected:
        if path not in filled:
            refused.append(RefusedItem(path, base + path, _reason_of_the_empty(path, splits)))
    folders = [item_id.split("/")[level:-1] for item_id in item_ids]
    choices: tuple[Choice, ...] = ()
    if base:
        choices = (Choice("", f"read inside its folder {base!r}", "it wraps all"),)
    if products is None:
        found = products_found_out(folders, category_depth)
        choices += found
        products = below_category = any(choice.setting for choice in found)
    if below_category:
        folders = [path[:-1] for path in folders]
    if category_depth is None and not any(choice.setting is False for choice in choices):
        choices += levels_told(folders)
    columns = {
        "item_id": item_ids,
        "image": [base + item_id for item_id in item_ids],
        "category": ["/".join(f if category_depth is not None else f[:1]) for f in folders],
        "group": item_ids,
        "split": [split_of_word(i.split("/")[0]) if splits else "" for i in item_ids],
    }
    if products:
        columns[PRODUCT] = [item_id.rpartition("/")[0] for item_id in item_ids]
        seen: Counter[str] = Counter()
        columns["item_id"] = []
        for product in columns[PRODUCT]:
            seen[product] += 1
            columns["item_id"].append(picture_id(product, seen[product]))
        columns["group"] = columns[PRODUCT]
    catalog = conclude(
        stem_of(root),
        columns,
        source,
        refused,
        on_bad_item=on_bad_item,
        origin=str(root),
        choices=choices,
    )
    return with_levels(catalog, category_depth) if category_depth is not None else catalog


def _check_layout(tops: Sequence[str], splits: bool, root: str | os.PathLike[str]) -> None:
    named = {top: split_of_word(top) for top in tops if split_of_word(top) in SPLITS}
    if splits and not named:
        raise ValueError(
            f"{root} has no folder of a split; it has {list(tops)[:10]}; expected at least one of "
            f"{list(SPLITS)} with the categories inside; set data.splits=false if the folders at "
            "the top are categories"
        )
    # A lone `train` beside `dolls` may well be a toy; `train` beside `val` is not.
    several = len(set(named.values())) > 1 and "train" in named.values()
    if not splits and named and (several or len(named) == len(tops)):
        raise ValueError(
            f"{root} has the folders {sorted(named)}, which name splits; expected categories at "
            "the top; set data.splits=true to read <split>/<category>/<picture>, or rename them if "
            "they are categories"
        )


def _reason_to_refuse(parts: Sequence[str], level: int, *, products: bool) -> str:
    suffix = os.path.splitext(parts[-1])[1].lower()
    if suffix not in PICTURE_SUFFIXES:
        return f"{suffix or 'no suffix'} is no picture's; expected {sorted(PICTURE_SUFFIXES)}"
    if level and (len(parts) == 1 or split_of_word(parts[0]) not in SPLITS):
        return f"lies in no split; move it into a category below one of {list(SPLITS)}"
    if len(parts) < level + 2 or not parts[level].strip():
        return "lies in no category; move it into a sub-folder that is named after its category"
    if products and len(parts) < level + 3:
        return "lies in no product; move it into a sub-folder of its category, one a product"
    return ""


def _reason_of_the_empty(path: str, splits: bool) -> str:
    kind = "split" if splits and "/" not in path else "category"
    return f"the {kind} has no picture; put some into it or remove the folder"


def _folders(source: FileSource, base: str) -> list[str]:
    """Returns the names of the folders directly below ``base`` (``""`` or ``"a/"``), sorted."""
    found = source.top_folders(base)
    return [name for name in found if not is_clutter(name)]


def _wrapping_folder(source: FileSource, splits: bool) -> str:
    """Returns ``photos/`` where a zip holds only that, and it folders of pictures; else nothing.

    A stray file beside these folders, such as a read-me, does not make a category of the one around
    them; a category is one in which half of the files or more lie, or one folder beside files.
    """
    if not isinstance(source, ZipSource):
        return ""
    paths = [name.split("/") for name in source.names() if not is_clutter(name)]
    tops = {path[0] for path in paths}
    deep = [path for path in paths if len(path) > 2]
    if len(tops) != 1 or 2 * len(deep) <= len(paths):
        return ""
    if len(deep) < len(paths) and len({path[1] for path in deep}) == 1:
        return ""
    (top,) = tops
    # A zip of `train/coats/1.jpg` alone is not wrapped when `train` is a split.
    return "" if splits and split_of_word(top) in SPLITS else f"{top}/"
