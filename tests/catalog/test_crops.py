"""Parts of pictures, by boxes in fractions and by boxes in pixels."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.catalog.odd_pictures import encoded, noise
from tests.catalog.shops import catalog_of, refuses, saved
from visual_search.catalog.cache import cache_pictures
from visual_search.catalog.images import (
    PictureError,
    PictureLimits,
    decode,
    decode_whole,
    fit_array,
)
from visual_search.catalog.readers import crops
from visual_search.catalog.readers.crops import (
    Box,
    BoxError,
    CropSource,
    crop_name,
    split_crop_name,
)
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import ArraySource, FolderSource


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    pictures = {"a.png": encoded(noise(40, 30)), "b#1,2.png": encoded(noise(40, 30, seed=1))}
    return saved(tmp_path / "boards", pictures)


A, B = (np.asarray(noise(40, 30, seed)) for seed in (0, 1))

# ---- the box and its name


BOXES = [
    Box(0, 0, 1, 1),
    Box(0.1, 0.2, 0.30000000000000004, 1e-05),
    Box(2.3436546e-4, 0.67514825, 0.2881317, 0.323321),
    Box(-0.25, -1e-7, 1.00000006, 3),
]


@pytest.mark.parametrize("picture", ["a.jpg", "b#1,2.png", "c d/ü#0,0,1,1", "#", "line\nbreak.jpg"])
def test_a_name_gives_back_picture_and_box(picture: str) -> None:
    for box in BOXES:
        assert split_crop_name(crop_name(picture, box)) == (picture, box)


def test_equal_numbers_give_one_name_and_a_name_without_a_box_is_the_picture() -> None:
    assert crop_name("a", Box(-0.0, 0, 1, 1)) == crop_name("a", Box(0, 0.0, 1.0, True + 0))
    assert crop_name("a", Box(0, 2.5e-1, 1, 1)) == "a#0.0,0.25,1.0,1.0"
    for image in ("a.jpg", "a.jpg#", "a.jpg#0,0,1", "a#x,0,1,1", "a#nan,0,1,1"):
        assert split_crop_name(image) == (image, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0, 0, 1), r"0\.0,0\.0,0\.0,1\.0 has no area; expected a width"),
        ((0, 0, 1, -0.5), "has no area"),
        ((1, 0, 1, 1), "lies entirely outside the picture; expected fractions of it, not pixels"),
        ((0, -1, 1, 1), "lies entirely outside"),
        ((120, 30, 200, 300), "lies entirely outside"),
        ((float("nan"), 0, 1, 1), "is not finite"),
        ((0, 0, float("inf"), 1), "is not finite"),
        ((0, 10**400, 1, 1), "is not finite"),
    ],
)
def test_a_box_that_cuts_nothing_out_is_refused(values: tuple[Any, ...], message: str) -> None:
    refuses(BoxError, message, Box, *values)
    if all(abs(value) < 1000 for value in values):
        refuses(BoxError, message, split_crop_name, "a.jpg#{},{},{},{}".format(*values))


def test_a_box_of_something_else_is_refused() -> None:
    refuses(TypeError, "the box's width is '1'; expected a number", Box, 0, 0, "1", 1)
    refuses(TypeError, "the box's x is True", Box, True, 0, 1, 1)
    refuses(TypeError, "the box's right edge is None", Box.from_edges, 0, 0, None, 1)
    refuses(BoxError, "is not finite", Box.from_edges, 0.5, 0, 10**400, 1)
    refuses(BoxError, "has no area", Box.from_edges, 0.5, 0, 0.25, 1)
    for edges in ((-1, 0, 1, 1), (0, -1, 1, 1), (2, 0, 2, 1), (0, 3, 1, 2)):
        refuses(BoxError, r"left=.*; expected pixels from 0, left below right", pixel_box, *edges)


def test_pixels_are_those_of_pillow() -> None:
    rng = np.random.default_rng(0)
    image = noise(53, 37)
    pixels = np.asarray(image)
    for _ in range(60):
        x, y = rng.uniform(0, 0.7, 2)
        width, height = rng.uniform(0.1, 0.3, 2)
        edges = (x * 53, y * 37, (x + width) * 53, (y + height) * 37)
        left, top, right, bottom = Box(x, y, width, height).pixels(53, 37)
        np.testing.assert_array_equal(pixels[top:bottom, left:right], image.crop(edges))
    # what sticks out is cut off, and a pixel is left
    assert Box(-0.5, 0.5, 0.75, 7).pixels(100, 10) == (0, 5, 25, 10)
    assert Box(0.9999, 0, 1e-9, 1).pixels(100, 10) == (99, 0, 100, 10)
    assert Box(0.5, -1, 1e-9, 1 + 1e-9).pixels(100, 10) == (50, 0, 51, 1)
    assert Box(0.25, 0.25, 0.5, 0.5).pixels(1, 1) == (0, 0, 1, 1)


# ---- the source


def test_a_crop_is_the_part_of_the_picture(boards: Path) -> None:
    source = CropSource(FolderSource(boards))
    crop = source.load("a.png#0.25,0.5,0.5,0.9")
    assert (crop.dtype, crop.flags["C_CONTIGUOUS"]) == (np.uint8, True)
    np.testing.assert_array_equal(crop, A[15:30, 10:30])
    crop[:] = 0
    np.testing.assert_array_equal(source.load("b#1,2.png#0,0,0.5,1"), B[:, :20])
    np.testing.assert_array_equal(source.load("a.png#0,0,1,1"), A)
    pixels = PixelCropSource(FolderSource(boards))
    for one in (source, pixels):  # the whole picture is given as it is
        assert one.load("a.png") == (boards / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("kind", "box"), [(CropSource, "#0,0.25,1,0.25"), (PixelCropSource, pixel_box(0, 10, 30, 20))]
)
def test_boxes_are_of_upright_pictures(tmp_path: Path, kind: type[CropSource], box: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encoded(noise(40, 30), "JPEG", quality=95, exif=exif)
    source = kind(FolderSource(saved(tmp_path, {"a.jpg": data})))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape == (40, 30, 3)
    np.testing.assert_array_equal(source.load("a.jpg" + box), upright[10:20])


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 6, 8, 3)])
def test_crops_of_arrays(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    pictures = ArraySource(arrays, ["a", "b"])
    part = arrays[1, 3:, 4:]
    part = part if part.ndim == 3 else np.stack([part] * 3, axis=-1)
    boxes = {"#0.5,0.5,0.5,0.5": CropSource, pixel_box(4, 3, 99, 99): PixelCropSource}
    for box, kind in boxes.items():  # what sticks out is cut off
        source = kind(pictures)
        np.testing.assert_array_equal(source.load("b" + box), part)
        source.load("b" + box)[:] = 0
        np.testing.assert_array_equal(source.load("b" + box), part)
        np.testing.assert_array_equal(source.load("a"), arrays[0])
    for name in ("a" + pixel_box(8, 0, 9, 1), "a" + pixel_box(0, 6, 1, 7), "a#xywh=pixel:0,0,0,1"):
        refuses(BoxError, "cuts nothing out of 8 x 6 px", PixelCropSource(pictures).load, name)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were decoded."""
    sizes: list[int] = []
    whole = decode_whole
    monkeypatch.setattr(crops, "decode_whole", lambda data: sizes.append(len(data)) or whole(data))
    return sizes


def test_crops_of_one_board_in_a_row_decode_it_once(
    boards: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CropSource(FolderSource(boards))
    for x in (0.1, 0.2, 0.3):
        source.load(f"a.png#{x},0,0.5,1")
    assert len(decoded) == 1
    source.load("b#1,2.png#0,0,1,1")
    source.load("a.png#0,0,1,1")
    assert len(decoded) == 3, "one picture is remembered, not all"
    saved(boards, {"a.png": encoded(noise(40, 30, seed=7))})
    crop = source.load("a.png#0,0,0.5,1")
    np.testing.assert_array_equal(crop, np.asarray(noise(40, 30, seed=7))[:, :20])
    assert len(decoded) == 4, "a board that changes is decoded anew"
    monkeypatch.setattr(crops, "_MAX_REMEMBERED_BYTES", 40 * 30 * 3)
    for _ in range(2):
        source.load("b#1,2.png#0,0,0.5,1")
    assert len(decoded) == 6, "a huge one is not remembered"


def test_a_source_is_shared_by_threads_and_pickled(boards: Path) -> None:
    source = CropSource(FolderSource(boards))
    source.load("a.png#0,0,0.5,1")
    boxes = [f"#{x},0.1,0.4,0.5" for x in (0.0, 0.1, 0.2, 0.3)]
    names = [name + box for box in boxes for name in ("a.png", "b#1,2.png") * 8]
    alone = [source.load(name) for name in names]
    again = pickle.loads(pickle.dumps(source))
    assert repr(again) == repr(source)
    with ThreadPoolExecutor(8) as pool:
        for crop, expected in zip(pool.map(again.load, names), alone, strict=True):
            np.testing.assert_array_equal(crop, expected)


def test_keys_change_if_and_only_if_picture_or_box_do(boards: Path) -> None:
    source = CropSource(FolderSource(boards))
    names = ["a.png", "a.png#0,0,0.5,1", "a.png#0,0,0.5,0.9", "b#1,2.png#0,0,0.5,1"]
    before = source.content_keys(names)
    assert len(set(before)) == 4
    assert before[0] == FolderSource(boards).content_keys(["a.png"])[0]
    saved(boards, {"copy.png": (boards / "a.png").read_bytes()})
    assert source.content_keys(["copy.png#0.0,0,5e-1,1"]) == [before[1]]
    pixels = PixelCropSource(FolderSource(boards))
    named = ["a.png" + pixel_box(0, 0, 1, 1), "a.png" + pixel_box(0, 0, 1, 2)]
    keys = pixels.content_keys(["a.png", *named])
    assert len({*keys, *before}) == 6
    saved(boards, {"a.png": encoded(noise(40, 30, seed=7))})
    after = source.content_keys(names)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, False, True]
    assert set(keys).isdisjoint(pixels.content_keys(["a.png", *named]))


def test_a_board_is_hashed_once_for_all_its_crops() -> None:
    class Counting(ArraySource):
        asked: tuple[str, ...] = ()

        def content_keys(self, images: Sequence[str]) -> list[str]:
            self.asked += tuple(images)
            return super().content_keys(images)

    pictures = Counting(np.zeros((2, 4, 4), np.uint8), ["a", "b"])
    keys = CropSource(pictures).content_keys(["a#0,0,1,1", "b#0,0,1,1", "a#0,0,0.5,1"])
    assert (pictures.asked, len(keys)) == (("a", "b"), 3)


def test_what_cannot_be_loaded_is_named(boards: Path) -> None:
    saved(boards, {"page.jpg": "<html>gone</html>"})
    pixel = pixel_box(0, 0, 1, 1)
    for kind, box in ((CropSource, "#0,0,1,1"), (PixelCropSource, pixel)):
        source = kind(FolderSource(boards))
        for call in (source.load, lambda image, of=source: of.content_keys([image])):
            refuses(FileNotFoundError, r"no picture 'c\.png'", call, "c.png" + box)
            refuses(ValueError, r"has a '\.\.'", call, "../boards/a.png" + box)
        refuses(PictureError, "not a picture in a format", source.load, "page.jpg" + box)
    refuses(FileNotFoundError, "no picture 'a#xywh=percent", source.load, "a#xywh=percent:0,0,1,1")
    fractions = CropSource(FolderSource(boards))
    for call in (fractions.load, lambda image: fractions.content_keys([image])):
        refuses(BoxError, "has no area", call, "a.png#0,0,0,1")


def test_the_cache_holds_crops_and_names_the_bad_ones(boards: Path, tmp_path: Path) -> None:
    saved(boards, {"page.jpg": "<html>gone</html>"})
    images = ["a.png#0.25,0.5,0.5,0.5", "page.jpg#0,0,1,1", "a.png#0,0,0.5,1", "a.png#0,0,1,0"]
    catalog = catalog_of(CropSource(FolderSource(boards)), image=images)
    cached = cache_pictures(
        catalog, size_px=16, fit="stretch", cache_dir=tmp_path / "cache", on_bad_item="skip"
    )
    assert list(cached.catalog.table["image"]) == [images[0], images[2]]
    bad, empty = cached.catalog.refused
    assert (bad.image, empty.image) == (images[1], images[3])
    assert ("not a picture" in bad.reason, "has no area" in empty.reason) == (True, True)
    for row, part in enumerate([A[15:, 10:30], A[:, :20]]):
        np.testing.assert_array_equal(cached.pictures[[row]][0], fit_array(part, 16, "stretch"))


# ---- the whole picture


def test_whole_pictures_have_the_limits_and_errors_of_decode() -> None:
    data = encoded(noise(40, 30))
    limits = PictureLimits(max_bytes=len(data), max_pixels=1200)
    np.testing.assert_array_equal(decode_whole(data, limits), A)
    bomb = bytearray(data)
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    floats = encoded(Image.new("F", (3, 3)), "TIFF")
    plain = PictureLimits()
    for bad, limit in (
        (data, PictureLimits(max_bytes=len(data) - 1)),
        (data, PictureLimits(max_pixels=1199)),
        *((bad, plain) for bad in (bytes(bomb), data[:-200], b"", b"<html></html>", floats)),
    ):
        with pytest.raises(PictureError) as expected:
            decode(bad, size_px=8, fit="stretch", limits=limit)
        with pytest.raises(PictureError) as caught:
            decode_whole(bad, limit)
        assert str(caught.value) == str(expected.value)
