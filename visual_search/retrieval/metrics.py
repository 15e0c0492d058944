"""Retrieval metrics: pure functions from ranked relevance to one number a query.

All but `reference_2023` take the same three arguments and give ``[Q] float64``:

* ``relevance`` ``[Q, K] bool``: is the neighbour at rank 1, 2, ..., K relevant to the query? The
  query itself is not among its neighbours.
* ``num_relevant`` ``[Q]`` integer, R: relevant items in the whole gallery, the query excluded.
* ``k``: how many of the ranks count, ``1 <= k <= K``.

A query with R = 0 has nothing to find. Every metric gives NaN for it, which means *left out of the
mean and counted as left out*, so that all means of one report are over the same queries.

Grades instead of bool (nDCG) are in `visual_search.retrieval.graded`; ``docs/metrics.md`` works
examples and compares with other libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_k

Relevance: TypeAlias = NDArray[np.bool_]
Counts: TypeAlias = NDArray[np.integer[Any]]
Metric: TypeAlias = Callable[[Relevance, Counts, int], NDArray[np.float64]]

LEFT_OUT = "A query without a relevant item in the gallery is left out and counted."

DEFINITIONS: dict[str, str] = {
    "map_at_k": (
        "Mean of AP@{k} = S / min(R, {k}), where S sums the precision at the rank of every hit "
        f"within the first {{k}} and R counts the query's relevant gallery items. {LEFT_OUT}"
    ),
    "precision_at_k": (
        "Mean of the hits within the first {k}, divided by {k}, also where fewer than {k} "
        f"relevant items exist. {LEFT_OUT}"
    ),
    "recall_at_k": (
        "Mean of the hits within the first {k}, divided by R, the query's relevant gallery items "
        f"(so it stays below 1 where R > {{k}}). {LEFT_OUT}"
    ),
    "hit_at_k": (f"Share of the queries with at least one hit within the first {{k}}. {LEFT_OUT}"),
    "mrr_at_k": (
        "Mean of 1 / rank of the first hit, and 0 where there is no hit within the first {k}. "
        f"{LEFT_OUT}"
    ),
    "ndcg_at_k": (
        "Mean of DCG@{k} / ideal DCG@{k}, where DCG@{k} sums gain / log2(rank + 1) over the first "
        "{k} and the ideal takes the {k} largest gains of the gallery. The gain is the number of "
        "leading levels that agree with the query's; with one level it is 1 or 0. "
        f"{LEFT_OUT} So is one whose ideal is 0."
    ),
}
"""One sentence a mean, with ``{k}`` to fill in: stored beside the numbers (see `definitions`)."""

MAP_AT_R_DEFINITION = (
    "Mean of S / R, where S sums the precision at the rank of every hit within the first R, and R "
    f"counts the query's relevant gallery items: a list is as deep as there is to find. {LEFT_OUT}"
)
"""The sentence of the mean that is asked for where the item itself is to be found."""

REFERENCE_DEFINITION = (
    "Mean of hits / {k} within the first {k}, where the query stays in the gallery and counts as a "
    "hit: precision@{k} with the query found by itself. No query is left out. The study of 2023 "
    "printed the macro mean. Not comparable with any other number here."
)
"""The sentence of the one mean that other reports do not have (see `reference_definition`)."""


def definitions(k: int) -> dict[str, str]:
    """Returns what each reported mean says at this ``k``: ``{"map_at_5": "Mean of AP@5 = ..."}``.

    Example:
        >>> list(definitions(5))[:4]
        ['map_at_5', 'precision_at_5', 'recall_at_5', 'hit_at_5']
        >>> list(definitions(5))[4:]
        ['mrr_at_5', 'ndcg_at_5', 'hit_at_1']
        >>> definitions(5)["hit_at_1"][:56]
        'Share of the queries with at least one hit within the fi'
    """
    k = check_k(k)
    texts = {
        name.replace("_at_k", f"_at_{k}"): text.format(k=k) for name, text in DEFINITIONS.items()
    }
    texts.setdefault("hit_at_1", DEFINITIONS["hit_at_k"].format(k=1))
    return texts


def reference_definition(k: int) -> str:
    """Returns what `reference_2023` says at this ``k``.

    Example:
        >>> reference_definition(5)[:56]
        'Mean of hits / 5 within the first 5, where the query sta'
    """
    return REFERENCE_DEFINITION.format(k=check_k(k))


def average_precision_at_k(
    relevance: Relevance, num_relevant: Counts, k: int
) -> NDArray[np.float64]:
    """Returns AP@k: ``S / min(R, k)``, 1 where the best possible list was found.

    S is the sum of P(i) over the ranks i <= k that are hits, and P(i) the share of hits among the
    first i. Denominator: ``min(R, k)``, what a perfect list of length k could hold. Libraries
    differ here: torchmetrics and Open Metric Learning divide by the hits that were found, trec_eval
    and pytorch-metric-learning by R. Empty case: 0 without a hit, NaN where R = 0.

    Source: Manning, Raghavan, Schütze, Introduction to Information Retrieval (2008), section 8.4,
    cut at k with the denominator of the MAP@k of recommender benchmarks, as ml_metrics computes it.

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R, the query excluded.
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where R = 0.

    Raises:
        TypeError: ``relevance`` is not bool, or ``num_relevant`` or ``k`` not integer.
        ValueError: A shape is wrong, ``k`` is outside 1..K, or R is below 0 or below the hits.

    Example:
        Hits at ranks 1, 3, 5 and R = 3: (1/1 + 2/3 + 3/5) / min(3, 5) = 0.756. One hit at rank 1
        of 999: (1/1) / min(999, 5) = 0.2.

        >>> relevance = np.array([[1, 0, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=bool)
        >>> average_precision_at_k(relevance, np.array([3, 999]), k=5).round(3)
        array([0.756, 0.2  ])
    """
    hits, found = _checked(relevance, num_relevant, k)  # [Q, k] bool, [Q] float64
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)  # P(i), [Q, k]
    total = (precision * hits).sum(axis=1)  # S, [Q]
    return _nan_where_empty(total / np.clip(found, 1, k), found)


def average_precision_at_r(relevance: Relevance, num_relevant: Counts) -> NDArray[np.float64]:
    """Returns AP@R: ``S / R`` within the first R of each query, 1 where all R come first.

    Denominator: R. Empty case: 0 without a hit, NaN where R = 0. Source: "MAP@R" of Musgrave,
    Belongie, Lim, A Metric Learning Reality Check (2020), as pytorch-metric-learning computes it.

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R <= K, the query excluded.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where R = 0.

    Raises:
        TypeError: As `average_precision_at_k`.
        ValueError: As `average_precision_at_k`, or an R is above K.

    Example:
        R = 2, of which one was found at rank 2: (1/2) / 2. R = 3, found at ranks 1, 3 and 4, the
        last behind the first R: (1/1 + 2/3) / 3.

        >>> relevance = np.array([[0, 1, 0, 0], [1, 0, 1, 1]], dtype=bool)
        >>> average_precision_at_r(relevance, np.array([2, 3])).round(3)
        array([0.25 , 0.556])
    """
    hits, found = _checked(relevance, num_relevant, np.shape(relevance)[1])
    if (found > hits.shape[1]).any():
        raise ValueError(
            f"a query has {int(found.max())} relevant items, and the lists are {hits.shape[1]} "
            "deep; expected at least R: search deeper"
        )
    hits = hits & (np.arange(hits.shape[1]) < found[:, None])
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return _nan_where_empty((precision * hits).sum(axis=1) / np.maximum(found, 1), found)


def precision_at_k(relevance: Relevance, num_relevant: Counts, k: int) -> NDArray[np.float64]:
    """Returns precision@k: ``hits / k``, the share of the list that is relevant.

    Denominator: ``k``, even where R < k, so the best possible value is then R / k. Empty case: 0
    without a hit, NaN where R = 0. Source: Manning et al. (2008), section 8.4. The study of 2023
    printed this number, with the query counted as its own hit, as "mAP@5": `reference_2023`.

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R, the query excluded.
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where R = 0.

    Raises:
        TypeError: As `average_precision_at_k`.
        ValueError: As `average_precision_at_k`.

    Example:
        >>> relevance = np.array([[1, 0, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=bool)
        >>> precision_at_k(relevance, np.array([3, 999]), k=5)
        array([0.6, 0.2])
    """
    hits, found = _checked(relevance, num_relevant, k)
    return _nan_where_empty(hits.sum(axis=1) / k, found)


def recall_at_k(relevance: Relevance, num_relevant: Counts, k: int) -> NDArray[np.float64]:
    """Returns recall@k: ``hits / R``, the share of what there is to find that was found.

    Denominator: R, so the best possible value is k / R where R > k. What metric-learning papers
    call recall@k (is there any hit?) is `hit_at_k`. Empty case: 0 without a hit, NaN where R = 0.
    Source: Manning et al. (2008), section 8.3.

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R, the query excluded.
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where R = 0.

    Raises:
        TypeError: As `average_precision_at_k`.
        ValueError: As `average_precision_at_k`.

    Example:
        >>> relevance = np.array([[1, 0, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=bool)
        >>> recall_at_k(relevance, np.array([3, 10]), k=5)
        array([1. , 0.1])
    """
    hits, found = _checked(relevance, num_relevant, k)
    return _nan_where_empty(hits.sum(axis=1) / np.maximum(found, 1), found)


def hit_at_k(relevance: Relevance, num_relevant: Counts, k: int) -> NDArray[np.float64]:
    """Returns 1.0 where at least one of the first k is relevant, else 0.0.

    Denominator: none. Empty case: 0 without a hit, NaN where R = 0. Source: "Recall@K" of Jégou,
    Douze, Schmid, Product Quantization for Nearest Neighbor Search (2011), and of the
    metric-learning papers after it, under a name that cannot be taken for `recall_at_k`.

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R, the query excluded.
        k: Ranks that count.

    Returns:
        ``[Q] float64``, 0 or 1, or NaN where R = 0.

    Raises:
        TypeError: As `average_precision_at_k`.
        ValueError: As `average_precision_at_k`.

    Example:
        >>> relevance = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
        >>> hit_at_k(relevance, np.array([3, 7, 0]), k=3)
        array([ 1.,  0., nan])
    """
    hits, found = _checked(relevance, num_relevant, k)
    return _nan_where_empty(np.asarray(hits.any(axis=1), dtype=np.float64), found)


def reciprocal_rank_at_k(relevance: Relevance, num_relevant: Counts, k: int) -> NDArray[np.float64]:
    """Returns ``1 / rank of the first hit``, looking no deeper than rank k.

    Denominator: the rank itself. Empty case: 0 where the first k hold no hit (a hit at k + 1
    would be worth 1 / (k + 1), so the depth is part of the name), NaN where R = 0. Source:
    Voorhees, The TREC-8 Question Answering Track Report (1999).

    Args:
        relevance: ``[Q, K] bool``, ranked.
        num_relevant: ``[Q]`` integer R, the query excluded.
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1], or NaN where R = 0.

    Raises:
        TypeError: As `average_precision_at_k`.
        ValueError: As `average_precision_at_k`.

    Example:
        >>> relevance = np.array([[0, 1, 0, 1], [0, 0, 0, 1]], dtype=bool)
        >>> reciprocal_rank_at_k(relevance, np.array([2, 2]), k=3)
        array([0.5, 0. ])
    """
    hits, found = _checked(relevance, num_relevant, k)
    rank = np.asarray(hits.argmax(axis=1) + 1)  # [Q]; 1 also where there is no hit
    return _nan_where_empty(np.where(hits.any(axis=1), 1 / rank, 0.0), found)


def reference_2023(relevance: Relevance, k: int) -> NDArray[np.float64]:
    """Returns the number of the study of 2023: ``hits / k``, where the query is one of the hits.

    Denominator: ``k``. The query is in the gallery and finds itself, so an item that is alone in
    its category has 1 / k, and one of a category of m items at best min(m, k) / k: the value grows
    with the category. Empty case: none, since a query is relevant to itself; 0 only where k items
    of other categories, at distance 0 as well, came before it. Source: "Powering Visual Search
    with Image Embedding" (2023), whose notebooks print the macro mean of this as "mAP@5". It holds
    no precision at a rank, so it is no average precision: see `average_precision_at_k`.

    Args:
        relevance: ``[Q, K] bool``, ranked, the query among its own neighbours and relevant.
        k: Ranks that count.

    Returns:
        ``[Q] float64`` in [0, 1].

    Raises:
        TypeError: ``relevance`` is not bool, or ``k`` no integer.
        ValueError: A shape is wrong, or ``k`` is outside 1..K.

    Example:
        The only necktie of a gallery finds itself and nothing else; an item of a category of three
        finds all of them.

        >>> relevance = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=bool)
        >>> reference_2023(relevance, k=5)
        array([0.2, 0.6])
    """
    hits = _first(relevance, k)  # [Q, k]
    return np.asarray(hits.sum(axis=1) / hits.shape[1], dtype=np.float64)


def _first(relevance: Relevance, k: int) -> Relevance:
    """Returns the first k ranks (``[Q, k] bool``) after the door's checks."""
    k, relevance = check_k(k), np.asarray(relevance)
    if relevance.dtype != np.bool_:
        raise TypeError(
            f"relevance has dtype {relevance.dtype}; expected bool: compare categories, "
            "do not pass distances or scores"
        )
    if relevance.ndim != 2:
        raise ValueError(
            f"relevance has shape {relevance.shape}; expected [Q, K]: one row a query, one column "
            "a rank"
        )
    if k > relevance.shape[1]:
        raise ValueError(
            f"k is {k}, but relevance holds {relevance.shape[1]} rank(s); search with k={k} first"
        )
    return relevance[:, :k]


def _checked(
    relevance: Relevance, num_relevant: Counts, k: int
) -> tuple[Relevance, NDArray[np.float64]]:
    """Returns first k ranks (``[Q, k] bool``) and R (``[Q] float64``) after the door's checks."""
    hits, num_relevant = _first(relevance, k), np.asarray(num_relevant)
    if not np.issubdtype(num_relevant.dtype, np.integer):
        raise TypeError(
            f"num_relevant has dtype {num_relevant.dtype}; expected an integer count a query"
        )
    if num_relevant.shape != hits.shape[:1]:
        raise ValueError(
            f"relevance has {len(hits)} row(s) and num_relevant shape {num_relevant.shape}; "
            "expected [Q, K] and [Q]: one row and one count a query"
        )
    relevance = np.asarray(relevance)
    impossible = np.flatnonzero(num_relevant < relevance.sum(axis=1))
    if len(impossible):  # also catches R < 0
        row = int(impossible[0])
        raise ValueError(
            f"query row {row} has num_relevant {int(num_relevant[row])}, but "
            f"{int(relevance[row].sum())} hit(s); expected at least as many as hits: count R over "
            "the whole gallery, and exclude the query from both"
        )
    return hits, num_relevant.astype(np.float64)


def _nan_where_empty(
    values: NDArray[np.float64], found: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.where(found > 0, values, np.nan)
