"""The plain network: the described layers, and its errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visual_search.models.plain import plain_encoder


def test_it_has_the_described_layers() -> None:
    encoder = plain_encoder()
    assert (encoder.embedding_dim, encoder.image_size_px) == (512, 64)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 1_569_568
    layers = encoder.eval().layers(torch.zeros(1, 3, 64, 64))
    assert [(name, *maps.shape[1:3]) for name, maps in layers.items()] == [
        *(("conv1", 32, 64), ("pool1", 32, 32), ("conv2", 64, 32), ("pool2", 64, 16)),
        *(("conv3", 128, 16), ("pool3", 128, 8), ("conv4", 256, 8), ("pool4", 256, 4)),
        ("conv5", 512, 4),
    ]


def test_every_convolution_is_followed_by_norm_and_relu() -> None:
    torch.manual_seed(0)
    encoder = plain_encoder(16, width=4)
    layers = encoder.layers(torch.rand(8, 3, 16, 16))  # in training: the norm is the batch's
    convolutions = [maps for name, maps in layers.items() if name.startswith("conv")]
    assert len(convolutions) == 5
    for maps in convolutions:
        assert maps.min() == 0
        assert 0.2 < (maps > 0).float().mean() < 0.8  # values around 0 came into the ReLU
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 1 for norm in norms)


@pytest.mark.parametrize("size_px", [16, 33, 96])
def test_other_sizes(size_px: int) -> None:
    encoder = plain_encoder(size_px, width=2).eval()
    assert encoder.encode(torch.zeros(2, 3, size_px, size_px)).shape == (2, 32)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="got image_size_px 15, expected at least 16"):
        plain_encoder(image_size_px=15)
    with pytest.raises(ValueError, match=r"got width 0, expected at least 1; set model\.width"):
        plain_encoder(width=0)
