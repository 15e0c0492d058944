"""The embeddings that learn nothing: by hand, by invariance, and against measured floors."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visual_search.models import floor_items
from visual_search.models.floors import FLOORS, UNTRAINED, FloorItems, FloorModel, untrained

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
CROPS = SHARED / "datasets" / "complete-the-look-crops.zip"

NUM_GALLERY = 12
NUM_QUERIES = 5
REDUCED = ("pixels_32_pca_64", "hog_pca_256", "hog_pca_256_unit")


def random_pictures(num: int, size_px: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    numbers = np.random.default_rng(seed)
    return numbers.integers(40, 200, (num, 3, size_px, size_px), dtype=np.uint8)


def items(pictures: NDArray[np.uint8], prefix: str = "item") -> FloorItems:
    return FloorItems([f"{prefix}-{row}" for row in range(len(pictures))], pictures)


def mean_pixels(network: torch.nn.Module, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    assert not network.training
    assert torch.is_inference_mode_enabled()
    found: NDArray[np.float32] = network(torch.from_numpy(pictures).float().mean((2, 3))).numpy()
    return found


def make_untrained() -> FloorModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Dropout(0.5))
    return untrained(network, mean_pixels, dim=7)


ALL = {**FLOORS, UNTRAINED: make_untrained()}


@pytest.fixture
def gallery() -> FloorItems:
    return items(random_pictures(NUM_GALLERY), "gallery")


@pytest.fixture
def queries() -> FloorItems:
    return items(random_pictures(NUM_QUERIES, seed=1), "query")


@pytest.fixture(params=ALL)
def floor(request: pytest.FixtureRequest) -> FloorModel:
    return ALL[request.param]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_items, "BLOCK_BYTES", 2 * 3 * 64 * 64)  # two pictures


# One contract for all.


def test_the_table_names_the_floors_that_are_asked_for() -> None:
    assert [(name, floor.title, floor.dim) for name, floor in ALL.items()] == [
        ("random", "random", 64),
        ("colour_histogram", "colour histogram", 48),
        ("pixels_8", "pixels 8 x 8", 192),
        ("pixels_32", "pixels 32 x 32", 3072),
        ("pixels_32_pca_64", "PCA-64 of pixels", 64),
        ("hog", "HOG", 2352),
        ("hog_pca_256", "HOG + PCA-256", 256),
        ("hog_pca_256_unit", "HOG + PCA-256 + unit length", 256),
        ("untrained", "own network, untrained", 7),
    ]
    for name, floor in ALL.items():
        assert floor.name == name
        assert floor.definition.endswith(".")
        assert floor.definition.count(". ") == 0


def test_shapes_and_dtype(floor: FloorModel, gallery: FloorItems, queries: FloorItems) -> None:
    found = floor.embed(gallery, queries, 0, None)
    dim = NUM_GALLERY - 1 if floor.name in REDUCED else floor.dim
    assert found.dim == dim
    assert found.gallery.shape == (NUM_GALLERY, dim)
    assert found.queries.shape == (NUM_QUERIES, dim)
    for embeddings in (found.gallery, found.queries):
        assert embeddings.dtype == np.float32
        assert embeddings.flags.c_contiguous
        assert np.isfinite(embeddings).all()
    assert len(np.unique(found.gallery, axis=0)) == NUM_GALLERY


def test_the_same_twice_and_no_global_state(
    floor: FloorModel, gallery: FloorItems, queries: FloorItems
) -> None:
    pictures = np.array(gallery.pictures[np.arange(NUM_GALLERY)])
    np.random.seed(0)  # noqa: NPY002 - the state that must not be touched
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = floor.embed(gallery, queries, 3, None)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    second = floor.embed(gallery, queries, 3, None)
    np.testing.assert_array_equal(first.gallery, second.gallery)
    np.testing.assert_array_equal(first.queries, second.queries)
    np.testing.assert_array_equal(gallery.pictures[np.arange(NUM_GALLERY)], pictures)


def test_queries_do_not_change_the_gallery(
    floor: FloorModel, gallery: FloorItems, queries: FloorItems
) -> None:
    others = items(np.full((2, 3, 64, 64), 255, np.uint8), "other")
    found = floor.embed(gallery, queries, 0, None)
    np.testing.assert_array_equal(
        floor.embed(gallery, others, 0, None).gallery, found.gallery, strict=True
    )


def test_an_item_is_embedded_alike_on_both_sides(floor: FloorModel, gallery: FloorItems) -> None:
    found = floor.embed(gallery, gallery, 0, None)
    np.testing.assert_allclose(found.queries, found.gallery, atol=1e-4)


def test_the_order_of_the_gallery_does_not_matter(
    floor: FloorModel, gallery: FloorItems, queries: FloorItems
) -> None:
    order = np.random.default_rng(0).permutation(NUM_GALLERY)
    shuffled = FloorItems([gallery.item_ids[row] for row in order], gallery.pictures[order])
    found = floor.embed(gallery, queries, 0, None)
    again = floor.embed(shuffled, queries, 0, None)
    np.testing.assert_allclose(again.gallery, found.gallery[order], atol=1e-4)  # signs are fixed
    np.testing.assert_allclose(again.queries, found.queries, atol=1e-4)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_and_progress(
    floor: FloorModel,
    gallery: FloorItems,
    queries: FloorItems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, int]] = []
    in_blocks = floor.embed(gallery, queries, 0, lambda done, total: calls.append((done, total)))
    total = NUM_GALLERY + NUM_QUERIES
    if floor.name == "random":
        assert calls == [(total, total)]
    else:
        ends = [*range(2, NUM_GALLERY + 1, 2), NUM_GALLERY + 2, NUM_GALLERY + 4, total]
        assert calls == [(done, total) for done in ends]
    monkeypatch.undo()
    at_once = floor.embed(gallery, queries, 0, None)
    np.testing.assert_allclose(in_blocks.gallery, at_once.gallery, atol=1e-5)
    np.testing.assert_allclose(in_blocks.queries, at_once.queries, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_no_more_pictures_are_read_at_a_time_than_a_block_holds(floor: FloorModel) -> None:
    class Counting:
        most = 0

        def __len__(self) -> int:
            return NUM_GALLERY

        def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
            Counting.most = max(Counting.most, len(rows))
            return random_pictures(NUM_GALLERY)[rows]

    side = FloorItems([str(row) for row in range(NUM_GALLERY)], Counting())
    floor.embed(side, side, 0, None)
    assert Counting.most == (0 if floor.name == "random" else 2)


@pytest.mark.parametrize("size_px", [1, 28, 100])
def test_pictures_of_any_size(floor: FloorModel, size_px: int) -> None:
    sides = items(random_pictures(4, size_px)), items(random_pictures(3, size_px, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = floor.embed(*sides, 0, None)
    assert np.isfinite(found.gallery).all()
    assert np.isfinite(found.queries).all()


# Untrained.


def test_the_network_is_left_as_it_was(gallery: FloorItems, queries: FloorItems) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Dropout(0.5))
    network[1].eval()  # a part that is frozen stays so
    before = {name: value.clone() for name, value in network.state_dict().items()}
    untrained(network, mean_pixels, dim=7).embed(gallery, queries, 0, None)
    assert [module.training for module in network.modules()] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_network_is_left_as_it_was_after_an_error(
    gallery: FloorItems, queries: FloorItems
) -> None:
    def fails(network: torch.nn.Module, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    network = torch.nn.Linear(3, 7)
    with pytest.raises(RuntimeError, match="out of memory"):
        untrained(network, fails, dim=7).embed(gallery, queries, 0, None)
    assert network.training


# Errors.


@pytest.mark.parametrize(
    ("dim", "dtype", "message"),
    [
        (8, np.float32, r"gave float32 of shape \(12, 7\); expected float32 of shape \(12, 8\)"),
        (7, np.float64, r"gave float64 of shape \(12, 7\); expected float32 .* check dim"),
    ],
)
def test_an_untrained_embedding_of_another_kind_is_refused(
    dim: int, dtype: type, message: str, gallery: FloorItems, queries: FloorItems
) -> None:
    def embed(network: torch.nn.Module, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(pictures), 7), dtype)

    with pytest.raises(ValueError, match=message):
        untrained(torch.nn.Linear(3, 7), embed, dim=dim).embed(gallery, queries, 0, None)


@pytest.mark.parametrize("name", [name for name in ALL if name != "random"])
def test_a_floor_refuses_other_pictures(name: str, queries: FloorItems) -> None:
    with pytest.raises(TypeError, match="expected uint8"):
        ALL[name].embed(items(np.zeros((2, 3, 8, 8), np.float32)), queries, 0, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected \[n, 3, S, S\]"):
        ALL[name].embed(items(np.zeros((2, 8, 8, 3), np.uint8)), queries, 0, None)


# The measured floor.


@pytest.mark.slow
@pytest.mark.skipif(not CROPS.exists(), reason="complete-the-look-crops is not on this machine")
def test_the_floor_of_complete_the_look(tmp_path: Path) -> None:
    from visual_search.catalog.cache import cache_pictures
    from visual_search.catalog.readers.table import table
    from visual_search.catalog.splits import assign_splits
    from visual_search.knn.gallery_index import EmbeddingIndex
    from visual_search.retrieval.measure import evaluate_retrieval

    cached = cache_pictures(
        table(CROPS, item_id="product_id", group="board"),
        size_px=128,
        fit="stretch",
        cache_dir=tmp_path,
        on_bad_item="error",
    )
    catalog = assign_splits(
        cached.catalog, method="crc32", val_fraction=0, test_fraction=0.1, seed=0
    )
    rows = catalog.rows_of_split("train"), catalog.rows_of_split("test")
    ids, categories = (
        [catalog.table[column].iloc[side].tolist() for side in rows]
        for column in ("item_id", "category")
    )
    pictures = [
        replace(cached.pictures, store_rows=cached.pictures.store_rows[side]) for side in rows
    ]
    sides = [FloorItems(*side) for side in zip(ids, pictures, strict=True)]
    assert [len(side) for side in sides] == [11_029, 1_196]
    found = FLOORS["hog_pca_256_unit"].embed(sides[0], sides[1], 0, None)
    index = EmbeddingIndex.build(found.gallery, ids[0], device="cpu")
    neighbours = index.search(found.queries, 5, exclude_ids=ids[1])
    summary = evaluate_retrieval(neighbours, categories[1], categories[0], ids[0]).summary
    expected = {
        "micro_map_at_5": 0.722,
        "macro_map_at_5": 0.563,
        "micro_precision_at_5": 0.762,
        "micro_hit_at_1": 0.812,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected, abs=0.01)
