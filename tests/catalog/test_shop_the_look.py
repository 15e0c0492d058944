from __future__ import annotations

import json
import os
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded, noise
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.shop_the_look import (
    needed_pictures,
    read_categories,
    read_pairs,
    shop_the_look,
)
from visual_search.catalog.splits import assign_splits
from visual_search.retrieval.protocols import cross_domain, gallery_query

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
CATEGORIES = SHARED / "datasets" / "shop-the-look-fashion-cat.json"

COAT, SHOE, HAT = (digit * 32 for digit in "123")  # products
ROOM, STREET = (digit * 32 for digit in "ab")  # scenes
PATHS = {
    COAT: "Apparel & Accessories|Clothing|Outerwear|Coats & Jackets",
    SHOE: "Apparel & Accessories|Shoes",
    HAT: "Apparel & Accessories|Clothing Accessories|Hats",
}


def pair(product: Any, scene: Any, *bbox: Any) -> dict[str, Any]:
    return {"product": product, "scene": scene, "bbox": list(bbox)}


PAIRS = [
    pair(SHOE, STREET, 0.5, 0.25, 1.0, 1.0),
    pair(COAT, ROOM, 0, 0, 0.5, 1),
    pair(SHOE, ROOM, 0.25, 0.5, 0.75, 0.75),
]


def png(seed: int) -> bytes:
    return encoded(noise(40, 20, seed))


class Published:
    """The two files and the pictures, as they are published, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "fashion.json"
        self.categories = folder / "fashion-cat.json"
        self.pictures = folder / "pictures"
        self.pictures.mkdir()
        for seed, signature in enumerate((COAT, SHOE, HAT, ROOM, STREET)):
            (self.pictures / f"{signature}.jpg").write_bytes(png(seed))
        self.write(PAIRS, PATHS)

    def write(self, pairs: list[Any], paths: Any = PATHS) -> Published:
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in pairs]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.categories.write_text(json.dumps(paths), encoding="utf-8")
        return self

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.path, self.categories, self.pictures


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def test_products_and_crops_are_items(published: Published) -> None:
    catalog = shop_the_look(*published.files)
    root = "Apparel & Accessories"
    assert catalog.table.to_dict("list") == {
        "item_id": [SHOE, COAT, f"{ROOM}-{COAT}", f"{ROOM}-{SHOE}", f"{STREET}-{SHOE}"],
        "image": [
            f"{SHOE}.jpg",
            f"{COAT}.jpg",
            f"{ROOM}.jpg#0.0,0.0,0.5,1.0",
            f"{ROOM}.jpg#0.25,0.5,0.5,0.25",
            f"{STREET}.jpg#0.5,0.25,0.5,0.75",
        ],
        "category": ["Shoes", "Coats & Jackets", "Coats & Jackets", "Shoes", "Shoes"],
        "group": [SHOE, COAT, COAT, SHOE, SHOE],
        "split": [""] * 5,
        "domain": ["product", "product", "scene", "scene", "scene"],
        "product": [SHOE, COAT, COAT, SHOE, SHOE],
        "scene": ["", "", ROOM, ROOM, STREET],
        "level_1": [root] * 5,
        "level_2": ["Shoes", "Clothing", "Clothing", "Shoes", "Shoes"],
        "level_3": ["Shoes", "Outerwear", "Outerwear", "Shoes", "Shoes"],
        "level_4": ["Shoes", "Coats & Jackets", "Coats & Jackets", "Shoes", "Shoes"],
    }
    assert (catalog.name, catalog.refused) == ("shop_the_look", ())
    pixels = np.asarray(Image.open(published.pictures / f"{STREET}.jpg"))
    crop = catalog.source.load(catalog.table["image"][4])
    np.testing.assert_array_equal(crop, pixels[5:20, 20:40])
    assert catalog.source.load(f"{SHOE}.jpg") == (published.pictures / f"{SHOE}.jpg").read_bytes()


def test_an_array_is_read_like_lines(published: Published) -> None:
    lines = shop_the_look(*published.files).table
    for text in (json.dumps(PAIRS), json.dumps(PAIRS, indent=2), "\ufeff " + json.dumps(PAIRS)):
        published.path.write_text(text, encoding="utf-8")
        assert shop_the_look(*published.files).table.equals(lines)
    published.path.write_text("\ufeff\r\n" + "\r\n\r\n".join(map(json.dumps, PAIRS)), "utf-8")
    assert shop_the_look(*published.files).table.equals(lines)


# ---- what fits which protocol


def many(published: Published, num_products: int = 60) -> Published:
    """Each product is shown by two of as many scenes, each scene shows two products."""
    products = [f"{number:032x}" for number in range(num_products)]
    scenes = [f"{number:032x}" for number in range(1000, 1000 + num_products)]
    pairs = [
        pair(product, scenes[(number + step) % num_products], 0.1, 0.1, 0.5 + step / 4, 0.9)
        for number, product in enumerate(products)
        for step in (0, 1)
    ]
    return published.write(pairs, dict.fromkeys(products, "Shop|Shoes"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_crops_ask_for_their_product_when_splits_are_drawn_by_product(
    published: Published, split: str
) -> None:
    files = many(published).files[:2]
    catalog = assign_splits(
        shop_the_look(*files, None), method="hash", val_fraction=0.2, test_fraction=0.2, seed=0
    )
    table = catalog.table
    assert len(table[["group", "split"]].drop_duplicates()) == 60, "a product and its crops stay"
    protocol = cross_domain("domain", query_value="scene", gallery_value="product")
    chosen = protocol.choose(table, split)
    assert len(chosen.gallery_rows) == 60
    queries, gallery = table.iloc[chosen.query_rows], table.iloc[chosen.gallery_rows]
    assert 0 < len(queries) < 120
    assert set(queries["domain"]) == {"scene"}
    assert set(queries["split"]) == {split}
    for group in queries["group"]:
        assert list(gallery["item_id"][gallery["group"] == group]) == [group], "one is relevant"
    trained = table[table["split"] == "train"]
    assert not set(trained["product"]) & set(queries["product"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_crops_ask_all_products_when_split_by_domain(published: Published, split: str) -> None:
    files = many(published).files[:2]
    read = shop_the_look(*files, None, split_by="domain")
    table = assign_splits(
        read, method="hash", val_fraction=0.2, test_fraction=0.2, seed=0
    ).table  # which keeps the splits as they are
    assert table.equals(read.table)
    assert set(table["split"][table["domain"] == "product"]) == {"train"}
    scenes = table[table["domain"] == "scene"]
    assert set(scenes["split"]) == {"val", "test"}
    assert (scenes["split"] == "val").sum() < (scenes["split"] == "test").sum()
    assert len(scenes[["scene", "split"]].drop_duplicates()) == 60, "a scene is in one split"
    assert set(scenes["group"]) == {f"scene-{scene}" for scene in scenes["scene"]}
    by_product = cross_domain("domain", "scene", "product", relevance=["product"])
    for protocol in (by_product, gallery_query()):
        chosen = protocol.choose(table, split)
        queries, gallery = table.iloc[chosen.query_rows], table.iloc[chosen.gallery_rows]
        assert len(gallery) == 60
        assert set(queries["split"]) == {split}
        assert set(queries["product"]) <= set(gallery["product"])
        assert not set(queries["group"]) & set(gallery["group"])


# ---- entries that are none


SMALL = (0, 0, 0.5, 0.5)
BAD_ENTRIES: dict[str, tuple[Any, str]] = {
    "no JSON": ('{"product": ', "line 4: is no JSON"),
    "deep": ("{" * 3 + '"a":' + "[" * 100_000, "line 4: is no JSON"),
    "a list": ([COAT, ROOM], "line 4: is a JSON list; expected an object"),
    "null": ("null", "line 4: is a JSON NoneType"),
    "no fields": ({"product": COAT}, r"line 4: lacks \['scene', 'bbox'\]"),
    "another product": (pair(COAT[1:], ROOM, *SMALL), "product: the signature is '111"),
    "a number": (pair(7, ROOM, *SMALL), "product: the signature is 7; expected 32 hexadecimal"),
    "another scene": (pair(COAT, "../a.jpg", *SMALL), r"scene: the signature is '\.\./a\.jpg'"),
    "three": (pair(COAT, STREET, 0, 0, 1), "bbox is .* expected four numbers: left, top"),
    "no box": ({"product": COAT, "scene": ROOM, "bbox": None}, "bbox is None; expected four"),
    "text": (pair(COAT, STREET, "0", 0, 1, 1), "the box's left edge is '0'; expected a number"),
    "true": (pair(COAT, STREET, 0, 0, True, 1), "the box's right edge is True"),
    "NaN": (pair(COAT, STREET, 0, 0, float("nan"), 1), "is not finite"),
    "huge": (pair(COAT, STREET, 0, 0, 10**400, 1), "is not finite"),
    "turned": (pair(COAT, STREET, 0.5, 0, 0.25, 1), r"bbox \[0\.5, 0, 0\.25, 1\]: .* no area"),
    "outside": (pair(COAT, STREET, 10, 20, 200, 300), "lies entirely outside the picture"),
    "twice": (PAIRS[1], "the same product, scene and bbox stand in line 2 already"),
}


@pytest.mark.parametrize("kind", BAD_ENTRIES)
def test_a_bad_entry_is_refused_and_named(published: Published, kind: str) -> None:
    entry, message = BAD_ENTRIES[kind]
    published.write([*PAIRS, entry, pair(HAT, STREET, *SMALL)])
    with pytest.raises(BadItemsError, match="1 bad item") as caught:
        shop_the_look(*published.files)
    (item,) = caught.value.refused
    assert re.search(message, item.reason)
    catalog = shop_the_look(*published.files, on_bad_item="skip")
    assert len(catalog) == 7
    assert f"{STREET}-{HAT}" in set(catalog.table["item_id"])
    assert catalog.refused == caught.value.refused


def test_two_boxes_of_one_product_in_a_scene_are_numbered(published: Published) -> None:
    boxes = [(0, 0, 0.5, 0.5), (0, 0, 0, 0), (0, 0, 0.5, 1)]
    published.write([pair(COAT, ROOM, *box) for box in boxes])
    read = read_pairs(published.path)
    assert [entry.item_id for entry in read.pairs] == [f"{ROOM}-{COAT}", f"{ROOM}-{COAT}-3"]
    assert [item.item_id for item in read.refused] == [f"{ROOM}-{COAT}-2"]


PATH_PROBLEMS = {
    None: "has no category path",
    "": "is ''; expected levels separated by",
    " ": "is ' '; expected levels",
    "Apparel||Hats": "none of them empty",
    "Apparel|Hats|": "none of them empty",
    7: "is 7; expected levels",
}


@pytest.mark.parametrize("text", PATH_PROBLEMS)
def test_a_product_without_a_category_is_refused_with_its_crops(
    published: Published, text: Any
) -> None:
    paths = {product: path for product, path in PATHS.items() if product != SHOE}
    if text is not None:
        paths[SHOE] = text
    published.write(PAIRS, paths)
    catalog = shop_the_look(*published.files, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [COAT, f"{ROOM}-{COAT}"]
    reasons = {item.item_id: item.reason for item in catalog.refused}
    assert set(reasons) == {SHOE, f"{ROOM}-{SHOE}", f"{STREET}-{SHOE}"}
    for reason in reasons.values():
        assert SHOE in reason
        assert PATH_PROBLEMS[text] in reason
    assert set(needed_pictures(*published.files[:2])) == {f"{COAT}.jpg", f"{ROOM}.jpg"}


def test_missing_pictures_are_refused_one_by_one(published: Published) -> None:
    (published.pictures / f"{SHOE}.jpg").unlink()
    (published.pictures / f"{ROOM}.jpg").unlink()
    with pytest.raises(BadItemsError, match=rf"no picture '{SHOE}\.jpg'"):
        shop_the_look(*published.files)
    catalog = shop_the_look(*published.files, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [COAT, f"{STREET}-{SHOE}"]
    assert [(item.item_id, item.image) for item in catalog.refused] == [
        (SHOE, f"{SHOE}.jpg"),
        (f"{ROOM}-{COAT}", f"{ROOM}.jpg#0.0,0.0,0.5,1.0"),
        (f"{ROOM}-{SHOE}", f"{ROOM}.jpg#0.25,0.5,0.5,0.25"),
    ]
    assert catalog.refused[0].reason.startswith("line 1: no picture")


# ---- categories


def test_a_leaf_of_two_paths_is_told_apart(published: Published) -> None:
    published.write(PAIRS, {COAT: "Women | Coats", SHOE: "Men|Coats", HAT: "Men|Hats"})
    names = read_categories(published.categories).category_names()
    assert names == {
        ("Women", "Coats"): "Women|Coats",
        ("Men", "Coats"): "Men|Coats",
        ("Men", "Hats"): "Hats",
    }
    assert shop_the_look(*published.files).categories == ["Men|Coats", "Women|Coats"]


def test_a_path_may_end_where_another_goes_on(published: Published) -> None:
    published.write(PAIRS, {COAT: "Furniture|Chairs", SHOE: "Furniture|Chairs|Stools"})
    table = shop_the_look(*published.files).table
    assert list(table["category"][:2]) == ["Stools", "Chairs"]
    assert list(table["level_3"][:2]) == ["Stools", "Chairs"]


# ---- files


def test_pictures_in_a_zip_by_other_patterns(published: Published) -> None:
    path = published.folder / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for seed, signature in enumerate((COAT, SHOE)):
            archive.writestr(f"fashion/product/{signature}.jpg", png(seed))
        for seed, signature in enumerate((ROOM, STREET)):
            archive.writestr(f"fashion/scene/{signature[:2]}/{signature}.jpg", png(seed))
    patterns = ("fashion/product/{signature}.jpg", "fashion/scene/{signature:.2}/{signature}.jpg")
    catalog = shop_the_look(*published.files[:2], path, *patterns)
    assert len(catalog) == 5
    for image in catalog.table["image"]:
        assert len(catalog.source.load(image)) > 0
    assert len(set(catalog.source.content_keys(list(catalog.table["image"])))) == 5
    assert list(needed_pictures(*published.files[:2], *patterns).items()) == [
        (f"fashion/product/{SHOE}.jpg", f"https://i.pinimg.com/400x/22/22/22/{SHOE}.jpg"),
        (f"fashion/product/{COAT}.jpg", f"https://i.pinimg.com/400x/11/11/11/{COAT}.jpg"),
        (f"fashion/scene/bb/{STREET}.jpg", f"https://i.pinimg.com/400x/bb/bb/bb/{STREET}.jpg"),
        (f"fashion/scene/aa/{ROOM}.jpg", f"https://i.pinimg.com/400x/aa/aa/aa/{ROOM}.jpg"),
    ]


def test_what_is_out_of_range_is_refused(published: Published) -> None:
    with pytest.raises(ValueError, match="split_by is 'scene'; expected 'product' or 'domain'"):
        shop_the_look(*published.files, split_by="scene")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        shop_the_look(*published.files, on_bad_item="drop")  # type: ignore[arg-type]
    for name in ("product_pattern", "scene_pattern"):
        for reader in (shop_the_look, needed_pictures):
            files = published.files[: 3 if reader is shop_the_look else 2]
            with pytest.raises(ValueError, match=rf"{name} '\{{id\}}\.jpg' is malformed"):
                reader(*files, **{name: "{id}.jpg"})  # type: ignore[operator]


def test_other_files_are_named(published: Published) -> None:
    path, categories, pictures = published.files
    nowhere = published.folder / "nowhere"
    with pytest.raises(FileNotFoundError, match=r"nowhere; give the path of fashion\.json"):
        shop_the_look(nowhere, categories, pictures)
    with pytest.raises(FileNotFoundError, match=r"nowhere; give the path of fashion-cat\.json"):
        shop_the_look(path, nowhere, pictures)
    with pytest.raises(FileNotFoundError, match=r"no folder or zip at .*nowhere"):
        shop_the_look(path, categories, nowhere)
    with pytest.raises(ValueError, match=r"fashion\.json is no JSON .*expected fashion-cat\.json"):
        shop_the_look(path, path, pictures)
    categories.write_text("[1]")
    with pytest.raises(ValueError, match="holds a JSON list; expected an object, product ->"):
        shop_the_look(path, categories, pictures)
    categories.write_bytes(b'{"a": "\xfc"}')
    with pytest.raises(ValueError, match="line 1, is not UTF-8"):
        shop_the_look(path, categories, pictures)
    published.write(PAIRS)
    path.write_text("[" + json.dumps(PAIRS[0]) + ",")
    with pytest.raises(ValueError, match="starts as a JSON array and is none"):
        shop_the_look(path, categories, pictures)
    for nothing in ("", "[]"):
        path.write_text(nothing)
        with pytest.raises(ValueError, match="gives no item"):
            shop_the_look(path, categories, pictures)


@pytest.mark.skipif(not CATEGORIES.exists(), reason="fashion-cat.json is not on this machine")
def test_the_real_categories_read_completely(tmp_path: Path) -> None:
    known = read_categories(CATEGORIES)
    assert (len(known.paths), len(known.problems), known.num_levels) == (38_111, 0, 4)
    names = known.category_names()
    count = Counter(names[path] for path in known.paths.values())
    assert len(count) == 10
    assert (count["Shoes"], count["Coats & Jackets"], count["Necklaces"]) == (11_780, 2_485, 909)
    products = list(known.paths)
    pairs = [
        pair(product, products[-1 - number], 0, 0, 0.5, 1)
        for number, product in enumerate(products)
    ]
    path = tmp_path / "fashion.json"
    path.write_text("\n".join(map(json.dumps, pairs)))
    catalog = shop_the_look(path, CATEGORIES, None)
    assert (len(catalog), len(catalog.categories)) == (2 * 38_111, 10)
