"""What the other ends of connections may keep the server from: real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.serving.drawn_bundle import drawn, drawn_bundle
from tests.serving.running import (
    BOUNDARY,
    FORM,
    ask,
    form,
    listening,
    port_of,
    running_server,
    search,
    wait_until,
)
from visual_search.serving import limits, server

HEAD = b"Host: 127.0.0.1\r\nContent-Type: " + FORM["content-type"].encode() + b"\r\n"
SLOW_BODY = b"POST /api/search HTTP/1.1\r\n" + HEAD + b"Content-Length: 90000\r\n\r\n"
PLACES = 8


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", PLACES)


def connected(port: int, source: str | None = None) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", port), timeout=20, source_address=None if source is None else (source, 0)
    )


def rest_of(connection: socket.socket) -> bytes:
    """Everything that comes until the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@contextmanager
def silent(port: int, number: int, first: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(port)) for _ in range(number)]
        for connection in connections:
            connection.sendall(first)
        yield connections


@pytest.mark.parametrize(
    "first",
    [b"", b"GET / HTTP/1.1\r\nHo", b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n", SLOW_BODY],
    ids=["nothing", "half a head", "idle", "a body that does not come"],
)
@pytest.mark.usefixtures("few_places")
def test_connections_that_wait_for_nothing_keep_nobody_out(first: bytes) -> None:
    with listening() as port, silent(port, PLACES + 4, first) as connections:
        for _ in range(3):
            assert search(port, item="p0").status == 200
        rest_of(connections[0])  # the oldest one has given up its place


@pytest.mark.usefixtures("few_places")
def test_an_address_with_few_connections_keeps_them() -> None:
    with listening() as port:
        try:
            lone = connected(port, "127.0.0.2")
        except OSError:
            pytest.skip("the system has no second loopback address")
        with lone, silent(port, 3 * PLACES, b"") as connections:
            rest_of(connections[0])
            lone.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n")
            assert rest_of(lone).startswith(b"HTTP/1.1 200")


def test_where_all_places_are_busy_a_further_connection_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    bundle = drawn_bundle()
    encoder: Any = bundle.encoder
    with running_server(bundle) as served, ThreadPoolExecutor(2) as threads:
        encoder.gate, port, image = threading.Event(), port_of(served), drawn("Hats", "red")
        with connected(port) as watching:
            running = [threads.submit(search, port, image)]
            while b"searches_running 1.0" not in metrics(watching):
                pass
            running.append(threads.submit(search, port, image))
            rest_of(watching)  # its place is taken
        held = served.server_state.connections
        wait_until(lambda: len(held) == 2 and not any(one.waits_for_client for one in held))
        with connected(port) as further:
            answer = rest_of(further)
        encoder.gate.set()
        assert [one.result(20).status for one in running] == [200, 200]
        assert ask(port, "GET", "/healthz").status == 200
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in answer


def metrics(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /metrics HTTP/1.1\r\n" + HEAD + b"\r\n")
    text = b""
    while b"visual_search_searches_running " not in text:
        part = connection.recv(2**16)
        assert part
        text += part
    return text


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["nothing", "a byte a time"])
def test_a_head_has_to_come_in_time(first: bytes) -> None:
    with listening(read_seconds=0.3) as port, connected(port) as connection:
        connection.sendall(first)
        connection.settimeout(0.05)

        def is_ended() -> bool:
            try:
                return connection.recv(100) == b""
            except TimeoutError:
                connection.sendall(b"a" if first else b"")
                return False
            except ConnectionError:
                return True

        wait_until(is_ended)


def test_who_does_not_read_the_answers_is_given_up() -> None:
    num_answers = 2_000  # 75 MB: more than the system holds for a connection
    with running_server(read_seconds=0.3) as running, socket.socket() as connection:
        size = len(ask(port_of(running), "GET", "/static/htmx.min.js").body)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port_of(running)))
        request = b"GET /static/htmx.min.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            connection.sendall(request * num_answers)
        state = running.server_state
        wait_until(lambda: state.total_requests > 1 and not state.connections)
        received = len(rest_of(connection))
    assert 0 < received < num_answers * size


@pytest.fixture(scope="module")
def narrow() -> Iterator[int]:
    """The port of a server that takes small bodies; whatever it gets, it goes on."""
    with listening(max_upload_bytes=1_000) as port:
        yield port
        assert ask(port, "GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/search", HEAD, 413),
        *(("/api/search", b"Host: 127.0.0.1\r\nContent-Type: %s\r\n" % kind, 413)
          for kind in (b"text/plain", b"application/json")),
        ("/api/items", HEAD, 403),
        ("/nothing", HEAD, 413),
        ("/api/search", b"Host: evil.example\r\n", 421),
    ],
)  # fmt: skip
def test_a_body_without_an_end_is_ended_with_the_connection(
    narrow: int, path: str, headers: bytes, status: int
) -> None:
    with connected(narrow) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n".encode() + headers)
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(chunk(form(image=b"")[: -len(f"\r\n--{BOUNDARY}--\r\n")]))
        num_chunks = 0
        with contextlib.suppress(ConnectionError):
            while num_chunks < 500:  # 32 MB: more than systems hold for a connection
                connection.sendall(chunk(bytes(2**16)))
                num_chunks += 1
        assert num_chunks < 500
    with connected(narrow) as ends:
        ends.sendall(f"POST {path} HTTP/1.1\r\nConnection: close\r\n".encode() + headers)
        ends.sendall(b"Content-Length: 300000\r\n\r\n" + bytes(300_000))
        assert rest_of(ends).startswith(f"HTTP/1.1 {status}".encode())


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def test_a_client_that_sends_a_little_more_still_reads_the_reason(narrow: int) -> None:
    answer = search(narrow, bytes(300_000))
    assert (answer.status, answer.json()["type"]) == (413, "/docs#problem-too-large")


@pytest.mark.parametrize(
    ("start_seconds", "read_seconds", "reason"),
    [(60, 0.3, b"took more than 0.3 s to arrive"), (0.3, 60, b"bytes a second")],
)
def test_a_body_that_does_not_come_is_given_up(
    monkeypatch: pytest.MonkeyPatch, start_seconds: float, read_seconds: float, reason: bytes
) -> None:
    monkeypatch.setattr(limits, "START_SECONDS", start_seconds)
    with listening(read_seconds=read_seconds) as port, connected(port) as connection:
        connection.sendall(SLOW_BODY + b"--" + BOUNDARY.encode() + b"\r\n")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert reason in answer


def test_who_asks_before_sending_is_told_at_once(narrow: int) -> None:
    with connected(narrow) as connection:
        connection.sendall(b"POST /api/search HTTP/1.1\r\n" + HEAD)
        connection.sendall(b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer


def test_who_leaves_within_a_body_is_no_mistake_of_the_server(
    narrow: int, caplog: pytest.LogCaptureFixture
) -> None:
    def is_running(number: int) -> bool:
        return b"searches_running %d.0" % number in ask(narrow, "GET", "/metrics").body

    with connected(narrow) as connection:
        connection.sendall(SLOW_BODY.replace(b"90000", b"900") + b"--" + BOUNDARY.encode())
        wait_until(lambda: is_running(1))
    wait_until(lambda: is_running(0))
    assert caplog.text == ""


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\x16\x03\x01\0",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000],
    ids=["no host", "two hosts", "TLS", "negative", "gzip", "no chunk", "a long head"],
)  # fmt: skip
def test_what_is_no_http_is_refused_without_a_word_in_the_log(
    narrow: int, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(narrow) as connection:
        connection.sendall(request_ + b"\r\n\r\n")
        answer = rest_of(connection)
    assert ask(narrow, "GET", "/healthz").status == 200
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""  # the rest was not read: reset
    assert caplog.text == ""
