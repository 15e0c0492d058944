"""What has to be embedded, shard by shard: all that a process needs to know, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.runs.embedding_listing import LISTING_FILE, read_listing
from visual_search.runs.embedding_shards import ShardFolder, ShardSettings
from visual_search.runs.embedding_stores import open_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visual_search.catalog.streaming import ItemPictures, PictureBatch, ReadItems
    from visual_search.storage.uris import ObjectUri


@dataclass(frozen=True)
class EmbeddingJob:
    """Shards to embed; can be pickled, and is small whatever the catalogue's size.

    Attributes:
        folder: Of the shards, with the listing of the items in it; every process sees it, or
            reaches the object storage that it lies on.
        settings: What the shards have in common.
        pictures: How the items' pictures become batches.
        missing: Numbers of the shards to write, ascending.
    """

    folder: Path | ObjectUri
    settings: ShardSettings
    pictures: ItemPictures
    missing: tuple[int, ...]

    @property
    def num_items(self) -> int:
        """Items of the missing shards."""
        return sum(map(self.settings.num_rows, self.missing))

    def of_shard(self, number: int) -> EmbeddingJob:
        """Returns the job of one shard."""
        return replace(self, missing=(number,))

    def batches(self, number: int) -> Iterator[PictureBatch]:
        """Yields the pictures of a shard; see `read_batches`.

        Raises:
            RuntimeError: Another machine's command has finished the folder meanwhile.
        """
        from visual_search.catalog.streaming import read_batches

        try:
            listing = open_store(self.folder).kept(LISTING_FILE)
        except FileNotFoundError as error:
            raise RuntimeError(
                f"{self.folder / LISTING_FILE} is gone; expected one command at a time, and "
                "another one has finished the folder: start this one again, it finds the shards"
            ) from error
        rows = read_listing(listing, number)
        yield from read_batches(rows, self.pictures)

    def write(self, number: int, items: ReadItems, embeddings: NDArray[np.float32]) -> None:
        """Writes a shard; a second time the same.

        Args:
            number: Of the shard.
            items: As its last batch has them.
            embeddings: Of the good ones, ``[n, D] float32``.

        Raises:
            BadItemsError: Pictures cannot be used, and that is an error.
            ValueError: The embeddings do not fit the items, or are not finite.
        """
        from visual_search.catalog.catalog import BadItemsError

        # Not where they are read: that is done ahead, and the shard before would be lost.
        if items.refused and self.pictures.stops_at_bad_item:
            raise BadItemsError(items.refused, f"catalogue {self.pictures.catalog!r}")
        ShardFolder(self.folder, self.settings).write(
            number, items.table, items.content_keys, embeddings, items.refused
        )
