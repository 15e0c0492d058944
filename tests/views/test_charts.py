"""What all charts keep to: any name and number fits the page, and wrong tables are refused."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.views.drawn import (
    NAN,
    NASTY,
    codecs,
    comparison,
    floor_rows,
    headline,
    history,
    names_down,
    pair,
    pictures,
    reconstructions,
    row,
    rules,
    table,
    texts,
)
from visual_search.views import style
from visual_search.views.chart_rows import chart_page, fit_width, text_width_in
from visual_search.views.compression_chart import compression_chart
from visual_search.views.confusion import confusion_matrix
from visual_search.views.duplicates import duplicate_pairs
from visual_search.views.evaluation_charts import attribute_bars, comparison_bars, floor_bars
from visual_search.views.feature_maps import feature_map_grid
from visual_search.views.figures import category_bars, class_distribution, figure_to_array
from visual_search.views.picture_grids import search_grid
from visual_search.views.projection import projection_figure
from visual_search.views.style import quiet_style
from visual_search.views.training_curves import training_curves

HAT = {"hat": 0.5}
MAPS = np.arange(32, dtype=np.float32).reshape(2, 4, 4)


def bars(data: pd.DataFrame | None = None, metric: str = "map_at_5", **more: Any) -> Figure:
    settings: dict[str, Any] = {"micro": 0.5, "macro": 0.5, **more}
    return category_bars(table(HAT) if data is None else data, metric, **settings)


def floor(values: dict[str, Sequence[object]], **more: Any) -> Figure:
    return bars(floors=pd.DataFrame(values), floor="hog", **more)


def floors(**row: Any) -> Figure:
    return floor_bars([{"title": "run", "value": 0.5, **row}], "Floors", "mAP@5")


def compared(runs: Sequence[str] = ("a", "b"), without: str = "few", **column: Any) -> Figure:
    data = comparison({"hat": [0.5] * len(runs)}, list(runs)).assign(few=False, **column)
    return comparison_bars(data.drop(columns=without), runs, "mAP@5")


def attributes(**column: Any) -> Figure:
    return attribute_bars(rules({("usage", "run"): 0.5}).assign(**column), "mAP@5")


def curves(floor: float = 0.5, **columns: Any) -> Figure:
    return training_curves(history(**columns), floors={"HOG": floor})


def compressed(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda t: t, **more: Any) -> Figure:
    return compression_chart(change(codecs()), "mAP@5", **more)


def projected(points: Any, num: int = 5) -> Figure:
    return projection_figure(np.asarray(points, np.float32), ["a"] * num, "Gallery", "pca")


def whole_bars(names: list[str], value: float) -> Figure:
    marked = {"category": names, "hog": value}
    few = [True] + [False] * (len(names) - 1)
    data = headline(dict.fromkeys(names, value)).assign(few_queries=few)
    return floor(marked, data=data, micro=value, title="$t$ " * 90, floor_title="W" * 90)


def runs(num: int) -> Callable[[list[str], float], Figure]:
    def draw(names: list[str], value: float) -> Figure:
        data = comparison({name: [value] * num for name in names}, names[:num])
        return comparison_bars(data, names[:num], "$m$ " * 30)

    return draw


PLAIN = ["hat", "shoe", "bag", "coat", "belt", "scarf"]
CHARTS: dict[str, Callable[[list[str], float], Figure]] = {
    "category_bars": whole_bars,
    "floor_bars": lambda names, value: floor_bars(
        floor_rows(dict.fromkeys(names, value), names[2]), "$t$ " * 90, "W" * 90
    ),
    "two runs": runs(2),
    "six runs": runs(6),
    "attribute_bars": lambda names, value: attribute_bars(
        rules({(r, e): value for r in names[:3] for e in names}), "$m$ " * 40
    ),
    "training_curves": lambda names, value: training_curves(
        history(epoch=range(1000, 1200), train=np.linspace(1, 2, 200), micro=value, macro=value),
        floors={name: i % 2 for i, name in enumerate(names)},
    ),
}
COUNTS: dict[str, Callable[[list[str], float], Figure]] = {
    "class_distribution": lambda names, _: class_distribution({"a": dict.fromkeys(names, 1)}),
    "confusion_matrix": lambda names, _: confusion_matrix(names, [names] * len(names)),
}
SHOWN = [*itertools.product(CHARTS, [0.0, 1.0, NAN]), *((name, 1.0) for name in COUNTS)]
CHARTS |= COUNTS


@pytest.mark.parametrize(("name", "value"), SHOWN)
def test_any_name_and_value_is_shown_as_given_and_fits_the_page(name: str, value: float) -> None:
    texts(CHARTS[name](NASTY, value))


@pytest.mark.parametrize("name", CHARTS)
def test_charts_use_only_colours_that_a_page_can_replace(name: str) -> None:
    # the style's own, and the edges of axes as quiet_style sets them
    named = set(re.findall(r"#[0-9a-f]{6}", str(vars(style)).lower())) | {"#bbbbbb"}
    written = io.StringIO()
    with quiet_style(), matplotlib.rc_context({"svg.fonttype": "none"}):
        CHARTS[name](PLAIN, 0.5).savefig(written, format="svg", facecolor="white")
    drawn = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{6})", written.getvalue()))
    assert len(drawn) >= 4
    assert drawn <= named, f"{drawn - named} are no constants of views/style.py"


TWICE = pd.concat([rules({("usage", "run"): 0.5})] * 2)
OUTSIDE = r"expected values in \[0, 1\]"
LOW_FIRST = "expected its low end first"
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: bars(metric="ndcg_at_5"), "no column 'ndcg_at_5', only .*'map_at_5'"),
    (lambda: bars(table({})), "0 rows"),
    (lambda: bars(table({"hat": 1.5})), f"map_at_5 has the value 1.5, {OUTSIDE}"),
    (lambda: bars(micro=-0.1), f"-0.1, {OUTSIDE}"),
    (lambda: bars(macro=np.inf), f"inf, {OUTSIDE}"),
    (lambda: bars(headline(HAT).assign(headline_low=0.7)), "'hat' runs from 0.7 to 0.625"),
    (lambda: bars(floor="hog"), "floors is None although floor is given"),
    (lambda: bars(floors=table(HAT)), "floor is None although floors is given"),
    (lambda: floor({"category": ["hat"], "pixels": [0.5]}), "floors has no column 'hog'"),
    (lambda: floor({"category": ["hat"] * 2, "hog": [0.5] * 2}), "'hat' more than once"),
    (lambda: floor({"category": ["hat"], "hog": [1.5]}), "hog has the value 1.5"),
    (lambda: class_distribution({}), "holds no set"),
    (lambda: class_distribution({"training": {}}), "hold no category"),
    (lambda: class_distribution({"training": {"hat": -1}}), "is -1, expected"),
    (lambda: figure_to_array(bars(), dpi=-1), "dpi is -1"),
    (lambda: floor_bars([], "Floors", "mAP@5"), "rows is empty"),
    (lambda: floors(), "no 'low', only"),
    (lambda: floors(low=0.4, high=2, is_run=True), f"the high end has the value 2.0, {OUTSIDE}"),
    (lambda: floors(low=0.6, high=0.4, is_run=True), "'run' runs from 0.6 to 0.4"),
    (lambda: compared(["a"]), "expected two or more different names"),
    (lambda: compared(["a", "a"]), "expected two or more different names"),
    *((partial(compared, without=column), f"no column '{column}'")
      for column in ("num_queries", "high:b", "p_holm")),
    (lambda: comparison_bars(comparison({}, ["a", "b"]), ["a", "b"], "mAP@5"), "0 rows"),
    (lambda: compared(**{"mean:a": 1.5}), f"the mean has the value 1.5, {OUTSIDE}"),
    (lambda: compared(difference=-1.5), r"\(difference \+ 1\) / 2 has the value -0\.25"),
    (lambda: compared(p_holm=2.0), f"p_holm has the value 2.0, {OUTSIDE}"),
    (lambda: compared(**{"low:b": 0.99}), LOW_FIRST),
    (lambda: compared(difference_low=0.99), LOW_FIRST),
    (lambda: attribute_bars(TWICE.drop(columns="is_run"), "mAP@5"), "no column 'is_run'"),
    (lambda: attribute_bars(TWICE.head(0), "mAP@5"), "0 rows"),
    (lambda: attribute_bars(TWICE, "mAP@5"), r"\('usage', 'run'\) more than once"),
    (lambda: attributes(value=7.0), OUTSIDE),
    (lambda: attributes(high=0.1), LOW_FIRST),
    (lambda: confusion_matrix([], []), "asked is empty"),
    (lambda: confusion_matrix(["hat"], [["hat"]] * 2), "1 categories asked for and 2 lists"),
    (lambda: curves(train=[0.5]), "no column 'epoch'"),
    (lambda: curves(epoch=[], train=[]), "0 rows"),
    *((partial(curves, epoch=[epoch], train=[1]), "expected whole epochs")
      for epoch in (0.5, -1, NAN, np.inf)),
    (lambda: curves(epoch=[1], train=[NAN], micro=[np.inf]), "no finite value in '<split>/loss'"),
    (lambda: curves(epoch=[1], micro=[61.0]), "val/map_at_5 has the value 61.0"),
    (lambda: curves(2.0, epoch=[1], micro=[0.5]), "the floor 'HOG' has the value 2.0"),
    (lambda: compressed(lambda t: t.drop(columns="series")), "no column 'series'"),
    (lambda: compressed(lambda t: t.iloc[:0]), "0 rows"),
    (lambda: compressed(lambda t: t.iloc[1:]), r"0 row\(s\) of family 'flat'"),
    (lambda: compressed(lambda t: t.replace("pca", "zip")), r"families \['zip'\]"),
    (lambda: compressed(lambda t: t.assign(bytes_per_item=0)), "0 bytes an item, expected above 0"),
    (lambda: compressed(lambda t: t.assign(value=1.5)), f"the value has the value 1.5, {OUTSIDE}"),
    (lambda: compressed(lambda t: t.assign(low=t["high"] + 0.1)), LOW_FIRST),
    (lambda: compressed(max_loss=-0.1), "expected 0 or more and above 1"),
    (lambda: compressed(times_smaller=1.0), "expected 0 or more and above 1"),
    (lambda: projected(np.zeros((5, 4))), r"points are \[5, 4\], expected \[N, 3\]"),
    (lambda: projected(np.full((5, 3), NAN)), "hold NaN or infinity"),
    (lambda: projected(np.zeros((5, 3)), num=4), "5 points and 4 categories"),
    (lambda: feature_map_grid(pictures(1)[0, 0], {"conv": MAPS}, "hat"), r"is \[1, 16, 16\]"),
    (lambda: feature_map_grid(pictures(1)[0], {}, "hat"), "layers is empty"),
    (lambda: feature_map_grid(pictures(1)[0], {"conv": MAPS[None]}, "hat"),
     r"'conv' is \[1, 2, 4, 4\], expected \[C, h, w\]"),
    (lambda: feature_map_grid(pictures(1)[0], {"conv": MAPS * NAN}, "hat"),
     "'conv' holds NaN or infinity"),
    (lambda: reconstructions(pictures(1).transpose(0, 2, 3, 1)), r"is \[1, 16, 16, 3\] uint8, exp"),
    (lambda: reconstructions(pictures(2), pictures(1)), "expected the same shape"),
    (lambda: reconstructions(pictures(0)), "0 items"),
    (lambda: reconstructions(pictures(2), errors=[0]), "2 items have 1 squared errors and 2 l"),
    (lambda: search_grid([]), "rows is empty"),
    (lambda: row(query_image=pictures(1)[0] / 255), r"query_image\[None\] is .* float64"),
    (lambda: row(neighbour_labels=["one"]), "differ in length"),
    (lambda: duplicate_pairs([]), "pairs is empty, expected at least one"),
    (lambda: duplicate_pairs([pair(), pair()], num_pairs=1), "num_pairs is 1 for 2 pairs"),
    (lambda: pair(query_image=pictures(1)[0] / 255), r"query_image\[None\] is .* float64"),
    (lambda: pair(gallery_image=pictures(1)[0].T), r"gallery_image\[None\] is \[1, 16, 16, 3\]"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "message"), REFUSED)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("dpi", [80, 100, 150])
@pytest.mark.parametrize("text", ["iiii" * 40, "W" * 200, "one word after another " * 20])
def test_a_text_that_was_fitted_is_not_wider_when_drawn(text: str, dpi: int) -> None:
    with quiet_style():
        shown = fit_width(text, 3.0, 9.5)
        drawn = Figure(dpi=dpi).text(0, 0, shown, fontsize=9.5)
        width_in = drawn.get_window_extent().width / dpi
        assert fit_width("Hats", text_width_in("Hats") + 0.01) == "Hats", "it stays whole"
    assert "…" in shown[1:-1], "the end tells names apart"
    assert 2.6 < width_in <= 3.0


def test_notes_are_wrapped_and_the_body_starts_below_them() -> None:
    note = "a longer sentence " * 8
    with quiet_style():
        figure, depth_in = chart_page(4.0, 2.0, "Title", [note], [("o", "k", "last")])
    title, *wrapped, last = texts(figure)
    assert (title, " ".join(wrapped), last) == ("Title", note.strip(), "last")
    assert len(wrapped) > 1
    height_in = figure.get_size_inches()[1]
    assert height_in - depth_in == pytest.approx(2.0)
    lowest = min(text.get_position()[1] for text in figure.texts)
    assert (1 - lowest) * height_in < depth_in


def test_colours_stay_apart_in_black_and_white() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(to_hex(colour)[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert luminance(style.BAR_PALE) - luminance(style.BAR) > 50
    steps = [luminance(colour) for colour in style.HEAT]
    assert steps == sorted(set(steps), reverse=True)
    assert len(steps) == 9


@pytest.mark.parametrize("number", [1, 3000])
def test_any_number_of_categories_fits_a_page_that_says_of_how_many(number: int) -> None:
    names = [f"product {i:04d}" for i in range(number)]
    sizes = [1] * (number - 1) + [9]
    data = table(dict.fromkeys(names, 0.5)).assign(num_queries=sizes)
    both = comparison({name: [0.5, 0.25] for name in names}, ["a", "b"]).assign(num_queries=sizes)
    for figure in (
        bars(data),
        class_distribution({"gallery": dict(zip(names, sizes, strict=True))}),
        comparison_bars(both, ["a", "b"], "mAP@5"),
    ):
        assert max(figure.get_size_inches()) < 40
        said = " ".join(text.get_text() for text in figure.findobj(Text))
        rows = names_down(figure.axes[0])
        assert names[-1] in rows, "the one with most queries or items"
        if number == 1:
            assert "1 category" in said
        else:
            assert len(rows) > 80
            assert f"3,000 categories (drawn: the {len(rows)} with most" in said
