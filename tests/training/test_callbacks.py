"""Callbacks in a real Trainer: the files they leave, and every mode that they have to survive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from visual_search.training.callbacks.charts import CategoryChart, ClassDistribution
from visual_search.training.callbacks.feature_maps import FeatureMaps
from visual_search.training.callbacks.progress import Progress
from visual_search.training.callbacks.projection import EmbeddingProjection
from visual_search.training.callbacks.reconstructions import Reconstructions
from visual_search.training.callbacks.retrieval import RetrievalEvaluation
from visual_search.training.callbacks.search_results import SearchResults
from visual_search.training.checkpointing import RunCheckpoint
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.module import AutoencoderModule
from visual_search.training.trainer import build_trainer

pytestmark = pytest.mark.slow

GALLERY: dict[str, Any] = {
    "kind": "per_category", "max_per_category": 5, "num_items": None, "splits": ["train"], "seed": 0
}  # fmt: skip

Fit = Callable[..., AutoencoderModule]


def all_callbacks(folder: Path) -> list[Callback]:
    return [
        RunCheckpoint(folder / "checkpoints"),
        RetrievalEvaluation(k=5, gallery=GALLERY, every_n_epochs=1),
        ClassDistribution(),
        CategoryChart(),
        Reconstructions(num_items=4),
        FeatureMaps(num_items=2),
        EmbeddingProjection(),
        SearchResults(num_fixed=3, num_worst=2),
        Progress(),
    ]


@pytest.fixture
def fit(
    new_module: Callable[[], AutoencoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> Fit:
    def run(*, test: bool = True, logger: bool = True, **settings: Any) -> AutoencoderModule:
        module, datamodule = new_module(), new_datamodule()
        loggers = [TensorBoardLogger(run_folder / "tensorboard", name="", version="")]
        trainer = build_trainer(
            folder=run_folder,
            accelerator="cpu",
            callbacks=all_callbacks(run_folder),
            loggers=loggers if logger else [],
            **{"max_epochs": 2, "precision": "32-true", **settings},
        )
        trainer.fit(module, datamodule)
        if test:
            trainer.test(module, datamodule, verbose=False)
        return module

    return run


def test_a_run_leaves_every_picture_and_number(fit: Fit, run_folder: Path) -> None:
    module = fit()
    figures = {
        str(p.relative_to(run_folder / "figures")) for p in run_folder.rglob("figures/**/*.png")
    }
    assert figures == {
        "class_distribution.png",
        "feature_maps/item_1.png",
        "feature_maps/item_2.png",
        "map_at_5_by_category/test.png",
        "map_at_5_by_category/val.png",
        "projection.png",
        "reconstructions/epoch_0001.png",
        "reconstructions/epoch_0002.png",
        "search_results/fixed.png",
        "search_results/worst.png",
    }
    events = EventAccumulator(str(run_folder / "tensorboard")).Reload()
    scalars = events.Tags()["scalars"]
    wanted = {"train/loss", "val/loss", "test/loss", "val/map_at_5", "test/map_at_5"}
    wanted |= {f"val/map_at_5/{category}" for category in ("Hats", "Shoes", "T-shirt/top")}
    assert wanted <= set(scalars)
    assert len(events.Scalars("val/map_at_5")) == 2
    images = set(events.Tags()["images"])
    assert {"reconstructions", "projection", "search_results/worst"} <= images
    assert len(events.Images("reconstructions")) == 2
    evaluation = module.evaluation
    assert evaluation is not None
    assert evaluation.split == "test"
    assert len(evaluation.gallery_rows) == 15
    assert len(evaluation.query_rows) == 9
    # Three plain colours: even a network of two epochs tells them apart better than chance.
    assert evaluation.report.summary["micro_map_at_5"] > 0.5
    assert events.Scalars("test/map_at_5")[-1].value == pytest.approx(
        evaluation.report.summary["micro_map_at_5"]
    )


def test_the_projector_shows_every_gallery_item(fit: Fit, run_folder: Path) -> None:
    fit()
    folder = run_folder / "tensorboard"
    assert (folder / "projector_config.pbtxt").is_file()
    tensors = list(folder.glob("gallery_*/tensors.tsv"))
    assert len(tensors) == 1
    metadata = pd.read_csv(tensors[0].with_name("metadata.tsv"), sep="\t")
    assert len(metadata) == len(tensors[0].read_text().splitlines()) == 15
    assert {"item_id", "category", "colour"} <= set(metadata.columns)
    points = pd.read_parquet(run_folder / "embeddings" / "projection.parquet")
    assert list(points.columns) == ["item_id", "x", "y", "z"]
    assert set(points["item_id"]) == set(metadata["item_id"])


def test_the_gallery_does_not_depend_on_the_weights(fit: Fit) -> None:
    first, second = fit(max_epochs=1).evaluation, fit(max_epochs=2).evaluation
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.gallery_rows, second.gallery_rows)
    assert not np.array_equal(first.gallery_embeddings, second.gallery_embeddings)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"fast_dev_run": True}, id="fast_dev_run"),
        pytest.param({"overfit_batches": 2}, id="overfit_batches"),
        pytest.param({"limit_train_batches": 1, "limit_val_batches": 1}, id="limits"),
        pytest.param({"num_sanity_val_steps": 2}, id="sanity check"),
        pytest.param({"logger": False}, id="no logger"),
        pytest.param({"enable_progress_bar": True, "max_epochs": 1}, id="progress bar"),
    ],
)
def test_every_mode_of_the_trainer_is_survived(fit: Fit, settings: dict[str, Any]) -> None:
    module = fit(**settings)
    assert (module.evaluation is None) == ("fast_dev_run" in settings)


def test_a_dry_run_leaves_nothing(fit: Fit, run_folder: Path) -> None:
    fit(fast_dev_run=True, logger=False)
    assert not [path for path in run_folder.rglob("*") if path.is_file()]


def test_evaluations_come_every_n_epochs(
    new_module: Callable[[], AutoencoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    seen: list[tuple[int, bool]] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append((trainer.current_epoch, pl_module.evaluation is not None))

    trainer = build_trainer(
        folder=run_folder, max_epochs=5, accelerator="cpu", enable_progress_bar=False,
        callbacks=[RetrievalEvaluation(k=5, gallery=GALLERY, every_n_epochs=2), Look()],
    )  # fmt: skip
    trainer.fit(new_module(), new_datamodule())
    assert seen == [(0, False), (1, True), (2, False), (3, True), (4, False)]


def test_named_items_are_drawn_and_unknown_ones_refused(
    new_module: Callable[[], AutoencoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    def draw(item_ids: list[str]) -> None:
        trainer = build_trainer(
            folder=run_folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False,
            callbacks=[FeatureMaps(item_ids=item_ids)],
        )  # fmt: skip
        trainer.test(new_module(), new_datamodule(), verbose=False)

    draw(["item-50"])
    assert [p.name for p in run_folder.rglob("*.png")] == ["item_1.png"]
    with pytest.raises(ValueError, match=r"nobody.*callbacks\.feature_maps\.item_ids"):
        draw(["nobody"])


@pytest.mark.parametrize(
    ("gallery", "k", "test", "message"),
    [
        ({**GALLERY, "splits": ["test"]}, 5, True, "splits"),
        ({**GALLERY, "kind": "all"}, 5, True, "kind"),
        (GALLERY, 16, True, r"protocol\.k is 16.*15 item"),
        (GALLERY, 5, False, r"test split.*split\.test_fraction"),
    ],
)
def test_an_impossible_protocol_is_refused_before_training(
    new_module: Callable[[], AutoencoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
    gallery: dict[str, Any],
    k: int,
    test: bool,
    message: str,
) -> None:
    datamodule = new_datamodule()
    if not test:
        rows = np.flatnonzero(datamodule.catalog.table["split"].to_numpy() != "test")
        datamodule.catalog = datamodule.catalog.take(rows)
    trainer = build_trainer(
        folder=run_folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False,
        callbacks=[RetrievalEvaluation(k=k, gallery=gallery)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        trainer.fit(new_module(), datamodule)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (RetrievalEvaluation, {"k": 5, "gallery": GALLERY, "every_n_epochs": 0}, "every_n_epochs"),
        (Reconstructions, {"num_items": 0}, "num_items 0"),
        (FeatureMaps, {"num_items": 0}, "num_items 0"),
        (EmbeddingProjection, {"max_items": 0}, "max_items 0"),
        (SearchResults, {"num_worst": 0}, "num_worst 0"),
    ],
)
def test_impossible_settings_are_refused(
    callback: Callable[..., Callback], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        callback(**arguments)
