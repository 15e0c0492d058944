"""The application: routes, guards and what they share, put together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visual_search.serving.api import api_router
from visual_search.serving.api_items import items_router
from visual_search.serving.docs_page import docs_page, for_examples
from visual_search.serving.limits import FinishBodies, LimitBodies
from visual_search.serving.metrics import CountRequests
from visual_search.serving.pages import pages_router
from visual_search.serving.problems import Problem, as_problem, problem_response
from visual_search.serving.schemas import PROBLEM_TYPE
from visual_search.serving.security import CheckSender, SecureAnswers
from visual_search.serving.service import Service
from visual_search.serving.settings import ServeSettings
from visual_search.serving.templating import STATIC

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle

VERSION = "1"
_PROBLEM = "#/components/schemas/ProblemDetails"
_DESCRIPTION = (
    "Finds products that look like a picture or like another product, in one or several search "
    "bundles."
)


def create_app(bundles: Sequence[Bundle], settings: ServeSettings) -> FastAPI:
    """Returns the page and the API over bundles, as an ASGI application.

    Args:
        bundles: Opened bundles; two of them can be searched side by side. Of equal names the later
            ones get a number.
        settings: Limits, names, the token.

    Raises:
        ValueError: There is no bundle.
    """
    service = Service.of(bundles, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Visual search",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/openapi.json",
        docs_url=None,  # both of FastAPI's load scripts from foreign servers
        redoc_url=None,
    )
    app.include_router(pages_router(service))
    app.include_router(api_router(service))
    app.include_router(items_router(service))
    app.mount("/static", _Static(directory=STATIC), name="static")
    _add_docs(app, service)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    # The last one added is the outermost: it sees every request first and every answer last.
    app.add_middleware(LimitBodies, settings=settings)
    app.add_middleware(CheckSender, trusted_hosts=settings.trusted_hosts)
    app.add_middleware(CountRequests, metrics=service.metrics, clock=time.perf_counter)
    app.add_middleware(SecureAnswers)
    app.add_middleware(FinishBodies, max_bytes=4 * settings.max_upload_bytes)
    app.add_middleware(AnswerHead)
    app.state.service = service
    return app


class _Static(StaticFiles):
    """The page's own files: kept by browsers, and asked about every time whether they changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


class AnswerHead:
    """Answers HEAD as GET without its content: so monitors and load balancers ask for health."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            is_content = message["type"] == "http.response.body"
            await send({**message, "body": b""} if is_content else message)

        await self._app({**scope, "method": "GET"}, receive, without_content)


def _add_docs(app: FastAPI, service: Service) -> None:
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        for described in _answers(document):
            content = described.get("content", {})
            if content.get("application/json", {}).get("schema", {}).get("$ref") == _PROBLEM:
                content[PROBLEM_TYPE] = content.pop("application/json")
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        server = f"{request.url.scheme}://{request.url.netloc}"
        snapshot = next(iter(service.bundles.values())).snapshot
        page = docs_page(
            app.openapi(),
            server=server,
            item=for_examples(snapshot.bundle.item_ids(limit=20), "15970"),
            category=for_examples(snapshot.filters["category"], "Shoes"),
            settings=service.settings,
        )
        return HTMLResponse(page)


def _answers(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation["responses"].values()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(request, as_problem(error))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse | Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    given = str(first.get("input"))[:100]
    detail = f"{name} is {given!r}: {first['msg']}; correct it; /docs says what is expected."
    return problem_response(request, Problem("invalid", detail))
