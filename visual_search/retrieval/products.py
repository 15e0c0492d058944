"""The headline over products: one answer a product, each asking product once.

A product is what is found, a picture is how. Where products have several pictures, a list of
pictures may hold one product five times, and a product of ten pictures asks ten times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.reading import OverProducts
from visual_search.retrieval.equality import count_equal, equal_codes
from visual_search.retrieval.measure import (
    EXCLUDED_BY,
    Embeddings,
    count_admitted,
    find_neighbours,
)
from visual_search.retrieval.metrics import LEFT_OUT, average_precision_at_k
from visual_search.retrieval.protocol import PRODUCT, Protocol, Rows, Selection, labels
from visual_search.retrieval.statistics import bootstrap_interval

DEFINITION = (
    "Mean over the asking products of the mean over their pictures of AP@{k} = S / min(R, {k}), "
    "where a list holds each product once, by its nearest picture, and never the query's own, and "
    f"R counts relevant products. {LEFT_OUT}"
)


def over_products(
    index: EmbeddingIndex,
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    query_embeddings: Embeddings,
) -> OverProducts | None:
    """Returns mAP@k over products, with its 95 % interval by group.

    Args:
        index: Its row i is ``selection.gallery_rows[i]``.
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        query_embeddings: ``[Q, D] float32``, in the order of ``selection.query_rows``.

    Returns:
        None where no product has several pictures, where the product itself is asked for, where the
        query counts, or where no query finds k products.
    """
    if PRODUCT not in table.columns or protocol.finds_the_product or protocol.counts_the_query:
        return None
    gallery, queries = selection.gallery_rows, selection.query_rows
    product = equal_codes(table, np.concatenate([gallery, queries]), [PRODUCT])
    held, own = product[: len(gallery)], product[len(gallery) :]
    sizes = np.sort(np.bincount(held))[::-1]
    if len(sizes) == len(held) and len(np.unique(own)) == len(own):
        return None
    k = protocol.k
    admitted = int(count_admitted(table, protocol, selection).max(initial=0))
    depth = min(int(sizes[: k + 1].sum()), admitted)  # k others, whichever they are, and its own
    if depth < k:
        return None
    deeper = replace(protocol, k=depth, to_r=False)
    found = find_neighbours(index, table, deeper, selection, query_embeddings)
    places = _first_of_each(held[found.positions], found.found, own, k)
    listed = np.take_along_axis(found.positions, np.maximum(places, 0), axis=1)
    codes = equal_codes(
        table, np.concatenate([gallery, queries]), protocol.relevance, empty_is_none=True
    )
    relevant = (codes[: len(gallery)][listed] == codes[len(gallery) :, None]) & (places >= 0)
    relevant &= (codes[len(gallery) :] >= 0)[:, None]
    first = gallery[np.unique(held, return_index=True)[1]]  # one picture of each product
    num_relevant = _count_products(table, protocol, first, queries)
    values = average_precision_at_k(relevant, num_relevant, k)
    asking = _asking(table, protocol, queries, own, values)
    if not np.isfinite(asking["value"]).any():
        return None
    ends = bootstrap_interval(
        asking["value"].to_numpy(dtype=np.float64),
        asking["group"].tolist(),
        asking["label"].tolist(),
        "micro",
    )
    return {
        "title": f"mAP@{k} over products",
        "mean": ends.mean,
        "low": ends.low,
        "high": ends.high,
        "num_products_scored": int(np.isfinite(asking["value"]).sum()),
        "num_products_asking": len(asking),
        "num_products_gallery": len(first),
        "definition": DEFINITION.format(k=k),
    }


def _first_of_each(
    products: NDArray[np.int64], found: NDArray[np.bool_], own: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """Returns at which ranks the first k other products stand first, ``[Q, k]``; -1 behind them."""
    places = np.full((len(products), k), -1, dtype=np.int64)
    for query, (row, is_found) in enumerate(zip(products, found, strict=True)):
        others = np.flatnonzero(is_found & (row != own[query]))
        ranks = np.sort(others[np.unique(row[others], return_index=True)[1]])[:k]
        places[query, : len(ranks)] = ranks
    return places


def _count_products(
    table: pd.DataFrame, protocol: Protocol, first: Rows, queries: Rows
) -> NDArray[np.int64]:
    """Counts the other products that are relevant to each query and that it may find, ``[Q]``."""
    both, num = np.concatenate([first, queries]), len(first)
    codes = equal_codes(table, both, protocol.relevance, empty_is_none=True)
    within = equal_codes(table, both, protocol.restrict_to)
    hidden: Sequence[str] = EXCLUDED_BY[protocol.exclude]
    mine = equal_codes(table, both, ["group"] if tuple(hidden) == ("group",) else [PRODUCT])
    counted = count_equal(num, codes, within) - count_equal(num, codes, within, mine)
    return np.where(codes[num:] >= 0, counted, 0)


def _asking(
    table: pd.DataFrame,
    protocol: Protocol,
    queries: Rows,
    own: NDArray[np.int64],
    values: NDArray[np.float64],
) -> pd.DataFrame:
    """Returns one row an asking product: its group, its label, the mean over its pictures."""
    asked = pd.DataFrame(
        {
            "product": own,
            "group": table["group"].to_numpy(dtype=object)[queries],
            "label": labels(table, queries, protocol.report_by),
            "value": values,
        }
    )
    pictures = asked.groupby("product", sort=True)
    firsts = pictures[["group", "label"]].first()
    means = [math.fsum(part) / len(part) if len(part) else math.nan
             for part in (one.dropna().tolist() for _, one in pictures["value"])]  # fmt: skip
    return firsts.assign(value=means)
