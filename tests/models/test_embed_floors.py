"""All floors in turn: to the bit what each gives alone, described once, nothing left behind."""

import os
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.test_floors import items, random_pictures
from visual_search.models import floor_items, principal_components
from visual_search.models.floors import (
    FLOORS,
    FloorEmbeddings,
    FloorItems,
    PictureRows,
    embed_floors,
)

NUM_GALLERY, NUM_QUERIES = 13, 5
NUM_ITEMS = NUM_GALLERY + NUM_QUERIES
GALLERY = items(random_pictures(NUM_GALLERY), "gallery")
QUERIES = items(random_pictures(NUM_QUERIES, seed=1), "query")


class Counting:
    """Pictures that count how often each row is asked for."""

    def __init__(self, pictures: PictureRows) -> None:
        self.pictures = pictures
        self.asked: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        self.asked.update(rows.tolist())
        return self.pictures[rows]


class Failing(Counting):
    """Pictures of which one cannot be read."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        if 7 in rows:
            raise RuntimeError("picture 7 is lost")
        return super().__getitem__(rows)


def open_files_in(folder: Path) -> set[str]:
    """Returns the files that this process holds in a folder, open or mapped, named or not."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list a process's files")
    opened = []
    for number in Path("/proc/self/fd").iterdir():
        try:
            opened.append(os.readlink(number))
        except FileNotFoundError:
            continue  # the one that lists the folder
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    found = [line for line in [*opened, *mapped] if str(folder) in line]
    return {line[line.index(str(folder)) :] for line in found}


def assert_same(found: FloorEmbeddings, expected: FloorEmbeddings) -> None:
    np.testing.assert_array_equal(found.gallery, expected.gallery, strict=True)
    np.testing.assert_array_equal(found.queries, expected.queries, strict=True)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_items, "BLOCK_BYTES", 3 * 3 * 64 * 64)  # three pictures


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("max_fit_items", [7, 100])
@pytest.mark.parametrize("order", [1, -1])
def test_each_is_to_the_bit_what_it_is_alone(
    order: int, max_fit_items: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_components, "MAX_FIT_ITEMS", max_fit_items)
    names = list(FLOORS)[::order]
    in_turn = embed_floors(names, GALLERY, QUERIES, seed=seed, scratch_dir=tmp_path)
    for name, (found_name, found) in zip(names, in_turn, strict=True):
        assert found_name == name
        assert_same(found, FLOORS[name].embed(GALLERY, QUERIES, seed, None))
        for embeddings in (found.gallery, found.queries):
            assert embeddings.flags.c_contiguous
            assert not embeddings.flags.writeable


@pytest.mark.parametrize("name", FLOORS)
def test_one_by_itself_and_twice(name: str, tmp_path: Path) -> None:
    expected = FLOORS[name].embed(GALLERY, QUERIES, 0, None)
    in_turn = list(embed_floors([name, name], GALLERY, QUERIES, scratch_dir=tmp_path))
    assert len(in_turn) == 2
    for _, found in in_turn:
        assert_same(found, expected)


def test_pictures_are_described_once_and_pca_is_fitted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = principal_components.principal_components

    def counted(described: NDArray[np.float64], most: int) -> NDArray[np.float64]:
        fitted.append((described.shape[1], most))
        return fit(described, most)

    monkeypatch.setattr(principal_components, "principal_components", counted)
    sides = Counting(GALLERY.pictures), Counting(QUERIES.pictures)
    gallery = FloorItems(GALLERY.item_ids, sides[0])
    queries = FloorItems(QUERIES.item_ids, sides[1])
    for _ in embed_floors(list(FLOORS), gallery, queries, scratch_dir=tmp_path):
        pass
    assert sorted(fitted) == [(2352, 256), (3072, 64)]
    for side in sides:
        num_described = {side.asked[row] for row in range(1, len(side))}
        assert num_described == {4}  # as histogram, two sizes of pixels, HOG; row 0: size, too


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in embed_floors(
        list(FLOORS),
        GALLERY,
        QUERIES,
        scratch_dir=tmp_path,
        on_progress=lambda done, total: calls.append((done, total)),
    ):
        pass
    done = [each for each, _ in calls]
    assert {total for _, total in calls} == {7 * NUM_ITEMS}  # random, 4 described, 2 projected
    assert done == sorted(set(done))
    assert done[-1] == 7 * NUM_ITEMS


def test_no_names_give_nothing(tmp_path: Path) -> None:
    assert not list(embed_floors([], GALLERY, QUERIES, scratch_dir=tmp_path))


# What is left behind.


def test_the_files_are_gone_at_the_end(tmp_path: Path) -> None:
    most = 0
    for _name, _found in embed_floors(list(FLOORS), GALLERY, QUERIES, scratch_dir=tmp_path):
        most = max(most, len(open_files_in(tmp_path)))
        assert not list(tmp_path.iterdir())
    del _found
    assert most == 2  # the gallery's descriptions and the queries', never of two kinds
    assert not open_files_in(tmp_path)


def test_the_files_are_gone_when_one_stops_early(tmp_path: Path) -> None:
    in_turn = embed_floors(["hog", "hog_pca_256"], GALLERY, QUERIES, scratch_dir=tmp_path)
    _, found = next(in_turn)
    in_turn.close()
    assert open_files_in(tmp_path)  # what one holds stays readable
    assert_same(found, FLOORS["hog"].embed(GALLERY, QUERIES, 0, None))
    del found
    assert not open_files_in(tmp_path)


def test_the_files_are_gone_after_an_error(tmp_path: Path) -> None:
    queries = FloorItems(GALLERY.item_ids, Failing(GALLERY.pictures))
    in_turn = embed_floors(["hog"], GALLERY, queries, scratch_dir=tmp_path)
    with pytest.raises(RuntimeError, match="picture 7 is lost"):
        next(in_turn)
    assert not list(tmp_path.iterdir())
    assert not open_files_in(tmp_path)


# Errors.


@pytest.mark.parametrize("name", ["hogg", "untrained"])
def test_an_unknown_name_is_refused_at_the_call(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"holds '{name}'; expected .*'random', .* correct it"):
        embed_floors(["hog", name], GALLERY, QUERIES, scratch_dir=tmp_path)


def test_a_missing_folder_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing, which is no folder; .* make it"):
        embed_floors(["hog"], GALLERY, QUERIES, scratch_dir=tmp_path / "missing")


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="descriptions of 13 pictures take"):
        next(embed_floors(["hog"], GALLERY, QUERIES, scratch_dir=tmp_path))


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    wrong = items(np.zeros((2, 3, 8, 8), np.float32))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected uint8"):
        next(embed_floors(["hog"], wrong, QUERIES, scratch_dir=tmp_path))
    wrong = items(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected \[n, 3, S, S\]"):
        next(embed_floors(["hog"], GALLERY, wrong, scratch_dir=tmp_path))
