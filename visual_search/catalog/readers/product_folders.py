"""Folders that are products, as ``<category>/<product>/1.jpg``: known by what they hold.

A folder below a category may as well be a level of the category, ``Women/Shoes/Boots/1.jpg``. Read
as products these would be ruined, and read as categories products only lose what ties their
pictures together. So all has to speak for products: there are many folders, each holds few
pictures, and each is named by a number of its own. Where only some of it does, that is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from visual_search.catalog.catalog import Choice
from visual_search.wording import many

FEWEST_FOLDERS = 12
FEWEST_A_CATEGORY = 3  # folders, in the mean
FEWEST_PICTURES = 1.2  # of a folder, in the mean: with one each there is nothing to tie together
MOST_PICTURES = 20
NUMBERED = 0.95  # share of the folders
# A year or a day, as of what was photographed together; it numbers no product.
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")


def products_found_out(
    folders: Sequence[Sequence[str]], category_depth: int | None
) -> tuple[Choice, ...]:
    """Returns whether the folders that pictures lie in are products; nothing where none may be.

    Args:
        folders: Those that each picture lies in, from its category on.
        category_depth: How many of them somebody said to be levels of the category; products lie
            below these.

    Example:
        >>> pictures = [["shoes", f"S{n // 2}"] for n in range(80)]
        >>> print(*products_found_out(pictures, None))
        data.products=true (80 pictures lie in 40 folders within 1 other, at most 2 in one and \
each with a number of its own, as those of products do; false makes each picture an item)
        >>> pictures = [["birds", f"{'abcdefghijklmnopqrst'[n // 2]}"] for n in range(40)]
        >>> print(*products_found_out(pictures, None))
        data.products=false (40 pictures lie in 20 folders within 1 other, at most 2 in one: if \
each is a product, true finds it once; if they are levels of the category, data.category_depth=2 \
says so)
        >>> products_found_out([["shoes"], ["hats"]], None)
        ()
    """
    if not folders:
        return ()
    shallowest, deepest = min(map(len, folders)), max(map(len, folders))
    if shallowest < 2 <= deepest or (category_depth is not None and shallowest <= category_depth):
        return ()
    counts = Counter(map(tuple, folders))
    parents = Counter(folder[:-1] for folder in counts)
    most = max(counts.values())
    if most > MOST_PICTURES or len(folders) < FEWEST_PICTURES * len(counts):
        return ()
    if counts.keys() & parents.keys():  # pictures beside folders of pictures
        return ()
    are_many = len(counts) >= max(FEWEST_FOLDERS, FEWEST_A_CATEGORY * len(parents))
    names = [folder[-1] for folder in counts]
    numbered = sum(bool(re.search(r"\d", name)) and not _DATE.fullmatch(name) for name in names)
    are_numbered = numbered >= NUMBERED * len(names) and len(set(names)) == len(names)
    if not are_many and not are_numbered:
        return ()
    what = f"{many(len(folders), 'picture')} lie in {many(len(counts), 'folder')}"
    if deepest == 1:
        if not (are_many and are_numbered):
            return ()
        why = (
            f"{what}, at most {most} in one and each with a number of its own: if each is a "
            "product, true and protocol=instance ask for it by its other pictures"
        )
        return (Choice("data.products", "false", why, False),)
    what += f" within {many(len(parents), 'other')}, at most {most} in one"
    if are_many and are_numbered:
        why = f"{what} and each with a number of its own, as those of products do"
        return (Choice("data.products", "true", f"{why}; false makes each picture an item", True),)
    why = f"{what}: if each is a product, true finds it once"
    if category_depth is None:
        why += f"; if they are levels of the category, data.category_depth={shallowest} says so"
    return (Choice("data.products", "false", why, False),)
