"""What `statistics` flips: scored queries summed by group, sign flips, ends of intervals.

Called from there, after its checks. Q queries, G groups that hold a scored query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Literal["micro", "macro"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
Labels: TypeAlias = "Sequence[Any] | NDArray[Any] | pd.Series[Any]"
Bounds: TypeAlias = tuple[float, float] | None

EXACT_GROUPS = 16  # up to 2^16 sign flips are all counted, more are sampled
BLOCK_VALUES = 4_000_000  # numbers in a block of flips: 32 MiB of float64
FEWEST_QUERIES = 5  # fewer scored queries than this have no interval
FEWEST_EFFECTIVE = 6  # at 95 %, the signs of fewer groups cannot tell any mean from another
ALIKE = 1 / 3  # how far queries of a group are taken to be equal; by statistics_coverage.py
UNSEEN_VALUES = 0.5  # of 0 or 1, as many as may have gone unseen: see statistics_coverage.py

FLIPS = "sign flips by group, inverted"
STUDENT = "Student's t by group: too few groups for sign flips"
UNSEEN = "no spread: the share of groups that could be unseen"
SAME = "same answers: every difference is 0"
ONE_GROUP = "none: one group"
FEW = f"none: fewer than {FEWEST_QUERIES} queries"


class Draws(TypedDict):
    """How flips are drawn, and what their intervals hold: see `statistics.bootstrap_interval`."""

    num_resamples: int
    confidence: float
    seed: int


class CategorySums(NamedTuple):
    """One category's queries, summed by group (micro: all queries are one category)."""

    groups: NDArray[np.int64]  # [g], which of the G groups
    sums: Floats  # [g]
    counts: Floats  # [g]
    mean: float
    squares: float  # of all its values, summed


class Sums(NamedTuple):
    """All that flips need to know of the scored queries."""

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
        sums = np.add.reduceat(part, first)
        found.append(CategorySums(mine[first], sums, counts, mean, float(part @ part)))
    mean = math.fsum(category.mean for category in found) / len(found)
    return Sums(found, mean, len(values), len(held), int((~scored).sum()))


def shares_of(cells: Sums) -> Floats:
    """What part of the mean each group carries, ``[G]``, which sums to 1."""
    shares = np.zeros(cells.num_groups)
    for category in cells.categories:
        weight = len(cells.categories) * category.counts.sum()
        shares[category.groups] += category.counts / weight
    return shares


def effective_groups(shares: Floats) -> float:
    """How many groups of one size would carry a mean as these do: sum(h^2)^2 / sum(h^4).

    Source: the degrees of freedom of Bell & McCaffrey (2002) where queries of a group are alike.
    """
    squares = shares**2
    return float(squares.sum() ** 2 / (squares @ squares))


def mean_ends(
    cells: Sums, num_resamples: int, confidence: float, bounds: Bounds, seed: int
) -> tuple[float, float, str]:
    """Low, high and method of a mean; formula and source at `statistics.bootstrap_interval`."""
    if cells.num_groups == 1:
        return math.nan, math.nan, ONE_GROUP
    if cells.num_queries < FEWEST_QUERIES:
        return math.nan, math.nan, FEW
    shares, errors = shares_of(cells), _own_errors(cells)
    if not errors.any():
        return (*_unseen_ends(cells, 1 - confidence, bounds), UNSEEN)
    down, up, method = _reaches(errors, shares, num_resamples, confidence, seed)
    if bounds is None:
        return cells.mean - down[0], cells.mean + up[0], method
    mean, spread = cells.mean, _bounded_spread(cells, bounds)
    effective = effective_groups(shares)
    damped = 1 - 1 / effective
    variance = float(errors @ errors)
    few = variance**2 / float((errors**4).sum())  # groups that the errors come from
    # Few by chance and not by their size, as one hit in 300: flips alone would reach no farther.
    normal = -float(ndtri((1 - confidence) / 2)) * math.sqrt(variance)
    normal *= damped**2 * max(1 - few / effective, 0)
    ends = []
    for reach, towards in ((down[0], bounds[0]), (up[0], bounds[1])):
        room = abs(towards - mean)
        unseen = UNSEEN_VALUES * room / (bounds[1] - bounds[0])
        wider = 1 + max(spread - 1, 0) * damped**2 * unseen / (few + unseen)
        reach = max(float(reach), normal) * math.sqrt(wider)
        ends.append(_scaled_end(mean, towards, reach, damped**1.5, bounds))
    return ends[0], ends[1], method


def difference_ends(
    cells: Sums, p_value: float, num_resamples: int, confidence: float, bounds: Bounds, seed: int
) -> tuple[float, float, str]:
    """Low, high and method of a difference; formula at `statistics.paired_difference`.

    0 lies outside exactly where ``p_value`` is below 1 - confidence.
    """
    mean, alpha = cells.mean, round(1 - confidence, 12)  # 1 - 0.95 is above 0.05
    if cells.num_groups == 1:
        return math.nan, math.nan, ONE_GROUP
    if cells.num_queries < FEWEST_QUERIES:
        return math.nan, math.nan, FEW
    if not any(category.squares for category in cells.categories):
        return 0.0, 0.0, SAME
    shares = shares_of(cells)
    errors = _without_rounding(_parts(cells) - mean * shares)
    if errors.any():
        down, up, method = _reaches(errors, shares, num_resamples, confidence, seed)
    elif bounds is None:
        return math.nan, math.nan, UNSEEN
    else:
        low, high = _unseen_ends(cells, alpha, bounds)
        unseen = 1 - (low - bounds[0]) / (mean - bounds[0])  # of the groups: they may hold 0
        down, up = (np.array([far, unseen * abs(mean)]) for far in (mean - low, high - mean))
        method = UNSEEN
    sides = {"down": down, "up": up}
    towards = "down" if mean > 0 else "up"  # the side of 0
    reach = float(sides[towards][0])
    if p_value >= alpha:
        reach = max(reach, abs(mean))
    elif reach >= abs(mean):  # the p-value has other flips: the next end that leaves 0 out
        shorter = sides[towards][sides[towards] < (1 - 1e-9) * abs(mean)]
        reach = float(shorter[0]) if len(shorter) else 0.0
    ends = {side: float(reaches[0]) for side, reaches in sides.items()} | {towards: reach}
    low, high = mean - ends["down"], mean + ends["up"]
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return low, high, method


def _kept(start: int, rows: int, num_groups: int, rng: np.random.Generator | None) -> NDArray[Any]:
    """Returns which groups keep their sign, ``[rows, G]`` of 0 and 1: drawn, or all in order."""
    if rng is None:
        return (np.arange(start, start + rows)[:, None] >> np.arange(num_groups)) & 1
    kept: NDArray[Any] = rng.integers(2, size=(rows, num_groups), dtype=np.int8)
    return kept


def _reaches(
    errors: Floats, shares: Floats, num_resamples: int, confidence: float, seed: int
) -> tuple[Floats, Floats, str]:
    """How far down and up the mean may be moved, the confidence's end first, shorter ones after.

    Moved up by x, a group's part of the mean is off by e - x h. Flipped by signs s, their sum is
    c - x b (c = sum(s e), b = sum(s h)), which stays as far from 0 as the -x that was seen up to
    x = c / (1 + b), or -c / (1 - b) where c < 0; -s gives the same, and all signs alike no bound.
    """
    num_groups, alpha = len(errors), 1 - confidence
    if num_groups <= EXACT_GROUPS and alpha * 2 ** (num_groups - 1) <= 1:
        spread = float((errors**2 / (1 - shares)).sum())
        width = -float(stdtrit(_freedom(shares), alpha / 2)) * math.sqrt(spread)
        return np.array([width]), np.array([width]), STUDENT
    exact = num_groups <= EXACT_GROUPS and 2 ** (num_groups - 1) <= num_resamples
    size = 2 ** (num_groups - 1) if exact else num_resamples
    rng = np.random.default_rng(seed)
    columns = np.stack([errors, shares], axis=1)
    found = []
    block = max(1, BLOCK_VALUES // num_groups)
    for start in range(0, size, block):
        rows = min(block, size - start)
        kept = _kept(start, rows, num_groups, None if exact else rng)
        found.append(2 * (kept.astype(np.float64) @ columns) - columns.sum(axis=0))
    sums, balance = np.concatenate(found).T  # c and b, [size] each
    sums, balance = np.abs(sums), np.where(sums < 0, -balance, balance)
    # of m flips with the given one, a share of alpha reaches as far as an end
    last = math.ceil(alpha * size - 1e-9) if exact else math.ceil(alpha * (size + 1) - 1e-9) - 1
    ends = []
    for side in (-balance, balance):
        alike = np.abs(side) >= 1 - 1e-12
        reach = np.divide(sums, 1 + side, out=np.full(size, np.inf), where=~alike)
        reach = np.sort(reach)[::-1]
        ends.append(reach[last - 1 :] if last else np.concatenate([[np.inf], reach]))
    return ends[0], ends[1], FLIPS


def _freedom(shares: Floats) -> float:
    """Degrees of freedom of sum(e^2 / (1 - h)) where groups are alike (Bell & McCaffrey, 2002)."""
    weights = shares**2 / (1 - shares)
    form = np.eye(len(shares)) - shares  # [g, g]: row g takes a group's mean to its error
    form = form.T @ (weights[:, None] * form)
    return max(1.0, float(np.trace(form) ** 2 / (form**2).sum()))


def _scaled_end(mean: float, bound: float, reach: float, power: float, bounds: Bounds) -> float:
    """The end x with |x - mean| = reach (v(x) / v(mean))^(power / 2), v(x) = (x - low)(high - x).

    As in Wilson's interval of a share: near a bound there is less room to err.
    """
    assert bounds is not None
    low, high = bounds
    here = (mean - low) * (high - mean)
    inside, outside = 0.0, 1.0  # of the way from the mean to the bound
    for _ in range(45):
        middle = (inside + outside) / 2
        x = mean + middle * (bound - mean)
        allowed = reach * max((x - low) * (high - x) / here, 0.0) ** (power / 2)
        if middle * abs(bound - mean) < allowed:
            inside = middle
        else:
            outside = middle
    return mean + inside * (bound - mean)


def _bounded_spread(cells: Sums, bounds: tuple[float, float]) -> float:
    """How many times the variance would grow if all values were one or the other bound."""
    most, held = 0.0, 0.0
    for _, _, counts, mean, squares in cells.categories:
        most += (mean - bounds[0]) * (bounds[1] - mean) / counts.sum()
        held += (squares / counts.sum() - mean**2) / counts.sum()
    return most / held if held > 1e-12 * most else 1.0


def _unseen_ends(cells: Sums, alpha: float, bounds: Bounds) -> tuple[float, float]:
    if bounds is None:
        return math.nan, math.nan
    fewest = min(len(category.groups) for category in cells.categories)
    unseen = 1 - (alpha / 2) ** (1 / (fewest * len(cells.categories)))
    down, up = cells.mean - bounds[0], bounds[1] - cells.mean
    return cells.mean - unseen * down, cells.mean + unseen * up


def _own_errors(cells: Sums) -> Floats:
    """What each group adds to the mean's error, ``[G]``, each category about its own mean.

    A category of one group has no spread of its own: it is set about the mean of all such. What
    is lost by each category's mean being estimated is given back, so far as one common mean would
    not lose it too: as for independent queries, (1 - h) / (1 - q), and by `ALIKE` as for groups of
    equal queries, sum(q^2) / sum(q^2 (1 - 2 q + sum(q^2))), a group's share q of its category
    (Bell and McCaffrey's correction under either).
    """
    shares, num_categories = shares_of(cells), len(cells.categories)
    means = np.array([category.mean for category in cells.categories])
    lone = means[[len(category.groups) == 1 for category in cells.categories]]
    errors = np.zeros(cells.num_groups)
    for groups, sums, counts, mean, _ in cells.categories:
        own, centre, rest = counts / counts.sum(), mean, 1 - shares[groups]
        if len(groups) == 1:
            beside = lone if len(lone) > 1 else means
            own, centre = np.array([1 / len(beside)]), beside.mean()
        given_back = rest / (1 - own)
        if num_categories > 1 and len(groups) > 1:
            square = own**2
            lost = square @ (1 - 2 * own + square.sum())
            given_back = given_back ** (1 - ALIKE) * (square @ rest / lost) ** ALIKE
        error = (sums - centre * counts) / (num_categories * counts.sum())
        error[np.abs(error) <= 1e-12 * np.abs(sums).max() / counts.sum()] = 0.0  # only rounding
        errors[groups] += error * np.sqrt(given_back)
    return _without_rounding(errors)


def _without_rounding(errors: Floats) -> Floats:
    errors[np.abs(errors) <= 1e-13] = 0.0
    return errors


def _parts(cells: Sums) -> Floats:
    """What each group adds to the mean, ``[G]``, which sums to it."""
    parts = np.zeros(cells.num_groups)
    for groups, sums, counts, _, _ in cells.categories:
        parts[groups] += sums / (len(cells.categories) * counts.sum())
    return parts


def sign_flips(cells: Sums, num_permutations: int, seed: int) -> tuple[float, str]:
    """Two-sided p-value and how it was found; formula at `statistics.paired_difference`."""
    parts = _parts(cells)
    parts = parts[parts != 0]
    size = len(parts)
    least = abs(parts.sum()) - 1e-12 * np.abs(parts).sum()  # ties count, whatever the rounding
    if size <= EXACT_GROUPS:
        kept = (np.arange(2**size)[:, None] >> np.arange(size)) & 1  # [2^size, size]
        flipped = np.abs((2 * kept - 1) @ parts)
        return float(np.mean(flipped >= least)), f"all 2^{size} sign flips by group"
    rng = np.random.default_rng([seed, 1])  # not the interval's draws
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


def better_flips(
    cells: Sequence[Sums], num_resamples: int, alpha: float, seed: int
) -> NDArray[np.bool_]:
    """Which mean is shown to be above which, ``[J, J] bool``: see `statistics.rank_intervals`.

    Args:
        cells: Of J models on the same scored queries.
        num_resamples: Flips; where there are no more, all are taken.
        alpha: Of the family of all pairs.
        seed: Of the flips.
    """
    parts = np.stack([_parts(one) for one in cells], axis=1)  # [G, J]
    num_groups, num_models = parts.shape
    above, below = np.triu_indices(num_models, 1)  # [P] each
    scale = np.empty(len(above))
    for first in range(num_models - 1):  # a column at a time: [G, P] may not fit
        apart = parts[:, [first]] - parts[:, first + 1 :]
        scale[above == first] = np.sqrt((apart**2).sum(axis=0))
    means = parts.sum(axis=0)
    same = scale <= 1e-13
    scale[same] = np.inf
    seen = (means[above] - means[below]) / scale  # [P]
    order = np.argsort(-np.abs(seen), kind="stable")
    above, below, seen, scale = above[order], below[order], seen[order], scale[order]
    least = np.abs(seen) - 1e-9  # ties count, whatever the rounding
    exact = num_groups <= EXACT_GROUPS and 2 ** (num_groups - 1) <= num_resamples
    size = 2 ** (num_groups - 1) if exact else num_resamples  # turned signs are as far from 0
    rng = np.random.default_rng([seed, 2])  # neither the interval's draws nor the pair's
    as_far = np.zeros(len(seen))
    block = max(1, BLOCK_VALUES // max(num_groups, len(seen), 1))
    for start in range(0, size, block):
        rows = min(block, size - start)
        kept = _kept(start, rows, num_groups, None if exact else rng)
        flipped = 2 * (kept.astype(np.float64) @ parts) - means  # [rows, J]
        far = np.abs(flipped[:, above] - flipped[:, below]) / scale  # [rows, P]
        # The farthest of this pair and all that were seen nearer to 0.
        far = np.maximum.accumulate(far[:, ::-1], axis=1)[:, ::-1]
        as_far += (far >= least).sum(axis=0)
    p_values = as_far / size if exact else (as_far + 1) / (size + 1)
    shown = np.maximum.accumulate(p_values) < alpha
    better = np.zeros((num_models, num_models), dtype=bool)
    up, down = shown & (seen > 0), shown & (seen < 0)
    better[above[up], below[up]] = True
    better[below[down], above[down]] = True
    return better
