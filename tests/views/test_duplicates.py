from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.duplicates import MAX_SHOWN, DuplicatePair, duplicate_pairs
from visual_search.views.figures import figure_to_array
from visual_search.views.style import WRONG

RNG = np.random.default_rng(0)


def pair(number: int = 0, other: str = "Hats") -> DuplicatePair:
    first, second = RNG.integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    return DuplicatePair(
        query_image=first,
        query_label=f"q{number}",
        query_category="Hats",
        gallery_image=second,
        gallery_label=f"65960fb1a4c3eac2dbca24cbb65e542f_{number}",
        gallery_category=other,
        hash_bits=2,
        relative_squared_distance=0.00123,
    )


@pytest.mark.parametrize("number", [1, 2, 5, 24])
def test_pairs_show_ids_categories_and_closeness(number: int) -> None:
    figure = duplicate_pairs([pair(i) for i in range(number)])
    shown = texts(figure)
    assert f"Near duplicates: {number} {'pair' if number == 1 else 'pairs'}" in shown
    assert {f"q{i}" for i in range(number)} <= set(shown)
    assert sum(t.startswith("65960fb1…") for t in shown) == number
    assert shown.count("Hats") == 2 * number
    assert shown.count("2 bits, rel. d² 0.00123") == number
    assert len(figure.axes[0].images) == 2 * number
    assert "≠" not in shown
    assert_texts_within_page(figure)


def test_the_query_stands_left_of_its_gallery_item() -> None:
    given = pair()
    figure = duplicate_pairs([given])
    left, right = figure.axes[0].images
    assert left.get_extent()[0] < right.get_extent()[0]
    np.testing.assert_array_equal(left.get_array(), given.query_image.transpose(1, 2, 0))
    np.testing.assert_array_equal(right.get_array(), given.gallery_image.transpose(1, 2, 0))


def test_at_most_24_are_shown_and_the_title_counts_all() -> None:
    figure = duplicate_pairs([pair(i) for i in range(30)], num_pairs=1234)
    assert len(figure.axes[0].images) == 2 * MAX_SHOWN
    assert f"Near duplicates: 1,234 pairs, {MAX_SHOWN} shown" in texts(figure)
    assert_texts_within_page(figure)


def test_different_categories_are_marked_and_counted() -> None:
    figure = duplicate_pairs([pair(), pair(other="Coats & $Jackets$"), pair()])
    shown = texts(figure)
    assert shown.count("≠") == 1
    assert "Coats & $Jackets$" in shown
    assert any("≠ categories differ (1)" in text for text in shown)
    wanted = np.rint(np.array(to_rgb(WRONG)) * 255).astype(int)
    for drawn, least in ((figure, 1500), (duplicate_pairs([pair()]), 0)):
        pixels = figure_to_array(drawn).reshape(-1, 3).astype(int)
        count = int((np.abs(pixels - wanted).max(axis=1) <= 2).sum())
        assert least <= count <= 3 * least


def test_what_was_not_measured_is_not_shown() -> None:
    by_embedding = replace(pair(), hash_bits=-1)
    by_hash = replace(pair(), hash_bits=1, relative_squared_distance=math.nan)
    neither = replace(by_embedding, relative_squared_distance=math.nan)
    shown = texts(duplicate_pairs([by_embedding, by_hash, neither]))
    assert {"rel. d² 0.00123", "1 bit", "not measured"} <= set(shown)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs is empty, expected at least one"):
        duplicate_pairs([])
    with pytest.raises(ValueError, match="num_pairs is 1 for 2 pairs"):
        duplicate_pairs([pair(), pair()], num_pairs=1)
    with pytest.raises(ValueError, match=r"query_image\[None\] is \[1, 3, 16, 16\] float64"):
        replace(pair(), query_image=pair().query_image / 255)
    with pytest.raises(ValueError, match=r"gallery_image\[None\] is \[1, 16, 16, 3\] uint8"):
        replace(pair(), gallery_image=pair().gallery_image.transpose(1, 2, 0))
