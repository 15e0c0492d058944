"""The residual networks: their shapes, their parts against an obvious version, their errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from visual_search.models.residual import (
    ResidualBlock,
    residual,
    residual_encoder,
    upsampling_decoder,
)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_default_is_a_resnet_10() -> None:
    encoder = residual_encoder()
    assert encoder.embedding_dim == 512
    assert num_parameters(encoder) == 4_899_456
    layers = encoder.eval().layers(torch.zeros(1, 3, 64, 64))
    assert [(name, *maps.shape[1:3]) for name, maps in layers.items()] == [
        ("stem", 64, 32),
        ("stage1.block1", 64, 32),
        ("stage2.block1", 128, 16),
        ("stage3.block1", 256, 8),
        ("stage4.block1", 512, 4),
    ]
    assert not [name for name, _ in encoder.named_parameters() if "projection" in name]


@pytest.mark.parametrize("size_px", [32, 47, 64, 96, 128])
@pytest.mark.parametrize("stem_stride", [2, 4])
def test_sizes(size_px: int, stem_stride: int) -> None:
    encoder = residual_encoder(8, size_px, width=2, stem_stride=stem_stride).eval()
    with torch.no_grad():
        layers = encoder.layers(torch.zeros(1, 3, size_px, size_px))
        assert encoder.encode(torch.zeros(1, 3, size_px, size_px)).shape == (1, 8)
    sides = [maps.shape[-1] for maps in layers.values()]
    expected = [size_px // stem_stride]
    expected += [expected[0], *(-(-expected[0] // 2**halvings) for halvings in (1, 2, 3))]
    assert sides == expected


def test_blocks_are_numbered_and_only_a_stages_first_one_is_strided() -> None:
    encoder = residual_encoder(8, 32, width=2, num_blocks=[1, 2, 1, 3]).eval()
    layers = encoder.layers(torch.zeros(1, 3, 32, 32))
    assert list(layers) == [
        *("stem", "stage1.block1", "stage2.block1", "stage2.block2", "stage3.block1"),
        *("stage4.block1", "stage4.block2", "stage4.block3"),
    ]
    assert [maps.shape[-1] for maps in layers.values()] == [16, 16, 8, 8, 4, 2, 2, 2]


@pytest.mark.parametrize(("stride", "out_channels"), [(1, 4), (1, 6), (2, 6)])
def test_a_block_is_the_sum_of_its_two_ways(stride: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, out_channels, stride).eval()
    hidden = torch.randn(2, 4, 7, 7)
    before = hidden.clone()
    state = block.state_dict()
    way = F.conv2d(hidden, state["residual.0.weight"], stride=stride, padding=1)
    way = F.conv2d((way / (1 + 1e-5) ** 0.5).relu(), state["residual.3.weight"], padding=1)
    shortcut = hidden
    if stride == 2:  # an odd side: the last window holds what is left
        padded = F.pad(hidden, (0, 1, 0, 1), value=float("nan"))
        windows = padded.unfold(2, 2, 2).unfold(3, 2, 2)  # [B, C, 4, 4, 2, 2]
        shortcut = windows.flatten(4).nanmean(dim=-1)
    if out_channels != 4:
        weight = next(value for key, value in state.items() if key.startswith("shortcut"))
        shortcut = F.conv2d(shortcut, weight) / (1 + 1e-5) ** 0.5
    expected = (way / (1 + 1e-5) ** 0.5 + shortcut).relu()
    torch.testing.assert_close(block(hidden), expected)
    assert torch.equal(hidden, before)  # what came in is left alone


def test_another_width_of_the_embedding_is_a_projection_of_the_pooled_values() -> None:
    torch.manual_seed(0)
    encoder = residual_encoder(5, 32, width=2).eval()
    pictures = torch.rand(2, 3, 32, 32)
    pooled = encoder.layers(pictures)["stage4.block1"].mean(dim=(2, 3))
    assert isinstance(encoder.projection, nn.Linear)
    torch.testing.assert_close(encoder.encode(pictures), encoder.projection(pooled))


@pytest.mark.parametrize(
    ("size_px", "start_px"), [(32, 4), (48, 3), (64, 4), (80, 5), (96, 3), (128, 4), (176, 11)]
)
def test_a_decoder_reaches_its_size(size_px: int, start_px: int) -> None:
    decoder = upsampling_decoder(4, size_px, width=2).eval()
    with torch.no_grad():
        assert decoder.get_submodule("start")(torch.zeros(1, 4)).shape[2:] == (start_px, start_px)
        pictures = decoder(torch.randn(1, 4))
    assert pictures.shape == (1, 3, size_px, size_px)


def test_the_default_decoder_narrows_to_32_channels() -> None:
    model = residual()
    convolutions = [m for m in model.get_submodule("decoder").modules() if type(m) is nn.Conv2d]
    assert [c.out_channels for c in convolutions] == [256, 128, 64, 32, 32, 3]
    assert (model.embedding_dim, model.image_size_px) == (512, 128)


def test_a_residual_autoencoder_learns_a_picture() -> None:
    torch.manual_seed(0)
    model = residual(16, 32, width=4)
    pictures = torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32) * 2 - 1  # plain colours
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = (model(pictures) - pictures).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_dim": 0}, "got embedding_dim 0, expected at least 1; set model.embedding_dim"),
        ({"image_size_px": 31}, "got image_size_px 31, expected at least 32"),
        ({"width": 0}, "got width 0, expected at least 1; set model.width"),
        ({"num_blocks": [1, 1, 1]}, r"got num_blocks \[1, 1, 1\], expected 4 numbers"),
        ({"num_blocks": [1, 1, 0, 1]}, r"got num_blocks \[1, 1, 0, 1\], expected 4 numbers"),
        ({"stem_stride": 3}, "got stem_stride 3, expected 2 or 4; set model.stem_stride=2"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    for builder in (residual_encoder, residual):
        with pytest.raises(ValueError, match=message):
            builder(**arguments)


def test_a_decoder_wants_a_multiple_of_16() -> None:
    with pytest.raises(ValueError, match=r"image_size_px 100, .*multiple of 16.*size_px=96"):
        residual(image_size_px=100)
