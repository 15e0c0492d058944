from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.test_comparison import HEADLINE, IDENTITY, STUDY, queries, report_of
from visual_search.retrieval.comparability import NotComparableError
from visual_search.retrieval.ranking import COLUMNS, SEED_RULE, Entry, rank
from visual_search.retrieval.seeds import over_seeds
from visual_search.retrieval.statistics import rank_intervals

NA = "NA"


def floor(name, micro, title=None, **more):
    ends = {f"micro_{end}": micro + step for end, step in (("low", -0.01), ("high", 0.01))}
    ends |= {f"macro_{end}": math.nan for end in ("low", "high")}
    means = {"micro_map_at_5": micro, "macro_map_at_5": micro - 0.1, "micro_hit_at_1": 0.5}
    return {"name": name, "title": title or name, "dim": 8, **means, **ends, **more}


def entry(name, micro, path=None, finished="2024-05-01T10:00:00+00:00", half=0.05, **summary):
    ends = {"mean": micro, "low": micro - half, "high": micro + half, "num_groups": 30}
    given = {
        "k": 5, "num_gallery": 100, "num_queries": 60, "num_queries_scored": 54, "num_left_out": 6,
        "micro_map_at_5": micro, "macro_map_at_5": micro, "micro_precision_at_5": 0.25,
        "micro_hit_at_1": 0.125, "definitions": {"map_at_5": "Mean of AP@5."},
        "rules": {"micro": "micro: over queries.", "macro": "macro: over categories."},
        "headline": HEADLINE, "intervals": {"micro": ends, "macro": ends}, "identity": IDENTITY,
    }  # fmt: skip
    return Entry(path or f"outputs/{name}", name, given | summary, finished)


def shown(group, *columns):
    table = group.table[list(columns)].astype(object)
    return table.where(table.notna(), NA).to_numpy().tolist()


def test_runs_are_ranked_and_what_they_say_is_kept():
    more = {"embedding_dim": 128, "embedding_ms_per_item": 1.5, "epochs": 7}
    high = entry("high", 0.8, index={"bytes": 4096, "bytes_per_item": 40}, **more)
    (group,) = rank([entry("low", 0.2), high, entry("middle", 0.5)])
    assert group.table.columns.tolist() == list(COLUMNS)
    assert shown(group, "rank", "name") == [[1, "high"], [2, "middle"], [3, "low"]]
    ends = shown(group, "micro", "micro_low", "micro_high", "macro")[0]
    assert ends == pytest.approx([0.8, 0.75, 0.85, 0.8])
    columns = ["precision", "hit_at_1", "dim", "index_bytes", "embedding_ms_per_item", "epochs"]
    assert shown(group, *columns)[0] == [0.25, 0.125, 128, 4096, 1.5, 7]
    assert shown(group, *columns)[1] == [0.25, 0.125, NA, NA, NA, NA]
    last = shown(group, "finished", "path", "kind", "is_floor")[0]
    assert last == ["2024-05-01T10:00:00+00:00", "outputs/high", "run", False]
    sizes = (group.num_queries, group.num_left_out, group.num_groups, group.num_gallery)
    assert sizes == (54, 6, 30, 100)
    assert group.identity["k"] == 5
    told = ("mAP@5: Mean of AP@5.", "micro: over queries.", "macro: over categories.")
    assert group.rules[:3] == told


def test_what_was_measured_otherwise_stands_in_another_table():
    parts = {
        "data": {"identity": {**IDENTITY, "data": "attic"}},
        "gallery": {"identity": {**IDENTITY, "gallery": "z"}},
        "queries": {"identity": {**IDENTITY, "queries": "z"}},
        "protocol": {"identity": {**IDENTITY, "protocol": "z", "protocol_name": "leave_one_out"}},
        "k": {"k": 10},
    }
    runs = [entry(f"{part}{i}", 0.5, **changes) for part, changes in parts.items() for i in (1, 2)]
    groups = rank([*runs, entry("plain", 0.1)])
    assert [len(group.table) for group in groups] == [2, 1, 2, 2, 2, 2]
    assert groups[0].identity["data"] == "attic"
    for group in groups:
        assert len({name[:-1] for name in group.table["name"]}) == 1
    assert rank([]) == []


def test_order_of_the_entries_changes_nothing():
    runs = [
        entry("b", 0.5, floors=[floor("hog", 0.6), floor("untrained", 0.1)]),
        entry("a", 0.5, finished="2024-06-01T10:00:00"),
        entry("c", 0.7, floors=[floor("hog", 0.6), floor("untrained", 0.2)]),
        entry("d", 0.9, k=10),
    ]
    expected = [group.table for group in rank(runs)]
    for order in list(itertools.permutations(runs))[1::7]:
        found = [group.table for group in rank(order)]
        assert len(found) == len(expected) == 2
        for one, other in zip(found, expected, strict=True):
            pd.testing.assert_frame_equal(one, other)


def test_runs_of_one_value_share_a_rank_and_nothing_scored_has_none():
    values = {"c": 0.5, "a": 0.5, "b": 0.4, "y": 0.9}
    runs = [entry(name, value) for name, value in values.items()]
    runs.append(entry("z", math.nan, micro_map_at_5=None))
    (group,) = rank(runs)
    assert shown(group, "rank", "name") == [[1, "y"], [2, "a"], [2, "c"], [4, "b"], [NA, "z"]]
    assert shown(group, "rank_low", "rank_high", "for_the_top")[-1] == [NA, NA, False]


def test_the_studys_rule_is_ranked_by_its_macro_mean():
    def study(name, micro, macro):
        means = {"micro_reference_2023": micro, "macro_reference_2023": macro}
        floors = [{"name": "hog", **means, "macro_reference_2023": 0.55}]
        return entry(name, 0.5, headline=STUDY, floors=floors, **means)

    (group,) = rank([study("a", 0.9, 0.5), study("b", 0.1, 0.6)])
    assert shown(group, "rank", "name", "micro") == [[1, "b", 0.1], [NA, "hog", 0.1], [2, "a", 0.9]]
    assert group.headline["statistic"] == "macro"


# --- floors -------------------------------------------------------------------------------------


def test_floors_stand_among_the_runs_and_come_from_the_newest_run_that_has_them():
    old, new = "2024-05-01T10:00:00+02:00", "2024-05-01T09:00:00+00:00"  # an hour later
    runs = [
        entry("a", 0.5, finished=old, floors=[floor("hog", 0.7), floor("random", 0.1)]),
        entry("b", 0.3, finished=new, floors=[floor("hog", 0.4, "HOG")]),
        entry("c", 0.4, finished="2023-01-01"),
    ]
    (group,) = rank(runs)
    assert shown(group, "rank", "name", "is_floor", "path") == [
        [1, "a", False, "outputs/a"],
        [NA, "HOG", True, "outputs/b"],  # a run of the same value stands below its floor
        [2, "c", False, "outputs/c"],
        [3, "b", False, "outputs/b"],
        [NA, "random", True, "outputs/a"],
    ]
    columns = ["kind", "micro", "micro_low", "macro", "macro_low", "hit_at_1", "precision", "dim"]
    assert shown(group, *columns)[1] == ["floor", 0.4, 0.39, pytest.approx(0.3), NA, 0.5, NA, 8]


def test_the_untrained_network_stands_once_a_name_at_its_best():
    def run(name, path, micro, day):
        floors = [floor("untrained", micro)]
        return entry(name, 0.9, path, f"2024-05-0{day}", floors=floors)

    runs = [run("plus", "p1", 0.3, 1), run("plus", "p2", 0.2, 2), run("base", "b1", 0.1, 3)]
    for order in itertools.permutations(runs):
        (group,) = rank(order)
        floors = group.table[group.table["is_floor"]]
        assert floors[["name", "micro", "path"]].to_numpy().tolist() == [
            ["untrained plus", 0.3, "p1"],
            ["untrained base", 0.1, "b1"],
        ]


def test_settings_that_the_untrained_network_does_not_feel_give_one_row():
    def run(settings, micro, dim=8):
        floors = [floor("untrained", micro, dim=dim)]
        made = entry("plus", 0.9, settings, floors=floors)
        return Entry(made.path, made.name, made.summary, made.finished, settings=settings)

    def floors_of(*runs):
        (group,) = rank(runs)
        return group.table.loc[group.table["is_floor"], "name"].tolist()

    slow, quick, wide = run("lr=1", 0.3), run("lr=2", 0.3), run("width=2", 0.4)
    assert floors_of(slow, quick) == ["untrained plus"]
    assert floors_of(slow, quick, wide) == [
        "untrained plus width=2",
        "untrained plus lr=2 and 1 other",
    ]


# --- ranks --------------------------------------------------------------------------------------


def test_of_runs_without_values_a_query_nothing_is_shown():
    (group,) = rank([entry("a", 0.9), entry("b", 0.1, floors=[floor("hog", 0.85)])])
    columns = ["name", "rank", "rank_low", "rank_high", "for_the_top"]
    assert shown(group, *columns) == [
        ["a", 1, 1, 2, True],
        ["hog", NA, NA, NA, False],
        ["b", 2, 1, 2, True],
    ]


def test_ranks_are_those_that_the_queries_leave():
    base, table = np.random.default_rng(0).uniform(0.2, 0.5, 60), queries()
    noise = np.random.default_rng(1).uniform(-0.02, 0.02, 60)
    values = {"a": base + 0.5, "b": base + 0.49 + noise, "c": base, "d": base}
    per_query = {
        f"outputs/{name}": report_of(table, held).per_query.sample(frac=1, random_state=1)
        for name, held in values.items()
    }
    runs = [entry(name, float(held.mean())) for name, held in values.items()]
    (group,) = rank(runs, per_query, num_resamples=200)
    assert group.table["name"].tolist() == list("abcd")
    found = group.table[["rank_low", "rank_high"]].to_numpy().tolist()
    held = [values[name] for name in "abcd"]
    assert found == rank_intervals(held, table["group"], num_resamples=200).tolist()
    assert found == [[1, 1], [2, 2], [3, 4], [3, 4]]
    assert group.table["for_the_top"].tolist() == [True, False, False, False]

    del per_query["outputs/b"]
    (group,) = rank(runs, per_query, num_resamples=200)
    assert group.table["for_the_top"].tolist() == [True, True, False, False]
    found = group.table[["rank_low", "rank_high"]].to_numpy().tolist()
    assert found == [[1, 2], [1, 4], [2, 4], [2, 4]]


def test_a_row_of_several_seeds_says_how_many_and_how_far_they_lie_apart():
    table, rng = queries(), np.random.default_rng(0)
    reports = {f"outputs/{seed}": report_of(table, rng.uniform(0, 0.5, 60)) for seed in range(3)}
    mean = over_seeds(reports)
    lone = report_of(table, np.full(60, 0.9))
    rows = [entry("three", 0.0), entry("one", 0.9)]
    rows[0] = Entry("outputs/three", "three", mean.summary, rows[0].finished)
    per_query = {"outputs/three": mean.per_query, "outputs/one": lone.per_query}
    (group,) = rank(rows, per_query, num_resamples=200)
    assert shown(group, "name", "num_runs", "rank_low", "rank_high") == [
        ["one", 1, 1, 1],
        ["three", 3, 2, 2],
    ]
    means = [report.summary["micro_map_at_5"] for report in reports.values()]
    row = group.table.iloc[1]
    assert row["micro"] == pytest.approx(np.mean(means))
    assert row["micro_sd"] == pytest.approx(np.std(means, ddof=1))
    assert math.isnan(group.table["micro_sd"].iloc[0])
    assert SEED_RULE in group.rules
    assert SEED_RULE not in rank([rows[1]])[0].rules


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", ["yesterday", "", None, "2024-13-01"])
def test_a_time_that_is_none_is_refused(finished):
    with pytest.raises(ValueError, match=r"outputs/a finished at .*expected ISO 8601, such as 20"):
        entry("a", 0.5, finished=finished)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ({"path": "x"}, {"path": "x"}, ValueError, "path 'x' stands twice among the entries"),
        ({"identity": None}, {}, NotComparableError, r"(?s)run.s. 'a' do not say.* run=outputs/a"),
        ({"headline": None}, {}, ValueError, "headline is .*; expected column, mean and title"),
        ({"headline": STUDY}, {}, ValueError, "has the headline reference_2023, and .* mAP@5; exp"),
    ],
)
def test_entries_that_cannot_be_ranked_are_refused(a, b, error, message):
    with pytest.raises(error, match=message):
        rank([entry("a", 0.5, **a), entry("b", 0.5, **b)])


def test_values_a_query_that_cannot_be_compared_are_refused():
    runs = [entry("a", 0.6), entry("b", 0.5)]
    tables = {f"outputs/{name}": report_of(queries(), np.zeros(60)).per_query for name in "ab"}
    shorter = {**tables, "outputs/b": tables["outputs/b"].iloc[1:]}
    with pytest.raises(ValueError, match=r"runs outputs/a .a. and outputs/b .b.: 1 query"):
        rank(runs, shorter)
    with pytest.raises(ValueError, match=r"runs outputs/a .*not \['group'\]"):
        rank(runs, {name: table.drop(columns="group") for name, table in tables.items()})
    with pytest.raises(ValueError, match="num_resamples is 3; expected at least 100"):
        rank(runs, tables, num_resamples=3)
    scored = tables["outputs/b"].assign(average_precision=[math.nan, *[0.0] * 59])
    with pytest.raises(ValueError, match=r"outputs/a, outputs/b: .* do not score the same queries"):
        rank(runs, {**tables, "outputs/b": scored})


def test_a_table_says_where_few_groups_carry_its_intervals():
    ends = {"low": 0.4, "high": 0.6, "num_groups": 30, "rough": True, "effective_groups": 2.04}
    (group,) = rank([entry("one", 0.5, intervals={"micro": ends, "macro": ends})])
    assert "Intervals: rough: 2.0 effective groups of 30 carry it." in group.rules


@pytest.mark.parametrize("all_relevant", [True, False])
def test_a_table_says_first_where_no_answer_can_be_wrong(all_relevant):
    (group,) = rank([entry("one", 1.0, all_relevant=all_relevant)])
    assert ("right by definition" in group.rules[0]) == all_relevant
