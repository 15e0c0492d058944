"""Requests that are refused: each says what to do, changes nothing and tells no secret."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import drawn
from tests.serving.running import ALLOWED, FORM, HTML, TOKEN, form
from visual_search.serving.problems import KINDS

# What a caller asks, and the kind and text of the problem that it gets.
Refused = tuple[str, str, dict[str, Any], str, str]
STATUS = {
    "bad-request": 400, "token-needed": 401, "writing-off": 403, "cross-site": 403,
    "no-such-item": 404, "not-found": 404, "no-such-bundle": 404, "wrong-method": 405,
    "too-large": 413, "wrong-media-type": 415, "not-a-picture": 415, "wrong-host": 421,
    "invalid": 422, "bad-picture": 422,
}  # fmt: skip
JSON: Any = {"headers": {"content-type": "application/json"}}
HATS, P0 = drawn("Hats", "red"), {"item": "p0"}
ROW = {"item_id": "n", "category": "Hats"}


def bmp_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "BMP")
    return file.getvalue()


def search(kind: str, message: str, **body: Any) -> Refused:
    return ("POST", "/api/search", body, kind, message)


def listing(query: str, message: str) -> Refused:
    return ("GET", f"/api/items?{query}", {}, "invalid", message)


def from_host(host: str) -> Refused:
    return ("GET", "/api/items", {"headers": {"host": host}}, "wrong-host", "")


def from_site(path: str, **headers: str) -> Refused:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return ("POST", path, {"data": P0, "headers": given}, "cross-site", "")


def write(method: str, path: str, authorization: str | None, kind: str, **more: Any) -> Refused:
    given = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    message = "set VISUAL_SEARCH_TOKEN" if kind == "writing-off" else ""
    return (method, path, {"headers": given, **more}, kind, message)


def removal(path: str, kind: str, message: str) -> Refused:
    return ("DELETE", f"/api/items{path}", {"headers": ALLOWED}, kind, message)


def adding(items: Any, images: Sequence[bytes], kind: str, message: str) -> Refused:
    files = [("image", ("a.jpg", image, "image/jpeg")) for image in images]
    given = {"data": {"items": json.dumps(items)}, "files": files, "headers": ALLOWED}
    return ("POST", "/api/items", given, kind, message)


REFUSED: list[Refused] = [
    search("invalid", "neither a picture nor an item", data={"k": "3"}),
    search("no-such-item", "no item 'nobody'", data={"item": "nobody"}),
    search("invalid", "k is '0'; expected .* 1 to 100", data={**P0, "k": "0"}),
    search("invalid", "whole number", data={**P0, "k": "9" * 5000}),
    search("invalid", "expected column:value", data={**P0, "where": "Hats"}),
    search("invalid", "where names 'size'", data={**P0, "where": "size:4"}),
    search("no-such-bundle", r"one of \['drawn'\]", data={**P0, "bundle": "no"}),
    search("invalid", "Addresses are not fetched", data={"image": "http://127.0.0.1/"}),
    search("invalid", "The JSON is a list; expected an object", json=["p0"]),
    search("invalid", "field 'kk' is not known", json={**P0, "kk": 3}),
    search("invalid", "where=column:value", data={**P0, "category": "Hats"}),
    search("invalid", "'item' has 2 values; expected one", data={"item": ["p0", "p1"]}),
    search("invalid", "'item' has 2 values; expected one", json={"item": ["p0", "p1"]}),
    search("invalid", "a picture and the item 'p0'; expected one", data=P0, files={"image": HATS}),
    search("invalid", "'item' holds a dict", json={"item": {"a": 1}}),
    search("invalid", "k is '2.5'; expected a whole number", json={**P0, "k": 2.5}),
    search("invalid", "holds a bool", json={**P0, "where": {"colour": True}}),
    search("invalid", "holds a NoneType", json={**P0, "where": {"colour": [None]}}),
    search("invalid", "'k' holds a bool", json={**P0, "k": True}),
    search("bad-request", "The body is no JSON", content=b"{", **JSON),
    search("bad-request", "The body is no JSON", content=b"[" * 50_000, **JSON),
    search("bad-request", "NaN is no number", content=b'{"item": "p0", "k": NaN}', **JSON),
    search("invalid", "'item' twice", content=b'{"item": "p0", "item": "p1"}', **JSON),
    search("invalid", "'colour' twice",
           content=b'{"item": "p0", "where": {"colour": "red", "colour": "blue"}}', **JSON),
    search("invalid", "more than 500", json={**P0, "where": ["colour:red"] * 501}),
    search("invalid", "more than 500", json={**P0, "where": {"colour": ["red"] * 501}}),
    search("too-large", "at most 262,144, .* name fewer", json={"where": ["colour:red"] * 100_000}),
    search("too-large", "at most 262,144, .* name fewer", content="where=a%3Ab&" * 100_000,
           headers={"content-type": "application/x-www-form-urlencoded"}),
    search("wrong-media-type", "expected multipart/form-data", content=b"x"),
    search("bad-request", "oundary", content=b"x", headers={"content-type": "multipart/form-data"}),
    search("bad-request", "", content=form([("where", "category:Hats")] * 600), headers=FORM),
    search("bad-request", "", content=form([("item", "x" * 100_000)]), headers=FORM),
    search("not-a-picture", r"starts with b'%PDF-1.7'", files={"image": b"%PDF-1.7"}),
    search("bad-picture", "does not decode", files={"image": HATS[:900]}),
    search("bad-picture", "at most 1,000,000 are", files={"image": bmp_of(3000, 1000)}),
    search("bad-request", "Too many files", files=[("image", b"a"), ("image", b"b")]),
    ("GET", "/api/nothing", {}, "not-found", ""),
    ("PUT", "/api/search", {}, "wrong-method", ""),
    listing("limit=201", "limit is '201'; expected a whole number from 1 to 200"),
    listing("limit=0", "limit"),
    listing("start=-1", "start is '-1'"),
    listing("start=x", "start is 'x'"),
    listing("where=x", "column:value"),
    listing("category=Hats", "The field 'category' is not known"),
    *(from_host(host) for host in (
        "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[", "169.254.1.1",
        "evil.example@127.0.0.1", "user:word@localhost", "127.0.0.1/evil", "127.0.0.1?evil",
        "127.0.0.1#evil", "127.0.0.1:80a", "127.0.0.1:+80", "127.0.0.1:99999", "[::1]evil", "::1",
        "[127.0.0.1]", "127.0.0.1.", "localhost evil", "127.0.0.1,evil", "127.0.0.1\\evil",
        "%6cocalhost")),
    *(from_site(path, **headers) for path in ("/", "/api/search") for headers in (
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1"},
        {"origin": "http://evil.example"}, {"origin": "http://127.0.0.1:9999"}, {"origin": "null"},
        {"origin": "http://["})),
    write("POST", "/api/items", None, "writing-off", files={"image": HATS}),
    write("DELETE", "/api/items/p0", None, "writing-off"),
    write("DELETE", "/api/items?item=p0", None, "writing-off"),
    write("DELETE", "/api/items/p0", "Bearer None", "writing-off"),
    write("DELETE", "/api/items/p0", "Bearer ", "writing-off"),
]  # fmt: skip
REFUSED_TO_A_WRITER: list[Refused] = [
    *(write("DELETE", "/api/items/p0", given, "token-needed") for given in (
        "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN,
        "Bearer ünïcödé-ünïcödé-ü", f"bearer  x{TOKEN}")),
    from_site("/api/items", sec_fetch_site="cross-site", **ALLOWED),
    removal("/nobody", "no-such-item", "no item 'nobody'"),
    removal("?item=p0&item=nobody", "no-such-item", "no item 'nobody'"),
    removal("?" + "&".join(f"item=p{n}" for n in range(101)), "invalid", "1 to 100"),
    ("POST", "/api/items", {"json": ROW, "headers": ALLOWED}, "wrong-media-type", ""),
    adding([ROW, {**ROW, "item_id": "m"}], [b""], "invalid", "1 pictures for 2 items"),
    adding([], [b""], "invalid", "names 0 items"),
    adding([ROW, ROW], [b"", b""], "invalid", "2 items, 1 of them different"),
    adding([{"item_id": "n"}], [b""], "invalid", "object of texts with item_id and category"),
    adding([{**ROW, "size": 4}], [b""], "invalid", "expected an object of texts"),
    adding(["n"], [b""], "invalid", "An item is n; expected an object"),
    adding([{**ROW, "size": "4"}], [b""], "invalid", "names the column 'size'; expected some of"),
    adding([ROW], [b"GIF"], "not-a-picture", "Item 'n': The picture: not a picture"),
    adding([{**ROW, "item_id": "x" * 20_000}], [HATS], "invalid", "at most 10,000"),
    adding([ROW] * 101, [b""] * 101, "bad-request", "Too many files"),
    # ids that could not be found again
    *(adding([{**ROW, "item_id": item_id}], [HATS], "invalid", re.escape(repr(item_id)))
      for item_id in (" ", "\t", "a\nb", "a\x00", "\u200b", "a\u2028", ".", "..")),
]  # fmt: skip


def assert_refused(asked: TestClient, request: Refused) -> None:
    method, path, more, kind, message = request
    answer = asked.request(method, path, **more)
    problem = answer.json()
    assert answer.status_code == problem["status"] == STATUS[kind]
    assert (problem["type"], problem["title"]) == (f"/docs#problem-{kind}", KINDS[kind][1])
    assert re.search(message, problem["detail"])
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-frame-options"] == "DENY"
    assert ("www-authenticate" in answer.headers) == (kind == "token-needed")
    assert ("allow" in answer.headers) == (kind == "wrong-method")
    assert TOKEN not in answer.text
    [bundle] = asked.get("/api/bundles").json()
    assert bundle["generation"] == 1


@pytest.mark.parametrize("request_", REFUSED)
def test_what_is_refused_says_what_to_do_and_changes_nothing(
    one: TestClient, request_: Refused
) -> None:
    assert_refused(one, request_)


@pytest.mark.parametrize("request_", REFUSED_TO_A_WRITER)
def test_what_is_refused_to_those_who_may_write_changes_nothing(
    writer: TestClient, request_: Refused
) -> None:
    assert_refused(writer, request_)


@pytest.mark.parametrize("path", ["/", "/api/search"])
@pytest.mark.parametrize(
    "headers",
    [
        {},  # a program
        {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1"},
        {"sec-fetch-site": "none"}, {"origin": "http://127.0.0.1"},
        *({"host": host, "origin": f"http://{host}"}
          for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000",
                       "127.0.0.1:65535", "127.0.0.1:")),
    ],
)  # fmt: skip
def test_the_servers_own_pages_and_programs_may_post(
    one: TestClient, path: str, headers: dict[str, str]
) -> None:
    assert one.post(path, data=P0, headers=headers).status_code == 200


def test_other_sites_may_read(one: TestClient) -> None:
    for path in ("/", "/api/items"):
        assert one.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200


WORDS_OF_PROGRAMS = re.compile(
    r"/api|/docs|\bGET\b|curl|JSON|Content-Type|multipart|expected|\bb'|\bbytes\b|Error|where="
)


@pytest.mark.parametrize("accepts", [HTML, {**HTML, "hx-request": "true"}])
@pytest.mark.parametrize(
    "request_",
    [
        {"files": {"image": b"not a picture"}}, {"files": {"image": HATS[:900]}},
        {"files": {"image": bytes(120_000)}}, {"files": {"image": bytes(400_000)}},
        {"files": [("image", b"a"), ("image", b"b")]},
        {"data": {"image": "http://127.0.0.1/a.jpg"}}, {"data": {"item": "nobody"}},
        *({"data": {**P0, name: value}} for name, value in (
            ("k", "many"), ("where", "Hats"), ("bundle", "other"),
            ("where", ["category:Hats"] * 600))),
        {"content": b"{", **JSON}, {"content": b"x", "headers": {"content-type": "text/plain"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"data": P0, "headers": {"origin": "http://evil.example"}},
    ],
)  # fmt: skip
def test_who_shops_reads_no_words_for_programs(
    writer: TestClient, request_: dict[str, Any], accepts: dict[str, str]
) -> None:
    given = {**request_, "headers": {**request_.get("headers", {}), **accepts}}
    answer = writer.post("/", **given)
    assert answer.status_code >= 400
    text = html.unescape(answer.text.rpartition("<main")[2])
    assert "Start over" in text
    assert not WORDS_OF_PROGRAMS.findall(re.sub(r"<(?!div class=.outcome)[^>]*>", "", text))
