from __future__ import annotations

import math

import numpy as np
import pytest

from tests.views.drawn import NAN, SERIES, assert_apart, codecs, lines, places, texts
from visual_search.views.compression_chart import compression_chart


def test_each_series_is_a_line_with_its_sizes_in_order_and_its_goal() -> None:
    marked = ["PCA, 8 bit 32", "OPQ 64"]
    figure = compression_chart(
        codecs(), "mAP@5", max_loss=0.02, times_smaller=16, marked=marked
    )  # fmt: skip
    (axes,) = figure.axes
    for family, series, points in SERIES:
        if family in ("half", "scalar"):
            points = [*SERIES[0][2], *SERIES[1][2]]
        (line,) = lines(axes, series)
        sizes, values = zip(*sorted(points), strict=True)
        assert line.get_ydata() == pytest.approx(values)
        # points of one size stand side by side, nearer than half a step of the axis
        assert np.log2(line.get_xdata()) == pytest.approx(np.log2(sizes), abs=0.4)
    whiskers = lines(axes, "_whisker")
    assert len(whiskers) == len(codecs()) - 1
    assert [0.49, 0.51] in [pytest.approx(list(line.get_ydata())) for line in whiskers]
    assert len({tuple(line.get_xdata().round(6)) for line in whiskers}) == len(whiskers)
    (flat,), (goal,) = lines(axes, "_flat"), lines(axes, "_goal")
    assert list(flat.get_ydata()) == [0.5, 0.5]
    assert list(goal.get_xdata()) == [128, 128]
    (band,) = [patch for patch in axes.patches if patch.get_label() == "_band"]
    assert (band.get_y(), band.get_height()) == pytest.approx((0.48, 0.02))
    assert {
        "flat 0.500", "0.02 less", "16 times smaller", "2,048 B", "1,024 B", "8 B", "PQ", "OPQ",
        "PCA, float32", "first numbers", "fewer bits, fewer bits of 256",
        "fewer bits of 512",  # sizes of fewer bits are named, since they are irregular
    } <= set(texts(figure))  # fmt: skip
    heavy = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert heavy == {"PCA, 8 bit of 32", "OPQ of 64"}
    assert_apart(axes.texts)


@pytest.mark.parametrize("half", [0.0, 0.2, NAN])
def test_any_interval_fits_the_page(half: float) -> None:
    table = codecs(half)
    table.loc[table["family"] == "flat", ["low", "high"]] = 0.0
    table["low"] = table["low"].clip(lower=-0.5)
    figure = compression_chart(table, "$x$ " * 40, title="$t$ " * 80, marked=["PQ 8"])
    texts(figure)
    (axes,) = figure.axes
    assert_apart(axes.texts)
    same = (table["low"] == 0) & (table["high"] == 0) & (table["family"] != "flat")
    shown = 0 if math.isnan(half) else len(table) - 1 - same.sum()
    assert len(lines(axes, "_whisker")) == shown
    assert len(lines(axes, "_same")) == same.sum(), "no whisker where every answer is the same"


def test_flat_alone_and_wide_embeddings_fit() -> None:
    alone = compression_chart(codecs().iloc[:1], "mAP@5")
    texts(alone)
    assert all(xs == [256.0, 256.0] for xs, _ in places(alone.axes[0], "_goal"))
    wide = codecs()
    wide["bytes_per_item"] *= 64
    assert "131,072 B" in texts(compression_chart(wide, "mAP@5"))
