from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.catalog.shops import catalog_of
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.kept_splits import keep_splits, kept_splits
from visual_search.catalog.splits import assign_splits


def senders(sizes: list[int], num_categories: int = 8, seed: int = 0) -> Catalog:
    """Photos of senders: sizes of the groups, categories drawn."""
    groups = np.repeat([f"s{number}" for number in range(len(sizes))], sizes)
    categories = np.random.default_rng(seed).integers(0, num_categories, len(groups))
    return catalog_of(group=groups.tolist(), category=[f"c{number}" for number in categories])


def drawn(catalog: Catalog, **given: object) -> pd.DataFrame:
    asked = {"val_fraction": 0.05, "test_fraction": 0.05, "seed": 0, **given}
    return assign_splits(catalog, method="stratified", **asked).table  # type: ignore[arg-type]


def uneven(number: int, largest: int) -> list[int]:
    return [*([largest] * 3), *(1 + np.arange(number) % 20).tolist()]


@pytest.mark.parametrize("seed", range(4))
def test_a_test_can_answer_where_the_catalogue_has_what_it_takes(seed: int) -> None:
    table = drawn(senders(uneven(200, largest=300)), seed=seed)
    test = table[table["split"] == "test"]
    sizes = test["group"].value_counts()
    assert len(test) >= 200
    assert len(sizes) >= 20
    assert sizes.max() <= len(test) / 10
    for split in ("train", "test", "val"):
        part = table[table["split"] == split].groupby("category")["group"].nunique()
        assert (part.reindex(sorted(set(table["category"])), fill_value=0) >= 2).all()
    assert table.groupby("group")["split"].nunique().max() == 1
    assert len(test) < len(table) / 3


def test_a_draw_that_can_answer_stays_as_the_hash_has_it() -> None:
    catalog = senders([1] * 20_000)
    asked: dict[str, Any] = {"val_fraction": 0.05, "test_fraction": 0.06, "seed": 1}
    by_hash = assign_splits(catalog, method="hash", **asked)
    assert drawn(catalog, **asked)["split"].tolist() == by_hash.table["split"].tolist()


def test_a_rare_category_stays_trainable_and_is_asked_for() -> None:
    groups = [f"g{number}" for number in range(400)]
    categories = ["rare"] * 4 + ["pair"] * 2 + ["single"] + ["usual"] * 393
    for seed in range(5):
        table = drawn(catalog_of(group=groups, category=categories), seed=seed, val_fraction=0.0)
        counts = table.groupby(["category", "split"]).size()
        assert counts["rare"].to_dict() == {"test": 2, "train": 2}
        assert counts["pair"].to_dict() == {"test": 1, "train": 1}
        assert counts["single"].to_dict() == {"train": 1}


def test_products_as_categories_are_still_drawn() -> None:
    groups = [f"p{number // 5}" for number in range(2000)]
    table = drawn(catalog_of(group=groups, category=groups))
    assert 200 <= (table["split"] == "test").sum() <= 700


def test_groups_stay_where_they_are_whatever_comes_later(tmp_path: Path) -> None:
    path, sizes = tmp_path / "splits" / "kept.csv", uneven(100, largest=40)
    whole = senders([size + 6 for size in sizes] + [3] * 60)
    few = whole.take(np.flatnonzero(whole.table["group"].isin([f"s{n}" for n in range(100)])))
    before = assign_splits(few, method="stratified", val_fraction=0.1, test_fraction=0.1, seed=0)
    keep_splits(path, before)
    kept = kept_splits(path)
    after = drawn(whole, val_fraction=0.1, test_fraction=0.1, kept=kept)
    now = dict(zip(after["group"], after["split"], strict=True))
    assert {name: now[name] for name in kept} == kept
    alone = drawn(whole, val_fraction=0.1, test_fraction=0.1)
    assert dict(zip(alone["group"], alone["split"], strict=True)) != now
    assert {"train", "test"} <= {now[name] for name in set(now) - set(kept)}


def test_a_file_keeps_any_name_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    names = ['a,"b"', "two\nlines", "é", " blank "]
    catalog = drawn_as(names, ["train", "test", "val", "train"])
    path = tmp_path / "kept.csv"
    keep_splits(path, catalog)
    assert kept_splits(path) == dict(zip(names, ["train", "test", "val", "train"], strict=True))
    written = path.read_bytes()
    keep_splits(path, drawn_as(names[:2], ["test", "test"]))
    assert path.read_bytes() == written
    assert kept_splits(tmp_path / "none.csv") == {}
    for content in ("", "group,split\na,training\n", "group;split\n", "group,split\na,b,c\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"kept\.csv keeps which group .* remove it to draw"):
            kept_splits(path)


def drawn_as(groups: list[str], splits: list[str]) -> Catalog:
    catalog = catalog_of(group=groups, category=["c"] * len(groups))
    return Catalog("c", catalog.table.assign(split=splits), catalog.source)
