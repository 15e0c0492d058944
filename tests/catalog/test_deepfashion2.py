import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from tests.catalog.test_deepfashion_inshop import GRID, PICTURE
from visual_search.catalog.readers.deepfashion2 import deepfashion2
from visual_search.retrieval.protocols import published


def garment(style: int, box: list[Any], name: str = "skirt", **more: Any) -> dict[str, Any]:
    outline = {"segmentation": [[1, 2, 3, 4, 5, 6]], "landmarks": [1, 2, 2]}
    states = {"scale": 2, "occlusion": 1, "zoom_in": 3, "viewpoint": 2}
    return {"style": style, "bounding_box": box, "category_name": name, **outline, **states} | more


def photo(source: str, pair_id: int, *garments: Any) -> dict[str, Any]:
    items = {f"item{number}": one for number, one in enumerate(garments, 1)}
    return {**items, "source": source, "pair_id": pair_id}


TOP = "short sleeve top"
PHOTOS = {
    "train/annos/000001.json": photo("user", 1, garment(1, [10, 20, 110, 60])),
    "train/annos/000002.json": photo("shop", 1, garment(1, [0, 0, 9, 9]),
                                     garment(0, [5, 5, 900, 9], TOP, viewpoint=9)),
    "validation/annos/000001.json": photo("user", 1, garment(2, [1, 1, 2, 2], TOP),
                                          garment(0, [1, 1, 2, 3])),
    "validation/annos/000002.json": photo("shop", 1, garment(2, [1, 1, 4, 4], TOP)),
    "validation/annos/000003.json": photo("shop", 7, garment(0, [1, 1, 5, 5], TOP)),
}  # fmt: skip
IDS = ["train-1-1", "train-1-1~2", "train-000002-item2", "validation-1-2",
       "validation-000001-item2", "validation-1-2~2", "validation-000003-item1"]  # fmt: skip


def benchmark(root: Path, **changed: Any) -> Path:
    texts = {name: json.dumps(one) for name, one in PHOTOS.items()}
    pictures = {name.replace("annos", "image").replace("json", "jpg"): PICTURE for name in PHOTOS}
    return saved(root, texts | pictures | {"validation/image/000099.jpg": PICTURE} | changed)


def test_garments_become_products_of_both_sides(tmp_path: Path) -> None:
    root = benchmark(tmp_path / "a")
    catalog = deepfashion2(root)
    table = catalog.table
    assert table.drop(columns=["image", *("scale", "occlusion", "zoom_in")]).to_dict("list") == {
        "item_id": IDS,
        "category": ["skirt", "skirt", TOP, TOP, "skirt", TOP, TOP],
        "group": ["train-1"] * 3 + ["validation-1"] * 3 + ["validation-7"],
        "split": ["train"] * 3 + ["test"] * 4,
        "product": [one.removesuffix("~2") for one in IDS],
        "is_query": list("0001000"),
        "is_gallery": list("0000011"),
        "domain": ["user", "shop", "shop", "user", "user", "shop", "shop"],
        "viewpoint": ["frontal", "frontal", "", *["frontal"] * 4],
    }
    assert table.loc[0, ["scale", "occlusion", "zoom_in"]].tolist() == ["modest", "slight", "large"]
    assert catalog.products == table["product"].tolist()
    first, _, wide = (catalog.source.load(image) for image in table["image"][:3])
    np.testing.assert_array_equal(first, GRID[20:60, 10:110])
    np.testing.assert_array_equal(wide, GRID[5:9, 5:])  # what sticks out is cut off
    sides = published(relevance=["product"]).choose(table, "test")
    assert (list(sides.query_rows), list(sides.gallery_rows)) == ([3], [5, 6])
    packed = deepfashion2(zipped(root, tmp_path / "a.zip", "DeepFashion2/"))
    assert packed.table["item_id"].tolist() == IDS
    assert packed.table["image"][0].startswith("DeepFashion2/train/image/000001.jpg#")


EXTRA = "validation/annos/000099.json"
BAD_GARMENTS = [
    (garment(1, [5, 5, 5, 9]), "left=5, top=5, right=5, bottom=9; expected pixels from 0"),
    (garment(1, [5, -1, 7, 9]), "the bounding_box holds -1; expected whole numbers from 0"),
    (garment(1, [5, 1.5, 7, 9]), r"the bounding_box holds 1\.5"),
    (garment(1, [5, float("inf"), 7, 9]), "the bounding_box holds inf"),
    (garment(1, [5, 1, 7]), r"the bounding_box is \[5, 1, 7\]; expected left, top"),
    (garment(1, ["5", 1, 7, 8]), "the bounding_box holds '5'"),
    (garment(-1, [5, 1, 7, 8]), "the style holds -1"),
    (garment(True, [5, 1, 7, 8]), "the style holds True"),
    (garment(1, [5, 1, 7, 8], " "), "the category_name is ' '; expected a text"),
    ([], r"000099\.json, item1: is a JSON list; expected an object"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_GARMENTS)
def test_a_bad_garment_is_refused_and_named(tmp_path: Path, content: Any, reason: str) -> None:
    root = benchmark(tmp_path, **{EXTRA: json.dumps(photo("user", 9, content))})
    assert one_refused(reason, deepfashion2, root) == IDS


BAD_FILES = {
    "{": "is no JSON .*expected an annotation of DeepFashion2",
    "3": "holds a JSON int; expected an annotation of DeepFashion2",
    json.dumps(photo("street", 9, garment(1, [1, 1, 2, 2]))): "the source is 'street'; expected",
    json.dumps({"source": "shop", "item1": {}}): "the pair_id holds None",
    json.dumps(photo("shop", 9, garment(1, [1, 1, 2, 2]))).replace("item1", "item 1"): "",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_is_refused_and_named(tmp_path: Path, text: str) -> None:
    root = benchmark(tmp_path, **{EXTRA: text})
    if BAD_FILES[text]:
        assert one_refused(BAD_FILES[text], deepfashion2, root) == IDS
    else:
        assert deepfashion2(root).table["item_id"].tolist() == [*IDS, "validation-9-1"]


def test_a_missing_picture_and_what_is_no_such_data(tmp_path: Path) -> None:
    root = benchmark(tmp_path / "a")
    (root / "train/image/000001.jpg").unlink()
    reason = r"train/annos/000001\.json, item1: no picture 'train/image/000001\.jpg'"
    assert one_refused(reason, deepfashion2, root) == IDS[1:]
    saved(tmp_path / "b", ["x.json"])
    refuses(FileNotFoundError, r"no annos/\*\.json in .*unpack", deepfashion2, tmp_path / "b")
    refuses(ValueError, "on_bad_item is 'drop'", deepfashion2, root, on_bad_item="drop")
    saved(tmp_path / "b", {"annos/1.json": json.dumps(photo("shop", 9))})
    refuses(ValueError, "gives no item", deepfashion2, tmp_path / "b")
