"""Descriptions: histograms, pixels and gradients, by hand, by invariance and against others'."""

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_search.models.descriptors import (
    HOG_DIM,
    colour_histogram,
    hog,
    random_embeddings,
    resized_pixels,
)


def random_pictures(num: int, size_px: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(40, 200, (num, 3, size_px, size_px), dtype=np.uint8)


def test_random_numbers_follow_the_id_and_the_seed() -> None:
    found = random_embeddings(["a", "b", "c"], seed=0)
    np.testing.assert_array_equal(random_embeddings(["c", "a"], seed=0), found[[2, 0]])
    assert (random_embeddings(["a"], seed=1) != found[:1]).any()
    # Kept: an item's numbers must not change between releases.
    np.testing.assert_allclose(found[0, :3], [-0.26658518, -0.48190936, -0.4655199], rtol=1e-6)

    found = random_embeddings([str(number) for number in range(4000)], seed=0).astype(np.float64)
    assert -1 <= found.min() <= found.max() <= 1
    assert abs(found.mean()) < 4 * math.sqrt(1 / 3 / found.size)  # the variance of one is 1/3
    assert found.var() == pytest.approx(1 / 3, abs=0.005)
    assert np.abs(np.corrcoef(found, rowvar=False) - np.eye(64)).max() < 0.1


# Colour histogram.


def test_histogram_by_hand() -> None:
    picture = np.zeros((1, 3, 2, 2), np.uint8)
    picture[0, 0] = [[0, 15], [16, 255]]
    picture[0, 1] = [[127, 128], [128, 143]]
    expected = np.zeros((1, 48), np.float32)
    expected[0, [0, 1, 15]] = 0.5, 0.25, 0.25  # red
    expected[0, [16 + 7, 16 + 8]] = 0.25, 0.75  # green: 127 is the last of bin 7
    expected[0, 32] = 1  # blue
    np.testing.assert_array_equal(colour_histogram(picture), expected)

    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 9), dtype=np.uint8)
    channels = pictures.reshape(9, -1)
    slow = [np.histogram(channel, bins=16, range=(0, 256))[0] / 81 for channel in channels]
    np.testing.assert_allclose(colour_histogram(pictures), np.reshape(slow, (3, 48)), rtol=1e-6)


# Pixels.


@pytest.mark.parametrize("step", [1, 3, 16])
def test_means_of_whole_squares_are_exact(step: int) -> None:
    pictures = random_pictures(2, 5 * step)
    squares = pictures.reshape(2, 3, 5, step, 5, step).transpose(0, 1, 2, 4, 3, 5)
    sums = squares.reshape(2, -1, step**2).sum(axis=-1, dtype=np.int64)  # [n, 3 * 5 * 5]
    means = (sums / step**2).astype(np.float32)
    np.testing.assert_array_equal(resized_pixels(pictures, 5), means / np.float32(255))


def test_a_pixel_on_an_edge_counts_by_its_share() -> None:
    picture = np.zeros((1, 3, 3, 3), np.uint8)
    picture[0, 0] = [[30, 60, 90]] * 3
    red = resized_pixels(picture, 2)[0, :4] * 255
    np.testing.assert_allclose(red, [40, 80, 40, 80], rtol=1e-6)  # (30 + 60 / 2) / 1.5


# HOG.


def test_hog_is_of_each_picture_and_ignores_constant_brightness() -> None:
    pictures = random_pictures(70)
    assert hog(pictures[:0]).shape == (0, HOG_DIM)
    alone = [hog(pictures[row : row + 1])[0] for row in (0, 1, 64, 69)]
    np.testing.assert_array_equal(hog(pictures)[[0, 1, 64, 69]], alone)
    pictures = random_pictures(2, 128)
    found = hog(pictures)
    np.testing.assert_array_equal(hog(pictures + np.uint8(30)), found)
    # Means of areas that end in .5 are rounded to even: an odd offset moves some by one level.
    # A block has unit length, so that 49 is the product of a descriptor with itself.
    similarity = (hog(pictures + np.uint8(31)) * found).sum(axis=1) / 49
    assert similarity.min() > 0.99
    assert (found[0] * found[1]).sum() / 49 < 0.9  # what another picture does


# Errors.


@pytest.mark.parametrize("describe", [colour_histogram, partial(resized_pixels, size_px=8), hog])
def test_a_descriptor_refuses_other_pictures(
    describe: Callable[[NDArray[Any]], NDArray[np.float32]],
) -> None:
    with pytest.raises(TypeError, match="pictures are float32; expected uint8, not yet scaled"):
        describe(np.zeros((1, 3, 8, 8), np.float32))
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 3, 8, 9), (1, 3, 0, 0)):
        with pytest.raises(ValueError, match=r"pictures have shape .*; expected \[n, 3, S, S\]"):
            describe(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="size_px is 0"):
        resized_pixels(random_pictures(1), 0)


# Imports.


def test_descriptors_load_without_torch() -> None:
    code = "import sys, visual_search.models.descriptors; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
