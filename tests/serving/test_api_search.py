from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import EVIL, drawn, drawn_bundle, embedded
from tests.serving.running import HTML, client
from visual_search.bundle.bundle import Bundle
from visual_search.serving.problems import KINDS

JSON: Any = {"headers": {"content-type": "application/json"}}


def search(one: TestClient, image: bytes | None = None, **fields: Any) -> Any:
    files = None if image is None else {"image": ("a.jpg", image, "image/jpeg")}
    return one.post("/api/search", data=fields, files=files)


def test_a_picture_finds_what_the_encoder_and_the_bundle_find() -> None:
    bundle, image = drawn_bundle(), drawn("Bags", "blue", 3)
    with client(bundle) as one:
        answer = search(one, image, k="5").json()
    assert (answer["bundle"], answer["generation"], answer["item"]) == ("drawn", 1, None)
    assert set(answer["seconds"]) == {"decode", "embed", "search"}
    query = embedded([image])[0]
    squared = {i: ((bundle.embedding_of(i) - query) ** 2).sum() for i in bundle.item_ids()}
    nearest = sorted(squared, key=squared.__getitem__)[:5]
    hits = answer["hits"]
    assert [hit["item_id"] for hit in hits] == nearest
    assert [hit["squared_distance"] for hit in hits] == pytest.approx([*map(squared.get, nearest)])
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    found = (nearest[0], hits[0]["category"], hits[0]["attributes"])
    assert found == ("p6", "Bags", {"colour": "blue", "material": "leather"})


@pytest.mark.parametrize(
    "body", [{"json": {"item": "p0", "k": 3}}, {"data": {"item": "p0", "k": "3"}}]
)
def test_an_item_finds_others_but_not_itself(one: TestClient, body: Any) -> None:
    answer = one.post("/api/search", **body).json()
    first, *others = (hit["item_id"] for hit in answer["hits"])
    assert (answer["item"], len(others)) == ("p0", 2)
    assert first == "p24"  # the same drawing in a slightly other colour
    assert "p0" not in others


@pytest.mark.parametrize(
    "where", [["category:Hats", "colour:red", "colour:blue"],
              {"category": "Hats", "colour": ["red", "blue"]}],
)  # fmt: skip
def test_filters_are_alternatives_within_and_demands_between_columns(
    one: TestClient, where: Any
) -> None:
    answer = one.post("/api/search", json={"item": "p0", "k": 40, "where": where}).json()
    found = {(hit["category"], hit["attributes"]["colour"]) for hit in answer["hits"]}
    assert found == {("Hats", "red"), ("Hats", "blue")}
    assert len(answer["hits"]) == 4


PRICES = {"p5": "19.9", "p6": "19.90", "p7": "1e3", "p8": "1000.0"}


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ('"colour:a:b"', "p9"), ('"colour:inner:x:y"', "p9"),  # a column and a value with a colon
        *((f'{{"colour": {price}}}', item)  # a number in JSON is the text that was written
          for price, item in (("19.90", "p6"), ('"19.90"', "p6"), ("19.9", "p5"), ("1e3", "p7"))),
    ],
)  # fmt: skip
def test_a_value_is_the_text_that_was_written(where: str, found: str) -> None:
    rows = {item: {"category": "Hats", "colour": price} for item, price in PRICES.items()}
    rows |= {"p0": {"category": "Hats"}}
    rows |= {"p9": {"category": "Hats", "colour": "a:b", "colour:inner": "x:y"}}
    with client(drawn_bundle(rows=rows)) as one:
        body = f'{{"item": "p0", "where": {where}}}'
        answer = one.post("/api/search", content=body, **JSON).json()
    assert [hit["item_id"] for hit in answer["hits"]] == [found]


def test_bundles_are_asked_by_name() -> None:
    with client(drawn_bundle("one"), drawn_bundle("one", num_items=8)) as two:
        assert [bundle["name"] for bundle in two.get("/api/bundles").json()] == ["one", "one (2)"]
        hits = search(two, item="p0", k="50", bundle="one (2)").json()["hits"]
        assert len(hits) == 7
        assert hits[0]["thumbnail"].endswith("/thumbnail?bundle=one+%282%29")
        assert two.get(hits[0]["thumbnail"]).status_code == 200


def test_an_item_of_any_name_can_be_asked_for(one: TestClient) -> None:
    answer = one.post("/api/search", json={"item": EVIL, "k": 1})
    assert answer.status_code == 200
    hits = search(one, item="p3", k="48").json()["hits"]
    (address,) = (hit["thumbnail"] for hit in hits if hit["item_id"] == EVIL)
    assert one.get(address.removesuffix("/thumbnail")).json()["item_id"] == EVIL
    assert one.get(address).json()["detail"].endswith("add the item again with its picture.")


@pytest.mark.parametrize(
    "address", ["/", "/healthz", "/api/items/p0/thumbnail", "/static/page.css"]
)
def test_head_is_answered_as_get_without_content(one: TestClient, address: str) -> None:
    got, head, wrong = one.get(address), one.head(address), one.head("/api/search")
    assert head.status_code == got.status_code == 200
    for name in ("content-type", "content-length", "x-content-type-options"):
        assert head.headers[name] == got.headers[name]
    assert got.headers["content-length"] == str(len(got.content))
    assert (head.content, wrong.content) == (b"", b"")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_mistake_of_ours_is_a_problem_without_its_inside(
    one: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "search", lambda *_, **__: 1 / 0)
    answer = one.post("/api/search", json={"item": "p0"})
    assert answer.status_code == answer.json()["status"] == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivision" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_openapi_and_its_page_name_every_route(one: TestClient) -> None:
    paths = set(one.get("/openapi.json").json()["paths"])
    page = one.get("/docs", headers=HTML).text
    assert paths == {
        "/api/search", "/api/bundles", "/api/items", "/api/items/{item_id}",
        "/api/items/{item_id}/thumbnail", "/healthz", "/metrics",
    }  # fmt: skip
    assert all(path in page for path in paths)
    assert re.search("curl -F image=@shoe.jpg -F k=5 -F where=category:(Hats|Bags|Shoes) ", page)
    assert "/api/items/p0/thumbnail" in page  # an item that is there: what is copied works
    assert all(f'id="problem-{kind}"' in page for kind in KINDS)
    for part in ("http://cdn", "https://", "<script", "style="):
        assert part not in page


def test_metrics_count_routes_stages_and_items() -> None:
    with client() as one:
        search(one, drawn("Hats", "red"))
        search(one, item="nobody")
        one.get("/anything/at/all")
        answer = one.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'http_requests_total{method="POST",route="/api/search",status="200"} 1.0',
        'http_requests_total{method="POST",route="/api/search",status="404"} 1.0',
        'http_requests_total{method="GET",route="other",status="404"} 1.0',
        *(f'stage_seconds_count{{bundle="drawn",stage="{stage}"}} 1.0'
          for stage in ("decode", "embed", "search")),
        'encoder_queue_length{bundle="drawn"} 0.0', 'items{bundle="drawn"} 48.0',
        'generation{bundle="drawn"} 1.0',
    ):  # fmt: skip
        assert f"visual_search_{line}" in answer.text
