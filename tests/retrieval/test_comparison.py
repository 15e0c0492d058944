from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from visual_search.retrieval.comparison import (
    NotComparableError,
    compare_reports,
    headline_of,
)
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
    "data": "shop",
    "gallery": "a",
    "queries": "b",
    "protocol": "c",
    "protocol_name": "gallery_query",
    "protocol_settings": {},
}


def queries(num_queries=60, num_categories=3):
    rows = np.arange(num_queries)
    return pd.DataFrame(
        {
            "query_id": [f"q{i:03}" for i in rows],
            "category": pd.Series([f"c{i % num_categories}" for i in rows], dtype=object),
            "group": pd.Series([f"g{i // 2}" for i in rows], dtype=object),
        }
    )


def report_of(table, values, headline=HEADLINE, **summary):
    """A report of these values, one a query, with what a comparison reads of it."""
    values = np.asarray(values, dtype=np.float64)
    per_query = table.assign(**{headline["column"]: values})
    by_category = per_query.groupby("category")[headline["column"]].mean()
    scored = int((~np.isnan(values)).sum())
    means = {"micro": np.nanmean(values), "macro": by_category.mean()} if scored else {}
    given = {
        "k": 5,
        "num_gallery": 100,
        "num_queries": len(table),
        "num_queries_scored": scored,
        "num_left_out": len(table) - scored,
        **{f"{mean}_{headline['mean']}": float(value) for mean, value in means.items()},
        "micro_precision_at_5": 0.25,
        "micro_hit_at_1": 0.125,
        "definitions": {headline["mean"]: "Mean of something."},
        "headline": headline,
        "identity": IDENTITY,
    }
    return RetrievalReport(per_query, pd.DataFrame(), given | summary)


def three(seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    table = queries()
    base = np.where(np.arange(60) % 10 == 9, math.nan, rng.uniform(0, 0.6, 60))
    return {
        "A": report_of(table, base + 0.3, **kwargs),
        "B": report_of(table, base, **kwargs),
        "C": report_of(table, (base + rng.normal(0, 0.02, 60)).clip(0, 1), **kwargs),
    }


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
    assert found["query_id"].tolist() == ["q001", "q003", "q000", "q002"]  # .5 .5 0 NaN
    assert found["spread"].tolist()[:3] == [0.5, 0.5, 0]
    assert found.iloc[0].tolist() == ["q001", "c1", "g0", 0.25, 0.75, 0.5]
    assert math.isnan(found["spread"].iloc[3])


def test_two_runs_are_compared_in_every_category():
    """One scored query, two of one group, two groups, many: only the last two are tested."""
    sizes = {"empty": 1, "many": 12, "one": 2, "two": 2}
    names = [name for name, size in sizes.items() for _ in range(size)]
    table = pd.DataFrame(
        {
            "query_id": [f"q{i:02}" for i in range(len(names))],
            "category": names,
            "group": [f"{'g' if name == 'one' else i}" for i, name in enumerate(names)],
        }
    )
    b = np.array([math.nan, *np.linspace(0, 0.5, 12), 0.1, 0.2, 0.3, 0.4])
    gain = np.linspace(0.2, 0.4, len(b))
    calls = []
    found = compare_reports(
        {"new": report_of(table, b + gain), "old": report_of(table, b)},
        on_progress=lambda done, total: calls.append((done, total)),
        **FAST,
    ).per_category.set_index("category")
    assert found.index.tolist() == ["empty", "many", "one", "two"]
    assert found["verdict"].to_dict() == {
        "empty": "no scored query",
        "many": "a is better",
        "one": "one group: not tested",
        "two": "no difference shown",
    }
    assert found["p_value"].isna().tolist() == [True, False, False, False]
    assert found["p_holm"].isna().tolist() == [True, False, True, False]
    assert found.loc["two", "p_value"] == 0.5  # 2 of 4 flips
    assert found.loc["many", "p_value"] == 2 / 2**12
    assert found.loc["many", "p_holm"] == 4 / 2**12  # Holm over two tests
    assert found.loc["two", "difference"] == pytest.approx(gain[-2:].mean())
    oracle = scipy.stats.permutation_test(
        (gain[1:13],), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert found.loc["many", "p_value"] == oracle.pvalue
    assert found["num_queries"].tolist() == [0, 12, 2, 2]
    assert found["few_queries"].all()
    assert calls == [(1, 3), (2, 3), (3, 3)]


# --- order --------------------------------------------------------------------------------------


def test_order_of_queries_and_runs_changes_nothing_but_order():
    reports = three(1)
    found = compare_reports(reports, **FAST)
    shuffled = {
        name: RetrievalReport(
            report.per_query.sample(frac=1, random_state=i), report.per_category, report.summary
        )
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
        assert row["difference"] == pytest.approx(-other["difference"])
        assert (row["low"], row["high"]) == pytest.approx((-other["high"], -other["low"]))
        assert row["p_holm"] == pytest.approx(other["p_holm"])
        swapped = {"a is better": "b is better"}
        assert row["verdict"] == swapped.get(other["verdict"], other["verdict"])


# --- the sentence -------------------------------------------------------------------------------


def test_sentence_over_two_runs():
    reports, sentences = three(2), set()
    for order in ("AB", "BA"):
        found = compare_reports({name: reports[name] for name in order}, **FAST)
        micro = {run: f"{value:.3f}" for run, value in zip(order, found.runs["micro"], strict=True)}
        assert found.sentence.startswith(
            "mAP@5 over 54 queries in 30 groups (95 % intervals): by micro mean A is better than "
            f"B: {micro['A']} and {micro['B']}, difference +0.300 [+"
        )
        assert ". By macro mean A is better than B: " in found.sentence
        assert "p = 0.003" in found.sentence  # 1 / 301
        sentences.add(found.sentence)
    assert len(sentences) == 1


def test_a_difference_that_is_not_shown_is_not_called_equal():
    reports = three(3)
    sentence = compare_reports({"C": reports["C"], "B": reports["B"]}, **FAST).sentence
    assert "by micro mean no difference shown between C and B: " in sentence
    same = compare_reports({"C": reports["C"], "D": reports["C"]}, **FAST)
    assert same.pairs["p_holm"].tolist() == [1, 1]
    assert set(same.pairs["verdict"]) == {"no difference shown"}
    assert "same answers" in same.sentence
    assert "[" not in same.sentence
    assert (same.pairs[["difference", "low", "high"]] == 0).all(axis=None)
    assert "equal" not in sentence + same.sentence


def test_sentence_over_more_runs():
    reports = three(4)
    sentence = compare_reports(reports, **FAST).sentence
    assert (
        "by micro mean over 54 queries in 30 groups (95 % intervals, p corrected over 3 pairs"
        in (sentence)
    )
    assert ": A has the highest, " in sentence
    assert sentence.endswith("]; it is better than every other run (p <= 0.010).")  # 3 / 301
    close = {"B": reports["B"], "C": reports["C"], "A": report_of(queries(), np.zeros(60))}
    close["A"].per_query.loc[9::10, "average_precision"] = math.nan
    sentence = compare_reports(close, **FAST).sentence
    assert "; it is better than A (p <= 0.010); no difference shown between it and " in sentence


def test_the_studys_rule_leads_with_the_macro_mean():
    reports = three(5, headline=STUDY)
    found = compare_reports({name: reports[name] for name in "AB"}, **FAST)
    assert ": by macro mean A is better than B" in found.sentence
    assert ". By micro mean A is better" in found.sentence
    assert "by macro mean over" in compare_reports(reports, **FAST).sentence


def test_one_group_is_no_evidence():
    table = queries(3, 1).assign(group="g")
    a, b = report_of(table, [1, 1, 1]), report_of(table, [0, 0, 0.5])
    found = compare_reports({"a": a, "b": b})
    assert found.pairs["verdict"].tolist() == ["no difference shown"] * 2
    assert (
        "no difference shown between a and b: 1.000 and 0.167, difference +0.833 (no interval)"
        in (found.sentence)
    )


def test_names_are_only_names():
    reports = three(6)
    names = ["a\nb", "c|d,", ""]
    found = compare_reports(dict(zip(names, reports.values(), strict=True)), **FAST)
    assert found.runs["run"].tolist() == names
    assert {f"value:{name}" for name in names} < set(found.queries.columns)
    assert "\n" not in found.sentence


# --- errors -------------------------------------------------------------------------------------


def changed(report, **columns):
    return RetrievalReport(report.per_query.assign(**columns), report.per_category, report.summary)


def test_runs_that_cannot_be_compared_are_refused():
    reports = three()
    a, b = reports["A"], reports["B"]
    with pytest.raises(ValueError, match=r"there are 1 run.s.; expected two or more"):
        compare_reports({"A": a})
    other = RetrievalReport(b.per_query, b.per_category, {**b.summary, "k": 10})
    with pytest.raises(NotComparableError, match=r"(?s)'B' was not .*run=outputs/b protocol"):
        compare_reports({"A": a, "B": other}, paths={"B": "outputs/b"})
    older = {name: value for name, value in b.summary.items() if name != "identity"}
    with pytest.raises(NotComparableError, match=r"run.s. 'B' do not say"):
        compare_reports({"A": a, "B": RetrievalReport(b.per_query, b.per_category, older)})
    study = RetrievalReport(b.per_query, b.per_category, {**b.summary, "headline": STUDY})
    with pytest.raises(ValueError, match="'B' has the headline reference_2023, and 'A' mAP@5"):
        compare_reports({"A": a, "B": study})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], r"runs 'A' .a. and 'B' .b.: 1 query is only in a \['q000'\]"),
        (lambda t: t.drop(columns="group"), r"not \['group'\].*evaluate it again"),
        (lambda t: t.assign(category="c0"), "runs 'A' .* has category c1 in a and c0 in b"),
        (
            lambda t: t.assign(group=["z", *t["group"][1:]]),
            "'q000' has the group 'g0' in run 'A' and 'z' in 'B'; expected the same",
        ),
        (
            lambda t: t.assign(average_precision=t["average_precision"].fillna(0)),
            r"'q009' is left out .NaN. in only one of the runs 'A' and 'B' .6 such",
        ),
    ],
)
def test_queries_that_differ_are_refused(change, message):
    reports = three()
    b = reports["B"]
    wrong = RetrievalReport(change(b.per_query), b.per_category, b.summary)
    with pytest.raises(ValueError, match=message):
        compare_reports({"A": reports["A"], "B": wrong}, **FAST)


def test_nothing_to_compare_is_refused():
    reports = three()
    empty = {name: changed(reports[name], average_precision=math.nan) for name in "AB"}
    with pytest.raises(ValueError, match=r"none of the 60 queries is scored; .*nothing to compare"):
        compare_reports(empty)
    with pytest.raises(ValueError, match="num_resamples is 5; expected at least 100"):
        compare_reports(reports, num_resamples=5)


@pytest.mark.parametrize("headline", [None, {"column": "x"}, "mAP@5"])
def test_a_summary_without_a_headline_is_refused(headline):
    with pytest.raises(ValueError, match=r"headline is .*expected column, mean and title: eval"):
        headline_of({"headline": headline})


def test_where_no_answer_can_be_wrong_no_run_is_called_better():
    table = queries(num_categories=1)
    reports = {name: report_of(table, np.ones(60), all_relevant=True) for name in ("one", "two")}
    assert "right by definition" in compare_reports(reports, **FAST).sentence
    reports = {name: report_of(table, np.ones(60), all_relevant=False) for name in ("one", "two")}
    assert "right by definition" not in compare_reports(reports, **FAST).sentence
