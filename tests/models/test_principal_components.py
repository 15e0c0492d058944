"""PCA of descriptions: against a decomposition, of copies, in part, and scaled to unit length."""

import numpy as np
import pytest

from tests.models.test_floors import (
    NUM_GALLERY,
    NUM_QUERIES,
    REDUCED,
    items,
    random_pictures,
)
from visual_search.models import floor_items, principal_components
from visual_search.models.descriptors import resized_pixels
from visual_search.models.floor_items import FloorEmbeddings, FloorItems
from visual_search.models.floors import FLOORS


@pytest.fixture
def gallery() -> FloorItems:
    return items(random_pictures(NUM_GALLERY), "gallery")


@pytest.fixture
def queries() -> FloorItems:
    return items(random_pictures(NUM_QUERIES, seed=1), "query")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_items, "BLOCK_BYTES", 2 * 3 * 64 * 64)  # two pictures


def test_pca_against_a_singular_value_decomposition(
    gallery: FloorItems, queries: FloorItems
) -> None:
    found = FLOORS["pixels_32_pca_64"].embed(gallery, queries, 0, None)
    pixels = resized_pixels(gallery.pictures[np.arange(NUM_GALLERY)], 32).astype(np.float64)
    asked = resized_pixels(queries.pictures[np.arange(NUM_QUERIES)], 32).astype(np.float64)
    mean = pixels.mean(axis=0)
    _, _, directions = np.linalg.svd(pixels - mean, full_matrices=False)
    directions = directions[: NUM_GALLERY - 1]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    directions *= np.sign(largest)[:, None]
    np.testing.assert_allclose(found.gallery, (pixels - mean) @ directions.T, atol=1e-4)
    np.testing.assert_allclose(found.queries, (asked - mean) @ directions.T, atol=1e-4)


def test_all_components_of_a_large_enough_gallery(queries: FloorItems) -> None:
    large = items(random_pictures(80, 32), "gallery")
    found = FLOORS["pixels_32_pca_64"].embed(large, queries, 0, None)
    assert found.dim == 64
    np.testing.assert_allclose(found.gallery.mean(axis=0), 0, atol=1e-4)
    assert (np.diff(found.gallery.var(axis=0)) <= 0).all()


def test_both_solvers_agree() -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 6)) * [9, 7, 5, 3, 2, 1]
    tall = principal_components.principal_components(numbers, 3)
    wide = principal_components.principal_components(np.pad(numbers, ((0, 0), (0, 60))), 3)
    np.testing.assert_allclose(wide[:, :6], tall, atol=1e-9)


def test_copies_in_the_gallery_lower_the_number_of_components(queries: FloorItems) -> None:
    copies = items(np.repeat(random_pictures(3), 4, axis=0), "gallery")
    for name in REDUCED:
        assert FLOORS[name].embed(copies, queries, 0, None).dim == 2


@pytest.mark.parametrize("num", [1, 3])
def test_a_gallery_of_one_picture_gives_zeros(num: int, queries: FloorItems) -> None:
    same = items(np.repeat(random_pictures(1), num, axis=0), "gallery")
    for name in REDUCED:
        found = FLOORS[name].embed(same, queries, 0, None)
        assert found.dim == 1
        assert not found.gallery.any()
        assert not found.queries.any()


def test_unit_length(gallery: FloorItems, queries: FloorItems) -> None:
    plain = FLOORS["hog_pca_256"].embed(gallery, queries, 0, None)
    found = FLOORS["hog_pca_256_unit"].embed(gallery, queries, 0, None)
    for embeddings, before in ((found.gallery, plain.gallery), (found.queries, plain.queries)):
        lengths = np.linalg.norm(before, axis=1, keepdims=True)
        np.testing.assert_allclose(embeddings * lengths, before, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_a_large_gallery_is_fitted_in_part(
    gallery: FloorItems, queries: FloorItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_components, "MAX_FIT_ITEMS", 7)
    floor = FLOORS["pixels_32_pca_64"]
    calls: list[tuple[int, int]] = []
    found = floor.embed(gallery, queries, 0, lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == [2, 4, 6, 7, 9, 11, 12, 14, 16, 17]
    assert found.dim == 6
    chosen, others = principal_components.fit_rows(gallery.item_ids, 0)
    assert sorted([*chosen, *others]) == list(range(NUM_GALLERY))
    part = FloorItems([gallery.item_ids[row] for row in chosen], gallery.pictures[chosen])
    alone = floor.embed(part, gallery, 0, None)
    np.testing.assert_allclose(found.gallery, alone.queries, atol=1e-5)
    assert not np.array_equal(principal_components.fit_rows(gallery.item_ids, 1)[0], chosen)
    assert (floor.embed(gallery, queries, 1, None).gallery != found.gallery).any()


def test_unit_length_of_lengths_beyond_float32() -> None:
    sides = np.float32([[3e30, 4e30]]), np.float32([[0, 0], [-3e-30, 4e-30]])
    found = principal_components.unit_length(FloorEmbeddings(*sides))
    np.testing.assert_allclose(found.gallery, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(found.queries, [[0, 0], [-0.6, 0.8]], rtol=1e-6)
    assert found.queries.dtype == np.float32
    assert sides[0][0, 0] == np.float32(3e30)  # what came in is left as it is
