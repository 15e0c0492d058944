from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.evaluation_charts import attribute_bars, comparison_bars, floor_bars
from visual_search.views.style import BAR, FLOOR, INK, PAPER, RUN_STYLES

NASTY = [
    "$x$ and $\\frac{1}{2}$", "<script>alert(1)</script>", "W" * 90, "Überzieher", "a\nb\tc",
    "one word after another " * 9, "", "$",
]  # fmt: skip


def floor_rows(values: dict[str, float], run: str) -> list[dict[str, Any]]:
    return [
        {
            "title": title,
            "value": value,
            "low": max(0.0, value - 0.1),
            "high": min(1.0, value + 0.1),
            "is_run": title == run,
        }
        for title, value in values.items()
    ]


def tick_names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def lines(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def test_floor_bars_are_sorted_and_the_run_stands_out() -> None:
    values = {"pixels": 0.25, "run": 0.5, "HOG": 0.75, "random": float("nan")}
    figure = floor_bars(floor_rows(values, "run"), "The run and its floors", "mAP@5")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert tick_names(axes) == ["HOG", "run", "pixels", "random"]
    assert axes.yaxis_inverted(), "the best stands at the top"
    assert [patch.get_width() for patch in axes.patches] == [0.75, 0.5, 0.25]
    assert [patch.get_facecolor() for patch in axes.patches] == [
        pytest.approx(to_rgba(color)) for color in (FLOOR, BAR, FLOOR)
    ]
    assert axes.get_yticklabels()[1].get_fontweight() == "bold"
    assert axes.get_yticklabels()[0].get_fontweight() != "bold"
    ends = [line.get_xdata() for line in lines(axes, "_whisker")]
    assert ends == [pytest.approx(pair) for pair in ([0.65, 0.85], [0.4, 0.6], [0.15, 0.35])]
    (carried,) = lines(axes, "_run")
    assert list(carried.get_xdata()) == [0.5, 0.5]
    shown = texts(figure)
    for text in ("The run and its floors", "0.500", "[0.400, 0.600]", "not measured"):
        assert text in shown
    assert "mAP@5 (0 to 1, higher is better)" in shown


def to_rgba(color: str) -> tuple[float, float, float, float]:
    return (*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def test_floor_bars_without_intervals_have_no_whisker() -> None:
    row = {"title": "run", "value": 0.0, "low": None, "high": math.nan, "is_run": True}
    figure = floor_bars([row], "One", "mAP@5")
    assert not lines(figure.axes[0], "_whisker")
    shown = texts(figure)
    assert "0.000" in shown
    assert not any("whiskers" in text for text in shown)


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_floor_bars_with_any_name_fit_the_page(value: float) -> None:
    rows = floor_rows(dict.fromkeys(NASTY, value), NASTY[2])
    figure = floor_bars(rows, "$t$ " * 90, "W" * 90)
    assert_texts_within_page(figure)
    assert_shown_literally(figure)


def assert_shown_literally(figure: Figure) -> None:
    found = figure.findobj(Text)
    assert len(found) > 10
    assert not any(text.get_parse_math() for text in found)


def test_floor_bars_refuse_no_row() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        floor_bars([], "Floors", "mAP@5")


def test_floor_bars_refuse_a_missing_key() -> None:
    with pytest.raises(ValueError, match="no 'low', only"):
        floor_bars([{"title": "run", "value": 0.5}], "Floors", "mAP@5")


def test_floor_bars_refuse_values_outside_zero_to_one() -> None:
    with pytest.raises(
        ValueError, match=r"the mean has the value 1.5, expected values in \[0, 1\]"
    ):
        floor_bars(floor_rows({"run": 1.5}, "run"), "Floors", "mAP@5")


def test_floor_bars_refuse_crossed_ends() -> None:
    row = {"title": "run", "value": 0.5, "low": 0.6, "high": 0.4, "is_run": True}
    with pytest.raises(ValueError, match=r"interval of 'run' runs from 0\.6 to 0\.4"):
        floor_bars([row], "Floors", "mAP@5")


def comparison(values: dict[str, list[float]], runs: list[str]) -> pd.DataFrame:
    data: dict[str, Any] = {"category": list(values), "num_queries": range(1, 1 + len(values))}
    for place, run in enumerate(runs):
        mean = np.array([row[place] for row in values.values()])
        data |= {f"mean:{run}": mean}
        data |= {f"low:{run}": np.clip(mean - 0.1, 0, 1), f"high:{run}": np.clip(mean + 0.1, 0, 1)}
    if len(runs) == 2:
        difference = data[f"mean:{runs[0]}"] - data[f"mean:{runs[1]}"]
        data |= {"difference": difference, "p_holm": np.where(difference > 0.2, 0.01, 0.4)}
        data |= {
            "difference_low": np.clip(difference - 0.125, -1, 1),
            "difference_high": np.clip(difference + 0.125, -1, 1),
        }
    return pd.DataFrame(data)


def test_two_runs_are_sorted_by_their_difference_and_marked() -> None:
    values = {"bag": [0.5, 0.75], "hat": [0.75, 0.25], "coat": [math.nan] * 2, "shoe": [0.5, 0.5]}
    table = comparison(values, ["a", "b"]).assign(few_queries=[False, True, False, False])
    figure = comparison_bars(table, ["a", "b"], "mAP@5")
    figure.draw_without_rendering()
    means, differences = figure.axes
    assert tick_names(means) == ["hat", "shoe", "bag", "coat"]
    points = lines(means, "_point")
    assert [point.get_xdata()[0] for point in points] == [0.75, 0.25, 0.5, 0.5, 0.5, 0.75]
    styles = [(point.get_color(), point.get_marker()) for point in points]
    assert [point.get_markeredgecolor() for point in points] == [s[0] for s in RUN_STYLES[:2]] * 3
    assert [marker for _, marker in styles] == ["o", "s"] * 3
    # both points lie within the row of their category, at different heights
    assert [round(point.get_ydata()[0]) for point in points] == [0, 0, 1, 1, 2, 2]
    assert len({point.get_ydata()[0] for point in points}) == 6
    found = lines(differences, "_point")
    assert [point.get_xdata()[0] for point in found] == [0.5, 0.0, -0.25]
    assert [point.get_markerfacecolor() for point in found] == [INK, PAPER, PAPER]
    ends = [list(line.get_xdata()) for line in lines(differences, "_whisker")]
    assert ends == [[0.375, 0.625], [-0.125, 0.125], [-0.375, -0.125]]
    low, high = differences.get_xlim()
    assert low == -high
    assert high > 0.625
    bolds = [text.get_text() for text in differences.texts if text.get_fontweight() == "bold"]
    assert bolds == ["+0.500", "0.010"]
    shown = texts(figure)
    for text in ("a", "b", "few", "no scored query", "-0.250", "mAP@5 by category, 2 runs"):
        assert text in shown
    assert any("first run minus second" in text for text in shown)


def test_tiny_p_values_are_not_written_as_zero() -> None:
    table = comparison({"hat": [0.75, 0.25]}, ["a", "b"]).assign(p_holm=1e-9)
    assert "< 0.001" in texts(comparison_bars(table, ["a", "b"], "mAP@5"))


@pytest.mark.parametrize("num_runs", [3, 6])
def test_more_runs_have_one_panel_sorted_by_the_first(num_runs: int) -> None:
    runs = [f"run {i}" for i in range(num_runs)]
    values = {"hat": [0.25] * num_runs, "shoe": [0.75] + [0.0] * (num_runs - 1)}
    figure = comparison_bars(comparison(values, runs), runs, "mAP@5")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert tick_names(axes) == ["shoe", "hat"]
    points = lines(axes, "_point")
    assert len(points) == 2 * num_runs
    assert len({point.get_markeredgecolor() for point in points}) == num_runs
    assert len({point.get_marker() for point in points}) == num_runs
    heights = sorted(point.get_ydata()[0] for point in points)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.1, "no point hides another"
    assert set(runs) <= set(texts(figure))


@pytest.mark.parametrize("runs", [NASTY[:2], NASTY[:6]])
@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_comparisons_with_any_name_fit_the_page(runs: list[str], value: float) -> None:
    table = comparison({name: [value] * len(runs) for name in NASTY}, runs)
    figure = comparison_bars(table, runs, "$m$ " * 30)
    assert_texts_within_page(figure)
    assert_shown_literally(figure)


def test_comparisons_of_sixty_categories_fit_the_page() -> None:
    table = comparison({f"Category {i}": [i / 60, 0.5] for i in range(60)}, ["a", "b"])
    assert_texts_within_page(comparison_bars(table, ["a", "b"], "mAP@5"))


@pytest.mark.parametrize("runs", [["a"], ["a", "a"]])
def test_comparisons_refuse_fewer_than_two_runs(runs: list[str]) -> None:
    table = comparison({"hat": [0.5] * len(runs)}, runs)
    with pytest.raises(ValueError, match="expected two or more different names"):
        comparison_bars(table, runs, "mAP@5")


def test_of_ten_runs_the_best_six_are_drawn_and_the_page_says_so() -> None:
    runs = [f"run {i}" for i in range(10)]
    figure = comparison_bars(comparison({"hat": [i / 10 for i in range(10)]}, runs), runs, "mAP@5")
    assert_texts_within_page(figure)
    shown = texts(figure)
    assert [run for run in runs if run in shown] == runs[4:]
    assert any("6 of 10 runs" in text for text in shown)


def test_of_three_thousand_categories_those_with_most_queries_are_compared() -> None:
    names = [f"Category {i:04d}" for i in range(3000)]
    table = comparison({name: [0.5, 0.25] for name in names}, ["a", "b"])
    table["num_queries"] = [1] * 2999 + [50]
    figure = comparison_bars(table, ["a", "b"], "mAP@5")
    assert max(figure.get_size_inches()) < 40
    assert "Category 2999" in tick_names(figure.axes[0])
    assert any("3,000 categories" in text for text in texts(figure))


@pytest.mark.parametrize("column", ["num_queries", "high:b", "p_holm"])
def test_comparisons_refuse_a_missing_column(column: str) -> None:
    table = comparison({"hat": [0.5, 0.5]}, ["a", "b"]).drop(columns=column)
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        comparison_bars(table, ["a", "b"], "mAP@5")


def test_comparisons_refuse_an_empty_table() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        comparison_bars(comparison({}, ["a", "b"]), ["a", "b"], "mAP@5")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("mean:a", 1.5, r"the mean has the value 1\.5"),
        ("difference", -1.5, r"\(difference \+ 1\) / 2 has the value -0\.25"),
        ("p_holm", 2.0, r"p_holm has the value 2\.0"),
        ("low:b", 0.99, "expected its low end first"),
        ("difference_low", 0.99, "expected its low end first"),
    ],
)
def test_comparisons_refuse_wrong_numbers(column: str, value: float, message: str) -> None:
    table = comparison({"hat": [0.5, 0.5]}, ["a", "b"]).assign(**{column: value})
    with pytest.raises(ValueError, match=message):
        comparison_bars(table, ["a", "b"], "mAP@5")


def rules(values: dict[tuple[str, str], float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "relevance": rule, "embedding": name, "is_run": name == "run", "value": value,
                "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1),
            }
            for (rule, name), value in values.items()
        ]
    )  # fmt: skip


def test_each_rule_is_a_group_with_the_best_embedding_first() -> None:
    values = {
        ("usage", "run"): 0.25,
        ("colour", "run"): 0.75,
        ("usage", "HOG"): 0.5,
        ("colour", "HOG"): 0.25,
        ("colour", "untrained"): math.nan,
    }
    figure = attribute_bars(rules(values), "mAP@5")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert tick_names(axes) == ["", "HOG", "run", "", "run", "HOG", "untrained"]
    heads = {t.get_text(): round(t.get_position()[1]) for t in axes.texts}
    assert (heads["usage"], heads["colour"], heads["not measured"]) == (0, 3, 6)
    points = lines(axes, "_point")
    places = [(point.get_xdata()[0], point.get_ydata()[0]) for point in points]
    assert places == [(0.5, 1), (0.25, 2), (0.75, 4), (0.25, 5)]
    assert [point.get_markeredgecolor() for point in points] == [FLOOR, BAR, BAR, FLOOR]
    assert len(lines(axes, "_whisker")) == 4
    assert "[0.650, 0.850]" in texts(figure)


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_rules_with_any_name_fit_the_page(value: float) -> None:
    figure = attribute_bars(rules({(r, e): value for r in NASTY for e in NASTY}), "$m$ " * 40)
    assert_texts_within_page(figure)
    assert_shown_literally(figure)


def test_rules_refuse_a_missing_column() -> None:
    with pytest.raises(ValueError, match="no column 'is_run'"):
        attribute_bars(rules({("usage", "run"): 0.5}).drop(columns="is_run"), "mAP@5")


def test_rules_refuse_an_empty_table() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        attribute_bars(rules({("usage", "run"): 0.5}).head(0), "mAP@5")


def test_rules_refuse_a_pair_twice() -> None:
    table = pd.concat([rules({("usage", "run"): 0.5})] * 2)
    with pytest.raises(ValueError, match=r"\('usage', 'run'\) more than once"):
        attribute_bars(table, "mAP@5")


def test_rules_refuse_values_outside_zero_to_one() -> None:
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        attribute_bars(rules({("usage", "run"): 7.0}), "mAP@5")


def test_rules_refuse_crossed_ends() -> None:
    table = rules({("usage", "run"): 0.5}).assign(high=0.1)
    with pytest.raises(ValueError, match="expected its low end first"):
        attribute_bars(table, "mAP@5")
