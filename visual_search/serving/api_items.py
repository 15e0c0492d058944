"""The API's items: read by everybody, written by who holds the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from visual_search.serving.api import PRODUCTS, pictures_of, thumbnail_address
from visual_search.serving.problems import Problem
from visual_search.serving.queries import (
    check_columns,
    check_names,
    chosen_products,
    parse_count,
    parse_products,
    parse_where,
)
from visual_search.serving.schemas import ChangeResult, ItemPage, ShownItem, problems
from visual_search.serving.searching import no_such_item
from visual_search.serving.security import check_token
from visual_search.serving.served_bundle import ServedBundle
from visual_search.serving.service import Service
from visual_search.serving.templating import link
from visual_search.serving.writing import read_new_items, remove, write

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle

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
                            "further columns, as texts. Where products have several pictures, "
                            "product alone makes it the next of them.",
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
        products: Annotated[str, Query(json_schema_extra=PRODUCTS)] = "best",
        bundle: BundleName = "",
    ) -> ItemPage:
        """Returns a page of the products that fit a filter, in the order in which they were added.

        Each is listed once, as its first picture that fits; products=all lists every picture.
        """
        check_names(request.query_params, ("where", "start", "limit", "products", "bundle"))
        how = parse_products(products)
        parse_count("limit", str(limit), least=1, most=settings.max_page_size)
        served = service.one(bundle)
        snapshot = served.snapshot
        accepted = parse_where(where, snapshot.bundle.columns)
        check_columns(accepted, snapshot.bundle.columns)

        def page() -> tuple[list[ShownItem], int]:
            by_product = how != "all"
            found = snapshot.bundle.item_ids(
                where=accepted or None, start=start, limit=limit, by_product=by_product
            )
            items = [_shown(item_id, snapshot.bundle, served.name, service) for item_id in found]
            return items, snapshot.bundle.count(accepted or None, by_product=by_product)

        items, total = await service.searcher.look_up(page)
        is_last = start + limit >= total
        following = link(
            "/api/items", where=where, start=start + limit, limit=limit,
            products=chosen_products(how), bundle=bundle,
        )  # fmt: skip
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
        """Returns an item's category and attributes; a product's id gives its first picture."""
        served = service.one(bundle)
        found = served.snapshot.bundle
        if item_id not in found:
            raise no_such_item(item_id, served.name)
        return await service.searcher.look_up(_shown, item_id, found, served.name, service)

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
            "'{server}/api/items?item=new-1&item=new-2'",
            'curl -X DELETE -H "Authorization: Bearer $TOKEN" '
            "'{server}/api/items?product=new-1'",
        ]},
    )  # fmt: skip
    async def delete_items(
        request: Request,
        item: Annotated[list[str], Query(description="Pictures, each by its id.")] = [],  # noqa: B006 - FastAPI copies it
        product: Annotated[list[str], Query(description="Products with all their pictures.")] = [],  # noqa: B006 - as above
        bundle: BundleName = "",
    ) -> ChangeResult:
        """Removes several items, or products with all of their pictures, in one generation."""
        check_token(request, settings.write_token)
        return await remove(item, service.one(bundle), service, products=product)

    @router.delete(
        "/api/items/{item_id:path}", response_model=ChangeResult, responses=removing,
        summary="Remove an item", openapi_extra=DELETE_EXTRA,
    )  # fmt: skip
    async def delete_item(request: Request, item_id: str, bundle: BundleName = "") -> ChangeResult:
        """Removes an item; it is not found any more as soon as the answer is there.

        Of a product's pictures it is this one alone.
        """
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


def _shown(item_id: str, bundle: Bundle, name: str, service: Service) -> ShownItem:
    item = dict(bundle.item(item_id))
    own_id, product = item.pop("item_id"), bundle.product_of(item_id)
    return ShownItem(
        item_id=own_id,
        category=item.pop("category"),
        attributes=item,
        thumbnail=thumbnail_address(own_id, name, service),
        product=product,
        pictures=pictures_of(
            [one for one in bundle.pictures_of(product) if one != own_id], name, service
        ),
    )
