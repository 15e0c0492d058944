"""Which item trains, which validates, which tests: by group, and stable when items are added.

Every random choice is a hash of a seed and a name (the group, the item id), never of a position or
of a random stream: under ``hash`` and ``crc32``, an item that is added or removed moves no other.

``stratified`` begins with the draw of ``hash`` and mends what a measurement could not use. What
that moves hangs on the other groups, so its assignment is kept by group: `catalog.kept_splits`.

``categories`` and ``newest`` are for a cold start: they test on what training never saw, whole
categories or the newest products. A product of a new category, or a new season, may move others,
since both take a share of what there is.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import SPLITS, Catalog

SplitMethod = Literal["stratified", "hash", "crc32", "categories", "newest"]


@dataclass(frozen=True)
class Wanted:
    """What a side that asks needs at least, beside its share, where the catalogue has it.

    Attributes:
        items: Queries.
        groups: Of them.
    """

    items: int
    groups: int


TESTED = Wanted(items=200, groups=20)  # an interval of about +-0.1
VALIDATED = Wanted(items=50, groups=10)  # only chooses an epoch
LARGEST_SHARE = 1 / 3  # of the pool, which such a side takes to have that
LARGEST_GROUP = 1 / 10  # of the queries: beyond it one group decides the mean, so it trains
GROUPS_A_SIDE = 2  # of each category
MOST_OF_A_SHARE = 0.8  # a draw that has so much of what was asked for stays as it is


def stable_unit(text: str, seed: int) -> float:
    """Returns a number in [0, 1) that depends on nothing but ``text`` and ``seed``.

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
    test_categories: Sequence[str] | None = None,
    order_by: str | None = None,
    kept: Mapping[str, str] | None = None,
) -> Catalog:
    """Returns the catalogue with every item's split filled; a group always stays together.

    The data's own splits come first, and only what they leave open is drawn:

    1. A group that the data puts into ``val`` or ``test`` stays there, all its items with it.
    2. The other groups, given as ``train`` or not given at all, are the pool.
    3. If the data names no ``test`` item, ``method`` takes the test groups out of the pool. If it
       names one, ``method`` chooses nothing, ``categories`` and ``newest`` included: read the data
       without its split column for a cold start of one's own choice.
    4. If the data names no ``val`` item, the share ``val_fraction`` of what is then left in the
       pool becomes ``val``, by the group's hash.
    5. The rest of the pool is ``train``.

    So an official train and test split keeps its test items and gives some of its training items
    to ``val``; an official split into all three stays as it is; items without a split never join
    an official ``val`` or ``test``, unless their group is there. Fractions are of groups, and hold
    on average: a small catalogue may end without a ``val`` or ``test`` item.

    For a cold start, a held-out category is not trained on at all: a group with one item of it is
    tested as a whole, with its items of other categories. Only a group that the data puts into
    ``val`` stays there, and it is no training either.

    Args:
        catalog: Items with or without a split.
        method: ``hash`` tests the groups whose hash falls below ``test_fraction``; ``stratified``
            begins with these, takes out the groups that would hold more than a tenth of the
            queries, and adds others in the order of their hashes until every category has two
            groups on both sides (for which it takes twice its share at most), and the test split
            200 items and 20 groups, or a third of the pool; likewise ``val``, which needs 50 and
            10; ``crc32`` those
            whose CRC-32 (of the name as UTF-8) is divisible by ``divisor``, whatever the seed;
            ``categories`` those with an item of a held-out category; ``newest`` the newest.
        val_fraction: Share of the pool's groups without the test groups, in [0, 1).
        test_fraction: Share of the pool's groups, in [0, 1), rounded to the nearest number for
            ``newest``; for ``categories`` the share of the categories, rounded, yet at least one is
            held out and one left, and not used with ``test_categories``; ``crc32`` does not use it.
        seed: Another seed draws other groups, or other categories.
        divisor: For ``crc32``: one group in ``divisor`` is tested, at least 2.
        test_categories: For ``categories``: those to hold out; None draws them by the hash of
            their names.
        order_by: For ``newest``: the attribute that says how new an item is, larger is newer. If
            all its values that are not empty are numbers, they compare as numbers, otherwise as
            text in code point order (``2024-03-01`` is right, ``1.3.2024`` is not); an empty value
            is the oldest. A group is as new as its newest item; equally new groups at the border
            are chosen by their hash.
        kept: For ``stratified``: group -> split of an earlier draw; these groups stay there.

    Raises:
        ValueError: An argument is out of range or not for this method, a category or attribute is
            not in the catalogue, there are fewer than two categories to hold out one, the data
            puts items of one group into different splits, or no item is left to train on. Where the
            data puts every item into ``test`` it is a benchmark, which no run is trained on.
    """
    _check_arguments(method, val_fraction, test_fraction, divisor)
    _check_cold_start(catalog, method, test_categories, order_by)
    group_of_row, groups = pd.factorize(catalog.table["group"])
    names: list[str] = list(groups)
    split = _given_splits(catalog, group_of_row, names)  # [num_groups] object(str)
    given = set(split)
    strata = None
    if method == "stratified":
        strata = _Strata(catalog, group_of_row, names, kept or {})
    if "test" not in given:
        if strata is not None:
            chosen = strata.draw("test", split, seed, test_fraction, TESTED)
        elif method == "crc32":
            checksums = np.array([zlib.crc32(name.encode()) for name in names], dtype=np.uint32)
            chosen = checksums % divisor == 0
        elif method == "categories":
            held_out = test_categories
            if held_out is None:
                held_out = _draw_categories(catalog, seed, test_fraction)
            chosen = np.zeros(len(names), dtype=np.bool_)
            chosen[group_of_row[catalog.table["category"].isin(list(held_out)).to_numpy()]] = True
        elif method == "newest" and order_by is not None:
            pool = np.flatnonzero(np.isin(split, ("", "train")))
            newness = _newness(catalog.table[order_by], group_of_row, len(names))
            chosen = _newest(names, newness, pool, seed, test_fraction)
        else:
            chosen = _below(names, "test", seed, test_fraction)
        split[chosen & np.isin(split, ("", "train"))] = "test"
    if "val" not in given:
        if strata is not None:
            chosen = strata.draw("val", split, seed, val_fraction, VALIDATED)
        else:
            chosen = _below(names, "val", seed, val_fraction)
        split[chosen & np.isin(split, ("", "train"))] = "val"
    split[split == ""] = "train"
    if "train" not in split and given != {"test"}:
        counts = {name: int((split == name).sum()) for name in SPLITS}
        raise ValueError(
            f"catalogue {catalog.name!r} has no item left to train on (groups a split: {counts}); "
            f"val_fraction={val_fraction}, test_fraction={test_fraction}, method={method!r}; "
            "lower the fractions, take another seed, or give more groups"
        )
    return replace(catalog, table=catalog.table.assign(split=split[group_of_row]))


def limit_items(catalog: Catalog, max_per_category: Mapping[str, int | None], seed: int) -> Catalog:
    """Returns the catalogue with at most so many items a category in each split.

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


class _Strata:
    """The groups of a catalogue, their sizes and categories, of which asking sides are drawn."""

    def __init__(
        self,
        catalog: Catalog,
        group_of_row: NDArray[np.intp],
        names: list[str],
        kept: Mapping[str, str],
    ) -> None:
        self.names = names
        self.kept = np.array([*(kept.get(name, "") for name in names), None], dtype=object)[:-1]
        self.sizes = np.bincount(group_of_row, minlength=len(names))
        category_of_row, categories = pd.factorize(catalog.table["category"], sort=True)
        pairs = np.unique(group_of_row * len(categories) + category_of_row)
        group_of_pair, self.categories = np.divmod(pairs, len(categories))  # ascending by group
        self.bounds = np.searchsorted(group_of_pair, np.arange(len(names) + 1))
        self.num_categories = len(categories)

    def _counts(self, groups: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Counts the marked groups of each category, ``[num_categories]``."""
        marked = np.repeat(groups, np.diff(self.bounds))
        counts: NDArray[np.int64] = np.bincount(
            self.categories[marked], minlength=self.num_categories
        )
        return counts

    def _of(self, group: int) -> NDArray[np.int64]:
        return self.categories[self.bounds[group] : self.bounds[group + 1]]

    def draw(
        self, purpose: str, split: NDArray[np.object_], seed: int, fraction: float, least: Wanted
    ) -> NDArray[np.bool_]:
        """Marks the groups of the pool that ask, those kept among them: ``[num_groups] bool``.

        Args:
            purpose: ``test`` or ``val``.
            split: Of each group so far, ``[num_groups]``; "" and ``train`` are the pool.
            seed: Another one draws others.
            fraction: Share of the groups; nothing is drawn for 0.
            least: What is needed beside the share.
        """
        pool = np.isin(split, ("", "train"))
        if not fraction or not pool.any():
            return np.zeros(len(self.names), dtype=np.bool_)
        free, held = pool & (self.kept == ""), pool & (self.kept == purpose)
        units = np.array([stable_unit(f"{purpose}:{name}", seed) for name in self.names])
        asking: NDArray[np.bool_] = held | (free & (units < fraction))
        share = max(LARGEST_SHARE, fraction)
        most = share * self.sizes[pool].sum()
        drawn, asked = self.sizes[asking].sum(), fraction * self.sizes[pool].sum()
        wanted = max(least.items, drawn if drawn > MOST_OF_A_SHARE * asked else asked)
        items, groups = min(wanted, most), min(least.groups, share * pool.sum())
        small = free & (self.sizes <= self._largest(free, held, items))
        asking &= small | held

        whole = self._counts(pool)
        apart = np.minimum(GROUPS_A_SIDE, whole // 2)  # of 2 or 3 groups one on each side
        # A single group trains, unless nearly every category is one, as products are.
        to_train = np.where(whole == 1, int((whole == 1).mean() < 0.5), np.maximum(apart, 1))
        training, tested = self._counts(pool & ~asking), self._counts(asking)

        def move(group: int, number: int) -> bool:
            """Moves a group to the asking side (1) or back (-1); tells whether it could."""
            own = self._of(group)
            if number > 0 and (training[own] <= to_train[own]).any():
                return False
            asking[group] = number > 0
            training[own] -= number
            tested[own] += number
            return True

        order = np.lexsort((np.array(self.names), units))
        order = order[small[order]]
        for group in order[asking[order]][::-1].tolist():  # the draw may have left too few
            if (training[self._of(group)] < to_train[self._of(group)]).any():
                move(group, -1)
        num_items, num_groups = int(self.sizes[asking].sum()), int(asking.sum())
        for for_category in (True, False):
            for group in order[~asking[order]].tolist():
                missing = tested < apart
                if for_category and not missing.any():
                    break
                if not for_category and num_items >= items and num_groups >= groups:
                    break
                if for_category and not missing[self._of(group)].any():
                    continue
                limit = min(most, 2 * wanted) if for_category else most
                if num_items + self.sizes[group] <= limit and move(group, 1):
                    num_items += int(self.sizes[group])
                    num_groups += 1
        return asking

    def _largest(self, free: NDArray[np.bool_], held: NDArray[np.bool_], items: float) -> float:
        """Returns how large a group that asks may be: a tenth, or what it takes to have so many."""
        largest = max(1.0, items * LARGEST_GROUP)
        if self.sizes[held | (free & (self.sizes <= largest))].sum() >= items:
            return largest
        ascending = np.sort(self.sizes[free])
        if not len(ascending):
            return largest
        enough = int(np.searchsorted(np.cumsum(ascending), items - self.sizes[held].sum()))
        return float(ascending[min(enough, len(ascending) - 1)])


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


def _check_cold_start(
    catalog: Catalog, method: str, test_categories: Sequence[str] | None, order_by: str | None
) -> None:
    for name, value, owner in (
        ("test_categories", test_categories, "categories"),
        ("order_by", order_by, "newest"),
    ):
        if value is not None and method != owner:
            raise ValueError(
                f"{name} is {value!r}, but method is {method!r}; expected method={owner!r}: set "
                f"that, or leave {name} out"
            )
    if method == "newest" and order_by not in catalog.attributes:
        raise ValueError(
            f"order_by is {order_by!r}; expected an attribute of catalogue {catalog.name!r}, one "
            f"of {catalog.attributes}{_nearest(order_by, catalog.attributes)}: name the column "
            "that says how new an item is"
        )
    if method != "categories":
        return
    categories = catalog.categories
    if isinstance(test_categories, str) or (test_categories is not None and not test_categories):
        raise ValueError(
            f"test_categories is {test_categories!r}; expected a list of at least one category, as "
            f"{categories[:1]}, or None to draw them"
        )
    unknown = [name for name in test_categories or () if name not in categories]
    if unknown:
        raise ValueError(
            f"test_categories names {unknown[0]!r}, which is no category of catalogue "
            f"{catalog.name!r}{_nearest(unknown[0], categories)}; expected one of {categories}"
        )
    if len(categories) < 2:
        raise ValueError(
            f"catalogue {catalog.name!r} has the categories {categories}; expected at least two, "
            "to hold one out and train on the other: take another method"
        )


def _nearest(word: str | None, choices: Sequence[str]) -> str:
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches((word or "").lower(), lower, n=1, cutoff=0.6)
    return f" (the nearest is {lower[close[0]]!r})" if close else ""


def _draw_categories(catalog: Catalog, seed: int, fraction: float) -> list[str]:
    """Returns the share of the categories with the smallest hashes, at least one and not all."""
    categories = catalog.categories
    ranked = sorted(categories, key=lambda name: (stable_unit(f"category:{name}", seed), name))
    return ranked[: min(max(1, _rounded(len(categories) * fraction)), len(categories) - 1)]


def _newness(
    values: pd.Series, group_of_row: NDArray[np.intp], num_groups: int
) -> NDArray[np.int64]:
    """Returns the rank of each group's newest value, 0 for empty: ``[num_groups] int64``."""
    texts = [str(value).strip() for value in values]
    numbers = {text: _number(text) for text in texts if text}
    numeric = all(math.isfinite(number) for number in numbers.values())
    key = {text: (number, "") if numeric else (0.0, text) for text, number in numbers.items()}
    rank = {value: place for place, value in enumerate(sorted(set(key.values())), start=1)}
    newness = np.zeros(num_groups, dtype=np.int64)
    rank_of_row = np.array([rank[key[text]] if text else 0 for text in texts], dtype=np.int64)
    np.maximum.at(newness, group_of_row, rank_of_row)
    return newness


def _number(text: str) -> float:
    """Returns the number that the text is, NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _newest(
    names: list[str], newness: NDArray[np.int64], pool: NDArray[np.intp], seed: int, fraction: float
) -> NDArray[np.bool_]:
    """Marks the newest share of the groups in the pool: ``[num_groups] bool``."""
    ranked = sorted(
        pool.tolist(), key=lambda g: (-newness[g], stable_unit(f"test:{names[g]}", seed), names[g])
    )
    chosen = np.zeros(len(names), dtype=np.bool_)
    chosen[ranked[: _rounded(len(ranked) * fraction)]] = True
    return chosen


def _rounded(number: float) -> int:
    """Returns the nearest whole number, the larger of two equally near."""
    return math.floor(number + 0.5)


def _below(names: list[str], purpose: str, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Marks the groups whose hash for this purpose is below a fraction: [num_groups] bool."""
    units = np.array([stable_unit(f"{purpose}:{name}", seed) for name in names], dtype=np.float64)
    return units < fraction


def _given_splits(
    catalog: Catalog, group_of_row: NDArray[np.intp], names: list[str]
) -> NDArray[np.object_]:
    """Returns each group's split in the data (``[num_groups] object(str)``, "" where none)."""
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
