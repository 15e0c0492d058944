"""The API for programs: search, bundles, health, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import get_args
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from visual_search.bundle.products import ByProduct
from visual_search.serving.metrics import CONTENT_TYPE
from visual_search.serving.queries import read_query
from visual_search.serving.schemas import (
    BundleInfo,
    FoundItem,
    Health,
    Picture,
    SearchResult,
    problems,
)
from visual_search.serving.served_bundle import MAX_FILTER_VALUES
from visual_search.serving.service import Service
from visual_search.serving.settings import ServeSettings

_TEXT = {"type": "string"}
_WHERE = {
    "type": "array", "items": _TEXT,
    "description": "column:value. Values of one column are alternatives; all columns have to fit.",
}  # fmt: skip
_ITEM = {"type": "string", "description": "Id of an item: finds what is like it."}
PRODUCTS: dict[str, object] = {
    "type": "string", "enum": list(get_args(ByProduct)), "default": "best",
    "description": "Where products have several pictures: each once, by the best of them or by "
    "their mean; or all pictures.",
}  # fmt: skip
_BUNDLE = {"type": "string", "description": "A bundle's name; the first one where it is left out."}
_IMAGE = {"type": "string", "format": "binary", "description": "A picture's file."}
_EXAMPLES = [
    "curl -F image=@shoe.jpg -F k=5 -F where=category:{category} {server}/api/search",
    'curl --json \'{{"item": "{item}", "k": 5}}\' {server}/api/search',
]


def _search_extra(settings: ServeSettings) -> dict[str, object]:
    k = {
        "type": "integer", "minimum": 1, "maximum": settings.max_k, "default": settings.default_k,
        "description": f"Neighbours, 1 to {settings.max_k}; {settings.default_k} where it is left "
        "out.",
    }  # fmt: skip
    fields = {"item": _ITEM, "k": k, "where": _WHERE, "products": PRODUCTS, "bundle": _BUNDLE}
    text = {"type": "object", "properties": fields, "required": ["item"]}
    form = {"type": "object", "properties": {"image": _IMAGE, **fields}}
    content = {
        "multipart/form-data": {"schema": form},
        "application/x-www-form-urlencoded": {"schema": text},
        "application/json": {"schema": text | {"additionalProperties": False}},
    }
    return {"requestBody": {"required": True, "content": content}, "x-examples": _EXAMPLES}


def api_router(service: Service) -> APIRouter:
    """Returns the routes of everything that does not concern single items."""
    router = APIRouter()

    @router.post(
        "/api/search", response_model=SearchResult, openapi_extra=_search_extra(service.settings),
        responses=problems(
            "no-such-item", "no-such-bundle", "not-a-picture", "bad-picture", "invalid",
            "overloaded", "no-database", has_body=True,
        ),
        summary="Find similar items", tags=["Search"],
    )  # fmt: skip
    async def search(request: Request) -> Response:
        """Finds the products nearest to an uploaded picture, or to an item of the bundle.

        Either a picture (a JPEG, PNG, GIF, BMP, WebP or AVIF file) or an item is asked for. An item
        is never its own neighbour, nor is another picture of its product, unless all pictures are
        asked for.
        """
        with service.searcher.admitted():
            query = await read_query(request, service.settings, service.columns(), strict=True)
            served = service.one(query.bundles[0] if query.bundles else None)
            answer = await service.searcher.search(query, served)
        hits = [
            FoundItem(
                rank=hit.rank,
                item_id=hit.item_id,
                category=hit.category,
                squared_distance=hit.squared_distance,
                attributes=hit.attributes,
                thumbnail=thumbnail_address(hit.item_id, served.name, service),
                product=hit.product,
                pictures=pictures_of(hit.pictures, served.name, service),
            )
            for hit in answer.hits
        ]
        result = SearchResult(
            bundle=served.name,
            generation=answer.generation,
            item=query.item_id,
            k=query.k,
            products=query.products,
            hits=hits,
            seconds=answer.seconds,
        )
        # Written here: returned as it is, FastAPI would check and copy it once more.
        return Response(result.model_dump_json(), media_type="application/json")

    @router.get(
        "/api/bundles", response_model=list[BundleInfo], summary="List the bundles",
        responses=problems(), tags=["Bundles"],
        openapi_extra={"x-examples": ["curl {server}/api/bundles"]},
    )  # fmt: skip
    async def bundles() -> list[BundleInfo]:
        """Returns the bundles that are served, their columns and what can be filtered by."""
        found = []
        for served in service.bundles.values():
            snapshot = served.snapshot
            filters = await service.searcher.look_up(getattr, snapshot, "filters")
            first = {
                column: dict(islice(values.items(), MAX_FILTER_VALUES))
                for column, values in filters.items()
            }
            found.append(
                BundleInfo(
                    name=served.name,
                    generation=snapshot.generation,
                    num_items=len(snapshot.bundle),
                    num_products=snapshot.bundle.num_products,
                    embedding_dim=snapshot.bundle.dim,
                    columns=list(snapshot.bundle.columns),
                    filters=first,
                    num_values={column: len(values) for column, values in filters.items()},
                )
            )
        return found

    @router.get(
        "/healthz", response_model=Health, summary="Whether searches are answered",
        responses=problems() | {503: {"model": Health, "description": "A bundle's newer generation "
                                      "cannot be opened, and the older one is searched; or its "
                                      "vector database does not answer."}},
        tags=["Operation"], openapi_extra={"x-examples": ["curl {server}/healthz"]},
    )  # fmt: skip
    async def health() -> JSONResponse:
        """Answers 200 while every bundle is searched in its newest generation, 503 otherwise."""
        bundles = {
            served.name: {
                "is_healthy": served.is_healthy,
                "generation": served.snapshot.generation,
                "num_items": len(served.snapshot.bundle),
            }
            for served in service.bundles.values()
        }
        is_healthy = all(served.is_healthy for served in service.bundles.values())
        content = {"status": "ok" if is_healthy else "failing", "bundles": bundles}
        return JSONResponse(content, 200 if is_healthy else 503)

    @router.get(
        "/metrics", summary="Numbers for Prometheus", response_class=Response,
        responses=problems() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        tags=["Operation"], openapi_extra={"x-examples": ["curl {server}/metrics"]},
    )  # fmt: skip
    async def metrics() -> Response:
        """Returns requests, seconds by route and stage, queues, items and generations as text."""
        lengths = {
            served.name: served.snapshot.batcher.num_waiting for served in service.bundles.values()
        }
        return Response(service.metrics.written(lengths), media_type=CONTENT_TYPE)

    return router


def thumbnail_address(item_id: str, bundle: str, service: Service) -> str:
    """Returns the address of an item's small picture; ids may hold any character."""
    is_first = bundle == next(iter(service.bundles))
    query = "" if is_first else "?" + urlencode({"bundle": bundle})
    return f"/api/items/{quote(item_id, safe='')}/thumbnail{query}"


def pictures_of(item_ids: Sequence[str], bundle: str, service: Service) -> list[Picture]:
    """Returns pictures with their addresses."""
    return [
        Picture(item_id=one, thumbnail=thumbnail_address(one, bundle, service)) for one in item_ids
    ]
