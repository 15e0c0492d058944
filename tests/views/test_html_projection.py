"""The points that can be turned: which are chosen, what the script gets, the bundle it needs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visual_search.views import html_projection
from visual_search.views.html_figures import DARK_PAGE, contrast
from visual_search.views.html_page import DETAILS, asset
from visual_search.views.html_projection import (
    ProjectionView,
    choose_points,
    plotly_script,
    projection_data,
)

VENDOR = Path(html_projection.__file__).parent / "vendor" / "plotly"
FULL = DETAILS[0]


def view(number: int, **settings: Any) -> ProjectionView:
    points = np.random.default_rng(0).normal(size=(number, 3)).astype(np.float32)
    given: dict[str, Any] = {
        "points": points, "item_ids": [f"item-{i}" for i in range(number)],
        "categories": [("hat", "shoe", "ring")[i % 3] for i in range(number)],
        "description": "UMAP to 3 dimensions",
    }  # fmt: skip
    return ProjectionView(**(given | settings))


def test_chosen_points_are_spread_evenly() -> None:
    assert choose_points(5, 10).tolist() == [0, 1, 2, 3, 4]
    rows = choose_points(10_000, 3_000)
    assert len(set(rows.tolist())) == 3_000
    assert (rows[0], rows[-1], set(np.diff(rows))) == (0, 9_999, {3, 4})


def test_data_keep_the_points_in_their_places() -> None:
    given = view(7_000)
    data = projection_data(given, FULL)
    assert {len(data[name]) for name in ("x", "y", "z", "ids", "category", "group")} == {3_000}
    rows = choose_points(7_000, 3_000)
    shown = np.column_stack([data[axis] for axis in "xyz"])
    original = given.points[rows].astype(np.float64)
    scale = np.ptp(shown, axis=0).max() / np.ptp(original, axis=0).max()
    expected = (original - original.mean(axis=0)) * scale
    np.testing.assert_allclose(shown, expected, atol=2e-3)
    for place, row in ((0, 0), (1_234, rows[1_234])):
        assert data["ids"][place] == f"item-{row}"
        assert data["names"][data["category"][place]] == given.categories[row]
        assert data["groups"][data["group"][place]]["name"] == given.categories[row]
    counts = Counter(given.categories)
    assert {group["name"]: group["count"] for group in data["groups"]} == counts
    same = projection_data(view(3, points=np.ones((3, 3), np.float32)), FULL)
    assert same["x"] == [0.0, 0.0, 0.0], "the same place for all is a place"


def test_more_than_fifty_categories_share_a_colour_but_keep_their_names() -> None:
    names = [f"category {i}" for i in range(60)]
    data = projection_data(view(60, categories=names), FULL)
    assert len(data["groups"]) == 50
    assert data["groups"][-1].items() >= {"name": "other", "count": 11}.items()
    assert [data["names"][place] for place in data["category"]] == names


def test_markers_stand_out_on_both_pages() -> None:
    groups = projection_data(view(50, categories=[f"c{i}" for i in range(50)]), FULL)["groups"]
    assert len({(group["light"], group["symbol"]) for group in groups}) == 50
    assert min(contrast(group["light"], "#ffffff") for group in groups) >= 3
    assert min(contrast(group["dark"], DARK_PAGE) for group in groups) >= 4


def test_sprites_show_the_picture_of_the_point() -> None:
    values = np.arange(0, 250, 10, dtype=np.uint8)  # one grey a picture
    pictures = np.broadcast_to(values[:, None, None, None], (25, 3, 20, 20)).copy()
    order = np.random.default_rng(1).permutation(25).astype(np.int64)
    sprite = projection_data(view(25, pictures=pictures, picture_rows=order), FULL)["sprite"]
    assert (sprite["columns"], sprite["px"]) == (5, FULL.sprite_px)
    image = Image.open(io.BytesIO(base64.b64decode(sprite["uri"].split(",")[1]))).convert("L")
    assert image.size == (5 * FULL.sprite_px, 5 * FULL.sprite_px)
    middle = FULL.sprite_px // 2
    for point, row in enumerate(order):
        x, y = (point % 5) * FULL.sprite_px + middle, (point // 5) * FULL.sprite_px + middle
        assert abs(int(image.getpixel((x, y))) - int(values[row])) <= 6  # type: ignore[arg-type]


def test_only_pictures_of_shown_points_are_read() -> None:
    asked: list[int] = []

    class Pictures:
        def __getitem__(self, rows: Any) -> Any:
            asked.extend(rows.tolist())
            assert len(rows) <= 256
            return np.zeros((len(rows), 3, 8, 8), np.uint8)

    projection_data(view(4_000, pictures=Pictures()), FULL)
    assert asked == choose_points(4_000, 3_000).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": np.zeros((2, 2), np.float32)}, r"points are \[2, 2\], expected finite"),
        ({"points": np.zeros((0, 3), np.float32)}, r"points are \[0, 3\]"),
        ({"points": np.full((2, 3), np.nan, np.float32)}, "expected finite"),
        ({"item_ids": ["a"]}, "there are 2 points, but"),
        ({"categories": ["a"]}, "'categories': 1"),
        ({"picture_rows": np.zeros(3, np.int64)}, "'picture_rows': 3"),
    ],
)
def test_views_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(2, **settings)


def test_plotly_is_the_one_that_its_readme_names_with_its_licence() -> None:
    readme = (VENDOR / "README.md").read_text(encoding="utf-8")
    code = gzip.decompress((VENDOR / "plotly-gl3d.min.js.gz").read_bytes())
    version = re.search(rb"plotly\.js \(gl3d - minified\) v([\d.]+)", code)
    assert version is not None
    for part in (
        hashlib.sha256(code).hexdigest(), f"{len(code):,} bytes",
        f"`plotly.js-gl3d-dist-min` {version[1].decode()},",
    ):  # fmt: skip
        assert part in readme
    script = plotly_script()
    assert script.startswith("/*!\nMIT License")
    assert script.index("Permission is hereby granted") < script.index("*/")
    # a parser would end the element, or change it and its hash with it
    assert not re.search("</script|<!--|\r|\0", script, re.IGNORECASE)


@pytest.mark.parametrize("name", ["page.js", "projection.js"])
def test_own_scripts_need_no_eval_and_write_no_markup(name: str) -> None:
    for forbidden in ("eval(", "Function(", "innerHTML", "insertAdjacentHTML", "document.write",
                      "fetch(", "XMLHttpRequest", "http"):  # fmt: skip
        assert forbidden not in asset(name)
