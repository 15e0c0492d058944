from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.splits import assign_splits, limit_items, stable_unit


class NoPictures:
    def load(self, image: str) -> bytes:
        raise FileNotFoundError(image)

    def content_keys(self, images: Sequence[str]) -> list[str]:
        return list(images)


def catalog_of(groups: Sequence[str], splits: Sequence[str] | None = None) -> Catalog:
    ids = [f"{number:06d}" for number in range(len(groups))]
    return Catalog(
        "toy",
        pd.DataFrame(
            {
                "item_id": ids,
                "image": ids,
                "category": [("shoes", "hats")[number % 2] for number in range(len(groups))],
                "group": list(groups),
                "split": [""] * len(groups) if splits is None else list(splits),
            }
        ),
        NoPictures(),
    )


def assigned(catalog: Catalog, **changed: object) -> list[str]:
    arguments: dict[str, object] = {
        "method": "hash",
        "val_fraction": 0.1,
        "test_fraction": 0.1,
        "seed": 0,
        **changed,
    }
    return list(assign_splits(catalog, **arguments).table["split"])


GROUPS = [f"board-{number // 3}" for number in range(3000)]  # 1,000 groups of three


def test_stable_unit_is_even_and_reproducible() -> None:
    assert stable_unit("board-7", 0) == 0.9887561129050754  # pinned: splits must never move
    units = np.array([stable_unit(f"name {number}", 3) for number in range(20_000)])
    assert units.min() >= 0
    assert units.max() < 1
    counts, _ = np.histogram(units, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    others = np.array([stable_unit(f"name {number}", 4) for number in range(20_000)])
    assert abs(np.corrcoef(units, others)[0, 1]) < 0.03


@pytest.mark.parametrize("method", ["hash", "crc32"])
def test_a_group_is_never_split_and_the_shares_hold(method: str) -> None:
    splits = assigned(catalog_of(GROUPS), method=method)
    assert pd.Series(splits).groupby(GROUPS).nunique().max() == 1
    shares = pd.Series(splits).value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.1, abs=0.03)
    assert shares["val"] == pytest.approx(0.09, abs=0.03)  # a tenth of the other nine
    assert shares["train"] == pytest.approx(0.81, abs=0.04)


@pytest.mark.parametrize("method", ["hash", "crc32"])
def test_added_and_shuffled_items_move_no_other(method: str) -> None:
    before = dict(zip(GROUPS, assigned(catalog_of(GROUPS), method=method), strict=True))
    more = [f"new-{number}" for number in range(500)] + GROUPS
    order = np.random.default_rng(0).permutation(len(more))
    mixed = [more[position] for position in order]
    after = dict(zip(mixed, assigned(catalog_of(mixed), method=method), strict=True))
    assert {group: after[group] for group in before} == before


def test_another_seed_draws_other_groups() -> None:
    first, second = (np.array(assigned(catalog_of(GROUPS), seed=seed)) for seed in (0, 1))
    overlap = ((first == "test") & (second == "test")).sum() / (first == "test").sum()
    assert overlap < 0.25  # a tenth by chance


def test_a_larger_fraction_keeps_the_smaller_ones_groups() -> None:
    small, large = (
        np.array(assigned(catalog_of(GROUPS), test_fraction=fraction)) for fraction in (0.1, 0.2)
    )
    assert set(np.flatnonzero(small == "test")) < set(np.flatnonzero(large == "test"))


def test_crc32_by_hand_whatever_the_seed() -> None:
    groups = [f"g{number}" for number in range(200)]
    expected = [zlib.crc32(group.encode("ascii")) % 7 == 0 for group in groups]
    assert 10 < sum(expected) < 60
    for seed in (0, 1):
        splits = assigned(
            catalog_of(groups), method="crc32", divisor=7, seed=seed, test_fraction=0.9
        )
        assert [split == "test" for split in splits] == expected


def test_names_beyond_ascii() -> None:
    groups = [f"größe-{number}" for number in range(100)]
    splits = assigned(catalog_of(groups), method="crc32")
    assert [s == "test" for s in splits] == [zlib.crc32(g.encode()) % 10 == 0 for g in groups]


def test_zero_fractions_leave_everything_to_train() -> None:
    assert set(assigned(catalog_of(GROUPS), val_fraction=0, test_fraction=0)) == {"train"}


def test_official_test_stays_and_val_comes_out_of_train() -> None:
    given = ["train"] * 2400 + ["test"] * 600
    splits = assigned(catalog_of(GROUPS, given))
    assert splits[2400:] == ["test"] * 600
    assert set(splits[:2400]) == {"train", "val"}
    assert splits[:2400].count("val") / 2400 == pytest.approx(0.1, abs=0.03)


def test_official_three_splits_stay_as_they_are() -> None:
    given = ["train"] * 1500 + ["val"] * 600 + ["test"] * 900
    assert assigned(catalog_of(GROUPS, given)) == given


def test_official_val_stays_and_test_comes_out_of_the_others() -> None:
    given = ["train"] * 1500 + ["val"] * 600 + [""] * 900
    splits = assigned(catalog_of(GROUPS, given))
    assert [split == "val" for split in splits] == [split == "val" for split in given]
    drawn = [split == "test" for split in assigned(catalog_of(GROUPS), val_fraction=0)]
    assert [s == "test" for s in splits] == [
        d and g != "val" for d, g in zip(drawn, given, strict=True)
    ]


def test_items_beside_an_official_split_are_not_added_to_its_test() -> None:
    given = ["test"] * 300 + [""] * 2700
    splits = assigned(catalog_of(GROUPS, given))
    assert [s == "test" for s in splits] == [g == "test" for g in given]
    assert "val" in splits


def test_a_groups_unassigned_items_follow_its_given_split() -> None:
    splits = assigned(catalog_of(["a", "a", "b", "c"], ["test", "", "train", ""]), val_fraction=0)
    assert splits == ["test", "test", "train", "train"]


def test_the_catalogue_is_not_changed_in_place() -> None:
    catalog = catalog_of(GROUPS)
    result = assign_splits(catalog, method="hash", val_fraction=0.1, test_fraction=0.1, seed=0)
    assert set(catalog.table["split"]) == {""}
    pd.testing.assert_frame_equal(
        result.table.drop(columns="split"), catalog.table.drop(columns="split")
    )


def test_a_group_with_two_given_splits_is_refused_and_named() -> None:
    groups = [f"g{number // 2:02d}" for number in range(24)] + ["fine"]
    given = ["train", "test"] * 12 + ["train"]
    with pytest.raises(ValueError, match="different splits, for 12 group") as caught:
        assigned(catalog_of(groups, given))
    message = str(caught.value)
    assert "'g00': ['test', 'train']" in message
    assert "'g09'" in message
    assert "'g10'" not in message
    assert "... and 2 more" in message
    assert "Mend the split column" in message


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"method": "random"}, "method is 'random'; expected one of"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; expected 0 <="),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"test_fraction": 10}, "test_fraction is 10"),
        ({"divisor": 1, "method": "crc32"}, "divisor is 1; expected at least 2"),
    ],
)
def test_bad_arguments_are_refused(changed: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        assigned(catalog_of(GROUPS), **changed)


@pytest.mark.parametrize("catalog", [catalog_of([]), catalog_of(["a", "b"], ["val", "test"])])
def test_nothing_to_train_on_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="no item left to train on"):
        assigned(catalog)


def split_catalog() -> Catalog:
    splits = ["train"] * 600 + ["val"] * 200 + ["test"] * 200
    return catalog_of([str(number) for number in range(1000)], splits)


def test_limit_keeps_the_smallest_hashes_in_the_tables_order() -> None:
    catalog = split_catalog()
    limited = limit_items(catalog, {"train": 50, "val": None, "test": 300}, seed=5)
    counts = limited.table.groupby(["split", "category"]).size().to_dict()
    assert counts == {
        ("train", "shoes"): 50,
        ("train", "hats"): 50,
        ("val", "shoes"): 100,
        ("val", "hats"): 100,
        ("test", "shoes"): 100,
        ("test", "hats"): 100,
    }
    assert list(limited.table["item_id"]) == sorted(limited.table["item_id"])
    train = catalog.table[catalog.table["split"] == "train"]
    for category, items in train.groupby("category")["item_id"]:
        in_category = limited.table["category"] == category
        expected = sorted(items, key=lambda item_id: stable_unit(item_id, 5))[:50]
        kept = limited.table["item_id"][in_category & (limited.table["split"] == "train")]
        assert set(kept) == set(expected)


def test_limit_does_not_depend_on_order_and_hardly_on_added_items() -> None:
    catalog = split_catalog()
    kept = set(limit_items(catalog, {"train": 50}, seed=0).table["item_id"])
    shuffled = catalog.take(np.random.default_rng(1).permutation(len(catalog)))
    assert set(limit_items(shuffled, {"train": 50}, seed=0).table["item_id"]) == kept
    fewer = catalog.take(np.arange(1, len(catalog)))  # without item 000000
    without = set(limit_items(fewer, {"train": 50}, seed=0).table["item_id"])
    assert len(kept - without) <= 1
    other = set(limit_items(catalog, {"train": 50}, seed=1).table["item_id"])
    assert other != kept


def test_limit_without_limits_keeps_all() -> None:
    catalog = split_catalog()
    pd.testing.assert_frame_equal(limit_items(catalog, {}, seed=0).table, catalog.table)


def test_limit_refuses() -> None:
    with pytest.raises(ValueError, match=r"names the split\(s\) \['valid'\]; expected"):
        limit_items(split_catalog(), {"valid": 3}, seed=0)
    with pytest.raises(ValueError, match=r"max_per_category\['val'\] is 0; expected at least 1"):
        limit_items(split_catalog(), {"val": 0}, seed=0)
    with pytest.raises(ValueError, match=r"3000 of 3000 items .* call assign_splits first"):
        limit_items(catalog_of(GROUPS), {"train": 3}, seed=0)


CROPS = Path(__file__).parents[3] / "shared" / "datasets" / "complete-the-look-crops.zip"


@pytest.mark.skipif(not CROPS.is_file(), reason="the development data is not beside the checkout")
def test_the_development_benchmark_of_complete_the_look() -> None:
    with zipfile.ZipFile(CROPS) as archive:
        (name,) = [n for n in archive.namelist() if Path(n).name == "products.csv"]
        with archive.open(name) as file:
            products = pd.read_csv(file, dtype=str, keep_default_na=False)
    catalog = catalog_of(list(products["board"]))
    splits = assigned(catalog, method="crc32")
    assert splits.count("test") == 1196
    assert len(splits) - splits.count("test") == 11_029
    assert splits.count("val") / 11_029 == pytest.approx(0.1, abs=0.01)
