"""Where the time of a run's epochs goes: steps, validation, retrieval, checkpoints, callbacks.

Runs are trained as the command trains them, one with everything that a run has and one with
``callbacks=none`` and no logger, in turns, so that a noisy machine disturbs both alike. The first
epoch of each warms up. Evaluations, and pictures after epochs 1, 2, 5, 10, 20, ..., come less often
in a long run: their seconds stand by themselves, each time they came.

``python benchmarks/epochs.py [--rounds 2] [--json FILE] [OVERRIDE ...]``; an override is one of
``python -m visual_search.train``, such as ``data.items_per_category=100``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.profilers import SimpleProfiler

from visual_search.cli.command_line import as_settings, with_keys
from visual_search.config.builders import config_folder, register_schema
from visual_search.runs.machine import processor_facts
from visual_search.runs.parts import Parts, quieten
from visual_search.runs.run import Run, environment
from visual_search.training.checkpointing import RunCheckpoint

WAYS = {
    "as a run has it": (),
    "callbacks=none": ("callbacks=none", "logger.tensorboard=null"),
}
USUAL = (
    "experiment=plus_layer", "data=synthetic", "split.val_fraction=0.1", "trainer.max_epochs=6",
    "trainer.enable_progress_bar=true",
)  # fmt: skip
PARTS = {  # what Lightning's profiler calls them
    "steps": r"run_training_batch",
    "reading batches": r"\[_TrainingEpochLoop\]\.train_dataloader_next",
    "validation steps": r"\[Strategy\]SingleDeviceStrategy\.validation_step",
    "retrieval": r"\[Callback\]RetrievalEvaluation\.on_validation_epoch_end",
    "checkpoints": r"\[Callback\]RunCheckpoint\..*",
    "reconstructions": r"\[Callback\]Reconstructions\..*",
    "chart by category": r"\[Callback\]CategoryChart\..*",
    "other callbacks": r"\[Callback\](?!RetrievalEvaluation|RunCheckpoint|Reconstr|CategoryC).*",
}


def train(folder: Path, overrides: Sequence[str]) -> tuple[int, Mapping[str, list[float]]]:
    """Returns the pictures of an epoch, and the seconds of everything that Lightning timed."""
    register_schema()
    places = [f"outputs={folder / 'outputs'}", f"pictures.cache_dir={folder / 'cache'}"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", with_keys("train", [*USUAL, *places, *overrides]))
    parts = Parts(as_settings("train", config))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Run(Path(name) / "bench" / "run")
        run.folder.mkdir(parents=True)
        trainer = parts.trainer(run, RunCheckpoint(run.folder / "checkpoints"))
        profiler = SimpleProfiler()
        trainer.profiler = profiler
        trainer.fit(parts.module, parts.datamodule)
        return len(parts.datamodule.rows("train")), profiler.recorded_durations


def seconds_of(durations: Mapping[str, list[float]], pattern: str) -> list[list[float]]:
    """Returns the seconds of each action whose name matches."""
    return [times for name, times in durations.items() if re.fullmatch(pattern, name)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, and the ends between which half of the values lie."""
    if len(values) < 2:
        return dict.fromkeys(("low", "median", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": median, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    quieten()
    epochs: dict[str, list[float]] = {way: [] for way in WAYS}
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    parts: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    num_pictures = 0
    with tempfile.TemporaryDirectory() as name:
        for _ in range(arguments.rounds):
            for way, own in WAYS.items():
                num_pictures, found = train(Path(name), [*own, *arguments.overrides])
                epochs[way] += found["run_training_epoch"][1:]
                steps[way] += found["run_training_batch"][1:]
                for part, pattern in PARTS.items():
                    sums = [sum(times) for times in seconds_of(found, pattern)]
                    parts[way].setdefault(part, []).append(sum(sums))
    numbers: dict[str, Any] = {"pictures_an_epoch": num_pictures, "ways": {}}
    print(f"\nCPU with {torch.get_num_threads()} threads; {num_pictures:,} pictures an epoch")
    for way in WAYS:
        rates = spread([num_pictures / seconds for seconds in epochs[way]])
        print(
            f"{way:16} {rates['median']:7.1f} [{rates['low']:.1f}, {rates['high']:.1f}] pictures/s "
            f"of {len(epochs[way])} whole epochs; half of them lie in [ ]"
        )
        whole = statistics.mean(map(sum, zip(*parts[way].values(), strict=True)))
        shares = {part: statistics.mean(values) for part, values in parts[way].items()}
        for part, value in shares.items():
            print(f"    {part:18} {value:8.2f} s a run  {value / whole:6.1%}")
        beside = 1 - shares["steps"] / whole
        print(f"    all but the steps  {beside:.1%}, which the machine's own pace moves least")
        numbers["ways"][way] = {
            "pictures_per_second_of_epochs": rates,
            "seconds_a_step": spread(steps[way]),
            "seconds_a_run": shares,
            "share_beside_the_steps": beside,
        }
    numbers["overrides"] = [*USUAL, *arguments.overrides]
    numbers["environment"] = processor_facts() | {"packages": environment()["packages"]}
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
