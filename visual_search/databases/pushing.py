"""Bringing a collection to what a source holds: new items in, changed ones anew, gone ones out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    VectorDatabase,
    check_facts,
)
from visual_search.databases.labels import content_key, labels_of
from visual_search.databases.retries import retried

REQUEST_BYTES = 4 * 2**20  # of embeddings in one request: Milvus takes 64 MiB, Qdrant 32
REQUEST_ITEMS = 1_000
PATIENCE_S = 60.0  # a server that restarts is back in seconds


class ItemSource(Protocol):
    """Where a collection's items come from.

    Attributes:
        facts: What made the embeddings.
    """

    facts: CollectionFacts

    def __len__(self) -> int:
        """Items, N."""
        ...

    def blocks(
        self,
    ) -> Iterator[tuple[Sequence[str], Mapping[str, Sequence[str]], NDArray[np.float32]]]:
        """Returns (ids, columns of texts, ``[n, D] float32``), in the same order each time."""
        ...


@dataclass(frozen=True)
class Pushed:
    """What became of a collection.

    Attributes:
        num_added: Items that it did not have.
        num_updated: Items whose embedding or texts had changed.
        num_removed: Items that the source does not have any more.
        num_items: Items that it has now.
        tended: What the database did afterwards, in words.
    """

    num_added: int
    num_updated: int
    num_removed: int
    num_items: int
    tended: str


def push(
    source: ItemSource,
    database: VectorDatabase,
    on_progress: Callable[[int, int], object] | None = None,
    patience_s: float = PATIENCE_S,
) -> Pushed:
    """Makes a collection hold what a source holds, and nothing else.

    What the collection has already is told by its content keys and not sent again: a push that was
    killed goes on where it was. Every request is bounded and, while the server is away, repeated.

    Args:
        source: The items.
        database: The collection; it is made where it is not there.
        on_progress: Called with (items looked at, N).
        patience_s: Seconds that one request waits for a server that does not answer.

    Raises:
        ValueError: The collection has embeddings of another model, width or metric.
        DatabaseUnavailableError: The server did not come back.
        DatabaseError: It refused something.
    """
    if retried(database.facts, patience_s) is None:
        retried(lambda: database.create(source.facts), patience_s)
    check_facts(retried(database.facts, patience_s), source.facts, database.place)
    known = known_keys(database, patience_s)
    num_added = num_updated = done = 0
    for items in items_of(source):
        before = [known.pop(item_id, None) for item_id in items.item_ids]
        changed = [n for n, key in enumerate(before) if key != items.content_keys[n]]
        num_updated += sum(before[n] is not None for n in changed)
        num_added += sum(before[n] is None for n in changed)
        for part in requests_of(items.part(changed)):
            retried(lambda part=part: database.upsert(part), patience_s)  # type: ignore[misc]
        done += len(items)
        if on_progress is not None:
            on_progress(done, len(source))
    gone = list(known)
    for start in range(0, len(gone), REQUEST_ITEMS):
        ids = gone[start : start + REQUEST_ITEMS]
        retried(lambda ids=ids: database.delete(ids), patience_s)  # type: ignore[misc]
    tended = retried(database.tend, patience_s)
    number = retried(database.count, patience_s)
    return Pushed(num_added, num_updated, len(gone), number, tended)


def known_keys(database: VectorDatabase, patience_s: float) -> dict[str, str]:
    """Returns id -> content key of everything in a collection, read page by page."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while True:
        page, cursor = retried(
            lambda cursor=cursor: database.content_keys(cursor),  # type: ignore[misc]
            patience_s,
        )
        found |= page
        if cursor is None:
            return found


def items_of(source: ItemSource) -> Iterator[CollectionItems]:
    """Returns a source's items with their labels and keys, block by block."""
    for item_ids, columns, embeddings in source.blocks():
        labels = [labels_of(columns, number) for number in range(len(item_ids))]
        keys = [content_key(*pair) for pair in zip(embeddings, labels, strict=True)]
        yield CollectionItems(item_ids, keys, labels, embeddings)


def requests_of(items: CollectionItems) -> Iterator[CollectionItems]:
    """Returns items in parts of at most `REQUEST_ITEMS` and about `REQUEST_BYTES`."""
    size = max(1, min(REQUEST_ITEMS, REQUEST_BYTES // (4 * max(1, items.embeddings.shape[1]))))
    for start in range(0, len(items), size):
        yield items.part(slice(start, start + size))
