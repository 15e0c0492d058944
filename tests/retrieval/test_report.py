from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.searching import evaluate_retrieval
from visual_search.knn.gallery_index import NearestItems
from visual_search.retrieval.metrics import definitions
from visual_search.retrieval.report import RetrievalReport, with_intervals
from visual_search.retrieval.statistics import MIN_QUERIES, Interval

GALLERY_IDS = ["h1", "h2", "h3", "s1", "s2", "t1"]
LOG3 = 1 / math.log2(3)  # the discount of rank 2
GALLERY_CATEGORIES = ["hat", "hat", "hat", "shoe", "shoe", "NA"]


def found_by(asked: list[str], k: int, **neighbours: list[str]) -> RetrievalReport:
    """The report in which each query found these gallery items, at distances 1, 2, ..."""
    rows = np.array([[GALLERY_IDS.index(item) for item in row] for row in neighbours.values()])
    result = NearestItems(
        query_ids=np.array([*neighbours, None], dtype=object)[:-1],
        item_ids=np.array([*GALLERY_IDS, None], dtype=object)[rows],
        rows=rows,
        squared_distances=np.tile(np.arange(1.0, rows.shape[1] + 1), (len(rows), 1)),
    )
    return evaluate_retrieval(result, asked, GALLERY_CATEGORIES, GALLERY_IDS, k=k)


def hand_worked() -> RetrievalReport:
    """Two hats (one of them in the gallery), a shoe, and a tie that nobody sells; k = 3."""
    return found_by(
        ["hat", "hat", "shoe", "=tie"],
        3,
        h1=["h2", "s1", "h3", "t1"],  # R = 2, hits at 1, 3: AP (1 + 2/3) / 2 = 5/6
        x=["s1", "h1", "s2", "h2"],  # R = 3, hit at 2 (the one at 4 lies behind k): AP 1/2 / 3
        y=["h1", "h2", "h3", "s1"],  # R = 2, no hit within 3: 0
        z=["h1", "h2", "h3", "s1"],  # R = 0: left out
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
    relevant = [[True, False, True], [False, True, False], [False] * 3, [False] * 3]
    assert table["neighbour_relevant"].tolist() == relevant
    assert table["group"].tolist() == ["h1", "x", "y", "z"]  # every query is its own


def test_per_category_and_summary_by_hand():
    report = hand_worked()
    table, summary = report.per_category, report.summary
    assert table["category"].tolist() == ["=tie", "NA", "hat", "shoe"]  # sorted
    assert table["num_gallery"].tolist() == [0, 1, 3, 2]
    assert table["num_queries"].tolist() == [1, 0, 2, 1]
    assert table["num_queries_scored"].tolist() == [0, 0, 2, 1]
    assert table["num_left_out"].tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(table["map_at_3"], [math.nan, math.nan, 1 / 2, 0])
    np.testing.assert_allclose(table["mrr_at_3"], [math.nan, math.nan, 3 / 4, 0])
    assert {name: value for name, value in summary.items() if name.startswith("num_")} == {
        "num_gallery": 6, "num_queries": 4, "num_queries_scored": 3, "num_left_out": 1,
        "num_categories": 4, "num_categories_scored": 2,
    }  # fmt: skip
    expected = {
        "micro_map_at_3": 1 / 3,  # (5/6 + 1/6 + 0) / 3 queries
        "macro_map_at_3": 1 / 4,  # (1/2 + 0) / 2 categories
        "micro_precision_at_3": 1 / 3,
        "macro_precision_at_3": 1 / 4,
        "micro_hit_at_1": 1 / 3,
        "micro_mrr_at_3": 1 / 2,
        "k": 3,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    headline = {"column": "average_precision", "mean": "map_at_3", "title": "mAP@3"}
    assert summary["headline"] == headline


def test_every_number_carries_its_definition_and_the_rules():
    report = hand_worked()
    summary = report.summary
    named = {name[6:] for name in summary if name.startswith(("micro_", "macro_"))}
    assert named == set(summary["definitions"]) == set(definitions(3))
    assert named < set(report.per_category.columns)
    rules = {"question", "relevance", "self_exclusion", "ties", "micro", "macro"}
    assert set(summary["rules"]) == rules


def test_k_of_one_has_one_hit_column():
    report = found_by(["hat", "shoe"], 1, x=["h1"], y=["h1"])
    assert [c for c in report.per_category.columns if c.startswith("hit")] == ["hit_at_1"]
    assert report.summary["micro_hit_at_1"] == 0.5


# --- intervals ----------------------------------------------------------------------------------


def repeated(times: int = 3) -> RetrievalReport:
    """Every query several times, in groups of their own: fewer than five have no interval."""
    report = hand_worked()
    table = report.per_query
    copies = [table.assign(group=table["group"] + str(n)) for n in range(times)]
    return replace(report, per_query=pd.concat(copies, ignore_index=True))


def test_every_field_of_an_interval_is_there_and_plain():
    summary = with_intervals(repeated(), num_resamples=200).summary
    assert list(summary["intervals"]) == ["micro", "macro"]
    for statistic, ends in summary["intervals"].items():
        assert set(ends) == {field.name for field in fields(Interval)}
        assert ends["mean"] == pytest.approx(summary[f"{statistic}_map_at_3"])
        assert 0 <= ends["low"] < ends["mean"] < ends["high"] <= 1
        assert (ends["num_queries"], ends["num_groups"], ends["num_left_out"]) == (9, 9, 3)
        assert (round(ends["effective_groups"], 6) < 9) == (statistic == "macro")
        assert json.loads(json.dumps(ends)) == ends
    assert "intervals" not in hand_worked().summary
    assert {**summary, "intervals": None} == {**hand_worked().summary, "intervals": None}


def test_every_category_has_its_own_interval():
    table = with_intervals(repeated(), num_resamples=200).per_category
    known = hand_worked().per_category
    pd.testing.assert_frame_equal(table[list(known)], known)
    added = ["headline_low", "headline_high", "num_groups", "few_queries"]
    assert list(table.columns[-4:]) == added
    assert table["num_groups"].tolist() == [0, 0, 6, 3]
    assert table["effective_groups"].tolist()[2:] == pytest.approx([6, 3])
    assert table["rough"].tolist() == [True, True, False, True]
    assert table["num_groups"].dtype == np.int64
    has_ends = [False, False, True, False]  # three queries say nothing of the next
    assert table["headline_low"].notna().tolist() == has_ends
    assert table["headline_high"].notna().tolist() == has_ends
    hat = table.iloc[2]
    assert hat["headline_low"] < hat["map_at_3"] < hat["headline_high"]
    assert table["few_queries"].tolist() == [True] * 4


def test_few_queries_are_fewer_than_the_limit():
    num = MIN_QUERIES - 1
    asked = ["hat", "shoe"] * num + ["hat"]
    found = {f"q{n}": ["h1", "s1"] for n in range(len(asked))}
    report = with_intervals(found_by(asked, 2, **found), num_resamples=100)
    table = report.per_category.set_index("category")
    assert table["num_queries_scored"].to_dict() == {"NA": 0, "hat": num + 1, "shoe": num}
    assert table["few_queries"].to_dict() == {"NA": True, "hat": False, "shoe": True}
    for statistic, ends in report.summary["intervals"].items():
        assert ends["mean"] == report.summary[f"{statistic}_map_at_2"]


def test_nothing_scored_is_nan_and_said():
    report = found_by(["tie", "bow"], 2, x=["h1", "h2"], y=["h1", "h2"])
    assert (report.summary["num_queries_scored"], report.summary["num_left_out"]) == (0, 2)
    report = with_intervals(report, confidence=0.9)
    assert list(report.summary["intervals"]) == ["micro", "macro"]
    for statistic, ends in report.summary["intervals"].items():
        assert math.isnan(report.summary[f"{statistic}_map_at_2"])
        assert all(math.isnan(ends[name]) for name in ("mean", "low", "high"))
        assert (ends["num_queries"], ends["num_groups"], ends["num_left_out"]) == (0, 0, 2)
        assert (ends["confidence"], ends["method"]) == (0.9, "none: no scored query")
    assert report.per_category["headline_low"].isna().all()
    assert report.per_category["num_groups"].tolist() == [0] * 5


def test_intervals_are_the_same_in_any_order_and_others_with_another_seed():
    report = repeated(10)
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
def test_settings_of_an_interval_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        with_intervals(hand_worked(), **settings)
