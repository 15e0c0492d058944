"""What each hand-built network is: its layers against what is published, its parts, its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from visual_search.models.autoencoder import Conv, ConvTransposed, LayerTableAutoencoder, Pool
from visual_search.models.backbones import backbone
from visual_search.models.encoder import Encoder, evaluating
from visual_search.models.plain import plain_encoder
from visual_search.models.residual import (
    ResidualBlock,
    residual,
    residual_encoder,
    upsampling_decoder,
)
from visual_search.models.variants import baseline, plus_layer
from visual_search.models.variational import MAX_LOG_VARIANCE, variational

# channels x side of every layer's output
COMMON = "conv1 64x128 conv2 64x128 pool1 64x64 conv3 128x32 conv4 128x30 pool2 128x15 conv5 256x8 "
PLUS_LAYER = COMMON + "pool3 256x4 conv6 512x4 conv7 512x4 conv8 512x2 pool4 512x1"
BASELINE = COMMON + "conv6 256x8 conv7 256x8 pool3 256x4"
PLAIN = (
    "conv1 32x64 pool1 32x32 conv2 64x32 pool2 64x16 conv3 128x16 pool3 128x8 "
    "conv4 256x8 pool4 256x4 conv5 512x4"
)
RESIDUAL = (
    "stem 64x32 stage1.block1 64x32 stage2.block1 128x16 stage3.block1 256x8 stage4.block1 512x4"
)


@pytest.mark.parametrize(
    ("build", "layers", "embedding_dim", "num_parameters"),
    [
        (plus_layer, PLUS_LAYER, 512, 6_455_104),  # published, as the whole: see below
        (baseline, BASELINE, 4096, 1_735_488),
        (plain_encoder, PLAIN, 512, 1_569_568),
        (residual_encoder, RESIDUAL, 512, 4_899_456),
    ],
)
def test_the_default_has_the_described_layers(
    build: Callable[[], Encoder], layers: str, embedding_dim: int, num_parameters: int
) -> None:
    torch.manual_seed(0)
    encoder = build().eval()
    side = encoder.image_size_px
    found = encoder.layers(torch.rand(1, 3, side, side))
    shapes = (f"{name} {maps.shape[1]}x{maps.shape[2]}" for name, maps in found.items())
    assert " ".join(shapes) == layers
    assert encoder.embedding_dim == embedding_dim
    own = (p for name, p in encoder.named_parameters() if not name.startswith("decoder."))
    assert sum(parameter.numel() for parameter in own) == num_parameters
    # The source has no ReLU behind its seventh convolution.
    negative = {name for name, maps in found.items() if maps.min() < 0}
    assert negative == ({"conv7"} if build is plus_layer else set())


def test_the_published_decoder_and_the_default_residual_one() -> None:
    assert sum(parameter.numel() for parameter in plus_layer().parameters()) == 10_429_827
    model = residual()
    convolutions = [m for m in model.decoder.modules() if type(m) is nn.Conv2d]
    assert [c.out_channels for c in convolutions] == [256, 128, 64, 32, 32, 3]
    assert (model.embedding_dim, model.image_size_px) == (512, 128)


@pytest.mark.parametrize("bottleneck", [(4, 4, 4), (4, 8, 8)])  # (3, 8, 8) is no picture either
def test_a_table_that_does_not_lead_there_and_back_is_refused(
    bottleneck: tuple[int, int, int],
) -> None:
    with pytest.raises(ValueError, match=r"table ends in \([34], 8, 8\)"):
        LayerTableAutoencoder([Conv(3, 4), Pool()], [ConvTransposed(4, 3)], bottleneck, 16)


def test_every_convolution_of_the_plain_network_is_followed_by_norm_and_relu() -> None:
    torch.manual_seed(0)
    encoder = plain_encoder(16, width=4)
    layers = encoder.layers(torch.rand(8, 3, 16, 16))  # in training: the norm is the batch's
    convolutions = [maps for name, maps in layers.items() if name.startswith("conv")]
    for maps in convolutions:
        assert maps.min() == 0
        assert 0.2 < (maps > 0).float().mean() < 0.8  # values around 0 came into the ReLU
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_batches_tracked.item() for norm in norms] == [1] * len(convolutions)


@pytest.mark.parametrize(("size_px", "stem_stride"), [(32, 2), (47, 2), (47, 4), (64, 4)])
def test_only_a_stages_first_block_is_strided_and_sides_are_rounded_up(
    size_px: int, stem_stride: int
) -> None:
    encoder = residual_encoder(8, size_px, 2, num_blocks=[1, 2, 1, 3], stem_stride=stem_stride)
    layers = encoder.eval().layers(torch.zeros(1, 3, size_px, size_px))
    stem = size_px // stem_stride
    stages = [-(-stem // 2**halvings) for halvings in range(4)]
    assert {name: maps.shape[-1] for name, maps in layers.items()} == {
        "stem": stem,
        "stage1.block1": stages[0],
        **dict.fromkeys(("stage2.block1", "stage2.block2"), stages[1]),
        "stage3.block1": stages[2],
        **dict.fromkeys(("stage4.block1", "stage4.block2", "stage4.block3"), stages[3]),
    }
    assert list(layers)[-1] == "stage4.block3"
    assert encoder.encode(torch.zeros(1, 3, size_px, size_px)).shape == (1, 8)
    plain = plain_encoder(size_px, width=2).eval()
    assert plain.encode(torch.zeros(2, 3, size_px, size_px)).shape == (2, 32)


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


@pytest.mark.parametrize(("size_px", "start_px"), [(32, 4), (48, 3), (64, 4), (80, 5), (176, 11)])
def test_a_decoder_reaches_its_size(size_px: int, start_px: int) -> None:
    decoder = upsampling_decoder(4, size_px, width=2).eval()
    with torch.no_grad():
        assert decoder.get_submodule("start")(torch.zeros(1, 4)).shape[2:] == (start_px, start_px)
        assert decoder(torch.randn(1, 4)).shape == (1, 3, size_px, size_px)


def test_the_embedding_is_the_mean_of_a_posterior_whose_variance_stays_in_its_range() -> None:
    torch.manual_seed(0)
    model = variational(8, 32, width=4).eval()
    pictures = torch.rand(3, 3, 32, 32)
    mean, log_variance = model.posterior(pictures)
    assert torch.equal(model.encode(pictures), mean)
    assert not torch.equal(mean, log_variance)
    bias = torch.tensor([-1e6, 1e6] * 4)
    model.log_variance.bias.data.copy_(bias)
    _, log_variance = model.posterior(pictures)
    assert torch.equal(log_variance, bias.sign().expand(3, 8) * MAX_LOG_VARIANCE)
    assert torch.isfinite(log_variance.exp()).all()


RESIDUAL_LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"embedding_dim": 0}, "embedding_dim 0, .*model.embedding_dim"),
    ({"image_size_px": 31}, "image_size_px 31"),
    ({"width": 0}, "width 0, .*model.width"),
    ({"num_blocks": [1, 1, 1]}, r"\[1, 1, 1\], expected 4 .*model.num_blocks"),
    ({"num_blocks": [1, 1, 0, 1]}, r"\[1, 1, 0, 1\], expected 4"),
    ({"stem_stride": 3}, "stem_stride 3, .*model.stem_stride=2"),
]


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        *(
            (build, *limit)
            for build in (residual_encoder, residual, variational)
            for limit in RESIDUAL_LIMITS
        ),
        (residual, {"image_size_px": 100}, r"image_size_px 100, .*16.*pictures.size_px=96"),
        (variational, {"image_size_px": 72}, "image_size_px 72, .*16"),
        (plain_encoder, {"image_size_px": 15}, "image_size_px 15, .*at least 16"),
        (plain_encoder, {"width": 0}, "width 0, .*model.width"),
        (backbone, {"name": "test_resnet", "embedding_dim": 0}, "embedding_dim 0, .*at least 1"),
        (backbone, {"name": "test_resnet", "image_size_px": 0}, "image_size_px 0, .*at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(
    build: Callable[..., Encoder], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_asked_in_evaluation_mode_every_part_has_its_mode_back() -> None:
    network = nn.Sequential(nn.Linear(3, 7), nn.Dropout(0.5))
    network[1].eval()  # a part that is frozen stays so

    def fails() -> None:
        with evaluating(network):
            assert not network.training
            assert not torch.is_grad_enabled()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fails()
    assert [module.training for module in network.modules()] == [True, True, False]
