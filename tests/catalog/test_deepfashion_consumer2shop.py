from pathlib import Path

import numpy as np
import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from tests.catalog.test_deepfashion_inshop import GRID, PICTURE, listing
from visual_search.catalog.readers.deepfashion_consumer2shop import deepfashion_consumer2shop
from visual_search.retrieval.protocols import cross_domain, published

HEADER = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
BOX_HEADER = "image_name clothes_type source_type x_1 y_1 x_2 y_2"
PRODUCTS = ["id_00000001", "id_00016642", "id_00033880"]
FOLDERS = ["DRESSES/Dress", "TOPS/Blouse", "DRESSES/Skirt"]
DRESS, BLOUSE, SKIRT = (f"img/{FOLDERS[place]}/{PRODUCTS[place]}" for place in range(3))
PAIRS = [
    (f"{DRESS}/comsumer_01.jpg", f"{DRESS}/shop_01.jpg", PRODUCTS[0], "train"),
    (f"{DRESS}/comsumer_02.jpg", f"{DRESS}/shop_01.jpg", PRODUCTS[0], "train"),
    (f"{BLOUSE}/comsumer_01.jpg", f"{BLOUSE}/shop_01.jpg", PRODUCTS[1], "val"),
    (f"{SKIRT}/comsumer_01.jpg", f"{SKIRT}/shop_01.jpg", PRODUCTS[2], "test"),
    (f"{SKIRT}/comsumer_01.jpg", f"{SKIRT}/shop_02.jpg", PRODUCTS[2], "test"),
]
NAMES = list(dict.fromkeys(name for pair in PAIRS for name in pair[:2]))
IDS = [PRODUCTS[0], f"{PRODUCTS[0]}~2", f"{PRODUCTS[0]}~3", PRODUCTS[1], f"{PRODUCTS[1]}~2",
       PRODUCTS[2], f"{PRODUCTS[2]}~2", f"{PRODUCTS[2]}~3"]  # fmt: skip


def rows_of(pairs: list[tuple[str, ...]]) -> str:
    return "".join(f"{a:<70}{b:<70}{c}    {d}  \n" for a, b, c, d in pairs)


def boxes_of(names: list[str]) -> str:
    return "".join(f"{name:<70}2 1 050 043 195 214\n" for name in names)


def benchmark(root: Path, rows: str = rows_of(PAIRS), boxes: str = boxes_of(NAMES)) -> Path:
    files: dict[str, bytes | str] = {f"Img/{name}": PICTURE for name in NAMES}
    files["Eval/list_eval_partition.txt"] = listing(HEADER, rows)
    if boxes:
        files["Anno/list_bbox_consumer2shop.txt"] = listing(BOX_HEADER, boxes)
    return saved(root, files)


def test_pairs_become_pictures_and_the_shop_is_asked(tmp_path: Path) -> None:
    root = benchmark(tmp_path / "a")
    catalog = deepfashion_consumer2shop(root)
    table = catalog.table
    assert table.to_dict("list") == {
        "item_id": IDS,
        "image": [f"Img/{name}" for name in NAMES],
        "category": [name.split("/")[2] for name in NAMES],
        "group": [name.split("/")[3] for name in NAMES],
        "split": ["train"] * 3 + ["val"] * 2 + ["test"] * 3,
        "product": [name.split("/")[3] for name in NAMES],
        "is_query": list("00010100"),
        "is_gallery": list("00001011"),
        "domain": ["shop" if "/shop_" in name else "consumer" for name in NAMES],
        "section": [name.split("/")[1] for name in NAMES],
        "clothes": ["lower body"] * 8,
    }
    assert catalog.products is not None
    for split, asking in (("val", 3), ("test", 5)):
        sides = published(relevance=["product"]).choose(table, split)
        assert (list(sides.query_rows), list(sides.gallery_rows)) == ([asking], [4, 6, 7])
    across = cross_domain("domain", "consumer", "shop").choose(table, "test")
    assert (list(across.query_rows), list(across.gallery_rows)) == ([5], [1, 4, 6, 7])
    assert deepfashion_consumer2shop(zipped(root, tmp_path / "a.zip", "b/")).table.equals(
        table.assign(image="b/" + table["image"])
    )


def test_pictures_are_cut_to_their_boxes(tmp_path: Path) -> None:
    catalog = deepfashion_consumer2shop(benchmark(tmp_path / "a"), crop=True)
    first = catalog.source.load(catalog.table["image"][0])
    np.testing.assert_array_equal(first, GRID[43:214, 50:195])
    root = benchmark(tmp_path / "b", boxes=boxes_of(NAMES[1:]))
    assert len(deepfashion_consumer2shop(root)) == 8
    left = one_refused("line 3: there is no box", deepfashion_consumer2shop, root, crop=True)
    assert left == ["id_00000001", "id_00000001~2", *IDS[3:]]
    root = benchmark(tmp_path / "c", boxes="")
    assert "clothes" not in deepfashion_consumer2shop(root).attributes
    message = r"no list_bbox_consumer2shop\.txt .*Anno/ of the Consumer-to-shop"
    refuses(FileNotFoundError, message, deepfashion_consumer2shop, root, crop=True)


A, B = NAMES[5:7]
OTHER = f"{SKIRT}/shop_09.jpg"
BAD_ROWS = {
    f"{A} {OTHER} {PRODUCTS[2]} test": r"line 8: no picture .*shop_09\.jpg",
    f"{A} {B} {PRODUCTS[2]}": r"line 8: has 3 field\(s\); expected four",
    f"{A} {NAMES[1]} {PRODUCTS[2]} test": "line 8: stands in line 3 as .*'id_00000001', 'train'",
    f"{A} {A} {PRODUCTS[2]} test": r"line 8: stands in line 6 as \['id_00033880', 'test', 'cons",
    f"{A} img/shop_09.jpg {PRODUCTS[2]} test": "line 8: the path is not img/<section>/<category>",
    f"{A} img/../a/b/shop_09.jpg {PRODUCTS[2]} test": r"line 8: .* has a '\.\.'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = benchmark(tmp_path, rows_of(PAIRS) + row + "\n")
    assert one_refused(BAD_ROWS[row], deepfashion_consumer2shop, root) == IDS


def test_what_is_no_such_benchmark(tmp_path: Path) -> None:
    read = deepfashion_consumer2shop
    refuses(FileNotFoundError, r"no list_eval_partition\.txt .*Consumer-to-shop", read, tmp_path)
    root = benchmark(tmp_path)
    refuses(ValueError, r"data\.pictures is 'x'", read, root, pictures="x")
    refuses(ValueError, "data.crop=true with", read, root, pictures="img_highres", crop=True)
    refuses(ValueError, "on_bad_item is 'drop'", read, root, on_bad_item="drop")
    inshop = listing("image_name item_id evaluation_status", "a b train\n")
    saved(root, {"Eval/list_eval_partition.txt": inshop})
    refuses(ValueError, "take the file of the Consumer-to-shop benchmark as", read, root)
    status = rows_of([(*PAIRS[0][:3], "dev")])
    saved(root, {"Eval/list_eval_partition.txt": listing(HEADER, status)})
    refuses(ValueError, r"the evaluation_status is 'dev'; expected one of", read, root,
            on_bad_item="skip")  # fmt: skip
