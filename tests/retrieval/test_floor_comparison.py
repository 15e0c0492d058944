from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.test_comparison import FAST, queries
from visual_search.retrieval.floor_comparison import (
    FLOOR_COLUMNS,
    difference_text,
    floor_differences,
    headline_statistic,
    sign_shown,
    standing,
)
from visual_search.retrieval.statistics import bootstrap_interval, holm, paired_difference

NAN = math.nan


def table(seed=0, column="average_precision"):
    values = np.random.default_rng(seed).random(60)
    return queries().assign(**{column: np.where(np.arange(60) % 7 == 0, NAN, values)})


def floors_of(run, column="average_precision"):
    values = run[column].to_numpy()
    floors = {"random": 0.1 * values, "hog": np.minimum(values + 0.2, 1), "same": values}
    return run[["query_id"]].assign(**floors, untrained=0.9 * values)


@pytest.mark.parametrize("statistic", ["micro", "macro"])
def test_every_number_is_that_of_the_statistics_module(statistic):
    run = table()
    floors = floors_of(run)
    found = floor_differences(run, floors, statistic=statistic, **FAST, seed=3)
    assert found.columns.tolist() == FLOOR_COLUMNS
    assert found["name"].tolist() == ["random", "hog", "same", "untrained"]
    labels = run["group"].tolist(), run["category"].tolist()
    values, p_values = run["average_precision"], []
    for line in found.to_dict("records"):
        floor = floors[line["name"]].to_numpy()
        test = paired_difference(values, floor, *labels, statistic, **FAST, seed=3)
        ends = [line["difference"], line["difference_low"], line["difference_high"]]
        assert ends == [test.difference, test.low, test.high]
        p_values.append(test.p_value)
        for mean in ("micro", "macro"):
            alone = bootstrap_interval(floor, *labels, mean, num_resamples=200, seed=3)
            ends = [line[mean], line[f"{mean}_low"], line[f"{mean}_high"]]
            assert ends == [alone.mean, alone.low, alone.high]
    assert found["p_value"].tolist() == p_values
    assert found["p_holm"].tolist() == holm(p_values).tolist()
    assert set(found["statistic"]) == {statistic}


def test_row_order_changes_nothing():
    run, calls = table(1), []
    floors = floors_of(run)
    expected = floor_differences(run, floors, **FAST)
    found = floor_differences(
        run.sample(frac=1, random_state=0),
        floors.sample(frac=1, random_state=1),
        **FAST,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_studys_rule_is_a_macro_mean():
    run = table(2, column="reference_2023")
    floors = floors_of(run, "reference_2023")
    found = floor_differences(run, floors, "reference_2023", num_resamples=200)
    assert set(found["statistic"]) == {"macro"}
    line = found[found["name"] == "random"].iloc[0]
    by_category = (0.9 * run["reference_2023"]).groupby(run["category"]).mean().mean()
    assert line["difference"] == pytest.approx(by_category)
    text = standing("reference_2023", 0.5, (0.4, 0.6), found)
    assert "0.500 [0.400, 0.600] (mean over the categories): " in text
    assert f"({line['macro']:.3f}" not in text
    assert f"{found['macro'].max():.3f}" in text
    assert headline_statistic("mAP@5") == "micro"


def test_a_run_that_is_the_floor_and_one_query_tell_nothing():
    run = table(4)
    found = floor_differences(run, floors_of(run)[["query_id", "same"]])
    assert found[["difference", "p_value", "p_holm"]].iloc[0].tolist() == [0, 1, 1]
    text = standing("mAP@5", 0.5, (0.4, 0.6), found, titles={"same": "The same"})
    assert "not told apart from the best floor, The same (" in text
    assert "equal" not in text
    run = table(0).iloc[1:2]
    found = floor_differences(run, floors_of(run))
    assert found["p_holm"].tolist() == [1, 1, 1, 1]
    assert found["difference_low"].isna().all()
    text = standing("mAP@5", run["average_precision"].iloc[0], (NAN, NAN), found)
    assert "(no interval): not told apart from the best floor, hog (" in text
    assert "(no interval), p = 1.000)" in text


def test_no_scored_query_and_no_floor():
    run = table(0).iloc[:1]
    found = floor_differences(run, floors_of(run))
    numbers = [column for column in FLOOR_COLUMNS if column not in ("name", "statistic")]
    assert len(found) == 4
    assert found[numbers].isna().all(axis=None)
    assert standing("mAP@5", NAN, (NAN, NAN), found).startswith("mAP@5: no query is scored")
    none = floor_differences(table(), table()[["query_id"]])
    assert (len(none), none.columns.tolist()) == (0, FLOOR_COLUMNS)
    text = standing("mAP@5", 0.5, (0.4, 0.6), none)
    assert text.startswith("mAP@5 0.500 [0.400, 0.600]: no floor was measured")


# --- the sentence -------------------------------------------------------------------------------


def floor_table(*lines):
    columns = ["name", "micro", "difference", "difference_low", "difference_high", "p_holm"]
    return pd.DataFrame(lines, columns=columns).assign(statistic="micro")


ABOVE, BELOW, UNTOLD = (0.1, 0.05, 0.15, 0.0002), (-0.1, -0.15, -0.05, 0.004), (0.01, -0.1, 0.1, 1)
RISE, FALL, NONE = (difference_text(*test) for test in (ABOVE, BELOW, UNTOLD))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("random", 0.1, *ABOVE), ("hog", 0.4, *ABOVE), ("untrained", 0.3, *ABOVE)],
         f"above every floor: the best, hog, reaches 0.400 ({RISE})."),
        ([("random", 0.1, *ABOVE), ("hog", 0.6, *BELOW), ("untrained", 0.59, *BELOW)],
         f"below hog (0.600; {FALL}), and below its own untrained network (0.590, p = 0.004)."),
        ([("hog", 0.6, *BELOW), ("untrained", 0.4, *ABOVE)],
         f"below hog (0.600; {FALL}), but above its own untrained network (0.400, p < 0.001)."),
        ([("hog", 0.5, *UNTOLD), ("untrained", 0.49, *UNTOLD)],
         f"not told apart from the best floor, hog (0.500; {NONE}), and not told apart from its "
         "own untrained network (0.490, p = 1.000)."),
        ([("hog", 0.2, *ABOVE), ("pixels", 0.3, *UNTOLD), ("untrained", 0.4, *UNTOLD)],
         f"not told apart from the best floor, its own untrained network (0.400; {NONE})."),
        ([("untrained", 0.6, *BELOW), ("hog", 0.2, *ABOVE)],
         f"below its own untrained network (0.600; {FALL})."),
        # the best is beaten, one that is no better is not shown to be
        ([("hog", 0.4, *ABOVE), ("pixels", 0.39, *UNTOLD), ("untrained", 0.3, *ABOVE)],
         f"above the best floor, hog (0.400; {RISE}), but not told apart from pixels (0.390, "
         "p = 1.000), but above its own untrained network (0.300, p < 0.001)."),
        # equal floors: the first
        ([("pixels", 0.4, *UNTOLD), ("hog", 0.4, *BELOW)],
         f"not told apart from the best floor, pixels (0.400; {NONE})."),
        # a small p with an interval that holds 0
        ([("hog", 0.4, 0.1, -0.01, 0.2, 0.03)],
         "not told apart from the best floor, hog (0.400; difference +0.100 [-0.010, +0.200], "
         "p = 0.030)."),
    ],
)  # fmt: skip
def test_sentence(lines, expected):
    text = standing("mAP@5", 0.5, (0.45, 0.55), floor_table(*lines))
    assert text == f"mAP@5 0.500 [0.450, 0.550]: {expected}"
    text = standing("mAP@5", 0.5, (0.45, 0.55), floor_table(*lines), rough="few")
    assert text == f"mAP@5 0.500 [0.450, 0.550] (few): {expected}"


def test_the_corrected_p_decides():
    """Thirty floors at p = 0.01 each: every one alone is shown, corrected none is."""
    floors = floor_table(*((f"f{i}", 0.4, 0.1, 0.01, 0.2, 0.01) for i in range(30)))
    assert "above every floor" in standing("mAP@5", 0.5, (0.4, 0.6), floors)
    floors["p_holm"] = holm(floors["p_holm"])
    assert "not told apart" in standing("mAP@5", 0.5, (0.4, 0.6), floors)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ((-0.0001, NAN, NAN, NAN), "difference -0.0001 (no interval), not tested"),
        ((0.0, -0.1, 0.0002, 1), "difference +0.0000 [-0.1000, +0.0002], p = 1.000"),
        (ABOVE, "difference +0.100 [+0.050, +0.150], p < 0.001"),
        (BELOW, "difference -0.100 [-0.150, -0.050], p = 0.004"),
    ],
)
def test_a_difference_in_words(test, expected):
    assert difference_text(*test) == expected


@pytest.mark.parametrize(
    ("test", "sign"),
    [
        ((0.1, 0.05, 0.2, 0.049), 1),
        ((-0.1, -0.2, -0.05, 0.049), -1),
        ((0.1, 0.05, 0.2, 0.05), 0),
        ((0.1, 0.0, 0.2, 0.01), 0),
        ((-0.1, -0.2, 0.0, 0.01), 0),
        ((0.1, NAN, NAN, 0.01), 0),
        ((0.1, 0.05, 0.2, NAN), 0),
    ],
)
def test_a_difference_is_shown_by_test_and_interval(test, sign):
    assert sign_shown(*test) == sign


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda run, floors: (run.drop(columns="group"), floors), {},
         r"and not \['group'\]; expected .*evaluate it again"),
        (lambda *both: both, {"headline_column": "precision"}, r"not \['precision'\]"),
        (lambda run, floors: (run, floors.drop(columns="query_id")), {}, "query_id among them"),
        (lambda run, floors: (run, floors.iloc[:-1]), {}, r"1 query is only in a \['q059'\]"),
        (lambda run, floors: (run, floors.fillna(0.5)), {},
         "the floor 'random' .b.: query row 0 is NaN in a only"),
        (lambda run, floors: (run.assign(average_precision=NAN), floors.fillna(0.5)), {},
         "query row 0 is NaN in a only"),
        (lambda run, floors: (run, floors.assign(hog=2.0)), {}, "the floor 'hog' .b.: b hold 2.0"),
        (lambda *both: both, {"num_permutations": 3}, "num_permutations is 3"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(change, settings, message):
    run = table()
    with pytest.raises(ValueError, match=message):
        floor_differences(*change(run, floors_of(run)), **settings)


def test_floors_without_a_corrected_p_are_refused():
    floors = floor_table(("x", 0.1, *ABOVE)).drop(columns="p_holm")
    with pytest.raises(ValueError, match=r"not \['p_holm'\]"):
        standing("mAP@5", 0.5, (0.4, 0.6), floors)
