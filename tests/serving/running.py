"""An application for tests: in process, or behind a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from tests.serving.drawn_bundle import drawn_bundle
from visual_search.bundle.bundle import Bundle
from visual_search.config.schemas import ServeSchema
from visual_search.serve import server_settings
from visual_search.serving.app import create_app
from visual_search.serving.server import server_config
from visual_search.serving.settings import ServeSettings

TOKEN = "0123456789abcdef-token"
ALLOWED = {"authorization": f"Bearer {TOKEN}"}
HTML = {"accept": "text/html"}
BOUNDARY = "a-boundary-of-the-tests"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def serve_settings(**changes: Any) -> ServeSettings:
    """Returns the command's own settings but for the changes."""
    return replace(server_settings(ServeSchema()), **changes)


@contextmanager
def client(*bundles: Bundle, **settings: Any) -> Iterator[TestClient]:
    """Yields a client of an application over drawn bundles, by default over one."""
    app = create_app(bundles or (drawn_bundle(),), serve_settings(**settings))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as one:
        yield one


@contextmanager
def listening(*bundles: Bundle, **settings: Any) -> Iterator[int]:
    """Yields the port of a real server in a thread."""
    with running_server(*bundles, **settings) as server:
        yield port_of(server)


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@contextmanager
def running_server(*bundles: Bundle, **settings: Any) -> Iterator[uvicorn.Server]:
    """Yields a real server in a thread."""
    app = create_app(bundles or (drawn_bundle(),), serve_settings(**settings))
    config = server_config(app, serve_settings(**settings))
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield server
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def form(fields: Sequence[tuple[str, str]] = (), image: bytes | None = None) -> bytes:
    """Writes a multipart form."""
    lines = []
    for name, value in fields:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        lines.append(head.encode() + value.encode() + b"\r\n")
    if image is not None:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        lines.append(head.encode() + image + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int, method: str, path: str, body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:  # fmt: skip
    """Asks a real server over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        lower = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, lower, answer.read())
    finally:
        connection.close()


def search(port: int, image: bytes | None = None, **fields: str) -> Reply:
    """Searches by a form."""
    return ask(port, "POST", "/api/search", form(list(fields.items()), image), FORM)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Comes back when something is so; fails after two minutes."""
    pause = threading.Event()
    for _ in range(12_000):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within two minutes")
