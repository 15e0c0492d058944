"""The training command from end to end, on drawn products and real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import visual_search
from tests.composing import typed
from tests.holding import Hold
from visual_search.config.builders import ConfigError
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.reports.tables import runs_table
from visual_search.runs.parts import Parts, load_module, new_logger
from visual_search.runs.run import Run, RunLockedError, open_run
from visual_search.train import train
from visual_search.training.checkpointing import load_checkpoint

pytestmark = pytest.mark.slow

SMALL = [
    "data=synthetic",
    "data.items_per_category=24",
    "data.categories=[Dresses,Shoes,Hats]",
    "split.val_fraction=0.2",
    "split.test_fraction=0.2",
    "budget=smoke",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "loader.batch_size=4",
    "floors=false",  # measured where they are the subject
    "near_duplicates=false",
]


def overrides(tmp_path: Path, *more: str) -> list[str]:
    return [
        *SMALL,
        f"outputs={tmp_path / 'outputs'}",
        f"pictures.cache_dir={tmp_path / 'cache'}",
        *more,
    ]


def run_here(tmp_path: Path, *more: str) -> Run:
    return train(typed("train", *overrides(tmp_path, *more)))


def command(tmp_path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "visual_search.train", *overrides(tmp_path, *more)]


def numbers(run: Run) -> dict[str, Any]:
    """The run's numbers, without the times."""
    summary = run.summary()
    summary.pop("embedding_ms_per_item")
    return summary


def only_run(tmp_path: Path) -> Run:
    found = list((tmp_path / "outputs").glob("*/*/status.json"))
    assert len(found) == 1
    return Run(found[0].parent)


def weights(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(run.checkpoint)["state_dict"]
    return state


def assert_same_weights(first: Run, second: Run) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    beside = ["floors=true", "near_duplicates=true"]
    return run_here(tmp_path_factory.mktemp("finished"), "experiment=plus_layer", *beside)


def test_a_run_leaves_everything(finished: Run) -> None:
    files = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "overrides.yaml",
        "status.json",
        "environment.json",
        "checkpoints/last.ckpt",
        "embeddings/gallery.npy",
        "embeddings/gallery.parquet",
        "embeddings/queries.npy",
        "embeddings/queries.parquet",
        "embeddings/projection.parquet",
        "index/index.faiss",
        "index/items.parquet",
        "index/manifest.json",
        "metrics/per_query.parquet",
        "metrics/per_category.csv",
        "metrics/summary.json",
        "metrics/history.csv",
        "metrics/val_floors.csv",
        "metrics/floors.parquet",
        "metrics/floors_per_category.csv",
        "metrics/near_duplicates.csv",
        "metrics/trained_items.parquet",
        "report.html",
        "figures/floors.png",
        "figures/class_distribution.png",
        "figures/projection.png",
        "figures/search_results/fixed.png",
        "tensorboard/projector_config.pbtxt",
    } <= files
    assert not [name for name in files if ".tmp" in name]
    assert finished.state == "finished"
    assert finished.folder.parent.name == "plus_layer"
    summary = finished.summary()
    assert summary["embedding_dim"] == 512
    assert summary["index"]["bytes_per_item"] == 2048
    assert 0 <= summary["micro_map_at_5"] <= 1
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
    assert summary["intervals"]["micro"]["low"] <= summary["micro_map_at_5"]
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


def test_the_floors_stand_in_tensorboard(finished: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    logged = set(events.Tags()["scalars"])
    assert {"floor/map_at_5/hog_pca_256_unit", "floor/map_at_5/untrained"} <= logged
    assert "floors" in events.Tags()["images"]


def test_the_reloaded_run_finds_the_same_neighbours(finished: Run) -> None:
    module = load_module(finished)
    manifest = json.loads((finished.folder / "index" / "manifest.json").read_text())
    index = EmbeddingIndex.load(
        finished.folder / "index",
        expected_preprocessing_hash=module.preprocessing.fingerprint(),
        expected_model_hash=manifest["model_hash"],
    )
    queries = np.load(finished.folder / "embeddings" / "queries.npy")
    per_query = pd.read_parquet(finished.folder / "metrics" / "per_query.parquet")
    found = index.search(queries, 5, exclude_ids=list(per_query["query_id"]))
    assert [list(ids) for ids in per_query["neighbour_ids"]] == found.item_ids.tolist()
    assert sum(p.numel() for p in module.parameters()) == finished.summary()["num_parameters"]


def test_the_index_of_other_weights_is_refused(finished: Run) -> None:
    with pytest.raises(ValueError, match="model_hash"):
        EmbeddingIndex.load(finished.folder / "index", expected_model_hash="0" * 64)


def test_a_config_beside_a_checkpoint_is_data(finished: Run, tmp_path: Path) -> None:
    other = Run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        load_module(other)
    text = (finished.folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(
        text.replace("visual_search.models.variants.plus_layer", "os.system")
    )
    (tmp_path / "checkpoints").mkdir()
    os.link(finished.checkpoint, other.checkpoint)
    with pytest.raises(ConfigError, match=r"os\.system"):
        load_module(other)


def test_the_same_command_finds_the_finished_run(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (finished.folder / "metrics" / "summary.json").stat().st_mtime_ns
    again = run_here(finished.folder.parents[2], "experiment=plus_layer", "loader.num_workers=2")
    assert again.folder == finished.folder
    assert (finished.folder / "metrics" / "summary.json").stat().st_mtime_ns == written
    printed = capsys.readouterr().out
    assert "is finished" in printed
    for text in ("Dresses", "micro mean", "macro mean", "tensorboard --logdir", "mAP@5"):
        assert text in printed


def test_whatever_changes_the_result_changes_the_folder(finished: Run, tmp_path: Path) -> None:
    from visual_search.runs.identity import run_hash

    hashes = {}
    for change in (
        "seed=0", "seed=1", "training.learning_rate=1e-4", "trainer.max_epochs=3", "split.seed=1",
        "model=baseline", "pictures.fit=letterbox", "protocol.k=3", "data.seed=1",
        "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}",
    ):  # fmt: skip
        settings = typed("train", *overrides(tmp_path, change))
        hashes[change] = run_hash(settings, Parts(settings).catalog.fingerprint())
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize(
    "change",
    ["callbacks=none", "callbacks.projection.max_items=7", "logger=csv", "loader.num_workers=1"],
)
def test_what_is_drawn_or_logged_leaves_the_folder(
    finished: Run, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    again = run_here(finished.folder.parents[2], "experiment=plus_layer", change)
    assert again.folder == finished.folder
    assert "is finished" in capsys.readouterr().out


def test_rerun_starts_afresh(tmp_path: Path) -> None:
    first = run_here(tmp_path, "callbacks=none")
    before = numbers(first)
    (first.folder / "leftover.txt").write_text("old")
    second = run_here(tmp_path, "callbacks=none", "rerun=true")
    assert second.folder == first.folder
    assert not (first.folder / "leftover.txt").exists()
    assert numbers(second) == before


def test_a_locked_run_is_left_alone(finished: Run) -> None:
    other = Run(finished.folder)
    other.lock()
    try:
        with pytest.raises(RunLockedError, match="in use"):
            run_here(finished.folder.parents[2], "experiment=plus_layer")
    finally:
        other.unlock()


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"loss is (nan|inf)"):
        run_here(tmp_path, "callbacks=none", "training.learning_rate=1e30", "trainer.max_epochs=9")
    status = only_run(tmp_path).status()
    assert status["state"] == "failed"
    items = pd.read_parquet(
        run_here(tmp_path / "sane", "callbacks=none").folder / "embeddings/gallery.parquet"
    )
    named = [item_id for item_id in items["item_id"] if item_id in status["error"]]
    assert len(named) == 4  # the batch's


@pytest.mark.parametrize("name", ["../escape", "/abs", "", "a b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        open_run(tmp_path, name, "0" * 10)


def test_pictures_of_another_size_than_the_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pictures\.size_px=128"):
        run_here(tmp_path, "pictures.size_px=64")


@pytest.mark.parametrize("debug", ["fast", "overfit", "profile"])
def test_debug_modes_run(tmp_path: Path, debug: str) -> None:
    more = ["trainer.max_epochs=1"] if debug == "overfit" else []
    run = run_here(tmp_path, f"debug={debug}", "callbacks=none", *more)
    assert run.state == "finished"
    assert bool(run.summary()) == (debug != "fast")
    assert bool(list(run.folder.glob("*profile*"))) == (debug == "profile")


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    # So small a step leaves the weights as they are: what is compared is the evaluation.
    still = ("callbacks=none", "training.learning_rate=1e-30")
    one = run_here(tmp_path / "one", *still)
    subprocess.run(command(tmp_path / "two", *still, "trainer=ddp_cpu"), check=True, timeout=300)
    two = only_run(tmp_path / "two")
    assert_same_weights(one, two)
    assert numbers(one) | {"num_devices": 2} == numbers(two)
    for name in ("metrics/per_category.csv", "embeddings/gallery.npy", "index/index.faiss"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_sigterm_saves_and_a_second_start_gives_the_same_numbers(tmp_path: Path) -> None:
    more = ("callbacks=none", "trainer.max_epochs=3")
    uninterrupted = run_here(tmp_path / "whole", *more)
    interrupted = stop_after_first_checkpoint(tmp_path / "cut", more, signal.SIGTERM)
    assert interrupted == 143
    run = only_run(tmp_path / "cut")
    assert run.state == "interrupted"
    resumed = run_here(tmp_path / "cut", *more)
    assert_same_weights(resumed, uninterrupted)
    assert numbers(resumed) == numbers(uninterrupted)


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    more = ("callbacks=none", "trainer.max_epochs=3", "training.checkpoint_every_n_seconds=0")
    uninterrupted = run_here(tmp_path / "whole", *more)
    began = time.time()
    assert stop_after_first_checkpoint(tmp_path / "cut", more, signal.SIGKILL) == -9
    killed = only_run(tmp_path / "cut")
    assert killed.status()["state"] == "running"  # it had no time to say otherwise
    assert killed.state == "interrupted"
    before = killed.seconds_so_far()
    assert 0 <= before <= time.time() - began
    later = killed.checkpoint.stat().st_mtime + 1000
    os.utime(killed.checkpoint, (later, later))  # as if that epoch had taken so long
    resumed = run_here(tmp_path / "cut", *more)
    seconds = resumed.status()["seconds"]
    assert before + 1000 < seconds == resumed.seconds_so_far()
    assert seconds < 1000 + time.time() - began
    assert_same_weights(resumed, uninterrupted)
    assert numbers(resumed) == numbers(uninterrupted)


def stop_after_first_checkpoint(tmp_path: Path, more: tuple[str, ...], sign: signal.Signals) -> int:
    hold = Hold(tmp_path / "hold", [r"/last\.ckpt$"] * 2)
    process = subprocess.Popen(command(tmp_path, *more), env=hold.environment)
    try:
        hold.reached(process)
        process.send_signal(sign)
        hold.go_on()
        return process.wait(timeout=300)
    finally:
        if process.poll() is None:
            process.kill()


def test_a_multirun_ends_with_one_table_and_outlives_a_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *command(tmp_path, "callbacks=none", "logger={}"),
            "-m",
            "experiment=baseline,plus_layer",
            "protocol.k=3,500",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Runs side by side" in done.stdout
    assert "mAP@3" in done.stdout
    assert "4,096" in done.stdout
    assert done.stderr.count("failed: ") == 2
    assert "protocol.k is 500" in done.stderr


def test_several_processes_within_a_multirun_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command(tmp_path, "trainer=ddp_cpu", "seed=1,2"), "-m"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "one by one" in done.stderr


def test_a_logger_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr("visual_search.runs.parts.build", missing)
    with pytest.raises(ConfigError, match=r"pip install 'visual-search\[wandb\]'"):
        new_logger("wandb", {}, tmp_path)


def test_the_comparison_leaves_out_runs_without_numbers(finished: Run, tmp_path: Path) -> None:
    assert len(runs_table([finished, Run(tmp_path)]).rows) == 1


def test_bad_items_are_counted_in_the_summary(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = pictures / ("Hats", "Shoes")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{number}.png")
    (pictures / "Hats" / "broken.png").write_bytes(b"<html>404</html>")
    base = [o for o in overrides(tmp_path) if not o.startswith("data")]

    def run(*more: str) -> Run:
        return train(typed("train", *base, "callbacks=none", *more))

    data = ("data=folder", f"data.root={pictures}", "loader.max_items_per_category.train=null",
            "loader.max_items_per_category.val=null",
            "loader.max_items_per_category.test=null")  # fmt: skip
    with pytest.raises(ValueError, match=r"broken\.png"):
        run(*data)
    finished = run(*data, "data.on_bad_item=skip")
    refused = finished.summary()["refused"]
    assert [item["image"] for item in refused] == ["Hats/broken.png"]
