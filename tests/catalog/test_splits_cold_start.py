from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.catalog.test_splits import assigned, catalog_of
from visual_search.catalog.catalog import Catalog

CATEGORIES = ["bags", "boots", "coats", "dresses", "hats", "rings", "shoes", "skirts"]


def catalog_with(
    groups: Sequence[str], splits: Sequence[str] | None = None, **columns: Sequence[str]
) -> Catalog:
    catalog = catalog_of(groups, splits)
    table = catalog.table.assign(**{name: list(values) for name, values in columns.items()})
    return replace(catalog, table=table)


def boards() -> Catalog:
    """600 items of 8 categories; most groups are one item, some hold two categories."""
    rng = np.random.default_rng(0)
    categories = [CATEGORIES[i] for i in rng.integers(0, 8, 600)]
    groups = [f"board-{i}" if i < 560 else f"board-{i - 560}" for i in range(600)]
    return catalog_with(groups, category=categories)


def test_named_categories_are_never_trained_on() -> None:
    catalog = boards()
    splits = np.array(assigned(catalog, method="categories", test_categories=["hats", "rings"]))
    table = catalog.table.assign(split=splits)
    held_out = table["category"].isin(["hats", "rings"])
    assert set(table["split"][held_out]) == {"test"}
    mixed = set(table["group"][held_out])
    assert list(table["split"] == "test") == list(table["group"].isin(mixed))
    assert (table["group"].isin(mixed) & ~held_out).any()  # else no group was kept together
    assert table.groupby("group")["split"].nunique().max() == 1
    assert {"train", "val"} <= set(splits)


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 1), (0.05, 1), (0.25, 2), (0.31, 2), (0.32, 3), (0.99, 7)]
)
def test_a_share_of_the_categories_is_drawn(fraction: float, expected: int) -> None:
    catalog = catalog_with([str(i) for i in range(80)], category=CATEGORIES * 10)
    splits = assigned(catalog, method="categories", test_fraction=fraction, val_fraction=0)
    of_split = {name: set() for name in ("train", "test")}
    for category, split in zip(CATEGORIES * 10, splits, strict=True):
        of_split[split].add(category)
    assert len(of_split["test"]) == expected
    assert not of_split["test"] & of_split["train"]


def test_drawn_categories_depend_on_names_and_seed_alone() -> None:
    catalog = boards()
    table = catalog.table

    def held_out(given: Catalog, seed: int) -> set[str]:
        splits = np.array(assigned(given, method="categories", test_fraction=0.25, seed=seed))
        left = set(given.table["category"][splits != "test"])
        return set(CATEGORIES) - left

    shuffled = catalog.take(np.random.default_rng(1).permutation(len(table)))
    drawn = [held_out(catalog, seed) for seed in range(6)]
    assert {len(names) for names in drawn} == {2}
    assert [held_out(shuffled, seed) for seed in range(6)] == drawn
    assert len({frozenset(names) for names in drawn}) > 2


def test_val_of_a_cold_start_comes_out_of_the_rest() -> None:
    groups = [f"board-{number}" for number in range(2000)]
    catalog = catalog_with(groups, category=["hats", "shoes"] * 1000)
    counts = Counter(assigned(catalog, method="categories", test_categories=["hats"]))
    assert counts["test"] == 1000
    assert counts["val"] / 1000 == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("method", ["categories", "newest"])
def test_a_given_test_split_comes_first(method: str) -> None:
    groups = [str(number) for number in range(40)]
    given = ["test"] * 5 + ["train"] * 30 + [""] * 5
    more = {"order_by": "year"} if method == "newest" else {"test_categories": ["hats"]}
    catalog = catalog_with(groups, given, category=["hats", "shoes"] * 20, year=groups)
    splits = assigned(catalog, method=method, test_fraction=0.5, **more)
    assert [split == "test" for split in splits] == [split == "test" for split in given]


@pytest.mark.parametrize("method", ["categories", "newest"])
def test_a_given_val_split_stays_and_is_not_tested(method: str) -> None:
    groups = [str(number) for number in range(40)]
    given = ["val"] * 4 + ["train"] * 36
    more = {"order_by": "year"} if method == "newest" else {"test_categories": ["hats"]}
    years = [str(2040 - number) for number in range(40)]
    catalog = catalog_with(groups, given, category=["hats", "shoes"] * 20, year=years)
    splits = assigned(catalog, method=method, test_fraction=0.5, **more)
    assert splits[:4] == ["val"] * 4
    tested = {number for number, split in enumerate(splits) if split == "test"}
    assert tested == (set(range(4, 22)) if method == "newest" else set(range(4, 40, 2)))


def newest(
    order: Sequence[str], groups: Sequence[str] | None = None, **changed: object
) -> set[int]:
    catalog = catalog_with(groups or [str(i) for i in range(len(order))], year=order)
    settings = {"method": "newest", "order_by": "year", "val_fraction": 0, **changed}
    return {row for row, split in enumerate(assigned(catalog, **settings)) if split == "test"}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["9", "10", "100", "2"], {1, 2}),  # numbers
        (["9", "10", "100", "2x"], {0, 3}),  # one is none: text
        (["1e3", "-5", "20.5", "7"], {0, 2}),
        (["2024-03-01", "2023-12-31", "2024-11-01", ""], {0, 2}),
        (["", "-7", " ", "-9"], {1, 3}),  # empty is the oldest
        (["nan", "b", "1", "c"], {0, 3}),  # not a number is text
    ],
)
def test_the_newest_by_number_or_text(order: list[str], expected: set[int]) -> None:
    assert newest(order, test_fraction=0.5) == expected


def test_a_group_is_as_new_as_its_newest_item() -> None:
    years, groups = ["2001", "2020", "2010", "2011"], ["a", "a", "b", "c"]
    assert newest(years, groups, test_fraction=0.34) == {0, 1}
    assert newest(years, groups, test_fraction=0.67) == {0, 1, 3}


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.04, 0), (0.05, 1), (0.9, 9)])
def test_the_share_of_the_newest_is_rounded(fraction: float, expected: int) -> None:
    assert newest([str(i) for i in range(10)], test_fraction=fraction) == set(
        range(10 - expected, 10)
    )


def test_equally_new_groups_are_chosen_by_their_hash_not_their_place() -> None:
    groups = [f"g{number}" for number in range(200)]
    years = ["2020"] * 150 + ["2021"] * 50
    tested = {groups[row] for row in newest(years, groups, test_fraction=0.5)}
    assert set(groups[150:]) <= tested
    assert len(tested) == 100
    assert tested != set(groups[100:])
    assert tested != set(groups[:50] + groups[150:])
    order = np.random.default_rng(0).permutation(200)
    mixed = [groups[i] for i in order]
    again = newest([years[i] for i in order], mixed, test_fraction=0.5)
    assert {mixed[row] for row in again} == tested
    other = {groups[row] for row in newest(years, groups, test_fraction=0.5, seed=1)}
    assert other != tested


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"method": "categories", "test_categories": ["hat"]},
            r"names 'hat', which is no category of .*\(the nearest is 'hats'\); expected one of",
        ),
        ({"method": "categories", "test_categories": "hats"}, "'hats'; expected a list of at le"),
        ({"method": "categories", "test_categories": []}, r"test_categories is \[\]; expected a"),
        ({"test_categories": ["hats"]}, "but method is 'hash'; expected method='categories'"),
        ({"method": "crc32", "order_by": "year"}, "method is 'crc32'; expected method='newest'"),
        (
            {"method": "newest", "order_by": "Yaer"},
            r"order_by is 'Yaer'; .* one of \['year'\] \(the nearest is 'year'\)",
        ),
        ({"method": "newest"}, r"order_by is None; expected an attribute of catalogue 'toy'"),
        ({"method": "newest", "order_by": "category"}, "order_by is 'category'; expected an attr"),
        ({"method": "categories", "test_categories": ["hats", "shoes"]}, "no item left to train"),
    ],
)
def test_what_is_refused(changed: dict[str, object], match: str) -> None:
    catalog = catalog_with(["a", "b", "c", "d"], year=["1", "2", "3", "4"])
    with pytest.raises(ValueError, match=match):
        assigned(catalog, **changed)


def test_one_category_cannot_be_held_out() -> None:
    catalog = catalog_with(["a", "b"], category=["hats", "hats"])
    with pytest.raises(ValueError, match=r"has the categories \['hats'\]; expected at least two"):
        assigned(catalog, method="categories")
