from pathlib import Path

import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from tests.composing import typed
from visual_search.catalog.catalog import Catalog
from visual_search.config.builders import build

HEADER = "posting_id,image,image_phash,title,label_group\n"
ROWS = (
    "train_1,a.jpg,94974f937d4c2433,Paper Bag Victoria Secret,249114794\n"
    'train_2,b.jpg,b94cb00ed3e50f78,"Sepatu ""Größe 38"", merah",249114794\n'
    "train_3,a.jpg,94974f937d4c2433,Paper bag,249114794\n"  # another posting of one picture
    "train_4,c.jpg,8514fc58eafea283,Maling TTS 397g,2395904891\n"
)
IDS = [f"train_{number}" for number in range(1, 5)]


def kaggle(root: Path, more: str = "", header: str = HEADER) -> Path:
    saved(root, [f"train_images/{name}.jpg" for name in "abc"])
    texts = {"train.csv": header + ROWS + more, "test.csv": header, "sample_submission.csv": "x"}
    return saved(root, texts)


def read(path: Path, on_bad_item: str = "error") -> Catalog:
    said = ["data=shopee", f"data.path={path}", f"data.on_bad_item={on_bad_item}"]
    catalog: Catalog = build("data", typed("check", *said).data)
    return catalog


def test_postings_of_a_product_are_a_group(tmp_path: Path) -> None:
    catalog = read(kaggle(tmp_path / "a"))
    groups = ["249114794"] * 3 + ["2395904891"]
    assert catalog.table.to_dict("list") == {
        "item_id": IDS,
        "image": [f"train_images/{name}.jpg" for name in "abac"],
        "category": groups,
        "group": groups,
        "split": [""] * 4,
        "image_phash": [line.split(",")[2] for line in ROWS.splitlines()],
        "title": ["Paper Bag Victoria Secret", 'Sepatu "Größe 38", merah', "Paper bag",
                  "Maling TTS 397g"],
    }  # fmt: skip
    assert (catalog.name, catalog.choices) == ("shopee", ())
    packed = read(zipped(tmp_path / "a", tmp_path / "a.zip"))
    assert packed.table.equals(catalog.table)


BAD_ROWS = {
    "train_5,nowhere.jpg,0,x,249114794": r"line 6: no picture 'train_images/nowhere\.jpg'",
    "train_1,b.jpg,0,x,249114794": "line 6: the id stands in line 2 already",
    "train_5,b.jpg,0,x,": "line 6: the category is empty",
    "train_5,b.jpg": r"line 6: has 2 field\(s\); the header has 5",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    assert one_refused(BAD_ROWS[row], read, kaggle(tmp_path, row + "\n")) == IDS


def test_what_is_no_such_data(tmp_path: Path) -> None:
    saved(tmp_path / "a", {"test.csv": HEADER})
    refuses(ValueError, r"has no table 'train\.csv'; expected one of", read, tmp_path / "a")
    other = kaggle(tmp_path / "b", header=HEADER.replace("label_group", "label"))
    refuses(ValueError, r"no column \['label_group'.*nearest is 'label'", read, other)
