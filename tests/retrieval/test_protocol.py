from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.protocol import (
    Leaks,
    count_relevant,
    find_leaks,
    gallery_splits,
    relevant,
    select_gallery,
    select_queries,
    stable_order,
)


def table(count: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "item_id": [f"item-{n}" for n in range(count)],
            "category": rng.choice(["hat", "shoe", "=tie", "NA"], count, p=[0.5, 0.3, 0.19, 0.01]),
            "group": [f"group-{n // 2}" for n in range(count)],
            "split": rng.choice(["train", "val", "test"], count, p=[0.8, 0.1, 0.1]),
        }
    )


def chosen_ids(items: pd.DataFrame, **settings) -> set[str]:
    return set(items["item_id"].iloc[select_gallery(items, **settings)])


class TestGallery:
    def test_at_most_so_many_of_each_category_from_the_splits_ascending(self):
        items = table()
        rows = select_gallery(items, splits=["train", "val"], max_per_category=20)
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        chosen = items.iloc[rows]
        assert set(chosen["split"]) == {"train", "val"}
        held = items[items["split"] != "test"]["category"].value_counts().clip(upper=20)
        assert chosen["category"].value_counts().to_dict() == held.to_dict()

    def test_all_of_a_small_split(self):
        items = table()
        assert (
            select_gallery(items, splits=["test"]).tolist()
            == np.flatnonzero(items["split"] == "test").tolist()
        )

    def test_random_takes_n_whatever_the_category(self):
        items = table()
        rows = select_gallery(items, kind="random", num_items=37)
        assert len(rows) == len(set(rows.tolist())) == 37
        assert set(items["split"].iloc[rows]) == {"train"}

    @pytest.mark.parametrize(
        "settings", [{"max_per_category": 15}, {"kind": "random", "num_items": 40}]
    )
    def test_the_same_items_in_any_order_and_other_items_with_another_seed(self, settings):
        items = table()
        shuffled = items.sample(frac=1, random_state=1).reset_index(drop=True)
        assert chosen_ids(items, **settings) == chosen_ids(shuffled, **settings)
        assert chosen_ids(items, **settings) != chosen_ids(items, seed=1, **settings)

    @pytest.mark.parametrize(
        "settings", [{"max_per_category": 15}, {"kind": "random", "num_items": 40}]
    )
    def test_adding_items_disturbs_little(self, settings):
        items = table()
        added = table(330).iloc[300:].assign(split="train")
        before = chosen_ids(items, **settings)
        after = chosen_ids(pd.concat([items, added], ignore_index=True), **settings)
        new = after - set(items["item_id"])
        assert 0 < len(new) < 15
        assert len(before - after) <= len(new)  # one goes for one that comes, nobody else moves

    def test_the_choice_is_pinned(self):
        """The same items for every model, in every release: this list may never change."""
        assert stable_order([f"item-{n}" for n in range(8)], 0).tolist() == [5, 1, 4, 7, 6, 2, 0, 3]

    def test_the_order_is_even(self):
        ids = [f"item-{n}" for n in range(10_000)]
        first_half = stable_order(ids, 3)[:5000]
        assert first_half.mean() == pytest.approx(4999.5, abs=5 * 10_000 / 12**0.5 / 100)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"kind": "all"}, "kind is 'all'; expected 'per_category' or 'random'"),
            ({"max_per_category": 0}, "max_per_category is 0; expected at least 1"),
            ({"kind": "random"}, "num_items is None; expected a number from 1 to"),
            ({"kind": "random", "num_items": 0}, "num_items is 0"),
            ({"kind": "random", "num_items": 301}, "num_items is 301"),
            ({"splits": ["training"]}, r"\['training'\] hold\(s\) none of the 300 .*'train': "),
        ],
    )
    def test_refusals(self, settings, message):
        with pytest.raises(ValueError, match=message):
            select_gallery(table(), **settings)

    def test_a_missing_column(self):
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['category'\]"):
            select_gallery(table().drop(columns="category"))


class TestSplits:
    def test_the_split_that_asks_is_left_out(self):
        assert gallery_splits("val") == ("train",)
        assert gallery_splits("val", ["train", "val", "test", "train"]) == ("train", "test")
        assert gallery_splits("val", "train") == ("train",)

    def test_nothing_left(self):
        with pytest.raises(ValueError, match=r"splits are \['val'\], .* come from 'val'"):
            gallery_splits("val", ["val"])

    def test_queries(self):
        items = table()
        rows = select_queries(items, "val")
        assert rows.dtype == np.int64
        assert rows.tolist() == np.flatnonzero(items["split"] == "val").tolist()

    def test_no_queries(self):
        with pytest.raises(ValueError, match="query split 'validation' hold"):
            select_queries(table(), "validation")
        with pytest.raises(ValueError, match="lacks the column"):
            select_queries(table().drop(columns="split"), "val")


class TestRelevance:
    def test_by_category(self):
        neighbours = np.array([["hat", "shoe"], ["shoe", "shoe"]], dtype=object)
        assert relevant(["hat", "shoe"], neighbours).tolist() == [[True, False], [True, True]]
        assert relevant([], neighbours[:0]).shape == (0, 2)

    def test_the_count_leaves_the_query_out_by_id(self):
        gallery_ids, categories = ["a", "b", "c", "d"], ["hat", "hat", "hat", "shoe"]
        queries = {"a": "hat", "x": "hat", "d": "shoe", "b": "shoe", "y": "tie"}
        # b is asked as a shoe, but held as a hat: it takes nothing from the shoes.
        counts = count_relevant(list(queries), list(queries.values()), gallery_ids, categories)
        assert counts.tolist() == [2, 3, 0, 1, 0]

    def test_against_a_slow_count(self):
        items = table()
        rows = np.arange(0, 300, 3)
        ids, categories = items["item_id"].tolist(), items["category"].tolist()
        expected = [
            sum(categories[m] == categories[n] and ids[m] != ids[n] for m in range(200))
            for n in rows
        ]
        counts = count_relevant(
            [ids[n] for n in rows], [categories[n] for n in rows], ids[:200], categories[:200]
        )
        assert counts.tolist() == expected


class TestLeaks:
    def frame(self, *rows):
        return pd.DataFrame(rows, columns=["item_id", "group", "split"])

    def test_a_clean_protocol(self):
        gallery = self.frame(("a", "g1", "train"), ("b", "g2", "train"))
        queries = self.frame(("c", "g3", "test"))
        assert find_leaks(gallery, queries) == Leaks(0, 0, ())
        assert not find_leaks(gallery, queries)

    def test_leave_one_out_is_allowed_but_counted(self):
        items = self.frame(("a", "g1", "test"), ("b", "g1", "test"))
        assert find_leaks(items, items) == Leaks(2, 0, ())

    def test_a_group_on_both_sides_of_a_split(self):
        gallery = self.frame(("b", "g1", "train"), ("a", "g1", "train"), ("c", "g2", "test"))
        queries = self.frame(("y", "g1", "test"), ("x", "g1", "test"), ("z", "g2", "test"))
        leaks = find_leaks(gallery, queries)
        assert leaks
        assert leaks.num_pairs == 4
        assert leaks.pairs == (
            ("x", "a", "g1"),
            ("x", "b", "g1"),
            ("y", "a", "g1"),
            ("y", "b", "g1"),
        )
        assert find_leaks(gallery, queries, max_listed=1) == Leaks(0, 4, (("x", "a", "g1"),))

    def test_one_item_under_two_splits(self):
        leaks = find_leaks(self.frame(("a", "a", "train")), self.frame(("a", "a", "test")))
        assert leaks == Leaks(1, 1, (("a", "a", "a"),))

    def test_a_missing_column(self):
        items = self.frame(("a", "g1", "train"))
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['group'\]"):
            find_leaks(items, items.drop(columns="group"))
