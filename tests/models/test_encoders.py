"""One contract for every network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.networks import NETWORKS, built
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.backbones import BackboneEncoder
from visual_search.models.encoder import Encoder
from visual_search.models.plain import PlainEncoder
from visual_search.models.residual import ResidualEncoder
from visual_search.models.variational import VariationalAutoencoder

POOLED = ("plain_encoder", "residual_encoder_odd", "timm_own_width")  # last map: its mean
FLAT = ("plus_layer", "baseline")  # the embedding is the last map itself


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
    if name in POOLED + FLAT:
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
