"""The two files of an exported encoder: what is in them, and what is refused."""

from __future__ import annotations

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

from tests.models.served import RECIPE, embedded, fitted_head, letterboxed, settled, small_encoder
from visual_search.bundle import encoder as reading
from visual_search.models import exporting
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.encoder import Encoder
from visual_search.models.exporting import ExportedEncoder, ServedEncoder, export_encoder, scaled
from visual_search.models.plain import PlainEncoder, plain_encoder
from visual_search.training.module import to_network

FACTS = {"run": "größe/1", "made": "2026"}


@pytest.fixture(scope="module")
def parts() -> tuple[Encoder, EmbeddingHead]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = settled(plain_encoder(32, width=2))  # which exports quickest
    return encoder, fitted_head(encoder, RECIPE)


@pytest.fixture(scope="module")
def exported(
    parts: tuple[Encoder, EmbeddingHead], tmp_path_factory: pytest.TempPathFactory
) -> ExportedEncoder:
    folder = tmp_path_factory.mktemp("exported") / "new"
    return export_encoder(*parts, folder, facts=FACTS, fit="letterbox")


def test_pixels_are_scaled_as_training_scales_them() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(scaled(every), to_network(every))


@pytest.mark.parametrize("settings", [{}, {"mirror": True}, RECIPE])
def test_the_module_gives_what_the_head_gives(settings: dict[str, Any]) -> None:
    encoder = small_encoder()
    head = fitted_head(encoder, settings)
    pictures = letterboxed(5, 32, seed=3)
    with torch.inference_mode():
        found = ServedEncoder(encoder, head).eval()(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(found, embedded(encoder, head, pictures), atol=1e-6)


def test_the_reader_expects_what_is_written() -> None:
    assert (exporting.FORMAT, exporting.INPUT, exporting.OUTPUT) == (
        reading.FORMAT,
        reading.INPUT,
        reading.OUTPUT,
    )


def test_both_files_say_what_they_are(
    parts: tuple[Encoder, EmbeddingHead], exported: ExportedEncoder
) -> None:
    model = onnx.load(exported.onnx, load_external_data=False)
    written = {pair.key: pair.value for pair in model.metadata_props}
    assert {name: written[name] for name in ("format", "image_size_px", "fit")} == {
        "format": "visual_search.encoder/1",
        "image_size_px": "32",
        "fit": "letterbox",
    }
    assert int(written["embedding_dim"]) == parts[1].embedding_dim == exported.embedding_dim
    assert json.loads(written["facts"]) == FACTS
    assert EmbeddingSettings(**json.loads(written["embedding"])) == parts[1].settings
    assert set(written) == {
        "format", "image_size_px", "fit", "embedding_dim", "facts", "embedding"
    }  # fmt: skip
    with safe_open(exported.weights, "pt") as file:
        assert file.metadata() == written
    assert exported.onnx.stat().st_size == exported.num_bytes
    assert {path.name for path in exported.onnx.parent.iterdir()} == {
        "encoder.onnx",
        "encoder.safetensors",
    }
    # It is whole, names no place, and holds the network once, not twice for the mirror image.
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert all(not onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer)
    content = exported.onnx.read_bytes()
    for place in (b"site-packages", b".py", str(Path.cwd()).encode(), b"stack_trace"):
        assert place not in content
    convolutions = [m for m in parts[0].modules() if isinstance(m, torch.nn.Conv2d)]
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(found) == len(convolutions) > 0


def test_the_weights_make_the_network_again(
    parts: tuple[Encoder, EmbeddingHead], exported: ExportedEncoder
) -> None:
    tensors = load_file(exported.weights)
    encoder = plain_encoder(32, width=2).eval()
    head = EmbeddingHead(encoder, parts[1].settings)
    encoder.load_state_dict(
        {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    )
    for prefix, part in (("", head.learned), ("beside_", head.described.gradients)):  # type: ignore[union-attr]
        mean, components = (tensors[f"projection.{prefix}{n}"] for n in ("mean", "components"))
        part.set(mean.numpy(), components.numpy())
    pictures = letterboxed(4, 32, seed=3)
    np.testing.assert_array_equal(embedded(encoder, head, pictures), embedded(*parts, pictures))


def test_two_exports_are_the_same_and_leave_the_modules_as_they_were(
    exported: ExportedEncoder,
    parts: tuple[Encoder, EmbeddingHead],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    encoder, head = parts
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    try:
        again = export_encoder(encoder, head, tmp_path, facts=FACTS, fit="letterbox")
        assert encoder.training
    finally:
        encoder.eval()
    assert again.onnx.read_bytes() == exported.onnx.read_bytes()
    weights, older = load_file(again.weights), load_file(exported.weights)
    assert set(weights) == set(older)
    assert all(torch.equal(value, older[name]) for name, value in weights.items())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert capfd.readouterr() == ("", "")


class UnfitNetwork(PlainEncoder):
    """Ends in something that no ONNX operator is for."""

    def encode(self, images: Tensor) -> Tensor:
        embeddings: Tensor = torch.special.i1e(super().encode(images))
        return embeddings


class FixedNetwork(PlainEncoder):
    """Knows how many pictures it was shown first."""

    def encode(self, images: Tensor) -> Tensor:
        embeddings: Tensor = super().encode(images).reshape(len(images), -1)
        return embeddings


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (UnfitNetwork, r"the network UnfitNetwork cannot be exported to ONNX \("),
        (FixedNetwork, "FixedNetwork cannot be exported to ONNX for any number of pictures"),
    ],
)
def test_networks_that_do_not_export_are_refused(
    network: Callable[[int, int], Encoder], message: str, tmp_path: Path
) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"an older one")
    encoder = network(16, 1).eval()
    with pytest.raises(ValueError, match=message):
        export_encoder(encoder, EmbeddingHead(encoder), tmp_path, facts={}, fit="stretch")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert (tmp_path / "encoder.onnx").read_bytes() == b"an older one"


def test_a_network_too_large_for_one_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = plain_encoder(16, 1).eval()
    monkeypatch.setattr(exporting, "MAX_BYTES", 1_000)
    with pytest.raises(
        ValueError, match=r"PlainEncoder has [\d,]+ bytes of weights, expected at m"
    ):
        export_encoder(encoder, EmbeddingHead(encoder), tmp_path, facts={}, fit="stretch")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_anything_is(
    parts: tuple[Encoder, EmbeddingHead], tmp_path: Path
) -> None:
    encoder, head = parts
    with pytest.raises(ValueError, match="got fit 'crop', expected one of stretch, letterbox"):
        export_encoder(encoder, head, tmp_path, facts={}, fit="crop")
    with pytest.raises(TypeError, match="the fact 'epochs' is 3 of type int; expected text"):
        export_encoder(encoder, head, tmp_path, facts={"epochs": 3}, fit="stretch")  # type: ignore[dict-item]
    unfitted = EmbeddingHead(encoder, EmbeddingSettings(pca=4))
    with pytest.raises(
        ValueError, match=r"was not fitted \(embedding.pca=4, embedding.beside=None"
    ):
        export_encoder(encoder, unfitted, tmp_path, facts={}, fit="stretch")
    assert not list(tmp_path.iterdir())
