"""LanceDB: a table in a folder or on object storage, without a server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    Conditions,
    DatabaseError,
    Proposed,
    extra_missing,
)
from visual_search.databases.urls import without_secrets

if TYPE_CHECKING:
    import pyarrow as pa

PAGE_ROWS = 10_000
MIN_INDEXED = 20_000  # 30,000 x 96 in one graph: 12 s to build, recall@10 0.996 at 22 candidates
NUM_LINKS, EF_CONSTRUCTION = 20, 150
GRAPH_ROWS = 200_000  # of one partition's graph
EF_SEARCH, NUM_PROBES = 200, 8
REFINE = 4  # times k candidates are compared by their whole embeddings
_FACTS = b"visual_search"  # of the schema's metadata


class LanceCollection:
    """A `VectorDatabase` in LanceDB.

    Args:
        url: A folder, or ``s3://bucket/path``, whose credentials come from the environment.
        collection: The table's name.
        timeout_s: Not used: nothing is waited for but the disk, or object storage's own time-outs.

    Raises:
        DatabaseError: The extra is not installed.
    """

    def __init__(self, url: str, collection: str, timeout_s: float) -> None:
        try:
            import lancedb
        except ImportError as error:
            raise extra_missing("lancedb", error) from error
        self.place = f"lancedb, {without_secrets(url, url)}, {collection}"
        self._url, self._name = url, collection
        with self._in_its_words():
            self._database: Any = lancedb.connect(url, read_consistency_interval=timedelta(0))
        self._opened: Any = None

    def facts(self) -> CollectionFacts | None:
        """Returns what the table's schema says; None where there is no table."""
        with self._in_its_words():
            if not self._is_there():
                return None
            held = self._table.schema.metadata or {}
        return CollectionFacts.from_json(held.get(_FACTS, b"").decode())

    def create(self, facts: CollectionFacts) -> None:
        """Makes the table."""
        import pyarrow as pa

        schema = pa.schema(
            [
                pa.field("item_id", pa.string(), nullable=False),
                pa.field("content_key", pa.string(), nullable=False),
                pa.field("labels", pa.list_(pa.string()), nullable=False),
                pa.field("embedding", pa.list_(pa.float32(), facts.dim), nullable=False),
            ],
            metadata={_FACTS: facts.to_json().encode()},
        )
        with self._in_its_words():
            if not self._is_there():
                self._database.create_table(self._name, schema=schema)

    def upsert(self, items: CollectionItems) -> None:
        """Writes items as one new version of the table."""
        import pyarrow as pa

        with self._in_its_words():
            schema = self._table.schema
            width = items.embeddings.shape[1]
            if schema.field("embedding").type.list_size != width:
                raise ValueError(
                    f"its embeddings have {schema.field('embedding').type.list_size} dimensions, "
                    f"these {width}"
                )
            flat = pa.array(np.ascontiguousarray(items.embeddings).reshape(-1))
            table: pa.Table = pa.table(
                {
                    "item_id": pa.array(list(items.item_ids), pa.string()),
                    "content_key": pa.array(list(items.content_keys), pa.string()),
                    "labels": pa.array(list(map(list, items.labels)), pa.list_(pa.string())),
                    "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
                }
            ).cast(schema)
            merging = self._table.merge_insert("item_id").when_matched_update_all()
            merging.when_not_matched_insert_all().execute(table)

    def delete(self, item_ids: Sequence[str]) -> None:
        """Removes items by their ids."""
        with self._in_its_words():
            self._table.delete(_among(item_ids))

    def content_keys(self, cursor: str | None) -> tuple[dict[str, str], str | None]:
        """Returns a page in the table's order; the cursor counts the rows before it."""
        start = int(cursor or 0)
        with self._in_its_words():
            asked = self._table.search().select(["item_id", "content_key"])
            found = asked.limit(PAGE_ROWS).offset(start).to_arrow()
        return _keys(found), str(start + PAGE_ROWS) if len(found) == PAGE_ROWS else None

    def keys_of(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Returns the content keys of some items."""
        return _keys(self._among(item_ids, "content_key"))

    def embeddings_of(self, item_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns the embeddings of some items."""
        found = self._among(item_ids, "embedding")
        held = found["embedding"].combine_chunks().flatten().to_numpy()
        width = found.schema.field("embedding").type.list_size
        return dict(zip(found["item_id"].to_pylist(), held.reshape(-1, width).copy(), strict=True))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        conditions: Conditions = (),
        *,
        is_thorough: bool = False,
    ) -> list[Proposed]:
        """Finds the nearest rows; conditions are looked at first."""
        tests = [f"array_has_any(labels, [{_listed(one)}])" for one in conditions]
        found = []
        for query in queries:
            with self._in_its_words():
                asked = self._table.search(query, vector_column_name="embedding")
                asked = asked.distance_type("l2").select(["item_id", "_distance"]).limit(k)
                if tests:
                    asked = asked.where(" AND ".join(tests), prefilter=True)
                if is_thorough:
                    asked = asked.bypass_vector_index()
                else:
                    asked = asked.nprobes(NUM_PROBES).ef(max(EF_SEARCH, 2 * k))
                    asked = asked.refine_factor(REFINE)
                hits = asked.to_arrow()
            distances = hits["_distance"].to_numpy().astype(np.float64)
            found.append(Proposed(hits["item_id"].to_pylist(), distances))
        return found

    def count(self) -> int:
        """Counts the rows."""
        with self._in_its_words():
            return int(self._table.count_rows())

    def tend(self) -> str:
        """Puts small files together; makes or renews the indexes where there are 20,000 rows."""
        from lancedb.index import IvfHnswSq, LabelList

        with self._in_its_words(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            number = int(self._table.count_rows())
            made = {column for index in self._table.list_indices() for column in index.columns}
            if number < MIN_INDEXED or made:
                self._table.optimize()
                return ""
            graph = IvfHnswSq(
                distance_type="l2",
                num_partitions=max(1, number // GRAPH_ROWS),
                m=NUM_LINKS,
                ef_construction=EF_CONSTRUCTION,
            )
            self._table.create_index("embedding", config=graph)
            self._table.create_index("labels", config=LabelList())
            self._table.optimize()
            return f"an index over {number:,} items was made"

    def close(self) -> None:
        """Lets go of the table."""
        self._opened = None

    def _is_there(self) -> bool:
        page, names = None, []
        while page is None or page:
            found = self._database.list_tables(page_token=page)
            names += found.tables
            page = found.page_token or ""
        return self._name in names

    @property
    def _table(self) -> Any:
        if self._opened is None:
            self._opened = self._database.open_table(self._name)
        return self._opened

    def _among(self, item_ids: Sequence[str], column: str) -> pa.Table:
        with self._in_its_words():
            asked = self._table.search().where(_among(item_ids)).select(["item_id", column])
            return asked.limit(max(1, len(item_ids))).to_arrow()

    @contextmanager
    def _in_its_words(self) -> Iterator[None]:
        """Raises what LanceDB says as one of our errors."""
        try:
            yield
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            words = without_secrets(" ".join(str(error).split())[:500], self._url)
            raise DatabaseError(
                f"{self.place} refused the request: {words}; expected a folder or a bucket that "
                "may be written, with the table in it: check url= and collection="
            ) from None


def _listed(texts: Sequence[str]) -> str:
    """Returns texts as SQL has them.

    Example:
        >>> _listed(["red", "it's blue"])
        "'red', 'it''s blue'"
    """
    return ", ".join("'{}'".format(text.replace("'", "''")) for text in texts)


def _among(item_ids: Sequence[str]) -> str:
    return f"item_id IN ({_listed(item_ids)})"


def _keys(found: pa.Table) -> dict[str, str]:
    return dict(zip(found["item_id"].to_pylist(), found["content_key"].to_pylist(), strict=True))
