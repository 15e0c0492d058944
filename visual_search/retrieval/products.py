"""The headline over products: one answer a product, each asking product once.

A product is what is found, a picture is how. Where products have several pictures, a list of
pictures may hold one product five times, and a product of ten pictures asks ten times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.reading import OverProducts
from visual_search.retrieval.equality import count_equal, equal_codes
from visual_search.retrieval.measure import (
    EXCLUDED_BY,
    Embeddings,
    Neighbours,
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


@dataclass(frozen=True, eq=False)
class ProductScores:
    """What each asking product reached, one answer a product.

    Attributes:
        k: Products in a list.
        per_product: One row an asking product: ``query_id``, its id; ``group``; ``category``, its
            label in tables; ``value``, the mean over its pictures of AP@k, NaN where none of them
            has anything relevant to find.
        num_gallery: Products that are searched.
    """

    k: int
    per_product: pd.DataFrame
    num_gallery: int

    @property
    def title(self) -> str:
        """What the mean is called."""
        return f"mAP@{self.k} over products"


def depth_of_products(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> int:
    """Returns how many answers of each query are looked at for k products besides its own.

    Args:
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.

    Returns:
        0 where nothing is measured over products: where no product has several pictures or the
        column says something else, where the product itself is asked for, where the query counts,
        or where no query finds k answers.
    """
    if protocol.finds_the_product or protocol.counts_the_query or not _has_products(table):
        return 0
    held, own = _products_of_sides(table, selection)
    sizes = np.sort(np.bincount(held))[::-1]
    if len(sizes) == len(held) and len(np.unique(own)) == len(own):
        return 0
    admitted = int(count_admitted(table, protocol, selection).max(initial=0))
    # k others, whichever they are, and its own
    depth = min(int(sizes[: protocol.k + 1].sum()), admitted)
    return depth if depth >= protocol.k else 0


def find_products(
    index: EmbeddingIndex,
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    query_embeddings: Embeddings,
) -> ProductScores | None:
    """Searches as deep as products ask for, and scores them; None where none are measured.

    Args:
        index: Its row i is ``selection.gallery_rows[i]``.
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        query_embeddings: ``[Q, D] float32``, in the order of ``selection.query_rows``.
    """
    depth = depth_of_products(table, protocol, selection)
    if not depth:
        return None
    deeper = replace(protocol, k=depth, to_r=False)
    found = find_neighbours(index, table, deeper, selection, query_embeddings)
    return score_products(table, protocol, selection, found)


def score_products(
    table: pd.DataFrame, protocol: Protocol, selection: Selection, neighbours: Neighbours
) -> ProductScores | None:
    """Returns what each asking product reached; None where no query can be scored.

    Args:
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        neighbours: ``[Q, K]``, at least as deep as `depth_of_products` says.
    """
    k, gallery, queries = protocol.k, selection.gallery_rows, selection.query_rows
    held, own = _products_of_sides(table, selection)
    places = _first_of_each(held[neighbours.positions], neighbours.found, own, k)
    listed = np.take_along_axis(neighbours.positions, np.maximum(places, 0), axis=1)
    codes = equal_codes(
        table, np.concatenate([gallery, queries]), protocol.relevance, empty_is_none=True
    )
    relevant = (codes[: len(gallery)][listed] == codes[len(gallery) :, None]) & (places >= 0)
    relevant &= (codes[len(gallery) :] >= 0)[:, None]
    num_relevant = _count_products(table, protocol, gallery, queries)
    values = average_precision_at_k(relevant, num_relevant, k)
    if not np.isfinite(values).any():
        return None
    asking = _asking(table, protocol, queries, own, values)
    return ProductScores(k, asking, len(np.unique(held)))


def over_products(scores: ProductScores) -> OverProducts:
    """Returns mAP@k over products, with its 95 % interval by group.

    Args:
        scores: From `find_products`.
    """
    asking = scores.per_product
    ends = bootstrap_interval(
        asking["value"].to_numpy(dtype=np.float64),
        asking["group"].tolist(),
        asking["category"].tolist(),
        "micro",
    )
    return {
        "title": scores.title,
        "mean": ends.mean,
        "low": ends.low,
        "high": ends.high,
        "num_products_scored": int(np.isfinite(asking["value"]).sum()),
        "num_products_asking": len(asking),
        "num_products_gallery": scores.num_gallery,
        "num_groups": ends.num_groups,
        "effective_groups": ends.effective_groups,
        "rough": ends.rough,
        "definition": DEFINITION.format(k=scores.k),
    }


def _has_products(table: pd.DataFrame) -> bool:
    """Returns whether the column names products: each of one group, so that no split parts it.

    A column of that name may say something else, as the line that a brand sells.
    """
    if PRODUCT not in table.columns or (table[PRODUCT] == "").any():
        return False
    return len(table[[PRODUCT, "group"]].drop_duplicates()) == table[PRODUCT].nunique()


def _products_of_sides(
    table: pd.DataFrame, selection: Selection
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the products of the gallery, ``[N] int64``, and of the queries, ``[Q] int64``."""
    both = np.concatenate([selection.gallery_rows, selection.query_rows])
    codes, num = equal_codes(table, both, [PRODUCT]), len(selection.gallery_rows)
    return codes[:num], codes[num:]


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
    table: pd.DataFrame, protocol: Protocol, gallery: Rows, queries: Rows
) -> NDArray[np.int64]:
    """Counts the other products that are relevant to each query and that it may find, ``[Q]``.

    A product is relevant where one of its pictures is: they may be of several categories.
    """
    both, num = np.concatenate([gallery, queries]), len(gallery)
    mine = ["group"] if EXCLUDED_BY[protocol.exclude] == ("group",) else [PRODUCT]
    codes = equal_codes(table, both, protocol.relevance, empty_is_none=True)
    within = equal_codes(table, both, protocol.restrict_to)
    product, hidden = equal_codes(table, both, [PRODUCT]), equal_codes(table, both, mine)
    held = pd.DataFrame({"code": codes, "within": within, "product": product})[:num]
    once = np.flatnonzero(~held.duplicated())
    rows = np.concatenate([once, np.arange(num, len(both))])
    codes, within, hidden = codes[rows], within[rows], hidden[rows]
    num = len(once)
    counted = count_equal(num, codes, within) - count_equal(num, codes, within, hidden)
    return np.where(codes[num:] >= 0, counted, 0)


def _asking(
    table: pd.DataFrame,
    protocol: Protocol,
    queries: Rows,
    own: NDArray[np.int64],
    values: NDArray[np.float64],
) -> pd.DataFrame:
    """Returns one row an asking product, as `ProductScores` has it."""
    asked = pd.DataFrame(
        {
            "product": own,
            "query_id": table[PRODUCT].to_numpy(dtype=object)[queries],
            "group": table["group"].to_numpy(dtype=object)[queries],
            "category": labels(table, queries, protocol.report_by),
            "value": values,
        }
    )
    pictures = asked.groupby("product", sort=True)
    firsts = pictures[["query_id", "group", "category"]].first().reset_index(drop=True)
    means = [math.fsum(part) / len(part) if len(part) else math.nan
             for part in (one.dropna().tolist() for _, one in pictures["value"])]  # fmt: skip
    return firsts.assign(value=means)
