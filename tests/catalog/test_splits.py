"""Splits: whole groups, by hashes of their names, by categories, or the newest."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.catalog.shops import catalog_of, refuses
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.splits import assign_splits, limit_items, stable_unit

GROUPS = [f"board-{number // 3}" for number in range(3000)]  # 1,000 groups of three
FEW = [str(number) for number in range(40)]


def assigned(catalog: Catalog, **changed: Any) -> list[str]:
    rule = {"method": "hash", "val_fraction": 0.1, "test_fraction": 0.1, "seed": 0} | changed
    return list(assign_splits(catalog, **rule).table["split"])


def test_stable_unit_is_even_and_reproducible() -> None:
    assert stable_unit("board-7", 0) == 0.9887561129050754  # pinned: splits must never move
    units = np.array([stable_unit(f"name {number}", 3) for number in range(20_000)])
    assert 0 <= units.min() <= units.max() < 1
    counts, _ = np.histogram(units, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    others = np.array([stable_unit(f"name {number}", 4) for number in range(20_000)])
    assert abs(np.corrcoef(units, others)[0, 1]) < 0.03


@pytest.mark.parametrize("method", ["hash", "crc32"])
def test_groups_stay_whole_shares_hold_and_other_items_move_none(method: str) -> None:
    splits = assigned(catalog_of(group=GROUPS), method=method)
    assert pd.Series(splits).groupby(GROUPS).nunique().max() == 1
    shares = pd.Series(splits).value_counts(normalize=True)
    expected = {"train": 0.81, "test": 0.1, "val": 0.09}  # a tenth of the other nine
    assert dict(shares) == pytest.approx(expected, abs=0.03)
    before = dict(zip(GROUPS, splits, strict=True))
    mixed = [f"new-{number}" for number in range(500)] + GROUPS
    np.random.default_rng(0).shuffle(mixed)
    after = dict(zip(mixed, assigned(catalog_of(group=mixed), method=method), strict=True))
    assert {group: after[group] for group in before} == before


def test_seeds_draw_other_groups_and_a_larger_fraction_keeps_the_smaller_ones() -> None:
    catalog = catalog_of(group=GROUPS)
    of = [{}, {"seed": 1}, {"test_fraction": 0.2}, {"test_fraction": 0, "val_fraction": 0}]
    first, other, more, none = (np.array(assigned(catalog, **each)) == "test" for each in of)
    assert (first & other).sum() / first.sum() < 0.25  # a tenth by chance
    assert (more >= first).all()
    assert more.sum() > first.sum()
    assert not none.any()
    assert set(assigned(catalog, **of[3])) == {"train"}


def test_crc32_by_hand_whatever_the_seed() -> None:
    groups = [f"größe-{number}" for number in range(200)]
    for divisor, settings in ((10, {}), (7, {"divisor": 7, "seed": 1, "test_fraction": 0.9})):
        splits = assigned(catalog_of(group=groups), method="crc32", **settings)
        expected = [zlib.crc32(group.encode()) % divisor == 0 for group in groups]
        assert 10 < sum(expected) < 60
        assert [split == "test" for split in splits] == expected


def test_given_splits_stay() -> None:
    """What is drawn comes out of the other splits, and nothing is added to a given test split."""

    def of(*given: tuple[str, int], **changed: Any) -> tuple[list[str], list[str]]:
        before = [split for split, number in given for _ in range(number)]
        return before, assigned(catalog_of(group=GROUPS, split=before), **changed)

    given, splits = of(("train", 2400), ("test", 600))
    assert [split == "test" for split in splits] == [split == "test" for split in given]
    assert splits.count("val") / 2400 == pytest.approx(0.1, abs=0.03)
    given, splits = of(("train", 1500), ("val", 600), ("test", 900))
    assert splits == given
    given, splits = of(("train", 1500), ("val", 600), ("", 900))
    drawn = assigned(catalog_of(group=GROUPS), val_fraction=0)
    expected = ["val" if g == "val" else d for d, g in zip(drawn, given, strict=True)]
    assert splits == expected
    given, splits = of(("test", 300), ("", 2700))
    assert [split == "test" for split in splits] == [split == "test" for split in given]
    assert "val" in splits
    few = catalog_of(group=["a", "a", "b", "c"], split=["test", "", "train", ""])
    assert assigned(few, val_fraction=0) == ["test", "test", "train", "train"]
    result = assign_splits(few, method="hash", val_fraction=0.1, test_fraction=0.1, seed=0)
    assert list(few.table["split"]) == ["test", "", "train", ""]  # not changed in place
    pd.testing.assert_frame_equal(*(c.table.drop(columns="split") for c in (result, few)))


@pytest.mark.parametrize("method", ["categories", "newest"])
def test_given_splits_come_first_in_a_cold_start(method: str) -> None:
    more = {"order_by": "year"} if method == "newest" else {"test_categories": ["hats"]}
    more |= {"method": method, "test_fraction": 0.5}
    given = ["test"] * 5 + ["train"] * 30 + [""] * 5
    splits = assigned(catalog_of(group=FEW, split=given, year=FEW), **more)
    assert [split == "test" for split in splits] == [split == "test" for split in given]
    given = ["val"] * 4 + ["train"] * 36
    splits = assigned(
        catalog_of(group=FEW, split=given, year=[*map(str, range(40, 0, -1))]), **more
    )
    assert splits[:4] == ["val"] * 4
    tested = {number for number, split in enumerate(splits) if split == "test"}
    assert tested == (set(range(4, 22)) if method == "newest" else set(range(4, 40, 2)))


def test_a_group_with_two_given_splits_is_refused_and_named() -> None:
    groups = [f"g{number // 2:02d}" for number in range(24)] + ["fine"]
    catalog = catalog_of(group=groups, split=["train", "test"] * 12 + ["train"])
    with pytest.raises(ValueError, match="12 group") as caught:
        assigned(catalog)
    assert "'g00': ['test', 'train']" in str(caught.value)
    assert ["'g09'" in str(caught.value), "'g10'" in str(caught.value)] == [True, False]
    assert "2 more" in str(caught.value)


# ---- cold starts

CATEGORIES = ["bags", "boots", "coats", "dresses", "hats", "rings", "shoes", "skirts"]


def boards() -> Catalog:
    """600 items of 8 categories; most groups are one item, some hold two categories."""
    categories = [CATEGORIES[i] for i in np.random.default_rng(0).integers(0, 8, 600)]
    groups = [f"board-{i}" if i < 560 else f"board-{i - 560}" for i in range(600)]
    return catalog_of(group=groups, category=categories)


def test_named_categories_are_never_trained_on() -> None:
    catalog = boards()
    splits = assigned(catalog, method="categories", test_categories=["hats", "rings"])
    items = catalog.table.assign(split=splits)
    held_out = items["category"].isin(["hats", "rings"])
    mixed = items["group"].isin(items["group"][held_out])
    assert list(items["split"] == "test") == list(mixed)
    assert (mixed & ~held_out).any()  # else no group was kept together
    assert {"train", "val"} <= set(splits)
    catalog = catalog_of(group=[f"board-{number}" for number in range(2000)])
    counts = Counter(assigned(catalog, method="categories", test_categories=["hats"]))
    assert counts["test"] == 1000
    assert counts["val"] / 1000 == pytest.approx(0.1, abs=0.03)  # of the rest


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 1), (0.05, 1), (0.25, 2), (0.31, 2), (0.32, 3), (0.99, 7)]
)
def test_a_share_of_the_categories_is_drawn(fraction: float, expected: int) -> None:
    catalog = catalog_of(category=CATEGORIES * 10)
    splits = assigned(catalog, method="categories", test_fraction=fraction, val_fraction=0)
    of_split = catalog.table.assign(split=splits).groupby("category")["split"].agg(set)
    assert sorted(map(sorted, of_split)) == [["test"]] * expected + [["train"]] * (8 - expected)


def test_drawn_categories_depend_on_names_and_seed_alone() -> None:
    def held_out(given: Catalog, seed: int) -> frozenset[str]:
        splits = np.array(assigned(given, method="categories", test_fraction=0.25, seed=seed))
        return frozenset(CATEGORIES) - set(given.table["category"][splits != "test"])

    catalog = boards()
    drawn = [held_out(catalog, seed) for seed in range(6)]
    assert {len(names) for names in drawn} == {2}
    assert len(set(drawn)) > 2
    shuffled = catalog.take(np.random.default_rng(1).permutation(len(catalog)))
    assert [held_out(shuffled, seed) for seed in range(6)] == drawn


def newest(order: Sequence[str], groups: Sequence[str] = (), **changed: Any) -> set[int]:
    catalog = catalog_of(group=groups or FEW[: len(order)], year=order)
    splits = assigned(
        catalog, **{"method": "newest", "order_by": "year", "val_fraction": 0} | changed
    )
    return {row for row, split in enumerate(splits) if split == "test"}


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


def test_a_group_is_as_new_as_its_newest_item_and_the_share_is_rounded() -> None:
    years, groups = ["2001", "2020", "2010", "2011"], ["a", "a", "b", "c"]
    assert newest(years, groups, test_fraction=0.34) == {0, 1}
    assert newest(years, groups, test_fraction=0.67) == {0, 1, 3}
    for fraction, expected in ((0.0, 0), (0.04, 0), (0.05, 1), (0.9, 9)):
        assert newest(FEW[:10], test_fraction=fraction) == set(range(10 - expected, 10))


def test_equally_new_groups_are_chosen_by_their_hash_not_their_place() -> None:
    groups = [f"g{number}" for number in range(200)]
    year_of = dict(zip(groups, ["2020"] * 150 + ["2021"] * 50, strict=True))

    def tested(order: Sequence[str], **more: Any) -> set[str]:
        rows = newest([year_of[group] for group in order], order, test_fraction=0.5, **more)
        return {order[row] for row in rows}

    first = tested(groups)
    assert set(groups[150:]) <= first
    assert len(first) == 100
    assert first not in (set(groups[100:]), set(groups[:50] + groups[150:]))
    assert tested([groups[i] for i in np.random.default_rng(0).permutation(200)]) == first
    assert tested(groups, seed=1) != first


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"method": "random"}, "method is 'random'; expected one of"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; expected 0 <="),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"test_fraction": 10}, "test_fraction is 10"),
        ({"divisor": 1, "method": "crc32"}, "divisor is 1; expected at least 2"),
        (
            {"method": "categories", "test_categories": ["hat"]},
            r"'hat'.* \(the nearest is 'hats'\)",
        ),
        ({"method": "categories", "test_categories": "hats"}, "'hats'; expected a list of at le"),
        ({"method": "categories", "test_categories": []}, r"test_categories is \[\]; expected a"),
        ({"test_categories": ["hats"]}, "but method is 'hash'; expected method='categories'"),
        ({"method": "crc32", "order_by": "year"}, "method is 'crc32'; expected method='newest'"),
        ({"method": "newest", "order_by": "Yaer"}, r"'Yaer'; .*\['year'\] \(the nearest is 'year'"),
        ({"method": "newest"}, r"order_by is None; expected an attribute of catalogue 'toy'"),
        ({"method": "newest", "order_by": "category"}, "order_by is 'category'; expected an attr"),
        ({"method": "categories", "test_categories": ["hats", "shoes"]}, "no item left to train"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], match: str) -> None:
    refuses(
        ValueError, match, assigned, catalog_of(group=list("abcd"), year=list("1234")), **changed
    )


def test_what_is_all_test_is_a_benchmark() -> None:
    benchmark = catalog_of(split=["test", "test", "test"])
    assert assigned(benchmark) == ["test"] * 3


def test_nothing_to_train_on_and_a_single_category_are_refused() -> None:
    for catalog in (catalog_of(group=[]), catalog_of(split=["val", "test"])):
        refuses(ValueError, "no item left to train on", assigned, catalog)
    one = catalog_of(category=["hats", "hats"])
    refuses(ValueError, r"\['hats'\]; expected at least two", assigned, one, method="categories")


# ---- limits


def split_catalog() -> Catalog:
    return catalog_of(split=["train"] * 600 + ["val"] * 200 + ["test"] * 200)


def test_limit_keeps_the_smallest_hashes_in_the_tables_order() -> None:
    catalog = split_catalog()
    limited = limit_items(catalog, {"train": 50, "val": None, "test": 300}, seed=5).table
    counts = limited.groupby(["split", "category"]).size()
    assert list(counts) == [100, 100, 50, 50, 100, 100]  # of test, train and val
    assert list(limited["item_id"]) == sorted(limited["item_id"])
    for category in ("hats", "shoes"):
        items, kept = (
            t["item_id"][(t["split"] == "train") & (t["category"] == category)]
            for t in (catalog.table, limited)
        )
        assert set(kept) == set(sorted(items, key=lambda item_id: stable_unit(item_id, 5))[:50])
    pd.testing.assert_frame_equal(limit_items(catalog, {}, seed=0).table, catalog.table)


def test_limit_does_not_depend_on_order_and_hardly_on_added_items() -> None:
    def kept(given: Catalog, seed: int = 0) -> set[str]:
        return set(limit_items(given, {"train": 50}, seed=seed).table["item_id"])

    catalog = split_catalog()
    assert kept(catalog.take(np.random.default_rng(1).permutation(len(catalog)))) == kept(catalog)
    assert len(kept(catalog) - kept(catalog.take(np.arange(1, len(catalog))))) <= 1
    assert kept(catalog, seed=1) != kept(catalog)


def test_limit_refuses() -> None:
    for catalog, limits, match in (
        (split_catalog(), {"valid": 3}, r"names the split\(s\) \['valid'\]; expected"),
        (split_catalog(), {"val": 0}, r"max_per_category\['val'\] is 0; expected at least 1"),
        (catalog_of(group=GROUPS), {"train": 3}, r"3000 of 3000 items .* call assign_splits first"),
    ):
        refuses(ValueError, match, limit_items, catalog, limits, seed=0)
