"""HOG in PyTorch gives scikit-image's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.feature import hog as reference

from visual_search.models.descriptors import HOG_DIM
from visual_search.models.gradients import hog, hog_dim

RNG = np.random.default_rng(0)


def expected(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.stack(
        [
            reference(
                picture.astype(np.float64),
                orientations=12,
                pixels_per_cell=(8, 8),
                cells_per_block=(2, 2),
                channel_axis=-1,
            )
            for picture in pictures.transpose(0, 2, 3, 1)
        ]
    )


def test_its_width_is_the_floors() -> None:
    assert hog_dim(64) == HOG_DIM


@pytest.mark.parametrize("side", [16, 24, 64])
def test_noise(side: int) -> None:
    pictures = RNG.integers(0, 256, (5, 3, side, side), dtype=np.uint8)
    found = hog(torch.from_numpy(pictures))
    assert found.shape == (5, hog_dim(side))
    np.testing.assert_allclose(found.numpy(), expected(pictures), atol=1e-6)


def test_gradients_on_the_boundaries_of_orientations() -> None:
    # Steps along both axes and both diagonals: 0, 45, 90 and 135 degrees, both ways.
    y, x = np.mgrid[:64, :64]
    planes = [x > 31, x < 32, y > 31, y < 32, x > y, x < y, x + y > 63, x + y < 63]
    pictures = np.stack([np.repeat(plane[None] * 200, 3, axis=0) for plane in planes])
    np.testing.assert_allclose(
        hog(torch.from_numpy(pictures.astype(np.uint8))).numpy(),
        expected(pictures.astype(np.uint8)),
        atol=1e-6,
    )


def test_a_flat_picture_has_none() -> None:
    assert not hog(torch.full((1, 3, 64, 64), 77.0)).any()


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (1, 1, 64, 64), (1, 3, 20, 20), (1, 3, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 3, S, S\] with S a multiple of 8"):
        hog(torch.zeros(shape))
