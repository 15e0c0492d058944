import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visual_search.catalog.images import PictureError
from visual_search.catalog.readers.crops import BoxError
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import ArraySource, FolderSource

GREY = ArraySource(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), ["a"])
COLOUR = ArraySource(np.arange(36, dtype=np.uint8).reshape(1, 3, 4, 3), ["a"])


def test_a_part_of_a_decoded_picture() -> None:
    grey = PixelCropSource(GREY).load("a" + pixel_box(1, 0, 3, 1))
    assert isinstance(grey, np.ndarray)
    assert grey.tolist() == [[[1, 1, 1], [2, 2, 2]]]
    source = PixelCropSource(COLOUR)
    colour = source.load("a" + pixel_box(3, 1, 9, 9))  # what sticks out is cut off
    assert isinstance(colour, np.ndarray)
    assert colour.tolist() == [[[21, 22, 23]], [[33, 34, 35]]]
    colour[:] = 0
    again = source.load("a" + pixel_box(3, 1, 4, 2))
    assert isinstance(again, np.ndarray)
    assert again.tolist() == [[[21, 22, 23]]]
    assert np.array_equal(source.load("a"), COLOUR.load("a"))


def test_boxes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    stored = Image.new("RGB", (4, 2), "white")
    stored.putpixel((0, 0), (255, 0, 0))  # upright: the corner at the top right
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.png", exif=exif)
    crop = PixelCropSource(FolderSource(tmp_path)).load("a.png" + pixel_box(1, 0, 2, 1))
    assert isinstance(crop, np.ndarray)
    assert crop.tolist() == [[[255, 0, 0]]]


def test_each_box_has_a_key_of_its_own() -> None:
    source = PixelCropSource(COLOUR)
    names = ["a", "a" + pixel_box(0, 0, 1, 1), "a" + pixel_box(0, 0, 1, 2)]
    keys = source.content_keys(names)
    assert len(set(keys)) == 3
    assert keys[0] == COLOUR.content_keys(["a"])[0]
    assert keys == source.content_keys(names)
    other = PixelCropSource(ArraySource(np.zeros((1, 3, 4, 3), np.uint8), ["a"]))
    assert set(keys).isdisjoint(other.content_keys(names))


def test_refusals(tmp_path: Path) -> None:
    for edges in ((-1, 0, 1, 1), (0, -1, 1, 1), (2, 0, 2, 1), (0, 3, 1, 2)):
        with pytest.raises(BoxError, match=r"left=.*; expected pixels from 0, left below right"):
            pixel_box(*edges)
    source = PixelCropSource(GREY)
    for name in ("a" + pixel_box(4, 0, 5, 1), "a" + pixel_box(0, 3, 1, 4), "a#xywh=pixel:0,0,0,1"):
        with pytest.raises(BoxError, match="cuts nothing out of 4 x 3 px"):
            source.load(name)
    name = "b" + pixel_box(0, 0, 1, 1)
    with pytest.raises(FileNotFoundError, match="no picture 'b'"):
        source.load(name)
    with pytest.raises(FileNotFoundError, match="no picture 'b'"):
        source.content_keys([name])
    with pytest.raises(FileNotFoundError, match="no picture 'a#xywh=percent"):
        source.load("a#xywh=percent:0,0,1,1")
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(PictureError, match="not a picture in a format"):
        PixelCropSource(FolderSource(tmp_path)).load("a.jpg" + pixel_box(0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"has a '\.\.'"):
        PixelCropSource(FolderSource(tmp_path)).load("../a.jpg" + pixel_box(0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"has a '\.\.'"):
        PixelCropSource(FolderSource(tmp_path)).content_keys(["../a" + pixel_box(0, 0, 1, 1)])


def test_the_whole_picture_is_given_as_it_is(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    assert PixelCropSource(FolderSource(tmp_path)).load("a.png") == file.getvalue()
