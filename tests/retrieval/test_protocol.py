from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.protocol import (
    EXCLUSION_RULE,
    TIE_RULE,
    Protocol,
    Selection,
    fingerprint,
    gallery_splits,
    labels,
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


def sides(gallery, queries) -> Selection:
    return Selection(np.array(gallery, dtype=np.int64), np.array(queries, dtype=np.int64))


def protocol(**settings) -> Protocol:
    known = {
        "name": "mine",
        "question": "Who?",
        "k": 5,
        "select": lambda table, split: sides([0], [1]),
    }
    return Protocol(**{**known, **settings})


class TestProtocol:
    def test_what_is_broken_down_by_what(self):
        assert protocol().report_by == ("category",)
        assert protocol(relevance=("colour", "kind")).report_by == ("colour", "kind")
        assert protocol(relevance=("colour",), report_by=("kind",)).report_by == ("kind",)
        # not a line for each of thousands of groups
        assert protocol(relevance=("group",)).report_by == ("category",)

    def test_the_columns_that_it_looks_at_each_once(self):
        rules = protocol(
            relevance=("colour", "kind"), hierarchy=("category", "kind"), restrict_to=("category",)
        )
        assert rules.columns == ("colour", "kind", "category")

    def test_who_counts_the_query(self):
        assert [
            protocol(exclude=rule).counts_the_query for rule in ("item", "group", "nothing")
        ] == [
            False,
            False,
            True,
        ]

    def test_the_rules_are_plain_and_leave_out_what_only_chooses_sides(self):
        rules = protocol(relevance=("colour",), hierarchy=("category",), on_leak="drop").rules()
        assert rules == {
            "name": "mine",
            "k": 5,
            "relevance": ["colour"],
            "hierarchy": ["category"],
            "report_by": ["colour"],
            "restrict_to": [],
            "exclude": "item",
        }

    def test_the_sentences(self):
        sentences = protocol().sentences()
        assert sentences == {
            "question": "Who?",
            "relevance": "A gallery item is relevant to a query when both have the same category.",
            "self_exclusion": EXCLUSION_RULE,
            "ties": TIE_RULE,
        }
        more = protocol(
            relevance=("colour", "kind"),
            hierarchy=("category", "colour"),
            restrict_to=("category", "group"),
            exclude="group",
        ).sentences()
        assert more["relevance"].endswith("the same colour and kind.")
        assert more["restriction"].endswith("the query's category and group are searched.")
        assert more["grades"].endswith("that agree: category, colour.")
        assert "whole group is excluded" in more["self_exclusion"]
        assert "its own hit" in protocol(exclude="nothing").sentences()["self_exclusion"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"k": 0}, "k is 0; expected at least 1"),
            ({"exclude": "query"}, "protocol.exclude is 'query'; expected one of item, group, not"),
            ({"on_leak": "ignore"}, "protocol.on_leak is 'ignore'; expected one of error, drop, a"),
            ({"relevance": ()}, "protocol.relevance is empty; expected at least one column"),
            (
                {"relevance": ("group",), "exclude": "group"},
                r"relevance is \['group'\] and protocol.exclude 'group'.*protocol.exclude=item",
            ),
        ],
    )
    def test_refusals(self, settings, message):
        with pytest.raises(ValueError, match=message):
            protocol(**settings)

    def test_k_that_is_no_number(self):
        with pytest.raises(TypeError, match=r"k is '5' \(str\); expected a whole number"):
            protocol(k="5")

    def test_it_chooses_after_a_look_at_the_columns(self):
        items = table()
        asked = []
        rules = protocol(select=lambda *given: asked.append(given) or sides([3, 4], [5]))
        chosen = rules.choose(items, "val")
        assert (chosen.gallery_rows.tolist(), chosen.query_rows.tolist()) == ([3, 4], [5])
        assert (chosen.apart_from.tolist(), chosen.apart_from.dtype) == ([], np.int64)
        assert len(asked) == 1
        assert asked[0][0] is items
        assert asked[0][1] == "val"
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['categroy'\].*'category'\?"):
            replace(rules, relevance=("categroy",)).choose(items, "val")
        assert len(asked) == 1

    @pytest.mark.parametrize(
        ("side", "chosen"), [("gallery", sides([], [1])), ("queries", sides([1], []))]
    )
    def test_an_empty_side(self, side, chosen):
        rules = protocol(select=lambda table, split: chosen)
        with pytest.raises(
            ValueError, match=rf"'mine' finds no item for the {side} \(asking split 't"
        ):
            rules.choose(table(), "test")


class TestLabels:
    def test_one_column_is_given_as_it_is(self):
        items = pd.DataFrame({"colour": ["a / b", "", "/", "a"]})
        found = labels(items, np.array([3, 0, 1, 2]), ["colour"])
        assert found.dtype == object
        assert found.tolist() == ["a", "a / b", "", "/"]
        assert labels(items, np.array([], dtype=np.int64), ["colour"]).shape == (0,)

    def test_no_two_combinations_have_one_label(self):
        values = ["a", "/", "//", "a /", "/ a", "a / a", "a // a", "a/a", " / ", " ", "/ / /"]
        for width in (2, 3):
            pairs = list(itertools.product(values, repeat=width))
            names = [f"c{n}" for n in range(width)]
            items = pd.DataFrame(pairs, columns=names)
            found = labels(items, np.arange(len(pairs)), names)
            assert len(set(found.tolist())) == len(pairs)

    def test_ordinary_names_are_only_joined(self):
        items = pd.DataFrame({"kind": ["T-shirt/top", ""], "colour": ["red", "red"]})
        assert labels(items, np.array([0, 1]), ["kind", "colour"]).tolist() == [
            "T-shirt/top / red",
            "",
        ]


def test_a_fingerprint_tells_lists_apart():
    lists = [
        (["a", "b"],),
        (["b", "a"],),
        (["ab"],),
        (["a"], ["b"]),
        (["a", "b"], []),
        (['a", "b'],),
    ]
    found = [fingerprint(*parts) for parts in lists]
    assert len(set(found)) == len(lists)
    assert fingerprint(("a", "b")) == found[0]
    assert all(len(text) == 64 for text in found)
