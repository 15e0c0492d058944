from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.searching import evaluate_retrieval
from visual_search.knn.gallery_index import EmbeddingIndex, NearestItems
from visual_search.retrieval.metrics import definitions
from visual_search.retrieval.report import RetrievalReport, with_intervals
from visual_search.retrieval.statistics import MIN_QUERIES, Interval

GALLERY_IDS = ["h1", "h2", "h3", "s1", "s2", "t1"]
LOG3 = 1 / math.log2(3)  # the discount of rank 2
GALLERY_CATEGORIES = ["hat", "hat", "hat", "shoe", "shoe", "NA"]


def result(**neighbours: list[str]) -> NearestItems:
    """The search result in which each query found these gallery items, at distances 1, 2, ..."""
    rows = np.array([[GALLERY_IDS.index(item) for item in row] for row in neighbours.values()])
    return NearestItems(
        query_ids=np.array([*neighbours, None], dtype=object)[:-1],
        item_ids=np.array([*GALLERY_IDS, None], dtype=object)[rows],
        rows=rows,
        squared_distances=np.tile(np.arange(1.0, rows.shape[1] + 1), (len(rows), 1)),
    )


def hand_worked() -> RetrievalReport:
    """Two hats (one of them in the gallery), a shoe, and a tie that nobody sells; k = 3."""
    found = result(
        h1=["h2", "s1", "h3", "t1"],  # R = 2, hits at 1, 3: AP (1 + 2/3) / 2 = 5/6
        x=["s1", "h1", "s2", "h2"],  # R = 3, hit at 2 (the one at 4 lies behind k): AP 1/2 / 3
        y=["h1", "h2", "h3", "s1"],  # R = 2, no hit within 3: 0
        z=["h1", "h2", "h3", "s1"],  # R = 0: left out
    )
    return evaluate_retrieval(
        found, ["hat", "hat", "shoe", "=tie"], GALLERY_CATEGORIES, GALLERY_IDS, k=3
    )


def test_per_query_by_hand():
    table = hand_worked().per_query.set_index("query_id")
    assert table["num_relevant"].tolist() == [2, 3, 2, 0]
    expected = {
        "average_precision": [5 / 6, 1 / 6, 0, math.nan],
        "precision": [2 / 3, 1 / 3, 0, math.nan],
        "recall": [1, 1 / 3, 0, math.nan],
        "hit_at_1": [1, 0, 0, math.nan],
        "hit_at_k": [1, 1, 0, math.nan],
        "reciprocal_rank": [1, 1 / 2, 0, math.nan],
        # x could have 1 + 1 / log2(3) + 1 / 2; the hits of h1 stand at ranks 1 and 3, of two
        "ndcg": [1.5 / (1 + LOG3), LOG3 / (1.5 + LOG3), 0, math.nan],
    }
    for column, values in expected.items():
        np.testing.assert_allclose(table[column], values, err_msg=column)
    assert table.loc["x", "neighbour_ids"] == ["s1", "h1", "s2"]
    assert table.loc["x", "neighbour_categories"] == ["shoe", "hat", "shoe"]
    assert table.loc["x", "neighbour_squared_distances"] == [1.0, 2.0, 3.0]
    assert table["neighbour_relevant"].tolist() == [
        [True, False, True],
        [False, True, False],
        [False] * 3,
        [False] * 3,
    ]
    assert table["group"].tolist() == ["h1", "x", "y", "z"]  # every query is its own


def test_per_category_by_hand():
    table = hand_worked().per_category
    assert table["category"].tolist() == ["=tie", "NA", "hat", "shoe"]  # sorted
    assert table["num_gallery"].tolist() == [0, 1, 3, 2]
    assert table["num_queries"].tolist() == [1, 0, 2, 1]
    assert table["num_queries_scored"].tolist() == [0, 0, 2, 1]
    assert table["num_left_out"].tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(table["map_at_3"], [math.nan, math.nan, 1 / 2, 0])
    np.testing.assert_allclose(table["mrr_at_3"], [math.nan, math.nan, 3 / 4, 0])


def test_summary_by_hand():
    summary = hand_worked().summary
    counts = {name: value for name, value in summary.items() if name.startswith("num_")}
    assert counts == {
        "num_gallery": 6,
        "num_queries": 4,
        "num_queries_scored": 3,
        "num_left_out": 1,
        "num_categories": 4,
        "num_categories_scored": 2,
    }
    assert summary["micro_map_at_3"] == pytest.approx(1 / 3)  # (5/6 + 1/6 + 0) / 3 queries
    assert summary["macro_map_at_3"] == pytest.approx(1 / 4)  # (1/2 + 0) / 2 categories
    assert summary["micro_precision_at_3"] == pytest.approx(1 / 3)
    assert summary["macro_precision_at_3"] == pytest.approx(1 / 4)
    assert summary["micro_hit_at_1"] == pytest.approx(1 / 3)
    assert summary["micro_mrr_at_3"] == pytest.approx(1 / 2)
    assert summary["k"] == 3
    headline = {"column": "average_precision", "mean": "map_at_3", "title": "mAP@3"}
    assert summary["headline"] == headline


def test_every_number_carries_its_definition_and_the_rules():
    report = hand_worked()
    summary = report.summary
    named = {name[6:] for name in summary if name.startswith(("micro_", "macro_"))}
    assert named == set(summary["definitions"]) == set(definitions(3))
    assert named < set(report.per_category.columns)
    assert set(summary["rules"]) == {
        "question",
        "relevance",
        "self_exclusion",
        "ties",
        "micro",
        "macro",
    }


def test_k_of_one_has_one_hit_column():
    found = result(x=["h1"], y=["h1"])
    report = evaluate_retrieval(found, ["hat", "shoe"], GALLERY_CATEGORIES, GALLERY_IDS, k=1)
    assert [c for c in report.per_category.columns if c.startswith("hit")] == ["hit_at_1"]
    assert report.summary["micro_hit_at_1"] == 0.5


def test_nothing_to_score_is_nan_and_said():
    found = result(x=["h1", "h2", "h3", "s1", "s2"])
    report = evaluate_retrieval(found, ["tie"], GALLERY_CATEGORIES, GALLERY_IDS)
    assert math.isnan(report.summary["micro_map_at_5"])
    assert math.isnan(report.summary["macro_map_at_5"])
    assert (report.summary["num_queries_scored"], report.summary["num_left_out"]) == (0, 1)


def a_search(count: int = 300):
    rng = np.random.default_rng(0)
    embeddings = np.round(rng.standard_normal((count, 3)), 1).astype(np.float32)
    ids = [f"item-{n}" for n in range(count)]
    categories = rng.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1]).tolist()
    return embeddings, ids, categories


def test_the_order_of_gallery_and_queries_changes_no_digit():
    embeddings, ids, categories = a_search()
    reports = []
    for seed in (None, 1, 2):
        rng = np.random.default_rng(seed)
        held = np.arange(300) if seed is None else rng.permutation(300)
        asked = np.arange(300) if seed is None else rng.permutation(300)
        index = EmbeddingIndex.build(embeddings[held], [ids[n] for n in held], device="cpu")
        found = index.search(embeddings[asked], 5, [ids[n] for n in asked])
        gallery = [categories[n] for n in held]
        reports.append(
            evaluate_retrieval(found, [categories[n] for n in asked], gallery, index.item_ids)
        )
    for other in reports[1:]:
        assert other.summary == reports[0].summary
        pd.testing.assert_frame_equal(other.per_category, reports[0].per_category, check_exact=True)
        first, second = (
            report.per_query.sort_values("query_id", ignore_index=True)
            for report in (reports[0], other)
        )
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_against_a_slow_evaluation_of_brute_force():
    embeddings, ids, categories = a_search(80)
    index = EmbeddingIndex.build(embeddings, ids, device="cpu")
    report = evaluate_retrieval(index.search(embeddings, 5, ids), categories, categories, ids)
    for n, row in enumerate(report.per_query.itertuples()):
        others = [m for m in range(80) if m != n]
        distances = ((embeddings.astype(float) - embeddings[n]) ** 2).sum(axis=1)
        ranked = sorted(others, key=lambda m: (distances[m], ids[m]))
        same = [categories[m] == categories[n] for m in ranked]
        total = sum(sum(same[: i + 1]) / (i + 1) for i in range(5) if same[i])
        assert row.num_relevant == sum(same)
        assert row.average_precision == pytest.approx(total / min(sum(same), 5))


@pytest.fixture
def intervals() -> RetrievalReport:
    """Of every query three times, in groups of their own: fewer than five have no interval."""
    report = hand_worked()
    copies = [report.per_query.assign(group=report.per_query["group"] + str(n)) for n in range(3)]
    thrice = replace(report, per_query=pd.concat(copies, ignore_index=True))
    return with_intervals(thrice, num_resamples=200)


class TestIntervals:
    def test_every_field_is_there_and_plain(self, intervals):
        summary = intervals.summary
        assert list(summary["intervals"]) == ["micro", "macro"]
        for statistic, ends in summary["intervals"].items():
            assert set(ends) == {field.name for field in fields(Interval)}
            assert ends["mean"] == pytest.approx(summary[f"{statistic}_map_at_3"])
            assert 0 <= ends["low"] < ends["mean"] < ends["high"] <= 1
            assert (ends["num_queries"], ends["num_groups"], ends["num_left_out"]) == (9, 9, 3)
            assert (ends["effective_groups"] < 9) == (statistic == "macro")
            assert json.loads(json.dumps(ends)) == ends
        assert "intervals" not in hand_worked().summary
        assert {**summary, "intervals": None} == {**hand_worked().summary, "intervals": None}

    def test_every_category_has_its_own(self, intervals):
        table = intervals.per_category
        known = hand_worked().per_category
        pd.testing.assert_frame_equal(table[list(known)], known)
        added = ["headline_low", "headline_high", "num_groups", "few_queries"]
        assert list(table.columns[-4:]) == added
        assert table["num_groups"].tolist() == [0, 0, 6, 3]
        assert table["effective_groups"].tolist()[2:] == pytest.approx([6, 3])
        assert table["rough"].tolist() == [True, True, False, True]
        assert table["num_groups"].dtype == np.int64
        known = table["headline_low"].notna().tolist()
        assert known == [False, False, True, False]  # three queries say nothing of the next
        assert table["headline_high"].notna().tolist() == known
        hat = table.iloc[2]
        assert hat["headline_low"] < hat["map_at_3"] < hat["headline_high"]
        assert table["few_queries"].tolist() == [True] * 4

    def test_few_queries_are_fewer_than_the_limit(self):
        num = MIN_QUERIES - 1
        asking = [f"{kind}{n}" for n in range(num) for kind in "xy"]
        found = result(**{name: ["h1", "s1"] for name in [*asking, "x"]})
        asked = ["hat", "shoe"] * num + ["hat"]
        report = evaluate_retrieval(found, asked, GALLERY_CATEGORIES, GALLERY_IDS, k=2)
        table = with_intervals(report, num_resamples=100).per_category.set_index("category")
        assert table["num_queries_scored"].to_dict() == {"NA": 0, "hat": num + 1, "shoe": num}
        assert table["few_queries"].to_dict() == {"NA": True, "hat": False, "shoe": True}

    def test_groups_are_what_is_resampled(self):
        report = hand_worked()
        joined = replace(report, per_query=report.per_query.assign(group="one"))
        ends = with_intervals(joined, num_resamples=100).summary["intervals"]
        assert [ends[name]["num_groups"] for name in ("micro", "macro")] == [1, 1]
        assert all(math.isnan(ends[name]["low"]) for name in ("micro", "macro"))

    def test_nothing_scored(self):
        found = result(x=["h1", "h2"], y=["h1", "h2"])
        report = evaluate_retrieval(found, ["tie", "bow"], GALLERY_CATEGORIES, GALLERY_IDS, k=2)
        report = with_intervals(report, confidence=0.9)
        for ends in report.summary["intervals"].values():
            assert all(math.isnan(ends[name]) for name in ("mean", "low", "high"))
            assert (ends["num_queries"], ends["num_groups"], ends["num_left_out"]) == (0, 0, 2)
            assert (ends["confidence"], ends["method"]) == (0.9, "none: no scored query")
        assert len(report.summary["intervals"]) == 2
        assert report.per_category["headline_low"].isna().all()
        assert report.per_category["num_groups"].tolist() == [0] * 5

    def test_the_same_again_in_any_order_and_others_with_another_seed(self):
        embeddings, ids, categories = a_search(80)
        index = EmbeddingIndex.build(embeddings, ids, device="cpu")
        report = evaluate_retrieval(index.search(embeddings, 5, ids), categories, categories, ids)
        turned = replace(report, per_query=report.per_query.iloc[::-1].reset_index(drop=True))
        first, again, other = (
            with_intervals(one, num_resamples=200, seed=seed)
            for one, seed in ((report, 0), (turned, 0), (report, 1))
        )
        assert again.summary == first.summary
        pd.testing.assert_frame_equal(again.per_category, first.per_category, check_exact=True)
        for statistic in ("micro", "macro"):
            ends = [one.summary["intervals"][statistic] for one in (first, other)]
            assert ends[0]["low"] != ends[1]["low"]
        assert not other.per_category["headline_low"].equals(first.per_category["headline_low"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_resamples": 10}, "num_resamples is 10"),
            ({"confidence": 1.0}, "confidence is 1.0"),
            ({"seed": -1}, "seed is -1"),
        ],
    )
    def test_refusals(self, settings, message):
        with pytest.raises(ValueError, match=message):
            with_intervals(hand_worked(), **settings)
