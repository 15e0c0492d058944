"""The autoencoder contract, and how a layer table becomes a network.

A variant is a table of layers that a reader can check against the text that describes it; the
tables are in ``variants.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from visual_search.models.encoder import Encoder

Activation = Literal["relu", "tanh", "none"]


class Autoencoder(Encoder):
    """An encoder with a way back, so that one can look at what an embedding keeps."""

    @abstractmethod
    def decode(self, embeddings: Tensor) -> Tensor:
        """Returns pictures ``[B, 3, S, S]`` in -1..1 of embeddings ``[B, D]``."""

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


def _activation(name: Activation) -> list[nn.Module]:
    if name == "relu":
        return [nn.ReLU(inplace=True)]  # in place: nothing else reads the convolution's output
    if name == "tanh":
        return [nn.Tanh()]
    return []


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
            module = nn.Sequential(
                convolution(
                    row.in_channels,
                    row.out_channels,
                    kernel_size=row.kernel,
                    stride=row.stride,
                    padding=row.padding,
                ),
                *_activation(row.activation),
            )
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
        self.bottleneck = bottleneck
        self.embedding_dim = bottleneck[0] * bottleneck[1] * bottleneck[2]
        self.encoder = build_layers(encoder)
        self.decoder = build_layers(decoder)
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Follows one picture through the tables on the meta device, which computes nothing."""
        picture = torch.empty(1, 3, self.image_size_px, self.image_size_px, device="meta")
        embedding = _on_meta(self.encoder, picture)
        if tuple(embedding.shape[1:]) != self.bottleneck:
            raise ValueError(
                f"the encoder's table ends in {tuple(embedding.shape[1:])}, expected the "
                f"bottleneck {self.bottleneck}; correct the table or the bottleneck"
            )
        restored = _on_meta(self.decoder, embedding)
        if restored.shape != picture.shape:
            raise ValueError(
                f"the decoder's table ends in {tuple(restored.shape[1:])}, expected "
                f"{tuple(picture.shape[1:])}; correct the table"
            )

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        self.check_images(images)
        bottleneck: Tensor = self.encoder(images)
        return bottleneck.flatten(1)  # [B, C, H, W] -> [B, D]

    def decode(self, embeddings: Tensor) -> Tensor:
        """See `Autoencoder.decode`.

        Raises:
            ValueError: The shape is not ``[B, D]``.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(
                f"got embeddings of shape {tuple(embeddings.shape)}, expected "
                f"[B, {self.embedding_dim}]; decode what this variant encoded"
            )
        images: Tensor = self.decoder(embeddings.reshape(-1, *self.bottleneck))
        return images

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.layers`; a layer's activation counts as part of it."""
        self.check_images(images)
        outputs: dict[str, Tensor] = {}
        hidden = images
        for name, layer in self.encoder.named_children():
            hidden = layer(hidden)
            outputs[name] = hidden
        return outputs


def _on_meta(module: nn.Module, inputs: Tensor) -> Tensor:
    parameters = {name: p.to("meta") for name, p in module.named_parameters()}
    with torch.no_grad():
        output: Tensor = torch.func.functional_call(module, parameters, (inputs,))
    return output
