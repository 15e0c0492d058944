"""What every vector database offers here, and what a collection in one says of itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["pgvector", "qdrant", "milvus", "lancedb"]
KINDS: tuple[str, ...] = get_args(Kind)
METRIC = "squared_euclidean"
# All of a label's columns have to match, each by any of its labels: `labels.conditions_of`.
Conditions: TypeAlias = Sequence[Sequence[str]]


class DatabaseError(RuntimeError):
    """The database refused a request; the message has its own words and no password."""


class DatabaseUnavailableError(DatabaseError):
    """The database is down, too slow, or starting: the same request may succeed later."""


def extra_missing(kind: str, error: ImportError) -> DatabaseError:
    """Returns what is said where a database's client, an extra of its name, is not installed."""
    return DatabaseError(
        f"{kind} needs a package that is not installed ({error}); expected the extra of that "
        f"name; run: pip install 'visual-search[{kind}]'"
    )


@dataclass(frozen=True)
class CollectionFacts:
    """What made a collection's embeddings; kept in the database beside them.

    Embeddings of two makers cannot be compared, and nothing in their numbers shows it.

    Attributes:
        model_hash: SHA-256 (hex) of the network, or of a bundle's encoder, which is all three.
        preprocessing_hash: SHA-256 (hex) of the way from picture to network input.
        embedding_hash: SHA-256 (hex) of the way from the network's values to the embedding.
        dim: Embedding width D.
        metric: By which they are ranked: always `METRIC`.

    Example:
        >>> facts = CollectionFacts("a", "b", "c", 512)
        >>> CollectionFacts.from_json(facts.to_json()) == facts
        True
    """

    model_hash: str
    preprocessing_hash: str
    embedding_hash: str
    dim: int
    metric: str = METRIC

    def to_json(self) -> str:
        """Returns the facts as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CollectionFacts:
        """Reads what `to_json` gave.

        Raises:
            ValueError: The text is something else.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"a collection says of itself {text[:200]!r}; expected what `index push` writes: "
                "give another collection=NAME"
            ) from error


@dataclass(frozen=True, eq=False)
class CollectionItems:
    """Items on their way into a database, aligned.

    Attributes:
        item_ids: n ids, each once.
        content_keys: What `labels.content_key` gives of each.
        labels: What `labels.labels_of` gives of each.
        embeddings: ``[n, D] float32``, finite.
    """

    item_ids: Sequence[str]
    content_keys: Sequence[str]
    labels: Sequence[Sequence[str]]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item_ids)

    def part(self, chosen: slice | Sequence[int]) -> CollectionItems:
        """Returns some of the items, by a slice or by their numbers."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen
        return CollectionItems(
            [self.item_ids[n] for n in numbers],
            [self.content_keys[n] for n in numbers],
            [self.labels[n] for n in numbers],
            self.embeddings[np.fromiter(numbers, np.int64, len(numbers))],
        )


@dataclass(frozen=True, eq=False)
class Proposed:
    """What a database found for one query, the nearest first.

    Attributes:
        item_ids: At most as many as were asked for.
        squared_distances: ``[n] float64``, as the database computed them.
    """

    item_ids: Sequence[str]
    squared_distances: NDArray[np.float64]


class VectorDatabase(Protocol):
    """One collection of embeddings in a database; may be used by several threads.

    Every method may raise `DatabaseUnavailableError` (after its time-out at the latest) or
    `DatabaseError`, with the server's words. None of them retries: `retries.retried` does.

    Attributes:
        place: Where it lies, for people: kind, address without password, collection.
    """

    place: str

    def facts(self) -> CollectionFacts | None:
        """Returns what the collection says of itself; None where there is no collection."""
        ...

    def create(self, facts: CollectionFacts) -> None:
        """Makes the collection with these facts; leaves one that is there as it is."""
        ...

    def upsert(self, items: CollectionItems) -> None:
        """Writes items, in the place of those with the same id; all are found from then on."""
        ...

    def delete(self, item_ids: Sequence[str]) -> None:
        """Removes items; an id that is not there is passed over."""
        ...

    def content_keys(self, cursor: str | None) -> tuple[dict[str, str], str | None]:
        """Returns a page of id -> content key, and the cursor of the next page, None at the end.

        Args:
            cursor: None for the first page.
        """
        ...

    def keys_of(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Returns id -> content key of those of some items that are there."""
        ...

    def embeddings_of(self, item_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns id -> ``[D] float32`` of those of some items that are there."""
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        conditions: Conditions = (),
        *,
        is_thorough: bool = False,
    ) -> list[Proposed]:
        """Finds the k nearest items of each query.

        Args:
            queries: ``[Q, D] float32``, finite.
            k: Items a query; an approximate index may give fewer.
            conditions: One or several lists of labels: an item has to have one of each.
            is_thorough: Compare with every item that fulfils the conditions, or, where a database
                cannot be told to, look as widely as it can.
        """
        ...

    def count(self) -> int:
        """Counts the items."""
        ...

    def tend(self) -> str:
        """Does what a database needs after much was written, and says what, in a few words.

        It makes the vector index where there are enough items for one; without one a search is
        exact. Empty where there was nothing to do.
        """
        ...

    def close(self) -> None:
        """Lets go of the connections."""
        ...


def check_facts(
    found: CollectionFacts | None, expected: CollectionFacts, place: str
) -> CollectionFacts:
    """Returns a collection's facts where they are the expected ones.

    Raises:
        ValueError: There is no collection, or another model, width or metric filled it.
    """
    if found is None:
        raise ValueError(
            f"there is no collection at {place}; expected one that was filled: run "
            "`python -m visual_search.index push` with the same settings first"
        )
    others = [
        f"{field.name} {_short(getattr(found, field.name))} there, "
        f"{_short(getattr(expected, field.name))} here"
        for field in dataclasses.fields(CollectionFacts)
        if getattr(found, field.name) != getattr(expected, field.name)
    ]
    if others:
        raise ValueError(
            f"the collection at {place} has other embeddings ({'; '.join(others)}), which cannot "
            "be compared with these; expected the same model, width and metric: give another "
            "collection=NAME, or drop that one"
        )
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
