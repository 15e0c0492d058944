"""One contract for every network and every embedding: exported, it gives the same embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from tests.models.served import RECIPE, embedded, fitted_head, letterboxed, settled
from visual_search.bundle.encoder import OnnxEncoder
from visual_search.models.backbones import backbone
from visual_search.models.encoder import Encoder
from visual_search.models.export_check import TOLERANCE
from visual_search.models.exporting import export_encoder
from visual_search.models.plain import plain_encoder
from visual_search.models.residual import residual, residual_encoder
from visual_search.models.variants import baseline, plus_layer
from visual_search.models.variational import variational

pytestmark = pytest.mark.slow  # torch.export takes seconds a network

SIDE = 32
small: dict[str, Any] = {"embedding_dim": 24, "image_size_px": SIDE, "width": 4}
NETWORKS: dict[str, Callable[[], Encoder]] = {
    "plus_layer": plus_layer,
    "baseline": baseline,
    "residual": partial(residual, **small),
    "variational": partial(variational, **small),
    "residual_encoder": partial(residual_encoder, **small),
    "residual_encoder_odd": partial(
        residual_encoder, 32, 45, width=4, num_blocks=[2, 1, 1, 2], stem_stride=4
    ),
    "plain_encoder": partial(plain_encoder, SIDE, width=2),
    "plain_encoder_hog": partial(plain_encoder, SIDE, width=2),
    "timm": partial(backbone, "tf_efficientnet_lite0", 24, image_size_px=SIDE),
    "timm_transformer": partial(backbone, "test_vit", 24, image_size_px=SIDE),
    "timm_frozen": partial(backbone, "test_resnet", frozen=True, image_size_px=SIDE),
    "torchvision": partial(backbone, "torchvision/resnet18", 24, image_size_px=SIDE),
}
# Each network once, and each kind of embedding once: an export takes seconds.
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "residual_encoder": RECIPE,
    "plain_encoder": {"layer": "conv5", "pca": 12, "normalize": True, "whiten": 0.5},
    "plain_encoder_hog": {
        "layer": "pool1",
        "pool": "max",
        "normalize": True,
        "beside": "hog",
        "beside_pca": 20,
    },
    "timm_frozen": {"layer": "layer4", "pool": "gem", "normalize": True},
    "torchvision": {"layer": "layer4", "pool": "average"},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_an_exported_encoder_gives_what_its_network_gives(network: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = settled(NETWORKS[network]())
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


def test_every_network_of_the_configs_is_here() -> None:
    names = {path.stem for path in Path("conf/model").glob("*.yaml")}
    assert names
    assert names - {"backbone"} <= set(NETWORKS)  # which is timm and torchvision here
