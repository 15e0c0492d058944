"""One side of a search, described in passing or on the disk: the same rows at a time."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.test_floors import items, random_pictures
from visual_search.models import floor_items
from visual_search.models.descriptors import resized_pixels
from visual_search.models.floor_items import Described, FloorItems, InPassing, ItemCounter, OnDisk


def pixels(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return resized_pixels(pictures, 2)


def in_passing(progress: ItemCounter | None = None, num: int = 7) -> InPassing:
    return InPassing(items(random_pictures(num)), pixels, 12, progress or ItemCounter(0, None))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_items, "BLOCK_BYTES", 2 * 3 * 64 * 64)  # two pictures


def test_progress_adds_up() -> None:
    calls: list[tuple[int, int]] = []
    progress = ItemCounter(5, lambda done, total: calls.append((done, total)))
    progress.add(2)
    progress.add(3)
    assert calls == [(2, 5), (5, 5)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", [InPassing, OnDisk])
def test_blocks_give_the_rows_asked_for(kind: type, tmp_path: Path) -> None:
    calls: list[int] = []
    progress = ItemCounter(3, lambda done, total: calls.append(done))
    side: Described = in_passing(progress)
    if kind is OnDisk:
        side = OnDisk(in_passing(), tmp_path, progress)
    expected = pixels(random_pictures(7))
    found = list(side.blocks(np.array([4, 0, 6])))
    assert [rows.tolist() for rows, _ in found] == [[4, 0], [6]]
    np.testing.assert_array_equal(found[0][1], expected[[4, 0]], strict=True)
    np.testing.assert_array_equal(found[1][1], expected[[6]], strict=True)
    assert calls == [2, 3]
    np.testing.assert_array_equal(side.all_rows(), expected, strict=True)
    assert side.all_rows().flags.c_contiguous
    assert (side.dim, list(side.item_ids)) == (12, [f"item-{row}" for row in range(7)])
    assert not list(side.blocks(np.arange(0)))


def test_a_file_on_disk_has_no_name_and_cannot_be_changed(tmp_path: Path) -> None:
    side = OnDisk(in_passing(), tmp_path, ItemCounter(0, None))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="read-only"):
        side.all_rows()[0] = 0


def test_what_was_mapped_outlives_the_side(tmp_path: Path) -> None:
    mapped = OnDisk(in_passing(), tmp_path, ItemCounter(0, None)).all_rows()
    np.testing.assert_array_equal(mapped, pixels(random_pictures(7)))


# Errors.


def test_a_full_disk_is_said_before_anything_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = ItemCounter(7, lambda done, total: pytest.fail("described"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7 * 12 * 4 - 1))
    with pytest.raises(OSError, match=r"descriptions of 7 pictures take .*; make room") as error:
        OnDisk(in_passing(progress), tmp_path, progress)
    assert error.value.filename == str(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7 * 12 * 4))
    OnDisk(in_passing(), tmp_path, progress)


@pytest.mark.parametrize("kind", [InPassing, OnDisk])
def test_other_pictures_are_refused(kind: type, tmp_path: Path) -> None:
    def read(pictures: NDArray[np.uint8]) -> None:
        side = InPassing(items(pictures), pixels, 12, ItemCounter(0, None))
        if kind is OnDisk:
            OnDisk(side, tmp_path, ItemCounter(0, None))
        else:
            side.all_rows()

    with pytest.raises(TypeError, match="expected uint8"):
        read(np.zeros((2, 3, 8, 8), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected \[n, 3, S, S\]"):
        read(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("num_ids", [0, 2])
def test_items_need_an_id_each(num_ids: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_ids} item ids and 3 pictures; expected one id"):
        FloorItems(["a"] * num_ids, random_pictures(3))


def test_no_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 0 item ids and 0 pictures; .* at least one"):
        FloorItems([], random_pictures(0))
