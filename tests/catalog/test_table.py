import datetime
from pathlib import Path

import pandas as pd
import pytest

from tests.catalog.shops import SHARED, needs_shared, one_refused, refuses, saved, zip_of, zipped
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import listings
from visual_search.catalog.readers.fashion_product_images import fashion_product_images
from visual_search.catalog.readers.table import table
from visual_search.catalog.splits import assign_splits

HEADER = "item_id,image,category,colour\n"
ONE = "1,images/1.jpg,Hats,red\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return saved(tmp_path, {f"images/{name}.jpg": name for name in ("1", "2", "3", "007")})


def write(shop: Path, text: str | bytes, name: str = "products.csv") -> Path:
    return saved(shop, {name: text}) / name


def test_every_value_stays_text(shop: Path) -> None:
    path = write(shop, HEADER + "007,./images/007.jpg, Coats ,NA\n1,images/1.jpg,NA,\n")
    catalog = table(path)
    assert catalog.table.to_dict("list") == {
        "item_id": ["007", "1"],
        "image": ["images/007.jpg", "images/1.jpg"],
        "category": ["Coats", "NA"],
        "group": ["007", "1"],
        "split": ["", ""],
        "colour": ["NA", ""],
    }
    assert (catalog.name, catalog.attributes, catalog.choices) == ("products", ["colour"], ())
    assert catalog.source.load("images/007.jpg") == b"007"


def test_columns_are_named_by_the_caller(shop: Path) -> None:
    text = "sku\tkind\tboard\tpart\tcolour\tsize\n1\tRings\tb1\ttrain\tred\tS\n"
    text += "2\tRings\t\t validation \tblue\tM\n3\tRings\tb1\t\tred\tL\n"
    catalog = table(
        write(shop, text, "shop.tsv"),
        item_id="sku",
        category="kind",
        group="board",
        split="part",
        attributes=["size", "sku", "size"],
        image_pattern="images/{sku}.jpg",
        name="rings",
    )
    assert list(catalog.table["group"]) == ["b1", "2", "b1"]
    assert list(catalog.table["split"]) == ["train", "val", ""]
    assert (catalog.name, catalog.attributes) == ("rings", ["size", "sku"])
    assert list(catalog.table["image"]) == ["images/1.jpg", "images/2.jpg", "images/3.jpg"]
    saved(shop, ["images/01/0123.jpg"])  # a pattern may cut a column
    path = write(shop, "item_id,category\n0123,Hats\n")
    catalog = table(path, image_pattern="images/{item_id:.2}/{item_id}.jpg")
    assert list(catalog.table["image"]) == ["images/01/0123.jpg"]


def test_what_separates_and_quotes_fields(shop: Path) -> None:
    for sign in ";\t":
        text = 'item_id;image;category\r\n1;images/1.jpg;"Hats, caps"\r\n'.replace(";", sign)
        assert list(table(write(shop, text)).table["category"]) == ["Hats, caps"]
    text = (
        '\ufeff"item_id",image,category,colour\r\n'
        '1,images/1.jpg,"Coats, Jackets","a\r\n""b"""\r\n\r\n'
        '2,images/2.jpg,5" heel,c\r\n'
    )
    catalog = table(write(shop, text))
    assert list(catalog.table["category"]) == ["Coats, Jackets", '5" heel']
    assert list(catalog.table["colour"]) == ['a\r\n"b"', "c"]
    path = write(shop, (HEADER + ONE).replace(",", "^"))  # was not cut: told how
    refuses(ValueError, r"data\.separator", table, path)
    assert list(table(path, separator="^").table["item_id"]) == ["1"]


def test_a_text_file_is_a_table_where_it_is_named(shop: Path) -> None:
    path = write(shop, (HEADER + ONE).replace(",", "\t"), "shop.txt")
    catalog = table(path)
    assert list(catalog.table["item_id"]) == ["1"]
    assert {choice.key: choice.value for choice in catalog.choices} == {"data.separator": "tab"}
    write(shop, HEADER + "2,images/2.jpg,Hats,red\n")
    assert list(table(shop).table["item_id"]) == ["2"]  # a read-me is no table
    assert list(table(shop, table_name="shop.txt").table["item_id"]) == ["1"]
    assert table(path, separator="tab", encoding="utf-8").choices == ()


def test_an_absolute_path_below_the_table_is_read(shop: Path) -> None:
    rows = f"1,{shop}/images/1.jpg,Hats,red\n2,{shop}2/images/2.jpg,Hats,red\n"
    catalog = table(write(shop, HEADER + rows), on_bad_item="skip")
    assert list(catalog.table["image"]) == ["images/1.jpg"]
    assert [item.item_id for item in catalog.refused] == ["2"]


def test_several_pictures_in_a_cell_or_a_column_are_told(shop: Path) -> None:
    text = "item_id,image,category,more\n1,images/1.jpg|images/2.jpg,Hats,\n"
    text += '2,images/2.jpg,Hats,"images/1.jpg,images/3.jpg"\n'
    catalog = table(write(shop, text))
    assert list(catalog.table["image"]) == ["images/1.jpg", "images/2.jpg", "images/2.jpg"]
    told = "\n".join(map(str, catalog.choices))
    assert "3 pictures of 2 products" in told
    assert "'more'" in told
    catalog = table(write(shop, text), image=["more", "image"])
    assert list(catalog.table["item_id"]) == ["1", "1~2", "2", "2~2", "2~3"]
    assert catalog.products == ["1", "1", "2", "2", "2"]
    assert catalog.attributes == ["product"]
    first = table(write(shop, text), image=["more", "image"], further_pictures=False)
    assert list(first.table["image"]) == ["images/1.jpg", "images/1.jpg"]
    assert (first.attributes, first.products) == ([], None)
    assert "3 further pictures of 2 products are not read" in "\n".join(map(str, first.choices))


def test_a_column_called_product_gives_way_to_whose_picture_an_item_is(shop: Path) -> None:
    text = "item_id,image,category,product\n1,images/1.jpg|images/2.jpg,Hats,Air\n"
    catalog = table(write(shop, text))
    assert catalog.products == ["1", "1"]
    assert "'product' is not kept" in "\n".join(map(str, catalog.choices))
    single = table(write(shop, text), further_pictures=False)
    assert list(single.table["product"]) == ["Air"]
    assert single.products is None
    broken = "item_id,image,category\n1,images/none.jpg|images/2.jpg,Hats\n2,images/3.jpg,Hats\n"
    left = table(write(shop, broken), on_bad_item="skip_any")
    assert list(left.table["item_id"]) == ["1~2", "2"]  # named alike when the first one comes


@pytest.mark.parametrize(("place", "told"), [(0, False), (7, False), (8, True)])
def test_eight_values_tell_that_a_column_names_pictures(shop: Path, place: int, told: bool) -> None:
    more = ["images/2.jpg"] * 9
    more[place] = "no picture"
    rows = "".join(f"{n},images/1.jpg,Hats,{text}\n" for n, text in enumerate(more))
    choices = table(write(shop, HEADER + rows)).choices
    assert [("'colour'" in str(choice)) for choice in choices] == [True] * told


BAD_ROWS = {
    "3,images/3.jpg,Hats": "line 3: has 3 field",
    "3,images/3.jpg,Hats,red,extra": "line 3: has 5 field",
    '3,images/3.jpg,"Ha"ts,red': "line 3: is malformed",
    '3,images/3.jpg,Hats,"never closed\nfor ever': "lines 3-4: is malformed",
    "3,,Hats,red": "line 3: picture path '' is empty",
    "3,images/4.jpg,Hats,red": r"line 3: no picture 'images/4\.jpg'",
    "3,https://shop.example.org/1.jpg,Hats,red": "is a URL; data.download=true fetches it",
    "3,images,Hats,red": "line 3: 'images' is no plain file",
    "3,../products.csv,Hats,red": "line 3: .* has a '..'",
    "3,/etc/passwd,Hats,red": "line 3: .* is absolute",
    "3,images/link.jpg,Hats,red": "line 3: .* is a link that leads out of",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(shop: Path, row: str) -> None:
    (shop / "images" / "link.jpg").symlink_to("/etc/hostname")
    assert one_refused(BAD_ROWS[row], table, write(shop, HEADER + ONE + row + "\n")) == ["1"]


def test_bad_rows_leave_the_good_ones_behind_them(shop: Path) -> None:
    path = write(shop, HEADER + '1,images/1.jpg\n2,images/2.jpg,"a"b,c\n3,images/3.jpg,Hats,d\n')
    catalog = table(path, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["3"]
    assert [item.item_id for item in catalog.refused] == ["line 2", "line 3"]
    path = write(shop, HEADER.replace("colour", "part") + ONE)
    refuses(
        BadItemsError, r"line 2: the split is 'red'; expected one of", table, path, split="part"
    )
    path = write(shop, "item_id,category\n../../x,Hats\n")
    refuses(BadItemsError, r"has a '\.\.'", table, path, image_pattern="images/{item_id}.jpg")


def test_columns_that_are_missing_twice_or_the_catalogues_own(shop: Path) -> None:
    path = write(shop, "item_id,image,Catgory\n1,images/1.jpg,Hats\n")
    for settings, message in (
        ({}, r"column \['category'\]; it has .* is 'Catgory'"),
        ({"group": "board"}, r"no column \['board'\]; it has"),
        ({"image_pattern": "images/{id}.jpg"}, r"no column \['id'\]"),
        ({"attributes": ["colour"]}, r"no column \['colour'\]"),
    ):
        named = {"category": "Catgory"} if settings else {}
        refuses(ValueError, message, table, path, **named, **settings)
    path = write(shop, "item_id,image,category,split\n1,images/1.jpg,Hats,train\n")
    kept = {"attributes": ["split"]}
    refuses(ValueError, r"column\(s\) \['split'\] as attributes.*split=split", table, path, **kept)
    assert list(table(path, split="split").table["split"]) == ["train"]
    assert list(table(path, attributes=[]).table["split"]) == [""]
    path = write(shop, HEADER.strip() + ",colour\n" + ONE)
    refuses(ValueError, r"\['colour'\] stand twice", table, path)
    catalog = table(write(shop, ",item_id,image,category\n0,1,images/1.jpg,Hats\n"))
    assert catalog.attributes == ["column_1"]


@pytest.mark.parametrize(
    "pattern", ["images/{item_id", "images/{}.jpg", "{item_id:d}", "{item_id.x}", "images/1.jpg"]
)
def test_a_wrong_pattern_is_refused(shop: Path, pattern: str) -> None:
    message = "is malformed" if "{" in pattern else "names no column"
    refuses(ValueError, message, table, write(shop, HEADER + ONE), image_pattern=pattern)


def test_tables_that_cannot_be_read_are_named(shop: Path) -> None:
    for text, message in (
        (HEADER, "gives no item"),
        (HEADER + "1,images/9.jpg,Hats,red\n", "gives no item"),
        ("", "the table is empty; expected a header"),
        ('"a"b,c\n1,2\n', "the header is unreadable"),
    ):
        refuses(ValueError, message, table, write(shop, text), on_bad_item="skip")
    path = write(shop, HEADER.encode() + "1,images/1.jpg,Шапка,x\n".encode("cp1251"))
    refuses(ValueError, r"products\.csv.*line 2 is not UTF-8.*data\.encoding", table, path)
    assert list(table(path, encoding="cp1251").table["category"]) == ["Шапка"]
    refuses(FileNotFoundError, r"nowhere\.csv", table, shop / "nowhere.csv")
    refuses(ValueError, "on_bad_item is 'drop'", table, shop, on_bad_item="drop")
    workbook = zip_of(shop / "shop.ods", {"content.xml": "<workbook/>"})
    for path in (workbook, write(shop, "item_id,image\n", "shop.md")):
        refuses(ValueError, r"is no table that is read here.*as CSV in UTF-8", table, path)


# ---- Parquet


def test_parquet_gives_the_same_texts_as_csv(shop: Path) -> None:
    frame = pd.DataFrame(
        {
            "item_id": [1, 2, 3],
            "image": [f"images/{i}.jpg" for i in (1, 2, 3)],
            "category": pd.Categorical(["Hats", "NA", "Hats"]),
            "year": [2012.0, None, 2014.0],
            "price": [1.5, 2.0, None],
            "size": pd.array([7, None, 9], dtype="Int64"),
            "sold": [True, False, True],
            "note": ["a", None, "NA"],
            "day": [datetime.date(2024, 3, 1), None, datetime.date(2024, 3, 2)],
        }
    )
    path = shop / "products.parquet"
    frame.to_parquet(path)
    columns = table(path).table.to_dict("list")
    assert columns["item_id"] == ["1", "2", "3"]
    assert columns["category"] == ["Hats", "NA", "Hats"]
    assert columns["year"] == ["2012", "", "2014"]
    assert columns["price"] == ["1.5", "2.0", ""]
    assert columns["size"] == ["7", "", "9"]
    assert columns["sold"] == ["True", "False", "True"]
    assert columns["note"] == ["a", "", "NA"]
    assert columns["day"] == ["2024-03-01", "", "2024-03-02"]
    frame = frame[["item_id", "image", "category"]]
    frame[frame["item_id"] == 2].to_parquet(path)
    assert table(path).attributes == []  # the index of pandas is none
    frame.assign(item_id=["1", None, "3"]).to_parquet(path)
    refuses(BadItemsError, r"'row 2' .*row 2: the id is empty", table, path)
    frame.assign(image=b"\xff").to_parquet(path)
    refuses(ValueError, r"column 'image' of .* holds binary; expected text", table, path)
    path.write_bytes(b"no parquet")
    refuses(ValueError, "not a readable Parquet file", table, path)


# ---- where the table lies


@pytest.mark.parametrize("inner", ["", "nested/shop/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_table_is_found_in_a_folder_or_zip(tmp_path: Path, kind: str, inner: str) -> None:
    contents = {"products.csv": HEADER + ONE + "2,images/2.jpg,Hats,red\n", "images/1.jpg": "one"}
    saved(tmp_path / "shop" / "__MACOSX", {"._products.csv": ""})
    path = saved(tmp_path / "shop", {inner + name: text for name, text in contents.items()})
    if kind == "zip":
        path = zipped(path, tmp_path / "shop.zip")
    catalog = table(path, on_bad_item="skip")
    assert catalog.source.load(catalog.table["image"][0]) == b"one"
    assert [item.item_id for item in catalog.refused] == ["2"]
    assert catalog.name == "shop"


def test_several_tables_or_none_are_asked_about(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses(ValueError, r"holds 0 tables .* add one", table, shop)
    for number, name in (("1", "a.csv"), ("2", "b.csv")):
        write(shop, HEADER + ONE.replace("1", number), name)
    refuses(ValueError, r"holds 2 tables \['a\.csv', 'b\.csv'\].*table_name", table, shop)
    refuses(ValueError, r"no table 'c\.csv'; .* \['a\.csv'", table, shop, table_name="c.csv")
    assert list(table(shop, table_name="b.csv").table["item_id"]) == ["2"]
    monkeypatch.setattr(listings, "MAX_LISTING_BYTES", 10)
    path = zip_of(shop / "a.zip", {"products.csv": HEADER})
    refuses(ValueError, r"'products\.csv' has", table, path)


@needs_shared("complete-the-look-crops.zip")
def test_complete_the_look_crops() -> None:
    catalog = table(SHARED / "complete-the-look-crops.zip", item_id="product_id", group="board")
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (12_225, 21, 0)
    assert catalog.table["group"].nunique() == 11_673
    assert "Coats & Jackets" in catalog.categories
    assert catalog.source.load(catalog.table["image"][12_224])[:2] == b"\xff\xd8"
    tested = assign_splits(catalog, method="crc32", val_fraction=0.1, test_fraction=0.1, seed=0)
    splits = list(tested.table["split"])  # the development benchmark
    assert splits.count("test") == 1196
    assert splits.count("val") / 11_029 == pytest.approx(0.1, abs=0.01)


@needs_shared("fashion-product-images-sample.zip")
def test_the_shop_sample() -> None:
    """Read by the names of its columns, and by its own reader, it is the same shop."""
    path, images = SHARED / "fashion-product-images-sample.zip", "images/{id}.jpg"
    named = {"item_id": "id", "category": "articleType", "image_pattern": images}
    catalog = table(path, **named, on_bad_item="skip")  # type: ignore[arg-type]
    own = fashion_product_images(path, on_bad_item="skip")
    assert (len(own), len(own.refused), len(own.categories)) == (6_000, 5, 122)
    assert any("no picture 'images/39401.jpg'" in item.reason for item in own.refused)
    assert int((own.table["usage"] == "NA").sum()) == 47
    assert own.source.load(own.table["image"][0])[:2] == b"\xff\xd8"
    for column in ("item_id", "category", "usage"):
        assert catalog.table[column].equals(own.table[column])
