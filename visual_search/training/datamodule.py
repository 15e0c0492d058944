"""Batches from the picture cache, in an order that only the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from visual_search.catalog.catalog import Catalog
from visual_search.training.sampling import Sampling, shuffled

if TYPE_CHECKING:
    from visual_search.catalog.cache import Pictures

ChoosePartners = Callable[[NDArray[np.int64], int, NDArray[np.int64]], NDArray[np.int64]]
"""(rows [B], epoch, positions [B]) -> the rows [B] that the second view shows."""


class Batch(TypedDict):
    """What a loader gives: pictures and the catalogue rows that they belong to.

    Training batches have more; what an objective does not ask for is missing.
    """

    images: Tensor  # [B, 3, S, S] uint8
    rows: Tensor  # [B] int64
    positions: NotRequired[Tensor]  # [B] int64, places in the epoch
    strengths: NotRequired[Tensor]  # [B] float32, how strongly each picture is augmented
    partner_images: NotRequired[Tensor]  # [B, 3, S, S] uint8, what the second view shows
    partner_rows: NotRequired[Tensor]  # [B] int64


@dataclass(frozen=True, eq=False)
class DrawnBatch:
    """Which rows a training batch holds, and what was decided about each.

    Attributes:
        rows: Catalogue rows, ``[B] int64``.
        positions: Their places in the epoch, ``[B] int64``; a row that comes twice has two.
        strengths: How strongly each is augmented, ``[B] float32``; None: as configured.
        partner_rows: What the second view shows, ``[B] int64``; None: the same item.
    """

    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    strengths: NDArray[np.float32] | None = None
    partner_rows: NDArray[np.int64] | None = None


class PictureDataset(Dataset[Batch]):
    """Whole batches of cached pictures: an index is a drawn batch, or a list of catalogue rows."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, wanted: DrawnBatch | Sequence[int]) -> Batch:
        if not isinstance(wanted, DrawnBatch):
            chosen = np.asarray(wanted, dtype=np.int64)
            return {"images": self._images(chosen), "rows": torch.from_numpy(chosen)}
        batch: Batch = {
            "images": self._images(wanted.rows),
            "rows": torch.from_numpy(wanted.rows),
            "positions": torch.from_numpy(wanted.positions),
        }
        if wanted.strengths is not None:
            batch["strengths"] = torch.from_numpy(wanted.strengths)
        if wanted.partner_rows is not None:
            batch["partner_rows"] = torch.from_numpy(wanted.partner_rows)
            batch["partner_images"] = self._images(wanted.partner_rows)
        return batch

    def _images(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.pictures[rows])


class _Batches(SequentialSampler):
    """A sampler of whole batches. Lightning replaces any but this class under overfit_batches."""

    def __init__(self) -> None:
        pass  # torch's class would keep a data source, which these samplers do not need


@dataclass(eq=False)
class TrainingBatches(_Batches):
    """Batches of rows; what an epoch holds is a function of its order and nothing else.

    A resumed run asks for the same epoch from ``start_batch`` on, and a run on ``world_size``
    processes sees the same global batches as a run on one: every process takes its share of each.

    Attributes:
        order: Gives the rows of an epoch, ``[n] int64``, n being the same for all epochs.
        num_rows: n.
        batch_size: Items in a global batch, over all processes.
        rank: This process.
        world_size: Number of processes; a batch that does not divide evenly repeats its first rows.
        epoch: Epoch of the first pass.
        start_batch: Batches of the first pass that were already seen.
        strengths: Gives how strongly an epoch's rows are augmented, ``[n] float32``; None: all as
            configured.
        partners: Gives the rows that the second view of these rows shows, by (rows, epoch,
            positions); None: themselves.
    """

    order: Callable[[int], NDArray[np.int64]]
    num_rows: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    start_batch: int = 0
    strengths: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None
    partners: ChoosePartners | None = None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[DrawnBatch]:  # type: ignore[override]
        order = self.order(self.epoch)
        strengths = self.strengths(order) if self.strengths is not None else None
        start, self.start_batch = self.start_batch, 0
        for batch in range(start, len(self)):
            places = np.arange(self.num_rows)[
                batch * self.batch_size : (batch + 1) * self.batch_size
            ]
            missing = -len(places) % self.world_size
            mine = np.resize(places, len(places) + missing)[self.rank :: self.world_size]
            if len(mine) == 1 and 1 < self.batch_size // self.world_size <= self.num_rows:
                mine = np.append(mine, 0)  # batch norm needs two items; the epoch's first is one
            rows = order[mine]
            yield DrawnBatch(
                rows=rows,
                positions=mine,
                strengths=None if strengths is None else strengths[mine],
                partner_rows=(
                    None if self.partners is None else self.partners(rows, self.epoch, mine)
                ),
            )


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


def check_loader(batch_size: int, num_workers: int) -> None:
    """Refuses numbers that make no batches.

    Raises:
        ValueError: One is too small.
    """
    if batch_size < 1:
        raise ValueError(f"got batch_size {batch_size}, expected at least 1; set loader.batch_size")
    if num_workers < 0:
        raise ValueError(
            f"got num_workers {num_workers}, expected 0 or more; set loader.num_workers"
        )


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
        sampling: Which items an epoch holds; None takes each once.

    Attributes:
        ratings: Newest retrieval quality of each category on validation, 0..1, for samplings that
            look at it; part of a checkpoint.
        partners: Chooses what a second view shows, where an objective's positives are other items.
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
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        check_loader(batch_size, num_workers)
        self.catalog = catalog
        self.pictures = pictures
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.shuffle = shuffle
        self.sampling = (sampling or shuffled()).for_batches(batch_size)
        self.ratings: dict[str, float] = {}
        self.partners: ChoosePartners | None = None
        self.dataset = PictureDataset(pictures)
        self._categories = catalog.table["category"].to_numpy(dtype=str)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Returns the catalogue rows of a split, ascending (``[n] int64``)."""
        return self.catalog.rows_of_split(split)

    def state_dict(self) -> dict[str, object]:
        """Returns what decides later epochs and is not in the settings."""
        return {"ratings": dict(self.ratings)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.ratings = {str(name): float(value) for name, value in state_dict["ratings"].items()}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns the training batches, from where the trainer's progress stands."""
        rows = self.rows("train")
        categories = self._categories[rows]
        trainer = self.trainer
        in_order = not self.shuffle or bool(getattr(trainer, "overfit_batches", 0))

        def order(epoch: int) -> NDArray[np.int64]:
            if in_order:
                return rows
            return self.sampling.order(rows, categories, self.seed, epoch, self.ratings)

        def strengths(drawn: NDArray[np.int64]) -> NDArray[np.float32]:
            of_rows = self.sampling.augmentation_strength(categories, self.ratings)
            return of_rows[np.searchsorted(rows, drawn)]

        sampler = TrainingBatches(
            order,
            len(rows),
            self.batch_size,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            strengths=None if in_order else strengths,
            partners=self._partners_of if self.partners is not None else None,
        )
        if trainer is not None:
            # A checkpoint is written between two optimiser steps, so the global step tells the
            # position. Limits shorten an epoch; the modulus is then the shortened length.
            steps_per_epoch = max(1, _steps_per_epoch(trainer, len(sampler)))
            sampler.epoch, step = divmod(trainer.global_step, steps_per_epoch)
            sampler.start_batch = step * trainer.accumulate_grad_batches
        return self._loader(sampler)

    def _partners_of(
        self, rows: NDArray[np.int64], epoch: int, positions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        assert self.partners is not None  # looked up anew: they may be chosen anew between epochs
        return self.partners(rows, epoch, positions)

    def num_training_steps(self) -> int:
        """Returns the optimiser steps of a whole run, 1 at least.

        Lightning's own estimate would make the training loader before a checkpoint is restored,
        and then keep that one, which starts at the beginning.
        """
        trainer = self.trainer
        assert trainer is not None
        num_batches = -(-len(self.rows("train")) // self.batch_size)
        return max(1, _steps_per_epoch(trainer, num_batches) * max(1, trainer.max_epochs or 1))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns the validation items in order."""
        return self.evaluation_loader(self.rows("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Returns the test items in order."""
        return self.evaluation_loader(self.rows("test"))

    def evaluation_loader(self, rows: NDArray[np.int64]) -> DataLoader[Batch]:
        """Returns this process's share of these rows, in order, as batches of one fixed size."""
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
            pin_memory=on_cuda(self.trainer),
        )


def on_cuda(trainer: Trainer | None) -> bool:
    """Returns whether a trainer computes on a CUDA device, to which pinned memory is copied faster.

    What the machine has is not asked: pinning starts a CUDA context of 300 MB, also where a run
    was told to stay on the CPU.
    """
    return trainer is not None and trainer.strategy.root_device.type == "cuda"


def datamodule_of(trainer: Trainer) -> CatalogDataModule:
    """Returns the data module that a trainer was started with."""
    datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return datamodule


def _steps_per_epoch(trainer: Trainer, num_batches: int) -> int:
    """Returns the optimiser steps of an epoch under Lightning's limit, a count or a share."""
    limit = trainer.limit_train_batches
    limited = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    return -(-limited // trainer.accumulate_grad_batches)
