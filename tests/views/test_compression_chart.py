from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.compression_chart import compression_chart

SERIES = [
    ("half", "fewer bits", [(1024, 0.500)]),
    ("scalar", "fewer bits", [(512, 0.498), (384, 0.495), (256, 0.480)]),
    ("product", "PQ", [(64, 0.47), (32, 0.44), (16, 0.40), (8, 0.33)]),
    ("product", "OPQ", [(64, 0.49), (32, 0.47), (16, 0.43)]),
    ("pca", "PCA, float32", [(1024, 0.5), (512, 0.501), (256, 0.499), (128, 0.49)]),
    ("pca", "PCA, 8 bit", [(256, 0.5), (128, 0.501), (64, 0.499), (32, 0.49)]),
    ("truncated", "first numbers", [(1024, 0.46), (512, 0.4), (256, 0.3)]),
]


def codecs(half: float = 0.01) -> pd.DataFrame:
    rows = [("Flat", "float32", "flat", "float32", 2048, 0.5, 0.0, 0.0)]
    for family, series, points in SERIES:
        rows += [
            (f"{series} {size}", f"{series} of {size}", family, series, size, value,
             value - 0.5 - half, value - 0.5 + half)
            for size, value in points
        ]  # fmt: skip
    columns = ["codec", "title", "family", "series", "bytes_per_item", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def drawn(figure: Figure, label: str) -> list[tuple[list[float], list[float]]]:
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in figure.axes[0].lines
        if line.get_label() == label
    ]


def test_a_line_a_series_with_its_sizes_in_order() -> None:
    figure = compression_chart(codecs(), "mAP@5")
    for family, series, points in SERIES:
        if family in ("half", "scalar"):
            points = [*SERIES[0][2], *SERIES[1][2]]
        ((xs, ys),) = drawn(figure, series)
        assert ys == pytest.approx([value for _, value in sorted(points)])
        # points of one size stand side by side, nearer than half a step of the axis
        assert np.log2(xs) == pytest.approx(
            [math.log2(size) for size, _ in sorted(points)], abs=0.4
        )
    whiskers = drawn(figure, "_whisker")
    assert len(whiskers) == len(codecs()) - 1
    assert [0.49, 0.51] in [pytest.approx(ys) for _, ys in whiskers]
    assert len({tuple(round(x, 6) for x in xs) for xs, _ in whiskers}) == len(whiskers)


def test_flat_the_band_and_the_goal_are_drawn() -> None:
    figure = compression_chart(codecs(), "mAP@5", max_loss=0.02, times_smaller=16)
    ((_, flat),) = drawn(figure, "_flat")
    assert flat == [0.5, 0.5]
    ((goal, _),) = drawn(figure, "_goal")
    assert goal == [128.0, 128.0]
    (band,) = [patch for patch in figure.axes[0].patches if patch.get_label() == "_band"]
    assert (band.get_y(), band.get_height()) == pytest.approx((0.48, 0.02))
    shown = texts(figure)
    for text in ("flat 0.500", "0.02 less", "16 times smaller", "2,048 B", "1,024 B", "8 B"):
        assert text in shown


def boxes(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return {
        text.get_text(): text.get_window_extent(renderer).extents
        for text in figure.axes[0].texts
        if isinstance(text, Text)
    }


def assert_apart(figure: Figure) -> None:
    for (one, a), (other, b) in itertools.combinations(boxes(figure).items(), 2):
        overlap = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert min(overlap) < 2, f"{one!r} lies over {other!r}"


def test_series_and_marked_codecs_are_named_apart() -> None:
    marked = ["PCA, 8 bit 32", "OPQ 64"]
    figure = compression_chart(codecs(), "mAP@5", marked=marked)
    shown = texts(figure)
    for text in ("PQ", "OPQ", "PCA, float32", "first numbers", "fewer bits, fewer bits of 256"):
        assert text in shown
    assert "fewer bits of 512" in shown, "sizes of fewer bits are named, since they are irregular"
    heavy = {
        text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"
    }  # fmt: skip
    assert heavy == {"PCA, 8 bit of 32", "OPQ of 64"}
    assert_apart(figure)
    assert_texts_within_page(figure)


@pytest.mark.parametrize("half", [0.0, 0.2, math.nan])
def test_any_interval_fits_the_page(half: float) -> None:
    table = codecs(half)
    table.loc[table["family"] == "flat", ["low", "high"]] = 0.0
    table["low"] = table["low"].clip(lower=-0.5)
    figure = compression_chart(table, "$x$ " * 40, title="$t$ " * 80, marked=["PQ 8"])
    assert_texts_within_page(figure)
    assert_apart(figure)
    same = (table["low"] == 0) & (table["high"] == 0) & (table["family"] != "flat")
    shown = 0 if math.isnan(half) else len(table) - 1 - same.sum()
    assert len(drawn(figure, "_whisker")) == shown
    assert len(drawn(figure, "_same")) == same.sum(), "no whisker where every answer is the same"
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_flat_alone_and_wide_embeddings_fit() -> None:
    alone = compression_chart(codecs().iloc[:1], "mAP@5")
    assert_texts_within_page(alone)
    assert not drawn(alone, "_goal") or drawn(alone, "_goal")[0][0] == [256.0, 256.0]
    wide = codecs()
    wide["bytes_per_item"] *= 64
    assert_texts_within_page(compression_chart(wide, "mAP@5"))
    assert "131,072 B" in texts(compression_chart(wide, "mAP@5"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="series"), "no column 'series'"),
        (lambda t: t.iloc[:0], "0 rows"),
        (lambda t: t.iloc[1:], r"0 row\(s\) of family 'flat'"),
        (lambda t: t.assign(family=["flat"] + ["zip"] * (len(t) - 1)), r"families \['zip'\]"),
        (lambda t: t.assign(bytes_per_item=0), "0 bytes an item, expected above 0"),
        (lambda t: t.assign(value=1.5), r"the value has the value 1.5, expected values in \[0, 1"),
        (lambda t: t.assign(low=t["high"] + 0.1), "expected its low end first"),
    ],
)
def test_wrong_tables_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compression_chart(change(codecs()), "mAP@5")


@pytest.mark.parametrize("limits", [{"max_loss": -0.1}, {"times_smaller": 1.0}])
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 or more and above 1"):
        compression_chart(codecs(), "mAP@5", **limits)
