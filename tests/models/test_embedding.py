"""From a network's values to the embedding: layers, pooling, PCA, whitening, length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.networks import small_autoencoder
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.pca_whitening import SHRINKAGE, PcaWhitening, mutual_pairs

with torch.random.fork_rng():
    torch.manual_seed(0)
    NETWORK = small_autoencoder()
    IMAGES = torch.rand(3, 3, 16, 16)


def new_head(**settings: Any) -> EmbeddingHead:
    return EmbeddingHead(NETWORK, EmbeddingSettings(**settings))


def fitted(values: NDArray[np.float32], **settings: Any) -> NDArray[np.float32]:
    """The embeddings of the values that a head was fitted on."""
    head = new_head(**settings)
    assert not head.is_fitted
    head.fit(values)
    return head.embed(values)


def gallery(num: int = 60, dim: int = 64) -> NDArray[np.float32]:
    """Values that vary by more in the first columns than in the last."""
    scales = np.geomspace(10, 0.1, dim)
    return (np.random.default_rng(0).normal(size=(num, dim)) * scales + 3).astype(np.float32)


def test_by_default_the_networks_own_embedding_is_left_alone(tmp_path: Path) -> None:
    head, values = EmbeddingHead(NETWORK), gallery()
    features = head.features(NETWORK, IMAGES)
    assert head.is_fitted
    assert head.embedding_dim == head.num_features == 64
    assert torch.equal(head(features), NETWORK.encode(IMAGES))
    assert head.embed(values) is values
    other = new_head(normalize=True)  # nor is anything without PCA fitted, written or read
    other.fit(values)
    other.save(tmp_path / "projection.npz")
    assert not (tmp_path / "projection.npz").exists()
    other.load(tmp_path / "projection.npz")
    assert other.fingerprint() != head.fingerprint()


def test_a_layer_is_pooled_to_one_value_a_channel() -> None:
    layer = NETWORK.layers(IMAGES)["conv1"]  # [3, 8, 8, 8]
    for pool, expected in (
        ("average", layer.flatten(2).mean(2)),
        ("max", layer.flatten(2).max(2).values),
        ("gem", (layer.clamp(min=1e-6) ** 3).flatten(2).mean(2) ** (1 / 3)),
        ("flatten", layer.flatten(1)),
    ):
        head = new_head(layer="conv1", pool=pool)
        torch.testing.assert_close(head(head.features(NETWORK, IMAGES)), expected)
        assert head.num_features == expected.shape[1]
    with pytest.raises(ValueError, match=r"'conv9', expected one of conv1, pool1, conv2, pool2"):
        new_head(layer="conv9")


@pytest.mark.parametrize("layer", [None, "conv1"])
def test_mirrored_pictures_have_one_embedding(layer: str | None) -> None:
    plain, head = new_head(layer=layer), new_head(layer=layer, mirror=True)
    both = [plain.features(NETWORK, pictures) for pictures in (IMAGES, IMAGES.flip(3))]
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    known = NETWORK.encode(IMAGES)  # as validation hands it over
    found = head.features(NETWORK, IMAGES, known)
    torch.testing.assert_close(found, (both[0] + both[1]) / 2)
    torch.testing.assert_close(head.features(NETWORK, IMAGES.flip(3)), found)
    assert head.fingerprint() != plain.fingerprint()


def test_pca_keeps_the_distances_that_its_components_explain() -> None:
    values = gallery()
    found = fitted(values, pca=8)
    exact = values.astype(np.float64)
    singular = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    assert found.shape == (60, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), singular[:8], rtol=1e-4)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    for power in (0.5, 1.0):  # whitening divides by a power of the spread
        white = fitted(values, pca=8, whiten=power)
        expected = found / found.std(axis=0) ** power
        np.testing.assert_allclose(white, expected, rtol=1e-3, atol=1e-4)
    unit = fitted(values, pca=8, normalize=True)  # before and after
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    longer = values * np.linspace(1, 7, 60, dtype=np.float32)[:, None]
    np.testing.assert_allclose(fitted(longer, pca=8, normalize=True), unit, rtol=1e-3, atol=1e-5)


def test_fewer_components_come_out_where_the_gallery_varies_less() -> None:
    head = new_head(pca=32, whiten=1.0)
    head.fit(gallery(num=5))
    assert head.embed(gallery(num=7)).shape == (7, 4)
    assert head.embedding_dim == 4
    head.fit(np.ones((5, 64), np.float32))
    assert not head.embed(np.ones((2, 64), np.float32)).any()


BESIDE = {"normalize": True, "pca": 8, "beside": "hog_shape"}
WIDTH = 64 + 2354  # the network's values, 2352 gradients and the shape


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"pca": 8, "normalize": True, "whiten": 0.5}, 64),
        (BESIDE | {"pca": None, "beside_pca": 6}, WIDTH),
    ],
)
def test_what_was_fitted_is_saved_and_found_again(
    settings: dict[str, Any], width: int, tmp_path: Path
) -> None:
    head, other = new_head(**settings), new_head(**settings)
    values, path = (
        np.random.default_rng(0).normal(size=(30, width)).astype(np.float32),
        tmp_path / "projection.npz",
    )
    head.fit(values)
    head.save(path)
    other.load(path)
    np.testing.assert_array_equal(other.embed(values), head.embed(values))
    assert other.fingerprint() == head.fingerprint()
    head.fit(values[:20])
    assert other.fingerprint() != head.fingerprint()
    assert not head.state_dict()  # a checkpoint holds none of it
    if "beside" in settings:
        with pytest.raises(ValueError, match=r"cannot be read .*mean, components, beside_mean"):
            new_head(**BESIDE).load(path)
        with pytest.raises(ValueError, match="expected at most 3 x 2352"):
            new_head(**settings | {"beside_pca": 3}).load(path)


def test_a_projection_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    head = new_head(pca=8)
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


def test_a_descriptor_stands_beside_the_networks_values() -> None:
    images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    head = new_head(**BESIDE, beside_pca=6, beside_weight=0.5)
    with torch.inference_mode():
        features = head.features(NETWORK, images).numpy()
        alone = NETWORK.encode(images).numpy()
    np.testing.assert_array_equal(features[:, :64], alone)
    assert features.shape == (30, head.num_features) == (30, WIDTH)
    assert not head.is_fitted
    head.fit(features)
    found = head.embed(features)
    assert found.shape == (30, 8 + 6 + 2) == (30, head.embedding_dim)
    # The network's values have length 1; gradients and shape have 0.5 each: 1 + 1/4 + 1/4.
    learned, whole = fitted(alone, normalize=True, pca=8), np.sqrt(1.5)
    np.testing.assert_allclose(found[:, :8], learned / whole, rtol=1e-3, atol=1e-5)
    for part in (found[:, 8:14], found[:, 14:]):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 0.5 / whole, rtol=1e-4)


def test_neighbours_decide_what_counts() -> None:
    # Five groups of directions in the first columns; large values without a meaning in the last.
    group, rng = np.arange(100) % 5, np.random.default_rng(0)
    values = rng.normal(size=(100, WIDTH)).astype(np.float32) * 0.05
    values[np.arange(100), group] += 1
    values[:, 40:64] += rng.normal(size=(100, 24)) * 0.25
    values[np.arange(100), 64 + group] += 1

    def precision(**settings: Any) -> float:
        settings = BESIDE | {"beside_pca": 6, "pca": 32, "beside_weight": 0.1} | settings
        found = fitted(values, **settings)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-4)
        cosines = found @ found.T
        np.fill_diagonal(cosines, -1)
        nearest = np.argsort(-cosines, axis=1)[:, :5]
        return float((group[nearest] == group[:, None]).mean())

    assert precision() < (white := precision(whiten=1.0, whiten_by="neighbours"))
    assert white > 0.95


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


def varied(num: int = 80, dim: int = 6) -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(num, dim)) * np.arange(1, dim + 1) + 3).astype(
        np.float32
    )


def projected(projection: PcaWhitening, features: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = projection(torch.from_numpy(features)).numpy()
    return found


@pytest.mark.parametrize("k", [1, 4, 100])
def test_mutual_pairs_are_those_of_a_slow_search(k: int) -> None:
    features = varied(30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    near = [set(np.argsort(-row)[: min(k, 29)].tolist()) for row in cosines]
    expected = {(a, b) for a in range(30) for b in near[a] if a in near[b]}
    found = mutual_pairs(features, k)
    assert {(int(a), int(b)) for a, b in found} == expected
    assert len(found) == len(expected)
    assert mutual_pairs(features[:1], k).shape == (0, 2)  # one item has no pair


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_distances_are_those_of_the_within_pair_metric(power: float) -> None:
    features = varied()
    pairs = np.stack([np.arange(0, 80, 2), np.arange(1, 80, 2)], axis=1)
    projection = PcaWhitening(6, 6, whiten=power, by_pairs=True)
    projection.fit(features)
    projection.refit(features, pairs)
    found = projected(projection, features)

    apart = (features[pairs[:, 0]] - features[pairs[:, 1]]).astype(np.float64)
    variances, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    variances += SHRINKAGE * variances.mean()
    metric = directions @ np.diag((variances / variances.mean()) ** -power) @ directions.T
    difference = (features[0] - features[7]).astype(np.float64)
    expected = difference @ metric @ difference
    assert ((found[0] - found[7]) ** 2).sum() == pytest.approx(expected, rel=1e-3)


def test_what_alike_items_differ_in_counts_less() -> None:
    # Two groups, told apart by a small value, while three large ones vary within each of them.
    rng, group = np.random.default_rng(0), np.repeat([0.0, 1.0], 100)
    features = rng.normal(size=(200, 20)).astype(np.float32) * 0.05
    features[:, 0] += 0.3 * group
    features[:, 1:4] += rng.normal(size=(200, 3))
    first = np.concatenate([np.arange(50), 100 + np.arange(50)])
    plain, white = PcaWhitening(20, 20), PcaWhitening(20, 20, whiten=1.0, by_pairs=True)
    plain.fit(features)
    white.fit(features)
    white.refit(features, np.stack([first, first + 50], axis=1))

    def nearest_is_of_the_group(found: NDArray[np.float32]) -> float:
        distances = ((found[:, None] - found[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        return float((group[distances.argmin(axis=1)] == group).mean())

    before = nearest_is_of_the_group(projected(plain, features))
    assert before < nearest_is_of_the_group(projected(white, features)) - 0.15


def test_pairs_that_are_the_same_whiten_nothing() -> None:
    features = varied(20)
    plain, white = PcaWhitening(6, 3), PcaWhitening(6, 3, whiten=1.0, by_pairs=True)
    plain.fit(features)
    for pairs in (np.stack([np.arange(20)] * 2, axis=1), np.empty((0, 2), np.int64)):
        white.fit(features)
        white.refit(features, pairs)
        np.testing.assert_allclose(
            projected(white, features), projected(plain, features), rtol=1e-4, atol=1e-4
        )
