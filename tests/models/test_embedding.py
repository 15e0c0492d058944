"""From a network's values to the embedding: layers, pooling, PCA, length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visual_search.models.autoencoder import (
    Conv,
    ConvTransposed,
    LayerTableAutoencoder,
    Pool,
)
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network() -> LayerTableAutoencoder:
    torch.manual_seed(0)
    return LayerTableAutoencoder(
        encoder=[Conv(3, 8, stride=2), Pool(), Conv(8, 16, activation="none"), Pool()],
        decoder=[
            ConvTransposed(16, 8, stride=2, kernel=2, padding=0),
            ConvTransposed(8, 8, stride=2, kernel=2, padding=0),
            ConvTransposed(8, 3, stride=2, kernel=2, padding=0, activation="tanh"),
        ],
        bottleneck=(16, 2, 2),
        image_size_px=16,
    )


def gallery(num: int = 60, dim: int = 64) -> NDArray[np.float32]:
    """Values that vary by more in the first columns than in the last."""
    scales = np.geomspace(10, 0.1, dim)
    return (RNG.normal(size=(num, dim)) * scales + 3).astype(np.float32)


def test_by_default_the_networks_own_embedding_is_left_alone(
    network: LayerTableAutoencoder,
) -> None:
    head = EmbeddingHead(network)
    images = torch.rand(2, 3, 16, 16)
    features = head.features(network, images)
    assert head.is_fitted
    assert head.embedding_dim == head.num_features == 64
    assert torch.equal(head(features), network.encode(images))
    values = gallery()
    assert head.embed(values) is values


def test_a_layer_is_pooled_to_one_value_a_channel(network: LayerTableAutoencoder) -> None:
    images = torch.rand(3, 3, 16, 16)
    layer = network.layers(images)["conv1"]  # [3, 8, 8, 8]
    for pool, expected in (
        ("average", layer.flatten(2).mean(2)),
        ("max", layer.flatten(2).max(2).values),
        ("gem", (layer.clamp(min=1e-6) ** 3).flatten(2).mean(2) ** (1 / 3)),
        ("flatten", layer.flatten(1)),
    ):
        head = EmbeddingHead(network, EmbeddingSettings(layer="conv1", pool=pool))  # type: ignore[arg-type]
        torch.testing.assert_close(head(head.features(network, images)), expected)
        assert head.num_features == expected.shape[1]


@pytest.mark.parametrize("layer", [None, "conv1"])
def test_mirrored_pictures_have_one_embedding(
    network: LayerTableAutoencoder, layer: str | None
) -> None:
    images = torch.rand(3, 3, 16, 16)
    plain = EmbeddingHead(network, EmbeddingSettings(layer=layer))
    head = EmbeddingHead(network, EmbeddingSettings(layer=layer, mirror=True))
    both = [plain.features(network, pictures) for pictures in (images, images.flip(3))]
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    known = network.encode(images)  # as validation hands it over
    found = head.features(network, images, known)
    torch.testing.assert_close(found, (both[0] + both[1]) / 2)
    torch.testing.assert_close(head.features(network, images.flip(3)), found)
    assert head.fingerprint() != plain.fingerprint()


def test_pca_keeps_the_distances_that_its_components_explain(
    network: LayerTableAutoencoder,
) -> None:
    values = gallery()
    head = EmbeddingHead(network, EmbeddingSettings(pca=8))
    assert not head.is_fitted
    head.fit(values)
    found = head.embed(values)
    centred = values.astype(np.float64) - values.astype(np.float64).mean(axis=0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    assert found.shape == (60, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), singular[:8], rtol=1e-4)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)


@pytest.mark.parametrize("whiten", [0.5, 1.0])
def test_whitening_divides_by_a_power_of_the_spread(
    network: LayerTableAutoencoder, whiten: float
) -> None:
    values = gallery()
    plain = EmbeddingHead(network, EmbeddingSettings(pca=8))
    white = EmbeddingHead(network, EmbeddingSettings(pca=8, whiten=whiten))
    for head in (plain, white):
        head.fit(values)
    spread = plain.embed(values).std(axis=0)
    np.testing.assert_allclose(
        white.embed(values), plain.embed(values) / spread**whiten, rtol=1e-3, atol=1e-4
    )


def test_normalised_embeddings_have_length_one_before_and_after_pca(
    network: LayerTableAutoencoder,
) -> None:
    values = gallery()
    head = EmbeddingHead(network, EmbeddingSettings(pca=8, normalize=True))
    head.fit(values)
    found = head.embed(values)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(head.embed(values * 7), found, rtol=1e-3, atol=1e-5)


def test_fewer_components_come_out_where_the_gallery_varies_less(
    network: LayerTableAutoencoder,
) -> None:
    head = EmbeddingHead(network, EmbeddingSettings(pca=32, whiten=1.0))
    head.fit(gallery(num=5))
    assert head.embed(gallery(num=7)).shape == (7, 4)
    assert head.embedding_dim == 4
    head.fit(np.ones((5, 64), np.float32))
    assert not head.embed(np.ones((2, 64), np.float32)).any()


def test_what_was_fitted_is_saved_and_found_again(
    network: LayerTableAutoencoder, tmp_path: Path
) -> None:
    settings = EmbeddingSettings(pca=8, normalize=True, whiten=0.5)
    head, other = EmbeddingHead(network, settings), EmbeddingHead(network, settings)
    values = gallery()
    head.fit(values)
    head.save(tmp_path / "projection.npz")
    other.load(tmp_path / "projection.npz")
    np.testing.assert_array_equal(other.embed(values), head.embed(values))
    assert other.fingerprint() == head.fingerprint()
    head.fit(values[:30])
    assert other.fingerprint() != head.fingerprint()
    assert not head.state_dict()  # a checkpoint holds none of it


def test_without_pca_nothing_is_written_or_read(
    network: LayerTableAutoencoder, tmp_path: Path
) -> None:
    head = EmbeddingHead(network, EmbeddingSettings(normalize=True))
    head.fit(gallery())
    head.save(tmp_path / "projection.npz")
    assert not (tmp_path / "projection.npz").exists()
    head.load(tmp_path / "projection.npz")
    assert head.fingerprint() != EmbeddingHead(network).fingerprint()


def test_a_layer_that_is_not_there_is_named_with_those_that_are(
    network: LayerTableAutoencoder,
) -> None:
    with pytest.raises(ValueError, match=r"'conv9', expected one of conv1, pool1, conv2, pool2"):
        EmbeddingHead(network, EmbeddingSettings(layer="conv9"))


def test_a_projection_that_does_not_fit_is_refused(
    network: LayerTableAutoencoder, tmp_path: Path
) -> None:
    head = EmbeddingHead(network, EmbeddingSettings(pca=8))
    with pytest.raises(
        RuntimeError, match=r"PCA was not fitted \(embedding\.pca=8, embedding\.beside=None\)"
    ):
        head(torch.zeros(1, 64))
    with pytest.raises(ValueError, match=r"shape \(5, 3\), expected \[N, 64\]"):
        head.fit(np.zeros((5, 3), np.float32))
    with pytest.raises(FileNotFoundError, match=r"no projection at .*rerun=true"):
        head.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read"):
        head.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", mean=np.zeros(64), components=np.zeros((9, 64)))
    with pytest.raises(ValueError, match=r"shape \(9, 64\), expected at most 8 x 64"):
        head.load(tmp_path / "other.npz")


def beside(**changes: Any) -> EmbeddingSettings:
    return EmbeddingSettings(
        **{"normalize": True, "pca": 8, "beside": "hog_shape", "beside_pca": 6} | changes
    )


def test_a_descriptor_stands_beside_the_networks_values(network: LayerTableAutoencoder) -> None:
    images = torch.rand(30, 3, 16, 16) * 2 - 1
    head = EmbeddingHead(network, beside(beside_weight=0.5))
    with torch.inference_mode():
        features = head.features(network, images).numpy()
        alone = network.encode(images).numpy()
    np.testing.assert_array_equal(features[:, :64], alone)
    assert features.shape == (30, head.num_features) == (30, 64 + 2354)
    assert not head.is_fitted
    head.fit(features)
    found = head.embed(features)
    assert found.shape == (30, 8 + 6 + 2) == (30, head.embedding_dim)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)

    own = EmbeddingHead(network, EmbeddingSettings(normalize=True, pca=8))
    own.fit(alone)
    learned = own.embed(alone)  # length 1; gradients and shape have 0.5 each: 1 + 1/4 + 1/4
    np.testing.assert_allclose(found[:, :8], learned / np.sqrt(1.5), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(found[:, 8:14], axis=1), 0.5 / np.sqrt(1.5), rtol=1e-4
    )


def test_a_descriptor_is_saved_with_the_projection(
    network: LayerTableAutoencoder, tmp_path: Path
) -> None:
    values = RNG.normal(size=(30, 64 + 2354)).astype(np.float32)
    head, other = EmbeddingHead(network, beside(pca=None)), EmbeddingHead(network, beside(pca=None))
    head.fit(values)
    head.save(tmp_path / "projection.npz")
    other.load(tmp_path / "projection.npz")
    np.testing.assert_array_equal(other.embed(values), head.embed(values))
    assert other.fingerprint() == head.fingerprint()
    with pytest.raises(
        ValueError, match=r"cannot be read .* expected mean, components, beside_mean"
    ):
        EmbeddingHead(network, beside()).load(tmp_path / "projection.npz")
    with pytest.raises(ValueError, match="expected at most 3 x 2352"):
        EmbeddingHead(network, beside(pca=None, beside_pca=3)).load(tmp_path / "projection.npz")


def test_neighbours_decide_what_counts(network: LayerTableAutoencoder) -> None:
    # Five groups of directions in the first columns; large values without a meaning in the last.
    group = np.arange(100) % 5
    values = RNG.normal(size=(100, 64 + 2354)).astype(np.float32) * 0.05
    values[np.arange(100), group] += 1
    values[:, 40:64] += RNG.normal(size=(100, 24)) * 0.25
    values[np.arange(100), 64 + group] += 1

    def precision(settings: EmbeddingSettings) -> float:
        head = EmbeddingHead(network, settings)
        head.fit(values)
        found = head.embed(values)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-4)
        cosines = found @ found.T
        np.fill_diagonal(cosines, -1)
        nearest = np.argsort(-cosines, axis=1)[:, :5]
        return float((group[nearest] == group[:, None]).mean())

    plain = precision(beside(pca=32, beside_weight=0.1))
    white = precision(beside(pca=32, beside_weight=0.1, whiten=1.0, whiten_by="neighbours"))
    assert plain < white
    assert white > 0.95


BESIDE = {"normalize": True, "pca": 8, "beside": "hog_shape"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "median"}, "pool 'median', .*flatten, average, max, gem"),
        ({"pool": "max"}, r"'max'.* embedding\.layer"),
        ({"pca": 0}, "pca 0"),
        ({"pca": 4, "whiten": 1.5}, r"whiten 1\.5, .*0\.\.1"),
        ({"whiten": 0.5}, r"whiten 0\.5.*embedding\.pca"),
        (BESIDE | {"normalize": False}, "embedding.normalize=true"),
        (BESIDE | {"beside": "sift"}, "'sift', .*hog, hog_shape"),
        (BESIDE | {"beside_pca": 0}, "beside_pca 0 .*embedding.beside_pca"),
        (BESIDE | {"beside_weight": 0}, "beside_weight 0,.*embedding.beside_weight"),
        (BESIDE | {"whiten_by": "labels"}, "'labels', .*variance, neighbours"),
        (BESIDE | {"whiten_by": "neighbours"}, "whiten 0.0 and normalize True"),
        ({"pca": 8, "whiten": 1.0, "whiten_by": "neighbours"}, "normalize False"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingSettings(**settings)
