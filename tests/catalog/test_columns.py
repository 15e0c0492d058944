"""Columns that nobody has named: found out by content and names, said, and named the next time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.catalog.shops import SHARED, needs_shared, refuses, saved, zipped
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.products import pictures_in
from visual_search.catalog.readers.table import table

KINDS = ("Shoes", "Bags", "Coats", "Hats")
NUM = 40


def column(of: str) -> list[str]:
    """Forty values of a kind."""
    made = {
        "code": "A{0:04d}",
        "article": "7{0:04d}",
        "photo": "photos/{0}.jpg",
        "name": "{0}.jpg",
        "url": "https://shop.example/{0}.jpg?v=1",
        "page": "https://shop.example/product/{0}",
        "title": "A fine thing for every day, number {0}",
        "price": "{0},90",
        "euros": "{0}.50 EUR",
        "one": "new",
    }
    if of in made:
        return [made[of].format(n) for n in range(NUM)]
    of_row = {
        "kind": lambda n: KINDS[n % 4],
        "colour": lambda n: ("red", "blue", "green", "black", "white")[n % 5],
        "size": lambda n: str(36 + n % 12),
        "year": lambda n: str(2010 + n // 4),
        "product": lambda n: f"P{n // 8:02d}-{KINDS[n % 4]}",
        "split": lambda n: ("train", "valid", "test")[n % 3],
        "list": lambda n: "|".join(f"photos/{n + m}.jpg" for m in range(1 + n % 2)),
    }
    return [of_row[of](n) for n in range(NUM)]


def shop(folder: Path, columns: dict[str, str]) -> Path:
    """A table, with the pictures that its photos name."""
    saved(folder, {f"photos/{n}.jpg": b"" for n in range(NUM + 1)})
    lines = [columns.keys(), *zip(*map(column, columns.values()), strict=True)]
    saved(folder, {"export.csv": "".join(";".join(line) + "\n" for line in lines)})
    return folder / "export.csv"


def roles(catalog: Catalog) -> dict[str, object]:
    return {key: one for key, one in catalog.settings.items() if key != "separator"}


FOUND: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "names decide between ids": (
        {"EAN": "article", "SKU": "code", "Type": "kind", "Photo": "photo"},
        {"item_id": "SKU", "category": "Type", "image": "Photo"},
    ),
    "in another language": (
        {"Bezeichnung": "title", "Artikelnummer": "article", "Farbe": "colour", "Preis": "price",
         "Warengruppe": "kind", "Bild": "photo"},
        {"item_id": "Artikelnummer", "category": "Warengruppe", "image": "Bild"},
    ),
    "content alone": (
        {"a": "title", "b": "price", "c": "photo", "d": "code", "e": "kind", "f": "one"},
        {"item_id": "d", "category": "e", "image": "c"},
    ),
    "but for capitals and signs": (
        {"Item ID": "code", "CATEGORY": "kind", "Image": "photo"},
        {"item_id": "Item ID", "category": "CATEGORY", "image": "Image"},
    ),
    "what is called as usual stays": (
        {"item_id": "code", "Type": "kind", "image": "photo", "SKU": "article"},
        {"category": "Type"},
    ),
    "prices and prose are no ids": (
        {"title": "title", "price": "euros", "file": "photo", "type": "kind"},
        {"item_id": "file", "category": "type", "image": "file"},
    ),
    "pictures named after a column": (
        {"Nr": "price", "n": "name", "Number": "code", "type": "kind"},
        {"item_id": "Number", "category": "type", "image_pattern": "photos/{n}"},
    ),
    "a group by its name": (
        {"sku": "code", "style": "product", "size": "size", "type": "kind", "photo": "photo"},
        {"item_id": "sku", "category": "type", "image": "photo", "group": "style"},
    ),
    "a group by its content": (
        {"sku": "code", "x": "product", "size": "size", "year": "year", "type": "kind",
         "photo": "photo"},
        {"item_id": "sku", "category": "type", "image": "photo", "group": "x"},
    ),
    "splits": (
        {"sku": "code", "split": "split", "type": "kind", "photo": "photo"},
        {"item_id": "sku", "category": "type", "image": "photo", "split": "split"},
    ),
    "a list of pictures": (
        {"sku": "code", "pictures": "list", "type": "kind"},
        {"item_id": "sku", "category": "type", "image": "pictures"},
    ),
    "numbered columns": (
        {"sku": "code", "image_1": "photo", "image_2": "photo", "type": "kind"},
        {"item_id": "sku", "category": "type", "image": ["image_1", "image_2"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_columns_are_found_out_and_named_they_are_the_same(tmp_path: Path, case: str) -> None:
    columns, expected = FOUND[case]
    path = shop(tmp_path, columns)
    catalog = table(path)
    assert len(set(catalog.products or catalog.table["item_id"])) == NUM
    assert roles(catalog) == expected
    for key, value in expected.items():  # each is said
        shown = value if isinstance(value, str) else f"[{','.join(value)}]"  # type: ignore[arg-type]
        assert any(str(choice).startswith(f"data.{key}={shown} (") for choice in catalog.choices)
    named = table(path, **catalog.settings)  # type: ignore[arg-type]
    assert named.fingerprint() == catalog.fingerprint()
    assert not named.settings


def test_a_table_with_the_usual_names_is_read_by_them_alone(tmp_path: Path) -> None:
    columns = {"item_id": "code", "image": "photo", "category": "kind", "style": "product"}
    catalog = table(shop(tmp_path, columns), separator=";")
    assert (catalog.choices, catalog.attributes) == ((), ["style"])
    # a group or split by its very name was refused before
    columns |= {"group": "product", "split": "split"}
    catalog = table(shop(tmp_path, columns), separator=";")
    assert catalog.settings == {"group": "group", "split": "split"}
    catalog = table(shop(tmp_path, columns | {"SKU": "article"}), item_id="SKU", group="style")
    assert "item_id" not in catalog.attributes
    assert any("item_id" in str(choice) for choice in catalog.choices)


@pytest.mark.parametrize("kind", ["zip", "jsonl", "folder"])
def test_they_are_found_out_in_every_kind_of_table(tmp_path: Path, kind: str) -> None:
    path = shop(tmp_path / "shop", {"sku": "code", "pictures": "list", "type": "kind"})
    if kind == "zip":
        path = zipped(path.parent, tmp_path / "shop.zip")
    elif kind == "folder":
        path = path.parent
    else:
        names = ("sku", "pictures", "type")
        rows = zip(*map(column, ("code", "list", "kind")), strict=True)
        lines = [dict(zip(names, row, strict=True)) for row in rows]
        for line in lines:
            line["pictures"] = line["pictures"].split("|")  # type: ignore[assignment]
        path.unlink()
        saved(path.parent, {"export.jsonl": "\n".join(map(json.dumps, lines))})
        path = path.parent / "export.jsonl"
    catalog = table(path)
    assert roles(catalog) == {"item_id": "sku", "image": "pictures", "category": "type"}
    assert "photos/1.jpg" in set(catalog.table["image"])
    assert any(f"pictures of {NUM} products" in str(choice) for choice in catalog.choices)


def test_what_cannot_be_found_out_is_asked_for(tmp_path: Path) -> None:
    for columns, message in (
        ({"sku": "code", "photo": "photo"}, r"no column has few values.*data\.category"),
        ({"sku": "code", "type": "kind", "page": "page"}, r"no column names pictures.*data\.image"),
        ({"type": "kind", "photo": "list", "one": "one"}, r"no column has another value.*item_id"),
        ({"A001": "code", "Shoes": "kind", "photos/0.jpg": "photo"}, "its first line is a row"),
    ):
        refuses(ValueError, message, table, shop(tmp_path, columns))
    columns = {"sku": "code", "photo": "photo", "type": "kind"}
    for told in ({"category": "Typ"}, {"group": "board"}, {"image": ["photo", "more"]}):
        refuses(ValueError, "has no column", table, shop(tmp_path, columns), **told)
    refuses(ValueError, r"data\.image names no column", table, shop(tmp_path, columns), image=[])


# ---- several pictures


HERE = {"a.jpg", "b.jpg", "a, b.jpg", "c d.jpg", "n1", "n2"}
CELLS: list[tuple[str, Sequence[str]]] = [
    ("a.jpg", ["a.jpg"]),
    ("", []),
    ("  ", []),
    ("a.jpg|b.jpg", ["a.jpg", "b.jpg"]),
    ("a.jpg ; gone.PNG;", ["a.jpg", "gone.PNG"]),
    ("a.jpg,\n b.jpg", ["a.jpg", "b.jpg"]),
    ("a.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
    ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
    ("a, b.jpg", ["a, b.jpg"]),  # a file of that name
    ("x, y.jpg", ["x, y.jpg"]),
    ("c d.jpg", ["c d.jpg"]),
    ("my photo.jpg", ["my photo.jpg"]),
    ("n1 n2", ["n1", "n2"]),
    ("https://x.example/1,w_2/a.jpg", ["https://x.example/1,w_2/a.jpg"]),
    (
        "https://x.example/1 , https://x.example/2.jpg",
        ["https://x.example/1", "https://x.example/2.jpg"],
    ),
    ("https://x.example/1 https://x.example/2", ["https://x.example/1", "https://x.example/2"]),
]


@pytest.mark.parametrize(("cell", "pictures"), CELLS)
def test_a_cell_names_one_picture_or_several(cell: str, pictures: Sequence[str]) -> None:
    assert pictures_in(cell, HERE.__contains__) == pictures


def test_further_rows_of_an_id_are_its_pictures_or_refused(tmp_path: Path) -> None:
    saved(tmp_path, {f"{name}.jpg": b"" for name in "abc"})
    text = "item_id,image,category,colour\n1,a.jpg,Hats,red\n2,b.jpg,Hats,blue\n"
    text += "1,b.jpg,,\n1,c.jpg,Hats,red\n1,,,\n2,b.jpg,Hats,blue\n2,c.jpg,Shoes,blue\n"
    catalog = table(saved(tmp_path, {"shop.csv": text}) / "shop.csv", on_bad_item="skip_any")
    assert list(catalog.table["image"]) == ["a.jpg", "b.jpg", "c.jpg", "b.jpg"]
    assert list(catalog.table["item_id"]) == ["1", "1~2", "1~3", "2"]
    assert list(catalog.table["group"]) == catalog.products == ["1", "1", "1", "2"]
    assert list(catalog.table["colour"]) == ["red", "red", "red", "blue"]
    assert [item.reason.split(":")[0] for item in catalog.refused] == ["line 7", "line 8"]
    told = "\n".join(map(str, catalog.choices))
    assert "3 rows read as further pictures" in told
    assert "data.further_pictures=true" in told


def rows_of_pictures(folder: Path, header: str) -> Path:
    """A table of 40 rows, each a picture of one of 20 products, the first three of one."""
    photos = [f"photos/{row}.jpg" for row in range(NUM)]
    saved(folder, photos)
    lines = [header]
    for row, photo in enumerate(photos):
        of = 0 if row < 3 else 1 + (row - 3) // 2
        values = {"ID": f"{row:03d}", "P": f"P{of:02d}", "K": KINDS[of % 4], "F": photo}
        values |= {"C": ("red", "blue", "green")[of % 3], "R": ("red", "blue")[row % 2]}
        lines.append(",".join(values[sign] for sign in header_signs(header)))
    return saved(folder, {"rows.csv": "\n".join(lines) + "\n"}) / "rows.csv"


def header_signs(header: str) -> list[str]:
    """Which value stands in a column, by its name."""
    signs = {"picture_id": "ID", "sku": "ID", "file": "F", "type": "K", "colour": "C", "side": "R"}
    return [signs.get(name, "P") for name in header.split(",")]


@pytest.mark.parametrize(
    "header",
    ["picture_id,product_id,type,colour,file", "sku_of_product,type,colour,file",
     "file,product,type"],
)  # fmt: skip
def test_rows_that_are_pictures_of_one_product_are_read_so(tmp_path: Path, header: str) -> None:
    path = rows_of_pictures(tmp_path, header)
    catalog = table(path)
    whose = next(name for name in header.split(",") if "product" in name)
    assert (catalog.settings["product"], "group" in catalog.settings) == (whose, False)
    assert catalog.products is not None
    assert len(set(catalog.products)) == 20
    assert list(catalog.table["item_id"][:4]) == ["P00", "P00~2", "P00~3", "P01"]
    assert list(catalog.table["group"]) == catalog.products
    assert list(catalog.table["image"]) == [f"photos/{row}.jpg" for row in range(NUM)]
    assert f"data.product={whose} (20 products" in "\n".join(map(str, catalog.choices))
    named = table(path, **catalog.settings)  # type: ignore[arg-type]
    assert named.fingerprint() == catalog.fingerprint()
    # named alone, nothing else is said of ids
    alone = table(path, product=whose)
    shared = ["item_id", "image", "category", "group", "product"]
    assert alone.table[shared].equals(catalog.table[shared])
    refuses(ValueError, "further_pictures", table, path, product=whose, further_pictures=False)


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("sku,product_id,type,colour,file", True),  # each may be a product by itself
        ("picture_id,product_id,type,side,file", False),  # variants
        ("picture_id,sender_id,type,colour,file", False),
    ],
)
def test_rows_of_a_group_that_may_be_no_pictures_of_one_product_stay_items(
    tmp_path: Path, header: str, hint: bool
) -> None:
    catalog = table(rows_of_pictures(tmp_path, header))
    assert catalog.products is None
    assert catalog.settings["group"] == header.split(",")[1]
    told = "\n".join(map(str, catalog.choices))
    assert ("data.product=product_id finds it once" in told) == hint


def test_a_row_without_its_product_is_one_by_itself(tmp_path: Path) -> None:
    saved(tmp_path, {f"{name}.jpg": b"" for name in "abcd"})
    text = "item_id,image,category,of\n1,a.jpg,Hats,X\n2,b.jpg,Hats,\n3,c.jpg|d.jpg,Bags,X\n"
    path = saved(tmp_path, {"shop.csv": text}) / "shop.csv"
    catalog = table(path, product="of", item_id="image")
    assert list(catalog.table["item_id"]) == ["X", "b.jpg", "X~2", "X~3"]
    assert list(catalog.table["category"]) == ["Hats", "Hats", "Bags", "Bags"]
    assert catalog.products == ["X", "b.jpg", "X", "X"]


@needs_shared("fashion-product-images-sample.zip")
@needs_shared("complete-the-look-crops.zip")
def test_published_tables_are_read_as_they_are() -> None:
    catalog = table(SHARED / "fashion-product-images-sample.zip", on_bad_item="skip")
    assert catalog.settings == {
        "item_id": "id", "image_pattern": "images/{id}.jpg", "category": "articleType",
    }  # fmt: skip
    catalog = table(SHARED / "complete-the-look-crops.zip")
    assert catalog.settings == {"item_id": "product_id", "group": "board"}
