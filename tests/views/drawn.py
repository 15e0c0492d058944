"""What is read off a figure, and the tables that charts of evaluations are drawn from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from visual_search.views.duplicates import DuplicatePair
from visual_search.views.picture_grids import SearchRow, reconstruction_grid

NAN = math.nan
NASTY = [
    "$x$ and $\\frac{1}{2}$", "<script>alert(1)</script>", "W" * 90, "Überzieher", "a\nb\tc",
    "one word after another " * 9, "", "$",
]  # fmt: skip


def texts(figure: Figure) -> list[str]:
    """Returns what a figure says, all of which lies within its page and is shown as given."""
    figure.draw_without_rendering()
    page = figure.bbox.padded(1)
    beyond = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        # matplotlib keeps ticks outside the axes, and draws none of them
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    found = [text for text in figure.findobj(Text) if text.get_text()]
    for text in found:
        assert not (text.get_parse_math() and "$" in text.get_text()), text
        if text.get_visible() and text not in beyond:
            box = text.get_window_extent()
            assert page.contains(*box.min), f"{text} at {box} leaves the page {page}"
            assert page.contains(*box.max), f"{text} at {box} leaves the page {page}"
    assert found
    return [text.get_text() for text in found]


def assert_apart(written: Sequence[Text]) -> None:
    """Sees that no text lies over another one."""
    for one, other in itertools.combinations(written, 2):
        a, b = one.get_window_extent(), other.get_window_extent()
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) < 2, f"{one} lies over {other}"


def names_down(axes: Axes) -> list[str]:
    """Returns the names at the left of rows, from top to bottom."""
    assert axes.yaxis_inverted(), "the first row stands at the top"
    return [label.get_text() for label in axes.get_yticklabels()]


def lines(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def places(axes: Axes, label: str) -> list[tuple[list[float], float]]:
    """Returns where lines of a label lie: from left to right, and how far down."""
    return [
        (list(map(float, line.get_xdata())), line.get_ydata()[0]) for line in lines(axes, label)
    ]


def pictures(number: int, side: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    shape = (number, 3, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def row(num_neighbours: int = 5, **changes: Any) -> SearchRow:
    """Returns a query with its neighbours, every second one of which is right."""
    settings = {
        "query_image": pictures(1)[0], "query_label": "item 7",
        "query_category": "Coats & Jackets", "neighbour_images": pictures(num_neighbours, seed=1),
        "neighbour_labels": [f"n{i}" for i in range(num_neighbours)],
        "neighbour_categories": ["$5 Überzieher $6"] * num_neighbours, "score": 0.5,
        "squared_distances": np.linspace(0.125, 2, num_neighbours),
        "correct": np.arange(num_neighbours) % 2 == 0,
    }  # fmt: skip
    return SearchRow(**(settings | changes))


def pair(number: int = 0, **changes: Any) -> DuplicatePair:
    first, second = pictures(2, seed=number)
    settings = {
        "query_image": first, "query_label": f"q{number}", "query_category": "Hats",
        "gallery_image": second, "gallery_category": "Hats", "hash_bits": 2,
        "gallery_label": f"65960fb1a4c3eac2dbca24cbb65e542f_{number}",
        "relative_squared_distance": 0.00123,
    }  # fmt: skip
    return DuplicatePair(**(settings | changes))


def reconstructions(
    originals: NDArray[np.uint8], made: NDArray[np.uint8] | None = None,
    errors: Sequence[float] | None = None, **more: Any,
) -> Figure:  # fmt: skip
    made, num = originals if made is None else made, len(originals)
    given = np.full(num, 0.0489) if errors is None else np.asarray(errors)
    return reconstruction_grid(originals, made, given, ["Hats"] * num, **more)


def table(values: dict[str, float]) -> pd.DataFrame:
    """Returns the means of categories, one query in the first one, two in the second..."""
    numbers = range(1, 1 + len(values))
    data = {"category": list(values), "num_queries": numbers, "map_at_5": list(values.values())}
    return pd.DataFrame(data).assign(num_gallery=[9 + number for number in numbers])


def headline(values: dict[str, float], half: float = 0.125) -> pd.DataFrame:
    """Returns a `table` with intervals."""
    data = table(values)
    return data.assign(
        headline_low=(data["map_at_5"] - half).clip(0, 1),
        headline_high=(data["map_at_5"] + half).clip(0, 1),
    )


def ends(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def floor_rows(values: dict[str, float], run: str) -> list[dict[str, Any]]:
    return [{"title": name, "is_run": name == run, **ends(v)} for name, v in values.items()]


def rules(values: dict[tuple[str, str], float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"relevance": rule, "embedding": name, "is_run": name == "run", **ends(value)}
        for (rule, name), value in values.items()
    )


def comparison(values: dict[str, list[float]], runs: list[str]) -> pd.DataFrame:
    data: dict[str, Any] = {"category": list(values), "num_queries": range(1, 1 + len(values))}
    for place, run in enumerate(runs):
        mean = np.array([row[place] for row in values.values()])
        data |= {f"mean:{run}": mean}
        data |= {f"low:{run}": np.clip(mean - 0.1, 0, 1), f"high:{run}": np.clip(mean + 0.1, 0, 1)}
    if len(runs) == 2:
        difference = data[f"mean:{runs[0]}"] - data[f"mean:{runs[1]}"]
        data |= {"difference": difference, "p_holm": np.where(difference > 0.2, 0.01, 0.4)}
        data |= {
            "difference_low": np.clip(difference - 0.125, -1, 1),
            "difference_high": np.clip(difference + 0.125, -1, 1),
        }
    return pd.DataFrame(data)


def history(**columns: Any) -> pd.DataFrame:
    """Returns what was measured after each epoch."""
    names = {
        "train": "train/loss", "val": "val/loss", "micro": "val/map_at_5",
        "macro": "val/macro_map_at_5",
    }  # fmt: skip
    return pd.DataFrame({names.get(name, name): values for name, values in columns.items()})


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
    """Returns what each codec of `SERIES` keeps of an answer, and flat."""
    rows = [("Flat", "float32", "flat", "float32", 2048, 0.5, 0.0, 0.0)]
    for family, series, points in SERIES:
        for size, value in points:
            names = (f"{series} {size}", f"{series} of {size}", family, series)
            rows.append((*names, size, value, value - 0.5 - half, value - 0.5 + half))
    columns = ["codec", "title", "family", "series", "bytes_per_item", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
