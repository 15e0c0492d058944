import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
from visual_search.catalog.catalog import BadItemsError, Catalog
from visual_search.catalog.readers.deepfashion_inshop import deepfashion_inshop
from visual_search.catalog.readers.pixel_crops import PixelCropSource
from visual_search.catalog.splits import assign_splits
from visual_search.retrieval.protocols import published

DRESS = "img/WOMEN/Dresses/id_00000002/02_1_front.jpg"
DRESS_SIDE = "img/WOMEN/Dresses/id_00000002/02_2_side.jpg"
TEE = "img/MEN/Tees_Tanks/id_00000003/01_1_front.jpg"
TEE_BACK = "img/MEN/Tees_Tanks/id_00000003/01_3_back.jpg"
DENIM = "img/MEN/Denim/id_00000007/04_6_flat.jpg"
ROWS = (
    f"{DRESS:<70}id_00000002    train\n"
    f"{DRESS_SIDE:<70}id_00000002    train\n"
    f"{TEE:<70}id_00000003    query\n"
    f"{TEE_BACK:<70}id_00000003    gallery\n"
    f"{DENIM:<70}id_00000007    gallery   \n"
)
BOXES = (
    f"{DRESS:<70}3 1 050 043 195 214\n"
    f"{DRESS_SIDE:<70}3 2 001 002 003 005\n"
    f"{TEE:<70}1 1 000 000 256 256\n"
    f"{TEE_BACK:<70}1 3 200 000 300 256\n"
    f"{DENIM:<70}2 6 000 010 020 030\n"
)
HEADER = "image_name item_id evaluation_status"
BOX_HEADER = "image_name clothes_type pose_type x_1 y_1 x_2 y_2"


def listing(header: str, rows: str, count: int | None = None) -> str:
    count = rows.count("\n") if count is None else count
    return f"{count}\n{header}\n{rows}"


def picture() -> bytes:
    """Returns 256 x 256 px whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[0:256, 0:256].astype(np.uint8)
    return encoded(Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2)))


def benchmark(
    root: Path,
    rows: str = ROWS,
    boxes: str | None = BOXES,
    images: str = "Img/img",
    eval_folder: str = "Eval",
) -> Path:
    (root / eval_folder).mkdir(parents=True, exist_ok=True)
    (root / eval_folder / "list_eval_partition.txt").write_text(listing(HEADER, rows))
    if boxes is not None:
        (root / "Anno").mkdir(exist_ok=True)
        (root / "Anno" / "list_bbox_inshop.txt").write_text(listing(BOX_HEADER, boxes))
    for name in (DRESS, DRESS_SIDE, TEE, TEE_BACK, DENIM):
        path = root / images / name.removeprefix("img/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    return root


def test_rows_become_items(tmp_path: Path) -> None:
    catalog = deepfashion_inshop(benchmark(tmp_path))
    assert catalog.table.to_dict("list") == {
        "item_id": [DRESS, DRESS_SIDE, TEE, TEE_BACK, DENIM],
        "image": [f"Img/{name}" for name in (DRESS, DRESS_SIDE, TEE, TEE_BACK, DENIM)],
        "category": ["Dresses", "Dresses", "Tees_Tanks", "Tees_Tanks", "Denim"],
        "group": ["id_00000002"] * 2 + ["id_00000003"] * 2 + ["id_00000007"],
        "split": ["train", "train", "test", "test", "test"],
        "product": ["id_00000002"] * 2 + ["id_00000003"] * 2 + ["id_00000007"],
        "role": ["train", "train", "query", "gallery", "gallery"],
        "is_query": ["0", "0", "1", "0", "0"],
        "is_gallery": ["0", "0", "0", "1", "1"],
        "gender": ["WOMEN", "WOMEN", "MEN", "MEN", "MEN"],
        "clothes": ["full body", "full body", "upper body", "upper body", "lower body"],
        "pose": ["front", "side", "front", "back", "stand-alone"],
    }
    assert catalog.name == "deepfashion_inshop"
    assert catalog.source.load(f"Img/{TEE}") == picture()


def measured(catalog: Catalog, relevance: str) -> tuple[list[str], list[str], list[str]]:
    """Returns query ids, gallery ids and, of the first query, the relevant ids."""
    protocol = published(relevance=[relevance])
    sides = protocol.choose(catalog.table, "test")
    ids, wanted = catalog.table["item_id"], catalog.table[relevance]
    gallery = [ids[row] for row in sides.gallery_rows]
    first = sides.query_rows[0]
    found = [ids[row] for row in sides.gallery_rows if wanted[row] == wanted[first]]
    return [ids[row] for row in sides.query_rows], gallery, found


@pytest.mark.parametrize("relevance", ["group", "product"])
def test_the_published_protocol(tmp_path: Path, relevance: str) -> None:
    catalog = assign_splits(
        deepfashion_inshop(benchmark(tmp_path)),
        method="hash",
        val_fraction=0.0,
        test_fraction=0.5,
        seed=0,
    )
    assert measured(catalog, relevance) == ([TEE], [TEE_BACK, DENIM], [TEE_BACK])


def test_pictures_are_cut_to_their_boxes(tmp_path: Path) -> None:
    catalog = deepfashion_inshop(benchmark(tmp_path), crop=True)
    assert list(catalog.table["item_id"]) == [DRESS, DRESS_SIDE, TEE, TEE_BACK, DENIM]
    images = list(catalog.table["image"])
    assert images[0] == f"Img/{DRESS}#xywh=pixel:50,43,145,171"
    source = pickle.loads(pickle.dumps(catalog.source))
    dress, side, tee, back, denim = (source.load(image) for image in images)
    assert dress.shape == (171, 145, 3)
    assert dress[0, 0].tolist() == [50, 43, 0]
    assert dress[-1, -1].tolist() == [194, 213, 0]
    assert side.shape == (3, 2, 3)
    assert tee.shape == (256, 256, 3)
    assert back.shape == (256, 56, 3)  # what sticks out is cut off
    assert denim[0, 0].tolist() == [0, 10, 0]
    keys = catalog.source.content_keys([*images, f"Img/{DRESS}"])
    assert len(set(keys)) == 6  # one picture, six parts of it
    assert keys == source.content_keys([*images, f"Img/{DRESS}"])
    assert source.load(f"Img/{DRESS}") == picture()


def test_without_boxes(tmp_path: Path) -> None:
    root = benchmark(tmp_path, boxes=None)
    assert deepfashion_inshop(root).attributes == [
        "product", "role", "is_query", "is_gallery", "gender",
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"no list_bbox_inshop\.txt in .*crop=false"):
        deepfashion_inshop(root, crop=True)


@pytest.mark.parametrize("images", ["img", "In-shop/Img/img"])
def test_the_layouts_it_is_unpacked_in(tmp_path: Path, images: str) -> None:
    root = benchmark(tmp_path / "a", images=images, eval_folder=".")
    assert deepfashion_inshop(root).table["image"][0] == images.removesuffix("img") + DRESS
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, "b/" + file.relative_to(root).as_posix())
    catalog = deepfashion_inshop(tmp_path / "a.zip", crop=True)
    assert isinstance(catalog.source, PixelCropSource)
    first = catalog.source.load(catalog.table["image"][0])
    assert isinstance(first, np.ndarray)
    assert first.shape == (171, 145, 3)


def test_the_large_pictures(tmp_path: Path) -> None:
    root = benchmark(tmp_path, images="img_highres")
    catalog = deepfashion_inshop(root, pictures="img_highres")
    assert catalog.table["image"][0] == "img_highres" + DRESS.removeprefix("img")
    assert catalog.table["item_id"][0] == DRESS
    with pytest.raises(FileNotFoundError, match=r"no folder img/ .*img\.zip.*data\.pictures"):
        deepfashion_inshop(root)
    with pytest.raises(ValueError, match=r"data\.crop=true with data\.pictures=img_highres"):
        deepfashion_inshop(root, crop=True, pictures="img_highres")


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
    root = benchmark(tmp_path, rows=row + "\n" + ROWS.replace(DENIM, DENIM + "x"), boxes=None)
    (root / "Img" / (DENIM + "x")).write_bytes(picture())
    with pytest.raises(BadItemsError, match="1 bad item") as caught:
        deepfashion_inshop(root)
    with pytest.raises(BadItemsError, match=BAD_ROWS[row]):
        deepfashion_inshop(root)
    catalog = deepfashion_inshop(root, on_bad_item="skip")
    assert set(catalog.table["item_id"]) == {DRESS, DRESS_SIDE, TEE, TEE_BACK, DENIM + "x"}
    assert catalog.refused == caught.value.refused


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
    with pytest.raises(BadItemsError, match=BAD_BOXES[row]):
        deepfashion_inshop(root, crop=True)
    assert len(deepfashion_inshop(root, crop=True, on_bad_item="skip")) == 4


def test_a_box_outside_its_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    root = benchmark(tmp_path, boxes=BOXES.replace("000 010 020 030", "256 0 300 9"))
    catalog = deepfashion_inshop(root, crop=True)
    with pytest.raises(ValueError, match="cuts nothing out of 256 x 256 px"):
        catalog.source.load(catalog.table["image"][4])


def test_what_is_no_such_benchmark(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        deepfashion_inshop(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no list_eval_partition\.txt in .*Eval/"):
        deepfashion_inshop(tmp_path)
    root = benchmark(tmp_path)
    with pytest.raises(ValueError, match=r"data\.pictures is 'image'; expected one of \['img'"):
        deepfashion_inshop(root, pictures="image")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        deepfashion_inshop(root, on_bad_item="drop")  # type: ignore[arg-type]
    path = root / "Eval" / "list_eval_partition.txt"
    pairs = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    for text, message in {
        "": "begins with '' and the header",
        listing(pairs, ROWS): r"the header \['image_pair_name_1'.*In-shop benchmark as published",
        f"{HEADER}\n{ROWS}": "begins with 'image_name item_id",
        listing(HEADER, ROWS, count=6): "says that it has 6 rows, and has 5",
        listing(HEADER, ""): "gives no item",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            deepfashion_inshop(root)
