"""Positives from another item: whose picture stands in for an item's second view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.gallery_index import EmbeddingIndex


@dataclass(frozen=True, eq=False)
class Partners:
    """The items that may stand in for each item.

    Attributes:
        rows: Catalogue rows of the items, ``[n] int64``, ascending, none twice.
        ends: Where each item's list ends in ``neighbours``, ``[n] int64``: the first list begins
            at 0, every other where the one before ends.
        neighbours: Catalogue rows, all lists one after the other, ``[m] int64``.

    Raises:
        ValueError: ``rows`` does not ascend, or the lists do not cover ``neighbours``.

    Example:
        >>> partners = Partners(np.array([4, 6, 9]), np.array([1, 2, 2]), np.array([6, 4]))
        >>> rows, numbers = np.array([4, 9]), np.array([0.7, 0.7])
        >>> partners.choose(rows, numbers, own_probability=0.5).tolist()
        [6, 9]
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    neighbours: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rows.ndim != 1 or (np.diff(self.rows) <= 0).any():
            raise ValueError(
                f"rows of shape {self.rows.shape} do not ascend; expected [n] catalogue rows, none "
                "twice; sort them together with their lists"
            )
        lengths = np.diff(self.ends, prepend=0)
        if self.ends.shape != self.rows.shape or (lengths < 0).any():
            raise ValueError(
                f"ends has shape {self.ends.shape} for {len(self.rows)} rows and must not fall; "
                "expected the end of each row's list; give the cumulative sum of their lengths"
            )
        if lengths.sum() != len(self.neighbours):
            raise ValueError(
                f"the lists hold {lengths.sum()} neighbours, but {len(self.neighbours)} are given; "
                "expected the same number; give all lists one after the other"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def joined(self, other: Partners) -> Partners:
        """Returns both lists of each item as one, an item in both once.

        Args:
            other: Of the same rows.

        Raises:
            ValueError: It is of others.

        Example:
            >>> rows = np.array([4, 6, 9])
            >>> first = Partners(rows, np.array([1, 2, 2]), np.array([6, 4]))
            >>> second = Partners(rows, np.array([2, 3, 3]), np.array([6, 9, 9]))
            >>> [first.joined(second).of(row).tolist() for row in (4, 6, 9)]
            [[6, 9], [4, 9], []]
        """
        if not np.array_equal(self.rows, other.rows):
            raise ValueError(
                f"partners of {len(self)} rows are joined with those of {len(other)} others; "
                "expected the same rows: give partners of one split"
            )
        lists = [np.unique(np.concatenate([self.of(row), other.of(row)])) for row in self.rows]
        ends = np.cumsum([len(found) for found in lists], dtype=np.int64)
        nothing = np.zeros(0, dtype=np.int64)
        return Partners(self.rows, ends, np.concatenate([nothing, *lists]))

    def of(self, row: int) -> NDArray[np.int64]:
        """Returns rows that may stand in for a row, ``[m] int64``; empty where there is none."""
        starts, lengths = self._lists(np.array([row], dtype=np.int64))
        return self.neighbours[starts[0] : starts[0] + lengths[0]]

    def choose(
        self, rows: NDArray[np.int64], numbers: NDArray[np.floating], own_probability: float
    ) -> NDArray[np.int64]:
        """Returns the partner of each row, every one of its list with the same probability.

        Args:
            rows: Catalogue rows, ``[B] int64``; one that is not among ``self.rows`` has no list.
            numbers: Uniform in 0..1, ``[B]`` floats; they alone decide.
            own_probability: With this an item is its own partner, 0..1; always where its list is
                empty.

        Returns:
            Catalogue rows, ``[B] int64``.

        Raises:
            ValueError: The shapes differ, or a number or the probability is outside 0..1.
        """
        if rows.ndim != 1 or rows.shape != numbers.shape:
            raise ValueError(
                f"rows has shape {rows.shape} and numbers {numbers.shape}, expected [B] both; "
                "give one number a row"
            )
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise ValueError(
                f"numbers lie between {numbers.min():g} and {numbers.max():g}, expected 0 to 1; "
                "draw them with uniform_numbers"
            )
        if not 0 <= own_probability <= 1:
            raise ValueError(
                f"got own_probability {own_probability}, expected 0 to 1; it is the share of items "
                "that are their own partner"
            )
        starts, lengths = self._lists(rows)
        chosen = rows.copy()
        other = (numbers.astype(np.float64) >= own_probability) & (lengths > 0)
        if own_probability < 1:
            # What is left of the number above the probability is uniform again.
            left = (numbers[other].astype(np.float64) - own_probability) / (1 - own_probability)
            places = np.minimum((left * lengths[other]).astype(np.int64), lengths[other] - 1)
            chosen[other] = self.neighbours[starts[other] + places]
        return chosen

    def _lists(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns where each row's list starts and how long it is, ``[B] int64`` both."""
        starts, lengths = np.zeros_like(rows), np.zeros_like(rows)
        if len(self.rows):
            places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            known = self.rows[places] == rows
            begins = np.concatenate([np.zeros(1, dtype=np.int64), self.ends[:-1]])
            starts[known] = begins[places[known]]
            lengths[known] = self.ends[places[known]] - starts[known]
        return starts, lengths


def first_of_product(products: Sequence[str]) -> NDArray[np.int64]:
    """Returns the first row of each row's product, ``[n] int64``.

    Args:
        products: n ids.

    Example:
        >>> first_of_product(["hat", "shoe", "hat", "shoe"]).tolist()
        [0, 1, 0, 1]
    """
    first: dict[str, int] = {}
    rows = [first.setdefault(product, row) for row, product in enumerate(products)]
    return np.array(rows, dtype=np.int64)


def same_product(products: Sequence[str], rows: NDArray[np.int64]) -> Partners:
    """Returns the other pictures of each item's product.

    Args:
        products: Of the whole catalogue, one id a row.
        rows: Those that may be partners, ``[n] int64``, ascending.

    Example:
        >>> partners = same_product(["hat", "shoe", "hat", "hat"], np.array([0, 1, 2]))
        >>> [partners.of(row).tolist() for row in (0, 1, 2)]
        [[2], [], [0]]
    """
    of_product: dict[str, list[int]] = {}
    for row in rows.tolist():
        of_product.setdefault(products[row], []).append(row)
    lists = [[other for other in of_product[products[row]] if other != row]
             for row in rows.tolist()]  # fmt: skip
    ends = np.cumsum([len(found) for found in lists], dtype=np.int64)
    flat = [row for found in lists for row in found]
    return Partners(rows, ends, np.array(flat, dtype=np.int64))


def mutual_neighbours(
    embeddings: NDArray[np.float32],
    k: int,
    *,
    rows: NDArray[np.int64] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Partners:
    """Returns each item's nearest others that have it among their own nearest, too.

    The relation goes both ways: an item that is near to many, as plain or broken pictures are, has
    them as neighbours only where they are near to it as well. Nearness is the cosine, self
    excluded, and equally near items come by their row. An embedding of zeros has no direction, and
    so no neighbours.

    Args:
        embeddings: ``[n, D] float32``, finite.
        k: Nearest others that are looked at, 1 to the number of other embeddings.
        rows: Catalogue rows of the embeddings, ``[n] int64``, ascending; 0 to n - 1 by default.
        on_progress: Called with (items searched, all of them).

    Returns:
        A list an item, the nearest first, at most k long.

    Raises:
        TypeError: ``embeddings`` is not a float32 array.
        ValueError: A shape is wrong, an embedding is not finite, or ``k`` is out of range.

    Source: mutual k-nearest-neighbour graphs, as in Brito et al. 1997, "Connectivity of the mutual
    k-nearest-neighbor graph in clustering and outlier detection".

    Example:
        >>> embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.5, 1]], dtype=np.float32)
        >>> mutual_neighbours(embeddings, 1).of(2).tolist()
        [3]
    """
    if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
        kind = getattr(embeddings, "dtype", type(embeddings).__name__)
        raise TypeError(f"embeddings is {kind}, expected a float32 array; convert it")
    if embeddings.ndim != 2:
        raise ValueError(
            f"embeddings has shape {embeddings.shape}, expected [n, D]; give one line an item"
        )
    if rows is None:
        rows = np.arange(len(embeddings), dtype=np.int64)
    if rows.shape != embeddings.shape[:1]:
        raise ValueError(
            f"rows has shape {rows.shape} for {len(embeddings)} embeddings, expected one row each; "
            "give the rows that were embedded"
        )
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        raise ValueError(
            f"the embedding of row {rows[bad[0]]} is not finite ({len(bad)} such); expected finite "
            "numbers; look at the training loss"
        )
    kept = np.flatnonzero(lengths)
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} of {len(rows)} embeddings are not zero, expected 2 or more; look at the "
            "network, which gives the same for every picture"
        )
    if not 1 <= k < len(kept):
        raise ValueError(
            f"got k {k}, expected 1 to {len(kept) - 1}, one less than the {len(kept)} embeddings "
            "that are not zero; lower k or give more items"
        )
    unit = (embeddings[kept] / lengths[kept, None]).astype(np.float32)
    found = _nearest_others(unit, k, on_progress)  # [n', k]
    # A pair as one number; it is mutual where the turned pair was found as well.
    num = len(kept)
    own = np.repeat(np.arange(num), k)
    other = found.ravel()
    mutual = np.isin(own * num + other, other * num + own)
    counts = np.zeros(len(rows), dtype=np.int64)
    counts[kept] = np.bincount(own[mutual], minlength=num)
    return Partners(rows, np.cumsum(counts), rows[kept[other[mutual]]])


def _nearest_others(
    unit: NDArray[np.float32], k: int, on_progress: Callable[[int, int], None] | None
) -> NDArray[np.int64]:
    """Returns the k nearest others of each embedding of unit length, ``[n, k] int64``."""
    # The index breaks ties by id: as texts of one length, ids sort like numbers. The squared
    # distance of unit embeddings is 2 - 2 cosine.
    ids = [f"{place:012d}" for place in range(len(unit))]
    index = EmbeddingIndex.build(unit, ids)
    return index.search(unit, k, ids, on_progress=on_progress).rows
