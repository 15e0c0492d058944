"""Embeds a catalogue shard by shard, each shard wholly by one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypedDict

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy
from numpy.typing import NDArray
from torch import Tensor

from visual_search.catalog.streaming import PictureBatch, ReadItems
from visual_search.training.datamodule import on_cuda
from visual_search.training.devices import memory_told
from visual_search.training.module import EncoderModule, as_numpy


class ShardJob(Protocol):
    """Which shards are missing, the pictures of each, and where its embeddings go."""

    @property
    def missing(self) -> Sequence[int]:
        """Numbers of the shards to write, ascending."""
        ...

    @property
    def num_items(self) -> int:
        """Items of them."""
        ...

    def batches(self, number: int) -> Iterator[PictureBatch]:
        """Yields the pictures of a shard."""
        ...

    def write(self, number: int, items: ReadItems, embeddings: NDArray[np.float32]) -> None:
        """Takes the embeddings of a shard's good items, ``[n, D] float32``."""
        ...


class ShardBatch(TypedDict):
    """A `PictureBatch` as a loader gives it."""

    images: Tensor  # [B, 3, S, S] uint8
    num_kept: int  # of them, the first ones
    number: int  # of the shard
    items: ReadItems | None  # with the shard's last batch


def others_wait(trainer: Trainer) -> bool:
    """Returns whether further processes, which another program started, wait for this one's."""
    strategy = trainer.strategy
    if not isinstance(strategy, ParallelStrategy) or strategy.cluster_environment is None:
        return False
    return strategy.cluster_environment.creates_processes_externally


class ShardEmbedder(LightningModule):
    """Embeds shards with a run's network; for ``Trainer.predict`` with its own `loader`.

    Of several processes each takes every n-th of the shards that are missing: no item is embedded
    by two of them, and nothing has to be gathered. Which are missing the first process says, once
    all are there: what it finds on the disk later, the others may have written by then.

    Args:
        module: The run's, with its head fitted.
        job: Of the first process; the others are told.
        on_progress: Called with (items embedded, items to embed), the other processes' share
            estimated from this one's.
    """

    def __init__(
        self,
        module: EncoderModule,
        job: ShardJob | None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self._job = job
        self._on_progress = on_progress
        self._features: list[NDArray[np.float32]] = []  # of the shard that is being embedded
        self._num_done = 0
        self._parent = os.getppid()

    @property
    def job(self) -> ShardJob:
        """What is embedded, once the first process has said."""
        assert self._job is not None
        return self._job

    def predict_dataloader(self) -> Iterator[ShardBatch]:
        """Returns the batches of this process's share of the missing shards."""
        self._job = self.trainer.strategy.broadcast(self._job)
        mine = self.job.missing[self.trainer.global_rank :: self.trainer.world_size]
        return self._batches(mine, pin=on_cuda(self.trainer))

    def _batches(self, numbers: Sequence[int], *, pin: bool) -> Iterator[ShardBatch]:
        for number in numbers:
            for batch in self.job.batches(number):
                images = torch.from_numpy(batch.images)
                yield {
                    "images": images.pin_memory() if pin else images,
                    "num_kept": batch.num_kept,
                    "number": number,
                    "items": batch.items,
                }

    def predict_step(self, batch: ShardBatch, batch_idx: int) -> int:
        """Embeds a batch, and hands the shard over once its last row is embedded.

        Returns:
            The items that were embedded; Lightning warns of a step that gives nothing.

        Raises:
            DeviceMemoryError: The memory of the device does not suffice.
            RuntimeError: The process that started this one has ended.
        """
        num_kept, items = batch["num_kept"], batch["items"]
        with memory_told(len(batch["images"]), self.device):
            features = as_numpy(self.module.features(batch["images"]))
        self._features.append(features[:num_kept])
        self._num_done += num_kept
        if items is not None:
            self._check_parent()
            embeddings = self.module.head.embed(np.concatenate(self._features))
            self.job.write(batch["number"], items, embeddings)
            self._features = []
            self._num_done += len(items.refused)
        if self._on_progress is not None:
            done = min(self._num_done * self.trainer.world_size, self.job.num_items)
            self._on_progress(done, self.job.num_items)
        return num_kept

    def _check_parent(self) -> None:
        """Keeps a process whose first process was killed from writing beside the next start."""
        if self.global_rank > 0 and os.getppid() != self._parent:
            raise RuntimeError(
                f"the process {self._parent} that started this one has ended; expected it to wait "
                "for the shards: start the command again, it goes on with what is missing"
            )
