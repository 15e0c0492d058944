"""Floors: searched once for whatever decides the search, and equal to what is computed afresh."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.images import Fit
from visual_search.catalog.readers.folder import folder
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.models.floors import FLOORS, FloorModel
from visual_search.retrieval.measure import find_neighbours, score
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.protocols import category_restricted, gallery_query, leave_one_out
from visual_search.retrieval.report import RetrievalReport
from visual_search.training.evaluation import Floor
from visual_search.training.floors import Floors, best_floor, floors_per_category, floors_per_query
from visual_search.training.module import EncoderModule

PROTOCOL = gallery_query(max_per_category=6)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the sides whose pictures the floor ``mean_colour`` described, two a search."""
    made: list[int] = []

    def describe(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        made.append(len(pictures))
        return mean_colours(pictures)

    floor = FloorModel("mean_colour", "mean colour", 3, "The mean of all pixels.", describe)
    monkeypatch.setitem(FLOORS, "mean_colour", floor)
    return made


def mean_colours(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(pictures.mean(axis=(2, 3)), dtype=np.float32)


def measure(
    cache_dir: Path,
    cached: CachedCatalog,
    protocol: Protocol = PROTOCOL,
    selection: Selection | None = None,
    catalog: Catalog | None = None,
    **floors: object,
) -> tuple[Floor, ...]:
    catalog = catalog or cached.catalog
    selection = selection or protocol.choose(catalog.table, "test")
    settings = {"names": ["mean_colour"], **floors}
    return Floors(cache_dir, **settings).measure(  # type: ignore[arg-type]
        catalog, cached.pictures, protocol, selection
    )


def test_a_search_is_done_once(tmp_path: Path, cached: CachedCatalog, calls: list[int]) -> None:
    first = measure(tmp_path, cached)
    assert calls == [18, 9]
    second = measure(tmp_path, cached)
    assert calls == [18, 9]
    pd.testing.assert_frame_equal(first[0].report.per_query, second[0].report.per_query)
    assert first[0].report.summary == second[0].report.summary
    assert (first[0].title, first[0].dim) == (second[0].title, second[0].dim) == ("mean colour", 3)
    assert [path.suffix for path in (tmp_path / "floors").iterdir()] == [".parquet"]


def test_a_floor_is_what_one_computes_by_hand(
    tmp_path: Path, cached: CachedCatalog, calls: list[int]
) -> None:
    floor = measure(tmp_path, cached)[0]
    table, selection = cached.catalog.table, PROTOCOL.choose(cached.catalog.table, "test")
    ids = table["item_id"].to_numpy()
    sides = [
        mean_colours(cached.pictures[rows])
        for rows in (selection.gallery_rows, selection.query_rows)
    ]
    index = EmbeddingIndex.build(sides[0], ids[selection.gallery_rows].tolist(), device="cpu")
    report = score(
        table, PROTOCOL, selection, find_neighbours(index, table, PROTOCOL, selection, sides[1])
    )
    pd.testing.assert_frame_equal(floor.report.per_query, report.per_query)
    assert floor.report.summary == report.summary
    assert report.summary["micro_map_at_5"] == 1  # every category has a colour of its own


def test_another_relevance_searches_nothing_anew(
    tmp_path: Path, cached: CachedCatalog, calls: list[int]
) -> None:
    by_category = measure(tmp_path, cached)[0]
    table = cached.catalog.table.assign(odd=["yes", "no"] * 29)
    catalog = Catalog("colours", table, cached.catalog.source)
    other = measure(tmp_path, cached, replace(PROTOCOL, relevance=("odd",)), catalog=catalog)[0]
    assert len(calls) == 2
    assert other.report.summary["rules"] != by_category.report.summary["rules"]
    assert other.report.summary["micro_map_at_5"] < 1
    assert (
        other.report.per_query["neighbour_ids"].tolist()
        == by_category.report.per_query["neighbour_ids"].tolist()
    )


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
def test_another_search_is_done_anew(
    tmp_path: Path, cached: CachedCatalog, calls: list[int], protocol: Protocol
) -> None:
    measure(tmp_path, cached)
    afresh = measure(tmp_path / "other", cached, protocol)[0]
    beside = measure(tmp_path, cached, protocol)[0]
    assert len(calls) == 6
    pd.testing.assert_frame_equal(beside.report.per_query, afresh.report.per_query)


def test_another_order_is_another_search(
    tmp_path: Path, cached: CachedCatalog, calls: list[int]
) -> None:
    selection = PROTOCOL.choose(cached.catalog.table, "test")
    turned = Selection(selection.gallery_rows[::-1].copy(), selection.query_rows)
    first = measure(tmp_path, cached, selection=selection)[0]
    second = measure(tmp_path, cached, selection=turned)[0]
    assert len(calls) == 4
    assert (
        first.report.per_query["neighbour_ids"].tolist()
        == second.report.per_query["neighbour_ids"].tolist()
    )


def test_other_groups_count_only_where_they_are_excluded(
    tmp_path: Path, cached: CachedCatalog, calls: list[int]
) -> None:
    table = cached.catalog.table.assign(group=cached.catalog.table["colour"])
    other = Catalog("colours", table, cached.catalog.source)
    by_group = leave_one_out()
    for protocol, expected in ((PROTOCOL, 1), (by_group, 3)):
        measure(tmp_path, cached, protocol)
        measure(tmp_path, cached, protocol, catalog=other)
        assert len(calls) == 2 * expected


def test_other_pixels_and_another_fit_are_other_searches(tmp_path: Path, calls: list[int]) -> None:
    rng = np.random.default_rng(0)

    def measured(fit: Fit, root: str) -> int:
        catalog = folder(tmp_path / root)
        table = catalog.table.assign(split=["train"] * 7 + ["test"] * 2)
        found = cache_pictures(
            replace(catalog, table=table),
            size_px=8,
            fit=fit,
            cache_dir=tmp_path,
            on_bad_item="error",
        )
        measure(tmp_path, found, gallery_query())
        return len(calls) // 2

    for root in ("shop", "other"):
        (tmp_path / root / "Hats").mkdir(parents=True)
        for n in range(9):  # the first is square, so that letterbox and stretch agree on it
            pixels = rng.integers(0, 255, (8, 8 if n < 4 else 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / root / "Hats" / f"{n}.png")
    searches: list[tuple[Fit, str]] = [
        ("stretch", "shop"), ("letterbox", "shop"), ("stretch", "other")
    ]  # fmt: skip
    assert [measured(*search) for search in searches] == [1, 2, 3]
    assert [measured(*search) for search in searches] == [3, 3, 3]


def test_another_seed_is_another_random_floor(tmp_path: Path, cached: CachedCatalog) -> None:
    found = [measure(tmp_path, cached, names=["random"], seed=seed)[0] for seed in (0, 1, 0)]
    answers = [floor.report.per_query["neighbour_ids"].tolist() for floor in found]
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.parametrize("damage", ["empty", "garbage", "another table", "fewer queries", "places"])
def test_a_damaged_file_is_computed_anew_and_mended(
    tmp_path: Path, cached: CachedCatalog, calls: list[int], damage: str
) -> None:
    first = measure(tmp_path, cached)[0]
    (path,) = (tmp_path / "floors").iterdir()
    whole = path.read_bytes()
    if damage in ("empty", "garbage"):
        path.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    else:
        table = pd.read_parquet(path)
        if damage == "another table":
            table = pd.DataFrame({"a": [1]})
        elif damage == "fewer queries":
            table = table.iloc[1:]
        else:
            table["position_0"] = 18
        table.to_parquet(path)
    again = measure(tmp_path, cached)[0]
    assert len(calls) == 4
    pd.testing.assert_frame_equal(first.report.per_query, again.report.per_query)
    assert measure(tmp_path, cached)
    assert len(calls) == 4
    assert [kept.name for kept in (tmp_path / "floors").iterdir()] == [path.name]


def test_the_untrained_network_is_a_floor_of_its_own_weights(
    tmp_path: Path, cached: CachedCatalog, new_module: Callable[[], EncoderModule]
) -> None:
    def network(seed: int) -> Callable[[], EncoderModule]:
        def first_weights() -> EncoderModule:
            module = new_module()
            with torch.no_grad():
                for weights in module.model.parameters():
                    weights.add_(
                        torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))
                    )
            return module

        return first_weights

    found = [
        measure(tmp_path, cached, names=["random"], first_weights=network(seed))[-1]
        for seed in (1, 2, 1)
    ]
    assert {floor.name for floor in found} == {"untrained"}
    assert [floor.dim for floor in found] == [64] * 3
    distances = [floor.report.per_query["neighbour_squared_distances"].tolist() for floor in found]
    assert distances[0] == distances[2] != distances[1]
    # One file a network, one of the random floor, and nothing else.
    kept = [path.suffix for path in (tmp_path / "floors").iterdir()]
    assert kept == [".parquet"] * 3


def test_the_untrained_floor_is_embedded_as_the_run_is(
    tmp_path: Path, cached: CachedCatalog, new_module: Callable[[], EncoderModule]
) -> None:
    selection = PROTOCOL.choose(cached.catalog.table, "test")
    floors = Floors(tmp_path, names=[], first_weights=new_module)

    def distances(precision: MixedPrecision | None) -> list[list[float]]:
        (floor,) = floors.measure(
            cached.catalog, cached.pictures, PROTOCOL, selection, precision=precision
        )
        found: list[list[float]] = floor.report.per_query["neighbour_squared_distances"].tolist()
        return found

    module = new_module().train()
    floors.first_weights = lambda: module
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


def test_the_tables_have_a_column_a_floor(tmp_path: Path, cached: CachedCatalog) -> None:
    names = ["random", "pixels_8", "hog_pca_256_unit"]
    floors = measure(tmp_path, cached, names=names)
    per_query, per_category = floors_per_query(floors), floors_per_category(floors)
    assert list(per_query.columns) == ["query_id", *names]
    assert per_query["query_id"].tolist() == [f"item-{n}" for n in range(49, 58)]
    assert list(per_category.columns) == ["category", *names]
    assert per_category["category"].tolist() == ["Hats", "Shoes", "T-shirt/top"]
    assert per_query["pixels_8"].mean() == pytest.approx(floors[1].report.summary["micro_map_at_5"])
    assert floors_per_query([]).empty
    assert floors[2].dim < 256  # 18 gallery items have no more components
    again = measure(tmp_path, cached, names=names)
    pd.testing.assert_frame_equal(floors_per_query(again), per_query)
    assert [floor.dim for floor in again] == [floor.dim for floor in floors]


def test_progress_tells_of_every_floor(tmp_path: Path, cached: CachedCatalog) -> None:
    seen: list[tuple[int, int]] = []
    selection = PROTOCOL.choose(cached.catalog.table, "test")
    Floors(tmp_path, names=["random", "pixels_8"]).measure(
        cached.catalog, cached.pictures, PROTOCOL, selection,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1][0] == seen[-1][1] == 2 * 27
