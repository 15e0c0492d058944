"""How much may come in: a request's body is counted while it streams, whatever it announces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visual_search.serving.problems import Problem, problem_response
from visual_search.serving.settings import ServeSettings

# What stands around a picture in a form: boundaries, headers, the other fields.
FORM_BYTES = 256 * 2**10
MAX_FIELDS = 500
MAX_FIELD_BYTES = 64 * 2**10
# A body that comes slower, once it had time to start, holds a place that others wait for.
MIN_BYTES_PER_SECOND = 4 * 2**10
START_SECONDS = 5.0
_NO_PICTURE = (
    ", as pictures come in multipart/form-data alone; name fewer values, or send a picture with "
    "curl -F image=@picture.jpg."
)
_DISCARD_SECONDS = 5.0


class LimitBodies:
    """Ends the reading of a request's body at its limit.

    The announced length is checked first, then what really arrives is counted: a wrong
    ``Content-Length``, or none, makes no difference to the memory that is used.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        limit = self._limit(request)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            problem = too_large(int(announced), limit)
            await problem_response(request, problem)(scope, receive, send)
            return
        num_bytes = 0
        started = asyncio.get_running_loop().time()

        async def counted() -> Message:
            nonlocal num_bytes
            latest = started + START_SECONDS + num_bytes / MIN_BYTES_PER_SECOND
            try:
                async with asyncio.timeout_at(latest):
                    message = await receive()
            except TimeoutError:
                raise too_slow(
                    f"came at less than {MIN_BYTES_PER_SECOND:,} bytes a second"
                ) from None
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                if num_bytes > limit:
                    raise too_large(num_bytes, limit)
            return message

        await self._app(scope, counted, send)

    def _limit(self, request: Request) -> int:
        if media_type(request) != "multipart/form-data":
            return FORM_BYTES  # it holds no picture
        if request.url.path == "/api/items":
            return self._settings.max_write_bytes + FORM_BYTES
        return self._settings.max_upload_bytes + FORM_BYTES


def too_large(num_bytes: int, limit: int) -> Problem:
    """Returns the problem of a body with so many bytes, as far as they were counted."""
    return Problem(
        "too-large",
        f"The request has {num_bytes:,} bytes or more; expected at most {limit:,}"
        + (_NO_PICTURE if limit == FORM_BYTES else "; save the picture smaller."),
    )


class FinishBodies:
    """Answers only when a request's body was read, or says that the connection ends.

    Most clients look for an answer when they have sent all; of one that comes sooner they would see
    a broken connection. So what nobody read is read on for a moment, and not kept; what does not
    end then ends with the connection.

    Args:
        app: What is behind.
        max_bytes: Most that is read without being wanted.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_read = not _announces_body(scope)

        async def noted() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                headers = MutableHeaders(scope=message)
                # Who asks first whether to send a body is told not to.
                if "connection" not in headers and "expect" not in Headers(scope=scope):
                    await _discard(noted, self._max_bytes)
                if not is_read:
                    headers["connection"] = "close"
            await send(message)

        await self._app(scope, noted, after_body)


def _announces_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _discard(receive: Receive, max_bytes: int) -> None:
    """Reads on for a moment without keeping anything."""
    num_bytes = 0
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            while num_bytes <= max_bytes:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def media_type(request: Request) -> str:
    """Returns a request's kind of content, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def read_form(
    request: Request, settings: ServeSettings, *, max_files: int
) -> AsyncIterator[FormData]:
    """Yields a form's fields and files; what was put on the disk for it is removed afterwards.

    Raises:
        Problem: It does not arrive in time, is too large, or holds more files than expected.
    """
    form = request.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    async with in_time(settings):
        fields = await form
    try:
        yield fields
    finally:
        await fields.close()


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """Returns a body that is no form.

    Raises:
        Problem: It does not arrive in time or is too large.
    """
    async with in_time(settings):
        return await request.body()


@asynccontextmanager
async def in_time(settings: ServeSettings) -> AsyncIterator[None]:
    """Ends what waits for a slow client.

    Raises:
        Problem: The block took longer than `ServeSettings.read_seconds`.
    """
    try:
        async with asyncio.timeout(settings.read_seconds):
            yield
    except TimeoutError:
        raise too_slow(f"took more than {settings.read_seconds:g} s to arrive") from None


def too_slow(how: str) -> Problem:
    """Returns the problem of a body that does not come; the connection ends with it."""
    return Problem(
        "too-slow",
        f"The request's body {how}; expected it sooner; send a smaller picture.",
        headers={"connection": "close"},
    )
