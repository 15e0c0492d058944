"""Graded relevance: an item that agrees in more levels is worth more, and nDCG says how much.

The levels are labels from coarse to fine, such as category, article type, colour: L of them. A
neighbour's gain is the number of leading levels in which it agrees with the query, 0..L. With one
level this is plain relevance, 1 or 0.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_k
from visual_search.retrieval.metrics import Counts

Gains: TypeAlias = NDArray[np.bool_] | NDArray[np.integer[Any]] | NDArray[np.float64]


def ndcg_at_k(gains: Gains, ideal_gains: Gains, k: int) -> NDArray[np.float64]:
    """Returns nDCG@k: ``DCG / ideal DCG``, 1 where no other list of k items is worth more.

    DCG is the sum of g(i) / log2(i + 1) over the ranks i <= k, with the gain g(i) itself ("linear")
    as in trec_eval, scikit-learn and torchmetrics. The exponential form, common for web search,
    has 2^g(i) - 1 instead: the same for gains of 0 and 1, but with grades it lets the finest level
    outweigh the others (3 levels: 7 against 1 instead of 3 against 1). Pass ``2**gains - 1`` and
    ``2**ideal_gains - 1`` for it.

    Denominator: the DCG of the k largest gains in the gallery. Empty case: 0 where nothing within
    the first k has a gain, NaN where the ideal is 0, which means left out. Source: Järvelin &
    Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques (2002), with the discount of Burges
    et al., Learning to Rank Using Gradient Descent (2005), which also discounts rank 2.

    Args:
        gains: ``[Q, K]`` bool, integer or float, at least 0, ranked; the query is not among them.
        ideal_gains: ``[Q, k]`` or wider, the gallery's largest gains, descending, the query
            excluded, 0 where the gallery holds fewer items (see `ideal_gains`).
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where the ideal is 0.

    Raises:
        TypeError: Gains are no numbers, or ``k`` no integer.
        ValueError: A shape is wrong, ``k`` is outside 1..K or wider than the ideal, a gain is
            negative or not finite, the ideal is not descending, or the gains are more than it.

    Example:
        Gains 1, 0, 3 where 3, 2, 1 was possible: (1/1 + 0 + 3/2) / (3/1 + 2/1.585 + 1/2).

        >>> ndcg_at_k(np.array([[1, 0, 3]]), np.array([[3, 2, 1]]), k=3).round(3)
        array([0.525])
    """
    k = check_k(k)
    found, best = _checked_gains(gains, "gains", k), _checked_gains(ideal_gains, "ideal_gains", k)
    if len(found) != len(best):
        raise ValueError(
            f"gains hold {len(found)} queries and ideal_gains {len(best)}; expected the same: one "
            "row a query in both"
        )
    rising = np.flatnonzero((np.diff(best, axis=1) > 0).any(axis=1))
    if len(rising):
        raise ValueError(
            f"ideal_gains of query row {rising[0]} are {best[rising[0]].tolist()}; expected them "
            "descending: the gallery's largest gains, the largest first"
        )
    best = best[:, :k]
    sorted_gains = -np.sort(-found, axis=1)[:, :k]
    impossible = np.flatnonzero((sorted_gains > best).any(axis=1))
    if len(impossible):
        row = int(impossible[0])
        raise ValueError(
            f"query row {row} has the gains {sorted_gains[row].tolist()}, but the ideal is "
            f"{best[row].tolist()}; expected no more than the ideal: count it over the whole "
            "gallery, and exclude the query from both"
        )
    largest = best[:, :1]  # divided out of both, so that no sum overflows
    scale = np.where(largest > 0, largest, 1.0)
    discount = 1 / np.log2(np.arange(2, k + 2))  # [k], ranks 1..k
    dcg = (found[:, :k] / scale * discount).sum(axis=1)  # [Q]
    ideal = (best / scale * discount).sum(axis=1)  # [Q]
    share = np.divide(dcg, ideal, out=np.full(len(dcg), np.nan), where=ideal > 0)
    return np.asarray(np.minimum(share, 1.0))  # rounding; NaN stays


def hierarchy_gains(
    query_labels: NDArray[Any], neighbour_labels: NDArray[Any]
) -> NDArray[np.int64]:
    """Returns each neighbour's gain: the number of leading levels that agree with the query.

    A level behind one that differs counts no more, so that the colour of a hat says nothing to
    somebody who asked with a shoe. An empty label, or None, agrees with nothing, itself included.

    Args:
        query_labels: ``[Q, L]`` text, from coarse to fine.
        neighbour_labels: ``[Q, K, L]`` text; empty or None where there is no neighbour.

    Returns:
        ``[Q, K] int64`` in 0..L.

    Raises:
        TypeError: A label is neither text nor None.
        ValueError: A shape is wrong, or there is no level.

    Example:
        >>> query = np.array([["shoe", "boot", "red"]])
        >>> found = np.array([[["shoe", "boot", "red"], ["shoe", "heel", "red"], ["hat", "", ""]]])
        >>> hierarchy_gains(query, found)
        array([[3, 1, 0]])
    """
    asked, found = np.asarray(query_labels), np.asarray(neighbour_labels)
    fits = asked.ndim == 2 and found.ndim == 3 and (len(found), found.shape[2]) == asked.shape
    if not fits or not asked.shape[1]:
        raise ValueError(
            f"query_labels have shape {asked.shape} and neighbour_labels {found.shape}; expected "
            "[Q, L] and [Q, K, L] with at least one level: stack the label columns, coarse to fine"
        )
    for name, labels in (("query_labels", asked), ("neighbour_labels", found)):
        if labels.dtype.kind != "U":
            odd = [x for x in labels.ravel().tolist() if x is not None and not isinstance(x, str)]
            if odd:
                raise TypeError(
                    f"{name} hold {odd[0]!r} ({type(odd[0]).__name__}); expected text, or None for "
                    "nothing: convert the column first"
                )
    named = np.array([bool(label) for label in asked.ravel()], dtype=bool).reshape(asked.shape)
    agree = np.asarray((found == asked[:, None, :]) & named[:, None, :], dtype=bool)  # [Q, K, L]
    leading = np.logical_and.accumulate(agree, axis=2)
    return np.asarray(leading.sum(axis=2, dtype=np.int64))


def ideal_gains(num_matching: Counts, k: int) -> NDArray[np.int64]:
    """Returns the k largest gains that a gallery holds for each query.

    Formula: the item at rank i of the best list has as many gains as there are levels l with
    ``num_matching[q, l] >= i``, since those who agree in more levels come first.

    Args:
        num_matching: ``[Q, L]`` integer: gallery items that agree in the first 1, 2, ..., L levels,
            the query (and whatever else is excluded with it) already subtracted.
        k: Ranks that count.

    Returns:
        ``[Q, k] int64`` in 0..L, descending; 0 where the gallery holds no further match.

    Raises:
        TypeError: ``num_matching`` is not integer, or ``k`` no integer.
        ValueError: The shape is wrong, there is no level, ``k`` is below 1, or a count is negative
            or larger than that of the level before.

    Example:
        Four shoes, two of them boots, one of these red:

        >>> ideal_gains(np.array([[4, 2, 1]]), k=5)
        array([[3, 2, 1, 1, 0]])
    """
    k, counts = check_k(k), np.asarray(num_matching)
    if not np.issubdtype(counts.dtype, np.integer):
        raise TypeError(
            f"num_matching has dtype {counts.dtype}; expected an integer count a query and level"
        )
    if counts.ndim != 2 or not counts.shape[1]:
        raise ValueError(
            f"num_matching has shape {counts.shape}; expected [Q, L] with at least one level: for "
            "plain relevance pass num_relevant[:, None]"
        )
    signed = counts.astype(np.int64)  # a difference of unsigned counts would wrap
    wrong = np.flatnonzero((signed < 0).any(axis=1) | (np.diff(signed, axis=1) > 0).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"num_matching of query row {wrong[0]} is {signed[wrong[0]].tolist()}; expected counts "
            "of 0 or more that never grow from coarse to fine: each level counts among the items "
            "that agree in all levels before it"
        )
    ranks = np.arange(1, k + 1)
    reached = signed[:, :, None] >= ranks  # [Q, L, k]
    return np.asarray(reached.sum(axis=1, dtype=np.int64))


def _checked_gains(gains: Gains, name: str, k: int) -> NDArray[np.float64]:
    """The gains as ``[Q, K] float64`` after the door's checks."""
    array = np.asarray(gains)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} have dtype {array.dtype}; expected numbers: turn labels into gains with "
            "hierarchy_gains first"
        )
    if array.ndim != 2:
        raise ValueError(
            f"{name} have shape {array.shape}; expected two dimensions: one row a query, one "
            "column a rank"
        )
    if k > array.shape[1]:
        raise ValueError(f"k is {k}, but {name} hold {array.shape[1]} rank(s); make k of them")
    values = array.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"{name} of query row {wrong[0]} are {values[wrong[0]].tolist()}; expected finite "
            "gains of 0 or more: pass gains, not distances"
        )
    return values
