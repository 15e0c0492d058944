from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from visual_search.views.figures import (
    category_bars,
    class_distribution,
    figure_to_array,
    save_figure,
)
from visual_search.views.style import BAR, BAR_PALE


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def table(values: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "category": list(values),
            "num_gallery": range(10, 10 + len(values)),
            "num_queries": range(1, 1 + len(values)),
            "map_at_5": list(values.values()),
        }
    )


def test_bars_are_sorted_and_carry_their_numbers() -> None:
    values = {"hat": 0.25, "shoe": 0.75, "coat": float("nan"), "bag": 0.5, "Art": 0.5}
    figure = category_bars(table(values), "map_at_5", micro=0.6, macro=0.5)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["shoe", "Art", "bag", "hat", "coat"]
    assert axes.yaxis_inverted(), "the first name stands at the top"
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == [0.75, 0.5, 0.5, 0.25]
    shown = texts(figure)
    for text in ("mAP@5 by category", "0.750", "micro 0.600", "macro 0.500", "no scored query"):
        assert text in shown
    assert any("15 queries" in text for text in shown)


def test_bars_show_the_scored_queries_where_the_table_has_them() -> None:
    data = table({"hat": 0.5}).assign(num_queries=7, num_queries_scored=3)
    assert any(
        "3 scored queries" in t
        for t in texts(category_bars(data, "map_at_5", micro=0.5, macro=0.5))
    )


@pytest.mark.parametrize("num_categories", [1, 21, 60])
@pytest.mark.parametrize("mean", [0.0, 1.0, float("nan")])
def test_bars_of_any_number_of_categories_fit_the_page(num_categories: int, mean: float) -> None:
    data = table({f"Category {i} & more": i / 60 for i in range(num_categories)})
    figure = category_bars(data, "map_at_5", micro=mean, macro=1.0)
    assert_texts_within_page(figure)


def assert_texts_within_page(figure: Figure) -> None:
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    beyond = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        # matplotlib keeps ticks outside the axes, and draws none of them
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text not in beyond:
            box = text.get_window_extent(renderer)
            inside = (
                box.x0 >= -1 and box.x1 <= page.x1 + 1 and box.y0 >= -1 and box.y1 <= page.y1 + 1
            )
            assert inside, f"{text.get_text()!r} at {box} leaves the page {page}"


def test_bars_refuse_a_missing_column() -> None:
    with pytest.raises(ValueError, match="no column 'ndcg_at_5'"):
        category_bars(table({"hat": 0.5}), "ndcg_at_5", micro=0.5, macro=0.5)


def test_bars_refuse_an_empty_table() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        category_bars(table({}), "map_at_5", micro=0.5, macro=0.5)


@pytest.mark.parametrize(("value", "micro"), [(1.5, 0.5), (0.5, -0.1), (float("inf"), 0.5)])
def test_bars_refuse_values_outside_zero_to_one(value: float, micro: float) -> None:
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        category_bars(table({"hat": value}), "map_at_5", micro=micro, macro=0.5)


def headline(values: dict[str, float], half: float = 0.125) -> pd.DataFrame:
    data = table(values)
    return data.assign(
        headline_low=(data["map_at_5"] - half).clip(0, 1),
        headline_high=(data["map_at_5"] + half).clip(0, 1),
    )


def drawn(figure: Figure, label: str) -> list[tuple[list[float], float]]:
    """Returns x data and height of the lines so labelled."""
    return [
        (np.asarray(line.get_xdata()).tolist(), float(np.asarray(line.get_ydata())[0]))
        for line in figure.axes[0].lines
        if line.get_label() == label
    ]


def test_bars_carry_their_intervals_as_whiskers() -> None:
    values = {"hat": 0.25, "shoe": 0.75, "coat": float("nan")}
    figure = category_bars(headline(values), "map_at_5", micro=0.6, macro=0.5)
    assert drawn(figure, "_whisker") == [([0.625, 0.875], 0), ([0.125, 0.375], 1)]
    shown = texts(figure)
    assert "mean" in shown, "values stand in a column, where no whisker crosses them"
    assert any("95 % intervals" in text for text in shown)


def test_whiskers_can_be_left_out() -> None:
    figure = category_bars(
        headline({"hat": 0.25}), "map_at_5", micro=0.6, macro=0.5, whiskers=False
    )
    assert drawn(figure, "_whisker") == []
    assert not any("interval" in text for text in texts(figure))


def test_the_marked_floor_stands_on_its_row() -> None:
    floors = pd.DataFrame(
        {"category": ["shoe", "hat", "sock"], "hog": [1.0, 0.0, 0.5], "pixels": [0.1, 0.2, 0.3]}
    )
    figure = category_bars(
        table({"hat": 0.25, "shoe": 0.75, "coat": 0.5}), "map_at_5", micro=0.6, macro=0.5,
        floors=floors, floor="hog", floor_title="HOG + PCA",
    )  # fmt: skip
    assert drawn(figure, "_floor") == [([1.0], 0), ([0.0], 2)], "coat has no floor"
    shown = texts(figure)
    assert "HOG + PCA, which learns nothing (floor)" in shown
    assert "1.000" in shown
    assert "0.000" in shown


def test_few_queries_make_a_pale_bar() -> None:
    data = table({"hat": 0.25, "shoe": 0.75}).assign(few_queries=[True, False])
    figure = category_bars(data, "map_at_5", micro=0.6, macro=0.5)
    colors = [patch.get_facecolor() for patch in figure.axes[0].patches]
    assert [to_hex(color) for color in colors] == [BAR, BAR_PALE]
    (few,) = [text for text in figure.axes[0].texts if text.get_text() == "few"]
    assert few.get_position()[1] == 1
    assert any("fewer than 20 scored queries" in text for text in texts(figure))


NASTY = ["$x$ $\\frac{1}{2}$", "<script>alert(1)</script>", "W" * 90, "Über", "a\nb", "", "$"]


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_bars_with_any_name_fit_the_page(value: float) -> None:
    data = headline(dict.fromkeys(NASTY, value)).assign(few_queries=True)
    figure = category_bars(
        data, "map_at_5", micro=value, macro=1.0, title="$t$ " * 90,
        floors=pd.DataFrame({"category": NASTY, "hog": value}), floor="hog", floor_title="W" * 90,
    )  # fmt: skip
    assert_texts_within_page(figure)
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_bars_refuse_floors_without_the_one_to_mark() -> None:
    with pytest.raises(ValueError, match="floor is None although floors is given"):
        category_bars(
            table({"hat": 0.5}), "map_at_5", micro=0.5, macro=0.5,
            floors=pd.DataFrame({"category": ["hat"], "hog": [0.5]}),
        )  # fmt: skip
    with pytest.raises(ValueError, match="floors is None although floor is given"):
        category_bars(table({"hat": 0.5}), "map_at_5", micro=0.5, macro=0.5, floor="hog")


@pytest.mark.parametrize(
    ("floors", "message"),
    [
        ({"category": ["hat"], "pixels": [0.5]}, "floors has no column 'hog'"),
        ({"category": ["hat", "hat"], "hog": [0.5, 0.5]}, "category 'hat' more than once"),
        ({"category": ["hat"], "hog": [1.5]}, r"hog has the value 1\.5"),
    ],
)
def test_bars_refuse_wrong_floors(floors: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        category_bars(
            table({"hat": 0.5}), "map_at_5", micro=0.5, macro=0.5,
            floors=pd.DataFrame(floors), floor="hog",
        )  # fmt: skip


def test_bars_refuse_crossed_ends() -> None:
    data = table({"hat": 0.5}).assign(headline_low=0.6, headline_high=0.4)
    with pytest.raises(ValueError, match=r"interval of 'hat' runs from 0\.6 to 0\.4"):
        category_bars(data, "map_at_5", micro=0.5, macro=0.5)


def test_class_distribution_is_alphabetical_and_shares_its_rows() -> None:
    counts = {"training": {"shoe": 1200, "Bag": 3}, "queries": {"hat": 5, "shoe": 7}}
    figure = class_distribution(counts)
    figure.draw_without_rendering()
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["Bag", "hat", "shoe"]
    assert first.yaxis_inverted()
    assert [patch.get_width() for patch in first.patches] == [3, 0, 1200]
    assert [patch.get_width() for patch in second.patches] == [0, 5, 7]
    shown = texts(figure)
    assert "1,200" in shown
    assert "training: 1,203 items, 2 categories" in shown
    assert "queries: 12 items, 2 categories" in shown


def test_class_distribution_shows_names_literally() -> None:
    figure = class_distribution({"training": {"Socks $5$": 1, "Überzieher": 2}})
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["Socks $5$", "Überzieher"]
    assert not any(label.get_parse_math() for label in labels)
    assert_texts_within_page(figure)


def test_class_distribution_refuses_no_set() -> None:
    with pytest.raises(ValueError, match="holds no set"):
        class_distribution({})


def test_class_distribution_refuses_no_category() -> None:
    with pytest.raises(ValueError, match="hold no category"):
        class_distribution({"training": {}})


def test_class_distribution_refuses_a_negative_count() -> None:
    with pytest.raises(ValueError, match="is -1, expected"):
        class_distribution({"training": {"hat": -1}})


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
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"], "no temporary file is left"


def test_saving_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in '\.png'"):
        save_figure(class_distribution({"training": {"hat": 1}}), tmp_path / "figure.jpg")


def test_saving_refuses_a_dpi_of_zero(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dpi is 0"):
        save_figure(class_distribution({"training": {"hat": 1}}), tmp_path / "a.png", dpi=0)


def test_rendering_refuses_a_negative_dpi() -> None:
    with pytest.raises(ValueError, match="dpi is -1"):
        figure_to_array(class_distribution({"training": {"hat": 1}}), dpi=-1)


@pytest.mark.parametrize("num_categories", [1, 2, 100, 3000])
def test_any_number_of_categories_fits_a_page_that_says_of_how_many(num_categories: int) -> None:
    names = [f"product {i:04d}" for i in range(num_categories)]
    table = pd.DataFrame(
        {
            "category": names,
            "num_gallery": 3,
            "num_queries": [1] * (num_categories - 1) + [9],
            "map_at_5": 0.5,
        }
    )
    sizes = {"gallery": dict.fromkeys(names[:-1], 1) | {names[-1]: 9}}
    for figure in (
        category_bars(table, "map_at_5", micro=0.5, macro=0.5),
        class_distribution(sizes),
    ):
        assert max(figure.get_size_inches()) < 40
        shown = texts(figure)
        rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert len(rows) == min(num_categories, 100)
        assert names[-1] in rows, "the one with most queries or items"
        assert any(
            f"{num_categories:,} {'category' if num_categories == 1 else 'categories'}" in text
            for text in shown
        )
