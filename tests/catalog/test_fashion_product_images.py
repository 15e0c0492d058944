from pathlib import Path

import pytest

from tests.catalog.shops import one_refused, refuses, saved, zip_of, zipped
from visual_search.catalog.readers.fashion_product_images import fashion_product_images, split_row

HEADER = (
    "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,"
    "productDisplayName\n"
)
SHIRT = "15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check Men Shirt\n"
WATCH = "59263,Women,Accessories,Watches,Watches,Silver,Winter,2016,NA,Titan Women Silver Watch\n"


def shop(root: Path, rows: str, *ids: str, header: str = HEADER) -> Path:
    return saved(root, {"styles.csv": header + rows} | {f"images/{i}.jpg": i for i in ids})


def test_rows_become_items(tmp_path: Path) -> None:
    catalog = fashion_product_images(shop(tmp_path, SHIRT + WATCH, "15970", "59263"))
    rows = [line.strip().split(",") for line in (SHIRT, WATCH)]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(HEADER.split(","))}
    columns["productDisplayName"] = columns.pop("productDisplayName\n")
    assert columns["usage"] == ["Casual", "NA"]  # a value, not a missing one
    ids = columns.pop("id")
    assert catalog.table.to_dict("list") == columns | {
        "item_id": ids,
        "image": ["images/15970.jpg", "images/59263.jpg"],
        "category": ["Shirts", "Watches"],
        "group": ids,
        "split": ["", ""],
    }
    assert catalog.attributes == list(columns)
    assert catalog.name == "fashion_product_images"
    assert catalog.source.load("images/59263.jpg") == b"59263"


def test_commas_without_quotes_belong_to_the_last_column(tmp_path: Path) -> None:
    start = "{},Men,Apparel,Topwear,{},Red,Fall,2011,Casual"
    names = {
        ",Shirt, Long Sleeve, XL": "Shirt, Long Sleeve, XL",
        ',"Shirt, ""Slim"""': 'Shirt, "Slim"',
        ',"Slim" Shirt, XL': '"Slim" Shirt, XL',
        ",": "",
        ',5" Heel\r': '5" Heel',
        ',"open': '"open',
        ",odd\x0b\x85\u2028breaks": "odd\x0b\x85\u2028breaks",
    }
    lines = [start.format(n, "Shirts") + name for n, name in enumerate(names)]
    lines[5] = lines[5].replace("Shirts", '"Shirts, Long"')
    catalog = fashion_product_images(shop(tmp_path / "a", "\n".join(lines), *"0123456"))
    assert list(catalog.table["productDisplayName"]) == list(names.values())
    assert list(catalog.table["category"]) == ["Shirts"] * 5 + ["Shirts, Long", "Shirts"]
    header = HEADER.replace(",productDisplayName", "")  # a copy without names
    root = shop(tmp_path / "b", start.format(1, "Shirts") + ", Sports\n", "1", header=header)
    catalog = fashion_product_images(root)
    assert list(catalog.table["usage"]) == ["Casual, Sports"]
    assert catalog.attributes[-1] == "usage"
    assert split_row("a,b", 1) == ["a,b"]
    assert split_row("a", 3) == ["a"]
    assert split_row(",,", 3) == ["", "", ""]
    assert split_row('"a"x,b', 2) == ['"a"x', "b"]


def test_the_level_that_is_the_category(tmp_path: Path) -> None:
    root = shop(tmp_path, SHIRT, "15970")
    levels = {"articleType": "Shirts", "subCategory": "Topwear", "masterCategory": "Apparel"}
    for category, expected in (levels | {"gender": "Men"}).items():
        catalog = fashion_product_images(root, category=category)
        assert catalog.categories == [expected]
        assert set(levels) <= set(catalog.attributes)
        assert ("gender" in catalog.attributes) == (category != "gender")


def test_a_nested_folder_is_found_and_the_outer_one_wins(tmp_path: Path) -> None:
    root = tmp_path / "all"
    shop(root / "fashion" / "inner", WATCH, "59263")
    path = zipped(root, tmp_path / "all.zip")
    inner = fashion_product_images(path)
    assert list(inner.table["image"]) == ["fashion/inner/images/59263.jpg"]
    assert inner.source.load("fashion/inner/images/59263.jpg") == b"59263"
    shop(root / "fashion", SHIRT, "15970")  # Kaggle's own zips hold everything twice
    saved(root / "__MACOSX", {"styles.csv": ""})
    assert list(fashion_product_images(root).table["image"]) == ["fashion/images/15970.jpg"]


BAD_ROWS = {
    "1,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual": r"line 3.*has 9 field\(s\); .* has 10",
    SHIRT: "line 3: the id stands in line 2 already",
    SHIRT.replace("15970", "2").replace("Shirts", " "): "line 3: the category is empty",
    SHIRT.replace("15970", "39403"): r"line 3: no picture 'images/39403\.jpg'",
    SHIRT.replace("15970", "../2"): r"line 3: .* has a '\.\.'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = shop(tmp_path, SHIRT + row.strip() + "\n" + WATCH, "15970", "59263", "2")
    assert one_refused(BAD_ROWS[row], fashion_product_images, root) == ["15970", "59263"]


def test_what_is_no_such_catalogue(tmp_path: Path) -> None:
    read = fashion_product_images
    refuses(FileNotFoundError, "nowhere", read, tmp_path / "nowhere")
    refuses(FileNotFoundError, r"there is no styles\.csv in .*Kaggle", read, tmp_path)
    root = shop(tmp_path / "a", SHIRT, "15970")
    message = r"data\.category is 'subcategory'.*mean 'subCategory'"
    refuses(ValueError, message, read, root, category="subcategory")
    refuses(ValueError, "on_bad_item is 'drop'", read, root, on_bad_item="drop")
    for text, message in {
        "": r"styles\.csv\): the table is empty",
        HEADER.replace("articleT", "articlet"): r"\['articleType'\].*nearest is 'articletype'",
        HEADER.replace("productDisplayName", "image"): r"column\(s\) \['image'\] cannot be attrib",
        HEADER.replace("productDisplayName", "year"): r"column\(s\) \['year'\] stand twice",
        HEADER: "gives no item",
    }.items():
        refuses(ValueError, message, read, saved(root, {"styles.csv": text}))
    text = (HEADER + SHIRT).replace("Turtle", "Шапка").encode("cp1251")
    message = r"styles\.csv\): line 2 is not UTF-8"
    refuses(ValueError, message, read, saved(root, {"styles.csv": text}))
    two = zip_of(tmp_path / "two.zip", ["a/styles.csv", "b/styles.csv"])
    refuses(ValueError, r"styles\.csv stands 2 times.*give the folder", read, two)
    lost = shop(tmp_path / "b", WATCH)
    refuses(ValueError, r"gives no item \(1 refused\)", read, lost, on_bad_item="skip")
