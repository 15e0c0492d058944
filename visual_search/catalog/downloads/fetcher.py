"""One request over HTTP, by aiohttp: what is connected to, and what comes back, is checked.

What aiohttp has no notion of is here: an address is checked before it is connected to, and what a
server sends beyond the length that it announced is noticed. No proxy is used: behind one, the
address that a name leads to could not be checked.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable, Collection
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from visual_search.catalog.downloads.responses import (
    FetchError,
    check_headers,
    check_start,
    check_whole,
    of_status,
)
from visual_search.catalog.downloads.settings import DownloadSettings, Patience
from visual_search.catalog.downloads.urls import (
    RefusedUrlError,
    Url,
    check_address,
    check_scheme,
    redirected,
)

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_DRAINED_BYTES = 2**14  # of an answer that is no picture, to keep its connection


class Fetcher:
    """Asks for pictures over connections that stay open between them, until `aclose`.

    Args:
        settings: Limits and rules.
        patience: Connections and time-outs.
    """

    def __init__(self, settings: DownloadSettings, patience: Patience) -> None:
        self._settings = settings
        self._patience = patience
        self._session = aiohttp.ClientSession(
            connector=_Connector(settings, patience),
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": settings.user_agent,
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def fetch(self, url: Url, left_s: float) -> bytes | Url:
        """Returns a picture, whole, in one of the formats that are read; or where it is instead.

        Args:
            url: What to ask for.
            left_s: How long it may take.

        Raises:
            FetchError: It did not come, or is no picture.
        """
        patience = self._patience
        timeout = aiohttp.ClientTimeout(
            total=max(left_s, 1e-3),  # 0 would be no limit
            sock_connect=patience.connect_timeout_s,
            sock_read=patience.read_timeout_s,
        )
        try:
            _check_literal(url, self._settings.private_hosts)
            asked = URL(str(url), encoded=True)
            async with self._session.get(asked, allow_redirects=False, timeout=timeout) as response:
                assert isinstance(response, _Response)
                return await self._answer(url, response)
        except RefusedUrlError as error:
            raise FetchError(str(error), "refused") from error
        except aiohttp.ClientConnectorDNSError as error:
            reason = f"the host's name cannot be resolved ({error.os_error.strerror})"
            raise FetchError(reason, may_try_again=True) from error
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", error.certificate_error)
            reason = f"the server's certificate is not valid ({why})"
            raise FetchError(reason, "refused") from error
        except TimeoutError as error:
            is_silent = isinstance(error, aiohttp.SocketTimeoutError)
            why = f"silent for {patience.read_timeout_s:g} s" if is_silent else "took too long"
            raise FetchError(f"no answer in time: {why}", may_try_again=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # what is no HTTP is repeated by its message, whole
            why = f"{type(error).__name__}: {str(error)[:200]}".rstrip(": ")
            raise FetchError(f"the connection broke: {why}", may_try_again=True) from error

    def check_redirect(self, asked: Url, url: Url) -> None:
        """Refuses a redirect to where the rules do not let it lead.

        Args:
            asked: What was wanted at first.
            url: Where the redirect leads.

        Raises:
            FetchError: As said.
        """
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

    async def _answer(self, url: Url, response: _Response) -> bytes | Url:
        if response.status == 200:
            return await self._picture(response)
        length = response.content_length
        if length is not None and length <= _MAX_DRAINED_BYTES:
            await response.read()
        location = response.headers.get("Location")
        if response.status in _REDIRECTS and location:
            return redirected(url, location)
        retry_after = response.headers.get("Retry-After")
        raise of_status(response.status, response.reason or "", retry_after)

    async def _picture(self, response: _Response) -> bytes:
        announced, max_bytes = response.content_length, self._settings.max_bytes
        check_headers(response.headers)
        if announced is not None and announced > max_bytes:
            raise FetchError(
                f"announces {announced:,} bytes; max_bytes allows {max_bytes:,}", "refused"
            )
        data = bytearray()
        try:
            # By `iter_chunks`, which alone looks whether the body broke when a chunk has ended.
            async for chunk, _ in response.content.iter_chunks():
                is_start = len(data) < 16
                data += chunk
                if is_start and len(data) >= 16:
                    check_start(bytes(data[:16]))
                if len(data) > max_bytes:
                    raise FetchError(
                        f"sends more than {max_bytes:,} bytes, as max_bytes allows", "refused"
                    )
        except aiohttp.ClientPayloadError as error:
            if announced is None:
                raise
            raise FetchError(
                f"ended after {len(data):,} of {announced:,} bytes", may_try_again=True
            ) from error
        if not data:
            raise FetchError("the answer is empty", may_try_again=True)
        check_start(bytes(data[:16]))
        if response.has_excess:
            raise FetchError(f"sends more than the {announced or 0:,} bytes announced", "refused")
        picture = bytes(data)
        if announced is None and not response.is_chunked:
            await asyncio.to_thread(check_whole, picture)
        return picture


class _Connector(aiohttp.TCPConnector):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, settings: DownloadSettings, patience: Patience) -> None:
        resolver = _CheckedResolver(settings.private_hosts)
        super().__init__(
            resolver=resolver,
            use_dns_cache=False,
            ssl=ssl.create_default_context(),
            limit=patience.max_connections,
            limit_per_host=patience.max_connections_per_host,
        )
        make: Callable[..., ResponseHandler] = _Protocol
        self._factory = functools.partial(make, loop=self._loop)


class _CheckedResolver(aiohttp.ThreadedResolver):
    """Gives the addresses of a name where all of them may be connected to.

    The connection is made to what is returned here, and the name is not asked for again: a name
    server may answer a second time with another address.
    """

    def __init__(self, private_hosts: Collection[str]) -> None:
        super().__init__()
        self._private_hosts = private_hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for address in found:
            check_address(host, port, address["host"], self._private_hosts)
        return found


def _check_literal(url: Url, private_hosts: Collection[str]) -> None:
    """Checks a host that is an address, which aiohttp asks no resolver for."""
    try:
        ipaddress.ip_address(url.host)
    except ValueError:
        return  # a name
    check_address(url.host, url.port, url.host, private_hosts)


class _Protocol(ResponseHandler):
    """Notices what a server sends beyond its answer."""

    num_answers = 0

    def data_received(self, data: bytes) -> None:
        # Headers first: of a piece that ends in what is no HTTP the parser gives nothing at all.
        head, end, body = data.partition(b"\r\n\r\n")
        super().data_received(head + end)
        if body:
            super().data_received(body)
        payload, error = self._payload, self.exception()
        if payload and not payload.is_eof() and isinstance(error, HttpProcessingError):
            # or its reader would wait until the time is over
            payload.set_exception(aiohttp.ClientPayloadError(error.message))

    @property
    def has_excess(self) -> bool:
        """Whether more has come than was asked for."""
        return bool(self._buffer) or isinstance(self.exception(), HttpProcessingError)


class _Response(aiohttp.ClientResponse):
    """Knows the connection that it came over, also when that was given back."""

    protocol: _Protocol

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        self.protocol = connection.protocol
        is_kept = self.protocol.num_answers > 0
        if is_kept and self.protocol.has_excess:
            raise aiohttp.ServerDisconnectedError("it sent what nobody asked for")
        self.protocol.num_answers += 1
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            # A kept connection may be left in the very moment of asking: aiohttp asks again, which
            # is no fault of the picture. After a new one it would, too: a try that nobody counts.
            if is_kept:
                raise
            raise aiohttp.ClientConnectionError(str(error)) from error

    @property
    def has_excess(self) -> bool:
        """Whether more came than the answer, as far as it was received with its end."""
        return self.protocol.has_excess

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks, and so has an end without an announced length."""
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()
