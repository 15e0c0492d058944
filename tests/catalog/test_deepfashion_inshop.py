import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import one_refused, refuses, saved, zipped
from visual_search.catalog.readers.deepfashion_inshop import deepfashion_inshop
from visual_search.catalog.readers.pixel_crops import PixelCropSource
from visual_search.catalog.splits import assign_splits
from visual_search.retrieval.protocols import published

DRESS, SIDE = (f"img/WOMEN/Dresses/id_00000002/02_{pose}.jpg" for pose in ("1_front", "2_side"))
TEE, BACK = (f"img/MEN/Tees_Tanks/id_00000003/01_{pose}.jpg" for pose in ("1_front", "3_back"))
DENIM = "img/MEN/Denim/id_00000007/04_6_flat.jpg"
NAMES = [DRESS, SIDE, TEE, BACK, DENIM]
PRODUCTS = [name.split("/")[3] for name in NAMES]
ROLES = ["train", "train", "query", "gallery", "gallery"]
EDGES = ["3 1 050 043 195 214", "3 2 001 002 003 005", "1 1 000 000 256 256"]
EDGES += ["1 3 200 000 300 256", "2 6 000 010 020 030"]
ROWS = "".join(f"{n:<70}{p}    {r}  \n" for n, p, r in zip(NAMES, PRODUCTS, ROLES, strict=True))
BOXES = "".join(f"{name:<70}{edges}\n" for name, edges in zip(NAMES, EDGES, strict=True))
HEADER = "image_name item_id evaluation_status"
BOX_HEADER = "image_name clothes_type pose_type x_1 y_1 x_2 y_2"
# 256 x 256 px whose red is the column and whose green is the row
GRID = np.stack([*np.mgrid[0:256, 0:256][::-1], np.zeros((256, 256))], axis=2).astype(np.uint8)
PICTURE = encoded(Image.fromarray(GRID))


def listing(header: str, rows: str, more: int = 0) -> str:
    return f"{rows.count(chr(10)) + more}\n{header}\n{rows}"


def benchmark(
    root: Path, rows: str = ROWS, boxes: str = BOXES, images: str = "Img/img", lists: str = "Eval"
) -> Path:
    files: dict[str, bytes | str] = {f"{images}{name[3:]}": PICTURE for name in NAMES}
    files[f"{lists}/list_eval_partition.txt"] = listing(HEADER, rows)
    if boxes:
        files["Anno/list_bbox_inshop.txt"] = listing(BOX_HEADER, boxes)
    return saved(root, files)


def test_rows_become_items_under_the_published_protocol(tmp_path: Path) -> None:
    catalog = deepfashion_inshop(benchmark(tmp_path))
    assert catalog.table.to_dict("list") == {
        "item_id": NAMES,
        "image": [f"Img/{name}" for name in NAMES],
        "category": ["Dresses", "Dresses", "Tees_Tanks", "Tees_Tanks", "Denim"],
        "group": PRODUCTS,
        "split": ["train", "train", "test", "test", "test"],
        "product": PRODUCTS,
        "role": ROLES,
        "is_query": ["0", "0", "1", "0", "0"],
        "is_gallery": ["0", "0", "0", "1", "1"],
        "gender": ["WOMEN", "WOMEN", "MEN", "MEN", "MEN"],
        "clothes": ["full body", "full body", "upper body", "upper body", "lower body"],
        "pose": ["front", "side", "front", "back", "stand-alone"],
    }
    assert catalog.name == "deepfashion_inshop"
    assert catalog.source.load(f"Img/{TEE}") == PICTURE
    drawn = assign_splits(catalog, method="hash", val_fraction=0, test_fraction=0.5, seed=0).table
    for relevance in ("group", "product"):
        sides = published(relevance=[relevance]).choose(drawn, "test")
        assert [NAMES[row] for row in sides.query_rows] == [TEE]
        assert [NAMES[row] for row in sides.gallery_rows] == [BACK, DENIM]
        assert (drawn[relevance][3:] == drawn[relevance][2]).tolist() == [True, False]


def test_pictures_are_cut_to_their_boxes(tmp_path: Path) -> None:
    catalog = deepfashion_inshop(benchmark(tmp_path), crop=True)
    assert list(catalog.table["item_id"]) == NAMES
    images = list(catalog.table["image"])
    assert images[0] == f"Img/{DRESS}#xywh=pixel:50,43,145,171"
    source = pickle.loads(pickle.dumps(catalog.source))
    dress, side, tee, back, denim = (source.load(image) for image in images)
    np.testing.assert_array_equal(dress, GRID[43:214, 50:195])
    assert (side.shape, tee.shape) == ((3, 2, 3), (256, 256, 3))
    assert back.shape == (256, 56, 3)  # what sticks out is cut off
    assert denim[0, 0].tolist() == [0, 10, 0]
    keys = catalog.source.content_keys([*images, f"Img/{DRESS}"])
    assert len(set(keys)) == 6  # one picture, six parts of it
    assert keys == source.content_keys([*images, f"Img/{DRESS}"])
    assert source.load(f"Img/{DRESS}") == PICTURE


@pytest.mark.parametrize("images", ["img", "In-shop/Img/img"])
def test_the_layouts_it_is_unpacked_in(tmp_path: Path, images: str) -> None:
    root = benchmark(tmp_path / "a", images=images, lists=".")
    assert deepfashion_inshop(root).table["image"][0] == images.removesuffix("img") + DRESS
    catalog = deepfashion_inshop(zipped(root, tmp_path / "a.zip", "b/"), crop=True)
    assert isinstance(catalog.source, PixelCropSource)
    first = catalog.source.load(catalog.table["image"][0])
    np.testing.assert_array_equal(first, GRID[43:214, 50:195])


def test_the_large_pictures_and_those_without_boxes(tmp_path: Path) -> None:
    root = benchmark(tmp_path / "large", images="img_highres")
    catalog = deepfashion_inshop(root, pictures="img_highres")
    assert catalog.table["image"][0] == "img_highres" + DRESS.removeprefix("img")
    assert catalog.table["item_id"][0] == DRESS
    message = r"no folder img/ .*img\.zip.*data\.pictures"
    refuses(FileNotFoundError, message, deepfashion_inshop, root)
    message, large = r"data\.crop=true with data\.pictures=img_highres", "img_highres"
    refuses(ValueError, message, deepfashion_inshop, root, crop=True, pictures=large)
    root = benchmark(tmp_path / "plain", boxes="")
    attributes = ["product", "role", "is_query", "is_gallery", "gender"]
    assert deepfashion_inshop(root).attributes == attributes
    message = r"no list_bbox_inshop\.txt in .*crop=false"
    refuses(FileNotFoundError, message, deepfashion_inshop, root, crop=True)


BAD_ROWS = {
    f"{DENIM} id_00000007 val": r"line 3: the role is 'val'; expected one of \['train', 'query'",
    f"{DENIM} gallery": r"line 3: has 2 field\(s\); expected three",
    "img/02_1_front.jpg id_00000007 gallery": r"line 3: the path is not img/<gender>",
    f"{DENIM.replace('img/', 'image/')} id_00000007 gallery": "line 3: the path is not img/",
    f"{DENIM.replace('04', '05')} id_00000007 gallery": r"line 3: no picture .*05_6_flat\.jpg",
    f"{TEE} id_00000003 gallery": "line 6: the id stands in line 3 already",
    "img/../../id_00000007/a.jpg id_00000007 gallery": r"line 3: .* has a '\.\.'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = benchmark(tmp_path, rows=row + "\n" + ROWS.replace(DENIM, DENIM + "x"), boxes="")
    saved(root / "Img", [DENIM + "x"])
    assert set(one_refused(BAD_ROWS[row], deepfashion_inshop, root)) == {*NAMES[:4], DENIM + "x"}


BAD_BOXES = {
    f"{DENIM} 2 6 20 10 20 30": "left=20, top=10, right=20, bottom=30; expected pixels",
    f"{DENIM} 2 6 0 -1 20 30": r"the box in list_bbox_inshop.txt is \['0', '-1', '20', '30'\]",
    f"{DENIM} 2 6 0 1.5 20 30": "expected four whole numbers",
    f"{DENIM} 2 6 10 20 30": "there is no box for it",
    f"{DENIM}x 2 6 0 10 20 30": "there is no box for it",
}


@pytest.mark.parametrize("row", BAD_BOXES)
def test_a_bad_box_is_refused_where_it_is_needed(tmp_path: Path, row: str) -> None:
    root = benchmark(tmp_path, boxes=BOXES.rsplit("\n", 2)[0] + "\n" + row + "\n")
    assert len(deepfashion_inshop(root)) == 5
    assert one_refused(BAD_BOXES[row], deepfashion_inshop, root, crop=True) == NAMES[:4]


def test_a_box_outside_its_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    root = benchmark(tmp_path, boxes=BOXES.replace("000 010 020 030", "256 0 300 9"))
    catalog = deepfashion_inshop(root, crop=True)
    image = catalog.table["image"][4]
    refuses(ValueError, "cuts nothing out of 256 x 256 px", catalog.source.load, image)


def test_what_is_no_such_benchmark(tmp_path: Path) -> None:
    read = deepfashion_inshop
    refuses(FileNotFoundError, "nowhere", read, tmp_path / "nowhere")
    refuses(FileNotFoundError, r"no list_eval_partition\.txt in .*Eval/", read, tmp_path)
    root = benchmark(tmp_path)
    message = r"data\.pictures is 'image'; expected one of \['img'"
    refuses(ValueError, message, read, root, pictures="image")
    refuses(ValueError, "on_bad_item is 'drop'", read, root, on_bad_item="drop")
    pairs = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    for text, message in {
        "": "begins with '' and the header",
        listing(pairs, ROWS): r"the header \['image_pair_name_1'.*In-shop benchmark as published",
        f"{HEADER}\n{ROWS}": "begins with 'image_name item_id",
        listing(HEADER, ROWS, more=1): "says that it has 6 rows, and has 5",
        listing(HEADER, ""): "gives no item",
    }.items():
        saved(root, {"Eval/list_eval_partition.txt": text})
        refuses(ValueError, message, read, root)
