"""An interrupted run that goes on gives the numbers of one that was never interrupted."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer

from tests.training.stopping import CountValidations, SignalIn, StopAt, StoppedError
from visual_search.training.checkpointing import (
    Interruption,
    RunCheckpoint,
    Terminated,
    load_checkpoint,
    position,
)
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.module import EncoderModule, weights_fingerprint
from visual_search.training.trainer import build_trainer

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 4  # 40 training items in batches of 10
EPOCHS = 3


class Diary(Callback):
    """Writes down which items every step saw, and every validation."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rows = tuple(batch["rows"].tolist())
        self.entries.append((trainer.current_epoch, batch_idx, trainer.global_step, rows))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.entries.append(("validation", trainer.current_epoch, trainer.global_step))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.entries.append(("epoch", trainer.current_epoch, trainer.global_step))


Fit = Callable[..., tuple[str, float, list[tuple[Any, ...]]]]


@pytest.fixture
def fit(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> Fit:
    def run(
        callbacks: list[Callback],
        checkpoint: Path | None = None,
        num_workers: int = 0,
        **settings: Any,
    ) -> tuple[str, float, list[tuple[Any, ...]]]:
        module, diary = new_module(), Diary()
        trainer = build_trainer(
            folder=run_folder,
            max_epochs=EPOCHS,
            accelerator="cpu",
            callbacks=[diary, *callbacks],
            enable_progress_bar=False,
            **settings,
        )
        with contextlib.suppress(StoppedError, Terminated):
            trainer.fit(module, new_datamodule(num_workers), ckpt_path=checkpoint)
        loss = float(trainer.callback_metrics.get("val/loss", float("nan")))
        return weights_fingerprint(module.model), loss, diary.entries

    return run


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "step", "every_n_seconds", "saved_at"),
    [
        pytest.param("batch", 6, 0, 6, id="mid-epoch, saved at once"),
        pytest.param("batch", 6, 1e9, 4, id="mid-epoch, saved at the epoch before"),
        pytest.param("batch", 8, 0, 7, id="last batch"),
        pytest.param("validation", 8, 0, 8, id="in validation"),
        pytest.param("epoch", 8, 1e9, 8, id="epoch's end"),
        pytest.param("batch", 12, 0, 11, id="very last batch"),
    ],
)
def test_resumed_run_repeats_the_uninterrupted_one(
    fit: Fit,
    run_folder: Path,
    hook: str,
    step: int,
    every_n_seconds: float,
    saved_at: int,
    num_workers: int,
) -> None:
    weights, loss, diary = fit([])
    keeper = RunCheckpoint(run_folder, every_n_seconds, before_validation_seconds=every_n_seconds)
    fit([keeper, StopAt(hook, step)], num_workers=num_workers)
    assert load_checkpoint(keeper.path)["global_step"] == saved_at

    resumed = fit([RunCheckpoint(run_folder)], keeper.path, num_workers)

    assert resumed[0] == weights  # bit-equal
    assert resumed[1] == loss
    assert resumed[2] == diary[-len(resumed[2]) :]
    steps = [entry for entry in resumed[2] if isinstance(entry[0], int)]
    assert len(steps) == EPOCHS * STEPS_PER_EPOCH - saved_at


@pytest.mark.parametrize(
    ("hook", "step", "goes_on_at"),
    [
        pytest.param("on_train_batch_start", 1, "epoch 1, step 2", id="in a step"),
        pytest.param("on_train_batch_end", 2, "epoch 1, step 3", id="between two steps"),
        pytest.param("on_before_optimizer_step", 3, "the validation of epoch 1, step 4", id="last"),
        pytest.param("on_validation_start", 4, "the validation of epoch 1, step 4", id="first"),
        pytest.param("on_validation_batch_start", 8, "the validation of epoch 2, step 8", id="val"),
        pytest.param("on_validation_epoch_end", 8, "the validation of epoch 2, step 8", id="eval"),
        pytest.param("on_validation_end", 12, "the validation of epoch 3, step 12", id="drawing"),
        pytest.param("on_train_epoch_end", 8, "epoch 3, step 8", id="epoch's end"),
        pytest.param("on_train_epoch_end", 12, "the test, after epoch 3, step 12", id="the end"),
    ],
)
def test_a_signal_loses_no_finished_step(
    fit: Fit, run_folder: Path, hook: str, step: int, goes_on_at: str
) -> None:
    weights, loss, diary = fit([])
    with Interruption() as interruption:
        keeper = RunCheckpoint(run_folder, 1e9, 1e9, interruption)
        stopped = fit([keeper, CountValidations(), SignalIn(hook, step)])
    assert len(stopped[2]) < len(diary) or goes_on_at.startswith("the test")
    assert position(keeper.path, EPOCHS) == goes_on_at

    counted = CountValidations()
    with Interruption() as interruption:  # and once more, in the first validation that comes
        again = RunCheckpoint(run_folder, 1e9, 1e9, interruption)
        fit([again, CountValidations(), SignalIn("on_validation_batch_start", step)], keeper.path)
    resumed = fit([RunCheckpoint(run_folder), counted], keeper.path)

    assert resumed[0] == weights  # bit-equal
    if resumed[2]:
        assert resumed[1] == loss
        assert resumed[2] == diary[-len(resumed[2]) :]
    assert counted.num == EPOCHS


@pytest.mark.parametrize(("step", "saved_at"), [(3, 3), (4, 3)])
def test_a_step_of_several_batches_is_resumed_whole(
    fit: Fit, run_folder: Path, step: int, saved_at: int
) -> None:
    """Steps of three batches: an epoch of four has two, the second of which has one batch."""
    accumulated = {"accumulate_grad_batches": 3}
    weights, loss, diary = fit([], **accumulated)
    keeper = RunCheckpoint(run_folder, 0, before_validation_seconds=0)
    fit([keeper, StopAt("batch", step)], **accumulated)
    assert load_checkpoint(keeper.path)["global_step"] == saved_at

    resumed = fit([RunCheckpoint(run_folder)], keeper.path, **accumulated)

    assert resumed[:2] == (weights, loss)
    assert resumed[2] == diary[-len(resumed[2]) :]
    assert resumed[2][0][:3] == (1, 3, 3)  # the second epoch's fourth batch


def test_a_finished_run_trains_no_further(fit: Fit, run_folder: Path) -> None:
    keeper = RunCheckpoint(run_folder)
    weights, _, _ = fit([keeper])
    again = RunCheckpoint(run_folder)
    resumed, _, diary = fit([again], keeper.path)
    assert (resumed, diary) == (weights, [])
    assert again.metrics == keeper.metrics
    assert "val/loss" in again.metrics


def test_another_seed_sees_another_order(
    new_datamodule: Callable[..., CatalogDataModule],
) -> None:
    first, second = new_datamodule(), new_datamodule()
    second.seed = 4
    assert list(first.train_dataloader().sampler) != list(second.train_dataloader().sampler)
