"""Whether a collection holds what its source holds, and finds what exact search finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import VectorDatabase, check_facts
from visual_search.databases.labels import label
from visual_search.databases.pushing import PATIENCE_S, ItemSource, items_of, known_keys
from visual_search.databases.retries import retried

NUM_SAMPLE = 100  # items whose embeddings are compared and which are searched with
RECALL_K = 10
TARGET_RECALL = 0.95
FILTER_COLUMN = "category"


@dataclass(frozen=True)
class Recall:
    """How a collection answered the sample's queries, each without the item that asks.

    Attributes:
        recall: Share of the exact nearest that were found, the mean over the queries; one as near
            as the last exact one counts as found. 1 where no query has any neighbour.
        num_short: Queries that got fewer items than there are, up to `RECALL_K`.
        num_queries: Queries that were asked.
    """

    recall: float
    num_short: int
    num_queries: int


@dataclass(frozen=True)
class Verified:
    """What a collection and its source were found to differ in.

    Attributes:
        num_items: Of the source.
        missing: Ids that only the source has.
        foreign: Ids that only the collection has.
        changed: Ids whose content keys differ.
        embeddings: Ids of the sample whose embeddings differ, though their keys do not.
        unfiltered: Recall among all items.
        filtered: Recall within each query's own category.
        target_recall: What both should reach.
    """

    num_items: int
    missing: Sequence[str]
    foreign: Sequence[str]
    changed: Sequence[str]
    embeddings: Sequence[str]
    unfiltered: Recall
    filtered: Recall
    target_recall: float

    @property
    def is_same(self) -> bool:
        """Whether nothing differs and both recalls are reached, with every row that there is."""
        recalls = (self.unfiltered, self.filtered)
        return not (self.missing or self.foreign or self.changed or self.embeddings) and all(
            one.recall >= self.target_recall and not one.num_short for one in recalls
        )


def verify(
    source: ItemSource,
    database: VectorDatabase,
    *,
    target_recall: float = TARGET_RECALL,
    seed: int = 0,
) -> Verified:
    """Compares a collection with its source, item by item and by what it finds.

    The source is read twice in blocks, the collection's keys once in pages.

    Args:
        source: What `pushing.push` was given.
        database: The collection.
        target_recall: Of the `RECALL_K` exact nearest.
        seed: Draws the sample.

    Raises:
        ValueError: There is no collection, or it has embeddings of another model.
        DatabaseError: The database refused something, or does not answer.
    """
    check_facts(retried(database.facts, PATIENCE_S), source.facts, database.place)
    chosen = np.sort(
        np.random.default_rng(seed).permutation(len(source))[: min(NUM_SAMPLE, len(source))]
    )
    known = known_keys(database, PATIENCE_S)
    missing, changed, sample = [], [], _Sample([], [], [])
    start = 0
    for items in items_of(source):
        for item_id, key in zip(items.item_ids, items.content_keys, strict=True):
            found = known.pop(item_id, None)
            if found is None:
                missing.append(item_id)
            elif found != key:
                changed.append(item_id)
        first, last = np.searchsorted(chosen, [start, start + len(items)])
        for n in (chosen[first:last] - start).tolist():
            sample.item_ids.append(items.item_ids[n])
            sample.embeddings.append(items.embeddings[n])
            own = [one for one in items.labels[n] if one.startswith(f"{FILTER_COLUMN}=")]
            sample.labels.append(own[0] if own else "")
        start += len(items)
    queries = np.stack(sample.embeddings) if sample.embeddings else np.empty((0, 0), np.float32)
    held = retried(lambda: database.embeddings_of(sample.item_ids), PATIENCE_S)
    skipped = {*missing, *changed}
    others = [
        item_id
        for item_id, embedding in zip(sample.item_ids, queries, strict=True)
        if item_id not in skipped
        and not (item_id in held and np.array_equal(held[item_id], embedding))
    ]
    return Verified(
        len(source),
        missing,
        sorted(known),
        changed,
        others,
        _recall(source, database, sample, queries, is_filtered=False),
        _recall(source, database, sample, queries, is_filtered=True),
        target_recall,
    )


@dataclass(frozen=True)
class _Sample:
    item_ids: list[str]
    embeddings: list[NDArray[np.float32]]
    labels: list[str]  # of the category; empty where an item has none


def _recall(
    source: ItemSource,
    database: VectorDatabase,
    sample: _Sample,
    queries: NDArray[np.float32],
    *,
    is_filtered: bool,
) -> Recall:
    """Asks with each item of the sample for its neighbours, and compares with exact search."""
    labels = sample.labels if is_filtered else [""] * len(queries)
    asked = [n for n in range(len(queries)) if labels[n] or not is_filtered]
    exact = _exact_neighbours(source, sample, queries, labels if is_filtered else None)
    shares, num_short = [], 0
    for n in asked:
        conditions = [[labels[n]]] if is_filtered else []
        query = queries[n : n + 1]
        (found,) = retried(
            lambda query=query, conditions=conditions: database.search(  # type: ignore[misc]
                query, RECALL_K + 1, conditions
            ),
            PATIENCE_S,
        )
        ids = [one for one in found.item_ids if one != sample.item_ids[n]][:RECALL_K]
        true = exact[n]
        num_short += len(ids) < len(true)
        if true:
            farthest = max(true.values()) * (1 + 1e-6)
            distances = dict(zip(found.item_ids, found.squared_distances, strict=True))
            hits = sum(one in true or distances[one] <= farthest for one in ids)
            shares.append(min(hits, len(true)) / len(true))
    return Recall(float(np.mean(shares)) if shares else 1.0, num_short, len(asked))


def _exact_neighbours(
    source: ItemSource,
    sample: _Sample,
    queries: NDArray[np.float32],
    labels: Sequence[str] | None,
) -> list[Mapping[str, float]]:
    """Returns each query's exact `RECALL_K` nearest, id -> squared distance, without itself."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries]
    wide = queries.astype(np.float64)
    for item_ids, columns, embeddings in source.blocks():
        place_of = {item_id: place for place, item_id in enumerate(item_ids)}
        own = np.array([label(FILTER_COLUMN, text) for text in columns.get(FILTER_COLUMN, ())])
        block = embeddings.astype(np.float64)
        lengths = np.square(block).sum(axis=1)  # [n]
        for n, query in enumerate(wide):
            squared = np.maximum(lengths - 2 * (block @ query) + query @ query, 0)
            if (itself := place_of.get(sample.item_ids[n])) is not None:
                squared[itself] = np.inf
            if labels is not None:
                squared[own != labels[n]] = np.inf
            near = np.argsort(squared, kind="stable")[:RECALL_K]
            near = near[np.isfinite(squared[near])]
            found = [(float(squared[place]), item_ids[place]) for place in near.tolist()]
            best[n] = sorted([*best[n], *found])[:RECALL_K]
    return [{item_id: distance for distance, item_id in one} for one in best]
