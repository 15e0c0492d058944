from __future__ import annotations

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.cache import Pictures
from visual_search.catalog.duplicates import NO_HASH, perceptual_hashes, pixel_keys

RNG = np.random.default_rng(0)


def drawn(number: int, side: int = 64) -> NDArray[np.uint8]:
    """Returns smooth coloured pictures, all different: coarse noise, enlarged."""
    return np.stack(
        [
            np.asarray(
                Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
            ).transpose(2, 0, 1)
            for _ in range(number)
        ]
    )


def resized(picture: NDArray[np.uint8], side: int, quality: int | None = None) -> NDArray[np.uint8]:
    image = Image.fromarray(picture.transpose(1, 2, 0)).resize((side, side))
    if quality is not None:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file).convert("RGB")
    return np.asarray(image).transpose(2, 0, 1)


def test_keys_are_equal_exactly_where_all_pixels_are() -> None:
    pictures = drawn(5)
    pictures[3] = pictures[1]
    pictures[4] = pictures[1]
    pictures[4, 2, 63, 63] ^= 1
    keys = pixel_keys(pictures, [0, 1, 2, 3, 4, 1])
    assert keys[1] == keys[3] == keys[5]
    assert len(set(keys)) == 4


def test_keys_know_the_shape() -> None:
    tall = np.zeros((1, 3, 4, 2), np.uint8)
    assert pixel_keys(tall, [0]) != pixel_keys(tall.reshape(1, 3, 2, 4), [0])


def test_cached_pictures_and_arrays_give_the_same(tmp_path: Path) -> None:
    pictures = drawn(4)
    path = tmp_path / "pictures.u8"
    path.write_bytes(pictures.tobytes())
    cached = Pictures(path, np.array([3, 2, 1, 0]), 64)
    assert pixel_keys(cached, [0, 1, 2, 3]) == pixel_keys(pictures, [3, 2, 1, 0])
    np.testing.assert_array_equal(
        perceptual_hashes(cached, np.arange(4)), perceptual_hashes(pictures, [3, 2, 1, 0])
    )


def test_hashes_are_those_of_imagehash() -> None:
    pictures = drawn(10)
    expected = [str(imagehash.phash(Image.fromarray(p.transpose(1, 2, 0)))) for p in pictures]
    hashes = perceptual_hashes(pictures, range(10))
    assert hashes.dtype == np.uint64
    assert [f"{value:016x}" for value in hashes] == expected
    assert set(np.bitwise_count(hashes)) == {32}


@pytest.mark.parametrize(("side", "quality"), [(28, None), (128, None), (224, None), (64, 60)])
def test_a_hash_survives_another_size_and_compression(side: int, quality: int | None) -> None:
    pictures = drawn(20)
    hashes = perceptual_hashes(pictures, range(20))
    others = np.stack([resized(picture, side, quality) for picture in pictures])
    bits = np.bitwise_count(hashes ^ perceptual_hashes(others, range(20)))
    assert bits.max() <= 6
    assert np.median(bits) <= 2
    assert np.bitwise_count(hashes[:-1] ^ hashes[1:]).min() > 10  # different pictures


@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_plain_pictures_have_no_hash(value: int) -> None:
    plain = np.full((1, 3, 32, 32), value, np.uint8)
    assert perceptual_hashes(plain, [0]).tolist() == [NO_HASH]
    # else they would all match: this is what the library gives for every plain picture
    text = str(imagehash.phash(Image.fromarray(plain[0].transpose(1, 2, 0))))
    assert text == ("8000000000000000" if value else "0000000000000000")


def test_a_little_noise_is_no_shape_and_a_faint_shape_is_one() -> None:
    noisy = 255 - RNG.integers(0, 3, (1, 3, 128, 128)).astype(np.uint8)
    faint = np.full((1, 3, 128, 128), 255, np.uint8)
    faint[:, :, 30:90, 40:80] = 245
    hashes = perceptual_hashes(np.concatenate([noisy, faint]), [0, 1])
    assert hashes[0] == NO_HASH
    assert hashes[1] != NO_HASH


@pytest.mark.parametrize("give", [pixel_keys, perceptual_hashes])
def test_no_rows_no_result_and_progress_to_the_end(give: object) -> None:
    calls: list[tuple[int, int]] = []
    pictures = drawn(3)
    empty = give(pictures, [], on_progress=lambda *call: calls.append(call))
    assert len(empty) == 0
    assert calls == []
    give(pictures, [0, 2], on_progress=lambda *call: calls.append(call))
    assert calls[-1] == (2, 2)


def test_many_rows_are_read_in_blocks() -> None:
    calls: list[tuple[int, int]] = []
    picture = drawn(1, side=1024)
    keys = pixel_keys(picture, [0] * 12, on_progress=lambda *call: calls.append(call))
    assert len(set(keys)) == 1
    assert calls == [(5, 12), (10, 12), (12, 12)]  # 16 MB hold five


@pytest.mark.parametrize("give", [pixel_keys, perceptual_hashes])
def test_what_is_refused(give: object) -> None:
    pictures = drawn(3)
    with pytest.raises(TypeError, match=r"shape \[2\] and holds float64; expected a one-dim"):
        give(pictures, [0.5, 1.5])
    with pytest.raises(IndexError, match=r"row -1 is not among the 3 pictures; expected 0..2"):
        give(pictures, [0, -1])
    with pytest.raises(IndexError, match="row 3 is not among"):
        give(pictures, [3])
    with pytest.raises(ValueError, match=r"\[1, 64, 64, 3\] uint8; expected \[n, 3, S, S\] uint8"):
        give(pictures.transpose(0, 2, 3, 1), [0])
    with pytest.raises(ValueError, match="float64; expected"):
        give(pictures / 255, [0])
