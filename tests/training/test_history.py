"""The table of epochs: what it holds, and that an interrupted run writes the same one."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Callback, LightningModule, Trainer

from tests.composing import typed
from tests.training.stopping import StopAt, StoppedError
from visual_search.retrieval.protocols import gallery_query
from visual_search.runs.parts import Parts
from visual_search.runs.run import Run
from visual_search.training.callbacks.history import History
from visual_search.training.callbacks.retrieval import RetrievalEvaluation
from visual_search.training.checkpointing import RunCheckpoint
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.module import EncoderModule
from visual_search.training.trainer import build_trainer

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 4  # 40 training items in batches of 10
EPOCHS = 4


class Losses(Callback):
    """Writes down the loss of every step, as Lightning gives it."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        self.values.append(float(outputs["loss"]))


Fit = Callable[..., Losses]


@pytest.fixture
def fit(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
) -> Fit:
    def run(
        folder: Path, *more: Callback, checkpoint: Path | None = None, **settings: Any
    ) -> Losses:
        losses = Losses()
        trainer = build_trainer(
            folder=folder,
            accelerator="cpu",
            precision="32-true",
            enable_progress_bar=False,
            callbacks=[
                History(),
                RetrievalEvaluation(gallery_query(max_per_category=5), every_n_epochs=2),
                losses,
                *more,
            ],
            **{"max_epochs": EPOCHS, **settings},
        )
        with contextlib.suppress(StoppedError):
            trainer.fit(new_module(), new_datamodule(), ckpt_path=checkpoint)
        return losses

    return run


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics" / "history.csv")


def test_every_epoch_has_a_row_and_retrieval_where_it_was_measured(
    fit: Fit, run_folder: Path
) -> None:
    losses = fit(run_folder)
    table = history(run_folder)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    means = np.reshape(losses.values, (EPOCHS, STEPS_PER_EPOCH)).mean(axis=1)
    np.testing.assert_allclose(table["train/loss"], means, rtol=1e-12)
    assert table["val/loss"].notna().all()
    assert table["val/loss"].is_unique
    measured = [name for name in table.columns if name not in ("epoch", "train/loss", "val/loss")]
    assert {"val/map_at_5", "val/macro_map_at_5", "val/hit_at_1"} <= set(measured)
    assert not [name for name in measured if name.count("/") != 1]  # no column a category
    assert table["val/map_at_5"].notna().tolist() == [False, True, False, True]


def test_epochs_without_validation_have_their_loss_only(fit: Fit, run_folder: Path) -> None:
    fit(run_folder, check_val_every_n_epoch=2)
    table = history(run_folder)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["train/loss"].notna().all()
    assert table["val/loss"].notna().tolist() == [False, True, False, True]


def test_the_sanity_check_is_no_measurement(fit: Fit, tmp_path: Path) -> None:
    fit(tmp_path / "without")
    fit(tmp_path / "with", num_sanity_val_steps=2)
    pd.testing.assert_frame_equal(history(tmp_path / "without"), history(tmp_path / "with"))


def test_a_dry_run_writes_nothing(fit: Fit, run_folder: Path) -> None:
    fit(run_folder, fast_dev_run=True)
    assert not [path for path in run_folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("hook", "step", "every_n_seconds"),
    [
        pytest.param("batch", 6, 0, id="mid-epoch, saved at once"),
        pytest.param("batch", 6, 1e9, id="mid-epoch, saved at the epoch before"),
        pytest.param("batch", 8, 0, id="last batch"),
        pytest.param("validation", 8, 0, id="in validation"),
        pytest.param("epoch", 8, 1e9, id="epoch's end"),
        pytest.param("batch", 16, 0, id="very last batch"),
    ],
)
def test_a_run_that_goes_on_writes_the_same_table(
    fit: Fit, tmp_path: Path, hook: str, step: int, every_n_seconds: float
) -> None:
    fit(tmp_path / "whole")
    cut = tmp_path / "cut"
    keeper = RunCheckpoint(cut, every_n_seconds, before_validation_seconds=every_n_seconds)
    fit(cut, keeper, StopAt(hook, step))
    assert not (cut / "metrics" / "history.csv").exists() or len(history(cut)) < EPOCHS
    fit(cut, RunCheckpoint(cut), checkpoint=keeper.path)
    written = (cut / "metrics" / "history.csv").read_bytes()
    assert written == (tmp_path / "whole" / "metrics" / "history.csv").read_bytes()
    assert not list(cut.rglob(".*.tmp*"))


def test_a_run_keeps_its_history_before_it_saves(tmp_path: Path) -> None:
    parts = Parts(typed("train", "trainer=cpu", f"outputs={tmp_path}"))
    trainer = parts.trainer(Run(tmp_path), RunCheckpoint(tmp_path))
    order = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    assert order.index(History) < order.index(RunCheckpoint)
