"""Descriptors beside a network's values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from visual_search.catalog.images import fit_array
from visual_search.models.descriptors import hog
from visual_search.models.handcrafted import DescriptorProjection, beside_dim, describe_beside

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
    wide, high, square = (
        shown(60, 15, "letterbox"),
        shown(15, 60, "letterbox"),
        shown(30, 30, "letterbox"),
    )
    circle = describe_beside("hog_shape", torch.cat([wide, high, square]))[:, -2:]
    torch.testing.assert_close(circle.norm(dim=1), torch.ones(3))
    angles = torch.atan2(circle[:, 1], circle[:, 0])
    torch.testing.assert_close(angles, torch.tensor([1.4, -1.4, 0.0]) * float(np.log(4)))
    flat = describe_beside("hog_shape", shown(60, 15, "letterbox", value=90))
    assert not flat[:, :-2].any()  # the border between picture and padding is no gradient


def test_without_letterboxing_all_have_one_shape() -> None:
    pictures = torch.cat([shown(60, 15, "stretch"), shown(15, 60, "stretch")])
    found = describe_beside("hog_shape", pictures)
    assert found[:, -2:].tolist() == [[1, 0], [1, 0]]
    torch.testing.assert_close(found[:, :-2], describe_beside("hog", pictures), atol=1e-4, rtol=0)


def test_half_precision_around_it_changes_nothing() -> None:
    pictures = shown(40, 30, "letterbox")
    plain = describe_beside("hog_shape", pictures)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(describe_beside("hog_shape", pictures), plain)


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
