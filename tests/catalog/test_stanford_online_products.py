from pathlib import Path

import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from visual_search.catalog.readers.stanford_online_products import stanford_online_products
from visual_search.retrieval.protocols import instance

HEADER = "image_id class_id super_class_id path\n"
TRAIN = (
    "1 1 1 bicycle_final/111085122871_0.JPG\n2 1 1 bicycle_final/111085122871_1.JPG\n"
    "3 2 4 coffee_maker_final/111265328556_0.JPG\n"
)
TEST = "59552 11319 1 bicycle_final/251952414262_0.JPG\n59553 11319 1 bicycle_final/25_1.JPG\n"
NAMES = [line.split(" ")[3] for line in (TRAIN + TEST).splitlines()]
IDS = ["1", "1~2", "2", "11319", "11319~2"]


def benchmark(root: Path, train: str = TRAIN, test: str = TEST, header: str = HEADER) -> Path:
    saved(root, NAMES)
    return saved(root, {"Ebay_train.txt": header + train, "Ebay_test.txt": header + test})


def test_pictures_of_a_product_belong_together(tmp_path: Path) -> None:
    root = benchmark(tmp_path / "a")
    catalog = stanford_online_products(root)
    assert catalog.table.to_dict("list") == {
        "item_id": IDS,
        "image": NAMES,
        "category": ["bicycle", "bicycle", "coffee_maker", "bicycle", "bicycle"],
        "group": ["1", "1", "2", "11319", "11319"],
        "split": ["train", "train", "train", "test", "test"],
        "product": ["1", "1", "2", "11319", "11319"],
        "image_id": ["1", "2", "3", "59552", "59553"],
    }
    assert catalog.products == ["1", "1", "2", "11319", "11319"]
    assert (catalog.name, catalog.choices) == ("stanford_online_products", ())
    assert catalog.source.load(NAMES[2]) == NAMES[2].encode()
    sides = instance().choose(catalog.table, "test")
    assert [IDS[row] for row in sides.gallery_rows] == IDS[3:]
    packed = zipped(root, tmp_path / "a.zip", "Stanford_Online_Products/")
    assert stanford_online_products(packed).table["image"][0] == (
        f"Stanford_Online_Products/{NAMES[0]}"
    )


BAD_ROWS = {
    "9 1 1 bicycle_final/nowhere.JPG": r"Ebay_train\.txt, line 5: no picture .*nowhere\.JPG",
    f"9 7 1 {NAMES[0]}": r"line 5: the picture stands in Ebay_train\.txt, line 2 already",
    "9 1 1 loose.JPG": r"line 5: the path is 'loose\.JPG'; expected <category>_final/<file>",
    f"9  1 {NAMES[0]}": "line 5: the class_id is empty",
    "9 1 bicycle_final/x.JPG": r"line 5: has 3 field\(s\); the header has 4",
    "9 1 1 ../outside/x.JPG": r"line 5: .* has a '\.\.'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = benchmark(tmp_path, TRAIN + row + "\n")
    assert one_refused(BAD_ROWS[row], stanford_online_products, root) == IDS


def test_a_missing_picture_moves_no_id(tmp_path: Path) -> None:
    root = benchmark(tmp_path)
    (root / NAMES[0]).unlink()
    assert one_refused("no picture", stanford_online_products, root) == IDS[1:]
    assert stanford_online_products(root, on_bad_item="skip").products is not None


def test_what_is_no_such_benchmark(tmp_path: Path) -> None:
    read = stanford_online_products
    refuses(FileNotFoundError, r"no Ebay_train\.txt in .*unpacked", read, saved(tmp_path, ["x"]))
    refuses(ValueError, r"has no column \['class_id'\]", read,
            benchmark(tmp_path, header="image_id product super_class_id path\n"))  # fmt: skip
    refuses(ValueError, "on_bad_item is 'drop'", read, tmp_path, on_bad_item="drop")
    refuses(ValueError, "gives no item", read, benchmark(tmp_path, "", ""))
