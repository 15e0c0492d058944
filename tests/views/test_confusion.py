from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.confusion import confusion_matrix
from visual_search.views.style import HEAT

NASTY = ["$x$ $\\frac{1}{2}$", "<script>alert(1)</script>", "W" * 90, "Über", "a\nb", "", "$"]


def cell_texts(figure: Figure) -> dict[tuple[int, int], str]:
    """Returns the writing by (row, column)."""
    axes = figure.axes[0]
    columns = len(axes.get_xticks())
    return {
        (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text()
        for t in axes.texts
        if t.get_position()[0] < columns and t.get_position()[1] > 0
    }


def test_the_matrix_shows_the_shares_in_per_cent() -> None:
    found = [["hat", "hat", "shoe", "hat"], ["bag"] * 4, ["hat"] + ["shoe"] * 299]
    figure = confusion_matrix(["hat", "hat", "shoe"], found)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bag", "hat", "shoe"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hat", "shoe"]
    assert axes.yaxis_inverted(), "the first row stands at the top"
    # 1 of 300 is below half a per cent: blank
    assert cell_texts(figure) == {(0, 0): "50", (0, 1): "38", (0, 2): "12", (1, 2): "100"}
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == [[7, 6, 4], [0, 0, 8]]
    own = sorted((patch.get_x(), patch.get_y()) for patch in axes.patches)
    assert own == [(1, 0), (2, 1)], "the outlined cells are the query's own category"
    shown = texts(figure)
    for text in ("n queries", "n retrieved", "2", "8", "300"):
        assert text in shown


def test_the_steps_grow_darker() -> None:
    def luminance(color: str) -> float:
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    values = [luminance(color) for color in HEAT]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 9


def test_a_row_without_items_is_dashed() -> None:
    figure = confusion_matrix(["hat", "shoe", "hat"], [["hat"], [], None])  # type: ignore[list-item]
    assert [cell_texts(figure)[1, x] for x in (0, 1)] == ["–", "–"]  # noqa: RUF001
    assert any("a row of dashes" in text for text in texts(figure))


def test_the_rarest_beyond_forty_become_other() -> None:
    names = [f"Category {i:02d}" for i in range(60)]
    asked = [name for i, name in enumerate(names) for _ in range(60 - i)]
    figure = confusion_matrix(asked, [[name] for name in asked])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*names[:39], "other"]
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert any("other: the 21 rarest categories" in text for text in texts(figure))
    assert not cell_texts(figure), "no room for numbers"
    assert_texts_within_page(figure)


def test_a_category_called_other_joins_the_rest() -> None:
    names = [*(f"Category {i:02d}" for i in range(44)), "other"]
    asked = [*names, *(["other"] * 5)]
    figure = confusion_matrix(asked, [[name] for name in asked])
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[-1] == "other"
    assert labels.count("other") == 1
    assert any(f"the {45 - len(labels) + 1} rarest" in text for text in texts(figure))


@pytest.mark.parametrize("num_categories", [1, 2, 32, 40])
def test_any_number_of_categories_fits_the_page(num_categories: int) -> None:
    names = [f"Category {i} & more" for i in range(num_categories)]
    figure = confusion_matrix(names, [names] * len(names))
    assert_texts_within_page(figure)
    assert bool(cell_texts(figure)) == (num_categories <= 32)


def test_any_name_is_shown_literally() -> None:
    figure = confusion_matrix(NASTY, [NASTY] * len(NASTY))
    assert_texts_within_page(figure)
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    assert "<script>ale…(1)</script>" in texts(figure)


def test_the_matrix_refuses_no_query() -> None:
    with pytest.raises(ValueError, match="asked is empty"):
        confusion_matrix([], [])


def test_the_matrix_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match="1 categories asked for and 2 lists"):
        confusion_matrix(["hat"], [["hat"], ["hat"]])
