"""A folder of weights as the Hugging Face hub gives it: one file of tensors, and what they expect.

Formats: timm's ``config.json`` (``architecture``, ``pretrained_cfg``) beside
``model.safetensors`` or ``pytorch_model.bin``; open_clip's ``open_clip_config.json``
(``preprocess_cfg``) beside ``open_clip_model.safetensors`` or ``open_clip_pytorch_model.bin``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_FILES = {  # configuration -> its files of tensors, the safe one first
    "open_clip_config.json": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "config.json": ("model.safetensors", "pytorch_model.bin"),
}


@dataclass(frozen=True)
class HubFolder:
    """What a folder says of its weights.

    Attributes:
        file: The tensors.
        architecture: timm's name of the network that they are of; empty where it is not said.
        mean: Of each channel, in 0..1, that the weights expect to be taken off; None: not said.
        std: Of each channel, in 0..1, that they expect to be divided by; None: not said.
    """

    file: Path
    architecture: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def read_hub_folder(folder: Path) -> HubFolder:
    """Returns what a folder says of its weights; nothing in it is executed.

    Raises:
        ValueError: It has no such configuration or no tensors, or the configuration is not one.
    """
    for name, files in _FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        there = [folder / file for file in files if (folder / file).is_file()]
        if not there:
            raise ValueError(
                f"got weights {str(folder)!r}, expected {' or '.join(files)} beside {name}; "
                "download the repository's file of weights as well"
            )
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            seen = config.get("preprocess_cfg") or config.get("pretrained_cfg") or {}
            architecture = str(config.get("architecture", ""))
            mean, std = _channels(seen, "mean"), _channels(seen, "std")
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); expected the configuration of timm or "
                "open_clip: download it again"
            ) from error
        return HubFolder(there[0], architecture, mean, std)
    raise ValueError(
        f"got weights {str(folder)!r}, expected a folder with {' or '.join(_FILES)}, as the hub "
        "gives them, or a file of tensors; correct model.weights"
    )


def _channels(seen: Mapping[str, object], key: str) -> tuple[float, ...] | None:
    if seen.get(key) is None:
        return None
    values = tuple(float(value) for value in cast("Sequence[float]", seen[key]))
    if len(values) != 3:
        raise ValueError(f"{key} {values}, expected three numbers, one a channel")
    return values
