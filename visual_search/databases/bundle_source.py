"""A bundle as the source of a collection: its items in the order of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.manifest import EncoderRecord
from visual_search.bundle.snapshot import Snapshot
from visual_search.databases.database import CollectionFacts

BLOCK_ROWS = 4_096


class BundleSource:
    """The items of one generation that can be found.

    Args:
        snapshot: The generation.
        rows: ``[n] int64``, some of its rows, rising; None for all that can be found.

    Attributes:
        facts: What made its embeddings.
        rows: ``[n] int64``, theirs.
    """

    def __init__(self, snapshot: Snapshot, rows: NDArray[np.int64] | None = None) -> None:
        self.facts = facts_of(snapshot.manifest.encoder)
        self.rows = np.flatnonzero(snapshot.live) if rows is None else rows
        self._snapshot = snapshot

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(
        self,
    ) -> Iterator[tuple[Sequence[str], Mapping[str, Sequence[str]], NDArray[np.float32]]]:
        """Returns (ids, columns of texts, ``[n, D] float32``), some rows at a time."""
        snapshot = self._snapshot
        for start in range(0, len(self.rows), BLOCK_ROWS):
            rows = self.rows[start : start + BLOCK_ROWS]
            columns = {name: snapshot.texts(name, rows) for name in snapshot.manifest.columns}
            yield snapshot.texts("item_id", rows), columns, snapshot.index.store.take(rows)


def facts_of(encoder: EncoderRecord) -> CollectionFacts:
    """Returns what a bundle's encoder is called in a collection.

    Its file holds the network, what comes before and what comes after it: one hash stands for
    all three.
    """
    return CollectionFacts(encoder.sha256, encoder.sha256, encoder.sha256, encoder.embedding_dim)
