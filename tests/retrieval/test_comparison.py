from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from visual_search.retrieval.comparison import NotComparableError, compare_reports, headline_of
from visual_search.retrieval.report import RetrievalReport
from visual_search.retrieval.statistics import (
    bootstrap_interval,
    category_intervals,
    holm,
    paired_difference,
)

FAST = {"num_resamples": 200, "num_permutations": 300}
HEADLINE = {"column": "average_precision", "mean": "map_at_5", "title": "mAP@5"}
STUDY = dict.fromkeys(("column", "mean", "title"), "reference_2023")
IDENTITY = {
    "data": "shop", "gallery": "a", "queries": "b", "protocol": "c",
    "protocol_name": "gallery_query", "protocol_settings": {},
}  # fmt: skip


def queries(num_queries=60, num_categories=3):
    rows = np.arange(num_queries)
    texts = {
        "query_id": [f"q{i:03}" for i in rows],
        "category": [f"c{i % num_categories}" for i in rows],
        "group": [f"g{i // 2}" for i in rows],
    }
    return pd.DataFrame(texts, dtype=object)


def report_of(table, values, headline=HEADLINE, **summary):
    """A report of these values, one a query, with what a comparison reads of it."""
    values = np.asarray(values, dtype=np.float64)
    per_query = table.assign(**{headline["column"]: values})
    by_category = per_query.groupby("category")[headline["column"]].mean()
    scored = int((~np.isnan(values)).sum())
    means = {"micro": np.nanmean(values), "macro": by_category.mean()} if scored else {}
    sizes = {"k": 5, "num_gallery": 100, "num_queries": len(table), "num_queries_scored": scored}
    given = {
        **sizes, "num_left_out": len(table) - scored,
        **{f"{mean}_{headline['mean']}": float(value) for mean, value in means.items()},
        "micro_precision_at_5": 0.25, "micro_hit_at_1": 0.125, "identity": IDENTITY,
        "definitions": {headline["mean"]: "Mean of something."}, "headline": headline,
    }  # fmt: skip
    return RetrievalReport(per_query, pd.DataFrame(), given | summary)


def changed(report, per_query=None, **summary):
    table = report.per_query if per_query is None else per_query
    return RetrievalReport(table, report.per_category, {**report.summary, **summary})


def three(seed=0, **kwargs):
    """B is A less 0.3, C is B but for noise; every tenth query is left out."""
    rng = np.random.default_rng(seed)
    base = np.where(np.arange(60) % 10 == 9, math.nan, rng.uniform(0, 0.6, 60))
    values = {"A": base + 0.3, "B": base, "C": (base + rng.normal(0, 0.02, 60)).clip(0, 1)}
    return {name: report_of(queries(), held, **kwargs) for name, held in values.items()}


def sentence_of(reports, names="ABC", **settings):
    return compare_reports({name: reports[name] for name in names}, **FAST, **settings).sentence


# --- the tables ---------------------------------------------------------------------------------


def test_tables_hold_what_the_statistics_module_gives():
    reports = three()
    found = compare_reports(reports, seed=4, **FAST)
    table = reports["A"].per_query
    labels = table["group"], table["category"]
    values = {name: report.per_query["average_precision"] for name, report in reports.items()}

    assert found.runs["run"].tolist() == ["A", "B", "C"]
    for line in found.runs.to_dict("records"):
        for mean in ("micro", "macro"):
            ends = bootstrap_interval(values[line["run"]], *labels, mean, seed=4, num_resamples=200)
            told = [line[mean], line[f"{mean}_low"], line[f"{mean}_high"]]
            assert told == [ends.mean, ends.low, ends.high]
        assert (line["num_queries"], line["num_groups"]) == (54, 30)
        assert (line["micro_precision_at_5"], line["micro_hit_at_1"]) == (0.25, 0.125)

    couples = list(itertools.combinations("ABC", 2))
    for mean in ("micro", "macro"):
        lines = found.pairs[found.pairs["statistic"] == mean]
        assert list(zip(lines["a"], lines["b"], strict=True)) == couples
        tests = [
            paired_difference(values[a], values[b], *labels, mean, seed=4, **FAST)
            for a, b in couples
        ]
        for name in ("difference", "low", "high", "p_value", "num_queries", "num_groups"):
            assert lines[name].tolist() == [getattr(test, name) for test in tests]
        assert lines["p_holm"].tolist() == holm([test.p_value for test in tests]).tolist()
        assert lines["verdict"].tolist() == ["a is better", "a is better", "no difference shown"]

    expected = category_intervals(values["B"], *labels, seed=4, num_resamples=200)
    for column in ("category", "num_queries", "num_groups", "few_queries"):
        assert found.per_category[column].tolist() == expected[column].tolist()
    for column in ("mean", "low", "high"):
        assert found.per_category[f"{column}:B"].tolist() == expected[column].tolist()
    assert "p_value" not in found.per_category  # for two runs only
    assert found.headline["statistic"] == "micro"
    assert found.headline["definition"] == "Mean of something."


def test_queries_stand_where_they_differ_most_first():
    table = queries(4, 2)
    a = report_of(table, [0.5, 0.25, math.nan, 1.0])
    b = report_of(table, [0.5, 0.75, math.nan, 0.5])
    found = compare_reports({"x": a, "y": b}, **FAST).queries
    columns = ["query_id", "category", "group", "value:x", "value:y", "spread"]
    assert found.columns.tolist() == columns
    assert found["query_id"].tolist() == ["q001", "q003", "q000", "q002"]
    assert found["spread"].tolist() == pytest.approx([0.5, 0.5, 0, math.nan], nan_ok=True)
    assert found.iloc[0].tolist() == ["q001", "c1", "g0", 0.25, 0.75, 0.5]


def test_two_runs_are_compared_in_every_category():
    """No scored query, one group, two groups, many: only the last two are tested."""
    names = ["empty"] + ["many"] * 12 + ["one"] * 2 + ["two"] * 2
    groups = ["g" if name == "one" else str(i) for i, name in enumerate(names)]
    table = queries(len(names)).assign(category=names, group=groups)
    b = np.array([math.nan, *np.linspace(0, 0.5, 12), 0.1, 0.2, 0.3, 0.4])
    gain = np.linspace(0.2, 0.4, len(b))
    calls = []
    found = compare_reports(
        {"new": report_of(table, b + gain), "old": report_of(table, b)},
        on_progress=lambda done, total: calls.append((done, total)),
        **FAST,
    ).per_category.set_index("category")
    assert found["verdict"].to_dict() == {
        "empty": "no scored query",
        "many": "a is better",
        "one": "one group: not tested",
        "two": "no difference shown",
    }
    oracle = scipy.stats.permutation_test(
        (gain[1:13],), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert found.loc["many", "p_value"] == oracle.pvalue == 2 / 2**12
    assert found.loc["two", "p_value"] == 0.5  # 2 of 4 flips
    assert found["p_value"].isna().tolist() == [True, False, False, False]
    assert found.loc["many", "p_holm"] == 4 / 2**12  # Holm over two tests
    assert found["p_holm"].isna().tolist() == [True, False, True, False]
    assert found.loc["two", "difference"] == pytest.approx(gain[-2:].mean())
    assert found["num_queries"].tolist() == [0, 12, 2, 2]
    assert found["few_queries"].all()
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_order_of_queries_and_runs_changes_nothing_but_order():
    reports = three(1)
    found = compare_reports(reports, **FAST)
    pd.testing.assert_frame_equal(found.runs, compare_reports(reports, seed=0, **FAST).runs)
    assert not found.runs.equals(compare_reports(reports, seed=1, **FAST).runs)
    shuffled = {
        name: changed(report, report.per_query.sample(frac=1, random_state=i))
        for i, (name, report) in enumerate(reports.items())
    }
    again = compare_reports(shuffled, **FAST)
    for part in ("runs", "pairs", "per_category", "queries"):
        pd.testing.assert_frame_equal(getattr(again, part), getattr(found, part), check_exact=True)
    assert again.sentence == found.sentence

    turned = compare_reports({name: reports[name] for name in "CBA"}, **FAST)
    assert turned.sentence == found.sentence
    first = found.runs.set_index("run").sort_index()
    pd.testing.assert_frame_equal(turned.runs.set_index("run").sort_index(), first)
    there = {(row["a"], row["b"], row["statistic"]): row for _, row in found.pairs.iterrows()}
    assert len(turned.pairs) == 6
    for _, row in turned.pairs.iterrows():
        other = there[row["b"], row["a"], row["statistic"]]
        told = [row[name] for name in ("difference", "low", "high", "p_holm")]
        expected = [-other["difference"], -other["high"], -other["low"], other["p_holm"]]
        assert told == pytest.approx(expected)
        swapped = {"a is better": "b is better"}
        assert row["verdict"] == swapped.get(other["verdict"], other["verdict"])


# --- the sentence -------------------------------------------------------------------------------


def test_sentence_over_two_runs():
    reports = three(2)
    text = sentence_of(reports, "AB")
    assert sentence_of(reports, "BA") == text
    a, b = (f"{reports[name].summary['micro_map_at_5']:.3f}" for name in "AB")
    assert text.startswith(
        "mAP@5 over 54 queries in 30 groups (95 % intervals): by micro mean A is better than "
        f"B: {a} and {b}, difference +0.300 [+"
    )
    assert ". By macro mean A is better than B: " in text
    assert "p = 0.003" in text  # 1 / 301


def test_a_difference_that_is_not_shown_is_not_called_equal():
    reports = three(3)
    text = sentence_of(reports, "CB")
    assert "by micro mean no difference shown between C and B: " in text
    same = compare_reports({"C": reports["C"], "D": reports["C"]}, **FAST)
    assert same.pairs["p_holm"].tolist() == [1, 1]
    assert set(same.pairs["verdict"]) == {"no difference shown"}
    assert "same answers" in same.sentence
    assert "[" not in same.sentence
    assert (same.pairs[["difference", "low", "high"]] == 0).all(axis=None)
    assert "equal" not in text + same.sentence


def test_sentence_over_more_runs():
    reports = three(4)
    text = sentence_of(reports)
    sizes = "54 queries in 30 groups (95 % intervals, p corrected over 3 pairs"
    assert f"by micro mean over {sizes}" in text
    assert ": A has the highest, " in text
    assert text.endswith("]; it is better than every other run (p <= 0.010).")  # 3 / 301
    reports["A"].per_query["average_precision"] *= 0
    text = sentence_of(reports, "BCA")
    assert "; it is better than A (p <= 0.010); no difference shown between it and " in text


def test_the_studys_rule_leads_with_the_macro_mean():
    reports = three(5, headline=STUDY)
    text = sentence_of(reports, "AB")
    assert ": by macro mean A is better than B" in text
    assert ". By micro mean A is better" in text
    assert "by macro mean over" in sentence_of(reports)


def test_intervals_that_few_groups_carry_are_said_to_be_rough():
    table = queries().assign(group=[f"g{i % 4}" for i in range(60)])
    values = {name: report.per_query["average_precision"] for name, report in three(7).items()}
    reports = {name: report_of(table, held) for name, held in values.items()}
    for names in ("AB", "ABC"):
        rough = "(95 % intervals, rough: 3.8 effective groups of 4 carry it"
        assert rough in sentence_of(reports, names)


def test_one_group_is_no_evidence():
    table = queries(3, 1).assign(group="g")
    a, b = report_of(table, [1, 1, 1]), report_of(table, [0, 0, 0.5])
    found = compare_reports({"a": a, "b": b})
    assert found.pairs["verdict"].tolist() == ["no difference shown"] * 2
    values = "1.000 and 0.167, difference +0.833 (no interval)"
    assert f"no difference shown between a and b: {values}" in found.sentence


def test_names_are_only_names():
    names = ["a\nb", "c|d,", ""]
    found = compare_reports(dict(zip(names, three(6).values(), strict=True)), **FAST)
    assert found.runs["run"].tolist() == names
    assert {f"value:{name}" for name in names} < set(found.queries.columns)
    assert "\n" not in found.sentence


@pytest.mark.parametrize("all_relevant", [True, False])
def test_where_no_answer_can_be_wrong_no_run_is_called_better(all_relevant):
    report = report_of(queries(num_categories=1), np.ones(60), all_relevant=all_relevant)
    text = compare_reports({"one": report, "two": report}, **FAST).sentence
    assert ("right by definition" in text) == all_relevant


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 10}, NotComparableError, r"(?s)'B' was not .*run=outputs/b protocol"),
        ({"identity": None}, NotComparableError, r"run.s. 'B' do not say"),
        ({"headline": STUDY}, ValueError, "'B' has the headline reference_2023, and 'A' mAP@5"),
        (lambda t: t.iloc[1:], ValueError, r"'A' .a. and 'B' .b.: 1 .* only in a \['q000'\]"),
        (lambda t: t.drop(columns="group"), ValueError, r"not \['group'\].*evaluate it again"),
        (lambda t: t.assign(category="c0"), ValueError, "'A' .* has category c1 in a and c0 in b"),
        (lambda t: t.assign(group=["z", *t["group"][1:]]), ValueError,
         "'q000' has the group 'g0' in run 'A' and 'z' in 'B'"),
        (lambda t: t.fillna({"average_precision": 0}), ValueError,
         r"'q009' is left out .NaN. in only one of the runs 'A' and 'B' .6 such"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused(change, error, message):
    a, b, _ = three().values()
    wrong = changed(b, **change) if isinstance(change, dict) else changed(b, change(b.per_query))
    with pytest.raises(error, match=message):
        compare_reports({"A": a, "B": wrong}, paths={"B": "outputs/b"}, **FAST)


def test_nothing_to_compare_is_refused():
    reports = three()
    with pytest.raises(ValueError, match=r"there are 1 run.s.; expected two or more"):
        compare_reports({"A": reports["A"]})
    for name in "AB":
        reports[name].per_query["average_precision"] = math.nan
    with pytest.raises(ValueError, match="none of the 60 queries is scored"):
        sentence_of(reports, "AB")
    with pytest.raises(ValueError, match="num_resamples is 5; expected at least 100"):
        compare_reports(three(), num_resamples=5)


@pytest.mark.parametrize("headline", [None, {"column": "x"}, "mAP@5"])
def test_a_summary_without_a_headline_is_refused(headline):
    with pytest.raises(ValueError, match=r"headline is .*expected column, mean and title: eval"):
        headline_of({"headline": headline})
