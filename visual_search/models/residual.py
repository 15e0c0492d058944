"""Residual networks with batch norm: an encoder, and the same encoder with a way back.

Shapes: ``B`` batch, ``S`` side of a picture, ``D`` width of the embedding, ``w`` width of the stem.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from visual_search import builder
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.encoder import Encoder, check_at_least

NUM_STAGES = 4
SMALLEST_PICTURE_PX = 32  # 1 x 1 is left of it at the last stage behind the coarser stem
_STEMS = {2: (4, 1), 4: (8, 2)}  # stride -> kernel, padding: exactly S / stride where it divides S
_NARROWEST_DECODER = 32  # channels at full resolution, where each of them costs most


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them, each with batch norm.

    Where the shape changes, the shortcut is average pooling and a 1 x 1 convolution: a strided
    1 x 1 convolution would never look at three of four values (ResNet-D; He et al. 2019, arXiv
    1812.01187).

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: 1 keeps the side, 2 halves it, rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential()  # passes on what it gets
        if stride > 1:
            # ceil_mode: an odd side is halved upwards, as the padded convolution does
            self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if stride > 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns ``[B, out_channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        # in place: the sum is new and nothing else reads it
        return F.relu(self.residual(hidden) + self.shortcut(hidden), inplace=True)


class ResidualEncoder(Encoder):
    """A ResNet with batch norm: 64 px pictures to 512 values by default.

    A stem, four stages of residual blocks, the mean over the last map, and a projection where the
    embedding's width is another. The stages have ``width``, 2, 4 and 8 times as many channels; all
    but the first halve the side. By default that is a ResNet-10 of 4.9 million parameters;
    ``num_blocks=[2, 2, 2, 2]`` makes it a ResNet-18. Source: He et al. 2015, arXiv 1512.03385, with
    the shortcuts of arXiv 1812.01187.

    Args:
        embedding_dim: Width D of the embedding.
        image_size_px: Side S of the pictures; at least 32.
        width: Channels of the stem and of the first stage.
        num_blocks: Residual blocks in each of the four stages.
        stem_stride: 2, or 4 for a quarter of the work and coarser maps.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> import torch
        >>> encoder = residual_encoder(embedding_dim=8, image_size_px=32, width=4).eval()
        >>> encoder.encode(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8])
        >>> list(encoder.layers(torch.zeros(2, 3, 32, 32)))[:2]
        ['stem', 'stage1.block1']
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        image_size_px: int = 64,
        width: int = 64,
        num_blocks: Sequence[int] = (1, 1, 1, 1),
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        check_at_least("width", width, 1)  # first: others follow from it
        check_at_least("embedding_dim", embedding_dim, 1)
        check_at_least("image_size_px", image_size_px, SMALLEST_PICTURE_PX)
        if len(num_blocks) != NUM_STAGES or min(num_blocks) < 1:
            raise ValueError(
                f"got num_blocks {list(num_blocks)}, expected {NUM_STAGES} numbers of at least 1, "
                "one a stage; set model.num_blocks=[1,1,1,1]"
            )
        if stem_stride not in _STEMS:
            raise ValueError(
                f"got stem_stride {stem_stride}, expected 2 or 4; set model.stem_stride=2"
            )
        self.image_size_px = image_size_px
        self.embedding_dim = embedding_dim
        kernel, padding = _STEMS[stem_stride]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, kernel, stem_stride, padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        channels = width
        for stage, num in enumerate(num_blocks):
            blocks = nn.Sequential()
            for block in range(num):
                stride = 2 if stage and not block else 1
                blocks.add_module(
                    f"block{block + 1}", ResidualBlock(channels, width * 2**stage, stride)
                )
                channels = width * 2**stage
            self.stages.add_module(f"stage{stage + 1}", blocks)
        self.projection = (
            nn.Identity() if channels == embedding_dim else nn.Linear(channels, embedding_dim)
        )

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        self.check_images(images)
        maps: Tensor = self.stages(self.stem(images))  # [B, 8 w, S / 16, S / 16], rounded up
        embeddings: Tensor = self.projection(maps.mean(dim=(2, 3)))
        return embeddings

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.layers`: ``stem``, ``stage1.block1``, ...

        The mean of the last map is the embedding, or what the projection makes it of.
        """
        self.check_images(images)
        hidden = self.stem(images)
        outputs = {"stem": hidden}
        for stage, blocks in self.stages.named_children():
            for block, module in blocks.named_children():
                hidden = module(hidden)
                outputs[f"{stage}.{block}"] = hidden
        return outputs


class ResidualAutoencoder(Autoencoder):
    """The network of `residual_encoder`, and the way back to the picture.

    The decoder turns the embedding into a small map of 8 ``width`` channels, then doubles it with
    nearest neighbours and a 3 x 3 convolution until it is a picture: transposed convolutions
    would leave a chequered pattern (Odena et al. 2016, distill.pub/2016/deconv-checkerboard).

    Args:
        embedding_dim: Width D of the embedding.
        image_size_px: Side S of the pictures; a multiple of 16, at least 32.
        width: Channels of the stem and of the first stage.
        num_blocks: Residual blocks in each of the encoder's four stages.
        stem_stride: 2, or 4 for a quarter of the encoder's work and coarser maps.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> import torch
        >>> model = residual(embedding_dim=8, image_size_px=32, width=4).eval()
        >>> model.decode(model.encode(torch.zeros(2, 3, 32, 32))).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        image_size_px: int = 128,
        width: int = 64,
        num_blocks: Sequence[int] = (1, 1, 1, 1),
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        check_at_least("embedding_dim", embedding_dim, 1)
        self.image_size_px = image_size_px
        self.embedding_dim = embedding_dim
        self.encoder = ResidualEncoder(
            self.encoded_dim(width), image_size_px, width, num_blocks, stem_stride
        )
        self.decoder = upsampling_decoder(embedding_dim, image_size_px, width)

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        return self.encoder.encode(images)

    def encoded_dim(self, width: int) -> int:
        """Returns the width of what ``encoder`` gives, by that of its stem: the embedding's own."""
        return self.embedding_dim

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `ResidualEncoder.layers`."""
        return self.encoder.layers(images)


# As configs name them.
residual_encoder = builder("model")(ResidualEncoder)
residual = builder("model")(ResidualAutoencoder)


def upsampling_decoder(embedding_dim: int, image_size_px: int, width: int) -> nn.Sequential:
    """Returns a module from embeddings ``[B, D]`` to pictures ``[B, 3, S, S]`` in -1..1.

    S is halved while it is even and above 4; that many doublings lead back to S exactly. The map
    that it starts from has a side of 4 for 64 and 128 px, 3 for 96, 7 for 224.

    Raises:
        ValueError: S is not a multiple of 16.
    """
    if image_size_px < 16 or image_size_px % 16:
        raise ValueError(
            f"got image_size_px {image_size_px}, expected a multiple of 16 for a network with a "
            f"decoder; set pictures.size_px={max(32, round(image_size_px / 16) * 16)}"
        )
    num_doublings, side = 0, image_size_px
    while side > 4 and side % 2 == 0:
        num_doublings, side = num_doublings + 1, side // 2
    channels = 8 * width
    decoder = nn.Sequential()
    decoder.add_module(
        "start",
        nn.Sequential(
            nn.Linear(embedding_dim, channels * side * side, bias=False),  # the norm has one
            nn.Unflatten(1, (channels, side, side)),  # [B, 8 w * s * s] -> [B, 8 w, s, s]
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ),
    )
    for number in range(num_doublings):
        narrower = max(channels // 2, min(_NARROWEST_DECODER, channels))
        decoder.add_module(
            f"up{number + 1}",
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(channels, narrower, 3, padding=1, bias=False),
                nn.BatchNorm2d(narrower),
                nn.ReLU(inplace=True),
            ),
        )
        channels = narrower
    decoder.add_module("picture", nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.Tanh()))
    return decoder
