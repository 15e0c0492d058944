"""Batches from the picture cache, in an order that only the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from visual_search.catalog.catalog import Catalog

if TYPE_CHECKING:
    from visual_search.catalog.cache import Pictures


class Batch(TypedDict):
    """What a loader gives: pictures and the catalogue rows that they belong to."""

    images: Tensor  # [B, 3, S, S] uint8
    rows: Tensor  # [B] int64


class PictureDataset(Dataset[Batch]):
    """Whole batches of cached pictures: an index is a list of catalogue rows."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        chosen = np.asarray(rows, dtype=np.int64)
        return {
            "images": torch.from_numpy(self.pictures[chosen]),
            "rows": torch.from_numpy(chosen),
        }


class _Batches(SequentialSampler):
    """A sampler of whole batches. Lightning replaces any but this class under overfit_batches."""

    def __init__(self) -> None:
        pass  # torch's class would keep a data source, which these samplers do not need


class TrainingBatches(_Batches):
    """Shuffled batches of rows; the order is a function of (seed, epoch) and nothing else.

    A resumed run asks for the same epoch from ``start_batch`` on, and a run on ``world_size``
    processes sees the same global batches as a run on one: every process takes its share of each.

    Args:
        rows: Catalogue rows to draw from, ``[n] int64``.
        batch_size: Items in a global batch, over all processes.
        seed: Seed of the order.
        shuffle: False keeps the order of ``rows`` in every epoch.
        rank: This process.
        world_size: Number of processes; a batch that does not divide evenly repeats its first rows.
        epoch: Epoch of the first pass.
        start_batch: Batches of the first pass that were already seen.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        start_batch: int = 0,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self.start_batch = start_batch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]
        order = self.rows
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        start, self.start_batch = self.start_batch, 0
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            missing = -len(chosen) % self.world_size
            yield np.resize(chosen, len(chosen) + missing)[self.rank :: self.world_size].tolist()


class EvaluationBatches(_Batches):
    """Every row in order, in batches of one fixed size.

    The last batch is filled up by repeating its last row, and each process takes every
    ``world_size``-th row: a picture's result then depends neither on the size of the batch that it
    came in nor on the number of processes. Whoever collects the results keeps each row once.
    """

    def __init__(
        self, rows: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows = rows
        self.batch_size = max(1, min(batch_size, len(rows)))
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        share = -(-len(self.rows) // self.world_size)
        return -(-share // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]
        mine = self.rows[self.rank :: self.world_size]
        if not len(mine):
            mine = self.rows[-1:]
        filled = np.pad(mine, (0, len(self) * self.batch_size - len(mine)), mode="edge")
        for batch in range(len(self)):
            yield filled[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


class CatalogDataModule(LightningDataModule):
    """The training, validation and test batches of a catalogue.

    Args:
        catalog: Its splits are assigned.
        pictures: Row i is the picture of the catalogue's row i.
        batch_size: Items in a training step, over all processes.
        num_workers: Loader processes; 0 reads in the training process, which is as fast on a CPU
            (a batch of 128 takes 3 ms from the cache).
        seed: Seed of the order.
        shuffle: False trains in the catalogue's order.
    """

    def __init__(
        self,
        catalog: Catalog,
        pictures: Pictures,
        *,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(
                f"got batch_size {batch_size}, expected at least 1; set loader.batch_size"
            )
        if num_workers < 0:
            raise ValueError(
                f"got num_workers {num_workers}, expected 0 or more; set loader.num_workers"
            )
        self.catalog = catalog
        self.pictures = pictures
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.shuffle = shuffle
        self.dataset = PictureDataset(pictures)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Gives the catalogue rows of a split, ascending (``[n] int64``)."""
        return self.catalog.rows_of_split(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Gives the shuffled training batches, from where the trainer's progress stands."""
        rows = self.rows("train")
        trainer = self.trainer
        sampler = TrainingBatches(
            rows,
            self.batch_size,
            self.seed,
            shuffle=self.shuffle and not getattr(trainer, "overfit_batches", 0),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        if trainer is not None:
            # One optimiser step a batch, so the global step tells the position. Limits shorten an
            # epoch; the modulus is then the shortened length.
            steps_per_epoch = _limited(len(sampler), trainer.limit_train_batches)
            sampler.epoch, sampler.start_batch = divmod(
                trainer.global_step, max(1, steps_per_epoch)
            )
        return self._loader(sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Gives the validation items in order."""
        return self.evaluation_loader(self.rows("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Gives the test items in order."""
        return self.evaluation_loader(self.rows("test"))

    def evaluation_loader(self, rows: NDArray[np.int64]) -> DataLoader[Batch]:
        """Gives this process's share of these rows, in order, as batches of one fixed size."""
        trainer = self.trainer
        return self._loader(
            EvaluationBatches(
                rows,
                self.batch_size,
                rank=trainer.global_rank if trainer else 0,
                world_size=trainer.world_size if trainer else 1,
            )
        )

    def _loader(self, sampler: _Batches) -> DataLoader[Batch]:
        return DataLoader(
            self.dataset,
            sampler=sampler,
            batch_size=None,  # the sampler's items are batches already
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )


def _limited(num_batches: int, limit: int | float) -> int:
    """Gives the batches of an epoch under Lightning's limit (a count, or a share up to 1.0)."""
    return min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
