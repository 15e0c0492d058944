"""Floors: searched once for whatever decides the search, and equal to what is computed afresh."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from numpy.typing import NDArray
from PIL import Image

from tests.training.conftest import NewModule
from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.images import Fit
from visual_search.catalog.readers.folder import folder
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.models.floors import FLOORS, FloorModel
from visual_search.retrieval.measure import find_neighbours, score
from visual_search.retrieval.products import find_products
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.protocols import category_restricted, gallery_query, leave_one_out
from visual_search.retrieval.report import RetrievalReport
from visual_search.training.evaluation import Floor
from visual_search.training.floors import Floors, best_floor, floors_per_category, floors_per_query
from visual_search.training.module import EncoderModule

PROTOCOL = gallery_query(max_per_category=6)
BY_GROUP = leave_one_out()


def mean_colours(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(pictures.mean(axis=(2, 3)), dtype=np.float32)


class Measured:
    """Measures floors of the small catalogue, by default ``mean_colour`` alone."""

    def __init__(self, folder: Path, cached: CachedCatalog) -> None:
        self.folder = folder
        self.cached = cached
        self.searched: list[int] = []  # sizes of the sides whose pictures `mean_colour` described

    def describe(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.searched.append(len(pictures))
        return mean_colours(pictures)

    def all(
        self,
        protocol: Protocol = PROTOCOL,
        catalog: Catalog | None = None,
        selection: Selection | None = None,
        folder: str = "",
        beside: Sequence[Selection] = (),
        on_progress: Callable[[int, int], None] | None = None,
        **floors: Any,
    ) -> tuple[Floor, ...]:
        catalog = catalog or self.cached.catalog
        selection = selection or protocol.choose(catalog.table, "test")
        kept = Floors(self.folder / folder, **{"names": ["mean_colour"]} | floors)
        pictures = self.cached.pictures
        return kept.measure(
            catalog, pictures, protocol, selection, beside=beside, on_progress=on_progress
        )

    def __call__(self, *args: Any, **settings: Any) -> RetrievalReport:
        return self.all(*args, **settings)[-1].report

    def kept(self) -> list[Path]:
        return list((self.folder / "floors").iterdir())

    def with_columns(self, **columns: Any) -> Catalog:
        catalog = self.cached.catalog
        return replace(catalog, table=catalog.table.assign(**columns))


@pytest.fixture
def measured(tmp_path: Path, cached: CachedCatalog, monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured(tmp_path, cached)
    floor = FloorModel("mean_colour", "mean colour", 3, "The mean of all pixels.", made.describe)
    monkeypatch.setitem(FLOORS, "mean_colour", floor)
    return made


def answers(report: RetrievalReport) -> list[list[str]]:
    found: list[list[str]] = report.per_query["neighbour_ids"].tolist()
    return found


def test_a_floor_is_what_one_computes_by_hand_and_searched_once(measured: Measured) -> None:
    calls: list[tuple[int, int]] = []
    (floor,) = measured.all(on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (27, 27)
    catalog, selection = (
        measured.cached.catalog,
        PROTOCOL.choose(measured.cached.catalog.table, "test"),
    )
    gallery, queries = (
        mean_colours(measured.cached.pictures[rows])
        for rows in (selection.gallery_rows, selection.query_rows)
    )
    ids = catalog.table["item_id"].to_numpy()[selection.gallery_rows].tolist()
    index = EmbeddingIndex.build(gallery, ids, device="cpu")
    neighbours = find_neighbours(index, catalog.table, PROTOCOL, selection, queries)
    report = score(catalog.table, PROTOCOL, selection, neighbours)
    assert report.summary["micro_map_at_5"] == 1  # every category has a colour of its own
    (again,) = measured.all()
    assert measured.searched == [18, 9]
    for found in (floor, again):
        pd.testing.assert_frame_equal(found.report.per_query, report.per_query)
        assert found.report.summary == report.summary
        assert (found.title, found.dim) == ("mean colour", 3)
    (path,) = measured.kept()
    ranks = [f"{name}_{rank}" for name in ("position", "squared_distance") for rank in range(5)]
    assert pq.read_schema(path).names == [*ranks, "num_found", "dim"]


def test_the_gallery_is_described_once_for_validation_and_test_queries(
    measured: Measured, new_module: NewModule
) -> None:
    table = measured.cached.catalog.table
    val, test = (PROTOCOL.choose(table, split) for split in ("val", "test"))
    names = {"names": ["mean_colour", "pixels_32_pca_64"], "first_weights": new_module}
    measured.all(selection=val, beside=[test, BY_GROUP.choose(table, "test")], **names)
    assert measured.searched == [18, 18], "the gallery, and nine queries of each"
    together = measured.all(selection=test, **names)
    assert measured.searched == [18, 18], "the test's are kept already"
    for one, other in zip(together, measured.all(selection=test, folder="b", **names), strict=True):
        assert answers(one.report) == answers(other.report)
        assert one.headline == other.headline


def test_a_floor_is_measured_over_products_as_a_run_is(measured: Measured) -> None:
    products = [f"p{place // 2}" for place in range(58)]
    catalog = measured.with_columns(product=products, group=products)
    without = measured(catalog=measured.with_columns(group=products))
    selection = PROTOCOL.choose(catalog.table, "test")
    gallery, queries = (
        mean_colours(measured.cached.pictures[rows])
        for rows in (selection.gallery_rows, selection.query_rows)
    )
    ids = catalog.table["item_id"].to_numpy()[selection.gallery_rows].tolist()
    index = EmbeddingIndex.build(gallery, ids, device="cpu")
    scores = find_products(index, catalog.table, PROTOCOL, selection, queries)
    assert scores is not None
    for _ in range(2):  # searched, and kept
        (floor,) = measured.all(catalog=catalog)
        assert floor.products is not None
        pd.testing.assert_frame_equal(floor.products.per_product, scores.per_product)
        pd.testing.assert_frame_equal(floor.report.per_query, without.per_query)
    assert len(measured.searched) == 4
    (floor,) = measured.all()
    assert floor.products is None


def test_another_relevance_searches_nothing_anew(measured: Measured) -> None:
    by_category = measured()
    catalog = measured.with_columns(odd=["yes", "no"] * 29)
    other = measured(replace(PROTOCOL, relevance=("odd",)), catalog)
    assert len(measured.searched) == 2
    assert other.summary["rules"] != by_category.summary["rules"]
    assert other.summary["micro_map_at_5"] < 1
    assert answers(other) == answers(by_category)


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param(gallery_query(max_per_category=5), id="gallery"),
        pytest.param(gallery_query(max_per_category=6, k=4), id="k"),
        pytest.param(gallery_query(max_per_category=6, exclude="group"), id="exclusion"),
        pytest.param(category_restricted(["colour"], max_per_category=6), id="restriction"),
        pytest.param(leave_one_out(exclude="item"), id="sides"),
    ],
)
def test_another_search_is_done_anew(measured: Measured, protocol: Protocol) -> None:
    measured()
    afresh, beside = measured(protocol, folder="other"), measured(protocol)
    assert len(measured.searched) == 6
    pd.testing.assert_frame_equal(beside.per_query, afresh.per_query)


def test_the_order_of_a_side_and_excluded_groups_decide_too(measured: Measured) -> None:
    selection = PROTOCOL.choose(measured.cached.catalog.table, "test")
    turned = Selection(selection.gallery_rows[::-1].copy(), selection.query_rows)
    assert answers(measured()) == answers(measured(selection=turned))
    assert len(measured.searched) == 4
    other = measured.with_columns(group=measured.cached.catalog.table["colour"])
    measured(catalog=other)  # where groups are not excluded they count for nothing
    assert len(measured.searched) == 4
    measured(BY_GROUP)
    measured(BY_GROUP, other)
    assert len(measured.searched) == 8


def test_other_pixels_and_another_fit_are_other_searches(measured: Measured) -> None:
    rng, tmp_path = np.random.default_rng(0), measured.folder
    for root in ("shop", "other"):
        (tmp_path / root / "Hats").mkdir(parents=True)
        for n in range(9):  # the first is square, so that letterbox and stretch agree on it
            pixels = rng.integers(0, 255, (8, 8 if n < 4 else 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / root / "Hats" / f"{n}.png")

    def num_searches(fit: Fit, root: str) -> int:
        catalog = folder(tmp_path / root)
        split = replace(catalog, table=catalog.table.assign(split=["train"] * 7 + ["test"] * 2))
        measured.cached = cache_pictures(
            split, size_px=8, fit=fit, cache_dir=tmp_path, on_bad_item="error"
        )
        measured(gallery_query())
        return len(measured.searched) // 2

    searches: list[tuple[Fit, str]] = [
        ("stretch", "shop"), ("letterbox", "shop"), ("stretch", "other")
    ]  # fmt: skip
    assert [num_searches(*search) for search in searches] == [1, 2, 3]
    assert [num_searches(*search) for search in searches] == [3, 3, 3]


def test_another_seed_is_another_random_floor(measured: Measured) -> None:
    found = [answers(measured(names=["random"], seed=seed)) for seed in (0, 1, 0)]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("damage", ["empty", "garbage", "another table", "fewer queries", "places"])
def test_a_damaged_file_is_computed_anew_and_mended(measured: Measured, damage: str) -> None:
    first = measured()
    (path,) = measured.kept()
    whole, table = path.read_bytes(), pd.read_parquet(path)
    if damage in ("empty", "garbage"):
        path.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    elif damage == "places":
        table.assign(position_0=18).to_parquet(path)
    else:
        (table.iloc[1:] if damage == "fewer queries" else table[["dim"]]).to_parquet(path)
    again = measured()
    assert len(measured.searched) == 4
    pd.testing.assert_frame_equal(first.per_query, again.per_query)
    assert measured()
    assert len(measured.searched) == 4
    assert measured.kept() == [path]


def test_the_untrained_network_is_a_floor_of_its_own_weights(
    measured: Measured, new_module: NewModule
) -> None:
    def module_of(seed: int) -> EncoderModule:
        module, generator = new_module(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in module.model.parameters():
                weights.add_(torch.randn(weights.shape, generator=generator))
        return module

    found = [
        measured.all(names=["random"], first_weights=partial(module_of, seed))[-1]
        for seed in (1, 2, 1)
    ]
    assert {(floor.name, floor.dim) for floor in found} == {("untrained", 64)}
    distances = [floor.report.per_query["neighbour_squared_distances"].tolist() for floor in found]
    assert distances[0] == distances[2] != distances[1]
    # One file a network, one of the random floor, and nothing else.
    assert [path.suffix for path in measured.kept()] == [".parquet"] * 3


def test_the_untrained_floor_is_embedded_as_the_run_is(
    tmp_path: Path, cached: CachedCatalog, new_module: NewModule
) -> None:
    module = new_module().train()
    floors = Floors(tmp_path, names=[], first_weights=lambda: module)
    asked = cached.catalog, cached.pictures, PROTOCOL, PROTOCOL.choose(cached.catalog.table, "test")

    def distances(precision: MixedPrecision | None) -> list[list[float]]:
        (floor,) = floors.measure(*asked, precision=precision)
        found: list[list[float]] = floor.report.per_query["neighbour_squared_distances"].tolist()
        return found

    exact, rounded = distances(None), distances(MixedPrecision("bf16-mixed", "cpu"))
    assert exact != rounded
    np.testing.assert_allclose(exact, rounded, rtol=0.2, atol=1e-3)
    assert distances(None) == exact  # kept beside the other
    assert module.training  # left in its mode


def floor_with(mean: float) -> Floor:
    summary = {"headline": {"mean": "map_at_5"}, "micro_map_at_5": mean}
    return Floor("f", "f", "", 1, RetrievalReport(pd.DataFrame(), pd.DataFrame(), summary))


def test_the_best_floor_is_the_highest_that_has_a_number() -> None:
    low, high, none = (floor_with(mean) for mean in (0.1, 0.4, math.nan))
    assert best_floor([none, low, high]) is high
    assert best_floor([none]) is None
    assert best_floor([]) is None


def test_the_tables_have_a_column_a_floor(measured: Measured) -> None:
    names = ["random", "pixels_8", "hog_pca_256_unit"]
    seen: list[tuple[int, int]] = []
    floors = measured.all(names=names, on_progress=lambda *told: seen.append(told))
    assert max(seen) == (4 * 27, 4 * 27)  # one is described and then projected
    per_query, per_category = floors_per_query(floors), floors_per_category(floors)
    assert list(per_query.columns) == ["query_id", *names]
    assert per_query["query_id"].tolist() == [f"item-{n}" for n in range(49, 58)]
    assert list(per_category.columns) == ["category", *names]
    assert per_category["category"].tolist() == ["Hats", "Shoes", "T-shirt/top"]
    assert per_query["pixels_8"].mean() == pytest.approx(floors[1].report.summary["micro_map_at_5"])
    assert floors_per_query([]).empty
    assert floors[2].dim < 256  # 18 gallery items have no more components
    again = measured.all(names=names)
    pd.testing.assert_frame_equal(floors_per_query(again), per_query)
    assert [floor.dim for floor in again] == [floor.dim for floor in floors]
