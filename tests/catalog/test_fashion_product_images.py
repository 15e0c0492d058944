import os
import zipfile
from pathlib import Path

import pytest

from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.fashion_product_images import fashion_product_images, split_row

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
SAMPLE = SHARED / "datasets" / "fashion-product-images-sample.zip"

HEADER = (
    "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,"
    "productDisplayName\n"
)
SHIRT = "15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check Men Shirt\n"
WATCH = "59263,Women,Accessories,Watches,Watches,Silver,Winter,2016,NA,Titan Women Silver Watch\n"


def shop(root: Path, rows: str, *ids: str, inner: str = "", header: str = HEADER) -> Path:
    images = root / inner / "images"
    images.mkdir(parents=True)
    (root / inner / "styles.csv").write_text(header + rows, encoding="utf-8")
    for item_id in ids:
        (images / f"{item_id}.jpg").write_bytes(item_id.encode())
    return root


def test_rows_become_items(tmp_path: Path) -> None:
    catalog = fashion_product_images(shop(tmp_path, SHIRT + WATCH, "15970", "59263"))
    assert catalog.table.to_dict("list") == {
        "item_id": ["15970", "59263"],
        "image": ["images/15970.jpg", "images/59263.jpg"],
        "category": ["Shirts", "Watches"],
        "group": ["15970", "59263"],
        "split": ["", ""],
        "gender": ["Men", "Women"],
        "masterCategory": ["Apparel", "Accessories"],
        "subCategory": ["Topwear", "Watches"],
        "articleType": ["Shirts", "Watches"],
        "baseColour": ["Navy Blue", "Silver"],
        "season": ["Fall", "Winter"],
        "year": ["2011", "2016"],
        "usage": ["Casual", "NA"],  # a value, not a missing one
        "productDisplayName": ["Turtle Check Men Shirt", "Titan Women Silver Watch"],
    }
    assert catalog.name == "fashion_product_images"
    assert catalog.source.load("images/59263.jpg") == b"59263"


def test_commas_without_quotes_belong_to_the_name(tmp_path: Path) -> None:
    rows = (
        "1,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,Shirt, Long Sleeve, XL\n"
        '2,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,"Shirt, ""Slim"""\n'
        '3,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,"Slim" Shirt, XL\n'
        "4,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,\n"
        '5,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,5" Heel\r\n'
        '6,Men,Apparel,Topwear,"Shirts, Long",Red,Fall,2011,Casual,"open\n'
        "7,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,odd\x0b\x85\u2028breaks\n"
    )
    catalog = fashion_product_images(shop(tmp_path, rows, *"1234567"))
    assert list(catalog.table["productDisplayName"]) == [
        "Shirt, Long Sleeve, XL",
        'Shirt, "Slim"',
        '"Slim" Shirt, XL',
        "",
        '5" Heel',
        '"open',
        "odd\x0b\x85\u2028breaks",
    ]
    assert list(catalog.table["category"]) == ["Shirts"] * 5 + ["Shirts, Long", "Shirts"]


def test_a_copy_without_names_gives_the_overflow_to_its_last_column(tmp_path: Path) -> None:
    header = HEADER.replace(",productDisplayName", "")
    rows = "1,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual, Sports\n"
    catalog = fashion_product_images(shop(tmp_path, rows, "1", header=header))
    assert list(catalog.table["usage"]) == ["Casual, Sports"]
    assert catalog.attributes[-1] == "usage"


def test_a_line_split_into_fields() -> None:
    assert split_row("a,b", 1) == ["a,b"]
    assert split_row("a", 3) == ["a"]
    assert split_row(",,", 3) == ["", "", ""]
    assert split_row('"a"x,b', 2) == ['"a"x', "b"]


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("articleType", "Shirts"),
        ("subCategory", "Topwear"),
        ("masterCategory", "Apparel"),
        ("gender", "Men"),
    ],
)
def test_the_level_that_is_the_category(tmp_path: Path, category: str, expected: str) -> None:
    catalog = fashion_product_images(shop(tmp_path, SHIRT, "15970"), category=category)
    assert catalog.categories == [expected]
    assert {"masterCategory", "subCategory", "articleType"} <= set(catalog.attributes)
    assert ("gender" in catalog.attributes) == (category != "gender")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_nested_folder_is_found_and_the_outer_one_wins(tmp_path: Path, kind: str) -> None:
    root = shop(tmp_path / "all", WATCH, "59263", inner="fashion/inner")
    if kind == "folder":  # Kaggle's own zips hold everything twice
        shop(root, SHIRT, "15970", inner="fashion")
    else:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.writestr("__MACOSX/styles.csv", "")
            for file in sorted(root.rglob("*.*")):
                archive.write(file, file.relative_to(root).as_posix())
        root = tmp_path / "all.zip"
    catalog = fashion_product_images(root)
    expected = "fashion/images/15970.jpg"
    if kind == "zip":
        expected = "fashion/inner/images/59263.jpg"
    assert list(catalog.table["image"]) == [expected]
    assert catalog.source.load(expected) == Path(expected).stem.encode()


BAD_ROWS = {
    "1,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual": r"line 3.*has 9 field\(s\); .* has 10",
    SHIRT: "line 3: the id stands in line 2 already",
    SHIRT.replace("15970", " "): "line 3: the id is empty",
    SHIRT.replace("15970", "2").replace("Shirts", " "): "line 3: the category is empty",
    SHIRT.replace("15970", "39403"): r"line 3: no picture 'images/39403\.jpg'",
    SHIRT.replace("15970", "../2"): r"line 3: .* has a '\.\.'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str) -> None:
    root = shop(tmp_path, SHIRT + row.strip() + "\n" + WATCH, "15970", "59263", "2")
    with pytest.raises(BadItemsError, match="1 bad item") as caught:
        fashion_product_images(root)
    with pytest.raises(BadItemsError, match=BAD_ROWS[row]):
        fashion_product_images(root)
    catalog = fashion_product_images(root, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["15970", "59263"]
    assert catalog.refused == caught.value.refused


def test_what_is_no_such_catalogue(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fashion_product_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no styles\.csv in .*Kaggle"):
        fashion_product_images(tmp_path)
    root = shop(tmp_path / "a", SHIRT, "15970")
    with pytest.raises(ValueError, match=r"data\.category is 'subcategory'.*mean 'subCategory'"):
        fashion_product_images(root, category="subcategory")
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        fashion_product_images(root, on_bad_item="drop")  # type: ignore[arg-type]
    shop(root, WATCH, inner="b")
    (root / "styles.csv").unlink()
    shop(root, WATCH, inner="c")
    with pytest.raises(ValueError, match=r"styles\.csv stands 2 times.*give the folder"):
        fashion_product_images(root)
    with pytest.raises(ValueError, match="gives no item"):
        fashion_product_images(root / "b", on_bad_item="skip")


def test_a_table_in_another_form(tmp_path: Path) -> None:
    root = shop(tmp_path, SHIRT, "15970")
    for text, message in {
        "": r"styles\.csv\): the table is empty",
        HEADER.replace(
            "articleType", "articletype"
        ): r"\['articleType'\].*nearest is 'articletype'",
        HEADER.replace("productDisplayName", "image"): r"column\(s\) \['image'\] cannot be attrib",
        HEADER.replace("productDisplayName", "year"): r"column\(s\) \['year'\] stand twice",
        HEADER: "gives no item",
    }.items():
        (root / "styles.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            fashion_product_images(root)
    (root / "styles.csv").write_bytes((HEADER + SHIRT).replace("Turtle", "Шапка").encode("cp1251"))
    with pytest.raises(ValueError, match=r"styles\.csv\): line 2 is not UTF-8"):
        fashion_product_images(root)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shop sample is not on this machine")
def test_the_shop_sample() -> None:
    with pytest.raises(BadItemsError, match=r"5 bad item(.|\n)*no picture 'images/39401\.jpg'"):
        fashion_product_images(SAMPLE)
    catalog = fashion_product_images(SAMPLE, on_bad_item="skip")
    assert (len(catalog), len(catalog.refused)) == (6_000, 5)
    assert len(catalog.categories) == 122
    assert int((catalog.table["usage"] == "NA").sum()) == 47
    picture = catalog.source.load(catalog.table["image"][0])
    assert isinstance(picture, bytes)
    assert picture[:2] == b"\xff\xd8"
    by_part = fashion_product_images(SAMPLE, category="subCategory", on_bad_item="skip")
    assert (len(by_part), len(by_part.categories)) == (6_000, 40)
