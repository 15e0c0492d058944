from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.index import EmbeddingIndex, SearchResult
from visual_search.retrieval.metrics import definitions
from visual_search.retrieval.report import (
    PER_CATEGORY_FILE,
    PER_QUERY_FILE,
    SUMMARY_FILE,
    RetrievalReport,
    evaluate_retrieval,
    load_report,
    save_report,
)

GALLERY_IDS = ["h1", "h2", "h3", "s1", "s2", "t1"]
GALLERY_CATEGORIES = ["hat", "hat", "hat", "shoe", "shoe", "NA"]


def result(**neighbours: list[str]) -> SearchResult:
    """The search result in which each query found these gallery items, at distances 1, 2, ..."""
    rows = np.array([[GALLERY_IDS.index(item) for item in row] for row in neighbours.values()])
    return SearchResult(
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
    }
    for column, values in expected.items():
        np.testing.assert_allclose(table[column], values, err_msg=column)
    assert table.loc["x", "neighbour_ids"] == ["s1", "h1", "s2"]
    assert table.loc["x", "neighbour_categories"] == ["shoe", "hat", "shoe"]
    assert table.loc["x", "neighbour_squared_distances"] == [1.0, 2.0, 3.0]


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


def test_every_number_carries_its_definition_and_the_rules():
    report = hand_worked()
    summary = report.summary
    named = {name[6:] for name in summary if name.startswith(("micro_", "macro_"))}
    assert named == set(summary["definitions"]) == set(definitions(3))
    assert named < set(report.per_category.columns)
    assert set(summary["rules"]) == {"relevance", "self_exclusion", "ties", "micro", "macro"}


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


class TestFiles:
    def test_round_trip(self, tmp_path):
        report = hand_worked()
        paths = save_report(report, tmp_path / "metrics")
        assert set(paths) == {PER_QUERY_FILE, PER_CATEGORY_FILE, SUMMARY_FILE}
        assert sorted(p.name for p in (tmp_path / "metrics").iterdir()) == sorted(paths)
        loaded = load_report(tmp_path / "metrics")
        pd.testing.assert_frame_equal(loaded.per_query, report.per_query, check_exact=True)
        pd.testing.assert_frame_equal(loaded.per_category, report.per_category, check_exact=True)
        assert loaded.summary == report.summary

    def test_nan_becomes_null_and_comes_back(self, tmp_path):
        found = result(x=["h1"])
        report = evaluate_retrieval(found, ["tie"], GALLERY_CATEGORIES, GALLERY_IDS, k=1)
        text = save_report(report, tmp_path)[SUMMARY_FILE].read_text()
        assert json.loads(text, parse_constant=pytest.fail)["micro_map_at_1"] is None
        assert math.isnan(load_report(tmp_path).summary["micro_map_at_1"])

    @pytest.mark.parametrize(
        "category",
        ["=1+1", "NA", "007", 'a "b", c', "a\nb", "a\r\nb", " x ", "é", "<script>", "nan"],
    )
    def test_a_category_survives_the_csv_as_it_is(self, tmp_path, category):
        found = result(x=["h1"])
        held = [category, *GALLERY_CATEGORIES[1:]]
        report = evaluate_retrieval(found, [category], held, GALLERY_IDS, k=1)
        save_report(report, tmp_path)
        loaded = load_report(tmp_path)
        assert loaded.per_category["category"].tolist() == report.per_category["category"].tolist()
        pd.testing.assert_frame_equal(loaded.per_query, report.per_query)

    @pytest.mark.parametrize("name", [PER_QUERY_FILE, PER_CATEGORY_FILE, SUMMARY_FILE])
    def test_missing_and_damaged_files_are_named(self, tmp_path, name):
        path = save_report(hand_worked(), tmp_path)[name]
        path.write_bytes(b"\xff\xfe{")
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            load_report(tmp_path)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing"):
            load_report(tmp_path)


class TestRefusals:
    def evaluate(self, found, categories=("hat",), **changes):
        settings = {
            "gallery_categories": GALLERY_CATEGORIES,
            "gallery_ids": GALLERY_IDS,
            "k": 2,
            **changes,
        }
        return evaluate_retrieval(found, categories, **settings)

    def test_no_query(self):
        empty = np.zeros((0, 2), dtype=np.int64)
        found = SearchResult(
            np.zeros(0, object), np.zeros((0, 2), object), empty, empty.astype(float)
        )
        with pytest.raises(ValueError, match="holds no query"):
            self.evaluate(found, [])

    def test_a_query_that_stands_twice(self):
        found = result(x=["h1", "h2"], y=["h1", "h2"])
        twice = replace(found, query_ids=np.array(["x", "x"], dtype=object))
        with pytest.raises(ValueError, match=r"query 'x' stands 2 times .* distributed sampler"):
            self.evaluate(twice, ["hat", "hat"])

    def test_a_query_among_its_own_neighbours(self):
        with pytest.raises(ValueError, match="query 'h1' is among its own neighbours"):
            self.evaluate(result(h1=["h1", "h2"]))

    @pytest.mark.parametrize("ids", [GALLERY_IDS[::-1], GALLERY_IDS[:1]])
    def test_the_ids_of_another_gallery(self, ids):
        with pytest.raises(ValueError, match=f"the {len(ids)} gallery ids are not those"):
            self.evaluate(
                result(x=["h1", "h2"]),
                gallery_ids=ids,
                gallery_categories=GALLERY_CATEGORIES[: len(ids)],
            )

    def test_lengths_that_differ(self):
        with pytest.raises(ValueError, match=r"query_categories is 2 value\(s\); expected 1"):
            self.evaluate(result(x=["h1", "h2"]), ["hat", "hat"])
        with pytest.raises(ValueError, match=r"gallery_categories is 1 value\(s\); expected 6"):
            self.evaluate(result(x=["h1", "h2"]), gallery_categories=["hat"])

    def test_k_beyond_the_result(self):
        with pytest.raises(ValueError, match=r"k is 3, but the result holds 2"):
            self.evaluate(result(x=["h1", "h2"]), k=3)

    def test_k_below_one_or_no_integer(self):
        with pytest.raises(ValueError, match="k is 0"):
            self.evaluate(result(x=["h1", "h2"]), k=0)
        with pytest.raises(TypeError, match="expected a whole number"):
            self.evaluate(result(x=["h1", "h2"]), k=1.5)

    def test_a_category_that_is_no_text(self):
        with pytest.raises(TypeError, match="query_categories, row 0, is 3"):
            self.evaluate(result(x=["h1", "h2"]), [3])
        with pytest.raises(TypeError, match="gallery_categories, row 0, is nan"):
            self.evaluate(result(x=["h1", "h2"]), gallery_categories=[math.nan] * 6)
