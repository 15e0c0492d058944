"""Ends a run at a chosen moment, for the tests of what goes on afterwards."""

import os
import signal
from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer


class StoppedError(Exception):
    """Ends a run as a kill would, without a last word."""


def stop() -> None:
    raise StoppedError


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class At(Callback):
    """Does something in a hook at a step."""

    def __init__(self, hook: str, step: int, do: Callable[[], None]) -> None:
        def act(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == step:
                do()

        setattr(self, hook, act)


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
