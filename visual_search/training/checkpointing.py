"""Checkpoints that are whole or absent, and a run that can be stopped at any moment."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from visual_search.atomic import atomic_path
from visual_search.training.distributed import any_process

_Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal


class Terminated(SystemExit):
    """A signal arrived; ends the process with the status that shells use, 143 for SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class Interruption:
    """Turns SIGTERM and Ctrl-C into an orderly end.

    Where nothing would be lost, the process ends at once (every file is written atomically).
    Elsewhere the signal waits until there is something whole to save; a second signal waits for
    nothing. As a context manager it gives the signals back at the end.

    Attributes:
        requested: Whether a signal came.
        signum: Which.
        deferred: Says whether a signal has to wait.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signum: int = signal.SIGTERM
        self.deferred: Callable[[], bool] = _never
        self._before: dict[int, _Handler] = {}

    def __enter__(self) -> Interruption:
        self._before = {
            signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)
        }
        self.install()
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT. Lightning's own handlers would end unsaved."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested, self.signum = self.requested, True, signum
        if again or not self.deferred():
            raise Terminated(signum)


def _never() -> bool:
    return False


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves beside the target, flushes, renames; loads tensors and plain values only.

    Lightning's own writer prepares the file in ``TMPDIR`` and moves it, which leaves a torn file
    when that is another filesystem and the process dies.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes the checkpoint to a local path."""
        with atomic_path(path, num_bytes=_num_bytes(checkpoint)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: object = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a local checkpoint; ``weights_only`` is always on, whatever the caller says."""
        return load_checkpoint(path)


def _num_bytes(content: object) -> int:
    """Returns the bytes of all tensors in nested containers, of those that share memory once."""
    storages: dict[int, int] = {}

    def look(part: object) -> None:
        if isinstance(part, torch.Tensor):
            storage = part.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, dict | list | tuple):
            for one in part.values() if isinstance(part, dict) else part:
                look(one)

    look(content)
    return sum(storages.values())


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns the content of a checkpoint of tensors and plain values, on the CPU.

    Raises:
        FileNotFoundError: Nothing is at this local path.
        ValueError: The file is damaged or holds objects that would run code.
    """
    local = Path(path)
    if not local.is_file():
        raise FileNotFoundError(f"no checkpoint at {local}; expected a local file; check the path")
    try:
        loaded: dict[str, Any] = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(
            f"{local} cannot be loaded as tensors and plain values ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}); expected a checkpoint of this program; remove "
            "it, or start afresh with rerun=true"
        ) from error
    return loaded


def _resume_with_validation(fit_loop: dict[str, Any]) -> None:
    """Makes the state of Lightning's loops one after an epoch's last step, in its validation."""
    for tracked in ("total", "current"):
        steps = fit_loop["epoch_loop.batch_progress"][tracked]
        steps["completed"] = steps["processed"]
        batches = fit_loop["epoch_loop.val_loop.batch_progress"][tracked]
        batches["ready"] = batches["started"] = batches["completed"] + 1


def position(path: str | Path, max_epochs: int) -> str:
    """Returns where a run goes on by its checkpoint, as ``epoch 4, step 1,200``.

    Args:
        path: Of the checkpoint.
        max_epochs: Of the run.

    Raises:
        FileNotFoundError: Nothing is at this path.
        ValueError: It is damaged.
    """
    checkpoint = load_checkpoint(path)
    loop, step = checkpoint["loops"]["fit_loop"], f"step {checkpoint['global_step']:,}"
    finished = loop["epoch_progress"]["current"]["processed"]
    batches = loop["epoch_loop.val_loop.batch_progress"]["total"]
    if finished >= max_epochs:
        return f"the test, after epoch {finished:,}, {step}"
    if batches["started"] > batches["processed"]:
        return f"the validation of epoch {finished + 1:,}, {step}"
    return f"epoch {finished + 1:,}, {step}"


class RunCheckpoint(Callback):
    """Keeps ``last.ckpt`` such that little is lost and a resumed run repeats the same numbers.

    It saves after every epoch's validation, every ``every_n_seconds`` within an epoch, and before
    a validation if the newest file is older than ``before_validation_seconds``. At a signal the
    last completed step is saved, also where the signal comes during the validation: a resumed run
    begins with that validation. A run of no epochs keeps its untrained network.

    Args:
        folder: Where ``last.ckpt`` lies.
        every_n_seconds: Longest time between two checkpoints within an epoch.
        before_validation_seconds: See above; 0 saves before every validation.
        interruption: Tells of a signal; None leaves signals alone.

    Attributes:
        path: The checkpoint.
        metrics: What was logged by the end of the newest finished epoch, also after a restart.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_seconds: float = 300.0,
        before_validation_seconds: float = 15.0,
        interruption: Interruption | None = None,
    ) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every_n_seconds = every_n_seconds
        self.before_validation_seconds = before_validation_seconds
        self.interruption = interruption
        self.metrics: dict[str, float] = {}
        self._saved_at = time.monotonic()
        self._before_validation: dict[str, Any] | None = None  # the checkpoint of that moment
        self._is_saved = False  # that checkpoint

    def state_dict(self) -> dict[str, object]:
        """Returns the metrics of the newest finished epoch; they travel in the checkpoint."""
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the metrics back."""
        self.metrics = dict(state_dict["metrics"])

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals back from Lightning, which installs its handlers just before."""
        if self.interruption is not None:
            self.interruption.install()

    on_sanity_check_start = on_test_start = on_train_start

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """From here on a signal waits for the end of a step, or for the validation."""
        if self.interruption is not None:
            self.interruption.deferred = lambda: (
                self._before_validation is None or not trainer.validating
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Saves when it is time, and ends the run if a signal came, both between two steps.

        Not after an epoch's last step: its validation follows, or the epoch's end.
        """
        if batch_idx + 1 == int(trainer.num_training_batches):
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients that wait for the next batch are in no checkpoint
        is_due = any_process(time.monotonic() - self._saved_at >= self.every_n_seconds)
        if is_due or self._is_terminated():
            self._save(trainer)
        self._end_if_terminated()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what a signal during the validation will save, and saves it where it is time.

        Validating changes neither weights nor optimiser, so that keeping them costs nothing.
        """
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Of a validation that was resumed Lightning counts the batch that it was stopped in.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        checkpoint["callbacks"] = copy.deepcopy(checkpoint["callbacks"])
        _resume_with_validation(checkpoint["loops"]["fit_loop"])
        self._before_validation, self._is_saved = checkpoint, False
        if any_process(time.monotonic() - self._saved_at >= self.before_validation_seconds):
            self._save_before_validation(trainer)
        self._end_if_terminated()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Saves the last step where a signal ends a validation."""
        if isinstance(exception, Terminated) and self._before_validation and not self._is_saved:
            self._save_before_validation(trainer)

    def _save_before_validation(self, trainer: Trainer) -> None:
        assert self._before_validation is not None
        trainer.strategy.save_checkpoint(self._before_validation, self.path)
        self._is_saved, self._saved_at = True, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the finished epoch, and ends the run if a signal came meanwhile."""
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._before_validation = None
        self._save(trainer)
        if self.interruption is not None:
            self.interruption.deferred = _never
        self._end_if_terminated()

    def _is_terminated(self) -> bool:
        return self.interruption is not None and any_process(self.interruption.requested)

    def _end_if_terminated(self) -> None:
        if self._is_terminated():
            assert self.interruption is not None
            raise Terminated(self.interruption.signum)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the untrained network of a run without epochs."""
        if trainer.max_epochs == 0:
            self._save(trainer)
