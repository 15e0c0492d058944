"""One contract for every network and every embedding: exported, it gives the same embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file

from tests.models.networks import NETWORKS, built
from tests.models.served import RECIPE, embedded, fitted_head, letterboxed, settled
from visual_search.bundle.encoder import OnnxEncoder
from visual_search.models.export_check import TOLERANCE
from visual_search.models.exporting import export_encoder

pytestmark = pytest.mark.slow  # torch.export takes seconds a network

# Each network once, and each kind of embedding once: an export takes seconds.
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "residual_encoder": RECIPE,
    "plain_encoder": {"layer": "conv5", "pca": 12, "normalize": True, "whiten": 0.5},
    "residual": {
        "layer": "stem", "pool": "max", "normalize": True, "beside": "hog", "beside_pca": 20,
    },
    "frozen": {"layer": "layer4", "pool": "gem", "normalize": True},
    "torchvision": {"layer": "features.12", "pool": "average"},
}  # fmt: skip
TWICE = {"baseline", "timm", "timm_mobile"}  # of layers that another one here has


@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in TWICE])
def test_an_exported_encoder_gives_what_its_network_gives(network: str, tmp_path: Path) -> None:
    encoder = settled(built(network))
    head = fitted_head(encoder, EMBEDDINGS.get(network, {}))
    exported = export_encoder(encoder, head, tmp_path, facts={}, fit="letterbox")
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
