"""A plain convolutional network with batch norm: small, and quick without a GPU."""

from __future__ import annotations

from torch import Tensor, nn

from visual_search import builder
from visual_search.models.encoder import Encoder, check_at_least, outputs_by_name

NUM_CONVOLUTIONS = 5
SMALLEST_PICTURE_PX = 16  # 1 x 1 is left of it after four poolings


class PlainEncoder(Encoder):
    """Five convolutions with pooling between them: 64 px pictures to 512 values by default.

    The convolutions are 3 x 3, each with batch norm and ReLU, of ``width``, 2, 4, 8 and 16 times as
    many channels; max pooling halves the side after the first four. The embedding is the mean
    over the last map, 16 ``width`` values. It has 1.6 million parameters by default.

    Args:
        image_size_px: Side S of the pictures; at least 16.
        width: Channels of the first convolution.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> import torch
        >>> encoder = plain_encoder(image_size_px=16, width=2).eval()
        >>> encoder.encode(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 32])
    """

    def __init__(self, image_size_px: int = 64, width: int = 32) -> None:
        super().__init__()
        check_at_least("image_size_px", image_size_px, SMALLEST_PICTURE_PX)
        check_at_least("width", width, 1)
        self.image_size_px = image_size_px
        self.embedding_dim = width * 2 ** (NUM_CONVOLUTIONS - 1)
        self.maps = nn.Sequential()
        in_channels, out_channels = 3, width
        for number in range(1, NUM_CONVOLUTIONS + 1):
            if number > 1:
                self.maps.add_module(f"pool{number - 1}", nn.MaxPool2d(2))
            self.maps.add_module(
                f"conv{number}",
                nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(inplace=True),  # in place: nothing else reads the norm's output
                ),
            )
            in_channels, out_channels = out_channels, out_channels * 2

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        self.check_images(images)
        maps: Tensor = self.maps(images)  # [B, 16 w, S / 16, S / 16], rounded down
        return maps.mean(dim=(2, 3))

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.layers`: ``conv1``, ``pool1``, ... ``conv5``; its mean is the embedding."""
        self.check_images(images)
        return outputs_by_name(self.maps, images)


# As configs name it.
plain_encoder = builder("model")(PlainEncoder)
