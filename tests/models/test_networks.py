"""Every network by one contract; the hand-built ones against what is published."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.networks import NETWORKS, built
from visual_search.models.autoencoder import (
    Autoencoder,
    Conv,
    ConvTransposed,
    LayerTableAutoencoder,
    Pool,
)
from visual_search.models.backbones import BackboneEncoder, backbone
from visual_search.models.encoder import Encoder, evaluating
from visual_search.models.plain import PlainEncoder, plain_encoder
from visual_search.models.residual import (
    ResidualBlock,
    ResidualEncoder,
    residual,
    residual_encoder,
    upsampling_decoder,
)
from visual_search.models.variants import baseline, plus_layer
from visual_search.models.variational import MAX_LOG_VARIANCE, VariationalAutoencoder, variational

POOLED = ("plain_encoder", "residual_encoder_odd", "timm_own_width")  # last map: its mean


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Encoder:
    return built(name).eval()


@pytest.fixture
def pictures(model: Encoder) -> Tensor:
    side = model.image_size_px
    pictures = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def loss_over_all(model: Encoder, pictures: Tensor) -> Tensor:
    """A number that everything learnable has a part in."""
    if isinstance(model, VariationalAutoencoder):
        mean, log_variance = model.posterior(pictures)
        return (model.decode(mean) - pictures).square().mean() + log_variance.square().mean()
    if isinstance(model, Autoencoder):
        return (model(pictures) - pictures).square().mean()
    embeddings = model.encode(pictures)
    weights = torch.rand(embeddings.shape, generator=torch.Generator().manual_seed(1))
    return (embeddings * weights).square().sum()


def named_modules_of_layers(model: Encoder) -> dict[str, nn.Module]:
    """Returns the modules behind the names of ``layers``."""
    encoder = model.encoder if isinstance(model, Autoencoder) else model
    if isinstance(encoder, ResidualEncoder):
        return {"stem": encoder.stem, **dict(encoder.stages.named_modules())}
    if isinstance(encoder, PlainEncoder):
        return dict(encoder.maps.named_modules())
    if isinstance(encoder, BackboneEncoder):
        return dict(encoder.backbone.network.named_modules())
    return dict(encoder.named_children())  # a layer table


def test_every_network_of_the_configs_is_here() -> None:
    names = {path.stem for path in Path("conf/model").glob("*.yaml")}
    assert names
    assert names - {"backbone"} <= set(NETWORKS)  # which is timm and torchvision here


def test_embeddings_follow_the_weights_and_their_picture_alone(
    name: str, model: Encoder, pictures: Tensor
) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = built(name, seed=1).eval()
    with torch.no_grad():
        embeddings = model.encode(pictures)
        alone = torch.cat([model.encode(picture[None]) for picture in pictures])
        assert torch.equal(model.encode(pictures), embeddings)
        assert not torch.equal(other.encode(pictures), embeddings)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.encode(pictures), embeddings)
    assert embeddings.shape == (4, model.embedding_dim)
    assert torch.isfinite(embeddings).all()
    assert embeddings.std(dim=0).max() > 0  # not the same for every picture
    torch.testing.assert_close(embeddings, alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    side = model.image_size_px
    with pytest.raises(ValueError, match=rf"\(1, 3, 16, 16\).*pictures.size_px={side}"):
        model.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=rf"\(3, {side}, {side}\)"):
        model.layers(torch.zeros(3, side, side))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.encode(pictures)).all()


def test_gradients_reach_every_parameter_that_is_to_learn(
    name: str, model: Encoder, pictures: Tensor
) -> None:
    model.train()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        if not norm.weight.any():  # timm starts each block as its shortcut alone: nothing gets
            nn.init.ones_(norm.weight)  # behind the block's last norm in the very first step
    loss_over_all(model, pictures).backward()
    learning = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert [key for key, p in learning.items() if p.grad is None or not p.grad.any()] == []
    if name == "frozen":
        assert list(learning) == ["projection.weight", "projection.bias"]
    else:
        assert len(learning) == len(list(model.parameters()))


def test_layers_are_what_the_named_modules_gave_and_end_in_the_embedding(
    name: str, model: Encoder, pictures: Tensor
) -> None:
    """Activations in place would show as maps that a later module overwrote."""
    modules, given = named_modules_of_layers(model), {}

    def keep(key: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        given[key] = output.clone()

    with torch.no_grad():
        names = [key for key in model.layers(pictures) if key in modules]
        for key in names:
            modules[key].register_forward_hook(partial(keep, key))
        layers = model.layers(pictures)
        embeddings = model.encode(pictures)
    assert len(names) >= len(layers) - 1 >= 4  # all but timm's `final`
    for key in names:
        output = given[key]
        if output.ndim == 3:  # [B, 1 + H * W, C], tokens of a vision transformer
            output = output[:, 1:].transpose(1, 2).reshape(layers[key].shape)
        torch.testing.assert_close(layers[key], output, rtol=0, atol=0)
    assert all(maps.ndim == 4 and len(maps) == 4 for maps in layers.values())
    assert all(torch.isfinite(maps).all() for maps in layers.values())
    sides = [maps.shape[-1] for maps in layers.values()]
    assert sides == sorted(sides, reverse=True)
    last = list(layers.values())[-1]
    assert last.flatten(1).std(dim=0).max() > 0  # pictures differ in it
    assert last.std(dim=1).max() > 0  # and so do its channels
    if name in POOLED or isinstance(model, LayerTableAutoencoder):  # which has the map itself
        own = last.mean(dim=(2, 3)) if name in POOLED else last.flatten(1)
        torch.testing.assert_close(own, embeddings)
    projection = getattr(model, "projection", None)
    if isinstance(model, ResidualEncoder) and isinstance(projection, nn.Linear):
        torch.testing.assert_close(projection(last.mean(dim=(2, 3))), embeddings)


def test_decoders_give_pictures(model: Encoder, pictures: Tensor) -> None:
    if not isinstance(model, Autoencoder):
        assert not hasattr(model, "decode")
        return
    with torch.no_grad():
        restored = model.decode(model.encode(pictures))
        assert torch.equal(model(pictures), restored)
    assert restored.shape == pictures.shape
    assert restored.abs().max() <= 1
    assert restored.std(dim=0).max() > 0
    with pytest.raises(ValueError, match=rf"\(1, 7\), expected \[B, {model.embedding_dim}\]"):
        model.decode(torch.zeros(1, 7))


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


def test_a_table_that_does_not_lead_there_and_back_is_refused() -> None:
    for bottleneck in ((4, 4, 4), (4, 8, 8)):  # (3, 8, 8) is no picture either
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


def test_a_decoder_reaches_its_size() -> None:
    for size_px, start_px in ((32, 4), (48, 3), (64, 4), (80, 5), (176, 11)):
        decoder = upsampling_decoder(4, size_px, width=2).eval()
        with torch.no_grad():
            start = decoder.get_submodule("start")(torch.zeros(1, 4))
            assert start.shape[2:] == (start_px, start_px)
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


RESIDUAL_LIKE = (residual_encoder, residual, variational)
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
        *((build, *limit) for build in RESIDUAL_LIKE for limit in RESIDUAL_LIMITS),
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
