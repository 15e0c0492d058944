"""Products and their pictures: which rows are whose, and the nearest products of a query.

A row is one picture. In a bundle whose manifest names a `product_column` several rows may belong
to one product; a search then answers each product once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.items import BundleItems
from visual_search.bundle.segments import BLOCK_BYTES
from visual_search.bundle.snapshot import Snapshot
from visual_search.catalog.identity import is_by_picture, picture_number
from visual_search.knn.exact import exact_squared_distances, row_lengths
from visual_search.knn.indexes import build_index
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore, EmbeddingStore

ByProduct = Literal["best", "mean", "all"]
UNIT_TOLERANCE = 1e-3  # how far from 1 the length of a normalised embedding may be


def check_products(products: object) -> ByProduct:
    """Returns how a search is to answer products of several pictures.

    Raises:
        ValueError: It is none of `ByProduct`.

    Example:
        >>> check_products("best")
        'best'
    """
    if products not in get_args(ByProduct):
        raise ValueError(
            f"products is {str(products)[:100]!r}; expected one of {list(get_args(ByProduct))}: "
            "'best' finds each product once, by its nearest picture"
        )
    return products  # type: ignore[return-value]


def check_pictures(items: BundleItems, product_column: str | None) -> None:
    """Checks that items are pictures of the products that a column names.

    Raises:
        ValueError: There is no such column, or an item's id is none of its product's pictures; or
            an item has no id.
    """
    if product_column is None:
        if "" in items.item_ids:
            raise ValueError("an item id is empty; expected text: a new bundle gives none")
        return
    products = items.columns.get(product_column)
    if products is None or product_column == "category":
        raise ValueError(
            f"product_column is {product_column!r}; expected one of the items' columns "
            f"{[name for name in items.columns if name != 'category']}, or None"
        )
    if is_by_picture(items.item_ids, products):
        return
    for item_id, product in zip(items.item_ids, products, strict=True):
        if not picture_number(item_id, product):
            raise ValueError(
                f"the item {item_id!r} is said to be a picture of the product {product!r}; "
                f"expected {product!r} for its first picture, '{product}~2' for the next: name it "
                "so, or leave product_column out"
            )


@dataclass(frozen=True, eq=False)
class Products:
    """The products of one generation, numbered from 0 by their first row that can be found.

    Attributes:
        names: P ids.
        of_row: ``[N] int64``, each row's product; -1 where it was removed.
        number_of: Id -> number.
    """

    names: Sequence[str]
    of_row: NDArray[np.int64]
    number_of: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, snapshot: Snapshot, column: str) -> Products:
        """Reads the products of a generation; a second for a million rows."""
        texts: dict[str, int] = {}
        parts = [np.empty(0, np.int64)]
        for segment in snapshot.segments:
            own = segment.columns[column]
            values = [texts.setdefault(text, len(texts)) for text in own.values.to_pylist()]
            parts.append(np.array(values, np.int64)[own.codes])
        codes = np.concatenate(parts)
        live = np.flatnonzero(snapshot.live)
        used, first = np.unique(codes[live], return_index=True)
        used = used[np.argsort(first)]  # [P] codes, in the order of their first rows
        numbers = np.full(len(texts), -1, np.int64)
        numbers[used] = np.arange(len(used))
        of_row = np.where(snapshot.live, numbers[codes], -1)
        all_texts = list(texts)
        names = [all_texts[code] for code in used.tolist()]
        return cls(names, of_row, {name: number for number, name in enumerate(names)})

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows ``[L] int64`` product by product, and where each begins, ``[P + 1] int64``."""
        live = np.flatnonzero(self.of_row >= 0)
        rows = live[np.argsort(self.of_row[live], kind="stable")]
        counts = np.bincount(self.of_row[live], minlength=len(self))
        return rows, np.concatenate([[0], np.cumsum(counts)])

    def rows_of(self, number: int) -> NDArray[np.int64]:
        """Returns the rows of a product's pictures, rising, ``[n] int64``."""
        rows, starts = self._sorted
        return rows[starts[number] : starts[number + 1]]

    def with_a_row(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns which products, ``[P] bool``, have a row among ``[N] bool`` live ones."""
        counts = np.bincount(self.of_row[allowed], minlength=len(self))
        return counts > 0

    def mean_embeddings(self, embeddings: EmbeddingStore) -> NDArray[np.float32]:
        """Returns the mean embedding of each product's pictures, ``[P, D] float32``.

        Where all pictures' embeddings have length 1, as encoders that normalise give them, so have
        the means: a product of very different pictures is then neither nearer nor farther than
        another for that alone. A product of one picture has that picture's embedding as it is.

        Args:
            embeddings: Of all N rows.
        """
        rows, starts = self._sorted
        counts = np.diff(starts)  # [P]
        means = np.empty((len(self), embeddings.dim), np.float32)
        size = max(1, BLOCK_BYTES // (8 * embeddings.dim))
        is_unit, first = True, 0
        while first < len(self):
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + size, "right")) - 1)
            block = embeddings.take(rows[starts[first] : starts[last]])
            is_unit &= bool((np.abs(row_lengths(block) - 1) <= UNIT_TOLERANCE).all())
            sums = np.add.reduceat(block, starts[first:last] - starts[first], dtype=np.float64)
            means[first:last] = sums / counts[first:last, None]
            first = last
        if is_unit:
            several = np.flatnonzero(counts > 1)
            lengths = row_lengths(means[several])
            several, lengths = several[lengths > UNIT_TOLERANCE], lengths[lengths > UNIT_TOLERANCE]
            means[several] = means[several] / lengths[:, None]
        return means


class RowSearch(Protocol):
    """Finds rows, as a `SearchIndex` does; a vector database may stand behind it."""

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows ``[Q, K] int64`` and squared distances ``[Q, K] float32``.

        Args:
            queries: ``[Q, D] float32``, finite.
            k: Neighbours a query.
            allowed: ``[N] bool``, the rows that may be found: K is k, or their number.
        """
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for Q queries, at most K a query, the nearest first.

    Attributes:
        rows: ``[Q, K] int64``, the picture that stands for each.
        squared: ``[Q, K] float32``, squared distances.
        kept: ``[Q, K] bool``, False where there is nothing.
    """

    rows: NDArray[np.int64]
    squared: NDArray[np.float32]
    kept: NDArray[np.bool_]


def best_pictures(
    index: RowSearch,
    products: Products,
    embeddings: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_],
    excluded: NDArray[np.int64],
) -> Found:
    """Returns the k nearest products of each query, each by its nearest allowed picture.

    The index is asked for ever more rows until k of their products differ: what it gives is sorted,
    so that the first k products of a longer answer are the k nearest. There are fewer only where
    fewer have an allowed picture.

    Args:
        index: Over all N rows.
        products: Theirs.
        embeddings: ``[Q, D] float32``.
        k: Products a query.
        allowed: ``[N] bool``, live rows.
        excluded: ``[Q] int64``, a product that is not answered; -1 for none.
    """
    found = Found(
        np.full((len(embeddings), k), -1, np.int64),
        np.full((len(embeddings), k), np.inf, np.float32),
        np.zeros((len(embeddings), k), np.bool_),
    )
    num_allowed = int(np.count_nonzero(allowed))
    wanted = np.full(len(embeddings), k)  # [Q]
    pending = np.arange(len(embeddings)) if num_allowed else np.empty(0, np.int64)
    a_product = int(np.count_nonzero(products.of_row >= 0)) / max(1, len(products))
    fetch = math.ceil((k + bool((excluded >= 0).any())) * a_product)
    is_first_turn = True
    while len(pending):
        rows, squared = index.search(embeddings[pending], fetch, allowed)
        numbers = products.of_row[rows]  # [q, F]
        new = _is_first(numbers) & (numbers != excluded[pending, None])
        new &= np.cumsum(new, axis=1) <= k
        num_new = np.count_nonzero(new, axis=1)
        if is_first_turn and (num_new < wanted).any():  # perhaps there are no more
            present = products.with_a_row(allowed)
            is_left_out = (excluded >= 0) & present[excluded]
            wanted = np.minimum(k, int(present.sum()) - is_left_out)
            is_first_turn = False
        settled = (num_new >= wanted[pending]) | (fetch >= num_allowed)
        for place in np.flatnonzero(settled).tolist():
            query, chosen = pending[place], new[place]
            found.rows[query, : num_new[place]] = rows[place, chosen]
            found.squared[query, : num_new[place]] = squared[place, chosen]
            found.kept[query, : num_new[place]] = True
        pending = pending[~settled]
        fetch *= 2
    return found


def nearest_means(
    means: SearchIndex,
    store: EmbeddingStore,
    products: Products,
    embeddings: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_],
    excluded: NDArray[np.int64],
) -> Found:
    """Returns the k products of each query whose mean embeddings are nearest.

    The squared distances are those to the means; the picture that stands for a product is the
    nearest of its allowed ones.

    Args:
        means: Over the P mean embeddings.
        store: The N rows' embeddings.
        products: Theirs.
        embeddings: ``[Q, D] float32``.
        k: Products a query.
        allowed: ``[N] bool``, live rows: a product with one of them may be found.
        excluded: ``[Q] int64``, a product that is not answered; -1 for none.
    """
    more = int((excluded >= 0).any())
    numbers, squared = means.search(embeddings, k + more, products.with_a_row(allowed))
    kept = numbers != excluded[:, None]  # [Q, K]
    kept &= np.cumsum(kept, axis=1) <= k
    rows = np.full(numbers.shape, -1, np.int64)
    for query, place in np.argwhere(kept).tolist():
        own = products.rows_of(int(numbers[query, place]))
        own = own[allowed[own]]
        if len(own) > 1:
            distances = exact_squared_distances(
                store.take(own), embeddings[query : query + 1], np.arange(len(own))[None]
            )
            own = own[distances[0].argmin() :]
        rows[query, place] = own[0]
    return Found(rows, squared, kept)


def means_index(means: NDArray[np.float32], num_threads: int | None) -> SearchIndex:
    """Returns an exact index over mean embeddings."""
    return build_index(ArrayStore(means), "flat", num_threads=num_threads)


def _is_first(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns where a number stands for the first time in its row, ``[q, F] bool``."""
    order = np.argsort(numbers, axis=1, kind="stable")
    ordered = np.take_along_axis(numbers, order, axis=1)
    starts = np.ones(numbers.shape, np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(starts)
    np.put_along_axis(first, order, starts, axis=1)
    return first
