from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.shops import refuses, saved, zipped
from visual_search.catalog.readers.folder import folder
from visual_search.catalog.readers.table import table
from visual_search.retrieval.protocols import leave_one_out

PATHS = ["Women > Shoes > Boots", "Women > Shoes", "Men > Shoes > Boots", "Hats"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    saved(tmp_path, {f"{number}.jpg": b"" for number in range(4)})
    rows = [f"{number},{number}.jpg,{path}" for number, path in enumerate(PATHS)]
    text = "\n".join(["item_id,image,category", *rows])
    return saved(tmp_path, {"shop.csv": text}) / "shop.csv"


def test_a_level_is_the_category_and_all_stay_beside_it(shop: Path) -> None:
    whole = table(shop)
    assert list(whole.table["category"]) == PATHS
    assert any("data.category_depth=null" in str(choice) for choice in whole.choices)
    catalog = table(shop, category_depth=2)
    second = ["Women > Shoes", "Women > Shoes", "Men > Shoes", "Hats"]
    assert list(catalog.table["category"]) == second
    assert list(catalog.table["category_1"]) == ["Women", "Women", "Men", "Hats"]
    assert list(catalog.table["category_2"]) == [*second[:3], ""]
    assert list(catalog.table["category_3"]) == [PATHS[0], "", PATHS[2], ""]
    levels = ["category_1", "category_2", "category_3"]
    protocol = leave_one_out(relevance=["category_1"], hierarchy=levels)
    assert protocol.choose(catalog.table.assign(split="test"), "test").query_rows.tolist() == [
        *range(4)
    ]


def test_what_has_no_such_level_is_refused(shop: Path) -> None:
    for depth in (0, 4):
        refuses(ValueError, f"category_depth is {depth}.*'Women > Shoes > Boots', has 3 levels; "
                "expected 1 to 3", table, shop, category_depth=depth)  # fmt: skip
    text = shop.read_text().replace("category\n", "category,category_2\n").replace("Hats", "Hats,x")
    shop.write_text(text.replace("Boots\n", "Boots,x\n").replace("Shoes\n", "Shoes,x\n"))
    refuses(ValueError, "'category_2' has the name of a level", table, shop, category_depth=1)
    assert "category_2" in table(shop).attributes


def test_sub_folders_are_levels_and_products(tmp_path: Path) -> None:
    names = [
        "women/shoes/a/1.jpg",
        "women/shoes/a/2.jpg",
        "women/shoes/b/1.jpg",
        "men/hats/c/1.jpg",
    ]
    root = saved(tmp_path / "shop", names)
    for place in (root, zipped(root, tmp_path / "shop.zip")):
        catalog = folder(place, products=True, category_depth=2)
        ids = ["men/hats/c", "women/shoes/a", "women/shoes/a~2", "women/shoes/b"]
        assert list(catalog.table["item_id"]) == ids
        assert catalog.products == list(catalog.table["group"]) == [
            "men/hats/c", "women/shoes/a", "women/shoes/a", "women/shoes/b"]  # fmt: skip
        assert catalog.categories == ["men > hats", "women > shoes"]
        assert list(catalog.table["category_1"]) == ["men", "women", "women", "women"]
        top = folder(place)
        assert (top.categories, top.attributes) == (["men", "women"], [])
        assert top.table["item_id"][0] == "men/hats/c/1.jpg"
    saved(root, ["women/3.jpg"])
    left = folder(root, products=True, on_bad_item="skip")
    (refused,) = left.refused
    assert (refused.item_id, "lies in no product" in refused.reason) == ("women/3.jpg", True)
    assert left.categories == ["men", "women"]
