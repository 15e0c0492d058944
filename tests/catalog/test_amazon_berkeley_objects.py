import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.shops import one_refused, refuses, saved, zipped
from visual_search.catalog.readers.amazon_berkeley_objects import amazon_berkeley_objects

IMAGES = {"71m": "71/71.jpg", "81n": "81/81.jpg", "91o": "91/91.png", "11p": "11/11.jpg"}
CSV = "image_id,height,width,path\n" + "".join(f"{a},10,20,{b}\n" for a, b in IMAGES.items())


def said(*values: tuple[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"language_tag": tag, "value": value, **more} for tag, value in values]


SHOE = {
    "item_id": "B0", "domain_name": "amazon.com", "country": "US",
    "product_type": [{"value": "SHOES"}], "main_image_id": "71m", "other_image_id": ["81n", "71m"],
    "item_name": said(("de_DE", "Schuh für Ärzte"), ("en_GB", "Shoe"), ("en_US", "Shoe, red")),
    "brand": said(("en_GB", "The Fix")),
    "color": said(("en_US", "Cherry"), ("en_US", "Rose"), standardized_values=["Red"]),
    "material": said(("ja_JP", "革")), "model_year": said(("en_US", 2019)),
    "node": [{"node_id": 1, "node_name": "/Shoes"}], "item_weight": [{"unit": "g", "value": 1.0}],
}  # fmt: skip
ABROAD = {**SHOE, "domain_name": "amazon.de", "item_name": [], "other_image_id": ["91o"]}
SAME_PICTURE = {"item_id": "B1", "domain_name": "amazon.com", "product_type": "SHOES",
                "main_image_id": "81n"}  # fmt: skip
VARIANT = {**SAME_PICTURE, "item_id": "B2", "other_image_id": ["11p"]}
ALONE = {"item_id": "B3", "product_type": "CHAIR", "main_image_id": "00x"}
LINES = [SHOE, ABROAD, SAME_PICTURE, VARIANT]
IDS = ["B0", "B0~2", "B0~3", "B2"]


def abo(root: Path, *more: Any, packed: bool = True) -> Path:
    halves = [LINES[:1], [*LINES[1:], *more]]
    lists: dict[str, bytes | str] = {}
    for number, listings in enumerate(halves):
        text = "".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in listings)
        name = f"listings/metadata/listings_{number}.json" + (".gz" if packed else "")
        lists[name] = gzip.compress(text.encode()) if packed else text
    csv = {"images/metadata/images.csv.gz": gzip.compress(CSV.encode())}
    if not packed:
        csv = {"images/metadata/images.csv": CSV.encode()}
    saved(
        root,
        [f"images/{size}/{path}" for size in ("small", "original") for path in IMAGES.values()],
    )
    return saved(root, lists | csv)


def test_listings_become_products_with_their_pictures(tmp_path: Path) -> None:
    root = abo(tmp_path / "a")
    catalog = amazon_berkeley_objects(root)
    columns = catalog.table.to_dict("list")
    wanted = {
        "item_id": IDS,
        "image": [f"images/small/{IMAGES[one]}" for one in ("71m", "81n", "91o", "11p")],
        "category": ["SHOES"] * 4,
        "group": ["B0"] * 4,  # the variant shows one picture of it
        "split": [""] * 4,
        "product": ["B0", "B0", "B0", "B2"],
        "item_name": ["Shoe, red"] * 3 + [""],
        "brand": ["The Fix"] * 3 + [""],
        "color": ["Cherry; Rose"] * 3 + [""],
        "standard_color": ["Red"] * 3 + [""],
        "material": ["革"] * 3 + [""],
        "domain_name": ["amazon.com"] * 4,
        "country": ["US"] * 3 + [""],
    }
    assert {name: columns[name] for name in wanted} == wanted
    assert catalog.products == columns["product"]
    assert list(map(str, catalog.choices)) == [
        "1 product left out: all of their pictures are those of another"
    ]
    german = amazon_berkeley_objects(root, language="de_AT", pictures="original")
    assert german.table["item_name"][0] == "Schuh für Ärzte"
    assert german.source.load(german.table["image"][2]) == b"images/original/91/91.png"
    plain = amazon_berkeley_objects(abo(tmp_path / "b", packed=False))
    assert plain.table.equals(catalog.table)
    packed = amazon_berkeley_objects(zipped(root, tmp_path / "a.zip", "abo/"))
    assert packed.table["image"][0] == "abo/images/small/71/71.jpg"


BAD = [
    (ALONE, r"^B3: .*line 4: the picture '00x' is not in images\.csv\.gz"),
    ({**ALONE, "main_image_id": None}, r"listings_1\.json\.gz, line 4: names no picture of B3"),
    ({**ALONE, "product_type": []}, r"the product_type \[\]; expected a text of each"),
    ({**ALONE, "item_id": ""}, "has the item_id ''"),
    ({**SHOE, "main_image_id": "11p"}, r"stands in listings/metadata/listings_0\.json\.gz, line 1"),
    ("{\n", "line 4: is no JSON: "),
    ("[3]\n", "line 4: is a JSON list; expected an object"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_listing_is_refused_and_named(tmp_path: Path, line: Any, reason: str) -> None:
    assert one_refused(reason, amazon_berkeley_objects, abo(tmp_path, line)) == IDS


def test_a_missing_picture_and_what_is_no_such_data(tmp_path: Path) -> None:
    read = amazon_berkeley_objects
    root = abo(tmp_path / "a")
    (root / "images/small/71/71.jpg").unlink()
    assert one_refused(r"^B0: .*no picture 'images/small/71/71\.jpg'", read, root) == IDS[1:]
    refuses(ValueError, r"data\.pictures is 'big'", read, root, pictures="big")
    refuses(ValueError, "on_bad_item is 'drop'", read, root, on_bad_item="drop")
    refuses(FileNotFoundError, r"no images\.csv\.gz in .*abo-images-small", read,
            saved(tmp_path / "b", ["x"]))  # fmt: skip
    saved(tmp_path / "b", {"images/metadata/images.csv": CSV})
    refuses(FileNotFoundError, r"no listings_\*\.json\.gz in .*abo-listings", read, tmp_path / "b")
    saved(tmp_path / "b", {"images/metadata/images.csv": "id,path\n1,2\n"})
    refuses(ValueError, r"has no column \['image_id'\]", read, tmp_path / "b")
    saved(root, {"listings/metadata/listings_0.json.gz": gzip.compress(b"{}")[:-3]})
    refuses(ValueError, r"listings_0\.json\.gz is damaged", read, root, on_bad_item="skip")
