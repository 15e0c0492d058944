"""Every experiment end to end, and what is indexed of a network, on a few drawn products."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.composing import typed
from tests.conftest import cache_of
from tests.small_runs import BARE, QUICK, SIZE, SYNTHETIC, places, run_here
from visual_search.config.builders import config_folder
from visual_search.config.schemas import TrainSchema
from visual_search.evaluate import measure_run
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.models.objectives.objective import NoObjective
from visual_search.reports.overviews import overview
from visual_search.runs import parts
from visual_search.runs.finished import Measured
from visual_search.runs.parts import load_module
from visual_search.runs.run import PROJECTION, Run
from visual_search.train import train

pytestmark = pytest.mark.slow

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
STUDY = ("baseline", "plus_layer")  # their networks take 128 px: they see a few pictures
FEW = ("loader.max_items_per_category={train: 2, val: 1, test: 1}", "data.items_per_category=12",
       "loader.batch_size=6")  # fmt: skip
SMALL = {"width": 8, "embedding_dim": 16}
NETWORKS = {
    "residual": SMALL,
    "variational": SMALL,
    "residual_encoder": SMALL,
    "backbone": {"name": "test_resnet", "weights": None, "embedding_dim": 16},
}
PARTICULAR = {
    "masked": ["objective.patch_px=8"],
    "supcon": ["sampler.categories_per_batch=3"],
    "vicreg": ["objective.projection_dim=16"],
    "multi_head": ["objective.columns=[category,colour]"],
    "best_attributes": ["objective.columns=[category,colour]"],
    "best_unsupervised": ["partners.refresh_every_n_epochs=1", "trainer.max_epochs=2"],
}


def of_experiment(folder: Path, name: str) -> TrainSchema:
    size = FEW if name in STUDY else (*SIZE, "loader.batch_size=12")
    given = [*SYNTHETIC, *QUICK, *size, *BARE, *places(folder)]
    config = typed("train", *given, f"experiment={name}", *PARTICULAR.get(name, []))
    config.model |= NETWORKS.get(config.model["_target_"].rpartition(".")[2], {})
    return config


# test_train.py runs the other, with all that is drawn of it.
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "residual"])
def test_an_experiment_runs_and_opens_again(tmp_path: Path, name: str) -> None:
    run = train(of_experiment(tmp_path, name))
    assert run.state == "finished"
    summary = run.summary()
    assert 0 <= summary["micro_map_at_5"] <= 1
    history = pd.read_csv(run.folder / "metrics" / "history.csv")
    assert np.isfinite(history["train/loss"]).all()
    assert ("val/loss" in history) == bool(summary["loss_name"])
    module = load_module(run)
    side = module.preprocessing.image_size_px
    picture = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    with torch.inference_mode():
        assert module(picture).shape == (1, summary["embedding_dim"])
    EmbeddingIndex.load(
        run.folder / "index",
        expected_model_hash=summary["weights"],
        expected_embedding_hash=module.head.fingerprint(),
    )
    if isinstance(module.objective, NoObjective):
        with pytest.raises(RuntimeError, match="opened to embed, not to train"):
            module.objective(module.model, None)  # type: ignore[arg-type]


def test_all_experiments_are_known() -> None:
    assert len(EXPERIMENTS) == 23
    assert set(STUDY) < set(EXPERIMENTS)
    assert set(PARTICULAR) < set(EXPERIMENTS)


@pytest.fixture(scope="module")
def finished(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of a run with a fitted head, in whose folder further measurements gather."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "cache").symlink_to(trained.folder.parents[2] / "cache")
    place = folder / "outputs" / "plain_encoder" / trained.folder.name
    return Run(Path(shutil.copytree(trained.folder, place)))


def evaluate(run: Run, *more: str) -> Measured:
    given = [f"run={run.folder}", cache_of(run), "trainer.accelerator=cpu"]
    quick = ["floors=false", "near_duplicates=false"]
    return measure_run(typed("evaluate", *given, *quick, *more))


def test_a_run_is_measured_after_its_first_weights_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    weights = tmp_path / "first.pt"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    network = ["model=backbone", "model.name=test_resnet", "model.embedding_dim=16"]
    run = run_here(tmp_path, "floors=true", network=[*network, f"model.weights={weights}"])
    names = [floor["name"] for floor in run.summary()["floors"]]
    assert "not_adapted" in names
    weights.unlink()
    measured = evaluate(run, "protocol=leave_one_out", "protocol.k=3", "floors=true")
    assert "first.pt, are gone" in capsys.readouterr().out
    left = [floor["name"] for floor in measured.run.summary()["floors"]]
    assert set(left) == set(names) - {"not_adapted"}


def test_a_run_without_epochs_keeps_its_untrained_network(tmp_path: Path) -> None:
    run = run_here(tmp_path, "floors=true", "trainer.max_epochs=0")
    assert run.summary()["epochs"] == 0
    names = {one["name"] for one in run.summary()["floors"]}
    assert "hog" in names
    assert "untrained" not in names  # it is the run itself
    by_layer = evaluate(run, "embedding.layer=conv3", "embedding.pool=average")
    assert by_layer.run.summary()["num_queries_scored"] == run.summary()["num_queries_scored"]
    started = run_here(tmp_path, f"training.start_from={run.folder}")
    assert started.summary()["epochs"] == 1


def gallery(run: Run) -> Any:
    return np.load(run.folder / "embeddings" / "gallery.npy")


def test_a_run_indexes_what_its_config_says(finished: Run) -> None:
    assert finished.summary()["embedding_dim"] == 8
    found = gallery(finished)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert (finished.folder / PROJECTION).is_file()
    index = finished.folder / "index"
    with pytest.raises(ValueError, match="embedding_hash"):
        EmbeddingIndex.load(index, expected_embedding_hash="0" * 64)


def test_a_finished_run_is_measured_with_another_embedding(finished: Run) -> None:
    other = evaluate(finished, "embedding.layer=conv3", "embedding.pool=average", "embedding.pca=4")
    assert "layer_conv3-pool_average-pca_4" in other.run.folder.name
    assert gallery(other.run).shape[1] == other.run.summary()["embedding_dim"] == 4
    again = evaluate(finished, "embedding.layer=conv3", "embedding.pool=average", "embedding.pca=4")
    assert not again.is_new
    assert again.run.folder == other.run.folder
    # The run's own measurement is found as before, and takes no embedding from the other.
    own = evaluate(finished)
    assert own.run.folder == finished.folder
    left_out = evaluate(finished, "protocol=leave_one_out", "protocol.k=3")
    assert left_out.run.summary()["embedding_dim"] == 8
    names = overview([own, other])["embedding"].tolist()
    assert names == [f"{finished.folder.parent.name}{end}" for end in
                     ("", ", layer=conv3 pool=average pca=4")]  # fmt: skip


def test_another_embedding_is_that_of_the_network(finished: Run) -> None:
    plain = evaluate(finished, "embedding.pca=null", "embedding.whiten=0.0",
                     "embedding.normalize=false")  # fmt: skip
    found = gallery(plain.run)
    assert found.shape[1] == 64
    module = load_module(finished)
    assert module.head.num_features == 64
    np.testing.assert_allclose(module.head.embed(found), gallery(finished), rtol=1e-3, atol=1e-4)


def test_a_lost_projection_is_named(finished: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    shutil.copytree(finished.folder, copy.folder)
    (copy.folder / PROJECTION).unlink()
    with pytest.raises(FileNotFoundError, match=r"embedding\.pca=8; train again with rerun=true"):
        load_module(copy)


# What the network is, what it learns from and what measures it, each against the rest.
IMPOSSIBLE = {
    "whiten 0.5": ["embedding.whiten=0.5"],
    "lion": ["training.optimizer=lion"],
    "augmentation.crp": ["augmentation=light", "+augmentation.crp=1"],
    "pictures.size_px=128": ["model=plus_layer"],
    "loader.batch_size": ["loader.batch_size=0"],
    "loader.num_workers": ["loader.num_workers=-1"],
    "loader.batch_size=8": ["sampler=per_category", "sampler.categories_per_batch=8"],
    "sampler.categories_per_batch=3": ["sampler=per_category", "sampler.categories_per_batch=4"],
    "model=plus_layer": ["model=plain_encoder", "model.width=4", "objective=mse"],
    "'color'": ["objective=cross_entropy", "objective.column=color"],
    "partners.source": ["partners.source=hog"],
    "colr": ["protocol.relevance=[category,colr]"],
    "protocol.k": ["protocol.k=1000"],
    "split.test_fraction": ["split.test_fraction=0"],
    "evaluate_every_n_epochs": ["training.evaluate_every_n_epochs=0"],
    "accumulate_grad_batches": ["trainer.accumulate_grad_batches=0"],
    "start_from": ["training.start_from=nowhere"],
    "'visual-search[mlflow]'": ["logger=mlflow"],
}


@pytest.mark.parametrize("told", IMPOSSIBLE)
def test_settings_that_cannot_work_stop_before_any_picture_and_leave_no_run(
    tmp_path: Path, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "mlflow" in told and importlib.util.find_spec("mlflow"):
        pytest.skip("mlflow is installed here")
    monkeypatch.setattr(parts, "prepare", lambda *args, **kwargs: pytest.fail("pictures"))
    given = [*SYNTHETIC, *QUICK, *SIZE, *BARE, *places(tmp_path), "model=residual"]
    with pytest.raises(ValueError, match=re.escape(told)):
        train(typed("train", *given, *IMPOSSIBLE[told]))
    assert not list(tmp_path.rglob("status.json"))
