"""What shows that a run is alive, and how it goes: a line an epoch, and a bar within it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor

from visual_search.reading import number_in
from visual_search.training.datamodule import Batch
from visual_search.training.floors import best_floor
from visual_search.views.progress import Bar, write_line
from visual_search.wording import duration, number, three_digits

if TYPE_CHECKING:
    from visual_search.training.evaluation import Evaluation


class Progress(ProgressBar):
    """Prints a line an epoch: ``Epoch 3/40  mAP@5 0.412 (best floor 0.721)  loss 0.11, val 0.12``.

    It fits 80 columns, retrieval before losses. Below it a bar moves where stderr is a terminal;
    see `visual_search.views.progress`. Into a file a line is written once a second at most: of
    shorter epochs some, and the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown = True
        self._bar: Bar | None = None
        self._done, self._total = 0, 0  # pictures of what the bar shows
        self._began = time.monotonic()  # the epoch
        self._loss: Tensor | float = 0.0  # sum over the epoch's batches
        self._num_batches = 0
        self._waiting = ""  # the newest epoch's line, while it is not written

    def disable(self) -> None:
        """Shows nothing from here on."""
        self._shown = False

    def enable(self) -> None:
        """Shows everything again."""
        self._shown = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints in the place of the bar, which is drawn again below."""
        self._close()
        print(*args, **kwargs)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the epoch's bar."""
        self._began, self._loss, self._num_batches = time.monotonic(), 0.0, 0
        self._open(_epoch(trainer))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Tensor] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Moves the bar."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            # Lightning hands over the batch's share of its step's loss.
            self._loss = self._loss + loss.detach() * trainer.accumulate_grad_batches
            self._num_batches += 1
        title = f"{_epoch(trainer)}  {self._mean_loss()}".rstrip()
        self._advance(trainer, batch, batch_idx, trainer.num_training_batches, title)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves the bar of the validation."""
        if batch_idx == 0:
            self._open("Validating")
        self._advance(trainer, batch, batch_idx, trainer.num_val_batches[0])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves the bar of the test."""
        if batch_idx == 0:
            self._open("Testing")
        self._advance(trainer, batch, batch_idx, trainer.num_test_batches[0])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the bar away: what follows the steps has bars of its own."""
        self._close()

    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the epoch's line, or keeps it where another one was written just before."""
        self._close()
        if not self._shown:
            return
        parts = [_epoch(trainer), _retrieval(pl_module.evaluation)]  # type: ignore[arg-type]
        losses = [self._mean_loss()] * bool(self._num_batches)
        if "val/loss" in trainer.callback_metrics:
            losses.append(f"val {three_digits(float(trainer.callback_metrics['val/loss']))}")
        parts += [", ".join(losses), duration(time.monotonic() - self._began)]
        self._waiting = "  ".join(part for part in parts if part)
        self._write(always=sys.stdout.isatty())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the last epoch's line."""
        self._close()
        self._write(always=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves the terminal to what is said of it."""
        self.on_train_end(trainer, pl_module)

    def _write(self, *, always: bool) -> None:
        if self._waiting and write_line(self._waiting, file=sys.stdout, always=always):
            self._waiting = ""

    def _open(self, title: str) -> None:
        self._close()
        self._bar, self._done = Bar(title, " pictures", shown=self._shown), 0

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _mean_loss(self) -> str:
        """Returns the epoch's mean so far, over its batches."""
        if not self._num_batches:
            return ""
        return f"loss {three_digits(float(self._loss) / self._num_batches)}"

    def _advance(
        self, trainer: Trainer, batch: Batch, batch_idx: int, num_batches: float, title: str = ""
    ) -> None:
        if self._bar is None:
            return
        size = len(batch["rows"]) * trainer.world_size
        self._done += size
        if self._done == size:
            self._total = int(num_batches) * size  # the first is a full one
        if batch_idx + 1 >= num_batches:
            self._total = self._done  # and the last may be a part
        self._bar.advance(self._done, self._total, title=title)


def _epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs or 0
    return f"Epoch {trainer.current_epoch + 1}" + (f"/{last}" if last > 0 else "")


def _retrieval(evaluation: Evaluation | None) -> str:
    """Returns what was measured after this epoch, and what it is to be compared with."""
    if evaluation is None:
        return ""
    headline = evaluation.report.summary["headline"]
    value = number_in(evaluation.report.summary, f"micro_{headline['mean']}")
    best = best_floor(evaluation.floors)
    beside = f" (best floor {number(best.headline)})" if best else ""
    return f"{headline['title']} {number(value)}{beside}"
