"""The pages for people: the search, its results, the pictures in them, a run's report."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from visual_search.catalog.thumbnails import jpeg
from visual_search.serving.page_view import (
    FilterColumn,
    answer_column,
    column_filter,
    compared,
    page_filters,
    query_summary,
    where_texts,
    window,
)
from visual_search.serving.problems import Problem
from visual_search.serving.queries import (
    Query,
    check_columns,
    chosen_products,
    query_of,
    read_query,
)
from visual_search.serving.searching import Answer, no_such_item
from visual_search.serving.security import REPORT_POLICY
from visual_search.serving.served_bundle import ServedBundle
from visual_search.serving.service import Service
from visual_search.serving.templating import STATIC, link, render

_PREVIEW_QUALITY = 85
# How products of several pictures are found -> what the page calls it
_WAYS = {"best": "best picture", "mean": "mean of its pictures", "all": "every picture"}


def pages_router(service: Service) -> APIRouter:
    """Returns the routes of the pages; the API's documentation does not list them."""
    router = APIRouter(include_in_schema=False)
    pages = _Pages(service)
    router.add_api_route("/", pages.asked_by_address, methods=["GET"])
    router.add_api_route("/", pages.asked_by_form, methods=["POST"])
    router.add_api_route("/choices", pages.choices, methods=["GET"])
    router.add_api_route("/thumbnail", pages.thumbnail, methods=["GET"])
    router.add_api_route("/report", pages.report, methods=["GET"])
    router.add_api_route("/favicon.ico", _favicon, methods=["GET"])
    return router


class _Pages:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def asked_by_address(self, request: Request) -> Response:
        """Shows what an address names: similar items, or the catalogue."""
        query = query_of(request.query_params, self._service.settings, self._service.columns())
        with self._service.searcher.admitted():
            page = request.query_params.get("page", "1")
            number = int(page) if page.isdecimal() and len(page) < 10 else 1
            return await self._answered(request, query, page=max(1, number))

    async def asked_by_form(self, request: Request) -> Response:
        """Shows what is like an uploaded picture, or what the form names otherwise."""
        with self._service.searcher.admitted():
            query = await read_query(request, self._service.settings, self._service.columns())
            return await self._answered(request, query, page=1)

    async def choices(self, request: Request, column: str, contains: str = "") -> Response:
        """Returns a filter's values that hold a text, and those that are chosen."""
        service = self._service
        query = query_of(request.query_params, service.settings, service.columns())
        chosen = service.named(query.bundles)
        check_columns({column: ()}, service.columns())
        found = await service.searcher.look_up(
            column_filter, column, query, chosen, contains=contains
        )
        return HTMLResponse(render("choices.html", filter=found))

    async def _answered(self, request: Request, query: Query, *, page: int) -> Response:
        service = self._service
        chosen = service.named(query.bundles)
        if len(chosen) == len(service.bundles):
            query = replace(query, bundles=())  # all of them: addresses need not name them
        looked_for = query.image is not None or query.item_id is not None
        if looked_for:
            content = await self._found(query, chosen)
        else:
            content = {"window": await service.searcher.look_up(window, query, chosen[0], page)}
        address = self._address(query, page)
        context = {
            **content,
            "query": query,
            "is_search": looked_for,
            "bundles": list(service.bundles.values()),
            "chosen": chosen,
            "settings": service.settings,
            "products": chosen_products(query.products),
            "ways": _WAYS if any(one.snapshot.bundle.is_by_picture for one in chosen) else {},
            "without_filters": link(
                "/",
                item=query.item_id,
                k=query.k,
                bundle=query.bundles,
                products=chosen_products(query.products),
            ),
        }
        headers = {"vary": "HX-Request"}
        if request.headers.get("hx-request"):
            if request.method == "POST":
                headers["hx-push-url"] = address
            return HTMLResponse(render("results.html", **context), headers=headers)
        context["filters"] = await service.searcher.look_up(page_filters, query, chosen)
        context["reports"] = [one.name for one in service.bundles.values() if _has_report(one)]
        return HTMLResponse(render("search.html", **context), headers=headers)

    async def _found(self, query: Query, chosen: Sequence[ServedBundle]) -> dict[str, object]:
        service = self._service
        others = list(service.bundles.values())
        if query.item_id is not None and all(
            query.item_id not in one.snapshot.bundle for one in others
        ):
            raise no_such_item(query.item_id, chosen[0].name)
        columns: list[FilterColumn] = list(
            await asyncio.gather(*(self._column(query, one, others) for one in chosen))
        )
        pictures = [column.answer.picture for column in columns if column.answer is not None]
        preview = ""
        if query.image is not None and pictures and pictures[0] is not None:
            data = await service.searcher.look_up(jpeg, pictures[0], _PREVIEW_QUALITY)
            preview = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
        summary = await service.searcher.look_up(query_summary, query, others, preview)
        return {"columns": compared(columns), "summary": summary}

    async def _column(
        self, query: Query, served: ServedBundle, others: Sequence[ServedBundle]
    ) -> FilterColumn:
        """Returns one bundle's answer; what only this one cannot do stands in its column."""
        try:
            answer: Answer = await self._service.searcher.search(query, served, others=others)
        except Problem as problem:
            is_its_own = problem.kind in ("no-such-item", "invalid") and len(others) > 1
            if not is_its_own:
                raise
            return FilterColumn(served, None, [], problem)
        return await self._service.searcher.look_up(answer_column, served, answer, query)

    def _address(self, query: Query, page: int) -> str:
        """Returns the address that shows the same again; an uploaded picture is in none."""
        if query.image is not None:
            return "/"
        k = query.k if query.k != self._service.settings.default_k else None
        return link(
            "/", item=query.item_id, k=k, where=where_texts(query), bundle=query.bundles,
            products=chosen_products(query.products), page=page if page > 1 else None,
        )  # fmt: skip

    async def thumbnail(self, item: str, bundle: str, generation: int = 0) -> Response:
        """Returns an item's picture for a page, or one that says that there is none."""
        served = self._service.one(bundle)
        snapshot = served.snapshot
        if item not in snapshot.bundle:
            raise no_such_item(item, served.name)
        data = await self._service.searcher.look_up(snapshot.bundle.thumbnail, item)
        if not data:
            return FileResponse(STATIC / "no_picture.svg", media_type="image/svg+xml")
        # The address names the generation: what it shows stays true as long as it is the newest.
        is_this = generation == snapshot.generation
        caching = "private, max-age=86400, immutable" if is_this else "no-store"
        return Response(data, media_type="image/jpeg", headers={"cache-control": caching})

    async def report(self, bundle: str) -> Response:
        """Returns a bundle's report, in a sandbox."""
        served = self._service.one(bundle)
        if not _has_report(served):
            raise Problem(
                "not-found",
                f"The bundle {served.name!r} holds no report.html; expected one from its run; "
                "export the run again with its report.",
            )
        path = served.snapshot.bundle.file("report.html")
        headers = {"content-security-policy": REPORT_POLICY}
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


async def _favicon() -> Response:
    return RedirectResponse("/static/icon.svg")


def _has_report(served: ServedBundle) -> bool:
    return "report.html" in served.snapshot.bundle.manifest.files
