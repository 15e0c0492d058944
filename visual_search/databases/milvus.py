"""Milvus: a collection whose primary key is the item's id.

A search sees what was written only up to a time that it asks for. ``Strong`` waits for now, which
takes 0.2 to 0.4 s whatever the size; a search here waits no longer than it has to: see `_level`.
Texts go into its expressions in quotes of our own, since the client puts ids there as they are.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    Conditions,
    DatabaseError,
    DatabaseUnavailableError,
    Proposed,
    extra_missing,
)
from visual_search.databases.labels import MAX_LABEL_BYTES
from visual_search.databases.urls import user_and_password, without_secrets

PAGE_ROWS = 5_000
MAX_ID_BYTES = 40_000
MAX_LABELS = 256  # the columns that a bundle may have
# Inverted lists, all of them where there is a filter: Milvus 2.3.5 skips in its lists what does not
# fulfil it, and in its graph (HNSW) loses the way: 1.8 of 10 rows within 0.1 % of 12,225, recall@10
# 0.87 within 1 %, whatever `ef`.
NUM_LISTS, NUM_PROBES = 1_024, 64
SETTLED_S = 10.0  # Milvus's Bounded lags by 5 s at most
INDEX_PATIENCE_S = 3_600.0
_UNAVAILABLE = (1, 2, 3, 4, 5, 8, 9)  # not ready, unavailable, out of memory, ...: Milvus's errors


class MilvusCollection:
    """A `VectorDatabase` in Milvus.

    Args:
        url: ``http://host:19530``, or ``http://user:password@host:19530``.
        collection: The collection's name.
        timeout_s: Of every request but `tend`.

    Raises:
        DatabaseError: The extra is not installed.
    """

    def __init__(self, url: str, collection: str, timeout_s: float) -> None:
        try:
            import pymilvus  # noqa: F401
        except ImportError as error:
            raise extra_missing("milvus", error) from error
        # It logs the traceback of every error that it raises, which is told here once, in words.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.place = f"milvus, {without_secrets(url, url)}, {collection}"
        self._url, self._name, self._timeout_s = url, collection, timeout_s
        self._client: Any = None
        self._opened = time.monotonic()
        self._written = -SETTLED_S

    def facts(self) -> CollectionFacts | None:
        """Returns what the collection's description says; None where there is no collection."""
        with self._asked() as client:
            if not client.has_collection(self._name, timeout=self._timeout_s):
                return None
            held = client.describe_collection(self._name, timeout=self._timeout_s)
        return CollectionFacts.from_json(str(held["description"]))

    def create(self, facts: CollectionFacts) -> None:
        """Makes the collection with its index, and loads it."""
        from pymilvus import DataType

        with self._asked() as client:
            if client.has_collection(self._name, timeout=self._timeout_s):
                return
            schema = client.create_schema(auto_id=False, description=facts.to_json())
            schema.add_field("item_id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
            schema.add_field("content_key", DataType.VARCHAR, max_length=64)
            schema.add_field(
                "labels",
                DataType.ARRAY,
                element_type=DataType.VARCHAR,
                max_capacity=MAX_LABELS,
                max_length=MAX_LABEL_BYTES + 100,
            )
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=facts.dim)
            index = client.prepare_index_params()
            index.add_index(
                "embedding", index_type="IVF_FLAT", metric_type="L2", params={"nlist": NUM_LISTS}
            )
            client.create_collection(
                self._name,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
                timeout=self._timeout_s,
            )

    def upsert(self, items: CollectionItems) -> None:
        """Writes items."""
        rows = [
            {"item_id": item_id, "content_key": key, "labels": list(labels), "embedding": embedding}
            for item_id, key, labels, embedding in zip(
                items.item_ids, items.content_keys, items.labels, items.embeddings, strict=True
            )
        ]
        with self._asked() as client:
            client.upsert(self._name, rows, timeout=self._timeout_s)
        self._written = time.monotonic()

    def delete(self, item_ids: Sequence[str]) -> None:
        """Removes items by their ids."""
        with self._asked() as client:
            client.delete(self._name, filter=_among(item_ids), timeout=self._timeout_s)
        self._written = time.monotonic()

    def content_keys(self, cursor: str | None) -> tuple[dict[str, str], str | None]:
        """Returns a page in the order of the ids; the cursor is the last of them."""
        rows = self._rows(
            f"item_id > {_quoted(cursor or '')}",
            ["item_id", "content_key"],
            limit=PAGE_ROWS,
            reduce_stop_for_best=True,  # the first ones by id, whatever segment they lie in
        )
        ids = [row["item_id"] for row in rows]
        found = {row["item_id"]: row["content_key"] for row in rows}
        # A page may be short before the end: Milvus stops where one of its segments is through.
        return found, max(ids, default=None)

    def keys_of(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Returns the content keys of some items."""
        rows = self._rows(_among(item_ids), ["item_id", "content_key"])
        return {row["item_id"]: row["content_key"] for row in rows}

    def embeddings_of(self, item_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns the embeddings of some items."""
        rows = self._rows(_among(item_ids), ["item_id", "embedding"])
        return {row["item_id"]: np.array(row["embedding"], np.float32) for row in rows}

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        conditions: Conditions = (),
        *,
        is_thorough: bool = False,
    ) -> list[Proposed]:
        """Finds the nearest rows; with conditions, or where it is asked for, exactly."""
        tests = [f"array_contains_any(labels, [{_listed(one)}])" for one in conditions]
        probes = NUM_LISTS if is_thorough or conditions else NUM_PROBES
        with self._asked() as client:
            answers = client.search(
                self._name,
                data=queries.tolist(),
                filter=" and ".join(tests),
                limit=k,
                output_fields=["item_id"],
                search_params={"metric_type": "L2", "params": {"nprobe": probes}},
                consistency_level="Strong" if is_thorough else self._level(),
                timeout=self._timeout_s,
            )
        return [
            Proposed(
                [str(hit["item_id"]) for hit in hits],
                np.array([hit["distance"] for hit in hits], np.float64),
            )
            for hits in answers
        ]

    def count(self) -> int:
        """Counts the rows."""
        return int(self._rows("", ["count(*)"])[0]["count(*)"])

    def tend(self) -> str:
        """Seals what was written, and waits until the index has it."""
        with self._asked() as client:
            client.flush(self._name)
            names = client.list_indexes(self._name)
            deadline = time.monotonic() + INDEX_PATIENCE_S
            while names and time.monotonic() < deadline:
                state = client.describe_index(self._name, names[0])
                if not int(state.get("pending_index_rows", 0)):
                    break
                time.sleep(0.5)
        return ""

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _level(self) -> str:
        """Returns the weakest consistency that sees all that was written before it matters.

        ``Bounded`` sees what is older than 5 s, at once. Own writes are seen by ``Session``. What
        others wrote just before this collection was opened needs ``Strong`` at first.
        """
        now = time.monotonic()
        if now - self._opened < SETTLED_S:
            return "Strong"
        return "Session" if now - self._written < SETTLED_S else "Bounded"

    def _rows(self, expression: str, fields: list[str], **more: Any) -> list[Mapping[str, Any]]:
        with self._asked() as client:
            found = client.query(
                self._name,
                filter=expression,
                output_fields=fields,
                consistency_level="Strong",
                timeout=self._timeout_s,
                **more,
            )
        return list(found)

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """Gives the client, and raises what the server says as one of our errors."""
        from grpc import RpcError
        from pymilvus import MilvusClient
        from pymilvus.exceptions import ConnectionConfigException, MilvusException, ParamError

        try:
            if self._client is None:
                address, user, password = user_and_password(self._url)
                self._client = MilvusClient(
                    address, user=user, password=password, timeout=self._timeout_s
                )
            yield self._client
        except (MilvusException, RpcError, ValueError) as error:
            message = error.message if isinstance(error, MilvusException) else str(error)
            words = without_secrets(" ".join(str(message).split())[:500], self._url)
            code = error.code if isinstance(error, MilvusException) else None
            is_wrong = isinstance(error, ConnectionConfigException | ParamError | ValueError)
            if not is_wrong and (code is None or code in _UNAVAILABLE):
                raise DatabaseUnavailableError(
                    f"{self.place} does not answer: {words}; expected a server that is up and "
                    f"gives an answer within {self._timeout_s:g} s: look at it, then try again"
                ) from None
            raise DatabaseError(
                f"{self.place} refused the request: {words}; expected Milvus, and the right to "
                "use it: check url= and collection="
            ) from None


def _quoted(text: str) -> str:
    r"""Returns a text as Milvus's expressions have it.

    Example:
        >>> print(_quoted('a "blue" one'))
        "a \"blue\" one"
    """
    return json.dumps(text, ensure_ascii=False)


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(_quoted, texts))


def _among(item_ids: Sequence[str]) -> str:
    return f"item_id in [{_listed(item_ids)}]"
