from __future__ import annotations

import subprocess
import sys

import matplotlib
import pytest
from matplotlib.text import Text

from visual_search.views.sheet import Sheet
from visual_search.views.style import (
    category_styles,
    group_rare,
    metric_title,
    one_line,
    quiet_style,
    show_literally,
    styles_by_category,
)


def test_the_style_leaves_the_global_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with quiet_style():
        assert matplotlib.rcParams["text.parse_math"] is False
    assert dict(matplotlib.rcParams) == before


def test_the_room_loads_neither_pyplot_nor_torch_nor_umap_nor_tensorboard() -> None:
    code = (
        "import sys\n"
        "from visual_search.views import "
        "figures, picture_grids, feature_maps, projection, projector\n"
        "heavy = ['matplotlib.pyplot', 'torch', 'umap', 'faiss', 'tensorboard']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fifty_categories_have_fifty_styles_and_the_first_ten_fifty_colours() -> None:
    styles = category_styles(50)
    assert len(set(styles)) == 50
    assert len({color for color, _ in styles}) == 50


def test_styles_do_not_depend_on_the_order_of_the_items() -> None:
    assert styles_by_category(["a", "b", "a"]) == styles_by_category(["b", "a", "a"])


@pytest.mark.parametrize("num_categories", [1, 50])
def test_few_enough_categories_stay(num_categories: int) -> None:
    names = [f"c{i}" for i in range(num_categories)]
    assert group_rare(names) == names


def test_fifty_one_categories_become_forty_nine_and_other() -> None:
    names = [f"c{i:02d}" for i in range(51)] + ["c50"]
    grouped = group_rare(names)
    assert len(set(grouped)) == 50
    assert grouped[50] == "c50", "the largest is kept"
    assert grouped.count("other") == 2


def test_metric_titles() -> None:
    assert metric_title("recall_at_1") == "recall@1"
    assert metric_title("ndcg_at_10") == "nDCG@10"
    assert metric_title("val_loss") == "val loss"


@pytest.mark.parametrize(
    ("text", "max_width", "expected"),
    [
        ("short", 10, "short"),
        ("two\nlines\tand\x00more", 30, "two lines and more"),
        ("手袋手袋手袋", 7, "手袋手…"),
        ("abcdefgh", 5, "abcd…"),
    ],
)
def test_one_line(text: str, max_width: int, expected: str) -> None:
    assert one_line(text, max_width) == expected


def test_texts_are_shown_literally() -> None:
    with quiet_style():
        sheet = Sheet(3, 2, "from $5 to $6", "sub $x$")
        sheet.text(1, 1, "$y$")
    figure = show_literally(sheet.figure)
    assert all(not text.get_parse_math() for text in figure.findobj(Text))
