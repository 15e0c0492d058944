"""Which item trains, which validates, which tests: by group, and stable when items are added.

Every choice is a hash of a seed and a name (the group, the item id), never of a position or of a
random stream: an item that is added or removed moves no other item.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import SPLITS, Catalog

SplitMethod = Literal["hash", "crc32"]


def stable_unit(text: str, seed: int) -> float:
    """Gives a number in [0, 1) that depends on nothing but ``text`` and ``seed``.

    The first 53 bits of the SHA-256 of ``"<seed>:<text>"`` as UTF-8: evenly spread, and the same
    on every machine and in every version of Python.

    Example:
        >>> stable_unit("board-7", seed=0)
        0.9887561129050754
    """
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign_splits(
    catalog: Catalog,
    *,
    method: SplitMethod,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    divisor: int = 10,
) -> Catalog:
    """Gives the catalogue with every item's split filled; a group always stays together.

    The data's own splits come first, and only what they leave open is drawn:

    1. A group that the data puts into ``val`` or ``test`` stays there, all its items with it.
    2. The other groups, given as ``train`` or not given at all, are the pool.
    3. If the data names no ``test`` item, ``method`` takes the test groups out of the pool.
    4. If the data names no ``val`` item, the share ``val_fraction`` of what is then left in the
       pool becomes ``val``, by the group's hash.
    5. The rest of the pool is ``train``.

    So an official train and test split keeps its test items and gives some of its training items
    to ``val``; an official split into all three stays as it is; items without a split never join
    an official ``val`` or ``test``, unless their group is there. Fractions are of groups, and hold
    on average: a small catalogue may end without a ``val`` or ``test`` item.

    Args:
        catalog: Items with or without a split.
        method: ``hash`` tests the groups whose hash falls below ``test_fraction``; ``crc32`` those
            whose CRC-32 (of the name as UTF-8) is divisible by ``divisor``, whatever the seed.
        val_fraction: Share of the pool's groups without the test groups, in [0, 1).
        test_fraction: Share of the pool's groups, in [0, 1); ``crc32`` does not use it.
        seed: Another seed draws other groups.
        divisor: For ``crc32``: one group in ``divisor`` is tested, at least 2.

    Raises:
        ValueError: An argument is out of range, the data puts items of one group into different
            splits, or no item is left to train on.
    """
    _check_arguments(method, val_fraction, test_fraction, divisor)
    group_of_row, groups = pd.factorize(catalog.table["group"])
    names: list[str] = list(groups)
    split = _given_splits(catalog, group_of_row, names)  # [num_groups] object(str)
    given = set(split)
    if "test" not in given:
        if method == "crc32":
            checksums = np.array([zlib.crc32(name.encode()) for name in names], dtype=np.uint32)
            chosen = checksums % divisor == 0
        else:
            chosen = _below(names, "test", seed, test_fraction)
        split[chosen & np.isin(split, ("", "train"))] = "test"
    if "val" not in given:
        chosen = _below(names, "val", seed, val_fraction)
        split[chosen & np.isin(split, ("", "train"))] = "val"
    split[split == ""] = "train"
    if "train" not in split:
        counts = {name: int((split == name).sum()) for name in SPLITS}
        raise ValueError(
            f"catalogue {catalog.name!r} has no item left to train on (groups a split: {counts}); "
            f"val_fraction={val_fraction}, test_fraction={test_fraction}, method={method!r}; "
            "lower the fractions, take another seed, or give more groups"
        )
    return replace(catalog, table=catalog.table.assign(split=split[group_of_row]))


def limit_items(catalog: Catalog, max_per_category: Mapping[str, int | None], seed: int) -> Catalog:
    """Gives the catalogue with at most so many items a category in each split.

    Kept are the items with the smallest hash of seed and item id, in the table's order: the choice
    is the same whatever the order of the table, and an item that is added displaces at most one.

    Args:
        catalog: Every item has a split.
        max_per_category: Split -> most items a category, at least 1. A split that is not named, or
            is named with ``None``, keeps all.
        seed: Another seed keeps other items.

    Raises:
        ValueError: A split is unknown, a limit is below 1, or an item has no split yet.
    """
    unknown = sorted(set(max_per_category) - set(SPLITS))
    if unknown:
        raise ValueError(f"max_per_category names the split(s) {unknown}; expected {list(SPLITS)}")
    for split, limit in max_per_category.items():
        if limit is not None and limit < 1:
            raise ValueError(
                f"max_per_category[{split!r}] is {limit}; expected at least 1, or None for all"
            )
    table = catalog.table
    num_open = int((table["split"] == "").sum())
    if num_open:
        raise ValueError(
            f"{num_open} of {len(table)} items of catalogue {catalog.name!r} have no split yet; "
            "call assign_splits first"
        )
    keep = np.ones(len(table), dtype=bool)
    for split, limit in max_per_category.items():
        if limit is None:
            continue
        rows = catalog.rows_of_split(split)
        part = table.iloc[rows][["item_id", "category"]].assign(
            row=rows, unit=[stable_unit(i, seed) for i in table["item_id"].iloc[rows]]
        )
        part = part.sort_values(["unit", "item_id"])
        rank = part.groupby("category").cumcount().to_numpy()  # 0 = smallest hash of its category
        keep[part["row"].to_numpy()[rank >= limit]] = False
    return catalog.take(np.flatnonzero(keep))


def _check_arguments(method: str, val_fraction: float, test_fraction: float, divisor: int) -> None:
    if method not in get_args(SplitMethod):
        raise ValueError(f"method is {method!r}; expected one of {list(get_args(SplitMethod))}")
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:  # also refuses NaN
            raise ValueError(
                f"{name} is {fraction}; expected 0 <= {name} < 1, a share of the groups"
            )
    if divisor < 2:
        raise ValueError(
            f"divisor is {divisor}; expected at least 2: one group in {divisor} would leave "
            "nothing to train on"
        )


def _below(names: list[str], purpose: str, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Marks the groups whose hash for this purpose is below a fraction: [num_groups] bool."""
    units = np.array([stable_unit(f"{purpose}:{name}", seed) for name in names], dtype=np.float64)
    return units < fraction


def _given_splits(
    catalog: Catalog, group_of_row: NDArray[np.intp], names: list[str]
) -> NDArray[np.object_]:
    """Gives each group's split in the data (``[num_groups] object(str)``, "" where none)."""
    split = np.full(len(names), "", dtype=object)
    split_of_row = catalog.table["split"].to_numpy()
    torn: dict[str, set[str]] = {}
    for given in SPLITS:
        members = np.unique(group_of_row[split_of_row == given])
        for group in members[split[members] != ""]:
            torn.setdefault(names[group], {str(split[group])}).add(given)
        split[members] = given
    if torn:
        shown = "\n".join(f"  {name!r}: {sorted(torn[name])}" for name in sorted(torn)[:10])
        more = f"\n  ... and {len(torn) - 10} more" if len(torn) > 10 else ""
        raise ValueError(
            f"catalogue {catalog.name!r} puts items of one group into different splits, for "
            f"{len(torn)} group(s):\n{shown}{more}\n"
            "A group on both sides leaks what it trains on into what it measures. Mend the split "
            "column, or read the data without it (then whole groups are drawn)."
        )
    return split
