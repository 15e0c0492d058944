"""Starts a network with what an earlier run has learned, for pretraining and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.config.builders import ConfigError
from visual_search.runs.run import Run
from visual_search.wording import many

if TYPE_CHECKING:
    from visual_search.models.encoder import Encoder

ENCODER = "encoder."


def checkpoint_to_start_from(folder: str | Path) -> Path:
    """Returns the checkpoint of a run to start from.

    Raises:
        ConfigError: There is none.
    """
    path = Run(Path(folder)).checkpoint
    if not path.is_file():
        raise ConfigError(
            f"{_key(folder)}: there is no {path}; expected the folder of a run that has trained, "
            "as outputs/NAME/HASH; check the path"
        )
    return path


def take_weights(model: Encoder, folder: str | Path) -> str:
    """Copies the weights of a run's network into another one, where both have them.

    One of the two networks may lack a part that the other has, such as a decoder. What training
    needed beside the network, a classifier or a projection, is not taken.

    Args:
        model: Changed in place.
        folder: The run's folder, or one whose ``checkpoints/last.ckpt`` is of such a run.

    Returns:
        What was taken, for a person to read.

    Raises:
        ConfigError: There is no such run, or its network does not fit.
        ValueError: The checkpoint is damaged.
    """
    from visual_search.training.checkpointing import load_checkpoint

    key = _key(folder)
    path = checkpoint_to_start_from(folder)
    there = {
        name.removeprefix("model."): value
        for name, value in load_checkpoint(path)["state_dict"].items()
        if name.startswith("model.")
    }
    own = model.state_dict()
    # An autoencoder holds its encoder whole, under a name of its own.
    if not set(own) & set(there):
        if all(f"{ENCODER}{name}" in there for name in own):
            there = {name: there[f"{ENCODER}{name}"] for name in own}
        elif all(f"{ENCODER}{name}" in own for name in there):
            there = {f"{ENCODER}{name}": value for name, value in there.items()}
    common = sorted(set(own) & set(there))
    if len(common) < min(len(own), len(there)):
        lacking = min(set(own) - set(there), default="nothing")
        raise ConfigError(
            f"{key}: of the network's {len(own)} tensors the run has {len(common)}, and lacks "
            f"{lacking!r}; expected a network that holds the other one whole; choose model= as "
            "that run's config.yaml has it"
        )
    for name in common:
        if own[name].shape != there[name].shape:
            raise ConfigError(
                f"{key}: {name!r} is {tuple(there[name].shape)} in the run and "
                f"{tuple(own[name].shape)} here; expected the same; set model.* and "
                "pictures.size_px as that run's config.yaml has them"
            )
    model.load_state_dict({**own, **{name: there[name] for name in common}})
    return f"First weights from {path}: {len(common)} of {many(len(own), 'tensor')} of the network"


def _key(folder: str | Path) -> str:
    return f"training.start_from={folder}"
