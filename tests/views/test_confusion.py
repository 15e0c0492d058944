from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from tests.views.drawn import names_down, texts
from visual_search.views.confusion import confusion_matrix


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
    axes = figure.axes[0]
    assert names_down(axes) == ["hat", "shoe"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bag", "hat", "shoe"]
    # 1 of 300 is below half a per cent: blank
    assert cell_texts(figure) == {(0, 0): "50", (0, 1): "38", (0, 2): "12", (1, 2): "100"}
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == [[7, 6, 4], [0, 0, 8]]
    own = sorted((patch.get_x(), patch.get_y()) for patch in axes.patches)
    assert own == [(1, 0), (2, 1)], "the outlined cells are the query's own category"
    assert {"n queries", "n retrieved", "2", "8", "300"} <= set(texts(figure))


def test_a_row_without_items_is_dashed() -> None:
    figure = confusion_matrix(["hat", "shoe", "hat"], [["hat"], [], None])  # type: ignore[list-item]
    assert [cell_texts(figure)[1, x] for x in (0, 1)] == ["–", "–"]  # noqa: RUF001
    assert any("a row of dashes" in text for text in texts(figure))


def test_the_rarest_beyond_forty_become_other() -> None:
    names = [*(f"Category {i:02d}" for i in range(59)), "other"]
    asked = [name for i, name in enumerate(names) for _ in range(60 - i)]
    figure = confusion_matrix(asked, [[name] for name in asked])
    labels = names_down(figure.axes[0])
    assert labels == [*names[:39], "other"], "a category of that name is among the rest"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == labels
    assert any("other: the 21 rarest categories" in text for text in texts(figure))
    assert not cell_texts(figure), "no room for numbers"


@pytest.mark.parametrize("number", [1, 32, 33])
def test_up_to_32_categories_have_room_for_numbers(number: int) -> None:
    names = [f"Category {i} & more" for i in range(number)]
    figure = confusion_matrix(names, [[name] for name in names])
    texts(figure)
    assert len(cell_texts(figure)) == (number if number <= 32 else 0)
