"""Products of several pictures on the page and in the API: one hit each, and its other pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import drawn, drawn_bundle, embedded, several_pictures
from tests.serving.running import ALLOWED, TOKEN, client
from visual_search.bundle.bundle import Bundle


def shop(name: str = "shop", num_products: int = 24) -> Bundle:
    return drawn_bundle(name, items=several_pictures(num_products), product_column="product")


@pytest.fixture(scope="module")
def one() -> Iterator[TestClient]:
    """A client of 24 products with 1 to 7 pictures; nothing changes it."""
    with client(shop()) as found:
        yield found


@pytest.fixture
def own() -> Iterator[TestClient]:
    with client(shop("own"), write_token=TOKEN) as found:
        yield found


def asked(one: TestClient, **fields: object) -> Any:
    answer = one.post("/api/search", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cards(page: str) -> list[str]:
    return re.findall(r'<li class="card">.*?</li>', page, re.DOTALL)


def shown_ids(page: str) -> list[str]:
    return re.findall(r'<bdi class="id">(.*?)</bdi>', page)


def test_a_search_gives_each_product_once_with_its_other_pictures(one: TestClient) -> None:
    answer = asked(one, item="p5~2", k=23)
    products = [hit["product"] for hit in answer["hits"]]
    assert len(products) == len(set(products)) == 23
    assert "p5" not in products
    assert answer["products"] == "best"
    [wanted] = shop().search(
        shop().embedding_of("p5~2")[None], 23, exclude_ids=["p5~2"], products="best"
    )
    for hit, same in zip(answer["hits"], wanted, strict=True):
        assert (hit["item_id"], hit["squared_distance"]) == (same.item_id, same.squared_distance)
        assert [one["item_id"] for one in hit["pictures"]] == list(same.pictures)
    others = [picture for hit in answer["hits"] for picture in hit["pictures"]]
    assert one.get(others[0]["thumbnail"]).content.startswith(b"\xff\xd8\xff")


def test_pictures_or_means_are_found_where_that_is_asked(one: TestClient) -> None:
    every = asked(one, item="p5~2", k=9, products="all")
    assert "p5" in [hit["product"] for hit in every["hits"]]
    assert "p5~2" not in [hit["item_id"] for hit in every["hits"]]
    image = drawn("Dresses", "blue")
    form = {"k": "24", "products": "mean"}
    hits = one.post("/api/search", files={"image": image}, data=form).json()["hits"]
    [wanted] = shop().search(embedded([image]), 24, products="mean")
    assert [hit["product"] for hit in hits] == [hit.product for hit in wanted]
    wrong = one.post("/api/search", json={"item": "p5", "products": "worst"})
    assert wrong.status_code == 422
    assert "'worst'" in wrong.json()["detail"]
    assert "'mean'" in wrong.json()["detail"]


def test_items_are_listed_a_product_each_and_paged_whole(one: TestClient) -> None:
    for products, total in (("best", 6), ("all", len(several_pictures()))):
        where = "&where=category:Dresses" if products == "best" else ""
        following, found = f"/api/items?limit=5&products={products}{where}", []
        while following:
            page = one.get(following).json()
            assert page["total"] == total
            found += page["items"]
            following = page["next"]
        ids = [item["item_id"] for item in found]
        assert len(ids) == len(set(ids)) == total
    item = one.get("/api/items/p5~3").json()
    assert (item["item_id"], item["product"]) == ("p5~3", "p5")
    assert [one["item_id"] for one in item["pictures"]] == [
        "p5", "p5~2", "p5~4", "p5~5", "p5~6",
    ]  # fmt: skip
    assert one.get("/api/items?products=worst").status_code == 422


def test_what_can_be_filtered_by_counts_products(one: TestClient) -> None:
    [bundle] = one.get("/api/bundles").json()
    assert (bundle["num_products"], bundle["num_items"]) == (24, len(several_pictures()))
    assert bundle["filters"]["category"] == {"Bags": 6, "Dresses": 6, "Hats": 6, "Shoes": 6}
    assert "product" not in bundle["filters"]
    hits = asked(one, item="p0", k=9, where={"product": ["p3"]})["hits"]
    assert [hit["product"] for hit in hits] == ["p3"]


def test_the_page_shows_a_product_with_its_pictures_beside_it(one: TestClient) -> None:
    page = one.get("/?item=p5~3&k=5&products=mean").text
    assert len(cards(page)) == 5
    assert [ident.partition("~")[0] for ident in shown_ids(page)] == shown_ids(page)
    for card in cards(page):
        product = shown_ids(card)[0]
        links = [unescape(one) for one in re.findall(r'<a href="(.*?)"', card)]
        num_pictures = 1 + int(product[1:]) % 7
        assert len(links) == min(4, num_pictures - 1)
        assert all("products=mean" in link and "k=5" in link for link in links)
        assert (f"+{num_pictures - 5}" in card) == (num_pictures > 5)
        assert product not in re.findall(r'class="attributes">(.*?)</span>', card)
    assert '<option value="mean" selected>' in page
    follow = unescape(re.findall(r'<a href="(/\?item=.*?)"', "".join(cards(page)))[0])
    assert one.get(follow).status_code == 200
    start = one.get("/").text
    assert len(cards(start)) == len(set(shown_ids(start))) == 24
    assert "24 products" in start
    every = one.get("/?products=all").text
    assert len(several_pictures()) > len(cards(every)) > 20
    assert any("~" in ident for ident in shown_ids(every))
    assert all("products=all" in one for one in re.findall(r'class="whole" href="(.*?)"', every))


def test_two_bundles_know_the_same_product_by_different_pictures() -> None:
    plain = drawn_bundle("plain", num_items=24)
    with client(shop(), plain) as two:
        page = two.get("/?item=p5&k=23").text
        assert "only here" not in page
        assert 'name="products"' in page
    with client(plain) as alone:
        assert 'name="products"' not in alone.get("/").text
        hit = asked(alone, item="p5", k=1)["hits"][0]
        assert (hit["product"], hit["pictures"]) == (hit["item_id"], [])


def test_pictures_are_added_and_removed_through_the_api(own: TestClient) -> None:
    def add(items: object, *images: bytes) -> Any:
        files = [("image", ("a.jpg", image, "image/jpeg")) for image in images]
        return own.post(
            "/api/items", data={"items": json.dumps(items)}, files=files, headers=ALLOWED
        )

    new = drawn("Bags", "rose", 60)
    made = add([{"product": "p3"}, {"product": "p3", "colour": "rose"}], new, drawn("Hats", "red"))
    assert made.status_code == 201, made.text
    counts = made.json()
    assert (counts["num_added"], counts["num_products"], counts["num_products_added"]) == (2, 24, 0)
    item = own.get("/api/items/p3~6").json()
    assert (item["product"], item["category"], item["attributes"]["colour"]) == (
        "p3", "Hats", "rose",
    )  # fmt: skip
    hits = own.post("/api/search", files={"image": new}, data={"k": "2"}).json()["hits"]
    assert (hits[0]["item_id"], hits[0]["product"]) == ("p3~5", "p3")
    assert hits[1]["product"] != "p3"
    for items, said in (
        ([{"product": "new"}], "category"),
        ([{"category": "Hats"}], "item_id"),
        ([{"item_id": "side", "product": "p3"}], "p3~7"),
    ):
        answer = add(items, new)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
    gone = own.delete("/api/items/p3", headers=ALLOWED).json()
    assert (gone["num_removed"], gone["num_products_removed"]) == (1, 0)
    assert own.get("/api/items/p3").json()["item_id"] == "p3~2"
    gone = own.delete("/api/items?product=p3&item=p4", headers=ALLOWED).json()
    assert (gone["num_removed"], gone["num_products"], gone["num_products_removed"]) == (6, 23, 1)
    assert own.delete("/api/items?product=p3", headers=ALLOWED).status_code == 404
    assert own.delete("/api/items", headers=ALLOWED).status_code == 422
