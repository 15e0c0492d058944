"""One contract for every network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visual_search.models.autoencoder import Autoencoder
from visual_search.models.backbones import BackboneEncoder, backbone
from visual_search.models.encoder import Encoder
from visual_search.models.plain import PlainEncoder, plain_encoder
from visual_search.models.residual import ResidualEncoder, residual, residual_encoder
from visual_search.models.variants import baseline, plus_layer
from visual_search.models.variational import VariationalAutoencoder, variational

SIDE = 32
residual_like: dict[str, Any] = {"embedding_dim": 24, "image_size_px": SIDE, "width": 4}
BUILDERS: dict[str, Callable[[], Encoder]] = {
    "plus_layer": plus_layer,
    "baseline": baseline,
    "residual_encoder": partial(residual_encoder, **residual_like),
    "residual_encoder_coarse_deep": partial(
        residual_encoder, 32, SIDE, width=4, num_blocks=[2, 1, 1, 2], stem_stride=4
    ),
    "plain_encoder": partial(plain_encoder, SIDE, width=2),
    "residual": partial(residual, **residual_like),
    "variational": partial(variational, **residual_like),
    "timm": partial(backbone, "test_resnet", 24, image_size_px=SIDE),
    "timm_own_width": partial(backbone, "test_efficientnet", image_size_px=SIDE),
    "timm_transformer": partial(backbone, "test_vit", 24, image_size_px=SIDE),
    "timm_mobile": partial(backbone, "mobilenetv3_small_050", 24, image_size_px=SIDE),
    "torchvision": partial(backbone, "torchvision/squeezenet1_1", 24, image_size_px=SIDE),
    "frozen": partial(backbone, "test_resnet", 24, frozen=True, image_size_px=SIDE),
}
POOLED = ("plain_encoder", "residual_encoder_coarse_deep", "timm_own_width")  # last map: its mean
FLAT = ("plus_layer", "baseline")  # the embedding is the last map itself


@pytest.fixture
def pictures(model: Encoder) -> Tensor:
    side = model.image_size_px
    pictures = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def built(name: str, seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BUILDERS[name]()


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Encoder:
    return built(name).eval()


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
    found: dict[str, nn.Module] = {}
    if isinstance(encoder, ResidualEncoder):
        found = {"stem": encoder.stem, **dict(encoder.stages.named_modules())}
    elif isinstance(encoder, PlainEncoder):
        found = dict(encoder.maps.named_modules())
    elif isinstance(encoder, BackboneEncoder):
        found = dict(encoder.backbone.network.named_modules())
    elif isinstance(encoder, nn.Sequential):  # a layer table
        found = dict(encoder.named_children())
    return found


def test_embeddings_have_their_width_and_do_not_depend_on_their_batch(
    name: str, model: Encoder, pictures: Tensor
) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        embeddings = model.encode(pictures)
        alone = torch.cat([model.encode(picture[None]) for picture in pictures])
        again = model.encode(pictures)
    assert embeddings.shape == (4, model.embedding_dim)
    assert torch.isfinite(embeddings).all()
    assert embeddings.std(dim=0).max() > 0  # not the same for every picture
    torch.testing.assert_close(embeddings, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(again, embeddings)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_mixed_precision_stays_finite(model: Encoder, pictures: Tensor) -> None:
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


def test_state_dict_round_trip(name: str, model: Encoder, pictures: Tensor) -> None:
    other = built(name, seed=1).eval()
    with torch.no_grad():
        expected = model.encode(pictures)
        assert not torch.equal(other.encode(pictures), expected)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.encode(pictures), expected)


def test_layers_are_maps_that_get_coarser_and_end_in_the_embedding(
    name: str, model: Encoder, pictures: Tensor
) -> None:
    with torch.no_grad():
        layers = model.layers(pictures)
        embeddings = model.encode(pictures)
    assert len(layers) >= 5
    assert all(maps.ndim == 4 and len(maps) == 4 for maps in layers.values())
    sides = [maps.shape[-1] for maps in layers.values()]
    assert sides == sorted(sides, reverse=True)
    assert all(torch.isfinite(maps).all() for maps in layers.values())
    last = list(layers.values())[-1]
    assert last.flatten(1).std(dim=0).max() > 0  # pictures differ in it
    assert last.std(dim=1).max() > 0  # and so do its channels
    if name in POOLED + FLAT:
        own = last.mean(dim=(2, 3)) if name in POOLED else last.flatten(1)
        torch.testing.assert_close(own, embeddings)
    projection = getattr(model, "projection", None)
    if isinstance(model, ResidualEncoder) and isinstance(projection, nn.Linear):
        torch.testing.assert_close(projection(last.mean(dim=(2, 3))), embeddings)


def test_layers_are_what_the_named_modules_gave(model: Encoder, pictures: Tensor) -> None:
    """Activations in place would show as maps that a later module overwrote."""
    modules = named_modules_of_layers(model)
    given: dict[str, Tensor] = {}

    def keep(key: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        given[key] = output.clone()

    with torch.no_grad():
        names = [key for key in model.layers(pictures) if key in modules]
        for key in names:
            modules[key].register_forward_hook(partial(keep, key))
        layers = model.layers(pictures)
    assert len(names) >= len(layers) - 1  # all but timm's `final`
    for key in names:
        output = given[key]
        if output.ndim == 3:  # [B, 1 + H * W, C], tokens of a vision transformer
            output = output[:, 1:].transpose(1, 2).reshape(layers[key].shape)
        torch.testing.assert_close(layers[key], output, rtol=0, atol=0)


def test_pictures_of_another_size_are_refused(model: Encoder) -> None:
    side = model.image_size_px
    with pytest.raises(ValueError, match=rf"\(1, 3, 16, 16\).*pictures.size_px={side}"):
        model.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=rf"\(3, {side}, {side}\)"):
        model.layers(torch.zeros(3, side, side))


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
