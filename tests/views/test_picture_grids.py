from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.figures import figure_to_array
from visual_search.views.picture_grids import SearchRow, reconstruction_grid, search_grid
from visual_search.views.style import RIGHT, WRONG

RNG = np.random.default_rng(0)


def pictures(number: int, side: int = 16) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (number, 3, side, side), dtype=np.uint8)


def row(num_neighbours: int = 5, score: float = 0.5) -> SearchRow:
    return SearchRow(
        query_image=pictures(1)[0],
        query_label="item 7",
        query_category="Coats & Jackets",
        neighbour_images=pictures(num_neighbours),
        neighbour_labels=[f"n{i}" for i in range(num_neighbours)],
        neighbour_categories=["$5 Überzieher $6"] * num_neighbours,
        squared_distances=np.linspace(0.125, 2, num_neighbours),
        correct=np.arange(num_neighbours) % 2 == 0,
        score=score,
    )


def grid_of(number: int, **kwargs: float) -> object:
    return reconstruction_grid(
        pictures(number), pictures(number), np.full(number, 0.25), ["hat"] * number, 3, **kwargs
    )


@pytest.mark.parametrize("number", [1, 3, 8, 19])
def test_reconstructions_show_error_label_epoch_and_scale(number: int) -> None:
    figure = reconstruction_grid(
        pictures(number), pictures(number), np.full(number, 0.0489), ["Hats"] * number, 7
    )
    shown = texts(figure)
    assert "Reconstructions, epoch 7" in shown
    assert shown.count("Hats") == number
    assert shown.count("MSE 0.0489") == number
    assert {"original", "reconstruction", "squared error"} <= set(shown)
    assert any(text.startswith("squared error of a pixel") for text in shown)
    # three pictures an item and the scale
    assert len(figure.axes[0].images) == 3 * number + 1
    assert_texts_within_page(figure)


def test_reconstructions_without_epoch_name_none() -> None:
    figure = reconstruction_grid(pictures(1), pictures(1), np.zeros(1), ["hat"])
    assert "Reconstructions" in texts(figure)


def test_the_error_map_holds_the_squared_error_on_minus_one_to_one() -> None:
    originals = np.zeros((1, 3, 4, 4), np.uint8)
    reconstructions = originals.copy()
    reconstructions[0, 0, 1, 2] = 255  # one channel off by 2: 4 / 3 in the mean of the channels
    figure = reconstruction_grid(originals, reconstructions, np.array([1 / 12]), ["hat"])
    shown = np.asarray(figure.axes[0].images[2].get_array())
    assert shown[1, 2] == pytest.approx(4 / 3)
    assert shown.sum() == pytest.approx(4 / 3)


def test_the_same_error_has_the_same_colour_in_every_figure() -> None:
    originals = np.zeros((1, 3, 4, 4), np.uint8)
    norms = []
    for value in (10, 200):
        figure = reconstruction_grid(originals, originals + np.uint8(value), np.ones(1), ["a"])
        norms.append(float(figure.axes[0].images[2].norm(0.04)))
    assert norms[0] == norms[1] == pytest.approx(0.2)


def test_reconstructions_refuse_what_are_no_pictures() -> None:
    with pytest.raises(ValueError, match=r"originals is \[1, 16, 16, 3\] uint8, expected \[B, 3"):
        reconstruction_grid(pictures(1).transpose(0, 2, 3, 1), pictures(1), np.zeros(1), ["hat"])


def test_reconstructions_refuse_different_shapes() -> None:
    with pytest.raises(ValueError, match="expected the same shape"):
        reconstruction_grid(pictures(2), pictures(1), np.zeros(2), ["hat"] * 2)


def test_reconstructions_refuse_no_item() -> None:
    with pytest.raises(ValueError, match="0 items"):
        reconstruction_grid(pictures(0), pictures(0), np.zeros(0), [])


def test_reconstructions_refuse_lists_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 items have 1 squared errors and 2 labels"):
        reconstruction_grid(pictures(2), pictures(2), np.zeros(1), ["hat"] * 2)


def test_search_results_show_everything() -> None:
    rows = [row(), row(score=1.0), row(score=float("nan")), row(num_neighbours=2)]
    figure = search_grid(rows, "Worst queries")
    shown = texts(figure)
    assert "Worst queries" in shown
    assert shown.count("Coats & Jackets") == 4
    assert "$5 Überzieher $6" in shown
    assert {"AP@5 0.500", "AP@5 1.000", "no relevant item", "d² 0.125", "d² 2"} <= set(shown)
    assert any("mean AP@5 of these 3: 0.667" in text for text in shown)
    assert shown.count("✓") == 3 * 3 + 1
    assert shown.count("✗") == 2 * 3 + 1
    assert_texts_within_page(figure)


def test_frames_are_green_where_right_and_red_where_wrong() -> None:
    figure = search_grid([row()])
    pixels = figure_to_array(figure).reshape(-1, 3).astype(int)
    for color, number in ((RIGHT, 3), (WRONG, 2)):
        wanted = np.rint(np.array(to_rgb(color)) * 255).astype(int)
        count = (np.abs(pixels - wanted).max(axis=1) <= 2).sum()
        # a frame of 130 px a side and 2.5 points (3.5 px) has about 1,700 pixels, with its disc
        assert count == pytest.approx(1750 * number, rel=0.3)


def test_a_query_without_neighbours_is_shown() -> None:
    assert "AP@5 0.500" in texts(search_grid([row(num_neighbours=0)]))


def test_search_grid_refuses_no_row() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        search_grid([])


def test_search_row_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"query_image\[None\] is \[1, 3, 16, 16\] float64"):
        replace(row(), query_image=pictures(1)[0].astype(np.float64))


def test_search_row_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        replace(row(), neighbour_labels=["one"])
