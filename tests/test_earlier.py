"""Runs, a comparison, a compression and a bundle of before the house was rebuilt.

``data/earlier`` was made by the commands below at the commit "What a run saved is read by one
door", without pages, figures and curves: two epochs of an autoencoder and of a classifier on 48
drawn products, and a bundle to which a picture was added and from which an item was removed.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.composing import typed
from visual_search.bundle.bundle import Bundle
from visual_search.compare import compare_runs
from visual_search.compress import compress_run
from visual_search.evaluate import measure_run
from visual_search.index import change_bundle
from visual_search.runs import parts
from visual_search.runs.parts import Parts, load_module
from visual_search.runs.run import Run
from visual_search.search import search_bundle
from visual_search.train import train

EARLIER = Path(__file__).parent / "data" / "earlier"
SMALL = (
    "data=synthetic", "data.items_per_category=16", "data.categories=[Dresses,Shoes,Hats]",
    "data.image_size_px=32", "pictures.size_px=32", "split.val_fraction=0.25",
    "split.test_fraction=0.25", "trainer=cpu", "trainer.precision=32-true",
    "trainer.enable_progress_bar=false", "trainer.max_epochs=2",
    "training.evaluate_every_n_epochs=1", "loader.batch_size=12", "callbacks=none", "logger={}",
    "model.width=2", "model.embedding_dim=16",
    "split=hash",  # which was the default
)  # fmt: skip
RUNS = {
    "residual": ["experiment=residual"],
    "cross_entropy": ["experiment=cross_entropy", "model=residual_encoder", "name=cross_entropy"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of what was left, in which commands are typed."""
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(name: str) -> Any:
    return typed("train", *RUNS[name], *SMALL)


def run_of(name: str) -> Run:
    return Run(next(Path("outputs", name).iterdir()))


@pytest.mark.parametrize("name", RUNS)
def test_the_same_command_finds_the_run_and_prepares_no_picture(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "prepare", lambda *args, **kwargs: pytest.fail("pictures"))
    own = run_of(name)
    assert train(settings(name)).folder == own.folder
    read = own.settings()
    # What changes no result: another class that logs, and a key that says on how many nodes.
    since = {"logger": settings(name).logger, "trainer": read.trainer | {"num_nodes": "auto"}}
    assert dataclasses.replace(read, **since) == settings(name)


@pytest.mark.slow
def test_the_default_split_of_today_names_the_run_of_before(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    today = [one for one in SMALL if one != "split=hash"]
    asked = [*RUNS["residual"], *today, "split.allow_few=true", "trainer.max_epochs=2"]
    run = train(typed("train", *asked, "floors=false", "near_duplicates=false"))
    assert run.folder != run_of("residual").folder or run.state == "finished"
    before = next(one for one in run.folder.parent.iterdir() if one != run.folder)
    assert f"{before} is the same with split=hash" in capsys.readouterr().out


@pytest.mark.parametrize("name", RUNS)
def test_its_network_gives_the_embeddings_that_were_saved(here: Path, name: str) -> None:
    module, cached = load_module(run_of(name)), Parts(settings(name)).cached
    folder = run_of(name).folder / "embeddings"
    for side in ("gallery", "queries"):
        ids = pd.read_parquet(folder / f"{side}.parquet")["item_id"]
        rows = pd.Index(cached.catalog.table["item_id"]).get_indexer(ids)
        with torch.inference_mode():
            features = module.features(torch.from_numpy(cached.pictures[rows]))
        found = module.head.embed(features.numpy())
        np.testing.assert_allclose(found, np.load(folder / f"{side}.npy"), rtol=0, atol=1e-5)


def test_its_evaluation_is_found(here: Path) -> None:
    run = run_of("residual").folder
    measured = measure_run(typed("evaluate", f"run={run}", "protocol=leave_one_out"))
    assert not measured.is_new
    assert [measured.run.folder] == list((run / "evaluations").iterdir())


def test_they_compare_as_they_did(here: Path) -> None:
    runs = ",".join(str(run_of(name).folder) for name in RUNS)
    compared = compare_runs(typed("compare", f"runs=[{runs}]", "out=again"))
    assert not compared.without_pictures
    for path in Path("comparison").glob("*.csv"):
        now, before = pd.read_csv(Path("again", path.name)), pd.read_csv(path)
        pd.testing.assert_frame_equal(now, before, rtol=1e-9)


def test_codecs_cost_what_they_did(here: Path) -> None:
    compress_run(typed("compress", f"run={run_of('residual').folder}", "out=again"))
    now, before = (pd.read_csv(Path(name, "compression.csv")) for name in ("again", "compression"))
    pd.testing.assert_frame_equal(now, before, rtol=1e-9)


def test_the_bundle_answers_as_it_did_and_is_changed(here: Path) -> None:
    def found(*what: str) -> list[str]:
        searched = search_bundle(typed("search", "bundle=shop", "k=5", "num_threads=1", *what))
        return [hit.item_id for hit in searched.answers[0].hits]

    near = ["hats-00012", "shoes-00011", "shoes-00006", "hats-00006"]
    assert found("item=1.10")[:4] == near
    assert found("image=photo.png") == ["1.10", *near]
    assert "shoes-00003" not in Bundle.open("shop")
    change_bundle(typed("index", "action=remove", "bundle=shop", "item=hats-00012"))
    assert found("image=photo.png")[:4] == ["1.10", *near[1:]]
