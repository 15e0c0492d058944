"""What the pages share: how values are written, links, and the size that no page exceeds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.views.drawn import pictures, row
from tests.views.test_html import Page, projection, summary
from visual_search.views import html, html_page, html_run
from visual_search.views.html_page import (
    DETAILS,
    MAX_BYTES,
    cell,
    mark,
    relative_link,
    render,
    scale_limit,
    script_json,
)
from visual_search.views.html_tables import measured_table, plain_table


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "yes"), ([1, "a"], "1, a"), ([], "\u2013"), (pd.NA, "\u2013"), (0.123456, "0.123"),
        (11029, "11,029"), ("hat", "hat"),
    ],
)  # fmt: skip
def test_cells_are_written_as_one_reads_them(value: Any, written: str) -> None:
    assert cell(value) == written


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("../runs/a b/report.html", "../runs/a%20b/report.html"),
        ("https://host/x", "./https%3A//host/x"), ("\\\\host\\x", "./%5C%5Chost%5Cx"),
        ('a"onclick="b', "./a%22onclick%3D%22b"), ("a?b#c", "./a%3Fb%23c"),
        ("", None), ("/etc", None), ("//host/x", None),
    ],
)  # fmt: skip
def test_links_stay_beside_the_page(path: str, link: str | None) -> None:
    if link is not None:
        assert relative_link(path) == link
        return
    with pytest.raises(ValueError, match="relative to the page's folder"):
        relative_link(path)


def test_json_in_a_script_reads_back() -> None:
    value = {"a": ["</script>", "<!--", "&", "\u2028", "漢", "\ud800", None, 1.5]}
    assert json.loads(str(script_json(value))) == value


def test_a_mark_shows_bar_and_interval_on_the_scale() -> None:
    place = mark(0.3, 0.2, 0.45, 0.6)
    assert place == {
        "mean": 50.0, "bar": 0.0, "bar_width": 50.0, "low": 33.33, "width": 41.67, "zero": 0.0,
    }  # fmt: skip
    assert mark(float("nan"), 0.1, 0.2, 0.6) is None
    without = mark(0.3, None, None, 0.6)
    assert without is not None
    assert without["width"] == 0
    assert scale_limit([]) == 0.1
    assert scale_limit([0.6]) == 0.6


def test_a_plain_table_knows_its_numbers() -> None:
    table: Any = plain_table(pd.DataFrame({"a": ["x", "y"], "b": [1.5, np.nan], "c": [1, 2]}), 1)
    assert [column.kind for column in table["columns"]] == ["name", "number", "number"]
    assert (len(table["rows"]), table["given"]) == (1, 2)


def test_a_measured_table_puts_intervals_into_their_cells() -> None:
    frame = pd.DataFrame(
        {"category": ["a"], "n": [3], "map": [0.5], "map_low": [0.4], "map_high": [0.6],
         "difference": [0.1], "low": [-0.1], "high": [0.3], "p_value": [0.5], "few": [True],
         "mean:run": [0.7], "low:run": [0.6], "high:run": [0.8], "rough": [True],
         "p_holm": [0.2]}
    )  # fmt: skip
    table: Any = measured_table(frame, 10)
    (row,) = table["rows"]
    assert [
        (column.title, column.kind, cell.text, cell.ends, cell.sign)
        for column, cell in zip(table["columns"], row["cells"], strict=True)
    ] == [
        ("category", "name", "a", "", ""), ("n", "number", "3", "", ""),
        ("map", "number", "0.500", "~[0.400, 0.600]", ""),
        ("difference", "number", "+0.100", "~[-0.100, +0.300]", "unclear"),
        ("p", "number", "0.500", "Holm 0.200", ""), ("few", "words", "yes", "", ""),
        ("run", "number", "0.700", "~[0.600, 0.800]", ""),
    ]  # fmt: skip
    assert measured_table(frame[:0], 10) is None


def test_a_page_takes_the_most_detail_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def context(detail: Any) -> dict[str, Any]:
        tried.append(detail)
        text = "x" * (3_000_000 if len(tried) > 2 else 6_000_000)
        page = html.LeaderboardPage([])
        return {"page": page, "groups": {}, "left_out": [("a", "b")], "left_out_given": 1,
                "sections": [("left-out", text)]}  # fmt: skip

    assert len(render("leaderboard.html", context).encode()) <= MAX_BYTES
    assert tried == list(DETAILS[:3])


def test_figures_are_drawn_once_however_many_details_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    draw = html_run.projection_figure
    monkeypatch.setattr(html_page, "MAX_BYTES", 0)
    monkeypatch.setattr(html_run, "projection_figure", lambda *a: drawn.append(1) or draw(*a))
    html.run_report(html.RunPage("a", "b", {}, projection=projection()))
    assert drawn == [1]


def large_run() -> html.RunPage:
    """More of everything than a run leaves, and none of it compresses."""
    noise = Figure(figsize=(12, 9))
    noise.figimage(np.random.default_rng(0).random((900, 1200, 3)), resize=True)
    num_points, names = 20_000, [f"category number {i} " + "x" * 200 for i in range(3_000)]
    pool = pictures(64, side=128)

    class Pool:
        def __getitem__(self, rows: Any) -> Any:
            return pool[rows % 64]

    view = html.ProjectionView(
        np.random.default_rng(0).normal(size=(num_points, 3)).astype(np.float32),
        [f"{i}-" + "i" * 100 for i in range(num_points)],
        [names[i % 3_000] for i in range(num_points)], "UMAP to 3 dimensions", Pool(),
    )  # fmt: skip
    table = pd.DataFrame(
        {"category": names, "num_gallery": 10, "num_queries_scored": 30, "map_at_5": 0.5,
         "headline_low": 0.4, "headline_high": 0.6}
    )  # fmt: skip
    noisy = row(query_image=pool[0], neighbour_images=pool[:5])
    pair = html.PicturePair((pool[0], pool[1]), ("a", "b"))
    return html.RunPage(
        "large", "1", summary(), per_category=table, reconstructions=[noise] * 3,
        feature_maps=[noise] * 3, projection=view, config="x: y\n" * 200_000,
        examples=[html.ExampleGroup(name, [noisy] * 2, [noisy] * 2) for name in names[:25]],
        findings=[html.DataFinding("Duplicates", "Many.", table, [pair] * 60)],
    )  # fmt: skip


def test_a_large_report_is_shrunk_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "DETAILS", DETAILS[-1:])  # below which nothing is left to try
    text = html.run_report(large_run())
    assert len(text.encode()) <= MAX_BYTES
    page = Page(text)
    for part in (
        "of 20,000 items are shown, evenly chosen", "of 3,000 categories",
        "of 100 queries are shown", "of 60 pairs", "config.yaml holds all",
    ):  # fmt: skip
        assert part in page.text
    assert len(page.all("img")) > 20
