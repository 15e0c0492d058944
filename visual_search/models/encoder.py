"""The encoder contract: what every network can do, whatever it is trained for."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns pictures into embeddings, so that index and figures need not know how.

    Attributes:
        image_size_px: Side S of the square pictures that it takes.
        embedding_dim: Width D of the embedding.
        is_pretrained: Whether the first weights were learned from other pictures.
    """

    image_size_px: int
    embedding_dim: int
    is_pretrained: bool = False

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Returns embeddings ``[B, D]`` of pictures ``[B, 3, S, S]`` in -1..1."""

    @abstractmethod
    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the output ``[B, C, H, W]`` of every encoder layer by name, first layer first."""

    def check_images(self, images: Tensor) -> None:
        """Refuses pictures that the network was not built for.

        Raises:
            ValueError: The shape is not ``[B, 3, S, S]``.
        """
        expected = (3, self.image_size_px, self.image_size_px)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"got pictures of shape {tuple(images.shape)}, expected [B, 3, "
                f"{self.image_size_px}, {self.image_size_px}]; set pictures.size_px="
                f"{self.image_size_px}"
            )


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuses a number that no network can be built with.

    Raises:
        ValueError: It is below ``least``.
    """
    if value < least:
        raise ValueError(f"got {name} {value}, expected at least {least}; set model.{name}")


def convolves_by_channel(network: nn.Module) -> bool:
    """Returns whether a network has convolutions of every channel by itself, as EfficientNets do.

    >>> convolves_by_channel(nn.Conv2d(8, 8, 3, groups=8)), convolves_by_channel(nn.Conv2d(8, 8, 3))
    (True, False)
    """
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return any(layer.groups == layer.in_channels > 1 for layer in layers)


def outputs_by_name(layers: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """Returns what every layer gives, by its name; each takes what the one before gave."""
    outputs: dict[str, Tensor] = {}
    hidden = images
    for name, layer in layers.named_children():
        outputs[name] = hidden = layer(hidden)
    return outputs


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Asks a network in evaluation mode and without gradients; every part has its mode back then.

    A batch norm would take what it sees into its averages otherwise; a part may be frozen.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
