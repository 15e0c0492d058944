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


ITEMS = table()


def of_split(name: str) -> list[int]:
    return np.flatnonzero(ITEMS["split"] == name).tolist()


# --- the gallery and the queries ----------------------------------------------------------------


def test_at_most_so_many_of_each_category_from_the_splits_ascending():
    rows = select_gallery(ITEMS, splits=["train", "val"], max_per_category=20)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    chosen = ITEMS.iloc[rows]
    assert set(chosen["split"]) == {"train", "val"}
    held = ITEMS[ITEMS["split"] != "test"]["category"].value_counts().clip(upper=20)
    assert chosen["category"].value_counts().to_dict() == held.to_dict()
    assert select_gallery(ITEMS, splits=["test"]).tolist() == of_split("test")  # all of a small one


def test_random_takes_n_whatever_the_category():
    rows = select_gallery(ITEMS, kind="random", num_items=37)
    assert len(rows) == len(set(rows.tolist())) == 37
    assert set(ITEMS["split"].iloc[rows]) == {"train"}


@pytest.mark.parametrize(
    "settings", [{"max_per_category": 15}, {"kind": "random", "num_items": 40}]
)
def test_the_choice_depends_on_the_seed_and_hardly_on_the_other_items(settings):
    def chosen(items: pd.DataFrame, **more) -> set[str]:
        return set(items["item_id"].iloc[select_gallery(items, **settings, **more)])

    before = chosen(ITEMS)
    assert chosen(ITEMS.sample(frac=1, random_state=1)) == before
    assert chosen(ITEMS, seed=1) != before
    added = table(330).iloc[300:].assign(split="train")
    after = chosen(pd.concat([ITEMS, added], ignore_index=True))
    new = after - set(ITEMS["item_id"])
    assert 0 < len(new) < 15
    assert len(before - after) <= len(new)  # one goes for one that comes, nobody else moves


def test_the_order_is_pinned_and_even():
    """The same items for every model, in every release: this list may never change."""
    assert stable_order([f"item-{n}" for n in range(8)], 0).tolist() == [5, 1, 4, 7, 6, 2, 0, 3]
    first_half = stable_order([f"item-{n}" for n in range(10_000)], 3)[:5000]
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
def test_a_gallery_that_cannot_be_chosen_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        select_gallery(ITEMS, **settings)
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['category'\]"):
        select_gallery(ITEMS.drop(columns="category"))


def test_the_split_that_asks_is_left_out():
    assert gallery_splits("val") == ("train",)
    assert gallery_splits("val", ["train", "val", "test", "train"]) == ("train", "test")
    assert gallery_splits("val", "train") == ("train",)
    with pytest.raises(ValueError, match=r"splits are \['val'\], .* come from 'val'"):
        gallery_splits("val", ["val"])


def test_queries_are_all_of_their_split():
    rows = select_queries(ITEMS, "val")
    assert rows.dtype == np.int64
    assert rows.tolist() == of_split("val")
    with pytest.raises(ValueError, match="query split 'validation' hold"):
        select_queries(ITEMS, "validation")
    with pytest.raises(ValueError, match="lacks the column"):
        select_queries(ITEMS.drop(columns="split"), "val")


# --- the rules ----------------------------------------------------------------------------------


def sides(gallery, queries) -> Selection:
    return Selection(np.array(gallery, dtype=np.int64), np.array(queries, dtype=np.int64))


def protocol(**settings) -> Protocol:
    known = {"name": "mine", "question": "Who?", "k": 5, "select": lambda *_: sides([0], [1])}
    return Protocol(**{**known, **settings})


def test_what_is_broken_down_by_what_it_looks_at_and_who_counts_the_query():
    assert protocol().report_by == ("category",)
    assert protocol(relevance=("colour", "kind")).report_by == ("colour", "kind")
    assert protocol(relevance=("colour",), report_by=("kind",)).report_by == ("kind",)
    # not a line for each of thousands of groups
    assert protocol(relevance=("group",)).report_by == ("category",)
    rules = protocol(
        relevance=("colour", "kind"), hierarchy=("category", "kind"), restrict_to=("category",)
    )
    assert rules.columns == ("colour", "kind", "category")  # each once
    counting = [rule for rule in ("item", "group", "nothing")
                if protocol(exclude=rule).counts_the_query]  # fmt: skip
    assert counting == ["nothing"]


def test_the_rules_are_plain_and_leave_out_what_only_chooses_sides():
    rules = protocol(relevance=("colour",), hierarchy=("category",), on_leak="drop").rules()
    assert rules == {
        "name": "mine", "k": 5, "relevance": ["colour"], "hierarchy": ["category"],
        "report_by": ["colour"], "restrict_to": [], "exclude": "item",
    }  # fmt: skip


def test_the_sentences():
    assert protocol().sentences() == {
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
    ("settings", "error", "message"),
    [
        ({"k": 0}, ValueError, "k is 0; expected at least 1"),
        ({"k": "5"}, TypeError, r"k is '5' \(str\); expected a whole number"),
        ({"exclude": "query"}, ValueError, "exclude is 'query'; expected one of item, group, not"),
        ({"on_leak": "ignore"}, ValueError, "on_leak is 'ignore'; expected one of error, drop, a"),
        ({"relevance": ()}, ValueError, "protocol.relevance is empty; expected at least one"),
        ({"relevance": ("group",), "exclude": "group"}, ValueError,
         r"relevance is \['group'\] and protocol.exclude 'group'.*protocol.exclude=item"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        protocol(**settings)


def test_it_chooses_after_a_look_at_the_columns():
    asked = []
    rules = protocol(select=lambda *given: asked.append(given) or sides([3, 4], [5]))
    chosen = rules.choose(ITEMS, "val")
    assert (chosen.gallery_rows.tolist(), chosen.query_rows.tolist()) == ([3, 4], [5])
    assert (chosen.apart_from.tolist(), chosen.apart_from.dtype) == ([], np.int64)
    assert asked[0][0] is ITEMS
    assert asked[0][1] == "val"
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['categroy'\].*'category'\?"):
        replace(rules, relevance=("categroy",)).choose(ITEMS, "val")
    assert len(asked) == 1
    for side, empty in (("gallery", sides([], [1])), ("queries", sides([1], []))):
        with pytest.raises(ValueError, match=rf"'mine' finds no item for the {side} .*'test'"):
            protocol(select=lambda *_, empty=empty: empty).choose(ITEMS, "test")


# --- labels and fingerprints --------------------------------------------------------------------


def test_a_label_is_the_text_itself_and_several_are_only_joined():
    items = pd.DataFrame({"colour": ["a / b", "", "/", "a"]})
    found = labels(items, np.array([3, 0, 1, 2]), ["colour"])
    assert found.dtype == object
    assert found.tolist() == ["a", "a / b", "", "/"]
    assert labels(items, np.array([], dtype=np.int64), ["colour"]).shape == (0,)
    items = pd.DataFrame({"kind": ["T-shirt/top", ""], "colour": ["red", "red"]})
    assert labels(items, np.arange(2), ["kind", "colour"]).tolist() == ["T-shirt/top / red", ""]


@pytest.mark.parametrize("width", [2, 3])
def test_no_two_combinations_have_one_label(width):
    values = ["a", "/", "//", "a /", "/ a", "a / a", "a // a", "a/a", " / ", " ", "/ / /"]
    pairs = list(itertools.product(values, repeat=width))
    names = [f"c{n}" for n in range(width)]
    found = labels(pd.DataFrame(pairs, columns=names), np.arange(len(pairs)), names)
    assert len(set(found.tolist())) == len(pairs)


def test_a_fingerprint_tells_lists_apart():
    ab = ["a", "b"]
    lists = [(ab,), (["b", "a"],), (["ab"],), (["a"], ["b"]), (ab, []), (['a", "b'],)]
    found = [fingerprint(*parts) for parts in lists]
    assert len(set(found)) == len(lists)
    assert fingerprint(("a", "b")) == found[0]
    assert all(len(text) == 64 for text in found)
