"""Descriptions: histograms, pixels and gradients, by hand, by invariance and against others'."""

import math
import subprocess
import sys

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
    numbers = np.random.default_rng(seed)
    return numbers.integers(40, 200, (num, 3, size_px, size_px), dtype=np.uint8)


# Random.


def test_random_numbers_follow_the_id_and_the_seed() -> None:
    found = random_embeddings(["a", "b", "c"], seed=0)
    np.testing.assert_array_equal(random_embeddings(["c", "a"], seed=0), found[[2, 0]])
    assert (random_embeddings(["a"], seed=1) != found[:1]).any()
    # Kept: an item's numbers must not change between releases.
    np.testing.assert_allclose(found[0, :3], [-0.26658518, -0.48190936, -0.4655199], rtol=1e-6)


def test_random_numbers_are_uniform() -> None:
    found = random_embeddings([str(number) for number in range(4000)], seed=0).astype(np.float64)
    assert found.min() >= -1
    assert found.max() <= 1
    sigma = math.sqrt(1 / 3 / found.size)  # the variance of a number is 1/3
    assert abs(found.mean()) < 4 * sigma
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


def test_histogram_against_numpys() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 9), dtype=np.uint8)
    slow = [
        np.histogram(channel, bins=16, range=(0, 256))[0] / 81
        for picture in pictures
        for channel in picture
    ]
    np.testing.assert_allclose(colour_histogram(pictures), np.reshape(slow, (3, 48)), rtol=1e-6)


def test_histogram_ignores_where_pixels_are() -> None:
    pictures = random_pictures(3, 16)
    order = np.random.default_rng(0).permutation(16 * 16)
    moved = pictures.reshape(3, 3, -1)[:, :, order].reshape(pictures.shape)
    np.testing.assert_array_equal(colour_histogram(moved), colour_histogram(pictures))


# Pixels.


def test_pixels_are_means_of_areas() -> None:
    pictures = random_pictures(2, 64)
    slow = np.empty((2, 3, 8, 8))
    for row in range(8):
        for column in range(8):
            area = pictures[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            slow[:, :, row, column] = area.mean(axis=(2, 3)) / 255
    np.testing.assert_allclose(resized_pixels(pictures, 8), slow.reshape(2, 192), rtol=1e-5)


@pytest.mark.parametrize("step", [2, 3, 16])
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


def test_pixels_of_the_same_size_are_the_pixels() -> None:
    pictures = random_pictures(2, 32)
    np.testing.assert_allclose(
        resized_pixels(pictures, 32), pictures.reshape(2, -1) / 255, rtol=1e-6
    )


# HOG.


def test_hog_of_a_picture_does_not_depend_on_the_others() -> None:
    pictures = random_pictures(70)
    alone = [hog(pictures[row : row + 1])[0] for row in range(70)]
    np.testing.assert_array_equal(hog(pictures), alone)


def test_hog_of_no_picture() -> None:
    assert hog(random_pictures(0)).shape == (0, HOG_DIM)


def test_hog_ignores_constant_brightness() -> None:
    pictures = random_pictures(2, 128)
    found = hog(pictures)
    np.testing.assert_array_equal(hog(pictures + np.uint8(30)), found)
    # Means of areas that end in .5 are rounded to even: an odd offset moves some by one level.
    # A block has unit length, so that 49 is the product of a descriptor with itself.
    similarity = (hog(pictures + np.uint8(31)) * found).sum(axis=1) / 49
    assert similarity.min() > 0.99
    assert (found[0] * found[1]).sum() / 49 < 0.9  # what another picture does


def test_hog_finds_the_orientation_of_an_edge() -> None:
    picture = np.zeros((2, 3, 64, 64), np.uint8)
    picture[0, :, :, 28:] = 255  # a vertical edge, its gradient horizontal: orientation 0
    picture[1, :, 28:] = 255  # a horizontal edge, at 90 degrees: orientation 6 of 12
    by_orientation = hog(picture).reshape(2, -1, 12).sum(axis=1)
    assert by_orientation.argmax(axis=1).tolist() == [0, 6]
    np.testing.assert_allclose(np.delete(by_orientation[0], 0), 0, atol=1e-6)


def test_hog_clips_what_dominates_a_block() -> None:
    picture = np.zeros((1, 3, 64, 64), np.uint8)
    picture[0, :, :, 12:] = 200  # an edge of 200 in the cells of column 1
    picture[0, :, :, 20:] = 240  # one of 40 in column 2
    block = hog(picture).reshape(7, 7, 2, 2, 12)[0, 1, 0, :, 0]
    # 200 and 40, each in two cells of the block: 0.693 and 0.139 of its length, then 0.2 and 0.139.
    weak = 40 / math.sqrt(2 * (200**2 + 40**2))
    length = math.sqrt(2 * (0.2**2 + weak**2))
    np.testing.assert_allclose(block, [0.2 / length, weak / length], rtol=1e-4)


def test_hog_takes_the_strongest_channel() -> None:
    picture = np.zeros((1, 3, 64, 64), np.uint8)
    picture[0, 2, :, 28:] = 200  # only in blue
    in_all = np.repeat(picture[:, 2:], 3, axis=1)
    np.testing.assert_array_equal(hog(picture), hog(in_all))


@pytest.mark.parametrize("size_px", [64, 100, 128])
def test_hog_of_a_flat_picture_is_zero(size_px: int) -> None:
    found = hog(np.full((1, 3, size_px, size_px), 173, np.uint8))
    np.testing.assert_array_equal(found, np.zeros((1, HOG_DIM), np.float32))


# Errors.


DESCRIPTORS = {
    "colour_histogram": colour_histogram,
    "resized_pixels": lambda pictures: resized_pixels(pictures, 8),
    "hog": hog,
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_a_descriptor_refuses_other_pictures(name: str) -> None:
    describe = DESCRIPTORS[name]
    with pytest.raises(TypeError, match="pictures are float32; expected uint8, not yet scaled"):
        describe(np.zeros((1, 3, 8, 8), np.float32))
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 3, 8, 9), (1, 3, 0, 0)):
        with pytest.raises(ValueError, match=r"pictures have shape .*; expected \[n, 3, S, S\]"):
            describe(np.zeros(shape, np.uint8))


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="size_px is 0; expected at least 1 pixel: try 32"):
        resized_pixels(random_pictures(1), 0)


# Imports.


def test_descriptors_load_without_torch() -> None:
    code = "import sys, visual_search.models.descriptors; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
