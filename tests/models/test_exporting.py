"""The two files of an exported encoder: what is in them, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.models.networks import built, small_autoencoder
from tests.models.served import RECIPE, embedded, fitted_head, letterboxed, settled, small_encoder
from visual_search.bundle import encoder as reading
from visual_search.bundle.encoder import OnnxEncoder
from visual_search.models import exporting
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.encoder import Encoder
from visual_search.models.export_check import TOLERANCE
from visual_search.models.exporting import ExportedEncoder, ServedEncoder, export_encoder, scaled
from visual_search.training.module import to_network

FACTS = {"run": "größe/1", "made": "2026"}
Parts = tuple[Encoder, EmbeddingHead]

# Each kind of embedding once, on networks of different parts: an export takes seconds. `hog` is
# that of `parts`; the shape beside it, in residual_encoder, is exported by tests/test_export.py.
EXPORTED: dict[str, dict[str, Any]] = {
    "layer_table": {},  # as plus_layer and baseline are
    "variational": {"layer": "stem", "pool": "max", "pca": 12, "normalize": True, "whiten": 0.5},
    "frozen": {"layer": "layer4", "pool": "gem", "normalize": True},
    "timm_transformer": {},
    "torchvision": {"layer": "features.12", "pool": "average"},
}


def export(parts: Parts, folder: Path) -> ExportedEncoder:
    return export_encoder(*parts, folder, facts=FACTS, fit="letterbox")


@pytest.fixture(scope="module")
def parts() -> Parts:
    encoder = settled(built("plain_encoder"))  # which exports quickest
    hog = {"mirror": True, "normalize": True, "pca": 16, "beside": "hog", "beside_pca": 20}
    return encoder, fitted_head(encoder, hog)


@pytest.fixture(scope="module")
def exported(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> ExportedEncoder:
    return export(parts, tmp_path_factory.mktemp("exported") / "new")


def check_same(parts: Parts, exported: ExportedEncoder) -> None:
    """The file gives what the network gives, whatever stands beside a picture."""
    encoder, head = parts
    content = exported.onnx.read_bytes()
    served = OnnxEncoder(content, num_threads=1)
    assert served.embedding_dim == head.embedding_dim == exported.embedding_dim
    pictures = letterboxed(17, encoder.image_size_px, seed=5)
    expected = embedded(encoder, head, pictures)
    assert expected.std(axis=0).max() > 1e-3 * np.abs(expected).max()  # pictures differ
    allowed = TOLERANCE * max(1, float(np.abs(expected).max()))
    for num in (1, 3, 17):
        found = served.embed(pictures[:num])
        assert found.shape == (num, head.embedding_dim)
        np.testing.assert_allclose(found, expected[:num], rtol=0, atol=allowed)
    alone = np.concatenate([served.embed(picture[None]) for picture in pictures])
    np.testing.assert_allclose(served.embed(pictures), alone, rtol=0, atol=allowed / 10)  # 1e-5
    weights = {name for name in load_file(exported.weights) if name.startswith("encoder.")}
    assert weights == {f"encoder.{name}" for name in encoder.state_dict()}
    in_graph = [tensor.name for tensor in onnx.load_from_string(content).graph.initializer]
    assert in_graph
    assert not any("decoder" in name for name in in_graph)  # it is kept with the weights alone


@pytest.mark.slow
@pytest.mark.parametrize("network", EXPORTED)
def test_an_exported_encoder_gives_what_its_network_gives(
    network: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = settled(small_autoencoder() if network == "layer_table" else built(network))
    parts = encoder, fitted_head(encoder, EXPORTED[network])
    exported = export(parts, tmp_path / "new")
    check_same(parts, exported)
    if network != "layer_table":
        return
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    capfd.readouterr()
    again = export(parts, tmp_path / "again")
    assert capfd.readouterr() == ("", "")
    assert encoder.training  # the modules are left as they were, and two exports are the same
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert again.onnx.read_bytes() == exported.onnx.read_bytes()
    weights, older = load_file(again.weights), load_file(exported.weights)
    assert set(weights) == set(older)
    assert all(torch.equal(value, older[name]) for name, value in weights.items())


@pytest.mark.parametrize("settings", [{}, {"mirror": True}, RECIPE])
def test_the_module_gives_what_the_head_gives(settings: dict[str, Any]) -> None:
    encoder = small_encoder()
    head = fitted_head(encoder, settings)
    pictures = letterboxed(5, 32, seed=3)
    with torch.inference_mode():
        found = ServedEncoder(encoder, head).eval()(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(found, embedded(encoder, head, pictures), atol=1e-6)


def test_both_sides_mean_the_same_pixels_and_names() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(scaled(every), to_network(every))
    for name in ("FORMAT", "INPUT", "OUTPUT"):
        assert getattr(exporting, name) == getattr(reading, name)


def test_both_files_say_what_they_are(parts: Parts, exported: ExportedEncoder) -> None:
    check_same(parts, exported)
    encoder, head = parts
    model = onnx.load(exported.onnx, load_external_data=False)
    written = {pair.key: pair.value for pair in model.metadata_props}
    assert json.loads(written.pop("facts")) == FACTS
    assert EmbeddingSettings(**json.loads(written.pop("embedding"))) == head.settings
    assert int(written.pop("embedding_dim")) == head.embedding_dim == exported.embedding_dim
    expected = {"format": "visual_search.encoder/1", "image_size_px": "32", "fit": "letterbox"}
    assert written == expected
    with safe_open(exported.weights, "pt") as file:
        assert file.metadata() == {pair.key: pair.value for pair in model.metadata_props}
    assert exported.onnx.stat().st_size == exported.num_bytes
    names = {path.name for path in exported.onnx.parent.iterdir()}
    assert names == {"encoder.onnx", "encoder.safetensors"}
    # It is whole, names no place, and holds the network once, not twice for the mirror image.
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert all(not onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer)
    content = exported.onnx.read_bytes()
    for place in (b"site-packages", b".py", str(Path.cwd()).encode(), b"stack_trace"):
        assert place not in content
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(found) == len(convolutions) > 0


def test_the_weights_make_the_network_again(parts: Parts, exported: ExportedEncoder) -> None:
    tensors = load_file(exported.weights)
    encoder = built("plain_encoder", seed=1).eval()
    head = EmbeddingHead(encoder, parts[1].settings)
    own = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    encoder.load_state_dict(own)
    for prefix, part in (("", head.learned), ("beside_", head.described.gradients)):  # type: ignore[union-attr]
        mean, components = (tensors[f"projection.{prefix}{n}"] for n in ("mean", "components"))
        part.set(mean.numpy(), components.numpy())
    pictures = letterboxed(4, 32, seed=3)
    np.testing.assert_array_equal(embedded(encoder, head, pictures), embedded(*parts, pictures))


class Tiny(Encoder):
    image_size_px = 8
    embedding_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def encode(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.linear(images.mean(dim=(2, 3)))
        return embeddings

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        return {}


class UnfitNetwork(Tiny):
    """Ends in something that no ONNX operator is for."""

    def encode(self, images: Tensor) -> Tensor:
        return torch.special.i1e(super().encode(images))


class FixedNetwork(Tiny):
    """Knows how many pictures it was shown first."""

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).reshape(len(images), -1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (UnfitNetwork, r"the network UnfitNetwork cannot be exported to ONNX \("),
        (FixedNetwork, "FixedNetwork cannot be exported to ONNX for any number of pictures"),
        (Tiny, r"Tiny has \d+ bytes of weights, expected at most 31"),
    ],
)
def test_networks_that_do_not_export_are_refused(
    network: Callable[[], Encoder], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MAX_BYTES", 31)
    (tmp_path / "encoder.onnx").write_bytes(b"an older one")
    encoder = network().eval()
    with pytest.raises(ValueError, match=message):
        export((encoder, EmbeddingHead(encoder)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert (tmp_path / "encoder.onnx").read_bytes() == b"an older one"


def test_what_cannot_be_written_is_refused_before_anything_is(parts: Parts, tmp_path: Path) -> None:
    encoder, head = parts
    with pytest.raises(ValueError, match="got fit 'crop', expected one of stretch, letterbox"):
        export_encoder(encoder, head, tmp_path, facts={}, fit="crop")
    with pytest.raises(TypeError, match="the fact 'epochs' is 3 of type int; expected text"):
        export_encoder(encoder, head, tmp_path, facts={"epochs": 3}, fit="stretch")  # type: ignore[dict-item]
    unfitted = EmbeddingHead(encoder, EmbeddingSettings(pca=4))
    with pytest.raises(ValueError, match=r"not fitted \(embedding.pca=4, embedding.beside=None"):
        export_encoder(encoder, unfitted, tmp_path, facts={}, fit="stretch")
    assert not list(tmp_path.iterdir())
