"""Labels are data: whatever they hold, they make no element, no attribute and no script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tests.views.drawn import pictures, row
from tests.views.test_html import Page, per_category, projection, ranking, summary
from visual_search.views import html
from visual_search.views.html_figures import inline_svg
from visual_search.views.picture_grids import SearchRow
from visual_search.views.scripts import missing_letters
from visual_search.views.style import show_literally

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "=cmd()",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>-->",
    "{{ 7 * 7 }}{% raw %}",
    "line\u2028and\u2029paragraph",
    "\u202eright to left",
    "nul \x00 bell \x07 \x9b",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "long " * 60,
    "漢字" * 150,
    " ",
)


def _row(label: str) -> SearchRow:
    return row(
        2, query_label=label, query_category=label, neighbour_labels=[label] * 2,
        neighbour_categories=[label] * 2,
    )  # fmt: skip


def _run(label: str) -> html.RunPage:
    told = summary()
    told |= {"standing": label, "definitions": {label: label}, "rules": {label: label}}
    told["identity"] |= {"data": label, "protocol_name": label, label: label,
                         "protocol_settings": {label: [label]}}  # fmt: skip
    told["floors"][0] |= {"title": label, "definition": label}
    table = pd.DataFrame({label: [label], "b": [1.5]})
    pair = html.PicturePair((pictures(1)[0], pictures(1)[0]), (label, label), label)
    return html.RunPage(
        label, label, told, label, per_category((label, "shoe")),
        pd.DataFrame({"category": [label], label: [0.4]}),
        examples=[html.ExampleGroup(label, [_row(label)], [_row(label)], label)],
        findings=[html.DataFinding(label, label, table, [pair])],
        config=label, environment={label: {label: label}}, command=label, facts={label: label},
    )  # fmt: skip


def _pages(label: str) -> list[str]:
    told = summary()
    told["floors"][0] |= {"title": label}
    table = pd.DataFrame(
        {"first": [label], label: [label], "difference": [0.1], "low": [0.0], "high": [0.2]}
    )
    compared = html.ComparisonPage(
        label, label, [html.ComparedRun(label, told, f"x{label}")], label, table, (), table,
        [html.ComparedQuery([(label, _row(label))], label)], {label: {label: label}}, [label],
    )  # fmt: skip
    board = html.LeaderboardPage(
        [html.LeaderboardGroup(label, label, ranking(label, href=f"x{label}"), label)],
        [(label, label)], label,
    )  # fmt: skip
    return [
        html.run_report(_run(label)),
        html.comparison_page(compared),
        html.leaderboard_page(board),
    ]


def _shape(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Returns elements and the names of their attributes; tips stand on long labels only."""
    return [
        (tag, tuple(sorted(set(attributes) - {"title"}))) for tag, attributes in Page(text).elements
    ]


# Cells with long texts are set as running words.
PLAIN = [[_shape(text) for text in _pages("plain" * times)] for times in (1, 10, 100)]


def _check(label: str) -> None:
    for text, *plain in zip(_pages(label), *PLAIN, strict=True):
        assert _shape(text) in plain
        assert not set("\x00\x07\x9b") & set(text)


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_make_no_element(label: str) -> None:
    _check(label)


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    st.text(
        alphabet=st.one_of(
            st.sampled_from("<>\"'&=/`{}%-! \n"), st.characters(exclude_categories=["Cs"])
        ),
        min_size=1,
    )
)
def test_any_label_makes_no_element(label: str) -> None:
    _check(label)


def test_hostile_labels_in_the_projection_stay_data() -> None:
    def page(labels: Sequence[str]) -> tuple[str, Page]:
        given = replace(projection(len(labels)), item_ids=labels, categories=labels)
        text = html.run_report(html.RunPage("a", "b", {}, projection=given))
        return text, Page(text)

    text, read = page(HOSTILE)
    (source,) = (script for attributes, script in read.scripts if attributes.get("type"))
    assert not set("<>&\u2028\u2029\x00") & set(source)
    assert len(json.loads(source)["ids"]) == len(HOSTILE)
    assert len(read.scripts) == 4  # plotly, both of ours, the data
    plain = _shape(page([f"plain {n}" for n in range(len(HOSTILE))])[0])
    if any(map(missing_letters, HOSTILE)):  # the figure's key spells them
        assert set(_shape(text)) <= {*plain, ("p", ("class",)), ("bdi", ())}
    else:
        assert _shape(text) == plain


def test_half_characters_are_replaced() -> None:
    view = projection(30, "half \ud800")
    text = html.run_report(html.RunPage("half \udcff", "\ud800", {}, projection=view))
    assert "half \ufffd" in Page(text).text
    text.encode("utf-8")


def test_empty_labels_leave_a_page() -> None:
    for text in _pages(""):
        assert "<h1>" in text
        Page(text)


@pytest.mark.filterwarnings("ignore:Glyph")  # fonts of other scripts may not be there
def test_hostile_labels_in_a_drawing_stay_text() -> None:
    figure = Figure(figsize=(3, 2))
    figure.subplots().bar(list(HOSTILE), 0.5)
    page = Page(str(inline_svg(show_literally(figure), f"About {HOSTILE}")))
    allowed = {"svg", "g", "defs", "path", "use", "text", "clippath", "rect", "style"}
    assert {tag for tag, _ in page.elements} <= allowed
    assert not [name for _, each in page.elements for name in each if name.startswith("on")]
