"""Adding and removing items while searches go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from visual_search.catalog.identity import id_problem
from visual_search.serving.limits import media_type, read_form
from visual_search.serving.problems import Problem
from visual_search.serving.queries import read_json, read_upload
from visual_search.serving.schemas import ChangeResult
from visual_search.serving.searching import no_such_item
from visual_search.serving.served_bundle import ServedBundle
from visual_search.serving.service import Service
from visual_search.serving.settings import ServeSettings

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle
    from visual_search.bundle.writing import Change


@dataclass(frozen=True)
class NewItems:
    """What is to be added: ids, columns and encoded pictures, aligned."""

    served: ServedBundle
    item_ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    images: Sequence[bytes]


async def read_new_items(request: Request, service: Service) -> NewItems:
    """Returns the items of a form.

    Raises:
        Problem: It is no form, is too large, or items and pictures do not fit each other.
    """
    settings = service.settings
    if media_type(request) != "multipart/form-data":
        raise Problem(
            "wrong-media-type",
            f"The request's Content-Type is {media_type(request)[:100]!r}; expected "
            "multipart/form-data with 'items' and one 'image' for each; see /docs.",
        )
    async with read_form(request, settings, max_files=settings.max_items_per_write) as form:
        bundle = form.get("bundle")
        served = service.one(bundle if isinstance(bundle, str) else None)
        rows = _rows(form, served.snapshot.bundle)
        columns = served.snapshot.bundle.columns
        images = [
            await read_upload(upload, settings)
            for upload in form.getlist("image")
            if isinstance(upload, UploadFile)
        ]
    if len(images) != len(rows):
        raise Problem(
            "invalid",
            f"There are {len(images)} pictures for {len(rows)} items; expected a file in the "
            "field 'image' for each, in the same order.",
        )
    return NewItems(
        served,
        [row.pop("item_id", "") for row in rows],
        {column: [row.get(column, "") for row in rows] for column in _checked(columns, rows)},
        images,
    )


async def write(new: NewItems, service: Service) -> ChangeResult:
    """Embeds the new items and adds them; the bundle is served with them when this returns.

    Raises:
        Problem: A picture or a value cannot be used, or the bundle cannot be written.
    """
    snapshot = new.served.snapshot
    pictures, thumbnails = [], []
    for number, (item_id, image) in enumerate(zip(new.item_ids, new.images, strict=True)):
        try:
            pictures.append(await service.searcher.run(service.searcher.decode, image, snapshot))
        except Problem as problem:
            named = repr(item_id[:200]) if item_id else f"number {number + 1}"
            detail = f"Item {named}: {problem.detail}"
            raise Problem(problem.kind, detail, headers=problem.headers) from problem
        thumbnails.append(await service.searcher.run(service.searcher.thumbnail, image))
    stacked = np.stack(pictures)  # [n, 3, S, S]
    size = service.settings.max_batch
    embeddings = [
        await service.searcher.run(service.searcher.embed, stacked[start : start + size], snapshot)
        for start in range(0, len(stacked), size)
    ]

    def change(bundle: Bundle) -> Change:
        from visual_search.bundle.items import BundleItems
        from visual_search.bundle.writing import add_items

        items = BundleItems(new.item_ids, new.columns, np.concatenate(embeddings), thumbnails)
        made_by = snapshot.bundle.manifest.encoder.sha256  # another writer may have changed it
        return add_items(bundle.place, items, made_by=made_by)

    return await _changed(new.served, change)


async def remove(
    item_ids: Sequence[str],
    served: ServedBundle,
    service: Service,
    *,
    products: Sequence[str] = (),
) -> ChangeResult:
    """Removes items, and products with all their pictures; they are not found when this returns.

    Raises:
        Problem: The bundle does not hold one of them, too many are named, or it cannot be written.
    """
    _check_number(len(item_ids) + len(products), service.settings)

    def change(bundle: Bundle) -> Change:
        from visual_search.bundle.writing import remove_items

        try:
            return remove_items(
                bundle.place,
                list(dict.fromkeys(item_ids)),
                product_ids=list(dict.fromkeys(products)),
            )
        except KeyError as error:  # asked there and not before: another writer may come first
            served.refresh()
            named = [*item_ids, *products]
            gone = [one for one in named if one not in served.snapshot.bundle]
            raise no_such_item(gone[0] if gone else named[0], served.name) from error

    return await _changed(served, change)


async def _changed(served: ServedBundle, change: Callable[[Bundle], Change]) -> ChangeResult:
    """Writes in a thread, one writer after the other, and serves what came of it."""
    from visual_search.bundle.locking import BundleLockedError

    def run() -> Change:
        with served.writing:
            made = change(served.snapshot.bundle)
            served.refresh()
            return made

    try:
        made = await asyncio.to_thread(run)
    except (OSError, BundleLockedError) as error:
        failed = error.strerror if isinstance(error, OSError) else "somebody else is writing it"
        raise Problem(
            "cannot-write",
            f"The bundle {served.name!r} could not be written ({failed}); nothing was changed; try "
            "again a little later.",
            headers={"retry-after": "5"},
        ) from error
    except (ValueError, KeyError) as error:
        raise Problem("invalid", f"The bundle refused the change: {error.args[0]}.") from error
    return ChangeResult(
        bundle=served.name,
        num_added=made.num_added,
        num_replaced=made.num_replaced,
        num_removed=made.num_removed,
        num_items=made.num_items,
        num_products=made.num_products,
        num_products_added=made.num_products_added,
        num_products_removed=made.num_products_removed,
        generation=made.generation,
    )


def _rows(form: FormData, bundle: Bundle) -> list[dict[str, str]]:
    """Returns the field ``items`` as one row of texts an item.

    A further picture of a product that is there needs no id and has what the product has.
    """
    text = form.get("items")
    if not isinstance(text, str):
        raise Problem(
            "invalid",
            "The field 'items' is missing; expected a JSON list such as "
            '[{"item_id": "new-1", "category": "Shoes"}]; add it to the form.',
        )
    given = read_json(text.encode("utf-8", "replace"))
    rows = given if isinstance(given, list) else [given]
    for row in rows:
        is_row = isinstance(row, dict) and all(isinstance(value, str) for value in row.values())
        product = row.get(bundle.product_column, "") if is_row else ""
        if product and product in bundle:
            own = dict(bundle.item(bundle.pictures_of(bundle.product_of(product))[0]))
            row.update({name: own[name] for name in bundle.columns if name not in row})
        if not is_row or not (row.get("item_id") or product) or "category" not in row:
            or_product = " (or the product of a further picture)" if bundle.is_by_picture else ""
            raise Problem(
                "invalid",
                f"An item is {str(row)[:200]}; expected an object of texts with item_id"
                f"{or_product} and category; correct it.",
            )
    ids = [row["item_id"] for row in rows if row.get("item_id")]
    for item_id in ids:
        if problem := id_problem(item_id):
            raise Problem("invalid", f"The item id {item_id[:200]!r} {problem}.")
    if not rows or len(set(ids)) < len(ids):
        raise Problem(
            "invalid",
            f"'items' names {len(ids)} items, {len(set(ids))} of them different; expected at "
            "least one, and every id once.",
        )
    return rows


def _checked(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Sequence[str]:
    unknown = sorted({name for row in rows for name in row} - set(columns))
    if unknown:
        raise Problem(
            "invalid",
            f"'items' names the column {unknown[0][:100]!r}; expected some of {list(columns)}; "
            "leave it out.",
        )
    return columns


def _check_number(number: int, settings: ServeSettings) -> None:
    if not 1 <= number <= settings.max_items_per_write:
        raise Problem(
            "invalid",
            f"The request names {number} items; expected 1 to {settings.max_items_per_write}; "
            "split it.",
        )
