"""The whole way over a real bundle: its files, ONNX Runtime, FAISS and the writers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import COLOURS, SHAPES, drawn, drawn_bundle
from tests.serving.real_bundle import write_bundle
from tests.serving.running import FORM, ask, client, form, listening
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.locking import write_lock
from visual_search.bundle.writing import remove_items
from visual_search.catalog.images import PictureLimits

TOKEN = "0123456789abcdef-token"
ALLOWED = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, files={"report.html": "<title>A run</title>"})


@pytest.fixture
def one(folder: Path) -> Iterator[TestClient]:
    bundle: Any = Bundle.open(folder)
    with client(bundle, write_token=TOKEN, refresh_seconds=0.1) as found:
        yield found


def add(one: TestClient, items: Sequence[Mapping[str, str]], images: Sequence[bytes]) -> Any:
    files = [("image", ("a.jpg", image, "image/jpeg")) for image in images]
    return one.post("/api/items", data={"items": json.dumps(items)}, files=files, headers=ALLOWED)


def nearest(one: TestClient, image: bytes) -> Any:
    answer = one.post("/api/search", files={"image": image}, data={"k": "1"})
    assert answer.status_code == 200
    return answer.json()["hits"][0]


def test_the_service_finds_what_the_bundle_finds(one: TestClient, folder: Path) -> None:
    bundle, image = Bundle.open(folder), drawn("Dresses", "sand", 5)
    query = bundle.encoder.embed(bundle.encoder.decode(image, PictureLimits())[None])
    expected = bundle.search(query, 6, where={"category": ["Dresses", "Hats"]})[0]
    fields = {"k": "6", "where": ["category:Dresses", "category:Hats"]}
    hits = one.post("/api/search", files={"image": image}, data=fields).json()["hits"]
    assert [hit["item_id"] for hit in hits] == [hit.item_id for hit in expected]
    assert [hit["squared_distance"] for hit in hits] == pytest.approx(
        [hit.squared_distance for hit in expected], abs=1e-6
    )
    assert [hit["attributes"] for hit in hits] == [dict(hit.attributes) for hit in expected]


def test_the_drawn_bundle_of_the_other_tests_answers_alike(one: TestClient) -> None:
    with client(drawn_bundle()) as other:
        for path in ("/api/items?where=category:Hats&start=2&limit=3", "/api/items/p5"):
            ours, theirs = one.get(path).json(), other.get(path).json()
            ours.pop("bundle", None), theirs.pop("bundle", None)
            assert ours == theirs
        body = {"item": "p7", "k": 9}
        found = [c.post("/api/search", json=body).json()["hits"] for c in (one, other)]
    assert [hit["item_id"] for hit in found[0]] == [hit["item_id"] for hit in found[1]]


def test_items_are_added_replaced_and_removed_at_once(one: TestClient) -> None:
    blue, rose = drawn("Bags", "blue", 90), drawn("Dresses", "rose", 90)
    made = add(one, [{"item_id": "new/1", "category": "Bags", "colour": "blue"}], [blue])
    assert made.status_code == 201
    assert made.json() == {
        "bundle": "real", "num_added": 1, "num_replaced": 0, "num_removed": 0, "num_items": 49,
        "generation": 2,
    }  # fmt: skip
    hit = nearest(one, blue)
    assert (hit["item_id"], hit["attributes"]) == ("new/1", {"colour": "blue", "material": ""})
    assert hit["squared_distance"] < 1e-6
    picture = one.get(hit["thumbnail"])
    assert picture.content.startswith(b"\xff\xd8\xff")
    assert one.get("/api/items/new%2F1").json()["category"] == "Bags"
    again = add(one, [{"item_id": "new/1", "category": "Dresses"}], [rose]).json()
    assert (again["num_added"], again["num_replaced"], again["num_items"]) == (0, 1, 49)
    assert nearest(one, rose)["item_id"] == "new/1"
    assert nearest(one, blue)["item_id"] != "new/1"
    gone = one.delete("/api/items/new%2F1", headers=ALLOWED)
    assert gone.json()["num_removed"] == 1
    assert nearest(one, rose)["item_id"] != "new/1"
    assert one.get("/api/items/new%2F1").status_code == 404
    both = one.delete("/api/items?item=p0&item=p1", headers=ALLOWED).json()
    assert (both["num_removed"], both["num_items"], both["generation"]) == (2, 46, 5)
    assert 'visual_search_generation{bundle="real"} 5.0' in one.get("/metrics").text


def test_more_items_than_a_batch_keep_their_pictures(one: TestClient) -> None:
    pictures = [drawn(SHAPES[n % 4], list(COLOURS)[n % 6], 3 + 2 * n) for n in range(40)]
    rows = [{"item_id": f"n{n}", "category": SHAPES[n % 4]} for n in range(40)]
    assert add(one, rows, pictures).json()["num_added"] == 40
    assert [nearest(one, picture)["item_id"] for picture in pictures] == [
        f"n{n}" for n in range(40)
    ]


FOUND_BY_EVERY_ROUTE = (
    "a", "a/thumbnail", "a/thumbnail/thumbnail", "thumbnail", "a/", "/", "a//b", "x/../y", " x ",
    "100 %", "ä #1?&+=;", "back\\slash", "1.10", "null", "..a", "אב",
)  # fmt: skip


def test_ids_with_slashes_blanks_and_signs_are_found_by_every_route(one: TestClient) -> None:
    rows = [
        {"item_id": item_id, "category": SHAPES[n % 4], "colour": f"c{n}"}
        for n, item_id in enumerate(FOUND_BY_EVERY_ROUTE)
    ]
    pictures = [drawn(SHAPES[n % 4], list(COLOURS)[n % 6], 3 + 2 * n) for n in range(len(rows))]
    assert add(one, rows, pictures).json()["num_added"] == len(rows)
    for row in rows:
        item_id = row["item_id"]
        shown = one.get(f"/api/items/{quote(item_id, safe='')}").json()
        assert (shown["item_id"], shown["attributes"]["colour"]) == (item_id, row["colour"])
        assert one.get(shown["thumbnail"]).content.startswith(b"\xff\xd8\xff")
        listed = one.get("/api/items", params={"where": f"colour:{row['colour']}"}).json()
        assert [item["item_id"] for item in listed["items"]] == [item_id]
        for body in ({"json": {"item": item_id}}, {"data": {"item": item_id}}):
            assert one.post("/api/search", **body).json()["item"] == item_id
        assert one.get("/", params={"item": item_id}).status_code == 200
    for row in rows:
        gone = one.delete(f"/api/items/{quote(row['item_id'], safe='')}", headers=ALLOWED)
        assert gone.json()["num_removed"] == 1, row
        assert one.get(f"/api/items/{quote(row['item_id'], safe='')}").status_code == 404


@pytest.mark.parametrize("item_id", [" ", "\t", "a\nb", "a\x00", "\u200b", "a\u2028", ".", ".."])
def test_ids_that_could_not_be_found_again_are_refused_when_they_are_added(
    one: TestClient, item_id: str
) -> None:
    answer = add(one, [{"item_id": item_id, "category": "Hats"}], [drawn("Hats", "red")])
    assert answer.status_code == 422
    assert repr(item_id) in answer.json()["detail"]
    assert one.get("/api/items?limit=1").json()["total"] == 48


ROW = {"item_id": "n", "category": "Hats"}


@pytest.mark.parametrize(
    ("items", "images", "status", "message"),
    [
        ([ROW, {**ROW, "item_id": "m"}], [b""], 422, "1 pictures for 2 items"),
        ([], [b""], 422, "names 0 items"),
        ([ROW, ROW], [b"", b""], 422, "2 items, 1 of them different"),
        ([{"item_id": "n"}], [b""], 422, "expected an object of texts with item_id and category"),
        ([{**ROW, "size": 4}], [b""], 422, "expected an object of texts"),
        (["n"], [b""], 422, "An item is n; expected an object"),
        ([{**ROW, "size": "4"}], [b""], 422, "names the column 'size'; expected some of"),
        ([ROW], [b"GIF"], 415, "Item 'n': The picture: not a picture"),
        ([{**ROW, "item_id": "x" * 20_000}], [drawn("Hats", "red")], 422, "at most 10,000"),
        ([{**ROW, "item_id": str(n)} for n in range(101)], [b""] * 101, 400, "Too many files"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_added_change_nothing(
    one: TestClient, items: Any, images: Sequence[bytes], status: int, message: str
) -> None:
    answer = add(one, items, images)
    assert answer.status_code == status
    assert message in answer.json()["detail"]
    assert one.get("/api/bundles").json()[0]["generation"] == 1


def test_of_two_removals_at_once_one_finds_nothing(one: TestClient) -> None:
    together = threading.Barrier(2)

    def delete(_: int) -> tuple[int, str]:
        together.wait(20)
        answer = one.delete("/api/items/p5", headers=ALLOWED)
        return answer.status_code, answer.json().get("type", "")

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(delete, range(2)))
    assert answers == [(200, ""), (404, "/docs#problem-no-such-item")]


def test_what_another_writer_has_removed_is_not_there(one: TestClient, folder: Path) -> None:
    remove_items(folder, ["p3"])
    answer = one.delete("/api/items?item=p4&item=p3", headers=ALLOWED)
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs#problem-no-such-item")
    assert "'p3'" in answer.json()["detail"]
    assert one.get("/api/items/p4").status_code == 200


def test_what_is_not_there_cannot_be_removed(one: TestClient) -> None:
    for path in ("/api/items/nobody", "/api/items?item=p0&item=nobody"):
        answer = one.delete(path, headers=ALLOWED)
        assert answer.status_code == 404
        assert "no item 'nobody'" in answer.json()["detail"]
    many = "&".join(f"item=p{n}" for n in range(101))
    assert one.delete(f"/api/items?{many}", headers=ALLOWED).status_code == 422
    assert one.get("/api/items/p0").status_code == 200
    json_body = one.post("/api/items", json=ROW, headers=ALLOWED)
    assert json_body.status_code == 415


def test_a_bundle_that_another_writer_holds_is_answered_503(
    one: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(folder: Path, ids: Sequence[str]) -> Any:
        return remove_items(folder, ids, wait_seconds=0.1)

    monkeypatch.setattr("visual_search.bundle.writing.remove_items", impatient)
    with write_lock(folder, wait_seconds=1):
        answer = one.delete("/api/items/p0", headers=ALLOWED)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["type"] == "/docs#problem-cannot-write"
    assert one.delete("/api/items/p0", headers=ALLOWED).status_code == 200


def test_another_writer_is_noticed(one: TestClient, folder: Path) -> None:
    remove_items(folder, ["p3"])
    for _ in range(2000):
        if one.get("/api/items/p3").status_code == 404:
            break
        time.sleep(0.05)
    health = one.get("/healthz").json()["bundles"]["real"]
    assert health == {"is_healthy": True, "generation": 2, "num_items": 47}


def test_the_page_and_the_report_come_from_the_bundle(one: TestClient) -> None:
    page = one.get("/?item=p0", headers={"accept": "text/html"}).text
    assert "/report?bundle=real" in page
    assert "A run" in one.get("/report?bundle=real").text


def test_searches_go_on_while_items_come_and_go(folder: Path) -> None:
    image = drawn("Bags", "green")  # p10's own picture
    stop = threading.Event()
    bundle: Any = Bundle.open(folder)
    with listening(bundle, write_token=TOKEN) as port:

        def search() -> int:
            number = 0
            while not stop.is_set():
                answer = ask(port, "POST", "/api/search", form([("k", "3")], image), FORM)
                assert answer.status == 200
                assert answer.json()["hits"][0]["item_id"] == "p10"
                assert len(answer.json()["hits"]) == 3
                number += 1
            return number

        with ThreadPoolExecutor(4) as threads:
            searching = [threads.submit(search) for _ in range(4)]
            try:
                for n in range(4):
                    answer = ask(port, "DELETE", f"/api/items/p{n}", headers=ALLOWED)
                    assert answer.status == 200
                    assert answer.json()["generation"] == n + 2
            finally:
                stop.set()
            assert all(one.result(120) > 0 for one in searching)
