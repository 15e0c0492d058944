from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from tests.catalog.odd_pictures import chunk, encoded, png
from visual_search.catalog.images import (
    PictureError,
    PictureLimits,
    _eight_bit,
    check_target,
    decode,
    fit_array,
    to_display,
)

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")


def photo(width: int, height: int) -> Image.Image:
    """A smooth colour gradient with a dark disc: compresses like a photo."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1)
    pixels[(x - width * 0.3) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) / 5) ** 2] = 20
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", pytest.param("AVIF", marks=needs_avif)]
)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_every_format_gives_the_picture(kind: str, fit: str) -> None:
    image = photo(90, 60)
    picture = decode(encoded(image, kind), 32, fit)
    assert picture.shape == (3, 32, 32)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    expected = fit_array(np.asarray(image), 32, fit)
    off = np.abs(picture.astype(int) - expected).mean()
    assert off < 8  # a GIF has 256 colours


def test_stretch_is_pillows_antialiased_bilinear() -> None:
    image = photo(91, 67)
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encoded(image, "PNG"), 16, "stretch"), expected)


def test_letterbox_by_hand() -> None:
    red = Image.new("RGB", (2, 1), (200, 0, 0))
    picture = decode(encoded(red, "PNG"), 4, "letterbox")
    assert picture[0].tolist() == [[255] * 4, [200] * 4, [200] * 4, [255] * 4]  # red
    for channel in picture[1:]:
        assert channel.tolist() == [[255] * 4, [0] * 4, [0] * 4, [255] * 4]
    upright = decode(encoded(red.transpose(Image.Transpose.ROTATE_90), "PNG"), 4, "letterbox")
    np.testing.assert_array_equal(upright, picture.transpose(0, 2, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes(size: tuple[int, int], fit: str, kind: str) -> None:
    picture = decode(encoded(Image.new("RGB", size, (0, 0, 0)), kind), 16, fit)
    assert picture.shape == (3, 16, 16)
    black = int((picture == 0).sum()) // 3
    if fit == "stretch" or size == (1, 1):
        assert black == 16 * 16
    else:  # 16 x 11 of a 3 x 2 picture; a line of one pixel of the long ones
        assert black == (16 * 11 if size == (3, 2) else 16)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(1600, 1200), (1001, 777), (333, 2000), (700, 500)])
def test_draft_of_large_jpegs_hardly_changes_the_picture(size: tuple[int, int], fit: str) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    light = (x * 20 // size[0] + y * 20 // size[1]) % 2  # 20 x 20 checks: edges that could shift
    pixels = np.stack([60 + 150 * light, 200 - 120 * light, 30 + 40 * light], axis=-1)
    data = encoded(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        whole = fit_array(np.asarray(image.convert("RGB")), 64, fit)  # no draft
    off = np.abs(decode(data, 64, fit).astype(int) - whole)
    # Checks are the worst case: photos are off by 0.5. Forgetting that a draft is rounded up to
    # whole pixels is off by 2.5 to 4.9, and drafts of once the target have a 99th percentile of 10.
    assert off.mean() < 1.8
    assert np.percentile(off, 99) <= 7


def test_sixteen_bit_grey_is_scaled_to_the_nearest_of_257_steps() -> None:
    values = np.arange(65536, dtype=np.uint16)
    image = _eight_bit(Image.fromarray(values.reshape(256, 256)))
    expected = np.round(values / 257).astype(np.uint8)  # no tie: 257 is odd
    np.testing.assert_array_equal(np.asarray(image).ravel(), expected)
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 257 * 90, 65535))
    assert decode(data, 2, "letterbox")[:, 0].tolist() == [[90, 255]] * 3


# grey of few bits: PNG with a transparent and an opaque pixel, what the opaque one becomes
TRANSPARENT = {
    1: (bytes([0, 0b10000000]), b"\0\1", 0),
    2: (bytes([0, 0b01100000]), b"\0\1", 170),
    4: (bytes([0, 0x35]), b"\0\3", 85),
    8: (bytes([0, 9, 5]), b"\0\x09", 5),
}


@pytest.mark.parametrize("bit_depth", TRANSPARENT)
def test_transparent_parts_become_white(bit_depth: int) -> None:
    raw, transparent, opaque = TRANSPARENT[bit_depth]
    data = png(2, 1, bit_depth, 0, raw, extra=chunk(b"tRNS", transparent))
    picture = decode(data, 2, "letterbox")  # [3, 2, 2]; 2 x 1 pixels lie in the first row
    assert picture[:, 0].tolist() == [[255, opaque]] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation(orientation: int, fit: str, kind: str) -> None:
    shown = photo(300, 200)
    # What a camera stores so that its orientation brings back `shown`.
    stored = {
        1: shown,
        2: shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: shown.transpose(Image.Transpose.ROTATE_180),
        4: shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: shown.transpose(Image.Transpose.TRANSPOSE),
        6: shown.transpose(Image.Transpose.ROTATE_90),
        7: shown.transpose(Image.Transpose.TRANSVERSE),
        8: shown.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(stored, kind, exif=exif), 24, fit)
    expected = fit_array(np.asarray(shown), 24, fit)
    assert np.abs(picture.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_junk_in_exif_leaves_the_picture_as_stored(exif: bytes) -> None:
    data = encoded(photo(30, 20), "JPEG", exif=exif)
    plain = encoded(photo(30, 20), "JPEG")
    np.testing.assert_array_equal(decode(data, 8, "stretch"), decode(plain, 8, "stretch"))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "starts with b'<!DOCTYPE ht'"),
        (encoded(photo(8, 8), "TIFF"), r"not a picture in a format that is read here \(JPEG, PNG"),
        (encoded(photo(8, 8), "EPS"), "not a picture in a format"),
    ],
)
def test_other_files_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(PictureError, match=match):
        decode(data, 8, "stretch")


def test_too_many_bytes_are_refused() -> None:
    data = encoded(photo(8, 8), "PNG")
    decode(data, 8, "stretch", PictureLimits(max_bytes=len(data)))
    with pytest.raises(PictureError, match=r"has \d+ bytes; at most 10 are read"):
        decode(data, 8, "stretch", PictureLimits(max_bytes=10))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    decode(encoded(photo(80, 60), "PNG"), 8, "stretch", PictureLimits(max_pixels=4800))
    with pytest.raises(PictureError, match="80 x 60 = 4,800 pixels; at most 4,799 are decoded"):
        decode(encoded(photo(80, 60), "PNG"), 8, "stretch", PictureLimits(max_pixels=4799))
    announced = png(9000, 9000, 8, 0, b"")  # no pixels inside: whoever decodes says so instead
    with pytest.raises(PictureError, match="81,000,000 pixels"):
        decode(announced, 8, "stretch")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [11_000, 30_000])
def test_bombs_are_refused(side: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(PictureError, match=r"pixels"):
        decode(png(side, side, 8, 0, b""), 8, "stretch")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_files_end_as_a_picture_or_a_picture_error(kind: str) -> None:
    rng = np.random.default_rng(20240607)
    whole = encoded(photo(120, 90), kind)
    num_trials = 150
    outcomes = {"picture": 0, "refused": 0}
    for trial in range(num_trials):
        data = bytearray(whole)
        if trial % 3 == 0:  # cut
            del data[int(rng.integers(len(data))) :]
        else:  # flip bytes; two times in three within the header, where it hurts
            end = len(data) if trial % 3 == 1 else min(len(data), 200)
            for position in rng.integers(end, size=rng.integers(1, 12)):
                data[position] = rng.integers(256)
        try:
            picture = decode(bytes(data), 32, "letterbox", PictureLimits(max_pixels=1_000_000))
        except PictureError as error:
            outcomes["refused"] += bool(str(error))  # a refusal without a reason does not count
        else:
            assert picture.shape == (3, 32, 32)
            outcomes["picture"] += 1
    assert outcomes["picture"] + outcomes["refused"] == num_trials
    assert outcomes["refused"] >= 30


def test_mode_without_a_scale_is_refused() -> None:
    with pytest.raises(PictureError, match="mode 'F'"):
        _eight_bit(Image.new("F", (2, 2)))


@pytest.mark.parametrize(("size_px", "fit"), [(0, "stretch"), (-1, "letterbox"), (8, "crop")])
def test_bad_target_is_refused(size_px: int, fit: str) -> None:
    match = "fit is 'crop'; expected one of" if fit == "crop" else f"size_px is {size_px}; expected"
    data = encoded(photo(8, 8), "PNG")
    for call in (
        lambda: decode(data, size_px, fit),
        lambda: fit_array(np.zeros((2, 2), np.uint8), size_px, fit),
        lambda: check_target(size_px, fit),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            call()
        assert not isinstance(caught.value, PictureError)  # the caller's fault, not the picture's


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels"])
def test_bad_limits_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        PictureLimits(**{name: 0})


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_arrays_and_files_give_the_same(fit: str) -> None:
    image = photo(50, 30)
    grey = image.convert("L")
    for picture in (image, grey):
        from_array = fit_array(np.asarray(picture), 12, fit)
        np.testing.assert_array_equal(from_array, decode(encoded(picture, "PNG"), 12, fit))
        assert from_array.flags.c_contiguous
    strided = np.asarray(image)[::-1, ::2]
    np.testing.assert_array_equal(
        fit_array(strided, 12, fit), fit_array(np.ascontiguousarray(strided), 12, fit)
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_bad_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PictureError, match=r"the array has shape \[.*expected \[H, W\]"):
        fit_array(array, 8, "stretch")


def test_to_display() -> None:
    picture = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
    shown = to_display(picture)
    assert shown.shape == (2, 4, 3)
    assert shown.flags.c_contiguous
    assert shown[1, 3].tolist() == [7, 15, 23]


@pytest.mark.parametrize(
    "picture", [np.zeros((2, 4, 3), np.uint8), np.zeros((3, 4), np.uint8), np.zeros((3, 4, 4))]
)
def test_to_display_refuses(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected \[3, H, W\] uint8"):
        to_display(picture)
