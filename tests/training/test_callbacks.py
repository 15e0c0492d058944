"""Callbacks in a real Trainer: the files they leave, and every mode that they have to survive."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from tests.training.conftest import NewDatamodule, NewModule, trainer_in
from visual_search.catalog.cache import Pictures
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
from visual_search.training.callbacks.history import History
from visual_search.training.callbacks.progress import Progress
from visual_search.training.callbacks.projection import EmbeddingProjection
from visual_search.training.callbacks.reconstructions import Reconstructions
from visual_search.training.callbacks.retrieval import RetrievalEvaluation
from visual_search.training.callbacks.search_results import SearchResults
from visual_search.training.checkpointing import RunCheckpoint
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.evaluation import Evaluation, Floor
from visual_search.training.floors import Floors
from visual_search.training.module import EncoderModule
from visual_search.training.pictures import Epochs
from visual_search.training.tensorboard import RunTensorBoard
from visual_search.views.projection import Projection, project_embeddings

pytestmark = pytest.mark.slow

PROTOCOL = gallery_query(max_per_category=5)


class CountedFloors(Floors):
    """Counts the queries that it was asked about, each time."""

    def __init__(self, cache_dir: Path) -> None:
        super().__init__(cache_dir, names=["random", "pixels_8"])
        self.asked: list[int] = []

    def measure(self, *given: Any, **settings: Any) -> tuple[Floor, ...]:
        self.asked.append(len(given[3].query_rows))
        return super().measure(*given, **settings)


def all_callbacks(
    folder: Path, floors: Floors, every_n_epochs: int = 1, **projection: int
) -> list[Callback]:
    return [
        History(),
        RunCheckpoint(folder / "checkpoints"),
        RetrievalEvaluation(PROTOCOL, every_n_epochs=every_n_epochs, floors=floors),
        ClassDistribution(),
        CategoryChart(),
        FloorChart(),
        Reconstructions(num_items=2, every_n_epochs=2 * every_n_epochs - 1),
        FeatureMaps(num_items=1),
        EmbeddingProjection(**projection),
        SearchResults(num_fixed=2, num_worst=1),
        Progress(),
    ]


@dataclass
class WholeRun:
    """What a run left and every validation found, by its epoch."""

    folder: Path
    seen: dict[int, Evaluation | None]
    asked: list[int]
    evaluation: Evaluation
    projected: dict[str, Any]


@pytest.fixture(scope="module")
def whole(
    new_module: NewModule, new_datamodule: NewDatamodule, tmp_path_factory: pytest.TempPathFactory
) -> WholeRun:
    """Four epochs, evaluated at every second one, and the test."""
    folder = tmp_path_factory.mktemp("whole") / "coloured" / "0123456789"
    floors, module, datamodule = CountedFloors(folder / "cache"), new_module(), new_datamodule()
    seen: dict[int, Evaluation | None] = {}

    def look(trainer: Trainer, module: Any) -> None:
        seen[trainer.current_epoch] = module.evaluation

    trainer = trainer_in(
        folder,
        *all_callbacks(folder, floors, every_n_epochs=2, max_items=12, num_neighbours=5),
        LambdaCallback(on_validation_end=look),
        max_epochs=4,
        enable_progress_bar=True,
        loggers=[RunTensorBoard(str(folder / "tensorboard")), CSVLogger(folder, "csv", "")],
    )
    projected: dict[str, Any] = {}

    def note(embeddings: Any, **given: Any) -> Projection:
        projected.update(given, embeddings=embeddings)
        return project_embeddings(embeddings, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visual_search.training.callbacks.projection.project_embeddings", note)
        trainer.fit(module, datamodule)
        trainer.test(module, datamodule, verbose=False)
    assert module.evaluation is not None
    return WholeRun(folder, seen, floors.asked, module.evaluation, projected)


def test_a_run_leaves_every_picture_and_number(whole: WholeRun) -> None:
    drawn = whole.folder / "figures"
    assert {str(path.relative_to(drawn)) for path in drawn.rglob("*.png")} == {
        "class_distribution.png",
        "feature_maps/item_1.png",
        "floors.png",
        "map_at_5_by_category/test.png",
        "map_at_5_by_category/val.png",
        "projection.png",
        *("reconstructions/epoch_0003.png", "reconstructions/epoch_0004.png"),  # the last, too
        "search_results/fixed.png",
        "search_results/worst.png",
    }
    evaluation = whole.evaluation
    assert evaluation.split == "test"
    assert (len(evaluation.gallery_rows), len(evaluation.query_rows)) == (15, 9)
    assert [floor.name for floor in evaluation.floors] == ["random", "pixels_8"]
    assert set(evaluation.report.summary["intervals"]) == {"micro", "macro"}
    # Three plain colours: even a network of few epochs tells them apart better than chance.
    micro = evaluation.report.summary["micro_map_at_5"]
    assert micro > 0.5
    # What is measured once is no curve, but any other logger has it.
    written = pd.read_csv(whole.folder / "csv" / "metrics.csv")
    assert written["test/map_at_5"].dropna().tolist() == pytest.approx([micro])
    assert {"test/loss", "test/ndcg_at_5", "floor/map_at_5/random"} <= set(written)


def test_tensorboard_shows_the_run_by_its_name_and_curves_before_pictures(whole: WholeRun) -> None:
    (file,) = {path.parent for path in (whole.folder / "tensorboard").rglob("events.*")}
    assert file == whole.folder / "tensorboard" / "coloured" / "0123456789"
    every = {"images": 0}  # it keeps four of them otherwise
    events = EventAccumulator(str(file), size_guidance=every).Reload()
    curves, images = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    by_category = {f"val/map_at_5/{category}" for category in ("Hats", "Shoes", "T-shirt/top")}
    assert {"train/loss", "val/loss", "val/map_at_5", "val/macro_map_at_5"} | by_category <= curves
    assert {name.split("/")[0] for name in curves} == {"train", "val", "val_floor"}
    assert min(images) > max(curves), "TensorBoard sorts its groups by name"
    assert {"views/reconstructions", "views/projection", "views/search_results/worst"} <= images
    assert len(events.Images("views/reconstructions")) == 2
    (projection,) = events.Images("views/projection")
    drawn = whole.folder / "figures" / "projection.png"
    assert projection.encoded_image_string == drawn.read_bytes()
    assert (projection.width, projection.height) == Image.open(drawn).size
    assert len(events.Scalars("val/map_at_5")) == 2
    # The best floor is a line from the first step to the last.
    (floor,) = (name for name in curves if name.startswith("val_floor/map_at_5/"))
    line = events.Scalars(floor)
    assert [point.step for point in line] == [0, *(p.step for p in events.Scalars("val/map_at_5"))]
    floors = pd.read_csv(whole.folder / "metrics" / "val_floors.csv")
    assert {point.value for point in line} == {np.float32(floors["value"].max())}
    newest = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    shown = [
        {name for name in curves for tag in chart.multiline.tag if re.match(tag, name)}
        for part in Layout.FromString(newest).category
        for chart in part.chart
    ]
    assert shown == [{"train/loss", "val/loss"}, {"val/map_at_5", floor}, by_category]


def test_a_run_that_began_without_a_name_in_tensorboard_goes_on_there(tmp_path: Path) -> None:
    folder = tmp_path / "coloured" / "0123456789" / "tensorboard"
    assert Path(RunTensorBoard(str(folder)).log_dir) == folder / "coloured" / "0123456789"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").touch()
    assert Path(RunTensorBoard(str(folder)).log_dir) == folder


@pytest.mark.parametrize(
    ("every_n_epochs", "measured", "drawn"),
    [
        (None, range(1, 53), [1, 2, 5, 10, 20, 50]),
        (None, range(3, 40, 3), [3, 6, 12, 21]),  # the next that is measured
        (None, [100, 200], [100, 200]),
        (4, range(1, 13), [4, 8, 12]),
        (1, [7, 8], [7, 8]),
    ],
)
def test_pictures_are_drawn_after_ever_fewer_epochs(
    every_n_epochs: int | None, measured: Iterable[int], drawn: list[int]
) -> None:
    epochs, trainer = Epochs(every_n_epochs), SimpleNamespace(current_epoch=0)
    found = []
    for epoch in measured:
        trainer.current_epoch = epoch - 1
        found += [epoch] * epochs.is_due(trainer)  # type: ignore[arg-type]
    assert found == drawn
    assert epochs.is_last_missing() == (max(measured) != drawn[-1])


def test_evaluations_come_every_n_epochs_over_one_gallery(whole: WholeRun) -> None:
    assert sorted(whole.seen) == [0, 1, 2, 3]
    first, second = (found for found in whole.seen.values() if found is not None)
    assert (whole.seen[1], whole.seen[3]) == (first, second)
    # The floors of the validation queries are measured once, those of the test's beside them.
    assert [floor.name for floor in second.floors] == ["random", "pixels_8"]
    assert whole.asked == [len(first.query_rows), len(whole.evaluation.query_rows)]
    # The last validation and the test are of the same weights: the gallery is embedded once.
    assert whole.evaluation.seconds_per_item == second.seconds_per_item
    np.testing.assert_array_equal(second.gallery_embeddings, whole.evaluation.gallery_embeddings)
    # The gallery does not depend on the weights.
    for other in (second, whole.evaluation):
        np.testing.assert_array_equal(first.gallery_rows, other.gallery_rows)
        assert not np.array_equal(first.gallery_embeddings, other.gallery_embeddings)


def test_the_projector_shows_gallery_items_evenly_spaced(whole: WholeRun) -> None:
    folder = whole.folder / "tensorboard" / "coloured" / "0123456789"
    assert (folder / "projector_config.pbtxt").is_file()
    (tensors,) = folder.glob("gallery_*/tensors.tsv")
    (wide,) = folder.glob("gallery_embedding/*.bytes")
    embeddings = np.fromfile(wide, np.float32).reshape(12, -1)
    np.testing.assert_array_equal(embeddings, whole.projected["embeddings"])
    metadata = pd.read_csv(tensors.with_name("metadata.tsv"), sep="\t")
    assert len(metadata) == len(tensors.read_text().splitlines()) == 12
    assert {"item_id", "category", "colour"} <= set(metadata.columns)
    file = whole.folder / "embeddings" / "projection.parquet"
    assert pq.read_schema(file).names == ["item_id", "x", "y", "z"]
    points = pd.read_parquet(file)
    assert points["item_id"].tolist() == metadata["item_id"].tolist()
    spread = whole.evaluation.gallery_rows[np.linspace(0, 14, 12, dtype=int)]
    assert points["item_id"].tolist() == [f"item-{row:02d}" for row in spread]


def test_a_projection_gets_the_distances_to_the_nearest_others(whole: WholeRun) -> None:
    embeddings = whole.projected["embeddings"]
    apart = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    rows, distances = whole.projected["neighbours"]
    nearest = np.sort(apart + np.diag(np.full(12, np.inf)), axis=1)[:, :4]
    np.testing.assert_allclose(distances, nearest, rtol=1e-3)
    np.testing.assert_allclose(np.take_along_axis(apart, rows, axis=1), nearest, rtol=1e-3)


LIMITS = {"limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}


@pytest.mark.parametrize(
    "settings",
    [{"fast_dev_run": True}, {"overfit_batches": 2}, {"num_sanity_val_steps": 2} | LIMITS],
    ids=["fast_dev_run", "overfit_batches", "limits and the sanity check"],
)
def test_every_mode_of_the_trainer_is_survived_without_a_logger(
    new_module: NewModule,
    new_datamodule: NewDatamodule,
    run_folder: Path,
    settings: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    module, datamodule = new_module(), new_datamodule()
    callbacks = all_callbacks(run_folder, CountedFloors(run_folder / "cache"))
    trainer = trainer_in(run_folder, *callbacks, enable_progress_bar=True, **settings)
    trainer.fit(module, datamodule)
    trainer.test(module, datamodule, verbose=False)
    files = [path for path in run_folder.rglob("*") if path.is_file()]
    dry = "fast_dev_run" in settings
    assert (module.evaluation is None) == dry == (not files)  # a dry run leaves nothing
    # No terminal: a line an epoch, retrieval before losses, and nothing of a step that is short.
    printed, beside = capfd.readouterr()
    (line,) = printed.splitlines()
    assert line.startswith("Epoch 1/1  " + ("loss " if dry else "mAP@5 "))
    assert len(line) <= 80
    assert ("best floor" in line, "val 0." in line) == (not dry, True)
    assert not beside


@pytest.fixture
def tested(new_module: NewModule, run_folder: Path) -> Callable[..., EncoderModule]:
    """Returns a module whose network was validated and tested by a protocol, untrained."""

    def run(
        datamodule: CatalogDataModule, protocol: Protocol, *drawing: Callback, **settings: Any
    ) -> EncoderModule:
        module, evaluation = new_module(), RetrievalEvaluation(protocol, every_n_epochs=1)
        trainer = trainer_in(run_folder, evaluation, *drawing, **settings)
        if len(datamodule.rows("val")):
            trainer.validate(module, datamodule, verbose=False)
            assert module.evaluation is not None
        trainer.test(module, datamodule, verbose=False)
        return module

    return run


def without(datamodule: CatalogDataModule, split: str) -> CatalogDataModule:
    rows = np.flatnonzero(datamodule.catalog.table["split"].to_numpy() != split)
    stored = datamodule.pictures
    pictures = Pictures(stored.path, stored.store_rows[rows], stored.size_px)
    return CatalogDataModule(datamodule.catalog.take(rows), pictures, batch_size=10)


Tested = Callable[..., EncoderModule]


def test_named_items_are_drawn_and_unknown_ones_refused(
    tested: Tested, new_datamodule: NewDatamodule, run_folder: Path
) -> None:
    tested(new_datamodule(), PROTOCOL, FeatureMaps(item_ids=["item-50"]))
    assert [p.name for p in run_folder.rglob("*.png")] == ["item_1.png"]
    with pytest.raises(ValueError, match=r"nobody.*callbacks\.feature_maps\.item_ids"):
        tested(new_datamodule(), PROTOCOL, FeatureMaps(item_ids=["nobody"]))


def test_of_many_categories_those_with_most_queries_are_logged_and_all_rated(
    tested: Tested,
    whole: WholeRun,
    new_datamodule: NewDatamodule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visual_search.training.callbacks.retrieval.MAX_LOGGED", 1)
    datamodule = new_datamodule()
    module = tested(datamodule, reference_2023())
    assert module.evaluation is not None
    table = module.evaluation.report.per_category
    assert len(table) > 1
    most = table.sort_values(["num_queries_scored", "category"], ascending=[False, True])
    start = f"test/{module.evaluation.report.summary['headline']['mean']}/"
    logged = [name for name in module.trainer.callback_metrics if name.startswith(start)]
    assert logged == [start + most["category"].iloc[0]]
    assert len(datamodule.ratings) > 1, "the sampler of weak categories needs all of them"
    # A floor is drawn at the mean that the verdict is about.
    for evaluation, mean in ((whole.evaluation, "micro"), (module.evaluation, "macro")):
        summary = evaluation.report.summary
        bar, ends = floor_bar("this run", evaluation.report, is_run=True), summary["intervals"]
        assert bar["value"] == summary[f"{mean}_{summary['headline']['mean']}"]
        assert (bar["low"], bar["high"]) == (ends[mean]["low"], ends[mean]["high"])


def test_items_that_are_on_both_sides_are_embedded_once(
    tested: Tested, new_datamodule: NewDatamodule
) -> None:
    evaluation = tested(new_datamodule(), leave_one_out(k=2)).evaluation
    assert evaluation is not None
    np.testing.assert_array_equal(evaluation.gallery_rows, evaluation.query_rows)
    assert np.isnan(evaluation.seconds_per_item)  # the steps had embedded them all


def test_queries_that_are_a_part_of_the_split_are_found_among_its_steps(
    tested: Tested, new_datamodule: NewDatamodule
) -> None:
    datamodule = new_datamodule()
    protocol = cross_domain("colour", "blue", "red", k=3, relevance=["category"])
    drawing = CategoryChart(), SearchResults(), ClassDistribution()  # of what cannot be scored
    evaluation = tested(datamodule, protocol, *drawing).evaluation
    assert evaluation is not None
    colours = datamodule.catalog.table["colour"].to_numpy()
    assert set(colours[evaluation.query_rows]) == {"blue"}
    assert set(colours[evaluation.gallery_rows]) == {"red"}
    assert len(evaluation.query_rows) == 3
    # Nothing red is of a blue item's category, so that nothing can be scored.
    assert evaluation.report.summary["num_left_out"] == 3


def test_a_limit_that_shows_no_query_leaves_no_evaluation(
    tested: Tested, new_module: NewModule, new_datamodule: NewDatamodule, run_folder: Path
) -> None:
    datamodule = without(new_datamodule(), "val")  # in which nothing would ask
    table = datamodule.catalog.table
    asks = np.where(table.index == datamodule.rows("test")[-1], "yes", "no")
    datamodule.catalog = replace(datamodule.catalog, table=table.assign(asks=asks))
    datamodule.batch_size = 1
    protocol = cross_domain("asks", "yes", "no", k=3, relevance=["category"])
    drawing = CategoryChart(), SearchResults(), ClassDistribution()
    module = tested(datamodule, protocol)
    assert module.evaluation is not None
    assert module.evaluation.split == "test"
    assert tested(datamodule, protocol, *drawing, limit_test_batches=2).evaluation is None
    trained = new_module()  # without validation items a training evaluates nothing
    trainer = trainer_in(run_folder, RetrievalEvaluation(protocol, every_n_epochs=1))
    trainer.fit(trained, datamodule)
    assert trained.evaluation is None


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (gallery_query(gallery_splits=["test"]), "splits"),
        (gallery_query(gallery="all"), "kind"),  # type: ignore[arg-type]
        (gallery_query(k=16, max_per_category=5), r"protocol\.k is 16.*15 item"),
        (leave_one_out(k=9), "no val query .* 8 .* 9 item"),
        (gallery_query(relevance=["color"]), "'colour'"),
        (PROTOCOL, r"test split.*split\.test_fraction"),
    ],
)
def test_an_impossible_protocol_is_refused_before_training(
    new_module: NewModule, new_datamodule: NewDatamodule, protocol: Protocol, message: str
) -> None:
    datamodule = new_datamodule()
    if protocol is PROTOCOL:
        datamodule = without(datamodule, "test")
    trainer = trainer_in(Path(), RetrievalEvaluation(protocol))
    with pytest.raises(ValueError, match=message):
        trainer.fit(new_module(), datamodule)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("callback", "setting", "message"),
    [
        (partial(RetrievalEvaluation, PROTOCOL), "every_n_epochs", ""),
        (Reconstructions, "num_items", r"callbacks\.reconstructions"),
        (Reconstructions, "every_n_epochs", r"callbacks\.reconstructions"),
        (CategoryChart, "every_n_epochs", r"callbacks\.category_chart"),
        (FeatureMaps, "num_items", r"callbacks\.feature_maps"),
        (EmbeddingProjection, "max_items", r"callbacks\.projection"),
        (SearchResults, "num_worst", r"callbacks\.search_results"),
    ],
)
def test_impossible_settings_are_refused(
    callback: Callable[..., Callback], setting: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{setting} 0.*{message}"):
        callback(**{setting: 0})
