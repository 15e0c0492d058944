from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded, noise
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.complete_the_look import (
    complete_the_look,
    needed_pictures,
    picture_url,
    read_boxes,
)
from visual_search.catalog.readers.crops import Box, split_crop_name
from visual_search.catalog.splits import assign_splits

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
RAW_TEST = SHARED / "datasets" / "complete-the-look-raw_test.tsv"

HEADER = "image_signature bounding_x  bounding_y  bounding_width  bounding_height label\n"
A, B, C = (digit * 32 for digit in "abc")
ROWS = (
    f"{A}\t0.0\t0.25\t0.5\t0.5\tShirts & Tops\n"
    f"{A}\t0.5\t2.5E-1\t0.50000006\t0.75\tShoes\n"
    f"{B}\t2.3436546E-4\t0\t.5\t1.\tShoes\n"
)


def png(seed: int) -> bytes:
    return encoded(noise(40, 20, seed))


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    (tmp_path / "boards").mkdir()
    for seed, signature in enumerate((A, B)):
        (tmp_path / "boards" / f"{signature}.jpg").write_bytes(png(seed))
    return tmp_path / "boards"


def write(folder: Path, rows: str = ROWS, header: str = HEADER) -> Path:
    (folder / "raw_test.tsv").write_text(header + rows, encoding="utf-8", newline="")
    return folder / "raw_test.tsv"


def test_a_box_is_an_item_and_a_board_a_group(tmp_path: Path, boards: Path) -> None:
    catalog = complete_the_look(write(tmp_path), boards)
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


@pytest.mark.parametrize("split", ["", "train", "val", "test"])
def test_the_file_may_be_one_split(tmp_path: Path, boards: Path, split: str) -> None:
    catalog = complete_the_look(write(tmp_path), boards, split=split)  # type: ignore[arg-type]
    assert set(catalog.table["split"]) == {split}


def test_line_ends_marks_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    plain = read_boxes(write(tmp_path))
    text = "\ufeff" + HEADER + "\n" + ROWS
    path = tmp_path / "windows.tsv"
    path.write_bytes(text.replace("\n", "\r\n").rstrip().encode())
    assert [(box.item_id, box.box, box.label) for box in read_boxes(path).boxes] == [
        (box.item_id, box.box, box.label) for box in plain.boxes
    ]
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
    f"{A}\t0\t0\t1\t-1\tHats": "has no area",
    f"{A}\t120\t30\t200\t300\tHats": "lies entirely outside the picture",
    f"{A}\t0\t0\t1\t1\t ": "the label is empty",
    f"{A}\t0\t0.25\t5e-1\t0.5\tShirts & Tops": "the same box and label stand in line 2 already",
    f"{C}\t0\t0\t1\t1\tHats": r"line 5: no picture 'c+\.jpg' in",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, boards: Path, row: str) -> None:
    path = write(tmp_path, ROWS + row + "\n" + f"{B}\t0\t0\t1\t1\tHats\n")
    with pytest.raises(BadItemsError, match="1 bad item") as caught:
        complete_the_look(path, boards)
    (item,) = caught.value.refused
    assert re.search(BAD_ROWS[row], item.reason)
    catalog = complete_the_look(path, boards, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == [f"{A}-1", f"{A}-2", f"{B}-1", f"{B}-2"]
    assert catalog.refused == caught.value.refused


def test_the_number_of_a_box_counts_bad_rows_as_well(tmp_path: Path) -> None:
    rows = f"{A}\t0\t0\t0\t1\tHats\n{B}\t0\t0\t1\t1\tHats\n{A}\t0\t0\t1\t1\tHats\n"
    read = read_boxes(write(tmp_path, rows))
    assert [box.item_id for box in read.boxes] == [f"{B}-1", f"{A}-2"]
    assert [item.item_id for item in read.refused] == [f"{A}-1"]
    assert read.signatures == [B, A]


def test_one_box_may_have_two_labels(tmp_path: Path) -> None:
    rows = f"{A}\t0\t0\t1\t1\tHats\n{A}\t0\t0\t1\t1\tShoes\n"
    assert [box.label for box in read_boxes(write(tmp_path, rows)).boxes] == ["Hats", "Shoes"]


def test_without_pictures_the_table_is_given(tmp_path: Path) -> None:
    catalog = complete_the_look(write(tmp_path), None)
    assert len(catalog) == 3
    image = catalog.table["image"][0]
    assert split_crop_name(image) == (f"{A}.jpg", Box(0, 0.25, 0.5, 0.5))
    for call in (catalog.source.load, lambda image: catalog.source.content_keys([image])):
        with pytest.raises(
            FileNotFoundError, match=r"read without pictures; give .*data\.pictures"
        ):
            call(image)


def test_the_pictures_that_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS + f"{C}\t0\t0\t0\t1\tHats\n")
    assert needed_pictures(path, "boards/{signature:.2}/{signature}.jpg") == {
        f"boards/aa/{A}.jpg": f"https://i.pinimg.com/400x/aa/aa/aa/{A}.jpg",
        f"boards/bb/{B}.jpg": f"https://i.pinimg.com/400x/bb/bb/bb/{B}.jpg",
    }


def test_addresses_are_of_signatures_only() -> None:
    assert picture_url("0123456789abcdef0123456789abcdef") == (
        "https://i.pinimg.com/400x/01/23/45/0123456789abcdef0123456789abcdef.jpg"
    )
    for wrong in ("", "0123", A[1:], A + "a", A + "\n", "../" + A[3:], "A" * 32):
        with pytest.raises(ValueError, match="expected 32 hexadecimal digits in lower case"):
            picture_url(wrong)


def test_pictures_in_a_zip_by_another_pattern(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "boards.zip", "w") as archive:
        archive.writestr(f"photos/aa/{A}.png", png(0))
    catalog = complete_the_look(
        write(tmp_path),
        tmp_path / "boards.zip",
        image_pattern="photos/{signature:.2}/{signature}.png",
        on_bad_item="skip",
    )
    assert list(catalog.table["item_id"]) == [f"{A}-1", f"{A}-2"]
    assert [item.item_id for item in catalog.refused] == [f"{B}-1"]
    crop = catalog.source.load(catalog.table["image"][0])
    assert isinstance(crop, np.ndarray)
    assert crop.shape == (10, 20, 3)


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
def test_a_wrong_pattern_is_refused(tmp_path: Path, boards: Path, pattern: str) -> None:
    path = write(tmp_path)
    with pytest.raises(ValueError, match=PATTERNS[pattern]):
        complete_the_look(path, boards, image_pattern=pattern)
    with pytest.raises(ValueError, match=PATTERNS[pattern]):
        needed_pictures(path, pattern)


def many_rows(folder: Path) -> Path:
    rows = [f"{number // 3:032x}\t0.{number + 1:03}\t0\t1\t1\tHats\n" for number in range(200)]
    return write(folder, "".join(rows))


@pytest.mark.parametrize("seed", [0, 42])
def test_the_sample_is_that_of_pandas(tmp_path: Path, seed: int) -> None:
    path = many_rows(tmp_path)
    frame = pd.read_csv(path, sep="\t", skiprows=1, names=["s", "x", "y", "w", "h", "label"])
    expected = frame.sample(n=50, random_state=seed).sort_index()
    sampled = read_boxes(path, max_rows=50, seed=seed).boxes
    assert [box.signature for box in sampled] == list(expected["s"])
    assert [box.box.x for box in sampled] == list(expected["x"])
    ids = [box.item_id for box in read_boxes(path).boxes]
    assert [box.item_id for box in sampled] == [ids[row] for row in expected.index]
    catalog = complete_the_look(path, None, max_rows=50, seed=seed)
    assert list(catalog.table["item_id"]) == [box.item_id for box in sampled]
    assert len(needed_pictures(path, max_rows=50, seed=seed)) == expected["s"].nunique()


def test_a_sample_of_all_rows_is_all_rows(tmp_path: Path) -> None:
    path = many_rows(tmp_path)
    for max_rows in (200, 201):
        assert read_boxes(path, max_rows=max_rows) == read_boxes(path)


def test_the_sample_takes_bad_rows_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"{n:032x}\t0\t0\t{n % 2}\t1\tHats\n" for n in range(100)))
    read = read_boxes(path, max_rows=40)
    assert len(read.boxes) + len(read.refused) == 40
    assert len(read.refused) > 10


def test_what_is_out_of_range_is_refused(tmp_path: Path, boards: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(ValueError, match="max_rows is 0; expected at least 1"):
        complete_the_look(path, boards, max_rows=0)
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=rf"seed is {seed}; expected 0 to 4294967295"):
            complete_the_look(path, boards, seed=seed)
    with pytest.raises(ValueError, match="split is 'training'; expected 'train'"):
        complete_the_look(path, boards, split="training")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        complete_the_look(path, boards, on_bad_item="drop")  # type: ignore[arg-type]


def test_another_file_is_named(tmp_path: Path, boards: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv; give the path of raw_train\.tsv"):
        complete_the_look(tmp_path / "nowhere.tsv", boards)
    with pytest.raises(FileNotFoundError, match="no file at"):
        complete_the_look(boards, boards)
    with pytest.raises(FileNotFoundError, match=r"no folder or zip at .*nowhere"):
        complete_the_look(write(tmp_path), tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"raw_test\.tsv cannot be read as a zip"):
        complete_the_look(write(tmp_path), tmp_path / "raw_test.tsv")
    for header in ("", "image_signature_anchor bounding_x_anchor\n", HEADER.replace("_x", "_z")):
        with pytest.raises(ValueError, match=r"has the header .*not the triplets"):
            complete_the_look(write(tmp_path, header=header), boards)
    (tmp_path / "raw_test.tsv").write_bytes(
        HEADER.encode() + f"{A}\t0\t0\t1\t1\tH\xfc\n".encode("l1")
    )
    with pytest.raises(ValueError, match="line 2, is not UTF-8"):
        complete_the_look(tmp_path / "raw_test.tsv", boards)
    with pytest.raises(ValueError, match="gives no item"):
        complete_the_look(write(tmp_path, ""), boards)


@pytest.mark.skipif(not RAW_TEST.exists(), reason="raw_test.tsv is not on this machine")
def test_the_real_test_file_reads_completely() -> None:
    catalog = complete_the_look(RAW_TEST, None)
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (25_140, 13, 0)
    assert catalog.table["group"].nunique() == 5_028
    assert int((catalog.table["category"] == "Scarves & Shawls").sum()) == 470
    assert len(set(catalog.table["image"])) == 25_140
    board = "019dc31c8efb6c22b8c43f9833f64fbf"
    boxes = {split_crop_name(image)[1] for image in catalog.table["image"] if board in image}
    assert Box(0.67514825, 0.00023436546, 0.2881317, 0.323321) in boxes
    assert len(needed_pictures(RAW_TEST)) == 5_028
    split = assign_splits(catalog, method="hash", val_fraction=0.1, test_fraction=0.1, seed=0)
    assert len(split.table[["group", "split"]].drop_duplicates()) == 5_028, "no board is torn"
