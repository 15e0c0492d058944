from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.retrieval import protocols
from visual_search.retrieval.measure import find_neighbours, score
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.report import RetrievalReport, with_intervals


def items(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    known = {"item_id": [f"i{n}" for n in range(count)], "category": ["hat"] * count}
    table = pd.DataFrame({**known, "split": ["test"] * count, **columns}, dtype=str)
    return table.assign(group=table["item_id"]) if "group" not in table else table


def measured(table: pd.DataFrame, protocol: Protocol, places, split="test") -> RetrievalReport:
    """The report where each item lies at its place on a line."""
    selection = protocol.choose(table, split)
    embeddings = np.array(places, dtype=np.float32)[:, None]
    gallery, queries = selection.gallery_rows, selection.query_rows
    index = EmbeddingIndex.build(
        embeddings[gallery], table["item_id"].iloc[gallery].tolist(), device="cpu"
    )
    found = find_neighbours(index, table, protocol, selection, embeddings[queries])
    return score(table, protocol, selection, found)


def rows(protocol: Protocol, table: pd.DataFrame, split: str = "test") -> tuple[list[int], ...]:
    chosen = protocol.choose(table, split)
    for side in vars(chosen).values():
        assert side.dtype == np.int64
    return tuple(side.tolist() for side in vars(chosen).values())


SPLIT = items(split=["train", "test", "val", "train", "test", "train"], category=list("aabbab"))


class TestReference2023:
    TABLE = items(
        category=["necktie", "bow", "bow", "bow", "hat", "hat", "hat", "hat", "hat", "hat"],
        split=["train"] * 5 + ["val", "val", "val", "test", "test"],
    )
    PLACES = (100, 0, 1, 2, 200, 201, 202, 203, 204, 205)

    def test_by_hand(self):
        """Found perfectly: the one necktie scores 1 of 5, three bows 3 of 5, six hats 5 of 5."""
        report = measured(self.TABLE, protocols.reference_2023(), self.PLACES)
        means = report.per_category.set_index("category")["reference_2023"]
        assert means.to_dict() == pytest.approx({"necktie": 0.2, "bow": 0.6, "hat": 1.0})
        summary = report.summary
        assert summary["macro_reference_2023"] == pytest.approx((0.2 + 0.6 + 1.0) / 3)
        assert summary["micro_reference_2023"] == pytest.approx((0.2 + 3 * 0.6 + 6 * 1.0) / 10)
        assert report.per_query["neighbour_ids"].map(lambda found: found[0]).tolist() == [
            f"i{n}" for n in range(10)
        ]  # itself
        assert report.per_query["num_relevant"].tolist() == [1, 3, 3, 3, 6, 6, 6, 6, 6, 6]
        assert summary["num_left_out"] == 0

    def test_the_name_of_another_metric_is_nowhere(self):
        report = with_intervals(measured(self.TABLE, protocols.reference_2023(), self.PLACES))
        headline = {"column": "reference_2023", "mean": "reference_2023", "title": "reference_2023"}
        assert report.summary["headline"] == headline
        assert set(report.summary["definitions"]) == {"reference_2023"}
        means = [name for name in report.summary if name.startswith(("micro_", "macro_"))]
        assert means == ["micro_reference_2023", "macro_reference_2023"]
        text = json.dumps(report.summary).lower()
        columns = " ".join([*report.per_query, *report.per_category])
        for word in ("map@", "map_at", "average_precision", "mean average precision"):
            assert word not in text
            assert word not in columns

    def test_who_asks(self):
        protocol = protocols.reference_2023()
        whole = list(range(10))
        assert rows(protocol, self.TABLE) == (whole, whole, [])
        assert rows(protocol, self.TABLE, "val") == ([5, 6, 7], [5, 6, 7], [])
        assert (protocol.exclude, protocol.on_leak) == ("nothing", "allow")

    def test_items_at_the_same_place_may_come_before_the_query(self):
        """Ties go by id: the sixth of six copies is not among its own five."""
        table = items(category=["hat"] * 5 + ["tie"])
        report = measured(table, protocols.reference_2023(), [0.0] * 6)
        assert report.per_query["reference_2023"].tolist() == [1, 1, 1, 1, 1, 0]


class TestGalleryQuery:
    def test_the_asking_split_is_left_out_of_the_gallery(self):
        protocol = protocols.gallery_query(gallery_splits=["train", "val", "test"])
        assert rows(protocol, SPLIT) == ([0, 2, 3, 5], [1, 4], [])
        assert rows(protocol, SPLIT, "val") == ([0, 1, 3, 4, 5], [2], [])
        assert rows(protocols.gallery_query(), SPLIT) == ([0, 3, 5], [1, 4], [])
        assert protocol.question.endswith("search in the train and val and test splits.")

    def test_the_choice_of_the_gallery(self):
        few = protocols.gallery_query(max_per_category=1, gallery_seed=3)
        assert len(rows(few, SPLIT)[0]) == 2
        drawn = protocols.gallery_query(gallery="random", num_items=2)
        assert len(rows(drawn, SPLIT)[0]) == 2
        table = items(split=["train"] * 50 + ["test"])
        seeds = [
            rows(protocols.gallery_query(max_per_category=5, gallery_seed=seed), table)[0]
            for seed in (0, 0, 1)
        ]
        assert seeds[0] == seeds[1] != seeds[2]

    def test_the_settings_arrive(self):
        protocol = protocols.gallery_query(3, ["a", "b"], ["c"], exclude="group", on_leak="drop")
        assert (protocol.k, protocol.relevance, protocol.hierarchy) == (3, ("a", "b"), ("c",))
        assert (protocol.exclude, protocol.on_leak) == ("group", "drop")
        assert (protocol.restrict_to, protocol.report_by) == ((), ("a", "b"))

    def test_one_name_may_be_plain_text(self):
        protocol = protocols.gallery_query(
            relevance="colour", hierarchy="category", gallery_splits="train"
        )
        assert (protocol.relevance, protocol.hierarchy) == (("colour",), ("category",))
        assert protocol.question.endswith("search in the train split.")
        assert rows(protocols.gallery_query(gallery_splits="train"), SPLIT)[0] == [0, 3, 5]


class TestCategoryRestricted:
    def test_only_the_own_category_is_searched(self):
        table = items(
            split=["test"] + ["train"] * 4,
            category=["hat", "hat", "hat", "shoe", "hat"],
            colour=["red", "blue", "red", "red", "red"],
        )
        report = measured(table, protocols.category_restricted(["colour"], k=3), [0, 1, 3, 2, 5])
        line = report.per_query.iloc[0]
        assert line["neighbour_ids"] == ["i1", "i2", "i4"]  # not i3, the red shoe between them
        assert (line["num_relevant"], line["recall"]) == (2, 1.0)
        assert line["average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)
        assert report.per_category["category"].tolist() == ["hat", "shoe"]
        assert "only gallery items" in report.summary["rules"]["restriction"].lower()

    @pytest.mark.parametrize(
        ("relevance", "restrict_to"),
        [(["category"], ["category"]), ("category", "category"), (["a"], ["category", "a"])],
    )
    def test_relevance_by_what_it_is_restricted_to(self, relevance, restrict_to):
        with pytest.raises(
            ValueError, match=r"every item that is searched is relevant.*expected an"
        ):
            protocols.category_restricted(relevance, restrict_to=restrict_to)

    def test_restricted_to_nothing(self):
        with pytest.raises(ValueError, match=r"restrict_to is empty; expected a column"):
            protocols.category_restricted(["colour"], restrict_to=[])
        with pytest.raises(ValueError, match="relevance is empty"):
            protocols.category_restricted([])


class TestLeaveOneOut:
    TABLE = items(group=["a", "a", "b", "c", "d"], category=["hat", "hat", "hat", "tie", "hat"])
    PLACES = (0, 1, 2, 3, 4)

    def test_the_whole_group_is_left_out(self):
        report = measured(self.TABLE, protocols.leave_one_out(k=2), self.PLACES)
        found = report.per_query.set_index("query_id")
        assert found.loc["i0", "neighbour_ids"] == ["i2", "i3"]  # i1 is of its group
        assert found.loc["i2", "neighbour_ids"] == ["i1", "i3"]
        assert found["num_relevant"].tolist() == [2, 2, 3, 0, 3]
        assert found.loc["i0", "average_precision"] == pytest.approx(1 / 2)
        assert report.summary["num_left_out"] == 1

    def test_or_only_the_item(self):
        protocol = protocols.leave_one_out(k=2, exclude="item")
        found = measured(self.TABLE, protocol, self.PLACES).per_query.set_index("query_id")
        assert found.loc["i0", "neighbour_ids"] == ["i1", "i2"]
        assert found["num_relevant"].tolist() == [3, 3, 3, 0, 3]

    def test_a_group_that_leaves_fewer_than_k(self):
        table = items(group=["a", "a", "a", "b"])
        report = measured(table, protocols.leave_one_out(k=3), [0, 1, 2, 3])
        assert report.per_query["neighbour_ids"].tolist() == [["i3"]] * 3 + [["i2", "i1", "i0"]]
        assert report.per_query["precision"].tolist() == pytest.approx([1 / 3] * 3 + [1])
        assert report.per_query["average_precision"].tolist() == [1, 1, 1, 1]

    def test_who_asks(self):
        assert rows(protocols.leave_one_out(), SPLIT) == ([1, 4], [1, 4], [])
        assert rows(protocols.leave_one_out(), SPLIT, "train") == ([0, 3, 5], [0, 3, 5], [])


class TestColdStart:
    NEW = items(split=["train", "train", "test", "test", "val"], category=list("aabba"))

    def test_who_asks_and_what_is_kept_apart(self):
        protocol = protocols.cold_start()
        assert rows(protocol, self.NEW) == ([2, 3], [2, 3], [0, 1])
        assert rows(protocol, self.NEW, "val") == ([4], [4], [0, 1])  # known, and allowed
        assert (protocol.exclude, protocol.on_leak) == ("group", "error")
        assert "categories never trained on" in protocol.question

    def test_a_test_category_that_is_trained_on(self):
        with pytest.raises(ValueError, match=r"2 categor.* trained on, such as \['a', 'b'\]"):
            protocols.cold_start().choose(
                items(split=["train", "train", "test", "test"], category=list("abab")), "test"
            )
        known = self.NEW.assign(category=list("aabaa"))
        with pytest.raises(ValueError, match=r"1 categor.*protocol.unseen=groups"):
            protocols.cold_start().choose(known, "test")
        assert rows(protocols.cold_start(unseen="groups"), known) == ([2, 3], [2, 3], [0, 1])

    def test_refusals(self):
        with pytest.raises(ValueError, match="unseen is 'items'; expected 'categories' or"):
            protocols.cold_start(unseen="items")
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['category'\]"):
            protocols.cold_start().select(self.NEW.drop(columns="category"), "test")


class TestCrossDomain:
    TABLE = items(
        source=["scene", "scene", "product", "product", "product", "scene"],
        group=["p", "q", "p", "q", "r", "p"],
        split=["test", "test", "test", "test", "train", "val"],
        category=["hat", "tie", "hat", "tie", "hat", "hat"],
    )

    def test_by_hand(self):
        protocol = protocols.cross_domain("source", "scene", "product", k=2)
        report = measured(self.TABLE, protocol, [0, 10, 2, 9, 1, 0])
        found = report.per_query.set_index("query_id")
        assert found["neighbour_ids"].to_dict() == {"i0": ["i4", "i2"], "i1": ["i3", "i2"]}
        assert found["num_relevant"].tolist() == [1, 1]  # the product itself
        assert found["reciprocal_rank"].tolist() == [1 / 2, 1.0]
        assert report.per_category["category"].tolist() == ["hat", "tie"]  # not a line a group

    def test_the_splits_of_the_gallery(self):
        settings = {"column": "source", "query_value": "scene", "gallery_value": "product"}
        assert rows(protocols.cross_domain(**settings), self.TABLE) == ([2, 3, 4], [0, 1], [])
        assert rows(protocols.cross_domain(**settings), self.TABLE, "val") == ([2, 3, 4], [5], [])
        for splits in ("train", ["train"]):
            protocol = protocols.cross_domain(**settings, gallery_splits=splits)
            assert rows(protocol, self.TABLE) == ([4], [0, 1], [])

    def test_refusals(self):
        for values, wrong in ((("photo", "product"), "photo"), (("scene", "film"), "film")):
            protocol = protocols.cross_domain("source", *values)
            with pytest.raises(
                ValueError, match=rf"no item has '{wrong}' in column 'source'; .*prod"
            ):
                protocol.choose(self.TABLE, "test")
        protocol = protocols.cross_domain("sourse", "scene", "product")
        with pytest.raises(ValueError, match=r"lacks the column.*did you mean 'source'\?"):
            protocol.choose(self.TABLE, "test")
        with pytest.raises(ValueError, match=r"expected protocol\.exclude=item"):
            protocols.cross_domain("source", "scene", "product", exclude="group")


class TestPublished:
    TABLE = items(
        split=["train", "test", "test", "test", "val", "val"],
        is_query=["0", "1", "True", "", "no", ""],
        is_gallery=["yes", "1", "", "T", "Y", "NaN"],
    )

    def test_the_flags_decide(self):
        protocol = protocols.published()
        assert rows(protocol, self.TABLE) == ([0, 1, 3, 4], [1, 2], [])
        report = measured(self.TABLE, protocols.published(k=2), range(6))
        assert report.per_query["neighbour_ids"].tolist() == [["i0", "i3"], ["i1", "i3"]]

    def test_validation_without_flagged_queries_asks_the_training_split(self):
        assert rows(protocols.published(), self.TABLE, "val") == ([0], [4, 5], [])
        flagged = self.TABLE.assign(is_query=["0", "1", "1", "0", "0", " TRUE "])
        assert rows(protocols.published(), flagged, "val") == ([0, 1, 3, 4], [5], [])

    def test_validation_by_product_asks_itself(self):
        products = self.TABLE.assign(product=["a", "b", "b", "c", "d", "d"])
        protocol = protocols.published(relevance=["product"])
        assert rows(protocol, products, "val") == ([4, 5], [4, 5], [])
        answered = products.assign(product=["d", "b", "b", "c", "d", "e"])
        assert rows(protocol, answered, "val") == ([0], [4, 5], [])

    def test_other_columns(self):
        renamed = self.TABLE.rename(columns={"is_query": "asks", "is_gallery": "held"})
        assert rows(protocols.published("asks", "held"), renamed) == ([0, 1, 3, 4], [1, 2], [])

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['is_gallery'\]"):
            protocols.published().choose(self.TABLE.drop(columns="is_gallery"), "test")
        for column in ("is_query", "is_gallery"):
            wrong = self.TABLE.assign(**{column: ["1", "0", "1", "0", "maybe", "1"]})
            with pytest.raises(
                ValueError, match=rf"column '{column}' holds 'maybe'; expected a flag"
            ):
                protocols.published().choose(wrong, "test")
        nobody = self.TABLE.assign(is_query="0")
        with pytest.raises(ValueError, match="finds no item for the queries"):
            protocols.published().choose(nobody, "test")


@pytest.mark.parametrize(
    "build",
    [
        protocols.gallery_query,
        protocols.leave_one_out,
        protocols.cold_start,
        protocols.published,
        protocols.reference_2023,
        lambda **more: protocols.category_restricted(**{"relevance": ["colour"], **more}),
        lambda **more: protocols.cross_domain("source", "a", "b", **more),
    ],
)
def test_every_builder_refuses_what_a_protocol_refuses(build):
    assert build(k=3).k == 3
    with pytest.raises(ValueError, match="k is 0"):
        build(k=0)
    with pytest.raises(TypeError, match=r"k is 2\.5"):
        build(k=2.5)
    with pytest.raises(ValueError, match="relevance is empty"):
        build(relevance=[])


def test_every_builder_is_here():
    """A builder's name is its protocol's: a new one has to be tested in this file."""
    named = [
        name
        for name, made in vars(protocols).items()
        if getattr(made, "__module__", "") == protocols.__name__
    ]
    assert sorted(name for name in named if not name.startswith("_")) == [
        "category_restricted",
        "cold_start",
        "cross_domain",
        "gallery_query",
        "leave_one_out",
        "published",
        "reference_2023",
    ]
    assert protocols.gallery_query().name == "gallery_query"
    assert protocols.leave_one_out().name == "leave_one_out"
    assert protocols.cold_start().name == "cold_start"
    assert protocols.published().name == "published"
    assert protocols.reference_2023().name == "reference_2023"
    assert protocols.category_restricted(["colour"]).name == "category_restricted"
    assert protocols.cross_domain("source", "a", "b").name == "cross_domain"
