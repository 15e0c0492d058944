from __future__ import annotations

import html
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import EVIL, drawn, drawn_bundle, products
from tests.serving.running import HTML, client
from visual_search.bundle.items import BundleItems
from visual_search.bundle.writing import remove_items
from visual_search.serving.templating import STATIC

PART = {**HTML, "hx-request": "true"}


def cards(page: str) -> list[str]:
    return re.findall(r'<li class="card">.*?</li>', page, re.DOTALL)


def shown_side_by_side(page: str) -> list[str]:
    return re.findall(r'<section class="column".*?</section>', page, re.DOTALL)


def ids(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'<bdi class="id">(.*?)</bdi>', page)]


def get(one: TestClient, address: str) -> str:
    answer = one.get(address, headers=HTML)
    assert answer.status_code == 200
    return answer.text


def test_the_first_page_shows_products_and_what_can_be_done() -> None:
    with client(drawn_bundle(num_items=97)) as one:
        page = get(one, "/")
    assert len(cards(page)) == 20  # every fifth
    assert {*re.findall(r'class="what">(\w+)<', page)} == {"Shoes", "Dresses", "Bags", "Hats"}
    for label in ("image", "item", "k"):
        assert f'<label for="{label}">' in page
    assert 'value="category:Shoes"' in page
    assert 'aria-live="polite"' in page


def test_the_pages_of_the_catalogue_show_every_product_once(one: TestClient) -> None:
    address, seen = "/", list[str]()
    for _ in range(3):
        page = get(one, address)
        seen += ids(page)
        further = re.findall(r'href="([^"]*page=\d+[^"]*)"', page)
        address = html.unescape(further[-1])
    assert sorted(seen) == sorted([EVIL, *(f"p{n}" for n in range(48))])


def test_a_product_shows_similar_ones_with_their_distances(one: TestClient) -> None:
    page = get(one, "/?item=p0&k=5")
    assert len(ids(page)) == 5
    assert ids(page)[0] == "p24"
    assert "squared distance 0.00559" in cards(page)[0]
    assert 'href="/?item=p24&amp;k=5"' in cards(page)[0]
    assert 'data-status="5 similar products. "' in page


def test_an_upload_works_without_javascript_and_as_a_part(one: TestClient) -> None:
    files = {"image": ("my shoe.jpg", drawn("Shoes", "blue", 2), "image/jpeg")}
    whole = one.post("/", files=files, data={"k": "3", "item": "p9"}, headers=HTML)
    part = one.post("/", files=files, data={"k": "3"}, headers=PART)
    for answer in (whole, part):
        assert len(cards(answer.text)) == 3
        assert ids(answer.text)[0] == "p4"
        assert "my shoe.jpg" in answer.text
        assert 'src="data:image/jpeg;base64,' in answer.text
    assert "<!doctype html>" in whole.text
    assert "<form" not in part.text
    assert part.headers["hx-push-url"] == "/"


def test_filters_stay_in_every_address(one: TestClient) -> None:
    page = get(one, "/?item=p0&where=category:Bags&where=colour:red")
    pushed = one.post("/", data={"where": ["category:Bags"], "k": "7"}, headers=PART)
    assert ids(page) == ["p26", "p2"]
    assert "2 of the 12 asked for: no more fit the filters" in page
    assert "where=category%3ABags&amp;where=colour%3Ared" in cards(page)[0]
    assert re.search(r'value="category:Bags" checked', page)
    assert not re.search(r'value="category:Hats" checked', page)
    assert 'href="/?item=p0&amp;k=12" data-clear-filters>Remove 2 filters' in page
    assert pushed.headers["hx-push-url"] == "/?k=7&where=category%3ABags"


def boxes(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'name="where" value="([^"]*)"', page)]


def test_thousands_of_categories_are_found_by_a_part_of_their_name() -> None:
    names = ["Coats", *(f"Kind {n:04d}" for n in range(999)), "Coats"]
    rows = {f"p{n}": {"category": name} for n, name in enumerate(names)}
    with client(drawn_bundle(rows=rows)) as one:
        page = get(one, "/?where=category:Kind 0900")
        found = get(one, "/choices?column=category&contains=KIND 07&where=category:Kind 0900")
        nothing = get(one, "/choices?column=category&contains=shoes")
        unknown = one.get("/choices?column=size", headers=HTML)
        listed = one.get("/api/bundles").json()[0]
    assert len(boxes(page)) == 201  # the most frequent, and what is chosen
    assert boxes(page)[0] == "category:Coats"
    assert re.search(r'value="category:Kind 0900" checked', page)
    assert "1,000" in page, "how many there are"
    assert boxes(found) == [f"category:Kind {n:04d}" for n in [*range(700, 800), 900]]
    assert "checked" in found
    assert not boxes(nothing)
    assert unknown.status_code == 422
    assert len(listed["filters"]["category"]) == 200
    assert listed["filters"]["category"]["Coats"] == 2
    assert listed["num_values"] == {"category": 1000}


def test_long_names_keep_their_end_and_any_direction_is_isolated() -> None:
    name, red = f"Clothing {'and more ' * 30}Hats", "\u05d0\u05d3\u05d5\u05dd"
    more = {"colour": red, "size": "12"}
    rows = {"p0": {"category": name, **more}, "p1": {"category": "Coats", **more}}
    with client(drawn_bundle(rows=rows)) as one:
        page = get(one, "/")
    shown = re.findall(r'<bdi class="what" title="([^"]*)">([^<]*)</bdi>', page)
    assert [whole for whole, _ in shown] == [name]
    assert shown[0][1].startswith("Clothing and")
    assert shown[0][1].endswith("more Hats")
    assert len(shown[0][1]) <= 80
    assert f"<bdi>{red}</bdi> · " in cards(page)[0]


def test_everything_of_the_catalogue_is_escaped() -> None:
    with client(drawn_bundle(EVIL, evil=True)) as one:
        pages = [get(one, "/?page=1"), get(one, "/?page=2"), get(one, "/?page=3")]
        pages.append(one.get("/", params={"item": EVIL}, headers=HTML).text)
        pages.append(one.get("/", params={"item": EVIL + "?"}, headers=HTML).text)
        pages.append(one.get("/", params={"where": EVIL}, headers=HTML).text)
    joined = "".join(pages)
    assert "<script>" not in joined
    assert "<b>" not in joined
    assert "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;x" in joined
    assert "{{ 7 * 7 }}" in joined  # a template's text is not a template
    assert not re.search(r"\s(on\w+|style)=", joined)
    assert not re.search(r"<script(?! src=\"/static/)", joined)


def test_two_bundles_stand_side_by_side() -> None:
    items = products(20)
    columns = {name: items.columns[name] for name in ("category", "material")}
    plain = BundleItems(items.item_ids, columns, items.embeddings, items.thumbnails)
    with client(drawn_bundle("first"), drawn_bundle("second", items=plain)) as one:
        page, alone, other, filtered = (
            get(one, f"/?item={asked}")
            for asked in ("p0&k=4", "p0&k=4&bundle=second", "p30&k=4", "p0&where=colour:red")
        )
        assert one.get("/?item=nobody", headers=HTML).status_code == 404
    first, second = shown_side_by_side(page)
    assert "<h3><bdi>first</bdi></h3>" in first
    assert len(ids(first)) == len(ids(second)) == 4
    assert "only here" in first
    assert re.search(r"rank \d in <bdi>second", first)
    assert "bundle=" not in re.findall(r'href="(/\?item[^"]*)"', page)[0]
    assert "bundle=second" in re.findall(r'href="(/\?item[^"]*)"', alone)[0]
    assert len(shown_side_by_side(alone)) == 1
    assert other.count("its small picture was looked for") == 1  # p30 is in the first one only
    first, second = shown_side_by_side(filtered)
    assert len(cards(first)) == 7
    assert "nothing here to filter by" in second


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("/?item=nobody", 404, "There is no such item.*no product “nobody” here"),
        ("/?k=0", 422, "1 to 100 results"),
        ("/?item=p0&where=size:4", 422, "choose other filters"),
        ("/?where=Hats", 422, "choose other filters"),
        ("/?bundle=no", 404, "There is no such bundle"),
        ("/nothing", 404, "There is nothing here"),
        ("/report?bundle=drawn", 404, "There is nothing here"),
        ("/thumbnail?bundle=drawn&item=p0&generation=x", 422, "Start over"),
    ],
)
def test_problems_are_pages_for_people(
    one: TestClient, address: str, status: int, text: str
) -> None:
    whole, part = one.get(address, headers=HTML), one.get(address, headers=PART)
    for_programs = one.get(address)
    assert whole.status_code == part.status_code == for_programs.status_code == status
    assert "<!doctype html>" in whole.text
    assert "<!doctype" not in part.text
    for answer in (whole, part):
        assert re.search(text, html.unescape(answer.text), re.DOTALL)
        assert "Start over" in answer.text
    assert for_programs.headers["content-type"] == "application/problem+json"


def test_empty_states_say_what_to_do(one: TestClient) -> None:
    assert "Choose fewer of them" in get(one, "/?where=category:Coats")
    assert "No other product fits the filter" in get(one, "/?item=p0&where=category:Coats")
    empty = drawn_bundle(num_items=1)
    remove_items(empty.folder, ["p0"])
    with client(empty.refreshed()) as bare:
        assert "Add products to it" in get(bare, "/")


def test_the_report_is_served_in_a_sandbox() -> None:
    with client(drawn_bundle(files={"report.html": "<title>A run</title>"})) as one:
        assert 'href="/report?bundle=drawn"' in get(one, "/")
        answer = one.get("/report?bundle=drawn")
    assert "A run" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy


def test_pictures_are_kept_as_long_as_their_generation(one: TestClient) -> None:
    def thumbnail(**asked: Any) -> Any:
        return one.get("/thumbnail", params={"bundle": "drawn", **asked})

    now, old = thumbnail(item="p0", generation=1), thumbnail(item="p0", generation=0)
    assert now.content.startswith(b"\xff\xd8")
    assert "immutable" in now.headers["cache-control"]
    assert old.headers["cache-control"] == "no-store"
    assert thumbnail(item=EVIL).headers["content-type"].startswith("image/svg+xml")
    assert thumbnail(item="x").status_code == 404


def test_htmx_is_here_with_its_licence(one: TestClient) -> None:
    licence = (STATIC / "htmx.LICENSE.txt").read_text()
    version = re.search(r'this\.version="([\d.]+)"', (STATIC / "htmx.min.js").read_text())
    assert version is not None
    assert licence.startswith(f"htmx {version[1]} ")
    assert "Zero-Clause BSD" in licence
    assert one.get("/static/htmx.min.js").headers["content-type"].startswith("text/javascript")
    assert one.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert one.get("/static/../app.py").status_code == 404
