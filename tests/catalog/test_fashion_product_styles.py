import json
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.picture_server import PictureServer, jpeg, picture
from tests.catalog.shops import one_refused, refuses, zipped
from tests.catalog.test_fashion_product_images import SHIRT, WATCH, shop
from visual_search.catalog.readers.fashion_product_images import fashion_product_images

HOST = "http://assets.example"


def style(*views: str, host: str = HOST, **said: Any) -> str:
    """What a file holds; a view's picture is called after it."""
    shown = {name: {"imageURL": f"{host}/{name}.jpg", "resolutions": {}} for name in views}
    images = shown | {"search": {"imageURL": f"{host}/default.jpg"}, "left": {}, "right": None}
    data = {"id": 15970, "usage": "Party", "styleImages": images, "productDescriptors": {}} | said
    return json.dumps({"notification": {}, "meta": {"code": 200}, "data": data})


BOOK = style(
    "default", "front", "size_representation", "back",
    brandName="Größe & Söhne", ageGroup="Adults-Men", price=1299.0, colour1="NA",
    articleAttributes={"Sleeve Length": "Long\nSleeves", "Usage": "Casual", "Fit": ""},
)  # fmt: skip
FURTHER = ["brandName", "ageGroup", "colour1", "price", "sleeve_length", "usage_attribute"]


def large(root: Path, **styles: str) -> Path:
    shop(root, SHIRT + WATCH, "15970", "59263")
    (root / "styles").mkdir()
    for item_id, text in ({"15970": BOOK} | styles).items():
        (root / "styles" / f"{item_id.removeprefix('_')}.json").write_text(text)
    return root


def test_what_the_table_lacks_becomes_attributes(tmp_path: Path) -> None:
    root = large(tmp_path / "a")
    plain = fashion_product_images(root)
    seen: list[tuple[int, int]] = []
    catalog = fashion_product_images(
        root, styles=True, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]
    assert catalog.attributes == [*plain.attributes, *FURTHER]
    first, second = catalog.table[FURTHER].to_numpy().tolist()
    assert first == ["Größe & Söhne", "Adults-Men", "NA", "1299", "Long Sleeves", "Casual"]
    assert second == [""] * 6
    assert catalog.table["usage"].tolist() == ["Casual", "NA"]  # as the table has it
    assert catalog.table[plain.table.columns.tolist()].equals(plain.table)
    assert str(catalog.choices[-1]).startswith("1 product without styles/<id>.json: ")
    packed = fashion_product_images(zipped(root, tmp_path / "a.zip", "b/"), styles=True)
    assert packed.table[FURTHER].equals(catalog.table[FURTHER])


def test_what_few_products_have_is_left_out(tmp_path: Path) -> None:
    rows = "".join(SHIRT.replace("15970", str(number)) for number in range(101))
    root = shop(tmp_path, rows, *map(str, range(101)))
    (root / "styles").mkdir()
    for number in range(101):
        more = {"articleAttributes": {"Pattern": "Checked"} | ({"Wash": "x"} if not number else {})}
        (root / "styles" / f"{number}.json").write_text(style(**more))
    catalog = fashion_product_images(root, styles=True)
    assert catalog.attributes[-1] == "pattern"
    assert "column(s) left out: wash: under 1% of the products" in str(catalog.choices[-1])


@pytest.mark.parametrize("text", ["{", "[]", '{"data": []}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    root = large(tmp_path, _59263=text)
    reason = r"59263: line 3: styles/59263\.json .*expected styles/<id>\.json as published"
    assert one_refused(reason, fashion_product_images, root, styles=True) == ["15970"]
    assert len(fashion_product_images(root)) == 2


def test_views_are_fetched_as_pictures_of_their_product(tmp_path: Path) -> None:
    with PictureServer() as server:
        for number, name in enumerate(("front", "back")):
            server.on(f"/{name}.jpg", picture(jpeg(number)))
        host = server.url("/").rstrip("/")
        views = style("default", "front", "size_representation", "back", host=host)
        root = large(tmp_path, _15970=views, _59263=style("default"))
        hosts = [server.place]
        download = {"http_hosts": hosts, "private_hosts": hosts, "requests_per_s": 1000.0}
        catalog = fashion_product_images(root, views=True, download=download)
        asked = len(server.asked)
        again = fashion_product_images(root, views=True)
        assert len(server.asked) == asked
    assert again.table.equals(catalog.table)
    assert catalog.table["item_id"].tolist() == ["15970", "15970~2", "15970~3", "59263"]
    assert catalog.products == ["15970"] * 3 + ["59263"]
    assert catalog.table["group"].tolist() == catalog.products
    assert catalog.table["category"].tolist() == ["Shirts"] * 3 + ["Watches"]
    loaded = [catalog.source.load(image) for image in catalog.table["image"]]
    assert loaded == [b"15970", jpeg(0), jpeg(1), b"59263"]
    assert "brandName" not in catalog.attributes
    assert any("2 of 2 pictures that URLs name" in str(one) for one in catalog.choices)


def test_views_that_were_not_fetched(tmp_path: Path) -> None:
    root = large(tmp_path / "a", _59263=style("default"))
    catalog = fashion_product_images(root, views=True, on_bad_item="skip_any")
    assert catalog.table["item_id"].tolist() == ["15970", "59263"]
    assert [one.item_id for one in catalog.refused] == ["15970~2", "15970~3"]
    assert "data.download=true fetches it" in catalog.refused[0].reason
    packed = zipped(root, tmp_path / "a.zip")
    refuses(ValueError, "unpack the zip", fashion_product_images, packed, views=True, download=True)
