"""Ends a run at a chosen moment, for the tests of what goes on afterwards."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer


class StoppedError(Exception):
    """Ends a run as a kill would, without a last word."""


class StopAt(Callback):
    """Raises in a hook at a step."""

    def __init__(self, hook: str, step: int) -> None:
        self.hook = hook
        self.step = step

    def _stop(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step == self.step:
            raise StoppedError

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._stop("batch", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("validation", trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("epoch", trainer)
