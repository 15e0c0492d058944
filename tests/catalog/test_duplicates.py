from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import refuses
from visual_search.catalog.cache import Pictures
from visual_search.catalog.duplicates import NO_HASH, perceptual_hashes, pixel_keys

RNG = np.random.default_rng(0)


def drawn(number: int, side: int = 64) -> NDArray[np.uint8]:
    """Returns smooth coloured pictures, all different: coarse noise, enlarged."""
    coarse = RNG.integers(0, 256, (number, 6, 6, 3), dtype=np.uint8)
    size, how = (side, side), Image.Resampling.BICUBIC
    pictures = [np.asarray(Image.fromarray(each).resize(size, how)) for each in coarse]
    return np.stack(pictures).transpose(0, 3, 1, 2)


def shown(picture: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(picture.transpose(1, 2, 0))


def test_keys_are_equal_exactly_where_all_pixels_and_the_shape_are() -> None:
    pictures = drawn(5).copy()
    pictures[3] = pictures[4] = pictures[1]
    pictures[4, 2, 63, 63] ^= 1
    keys = pixel_keys(pictures, [0, 1, 2, 3, 4, 1])
    assert keys[1] == keys[3] == keys[5]
    assert len(set(keys)) == 4
    tall = np.zeros((1, 3, 4, 2), np.uint8)
    assert pixel_keys(tall, [0]) != pixel_keys(tall.reshape(1, 3, 2, 4), [0])


def test_cached_pictures_and_arrays_give_the_same(tmp_path: Path) -> None:
    pictures = drawn(4)
    path = tmp_path / "pictures.u8"
    path.write_bytes(pictures.tobytes())
    cached = Pictures(path, np.array([3, 2, 1, 0]), 64)
    assert pixel_keys(cached, [0, 1, 2, 3]) == pixel_keys(pictures, [3, 2, 1, 0])
    hashes = perceptual_hashes(cached, np.arange(4))
    np.testing.assert_array_equal(hashes, perceptual_hashes(pictures, [3, 2, 1, 0]))


def test_hashes_are_those_of_imagehash() -> None:
    pictures = drawn(10)
    hashes = perceptual_hashes(pictures, range(10))
    assert hashes.dtype == np.uint64
    expected = [str(imagehash.phash(shown(picture))) for picture in pictures]
    assert [f"{value:016x}" for value in hashes] == expected
    assert set(np.bitwise_count(hashes)) == {32}


@pytest.mark.parametrize(("side", "quality"), [(28, 0), (128, 0), (224, 0), (64, 60)])
def test_a_hash_survives_another_size_and_compression(side: int, quality: int) -> None:
    pictures = drawn(20)
    hashes = perceptual_hashes(pictures, range(20))
    images = [shown(picture).resize((side, side)) for picture in pictures]
    if quality:
        files = [encoded(image, "JPEG", quality=quality) for image in images]
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    others = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
    bits = np.bitwise_count(hashes ^ perceptual_hashes(others, range(20)))
    assert bits.max() <= 6
    assert np.median(bits) <= 2
    assert np.bitwise_count(hashes[:-1] ^ hashes[1:]).min() > 10  # different pictures


@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_plain_pictures_have_no_hash(value: int) -> None:
    plain = np.full((1, 3, 32, 32), value, np.uint8)
    assert perceptual_hashes(plain, [0]).tolist() == [NO_HASH]
    # else they would all match: this is what the library gives for every plain picture
    assert str(imagehash.phash(shown(plain[0]))) == ("8" if value else "0") + "0" * 15


def test_a_little_noise_is_no_shape_and_a_faint_shape_is_one() -> None:
    noisy = 255 - RNG.integers(0, 3, (1, 3, 128, 128)).astype(np.uint8)
    faint = np.full((1, 3, 128, 128), 255, np.uint8)
    faint[:, :, 30:90, 40:80] = 245
    hashes = perceptual_hashes(np.concatenate([noisy, faint]), [0, 1])
    assert (hashes == NO_HASH).tolist() == [True, False]


def test_many_rows_are_read_in_blocks() -> None:
    calls: list[tuple[int, int]] = []
    picture = drawn(1, side=1024)
    keys = pixel_keys(picture, [0] * 12, on_progress=lambda *call: calls.append(call))
    assert len(set(keys)) == 1
    assert calls == [(5, 12), (10, 12), (12, 12)]  # 16 MB hold five


@pytest.mark.parametrize("give", [pixel_keys, perceptual_hashes])
def test_no_rows_no_result_and_progress_to_the_end(give: Callable[..., Any]) -> None:
    calls: list[tuple[int, int]] = []
    pictures = drawn(3)
    assert len(give(pictures, [], on_progress=lambda *call: calls.append(call))) == 0
    assert calls == []
    give(pictures, [0, 2], on_progress=lambda *call: calls.append(call))
    assert calls[-1] == (2, 2)
    for error, message, given, rows in (
        (TypeError, r"shape \[2\] and holds float64; expected a one-dim", pictures, [0.5, 1.5]),
        (IndexError, r"row -1 is not among the 3 pictures; expected 0..2", pictures, [0, -1]),
        (IndexError, "row 3 is not among", pictures, [3]),
        (ValueError, r"\[1, 64, 64, 3\] uint8; expected", pictures.transpose(0, 2, 3, 1), [0]),
        (ValueError, "float64; expected", pictures / 255, [0]),
    ):
        refuses(error, message, give, given, rows)
