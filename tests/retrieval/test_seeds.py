"""Runs that differ in the seed alone, as one: what is averaged, and what is said of the spread."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.retrieval.test_comparison import changed, queries, report_of
from visual_search.retrieval.comparability import NotComparableError
from visual_search.retrieval.seeds import over_seeds
from visual_search.retrieval.statistics import bootstrap_interval


def of_seeds(**more):
    table, rng = queries(), np.random.default_rng(0)
    left_out = np.arange(60) % 10 == 9
    values = [np.where(left_out, math.nan, rng.uniform(0, 1, 60)) for _ in range(3)]
    reports = {f"s{place}": report_of(table, held, **more) for place, held in enumerate(values)}
    return values, reports


def test_every_number_is_the_mean_and_the_spread_is_over_runs():
    values, reports = of_seeds()
    reports["s1"] = changed(reports["s1"], reports["s1"].per_query.sample(frac=1, random_state=0))
    found = over_seeds(reports, num_resamples=200)
    expected = np.mean(values, axis=0)
    column = found.per_query["average_precision"].to_numpy()
    np.testing.assert_allclose(column, expected)
    assert found.per_query["query_id"].tolist() == reports["s0"].per_query["query_id"].tolist()
    for mean in ("micro", "macro"):
        means = [report.summary[f"{mean}_map_at_5"] for report in reports.values()]
        assert found.summary[f"{mean}_map_at_5"] == pytest.approx(np.mean(means))
        assert found.summary["seeds"][mean] == pytest.approx(np.std(means, ddof=1))
    assert found.summary["seeds"]["num_runs"] == 3
    table = found.per_query
    ends = bootstrap_interval(column, table["group"], num_resamples=200)
    told = found.summary["intervals"]["micro"]
    assert (told["low"], told["high"]) == (ends.low, ends.high)
    assert told["mean"] == pytest.approx(found.summary["micro_map_at_5"])


def test_one_run_has_no_spread_and_what_one_lacks_no_mean():
    _, reports = of_seeds(test_loss=1.0)
    alone = over_seeds({"s0": reports["s0"]}, num_resamples=200).summary
    assert math.isnan(alone["seeds"]["micro"])
    assert alone["micro_map_at_5"] == reports["s0"].summary["micro_map_at_5"]
    reports["s1"] = changed(reports["s1"], test_loss=None)
    assert math.isnan(over_seeds(reports, num_resamples=200).summary["test_loss"])


def test_of_untrained_networks_the_best_is_the_floor():
    _, reports = of_seeds()
    for place, name in enumerate(reports):
        floors = [
            {"name": "hog", "micro_map_at_5": place},
            {"name": "untrained", "micro_map_at_5": [0.2, 0.4, 0.3][place]},
        ]
        reports[name] = changed(reports[name], floors=floors)
    found = {
        floor["name"]: floor["micro_map_at_5"]
        for floor in over_seeds(reports, num_resamples=200).summary["floors"]
    }
    assert found == {"hog": 0, "untrained": 0.4}


def test_runs_of_other_queries_have_no_mean():
    _, reports = of_seeds()
    with pytest.raises(ValueError, match="no report"):
        over_seeds({})
    other = changed(reports["s1"], k=10)
    with pytest.raises(NotComparableError, match="k is 10"):
        over_seeds({**reports, "s1": other})
    fewer = changed(reports["s1"], reports["s1"].per_query.iloc[1:])
    with pytest.raises(ValueError, match=r"'s0' .a. and 's1' .b.: .* only in a"):
        over_seeds({**reports, "s1": fewer})
