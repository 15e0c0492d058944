"""Grids of pictures: reconstructions, answers, near-duplicates, feature maps."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tests.views.drawn import NAN, pair, pictures, reconstructions, row, texts
from visual_search.views.duplicates import MAX_SHOWN, duplicate_pairs
from visual_search.views.feature_maps import feature_map_grid
from visual_search.views.figures import figure_to_array
from visual_search.views.picture_grids import search_grid
from visual_search.views.style import RIGHT, WRONG


def num_pixels(figure: Figure, colour: str) -> int:
    wanted = np.rint(np.array(to_rgb(colour)) * 255).astype(int)
    pixels = figure_to_array(figure).reshape(-1, 3).astype(int)
    return int((np.abs(pixels - wanted).max(axis=1) <= 2).sum())


@pytest.mark.parametrize("number", [1, 19])
def test_reconstructions_show_error_label_epoch_and_scale(number: int) -> None:
    figure = reconstructions(pictures(number), epoch=7)
    shown = texts(figure)
    assert shown.count("Hats") == shown.count("MSE 0.0489") == number
    assert {"Reconstructions, epoch 7", "original", "reconstruction", "squared error"} <= set(shown)
    assert any(text.startswith("squared error of a pixel") for text in shown)
    # three pictures an item and the scale
    assert len(figure.axes[0].images) == 3 * number + 1


def test_the_error_map_holds_the_squared_error_on_minus_one_to_one() -> None:
    originals = np.zeros((1, 3, 4, 4), np.uint8)
    made = originals.copy()
    made[0, 0, 1, 2] = 255  # one channel off by 2: 4 / 3 in the mean of the channels
    figure = reconstructions(originals, made)
    assert "Reconstructions" in texts(figure), "no epoch is named"
    error = figure.axes[0].images[2]
    assert np.asarray(error.get_array())[1, 2] == pytest.approx(4 / 3)
    assert np.asarray(error.get_array()).sum() == pytest.approx(4 / 3)
    other = reconstructions(originals, originals + np.uint8(200)).axes[0].images[2]
    # the same error has the same colour in every figure
    assert error.norm(0.04) == other.norm(0.04) == pytest.approx(0.2)


def test_search_results_show_everything() -> None:
    figure = search_grid([row(), row(score=1.0), row(score=NAN), row(2), row(0)], "Worst queries")
    shown = texts(figure)
    assert shown.count("Coats & Jackets") == 5
    assert {
        "Worst queries", "$5 Überzieher $6", "AP@5 0.500", "AP@5 1.000", "no relevant item",
        "d² 0.125", "d² 2",
    } <= set(shown)  # fmt: skip
    assert any("mean AP@5 of these 4: 0.625" in text for text in shown)
    assert (shown.count("✓"), shown.count("✗")) == (3 * 3 + 1, 2 * 3 + 1)


def test_frames_are_green_where_right_and_red_where_wrong() -> None:
    correct = [True, False, False, False, False]
    figure = search_grid([row(correct=np.array(correct))])
    assert 0 < 3 * num_pixels(figure, RIGHT) < num_pixels(figure, WRONG)


@pytest.mark.parametrize("number", [1, 24])
def test_pairs_show_ids_categories_and_closeness(number: int) -> None:
    figure = duplicate_pairs([pair(i) for i in range(number)])
    shown = texts(figure)
    assert f"Near duplicates: {number} {'pair' if number == 1 else 'pairs'}" in shown
    assert {f"q{i}" for i in range(number)} <= set(shown)
    assert sum(t.startswith("65960fb1…") for t in shown) == number
    assert shown.count("Hats") == 2 * number
    assert shown.count("2 bits, rel. d² 0.00123") == number
    images = figure.axes[0].images
    assert len(images) == 2 * number
    query, item = (image for image in images if image.get_extent()[2:] == images[0].get_extent()[2:]
                   )if number == 1 else images[:2]  # fmt: skip
    assert query.get_extent()[0] < item.get_extent()[0], "the query stands left"
    np.testing.assert_array_equal(query.get_array(), pair().query_image.transpose(1, 2, 0))
    np.testing.assert_array_equal(item.get_array(), pair().gallery_image.transpose(1, 2, 0))


def test_at_most_24_are_shown_and_the_title_counts_all() -> None:
    figure = duplicate_pairs([pair(i) for i in range(30)], num_pairs=1234)
    assert len(figure.axes[0].images) == 2 * MAX_SHOWN
    assert f"Near duplicates: 1,234 pairs, {MAX_SHOWN} shown" in texts(figure)


def test_different_categories_are_marked_and_counted() -> None:
    alike = duplicate_pairs([pair()])
    assert "≠" not in texts(alike)
    assert not num_pixels(alike, WRONG)
    figure = duplicate_pairs([pair(), pair(gallery_category="Coats & $Jackets$"), pair()])
    shown = texts(figure)
    assert shown.count("≠") == 1
    assert "Coats & $Jackets$" in shown
    assert any("≠ categories differ (1)" in text for text in shown)
    assert num_pixels(figure, WRONG), "their pictures are framed"


def test_closeness_that_was_not_measured_is_not_shown() -> None:
    by_embedding = pair(hash_bits=-1)
    by_hash = pair(hash_bits=1, relative_squared_distance=NAN)
    neither = pair(hash_bits=-1, relative_squared_distance=NAN)
    shown = texts(duplicate_pairs([by_embedding, by_hash, neither]))
    assert {"rel. d² 0.00123", "1 bit", "not measured"} <= set(shown)


def test_every_layer_is_shown_with_name_shape_and_channels() -> None:
    maps = np.random.default_rng(0).normal(size=(512, 8, 8)).astype(np.float32)
    layers = {f"conv{i}": maps[:16] for i in range(19)} | {"pool4": maps[:, :1, :1]}
    figure = feature_map_grid(pictures(1)[0], layers, "Coats & Jackets $7$")
    shown = texts(figure)
    assert set(layers) <= set(shown)
    assert shown.count("16 \u00d7 8 \u00d7 8") == 19
    assert "512 \u00d7 1 \u00d7 1" in shown
    assert "all 512 values, row by row, 16 \u00d7 32" in shown
    # the original, 19 x (mean and five channels), one tile
    assert len(figure.axes[0].images) == 1 + 19 * 6 + 1


def test_the_strongest_channels_come_first_and_a_dead_layer_is_drawn() -> None:
    layer = np.zeros((4, 2, 2), np.float32)
    layer[2] = -3.0  # strength counts without sign
    layer[1] = 2.0
    figure = feature_map_grid(pictures(1)[0], {"conv1": layer, "relu": layer[:1] * 0}, "hat")
    shown = texts(figure)
    assert [text for text in shown if text.startswith("ch ")][:2] == ["ch 2", "ch 1"]
    assert "0 to 0" in shown
    assert len(figure.axes[0].images) == 1 + (1 + 4) + (1 + 1), "fewer than five are all shown"
    _, mean, first, second, *_ = figure.axes[0].images
    assert np.asarray(mean.get_array()) == pytest.approx(np.full((2, 2), -0.25))
    assert (np.asarray(first.get_array()) == -3).all()
    assert (np.asarray(second.get_array()) == 2).all()
    assert mean.get_cmap().name == "viridis"


def test_a_vector_is_a_tile_row_by_row() -> None:
    layer = np.arange(7, dtype=np.float32)[:, None, None]
    figure = feature_map_grid(pictures(1)[0], {"pool": layer}, "hat")
    tile = figure.axes[0].images[1].get_array()
    assert tile.filled(-1).tolist() == [[0, 1, 2, 3], [4, 5, 6, -1]]
