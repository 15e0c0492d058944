"""Embeds a catalogue shard by shard, each shard wholly by one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from lightning import LightningModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from visual_search.catalog.cache import Pictures
from visual_search.training.datamodule import (
    Batch,
    EvaluationBatches,
    PictureDataset,
    on_cuda,
)
from visual_search.training.module import EncoderModule, as_numpy

WriteShard = Callable[[int, NDArray[np.float32]], None]
"""(number of the shard, its embeddings ``[n, D] float32``) -> nothing."""


def rows_of_shard(number: int, shard_size: int, num_items: int) -> NDArray[np.int64]:
    """Returns the catalogue rows of a shard, ascending (``[n] int64``, n at most ``shard_size``).

    Example:
        >>> [rows_of_shard(number, 3, 7).tolist() for number in range(3)]
        [[0, 1, 2], [3, 4, 5], [6]]
    """
    start = number * shard_size
    return np.arange(start, min(start + shard_size, num_items), dtype=np.int64)


class ShardBatches(Sampler[list[int]]):
    """The rows of several shards, in batches that never hold rows of two shards.

    Args:
        shards: Catalogue rows of each shard, each ascending.
        batch_size: Rows a batch; a shard's last batch is filled up with its last row.

    Example:
        >>> list(ShardBatches([np.arange(3), np.arange(5, 7)], batch_size=2))
        [[0, 1], [2, 2], [5, 6]]
    """

    def __init__(self, shards: Sequence[NDArray[np.int64]], batch_size: int) -> None:
        self._batches = [EvaluationBatches(rows, batch_size) for rows in shards]

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def __iter__(self) -> Iterator[list[int]]:
        for batches in self._batches:
            yield from batches


class ShardEmbedder(LightningModule):
    """Embeds shards with a run's network; for ``Trainer.predict`` with its own `loader`.

    Of several processes each takes every n-th of the shards that are missing: no item is embedded
    by two of them, and nothing has to be gathered.

    Args:
        module: The run's, with its head fitted.
        pictures: Row i is the picture of the catalogue's row i.
        missing: Numbers of the shards to write, ascending; the same in every process.
        shard_size: Items a shard.
        batch_size: Pictures a step and process.
        num_workers: Loader processes.
        write: Takes a shard's embeddings.
        on_progress: Called with (items embedded, items to embed), the other processes' share
            estimated from this one's.
    """

    def __init__(
        self,
        module: EncoderModule,
        pictures: Pictures,
        missing: Sequence[int],
        *,
        shard_size: int,
        batch_size: int,
        num_workers: int,
        write: WriteShard,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        # Fewer shards than processes: one has nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.module = module
        self._pictures = pictures
        self._missing = list(missing)
        self._shard_size = shard_size
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._write = write
        self._on_progress = on_progress
        self._features: list[NDArray[np.float32]] = []
        self._num_held = 0  # rows of the unfinished shard that are embedded
        self._num_done = 0
        self._num_to_do = sum(
            len(rows_of_shard(number, shard_size, len(pictures))) for number in self._missing
        )
        self._parent = os.getppid()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Returns the batches of this process's share of the missing shards."""
        mine = self._missing[self.trainer.global_rank :: self.trainer.world_size]
        shards = [rows_of_shard(number, self._shard_size, len(self._pictures)) for number in mine]
        return DataLoader(
            PictureDataset(self._pictures),
            sampler=ShardBatches(shards, self._batch_size),
            batch_size=None,  # the sampler's items are batches already
            num_workers=self._num_workers,
            pin_memory=on_cuda(self.trainer),
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """Embeds a batch, and hands the shard over once its last row is embedded.

        Returns:
            The items that were embedded; Lightning warns of a step that gives nothing.

        Raises:
            RuntimeError: The process that started this one has ended.
        """
        rows = as_numpy(batch["rows"])
        features = as_numpy(self.module.features(batch["images"]))
        number = int(rows[0]) // self._shard_size
        shard = rows_of_shard(number, self._shard_size, len(self._pictures))
        kept = rows >= shard[0] + self._num_held
        kept[1:] &= rows[1:] != rows[:-1]  # what fills up a last batch
        self._features.append(features[kept])
        self._num_held += int(kept.sum())
        self._num_done += int(kept.sum())
        if self._num_held == len(shard):
            self._check_parent()
            self._write(number, self.module.head.embed(np.concatenate(self._features)))
            self._features, self._num_held = [], 0
        if self._on_progress is not None:
            done = min(self._num_done * self.trainer.world_size, self._num_to_do)
            self._on_progress(done, self._num_to_do)
        return int(kept.sum())

    def _check_parent(self) -> None:
        """Keeps a process whose first process was killed from writing beside the next start."""
        if self.global_rank > 0 and os.getppid() != self._parent:
            raise RuntimeError(
                f"the process {self._parent} that started this one has ended; expected it to wait "
                "for the shards: start the command again, it goes on with what is missing"
            )
