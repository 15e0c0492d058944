"""Exports of shop systems by the names of their columns, as each system writes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pytest

from tests.catalog.shops import refuses, saved
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import feed
from visual_search.catalog.readers.feed import read_feed
from visual_search.catalog.readers.table import table

PICTURES = [f"{n}.jpg" for n in range(1, 10)]
GOOGLE = "http://base.google.com/ns/1.0"


def written(columns: Sequence[str], rows: Sequence[Mapping[str, str]], sign: str = ",") -> str:
    """A table in which what a row does not name is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", delimiter=sign)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def read(folder: Path, name: str, text: str, pictures: Sequence[str] = PICTURES) -> Catalog:
    """The catalogue, and the same once more by what was found out, which is then all named."""
    saved(folder, {name: text, **dict.fromkeys(pictures, b"")})
    catalog = table(folder / name, on_bad_item="skip_any")
    named = table(folder / name, on_bad_item="skip_any", **catalog.settings)  # type: ignore[arg-type]
    assert named.fingerprint() == catalog.fingerprint()
    assert (named.settings, named.refused) == ({}, catalog.refused)
    return catalog


def told(catalog: Catalog) -> str:
    return "\n".join(map(str, catalog.choices))


def shopify(handle: str, image: str, position: str, variant: str) -> str:
    columns = ("Title", handle, "Vendor", "Type", "Tags", "Option1 name", variant, image, position)
    rows: list[dict[str, str]] = [
        {handle: "boot", "Title": "Boot", "Type": "Shoes", "Tags": "a, b", variant: "3.jpg"},
        {handle: "boot", "Option1 name": "Size", image: "1.jpg", position: "1", variant: "4.jpg"},
        {handle: "cap", "Title": "Cap", "Type": "Hats", image: "6.jpg", position: "2"},
        {handle: "cap", image: "5.jpg", position: "1"},
        {handle: "draft", "Title": "No picture yet", "Type": "Hats"},
        {handle: "", "Title": "no handle", "Type": "Hats", image: "7.jpg"},
        {handle: "boot", image: "2.jpg", position: "2"},
    ]
    return written(columns, rows)


def by_product(catalog: Catalog, column: str) -> dict[str, str]:
    """The one value that all pictures of each product have."""
    values = catalog.table.groupby("product", sort=False)[column].agg(set)
    return {product: value for product, (value,) in values.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("Handle", "Image Src", "Image Position", "Variant Image"),
        ("URL handle", "Product image URL", "Image position", "Variant image URL"),
    ],
)
def test_shopify(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    catalog = read(tmp_path, "products_export.csv", shopify(*names))
    assert catalog.settings == {"item_id": names[0], "image": names[1], "category": "Type"}
    assert by_product(catalog, "Title") == {"boot": "Boot", "cap": "Cap"}
    first = catalog.table["item_id"].isin(["boot", "cap"])
    assert list(catalog.table["image"][first]) == ["1.jpg", "5.jpg"]  # by their positions
    assert [item.reason.split(":")[0] for item in catalog.refused] == ["line 6", "line 7"]
    assert "export of Shopify" in told(catalog)
    assert "3 rows of variants" in told(catalog)
    assert "data.further_pictures=true" in told(catalog)


def test_shopify_without_types_has_the_categories_of_its_taxonomy(tmp_path: Path) -> None:
    columns = ("Handle", "Title", "Vendor", "Product Category", "Type", "Image Src")
    rows = [
        {
            "Handle": f"h{n}",
            "Title": "x",
            "Product Category": "Apparel > Hats",
            "Image Src": "1.jpg",
        }
        for n in range(3)
    ]
    catalog = read(tmp_path, "x.csv", written(columns, rows))
    assert catalog.settings["category"] == "Product Category"


MERCHANT: list[dict[str, str]] = [
    {"id": "1", "title": "Boot", "product_type": "Women > Shoes", "image_link": "1.jpg",
     "additional_image_link": "2.jpg,3.jpg", "item_group_id": "g1", "price": "0,90 EUR"},
    {"id": "2", "title": "Boot", "product_type": "Women > Shoes", "image_link": "4.jpg",
     "item_group_id": "g1", "price": "1 EUR"},
    {"id": "3", "title": "Cap & Co", "product_type": "Hats", "image_link": "5.jpg",
     "price": "2 EUR"},
]  # fmt: skip
FIELDS = list(MERCHANT[0])
PARTS = [
    "".join(f"<g:{key}>{escape(value)}</g:{key}>" for key, value in one.items()) for one in MERCHANT
]
RSS = (
    f'<rss xmlns:g="{GOOGLE}" version="2.0"><channel><title>Shop</title><link>x</link>'
    + "".join(f"<item><title>plain</title>{part}</item>" for part in PARTS)
    + "</channel></rss>"
)
ATOM = (
    f'<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="{GOOGLE}"><title>Shop</title>'
    + "".join(f"<entry>{part}</entry>" for part in PARTS).replace(
        "<g:additional_image_link>2.jpg,",
        "<g:additional_image_link>2.jpg</g:additional_image_link><g:additional_image_link>",
    )
    + "</feed>"
)
FEEDS = {
    "merchant.tsv": written(FIELDS, MERCHANT, "\t"),
    "merchant.txt": written(FIELDS, MERCHANT, "\t").replace("_", " "),  # of a spreadsheet
    "rss.xml": RSS,
    "atom.xml": ATOM,
    "feed.rss": '<?xml version="1.0" encoding="windows-1254"?>' + RSS,
}


@pytest.mark.parametrize("name", FEEDS)
def test_google_merchant(tmp_path: Path, name: str) -> None:
    catalog = read(tmp_path, name, FEEDS[name])
    assert list(catalog.table["item_id"]) == ["1", "1~2", "1~3", "2", "3"]
    assert list(catalog.table["image"]) == [f"{number}.jpg" for number in range(1, 6)]
    assert catalog.categories == ["Hats", "Women > Shoes"]
    assert by_product(catalog, "group") == {"1": "g1", "2": "g1", "3": "3"}
    titles = {"1": "Boot", "2": "Boot", "3": "Cap & Co"}  # Google's own, not plain
    assert by_product(catalog, "title") == titles
    assert by_product(catalog, "price") == {"1": "0,90 EUR", "2": "1 EUR", "3": "2 EUR"}
    assert "export of Google Merchant" in told(catalog)
    assert "data.further_pictures=true" in told(catalog)


def test_what_is_named_is_taken_of_an_export_too(tmp_path: Path) -> None:
    read(tmp_path, "merchant.tsv", FEEDS["merchant.tsv"])
    catalog = table(tmp_path / "merchant.tsv", group="title")
    assert by_product(catalog, "group") == {"1": "Boot", "2": "Boot", "3": "Cap & Co"}
    assert "group" not in catalog.settings
    refuses(ValueError, "no column.*'nowhere'", table, tmp_path / "merchant.tsv", group="nowhere")
    refuses(ValueError, "no column.*'nowhere'", table, tmp_path / "merchant.tsv", split="nowhere")


WOO = ("ID", "Type", "SKU", "Name", "Published", "Is featured?", "Categories", "Images", "Parent")


def test_woocommerce(tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [
        {"ID": "9", "Type": "variable", "SKU": "B", "Name": "Boot", "Images": "1.jpg, 2.jpg",
         "Categories": "Sale, Shoes, Shoes > Boots"},
        {"ID": "10", "Type": "variation", "SKU": "B-1", "Images": "3.jpg", "Parent": "B"},
        {"ID": "11", "Type": "variation, virtual", "SKU": "B-2", "Images": "", "Parent": "id:9"},
        {"ID": "12", "Type": "simple", "SKU": "C", "Images": "4.jpg", "Categories": "Hats\\, caps"},
        {"ID": "13", "Type": "variation", "SKU": "X-1", "Images": "5.jpg", "Parent": "gone"},
    ]  # fmt: skip
    catalog = read(tmp_path, "wc-product-export.csv", written(WOO, rows))
    assert catalog.settings == {"item_id": "ID", "image": "Images", "category": "Categories"}
    assert by_product(catalog, "category") == {"9": "Shoes > Boots", "12": "Hats, caps"}
    assert [item.item_id for item in catalog.refused] == ["13"]  # of no category, nor a parent
    assert "2 rows of variations" in told(catalog)
    assert "data.further_pictures=true" in told(catalog)
    for row in rows:
        row["ID"] = ""  # as a table for the import has it
    assert read(tmp_path, "import.csv", written(WOO, rows)).settings["item_id"] == "SKU"


def test_magento(tmp_path: Path) -> None:
    columns = (
        *("sku", "store_view_code", "attribute_set_code", "product_type", "categories", "name"),
        *("visibility", "base_image", "additional_images", "configurable_variations"),
    )
    hidden = {"product_type": "simple", "visibility": "Not Visible Individually"}
    rows: list[dict[str, str]] = [
        {**hidden, "sku": "B-S", "categories": "Default/Shoes", "base_image": "/b/3.jpg"},
        {"sku": "B", "product_type": "configurable", "visibility": "Catalog, Search",
         "categories": "Default,Default/Shoes,Default/Shoes/Boots", "name": "Boot",
         "base_image": "/b/1.jpg", "additional_images": "/b/1.jpg,/b/2.jpg",
         "configurable_variations": "sku=B-S,size=S|sku=B-L,size=L"},
        {"sku": "B", "store_view_code": "de", "name": "Stiefel"},
        {"sku": "C", "categories": "Default/Hats", "base_image": "/c/4.jpg", "name": "Cap"},
        {"sku": "D", "categories": "Default/Hats", "base_image": "no_selection", "name": "None"},
    ]  # fmt: skip
    pictures = [f"pub/media/catalog/product/{name}.jpg" for name in ("b/1", "b/2", "b/3", "c/4")]
    catalog = read(tmp_path, "catalog_product.csv", written(columns, rows), pictures)
    assert catalog.settings == {"item_id": "sku", "image": "base_image", "category": "categories"}
    assert list(catalog.table["item_id"]) == ["B", "B~2", "B~3", "C"]
    assert list(catalog.table["image"]) == pictures
    assert by_product(catalog, "category") == {"B": "Default/Shoes/Boots", "C": "Default/Hats"}
    assert [item.item_id for item in catalog.refused] == ["D"]
    assert "2 rows of translations" in told(catalog)
    assert "data.further_pictures=true" in told(catalog)


def test_tables_that_share_a_name_or_two_are_no_exports(tmp_path: Path) -> None:
    rows = [
        {"Handle": f"h{n}", "Image Src": "1.jpg", "Type": ("Hats", "Shoes")[n % 2]}
        for n in range(9)
    ]
    catalog = read(tmp_path, "own.csv", written(("Handle", "Image Src", "Type"), rows))
    assert "export of" not in told(catalog)
    assert catalog.settings == {"item_id": "Handle", "image": "Image Src", "category": "Type"}
    # what somebody names decides
    saved(tmp_path, {"merchant.tsv": FEEDS["merchant.tsv"]})
    catalog = table(tmp_path / "merchant.tsv", item_id="id", image="image_link", category="price")
    assert list(catalog.table["category"]) == ["0,90 EUR", "1 EUR", "2 EUR"]
    assert list(catalog.table["group"]) == ["1", "2", "3"]


# ---- feeds


def test_other_feeds_are_the_elements_that_repeat() -> None:
    text = "<shop><name>S</name><products>"
    for n in (1, 2):
        text += f"<p><nr>{n}</nr><photos><u>a</u></photos><size><eu>38</eu><uk>5</uk></size></p>"
    raw = read_feed(f"{text}</products></shop>".encode("utf-16"))
    assert raw.columns == ["nr", "photos", "size"]
    assert raw.rows[1] == ["2", '{"u": "a"}', '{"eu": "38", "uk": "5"}']
    assert raw.places == ["product 1", "product 2"]
    link = (
        b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><link href="https://x"/></entry></feed>'
    )
    assert read_feed(link).rows == [["https://x"]]


BAD_FEEDS = {
    "": "no whole XML",
    "{}": "no whole XML",
    RSS[:-20]: "no whole XML",
    "<html><body>no</body></html>": "without products",
    "<rss><channel><title>empty</title></channel></rss>": "without products",
    f'<!DOCTYPE rss [<!ENTITY a "b">]>{RSS}': "document type",
    f'<!DOCTYPE rss SYSTEM "file:///etc/passwd">{RSS}': "document type",
    "<rss>" + "<item>" * 100: "nested",
    "<rss><item>" + "<a/>" * 10_001 + "</item></rss>": "over 10,000 elements",
    '<?xml version="1.0" encoding="nothing"?><rss><item/></rss>': "encoding",
}


@pytest.mark.parametrize("text", BAD_FEEDS, ids=range(len(BAD_FEEDS)))
def test_feeds_that_are_not_read_are_named(text: str) -> None:
    refuses(ValueError, BAD_FEEDS[text], read_feed, text.encode())


def test_what_a_feed_repeats_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_VALUES", 50)
    many = "".join(f"<item><k{n}>1</k{n}></item>" for n in range(8))
    refuses(ValueError, "over 50 values", read_feed, f"<rss>{many}</rss>".encode())
    refuses(ValueError, "over 50 elements", read_feed, f"<rss>{'<x/>' * 60}</rss>".encode())
