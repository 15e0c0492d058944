from __future__ import annotations

import itertools

import pytest
from matplotlib.colors import to_hex

from tests.views.drawn import NAN, comparison, floor_rows, lines, names_down, places, rules, texts
from visual_search.views.evaluation_charts import attribute_bars, comparison_bars, floor_bars
from visual_search.views.style import BAR, FLOOR, INK, PAPER, RUN_STYLES


def test_floor_bars_are_sorted_and_the_run_stands_out() -> None:
    values = {"pixels": 0.25, "run": 0.5, "HOG": 0.75, "random": NAN}
    figure = floor_bars(floor_rows(values, "run"), "The run and its floors", "mAP@5")
    (axes,) = figure.axes
    assert names_down(axes) == ["HOG", "run", "pixels", "random"]
    assert [patch.get_width() for patch in axes.patches] == [0.75, 0.5, 0.25]
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == [FLOOR, BAR, FLOOR]
    heavy = [each.get_text() for each in axes.get_yticklabels() if each.get_fontweight() == "bold"]
    assert heavy == ["run"]
    ends = [xs for xs, _ in places(axes, "_whisker")]
    assert ends == [pytest.approx(pair) for pair in ([0.65, 0.85], [0.4, 0.6], [0.15, 0.35])]
    (carried,) = lines(axes, "_run")
    assert list(carried.get_xdata()) == [0.5, 0.5]
    shown = texts(figure)
    for text in (
        "The run and its floors", "0.500", "[0.400, 0.600]", "not measured",
        "mAP@5 (0 to 1, higher is better)",
    ):  # fmt: skip
        assert text in shown


def test_floor_bars_without_intervals_have_no_whisker() -> None:
    row = {"title": "run", "value": 0.0, "low": None, "high": NAN, "is_run": True}
    figure = floor_bars([row], "One", "mAP@5")
    assert not lines(figure.axes[0], "_whisker")
    shown = texts(figure)
    assert "0.000" in shown
    assert not any("whiskers" in text for text in shown)


def test_two_runs_are_sorted_by_their_difference_and_marked() -> None:
    values = {"bag": [0.5, 0.75], "hat": [0.75, 0.25], "coat": [NAN] * 2, "shoe": [0.5, 0.5]}
    table = comparison(values, ["a", "b"]).assign(few_queries=[False, True, False, False])
    figure = comparison_bars(table, ["a", "b"], "mAP@5")
    means, differences = figure.axes
    assert names_down(means) == ["hat", "shoe", "bag", "coat"]
    points = places(means, "_point")
    assert [x for (x,), _ in points] == [0.75, 0.25, 0.5, 0.5, 0.5, 0.75]
    # both points lie within the row of their category, at different heights
    assert [round(y) for _, y in points] == [0, 0, 1, 1, 2, 2]
    assert len({y for _, y in points}) == 6
    styles = [(point.get_markeredgecolor(), point.get_marker()) for point in lines(means, "_point")]
    assert styles == [*RUN_STYLES[:2]] * 3
    assert [x for (x,), _ in places(differences, "_point")] == [0.5, 0.0, -0.25]
    filled = [point.get_markerfacecolor() for point in lines(differences, "_point")]
    assert filled == [INK, PAPER, PAPER]
    ends = [xs for xs, _ in places(differences, "_whisker")]
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
    tiny = comparison_bars(table.assign(p_holm=1e-9), ["a", "b"], "mAP@5")
    assert "< 0.001" in texts(tiny), "no p value is written as zero"


def test_more_runs_have_one_panel_sorted_by_the_first() -> None:
    runs = [f"run {i}" for i in range(6)]
    values = {"hat": [0.25] * 6, "shoe": [0.75] + [0.0] * 5}
    figure = comparison_bars(comparison(values, runs), runs, "mAP@5")
    (axes,) = figure.axes
    assert names_down(axes) == ["shoe", "hat"]
    points = lines(axes, "_point")
    assert len(points) == 12
    assert len({point.get_markeredgecolor() for point in points}) == 6
    assert len({point.get_marker() for point in points}) == 6
    heights = sorted(point.get_ydata()[0] for point in points)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.1, "no point hides another"
    assert set(runs) <= set(texts(figure))


def test_of_ten_runs_the_best_six_are_drawn_and_the_page_says_so() -> None:
    runs = [f"run {i}" for i in range(10)]
    table = comparison({"hat": [i / 10 for i in range(10)]}, runs)
    figure = comparison_bars(table, runs, "mAP@5")
    shown = texts(figure)
    named = [text for text in shown if text in runs]
    assert sorted(named) == runs[4:]
    means = [x for (x,), _ in places(figure.axes[0], "_point")]
    assert [f"run {10 * mean:.0f}" for mean in means] == named, "each under its own name"
    assert any("6 of 10 runs" in text for text in shown)


def test_each_rule_is_a_group_with_the_best_embedding_first() -> None:
    values = {
        ("usage", "run"): 0.25, ("colour", "run"): 0.75, ("usage", "HOG"): 0.5,
        ("colour", "HOG"): 0.25, ("colour", "untrained"): NAN,
    }  # fmt: skip
    figure = attribute_bars(rules(values), "mAP@5")
    (axes,) = figure.axes
    assert names_down(axes) == ["", "HOG", "run", "", "run", "HOG", "untrained"]
    heads = {t.get_text(): round(t.get_position()[1]) for t in axes.texts}
    assert (heads["usage"], heads["colour"], heads["not measured"]) == (0, 3, 6)
    assert places(axes, "_point") == [([0.5], 1), ([0.25], 2), ([0.75], 4), ([0.25], 5)]
    colours = [point.get_markeredgecolor() for point in lines(axes, "_point")]
    assert colours == [FLOOR, BAR, BAR, FLOOR]
    assert len(lines(axes, "_whisker")) == 4
    assert "[0.650, 0.850]" in texts(figure)
