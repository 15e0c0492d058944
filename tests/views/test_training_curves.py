from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.views.drawn import NAN, assert_apart, history, places, texts
from visual_search.views.style import MACRO, MICRO
from visual_search.views.training_curves import spread, training_curves


def curves(axes: Axes) -> dict[str, Any]:
    named = {str(line.get_label()): line for line in axes.lines}
    return {label: line for label, line in named.items() if not label.startswith("_")}


def points(line: Any) -> list[tuple[int, float]]:
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_losses_stand_left_and_retrieval_right_where_measured() -> None:
    data = history(
        epoch=[3, 1, 2, 3], train=[0.75, 1.0, 0.5, 0.25], val=[0.75, NAN, 0.5, NAN],
        micro=[0.625, 0.25, NAN, NAN], macro=[0.5, 0.125, NAN, NAN],
    ).assign(**{"val/map_at_5/hat": 0.9, "val/hit_at_1": 0.75})  # fmt: skip
    figure = training_curves(data)
    left, right = (curves(axes) for axes in figure.axes)
    assert list(left) == ["train/loss", "val/loss"]
    # of the same epoch the last measurement counts
    assert points(left["train/loss"]) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert points(left["val/loss"]) == [(2, 0.5), (3, 0.75)]
    assert list(right) == ["val/map_at_5", "val/macro_map_at_5"]
    assert points(right["val/map_at_5"]) == [(1, 0.25), (3, 0.625)]
    assert [line.get_color() for line in right.values()] == [MICRO, MACRO]
    shown = texts(figure)
    for text in (
        "train loss, best 0.25 after epoch 3", "val loss, best 0.5 after epoch 2",
        "val micro, best 0.625 after epoch 3", "val macro, best 0.500 after epoch 3",
        "mAP@5 (higher is better)",
    ):  # fmt: skip
        assert text in shown
    assert any(text.startswith("3 epochs trained") for text in shown)
    assert list(curves(training_curves(data, metric="hit_at_1").axes[1])) == ["val/hit_at_1"]


def test_a_single_epoch_shows_as_points_within_the_panels() -> None:
    figure = training_curves(history(epoch=[1], train=[0.5], val=[0.5], micro=[1.0], macro=[0.0]))
    texts(figure)
    for axes in figure.axes:
        found = curves(axes)
        assert len(found) == 2
        (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        for line in found.values():
            ((x, y),) = points(line)
            assert low < x < high
            assert bottom < y < top
            assert line.get_marker() in ("o", "s")
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_losses_that_are_not_finite_are_left_out_and_counted() -> None:
    data = history(epoch=[1, 2, 3], train=[0.5, np.inf, 0.25], val=[NAN, NAN, -np.inf])
    figure = training_curves(data)
    assert points(curves(figure.axes[0])["train/loss"]) == [(1, 0.5), (3, 0.25)]
    assert any("2 losses not finite, left out" in text for text in texts(figure))
    said = [[text.get_text() for text in axes.texts].count("not measured") for axes in figure.axes]
    assert said == [0, 1], "a panel without data says so"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([100.0, 1.0], "log"), ([10.0, 1.0], "linear"), ([100.0, 0.0], "linear")],
)
def test_losses_that_differ_by_orders_have_a_logarithmic_axis(
    losses: list[float], scale: str
) -> None:
    figure = training_curves(history(epoch=[1, 2], train=losses))
    assert figure.axes[0].get_yscale() == scale, "zero has no logarithm"


def test_floors_are_lines_with_their_names_apart() -> None:
    floors = {"HOG": 0.4, "pixels": 0.4, "random": NAN, "colours": 0.125}
    figure = training_curves(history(epoch=[1, 2], micro=[0.25, 0.5]), floors=floors)
    right = figure.axes[1]
    assert [y for _, y in places(right, "_floor")] == [0.125, 0.4, 0.4]
    assert right.get_ylim()[0] < 0.125
    texts(figure)
    named = ("HOG 0.400", "pixels 0.400", "colours 0.125")
    written = [text for text in right.texts if text.get_text().strip() in named]
    assert len(written) == 3
    assert_apart(written)


def test_names_that_meet_are_spread_about_their_middle() -> None:
    assert spread([0.0, 10.0], 1.0) == [0.0, 10.0]
    assert spread([5.0, 5.0], 1.0) == [4.5, 5.5]
    assert spread([0.0, 4.9, 5.1, 5.0], 1.0) == pytest.approx([0.0, 4.0, 5.0, 6.0])
    assert spread([], 1.0) == []
