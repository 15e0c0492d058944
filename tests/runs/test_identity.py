"""Which run a command means: what names a place is no part of it, and earlier runs are found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.composing import typed
from visual_search.runs.identity import Named, find_run, run_hash
from visual_search.runs.parts import Parts
from visual_search.runs.run import Run

SHOP = ["data=shop_the_look", "data.path=a", "data.categories=c", "data.pictures=b"]
BOARDS = ["data=complete_the_look", "data.path=a", "data.pictures=b"]
METRIC = ["data=open_metric_learning", "data.path=a"]
KEPT = "+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint"

# With the version before places left the hash, at the fingerprint "x". A new key of the config
# changes all of them, and every run would be trained again: it belongs into ADDED.
HASHES = {
    "experiment=baseline": "3b7ed6a47f",
    "experiment=best_unsupervised": "3dfa2e7e36",
    "experiment=best_supervised": "1b1961ae90",
    "experiment=best_pretrained": "67c7eb4674",
    "data=table": "8dc453451a",
    "data=folder": "8c8cef4090",
    "data=parquet": "f657957030",
    "data=webdataset": "d773e417ee",
    "data=open_metric_learning": "da43af290d",
    "data=synthetic": "176d73266e",
    "data=shop_the_look": "cb68d3e8fa",
}


def train(*overrides: str) -> Any:
    return typed("train", "trainer=cpu", *overrides)


@pytest.mark.parametrize("choice", HASHES)
def test_the_same_command_finds_a_run_of_an_earlier_version(choice: str, tmp_path: Path) -> None:
    settings = train(*(SHOP if "shop" in choice else [choice]))
    earlier = Run(tmp_path / "mine" / HASHES[choice])
    earlier.set_state("finished")
    assert find_run(tmp_path, "mine", settings, "x").run.folder == earlier.folder


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (SHOP, "data.path=elsewhere/fashion.json"),
        (SHOP, "data.pictures=elsewhere"),
        (SHOP, "data.categories=elsewhere/fashion-cat.json"),
        (BOARDS, "data.pictures=elsewhere.zip"),
        (METRIC, "data.dataset_root=elsewhere"),
        (["data=folder", "data.root=a"], "data.root=elsewhere"),
        ([KEPT, "+callbacks.best.dirpath=a"], "+callbacks.best.dirpath=elsewhere"),
        ([], "pictures.cache_dir=elsewhere"),
        ([], "outputs=elsewhere"),
    ],
)
def test_what_names_a_place_is_no_part_of_a_run(command: list[str], change: str) -> None:
    moved = [change, *(one for one in command if one.partition("=")[0] != change.partition("=")[0])]
    assert run_hash(train(*command), "x") == run_hash(train(*moved), "x")


def test_whatever_changes_the_result_changes_the_run_and_nothing_else_does() -> None:
    def digest(*change: str) -> str:
        settings = train("data=synthetic", *change)
        return run_hash(settings, Parts(settings).catalog.fingerprint())

    stop = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}"
    changes = ["seed=1", "training.learning_rate=1e-4", "trainer.max_epochs=3", "split.seed=1",
               "model=baseline", "pictures.fit=letterbox", "protocol.k=3", "data.seed=1",
               f"+callbacks.stop={stop}"]  # fmt: skip
    own = digest("seed=0")
    assert len({own, *map(digest, changes)}) == 1 + len(changes)
    for change in ("callbacks=none", "callbacks.projection.max_items=7", "logger=csv",
                   "loader.num_workers=1", "explain=true",
                   "callbacks.reconstructions.every_n_epochs=1"):  # fmt: skip
        assert digest(change) == own, change


def test_what_lies_there_is() -> None:
    assert run_hash(train(*SHOP), "x") != run_hash(train(*SHOP), "y")
    drawn = [
        run_hash(train("data=synthetic", f"data.categories=[{name}]"), "x")
        for name in ("Hats", "Shoes")
    ]
    assert len(set(drawn)) == 2


def finished(folder: Path, settings: Any, fingerprint: str = "x") -> Run:
    run = Run(folder)
    run.set_state("finished", catalog_fingerprint=fingerprint)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(dataclasses.asdict(settings)), encoding="utf-8"
    )
    return run


@pytest.mark.parametrize("key", ["training.start_from", "model.weights"])
def test_a_run_whose_first_weights_are_gone_is_found(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "parent" / "0123456789"
    weights = start / "checkpoints" / "last.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"learned")
    given = f"{key}={start if key == 'training.start_from' else weights}"
    settings = train("model=backbone", given)
    child = finished(tmp_path / "child" / run_hash(settings, "x"), settings)
    finished(tmp_path / "child" / "1111111111", settings, "y")  # of other data
    torn = finished(tmp_path / "child" / "2222222222", settings)
    (torn.folder / "config.yaml").write_text("model: [")
    weights.unlink()
    assert find_run(tmp_path, "child", settings, "x").run.folder == child.folder
    assert str(torn.folder) in capsys.readouterr().err
    other = train("model=backbone", given, "seed=1")
    assert not find_run(tmp_path, "child", other, "x").run.is_there


def begun(named: Named, code: dict[str, str], folder: str = "") -> Run:
    run = Run(named.run.folder.parent / folder if folder else named.run.folder)
    run.set_state("finished", settings_hash=named.settings_hash, code=code)
    return run


def test_changed_code_is_another_run_and_the_newest_of_before_is_named(tmp_path: Path) -> None:
    settings = train("data=synthetic", "model=baseline")
    new = find_run(tmp_path, "mine", settings, "x")
    assert (new.note, new.run.is_there) == ("", False)
    before = begun(new, {**new.code, "model": "0" * 10, "sampler": "1" * 10}, "0123456789")
    begun(dataclasses.replace(new, settings_hash="0" * 10), {}, "of_other_settings")
    again = find_run(tmp_path, "mine", settings, "x")
    assert again.run.folder == new.run.folder
    assert f"baseline, shuffled have changed since {before.folder}" in again.note
    begun(new, new.code)
    assert find_run(tmp_path, "mine", settings, "x").note == ""


def test_of_a_run_without_a_record_the_code_is_unknown_and_of_one_with_it_is_asked(
    tmp_path: Path,
) -> None:
    settings = train("data=synthetic")
    new = find_run(tmp_path, "mine", settings, "x")
    earlier = Run(tmp_path / "mine" / new.settings_hash)
    earlier.set_state("finished")
    found = find_run(tmp_path, "mine", settings, "x")
    assert found.run.folder == earlier.folder
    assert f"{earlier.folder} is of a version that kept no record of its code" in found.note
    for code, expected in ((new.code, earlier), ({**new.code, "model": "0" * 10}, new.run)):
        begun(new, code, new.settings_hash)
        assert find_run(tmp_path, "mine", settings, "x").run.folder == expected.folder
