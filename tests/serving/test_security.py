from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import drawn
from tests.serving.running import ALLOWED, HTML, TOKEN, client


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/nothing", "/api/items", "/static/page.js", "/healthz", "/metrics"]
)
def test_every_answer_carries_the_security_headers(one: TestClient, path: str) -> None:
    headers = one.get(path, headers=HTML).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'; img-src 'self' data: blob:" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8000", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost@evil.example", 421),
        ("", 421), ("[", 421), ("169.254.1.1", 421), ("evil.example@127.0.0.1", 421),
        ("user:word@localhost", 421), ("127.0.0.1/evil", 421), ("127.0.0.1?evil", 421),
        ("127.0.0.1#evil", 421), ("127.0.0.1:80a", 421), ("127.0.0.1:+80", 421),
        ("127.0.0.1:99999", 421), ("127.0.0.1:65535", 200), ("127.0.0.1:", 200), ("[::1]evil", 421),
        ("::1", 421), ("[127.0.0.1]", 421), ("127.0.0.1.", 421), ("localhost evil", 421),
        ("127.0.0.1,evil", 421), ("127.0.0.1\\evil", 421), ("%6cocalhost", 421),
    ],
)  # fmt: skip
def test_only_trusted_names_are_answered(one: TestClient, host: str, status: int) -> None:
    answer = one.get("/api/items", headers={"host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["type"] == "/docs#problem-wrong-host"
        assert "x-frame-options" in answer.headers


def test_other_names_can_be_trusted() -> None:
    with client(trusted_hosts=("Shop.example",)) as one:
        assert one.get("/healthz", headers={"host": "shop.example:8000"}).status_code == 200
        assert one.get("/healthz", headers={"host": "127.0.0.1"}).status_code == 421
    with client(trusted_hosts=("*",)) as one:
        for host, status in (("anything", 200), ("", 200), ("any@thing", 421)):
            assert one.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),  # a program
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://127.0.0.1"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1:9999"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/search"])
def test_posts_from_other_sites_are_refused(
    one: TestClient, path: str, headers: dict[str, str], is_allowed: bool
) -> None:
    answer = one.post(path, data={"item": "p0"}, headers=headers)
    assert one.get(path, headers=headers).status_code in (200, 405)  # reading is allowed
    assert answer.status_code == (200 if is_allowed else 403)


def test_a_site_that_posts_with_the_token_is_refused_too(writer: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", **ALLOWED}
    answer = writer.delete("/api/items/p0", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["title"].endswith("another site")


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/api/items", {"files": {"image": drawn("Hats", "red")}}),
        ("DELETE", "/api/items/p0", {}),
        ("DELETE", "/api/items?item=p0", {}),
        ("DELETE", "/api/items/p0", {"headers": {"authorization": "Bearer None"}}),
        ("DELETE", "/api/items/p0", {"headers": {"authorization": "Bearer "}}),
    ],
)
def test_writing_is_off_without_a_token(
    one: TestClient, method: str, path: str, more: dict[str, Any]
) -> None:
    answer = one.request(method, path, **more)
    assert answer.status_code == 403
    assert answer.json()["type"] == "/docs#problem-writing-off"
    assert "set VISUAL_SEARCH_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN,
     "Bearer ünïcödé-ünïcödé-ü", f"bearer  x{TOKEN}"],
)  # fmt: skip
def test_another_token_is_refused(writer: TestClient, authorization: str) -> None:
    given = {"authorization": authorization.encode("latin-1")}
    answer = writer.delete("/api/items/p0", headers=given)
    assert writer.get("/api/items/p0").status_code == 200
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text
