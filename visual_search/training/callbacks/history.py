"""What every epoch measured, as a table beside the results; it goes on where a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from visual_search.atomic import atomic_path

if TYPE_CHECKING:
    from visual_search.training.evaluation import Evaluation


class History(Callback):
    """Writes ``metrics/history.csv`` after every epoch: losses, and retrieval where measured.

    ``epoch`` counts the epochs trained so far; ``train/loss`` is the mean over the epoch's batches
    (of the first process), the others are what was logged for validation. It has to stand before
    the callback that saves checkpoints, which would otherwise save without the newest batch.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._validated: dict[str, float] = {}
        self._floors: list[dict[str, str | float]] = []
        self._losses, self._num_batches = 0.0, 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Tensor] | None,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Adds the batch's loss."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            # Lightning hands over the batch's share of its step's loss.
            self._losses += float(loss.detach()) * trainer.accumulate_grad_batches
            self._num_batches += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was logged; retrieval only where it was measured now."""
        if trainer.sanity_checking:
            return
        measured = getattr(pl_module, "evaluation", None) is not None or not trainer.is_global_zero
        self._validated = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name == "val/loss" or (measured and name.startswith("val/") and name.count("/") == 1)
        }
        if measured and trainer.is_global_zero:
            evaluation: Evaluation = pl_module.evaluation  # type: ignore[assignment]
            self._floors = [
                {"name": floor.name, "title": floor.title, "value": floor.headline}
                for floor in evaluation.floors
            ]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table with the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        if self._num_batches:
            row["train/loss"] = self._losses / self._num_batches
        self._rows.append(row | self._validated)
        self._validated, self._losses, self._num_batches = {}, 0.0, 0
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = Path(trainer.default_root_dir) / "metrics" / "history.csv"
            with atomic_path(path) as temporary:
                pd.DataFrame(self._rows).to_csv(temporary, index=False)
            if self._floors:
                with atomic_path(path.with_name("val_floors.csv")) as temporary:
                    pd.DataFrame(self._floors).to_csv(temporary, index=False)

    def state_dict(self) -> dict[str, object]:
        """Returns what a run needs to go on."""
        return {
            "rows": [dict(row) for row in self._rows],
            "floors": [dict(floor) for floor in self._floors],
            "losses": self._losses,
            "num_batches": self._num_batches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self._rows = [dict(row) for row in state_dict["rows"]]
        self._floors = [dict(floor) for floor in state_dict["floors"]]
        self._losses = float(state_dict["losses"])
        self._num_batches = int(state_dict["num_batches"])
