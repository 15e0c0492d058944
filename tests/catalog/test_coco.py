import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import one_refused, refuses, saved, zipped
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.coco import coco

# 80 x 40 px whose red is the column and whose green is the row
GRID = np.stack([*np.mgrid[0:40, 0:80][::-1], np.zeros((40, 80))], axis=2).astype(np.uint8)
PICTURE = encoded(Image.fromarray(GRID))
CATEGORIES = [
    {"id": 0, "name": "dress", "supercategory": "wholebody"},
    {"id": 6, "name": "bag, wallet", "supercategory": "others"},
    {"id": 32, "name": "sleeve", "supercategory": "garment parts"},
]
ATTRIBUTES = [
    {"id": 1, "name": "mini (length)", "supercategory": "length"},
    {"id": 2, "name": "dot", "supercategory": "textile pattern"},
    {"id": 3, "name": "striped", "supercategory": "textile pattern"},
]
TRAIN_IMAGES = [
    {"id": 9813, "file_name": "Kleid ä.jpg", "width": 80, "height": 40},
    {"id": 10223, "file_name": "b.jpg", "width": 160, "height": 80},  # was made smaller since
]
TRAIN = [
    {"id": 16, "image_id": 9813, "category_id": 0, "bbox": [10.4, 5, 20, 10],
     "attribute_ids": [1, 3, 2], "iscrowd": 0, "segmentation": [[0, 0, 1, 1, 2, 2]]},
    {"id": 17, "image_id": 10223, "category_id": 6, "bbox": [-20, 40, 60, 400]},
    {"id": 18, "image_id": 9813, "category_id": 32, "attribute_ids": [],
     "segmentation": [[30, 10, 50, 10, 50, 30], [40, 8, 41, 9, 42, 10]]},
    {"id": 19, "image_id": 9813, "category_id": 0, "bbox": [0, 0, 80, 40], "iscrowd": 1,
     "segmentation": {"counts": [1, 2], "size": [40, 80]}},
]  # fmt: skip
VAL = [{"id": 20, "image_id": 1, "category_id": 0, "bbox": [0, 0, 8, 8], "iscrowd": 0}]
VAL_IMAGES = [{"id": 1, "file_name": "c.jpg", "width": 80, "height": 40}]


def annotated(photos: list[Any], annotations: list[Any], **more: Any) -> str:
    lists = {"images": photos, "annotations": annotations, "categories": CATEGORIES}
    return json.dumps({"info": {}, **lists, "attributes": ATTRIBUTES} | more)


def fashionpedia(root: Path, extra: list[Any] | None = None, **more: Any) -> Path:
    train = annotated(TRAIN_IMAGES, [*TRAIN, *(extra or [])], **more)
    return saved(
        root,
        {
            "annotations/instances_attributes_train2020.json": train,
            "annotations/instances_attributes_val2020.json": annotated(VAL_IMAGES, VAL),
            **dict.fromkeys(["train/Kleid ä.jpg", "train/b.jpg", "test/c.jpg"], PICTURE),
        },
    )


IDS = ["Kleid ä-16", "Kleid ä-18", "b-17", "c-20"]  # crops of a photo in a row


def test_boxes_become_crops(tmp_path: Path) -> None:
    root = fashionpedia(tmp_path / "fashionpedia")
    catalog = coco(root)
    table = catalog.table.drop(columns="image")
    assert table.to_dict("list") == {
        "item_id": IDS,
        "category": ["dress", "sleeve", "bag, wallet", "dress"],
        "group": ["Kleid ä.jpg", "Kleid ä.jpg", "b.jpg", "c.jpg"],
        "split": ["train", "train", "train", "test"],
        "supercategory": ["wholebody", "garment parts", "others", "wholebody"],
        "length": ["mini (length)", "", "", ""],
        "textile_pattern": ["striped; dot", "", "", ""],
    }
    assert catalog.name == "fashionpedia"
    dress, sleeve, bag, _ = map(catalog.source.load, catalog.table["image"])
    np.testing.assert_array_equal(dress, GRID[5:15, 10:30])
    np.testing.assert_array_equal(sleeve, GRID[8:30, 30:50])  # what holds its polygons
    np.testing.assert_array_equal(bag, GRID[20:, :20])  # in fractions, and cut off at the edges
    said = " / ".join(map(str, catalog.choices))
    assert "1 annotation left out: iscrowd" in said
    assert "what is published for validation is the test split" in said
    packed = coco(zipped(root, tmp_path / "a.zip"), name="x")
    assert packed.table["item_id"].tolist() == IDS
    assert packed.name == "x"


def test_parts_are_left_out_by_choice_and_splits_too(tmp_path: Path) -> None:
    root = fashionpedia(tmp_path)
    catalog = coco(root, leave_out=["garment parts", "bag, wallet"], split=False)
    assert catalog.table["item_id"].tolist() == [IDS[0], IDS[3]]
    assert set(catalog.table["split"]) == {""}
    assert any("2 annotations left out: data.leave_out" in str(one) for one in catalog.choices)
    message = r"data\.leave_out is 'garment part'.*did you mean 'garment parts'"
    refuses(ValueError, message, coco, root, leave_out=["garment part"])
    one = "annotations/instances_attributes_val2020.json"
    assert coco(root, annotations=one).table["item_id"].tolist() == [IDS[3]]
    refuses(ValueError, "did you mean 'annotations/inst", coco, root, annotations=one[:-6])


def test_photos_of_one_name_are_told_apart_by_the_split(tmp_path: Path) -> None:
    def shop(*folders: str) -> Catalog:
        root = tmp_path / "-".join(folders)
        texts = {"instances_train.json": annotated(VAL_IMAGES, VAL)}
        saved(root, texts | {f"{folder}/c.jpg": PICTURE for folder in folders})
        return coco(root, on_bad_item="skip")

    assert shop("train", "val").table["image"][0].startswith("train/c.jpg#")
    assert shop("photos", "train2020").table["image"][0].startswith("train2020/c.jpg#")
    refuses(ValueError, r"stands 2 times, as \['a/c\.jpg'", shop, "a", "b")


def odd(**changed: Any) -> dict[str, Any]:
    return {"id": 99, "image_id": 9813, "category_id": 0, "bbox": [1, 1, 2, 2], **changed}


BAD = [
    (
        odd(bbox=[80, 0, 5, 5]),
        r"id 99: bbox \[80, 0, 5, 5\] cuts nothing out of a photo of 80 x 40",
    ),
    (odd(bbox=[0, -9, 5, 9]), "cuts nothing out"),
    (odd(bbox=[0, 0, 0, 5]), "cuts nothing out"),
    (odd(bbox=[0, 0, float("nan"), 5]), "cuts nothing out"),
    (odd(bbox=[0, 0, 5]), r"bbox is \[0, 0, 5\]; expected four numbers"),
    (odd(bbox=[0, 0, "5", True]), "expected four numbers"),
    (odd(bbox=None), "bbox is None; expected four numbers"),
    (odd(image_id=7), "the image_id is 7; expected the id of one of the file's images"),
    (odd(image_id=[]), "the image_id is"),
    (odd(category_id=1), "the category_id is 1; expected the id of one of the file's categories"),
    (odd(attribute_ids=[77]), "the attribute id is 77"),
    (odd(attribute_ids=[[1]]), "attribute id"),
    (odd(attribute_ids=5), "attribute_ids is 5; expected a list"),
    (odd(id=16), r"the id stands in .*train2020\.json, annotation id 16 already"),
    ({"image_id": 9813}, "annotation 5 of the list: the id is None"),
    (3, "annotation 5 of the list: is a JSON int"),
]


@pytest.mark.parametrize(("annotation", "reason"), BAD, ids=[str(one) for one, _ in BAD])
def test_a_bad_annotation_is_refused_and_named(
    tmp_path: Path, annotation: Any, reason: str
) -> None:
    root = fashionpedia(tmp_path, [annotation])
    assert one_refused(reason, coco, root) == IDS


def test_a_photo_that_is_missing_or_has_no_size(tmp_path: Path) -> None:
    root = fashionpedia(tmp_path / "a")
    (root / "train" / "b.jpg").unlink()
    assert one_refused(r"id 17: no picture 'b\.jpg'", coco, root) == [*IDS[:2], IDS[3]]
    photos = [TRAIN_IMAGES[0], {"id": 10223, "file_name": "b.jpg", "width": 0}]
    root = fashionpedia(tmp_path / "b", images=photos)
    assert one_refused("has width 0 and height None", coco, root) == [*IDS[:2], IDS[3]]


def test_what_is_not_of_this_format(tmp_path: Path) -> None:
    saved(tmp_path, {"panoptic.json": "{}"})
    refuses(
        FileNotFoundError, r"no instances\*\.json .*'panoptic\.json'.*data\.annot", coco, tmp_path
    )
    refuses(ValueError, "on_bad_item is 'drop'", coco, tmp_path, on_bad_item="drop")
    for text, message in {
        "{": r"instances_1\.json in .* is no JSON .*expected COCO's",
        "[]": "has no list 'images'",
        '{"images": [], "annotations": []}': "has no list 'categories'",
        annotated([], []): "gives no item",
        annotated(
            [{"id": 1}], []
        ): "an image is .*'id': 1.*expected an object with id and file_name",
        annotated([], [], categories=[{"id": 1, "name": ""}]): "a category is ",
        annotated([], [], attributes=[7]): "an attribute is 7",
    }.items():
        refuses(ValueError, message, coco, saved(tmp_path, {"instances_1.json": text}))
