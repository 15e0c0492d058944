from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from tests.catalog.odd_pictures import chunk, encoded, noise, png
from tests.catalog.shops import refuses
from visual_search.catalog import images
from visual_search.catalog.images import (
    PictureError,
    PictureLimits,
    _eight_bit,
    check_target,
    decode,
    decode_whole,
    fit_array,
    to_display,
)

FITS = ("stretch", "letterbox")
KINDS = (
    *("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "HEIF"),
    *(("AVIF",) if features.check("avif") else ()),
)
pillow_heif.register_heif_opener()  # to write them


def photo(width: int, height: int) -> Image.Image:
    """A smooth colour gradient with a dark disc: compresses like a photo."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1)
    pixels[(x - width * 0.3) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) / 5) ** 2] = 20
    return Image.fromarray(pixels.astype(np.uint8))


SMALL = photo(8, 8)


def off(picture: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(picture.astype(int) - expected).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_picture(kind: str) -> None:
    image = photo(90, 60)
    for fit in FITS:
        picture = decode(encoded(image, kind), 32, fit)
        assert (picture.shape, picture.dtype) == ((3, 32, 32), np.uint8)
        assert picture.flags.c_contiguous
        assert off(picture, fit_array(np.asarray(image), 32, fit)) < 8  # a GIF has 256 colours


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
def test_extreme_shapes(size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG"):
        for fit in FITS:
            picture = decode(encoded(Image.new("RGB", size), kind), 16, fit)
            black = int((picture == 0).sum()) // 3
            if fit == "stretch" or size == (1, 1):
                assert black == 16 * 16
            else:  # 16 x 11 of a 3 x 2 picture; a line of one pixel of the long ones
                assert black == (16 * 11 if size == (3, 2) else 16)


@pytest.mark.parametrize("size", [(1600, 1200), (1001, 777), (333, 2000), (700, 500)])
def test_draft_of_large_jpegs_hardly_changes_the_picture(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    light = (x * 20 // size[0] + y * 20 // size[1]) % 2  # 20 x 20 checks: edges that could shift
    pixels = np.stack([60 + 150 * light, 200 - 120 * light, 30 + 40 * light], axis=-1)
    data = encoded(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image.convert("RGB"))  # no draft
    for fit in FITS:
        differs = np.abs(decode(data, 64, fit).astype(int) - fit_array(whole, 64, fit))
        # Checks are the worst case: photos are off by 0.5. Forgetting that a draft is rounded up to
        # whole pixels is off by 2.5 to 4.9, and drafts of once the target have a 99th percentile of
        # 10.
        assert differs.mean() < 1.8
        assert np.percentile(differs, 99) <= 7


def test_sixteen_bit_grey_is_scaled_to_the_nearest_of_257_steps() -> None:
    values = np.arange(65536, dtype=np.uint16)
    image = _eight_bit(Image.fromarray(values.reshape(256, 256)))
    expected = np.round(values / 257).astype(np.uint8)  # no tie: 257 is odd
    np.testing.assert_array_equal(np.asarray(image).ravel(), expected)
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 257 * 90, 65535))
    assert decode(data, 2, "letterbox")[:, 0].tolist() == [[90, 255]] * 3
    refuses(PictureError, "mode 'F'", _eight_bit, Image.new("F", (2, 2)))  # has no scale


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_of_pictures_that_are_not_square(kind: str) -> None:
    shown, way = photo(300, 200), Image.Transpose
    # What a camera stores so that its orientation, 2 to 8, brings back `shown`.
    turns = [way.FLIP_LEFT_RIGHT, way.ROTATE_180, way.FLIP_TOP_BOTTOM, way.TRANSPOSE, way.ROTATE_90]
    for orientation, turn in enumerate([*turns, way.TRANSVERSE, way.ROTATE_270], 2):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(shown.transpose(turn), kind, exif=exif)
        for fit in FITS:
            assert off(decode(data, 24, fit), fit_array(np.asarray(shown), 24, fit)) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_and_heic_are_upright_once(orientation: int) -> None:
    """Pillow turns a TIFF by itself, and libheif what a camera has turned."""
    shown, way = photo(90, 60), Image.Transpose
    turns = [None, way.FLIP_LEFT_RIGHT, way.ROTATE_180, way.FLIP_TOP_BOTTOM, way.TRANSPOSE,
             way.ROTATE_90, way.TRANSVERSE, way.ROTATE_270]  # fmt: skip
    turn = turns[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = shown if turn is None else shown.transpose(turn)
    for kind in ("TIFF", "HEIF"):
        data = encoded(stored, kind, exif=exif.tobytes())
        assert off(decode_whole(data), np.asarray(shown)) < 8
        for fit in FITS:
            assert off(decode(data, 24, fit), fit_array(np.asarray(shown), 24, fit)) < 8


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_every_mode_of_a_tiff_gives_its_picture(mode: str, compression: str | None) -> None:
    grey = photo(40, 30).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    picture = deep if mode == "I;16" else grey.convert("RGB").convert(mode)
    found = decode_whole(encoded(picture, "TIFF", compression=compression))
    expected = grey if mode == "I;16" else picture
    assert off(found, np.asarray(expected.convert("RGB"))) == 0


def test_heic_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(40, 30), "HEIF")
    assert decode(data, 8, "stretch").shape == (3, 8, 8)
    images._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    refuses(PictureError, r"pip install 'visual-search\[heif\]'", decode, data, 8, "stretch")
    monkeypatch.undo()
    # a size that is not the picture's, of which more would be decoded than was asked for
    at = data.index(b"ispe") + 8
    for size in (8, 80):
        lying = data[:at] + struct.pack(">II", size, size) + data[at + 8 :]
        refuses(PictureError, "size", decode, lying, 8, "stretch")
    assert not images.is_heic(b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf")


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_junk_in_exif_leaves_the_picture_as_stored(exif: bytes) -> None:
    files = (encoded(photo(30, 20), "JPEG", **more) for more in ({"exif": exif}, {}))
    np.testing.assert_array_equal(*(decode(data, 8, "stretch") for data in files))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_bytes_or_pixels_are_refused_before_decoding() -> None:
    data = encoded(photo(80, 60), "PNG")
    decode(data, 8, "stretch", PictureLimits(max_bytes=len(data), max_pixels=4800))
    pillows_own = Image.MAX_IMAGE_PIXELS
    for given, limits, message in (
        (data, {"max_bytes": len(data) - 1}, rf"has {len(data):,} bytes; at most"),
        (data, {"max_pixels": 4799}, "80 x 60 = 4,800 pixels; at most 4,799 are decoded"),
        # no pixels inside: whoever decodes says so instead
        (png(9000, 9000, 8, 0, b""), {}, "81,000,000 pixels"),
        (png(11_000, 11_000, 8, 0, b""), {}, "pixels"),  # where Pillow itself only warns
    ):
        refuses(PictureError, message, decode, given, 8, "stretch", PictureLimits(**limits))
    assert pillows_own == Image.MAX_IMAGE_PIXELS
    for name in ("max_bytes", "max_pixels"):
        refuses(ValueError, f"{name} is 0; expected at least 1", PictureLimits, **{name: 0})
        assert PictureLimits(**{name: 1})


def test_bad_targets_and_arrays_are_refused() -> None:
    data, zeros = encoded(SMALL, "PNG"), np.zeros((2, 2), np.uint8)
    for size_px, fit, message in (
        (0, "stretch", "size_px is 0; expected"),
        (-1, "letterbox", "size_px is -1; expected"),
        (8, "crop", "fit is 'crop'; expected one of"),
    ):
        for call, *given in ((decode, data), (fit_array, zeros), (check_target,)):
            with pytest.raises(ValueError, match=message) as caught:
                call(*given, size_px, fit)
            assert not isinstance(caught.value, PictureError)  # the caller's fault
    assert decode(data, 1, "stretch").shape == (3, 1, 1)
    for shape in ((4,), (4, 4, 4), (3, 4, 4), (0, 4)):
        array = np.zeros(shape, np.uint8)
        refuses(PictureError, r"has shape \[.*expected \[H, W\]", fit_array, array, 8, "stretch")
    refuses(PictureError, "float32", fit_array, np.zeros((4, 4), np.float32), 8, "stretch")


@pytest.mark.parametrize("fit", FITS)
def test_arrays_and_files_give_the_same(fit: str) -> None:
    image = noise(50, 30)
    for picture in (image, image.convert("L")):
        from_array = fit_array(np.asarray(picture), 12, fit)
        np.testing.assert_array_equal(from_array, decode(encoded(picture, "PNG"), 12, fit))
        assert from_array.flags.c_contiguous
    strided = np.asarray(image)[::-1, ::2]
    whole = fit_array(np.ascontiguousarray(strided), 12, fit)
    np.testing.assert_array_equal(fit_array(strided, 12, fit), whole)


def test_to_display() -> None:
    shown = to_display(np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4))
    assert (shown.shape, shown.flags.c_contiguous) == ((2, 4, 3), True)
    assert shown[1, 3].tolist() == [7, 15, 23]
    for shape in ((2, 4, 3), (3, 4)):
        refuses(ValueError, r"expected \[3, H, W\] uint8", to_display, np.zeros(shape, np.uint8))
    refuses(ValueError, r"expected \[3, H, W\] uint8", to_display, np.zeros((3, 4, 4)))
