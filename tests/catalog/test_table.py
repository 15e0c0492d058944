import os
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import listings
from visual_search.catalog.readers.delimited import read_csv
from visual_search.catalog.readers.table import table

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
CROPS = SHARED / "datasets" / "complete-the-look-crops.zip"
SAMPLE = SHARED / "datasets" / "fashion-product-images-sample.zip"

HEADER = "item_id,image,category,colour\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("1", "2", "3", "007"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(name.encode())
    return tmp_path


def write(shop: Path, text: str, name: str = "products.csv") -> Path:
    (shop / name).write_text(text, encoding="utf-8")
    return shop / name


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
    assert (catalog.name, catalog.attributes) == ("products", ["colour"])
    assert catalog.source.load("images/007.jpg") == b"007"


def test_columns_are_named_by_the_caller(shop: Path) -> None:
    path = write(
        shop,
        "sku\tkind\tboard\tpart\tcolour\tsize\n"
        "1\tRings\tb1\ttrain\tred\tS\n2\tRings\t\t test \tblue\tM\n3\tRings\tb1\t\tred\tL\n",
        "shop.tsv",
    )
    catalog = table(
        path,
        item_id="sku",
        category="kind",
        group="board",
        split="part",
        attributes=["size", "sku", "size"],
        image_pattern="images/{sku}.jpg",
        name="rings",
    )
    assert list(catalog.table["group"]) == ["b1", "2", "b1"]
    assert list(catalog.table["split"]) == ["train", "test", ""]
    assert catalog.attributes == ["size", "sku"]
    assert list(catalog.table["image"]) == ["images/1.jpg", "images/2.jpg", "images/3.jpg"]
    assert catalog.name == "rings"


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_csv_of_semicolons_or_tabs_is_read(shop: Path, sign: str) -> None:
    text = 'item_id;image;category\r\n1;images/1.jpg;"Hats, caps"\r\n'.replace(";", sign)
    assert list(table(write(shop, text)).table["category"]) == ["Hats, caps"]


def test_what_is_no_table_is_told_to_become_one(shop: Path) -> None:
    with zipfile.ZipFile(shop / "shop.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    for path in (shop / "shop.xlsx", write(shop, "item_id,image\n", "shop.md")):
        with pytest.raises(ValueError, match=r"is no table that is read here.*as CSV in UTF-8"):
            table(path)


def test_a_text_file_is_a_table_where_it_is_named(shop: Path) -> None:
    path = write(shop, HEADER.replace(",", "\t") + "1\timages/1.jpg\tHats\tred\n", "shop.txt")
    catalog = table(path)
    assert list(catalog.table["item_id"]) == ["1"]
    assert {choice.key: choice.value for choice in catalog.choices} == {"data.separator": "tab"}
    write(shop, HEADER + "2,images/2.jpg,Hats,red\n")
    assert list(table(shop).table["item_id"]) == ["2"]  # a read-me is no table
    assert list(table(shop, table_name="shop.txt").table["item_id"]) == ["1"]
    told = table(path, separator="tab", encoding="utf-8")
    assert told.choices == ()


def test_an_absolute_path_below_the_table_is_read(shop: Path) -> None:
    rows = f"1,{shop}/images/1.jpg,Hats,red\n2,{shop}2/images/2.jpg,Hats,red\n"
    catalog = table(write(shop, HEADER + rows), on_bad_item="skip")
    assert list(catalog.table["image"]) == ["images/1.jpg"]
    assert [item.item_id for item in catalog.refused] == ["2"]


def test_several_pictures_in_a_cell_or_a_column_are_told(shop: Path) -> None:
    text = "item_id,image,category,more\n1,images/1.jpg|images/2.jpg,Hats,\n"
    text += '2,images/2.jpg,Hats,"images/1.jpg,images/3.jpg"\n'
    catalog = table(write(shop, text), on_bad_item="skip")
    (refused,) = catalog.refused
    assert (refused.item_id, "several pictures" in refused.reason) == ("1", True)
    assert any("'more'" in str(choice) for choice in catalog.choices)
    assert not table(write(shop, HEADER + "1,images/1.jpg,Hats,red\n")).choices


def test_a_table_that_was_not_cut_is_told_how(shop: Path) -> None:
    path = write(shop, HEADER.replace(",", "^") + "1^images/1.jpg^Hats^red\n")
    with pytest.raises(ValueError, match=r"data\.separator"):
        table(path)
    assert list(table(path, separator="^").table["item_id"]) == ["1"]


def test_other_words_for_a_split(shop: Path) -> None:
    rows = "1,images/1.jpg,Hats, Training\n2,images/2.jpg,Hats,validation\n"
    catalog = table(write(shop, "item_id,image,category,part\n" + rows), split="part")
    assert list(catalog.table["split"]) == ["train", "val"]


def test_a_url_in_the_place_of_a_picture_is_told(shop: Path) -> None:
    path = write(shop, HEADER + "1,https://shop.example.org/1.jpg,Hats,red\n")
    with pytest.raises(BadItemsError, match="is a URL; fetch the pictures first"):
        table(path)


def test_a_pattern_may_cut_a_column(shop: Path) -> None:
    (shop / "images" / "01").mkdir()
    (shop / "images" / "01" / "0123.jpg").write_bytes(b"")
    path = write(shop, "item_id,category\n0123,Hats\n")
    catalog = table(path, image_pattern="images/{item_id:.2}/{item_id}.jpg")
    assert list(catalog.table["image"]) == ["images/01/0123.jpg"]


def test_quotes_commas_and_line_breaks_in_fields(shop: Path) -> None:
    text = (
        '\ufeff"item_id",image,category,colour\r\n'
        '1,images/1.jpg,"Coats, Jackets","a\r\n""b"""\r\n\r\n'
        '2,images/2.jpg,5" heel,c\r\n'
    )
    (shop / "products.csv").write_bytes(text.encode())
    catalog = table(shop / "products.csv")
    assert list(catalog.table["category"]) == ["Coats, Jackets", '5" heel']
    assert list(catalog.table["colour"]) == ['a\r\n"b"', "c"]


BAD_ROWS = {
    "3,images/3.jpg,Hats": "line 3: has 3 field",
    "3,images/3.jpg,Hats,red,extra": "line 3: has 5 field",
    '3,images/3.jpg,"Ha"ts,red': "line 3: is malformed",
    '3,images/3.jpg,Hats,"never closed\nfor ever': "lines 3-4: is malformed",
    "1,images/3.jpg,Hats,red": "line 3: the id stands in line 2 already",
    ",images/3.jpg,Hats,red": "line 3: the id is empty",
    "3,images/3.jpg,  ,red": "line 3: the category is empty",
    "3,,Hats,red": "line 3: picture path '' is empty",
    "3,images/4.jpg,Hats,red": r"line 3: no picture 'images/4\.jpg'",
    "3,images,Hats,red": "line 3: 'images' is no plain file",
    "3,../products.csv,Hats,red": "line 3: .* has a '..'",
    "3,/etc/passwd,Hats,red": "line 3: .* is absolute",
    "3,C:/3.jpg,Hats,red": "line 3: .* has a drive letter",
    "3,images/link.jpg,Hats,red": "line 3: .* is a link that leads out of",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_refused_and_named(shop: Path, row: str) -> None:
    (shop / "images" / "link.jpg").symlink_to("/etc/hostname")
    path = write(shop, HEADER + f"1,images/1.jpg,Hats,red\n{row}\n")
    with pytest.raises(BadItemsError, match="1 bad item") as caught:
        table(path)
    (item,) = caught.value.refused
    said = f"{item.item_id}: {item.reason}" if item.item_id.startswith("line") else item.reason
    assert re.search(BAD_ROWS[row], said)
    catalog = table(path, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["1"]
    assert catalog.refused == caught.value.refused


def test_bad_rows_leave_the_good_ones_behind_them(shop: Path) -> None:
    path = write(shop, HEADER + '1,images/1.jpg\n2,images/2.jpg,"a"b,c\n3,images/3.jpg,Hats,d\n')
    catalog = table(path, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["3"]
    assert [item.item_id for item in catalog.refused] == ["line 2", "line 3"]


def test_an_unknown_split_is_refused(shop: Path) -> None:
    path = write(shop, "item_id,image,category,part\n1,images/1.jpg,Hats,extra\n")
    with pytest.raises(BadItemsError, match=r"line 2: the split is 'extra'; expected one of"):
        table(path, split="part")


def test_a_table_without_a_good_row_is_an_error(shop: Path) -> None:
    for rows in ("", "1,images/9.jpg,Hats,red\n"):
        with pytest.raises(ValueError, match="gives no item"):
            table(write(shop, HEADER + rows), on_bad_item="skip")
    with pytest.raises(ValueError, match="the table is empty; expected a header"):
        table(write(shop, ""))


def test_a_missing_column_names_the_nearest(shop: Path) -> None:
    path = write(shop, "item_id,image,Catgory\n1,images/1.jpg,Hats\n")
    with pytest.raises(ValueError, match=r"column \['category'\]; it has .* is 'Catgory'"):
        table(path)
    with pytest.raises(ValueError, match=r"no column \['board'\]; it has"):
        table(path, category="Catgory", group="board")
    with pytest.raises(ValueError, match=r"no column \['id'\]"):
        table(path, category="Catgory", image_pattern="images/{id}.jpg")
    with pytest.raises(ValueError, match=r"no column \['colour'\]"):
        table(path, category="Catgory", attributes=["colour"])


@pytest.mark.parametrize(
    "pattern", ["images/{item_id", "images/{}.jpg", "{item_id:d}", "{item_id.x}"]
)
def test_a_malformed_pattern_is_refused(shop: Path, pattern: str) -> None:
    path = write(shop, HEADER + "1,images/1.jpg,Hats,red\n")
    with pytest.raises(ValueError, match=r"image_pattern .* is malformed"):
        table(path, image_pattern=pattern)


def test_a_pattern_without_a_column_is_refused(shop: Path) -> None:
    path = write(shop, HEADER + "1,images/1.jpg,Hats,red\n")
    with pytest.raises(ValueError, match="names no column"):
        table(path, image_pattern="images/1.jpg")


def test_a_pattern_cannot_leave_the_root(shop: Path) -> None:
    path = write(shop, "item_id,category\n../../x,Hats\n")
    with pytest.raises(BadItemsError, match=r"has a '\.\.'"):
        table(path, image_pattern="images/{item_id}.jpg")


def test_a_column_with_a_name_of_the_catalogue_is_asked_about(shop: Path) -> None:
    path = write(shop, "item_id,image,category,split\n1,images/1.jpg,Hats,train\n")
    with pytest.raises(ValueError, match=r"column\(s\) \['split'\] as attributes.*split=split"):
        table(path)
    assert list(table(path, split="split").table["split"]) == ["train"]
    assert list(table(path, attributes=[]).table["split"]) == [""]


def test_columns_named_twice_or_not_at_all(shop: Path) -> None:
    with pytest.raises(ValueError, match=r"\['colour'\] stand twice"):
        table(write(shop, HEADER.strip() + ",colour\n1,images/1.jpg,Hats,red,red\n"))
    catalog = table(write(shop, ",item_id,image,category\n0,1,images/1.jpg,Hats\n"))
    assert catalog.attributes == ["column_1"]


def test_a_table_in_another_encoding_is_named(shop: Path) -> None:
    (shop / "products.csv").write_bytes(
        HEADER.encode() + "1,images/1.jpg,Шапка,x\n".encode("cp1251")
    )
    with pytest.raises(ValueError, match=r"products\.csv.*line 2 is not UTF-8.*data\.encoding"):
        table(shop / "products.csv")
    assert list(table(shop / "products.csv", encoding="cp1251").table["category"]) == ["Шапка"]


def test_an_unreadable_header_is_named() -> None:
    with pytest.raises(ValueError, match="the header is unreadable"):
        read_csv(b'"a"b,c\n1,2\n', ",")


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
        }
    )
    frame.to_parquet(shop / "products.parquet")
    catalog = table(shop / "products.parquet")
    columns = catalog.table.to_dict("list")
    assert columns["item_id"] == ["1", "2", "3"]
    assert columns["category"] == ["Hats", "NA", "Hats"]
    assert columns["year"] == ["2012", "", "2014"]
    assert columns["price"] == ["1.5", "2.0", ""]
    assert columns["size"] == ["7", "", "9"]
    assert columns["sold"] == ["True", "False", "True"]
    assert columns["note"] == ["a", "", "NA"]


def test_the_index_of_pandas_is_no_attribute(shop: Path) -> None:
    frame = pd.DataFrame(
        {"item_id": ["1", "2"], "image": ["images/1.jpg", "images/2.jpg"], "category": "Hats"}
    )
    frame[frame["item_id"] == "2"].to_parquet(shop / "products.parquet")
    assert table(shop / "products.parquet").attributes == []


def test_a_bad_row_of_parquet_is_named_by_its_number(shop: Path) -> None:
    frame = pd.DataFrame({"item_id": ["1", None], "image": "images/1.jpg", "category": "Hats"})
    frame.to_parquet(shop / "products.parquet")
    with pytest.raises(BadItemsError, match=r"'row 2' .*row 2: the id is empty"):
        table(shop / "products.parquet")


def test_parquet_that_is_none_or_holds_pictures_is_refused(shop: Path) -> None:
    (shop / "false.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        table(shop / "false.parquet")
    pd.DataFrame({"item_id": ["1"], "image": [b"\xff"]}).to_parquet(shop / "bytes.parquet")
    with pytest.raises(ValueError, match=r"column 'image' of .* holds binary; expected text"):
        table(shop / "bytes.parquet")


@pytest.mark.parametrize("inner", ["", "nested/shop/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_table_is_found_in_a_folder_or_zip(tmp_path: Path, kind: str, inner: str) -> None:
    contents = {
        "products.csv": HEADER + "1,images/1.jpg,Hats,red\n2,images/2.jpg,Hats,red\n",
        "images/1.jpg": "one",
    }
    for name, text in contents.items():
        (tmp_path / "shop" / inner / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / inner / name).write_text(text)
    path = tmp_path / "shop"
    if kind == "zip":
        path = tmp_path / "shop.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in contents.items():
                archive.writestr(inner + name, text)
            archive.writestr("__MACOSX/._products.csv", "")
    catalog = table(path, on_bad_item="skip")
    assert catalog.source.load(catalog.table["image"][0]) == b"one"
    assert [item.item_id for item in catalog.refused] == ["2"]
    assert catalog.name == "shop"


def test_several_tables_or_none_are_asked_about(shop: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 0 tables .* add one"):
        table(shop)
    write(shop, HEADER + "1,images/1.jpg,Hats,red\n", "a.csv")
    write(shop, HEADER + "2,images/2.jpg,Hats,red\n", "b.csv")
    with pytest.raises(ValueError, match=r"holds 2 tables \['a\.csv', 'b\.csv'\].*table_name"):
        table(shop)
    with pytest.raises(ValueError, match=r"has no table 'c\.csv'; expected one of \['a\.csv'"):
        table(shop, table_name="c.csv")
    assert list(table(shop, table_name="b.csv").table["item_id"]) == ["2"]


def test_a_missing_path_and_another_word_are_named(shop: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        table(shop / "nowhere.csv")
    with pytest.raises(ValueError, match="on_bad_item is 'drop'"):
        table(shop, on_bad_item="drop")  # type: ignore[arg-type]


def test_a_table_too_large_for_its_zip_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MAX_LISTING_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("products.csv", HEADER)
    with pytest.raises(ValueError, match=r"'products\.csv' has"):
        table(tmp_path / "a.zip")


@pytest.mark.skipif(not CROPS.exists(), reason="complete-the-look-crops is not on this machine")
def test_complete_the_look_crops() -> None:
    catalog = table(CROPS, item_id="product_id", group="board")
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (12_225, 21, 0)
    assert catalog.table["group"].nunique() == 11_673
    assert "Coats & Jackets" in catalog.categories
    picture = catalog.source.load(catalog.table["image"][12_224])
    assert isinstance(picture, bytes)
    assert picture[:2] == b"\xff\xd8"
    assert len(set(catalog.source.content_keys(list(catalog.table["image"])))) > 12_000


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shop sample is not on this machine")
def test_the_shop_sample() -> None:
    columns = {"item_id": "id", "category": "articleType", "image_pattern": "images/{id}.jpg"}
    with pytest.raises(BadItemsError, match=r"5 bad item(.|\n)*no picture 'images/39401\.jpg'"):
        table(SAMPLE, **columns)  # type: ignore[arg-type]
    catalog = table(SAMPLE, **columns, on_bad_item="skip")  # type: ignore[arg-type]
    assert (len(catalog), len(catalog.refused)) == (6_000, 5)
    assert int((catalog.table["usage"] == "NA").sum()) == 47
    assert "Tshirts" in catalog.categories
