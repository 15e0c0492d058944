"""A bundle to search in: what one generation holds, for any number of threads."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.files import check_name, inside
from visual_search.bundle.filters import (
    Conditions,
    Where,
    check_where,
    count_values,
    has_more_values,
    matching_rows,
)
from visual_search.bundle.indexing import load_encoder
from visual_search.bundle.manifest import BundleManifest, read_manifest_bytes
from visual_search.bundle.products import (
    ByProduct,
    Found,
    Products,
    RowSearch,
    best_pictures,
    check_products,
    means_index,
    nearest_means,
)
from visual_search.bundle.remote import address_of, local_folder, newest_manifest, open_newest
from visual_search.bundle.snapshot import Snapshot, open_snapshot
from visual_search.catalog.identity import picture_number
from visual_search.knn.embeddings import check_array, check_k, check_lengths
from visual_search.wording import holding

if TYPE_CHECKING:
    from visual_search.bundle.encoder import OnnxEncoder
    from visual_search.knn.search_index import SearchIndex

Verify = Literal["hashes", "sizes"]
_KEPT_FILTERS = 16  # masks of N bytes


@dataclass(frozen=True)
class Hit:
    """A product that was found, by one of its pictures.

    Attributes:
        rank: From 1, the nearest.
        item_id: The picture's id.
        category: Its category.
        squared_distance: Squared Euclidean distance to the query, never below 0.
        attributes: Further columns -> their texts.
        product: The product's id; the item's own in a bundle of products of one picture.
        pictures: The item ids of the product's other pictures, in their order.
    """

    rank: int
    item_id: str
    category: str
    squared_distance: float
    attributes: Mapping[str, str]
    product: str = ""
    pictures: tuple[str, ...] = ()


class DatabaseIndex(Protocol):
    """A vector database in the place of a generation's own index.

    Its errors are its own; see `visual_search.databases.served_index.ServedIndex`.
    """

    def within(self, conditions: Conditions) -> RowSearch:
        """Returns the search among the rows that fulfil conditions."""
        ...

    def refreshed(self, snapshot: Snapshot) -> DatabaseIndex:
        """Returns the same for a newer generation, without asking the database."""
        ...

    def catch_up(self) -> None:
        """Sends what changed in the bundle since, and looks whether the database is well."""
        ...


class Bundle:
    """One generation of a bundle; made by `open`, never changes, and may be used by any thread.

    A writer that adds or removes items makes another generation: `is_current` says whether there
    is one, `refreshed` gives it.

    Attributes:
        folder: Where it lies on this machine; of a bundle on object storage, where its copy does,
            which nobody writes to.
        address: Of a bundle on object storage, ``s3://bucket/shop``; None of one in a folder.
        manifest: What ``bundle.json`` says.
        database: What proposes the neighbours in the place of the bundle's own index; mostly None.
    """

    def __init__(
        self,
        folder: Path,
        snapshot: Snapshot,
        *,
        hashed: bool,
        num_threads: int | None,
        database: DatabaseIndex | None = None,
        address: str | None = None,
    ) -> None:
        self.database = database
        self.address = address
        self.folder = folder
        self.manifest: BundleManifest = snapshot.manifest
        self._snapshot = snapshot
        self._hashed = hashed
        self._num_threads = num_threads
        self._lock = threading.Lock()
        self._encoder: OnnxEncoder | None = None
        # ``[N] bool``, for the last filters: a page asks with the same few again and again
        self._matching = functools.lru_cache(_KEPT_FILTERS)(
            functools.partial(matching_rows, snapshot)
        )

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        verify: Verify = "hashes",
        num_threads: int | None = None,
        through: Callable[[Snapshot], DatabaseIndex] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Bundle:
        """Opens the newest generation, without torch and without waiting for a writer.

        Args:
            folder: The bundle's folder, or its address on object storage, ``s3://bucket/shop``:
                it is then copied to this machine, once.
            verify: ``hashes`` reads every file once and compares its SHA-256 (0.7 s a GB);
                ``sizes`` compares sizes alone.
            num_threads: Threads of the index and of the encoder; None for as many as there are
                cores.
            through: Gives the vector database that is searched instead of the bundle's own index.
            on_progress: Called with how many of how many files are copied, where they are.

        Raises:
            FileNotFoundError: There is no bundle, or a file of it is missing.
            ValueError: It is damaged, of another format or a newer version, does not fit itself
                or its encoder, leads out of its folder, or ``verify`` has another name.
            StorageError: Object storage does not answer, or refuses.
        """
        if verify not in get_args(Verify):
            raise ValueError(f"verify is {verify!r}; expected one of {list(get_args(Verify))}")
        hashed = verify == "hashes"
        source, snapshot = open_newest(
            folder,
            hashed=hashed,
            num_threads=num_threads,
            is_exact=through is not None,
            on_progress=on_progress,
        )
        return cls(
            source,
            snapshot,
            hashed=hashed,
            num_threads=num_threads,
            database=None if through is None else through(snapshot),
            address=address_of(folder),
        )

    def __len__(self) -> int:
        return self.manifest.num_items

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._found_row(item_id) >= 0

    @property
    def name(self) -> str:
        """The bundle's name, for people."""
        return self.manifest.name

    @property
    def place(self) -> str:
        """Where it lies, for people: the address on object storage, or the folder."""
        return self.address or os.fspath(self.folder)

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return self.manifest.dim

    @property
    def columns(self) -> tuple[str, ...]:
        """The text columns, ``category`` first, then the attributes."""
        return self.manifest.columns

    @property
    def product_column(self) -> str | None:
        """The column that says whose picture an item is; None where every item is a product."""
        return self.manifest.product_column

    @property
    def is_by_picture(self) -> bool:
        """Whether products may have several pictures, each an item."""
        return self.product_column is not None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The columns that say something of a product: all but the category and its id."""
        return tuple(name for name in self.columns[1:] if name != self.product_column)

    @property
    def holding(self) -> str:
        """What can be found, in words, as ``5 products with 12 pictures``."""
        return holding(len(self), self.num_products if self.is_by_picture else None)

    @property
    def num_products(self) -> int:
        """Products that can be found; as many as items where each has one picture."""
        return len(self) if self._products is None else len(self._products)

    @property
    def encoder(self) -> OnnxEncoder:
        """What makes embeddings of pictures; loaded at first use.

        Raises:
            ValueError: The file is another one than was checked at opening, or no encoder, or it
                takes or gives something else than the bundle says.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = load_encoder(self.folder, self.manifest, self._num_threads)
            return self._encoder

    def search(
        self,
        embeddings: NDArray[np.float32],
        k: int,
        *,
        where: Where | None = None,
        exclude_ids: Sequence[str | None] | None = None,
        products: ByProduct = "best",
    ) -> list[list[Hit]]:
        """Finds the k nearest products of each query, sorted by squared distance.

        Args:
            embeddings: ``[Q, D] float32``, finite, made by `encoder`.
            k: Products a query, all different; fewer come back only where fewer are left.
            where: Column -> accepted values: all columns have to match, each by any of its values.
                A product is found where one of its pictures matches, and by such a picture.
            exclude_ids: One id a query that is not answered, or None: its whole product, or with
                ``all`` that picture alone. An id that is not in the bundle excludes nothing.
            products: ``best`` ranks a product by its nearest picture. ``mean`` ranks it by the mean
                embedding of all its pictures, of length 1 where theirs are, compared exactly
                whatever the index; the hit names the nearest picture. ``all`` answers by picture,
                so that k hits may be of one product. The same where each has one picture.

        Returns:
            One list a query. A removed item is in none.

        Raises:
            TypeError: The embeddings are no float32 array, ``k`` is no integer, or ``where`` or
                ``exclude_ids`` hold something else than texts.
            ValueError: A width, a column or a number of ids does not fit, a query is not finite,
                ``k`` is below 1, or ``products`` is another word.
        """
        check_array(embeddings, "query", dim=self.dim)
        check_lengths(embeddings, "query")
        k, products = check_k(k), check_products(products)
        allowed = self._allowed(where)
        index: RowSearch = self._snapshot.index
        if self.database is not None:
            index = self.database.within(check_where(where, self.columns))
        excluded = self._excluded_rows(exclude_ids, len(embeddings))
        if not len(self):
            return [[] for _ in embeddings]
        if self._products is None or products == "all":
            return self._hits(self._nearest_rows(index, embeddings, k, allowed, excluded))
        left_out = np.where(excluded >= 0, self._products.of_row[excluded], -1)  # [Q] products
        k = min(k, len(self._products))
        if products == "mean":
            store = self._snapshot.index.store
            return self._hits(
                nearest_means(self._means, store, self._products, embeddings, k, allowed, left_out)
            )
        return self._hits(best_pictures(index, self._products, embeddings, k, allowed, left_out))

    def _nearest_rows(
        self,
        index: RowSearch,
        embeddings: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_],
        excluded: NDArray[np.int64],
    ) -> Found:
        more = bool((excluded >= 0).any())  # one more is asked for in the place of the excluded
        rows, squared = index.search(embeddings, min(k, len(self)) + more, allowed)
        kept = rows != excluded[:, None]  # [Q, K]
        kept &= np.cumsum(kept, axis=1) <= k
        return Found(rows, squared, kept)

    def embedding_of(self, item_id: str) -> NDArray[np.float32]:
        """Returns an item's embedding, ``[D] float32``, a copy.

        Raises:
            KeyError: There is no such item.
        """
        segment, row = self._snapshot.place_of(self._row(item_id))
        found: NDArray[np.float32] = segment.embeddings[row].copy()
        return found

    def item(self, item_id: str) -> Mapping[str, str]:
        """Returns an item's ``item_id``, ``category`` and attributes.

        Raises:
            KeyError: There is no such item.
        """
        rows = np.array([self._row(item_id)])
        return {name: self._snapshot.texts(name, rows)[0] for name in ("item_id", *self.columns)}

    def product_of(self, item_id: str) -> str:
        """Returns the id of the product that an item is a picture of.

        Raises:
            KeyError: There is no such item.
        """
        row = self._row(item_id)
        products = self._products
        return item_id if products is None else products.names[products.of_row[row]]

    def pictures_of(self, product: str) -> list[str]:
        """Returns the item ids of a product's pictures, in their order.

        Raises:
            KeyError: There is no such product.
        """
        products = self._products
        if products is None:
            return self._snapshot.texts("item_id", np.array([self._row(product)]))
        number = products.number_of.get(product, -1) if isinstance(product, str) else -1
        if number < 0:
            raise KeyError(
                f"the bundle {self.name!r} has no product {product!r}; expected one of its "
                f"{len(products)}: list their pictures with item_ids(by_product=True)"
            )
        return self._pictures([number])[number]

    def item_ids(
        self,
        *,
        where: Where | None = None,
        start: int = 0,
        limit: int | None = None,
        by_product: bool = False,
    ) -> list[str]:
        """Returns ids in the order in which they were added.

        Args:
            where: As in `search`.
            start: Leaves out that many first ones.
            limit: Gives at most that many; None gives all.
            by_product: One of each product, its first picture that matches.

        Raises:
            ValueError: ``start`` or ``limit`` is below 0, or ``where`` does not fit.
            TypeError: ``where`` holds something else than texts.
        """
        if start < 0 or (limit is not None and limit < 0):
            raise ValueError(f"start is {start} and limit {limit}; expected 0 or more")
        end = None if limit is None else start + limit
        allowed = self._allowed(where)
        if not by_product or self._products is None:
            return self._snapshot.texts("item_id", np.flatnonzero(allowed)[start:end])
        found = []
        for number in np.flatnonzero(self._products.with_a_row(allowed))[start:end].tolist():
            rows = self._products.rows_of(number)
            ids = self._snapshot.texts("item_id", rows[allowed[rows]])
            product = self._products.names[number]
            found.append(min(ids, key=lambda one: picture_number(one, product)))
        return found

    def count(self, where: Where | None = None, *, by_product: bool = False) -> int:
        """Counts the items that match, or the products that have such an item; see `search`.

        Raises:
            ValueError: ``where`` does not fit.
            TypeError: ``where`` holds something else than texts.
        """
        allowed = self._allowed(where)
        if by_product and self._products is not None:
            return int(np.count_nonzero(self._products.with_a_row(allowed)))
        return int(np.count_nonzero(allowed))

    def values_of(self, column: str, *, by_product: bool = False) -> dict[str, int]:
        """Returns a column's values -> items, or products, that have them, the most frequent first.

        Raises:
            ValueError: There is no such column.
        """
        products = self._products if by_product else None
        of_row = None if products is None else products.of_row
        return count_values(self._snapshot, self._column(column), of_row)

    def has_more_values(self, column: str, than: int) -> bool:
        """Returns whether a column has more than so many values, without counting them all.

        A column of names has as many values as there are items: `values_of` takes seconds for a
        million of them, this takes milliseconds.

        Raises:
            ValueError: There is no such column.
        """
        return has_more_values(self._snapshot, self._column(column), than)

    def thumbnail(self, item_id: str) -> bytes:
        """Returns an item's small picture, a JPEG file; ``b""`` where there is none.

        Raises:
            KeyError: There is no such item.
        """
        segment, row = self._snapshot.place_of(self._row(item_id))
        return segment.thumbnail(row)

    def file(self, name: str) -> Path:
        """Returns the path of a file that the bundle was created with, as ``report.html``.

        Raises:
            KeyError: The bundle has no such file.
            ValueError: The name, or a link, leads out of the folder.
        """
        if check_name(name) not in self.manifest.files:
            given = sorted(file for file in self.manifest.files if "/" not in file)
            raise KeyError(
                f"the bundle {self.name!r} has no file {name!r}; expected one of {', '.join(given)}"
            )
        return inside(self.folder, name)

    def is_current(self) -> bool:
        """Returns whether the folder, or the address, still holds this generation.

        Raises:
            StorageError: Object storage does not answer, or refuses.
        """
        try:
            if self.address is None:
                data = read_manifest_bytes(self.folder)
            else:
                data = newest_manifest(self.address)
        except FileNotFoundError:
            return False
        return hashlib.sha256(data).hexdigest() == self._snapshot.digest

    def refreshed(self) -> Bundle:
        """Returns the newest generation: this one where it still is, else one that shares with it.

        The encoder and the segments that did not change are taken over; only new files are read
        and checked. Whoever still uses this generation can go on.

        Raises:
            FileNotFoundError: The bundle, or a file of it, is gone.
            ValueError: The new generation cannot be used; see `open`.
            StorageError: Object storage does not answer, or refuses.
        """
        folder = self.folder if self.address is None else local_folder(self.address)
        snapshot = open_snapshot(
            folder,
            hashed=self._hashed,
            num_threads=self._num_threads,
            known=self._snapshot,
            is_exact=self.database is not None,
        )
        if snapshot is self._snapshot:
            return self
        newer = Bundle(
            folder,
            snapshot,
            hashed=self._hashed,
            num_threads=self._num_threads,
            address=self.address,
            database=None if self.database is None else self.database.refreshed(snapshot),
        )
        if newer.manifest.encoder == self.manifest.encoder:
            newer._encoder = self._encoder
        return newer

    def _column(self, column: str) -> str:
        if column not in self.columns:
            raise ValueError(
                f"there is no column {column!r}; expected one of {', '.join(self.columns)}"
            )
        return column

    @functools.cached_property
    def _products(self) -> Products | None:
        column = self.product_column
        return None if column is None else Products.of(self._snapshot, column)

    @functools.cached_property
    def _means(self) -> SearchIndex:
        """Over the products' mean embeddings; 4 bytes x P x D, made at the first search by them."""
        assert self._products is not None
        means = self._products.mean_embeddings(self._snapshot.index.store)
        return means_index(means, self._num_threads)

    def _pictures(self, products: Sequence[int]) -> dict[int, list[str]]:
        """Returns the numbers of products -> the item ids of all their pictures, in order."""
        known = self._products
        assert known is not None
        rows = [known.rows_of(number) for number in products]
        ids = iter(self._snapshot.texts("item_id", np.concatenate([np.empty(0, np.int64), *rows])))
        found = {}
        for number, own in zip(products, rows, strict=True):
            name = known.names[number]
            of_it = [next(ids) for _ in own]
            found[number] = sorted(of_it, key=lambda one: picture_number(one, name))
        return found

    def _found_row(self, item_id: str) -> int:
        """Returns an item's row, or -1; a product whose first picture is gone is found by its next.

        Pictures may be refused or removed one by one, and whoever names the product means it still.
        """
        row = self._snapshot.row_of(item_id)
        if row < 0 and self._products is not None:
            number = self._products.number_of.get(item_id, -1)
            if number >= 0:
                return self._snapshot.row_of(self._pictures([number])[number][0])
        return row

    def _row(self, item_id: str) -> int:
        row = self._found_row(item_id) if isinstance(item_id, str) else -1
        if row < 0:
            raise KeyError(
                f"the bundle {self.name!r} has no item {item_id!r}; expected one of its "
                f"{len(self)} ids: list them with item_ids(), or add the item"
            )
        return row

    def _allowed(self, where: Where | None) -> NDArray[np.bool_]:
        """Returns ``[N] bool``."""
        conditions = check_where(where, self.columns)
        return self._matching(conditions) if conditions else self._snapshot.live

    def _excluded_rows(
        self, exclude_ids: Sequence[str | None] | None, num_queries: int
    ) -> NDArray[np.int64]:
        """Returns ``[Q] int64``, -1 where nothing is excluded."""
        if exclude_ids is None:
            return np.full(num_queries, -1, np.int64)
        if isinstance(exclude_ids, str) or len(exclude_ids) != num_queries:
            raise ValueError(
                f"exclude_ids is {str(exclude_ids)[:100]}; expected {num_queries}, one id or None "
                "a query: align them"
            )
        for item_id in exclude_ids:
            if item_id is not None and not isinstance(item_id, str):
                raise TypeError(
                    f"exclude_ids holds {item_id!r} ({type(item_id).__name__}); expected text or "
                    "None"
                )
        found = [-1 if one is None else self._found_row(one) for one in exclude_ids]
        return np.array(found, dtype=np.int64)

    def _hits(self, found: Found) -> list[list[Hit]]:
        """Returns what was found as hits; the texts are looked up all at once."""
        flat = found.rows[found.kept]
        ids = self._snapshot.texts("item_id", flat)
        columns = {name: self._snapshot.texts(name, flat) for name in self.columns}
        categories, attributes = columns.pop("category"), list(columns)
        texts = list(zip(*columns.values(), strict=True)) if columns else [()] * len(ids)
        products = [(item_id, [item_id]) for item_id in ids]
        if (known := self._products) is not None:
            numbers = known.of_row[flat].tolist()
            pictures = self._pictures(list(dict.fromkeys(numbers)))
            products = [(known.names[number], pictures[number]) for number in numbers]
        hits: list[list[Hit]] = []
        n = 0
        for squared, kept in zip(found.squared, found.kept, strict=True):
            hits.append([])
            for rank, distance in enumerate(squared[kept].tolist(), start=1):
                given = dict(zip(attributes, texts[n], strict=True))
                product, pictures_of_it = products[n]
                others = tuple(one for one in pictures_of_it if one != ids[n])
                hits[-1].append(Hit(rank, ids[n], categories[n], distance, given, product, others))
                n += 1
        return hits
