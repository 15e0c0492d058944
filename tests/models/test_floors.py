"""The embeddings that learn nothing: by hand, by invariance, and against measured floors.

Each alone and all in turn, described once, nothing left behind.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visual_search.models import floor_items, principal_components
from visual_search.models.descriptors import resized_pixels
from visual_search.models.floor_items import FloorEmbeddings, FloorItems
from visual_search.models.floors import FLOORS, FloorModel, embed_floors

NUM_GALLERY, NUM_QUERIES = 12, 5
NUM_ITEMS = NUM_GALLERY + NUM_QUERIES
REDUCED = [name for name, floor in FLOORS.items() if floor.num_components]


def random_pictures(num: int, size_px: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    numbers = np.random.default_rng(seed)
    return numbers.integers(40, 200, (num, 3, size_px, size_px), dtype=np.uint8)


def items(pictures: NDArray[np.uint8], prefix: str = "item") -> FloorItems:
    return FloorItems([f"{prefix}-{row}" for row in range(len(pictures))], pictures)


GALLERY = items(random_pictures(NUM_GALLERY), "gallery")
QUERIES = items(random_pictures(NUM_QUERIES, seed=1), "query")


def embed(
    floor: FloorModel | str,
    gallery: FloorItems = GALLERY,
    queries: FloorItems = QUERIES,
    **settings: Any,
) -> FloorEmbeddings:
    """One floor by itself."""
    chosen = FLOORS[floor] if isinstance(floor, str) else floor
    with tempfile.TemporaryDirectory() as folder:
        found = dict(embed_floors([chosen], gallery, queries, scratch_dir=Path(folder), **settings))
        return found[chosen.name]


def assert_same(found: FloorEmbeddings, expected: FloorEmbeddings) -> None:
    np.testing.assert_array_equal(found.gallery, expected.gallery, strict=True)
    np.testing.assert_array_equal(found.queries, expected.queries, strict=True)


@pytest.fixture(params=FLOORS)
def floor(request: pytest.FixtureRequest) -> FloorModel:
    return FLOORS[request.param]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_items, "BLOCK_BYTES", 2 * 3 * 64 * 64)  # two pictures


class Calls(list[tuple[int, int]]):
    """What a progress was told, which only grows and ends at the total."""

    def tell(self, done: int, total: int) -> None:
        self.append((done, total))

    def check(self, total: int) -> None:
        assert self[-1] == (total, total)
        assert [done for done, _ in self] == sorted({done for done, _ in self})


class Counting:
    """Pictures that count how often each row is asked for, and how many at a time."""

    def __init__(self, pictures: NDArray[np.uint8], lost: int | None = None) -> None:
        self.pictures = pictures
        self.lost = lost
        self.asked: Counter[int] = Counter()
        self.most = 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        if self.lost in rows:
            raise RuntimeError(f"picture {self.lost} is lost")
        self.asked.update(rows.tolist())
        self.most = max(self.most, len(rows))
        return self.pictures[rows]


# One contract for all.


def test_names_and_definitions() -> None:
    assert list(FLOORS) == [
        *("random", "colour_histogram", "pixels_8", "pixels_32", "pixels_32_pca_64"),
        *("hog", "hog_pca_256", "hog_pca_256_unit"),
    ]
    for name, floor in FLOORS.items():
        assert floor.name == name
        assert floor.definition.endswith(".")
        assert floor.definition.count(". ") == 0


def test_shapes_dtype_and_no_global_state(floor: FloorModel) -> None:
    pictures = np.array(GALLERY.pictures[np.arange(NUM_GALLERY)])
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    found = embed(floor, seed=3)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    assert_same(embed(floor, seed=3), found)
    np.testing.assert_array_equal(GALLERY.pictures[np.arange(NUM_GALLERY)], pictures)
    dim = NUM_GALLERY - 1 if floor.name in REDUCED else floor.dim
    assert (found.gallery.shape, found.queries.shape) == ((NUM_GALLERY, dim), (NUM_QUERIES, dim))
    assert found.dim == dim
    for embeddings in (found.gallery, found.queries):
        assert embeddings.dtype == np.float32
        assert embeddings.flags.c_contiguous
        assert np.isfinite(embeddings).all()
    assert len(np.unique(found.gallery, axis=0)) == NUM_GALLERY


def test_an_embedding_depends_on_its_item_and_the_gallery_alone(floor: FloorModel) -> None:
    found = embed(floor)
    others = items(np.full((2, 3, 64, 64), 255, np.uint8), "other")
    np.testing.assert_array_equal(embed(floor, queries=others).gallery, found.gallery, strict=True)
    both = embed(floor, queries=GALLERY)
    np.testing.assert_allclose(both.queries, both.gallery, atol=1e-4)
    order = np.random.default_rng(0).permutation(NUM_GALLERY)
    shuffled = FloorItems([GALLERY.item_ids[row] for row in order], GALLERY.pictures[order])
    again = embed(floor, shuffled)
    np.testing.assert_allclose(again.gallery, found.gallery[order], atol=1e-4)  # signs are fixed
    np.testing.assert_allclose(again.queries, found.queries, atol=1e-4)


def test_blocks_and_progress(floor: FloorModel, request: pytest.FixtureRequest) -> None:
    at_once = embed(floor)
    request.getfixturevalue("small_blocks")
    calls, counting = Calls(), Counting(random_pictures(NUM_GALLERY))
    in_blocks = embed(floor, FloorItems(GALLERY.item_ids, counting), on_progress=calls.tell)
    assert counting.most == (2 if floor.describe else 0)
    calls.check((2 if floor.name in REDUCED else 1) * NUM_ITEMS)  # described, and projected
    np.testing.assert_allclose(in_blocks.gallery, at_once.gallery, atol=1e-5)
    np.testing.assert_allclose(in_blocks.queries, at_once.queries, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_pictures_of_any_size_and_no_other_kind(floor: FloorModel) -> None:
    for size_px in (1, 28, 100):
        sides = items(random_pictures(4, size_px)), items(random_pictures(3, size_px, seed=1))
        found = embed(floor, *sides)
        assert np.isfinite(found.gallery).all()
        assert np.isfinite(found.queries).all()
    for side in ("gallery", "queries") if floor.describe else ():
        with pytest.raises(TypeError, match="float32; expected uint8"):
            embed(floor, **{side: items(np.zeros((2, 3, 8, 8), np.float32))})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"expected \[n, 3, S, S\]"):
            embed(floor, **{side: items(np.zeros((2, 8, 8, 3), np.uint8))})


# Principal components.


def test_pca_against_a_singular_value_decomposition() -> None:
    found = embed("pixels_32_pca_64")
    pixels = resized_pixels(GALLERY.pictures[np.arange(NUM_GALLERY)], 32).astype(np.float64)
    asked = resized_pixels(QUERIES.pictures[np.arange(NUM_QUERIES)], 32).astype(np.float64)
    mean = pixels.mean(axis=0)
    _, _, directions = np.linalg.svd(pixels - mean, full_matrices=False)
    directions = directions[: NUM_GALLERY - 1]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    directions *= np.sign(largest)[:, None]
    np.testing.assert_allclose(found.gallery, (pixels - mean) @ directions.T, atol=1e-4)
    np.testing.assert_allclose(found.queries, (asked - mean) @ directions.T, atol=1e-4)

    whole = embed("pixels_32_pca_64", items(random_pictures(80, 32), "gallery"))
    assert whole.dim == 64  # of a large enough gallery
    np.testing.assert_allclose(whole.gallery.mean(axis=0), 0, atol=1e-4)
    assert (np.diff(whole.gallery.var(axis=0)) <= 0).all()
    numbers = np.random.default_rng(0).normal(size=(40, 6)) * [9, 7, 5, 3, 2, 1]
    tall = principal_components.principal_components(numbers, 3)
    wide = principal_components.principal_components(np.pad(numbers, ((0, 0), (0, 60))), 3)
    np.testing.assert_allclose(wide[:, :6], tall, atol=1e-9)  # both solvers agree


@pytest.mark.parametrize("name", REDUCED)
def test_copies_in_the_gallery_lower_the_number_of_components(name: str) -> None:
    assert embed(name, items(np.repeat(random_pictures(3), 4, axis=0))).dim == 2
    for num in (1, 3):
        found = embed(name, items(np.repeat(random_pictures(1), num, axis=0)))
        assert found.dim == 1
        assert not found.gallery.any()
        assert not found.queries.any()


def test_unit_length() -> None:
    plain, found = embed("hog_pca_256"), embed("hog_pca_256_unit")
    for embeddings, before in ((found.gallery, plain.gallery), (found.queries, plain.queries)):
        lengths = np.linalg.norm(before, axis=1, keepdims=True)
        np.testing.assert_allclose(embeddings * lengths, before, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    sides = np.float32([[3e30, 4e30]]), np.float32([[0, 0], [-3e-30, 4e-30]])
    beyond = principal_components.unit_length(FloorEmbeddings(*sides))
    np.testing.assert_allclose(beyond.gallery, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(beyond.queries, [[0, 0], [-0.6, 0.8]], rtol=1e-6)
    assert beyond.queries.dtype == np.float32
    assert sides[0][0, 0] == np.float32(3e30)  # what came in is left as it is


@pytest.mark.usefixtures("small_blocks")
def test_a_large_gallery_is_fitted_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal_components, "MAX_FIT_ITEMS", 7)
    found = embed("pixels_32_pca_64")
    assert found.dim == 6
    chosen, others = principal_components.fit_rows(GALLERY.item_ids, 0)
    assert sorted([*chosen, *others]) == list(range(NUM_GALLERY))
    part = FloorItems([GALLERY.item_ids[row] for row in chosen], GALLERY.pictures[chosen])
    alone = embed("pixels_32_pca_64", part, GALLERY)
    np.testing.assert_allclose(found.gallery, alone.queries, atol=1e-5)
    assert not np.array_equal(principal_components.fit_rows(GALLERY.item_ids, 1)[0], chosen)
    assert (embed("pixels_32_pca_64", seed=1).gallery != found.gallery).any()


# Several in turn.


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("order", "max_fit_items", "seed"), [(1, 7, 0), (-1, 100, 3)])
def test_each_is_to_the_bit_what_it_is_alone(
    order: int, max_fit_items: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_components, "MAX_FIT_ITEMS", max_fit_items)
    floors = [each for each in list(FLOORS.values())[::order] for _ in range(2)]  # also twice
    in_turn = embed_floors(floors, GALLERY, QUERIES, seed=seed, scratch_dir=tmp_path)
    for floor, (name, found) in zip(floors, in_turn, strict=True):
        assert name == floor.name
        assert_same(found, embed(floor, seed=seed))
        assert not found.gallery.flags.writeable
        assert not found.queries.flags.writeable
    assert not list(embed_floors([], GALLERY, QUERIES, scratch_dir=tmp_path))


@pytest.mark.usefixtures("small_blocks")
def test_pictures_are_described_once_and_pca_is_fitted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Mock(wraps=principal_components.principal_components)
    monkeypatch.setattr(principal_components, "principal_components", fit)
    counted = [Counting(np.asarray(side.pictures)) for side in (GALLERY, QUERIES)]
    sides = [FloorItems(GALLERY.item_ids, counted[0]), FloorItems(QUERIES.item_ids, counted[1])]
    calls, held = Calls(), 0
    floors = list(FLOORS.values())
    for _ in embed_floors(floors, *sides, scratch_dir=tmp_path, on_progress=calls.tell):
        held = max(held, len(files_in(tmp_path)))
        assert not list(tmp_path.iterdir())  # they have no name
    assert held == 2  # the gallery's descriptions and the queries', never of two kinds
    fits = sorted((described.shape[1], most) for (described, most), _ in fit.call_args_list)
    assert fits == [(2352, 256), (3072, 64)]
    for pictures in counted:
        # row 0: for its size, too
        assert {pictures.asked[row] for row in range(1, len(pictures))} == {4}
    calls.check(7 * NUM_ITEMS)  # random, 4 described, 2 projected


# What is left behind, and errors.


def files_in(folder: Path) -> set[str]:
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


def test_the_files_are_gone_when_nobody_holds_what_came_from_them(tmp_path: Path) -> None:
    floors = [FLOORS["hog"], FLOORS["hog_pca_256"]]
    in_turn = embed_floors(floors, GALLERY, QUERIES, scratch_dir=tmp_path)
    _, found = next(in_turn)
    in_turn.close()
    assert files_in(tmp_path)  # what one holds stays readable
    assert_same(found, embed("hog"))
    del found
    assert not files_in(tmp_path)
    lost = FloorItems(GALLERY.item_ids, Counting(random_pictures(NUM_GALLERY), lost=7))
    with pytest.raises(RuntimeError, match="picture 7 is lost"):
        next(embed_floors(floors, GALLERY, lost, scratch_dir=tmp_path))
    assert not list(tmp_path.iterdir())
    assert not files_in(tmp_path)


def test_a_place_that_does_not_do_is_refused_before_anything_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floors, counting = [FLOORS["hog"]], Counting(random_pictures(NUM_GALLERY))
    gallery = FloorItems(GALLERY.item_ids, counting)
    with pytest.raises(FileNotFoundError, match="missing"):
        next(embed_floors(floors, gallery, QUERIES, scratch_dir=tmp_path / "missing"))
    needed = NUM_GALLERY * 2352 * 4
    disk = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    with pytest.raises(OSError, match=f"{NUM_GALLERY} pictures") as error:
        next(embed_floors(floors, gallery, QUERIES, scratch_dir=tmp_path))
    assert error.value.filename == str(tmp_path)
    assert set(counting.asked) == {0}  # for its size
    disk.free = needed
    assert next(embed_floors(floors, gallery, QUERIES, scratch_dir=tmp_path))


@pytest.mark.parametrize(("dim", "dtype"), [(8, np.float32), (7, np.float64)])
def test_descriptions_of_another_kind_are_refused(dim: int, dtype: type) -> None:
    floor = FloorModel("own", "own", dim, "Own.", lambda side: np.zeros((len(side), 7), dtype))
    with pytest.raises(ValueError, match=rf"{dtype.__name__} of shape \(12, 7\).*\(12, {dim}\)"):
        embed(floor)


@pytest.mark.parametrize(("num_ids", "num_pictures"), [(0, 3), (2, 3), (0, 0)])
def test_items_need_an_id_each_and_one_at_least(num_ids: int, num_pictures: int) -> None:
    with pytest.raises(ValueError, match=f"{num_ids} item ids and {num_pictures} pictures"):
        FloorItems(["a"] * num_ids, random_pictures(num_pictures))
