"""Names in scripts without a font: numbers in the figure, spelled by its key."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.views.drawn import texts
from visual_search.views import html
from visual_search.views.drawing import read_figure
from visual_search.views.figures import category_bars, save_figure
from visual_search.views.scripts import font_advice, missing_letters, name_key

CARIAN = "\N{CARIAN LETTER A}\N{CARIAN LETTER D} \N{CARIAN LETTER L}"
ARABIC = "\N{ARABIC LETTER SHEEN}\N{ARABIC LETTER ALEF}\N{ARABIC LETTER LAM}"
# Anybody may have fonts for these two; for this one nobody's list of fonts names any.
pytestmark = pytest.mark.skipif(not missing_letters(CARIAN), reason="a font has Carian")


def drawn(*names: str) -> Figure:
    table = pd.DataFrame({"category": list(names), "num_gallery": 3, "num_queries": 3, "mrr": 0.5})
    return category_bars(table, "mrr", micro=0.5, macro=0.5)


def test_missing_words_become_numbers_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawn("Röcke", f"{CARIAN} (12)", CARIAN)
        save_figure(figure, tmp_path / "chart.png")
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(rows) == ["#1", "#1 (12)", "Röcke"]
    assert name_key(figure) == {"#1": CARIAN}
    assert not any(missing_letters(text) for text in texts(figure))
    assert name_key(read_figure(tmp_path / "chart.png")) == {"#1": CARIAN}, "kept in the file"


def test_the_page_spells_what_the_numbers_stand_for() -> None:
    page = html.RunPage("a", "b", {}, category_chart=drawn("<hat>", CARIAN))
    assert f"#1 <bdi>{CARIAN}</bdi>" in html.run_report(page)


def test_where_every_letter_has_a_font_nothing_is_numbered() -> None:
    figure = drawn("Röcke", "#1")
    assert name_key(figure) == {}
    assert font_advice(["Röcke", "#1"]) == ""


@pytest.mark.parametrize(
    ("name", "package"),
    [("靴下", "fonts-noto-cjk"), ("신발", "fonts-noto-cjk"), ("👟", "fonts-symbola"),
     (CARIAN, "fonts-noto-core")],
)  # fmt: skip
def test_one_line_names_the_package_of_the_fonts(name: str, package: str) -> None:
    if not missing_letters(name):
        pytest.skip("a font has it")
    line = font_advice([name, "shoes", name])
    assert package in line
    assert "\n" not in line
    assert "1 name " in line


def test_words_read_from_right_to_left_are_isolated() -> None:
    rows = [label.get_text() for label in drawn(ARABIC, "hat").axes[0].get_yticklabels()]
    assert f"\u2068{ARABIC}\u2069" in rows
