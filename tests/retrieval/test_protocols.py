from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.test_measure import evaluate
from visual_search.retrieval import protocols
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.report import RetrievalReport, with_intervals

BUILDERS = {
    "gallery_query": protocols.gallery_query,
    "leave_one_out": protocols.leave_one_out,
    "instance": protocols.instance,
    "cold_start": protocols.cold_start,
    "published": protocols.published,
    "reference_2023": protocols.reference_2023,
    "category_restricted": lambda **more: protocols.category_restricted(
        **{"relevance": ["colour"], **more}
    ),
    "cross_domain": lambda **more: protocols.cross_domain("source", "scene", "product", **more),
}


def items(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    known = {"item_id": [f"i{n}" for n in range(count)], "category": ["hat"] * count}
    table = pd.DataFrame({**known, "split": ["test"] * count, **columns}, dtype=str)
    return table.assign(group=table["item_id"]) if "group" not in table else table


def measured(table: pd.DataFrame, protocol: Protocol, places) -> RetrievalReport:
    """The report where each item lies at its place on a line."""
    embeddings = np.array(places, dtype=np.float32)[:, None]
    return evaluate(table, protocol, protocol.choose(table, "test"), embeddings)


def rows(protocol: Protocol, table: pd.DataFrame, split: str = "test") -> tuple[list[int], ...]:
    """The rows of the gallery, of the queries, and of what both are kept apart from."""
    chosen = vars(protocol.choose(table, split)).values()
    assert all(side.dtype == np.int64 for side in chosen)
    return tuple(side.tolist() for side in chosen)


SPLIT = items(split=["train", "test", "val", "train", "test", "train"], category=list("aabbab"))


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_gives_its_name_and_refuses_what_a_protocol_refuses(name):
    build = BUILDERS[name]
    assert (build().name, build().k, build(k=3).k) == (name, 5, 3)
    with pytest.raises(ValueError, match="k is 0"):
        build(k=0)
    with pytest.raises(TypeError, match=r"k is 2\.5"):
        build(k=2.5)
    with pytest.raises(ValueError, match="relevance is empty"):
        build(relevance=[])


def test_every_builder_is_here():
    """A builder's name is its protocol's: a new one has to be tested in this file."""
    named = {
        name
        for name, made in vars(protocols).items()
        if getattr(made, "__module__", "") == protocols.__name__ and not name.startswith("_")
    }
    assert named == set(BUILDERS)


# --- reference_2023 -----------------------------------------------------------------------------

NECKTIE = items(
    category=["necktie", "bow", "bow", "bow", "hat", "hat", "hat", "hat", "hat", "hat"],
    split=["train"] * 5 + ["val", "val", "val", "test", "test"],
)


def test_the_rule_of_2023_by_hand():
    """Found perfectly: the one necktie scores 1 of 5, three bows 3 of 5, six hats 5 of 5."""
    places = (100, 0, 1, 2, 200, 201, 202, 203, 204, 205)
    report = with_intervals(measured(NECKTIE, protocols.reference_2023(), places))
    means = report.per_category.set_index("category")["reference_2023"]
    assert means.to_dict() == pytest.approx({"necktie": 0.2, "bow": 0.6, "hat": 1.0})
    summary = report.summary
    assert summary["macro_reference_2023"] == pytest.approx((0.2 + 0.6 + 1.0) / 3)
    assert summary["micro_reference_2023"] == pytest.approx((0.2 + 3 * 0.6 + 6 * 1.0) / 10)
    first = [found[0] for found in report.per_query["neighbour_ids"]]
    assert first == NECKTIE["item_id"].tolist()  # itself
    assert report.per_query["num_relevant"].tolist() == [1, 3, 3, 3, 6, 6, 6, 6, 6, 6]
    assert summary["num_left_out"] == 0

    # the name of another metric is nowhere
    name = "reference_2023"
    assert summary["headline"] == {"column": name, "mean": name, "title": name}
    assert set(summary["definitions"]) == {name}
    means = [key for key in summary if key.startswith(("micro_", "macro_"))]
    assert means == [f"micro_{name}", f"macro_{name}"]
    text = " ".join([json.dumps(summary).lower(), *report.per_query, *report.per_category])
    for word in ("map@", "map_at", "average_precision", "mean average precision"):
        assert word not in text


def test_by_the_rule_of_2023_everybody_asks_and_is_asked():
    protocol = protocols.reference_2023()
    whole = list(range(10))
    assert rows(protocol, NECKTIE) == (whole, whole, [])
    assert rows(protocol, NECKTIE, "val") == ([5, 6, 7], [5, 6, 7], [])
    assert (protocol.exclude, protocol.on_leak) == ("nothing", "allow")
    # ties go by id: the sixth of six copies is not among its own five
    report = measured(items(category=["hat"] * 5 + ["tie"]), protocol, [0.0] * 6)
    assert report.per_query["reference_2023"].tolist() == [1, 1, 1, 1, 1, 0]


# --- gallery_query ------------------------------------------------------------------------------


def test_the_asking_split_is_left_out_of_the_gallery():
    protocol = protocols.gallery_query(gallery_splits=["train", "val", "test"])
    assert rows(protocol, SPLIT) == ([0, 2, 3, 5], [1, 4], [])
    assert rows(protocol, SPLIT, "val") == ([0, 1, 3, 4, 5], [2], [])
    assert rows(protocols.gallery_query(), SPLIT) == ([0, 3, 5], [1, 4], [])
    assert protocol.question.endswith("search in the train and val and test splits.")


def test_the_choice_of_the_gallery():
    few = protocols.gallery_query(max_per_category=1, gallery_seed=3)
    drawn = protocols.gallery_query(gallery="random", num_items=2)
    assert len(rows(few, SPLIT)[0]) == len(rows(drawn, SPLIT)[0]) == 2
    table = items(split=["train"] * 50 + ["test"])
    seeds = [
        rows(protocols.gallery_query(max_per_category=5, **seed), table)[0]
        for seed in ({}, {"gallery_seed": 0}, {"gallery_seed": 1})
    ]
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_settings_arrive_and_one_name_may_be_plain_text():
    protocol = protocols.gallery_query(3, ["a", "b"], ["c"], exclude="group", on_leak="drop")
    assert (protocol.relevance, protocol.hierarchy) == (("a", "b"), ("c",))
    assert (protocol.exclude, protocol.on_leak) == ("group", "drop")
    assert (protocol.restrict_to, protocol.report_by) == ((), ("a", "b"))
    protocol = protocols.gallery_query(relevance="colour", hierarchy="kind", gallery_splits="train")
    assert (protocol.relevance, protocol.hierarchy) == (("colour",), ("kind",))
    assert protocol.question.endswith("search in the train split.")
    assert rows(protocols.gallery_query(gallery_splits="train"), SPLIT)[0] == [0, 3, 5]


# --- category_restricted ------------------------------------------------------------------------


def test_only_the_own_category_is_searched():
    table = items(
        split=["test"] + ["train"] * 4,
        category=["hat", "hat", "hat", "shoe", "hat"],
        colour=["red", "blue", "red", "red", "red"],
    )
    protocol = protocols.category_restricted(["colour"], k=3)
    line = measured(table, protocol, [0, 1, 3, 2, 5]).per_query.iloc[0]
    assert line["neighbour_ids"] == ["i1", "i2", "i4"]  # not i3, the red shoe between them
    assert line["average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (protocol.restrict_to, protocol.report_by) == (("category",), ("category",))
    assert protocol.relevance == ("colour",)


@pytest.mark.parametrize(
    ("relevance", "restrict_to", "message"),
    [
        (["category"], ["category"], "every item that is searched is relevant"),
        ("category", "category", "every item that is searched is relevant"),
        (["a"], ["category", "a"], "every item that is searched is relevant"),
        (["colour"], [], "restrict_to is empty; expected a column"),
    ],
)
def test_a_restriction_that_makes_no_sense_is_refused(relevance, restrict_to, message):
    with pytest.raises(ValueError, match=message):
        protocols.category_restricted(relevance, restrict_to=restrict_to)


# --- leave_one_out ------------------------------------------------------------------------------


def test_a_split_asks_itself_and_the_whole_group_is_left_out_or_only_the_item():
    protocol = protocols.leave_one_out(k=3)
    assert rows(protocol, SPLIT) == ([1, 4], [1, 4], [])
    assert rows(protocol, SPLIT, "train") == ([0, 3, 5], [0, 3, 5], [])
    assert protocols.leave_one_out(exclude="item").exclude == "item"
    # the whole group is left out, also where it leaves fewer than k
    found = measured(items(group=["a", "a", "a", "b"]), protocol, [0, 1, 2, 3]).per_query
    assert found["neighbour_ids"].tolist() == [["i3"]] * 3 + [["i2", "i1", "i0"]]
    assert found["precision"].tolist() == pytest.approx([1 / 3] * 3 + [1])
    assert found["average_precision"].tolist() == [1, 1, 1, 1]


# --- cold_start ---------------------------------------------------------------------------------

NEW = items(split=["train", "train", "test", "test", "val"], category=list("aabba"))


def test_who_asks_at_a_cold_start_and_what_is_kept_apart():
    protocol = protocols.cold_start()
    assert rows(protocol, NEW) == ([2, 3], [2, 3], [0, 1])
    assert rows(protocol, NEW, "val") == ([4], [4], [0, 1])  # known, and allowed
    assert (protocol.exclude, protocol.on_leak) == ("group", "error")
    assert "categories never trained on" in protocol.question
    known = NEW.assign(category=list("aabaa"))
    assert rows(protocols.cold_start(unseen="groups"), known) == ([2, 3], [2, 3], [0, 1])


def test_a_test_category_that_is_trained_on_is_refused():
    several = items(split=["train", "train", "test", "test"], category=list("abab"))
    with pytest.raises(ValueError, match=r"2 categor.* trained on, such as \['a', 'b'\]"):
        protocols.cold_start().choose(several, "test")
    with pytest.raises(ValueError, match=r"1 categor.*protocol.unseen=groups"):
        protocols.cold_start().choose(NEW.assign(category=list("aabaa")), "test")
    with pytest.raises(ValueError, match="unseen is 'items'; expected 'categories' or"):
        protocols.cold_start(unseen="items")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['category'\]"):
        protocols.cold_start().select(NEW.drop(columns="category"), "test")


# --- cross_domain -------------------------------------------------------------------------------

DOMAINS = items(
    source=["scene", "scene", "product", "product", "product", "scene"],
    group=["p", "q", "p", "q", "r", "p"],
    split=["test", "test", "test", "test", "train", "val"],
    category=["hat", "tie", "hat", "tie", "hat", "hat"],
)
ACROSS = ("source", "scene", "product")


def test_scenes_ask_for_products():
    report = measured(DOMAINS, protocols.cross_domain(*ACROSS, k=2), [0, 10, 2, 9, 1, 0])
    found = report.per_query.set_index("query_id")
    assert found["neighbour_ids"].to_dict() == {"i0": ["i4", "i2"], "i1": ["i3", "i2"]}
    assert found["num_relevant"].tolist() == [1, 1]  # the product itself
    assert found["reciprocal_rank"].tolist() == [1 / 2, 1.0]
    assert report.per_category["category"].tolist() == ["hat", "tie"]  # not a line a group
    assert rows(protocols.cross_domain(*ACROSS), DOMAINS, "val") == ([2, 3, 4], [5], [])
    for splits in ("train", ["train"]):
        protocol = protocols.cross_domain(*ACROSS, gallery_splits=splits)
        assert rows(protocol, DOMAINS) == ([4], [0, 1], [])


@pytest.mark.parametrize(
    ("across", "message"),
    [
        (("source", "photo", "product"), "no item has 'photo' in column 'source'; .*prod"),
        (("source", "scene", "film"), "no item has 'film' in column 'source'; .*prod"),
        (("sourse", "scene", "product"), r"lacks the column.*did you mean 'source'\?"),
    ],
)
def test_a_domain_that_no_item_has_is_refused(across, message):
    with pytest.raises(ValueError, match=message):
        protocols.cross_domain(*across).choose(DOMAINS, "test")
    with pytest.raises(ValueError, match=r"expected protocol\.exclude=item"):
        protocols.cross_domain(*across, exclude="group")


# --- published ----------------------------------------------------------------------------------

FLAGGED = items(
    split=["train", "test", "test", "test", "val", "val"],
    is_query=["0", "1", "True", "", "no", ""],
    is_gallery=["yes", "1", "", "T", "Y", "NaN"],
)


def test_the_published_flags_decide():
    assert rows(protocols.published(), FLAGGED) == ([0, 1, 3, 4], [1, 2], [])
    report = measured(FLAGGED, protocols.published(k=2), range(6))
    assert report.per_query["neighbour_ids"].tolist() == [["i0", "i3"], ["i1", "i3"]]
    renamed = FLAGGED.rename(columns={"is_query": "asks", "is_gallery": "held"})
    assert rows(protocols.published("asks", "held"), renamed) == ([0, 1, 3, 4], [1, 2], [])


def test_published_validation_without_flagged_queries_asks_training_or_by_product_itself():
    assert rows(protocols.published(), FLAGGED, "val") == ([0], [4, 5], [])
    flagged = FLAGGED.assign(is_query=["0", "1", "1", "0", "0", " TRUE "])
    assert rows(protocols.published(), flagged, "val") == ([0, 1, 3, 4], [5], [])
    protocol = protocols.published(relevance=["product"])
    products = FLAGGED.assign(product=list("abbcdd"))
    assert rows(protocol, products, "val") == ([4, 5], [4, 5], [])
    answered = FLAGGED.assign(product=list("dbbcde"))
    assert rows(protocol, answered, "val") == ([0], [4, 5], [])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FLAGGED.drop(columns="is_gallery"), r"lacks the column\(s\) \['is_gallery'\]"),
        (FLAGGED.assign(is_query=["1", "maybe"] * 3), "'is_query' holds 'maybe'"),
        (FLAGGED.assign(is_gallery=["1", "maybe"] * 3), "'is_gallery' holds 'maybe'"),
        (FLAGGED.assign(is_query="0"), "finds no item for the queries"),
    ],
)
def test_published_flags_that_are_none_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        protocols.published().choose(table, "test")
