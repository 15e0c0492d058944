from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.views.test_evaluation_charts import comparison, floor_rows, rules
from tests.views.test_figures import headline, texts
from visual_search.views import style
from visual_search.views.chart_rows import (
    best_first,
    chart_page,
    check_columns,
    check_fractions,
    check_intervals,
    checked_intervals,
    fit_width,
    text_width_in,
)
from visual_search.views.confusion import confusion_matrix
from visual_search.views.evaluation_charts import attribute_bars, comparison_bars, floor_bars
from visual_search.views.figures import category_bars
from visual_search.views.style import quiet_style
from visual_search.views.training_curves import training_curves

# The style's own, and the edges of axes as quiet_style sets them.
NAMED = {
    color.lower()
    for value in vars(style).values()
    for color in re.findall(r"#[0-9a-fA-F]{6}", str(value))
} | {"#bbbbbb"}

CHARTS: dict[str, Callable[[], Figure]] = {
    "category_bars": lambda: category_bars(
        headline({"hat": 0.5, "shoe": 0.25}).assign(few_queries=[True, False]), "map_at_5",
        micro=0.5, macro=0.4,
        floors=pd.DataFrame({"category": ["hat"], "hog": [0.3]}), floor="hog",
    ),
    "floor_bars": lambda: floor_bars(floor_rows({"run": 0.5, "HOG": 0.4}, "run"), "Run", "mAP@5"),
    "comparison_bars": lambda: comparison_bars(
        comparison({"hat": [0.75, 0.25], "shoe": [0.5, 0.5]}, ["a", "b"]), ["a", "b"], "mAP@5"
    ),
    "confusion_matrix": lambda: confusion_matrix(["hat", "shoe"], [["hat", "shoe"], ["hat"]]),
    "training_curves": lambda: training_curves(
        pd.DataFrame({"epoch": [1, 2], "train/loss": [1, 0.5], "val/map_at_5": [0.25, 0.5]}),
        floors={"HOG": 0.4},
    ),
    "attribute_bars": lambda: attribute_bars(rules({("usage", "run"): 0.5}), "mAP@5"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_charts_use_only_colours_that_a_page_can_replace(name: str) -> None:
    figure = CHARTS[name]()
    written = io.StringIO()
    with quiet_style(), matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(written, format="svg", facecolor="white")
    drawn = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{6})", written.getvalue()))
    assert len(drawn) >= 4
    assert drawn <= NAMED, f"{drawn - NAMED} are no constants of views/style.py"


@pytest.mark.parametrize("dpi", [80, 100, 150])
@pytest.mark.parametrize("text", ["iiii" * 40, "W" * 200, "one word after another " * 20])
def test_a_text_that_was_fitted_is_not_wider_when_drawn(text: str, dpi: int) -> None:
    with quiet_style():
        shown = fit_width(text, 3.0, 9.5)
        figure = Figure(dpi=dpi)
        drawn = figure.text(0, 0, shown, fontsize=9.5)
        width_in = drawn.get_window_extent().width / dpi
    assert "…" in shown[1:-1], "the end tells names apart"
    assert 2.6 < width_in <= 3.0


def test_a_text_that_fits_stays_whole() -> None:
    with quiet_style():
        assert fit_width("Hats", text_width_in("Hats") + 0.01) == "Hats"
        assert fit_width("", 1.0) == ""


def test_notes_are_wrapped_and_the_body_starts_below_them() -> None:
    with quiet_style():
        one, high = chart_page(4.0, 2.0, "Title", ["short"])
        many, higher = chart_page(4.0, 2.0, "Title", ["a longer sentence " * 8], [("o", "k", "x")])
    assert texts(one) == ["Title", "short"]
    lines = texts(many)
    assert " ".join(lines[1:-1]) == ("a longer sentence " * 8).strip()
    assert higher - high == pytest.approx(0.19 * (len(lines) - 2 - 1 + 1))
    assert many.get_size_inches()[1] - higher == pytest.approx(2.0)
    lowest = min(text.get_position()[1] for text in many.findobj(Text) if text.get_text())
    assert (1 - lowest) * many.get_size_inches()[1] < higher


def test_rows_are_sorted_best_first() -> None:
    assert best_first(["d", "c", "B", "a"], np.array([0.0, np.nan, 0.5, 0.5])) == [3, 2, 0, 1]


def test_missing_columns_and_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"numbers has no column 'b', only .*; add it"):
        check_columns(pd.DataFrame({"a": [1]}), ["a", "b"], "numbers", "add it")
    with pytest.raises(ValueError, match="numbers has 0 rows"):
        check_columns(pd.DataFrame({"a": []}), ["a"], "numbers", "add it")


def test_fractions_may_be_off_by_rounding_alone() -> None:
    assert len(check_fractions([-1e-12, 1 + 1e-12, np.nan], "mean")) == 3
    with pytest.raises(ValueError, match=r"mean has the value -0\.01, expected"):
        check_fractions([-0.01], "mean")


def test_crossed_intervals_are_refused() -> None:
    check_intervals(np.array([np.nan]), np.array([0.5]), ["hat"])
    with pytest.raises(ValueError, match="expected its low end first"):
        check_intervals(np.array([0.6]), np.array([0.5]), ["hat"])
    with pytest.raises(ValueError, match="expected its low end first"):
        checked_intervals(["hat"], [0.5], [0.6], [0.5])
    with pytest.raises(ValueError, match="the high end has the value 2"):
        checked_intervals(["hat"], [0.5], [0.4], [2.0])


def test_colours_of_bars_stay_apart_in_black_and_white() -> None:
    greys = [
        np.dot([int(to_hex(c)[i : i + 2], 16) for i in (1, 3, 5)], [0.2126, 0.7152, 0.0722])
        for c in (style.BAR, style.BAR_PALE)
    ]
    assert greys[1] - greys[0] > 50
