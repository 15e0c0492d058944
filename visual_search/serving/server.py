"""The process around the application: listening, stopping in order."""

from __future__ import annotations

import functools
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.types import ASGIApp

from visual_search.serving.app import create_app
from visual_search.serving.connections import BoundedConnection
from visual_search.serving.settings import ServeSettings

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle

MAX_CONNECTIONS = 1000
BACKLOG = 256  # taken at one go, before any of them can be told that there is no room


def serve(
    bundles: Sequence[Bundle | str | Path],
    settings: ServeSettings,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves bundles until the process is told to stop.

    At SIGTERM or SIGINT no further connection is taken, what runs is answered, and the function
    returns. A second SIGINT does not wait.

    Args:
        bundles: Opened bundles, or their folders.
        settings: Where to listen, limits, the token.
        on_ready: Called with the page's address as soon as requests are answered.

    Raises:
        FileNotFoundError: A folder holds no bundle.
        ValueError: There is no bundle, one cannot be used, or the address cannot be listened on.
    """
    from visual_search.bundle.bundle import Bundle

    opened = [
        Bundle.open(bundle) if isinstance(bundle, str | Path) else bundle for bundle in bundles
    ]
    config = server_config(create_app(opened, settings), settings)
    listener = _listen(settings)
    server = _Server(config, address_of(listener), on_ready)
    try:
        with _ending_quietly():
            server.run(sockets=[listener])
    finally:
        listener.close()


def server_config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    """Returns how uvicorn is to run the application."""
    # Each warns of every request that cannot be read: anybody could fill the disk.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    protocol = functools.partial(
        BoundedConnection, wait_seconds=settings.read_seconds, max_connections=_max_connections()
    )
    return uvicorn.Config(
        app,
        http=cast(Any, protocol),
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )


def _max_connections() -> int:
    """Returns how many connections fit into the files that a process may open, with room left."""
    try:
        import resource
    except ImportError:  # on Windows
        return MAX_CONNECTIONS
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    is_unlimited = most_files == resource.RLIM_INFINITY
    return MAX_CONNECTIONS if is_unlimited else max(1, min(MAX_CONNECTIONS, most_files // 2))


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, address: str, on_ready: Callable[[str], None] | None
    ) -> None:
        super().__init__(config)
        self._address = address
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._on_ready is not None:
            self._on_ready(self._address)


class _Stopped(Exception):  # noqa: N818 - no error: how the signal's second coming is caught
    """uvicorn has finished after a signal."""


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Turns the signal that uvicorn sends again when it has finished into a plain return.

    Left alone it would end the process as if it had been killed, which supervisors report.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not ours to handle
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def address_of(listener: socket.socket) -> str:
    """Returns the address of the page behind a listening socket.

    Example:
        >>> with socket.create_server(("127.0.0.1", 0)) as listener:
        ...     address_of(listener).rpartition(":")[0]
        'http://127.0.0.1'
    """
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns off Nagle's algorithm only where the protocol is named: without it the second
    # part of every answer waits 40 ms for the first one's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {settings.host!r}, port {settings.port} ({error}); expected an "
            "address of this machine and a free port; choose another port, or 0 for any free one"
        ) from error
    return listener
