"""One picture over HTTP: asked for, followed through redirects, and checked before it is believed.

The standard library's ``http.client`` reads the answers: no client of more comfort is among the
dependencies, and to connect to the very address that was checked takes a connection of one's own
with any of them. No proxy is used: behind one, the address that a name leads to could not be
checked.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator

from visual_search.catalog.downloads.connections import Connection
from visual_search.catalog.downloads.responses import (
    FetchError,
    announced_bytes,
    check_headers,
    check_start,
    check_whole,
    of_status,
)
from visual_search.catalog.downloads.scheduler import Turn, Turns
from visual_search.catalog.downloads.settings import DownloadSettings
from visual_search.catalog.downloads.urls import RefusedUrlError, Url, check_scheme, redirected

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 2**16
_MAX_DRAINED_BYTES = 2**14  # of an answer that is no picture, to keep its connection
_WAIT_FOR_END_S = 1.0


class Fetcher:
    """Fetches pictures for several threads, over connections that stay open between pictures.

    Args:
        settings: Limits and rules.
        turns: Says when a redirect may be followed.
    """

    def __init__(self, settings: DownloadSettings, turns: Turns) -> None:
        self._settings = settings
        self._turns = turns
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._busy: set[Connection] = set()
        self._idle: deque[tuple[tuple[str, str, int], Connection]] = deque()  # the newest last
        self.is_aborted = False

    def fetch(self, url: Url, turn: Turn) -> bytes:
        """Returns the bytes of a picture, whole, in one of the formats that are read.

        Args:
            url: What to ask for.
            turn: The right to send the first request; it is given back.

        Raises:
            FetchError: It did not come, or is no picture.
            Stopped: The download is to end, and a redirect was not followed.
        """
        asked = url
        left_s = self._settings.total_timeout_s
        num_redirects = 0
        while True:
            with turn:
                start = time.monotonic()
                answer = self._noted(url, start + left_s)
                left_s -= time.monotonic() - start  # waiting for a turn takes none of it
            if isinstance(answer, bytes):
                return answer
            num_redirects += 1
            if num_redirects > self._settings.max_redirects:
                raise FetchError(
                    f"more than {self._settings.max_redirects} redirects, the last to {answer}",
                    "refused",
                )
            self._check_redirect(asked, answer)
            url = answer
            turn = self._turns.turn(url.place)

    def abort(self) -> None:
        """Ends every request under way with a `FetchError`."""
        with self._lock:
            self.is_aborted = True
            for connection in self._busy:
                connection.abort()

    def close(self) -> None:
        """Closes the connections that wait for further pictures."""
        with self._lock:
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()

    def _check_redirect(self, asked: Url, url: Url) -> None:
        try:
            check_scheme(url, self._settings.http_hosts)
        except RefusedUrlError as error:
            raise FetchError(f"redirected: {error}", "refused") from error
        if url.place not in (asked.place, *self._settings.allowed_hosts):
            raise FetchError(
                f"redirected to {url}; expected {asked.place!r}, or {url.place!r} among "
                "allowed_hosts",
                "refused",
            )

    def _noted(self, url: Url, deadline: float) -> bytes | Url:
        """Asks, and lets the other threads know how the host fared."""
        try:
            answer = self._ask(url, deadline)
        except FetchError as error:
            if not error.may_try_again:
                self._turns.note_answer(url.place)
                raise
            self._turns.note_failure(url.place)
            if error.asks_to_wait:
                asked_s = self._settings.backoff_s if error.wait_s is None else error.wait_s
                self._turns.pause(url.place, asked_s)
            raise
        self._turns.note_answer(url.place)
        return answer

    def _ask(self, url: Url, deadline: float) -> bytes | Url:
        """Returns the picture, or where the server redirects to."""
        with _explained():
            kept = self._kept_connection(url)
            answer = self._ask_over(kept, url, deadline, is_kept=True) if kept else None
            if answer is None:
                if self.is_aborted:
                    raise FetchError("the download was ended")
                new = Connection(url, self._settings, deadline, self._tls)
                answer = self._ask_over(new, url, deadline, is_kept=False)
        assert answer is not None  # only a kept connection may have been left by its server
        if isinstance(answer, FetchError):
            raise answer
        return answer

    def _ask_over(
        self, connection: Connection, url: Url, deadline: float, *, is_kept: bool
    ) -> bytes | Url | FetchError | None:
        """Returns what the answer holds; ``None`` where the server has left a kept connection."""
        is_reusable = False
        with self._lock:
            self._busy.add(connection)
            if self.is_aborted:  # since the last look
                connection.abort()
        try:
            try:
                response = connection.get(url, deadline)
            except ConnectionError:
                if is_kept:  # it may leave in the very moment of asking: no fault of the picture
                    return None
                raise
            if response.status == 200:
                data = self._picture(response, connection)
                is_reusable = not response.will_close
                return data
            is_reusable = _drain(response)
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                return redirected(url, location)
            return of_status(response)
        finally:
            with self._lock:
                self._busy.discard(connection)
            if is_reusable:
                self._keep(connection, url)
            else:
                connection.close()

    def _picture(self, response: http.client.HTTPResponse, connection: Connection) -> bytes:
        announced = announced_bytes(response)
        check_headers(response)
        if announced is not None and announced > self._settings.max_bytes:
            raise FetchError(
                f"announces {announced:,} bytes; max_bytes allows {self._settings.max_bytes:,}",
                "refused",
            )
        data = bytearray()
        while chunk := response.read(_CHUNK_BYTES):
            if not data:
                check_start(chunk)
            data += chunk
            if len(data) > self._settings.max_bytes:
                raise FetchError(
                    f"sends more than {self._settings.max_bytes:,} bytes, as max_bytes allows",
                    "refused",
                )
        if announced is not None and len(data) < announced:
            raise FetchError(
                f"ended after {len(data):,} of {announced:,} bytes", may_try_again=True
            )
        if not data:
            raise FetchError("the answer is empty", may_try_again=True)
        if announced is not None and connection.has_more(
            _WAIT_FOR_END_S if response.will_close else 0.0
        ):
            raise FetchError(f"sends more than the {announced:,} bytes announced", "refused")
        if announced is None and not response.chunked:
            check_whole(bytes(data))
        return bytes(data)

    def _kept_connection(self, url: Url) -> Connection | None:
        """Returns an open connection to the URL's host that nobody uses, the last used first."""
        key = (url.scheme, url.host, url.port)
        while True:
            with self._lock:
                found = next((entry for entry in reversed(self._idle) if entry[0] == key), None)
                if found is None:
                    return None
                self._idle.remove(found)
            if found[1].is_usable():
                return found[1]
            found[1].close()

    def _keep(self, connection: Connection, url: Url) -> None:
        with self._lock:
            self._idle.append(((url.scheme, url.host, url.port), connection))
            too_many = len(self._idle) > self._settings.max_connections
            oldest = self._idle.popleft()[1] if too_many else None
        if oldest is not None:
            oldest.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns whatever goes wrong on the way into a `FetchError`."""
    try:
        yield
    except RefusedUrlError as error:
        raise FetchError(str(error), "refused") from error
    except socket.gaierror as error:
        raise FetchError(
            f"the host's name cannot be resolved ({error.strerror})", may_try_again=True
        ) from error
    except ssl.SSLCertVerificationError as error:
        reason = f"the server's certificate is not valid ({error.verify_message})"
        raise FetchError(reason, "refused") from error
    except TimeoutError as error:
        raise FetchError(f"no answer in time: {error}", may_try_again=True) from error
    # ValueError: http.client on a chunk of a negative size
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"the connection broke: {type(error).__name__}: {error}".rstrip(": ")
        raise FetchError(reason, may_try_again=True) from error


def _drain(response: http.client.HTTPResponse) -> bool:
    """Reads a short answer to its end; says whether its connection is good for more."""
    if response.will_close or response.length is None or response.length > _MAX_DRAINED_BYTES:
        return False
    missing = response.length
    return len(response.read(missing)) == missing
