"""How exactly a mean will be known, told from its queries and groups alone, before any work.

The values are not there yet, so this takes those of a middling result: what `statistics` says
afterwards of the values themselves is the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Standard deviations of an AP@5 in the middle of its range, on the photos and crops at hand:
BETWEEN_GROUPS = 0.2  # of groups' own means
WITHIN_A_GROUP = 0.35  # of queries of one group
LARGEST_GROUP = 1 / 10  # of the queries

ENOUGH_QUERIES, ENOUGH_GROUPS = 200, 20
FEWEST_QUERIES, FEWEST_GROUPS = 50, 20  # below them a mean says next to nothing


@dataclass(frozen=True)
class Expectation:
    """What can be said of a measurement before it.

    Attributes:
        num_queries: Q.
        num_groups: Of them.
        largest: Share of the queries that the largest group holds.
        half_width: About half of the 95 % interval of a mean of values within [0, 1]; NaN for one
            group.
    """

    num_queries: int
    num_groups: int
    largest: float
    half_width: float

    @property
    def is_enough(self) -> bool:
        """Whether nothing need be said."""
        few = self.num_queries < ENOUGH_QUERIES or self.num_groups < ENOUGH_GROUPS
        return not few and self.largest <= LARGEST_GROUP

    @property
    def is_too_little(self) -> bool:
        """Whether measuring is a mistake unless it is meant."""
        return self.num_queries < FEWEST_QUERIES or self.num_groups < FEWEST_GROUPS

    def width(self) -> str:
        """Returns the half width in words, such as ``about ±0.3``."""
        if not np.isfinite(self.half_width):
            return "no interval at all"
        return f"about ±{min(self.half_width, 1):.{1 if self.half_width >= 0.095 else 2}f}"


def expect(groups: Sequence[str]) -> Expectation:
    """Returns what can be expected of a mean over queries.

    Half of the interval is ``t(0.975; g - 1) * sqrt(0.2^2 / g + 0.35^2 / Q)``, with the Q queries
    and g effective groups: ``(sum of n)^2 / sum of n^2`` over the groups' sizes n.

    Args:
        groups: Q groups, one a query.

    Example:
        >>> expect(["a", "b", "c", "d"] * 7).width()
        'about ±0.4'
        >>> expect([f"s{i % 25}" for i in range(200)]).width()
        'about ±0.1'
        >>> expect([f"item {i}" for i in range(2000)]).width()
        'about ±0.02'
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    counts = np.unique(np.asarray(groups, dtype=str), return_counts=True)[1].astype(np.float64)
    total = float(counts.sum())
    half_width = float("nan")
    if len(counts) > 1:
        effective = total**2 / float(counts @ counts)
        variance = BETWEEN_GROUPS**2 / effective + WITHIN_A_GROUP**2 / total
        half_width = float(stdtrit(max(effective - 1, 1), 0.975)) * variance**0.5
    largest = float(counts.max(initial=0)) / total if total else 1.0
    return Expectation(int(total), len(counts), largest, half_width)
