"""Qdrant: a point an item, whose number is a UUID made of the item's id."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Sequence
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
from visual_search.databases.urls import user_and_password, without_secrets

PAGE_POINTS = 5_000
_FACTS = "visual_search"  # of the collection's metadata
_UNAVAILABLE = (408, 429, 500, 502, 503, 504)


class QdrantCollection:
    """A `VectorDatabase` in Qdrant.

    Args:
        url: ``http://host:6333``, or ``https://:KEY@host:6333`` where it wants a key.
        collection: The collection's name.
        timeout_s: Of every request.

    Raises:
        DatabaseError: The extra is not installed.
    """

    def __init__(self, url: str, collection: str, timeout_s: float) -> None:
        try:
            from qdrant_client import QdrantClient
        except ImportError as error:
            raise extra_missing("qdrant", error) from error
        self.place = f"qdrant, {without_secrets(url, url)}, {collection}"
        self._url, self._name, self._timeout_s = url, collection, timeout_s
        address, _, key = user_and_password(url)
        with self._in_its_words():
            self._client = QdrantClient(
                url=address,
                api_key=key or None,
                timeout=max(1, round(timeout_s)),
                check_compatibility=False,  # would ask the server, which may come later
            )

    def facts(self) -> CollectionFacts | None:
        """Returns what the collection's metadata says; None where there is no collection."""
        with self._in_its_words():
            if not self._client.collection_exists(self._name):
                return None
            held = self._client.get_collection(self._name).config.metadata or {}
        return CollectionFacts.from_json(str(held.get(_FACTS)))

    def create(self, facts: CollectionFacts) -> None:
        """Makes the collection and its index over labels."""
        from qdrant_client import models

        with self._in_its_words(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client's local mode has no such index
            if self._client.collection_exists(self._name):
                return
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(size=facts.dim, distance=models.Distance.EUCLID),
                metadata={_FACTS: facts.to_json()},
            )
            self._client.create_payload_index(
                self._name, "labels", models.PayloadSchemaType.KEYWORD
            )

    def upsert(self, items: CollectionItems) -> None:
        """Writes items, and waits until they are found."""
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=_point(item_id),
                vector=embedding.tolist(),
                payload={"item_id": item_id, "content_key": key, "labels": list(labels)},
            )
            for item_id, key, labels, embedding in zip(
                items.item_ids, items.content_keys, items.labels, items.embeddings, strict=True
            )
        ]
        with self._in_its_words():
            self._client.upsert(self._name, points, wait=True)

    def delete(self, item_ids: Sequence[str]) -> None:
        """Removes items by their points."""
        with self._in_its_words():
            self._client.delete(self._name, [_point(one) for one in item_ids], wait=True)

    def content_keys(self, cursor: str | None) -> tuple[dict[str, str], str | None]:
        """Returns a page in the order of the points; the cursor is the next one's."""
        with self._in_its_words():
            points, following = self._client.scroll(
                self._name,
                limit=PAGE_POINTS,
                offset=cursor,
                with_payload=["item_id", "content_key"],
            )
        return _keys(points), None if following is None else str(following)

    def keys_of(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Returns the content keys of some items."""
        with self._in_its_words():
            points = [_point(one) for one in item_ids]
            found = self._client.retrieve(
                self._name, points, with_payload=["item_id", "content_key"]
            )
        return _keys(found)

    def embeddings_of(self, item_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns the embeddings of some items."""
        with self._in_its_words():
            points = [_point(one) for one in item_ids]
            found = self._client.retrieve(
                self._name, points, with_payload=["item_id"], with_vectors=True
            )
        return {
            str((one.payload or {})["item_id"]): np.array(one.vector, np.float32) for one in found
        }

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        conditions: Conditions = (),
        *,
        is_thorough: bool = False,
    ) -> list[Proposed]:
        """Finds the nearest points; Qdrant's graph takes the conditions into account."""
        from qdrant_client import models

        must: list[Any] = [
            models.FieldCondition(key="labels", match=models.MatchAny(any=list(one)))
            for one in conditions
        ]
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                filter=models.Filter(must=must) if must else None,
                limit=k,
                params=models.SearchParams(exact=is_thorough),
                with_payload=["item_id"],
            )
            for query in queries
        ]
        with self._in_its_words():
            answers = self._client.query_batch_points(self._name, requests)
        return [
            Proposed(
                [str((hit.payload or {})["item_id"]) for hit in answer.points],
                np.square(np.array([hit.score for hit in answer.points], np.float64)),
            )
            for answer in answers
        ]

    def count(self) -> int:
        """Counts the points."""
        with self._in_its_words():
            return int(self._client.count(self._name, exact=True).count)

    def tend(self) -> str:
        """Does nothing: Qdrant makes its own index beside what is asked of it."""
        return ""

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    @contextmanager
    def _in_its_words(self) -> Iterator[None]:
        """Raises what the server says as one of our errors."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        try:
            yield
        except (ApiException, ResourceExhaustedResponse, ValueError, RuntimeError) as error:
            words = without_secrets(" ".join(str(error).split())[:500], self._url)
            status = error.status_code if isinstance(error, UnexpectedResponse) else None
            is_away = status in _UNAVAILABLE if status else isinstance(error, ApiException)
            if is_away or isinstance(error, ResourceExhaustedResponse):
                raise DatabaseUnavailableError(
                    f"{self.place} does not answer: {words}; expected a server that is up and "
                    f"gives an answer within {self._timeout_s:g} s: look at it, then try again"
                ) from None  # the cause may hold the key
            raise DatabaseError(
                f"{self.place} refused the request: {words}; expected Qdrant, and the right to "
                "use it: check url= and collection="
            ) from None


def _point(item_id: str) -> str:
    """Returns the point's number, which has to be an integer or a UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, item_id))


def _keys(points: Sequence[Any]) -> dict[str, str]:
    return {one.payload["item_id"]: one.payload["content_key"] for one in points}
