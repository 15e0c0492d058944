"""Small JPEGs: whole pictures on white, in the catalogue's order."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import catalog_of, refuses
from visual_search.catalog.images import PictureError, PictureLimits
from visual_search.catalog.readers.sources import ArraySource
from visual_search.catalog.thumbnails import thumbnail, thumbnails


def pixels(jpeg: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


def test_a_wide_picture_lies_whole_on_white() -> None:
    black = np.zeros((10, 40, 3), np.uint8)
    small = pixels(thumbnail(black, 32))
    assert small.shape == (32, 32, 3)
    assert small[:8].min() > 240
    assert small[14:18].max() < 15
    file = encoded(Image.fromarray(black))
    np.testing.assert_array_equal(pixels(thumbnail(file, 32)), small)


def test_a_catalogue_has_one_an_item_in_the_order_asked_for() -> None:
    arrays = np.stack([np.full((4, 4, 3), 3 * n, np.uint8) for n in range(80)])
    names = [f"p{n}" for n in range(80)]
    catalog = catalog_of(ArraySource(arrays, names), image=names)
    rows = np.arange(79, -1, -1)
    told: list[Any] = []
    made = thumbnails(catalog, rows, 8, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose([pixels(jpeg).mean() for jpeg in made], 3 * rows, atol=2)
    assert told == [(64, 80), (80, 80)]
    assert thumbnails(catalog, rows[:2], 8) == made[:2]


def test_what_is_no_picture_or_too_large_is_refused() -> None:
    refuses(PictureError, "not a picture", thumbnail, b"<html>", 8)
    file = encoded(Image.new("RGB", (20, 20)))
    limits = PictureLimits(max_pixels=100)
    refuses(PictureError, "400 pixels; at most 100", thumbnail, file, 8, limits)
    refuses(ValueError, "size_px", thumbnail, np.zeros((4, 4, 3), np.uint8), 0)
