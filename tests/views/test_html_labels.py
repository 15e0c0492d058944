"""Labels are data: whatever they hold, they make no element, no attribute and no script."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tests.views.test_html import PAGES, Page, projection
from visual_search.views import html
from visual_search.views.html_figures import inline_svg
from visual_search.views.scripts import missing_letters
from visual_search.views.style import show_literally

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
    "=cmd()", "</script><script>alert(1)</script>", "<!--<script>", "]]>-->",
    "{{ 7 * 7 }}{% raw %}", "line\u2028and\u2029paragraph", "\u202eright to left",
    "nul \x00 bell \x07 \x9b", "&lt;b&gt; &amp; &#60;", "javascript:alert(1)", "long " * 60,
    "漢字" * 150, " ",
)  # fmt: skip


def _pages(label: str) -> list[str]:
    return [page(label) for page in PAGES.values()]


def _shape(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Returns elements and the names of their attributes; tips stand on long labels only."""
    return [
        (tag, tuple(sorted(set(attributes) - {"title"}))) for tag, attributes in Page(text).elements
    ]


@functools.cache
def _plain() -> list[list[object]]:
    """Returns the pages of plain labels; cells with long texts are set as running words."""
    return [[_shape(text) for text in _pages("plain" * times)] for times in (1, 10, 100)]


def _check(label: str) -> None:
    for text, *plain in zip(_pages(label), *_plain(), strict=True):
        assert _shape(text) in plain
        assert not set("\x00\x07\x9b") & set(text)


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_make_no_element(label: str) -> None:
    _check(label)


MARKUP = st.sampled_from("<>\"'&=/`{}%-! \n")


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.text(alphabet=MARKUP | st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_label_makes_no_element(label: str) -> None:
    _check(label)


def test_hostile_labels_in_the_projection_stay_data() -> None:
    def page(labels: Sequence[str]) -> tuple[str, Page]:
        text = html.run_report(html.RunPage("a", "b", {}, projection=projection(labels)))
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
    view = projection(["half \ud800"])
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
