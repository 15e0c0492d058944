from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded, noise
from tests.catalog.shops import SHARED, needs_shared, one_refused, refuses, saved, zip_of
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.shop_the_look import (
    needed_pictures,
    read_categories,
    read_pairs,
    shop_the_look,
)
from visual_search.catalog.splits import assign_splits
from visual_search.retrieval.protocols import cross_domain, gallery_query

COAT, SHOE, HAT = (digit * 32 for digit in "123")  # products
ROOM, STREET = (digit * 32 for digit in "ab")  # scenes
PATHS = {
    COAT: "Apparel & Accessories|Clothing|Outerwear|Coats & Jackets",
    SHOE: "Apparel & Accessories|Shoes",
    HAT: "Apparel & Accessories|Clothing Accessories|Hats",
}
DRAWN = {"method": "hash", "val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}


def pair(product: Any, scene: Any, *bbox: Any) -> dict[str, Any]:
    return {"product": product, "scene": scene, "bbox": list(bbox)}


PAIRS = [
    pair(SHOE, STREET, 0.5, 0.25, 1.0, 1.0),
    pair(COAT, ROOM, 0, 0, 0.5, 1),
    pair(SHOE, ROOM, 0.25, 0.5, 0.75, 0.75),
]
PICTURES = {s: encoded(noise(40, 20, n)) for n, s in enumerate((COAT, SHOE, HAT, ROOM, STREET))}


class Published:
    """The two files and the pictures, as they are published, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.categories = folder / "fashion.json", folder / "fashion-cat.json"
        named = {f"{signature}.jpg": data for signature, data in PICTURES.items()}
        self.pictures = saved(folder / "pictures", named)
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
    coat = [["Shoes", level] for level in ("Clothing", "Outerwear", "Coats & Jackets")]
    levels = [["Apparel & Accessories"] * 5, *([s, c, c, s, s] for s, c in coat)]
    boxes = ["0.0,0.0,0.5,1.0", "0.25,0.5,0.5,0.25", "0.5,0.25,0.5,0.75"]
    scenes = [ROOM, ROOM, STREET]
    assert catalog.table.to_dict("list") == {
        "item_id": [SHOE, COAT, f"{ROOM}-{COAT}", f"{ROOM}-{SHOE}", f"{STREET}-{SHOE}"],
        "image": [f"{SHOE}.jpg", f"{COAT}.jpg"]
        + [f"{scene}.jpg#{box}" for scene, box in zip(scenes, boxes, strict=True)],
        "category": ["Shoes", "Coats & Jackets", "Coats & Jackets", "Shoes", "Shoes"],
        "group": [SHOE, COAT, COAT, SHOE, SHOE],
        "split": [""] * 5,
        "domain": ["product", "product", "scene", "scene", "scene"],
        "product": [SHOE, COAT, COAT, SHOE, SHOE],
        "scene": ["", "", *scenes],
    } | {f"level_{n}": level for n, level in enumerate(levels, 1)}
    assert (catalog.name, catalog.refused) == ("shop_the_look", ())
    pixels = np.asarray(Image.open(published.pictures / f"{STREET}.jpg"))
    crop = catalog.source.load(catalog.table["image"][4])
    np.testing.assert_array_equal(crop, pixels[5:20, 20:40])
    assert catalog.source.load(f"{SHOE}.jpg") == PICTURES[SHOE]


def test_an_array_is_read_like_lines(published: Published) -> None:
    lines = shop_the_look(*published.files).table
    texts = [json.dumps(PAIRS), json.dumps(PAIRS, indent=2), "\ufeff " + json.dumps(PAIRS)]
    for text in (*texts, "\ufeff\r\n" + "\r\n\r\n".join(map(json.dumps, PAIRS))):
        published.path.write_text(text, encoding="utf-8")
        assert shop_the_look(*published.files).table.equals(lines)


# ---- what fits which protocol


@pytest.fixture
def many(published: Published) -> Any:
    """Each of 60 products is shown by two of as many scenes, each scene shows two products."""
    products, scenes = ([f"{start + n:032x}" for n in range(60)] for start in (0, 1000))
    pairs = [
        pair(product, scenes[(number + step) % 60], 0.1, 0.1, 0.5 + step / 4, 0.9)
        for number, product in enumerate(products)
        for step in (0, 1)
    ]
    return *published.write(pairs, dict.fromkeys(products, "Shop|Shoes")).files[:2], None


@pytest.mark.parametrize("split", ["val", "test"])
def test_crops_ask_for_their_product_when_drawn_by_it(many: Any, split: str) -> None:
    table = assign_splits(shop_the_look(*many), **DRAWN).table  # type: ignore[arg-type]
    assert len(table[["group", "split"]].drop_duplicates()) == 60, "a product and its crops stay"
    protocol = cross_domain("domain", query_value="scene", gallery_value="product")
    chosen = protocol.choose(table, split)
    assert len(chosen.gallery_rows) == 60
    queries, gallery = table.iloc[chosen.query_rows], table.iloc[chosen.gallery_rows]
    assert 0 < len(queries) < 120
    assert (set(queries["domain"]), set(queries["split"])) == ({"scene"}, {split})
    for group in queries["group"]:
        assert list(gallery["item_id"][gallery["group"] == group]) == [group], "one is relevant"
    assert not set(table["product"][table["split"] == "train"]) & set(queries["product"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_crops_ask_all_products_by_domain(many: Any, split: str) -> None:
    read = shop_the_look(*many, split_by="domain")
    table = assign_splits(read, **DRAWN).table  # type: ignore[arg-type]
    assert table.equals(read.table), "the splits stay as they are"
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
        assert (len(gallery), set(queries["split"])) == (60, {split})
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
    "turned": (pair(COAT, STREET, 0.5, 0, 0.25, 1), r"bbox \[0\.5, 0, 0\.25, 1\]: .* no area"),
    "outside": (pair(COAT, STREET, 10, 20, 200, 300), "lies entirely outside the picture"),
    "twice": (PAIRS[1], "the same product, scene and bbox stand in line 2 already"),
}


@pytest.mark.parametrize("kind", BAD_ENTRIES)
def test_a_bad_entry_is_refused_and_named(published: Published, kind: str) -> None:
    entry, message = BAD_ENTRIES[kind]
    published.write([*PAIRS, entry, pair(HAT, STREET, *SMALL)])
    ids = one_refused(message, shop_the_look, *published.files)
    assert len(ids) == 7
    assert f"{STREET}-{HAT}" in ids


def test_two_boxes_of_one_product_in_a_scene_are_numbered(published: Published) -> None:
    boxes = [(0, 0, 0.5, 0.5), (0, 0, 0, 0), (0, 0, 0.5, 1)]
    read = read_pairs(published.write([pair(COAT, ROOM, *box) for box in boxes]).path)
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
def test_a_product_without_category_is_refused_with_crops(published: Published, text: Any) -> None:
    published.write(PAIRS, {COAT: PATHS[COAT]} | ({} if text is None else {SHOE: text}))
    catalog = shop_the_look(*published.files, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [COAT, f"{ROOM}-{COAT}"]
    refused = {item.item_id for item in catalog.refused}
    assert refused == {SHOE, f"{ROOM}-{SHOE}", f"{STREET}-{SHOE}"}
    for item in catalog.refused:
        assert SHOE in item.reason
        assert PATH_PROBLEMS[text] in item.reason
    assert set(needed_pictures(*published.files[:2])) == {f"{COAT}.jpg", f"{ROOM}.jpg"}


def test_missing_pictures_are_refused_one_by_one(published: Published) -> None:
    for gone in (SHOE, ROOM):
        (published.pictures / f"{gone}.jpg").unlink()
    refuses(BadItemsError, rf"no picture '{SHOE}\.jpg'", shop_the_look, *published.files)
    catalog = shop_the_look(*published.files, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [COAT, f"{STREET}-{SHOE}"]
    assert [(item.item_id, item.image) for item in catalog.refused] == [
        (SHOE, f"{SHOE}.jpg"),
        (f"{ROOM}-{COAT}", f"{ROOM}.jpg#0.0,0.0,0.5,1.0"),
        (f"{ROOM}-{SHOE}", f"{ROOM}.jpg#0.25,0.5,0.5,0.25"),
    ]
    assert catalog.refused[0].reason.startswith("line 1: no picture")


def test_a_leaf_of_two_paths_is_told_apart_and_a_path_may_end_early(published: Published) -> None:
    published.write(PAIRS, {COAT: "Women | Coats", SHOE: "Men|Coats", HAT: "Men|Hats"})
    names = read_categories(published.categories).category_names()
    paths = ["Women|Coats", "Men|Coats", "Men|Hats"]
    assert names == {tuple(path.split("|")): path.replace("Men|H", "H") for path in paths}
    assert shop_the_look(*published.files).categories == ["Men|Coats", "Women|Coats"]
    published.write(PAIRS, {COAT: "Furniture|Chairs", SHOE: "Furniture|Chairs|Stools"})
    table = shop_the_look(*published.files).table
    assert list(table["category"][:2]) == list(table["level_3"][:2]) == ["Stools", "Chairs"]


# ---- files


def test_pictures_in_a_zip_by_other_patterns(published: Published) -> None:
    names = {f"fashion/product/{signature}.jpg": signature for signature in (SHOE, COAT)}
    names |= {f"fashion/scene/{s[:2]}/{s}.jpg": s for s in (STREET, ROOM)}
    path = zip_of(published.folder / "a.zip", {name: PICTURES[s] for name, s in names.items()})
    patterns = ("fashion/product/{signature}.jpg", "fashion/scene/{signature:.2}/{signature}.jpg")
    catalog = shop_the_look(*published.files[:2], path, *patterns)
    assert len(catalog) == 5
    assert all(len(catalog.source.load(image)) > 0 for image in catalog.table["image"])
    assert len(set(catalog.source.content_keys(list(catalog.table["image"])))) == 5
    assert list(needed_pictures(*published.files[:2], *patterns).items()) == [
        (name, f"https://i.pinimg.com/400x/{s[:2]}/{s[:2]}/{s[:2]}/{s}.jpg")
        for name, s in names.items()
    ]


def test_what_is_out_of_range_or_another_file_is_refused(published: Published) -> None:
    path, categories, pictures = files = published.files
    nowhere, read = published.folder / "nowhere", shop_the_look
    refuses(ValueError, "split_by is 'scene'; .*'domain'", read, *files, split_by="scene")
    refuses(ValueError, "on_bad_item is 'drop'", read, *files, on_bad_item="drop")
    for name in ("product_pattern", "scene_pattern"):
        message = rf"{name} '\{{id\}}\.jpg' is malformed"
        refuses(ValueError, message, read, *files, **{name: "{id}.jpg"})
        refuses(ValueError, message, needed_pictures, *files[:2], **{name: "{id}.jpg"})
    for error, message, *given in (
        (FileNotFoundError, r"nowhere; give the path of fashion\.json", nowhere, categories),
        (FileNotFoundError, r"nowhere; give the path of fashion-cat\.json", path, nowhere),
        (FileNotFoundError, r"no folder or zip at .*nowhere", path, categories, nowhere),
        (ValueError, r"fashion\.json is no JSON .*expected fashion-cat\.json", path, path),
    ):
        refuses(error, message, read, *(*given, pictures)[:3])
    for content, message in (
        (b"[1]", "holds a JSON list; expected an object, product ->"),
        (b'{"a": "\xfc"}', "line 1, is not UTF-8"),
    ):
        categories.write_bytes(content)
        refuses(ValueError, message, read, *files)
    published.write(PAIRS)
    for text, message in (
        ("[" + json.dumps(PAIRS[0]) + ",", "starts as a JSON array and is none"),
        ("", "gives no item"),
        ("[]", "gives no item"),
    ):
        path.write_text(text)
        refuses(ValueError, message, read, *files)


@needs_shared("shop-the-look-fashion-cat.json")
def test_the_real_categories_read_completely() -> None:
    known = read_categories(SHARED / "shop-the-look-fashion-cat.json")
    assert (len(known.paths), len(known.problems), known.num_levels) == (38_111, 0, 4)
    names = known.category_names()
    categories = [names[path] for path in known.paths.values()]
    assert len(set(categories)) == 10
    counts = [categories.count(name) for name in ("Shoes", "Coats & Jackets", "Necklaces")]
    assert counts == [11_780, 2_485, 909]
