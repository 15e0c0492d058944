"""Categories that are paths, as ``Women > Shoes > Boots``: a level each, and one to go by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from visual_search.catalog.catalog import Catalog, Choice
from visual_search.wording import many

MOST_LEVELS = 8
_SIGNS = (">", "/")  # the first that a category has separates all of them
_SHOWN = " > "


def with_levels(catalog: Catalog, depth: int | None) -> Catalog:
    """Returns a catalogue whose category is the path down to a level, all levels beside it.

    The attributes ``category_1``, ``category_2``, ... hold the path down to each level, so that
    ``Men > Shoes`` and ``Women > Shoes`` differ; they are empty where a path ends before. A path
    that is shorter than the depth is the category as it is.

    Args:
        catalog: Whose categories may be paths, separated by ``>`` or ``/``.
        depth: The level that is the category, from 1; None leaves all as it is, and says so where
            the categories are paths.

    Raises:
        ValueError: The depth is below 1 or beyond the deepest path, or an attribute has a level's
            name already.
    """
    texts = catalog.table["category"].tolist()
    names = list(dict.fromkeys(texts))
    paths = dict(zip(names, paths_of(names), strict=True))
    deepest = max(map(len, paths.values()), default=1)
    if depth is None:
        return replace(catalog, choices=(*catalog.choices, *_hint(names, deepest)))
    most = min(deepest, MOST_LEVELS)
    if not 1 <= depth <= most:
        longest = max(names, key=lambda name: len(paths[name]))
        raise ValueError(
            f"data.category_depth is {depth}, and the deepest category, {longest!r}, has "
            f"{many(deepest, 'level')}; expected 1 to {most}, of paths separated by "
            f"{' or '.join(_SIGNS)}"
        )
    levels = {f"category_{level}": level for level in range(1, most + 1)}
    taken = sorted(set(levels) & set(catalog.table.columns))
    if taken:
        raise ValueError(
            f"the column {taken[0]!r} has the name of a level of the category; expected another: "
            "rename it, or leave it out by data.attributes"
        )

    def down_to(level: int) -> list[str]:
        found = {name: _SHOWN.join(path[:level]) for name, path in paths.items()}
        return [found[text] for text in texts]

    columns = {
        column: [
            value if len(paths[text]) >= level else ""
            for value, text in zip(down_to(level), texts, strict=True)
        ]
        for column, level in levels.items()
    }
    return replace(catalog, table=catalog.table.assign(category=down_to(depth), **columns))


def levels_told(folders: Sequence[Sequence[str]]) -> tuple[Choice, ...]:
    """Returns what to say of folders in folders, of which the one at the top is the category.

    Args:
        folders: Those that each picture lies in.

    Example:
        >>> print(*levels_told([["Women", "Shoes"], ["Men"]]))
        data.category_depth=null (folders are up to 2 deep, of which the top one is the category; \
1 or more takes them down to that level, and keeps all levels)
    """
    deepest = max(map(len, folders), default=0)
    if deepest < 2:
        return ()
    why = f"folders are up to {deepest} deep, of which the top one is the category; 1 or more takes"
    why += " them down to that level, and keeps all levels"
    return (Choice("data.category_depth", "null", why),)


def paths_of(names: Sequence[str]) -> list[list[str]]:
    """Returns the parts of each name, of one part where the sign of all is not in it.

    Example:
        >>> paths_of(["Women > Shoes > Boots", "Women/Hats"])
        [['Women', 'Shoes', 'Boots'], ['Women/Hats']]
        >>> paths_of(["Shoes/Boots", "Hats"])
        [['Shoes', 'Boots'], ['Hats']]
    """
    sign = next((sign for sign in _SIGNS if any(sign in name for name in names)), _SIGNS[0])
    found = []
    for name in names:
        parts = [part.strip() for part in re.split(re.escape(sign), name)]
        found.append([part for part in parts if part] or [name])
    return found


def _hint(names: Sequence[str], deepest: int) -> tuple[Choice, ...]:
    """Returns what to say of categories that are surely paths: most of them, by ``>``."""
    num_paths = Counter(">" in name for name in names)[True]
    if deepest < 2 or 2 * num_paths <= len(names):
        return ()
    why = f"categories are paths of up to {deepest} levels, taken whole; 1 to {deepest} takes them"
    return (Choice("data.category_depth", "null", f"{why} down to one, and keeps all levels"),)
