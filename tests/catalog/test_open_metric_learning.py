import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
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


def picture(red: int) -> bytes:
    """Returns 4 x 3 px whose green is the column and whose blue is the row."""
    rows, columns = np.mgrid[0:3, 0:4].astype(np.uint8)
    return encoded(Image.fromarray(np.stack([0 * rows + red, columns, rows], axis=2)))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for red, name in enumerate("abcde"):
        (tmp_path / "images" / f"{name}.png").write_bytes(picture(red))
    return tmp_path


def write(shop: Path, frame: pd.DataFrame, **options: object) -> Path:
    frame.to_csv(shop / "df.csv", **options)  # type: ignore[call-overload]
    return shop / "df.csv"


PLAIN = FRAME[["label", "path", "split", "is_query", "is_gallery"]]


def test_the_required_columns_suffice(shop: Path) -> None:
    catalog = open_metric_learning(write(shop, PLAIN))  # with pandas' index in front
    assert catalog.table.to_dict("list") == {
        "item_id": [f"images/{name}.png" for name in "abcde"],
        "image": [f"images/{name}.png" for name in "abcde"],
        "category": ["0", "0", "1", "1", "2"],
        "group": ["0", "0", "1", "1", "2"],
        "split": ["train", "train", "test", "test", "test"],
        "column_1": ["0", "1", "2", "3", "4"],
        "label": ["0", "0", "1", "1", "2"],
        "is_query": ["", "", "1", "0", "1"],
        "is_gallery": ["", "", "0", "1", "1"],
    }
    assert catalog.name == "df"
    assert isinstance(catalog.source, FolderSource)
    assert catalog.source.load("images/b.png") == picture(1)


def test_all_columns_and_boxes(shop: Path) -> None:
    path = write(shop, FRAME.assign(price=9, group="x", image="y"), index=False)
    catalog = open_metric_learning(path, name="mine")
    assert catalog.name == "mine"
    images = list(catalog.table["image"])
    assert images == [
        "images/a.png#xywh=pixel:1,0,2,2",
        "images/b.png",
        "images/c.png#xywh=pixel:0,0,4,3",
        "images/d.png",
        "images/e.png#xywh=pixel:2,1,7,8",
    ]
    assert list(catalog.table["item_id"]) == images
    assert list(catalog.table["category"]) == ["hats", "hats", "shoes", "shoes", "shoes"]
    assert list(catalog.table["group"]) == ["0", "0", "1", "1", "2"]
    assert catalog.attributes == ["label", "is_query", "is_gallery", "sequence", "price"]
    source = pickle.loads(pickle.dumps(catalog.source))
    first = source.load(images[0])
    assert first.tolist() == [[[0, 1, 0], [0, 2, 0]], [[0, 1, 1], [0, 2, 1]]]
    assert source.load(images[1]) == picture(1)
    assert source.load(images[2]).shape == (3, 4, 3)
    assert source.load(images[4]).shape == (2, 2, 3)  # what sticks out is cut off


def test_two_boxes_of_one_picture_are_two_items(shop: Path) -> None:
    twice = FRAME.assign(
        path="images/a.png", x_1=[0, 1, 0, 1, 2], x_2=4, y_1=[0, 0, 1, 1, 1], y_2=3
    )
    catalog = open_metric_learning(write(shop, twice))
    assert catalog.table["item_id"].nunique() == 5
    assert len(set(catalog.source.content_keys(list(catalog.table["image"])))) == 5


@pytest.mark.parametrize("relevance", ["label", "group"])
def test_the_published_protocol(shop: Path, relevance: str) -> None:
    catalog = assign_splits(
        open_metric_learning(write(shop, PLAIN)),
        method="hash",
        val_fraction=0.0,
        test_fraction=0.5,
        seed=0,
    )
    assert list(catalog.table["split"]) == ["train", "train", "test", "test", "test"]
    sides = published(relevance=[relevance]).choose(catalog.table, "test")
    assert (sides.query_rows.tolist(), sides.gallery_rows.tolist()) == ([2, 4], [3, 4])


@pytest.mark.parametrize(
    ("yes", "no", "nothing"),
    [("True", "False", ""), ("1", "0", "None"), ("1.0", "0.0", "nan"), ("TRUE", "false", "0")],
)
def test_how_flags_are_written(shop: Path, yes: str, no: str, nothing: str) -> None:
    flags = {
        "is_query": [nothing, nothing, yes, no, yes],
        "is_gallery": [nothing, nothing, no, yes, yes],
    }
    catalog = open_metric_learning(write(shop, PLAIN.assign(**flags)))
    assert list(catalog.table["is_query"][2:]) == ["1", "0", "1"]
    assert set(catalog.table["is_gallery"][:2]) <= {"", "0"}


def test_roots_and_separators(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tables")
    absolute = PLAIN.assign(path=[f"{shop}/images/{name}.png" for name in "abcde"])
    path = write(elsewhere, absolute, sep=";")
    catalog = open_metric_learning(path, dataset_root=shop, sep=";")
    assert catalog.table["item_id"][0] == "images/a.png"
    with pytest.raises(BadItemsError, match=r"5 bad item(.|\n)*is absolute"):
        open_metric_learning(path, sep=";")
    with pytest.raises(FileNotFoundError, match="no folder at"):
        open_metric_learning(path, dataset_root=shop / "nowhere", sep=";")


def test_what_is_found_out_is_said(shop: Path) -> None:
    catalog = open_metric_learning(write(shop, PLAIN, sep=";"))
    assert {choice.key: choice.value for choice in catalog.choices} == {
        "data.separator": "';'",
        "data.category": "label",
    }
    path = write(shop, FRAME)
    told = open_metric_learning(path, category="sequence", separator=",")
    assert (list(told.table["category"])[:2], told.choices) == (["s0", "s0"], ())
    assert open_metric_learning(path).choices == ()
    with pytest.raises(ValueError, match=r"data\.category is 'sequenze'.*'sequence'"):
        open_metric_learning(path, category="sequenze")


def test_labels_on_both_sides_need_another_group(shop: Path) -> None:
    path = write(shop, PLAIN.assign(label=7))
    rule = {"method": "hash", "val_fraction": 0.0, "test_fraction": 0.5, "seed": 0}
    with pytest.raises(ValueError, match="A group on both sides leaks"):
        assign_splits(open_metric_learning(path), **rule)  # type: ignore[arg-type]
    catalog = open_metric_learning(path, group=None)
    assert list(catalog.table["group"]) == list(catalog.table["item_id"])
    assert len(assign_splits(catalog, **rule)) == 5  # type: ignore[arg-type]


BAD_ROWS = {
    ("split", "val"): r"the split is 'val'; expected one of \['train', 'validation'\]",
    ("is_query", "maybe"): "is_query is 'maybe' and is_gallery 'True'; expected True or False",
    ("is_gallery", None): "expected at least one to be True in a validation row",
    ("split", "train"): "and none in a training row",
    ("label", " "): "the label is empty",
    ("category", None): "the category is empty",
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
    frame.loc[3, ["x_1", "y_1", "x_2", "y_2"]] = (
        [0, 0, 4, 3] if column in ("x_1", "x_2", "y_1", "y_2") else [None] * 4
    )
    frame.loc[3, column] = value
    path = write(shop, frame, index=False)
    with pytest.raises(BadItemsError, match=rf"line 5: .*{BAD_ROWS[column, value]}") as caught:
        open_metric_learning(path)
    catalog = open_metric_learning(path, on_bad_item="skip")
    assert len(catalog) == 4
    assert catalog.refused == caught.value.refused


def test_what_is_no_such_table(shop: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no table at .*nowhere\.csv"):
        open_metric_learning(shop / "nowhere.csv")
    path = write(shop, FRAME)
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        open_metric_learning(path, on_bad_item="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.separator is ';;'; expected one character"):
        open_metric_learning(path, sep=";;")
    with pytest.raises(ValueError, match=r"no column \['product'\]"):
        open_metric_learning(path, group="product")
    with pytest.raises(ValueError, match=r"df\.csv has no column \['is_query'\].*'isquery'"):
        open_metric_learning(write(shop, FRAME.rename(columns={"is_query": "isquery"})))
    with pytest.raises(ValueError, match=r"has no column \['y_2'\]"):
        open_metric_learning(write(shop, FRAME.drop(columns="y_2")))
    with pytest.raises(ValueError, match="gives no item"):
        open_metric_learning(write(shop, FRAME[:0]))
    path.write_bytes(b"label\n\xff\n")
    with pytest.raises(ValueError, match=r"df\.csv: line 2 is not UTF-8"):
        open_metric_learning(path)


def test_a_table_over_the_limit_is_refused(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visual_search.catalog.readers.open_metric_learning.MAX_LISTING_BYTES", 9)
    with pytest.raises(ValueError, match="split the table"):
        open_metric_learning(write(shop, FRAME))
