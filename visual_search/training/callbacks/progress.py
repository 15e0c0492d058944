"""A progress bar that speaks of pictures a second."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from visual_search.training.datamodule import Batch


class Progress(TQDMProgressBar):
    """Lightning's bar with pictures a second beside batches a second, and no version number."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._pictures = 0
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, *args: object) -> None:
        """Starts the epoch's count."""
        super().on_train_epoch_start(trainer, *args)
        self._pictures, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Tensor] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Counts the batch's pictures."""
        self._pictures += len(batch["rows"]) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Returns what stands behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self._pictures:
            rate = self._pictures / (time.perf_counter() - self._since)
            metrics["pictures/s"] = f"{rate:.1f}"
        return metrics
