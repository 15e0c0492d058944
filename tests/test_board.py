"""TensorBoard over all runs: each by its name, whatever its folder of curves is called."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.projector import projector_plugin

from tests.composing import typed
from visual_search.board import board_command, link_runs
from visual_search.config.builders import ConfigError
from visual_search.training.tensorboard import RunTensorBoard
from visual_search.views.projector import write_projector


def logged(run: Path, *, by_name: bool = True) -> Path:
    """Returns the folder of event files of a run, under its name or as earlier versions wrote."""
    curves = str(run / "tensorboard")
    logger = RunTensorBoard(curves) if by_name else TensorBoardLogger(curves, "", "")
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finalize("success")
    (run / "status.json").write_text("{}")
    return Path(logger.log_dir)


def seen(shown: Path) -> list[str]:
    """Returns the runs that TensorBoard sees, all of them with their curves."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(shown))
    multiplexer.Reload()
    runs: dict[str, dict[str, list[str]]] = multiplexer.Runs()
    assert all(tags["tensors"] or tags["scalars"] for tags in runs.values()), runs
    return sorted(runs)


def test_every_run_has_its_short_name(tmp_path: Path) -> None:
    outputs, shown = tmp_path / "outputs", tmp_path / "shown"
    shown.mkdir()
    now = logged(outputs / "plus_layer" / "0123456789")
    assert now.parts[-2:] == ("plus_layer", "0123456789")
    earlier = logged(outputs / "old" / "abcdefabcd", by_name=False)
    assert earlier.name == "tensorboard"
    logged(outputs / "first" / "1111111111")
    (outputs / "first").rename(outputs / "second")
    own = outputs / "notebook" / "today"
    shutil.copytree(now, own)
    names = ["notebook/today", "old/abcdefabcd", "plus_layer/0123456789", "second/1111111111"]
    assert sorted(link_runs(outputs, shown)) == seen(shown) == names

    shutil.rmtree(outputs / "old")
    logged(outputs / "plus_layer" / "2222222222")
    link_runs(outputs, shown)
    assert seen(shown) == ["notebook/today", *names[2:3], "plus_layer/2222222222", names[3]]


@pytest.mark.parametrize("opened", ["plus_layer", "plus_layer/0123456789"])
def test_a_run_is_named_alike_from_a_folder_further_in(opened: str, tmp_path: Path) -> None:
    logged(tmp_path / "plus_layer" / "0123456789")
    (tmp_path / "shown").mkdir()
    assert list(link_runs(tmp_path / opened, tmp_path / "shown")) == ["plus_layer/0123456789"]


def test_what_lies_around_another_run_shows_beside_it(tmp_path: Path) -> None:
    outputs, shown = tmp_path / "outputs", tmp_path / "shown"
    curves = logged(outputs / "plus_layer" / "0123456789")
    shutil.copytree(curves, outputs, dirs_exist_ok=True)
    shutil.copytree(curves, outputs / "plus_layer", dirs_exist_ok=True)
    shown.mkdir()
    before = sorted(outputs.rglob("*"))
    for _ in range(2):
        link_runs(outputs, shown)
        assert seen(shown) == ["outputs", "plus_layer", "plus_layer/0123456789"]
    assert sorted(outputs.rglob("*")) == before, "something was written through a link"


def test_the_projector_opens_what_lies_behind_a_name(tmp_path: Path) -> None:
    folder = logged(tmp_path / "outputs" / "plus_layer" / "0123456789")
    items = pd.DataFrame({"category": ["Hats", "Shoes"]})
    write_projector(folder, "gallery", np.eye(2, dtype=np.float32), items)
    (tmp_path / "shown").mkdir()
    link_runs(tmp_path / "outputs", tmp_path / "shown")
    run = tmp_path / "shown" / "plus_layer" / "0123456789"
    found = projector_plugin._rel_to_abs_asset_path(
        "gallery/metadata.tsv", str(run / "projector_config.pbtxt")
    )
    assert Path(found).samefile(folder / "gallery" / "metadata.tsv")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone"):
        board_command(typed("board", f"outputs={tmp_path / 'gone'}"))
