"""The training command from end to end, on drawn products and real processes."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visual_search
from tests.composing import typed
from tests.processes import Command, Hold
from tests.small_runs import (
    QUICK,
    SIZE,
    SYNTHETIC,
    assert_same_weights,
    numbers,
    only_run,
    places,
    run_here,
    small,
)
from visual_search.config.builders import ConfigError
from visual_search.evaluate import measure_run
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.runs.parts import Parts, load_module
from visual_search.runs.run import Run, RunLockedError
from visual_search.train import train

pytestmark = pytest.mark.slow

LEFT = """
config.yaml overrides.yaml status.json environment.json report.html checkpoints/last.ckpt
embeddings/gallery.npy embeddings/gallery.parquet embeddings/queries.npy embeddings/queries.parquet
embeddings/projection.parquet index/index.faiss index/items.parquet index/manifest.json
metrics/per_query.parquet metrics/per_category.csv metrics/summary.json metrics/history.csv
metrics/val_floors.csv metrics/floors.parquet metrics/floors_per_category.csv
metrics/near_duplicates.csv metrics/trained_items.parquet figures/floors.png
figures/class_distribution.png figures/projection.png figures/search_results/fixed.png
figures/reconstructions/epoch_0001.png
"""


def full(folder: Path, *more: str) -> Run:
    """Trains with everything that a run measures and draws, UMAP with it."""
    network = ["experiment=residual", *SIZE, "model.width=8", "model.embedding_dim=16"]
    own = [*SYNTHETIC, *QUICK, *network, "callbacks.feature_maps.num_items=1", *places(folder)]
    own += more
    return train(typed("train", *own))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return full(tmp_path_factory.mktemp("finished"))


def test_a_run_leaves_everything(finished: Run, tmp_path: Path) -> None:
    files = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*") if p.is_file()}
    assert set(LEFT.split()) <= files
    assert f"tensorboard/residual/{finished.folder.name}/projector_config.pbtxt" in files
    assert not [name for name in files if ".tmp" in name]
    assert (finished.state, finished.folder.parent.name) == ("finished", "residual")
    summary = finished.summary()
    assert (summary["embedding_dim"], summary["index"]["bytes_per_item"]) == (16, 64)
    assert 0 <= summary["intervals"]["micro"]["low"] <= summary["micro_map_at_5"] <= 1
    assert summary["refused"] == []
    (computed,) = json.loads((finished.folder / "environment.json").read_text())["computed_on"]
    assert (computed["device"], computed["num_devices"]) == ("cpu", 1)
    assert computed["num_threads"] >= 1
    assert computed == {name: summary[name] for name in computed}
    assert summary["index"]["device"] == "cpu"
    assert summary["definitions"]["map_at_5"]
    assert len(summary["floors"]) == 9
    assert summary["floors"][-1]["name"] == "untrained"
    assert len(pd.read_csv(finished.folder / "metrics" / "val_floors.csv")) == 9
    assert summary["standing"].startswith("mAP@5 ")
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert summary["floors"][0]["title"] in page
    assert 100_000 < len(page.encode()) < 5_000_000


def test_what_is_shown_of_a_run_names_no_place(finished: Run) -> None:
    place = str(finished.folder.parents[2])
    assert place in (finished.folder / "config.yaml").read_text(encoding="utf-8")  # to go on
    for name in ("report.html", "overrides.yaml", "environment.json", "metrics/summary.json"):
        assert place not in (finished.folder / name).read_text(encoding="utf-8"), name
    own = str(Path(visual_search.__file__).parent)
    assert own not in (finished.folder / "report.html").read_text(encoding="utf-8")


def test_the_reloaded_run_finds_the_same_neighbours(finished: Run) -> None:
    module, folder = load_module(finished), finished.folder / "index"
    model_hash = json.loads((folder / "manifest.json").read_text())["model_hash"]
    fingerprint = module.preprocessing.fingerprint()
    index = EmbeddingIndex.load(
        folder, expected_preprocessing_hash=fingerprint, expected_model_hash=model_hash
    )
    queries = np.load(finished.folder / "embeddings" / "queries.npy")
    per_query = pd.read_parquet(finished.folder / "metrics" / "per_query.parquet")
    found = index.search(queries, 5, exclude_ids=list(per_query["query_id"]))
    assert [list(ids) for ids in per_query["neighbour_ids"]] == found.item_ids.tolist()
    assert sum(p.numel() for p in module.parameters()) == finished.summary()["num_parameters"]
    with pytest.raises(ValueError, match="model_hash"):
        EmbeddingIndex.load(folder, expected_model_hash="0" * 64)


def test_a_config_beside_a_checkpoint_is_data(finished: Run, tmp_path: Path) -> None:
    other = Run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        load_module(other)
    text = (finished.folder / "config.yaml").read_text()
    spoilt = text.replace("visual_search.models.residual.residual", "os.system")
    (tmp_path / "config.yaml").write_text(spoilt)
    (tmp_path / "checkpoints").mkdir()
    os.link(finished.checkpoint, other.checkpoint)
    with pytest.raises(ConfigError, match=r"os\.system"):
        load_module(other)


def test_the_same_command_finds_the_finished_run_unless_it_is_locked(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (finished.folder / "metrics" / "summary.json").stat().st_mtime_ns
    again = full(finished.folder.parents[2], "loader.num_workers=2", "logger.tensorboard=null")
    assert again.folder == finished.folder
    assert (finished.folder / "metrics" / "summary.json").stat().st_mtime_ns == written
    printed = capsys.readouterr().out
    said = ("is finished", "Dresses", "micro mean", "macro mean", "tensorboard --logdir", "mAP@5")
    assert [text for text in said if text not in printed] == []
    other = Run(finished.folder)
    other.lock()
    try:
        with pytest.raises(RunLockedError, match="in use"):
            full(finished.folder.parents[2])
    finally:
        other.unlock()


def test_rerun_starts_afresh_and_gives_the_same_numbers(tmp_path: Path) -> None:
    first = run_here(tmp_path)
    before = numbers(first)
    (first.folder / "leftover.txt").write_text("old")
    second = run_here(tmp_path, "rerun=true")
    assert second.folder == first.folder
    assert not (first.folder / "leftover.txt").exists()
    assert numbers(second) == before


def test_a_failed_run_says_so_and_names_the_items_of_the_batch(tmp_path: Path) -> None:
    more = ("training.learning_rate=1e30", "trainer.max_epochs=9")
    with pytest.raises(RuntimeError, match=r"loss is (nan|inf)"):
        run_here(tmp_path, *more)
    status = only_run(tmp_path).status()
    assert status["state"] == "failed"
    items = Parts(typed("train", *small(tmp_path, *more))).catalog.table["item_id"]
    assert len([item_id for item_id in items if item_id in status["error"]]) == 4


@pytest.mark.parametrize("debug", ["fast", "overfit", "profile"])
def test_debug_modes_run(tmp_path: Path, debug: str) -> None:
    more = ["trainer.max_epochs=1"] if debug == "overfit" else []
    run = run_here(tmp_path, f"debug={debug}", *more)
    assert run.state == "finished"
    assert bool(run.summary()) == (debug != "fast")
    assert bool(list(run.folder.glob("*profile*"))) == (debug == "profile")


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    # So small a step is none in float32, and no layer keeps statistics of the batches
    # that its process saw: what is compared is the evaluation.
    still = "training.learning_rate=1e-60"
    network = ["model=backbone", "model.name=test_convnext", "model.weights=null"]
    asked = small(tmp_path / "two", still, "trainer=ddp_cpu", network=network)
    two_processes = Command("train", asked)
    one = run_here(tmp_path / "one", still, network=network)
    status, _, error = two_processes.end()
    assert status == 0, error
    two = only_run(tmp_path / "two")
    num_threads = two.summary()["num_threads"]  # the two share the cores
    assert numbers(one) | {"num_devices": 2, "num_threads": num_threads} == numbers(two)
    for name in ("metrics/per_category.csv", "embeddings/gallery.npy", "index/index.faiss"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_a_run_that_is_stopped_and_then_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    more = ("trainer.max_epochs=2", "training.checkpoint_every_n_seconds=0")
    began = time.time()
    for sign, status, state in (
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGKILL, -9, "running"),
    ):
        hold = Hold(tmp_path / f"hold-{state}", [r"/last\.ckpt$"] * 2)
        cut = Command("train", small(tmp_path / "cut", *more), hold=hold)
        hold.reached(cut)
        cut.send(sign)
        hold.go_on()
        assert cut.end()[0] == status
        run = only_run(tmp_path / "cut")
        assert run.status()["state"] == state  # a killed one had no time to say otherwise
        assert run.state == "interrupted"
    before = run.seconds_so_far()
    assert 0 <= before <= time.time() - began
    later = run.checkpoint.stat().st_mtime + 1000
    os.utime(run.checkpoint, (later, later))  # as if that epoch had taken so long
    resumed = run_here(tmp_path / "cut", *more)
    seconds = resumed.status()["seconds"]
    assert before + 1000 < seconds == resumed.seconds_so_far()
    assert seconds < 1000 + time.time() - began
    uninterrupted = run_here(tmp_path / "whole", *more)
    assert_same_weights(resumed, uninterrupted)
    assert numbers(resumed) == numbers(uninterrupted)


def test_a_longer_run_goes_on_from_a_shorter_one_and_ends_as_one_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = "trainer.max_epochs={}"
    two = run_here(tmp_path / "on", length.format(2))
    before = two.checkpoint.read_bytes()
    curves = Path("tensorboard", "plain_encoder")
    (two.folder / curves / two.folder.name).mkdir(parents=True)
    (two.folder / curves / two.folder.name / "events").touch()
    capsys.readouterr()
    four = run_here(tmp_path / "on", length.format(4))
    said = capsys.readouterr().out
    assert f"It goes on from 2 epochs of {two.folder}." in said
    assert "going on at epoch 3, step " in said
    assert two.checkpoint.read_bytes() == before
    assert two.state == "finished"
    assert (four.folder / curves / four.folder.name / "events").is_file()
    assert not (four.folder / curves / two.folder.name).exists()
    assert four.status()["seconds"] > two.status()["seconds"]
    at_once = run_here(tmp_path / "at once", length.format(4))
    assert four.folder.name == at_once.folder.name
    assert_same_weights(four, at_once)
    assert numbers(four) == numbers(at_once)

    for setting, reason in (
        ("training.schedule=cosine", "training.schedule=cosine"),
        ("training.warmup_fraction=0.5", "training.warmup_fraction=0.5"),
    ):
        for epochs in (1, 2):
            run_here(tmp_path / "on", length.format(epochs), setting)
        said = capsys.readouterr().out
        assert re.search(rf"cannot go on from 1 epoch of .*{re.escape(reason)}", said)
        assert "going on at" not in said


def test_a_run_keeps_its_split_whatever_becomes_of_the_data(tmp_path: Path) -> None:
    rng, table = np.random.default_rng(0), tmp_path / "shop.csv"

    def grow(numbers: Sequence[int]) -> None:
        lines = ["item_id,image,category,sender"]
        for number in numbers:
            picture = Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8))
            picture.save(tmp_path / f"{number}.png")
            lines.append(f"{number},{number}.png,{'hat' if number % 3 else 'shoe'},{number // 4}")
        table.write_text("\n".join(lines))

    grow(range(60))
    asked = [one for one in small(tmp_path) if not one.startswith("data")]
    asked += ["data=table", f"data.path={table}", "data.group=sender", "split.allow_few=true"]
    run = train(typed("train", *asked))
    before = pd.read_parquet(run.folder / "embeddings" / "queries.parquet")["item_id"]
    shutil.rmtree(tmp_path / "outputs" / "splits")
    grow([*range(200, 260), *range(60)])
    cache = f"pictures.cache_dir={tmp_path / 'cache'}"
    given = [f"run={run.folder}", cache, "floors=false", "near_duplicates=false"]
    measured = measure_run(typed("evaluate", *given))
    queries = pd.read_parquet(measured.run.folder / "embeddings" / "queries.parquet")["item_id"]
    split = dict(pd.read_csv(run.folder / "split.csv", dtype=str).to_numpy().tolist())
    earlier = {number for number in map(str, range(60)) if split[str(int(number) // 4)] == "test"}
    assert set(before) <= earlier
    assert {one for one in queries if int(one) < 60} <= earlier
    assert any(int(one) >= 200 for one in queries)


def test_bad_items_are_counted_in_the_summary(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = pictures / ("Hats", "Shoes")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{number}.png")
    (pictures / "Hats" / "broken.png").write_bytes(b"<html>404</html>")
    settings = [one for one in small(tmp_path) if not one.startswith("data")]
    settings += ["data=folder", f"data.root={pictures}", "split.allow_few=true"]
    settings += ["loader.max_items_per_category={train: null, val: null, test: null}"]
    with pytest.raises(ValueError, match=r"broken\.png"):
        train(typed("train", *settings))
    refused = train(typed("train", *settings, "data.on_bad_item=skip")).summary()["refused"]
    assert [item["image"] for item in refused] == ["Hats/broken.png"]
