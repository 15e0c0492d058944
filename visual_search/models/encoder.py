"""The encoder contract: what every network can do, whatever it is trained for."""

from __future__ import annotations

from abc import ABC, abstractmethod

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
