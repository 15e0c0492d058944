from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.catalog.odd_pictures import encoded, noise
from visual_search.catalog.cache import cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.images import (
    PictureError,
    PictureLimits,
    decode,
    decode_whole,
    fit_array,
)
from visual_search.catalog.readers import conclude, crops
from visual_search.catalog.readers.crops import (
    Box,
    BoxError,
    CropSource,
    crop_name,
    split_crop_name,
)
from visual_search.catalog.readers.sources import ArraySource, FolderSource


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    root = tmp_path / "boards"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(noise(40, 30)))
    (root / "b#1,2.png").write_bytes(encoded(noise(40, 30, seed=1)))
    return root


# ---- the box and its name


BOXES = [
    Box(0, 0, 1, 1),
    Box(0.1, 0.2, 0.30000000000000004, 1e-05),
    Box(2.3436546e-4, 0.67514825, 0.2881317, 0.323321),
    Box(-0.25, -1e-7, 1.00000006, 3),
]


@pytest.mark.parametrize("picture", ["a.jpg", "b#1,2.png", "c d/ü#0,0,1,1", "#", "line\nbreak.jpg"])
@pytest.mark.parametrize("box", BOXES)
def test_a_name_gives_back_picture_and_box(picture: str, box: Box) -> None:
    assert split_crop_name(crop_name(picture, box)) == (picture, box)


def test_numbers_that_are_equal_give_one_name() -> None:
    assert crop_name("a", Box(-0.0, 0, 1, 1)) == crop_name("a", Box(0, 0.0, 1.0, True + 0))
    assert crop_name("a", Box(0, 2.5e-1, 1, 1)) == "a#0.0,0.25,1.0,1.0"


@pytest.mark.parametrize("image", ["a.jpg", "a.jpg#", "a.jpg#0,0,1", "a#x,0,1,1", "a#nan,0,1,1"])
def test_a_name_without_a_box_is_the_picture(image: str) -> None:
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
def test_a_box_that_cuts_nothing_out_is_refused(
    values: tuple[float, float, float, float], message: str
) -> None:
    with pytest.raises(BoxError, match=message):
        Box(*values)
    x, y, width, height = values
    if all(abs(value) < 1000 for value in values):
        with pytest.raises(BoxError, match=message):
            split_crop_name(f"a.jpg#{x},{y},{width},{height}")


def test_a_box_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="the box's width is '1'; expected a number"):
        Box(0, 0, "1", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the box's x is True"):
        Box(True, 0, 1, 1)
    with pytest.raises(TypeError, match="the box's right edge is None"):
        Box.from_edges(0, 0, None, 1)  # type: ignore[arg-type]
    with pytest.raises(BoxError, match="is not finite"):
        Box.from_edges(0.5, 0, 10**400, 1)
    with pytest.raises(BoxError, match="has no area"):
        Box.from_edges(0.5, 0, 0.25, 1)


def test_pixels_are_those_of_pillow() -> None:
    rng = np.random.default_rng(0)
    image = noise(53, 37)
    pixels = np.asarray(image)
    for _ in range(200):
        x, y = rng.uniform(0, 0.7, 2)
        width, height = rng.uniform(0.1, 0.3, 2)
        edges = (x * 53, y * 37, (x + width) * 53, (y + height) * 37)
        left, top, right, bottom = Box(x, y, width, height).pixels(53, 37)
        np.testing.assert_array_equal(pixels[top:bottom, left:right], image.crop(edges))


def test_what_sticks_out_is_cut_off_and_a_pixel_is_left() -> None:
    assert Box(-0.5, 0.5, 0.75, 7).pixels(100, 10) == (0, 5, 25, 10)
    assert Box(0.9999, 0, 1e-9, 1).pixels(100, 10) == (99, 0, 100, 10)
    assert Box(0.5, -1, 1e-9, 1 + 1e-9).pixels(100, 10) == (50, 0, 51, 1)
    assert Box(0.25, 0.25, 0.5, 0.5).pixels(1, 1) == (0, 0, 1, 1)


# ---- the source


def test_a_crop_is_the_part_of_the_picture(boards: Path) -> None:
    source = CropSource(FolderSource(boards))
    crop = source.load("a.png#0.25,0.5,0.5,0.9")
    assert isinstance(crop, np.ndarray)
    assert (crop.dtype, crop.flags["C_CONTIGUOUS"]) == (np.uint8, True)
    np.testing.assert_array_equal(crop, np.asarray(noise(40, 30))[15:30, 10:30])
    crop[:] = 0
    np.testing.assert_array_equal(
        source.load("b#1,2.png#0,0,0.5,1"), np.asarray(noise(40, 30, seed=1))[:, :20]
    )
    np.testing.assert_array_equal(source.load("a.png#0,0,1,1"), np.asarray(noise(40, 30)))
    assert source.load("a.png") == (boards / "a.png").read_bytes()


def test_the_box_is_one_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (tmp_path / "a.jpg").write_bytes(encoded(noise(40, 30), "JPEG", quality=95, exif=exif))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
    assert upright.shape == (40, 30, 3)
    crop = CropSource(FolderSource(tmp_path)).load("a.jpg#0,0.25,1,0.25")
    np.testing.assert_array_equal(crop, upright[10:20])


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 6, 8, 3)])
def test_crops_of_arrays(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    source = CropSource(ArraySource(arrays, ["a", "b"]))
    crop = source.load("b#0.5,0.5,0.5,0.5")
    part = arrays[1, 3:, 4:]
    np.testing.assert_array_equal(crop, part if part.ndim == 3 else np.stack([part] * 3, axis=-1))
    np.testing.assert_array_equal(source.load("a"), arrays[0])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were decoded."""
    sizes: list[int] = []

    def counted(data: bytes) -> object:
        sizes.append(len(data))
        return decode_whole(data)

    monkeypatch.setattr(crops, "decode_whole", counted)
    return sizes


def test_crops_of_one_board_in_a_row_decode_it_once(boards: Path, decoded: list[int]) -> None:
    source = CropSource(FolderSource(boards))
    for x in (0.1, 0.2, 0.3):
        source.load(f"a.png#{x},0,0.5,1")
    assert len(decoded) == 1
    source.load("b#1,2.png#0,0,1,1")
    source.load("a.png#0,0,1,1")
    assert len(decoded) == 3, "one picture is remembered, not all"


def test_a_board_that_changes_is_decoded_anew(boards: Path, decoded: list[int]) -> None:
    source = CropSource(FolderSource(boards))
    source.load("a.png#0,0,0.5,1")
    (boards / "a.png").write_bytes(encoded(noise(40, 30, seed=7)))
    crop = source.load("a.png#0,0,0.5,1")
    np.testing.assert_array_equal(crop, np.asarray(noise(40, 30, seed=7))[:, :20])
    assert len(decoded) == 2


def test_a_huge_board_is_not_remembered(
    boards: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "_MAX_REMEMBERED_BYTES", 40 * 30 * 3)
    source = CropSource(FolderSource(boards))
    for _ in range(2):
        source.load("a.png#0,0,0.5,1")
    assert len(decoded) == 2


def test_a_source_is_shared_by_threads_and_pickled(boards: Path) -> None:
    source = CropSource(FolderSource(boards))
    source.load("a.png#0,0,0.5,1")
    names = [
        f"{name}#{x},0.1,0.4,0.5"
        for x in (0.0, 0.1, 0.2, 0.3)
        for name in ("a.png", "b#1,2.png") * 8
    ]
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
    (boards / "copy.png").write_bytes((boards / "a.png").read_bytes())
    assert source.content_keys(["copy.png#0.0,0,5e-1,1"]) == [before[1]]
    (boards / "a.png").write_bytes(encoded(noise(40, 30, seed=7)))
    assert [a == b for a, b in zip(before, source.content_keys(names), strict=True)] == [
        False,
        False,
        False,
        True,
    ]


def test_a_board_is_hashed_once_for_all_its_crops() -> None:
    class Counting(ArraySource):
        asked: tuple[str, ...] = ()

        def content_keys(self, images: Sequence[str]) -> list[str]:
            self.asked += tuple(images)
            return super().content_keys(images)

    pictures = Counting(np.zeros((2, 4, 4), np.uint8), ["a", "b"])
    keys = CropSource(pictures).content_keys(["a#0,0,1,1", "b#0,0,1,1", "a#0,0,0.5,1"])
    assert pictures.asked == ("a", "b")
    assert len(keys) == 3


def test_what_cannot_be_loaded_is_named(boards: Path) -> None:
    (boards / "page.jpg").write_bytes(b"<html>gone</html>")
    source = CropSource(FolderSource(boards))
    for call in (source.load, lambda image: source.content_keys([image])):
        with pytest.raises(FileNotFoundError, match=r"no picture 'c\.png'"):
            call("c.png#0,0,1,1")
        with pytest.raises(ValueError, match=r"has a '\.\.'"):
            call("../boards/a.png#0,0,1,1")
        with pytest.raises(BoxError, match="has no area"):
            call("a.png#0,0,0,1")
    with pytest.raises(PictureError, match="not a picture in a format that is read here"):
        source.load("page.jpg#0,0,1,1")


def test_the_cache_holds_crops_and_names_the_bad_ones(boards: Path, tmp_path: Path) -> None:
    (boards / "page.jpg").write_bytes(b"<html>gone</html>")
    images = ["a.png#0.25,0.5,0.5,0.5", "page.jpg#0,0,1,1", "a.png#0,0,0.5,1", "a.png#0,0,1,0"]
    columns = {
        "item_id": list("1234"),
        "image": images,
        "category": ["Hats"] * 4,
        "group": list("1234"),
        "split": [""] * 4,
    }
    source = CropSource(FolderSource(boards))
    catalog: Catalog = conclude("boards", columns, source, (), on_bad_item="error", origin="here")
    cached = cache_pictures(
        catalog, size_px=16, fit="stretch", cache_dir=tmp_path / "cache", on_bad_item="skip"
    )
    assert list(cached.catalog.table["image"]) == [images[0], images[2]]
    reasons = {item.item_id: item.reason for item in cached.catalog.refused}
    assert "not a picture" in reasons["2"]
    assert "has no area" in reasons["4"]
    pixels = np.asarray(noise(40, 30))
    for row, part in enumerate([pixels[15:, 10:30], pixels[:, :20]]):
        np.testing.assert_array_equal(cached.pictures[[row]][0], fit_array(part, 16, "stretch"))


# ---- the whole picture


def test_a_whole_picture_is_turned_and_not_squeezed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(noise(20, 10), "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_whole(data), np.asarray(expected))


def test_whole_pictures_have_the_limits_and_errors_of_decode() -> None:
    data = encoded(noise(40, 30))
    limits = PictureLimits(max_bytes=len(data), max_pixels=1200)
    assert decode_whole(data, limits).shape == (30, 40, 3)
    bomb = bytearray(data)
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    floats = encoded(Image.new("F", (3, 3)), "TIFF")
    for bad, limit in (
        (data, PictureLimits(max_bytes=len(data) - 1)),
        (data, PictureLimits(max_pixels=1199)),
        (bytes(bomb), PictureLimits()),
        (data[:-200], PictureLimits()),
        (b"", PictureLimits()),
        (b"<html></html>", PictureLimits()),
        (floats, PictureLimits()),
    ):
        with pytest.raises(PictureError) as expected:
            decode(bad, size_px=8, fit="stretch", limits=limit)
        with pytest.raises(PictureError) as caught:
            decode_whole(bad, limit)
        assert str(caught.value) == str(expected.value)
