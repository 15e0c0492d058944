from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.style import MACRO, MICRO
from visual_search.views.training_curves import spread, training_curves

NAN = float("nan")


def history(**columns: Any) -> pd.DataFrame:
    names = {
        "train": "train/loss", "val": "val/loss", "micro": "val/map_at_5",
        "macro": "val/macro_map_at_5",
    }  # fmt: skip
    return pd.DataFrame({names.get(name, name): values for name, values in columns.items()})


def curves(axes: Axes) -> dict[str, Any]:
    return {
        str(line.get_label()): line
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


def points(line: Any) -> list[tuple[int, float]]:
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_losses_stand_left_and_retrieval_right_where_measured() -> None:
    data = history(
        epoch=[3, 1, 2],
        train=[0.25, 1.0, 0.5],
        val=[0.75, NAN, 0.5],
        micro=[0.625, 0.25, NAN],
        macro=[0.5, 0.125, NAN],
    ).assign(**{"val/map_at_5/hat": 0.9, "val/precision_at_5": 0.9})
    left, right = training_curves(data).axes
    assert list(curves(left)) == ["train/loss", "val/loss"]
    assert points(curves(left)["train/loss"]) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert points(curves(left)["val/loss"]) == [(2, 0.5), (3, 0.75)]
    assert list(curves(right)) == ["val/map_at_5", "val/macro_map_at_5"]
    assert points(curves(right)["val/map_at_5"]) == [(1, 0.25), (3, 0.625)]
    assert curves(right)["val/map_at_5"].get_color() == MICRO
    assert curves(right)["val/macro_map_at_5"].get_color() == MACRO
    shown = texts(training_curves(data))
    for text in (
        "train loss, best 0.25 after epoch 3",
        "val loss, best 0.5 after epoch 2",
        "val micro, best 0.625 after epoch 3",
        "val macro, best 0.500 after epoch 3",
        "mAP@5 (higher is better)",
    ):
        assert text in shown
    assert any(text.startswith("3 epochs trained") for text in shown)


def test_rows_of_the_same_epoch_are_taken_together() -> None:
    data = history(epoch=[1, 1, 1], train=[0.5, 0.25, NAN], micro=[NAN, NAN, 0.5])
    left, right = training_curves(data).axes
    assert points(curves(left)["train/loss"]) == [(1, 0.25)]
    assert points(curves(right)["val/map_at_5"]) == [(1, 0.5)]


def test_a_single_epoch_shows_as_points_within_the_panels() -> None:
    data = history(epoch=[1], train=[0.5], val=[0.5], micro=[1.0], macro=[0.0])
    figure = training_curves(data)
    figure.draw_without_rendering()
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
    assert_texts_within_page(figure)


def test_another_metric_can_be_drawn() -> None:
    data = pd.DataFrame({"epoch": [1], "val/hit_at_1": [0.5], "val/map_at_5": [0.25]})
    _, right = training_curves(data, metric="hit_at_1").axes
    assert list(curves(right)) == ["val/hit_at_1"]


def test_a_panel_without_data_says_so() -> None:
    figure = training_curves(history(epoch=[1, 2], train=[1.0, 0.5]))
    assert [text.get_text() for text in figure.axes[1].texts].count("not measured") == 1
    assert all(text.get_text() != "not measured" for text in figure.axes[0].texts)


def test_losses_that_differ_by_orders_have_a_logarithmic_axis() -> None:
    def scale(values: list[float]) -> str:
        return training_curves(history(epoch=[1, 2], train=values)).axes[0].get_yscale()

    assert scale([100.0, 1.0]) == "log"
    assert scale([10.0, 1.0]) == "linear"
    assert scale([100.0, 0.0]) == "linear", "zero has no logarithm"


def test_losses_that_are_not_finite_are_left_out_and_counted() -> None:
    data = history(epoch=[1, 2, 3], train=[0.5, np.inf, 0.25], val=[NAN, NAN, -np.inf])
    figure = training_curves(data)
    found = curves(figure.axes[0])
    assert points(found["train/loss"]) == [(1, 0.5), (3, 0.25)]
    assert any("2 losses not finite, left out" in text for text in texts(figure))


def test_floors_are_lines_with_their_names_apart() -> None:
    data = history(epoch=[1, 2], micro=[0.25, 0.5])
    floors = {"HOG": 0.4, "pixels": 0.4, "random": NAN, "colours": 0.125}
    figure = training_curves(data, floors=floors)
    _, right = figure.axes
    found = [line for line in right.lines if line.get_label() == "_floor"]
    assert [line.get_ydata()[0] for line in found] == [0.125, 0.4, 0.4]
    assert right.get_ylim()[0] < 0.125
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [
        text.get_window_extent(renderer)
        for text in right.texts
        if text.get_text().strip() in ("HOG 0.400", "pixels 0.400", "colours 0.125")
    ]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_names_that_meet_are_spread_about_their_middle() -> None:
    assert spread([0.0, 10.0], 1.0) == [0.0, 10.0]
    assert spread([5.0, 5.0], 1.0) == [4.5, 5.5]
    assert spread([0.0, 4.9, 5.1, 5.0], 1.0) == pytest.approx([0.0, 4.0, 5.0, 6.0])
    assert spread([], 1.0) == []


@pytest.mark.parametrize("num_floors", [0, 8])
@pytest.mark.parametrize("num_epochs", [1, 200])
def test_any_names_fit_the_page(num_epochs: int, num_floors: int) -> None:
    epochs = range(1000, 1000 + num_epochs)
    values = np.linspace(0, 1, num_epochs)
    data = history(epoch=epochs, train=values + 1, micro=values, macro=values)
    names = ["$x$ $\\frac{1}{2}$", "<script>", "W" * 90, "Über", "a\nb", "", "$", "long " * 30]
    floors = {name: i % 2 for i, name in enumerate(names[:num_floors])}
    figure = training_curves(data, floors=floors)
    assert_texts_within_page(figure)


def test_no_epoch_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'epoch'"):
        training_curves(history(train=[0.5]))


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        training_curves(history(epoch=[], train=[]))


@pytest.mark.parametrize("epoch", [0.5, -1, NAN, np.inf])
def test_an_epoch_that_is_no_whole_number_is_refused(epoch: float) -> None:
    with pytest.raises(ValueError, match="expected whole epochs trained so far"):
        training_curves(history(epoch=[epoch], train=[0.5]))


@pytest.mark.parametrize("value", [NAN, np.inf])
def test_nothing_measured_is_refused(value: float) -> None:
    data = history(epoch=[1], train=[value], micro=[NAN])
    with pytest.raises(ValueError, match=r"no finite value in '<split>/loss'.*expected at least"):
        training_curves(data)


def test_retrieval_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"val/map_at_5 has the value 61\.0"):
        training_curves(history(epoch=[1], micro=[61.0]))


def test_a_floor_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the floor 'HOG' has the value 2\.0"):
        training_curves(history(epoch=[1], micro=[0.5]), floors={"HOG": 2.0})
