import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import one_refused, refuses, saved
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.open_metric_learning import open_metric_learning
from visual_search.catalog.readers.sources import FolderSource
from visual_search.catalog.splits import assign_splits
from visual_search.retrieval.protocols import published

# As pandas writes the frame that the format describes: the index, True beside None, floats
FRAME = pd.DataFrame(
    {
        "label": [0, 0, 1, 1, 2],
        "path": [f"images/{name}.png" for name in "abcde"],
        "split": ["train", "train", "validation", "validation", "validation"],
        "is_query": [None, None, True, False, True],
        "is_gallery": [None, None, False, True, True],
        "category": ["hats", "hats", "shoes", "shoes", "shoes"],
        "sequence": ["s0", "s0", "s1", "s2", "s3"],
        "x_1": [1, None, 0, None, 2],
        "x_2": [3, None, 4, None, 9],
        "y_1": [0, None, 0, None, 1],
        "y_2": [2, None, 3, None, 9],
    }
)
PLAIN = FRAME[["label", "path", "split", "is_query", "is_gallery"]]
PATHS = list(FRAME["path"])
RULE = {"method": "hash", "val_fraction": 0.0, "test_fraction": 0.5, "seed": 0}


def picture(red: int) -> bytes:
    """Returns 4 x 3 px whose green is the column and whose blue is the row."""
    rows, columns = np.mgrid[0:3, 0:4].astype(np.uint8)
    return encoded(Image.fromarray(np.stack([0 * rows + red, columns, rows], axis=2)))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return saved(tmp_path, {path: picture(red) for red, path in enumerate(PATHS)})


def write(shop: Path, frame: pd.DataFrame, **options: object) -> Path:
    frame.to_csv(shop / "df.csv", **options)  # type: ignore[call-overload]
    return shop / "df.csv"


def test_the_required_columns_suffice(shop: Path) -> None:
    catalog = open_metric_learning(write(shop, PLAIN))  # with pandas' index in front
    labels = ["0", "0", "1", "1", "2"]
    assert catalog.table.to_dict("list") == {
        "item_id": PATHS,
        "image": PATHS,
        "category": labels,
        "group": labels,
        "split": ["train", "train", "test", "test", "test"],
        "column_1": ["0", "1", "2", "3", "4"],
        "label": labels,
        "is_query": ["", "", "1", "0", "1"],
        "is_gallery": ["", "", "0", "1", "1"],
    }
    assert catalog.name == "df"
    assert isinstance(catalog.source, FolderSource)
    assert catalog.source.load("images/b.png") == picture(1)
    drawn = assign_splits(catalog, **RULE).table  # type: ignore[arg-type]
    assert list(drawn["split"]) == list(catalog.table["split"])
    for relevance in ("label", "group"):
        sides = published(relevance=[relevance]).choose(drawn, "test")
        assert (sides.query_rows.tolist(), sides.gallery_rows.tolist()) == ([2, 4], [3, 4])


def test_all_columns_and_boxes(shop: Path) -> None:
    path = write(shop, FRAME.assign(price=9, group="x", image="y"), index=False)
    catalog = open_metric_learning(path, name="mine")
    assert catalog.name == "mine"
    images = list(catalog.table["image"])
    boxes = ["1,0,2,2", "", "0,0,4,3", "", "2,1,7,8"]
    names = zip(PATHS, boxes, strict=True)
    assert images == [name + (f"#xywh=pixel:{box}" if box else "") for name, box in names]
    assert list(catalog.table["item_id"]) == images
    assert list(catalog.table["category"]) == ["hats", "hats", "shoes", "shoes", "shoes"]
    assert list(catalog.table["group"]) == ["0", "0", "1", "1", "2"]
    assert catalog.attributes == ["label", "is_query", "is_gallery", "sequence", "price"]
    source = pickle.loads(pickle.dumps(catalog.source))
    assert source.load(images[0]).tolist() == [[[0, 1, 0], [0, 2, 0]], [[0, 1, 1], [0, 2, 1]]]
    assert source.load(images[1]) == picture(1)
    assert source.load(images[2]).shape == (3, 4, 3)
    assert source.load(images[4]).shape == (2, 2, 3)  # what sticks out is cut off
    boxes_of_one = {"x_1": [0, 1, 0, 1, 2], "x_2": 4, "y_1": [0, 0, 1, 1, 1], "y_2": 3}
    catalog = open_metric_learning(write(shop, FRAME.assign(path=PATHS[0], **boxes_of_one)))
    assert catalog.table["item_id"].nunique() == 5
    assert len(set(catalog.source.content_keys(list(catalog.table["image"])))) == 5


@pytest.mark.parametrize(
    ("yes", "no", "nothing"),
    [("True", "False", ""), ("1", "0", "None"), ("1.0", "0.0", "nan"), ("TRUE", "false", "0")],
)
def test_how_flags_are_written(shop: Path, yes: str, no: str, nothing: str) -> None:
    queries, galleries = [nothing, nothing, yes, no, yes], [nothing, nothing, no, yes, yes]
    path = write(shop, PLAIN.assign(is_query=queries, is_gallery=galleries))
    found = open_metric_learning(path).table
    assert list(found["is_query"][2:]) == ["1", "0", "1"]
    assert set(found["is_gallery"][:2]) <= {"", "0"}


def test_roots_and_separators(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tables")
    path = write(elsewhere, PLAIN.assign(path=[f"{shop}/{name}" for name in PATHS]), sep=";")
    catalog = open_metric_learning(path, dataset_root=shop, sep=";")
    assert catalog.table["item_id"][0] == "images/a.png"
    refuses(BadItemsError, r"5 bad item(.|\n)*is absolute", open_metric_learning, path, sep=";")
    lost = shop / "nowhere"
    refuses(FileNotFoundError, "no folder or zip at", open_metric_learning, path, dataset_root=lost)


def test_what_is_found_out_is_said(shop: Path) -> None:
    catalog = open_metric_learning(write(shop, PLAIN, sep=";"))
    said = {choice.key: choice.value for choice in catalog.choices}
    assert said == {"data.separator": "';'", "data.category": "label"}
    path = write(shop, FRAME)
    told = open_metric_learning(path, category="sequence", separator=",")
    assert (list(told.table["category"])[:2], told.choices) == (["s0", "s0"], ())
    assert open_metric_learning(path).choices == ()


def test_labels_on_both_sides_need_another_group(shop: Path) -> None:
    path = write(shop, PLAIN.assign(label=7))
    refuses(ValueError, "both sides leaks", assign_splits, open_metric_learning(path), **RULE)
    catalog = open_metric_learning(path, group=None)
    assert list(catalog.table["group"]) == list(catalog.table["item_id"])
    assert len(assign_splits(catalog, **RULE)) == 5  # type: ignore[arg-type]


BAD_ROWS = {
    ("split", "val"): r"the split is 'val'; expected one of \['train', 'validation'\]",
    ("is_query", "maybe"): "is_query is 'maybe' and is_gallery 'True'; expected True or False",
    ("is_gallery", None): "expected at least one to be True in a validation row",
    ("split", "train"): "and none in a training row",
    ("label", " "): "the label is empty",
    ("path", "images/z.png"): r"no picture 'images/z\.png'",
    ("path", "../a.png"): r"has a '\.\.'",
    ("path", "images/b.png"): "the id stands in line 3 already",
    ("x_1", 0.5): r"the box is x_1='0\.5', y_1='0', .*expected four whole numbers, or none",
    ("x_1", None): "expected four whole numbers, or none",
    ("x_1", "inf"): "expected four whole numbers, or none",
    ("x_2", 0): "left=0, top=0, right=0, bottom=3; expected pixels from 0",
    ("y_1", -1): "left=0, top=-1, right=4, bottom=3; expected pixels from 0",
}


@pytest.mark.parametrize(("column", "value"), BAD_ROWS)
def test_a_bad_row_is_refused_and_named(shop: Path, column: str, value: object) -> None:
    frame = FRAME.astype(object)
    if column[1] == "_":
        frame.loc[3, ["x_1", "y_1", "x_2", "y_2"]] = [0, 0, 4, 3]
    frame.loc[3, column] = value
    path = write(shop, frame, index=False)
    assert len(one_refused(f"line 5: .*{BAD_ROWS[column, value]}", open_metric_learning, path)) == 4


def test_what_is_no_such_table(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lost = open_metric_learning, shop / "nowhere.csv"
    refuses(FileNotFoundError, r"no file at .*nowhere\.csv", read, lost)
    path = write(shop, FRAME)
    for settings, message in (
        ({"on_bad_item": "drop"}, "on_bad_item is 'drop'"),
        ({"sep": ";;"}, r"data\.separator is ';;'; expected one character"),
        ({"group": "product"}, r"no column \['product'\]"),
        ({"category": "sequenze"}, r"data\.category is 'sequenze'.*'sequence'"),
    ):
        refuses(ValueError, message, read, path, **settings)
    for frame, message in (
        (FRAME.rename(columns={"is_query": "isquery"}), r"df\.csv .*\['is_query'\].*'isquery'"),
        (FRAME.drop(columns="y_2"), r"has no column \['y_2'\]"),
        (FRAME[:0], "gives no item"),
    ):
        refuses(ValueError, message, read, write(shop, frame))
    path.write_bytes(b"label\n\xff\n")
    refuses(ValueError, r"df\.csv: line 2 is not UTF-8", read, path)
    monkeypatch.setattr("visual_search.catalog.readers.listings.MAX_LISTING_BYTES", 9)
    refuses(ValueError, "or split it", read, write(shop, FRAME))
