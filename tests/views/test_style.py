from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from tests.views.drawn import texts
from visual_search import views
from visual_search.views.sheet import Sheet
from visual_search.views.style import (
    category_styles,
    group_rare,
    quiet_style,
    show_literally,
    styles_by_category,
)
from visual_search.wording import one_line


def test_the_style_leaves_the_global_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with quiet_style():
        assert matplotlib.rcParams["text.parse_math"] is False
    assert dict(matplotlib.rcParams) == before


def test_the_room_leaves_pyplot_alone_which_keeps_every_figure() -> None:
    files = [path.read_text() for path in Path(views.__file__).parent.glob("*.py")]
    assert files
    assert not [text for text in files if re.search(r"^\s*(from|import) .*pyplot", text, re.M)]


def test_fifty_categories_have_fifty_colours_whatever_their_order() -> None:
    assert len({color for color, _ in category_styles(50)}) == 50
    assert styles_by_category(["a", "b", "a"]) == styles_by_category(["b", "a", "a"])


def test_fifty_one_categories_become_forty_nine_and_other() -> None:
    names = [f"c{i:02d}" for i in range(50)]
    assert group_rare(names) == names, "few enough stay"
    grouped = group_rare([*names, "c50", "c50"])
    assert len(set(grouped)) == 50
    assert grouped[50] == "c50", "the largest is kept"
    assert grouped.count("other") == 2


@pytest.mark.parametrize(
    ("text", "max_width", "expected"),
    [
        ("short", 10, "short"), ("two\nlines\tand\x00more", 30, "two lines and more"),
        ("手袋手袋手袋", 7, "手…袋"), ("abcdefgh", 5, "ab…gh"),
    ],
)  # fmt: skip
def test_one_line(text: str, max_width: int, expected: str) -> None:
    assert one_line(text, max_width) == expected


def test_texts_are_shown_literally() -> None:
    with quiet_style():
        sheet = Sheet(3, 2, "from $5 to $6", "sub $x$")
        sheet.text(1, 1, "$y$")
    assert set(texts(show_literally(sheet.figure))) == {"from $5 to $6", "sub $x$", "$y$"}


# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB
VISION = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def as_seen(colour: str, vision: str) -> np.ndarray:
    """Returns CIE L*a*b* of a colour under a kind of colour blindness."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    rgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None, None])[0, 0]


@pytest.mark.parametrize("vision", VISION)
def test_no_two_categories_share_marker_and_hue_for_the_colour_blind(vision: str) -> None:
    styles = category_styles(50)
    seen = [as_seen(colour, vision) for colour, _ in styles]
    for first, second in itertools.combinations(range(50), 2):
        if styles[first][1] == styles[second][1]:
            apart = np.linalg.norm(seen[first] - seen[second])
            assert apart > 15, f"{styles[first]} and {styles[second]}"
