"""A server on 127.0.0.1 for the tests of downloads: it serves, stalls, lies, redirects and dies."""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.catalog.odd_pictures import encoded, noise
from visual_search.catalog.downloads.download import download_pictures
from visual_search.catalog.downloads.manifest import LOCK_NAME, MANIFEST_NAME
from visual_search.catalog.downloads.report import DownloadProgress, DownloadReport
from visual_search.catalog.downloads.settings import Patience, WantedPicture
from visual_search.config.schemas import DownloadSchema
from visual_search.download import request_settings

# Waits for nothing for long, but for a machine that does other things as well.
QUICK = Patience(
    backoff_s=0.01, max_backoff_s=0.05,
    connect_timeout_s=30.0, read_timeout_s=30.0, total_timeout_s=60.0,
)  # fmt: skip


@functools.cache
def jpeg(number: int = 0) -> bytes:
    """A small picture; another number, another picture."""
    return encoded(noise(16, 16, number), "JPEG")


def left_in(folder: Path) -> list[str]:
    """Returns the names in a download's folder, but for its manifest and lock."""
    return sorted({path.name for path in folder.iterdir()} - {MANIFEST_NAME, LOCK_NAME})


class Handler(BaseHTTPRequestHandler):
    """Answers by what the test has set for the path; a picture where it has set nothing."""

    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        owner = self.server.owner
        with owner.lock:
            owner.asked.append((time.monotonic(), self.path))
            owner.headers.append(dict(self.headers))
            owner.num_open += 1
            owner.max_open = max(owner.max_open, owner.num_open)
            answers = owner.answers.get(self.path, [])
            answer = answers.pop(0) if len(answers) > 1 else answers[0] if answers else picture()
        try:
            answer(self)
        except OSError:
            self.close_connection = True  # the client has left
        finally:
            with owner.lock:
                owner.num_open -= 1

    def give(self, status: int, body: bytes, **headers: Any) -> None:
        """Sends an answer; a header's ``_`` is a ``-``, and ``None`` leaves it out."""
        given = {"Content_Type": "image/jpeg", "Content_Length": len(body)} | headers
        self.send_response(status)
        for name, value in given.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.wfile.write(b"".join(self._headers_buffer) + b"\r\n" + body)
        self._headers_buffer = []

    def log_message(self, format: str, *args: Any) -> None:
        return


Answer = Callable[[Handler], None]


def picture(data: bytes | None = None, status: int = 200, **headers: Any) -> Answer:
    return lambda handler: handler.give(status, jpeg() if data is None else data, **headers)


def only_status(status: int, **headers: Any) -> Answer:
    given = {"Content_Type": "text/plain"} | headers
    return lambda handler: handler.give(status, b"no", **given)


def redirect(location: str, status: int = 302) -> Answer:
    return only_status(status, Location=location)


def hang_up(handler: Handler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def then_hang_up(answer: Answer) -> Answer:
    def both(handler: Handler) -> None:
        answer(handler)
        hang_up(handler)

    return both


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: PictureServer

    def __init__(self, port: int) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a client that left


class PictureServer:
    """The server, and what it was asked.

    Args:
        folder: Where pictures go that are downloaded from here.

    Attributes:
        asked: Moment (`time.monotonic`) and path of every request.
        headers: Of every request.
        answers: Path -> what to answer, one after the other; the last one from then on.
        max_open: Most requests under way at the same time.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.asked: list[tuple[float, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.num_open = self.max_open = self.port = self.num_connections = 0
        self.start()

    def __enter__(self) -> PictureServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        with self.lock:
            return [path for _, path in self.asked]

    @property
    def connections(self) -> int:
        """How many were opened."""
        return self.num_connections + len(self._server.connections)

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Comes up, after `die` on the same port."""
        self._server = _Server(self.port)
        if tls is not None:  # the handshake comes with the first read, in the request's thread
            listening = self._server.socket
            self._server.socket = tls.wrap_socket(
                listening, server_side=True, do_handshake_on_connect=False
            )
        self._server.owner = self
        self.port = self._server.server_address[1]
        arguments = {"poll_interval": 0.01}
        threading.Thread(target=self._server.serve_forever, kwargs=arguments, daemon=True).start()

    def die(self) -> None:
        """Stops, and drops every connection."""
        self._server.shutdown()
        self._server.server_close()
        self.num_connections += len(self._server.connections)
        for connection in self._server.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already
        self._server.connections = []

    def on(self, path: str, *answers: Answer) -> None:
        self.answers[path] = list(answers)

    def url(self, path: str = "/0.jpg") -> str:
        return f"http://{self.place}{path}"

    def wanted(self, num: int, pattern: str = "{}.jpg") -> list[WantedPicture]:
        """Returns pictures 0 to n - 1, each with a path of its own."""
        names = [pattern.format(number) for number in range(num)]
        return [WantedPicture(name, self.url(f"/{name}")) for name in names]

    def config(self, **more: Any) -> DownloadSchema:
        """Returns a config of the command that allows this server; others are the defaults."""
        own: dict[str, Any] = {"http_hosts": [self.place], "private_hosts": [self.place]}
        return DownloadSchema(**({"requests_per_s": 2000.0} | own | more))

    def download(
        self,
        wanted: Sequence[WantedPicture] | int,
        folder: Path | None = None,
        *,
        on_progress: Callable[[DownloadProgress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        **more: Any,
    ) -> DownloadReport:
        """Downloads pictures from here, or so many; ``more`` are settings, and of `Patience`."""
        patient = {one.name: more.pop(one.name) for one in fields(Patience) if one.name in more}
        return download_pictures(
            self.wanted(wanted) if isinstance(wanted, int) else wanted,
            self.folder if folder is None else folder,
            settings=request_settings(self.config(**more)),
            patience=replace(QUICK, **patient),
            on_progress=on_progress,
            should_stop=should_stop,
        )

    def load(self, folder: Path | None = None, **more: Any) -> DownloadReport:
        """Downloads one picture."""
        return self.download(1, folder, **more)
