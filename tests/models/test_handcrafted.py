"""HOG in PyTorch, and descriptors beside a network's values."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.feature import hog as reference
from torch import Tensor

from visual_search.catalog.images import fit_array
from visual_search.models.descriptors import HOG_DIM, hog
from visual_search.models.gradients import hog as torch_hog
from visual_search.models.gradients import hog_dim
from visual_search.models.handcrafted import DescriptorProjection, beside_dim, describe_beside

RNG = np.random.default_rng(0)


def skimage_hog(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    exact = pictures.astype(np.float64).transpose(0, 2, 3, 1)
    settings = {"orientations": 12, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2)}
    return np.stack([reference(picture, channel_axis=-1, **settings) for picture in exact])


def test_hog_is_scikit_images() -> None:
    assert hog_dim(64) == HOG_DIM
    # Steps along both axes and both diagonals: 0, 45, 90 and 135 degrees, both ways.
    y, x = np.mgrid[:64, :64]
    planes = [x > 31, x < 32, y > 31, y < 32, x > y, x < y, x + y > 63, x + y < 63]
    steps = np.stack(planes)[:, None].repeat(3, axis=1).astype(np.uint8) * 200
    noise = [RNG.integers(0, 256, (3, 3, side, side), dtype=np.uint8) for side in (16, 24, 64)]
    for pictures in (*noise, steps):
        found = torch_hog(torch.from_numpy(pictures)).numpy()
        assert found.shape == (len(pictures), hog_dim(pictures.shape[-1]))
        np.testing.assert_allclose(found, skimage_hog(pictures), atol=1e-6)
    assert not torch_hog(torch.full((1, 3, 64, 64), 77.0)).any()  # a flat picture has none


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (1, 1, 64, 64), (1, 3, 20, 20), (1, 3, 8, 8)])
def test_other_shapes_have_no_hog(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 3, S, S\] with S a multiple of 8"):
        torch_hog(torch.zeros(shape))


RNG = np.random.default_rng(0)


def shown(width: int, height: int, fit: str, value: int | None = None) -> Tensor:
    """A picture in -1..1 as networks take it, ``[1, 3, 64, 64]``."""
    picture = RNG.integers(0, 200, (height, width, 3), dtype=np.uint8)
    if value is not None:
        picture[:] = value
    return torch.from_numpy(fit_array(picture, 64, fit)).float()[None] / 127.5 - 1  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [64, 128])
def test_hog_is_the_floors_hog(size: int) -> None:
    pictures = RNG.integers(0, 256, (4, 3, size, size), dtype=np.uint8)
    if size == 128:  # smooth, so that two ways to halve it agree
        pictures = pictures[:, :, ::2, ::2].repeat(2, axis=2).repeat(2, axis=3)
    found = describe_beside("hog", torch.from_numpy(pictures).float() / 127.5 - 1)
    assert found.shape == (4, beside_dim("hog"))
    if size == 64:
        np.testing.assert_allclose(found.numpy(), hog(pictures), atol=1e-4)


def test_shape_is_seen_through_padding_and_gradients_are_not_of_it() -> None:
    wide_high_square = [shown(*size, "letterbox") for size in ((60, 15), (15, 60), (30, 30))]
    circle = describe_beside("hog_shape", torch.cat(wide_high_square))[:, -2:]
    torch.testing.assert_close(circle.norm(dim=1), torch.ones(3))
    angles = torch.atan2(circle[:, 1], circle[:, 0])
    torch.testing.assert_close(angles, torch.tensor([1.4, -1.4, 0.0]) * float(np.log(4)))
    flat = describe_beside("hog_shape", shown(60, 15, "letterbox", value=90))
    assert not flat[:, :-2].any()  # the border between picture and padding is no gradient

    pictures = torch.cat([shown(60, 15, "stretch"), shown(15, 60, "stretch")])
    found = describe_beside("hog_shape", pictures)
    assert found[:, -2:].tolist() == [[1, 0], [1, 0]]  # without letterboxing all have one shape
    torch.testing.assert_close(found[:, :-2], describe_beside("hog", pictures), atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # changes nothing
        assert torch.equal(describe_beside("hog_shape", pictures), found)


def test_a_projection_shortens_the_gradients_and_leaves_the_shape() -> None:
    descriptions = RNG.normal(size=(40, beside_dim("hog_shape"))).astype(np.float32)
    projection = DescriptorProjection("hog_shape", 10)
    projection.fit(descriptions)
    found = projection(torch.from_numpy(descriptions)).numpy()
    assert found.shape == (40, 12) == (40, projection.dim)
    np.testing.assert_allclose(np.linalg.norm(found[:, :10], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 10:], descriptions[:, -2:])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="got the descriptor 'sift', expected one of hog, hog_sha"):
        describe_beside("sift", torch.zeros(1, 3, 64, 64))  # type: ignore[arg-type]
