"""Items through the API: found, added, replaced and removed, beside other writers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import (
    COLOURS,
    SHAPES,
    drawn,
    drawn_bundle,
    embedded,
    write_bundle,
)
from tests.serving.running import (
    ALLOWED,
    TOKEN,
    ask,
    client,
    listening,
    search,
    wait_until,
)
from visual_search.bundle import indexing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.locking import write_lock
from visual_search.bundle.writing import remove_items


@pytest.fixture
def bundle() -> Bundle:
    return drawn_bundle("own")


@pytest.fixture
def own(bundle: Bundle) -> Iterator[TestClient]:
    """A client that may change the bundle."""
    with client(bundle, write_token=TOKEN, refresh_seconds=0.1) as found:
        yield found


def add(one: TestClient, items: Sequence[Mapping[str, str]], images: Sequence[bytes]) -> Any:
    files = [("image", ("a.jpg", image, "image/jpeg")) for image in images]
    return one.post("/api/items", data={"items": json.dumps(items)}, files=files, headers=ALLOWED)


def nearest(one: TestClient, image: bytes) -> Any:
    answer = one.post("/api/search", files={"image": image}, data={"k": "1"})
    assert answer.status_code == 200
    return answer.json()["hits"][0]


def test_an_onnx_file_gives_what_the_encoder_in_its_place_gives(
    tmp_path: Path, real_encoder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "make_encoder", real_encoder)
    image, asked = drawn("Dresses", "sand", 5), {"k": "6", "where": ["colour:red", "colour:sand"]}
    with client(Bundle.open(write_bundle(tmp_path))) as one:
        hits = one.post("/api/search", files={"image": image}, data=asked).json()["hits"]
    monkeypatch.undo()
    where = {"colour": ["red", "sand"]}
    [wanted] = drawn_bundle().search(embedded([image]), 6, where=where)
    assert [(hit["item_id"], hit["attributes"]) for hit in hits] == [
        (hit.item_id, dict(hit.attributes)) for hit in wanted
    ]
    squared = [hit["squared_distance"] for hit in hits]
    assert squared == pytest.approx([hit.squared_distance for hit in wanted], abs=1e-6)


def test_items_are_added_replaced_and_removed_at_once(own: TestClient) -> None:
    blue, rose = drawn("Bags", "blue", 90), drawn("Dresses", "rose", 90)
    made = add(own, [{"item_id": "new/1", "category": "Bags", "colour": "blue"}], [blue])
    assert made.status_code == 201
    assert made.json() == {
        "bundle": "own", "num_added": 1, "num_replaced": 0, "num_removed": 0, "num_items": 49,
        "num_products": 49, "num_products_added": 1, "num_products_removed": 0, "generation": 2,
    }  # fmt: skip
    hit = nearest(own, blue)
    assert (hit["item_id"], hit["attributes"]) == ("new/1", {"colour": "blue", "material": ""})
    assert hit["squared_distance"] < 1e-6
    assert own.get(hit["thumbnail"]).content.startswith(b"\xff\xd8\xff")
    assert own.get("/api/items/new%2F1").json()["category"] == "Bags"
    again = add(own, [{"item_id": "new/1", "category": "Dresses"}], [rose]).json()
    assert (again["num_added"], again["num_replaced"], again["num_items"]) == (0, 1, 49)
    assert nearest(own, rose)["item_id"] == "new/1" != nearest(own, blue)["item_id"]
    gone = own.delete("/api/items/new%2F1", headers=ALLOWED)
    assert gone.json()["num_removed"] == 1
    assert nearest(own, rose)["item_id"] != "new/1"
    assert own.get("/api/items/new%2F1").status_code == 404
    both = own.delete("/api/items?item=p0&item=p1", headers=ALLOWED).json()
    assert (both["num_removed"], both["num_items"], both["generation"]) == (2, 46, 5)
    assert 'visual_search_generation{bundle="own"} 5.0' in own.get("/metrics").text


ODD = (
    "a", "a/thumbnail", "a/thumbnail/thumbnail", "thumbnail", "a/", "/", "a//b", "x/../y", " x ",
    "100 %", "ä #1?&+=;", "back\\slash", "1.10", "null", "..a", "אב",
)  # fmt: skip


def test_ids_with_slashes_blanks_and_signs_are_found_by_every_route(own: TestClient) -> None:
    ids = [*ODD, *(f"n{n}" for n in range(20))]  # more than are embedded at a time
    rows = [
        {"item_id": item_id, "category": SHAPES[n % 4], "colour": f"c{n}"}
        for n, item_id in enumerate(ids)
    ]
    pictures = [drawn(SHAPES[n % 4], list(COLOURS)[n % 6], 3 + 2 * n) for n in range(len(rows))]
    assert add(own, rows, pictures).json()["num_added"] == len(rows)
    assert [nearest(own, picture)["item_id"] for picture in pictures] == ids
    for row in rows[: len(ODD)]:
        item_id = row["item_id"]
        path = f"/api/items/{quote(item_id, safe='')}"
        shown = own.get(path).json()
        assert (shown["item_id"], shown["attributes"]["colour"]) == (item_id, row["colour"])
        assert own.get(shown["thumbnail"]).content.startswith(b"\xff\xd8\xff")
        listed = own.get("/api/items", params={"where": f"colour:{row['colour']}"}).json()
        assert [item["item_id"] for item in listed["items"]] == [item_id]
        for body in ({"json": {"item": item_id}}, {"data": {"item": item_id}}):
            assert own.post("/api/search", **body).json()["item"] == item_id
        assert own.get("/", params={"item": item_id}).status_code == 200
        assert own.delete(path, headers=ALLOWED).json()["num_removed"] == 1, row
        assert own.get(path).status_code == 404


def test_of_two_removals_at_once_one_finds_nothing(own: TestClient) -> None:
    together = threading.Barrier(2)

    def delete(_: int) -> tuple[int, str]:
        together.wait(20)
        answer = own.delete("/api/items/p5", headers=ALLOWED)
        return answer.status_code, answer.json().get("type", "")

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(delete, range(2)))
    assert answers == [(200, ""), (404, "/docs#problem-no-such-item")]


def test_another_writer_is_noticed(own: TestClient, bundle: Bundle) -> None:
    remove_items(bundle.folder, ["p3"])
    answer = own.delete("/api/items?item=p4&item=p3", headers=ALLOWED)
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs#problem-no-such-item")
    assert "'p3'" in answer.json()["detail"]
    wait_until(lambda: own.get("/api/items/p3").status_code == 404)
    assert own.get("/api/items/p4").status_code == 200
    health = own.get("/healthz").json()["bundles"]["own"]
    assert health == {"is_healthy": True, "generation": 2, "num_items": 47}


def test_a_bundle_that_another_writer_holds_is_answered_503(
    own: TestClient, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(folder: Path, ids: Sequence[str], **more: Any) -> Any:
        return remove_items(folder, ids, wait_seconds=0.1, **more)

    monkeypatch.setattr("visual_search.bundle.writing.remove_items", impatient)
    with write_lock(bundle.folder, wait_seconds=1):
        answer = own.delete("/api/items/p0", headers=ALLOWED)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["type"] == "/docs#problem-cannot-write"
    assert own.delete("/api/items/p0", headers=ALLOWED).status_code == 200


def test_searches_go_on_while_items_come_and_go(bundle: Bundle) -> None:
    image = drawn("Bags", "green")  # p10's own picture
    stop = threading.Event()
    with listening(bundle, write_token=TOKEN) as port:

        def search_on() -> int:
            number = 0
            while not stop.is_set():
                hits = search(port, image, k="3").json()["hits"]
                assert (len(hits), hits[0]["item_id"]) == (3, "p10")
                number += 1
            return number

        with ThreadPoolExecutor(4) as threads:
            searching = [threads.submit(search_on) for _ in range(4)]
            try:
                for n in range(4):
                    answer = ask(port, "DELETE", f"/api/items/p{n}", headers=ALLOWED)
                    assert (answer.status, answer.json()["generation"]) == (200, n + 2)
            finally:
                stop.set()
            assert all(each.result(120) > 0 for each in searching)
