"""Callbacks in a real Trainer: the files they leave, and every mode that they have to survive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from visual_search.catalog.cache import Pictures
from visual_search.catalog.catalog import Catalog
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.protocols import (
    cross_domain,
    gallery_query,
    leave_one_out,
    reference_2023,
)
from visual_search.training.callbacks.charts import (
    CategoryChart,
    ClassDistribution,
    FloorChart,
    floor_bar,
)
from visual_search.training.callbacks.feature_maps import FeatureMaps
from visual_search.training.callbacks.progress import Progress
from visual_search.training.callbacks.projection import EmbeddingProjection
from visual_search.training.callbacks.reconstructions import Reconstructions
from visual_search.training.callbacks.retrieval import RetrievalEvaluation
from visual_search.training.callbacks.search_results import SearchResults
from visual_search.training.checkpointing import RunCheckpoint
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.floors import Floors
from visual_search.training.module import EncoderModule
from visual_search.training.trainer import build_trainer

pytestmark = pytest.mark.slow

PROTOCOL = gallery_query(max_per_category=5)

Fit = Callable[..., EncoderModule]


def all_callbacks(folder: Path) -> list[Callback]:
    return [
        RunCheckpoint(folder / "checkpoints"),
        RetrievalEvaluation(
            PROTOCOL,
            every_n_epochs=1,
            floors=Floors(folder / "cache", names=["random", "pixels_8"]),
        ),
        ClassDistribution(),
        CategoryChart(),
        FloorChart(),
        Reconstructions(num_items=4),
        FeatureMaps(num_items=2),
        EmbeddingProjection(),
        SearchResults(num_fixed=3, num_worst=2),
        Progress(),
    ]


@pytest.fixture
def fit(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> Fit:
    def run(*, test: bool = True, logger: bool = True, **settings: Any) -> EncoderModule:
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
        "floors.png",
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
    wanted |= {"val/macro_map_at_5", "test/ndcg_at_5"}
    wanted |= {"floor/map_at_5/random", "floor/map_at_5/pixels_8"}
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
    assert [floor.name for floor in evaluation.floors] == ["random", "pixels_8"]
    assert set(evaluation.report.summary["intervals"]) == {"micro", "macro"}
    # Three plain colours: even a network of two epochs tells them apart better than chance.
    assert evaluation.report.summary["micro_map_at_5"] > 0.5
    assert events.Scalars("test/map_at_5")[-1].value == pytest.approx(
        evaluation.report.summary["micro_map_at_5"]
    )


def test_the_floors_of_the_validation_queries_are_measured_once(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []
    asked: list[int] = []
    measure = Floors.measure

    def counted(self: Floors, *given: Any, **settings: Any) -> Any:
        asked.append(len(given[3].query_rows))
        return measure(self, *given, **settings)

    class Look(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append([floor.name for floor in pl_module.evaluation.floors])

    monkeypatch.setattr(Floors, "measure", counted)
    floors = Floors(run_folder / "cache", names=["random", "pixels_8"])
    evaluation = RetrievalEvaluation(PROTOCOL, every_n_epochs=1, floors=floors)
    trainer = build_trainer(
        folder=run_folder,
        callbacks=[evaluation, Look()],
        loggers=[],
        max_epochs=3,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    datamodule = new_datamodule()
    trainer.fit(new_module(), datamodule)
    assert seen == [["random", "pixels_8"]] * 3
    assert asked == [len(datamodule.rows("val"))]


@pytest.mark.parametrize(("protocol", "mean"), [(PROTOCOL, "micro"), (reference_2023(), "macro")])
def test_a_floor_is_drawn_at_the_mean_that_the_verdict_is_about(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
    protocol: Protocol,
    mean: str,
) -> None:
    module = evaluated(new_module(), new_datamodule(), run_folder, protocol)
    assert module.evaluation is not None
    report, headline = module.evaluation.report, module.evaluation.report.summary["headline"]
    bar = floor_bar("this run", report, is_run=True)
    ends = report.summary["intervals"][mean]
    assert bar["value"] == report.summary[f"{mean}_{headline['mean']}"]
    assert (bar["low"], bar["high"]) == (ends["low"], ends["high"])


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
        pytest.param({"limit_test_batches": 1}, id="limited test"),
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
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    seen: list[tuple[int, bool]] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append((trainer.current_epoch, pl_module.evaluation is not None))

    trainer = build_trainer(
        folder=run_folder, max_epochs=5, accelerator="cpu", enable_progress_bar=False,
        callbacks=[RetrievalEvaluation(PROTOCOL, every_n_epochs=2), Look()],
    )  # fmt: skip
    trainer.fit(new_module(), new_datamodule())
    assert seen == [(0, False), (1, True), (2, False), (3, True), (4, False)]


def test_named_items_are_drawn_and_unknown_ones_refused(
    new_module: Callable[[], EncoderModule],
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


def evaluated(
    module: EncoderModule, datamodule: CatalogDataModule, folder: Path, protocol: Protocol,
    **settings: Any,
) -> EncoderModule:  # fmt: skip
    """A module that was trained for an epoch and tested by a protocol."""
    trainer = build_trainer(
        folder=folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False,
        callbacks=[RetrievalEvaluation(protocol, every_n_epochs=1), CategoryChart(),
                   SearchResults(), ClassDistribution()],
        **settings,
    )  # fmt: skip
    trainer.fit(module, datamodule)
    trainer.test(module, datamodule, verbose=False)
    return module


def without(datamodule: CatalogDataModule, split: str) -> CatalogDataModule:
    rows = np.flatnonzero(datamodule.catalog.table["split"].to_numpy() != split)
    stored = datamodule.pictures
    pictures = Pictures(stored.path, stored.store_rows[rows], stored.size_px)
    return CatalogDataModule(datamodule.catalog.take(rows), pictures, batch_size=10)


def test_of_many_categories_those_with_most_queries_are_logged_and_all_rated(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visual_search.training.callbacks.retrieval.MAX_LOGGED", 1)
    datamodule = new_datamodule()
    module = evaluated(new_module(), datamodule, run_folder, PROTOCOL)
    assert module.evaluation is not None
    table = module.evaluation.report.per_category
    assert len(table) > 1
    most = table.sort_values(["num_queries_scored", "category"], ascending=[False, True])
    start = "test/map_at_5/"
    logged = [name for name in module.trainer.callback_metrics if name.startswith(start)]
    assert logged == [start + most["category"].iloc[0]]
    assert len(datamodule.ratings) > 1, "the sampler of weak categories needs all of them"


def test_without_validation_items_only_the_test_is_evaluated(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    datamodule = without(new_datamodule(), "val")
    module = evaluated(new_module(), datamodule, run_folder, PROTOCOL)
    assert module.evaluation is not None
    assert module.evaluation.split == "test"


def test_items_that_are_on_both_sides_are_embedded_once(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    module = evaluated(new_module(), new_datamodule(), run_folder, leave_one_out(k=2))
    assert module.evaluation is not None
    np.testing.assert_array_equal(module.evaluation.gallery_rows, module.evaluation.query_rows)
    assert np.isnan(module.evaluation.seconds_per_item)  # the steps had embedded them all


def test_queries_that_are_a_part_of_the_split_are_found_among_its_steps(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    protocol = cross_domain("colour", "blue", "red", k=3, relevance=["category"])
    datamodule = new_datamodule()
    module = evaluated(new_module(), datamodule, run_folder, protocol)
    evaluation = module.evaluation
    assert evaluation is not None
    colours = datamodule.catalog.table["colour"].to_numpy()
    assert set(colours[evaluation.query_rows]) == {"blue"}
    assert set(colours[evaluation.gallery_rows]) == {"red"}
    assert len(evaluation.query_rows) == 3
    # Nothing red is of a blue item's category, so that nothing can be scored.
    assert evaluation.report.summary["num_left_out"] == 3


def test_a_limit_that_shows_no_query_leaves_no_evaluation(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    datamodule = new_datamodule()
    datamodule.batch_size = 1
    asking = datamodule.rows("test")[-1]
    table = datamodule.catalog.table.copy()
    table["asks"] = np.where(table.index == asking, "yes", "no")
    datamodule.catalog = Catalog("one", table, datamodule.catalog.source)
    protocol = cross_domain("asks", "yes", "no", k=3, relevance=["category"])
    # No validation item asks, which cross_domain refuses.
    datamodule = without(datamodule, "val")
    datamodule.batch_size = 1
    whole = evaluated(new_module(), datamodule, run_folder, protocol)
    assert whole.evaluation is not None
    limited = evaluated(new_module(), datamodule, run_folder, protocol, limit_test_batches=2)
    assert limited.evaluation is None


@pytest.mark.parametrize(
    ("protocol", "test", "message"),
    [
        (gallery_query(gallery_splits=["test"]), True, "splits"),
        (gallery_query(gallery="all"), True, "kind"),  # type: ignore[arg-type]
        (gallery_query(k=16, max_per_category=5), True, r"protocol\.k is 16.*15 item"),
        (leave_one_out(k=9), True, r"no val query can find more than 8 of the gallery's 9 item"),
        (gallery_query(relevance=["color"]), True, "did you mean 'colour'"),
        (PROTOCOL, False, r"test split.*split\.test_fraction"),
    ],
)
def test_an_impossible_protocol_is_refused_before_training(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
    protocol: Protocol,
    test: bool,
    message: str,
) -> None:
    datamodule = new_datamodule() if test else without(new_datamodule(), "test")
    trainer = build_trainer(
        folder=run_folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False,
        callbacks=[RetrievalEvaluation(protocol)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        trainer.fit(new_module(), datamodule)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (RetrievalEvaluation, {"protocol": PROTOCOL, "every_n_epochs": 0}, "every_n_epochs"),
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
