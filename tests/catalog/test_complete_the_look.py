from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded, noise
from tests.catalog.shops import SHARED, needs_shared, one_refused, refuses, saved, zip_of
from visual_search.catalog.readers.complete_the_look import (
    complete_the_look,
    needed_pictures,
    picture_url,
    read_boxes,
)
from visual_search.catalog.readers.crops import Box, split_crop_name
from visual_search.catalog.splits import assign_splits

HEADER = "image_signature bounding_x  bounding_y  bounding_width  bounding_height label\n"
A, B, C = (digit * 32 for digit in "abc")
ROWS = (
    f"{A}\t0.0\t0.25\t0.5\t0.5\tShirts & Tops\n"
    f"{A}\t0.5\t2.5E-1\t0.50000006\t0.75\tShoes\n"
    f"{B}\t2.3436546E-4\t0\t.5\t1.\tShoes\n"
)


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    pictures = {f"{name}.jpg": encoded(noise(40, 20, seed)) for seed, name in enumerate((A, B))}
    return saved(tmp_path / "boards", pictures)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, rows: str = ROWS, header: str = HEADER) -> Path:
    return saved(folder, {"raw_test.tsv": header + rows}) / "raw_test.tsv"


def test_a_box_is_an_item_and_a_board_a_group(path: Path, boards: Path) -> None:
    catalog = complete_the_look(path, boards)
    assert catalog.table.to_dict("list") == {
        "item_id": [f"{A}-1", f"{A}-2", f"{B}-1"],
        "image": [
            f"{A}.jpg#0.0,0.25,0.5,0.5",
            f"{A}.jpg#0.5,0.25,0.50000006,0.75",
            f"{B}.jpg#0.00023436546,0.0,0.5,1.0",
        ],
        "category": ["Shirts & Tops", "Shoes", "Shoes"],
        "group": [A, A, B],
        "split": ["", "", ""],
    }
    assert (catalog.name, catalog.refused) == ("complete_the_look", ())
    pixels = np.asarray(Image.open(boards / f"{A}.jpg"))
    crop = catalog.source.load(catalog.table["image"][1])
    np.testing.assert_array_equal(crop, pixels[5:20, 20:40])
    for split in ("train", "val", "test"):  # the file may be one split
        assert set(complete_the_look(path, boards, split=split).table["split"]) == {split}


def test_line_ends_marks_and_blank_lines_do_not_matter(path: Path, tmp_path: Path) -> None:
    plain = read_boxes(path)
    windows = ("\ufeff" + HEADER + "\n" + ROWS).replace("\n", "\r\n").rstrip()
    again = read_boxes(saved(tmp_path, {"windows.tsv": windows}) / "windows.tsv")
    boxes = [[(box.item_id, box.box, box.label) for box in read.boxes] for read in (plain, again)]
    assert boxes[0] == boxes[1]
    assert [box.place for box in plain.boxes] == ["line 2", "line 3", "line 4"]


BAD_ROWS = {
    f"{A}\t0\t0\t1\t1": r"line 5: has 5 field\(s\) between tabs; expected 6",
    f"{A}\t0\t0\t1\t1\tHats\t": "line 5: has 7 field",
    f"{A} 0 0 1 1 Hats": "line 5: has 1 field",
    "\t\t\t\t\t": "line 5: the signature is ''",
    "ABC\t0\t0\t1\t1\tHats": "line 5: the signature is 'ABC'; expected 32 hexadecimal digits",
    f"../{A}\t0\t0\t1\t1\tHats": "the signature is '../a",
    f"{A.upper()}\t0\t0\t1\t1\tHats": "the signature is 'AAA",
    f"{A}\tnan\t0\t1\t1\tHats": "bounding_x is 'nan'; expected a number, as 0.25 or 2.5E-4",
    f"{A}\t0\t1_0\t1\t1\tHats": "bounding_y is '1_0'",
    f"{A}\t0\t0\t\t1\tHats": "bounding_width is ''",
    f"{A}\t0\t0\t1\t٣\tHats": "bounding_height is '٣'",
    f"{A}\t0\t0\t1\t1e999\tHats": "is not finite",
    f"{A}\t0\t0\t0\t1\tHats": "has no area",
    f"{A}\t120\t30\t200\t300\tHats": "lies entirely outside the picture",
    f"{A}\t0\t0\t1\t1\t ": "the label is empty",
    f"{A}\t0\t0.25\t5e-1\t0.5\tShirts & Tops": "the same box and label stand in line 2 already",
    f"{C}\t0\t0\t1\t1\tHats": r"line 5: no picture 'c+\.jpg' in",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, boards: Path, row: str) -> None:
    path = write(tmp_path, ROWS + row + "\n" + f"{B}\t0\t0\t1\t1\tHats\n")
    ids = one_refused(BAD_ROWS[row], complete_the_look, path, boards)
    assert ids == [f"{A}-1", f"{A}-2", f"{B}-1", f"{B}-2"]


def test_boxes_are_numbered_with_the_bad_ones_and_may_have_two_labels(tmp_path: Path) -> None:
    rows = f"{A}\t0\t0\t0\t1\tHats\n{B}\t0\t0\t1\t1\tHats\n{A}\t0\t0\t1\t1\tHats\n"
    read = read_boxes(write(tmp_path, rows + f"{A}\t0\t0\t1\t1\tShoes\n"))
    assert [box.item_id for box in read.boxes] == [f"{B}-1", f"{A}-2", f"{A}-3"]
    assert [item.item_id for item in read.refused] == [f"{A}-1"]
    assert [box.label for box in read.boxes] == ["Hats", "Hats", "Shoes"]
    assert read.signatures == [B, A]


def test_pictures_may_be_absent_needed_or_in_a_zip_by_another_pattern(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS + f"{C}\t0\t0\t0\t1\tHats\n")
    assert needed_pictures(path, "boards/{signature:.2}/{signature}.jpg") == {
        f"boards/aa/{A}.jpg": f"https://i.pinimg.com/400x/aa/aa/aa/{A}.jpg",
        f"boards/bb/{B}.jpg": f"https://i.pinimg.com/400x/bb/bb/bb/{B}.jpg",
    }
    catalog = complete_the_look(write(tmp_path), None)
    assert len(catalog) == 3
    image = catalog.table["image"][0]
    assert split_crop_name(image) == (f"{A}.jpg", Box(0, 0.25, 0.5, 0.5))
    for call in (catalog.source.load, lambda image: catalog.source.content_keys([image])):
        refuses(FileNotFoundError, r"read without pictures; .*data\.pictures", call, image)
    zipped = zip_of(tmp_path / "a.zip", {f"photos/aa/{A}.png": encoded(noise(40, 20))})
    pattern = "photos/{signature:.2}/{signature}.png"
    catalog = complete_the_look(path, zipped, image_pattern=pattern, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [f"{A}-1", f"{A}-2"]
    assert [item.item_id for item in catalog.refused] == [f"{B}-1"]
    assert catalog.source.load(catalog.table["image"][0]).shape == (10, 20, 3)


def test_addresses_are_of_signatures_only() -> None:
    signature = "0123456789abcdef0123456789abcdef"
    assert picture_url(signature) == f"https://i.pinimg.com/400x/01/23/45/{signature}.jpg"
    for wrong in ("", "0123", A[1:], A + "a", A + "\n", "../" + A[3:], "A" * 32):
        refuses(ValueError, "expected 32 hexadecimal digits in lower case", picture_url, wrong)


PATTERNS = {
    "{signature": "malformed: ValueError",
    "{}.jpg": "malformed: IndexError",
    "{id}.jpg": "malformed: KeyError",
    "{signature.x}": "malformed: AttributeError",
    "{signature[x]}": "malformed: TypeError",
    "{signature:d}": "malformed: ValueError",
    "board.jpg": "expected the whole signature in it",
    "{signature:.2}.jpg": "expected the whole signature in it",
    "../{signature}.jpg": r"has a '\.\.'",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_wrong_pattern_is_refused(path: Path, boards: Path, pattern: str) -> None:
    message = PATTERNS[pattern]
    refuses(ValueError, message, complete_the_look, path, boards, image_pattern=pattern)
    refuses(ValueError, message, needed_pictures, path, pattern)


def test_the_sample_is_that_of_pandas_bad_rows_like_any_other(tmp_path: Path) -> None:
    rows = [f"{number // 3:032x}\t0.{number + 1:03}\t0\t1\t1\tHats\n" for number in range(200)]
    path = write(tmp_path, "".join(rows))
    frame = pd.read_csv(path, sep="\t", skiprows=1, names=["s", "x", "y", "w", "h", "label"])
    whole = read_boxes(path)
    for seed in (0, 42):
        expected = frame.sample(n=50, random_state=seed).sort_index()
        sampled = read_boxes(path, max_rows=50, seed=seed).boxes
        assert [box.signature for box in sampled] == list(expected["s"])
        assert [box.box.x for box in sampled] == list(expected["x"])
        ids = [whole.boxes[row].item_id for row in expected.index]
        assert [box.item_id for box in sampled] == ids
        catalog = complete_the_look(path, None, max_rows=50, seed=seed)
        assert list(catalog.table["item_id"]) == ids
        assert len(needed_pictures(path, max_rows=50, seed=seed)) == expected["s"].nunique()
    assert read_boxes(path, max_rows=200) == read_boxes(path, max_rows=201) == whole
    rows = [f"{number:032x}\t0\t0\t{number % 2}\t1\tHats\n" for number in range(100)]
    read = read_boxes(write(tmp_path, "".join(rows)), max_rows=40)
    assert len(read.boxes) + len(read.refused) == 40
    assert len(read.refused) > 10


def test_what_is_out_of_range_or_another_file_is_refused(path: Path, boards: Path) -> None:
    read, folder = complete_the_look, path.parent
    for settings, message in (
        ({"max_rows": 0}, "max_rows is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"seed": 2**32}, f"seed is {2**32}; expected 0 to 4294967295"),
        ({"split": "training"}, "split is 'training'; expected 'train'"),
        ({"on_bad_item": "drop"}, "on_bad_item is 'drop'"),
    ):
        refuses(ValueError, message, read, path, boards, **settings)
    message = r"nowhere\.tsv; give the path of raw_train\.tsv"
    refuses(FileNotFoundError, message, read, folder / "nowhere.tsv", boards)
    refuses(FileNotFoundError, "no file at", read, boards, boards)
    refuses(FileNotFoundError, r"no folder or zip at .*nowhere", read, path, folder / "nowhere")
    refuses(ValueError, r"raw_test\.tsv cannot be read as a zip", read, path, path)
    for header in ("", "image_signature_anchor bounding_x_anchor\n", HEADER.replace("_x", "_z")):
        message = r"has the header .*not the triplets"
        refuses(ValueError, message, read, write(folder, header=header), boards)
    path.write_bytes(HEADER.encode() + f"{A}\t0\t0\t1\t1\tH\xfc\n".encode("l1"))
    refuses(ValueError, "line 2, is not UTF-8", read, path, boards)
    refuses(ValueError, "gives no item", read, write(folder, ""), boards)


@needs_shared("complete-the-look-raw_test.tsv")
def test_the_real_test_file_reads_completely() -> None:
    catalog = complete_the_look(SHARED / "complete-the-look-raw_test.tsv", None)
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (25_140, 13, 0)
    assert catalog.table["group"].nunique() == 5_028
    assert int((catalog.table["category"] == "Scarves & Shawls").sum()) == 470
    assert len(set(catalog.table["image"])) == 25_140
    board = "019dc31c8efb6c22b8c43f9833f64fbf"
    boxes = {split_crop_name(image)[1] for image in catalog.table["image"] if board in image}
    assert Box(0.67514825, 0.00023436546, 0.2881317, 0.323321) in boxes
    split = assign_splits(catalog, method="hash", val_fraction=0.1, test_fraction=0.1, seed=0)
    assert len(split.table[["group", "split"]].drop_duplicates()) == 5_028, "no board is torn"
