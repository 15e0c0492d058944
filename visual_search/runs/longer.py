"""A longer run goes on from a finished shorter one, where it would have passed the same weights."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from visual_search.atomic import atomic_path
from visual_search.config.schemas import TrainSchema
from visual_search.runs.identity import Named, is_of_code, result_settings
from visual_search.runs.run import Run

# What of a run its epochs have written so far; its numbers and figures are made anew at the end.
_SO_FAR = ("environment.json", "tensorboard", "figures/reconstructions")


@dataclass(frozen=True)
class Shorter:
    """A finished run of fewer epochs, all else the same.

    Attributes:
        run: Its folder.
        epochs: That it has.
        hindrance: Why a longer one cannot go on from it, as a clause; empty where it can.
    """

    run: Run
    epochs: int
    hindrance: str


def shorter_run(named: Named, settings: TrainSchema, catalog_fingerprint: str) -> Shorter | None:
    """Returns the longest finished run of fewer epochs whose settings are the same otherwise.

    Args:
        named: The run that a command means, which has no checkpoint yet.
        settings: Of the command.
        catalog_fingerprint: Of the data as read.
    """
    found = [
        (int(other.settings().trainer["max_epochs"]), other)
        for other in _finished_beside(named, catalog_fingerprint)
        if _is_the_same_but_shorter(other.settings(), settings)
    ]
    if not found:
        return None
    epochs, run = max(found, key=lambda one: one[0])
    return Shorter(run, epochs, _hindrance(settings))


def _finished_beside(named: Named, catalog_fingerprint: str) -> Iterator[Run]:
    for path in sorted(named.run.folder.parent.glob("*/status.json")):
        other = Run(path.parent)
        try:
            status = other.status()
            if (
                status.get("state") == "finished"
                and status.get("catalog_fingerprint") == catalog_fingerprint
                and is_of_code(other, named.code)
                and other.checkpoint.is_file()
                and other.settings()
            ):
                yield other
        except (OSError, ValueError, KeyError):  # whoever opens that run is told
            continue


def _is_the_same_but_shorter(own: TrainSchema, asked: TrainSchema) -> bool:
    epochs, wanted = own.trainer.get("max_epochs"), asked.trainer.get("max_epochs")
    if not (isinstance(epochs, int) and isinstance(wanted, int) and 0 < epochs < wanted):
        return False
    as_long = copy.deepcopy(own)
    as_long.trainer["max_epochs"] = wanted
    one, other = (
        json.dumps(result_settings(each), sort_keys=True, default=str) for each in (as_long, asked)
    )
    return one == other


def _hindrance(settings: TrainSchema) -> str:
    """Returns what of a run depends on how long it was to be, as a clause; mostly nothing."""
    training = settings.training
    if training.schedule != "constant":
        return f"its learning rate fell to 0 at its own end (training.schedule={training.schedule})"
    if training.warmup_fraction:
        return (
            "its learning rate rose over a share of its own steps "
            f"(training.warmup_fraction={training.warmup_fraction:g})"
        )
    if deciding := result_settings(settings)["callbacks"]:
        return f"callbacks.{next(iter(deciding))} may depend on a run's length"
    return ""


def go_on_from(shorter: Shorter, run: Run) -> None:
    """Begins a run with what a shorter one has, which stays as it is.

    Args:
        shorter: Without a hindrance.
        run: Locked, and without a checkpoint, which is the last that it gets.
    """
    for name in _SO_FAR:
        source, target = shorter.run.folder / name, run.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
    begun = shorter.run.folder.parts[-2:]  # TensorBoard shows a run by these names
    if (curves := run.folder.joinpath("tensorboard", *begun)).is_dir():
        curves.rename(curves.with_name(run.folder.name))
    run.set_state("interrupted", **_facts(shorter.run))
    with atomic_path(run.checkpoint, num_bytes=shorter.run.checkpoint.stat().st_size) as part:
        shutil.copyfile(shorter.run.checkpoint, part)


def _facts(run: Run) -> dict[str, object]:
    status = run.status()
    kept = ("seconds", "catalog", "catalog_fingerprint", "settings_hash", "code")
    return {name: value for name, value in status.items() if name in kept}
