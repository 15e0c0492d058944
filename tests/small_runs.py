"""The smallest run that shows what a run is, for tests of what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.composing import typed
from visual_search.runs.run import Run
from visual_search.train import train
from visual_search.training.checkpointing import load_checkpoint

SYNTHETIC = (
    "data=synthetic", "data.items_per_category=24", "data.categories=[Dresses,Shoes,Hats]",
    "split.val_fraction=0.2", "split.test_fraction=0.2",
)  # fmt: skip
QUICK = ("budget=smoke", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
         "loader.batch_size=4")  # fmt: skip
SIZE = ("data.image_size_px=32", "pictures.size_px=32")
NARROW = ("model=plain_encoder", "model.width=4")
BARE = ("callbacks=none", "logger.tensorboard=null", "floors=false", "near_duplicates=false")


def places(folder: Path) -> list[str]:
    return [f"outputs={folder / 'outputs'}", f"pictures.cache_dir={folder / 'cache'}"]


def small(folder: Path, *more: str, network: Sequence[str] = NARROW) -> list[str]:
    """Returns what is typed for it, with everything that it writes in a folder."""
    learned = [*network, "objective=cross_entropy"]
    return [*SYNTHETIC, *QUICK, *SIZE, *learned, *BARE, *places(folder), *more]


def run_here(folder: Path, *more: str, network: Sequence[str] = NARROW) -> Run:
    return train(typed("train", *small(folder, *more, network=network)))


def numbers(run: Run) -> dict[str, Any]:
    """The run's numbers, without the times."""
    summary = run.summary()
    summary.pop("embedding_ms_per_item")
    return summary


def only_run(folder: Path) -> Run:
    (found,) = (folder / "outputs").glob("*/*/status.json")
    return Run(found.parent)


def assert_same_weights(first: Run, second: Run) -> None:
    one, other = (load_checkpoint(run.checkpoint)["state_dict"] for run in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
