"""What `statistics` draws and flips: scored queries summed by group, resamples, ends, sign flips.

Called from there, after its checks. Q queries, G groups that hold a scored query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit  # type: ignore[import-untyped]

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Literal["micro", "macro"]
Labels: TypeAlias = "Sequence[Any] | NDArray[Any] | pd.Series[Any]"
Bounds: TypeAlias = tuple[float, float] | None

EXACT_GROUPS = 16  # up to 2^16 sign flips are all counted, more are sampled
BLOCK_VALUES = 4_000_000  # numbers in a block of resamples: 32 MiB of float64

BCA = "group bootstrap, BCa widened for few groups"
UNSEEN = "no spread: the share of groups that could be unseen"
ONE_GROUP = "none: one group"


class CategorySums(NamedTuple):
    """One category's queries, summed by group (micro: all queries are one category)."""

    groups: NDArray[np.int64]  # [g], which of the G groups
    sums: Floats  # [g]
    counts: Floats  # [g]
    mean: float


class Sums(NamedTuple):
    """All that a resample needs to know of the scored queries."""

    categories: list[CategorySums]
    mean: float
    num_queries: int
    num_groups: int
    num_left_out: int


def sum_by_group(
    values: Floats, groups: Labels, categories: Labels | None, statistic: Statistic
) -> Sums:
    """Leaves NaN out and sums the rest; the order of the queries changes no bit of the result.

    Raises:
        TypeError: Groups or categories are neither all text nor all whole numbers.
        ValueError: No query is scored, lengths differ, or macro has no categories.
    """
    group_of = codes(groups, len(values), "groups")[1]
    category_of = np.zeros(len(values), dtype=np.int64)
    if statistic == "macro":
        if categories is None:
            raise ValueError("categories are None; expected one a query for macro: pass them")
        category_of = codes(categories, len(values), "categories")[1]
    scored = ~np.isnan(values)
    if not scored.any():
        raise ValueError(
            f"none of the {len(values)} queries is scored; expected a value that is not NaN: "
            "check that the gallery holds the queries' categories"
        )
    held, group_of = np.unique(group_of[scored], return_inverse=True)
    category_of, values = category_of[scored], values[scored]
    order = np.lexsort((values, group_of, category_of))  # sums do not depend on the given order
    group_of, category_of, values = group_of[order], category_of[order], values[order]
    found = []
    starts = np.flatnonzero(np.diff(category_of, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        mine, part = group_of[start:stop], values[start:stop]
        first = np.flatnonzero(np.diff(mine, prepend=-1))  # [g]
        counts = np.diff(first, append=len(mine)).astype(np.float64)
        mean = math.fsum(part) / len(part)
        found.append(CategorySums(mine[first], np.add.reduceat(part, first), counts, mean))
    mean = math.fsum(category.mean for category in found) / len(found)
    return Sums(found, mean, len(values), len(held), int((~scored).sum()))


def resample(cells: Sums, num_resamples: int, seed: int) -> Floats:
    """The statistic of every resample, ``[num_resamples]``; the block's size changes nothing."""
    rng = np.random.default_rng(seed)
    num_groups = cells.num_groups
    block = max(1, BLOCK_VALUES // num_groups)
    found = []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(num_groups, size=(size, num_groups))
        drawn += np.arange(size)[:, None] * num_groups
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        weights = weights.astype(np.float64)  # [size, G]: how often a group was drawn
        total, present = np.zeros(size), np.zeros(size)
        for category in cells.categories:
            both = np.stack([category.sums, category.counts], axis=1)  # [g, 2]
            sums, counts = (weights[:, category.groups] @ both).T  # [size] each
            total += np.divide(sums, counts, out=np.zeros(size), where=counts > 0)
            present += counts > 0
        found.append(total / present)
    return np.concatenate(found)


def interval_ends(
    cells: Sums, num_resamples: int, confidence: float, bounds: Bounds, seed: int
) -> tuple[float, float, str]:
    """Low, high and method; formula and source at `statistics.bootstrap_interval`."""
    if cells.num_groups == 1:
        return math.nan, math.nan, ONE_GROUP
    alpha, num_categories = 1 - confidence, len(cells.categories)
    influence = np.zeros(cells.num_groups)  # [G]: what a group adds to the mean's error
    plain, unbiased, freedom = 0.0, 0.0, 0.0
    for groups, sums, counts, mean in cells.categories:
        error = sums - mean * counts  # [g]
        error[np.abs(error) <= 1e-12 * np.abs(sums).max()] = 0.0  # no more than rounding
        part = error / (num_categories * counts.sum())
        influence[groups] += part
        if len(groups) > 1:
            variance = float(part @ part)
            corrected = variance * len(groups) / (len(groups) - 1)
            plain, unbiased = plain + variance, unbiased + corrected
            freedom += corrected**2 / (len(groups) - 1)
    spread = float(influence @ influence)
    if plain == 0 or spread == 0:
        if bounds is None:
            return math.nan, math.nan, UNSEEN
        fewest = min(len(category.groups) for category in cells.categories)
        unseen = 1 - (alpha / 2) ** (1 / (fewest * num_categories))
        down, up = cells.mean - bounds[0], bounds[1] - cells.mean
        return cells.mean - unseen * down, cells.mean + unseen * up, UNSEEN
    means = resample(cells, num_resamples, seed)
    tolerance = 1e-12 * max(1.0, abs(cells.mean))
    below = np.mean(means < cells.mean - tolerance)
    same = np.mean(np.abs(means - cells.mean) <= tolerance)
    edge = 0.5 / num_resamples
    bias = float(ndtri(np.clip(below + same / 2, edge, 1 - edge)))
    acceleration = float((influence**3).sum()) / (6 * spread**1.5)
    width = -float(stdtrit(unbiased**2 / freedom, alpha / 2)) * math.sqrt(unbiased / plain)
    levels = []
    for shift in (bias - width, bias + width):
        slope = 1 - acceleration * shift
        levels.append(float(ndtr(bias + shift / slope)) if slope > 0 else float(shift > 0))
    low, high = np.quantile(means, levels)
    return float(low), float(high), BCA


def sign_flips(cells: Sums, num_permutations: int, seed: int) -> tuple[float, str]:
    """Two-sided p-value and how it was found; formula at `statistics.paired_difference`."""
    parts = np.zeros(cells.num_groups)  # [G]: contributions to the mean, which sum to it
    for groups, sums, counts, _ in cells.categories:
        parts[groups] += sums / (len(cells.categories) * counts.sum())
    parts = parts[parts != 0]
    size = len(parts)
    least = abs(parts.sum()) - 1e-12 * np.abs(parts).sum()  # ties count, whatever the rounding
    if size <= EXACT_GROUPS:
        kept = (np.arange(2**size)[:, None] >> np.arange(size)) & 1  # [2^size, size]
        flipped = np.abs((2 * kept - 1) @ parts)
        return float(np.mean(flipped >= least)), f"all 2^{size} sign flips by group"
    rng = np.random.default_rng([seed, 1])  # not the bootstrap's draws
    block = max(1, BLOCK_VALUES // size)
    as_far = 0
    for start in range(0, num_permutations, block):
        rows = min(block, num_permutations - start)
        kept = rng.integers(2, size=(rows, size), dtype=np.int8)
        flipped = np.abs(2 * (kept.astype(np.float64) @ parts) - parts.sum())
        as_far += int((flipped >= least).sum())
    return (as_far + 1) / (num_permutations + 1), f"{num_permutations} sign flips by group"


def codes(labels: Labels, length: int, what: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different labels, sorted, and which of them each query has (``[Q] int64``).

    Raises:
        TypeError: They are neither all text nor all whole numbers.
        ValueError: There are not as many as queries.
    """
    listed = list(labels)
    if len(listed) != length:
        raise ValueError(f"there are {len(listed)} {what} for {length} queries; expected one each")
    for kind in (str, (int, np.integer)):
        if all(isinstance(label, kind) for label in listed):
            names, which = np.unique(np.array(listed, dtype=object), return_inverse=True)
            return names, which.astype(np.int64)
    odd = next((x for x in listed if not isinstance(x, (str, int, np.integer))), listed[0])
    raise TypeError(
        f"{what} hold {odd!r} ({type(odd).__name__}) among others; expected all text or all whole "
        "numbers: convert them, and give a query without a group its own id"
    )


def check_values(values: ArrayLike, bounds: Bounds, what: str) -> Floats:
    """The values as ``[Q] float64``.

    Raises:
        ValueError: They are not one-dimensional, or one is infinite or outside the bounds.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} have shape {array.shape}; expected [Q]: one number a query")
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    wrong = np.flatnonzero(np.isinf(array) | (array < low) | (array > high))
    if len(wrong):
        raise ValueError(
            f"{what} hold {array[wrong[0]]} in query row {wrong[0]}; expected finite values within "
            f"{bounds}: pass the bounds of this metric, or None"
        )
    return array


def check_number(name: str, number: int) -> None:
    """Holds a number of resamples or permutations to 100 or more.

    Raises:
        ValueError: It is smaller.
    """
    if number < 100:
        raise ValueError(
            f"{name} is {number}; expected at least 100: 2000 or more give steady ends"
        )


def check_settings(
    statistic: str, num_resamples: int, confidence: float, bounds: Bounds, seed: int
) -> None:
    """Holds the settings to what `statistics.bootstrap_interval` says of them.

    Raises:
        ValueError: One is something else.
    """
    if statistic not in ("micro", "macro"):
        raise ValueError(f"statistic is {statistic!r}; expected 'micro' or 'macro': choose one")
    check_number("num_resamples", num_resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected within (0, 1), such as 0.95")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds are {bounds}; expected (lowest, highest), or None for none")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more: NumPy takes no other")
