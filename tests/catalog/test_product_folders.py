"""Folders of pictures below a category: products where all speaks for it, else asked about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalog.shops import saved
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.folder import folder

KINDS = ("Shoes", "Bags", "Hats", "Coats")


def tree(name: Callable[[int], str], num: int = 24, most: int = 3) -> list[str]:
    """Pictures of products of four categories in turn, each with one to ``most`` pictures."""
    return [
        f"{KINDS[number % 4]}/{name(number)}/{view}.jpg"
        for number in range(num)
        for view in range(1 + number % most)
    ]


def told(catalog: Catalog) -> str:
    return next((choice.value for choice in catalog.choices if choice.key == "data.products"), "")


NUMBERED = [
    pytest.param(lambda n: f"{n:03d}", id="numbers"),
    pytest.param(lambda n: f"SKU-{7 * n}", id="codes"),
    pytest.param(lambda n: f"red runner {n}", id="names that end in one"),
    pytest.param(lambda n: f"Women/P{n}", id="below a further level"),
]


@pytest.mark.parametrize("name", NUMBERED)
def test_numbered_folders_of_few_pictures_are_products(
    tmp_path: Path, name: Callable[[int], str]
) -> None:
    saved(tmp_path, tree(name))
    found, asked = folder(tmp_path), folder(tmp_path, products=True)
    assert found.table.equals(asked.table)
    assert found.fingerprint() == asked.fingerprint()
    assert (len(set(found.products or ())), len(found.categories)) == (24, 4)
    assert (told(found), found.settings) == ("true", {"products": True})
    assert (told(asked), asked.settings) == ("", {})
    pictures = folder(tmp_path, products=False)
    assert (pictures.products, told(pictures)) == (None, "")


def test_products_are_found_out_below_splits_too(tmp_path: Path) -> None:
    names = tree(lambda n: f"P{n}")
    saved(tmp_path, [f"{'test' if '/P1' in name else 'train'}/{name}" for name in names])
    catalog = folder(tmp_path, splits=True)
    assert len(set(catalog.products or ())) == 24
    assert set(catalog.table["category"]) == set(KINDS)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        # some of it speaks for products: it is said, and nothing is read anew
        pytest.param(tree(lambda n: f"name {'abcdefghijklmnopqrstuvwx'[n]}"), "false", id="words"),
        pytest.param(tree(lambda n: f"{n // 4:03d}"), "false", id="numbers that repeat"),
        pytest.param(tree(lambda n: f"{1990 + n}"), "false", id="years"),
        pytest.param(tree(lambda n: f"2021-03-{n + 1:02d}"), "false", id="days"),
        pytest.param(tree(lambda n: f"P{n}", num=8), "false", id="few"),
        # nothing does
        pytest.param(tree(lambda n: ("Boots", "Sandals")[n // 4 % 2], num=24), "", id="levels"),
        pytest.param(tree(lambda n: f"P{n}", most=1), "", id="one picture each"),
        pytest.param(tree(lambda n: f"P{n}", most=60, num=61), "", id="many pictures each"),
        pytest.param([*tree(lambda n: f"P{n}"), "Bags/loose.jpg"], "", id="pictures beside them"),
        pytest.param([f"Bags/{n}.jpg" for n in range(40)], "", id="flat"),
    ],
)
def test_what_may_be_levels_of_the_category_stays_so(
    tmp_path: Path, names: list[str], said: str
) -> None:
    catalog = folder(saved(tmp_path, names))
    assert catalog.products is None
    assert catalog.table["item_id"].tolist() == sorted(set(names))
    assert told(catalog) == said
    assert folder(tmp_path, products=False).fingerprint() == catalog.fingerprint()


def test_products_without_categories_are_asked_about_and_may_be_said_to_be(tmp_path: Path) -> None:
    names = [name.partition("/")[2] for name in tree(lambda n: f"P{n}")]
    catalog = folder(saved(tmp_path, names))
    assert (catalog.products, told(catalog)) == (None, "false")
    assert "protocol=instance" in str(catalog.choices[-1])
    said = folder(tmp_path, products=True)
    assert len(set(said.products or ())) == 24
    assert said.table["category"].tolist() == said.table["group"].tolist() == said.products
    assert set(said.table["item_id"]) >= {"P5", "P5~2", "P5~3"}
    saved(tmp_path, ["Hats/P99/1.jpg"])  # of these the others are categories, without products
    mixed = folder(tmp_path, products=True, on_bad_item="skip_any")
    assert mixed.table["item_id"].tolist() == ["Hats/P99"]


def test_products_lie_below_what_was_said_to_be_levels_of_the_category(tmp_path: Path) -> None:
    saved(tmp_path, tree(lambda n: f"Women/P{n}"))
    both = folder(tmp_path, category_depth=2)
    assert both.categories == sorted(f"{kind} > Women" for kind in KINDS)
    assert (len(set(both.products or ())), told(both)) == (24, "true")
    by_level = folder(tmp_path, category_depth=3)
    assert (by_level.products, told(by_level), len(by_level.categories)) == (None, "", 24)
    saved(tmp_path / "words", tree(lambda n: f"name {'abcdefghijklmnopqrstuvwx'[n]}"))
    asked = folder(tmp_path / "words", category_depth=1)
    assert (asked.products, told(asked)) == (None, "false")
    assert "data.category_depth" not in str(asked.choices[-1])
