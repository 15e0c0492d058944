"""How much may come in: a request's body is counted while it streams, whatever it announces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visual_search.serving.problems import Problem, problem_response
from visual_search.serving.settings import ServeSettings

# What stands around a picture in a form: boundaries, headers, the other fields.
FORM_BYTES = 256 * 2**10
MAX_FIELDS = 500
MAX_FIELD_BYTES = 64 * 2**10
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
            await _discard(receive, 4 * limit)
            problem = too_large(int(announced), limit)
            await problem_response(request, problem)(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                if num_bytes > limit:
                    await _discard(receive, 4 * limit)
                    raise too_large(num_bytes, limit)
            return message

        await self._app(scope, counted, send)

    def _limit(self, request: Request) -> int:
        if request.url.path == "/api/items":
            return self._settings.max_write_bytes + FORM_BYTES
        return self._settings.max_upload_bytes + FORM_BYTES


def too_large(num_bytes: int, limit: int) -> Problem:
    """Gives the problem of a body with so many bytes, as far as they were counted."""
    return Problem(
        "too-large",
        f"The request has {num_bytes:,} bytes or more; expected at most {limit:,}; "
        "save the picture smaller.",
    )


async def _discard(receive: Receive, max_bytes: int) -> None:
    """Reads on for a moment without keeping anything.

    Most clients look for an answer only when they have sent all; without this they would see a
    broken connection rather than the reason.
    """
    ends = time.monotonic() + _DISCARD_SECONDS
    num_bytes = 0
    while num_bytes <= max_bytes and (left := ends - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        num_bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


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
    """Gives a body that is no form.

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
        raise Problem(
            "too-slow",
            f"The request's body took more than {settings.read_seconds:g} s to arrive; expected it "
            "sooner; send a smaller picture.",
            headers={"connection": "close"},
        ) from None
