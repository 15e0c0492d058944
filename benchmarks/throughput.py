"""How fast the framework trains and embeds, against a plain loop and a bare loop, in one run.

Three ways over the same pictures at the same batch size, taken in turns so that a noisy machine
disturbs all alike; the median of the steps counts, and the quartiles tell how far they scatter:

- plain: float32, channels first, a loop that one writes first;
- bare: the same loop with channels last and the framework's precision;
- framework: Lightning's Trainer, our module, data module, cache, checkpoints and logging.

Whole epochs, with validation and callbacks: ``benchmarks/epochs.py``.

``python benchmarks/throughput.py [--batch-size 128] [--rounds 3]``
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Callback
from torch.nn.functional import mse_loss

from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.sources import ArraySource
from visual_search.models.variants import plus_layer
from visual_search.runs.machine import processor_facts
from visual_search.runs.run import environment
from visual_search.training.callbacks.progress import Progress
from visual_search.training.checkpointing import RunCheckpoint
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.devices import find_hardware
from visual_search.training.features import features_of_rows
from visual_search.training.module import EncoderModule, Preprocessing
from visual_search.training.trainer import build_trainer

SIDE = 128
STEPS = 3  # a round, after one that warms up


class Clock(Callback):
    """Notes when every training step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())


def make_catalog(folder: Path, batch_size: int) -> CachedCatalog:
    num = batch_size * (STEPS + 1)
    arrays = np.random.default_rng(0).integers(0, 256, (num, SIDE, SIDE, 3), dtype=np.uint8)
    names = [f"p{n}" for n in range(num)]
    table = pd.DataFrame(
        {"item_id": names, "image": names, "category": "noise", "group": names, "split": "train"}
    )
    catalog = Catalog("noise", table, ArraySource(arrays, names))
    return cache_pictures(
        catalog, size_px=SIDE, fit="stretch", cache_dir=folder, on_bad_item="error"
    )


def autocast(precision: str) -> AbstractContextManager[Any]:
    if precision == "32-true":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=dtype)


def batches(cached: CachedCatalog, batch_size: int, memory_format: torch.memory_format) -> Any:
    for start in range(0, batch_size * (STEPS + 1), batch_size):
        pixels = torch.from_numpy(cached.pictures[np.arange(start, start + batch_size)])
        yield pixels.to(dtype=torch.float32, memory_format=memory_format).div_(127.5).sub_(1.0)


def loop_training(
    cached: CachedCatalog, batch_size: int, memory_format: torch.memory_format, precision: str
) -> list[float]:
    model = plus_layer().to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    ends = []
    for images in batches(cached, batch_size, memory_format):
        with autocast(precision):
            loss = mse_loss(model(images).float(), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return list(np.diff(ends))


def framework_module(cached: CachedCatalog) -> EncoderModule:
    return EncoderModule(plus_layer(), Preprocessing(SIDE, "stretch"))


def framework_training(cached: CachedCatalog, batch_size: int, folder: Path) -> list[float]:
    clock = Clock()
    trainer = build_trainer(
        folder=folder, max_epochs=1, accelerator="cpu", limit_val_batches=0,
        callbacks=[RunCheckpoint(folder), Progress(), clock],
    )  # fmt: skip
    datamodule = CatalogDataModule(cached.catalog, cached.pictures, batch_size=batch_size)
    trainer.fit(framework_module(cached), datamodule)
    return list(np.diff(clock.ends))


def loop_embedding(
    cached: CachedCatalog, batch_size: int, memory_format: torch.memory_format, precision: str
) -> list[float]:
    model = plus_layer().to(memory_format=memory_format).eval()
    ends = []
    with torch.inference_mode(), autocast(precision):
        for images in batches(cached, batch_size, memory_format):
            model.encode(images).float().numpy()
            ends.append(time.perf_counter())
    return list(np.diff(ends))


def framework_embedding(cached: CachedCatalog, batch_size: int, folder: Path) -> list[float]:
    trainer = build_trainer(
        folder=folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False
    )
    datamodule = CatalogDataModule(cached.catalog, cached.pictures, batch_size=batch_size)
    datamodule.trainer = trainer
    ends: list[float] = []
    features_of_rows(
        framework_module(cached).eval(), datamodule, trainer, datamodule.rows("train"),
        lambda done, total: ends.append(time.perf_counter()),
    )  # fmt: skip
    return list(np.diff(ends))


def measure(ways: dict[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[float]]:
    """Quartiles of the seconds a step of each way, the ways taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name] += way()
    return {
        name: statistics.quantiles(times, n=4, method="inclusive")
        for name, times in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    size: int = arguments.batch_size
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    precision = find_hardware("cpu").precision
    numbers: dict[str, Any] = {"batch_size": size, "precision": precision}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cached = make_catalog(folder / "cache", size)
        first, last = torch.contiguous_format, torch.channels_last
        tasks: dict[str, dict[str, Callable[[], list[float]]]] = {
            "train": {
                "plain": lambda: loop_training(cached, size, first, "32-true"),
                "bare": lambda: loop_training(cached, size, last, precision),
                "framework": lambda: framework_training(cached, size, folder / "run"),
            },
            "embed": {
                "plain": lambda: loop_embedding(cached, size, first, "32-true"),
                "bare": lambda: loop_embedding(cached, size, last, precision),
                "framework": lambda: framework_embedding(cached, size, folder / "run"),
            },
        }
        for task, ways in tasks.items():
            seconds = measure(ways, arguments.rounds)
            rate = {way: size / quartiles[1] for way, quartiles in seconds.items()}
            numbers[task] = {
                "pictures_per_second": rate,
                "half_of_the_steps": {
                    way: [size / quartiles[2], size / quartiles[0]]
                    for way, quartiles in seconds.items()
                },
                "framework_to_plain": rate["framework"] / rate["plain"],
                "framework_to_bare": rate["framework"] / rate["bare"],
            }
    print(f"\nplus_layer, batch {size}, CPU with {torch.get_num_threads()} threads, {precision}")
    print(f"{'':8}{'plain':>10}{'bare':>10}{'framework':>11}   pictures/s, median step")
    for task in ("train", "embed"):
        found = numbers[task]
        rates = found["pictures_per_second"]
        print(
            f"{task:8}{rates['plain']:10.1f}{rates['bare']:10.1f}{rates['framework']:11.1f}   "
            f"framework / plain {found['framework_to_plain']:.2f}, "
            f"framework / bare {found['framework_to_bare']:.3f}"
        )
        ends = {way: f"[{low:.1f}, {high:.1f}]" for way, (low, high) in
                found["half_of_the_steps"].items()}  # fmt: skip
        print(f"        half of the steps: {ends}")
    print("aims: framework / plain at least 2.4 (train) and 2.5 (embed), framework / bare 0.97")
    numbers["environment"] = processor_facts() | {"packages": environment()["packages"]}
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
