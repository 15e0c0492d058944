"""Weights in folders as a hub gives them, and the image towers of open_clip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from visual_search.models.backbones import BackboneEncoder, backbone
from visual_search.models.hub_folder import read_hub_folder

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def written(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """A folder of the hub, in the layout that the configuration is of."""
    is_clip = "model_cfg" in config
    folder.mkdir()
    name = "open_clip_config.json" if is_clip else "config.json"
    (folder / name).write_text(json.dumps(config))
    file = "open_clip_model.safetensors" if is_clip else "model.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / file)
    return folder


def of_timm(tmp_path: Path, **config: Any) -> Path:
    tensors = backbone("test_resnet", image_size_px=32).backbone.network.state_dict()  # type: ignore[attr-defined]
    full = {"architecture": "test_resnet", "pretrained_cfg": {"mean": MEAN, "std": STD}} | config
    return written(tmp_path / "hub", full, dict(tensors))


@pytest.fixture
def tiny_clip(tmp_path: Path) -> str:
    """A network that open_clip knows, small enough for a test."""
    open_clip = pytest.importorskip("open_clip")
    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    return "open_clip/tiny-clip"


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def scaled() -> torch.Tensor:
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return ((pictures() + 1) / 2 - mean) / std


def test_a_folder_of_timm_brings_its_weights_and_its_scale(tmp_path: Path) -> None:
    folder = of_timm(tmp_path)
    encoder = backbone("test_resnet", weights=str(folder), image_size_px=32).eval()
    assert isinstance(encoder, BackboneEncoder)
    assert encoder.is_pretrained
    with torch.no_grad():
        expected = encoder.backbone.network(scaled()).flatten(1)
        torch.testing.assert_close(encoder.encode(pictures()), expected)
    other = backbone("test_resnet", image_size_px=32).eval()
    other.load_state_dict(encoder.state_dict())  # as a run is loaded: without the folder
    with torch.no_grad():
        torch.testing.assert_close(other.encode(pictures()), encoder.encode(pictures()))


def test_a_folder_of_another_network_names_its_own(tmp_path: Path) -> None:
    folder = of_timm(tmp_path, architecture="resnet10t")
    with pytest.raises(ValueError, match=r"resnet10t.*'test_resnet'.*set model\.name=resnet10t"):
        backbone("test_resnet", weights=str(folder), image_size_px=32)


def test_what_is_no_folder_of_a_hub_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"open_clip_config\.json or config\.json"):
        read_hub_folder(tmp_path / "empty")
    folder = of_timm(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        read_hub_folder(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"pretrained_cfg": {"mean": [1, 2]}}'])
def test_a_configuration_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    folder = of_timm(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"hub/config\.json cannot be read.*download it again"):
        read_hub_folder(folder)


def test_open_clips_image_tower_is_the_encoder(tiny_clip: str, tmp_path: Path) -> None:
    import open_clip

    whole = open_clip.create_model("tiny-clip").eval()
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": MEAN, "std": STD, "size": 32}}
    folder = written(tmp_path / "clip", config, dict(whole.state_dict()))  # both towers
    encoder = backbone(tiny_clip, weights=str(folder), image_size_px=32).eval()
    assert encoder.embedding_dim == TINY["embed_dim"]
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(pictures()), whole.encode_image(scaled()))
    layers = encoder.layers(pictures())
    assert {name: tuple(each.shape) for name, each in layers.items()} == {
        "stage1": (2, 32, 4, 4),
        "stage2": (2, 32, 4, 4),
    }


def test_open_clips_tower_takes_pictures_of_another_size(tiny_clip: str) -> None:
    encoder = backbone(tiny_clip, embedding_dim=5, image_size_px=48)
    assert encoder.encode(torch.zeros(2, 3, 48, 48)).shape == (2, 5)


def test_names_that_open_clip_does_not_have(tiny_clip: str) -> None:
    with pytest.raises(ValueError, match=r"'open_clip/ViT-B-33'.*near it are.*open_clip/ViT-B-32"):
        backbone("open_clip/ViT-B-33", image_size_px=224)
    with pytest.raises(ValueError, match=r"expected weights of ViT-B-32.*laion2b_s34b_b79k"):
        backbone("open_clip/ViT-B-32.laion3b", pretrained=True, image_size_px=224)
    with pytest.raises(ValueError, match=r"there are none"):
        backbone(tiny_clip, pretrained=True, image_size_px=32)
