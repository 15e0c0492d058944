from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tests.views.drawn import NAN, headline, names_down, places, table, texts
from visual_search.views.figures import (
    category_bars,
    class_distribution,
    figure_to_array,
    save_figure,
)
from visual_search.views.style import BAR, BAR_PALE


def test_bars_are_sorted_and_carry_their_numbers() -> None:
    data = table({"hat": 0.25, "shoe": 0.75, "coat": NAN, "bag": 0.5, "Art": 0.5})
    figure = category_bars(data, "map_at_5", micro=0.6, macro=0.5)
    (axes,) = figure.axes
    assert names_down(axes) == ["shoe", "Art", "bag", "hat", "coat"]
    assert [patch.get_width() for patch in axes.patches] == [0.75, 0.5, 0.5, 0.25]
    shown = texts(figure)
    for text in ("mAP@5 by category", "0.750", "micro 0.600", "macro 0.500", "no scored query"):
        assert text in shown
    assert any("15 queries" in text for text in shown)
    assert not any("interval" in text for text in shown)
    scored = data.assign(num_queries_scored=3)
    shown = texts(category_bars(scored, "map_at_5", micro=0.5, macro=0.5))
    assert any("15 scored queries" in text for text in shown)


def test_bars_carry_intervals_floors_and_a_mark_of_few_queries() -> None:
    data = headline({"hat": 0.25, "shoe": 0.75, "coat": NAN}).assign(few_queries=[True, False, 0])
    floors = pd.DataFrame(
        {"category": ["shoe", "hat", "sock"], "hog": [1.0, 0.0, 0.5], "pixels": [0.1, 0.2, 0.3]}
    )
    marked = {"floors": floors, "floor": "hog", "floor_title": "HOG + PCA"}
    figure = category_bars(data, "map_at_5", micro=0.6, macro=0.5, **marked)
    (axes,) = figure.axes
    assert places(axes, "_whisker") == [([0.625, 0.875], 0), ([0.125, 0.375], 1)]
    assert places(axes, "_floor") == [([1.0], 0), ([0.0], 1)], "coat has no floor"
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == [BAR, BAR_PALE]
    (few,) = [text for text in axes.texts if text.get_text() == "few"]
    assert few.get_position()[1] == 1
    shown = texts(figure)
    for text in ("HOG + PCA, which learns nothing (floor)", "1.000", "0.000"):
        assert text in shown
    assert "mean" in shown, "values stand in a column, where no whisker crosses them"
    assert "95 % intervals" in " ".join(shown)
    assert any("fewer than 20 scored queries" in text for text in shown)
    bare = category_bars(data, "map_at_5", micro=0.6, macro=0.5, whiskers=False)
    assert places(bare.axes[0], "_whisker") == []
    assert not any("interval" in text for text in texts(bare))


def test_class_distribution_is_alphabetical_and_shares_its_rows() -> None:
    counts = {"training": {"shoe": 1200, "Bag": 3}, "queries": {"hat $5$": 5, "shoe": 7}}
    figure = class_distribution(counts)
    first, second = figure.axes
    assert names_down(first) == ["Bag", "hat $5$", "shoe"]
    assert [patch.get_width() for patch in first.patches] == [3, 0, 1200]
    assert [patch.get_width() for patch in second.patches] == [0, 5, 7]
    wanted = {"1,200", "training: 1,203 items, 2 categories", "queries: 12 items, 2 categories"}
    assert wanted <= set(texts(figure))


def test_a_figure_becomes_an_array_and_a_file_of_the_same_size(tmp_path: Path) -> None:
    figure = class_distribution({"training": {"hat": 1}})
    array = figure_to_array(figure)
    width, height = figure.get_size_inches() * 100
    assert array.dtype == np.uint8
    assert array.shape == pytest.approx((height, width, 3), abs=1)
    assert (array[0, 0] == 255).all()
    assert array.min() < 100
    assert figure_to_array(figure, dpi=50).shape[0] == pytest.approx(height / 2, abs=1)
    assert figure.get_dpi() == 100
    path = save_figure(figure, tmp_path / "deep" / "figure.png", dpi=100)
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (array.shape[1], array.shape[0])
    with pytest.raises(ValueError, match=r"does not end in '\.png'"):
        save_figure(figure, path.with_suffix(".jpg"))
    with pytest.raises(ValueError, match="dpi is 0"):
        save_figure(figure, path.with_name("other.png"), dpi=0)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"], "no temporary file is left"
