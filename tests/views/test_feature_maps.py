from __future__ import annotations

import numpy as np
import pytest

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.feature_maps import feature_map_grid

RNG = np.random.default_rng(0)
ORIGINAL = RNG.integers(0, 256, (3, 16, 16), dtype=np.uint8)


def maps(channels: int, side: int) -> np.ndarray:
    return RNG.normal(size=(channels, side, side)).astype(np.float32)


def test_every_layer_is_shown_with_name_shape_and_channels() -> None:
    layers = {f"conv{i}": maps(16, 8) for i in range(19)} | {"pool4": maps(512, 1)}
    figure = feature_map_grid(ORIGINAL, layers, "Coats & Jackets $7$")
    shown = texts(figure)
    assert set(layers) <= set(shown)
    assert shown.count("16 \u00d7 8 \u00d7 8") == 19
    assert "512 \u00d7 1 \u00d7 1" in shown
    assert "all 512 values, row by row, 16 \u00d7 32" in shown
    # the original, 19 x (mean and five channels), one tile
    assert len(figure.axes[0].images) == 1 + 19 * 6 + 1
    assert_texts_within_page(figure)


def test_the_strongest_channels_come_first() -> None:
    layer = np.zeros((4, 2, 2), np.float32)
    layer[2] = -3.0  # strength counts without sign
    layer[1] = 2.0
    figure = feature_map_grid(ORIGINAL, {"conv1": layer}, "hat")
    assert [text for text in texts(figure) if text.startswith("ch ")][:2] == ["ch 2", "ch 1"]
    _, mean, first, second, *_ = figure.axes[0].images
    assert np.asarray(mean.get_array()) == pytest.approx(np.full((2, 2), -0.25))
    assert (np.asarray(first.get_array()) == -3).all()
    assert (np.asarray(second.get_array()) == 2).all()
    assert mean.get_cmap().name == "viridis"


def test_a_vector_is_a_tile_row_by_row() -> None:
    layer = np.arange(7, dtype=np.float32)[:, None, None]
    figure = feature_map_grid(ORIGINAL, {"pool": layer}, "hat")
    tile = figure.axes[0].images[1].get_array()
    assert tile.shape == (2, 4)
    assert tile.filled(-1).tolist() == [[0, 1, 2, 3], [4, 5, 6, -1]]


def test_a_dead_layer_is_drawn() -> None:
    figure = feature_map_grid(ORIGINAL, {"relu": np.zeros((3, 4, 4), np.float32)}, "hat")
    assert "0 to 0" in texts(figure)


def test_fewer_channels_than_wanted_are_all_shown() -> None:
    figure = feature_map_grid(ORIGINAL, {"conv": maps(2, 4)}, "hat")
    assert len(figure.axes[0].images) == 1 + 1 + 2


def test_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"original\[None\] is \[1, 16, 16\]"):
        feature_map_grid(ORIGINAL[0], {"conv": maps(2, 4)}, "hat")


def test_refuses_no_layer() -> None:
    with pytest.raises(ValueError, match="layers is empty"):
        feature_map_grid(ORIGINAL, {}, "hat")


def test_refuses_a_batch() -> None:
    with pytest.raises(ValueError, match=r"'conv' is \[1, 2, 4, 4\], expected \[C, h, w\]"):
        feature_map_grid(ORIGINAL, {"conv": maps(2, 4)[None]}, "hat")


def test_refuses_nan() -> None:
    layer = maps(2, 4)
    layer[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="'conv' holds NaN or infinity"):
        feature_map_grid(ORIGINAL, {"conv": layer}, "hat")
