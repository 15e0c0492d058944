"""The autoencoder contract, and how a layer table becomes a network.

A variant is a table of layers that a reader can check against the text that describes it; the
tables are in ``variants.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from visual_search.models.encoder import Encoder, outputs_by_name

Activation = Literal["relu", "tanh", "none"]


class Autoencoder(Encoder):
    """An encoder with a way back, so that one can look at what an embedding keeps.

    Attributes:
        decoder: From embeddings ``[B, D]`` to pictures ``[B, 3, S, S]`` in -1..1.
    """

    decoder: nn.Module

    def decode(self, embeddings: Tensor) -> Tensor:
        """Returns pictures ``[B, 3, S, S]`` in -1..1 of embeddings ``[B, D]``.

        Raises:
            ValueError: The shape is not ``[B, D]``.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(
                f"got embeddings of shape {tuple(embeddings.shape)}, expected "
                f"[B, {self.embedding_dim}]; decode what this network encoded"
            )
        images: Tensor = self.decoder(embeddings)
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Returns reconstructions of pictures, both ``[B, 3, S, S]`` in -1..1."""
        return self.decode(self.encode(images))


@dataclass(frozen=True)
class _Convolution:
    in_channels: int
    out_channels: int
    stride: int = 1
    padding: int = 1
    kernel: int = 3
    activation: Activation = "relu"


class Conv(_Convolution):
    """A convolution and the activation after it."""


class ConvTransposed(_Convolution):
    """A transposed convolution and the activation after it."""


@dataclass(frozen=True)
class Pool:
    """Max pooling over windows of ``size`` x ``size``, stride ``size``."""

    size: int = 2


def build_layers(table: Sequence[Conv | ConvTransposed | Pool]) -> nn.Sequential:
    """Returns a module whose children are the table's rows, named conv1, pool1, deconv1, ..."""
    modules = nn.Sequential()
    counts = {"conv": 0, "deconv": 0, "pool": 0}
    for row in table:
        kind = {Conv: "conv", ConvTransposed: "deconv", Pool: "pool"}[type(row)]
        counts[kind] += 1
        module: nn.Module
        if isinstance(row, Pool):
            module = nn.MaxPool2d(row.size)
        else:
            convolution = nn.Conv2d if isinstance(row, Conv) else nn.ConvTranspose2d
            sizes = (row.in_channels, row.out_channels, row.kernel, row.stride, row.padding)
            module = nn.Sequential(convolution(*sizes))
            if row.activation == "relu":
                module.append(nn.ReLU(inplace=True))  # nothing else reads the convolution's output
            elif row.activation == "tanh":
                module.append(nn.Tanh())
        modules.add_module(f"{kind}{counts[kind]}", module)
    return modules


class LayerTableAutoencoder(Autoencoder):
    """An autoencoder made of two layer tables.

    Args:
        encoder: Rows from the picture to the bottleneck.
        decoder: Rows from the bottleneck back to the picture.
        bottleneck: Shape ``(C, H, W)`` at the encoder's end; the embedding is its C*H*W values.
        image_size_px: Side of the pictures.

    Raises:
        ValueError: The tables do not lead from the picture to the bottleneck and back.
    """

    def __init__(
        self,
        encoder: Sequence[Conv | Pool],
        decoder: Sequence[ConvTransposed],
        bottleneck: tuple[int, int, int],
        image_size_px: int,
    ) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        self.embedding_dim = bottleneck[0] * bottleneck[1] * bottleneck[2]
        with torch.device("meta"):  # follows one picture through the tables, and computes nothing
            picture = torch.empty(1, 3, image_size_px, image_size_px)
            embedding = build_layers(encoder)(picture)
            if tuple(embedding.shape[1:]) != bottleneck:
                raise ValueError(
                    f"the encoder's table ends in {tuple(embedding.shape[1:])}, expected the "
                    f"bottleneck {bottleneck}; correct the table or the bottleneck"
                )
            restored = build_layers(decoder)(embedding)
            if restored.shape != picture.shape:
                raise ValueError(
                    f"the decoder's table ends in {tuple(restored.shape[1:])}, expected "
                    f"{tuple(picture.shape[1:])}; correct the table"
                )
        self.encoder = build_layers(encoder)
        start = ("start", nn.Unflatten(1, bottleneck))  # [B, D] -> [B, C, H, W]
        self.decoder = nn.Sequential(OrderedDict([start, *build_layers(decoder).named_children()]))

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        self.check_images(images)
        bottleneck: Tensor = self.encoder(images)
        return bottleneck.flatten(1)  # [B, C, H, W] -> [B, D]

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.layers`; a layer's activation counts as part of it."""
        self.check_images(images)
        return outputs_by_name(self.encoder, images)
