"""Figures within a page: one drawing for light and dark, ids that do not clash, nothing foreign."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from visual_search.views import html_figures
from visual_search.views.drawing import read_figure
from visual_search.views.figures import save_figure
from visual_search.views.html_figures import (
    DARK_PAGE,
    contrast,
    dark_variant,
    figure_picture,
    inline_svg,
    picture_uri,
    readable,
)
from visual_search.views.html_page import asset
from visual_search.views.style import BAR, INK, MUTED, category_styles, quiet_style


def _figure(points: int = 5) -> Figure:
    with quiet_style():
        figure = Figure(figsize=(4, 3), facecolor="white")
        axes = figure.subplots()
        axes.plot(range(points), np.arange(points) % 7, marker="o", color=BAR)
        axes.set_title("a title", color=INK)
        axes.set_xlabel("epoch", color=MUTED)
        axes.fill_between([0, 1], [0, 1], color="#332288", hatch="/")
    return figure


def drawn(points: int = 5, alt: str = "A line", **more: bool) -> str:
    return str(inline_svg(_figure(points), alt, **more))


def test_ids_of_two_drawings_do_not_clash_and_lead_somewhere() -> None:
    texts = [drawn(), drawn(points=6)]
    assert drawn() == texts[0], "the same figure, the same drawing"
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in texts]
    assert not ids[0] & ids[1]
    for text, own in zip(texts, ids, strict=True):
        used = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
        assert used
        assert set(used) <= own


def test_colours_follow_the_page() -> None:
    text, css = drawn(), asset("page.css")
    for variable in ("--ink", "--muted", "--page", "--bar"):
        assert f"var({variable})" in text
    assert "var(--c-332288, #332288)" in text
    assert f"--c-332288: {dark_variant('#332288')};" in text
    for variable in set(re.findall(r"var\((--(?!c-|sans)[a-z]+)\)", text)):
        assert css.count(f"{variable}:") >= 2, variable  # for light and for dark
    assert f"--page: {DARK_PAGE}" in css
    plain = drawn(themed=False)
    assert "var(--ink)" not in plain
    assert INK in plain
    assert 'class="chart plain"' in plain


def test_drawing_says_what_it_shows_and_brings_nothing_else() -> None:
    text = drawn(alt='A "line" & <more>')
    for part in (
        'role="img"', 'aria-label="A &quot;line&quot; &amp; &lt;more&gt;"',
        "a title</text>",  # a text, not its outlines
    ):  # fmt: skip
        assert part in text
    for foreign in ("<metadata", "<!--", "http", "<?xml", "<script", "stroke-linejoin: round}"):
        assert foreign not in text


def test_large_drawing_becomes_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_figures, "MAX_SVG_BYTES", 1_000)
    text = drawn()
    assert text.startswith('<img class="chart plain" src="data:image/webp;base64,')
    assert 'alt="A line"' in text


def test_colours_stand_out_on_both_pages() -> None:
    hues = [colour for colour, _ in category_styles(50)]
    assert all(contrast(readable(colour, "#ffffff", 3.0), "#ffffff") >= 3 for colour in hues)
    assert all(contrast(dark_variant(colour), DARK_PAGE) >= 3 for colour in hues)


@pytest.mark.parametrize("scheme", [1, 2])
def test_texts_of_the_pages_have_enough_contrast(scheme: int) -> None:
    css = "--page: " + re.split(r"--page: ", asset("page.css"))[scheme]  # light, then dark
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", css))
    for name in ("ink", "muted", "link", "macro", "right", "wrong"):
        for background in ("page", "soft"):
            assert contrast(colours[name], colours[background]) >= 4.5, (name, background)


def test_picture_is_made_smaller_but_never_larger() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    uri, *size = picture_uri(pixels, 20, 70)
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (image.format, image.size, size) == ("WEBP", (20, 10), [20, 10])
    assert picture_uri(pixels, 500, 70)[1:] == (80, 40)
    figure = str(figure_picture(_figure(), "A line", max_width_px=100))
    assert 'width="100" height="75"' in figure


def test_what_was_drawn_before_looks_as_if_it_were_drawn_again(tmp_path: Path) -> None:
    figure = _figure()
    before = read_figure(save_figure(figure, tmp_path / "figure.png"))
    assert figure_picture(before, "A line") == figure_picture(figure, "A line")


def test_what_shows_nothing_is_refused() -> None:
    for make in (inline_svg, figure_picture):
        with pytest.raises(ValueError, match="alt is empty"):
            make(_figure(), " ")
    for shape in ((3, 8), (3, 8, 8)):
        with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8"):
            picture_uri(np.zeros(shape, np.uint8), 8, 70)
