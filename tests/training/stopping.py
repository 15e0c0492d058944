"""Ends a run at a chosen moment, for the tests of what goes on afterwards."""

from __future__ import annotations

import os
import signal
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


class SignalIn(Callback):
    """Sends this process SIGTERM in a hook at a step."""

    def __init__(self, hook: str, step: int) -> None:
        def send(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        setattr(self, hook, send)


class CountValidations(Callback):
    """Counts them in the checkpoint, as a callback that stops a run early counts its patience."""

    def __init__(self) -> None:
        self.num = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.num += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num": self.num}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num = state_dict["num"]
