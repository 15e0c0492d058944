"""Backbones of timm and torchvision: their scale, freezing, names, sizes, and what they refuse.

`test_backbone_weights` has the weights from files.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visual_search.models.backbone_networks import TimmNetwork, TorchvisionNetwork
from visual_search.models.backbones import BackboneEncoder, backbone

SIDE = 32
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean, standard deviation
HALVES = ([0.5] * 3, [0.5] * 3)


def pictures(num: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 3, SIDE, SIDE, generator=generator) * 2 - 1


def built(name: str, *args: Any, **kwargs: Any) -> BackboneEncoder:
    encoder = backbone(name, *args, image_size_px=SIDE, **kwargs)
    assert isinstance(encoder, BackboneEncoder)
    return encoder


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("resnet10t", IMAGENET),
        ("tf_efficientnet_lite0", HALVES),
        ("test_vit", HALVES),
        ("torchvision/squeezenet1_1", IMAGENET),
    ],
)
def test_pictures_are_brought_to_the_scale_of_the_weights(
    name: str, scale: tuple[list[float], list[float]]
) -> None:
    encoder = built(name).eval()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in scale)
    with torch.no_grad():
        expected = encoder.backbone.network(((pictures() + 1) / 2 - mean) / std).flatten(1)
        torch.testing.assert_close(encoder.encode(pictures()), expected)
    assert {"scale", "shift"} <= set(encoder.state_dict())  # a checkpoint keeps them


def test_without_a_projection_the_embedding_is_what_the_backbone_pools() -> None:
    assert built("test_resnet").embedding_dim == 96
    assert built("mobilenetv3_small_050").embedding_dim == 1024  # widened behind its pooling
    encoder = built("test_resnet", 7)
    assert encoder.embedding_dim == 7
    assert isinstance(encoder.projection, nn.Linear)
    assert encoder.projection.in_features == 96


def test_a_frozen_backbone_stays_as_it_is_while_the_projection_learns() -> None:
    encoder = built("test_resnet", 6, frozen=True)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 1.0)
    for module in (encoder, nn.Sequential(encoder)):  # also as part of something larger
        module.train()
        assert encoder.training
        assert encoder.projection.training
        assert not any(m.training for m in encoder.backbone.modules())
        encoder.encode(pictures()).square().sum().backward()
        optimizer.step()
    changed = [k for k, value in encoder.state_dict().items() if not torch.equal(value, before[k])]
    assert changed == ["projection.weight", "projection.bias"]
    assert not encoder.layers(pictures())["layer4"].requires_grad


def test_a_backbone_that_is_not_frozen_trains_its_norms() -> None:
    encoder = built("test_resnet", 6)
    assert encoder.training
    encoder.encode(pictures()).sum().backward()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 4
    assert all(norm.num_batches_tracked == 1 for norm in norms)  # none from measuring it
    assert encoder.layers(pictures())["layer4"].requires_grad


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("torchvision/mobilenet_v3_small", 576),
        ("torchvision/shufflenet_v2_x0_5", 1024),
        ("torchvision/squeezenet1_1", 512),
        ("torchvision/efficientnet_b0", 1280),
        ("torchvision/regnet_y_400mf", 440),
    ],
)
def test_torchvision_networks_are_pooled_to_one_value_a_channel(name: str, width: int) -> None:
    encoder = built(name).eval()
    assert encoder.embedding_dim == width
    with torch.no_grad():
        last = list(encoder.layers(pictures()).values())[-1]
        torch.testing.assert_close(encoder.encode(pictures()), last.mean(dim=(2, 3)))


@pytest.mark.slow
def test_torchvision_norms_before_the_classifier_are_kept() -> None:
    encoder = built("torchvision/convnext_tiny").eval()
    with torch.no_grad():
        last = list(encoder.layers(pictures()).values())[-1].mean(dim=(2, 3))
        expected = torch.nn.functional.layer_norm(last, (768,), eps=1e-6)
        torch.testing.assert_close(encoder.encode(pictures()), expected)
    assert "backbone.network.classifier.0.weight" in encoder.state_dict()


def test_layers_of_networks_that_no_name_was_chosen_for() -> None:
    from torchvision.models import SwinTransformer, VisionTransformer

    network = TorchvisionNetwork("squeezenet1_1", SIDE, pretrained=False)
    network.network = SwinTransformer([4, 4], 8, [1, 1], [1, 1], [2, 2]).eval()
    maps = network.maps(pictures())  # channels first
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(8, 8, 8), (8, 8, 8), *[(16, 4, 4)] * 2]
    network.network = VisionTransformer(SIDE, 16, 1, 1, 8, 8).eval()
    with pytest.raises(ValueError, match=r"VisionTransformer of torchvision.*same one of timm"):
        network.maps(pictures())
    of_timm = TimmNetwork("test_resnet", SIDE, pretrained=False)
    of_timm.network = nn.Flatten()  # without stages
    encoder = BackboneEncoder(of_timm, 3 * SIDE * SIDE, None, False, SIDE)
    with pytest.raises(ValueError, match="got Flatten, expected a network of timm that gives"):
        encoder.layers(pictures())


def test_what_timm_widens_behind_the_last_stage_is_a_layer() -> None:
    layers = built("test_efficientnet").eval().layers(pictures())
    assert list(layers) == [*(f"blocks.{number}" for number in range(5)), "final"]
    assert layers["final"].shape[1] == 256


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnte18", "resnet18"),
        ("torchvision/squeezenet1_2", "torchvision/squeezenet1_1"),
        ("torchvision/googlenet", "torchvision/"),  # several outputs in training
        ("resnet18.a1_in2k", r"resnet18\.a1_in1k"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"got the backbone '{name}'.*near it are.*{near}"):
        built(name)


@pytest.mark.parametrize(("name", "native_px"), [("test_vit", 160), ("torchvision/vit_b_16", 224)])
def test_a_size_that_a_network_cannot_take_is_refused(name: str, native_px: int) -> None:
    message = rf"got image_size_px 40 for '{name}'.*set pictures\.size_px={native_px}"
    with pytest.raises(ValueError, match=message):
        backbone(name, image_size_px=40)


def test_pretrained_is_handed_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from torchvision import models

    asked: list[Any] = []
    create = {"timm": timm.create_model, "torchvision": models.get_model}

    def model(library: str, name: str, pretrained: Any = None, **kwargs: Any) -> Any:
        asked.append(pretrained if library == "timm" else kwargs.pop("weights"))
        if asked[-1]:
            raise OSError("name or service not known")
        return create[library](name, **kwargs)

    monkeypatch.setattr(timm, "create_model", partial(model, "timm"))
    monkeypatch.setattr(models, "get_model", partial(model, "torchvision"))
    for name in ("test_resnet", "torchvision/squeezenet1_1"):
        built(name, pretrained=False)
        message = rf"weights of '{name}' are not on this machine.*not known.*model\.weights=PATH"
        with pytest.raises(ConnectionError, match=message):
            built(name, pretrained=True)
    assert asked == [False, True, None, "DEFAULT"]


def test_pretrained_where_nobody_published_weights() -> None:
    with pytest.raises(ValueError, match=r"pretrained=True for 'nf_resnet26'.*weights=PATH"):
        built("nf_resnet26", pretrained=True)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"'resnet18' of timm.*pip install 'visual-search\[back"):
        built("resnet18")
