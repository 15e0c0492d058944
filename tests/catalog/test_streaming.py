"""Pictures as they are needed: the cache's pixels and keys, in order, the bad ones named."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.catalog.odd_pictures import encoded, noise
from tests.catalog.published_sets import drawn
from tests.catalog.shops import catalog_of, saved, zip_of
from visual_search.catalog.cache import cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.picture_facts import picture_facts
from visual_search.catalog.readers.crops import CropSource
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import ArraySource, FolderSource, ZipSource
from visual_search.catalog.streaming import ItemPictures, read_batches, read_pictures
from visual_search.catalog.synthetic import synthetic
from visual_search.catalog.thumbnails import thumbnails
from visual_search.runs.embedders import embedded

NAMES = [f"{number:02d}.png" for number in range(11)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = {name: encoded(noise(9, 12, seed)) for seed, name in enumerate(NAMES)}
    zip_of(tmp_path_factory.mktemp("zip") / "shop.zip", pictures)
    return saved(tmp_path_factory.mktemp("shop"), pictures)


def pictures_of(catalog: Catalog, **changes: Any) -> ItemPictures:
    asked: dict[str, Any] = {
        "size_px": 8, "fit": "stretch", "batch_size": 4, "num_threads": 2,
        "stops_at_bad_item": True,
    }  # fmt: skip
    return ItemPictures(catalog.source, catalog.name, **asked | changes)


@pytest.mark.parametrize("num_threads", [1, 3, None])
def test_pictures_come_in_order_as_the_cache_has_them(
    shop: Path, tmp_path: Path, num_threads: int | None
) -> None:
    names = NAMES * 30  # more than are decoded ahead
    catalog = catalog_of(FolderSource(shop), image=names)
    size: dict[str, Any] = {"size_px": 8, "fit": "letterbox"}
    cached = cache_pictures(catalog, cache_dir=tmp_path, on_bad_item="error", **size)
    found = list(read_pictures(catalog.source, names, num_threads=num_threads, **size))
    np.testing.assert_array_equal(
        np.stack([picture.pixels for picture in found]), cached.pictures[range(len(names))]
    )
    assert [picture.content_key for picture in found] == catalog.source.content_keys(names)


def test_batches_have_one_size_and_the_last_says_what_was_read(shop: Path) -> None:
    catalog = catalog_of(FolderSource(shop), image=NAMES)
    batches = list(read_batches(catalog.table, pictures_of(catalog)))
    assert [(len(batch.images), batch.num_kept) for batch in batches] == [(4, 4), (4, 4), (4, 3)]
    np.testing.assert_array_equal(batches[2].images[3], batches[2].images[2])
    assert [batch.items is None for batch in batches] == [True, True, False]
    assert batches[2].items is not None
    assert batches[2].items.table.equals(catalog.table)
    (few,) = read_batches(catalog.table.iloc[:3], pictures_of(catalog))
    assert (len(few.images), few.num_kept) == (3, 3)
    exact = list(read_batches(catalog.table.iloc[:8], pictures_of(catalog)))
    assert [batch.items is None for batch in exact] == [True, False]


@pytest.mark.parametrize("good", [0, 3, 4, 6])
def test_what_cannot_be_used_is_left_out_or_named_all_together(tmp_path: Path, good: int) -> None:
    contents = dict.fromkeys(NAMES[good:8], b"<html>")
    contents |= {name: encoded(noise(9, 12, 0)) for name in NAMES[:good]}
    catalog = catalog_of(FolderSource(saved(tmp_path, contents)), image=NAMES[::-1])
    batches = list(read_batches(catalog.table, pictures_of(catalog, stops_at_bad_item=False)))
    assert sum(batch.num_kept for batch in batches) == good
    items = batches[-1].items
    assert items is not None
    assert (len(items.table), len(items.content_keys)) == (good, good)
    reasons = {item.image: item.reason for item in items.refused}
    assert list(reasons) == NAMES[good:][::-1]
    assert "not a picture" in reasons["07.png"]
    assert reasons["10.png"].startswith("cannot be read: FileNotFoundError: no picture '10.png'")
    stopped = list(read_batches(catalog.table, pictures_of(catalog)))
    assert sum(batch.num_kept for batch in stopped) < 4  # what was not read yet goes nowhere
    assert stopped[-1].items is not None
    assert stopped[-1].items.refused == items.refused


def test_every_source_gives_the_key_of_what_it_loads(shop: Path) -> None:
    folder = FolderSource(shop)
    drawn = synthetic(1, ["Hats"], image_size_px=16)
    sources: list[tuple[Any, str]] = [
        (folder, NAMES[0]),
        (ZipSource(next(shop.parent.glob("zip*/shop.zip"))), NAMES[0]),
        (ArraySource(np.zeros((1, 4, 4), np.uint8), ["a"]), "a"),
        (CropSource(folder), f"{NAMES[0]}#0,0,0.5,1"),
        (CropSource(folder), NAMES[0]),
        (PixelCropSource(folder), NAMES[0] + pixel_box(0, 0, 3, 3)),
        (drawn.source, drawn.table["image"][0]),
    ]
    for source, name in sources:
        loaded, key = source.load_keyed(name)
        np.testing.assert_array_equal(loaded, source.load(name))
        assert [key] == source.content_keys([name]), source


class Far:
    """Pictures that are given when eight of them are waited for."""

    num_readers = 8

    def __init__(self) -> None:
        self.gate = threading.Barrier(8)

    def load(self, image: str) -> bytes:
        self.gate.wait(timeout=60)
        return drawn(int(image), 32)

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        return self.load(image), image

    def content_keys(self, images: Sequence[str]) -> list[str]:
        return list(images)


def test_who_reads_pictures_far_away_reads_several_at_once(tmp_path: Path) -> None:
    images = [str(number) for number in range(128)]
    catalog = catalog_of(Far(), image=images, item_id=images)
    cached = cache_pictures(
        catalog, size_px=8, fit="stretch", cache_dir=tmp_path, on_bad_item="error"
    )
    crops = CropSource(catalog.source)
    for source in (catalog.source, crops):
        read = list(read_pictures(source, images, size_px=8, fit="stretch"))
        assert [one.reason for one in read] == [""] * 128
        assert (read[9].pixels == cached.pictures[[9]][0]).all()
    assert len(thumbnails(catalog, range(128), 8)) == 128
    assert len(picture_facts(catalog, cached.pictures)) == 128
    assert embedded(lambda some: np.ones((len(some), 2)), catalog, np.arange(128)).shape == (128, 2)
