"""A bundle, or a folder of shards, and a collection: pushed, compared, searched through it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from visual_search.config.builders import ConfigError, told_as_config
from visual_search.config.schemas import IndexSchema
from visual_search.wording import listed, many, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visual_search.bundle.snapshot import Snapshot
    from visual_search.databases.database import VectorDatabase
    from visual_search.databases.pushing import ItemSource
    from visual_search.databases.served_index import ServedIndex
    from visual_search.databases.verifying import Recall, Verified

_logger = logging.getLogger(__name__)
MAX_NAMED = 3
# Columns of a shard that a bundle does not have: they say nothing to filter by.
NOT_LABELS = ("item_id", "image", "group", "split", "content_key")


class ShardSource:
    """A folder that the embed command finished, as the source of a collection.

    Args:
        folder: The folder, on a disk or on object storage.

    Attributes:
        facts: What made its embeddings.

    Raises:
        FileNotFoundError: It is not finished.
        ValueError: Its manifest was changed, or an address holds a password.
        StorageError: Object storage does not answer, or refuses.
    """

    def __init__(self, folder: str) -> None:
        from visual_search.databases.database import CollectionFacts
        from visual_search.runs.embedding_shards import read_shard_manifest

        manifest = read_shard_manifest(folder)
        self.facts = CollectionFacts(
            manifest["model_hash"],
            manifest["preprocessing_hash"],
            manifest["embedding_hash"],
            manifest["dim"],
        )
        self._folder, self._num_items = folder, manifest["num_items"]

    def __len__(self) -> int:
        return self._num_items

    def blocks(
        self,
    ) -> Iterator[tuple[Sequence[str], Mapping[str, Sequence[str]], NDArray[np.float32]]]:
        """Returns (ids, columns of texts, ``[n, D] float32``), shard by shard."""
        from visual_search.runs.embedding_shards import read_shards

        for table, embeddings in read_shards(self._folder):
            names = [str(name) for name in table.columns if name not in NOT_LABELS]
            columns = {name: table[name].tolist() for name in names}
            yield table["item_id"].tolist(), columns, embeddings


def searched_through(
    kind: str | None, url: str | None, collection: str
) -> Callable[[Snapshot], ServedIndex] | None:
    """Returns what opens a bundle's collection; None where the bundle's own index is searched.

    A database that does not answer now is no error yet: who asks then is told so, and it may come.

    Raises:
        ConfigError: The kind, the address or the collection's name is wrong.
    """
    from visual_search.databases.database import DatabaseUnavailableError
    from visual_search.databases.opening import SEARCH_TIMEOUT_S, open_database
    from visual_search.databases.served_index import ServedIndex

    if kind is None:
        return None
    with told_as_config():
        database = open_database(kind, url, collection, timeout_s=SEARCH_TIMEOUT_S)

    def opened(snapshot: Snapshot) -> ServedIndex:
        index = ServedIndex(database, snapshot)
        try:
            index.connect()
        except DatabaseUnavailableError as error:
            _logger.warning("%s", error)
        return index

    return opened


def push_items(settings: IndexSchema) -> None:
    """Brings a collection to what a bundle or a folder of shards holds, and prints what changed.

    Args:
        settings: The composed ``conf/index.yaml``.

    Raises:
        ConfigError: What is to be pushed, or where to, is not named.
        ValueError: The source is damaged, or the collection has another model's embeddings.
        DatabaseError: The database refused something, or did not come back.
    """
    from visual_search.databases.pushing import push
    from visual_search.views.progress import progress_bar

    source, database = _source(settings), _database(settings)
    try:
        with progress_bar("Pushing", " items") as advance:
            pushed = push(source, database, advance)
    finally:
        database.close()
    done = [
        f"{number:,} {word}"
        for number, word in (
            (pushed.num_added, "added"),
            (pushed.num_updated, "updated"),
            (pushed.num_removed, "removed"),
        )
        if number
    ] + [pushed.tended] * bool(pushed.tended)
    print(f"{database.place}: {', '.join(done) or 'nothing to do'}.")
    print(f"It holds {many(pushed.num_items, 'item')} of {source.facts.dim} numbers.")


def verify_items(settings: IndexSchema) -> None:
    """Compares a collection with its source, and prints what differs; status 1 where it does.

    Args:
        settings: The composed ``conf/index.yaml``.

    Raises:
        ConfigError: The source or the collection is not named.
        ValueError: There is no collection, or it has another model's embeddings.
        DatabaseError: The database refused something, or did not come back.
        SystemExit: They differ, or too little is found.
    """
    from visual_search.databases.verifying import TARGET_RECALL, verify

    source, database = _source(settings), _database(settings)
    try:
        target = TARGET_RECALL if settings.target_recall is None else settings.target_recall
        found = verify(source, database, target_recall=target)
    finally:
        database.close()
    for line in _lines(found):
        print(line)
    if not found.is_same:
        print(f"{database.place} differs; `index push` with the same settings sends what is wrong")
        raise SystemExit(1)
    print(f"{database.place} holds the same {many(found.num_items, 'item')}.")


def _source(settings: IndexSchema) -> ItemSource:
    from visual_search.bundle.remote import open_newest
    from visual_search.databases.bundle_source import BundleSource
    from visual_search.views.progress import progress_bar

    if bool(settings.bundle) == bool(settings.embeddings):
        raise ConfigError(
            "expected either bundle=DIR or from=DIR, the folder that `python -m "
            "visual_search.embed` wrote: name one of them"
        )
    if settings.embeddings:
        return ShardSource(settings.embeddings)
    with progress_bar("Copying", " files") as advance:
        _folder, snapshot = open_newest(str(settings.bundle), hashed=True, on_progress=advance)
    return BundleSource(snapshot)


def _database(settings: IndexSchema) -> VectorDatabase:
    from visual_search.databases.database import KINDS
    from visual_search.databases.opening import open_database

    if not settings.to:
        raise ConfigError(f"no database is named; expected to=KIND, one of {', '.join(KINDS)}")
    with told_as_config():
        return open_database(settings.to, settings.url, settings.collection)


def _lines(found: Verified) -> Iterator[str]:
    for ids, what in (
        (found.missing, "missing from the collection"),
        (found.foreign, "only in the collection"),
        (found.changed, "changed since it was pushed"),
        (found.embeddings, "with another embedding than its content key says"),
    ):
        if ids:
            names = shown(listed([repr(one) for one in ids], MAX_NAMED))
            yield f"{many(len(ids), 'item')} {what}: {names}"
    yield f"Among all items: {_recall(found.unfiltered, found.target_recall)}"
    yield f"Within the category: {_recall(found.filtered, found.target_recall)}"


def _recall(found: Recall, target: float) -> str:
    from visual_search.databases.verifying import RECALL_K

    text = f"recall@{RECALL_K} {found.recall:.3f} of {many(found.num_queries, 'query', 'queries')}"
    if found.recall < target:
        text += f", expected {target:g} or more"
    if found.num_short:
        text += f"; {many(found.num_short, 'query', 'queries')} got fewer items than there are"
    return text
