"""PCA of features, and whitening by what alike items differ in."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visual_search.models.pca_whitening import SHRINKAGE, PcaWhitening, mutual_pairs

RNG = np.random.default_rng(0)


def values(num: int = 80, dim: int = 6) -> NDArray[np.float32]:
    return (RNG.normal(size=(num, dim)) * np.arange(1, dim + 1) + 3).astype(np.float32)


def projected(projection: PcaWhitening, features: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = projection(torch.from_numpy(features)).numpy()
    return found


@pytest.mark.parametrize("k", [1, 4, 100])
def test_mutual_pairs_are_those_of_a_slow_search(k: int) -> None:
    features = values(30)
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
    features = values()
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
    features = values(20)
    plain, white = PcaWhitening(6, 3), PcaWhitening(6, 3, whiten=1.0, by_pairs=True)
    plain.fit(features)
    for pairs in (np.stack([np.arange(20)] * 2, axis=1), np.empty((0, 2), np.int64)):
        white.fit(features)
        white.refit(features, pairs)
        np.testing.assert_allclose(
            projected(white, features), projected(plain, features), rtol=1e-4, atol=1e-4
        )
