"""One connection to one checked address, which never waits longer than it is allowed to.

``http.client`` reads the answers (status, headers, chunks). What it has no notion of is here: the
address that was checked is the one connected to, a time limit holds for a whole answer however
slowly its bytes drip, and what a server sends beyond the length that it announced is noticed, not
taken for the next answer.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from visual_search.catalog.downloads.settings import DownloadSettings
from visual_search.catalog.downloads.urls import Url, resolve


class Connection:
    """An open connection to a URL's host, over TLS for https.

    Args:
        url: Scheme, host and port are used.
        settings: Time-outs, hosts that may be private, and the user agent.
        deadline: When to stop trying, of `time.monotonic`.
        tls: Checks the server's certificate.

    Raises:
        RefusedUrlError: The host leads to an address that is not public.
        OSError: No address of the host answers.
    """

    def __init__(
        self, url: Url, settings: DownloadSettings, deadline: float, tls: ssl.SSLContext
    ) -> None:
        self._agent = settings.user_agent
        deadline = min(deadline, time.monotonic() + settings.connect_timeout_s)
        self._socket = _connected(resolve(url, settings.private_hosts), deadline)
        try:
            if url.scheme == "https":
                self._socket.settimeout(_left_s(deadline))
                self._socket = tls.wrap_socket(self._socket, server_hostname=url.host)
        except BaseException:
            self._socket.close()
            raise
        self._wire = _Wire(self._socket, settings.read_timeout_s)
        self._reader = _Reader(self._wire)

    def get(self, url: Url, deadline: float) -> http.client.HTTPResponse:
        """Asks for a URL of this host; gives the answer with its headers read.

        Its body is read by ``read(n)``, which raises `TimeoutError` when the server is silent for
        too long, or at the deadline.

        Raises:
            OSError: The connection broke, or took too long.
            http.client.HTTPException: The answer is no HTTP.
        """
        self._wire.deadline = deadline
        request = (
            f"GET {url.target} HTTP/1.1\r\n"
            f"Host: {url.place}\r\n"
            f"User-Agent: {self._agent}\r\n"
            "Accept: image/*\r\n"
            "Accept-Encoding: identity\r\n"
            "\r\n"
        )
        self._socket.settimeout(_left_s(deadline))
        self._socket.sendall(request.encode("ascii"))
        response = http.client.HTTPResponse(self, method="GET")  # type: ignore[arg-type]
        response.begin()
        return response

    def makefile(self, mode: str) -> io.BufferedReader:
        """Returns what answers are read from: all `http.client.HTTPResponse` asks a socket for.

        One reader for all answers, so that bytes that came too early are not lost between them.
        """
        return self._reader

    def has_more(self, wait_s: float = 0.0) -> bool:
        """Returns whether the server has sent more than the answer, or does within so long."""
        self._wire.patience_s = wait_s
        try:
            return bool(self._reader.peek(1))
        except OSError:  # broken: nothing more will come
            return False
        finally:
            self._wire.patience_s = None

    def is_usable(self) -> bool:
        """Returns whether another URL can be asked for: the server is silent and has not left."""
        return not self.has_more() and not self._wire.has_ended

    def abort(self) -> None:
        """Ends what another thread is waiting for on this connection."""
        try:
            # Not the TLS socket's own: it would take away what the other thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # closed already

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


class _Wire(io.RawIOBase):
    """The bytes that a socket receives, until a deadline."""

    def __init__(self, connected: socket.socket, read_timeout_s: float) -> None:
        super().__init__()
        self._socket = connected
        self._read_timeout_s = read_timeout_s
        self.deadline = 0.0
        self.patience_s: float | None = None  # set: give None in place of an error
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.patience_s is not None:
            return self._peek_into(buffer, self.patience_s)
        left_s = _left_s(self.deadline)
        self._socket.settimeout(min(left_s, self._read_timeout_s))
        try:
            num = self._socket.recv_into(buffer)
        except TimeoutError:
            _left_s(self.deadline)
            raise TimeoutError(f"silent for {self._read_timeout_s:g} s") from None
        self.has_ended = not num
        return num

    def _peek_into(self, buffer: Any, patience_s: float) -> int | None:
        self._socket.settimeout(patience_s)
        try:
            num = self._socket.recv_into(buffer)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            self.has_ended = True
            raise
        self.has_ended = not num
        return num


class _Reader(io.BufferedReader):
    """Stays open when `http.client` has read one answer and closes its file."""

    def close(self) -> None:
        return


def _connected(addresses: Sequence[tuple[int, Any]], deadline: float) -> socket.socket:
    """Connects to the first address that answers.

    Raises:
        OSError: None does; the last one's reason.
    """
    problem: OSError | None = None
    for place, (family, address) in enumerate(addresses):
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A silent one leaves the others their share of the time.
            opened.settimeout(_left_s(deadline) / (len(addresses) - place))
            opened.connect(address)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return opened
        except OSError as error:
            opened.close()
            problem = error
    raise problem or OSError("the host has no address")


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("took too long")
    return left_s
