"""An interrupted run that goes on gives the numbers and the table of an uninterrupted one."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Callback, LightningModule, Trainer

from tests.composing import typed
from tests.training.conftest import NewDatamodule, NewModule, trainer_in
from tests.training.stopping import At, CountValidations, StoppedError, stop, terminate
from visual_search.retrieval.protocols import gallery_query
from visual_search.runs.parts import Parts
from visual_search.runs.run import Run
from visual_search.training.callbacks.history import History
from visual_search.training.callbacks.retrieval import RetrievalEvaluation
from visual_search.training.checkpointing import (
    Interruption,
    RunCheckpoint,
    Terminated,
    load_checkpoint,
    position,
)
from visual_search.training.module import weights_fingerprint

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 4  # 40 training items in batches of 10
EPOCHS = 3


class Diary(Callback):
    """Writes down which items every step saw, its loss, and every validation."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.losses: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rows = tuple(batch["rows"].tolist())
        self.entries.append((trainer.current_epoch, batch_idx, trainer.global_step, rows))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.entries.append(("validation", trainer.current_epoch, trainer.global_step))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.entries.append(("epoch", trainer.current_epoch, trainer.global_step))


@dataclass
class Fitted:
    """What a run left: weights, validation loss, what it saw, and its table."""

    folder: Path
    weights: str
    loss: float
    diary: Diary

    @property
    def table_file(self) -> Path:
        return self.folder / "metrics" / "history.csv"

    def goes_on_as(self, whole: "Fitted") -> bool:
        """Whether this, a run that went on, ended bit for bit as the other."""
        own = self.diary.entries
        return (
            (self.weights, self.loss) == (whole.weights, whole.loss)
            and own == whole.diary.entries[-len(own) :]
            and self.table_file.read_bytes() == whole.table_file.read_bytes()
        )


Fit = Callable[..., Fitted]


@pytest.fixture(scope="module")
def fit(new_module: NewModule, new_datamodule: NewDatamodule) -> Fit:
    def run(
        folder: Path,
        *callbacks: Callback,
        checkpoint: Path | None = None,
        num_workers: int = 0,
        **settings: Any,
    ) -> Fitted:
        module, diary = new_module(), Diary()
        evaluation = RetrievalEvaluation(gallery_query(max_per_category=5), every_n_epochs=2)
        settings = {"max_epochs": EPOCHS, **settings}
        trainer = trainer_in(folder, History(), evaluation, diary, *callbacks, **settings)
        with contextlib.suppress(StoppedError, Terminated):
            trainer.fit(module, new_datamodule(num_workers), ckpt_path=checkpoint)
        loss = float(trainer.callback_metrics.get("val/loss", float("nan")))
        return Fitted(folder, weights_fingerprint(module.model), loss, diary)

    return run


@pytest.fixture(scope="module")
def whole(fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(tmp_path_factory.mktemp("whole"))


def test_every_epoch_has_a_row_and_retrieval_where_it_was_measured(whole: Fitted) -> None:
    table = pd.read_csv(whole.table_file)
    assert table["epoch"].tolist() == [1, 2, 3]
    means = np.reshape(whole.diary.losses, (EPOCHS, STEPS_PER_EPOCH)).mean(axis=1)
    np.testing.assert_allclose(table["train/loss"], means, rtol=1e-12)
    assert table["val/loss"].notna().all()
    assert table["val/loss"].is_unique
    measured = [name for name in table.columns if name not in ("epoch", "train/loss", "val/loss")]
    assert {"val/map_at_5", "val/macro_map_at_5", "val/hit_at_1"} <= set(measured)
    assert not [name for name in measured if name.count("/") != 1]  # no column a category
    assert table["val/map_at_5"].notna().tolist() == [False, True, False]


def test_epochs_without_validation_have_their_loss_only_and_a_sanity_check_is_none(
    fit: Fit, whole: Fitted, run_folder: Path
) -> None:
    seldom = fit(run_folder / "seldom", num_sanity_val_steps=2, check_val_every_n_epoch=2)
    table, every = (pd.read_csv(run.table_file) for run in (seldom, whole))
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["train/loss"].tolist() == every["train/loss"].tolist()
    assert table["val/loss"].notna().tolist() == [False, True, False]
    assert table["val/loss"][1] == every["val/loss"][1]


@pytest.mark.parametrize(
    ("hook", "step", "every_n_seconds", "saved_at", "num_workers"),
    [
        pytest.param("on_train_batch_end", 6, 0, 6, 2, id="mid-epoch, at once, loader processes"),
        pytest.param("on_train_batch_end", 6, 1e9, 4, 0, id="mid-epoch, at the epoch before"),
        pytest.param("on_validation_end", 8, 0, 8, 0, id="in validation"),
        pytest.param("on_train_epoch_end", 8, 1e9, 8, 0, id="epoch's end"),
        pytest.param("on_train_batch_end", 12, 0, 11, 0, id="very last batch"),
    ],
)
def test_resumed_run_repeats_the_uninterrupted_one(
    fit: Fit,
    whole: Fitted,
    run_folder: Path,
    hook: str,
    step: int,
    every_n_seconds: float,
    saved_at: int,
    num_workers: int,
) -> None:
    keeper = RunCheckpoint(run_folder, every_n_seconds, before_validation_seconds=every_n_seconds)
    cut = fit(run_folder, keeper, At(hook, step, stop), num_workers=num_workers)
    assert load_checkpoint(keeper.path)["global_step"] == saved_at
    assert not cut.table_file.exists() or len(pd.read_csv(cut.table_file)) < EPOCHS

    again = RunCheckpoint(run_folder)
    resumed = fit(run_folder, again, checkpoint=keeper.path, num_workers=num_workers)
    assert resumed.goes_on_as(whole)
    assert len(resumed.diary.losses) == EPOCHS * STEPS_PER_EPOCH - saved_at
    assert not list(run_folder.rglob(".*.tmp*"))


@pytest.mark.parametrize(
    ("hook", "step", "goes_on_at"),
    [
        pytest.param("on_train_batch_start", 1, "epoch 1, step 2", id="in a step"),
        pytest.param("on_before_optimizer_step", 3, "the validation of epoch 1, step 4", id="last"),
        pytest.param("on_validation_start", 4, "the validation of epoch 1, step 4", id="first"),
        pytest.param("on_validation_batch_start", 8, "the validation of epoch 2, step 8", id="val"),
        pytest.param("on_validation_end", 12, "the validation of epoch 3, step 12", id="drawing"),
        pytest.param("on_train_epoch_end", 8, "epoch 3, step 8", id="epoch's end"),
        pytest.param("on_train_epoch_end", 12, "the test, after epoch 3, step 12", id="the end"),
    ],
)
def test_a_signal_loses_no_finished_step(
    fit: Fit, whole: Fitted, run_folder: Path, hook: str, step: int, goes_on_at: str
) -> None:
    def stopped(hook: str, checkpoint: Path | None = None) -> tuple[Fitted, Path]:
        with Interruption() as interruption:
            keeper = RunCheckpoint(run_folder, 1e9, 1e9, interruption)
            signal = CountValidations(), At(hook, step, terminate)
            return fit(run_folder, keeper, *signal, checkpoint=checkpoint), keeper.path

    first, saved = stopped(hook)
    at_the_end = goes_on_at.startswith("the test")
    assert len(first.diary.entries) < len(whole.diary.entries) or at_the_end
    assert position(saved, EPOCHS) == goes_on_at
    stopped("on_validation_batch_start", saved)  # once more, in the first validation that comes
    counted = CountValidations()
    resumed = fit(run_folder, RunCheckpoint(run_folder), counted, checkpoint=saved)
    assert resumed.weights == whole.weights
    assert resumed.table_file.read_bytes() == whole.table_file.read_bytes()
    assert not resumed.diary.entries or resumed.goes_on_as(whole)
    assert counted.num == EPOCHS


def test_a_step_of_several_batches_is_resumed_whole(fit: Fit, tmp_path: Path) -> None:
    """Steps of three batches: an epoch of four has two, the second of which has one batch."""
    accumulated = {"accumulate_grad_batches": 3}
    whole = fit(tmp_path / "whole", **accumulated)
    keeper = RunCheckpoint(tmp_path, 0, before_validation_seconds=0)
    fit(tmp_path, keeper, At("on_train_batch_end", 4, stop), **accumulated)
    assert load_checkpoint(keeper.path)["global_step"] == 3
    resumed = fit(tmp_path, RunCheckpoint(tmp_path), checkpoint=keeper.path, **accumulated)
    assert resumed.goes_on_as(whole)
    assert resumed.diary.entries[0][:3] == (1, 3, 3)  # the second epoch's fourth batch


def test_a_finished_run_trains_no_further(fit: Fit, whole: Fitted, run_folder: Path) -> None:
    keeper, again = RunCheckpoint(run_folder), RunCheckpoint(run_folder)
    assert fit(run_folder, keeper).weights == whole.weights  # saving changes nothing
    resumed = fit(run_folder, again, checkpoint=keeper.path)
    assert (resumed.weights, resumed.diary.entries) == (whole.weights, [])
    assert again.metrics == keeper.metrics
    assert "val/loss" in again.metrics


def test_a_run_keeps_its_history_before_it_saves(tmp_path: Path) -> None:
    parts = Parts(typed("train", "trainer=cpu", f"outputs={tmp_path}"))
    trainer = parts.trainer(Run(tmp_path), RunCheckpoint(tmp_path))
    order = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    assert order.index(History) < order.index(RunCheckpoint)
