"""The API's items: read by everybody, written by who holds the token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from visual_search.serving.api import thumbnail_address
from visual_search.serving.problems import Problem
from visual_search.serving.queries import check_columns, check_names, parse_count, parse_where
from visual_search.serving.schemas import ChangeResult, ItemPage, ShownItem, problems
from visual_search.serving.searching import no_such_item
from visual_search.serving.security import check_token
from visual_search.serving.served_bundle import ServedBundle
from visual_search.serving.service import Service
from visual_search.serving.templating import link
from visual_search.serving.writing import read_new_items, remove, write

_WRITING = ("token-needed", "writing-off", "cannot-write")
BundleName = Annotated[str, Query(description="A bundle's name; left out, the first one.")]
ADD_EXTRA: dict[str, object] = {
    "security": [{"token": []}],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["items", "image"],
                    "properties": {
                        "items": {
                            "type": "string",
                            "description": "JSON: a list of objects with item_id, category and "
                            "further columns, as texts.",
                        },
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "One picture for every item, in the same order.",
                        },
                        "bundle": {"type": "string"},
                    },
                }
            }
        },
    },
    "x-examples": [
        'curl -H "Authorization: Bearer $TOKEN" -F image=@shoe.jpg '
        '-F \'items=[{{"item_id": "new-1", "category": "{category}"}}]\' {server}/api/items'
    ],
}
DELETE_EXTRA: dict[str, object] = {
    "security": [{"token": []}],
    "x-examples": ['curl -X DELETE -H "Authorization: Bearer $TOKEN" {server}/api/items/new-1'],
}


def items_router(service: Service) -> APIRouter:
    """Returns the routes of items."""
    router = APIRouter(tags=["Items"])
    settings = service.settings
    page_size = Query(
        min(50, settings.max_page_size),
        ge=1,
        description="Most items of the page.",
        json_schema_extra={"maximum": settings.max_page_size},
    )
    removing = problems(*_WRITING, "cross-site", "no-such-item", "no-such-bundle", "invalid")

    @router.get(
        "/api/items", response_model=ItemPage, summary="List items",
        responses=problems("no-such-bundle", "invalid"),
        openapi_extra={"x-examples": [
            "curl '{server}/api/items?where=category:{category}&limit=10'"
        ]},
    )  # fmt: skip
    async def list_items(
        request: Request,
        where: Annotated[
            list[str], Query(description="column:value; repeated, as for a search.")
        ] = [],  # noqa: B006 - FastAPI copies it
        start: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: int = page_size,
        bundle: BundleName = "",
    ) -> ItemPage:
        """Returns a page of the items that fit a filter, in the order in which they were added."""
        check_names(request.query_params, ("where", "start", "limit", "bundle"))
        parse_count("limit", str(limit), least=1, most=settings.max_page_size)
        served = service.one(bundle)
        snapshot = served.snapshot
        accepted = parse_where(where, snapshot.bundle.columns)
        check_columns(accepted, snapshot.bundle.columns)

        def page() -> tuple[list[ShownItem], int]:
            found = snapshot.bundle.item_ids(where=accepted or None, start=start, limit=limit)
            items = [_shown(snapshot.bundle.item(item_id), served, service) for item_id in found]
            return items, snapshot.bundle.count(accepted or None)

        items, total = await service.searcher.look_up(page)
        is_last = start + limit >= total
        following = link("/api/items", where=where, start=start + limit, limit=limit, bundle=bundle)
        return ItemPage(
            bundle=served.name,
            generation=snapshot.generation,
            items=items,
            start=start,
            limit=limit,
            total=total,
            next=None if is_last else following,
        )

    @router.get(
        "/api/items/{item_id:path}/thumbnail", response_class=Response,
        responses=problems("not-found", "no-such-item", "no-such-bundle")
        | {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
        summary="An item's small picture",
        openapi_extra={"x-examples": ["curl -O {server}/api/items/{item}/thumbnail"]},
    )  # fmt: skip
    async def thumbnail(request: Request, item_id: str, bundle: BundleName = "") -> Response:
        """Returns a JPEG file."""
        served = service.one(bundle)
        if _is_of_an_item(request, item_id, served):
            found = await item(f"{item_id}/thumbnail", bundle)
            return Response(found.model_dump_json(), media_type="application/json")
        data = await service.searcher.look_up(_thumbnail, item_id, served)
        if not data:
            raise Problem(
                "not-found",
                f"The item {item_id[:200]!r} has no thumbnail; expected one; add the item again "
                "with its picture.",
            )
        headers = {"cache-control": "private, max-age=60"}
        return Response(data, media_type="image/jpeg", headers=headers)

    @router.get(
        "/api/items/{item_id:path}", response_model=ShownItem,
        responses=problems("no-such-item", "no-such-bundle"),
        summary="One item", openapi_extra={"x-examples": ["curl {server}/api/items/{item}"]},
    )  # fmt: skip
    async def item(item_id: str, bundle: BundleName = "") -> ShownItem:
        """Returns an item's category and attributes."""
        served = service.one(bundle)
        found = served.snapshot.bundle
        if item_id not in found:
            raise no_such_item(item_id, served.name)
        return _shown(await service.searcher.look_up(found.item, item_id), served, service)

    @router.post(
        "/api/items", response_model=ChangeResult, status_code=201,
        responses=problems(
            *_WRITING, "no-such-bundle", "not-a-picture", "bad-picture", "invalid", "overloaded",
            has_body=True,
        ),
        summary="Add or replace items", openapi_extra=ADD_EXTRA,
    )  # fmt: skip
    async def add(request: Request) -> ChangeResult:
        """Adds items, each with its picture; one whose id is there already is replaced.

        They are found as soon as the answer is there.
        """
        check_token(request, settings.write_token)
        new = await read_new_items(request, service)
        return await write(new, service)

    @router.delete(
        "/api/items", response_model=ChangeResult, summary="Remove items", responses=removing,
        openapi_extra=DELETE_EXTRA | {"x-examples": [
            'curl -X DELETE -H "Authorization: Bearer $TOKEN" '
            "'{server}/api/items?item=new-1&item=new-2'"
        ]},
    )  # fmt: skip
    async def delete_items(
        request: Request, item: Annotated[list[str], Query()], bundle: BundleName = ""
    ) -> ChangeResult:
        """Removes several items in one generation."""
        check_token(request, settings.write_token)
        return await remove(item, service.one(bundle), service)

    @router.delete(
        "/api/items/{item_id:path}", response_model=ChangeResult, responses=removing,
        summary="Remove an item", openapi_extra=DELETE_EXTRA,
    )  # fmt: skip
    async def delete_item(request: Request, item_id: str, bundle: BundleName = "") -> ChangeResult:
        """Removes an item; it is not found any more as soon as the answer is there."""
        check_token(request, settings.write_token)
        return await remove([item_id], service.one(bundle), service)

    return router


def _is_of_an_item(request: Request, item_id: str, served: ServedBundle) -> bool:
    """Returns whether the address is that of an item whose own id ends in ``/thumbnail``.

    Ids may hold slashes, written as ``%2F``; a proxy may have written a plain one in its place.
    """
    if not request.scope.get("raw_path", b"/thumbnail").endswith(b"/thumbnail"):
        return True
    bundle = served.snapshot.bundle
    return item_id not in bundle and f"{item_id}/thumbnail" in bundle


def _thumbnail(item_id: str, served: ServedBundle) -> bytes:
    try:
        return served.snapshot.bundle.thumbnail(item_id)
    except KeyError as error:
        raise no_such_item(item_id, served.name) from error


def _shown(item: Mapping[str, str], served: ServedBundle, service: Service) -> ShownItem:
    ours: Sequence[str] = ("item_id", "category")
    return ShownItem(
        item_id=item["item_id"],
        category=item["category"],
        attributes={name: text for name, text in item.items() if name not in ours},
        thumbnail=thumbnail_address(item["item_id"], served.name, service),
    )
