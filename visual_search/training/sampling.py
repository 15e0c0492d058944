"""Which items an epoch trains on: all of them once, or some categories more often than others.

An epoch always has as many places as there are training items, so that runs with different
sampling take the same number of steps. Its order is a function of its arguments alone: a run that
was interrupted goes on with the same one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visual_search import builder

Rows = NDArray[np.int64]  # of a catalogue
Categories = NDArray[np.str_] | NDArray[np.object_]  # of its rows
Ratings = Mapping[str, float]  # category -> its newest validation mAP@5
Strengths = NDArray[np.float32]  # of the augmentation of each row


class Sampling(ABC):
    """The contract: from the training rows to the order of an epoch."""

    def for_batches(self, batch_size: int) -> Sampling:
        """Returns the sampling that serves batches of this size; the same one where any size does.

        Raises:
            ValueError: No order of this sampling can be cut into such batches.
        """
        return self

    def order(
        self, rows: Rows, categories: Categories, seed: int, epoch: int, ratings: Ratings
    ) -> Rows:
        """Returns the rows of an epoch in order, as many as ``rows``.

        Args:
            rows: Catalogue rows to draw from, ``[n] int64``.
            categories: Their categories, ``[n]`` texts.
            seed: Of the run, 0 or above.
            epoch: Number of the epoch, 0 or above.
            ratings: Category -> its newest validation mAP@5, 0..1; empty before the first one.

        Returns:
            ``[n] int64``; a row may appear several times or not at all.

        Raises:
            ValueError: ``rows`` and ``categories`` differ in length, there are none, seed or epoch
                is negative, or a rating is outside 0..1.
        """
        if rows.ndim != 1 or rows.shape != categories.shape:
            raise ValueError(
                f"rows has shape {rows.shape} and categories {categories.shape}, expected [n] "
                "both; give one category a row"
            )
        _check_categories(categories, ratings)
        for name, value in (("seed", seed), ("epoch", epoch)):
            if value < 0:
                raise ValueError(f"got {name} {value}, expected 0 or above; count it from 0")
        return self._order(rows, categories, np.random.default_rng([seed, epoch]), ratings)

    def augmentation_strength(self, categories: Categories, ratings: Ratings) -> Strengths:
        """Returns how strongly each training picture is augmented, ``[n] float32``; 1 is as usual.

        Args:
            categories: Of the training rows, ``[n]`` texts.
            ratings: As in `order`.

        Raises:
            ValueError: There are no categories, or a rating is outside 0..1.
        """
        _check_categories(categories, ratings)
        return self._strength(categories, ratings)

    @abstractmethod
    def _order(self, rows: Rows, categories: Categories, rng: Generator, ratings: Ratings) -> Rows:
        """Returns the order; the arguments are checked."""

    def _strength(self, categories: Categories, ratings: Ratings) -> Strengths:
        return np.ones(len(categories), dtype=np.float32)


@builder("sampler")
def shuffled() -> Sampling:
    """Returns every item once an epoch, in random order.

    Example:
        >>> rows = np.array([3, 5, 8])
        >>> sorted(shuffled().order(rows, np.array(["a", "a", "b"]), 0, 0, {}).tolist())
        [3, 5, 8]
    """
    return _Shuffled()


@builder("sampler")
def balanced(power: float = 1.0) -> Sampling:
    """Returns every category its share of an epoch, proportional to ``n_c ** (1 - power)``.

    ``n_c`` is the category's number of items. The shares are kept to within one item in every
    epoch. Within a category no item comes again before all others have come.

    Args:
        power: 0 leaves the shares as they are, 0.5 takes the square root of the sizes, 1 gives
            every category the same share.

    Raises:
        ValueError: ``power`` is outside 0..1.

    Example:
        >>> categories = np.array(["hat"] * 6 + ["shoe"] * 2)
        >>> order = balanced().order(np.arange(8), categories, 0, 0, {})
        >>> np.unique(categories[order], return_counts=True)[1].tolist()
        [4, 4]
    """
    return _ByCategory(power)


@builder("sampler")
def weak_categories(
    power: float = 0.5, weakness: float = 1.0, stronger_augmentation: float = 1.5
) -> Sampling:
    """Returns more of an epoch to small categories and to those that are found badly.

    A category's share is proportional to ``n_c ** (1 - power) * (1 + weakness * (1 - r_c))``, with
    the rating ``r_c``: its newest validation mAP@5. One without a rating counts as the mean of the
    rated ones; before the first validation this is `balanced`.

    An item of a category with share ``p_c`` comes ``t = p_c n / n_c`` times in an epoch of ``n``.
    Where that is more than once, its pictures are augmented with the strength
    ``1 + (stronger_augmentation - 1) * (1 - 1 / t)``, so that what is repeated looks different
    each time; elsewhere with 1.

    Args:
        power: As in `balanced`.
        weakness: 0 ignores the ratings; with 1 a category at 0 weighs twice one at 1.
        stronger_augmentation: What the strength comes near where an item is repeated very often.

    Raises:
        ValueError: ``power`` is outside 0..1, ``weakness`` is negative or
            ``stronger_augmentation`` below 1, or one is not finite.

    Example:
        >>> categories = np.array(["hat"] * 6 + ["shoe"] * 2)
        >>> sampling = weak_categories(power=1.0)
        >>> sampling.augmentation_strength(categories, {"hat": 0.5, "shoe": 0.5})[5:].tolist()
        [1.0, 1.25, 1.25]
    """
    return _ByCategory(power, weakness, stronger_augmentation)


@builder("sampler")
def per_category(categories_per_batch: int = 8, items_per_category: int | None = None) -> Sampling:
    """Returns batches of some categories with the same number of items each, for metric learning.

    Every consecutive ``categories_per_batch * items_per_category`` places hold that many different
    categories, one after the other, and that many items of each; the last ones are cut off where
    the epoch ends. Categories take turns: none comes a second time more often than any other.
    Within a category no item comes again before all others have come, so that one batch repeats an
    item only where the category has too few.

    Args:
        categories_per_batch: P, 1 or more; at most the categories that the training split has.
        items_per_category: K, 1 or more; None fills a batch: `Sampling.for_batches` divides its
            size by P.

    Raises:
        ValueError: One is below 1.

    Example:
        >>> categories = np.array(["hat"] * 4 + ["shoe"] * 3 + ["bag"])
        >>> sampling = per_category(categories_per_batch=2).for_batches(4)
        >>> order = sampling.order(np.arange(8), categories, 0, 0, {})
        >>> [len(set(categories[order[start : start + 4]])) for start in (0, 4)]
        [2, 2]
    """
    return _PerCategory(categories_per_batch, items_per_category)


@dataclass(frozen=True)
class _Shuffled(Sampling):
    def _order(self, rows: Rows, categories: Categories, rng: Generator, ratings: Ratings) -> Rows:
        return rng.permutation(rows)


@dataclass(frozen=True)
class _ByCategory(Sampling):
    power: float
    weakness: float = 0.0
    stronger_augmentation: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "power": (0.0, 1.0, "0 to 1"),
            "weakness": (0.0, math.inf, "a finite number, 0 or above"),
            "stronger_augmentation": (1.0, math.inf, "a finite number, 1 or above"),
        }
        for name, (low, high, expected) in limits.items():
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(
                    f"got sampler.{name} {value}, expected {expected}; set sampler.{name}"
                )

    def _order(self, rows: Rows, categories: Categories, rng: Generator, ratings: Ratings) -> Rows:
        names, members = _members(rows, categories)
        sizes = np.array([len(each) for each in members])
        # One random offset for all: whole numbers that add up to n, each within 1 of its share
        # and right on average. The last bound is n itself, whatever the rounding of the sum.
        bounds = np.cumsum(self._shares(names, sizes, ratings)) * len(rows)
        bounds[-1] = len(rows)
        ends = np.minimum(np.floor(bounds + rng.random()).astype(np.int64), len(rows))
        places = np.diff(ends, prepend=0)
        chosen = [_Turns(m, rng).take(int(num)) for m, num in zip(members, places, strict=True)]
        return rng.permutation(np.concatenate(chosen))

    def _strength(self, categories: Categories, ratings: Ratings) -> Strengths:
        names, numbers, sizes = np.unique(categories, return_inverse=True, return_counts=True)
        times = self._shares(names.tolist(), sizes, ratings) * len(categories) / sizes
        stronger = (self.stronger_augmentation - 1) * (1 - 1 / np.maximum(times, 1))
        return (1 + stronger).astype(np.float32)[numbers]

    def _shares(self, names: list[str], sizes: Rows, ratings: Ratings) -> NDArray[np.float64]:
        """Returns each category's share of an epoch, ``[C]``, 1 in all."""
        rated = np.array([ratings.get(name, math.nan) for name in names])
        known = ~np.isnan(rated)
        rated[~known] = rated[known].mean() if known.any() else 1.0
        weights = sizes ** (1 - self.power) * (1 + self.weakness * (1 - rated))
        return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class _PerCategory(Sampling):
    categories_per_batch: int
    items_per_category: int | None

    def __post_init__(self) -> None:
        for name in ("categories_per_batch", "items_per_category"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"got sampler.{name} {value}, expected 1 or more; set sampler.{name}"
                )

    def for_batches(self, batch_size: int) -> Sampling:
        num = self.categories_per_batch
        multiple = num * (self.items_per_category or 1)
        if batch_size % multiple:
            raise ValueError(
                f"got batch_size {batch_size}, expected a multiple of {multiple} for this sampler; "
                f"set loader.batch_size={multiple}, or change the sampler's numbers"
            )
        return replace(self, items_per_category=self.items_per_category or batch_size // num)

    def _order(self, rows: Rows, categories: Categories, rng: Generator, ratings: Ratings) -> Rows:
        names, members = _members(rows, categories)
        num, num_items = self.categories_per_batch, self.items_per_category
        if num_items is None:
            raise ValueError(
                "sampler.items_per_category is None, expected a number before an order is asked "
                "for; call for_batches(batch_size) first"
            )
        if num > len(names):
            raise ValueError(
                f"got sampler.categories_per_batch {num}, but the training items have "
                f"{len(names)} categories; expected at most that many; set "
                f"sampler.categories_per_batch={len(names)}"
            )
        turns = [_Turns(each, rng) for each in members]
        served = np.zeros(len(names), dtype=np.int64)
        parts: list[Rows] = []
        for _ in range(-(-len(rows) // (num * num_items))):
            chosen = np.lexsort((rng.random(len(names)), served))[:num]  # the least served
            served[chosen] += 1
            parts += [turns[category].take(num_items) for category in chosen]
        return np.concatenate(parts)[: len(rows)]


class _Turns:
    """Takes the items of a category in random order, none again before all have come."""

    def __init__(self, rows: Rows, rng: Generator) -> None:
        self.rows = rows
        self.rng = rng
        self.waiting = rows[:0]

    def take(self, num: int) -> Rows:
        """Returns the next items, ``[num] int64``; no two the same if there are enough."""
        parts = [self.waiting]
        missing = num - len(self.waiting)
        while missing > 0:
            following = self.rng.permutation(self.rows)
            # What this call has given from the round before comes last in the new round.
            again = np.isin(following, parts[-1])
            parts.append(np.concatenate([following[~again], following[again]]))
            missing -= len(following)
        both = np.concatenate(parts)
        self.waiting = both[num:]
        return both[:num]


def _members(rows: Rows, categories: Categories) -> tuple[list[str], list[Rows]]:
    """Returns the categories in order of their names, ``[C]``, and the rows of each."""
    names, numbers = np.unique(categories, return_inverse=True)
    by_category = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers))[:-1]
    return names.tolist(), np.split(rows[by_category], ends)


def _check_categories(categories: Categories, ratings: Ratings) -> None:
    if not len(categories):
        raise ValueError("got no training rows, expected at least one; check the splits")
    for category, rating in ratings.items():
        if not 0 <= rating <= 1:  # False for NaN too
            raise ValueError(
                f"the rating of category {category!r} is {rating}, expected a mAP of 0 to 1; "
                "leave out a category that was not measured"
            )
