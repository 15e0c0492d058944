from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.serving.running import HTML, client


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/nothing", "/api/items", "/static/page.js", "/healthz", "/metrics"]
)
def test_every_answer_carries_the_security_headers(one: TestClient, path: str) -> None:
    headers = one.get(path, headers=HTML).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'; img-src 'self' data: blob:" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for name, value in (
        ("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"), ("cross-origin-resource-policy", "same-origin"),
    ):  # fmt: skip
        assert headers[name] == value
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("trusted", "answers"),
    [
        ("Shop.example", {"shop.example:8000": 200, "127.0.0.1": 421}),
        ("*", {"anything": 200, "": 200, "any@thing": 421}),
    ],
)
def test_other_names_can_be_trusted(trusted: str, answers: dict[str, int]) -> None:
    with client(trusted_hosts=(trusted,)) as one:
        for host, status in answers.items():
            assert one.get("/healthz", headers={"host": host}).status_code == status
