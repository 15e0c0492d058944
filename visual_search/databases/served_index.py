"""A bundle's index where a collection proposes the neighbours and the bundle ranks them."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.indexing import is_late
from visual_search.bundle.products import RowSearch
from visual_search.bundle.snapshot import Snapshot
from visual_search.databases.bundle_source import BundleSource, facts_of
from visual_search.databases.database import (
    Conditions,
    DatabaseError,
    DatabaseUnavailableError,
    VectorDatabase,
    check_facts,
)
from visual_search.databases.labels import conditions_of
from visual_search.databases.pushing import REQUEST_ITEMS, items_of, known_keys, requests_of
from visual_search.knn.exact import MARGIN
from visual_search.knn.exact_store import rank_candidates

CONTACT_PATIENCE_S = 5.0  # of a search, while another one makes the first contact
MAX_FETCH = 10_000  # neighbours of one query; Milvus gives 16,384 at most
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Held:
    """How far a collection is behind a generation.

    Attributes:
        lacking: ``[N] bool``, rows that can be found and that the collection does not have as they
            are: compared one by one.
        unsent: ``[N] bool``, those of them that came while the bundle was served, and are sent.
        gone: Ids that were removed while it was served, and are removed there.
    """

    lacking: NDArray[np.bool_]
    unsent: NDArray[np.bool_]
    gone: tuple[str, ...] = ()


class ServedIndex:
    """Searches the rows of one generation through a collection; for any number of threads.

    The collection proposes ids. They are looked up in the generation, ranked by its exact
    embeddings, and those that it does not have any more are passed over. Rows that the collection
    lacks are compared one by one beside it; where it proposes fewer than there are, it is asked to
    compare exactly, and if that does not suffice the bundle does.

    What is added to the bundle or removed from it while it is served is sent to the collection by
    `catch_up`. Nothing else is: what the collection has beyond the bundle may be a newer one's.

    Args:
        database: The collection.
        snapshot: The generation, with an exact index.
        earlier: The index of the generation before it, which knows what the collection holds.
    """

    def __init__(
        self, database: VectorDatabase, snapshot: Snapshot, earlier: ServedIndex | None = None
    ) -> None:
        self.database = database
        self._snapshot = snapshot
        self._exact = snapshot.index
        self._facts = facts_of(snapshot.manifest.encoder)
        self._lock = threading.Lock()
        self._refused = ""
        self._held = None if earlier is None else earlier._held_by(snapshot)

    def within(self, conditions: tuple[tuple[str, tuple[str, ...]], ...]) -> RowSearch:
        """Returns the search among the rows that fulfil conditions, as `check_where` gives them."""
        return _Within(self, conditions_of(conditions))

    def refreshed(self, snapshot: Snapshot) -> ServedIndex:
        """Returns the index of a newer generation; its new rows are compared one by one at first.

        Nothing is asked of the collection.
        """
        return ServedIndex(self.database, snapshot, self)

    def connect(self) -> None:
        """Compares the collection's model and content keys with the generation's, once.

        Raises:
            ValueError: There is no collection, it has another model's embeddings, or it lacks so
                much that it has to be pushed to first.
            DatabaseError: The database refused something, or does not answer.
        """
        self._contact()

    def catch_up(self) -> None:
        """Sends what changed in the bundle while it was served, and looks whether all is well.

        Raises:
            DatabaseError: The database does not answer, or the collection is not what it was. What
                was not sent is sent by the next call.
        """
        self._contact()
        try:
            check_facts(self.database.facts(), self._facts, self.database.place)
        except ValueError as error:
            self._refused = str(error)
            raise DatabaseError(str(error)) from error
        self._refused = ""
        with self._lock:
            held = self._held
            assert held is not None
            if held.unsent.any():
                source = BundleSource(self._snapshot, np.flatnonzero(held.unsent))
                for items in items_of(source):
                    for part in requests_of(items):
                        self.database.upsert(part)
            for start in range(0, len(held.gone), REQUEST_ITEMS):
                self.database.delete(held.gone[start : start + REQUEST_ITEMS])
            lacking = held.lacking & ~held.unsent
            self._held = _Held(lacking, np.zeros_like(held.unsent))

    def found(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_],
        conditions: Conditions | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the k nearest rows of each query among the allowed ones.

        Args:
            queries: ``[Q, D] float32``, finite.
            k: Rows a query.
            allowed: ``[N] bool``.
            conditions: What the allowed rows fulfil; None where labels cannot say it.

        Returns:
            Rows ``[Q, K] int64`` and squared distances ``[Q, K] float32``, the nearest first; K is
            k, or the number of allowed rows where that is smaller.

        Raises:
            DatabaseError: The database refused something, or does not answer.
        """
        if self._refused:
            raise DatabaseError(self._refused)
        try:
            lacking = self._contact().lacking & allowed
        except ValueError as error:  # it came back with something else in it
            raise DatabaseError(str(error)) from error
        num_allowed = int(np.count_nonzero(allowed))
        k = min(k, num_allowed)
        if not k or conditions is None or k + MARGIN > MAX_FETCH:
            return self._exact.search(queries, k, allowed) if k else _nothing(len(queries))
        num_lacking = int(np.count_nonzero(lacking))
        wanted = min(k, num_allowed - num_lacking)
        candidates = self._candidates(queries, k + MARGIN, allowed & ~lacking, conditions, wanted)
        if num_lacking:
            newest, _ = self._exact.search(queries, min(k, num_lacking), lacking)
            candidates = np.concatenate([candidates, newest], axis=1)
        short = np.flatnonzero(np.count_nonzero(candidates >= 0, axis=1) < k)
        rows, squared = rank_candidates(self._exact.store, queries, candidates, k)
        answer = rows, squared.astype(np.float32)
        if len(short):  # somebody took items out of the collection
            answer[0][short], answer[1][short] = self._exact.search(queries[short], k, allowed)
        return answer

    def _candidates(
        self,
        queries: NDArray[np.float32],
        count: int,
        allowed: NDArray[np.bool_],
        conditions: Conditions,
        wanted: int,
    ) -> NDArray[np.int64]:
        """Returns proposed rows ``[Q, C] int64`` in any order, each once a query, -1 for none."""
        found: list[list[int]] = [[] for _ in queries]
        pending = list(range(len(queries))) if wanted else []
        for is_thorough in (False, True):
            if not pending:
                break
            answers = self.database.search(
                queries[pending], count, conditions, is_thorough=is_thorough
            )
            for n, neighbours in zip(pending, answers, strict=True):
                rows = [self._snapshot.row_of(one) for one in neighbours.item_ids]
                found[n] = list(dict.fromkeys(row for row in rows if row >= 0 and allowed[row]))
            pending = [n for n in pending if len(found[n]) < wanted]
            count = min(MAX_FETCH, 4 * count)  # some may be items that the bundle removed
        width = max(wanted, *map(len, found))
        return np.array([rows + [-1] * (width - len(rows)) for rows in found], np.int64)

    def _contact(self) -> _Held:
        """Returns how far the collection is behind; at the first call it is compared."""
        held = self._held
        if held is not None:
            return held
        if not self._lock.acquire(timeout=CONTACT_PATIENCE_S):
            raise DatabaseUnavailableError(
                f"{self.database.place} is being compared with the bundle; expected that to be "
                "over soon: try again"
            )
        try:
            if self._held is None:
                check_facts(self.database.facts(), self._facts, self.database.place)
                self._held = self._compared()
            return self._held
        finally:
            self._lock.release()

    def _compared(self) -> _Held:
        known = known_keys(self.database, patience_s=0)
        source = BundleSource(self._snapshot)
        lacking = np.zeros(len(self._snapshot.live), np.bool_)
        start = 0
        for items in items_of(source):
            rows = source.rows[start : start + len(items)]
            keys = zip(items.item_ids, items.content_keys, strict=True)
            lacking[rows] = [known.get(item_id) != key for item_id, key in keys]
            start += len(items)
        num_lacking = int(np.count_nonzero(lacking))
        if is_late(len(source), len(source) - num_lacking):
            raise ValueError(
                f"the collection at {self.database.place} lacks {num_lacking:,} of the bundle's "
                f"{len(source):,} items; expected one that was filled from it: run `python -m "
                "visual_search.index push` with the same settings first"
            )
        if num_lacking:
            _logger.warning(
                "%s lacks %d of the bundle's items, which are compared one by one until `index "
                "push` sends them",
                self.database.place,
                num_lacking,
            )
        return _Held(lacking, np.zeros_like(lacking))

    def _held_by(self, snapshot: Snapshot) -> _Held | None:
        """Returns how far the collection is behind a newer generation.

        None where rows were numbered anew, by a rebuild: it is then compared again.
        """
        held, before = self._held, self._snapshot
        num_before = len(before.live)
        same = snapshot.manifest.segments[: len(before.segments)] == before.manifest.segments
        if held is None or not same:
            return None
        new = snapshot.live.copy()
        new[:num_before] = False
        lacking, unsent = new.copy(), new.copy()
        lacking[:num_before] = held.lacking & snapshot.live[:num_before]
        unsent[:num_before] = held.unsent & snapshot.live[:num_before]
        removed = np.flatnonzero(before.live & ~snapshot.live[:num_before])
        ids = [*held.gone, *before.texts("item_id", removed)]
        gone = tuple(one for one in dict.fromkeys(ids) if snapshot.row_of(one) < 0)
        return _Held(lacking, unsent, gone)


class _Within:
    """`ServedIndex` among the rows that fulfil some conditions."""

    def __init__(self, index: ServedIndex, conditions: Conditions | None) -> None:
        self._index, self._conditions = index, conditions

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the k nearest allowed rows of each query; see `ServedIndex.found`."""
        return self._index.found(queries, k, allowed, self._conditions)


def _nothing(num_queries: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.empty((num_queries, 0), np.int64), np.empty((num_queries, 0), np.float32)
