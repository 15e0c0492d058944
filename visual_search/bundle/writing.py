"""Items into a bundle and out of it: each change is one new generation, at once or not at all.

A change takes the bundle's lock, writes new files, and ends with ``bundle.json``; see
`visual_search.bundle.generation`. Whoever has the bundle open keeps what was opened.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import FULL_DISK
from visual_search.bundle.arrow import flags_of, integer_array, text_array
from visual_search.bundle.files import check_file
from visual_search.bundle.filters import is_unicode
from visual_search.bundle.generation import Draft, next_generation, use_reserve
from visual_search.bundle.items import BundleItems
from visual_search.bundle.manifest import BundleManifest, SegmentRecord, segment_files
from visual_search.bundle.remote import check_is_folder
from visual_search.bundle.segments import read_items, text_table
from visual_search.bundle.tidying import (
    Progress,
    add_segment,
    build_index,
    complete_index,
    is_worn,
    merge_segments,
    rebuild_rows,
)
from visual_search.catalog.identity import picture_id, picture_number
from visual_search.knn.plan import SearchPlan

if TYPE_CHECKING:
    import pyarrow as pa

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Change:
    """What a write did.

    Attributes:
        num_added: Items whose ids were new.
        num_replaced: Items whose ids were there: the new rows took their place.
        num_removed: Items that were taken out.
        num_items: Items that can be found now.
        num_products: Products that can be found now; as many as items in a bundle where each has
            one picture.
        num_products_added: Of them, those that were not there before.
        num_products_removed: Products that were taken out with the last of their pictures.
        generation: The generation that the bundle is at now.
        is_rebuilt: The rows were written anew and the index built again.
        plan: How the index answers.
    """

    num_added: int
    num_replaced: int
    num_removed: int
    num_items: int
    num_products: int
    num_products_added: int
    num_products_removed: int
    generation: int
    is_rebuilt: bool
    plan: SearchPlan


def add_items(
    folder: str | os.PathLike[str],
    items: BundleItems,
    *,
    made_by: str | None = None,
    tidy: bool = True,
    wait_seconds: float = WAIT_SECONDS,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> Change:
    """Adds items; one whose id is there already takes the old one's place.

    In a bundle of products with several pictures each item is a picture of the product that its
    `product_column` names. One without an id becomes the product's next. Where the column is left
    out or empty, an item that is there stays its product's, an id such as ``shoe-7~3`` is a picture
    of ``shoe-7`` where there is one, and any other is a product of its own.

    Args:
        folder: The bundle's folder.
        items: The items, embedded by the bundle's encoder. A column of the bundle that they lack
            is filled with the empty text.
        made_by: SHA-256 of the encoder that made the embeddings, which then has to be the
            bundle's; None checks nothing.
        tidy: Rebuild the bundle in the same step where more than a fifth of its rows are removed
            ones, which takes as long as `rebuild_bundle`.
        wait_seconds: How long to wait for another writer.
        num_threads: Of the index, where it has to be built or extended.
        on_progress: Called with (rows in the index, rows) where it is built.

    Raises:
        FileNotFoundError: There is no bundle, or a file of it is missing.
        ValueError: It is damaged or on object storage, or the items have another width, another
            encoder, or columns that the bundle does not have; or an item is no picture of the
            product that it names.
        BundleLockedError: Another writer did not finish in time.
        OSError: The disk is full; the bundle stays as it was.
    """
    with next_generation(check_is_folder(folder), wait_seconds) as draft:
        _check_items(items, draft.base, made_by)
        before = products_of(draft)
        if before is not None:
            items = as_pictures(items, before)
        old, _ = _find(draft, items.item_ids)
        columns = {name: items.columns.get(name) for name in draft.base.columns}
        texts = {name: [""] * len(items) if v is None else v for name, v in columns.items()}
        table = text_table(items.item_ids, texts)
        add_segment(draft, table, [items.embeddings], items.thumbnails)
        draft.removed = np.union1d(draft.removed, old)
        is_rebuilt = _tidied(draft, tidy, num_threads, on_progress)
        num_new = len(items) - len(old)
        num_products, num_products_new = draft.num_items, num_new
        if before is not None:
            num_products_new = len(set(items.columns[before.column]) - before.pictures.keys())
            num_products = len(before.pictures) + num_products_new
        return _committed(
            draft,
            is_rebuilt,
            num_added=num_new,
            num_replaced=len(old),
            num_products=num_products,
            num_products_added=num_products_new,
        )


def remove_items(
    folder: str | os.PathLike[str],
    item_ids: Sequence[str] = (),
    *,
    product_ids: Sequence[str] = (),
    skip_missing: bool = False,
    tidy: bool = True,
    wait_seconds: float = WAIT_SECONDS,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> Change:
    """Takes items out: all that are named, or none where one is not there.

    Args:
        folder: The bundle's folder.
        item_ids: Their ids; of a product's pictures only those that are named.
        product_ids: Products, each with all of its pictures; an item's id in a bundle where each
            is a product.
        skip_missing: Pass over ids that are not there. Where no id is, nothing is written.
        tidy: As in `add_items`.
        wait_seconds: As in `add_items`.
        num_threads: As in `add_items`.
        on_progress: As in `add_items`.

    Raises:
        FileNotFoundError: There is no bundle, or a file of it is missing.
        ValueError: It is damaged, or on object storage.
        TypeError: ``item_ids`` or ``product_ids`` is one text, or holds something else than texts.
        KeyError: An id is not in the bundle.
        BundleLockedError: Another writer did not finish in time.
        OSError: The disk is full, and the bundle's reserve for removals is used up; it stays as it
            was.
    """
    for name, ids in (("item_ids", item_ids), ("product_ids", product_ids)):
        if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
            raise TypeError(
                f"{name} is {str(ids)[:200]!r}; expected a list of texts: put one id into a list"
            )
    place = check_is_folder(folder)

    def remove(tidy: bool) -> Change:
        with next_generation(place, wait_seconds) as draft:
            return _removed(
                draft, item_ids, product_ids, skip_missing, tidy, num_threads, on_progress
            )

    try:
        return remove(tidy)
    except OSError as error:
        if error.errno not in FULL_DISK or not use_reserve(place):
            raise
    return remove(tidy=False)  # what makes room comes first: without writing all rows anew


def _removed(
    draft: Draft,
    item_ids: Sequence[str],
    product_ids: Sequence[str],
    skip_missing: bool,
    tidy: bool,
    num_threads: int | None,
    on_progress: Progress | None,
) -> Change:
    before = products_of(draft)
    pictures: Mapping[str, Collection[str]] = {} if before is None else before.pictures
    named = {*item_ids}
    for product in product_ids:
        named |= set(pictures.get(product, () if before is not None else (product,)))
    rows, found = _find(draft, list(named))
    missing = {"item": sorted(set(item_ids) - found), "product": []}
    missing["product"] = sorted(
        one for one in set(product_ids) if one not in (found if before is None else pictures)
    )
    for kind, ids in missing.items():
        if ids and not skip_missing:
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            raise KeyError(
                f"the bundle {draft.base.name!r} has no {kind} {', '.join(map(repr, ids[:5]))}"
                f"{more}; expected ids that are in it, and nothing was removed: leave them out, or "
                "pass over them with skip_missing=true"
            )
    num_gone, num_products = len(rows), draft.num_items - len(rows)
    if before is not None:
        num_gone = sum(found.issuperset(own) for own in pictures.values())
        num_products = len(pictures) - num_gone
    if not len(rows):
        return _change(draft.base, is_rebuilt=False, num_products=num_products)
    draft.removed = np.union1d(draft.removed, rows)
    is_rebuilt = _tidied(draft, tidy, num_threads, on_progress)
    return _committed(
        draft,
        is_rebuilt,
        num_removed=len(rows),
        num_products=num_products,
        num_products_removed=num_gone,
    )


def rebuild_bundle(
    folder: str | os.PathLike[str],
    *,
    kind: str | None = None,
    target_recall: float | None = None,
    max_bytes: int | None = None,
    wait_seconds: float = WAIT_SECONDS,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> Change:
    """Writes all items into one segment without removed rows and builds the index anew.

    Searches give the same items. ``auto`` chooses the index's kind for as many items as there are
    now.

    Args:
        folder: The bundle's folder.
        kind: As in `create_bundle`; None for what was asked for last.
        target_recall: As in `create_bundle`; None for what was asked for last.
        max_bytes: As in `create_bundle`.
        wait_seconds: As in `add_items`.
        num_threads: As in `add_items`.
        on_progress: As in `add_items`.

    Raises:
        FileNotFoundError: There is no bundle, or a file of it is missing.
        ValueError: It is damaged, on object storage or holds no item, or ``kind``,
            ``target_recall`` or ``max_bytes`` has no such value.
        BundleLockedError: Another writer did not finish in time.
        OSError: The disk is full; the bundle stays as it was.
    """
    with next_generation(check_is_folder(folder), wait_seconds) as draft:
        if not draft.num_items:
            raise ValueError(
                f"the bundle in {folder} holds no item; expected at least one to build an index "
                "over: add items first"
            )
        before = products_of(draft)
        rebuild_rows(draft)
        build_index(
            draft,
            kind=kind,
            target_recall=target_recall,
            max_bytes=max_bytes,
            num_threads=num_threads,
            on_progress=on_progress,
        )
        num_products = draft.num_items if before is None else len(before.pictures)
        return _committed(draft, True, num_products=num_products)


def _check_items(items: BundleItems, base: BundleManifest, made_by: str | None) -> None:
    if items.embeddings.shape[1] != base.dim:
        raise ValueError(
            f"the items' embeddings are {items.embeddings.shape[1]} wide, the bundle's {base.dim}; "
            "expected the same: embed them with the bundle's encoder"
        )
    if made_by not in (None, base.encoder.sha256):
        raise ValueError(
            f"the items were embedded by the encoder {str(made_by)[:12]!r}, the bundle has "
            f"{base.encoder.sha256[:12]!r}; expected the same: embed them with the bundle's encoder"
        )
    if "" in items.item_ids and base.product_column is None:
        raise ValueError(
            "an item has no id, and every item of the bundle is a product; expected an id: only a "
            "further picture of a product is given one"
        )
    unknown = sorted(set(items.columns) - set(base.columns))
    if unknown:
        raise ValueError(
            f"the items have the column {unknown[0]!r}; expected some of "
            f"{', '.join(base.columns)}: leave it out, or create the bundle again with it"
        )


@dataclass(frozen=True)
class KnownProducts:
    """The products that a bundle has before a change.

    Attributes:
        column: The column that names them.
        pictures: Product -> the ids of its items that can be found.
    """

    column: str
    pictures: Mapping[str, Collection[str]]


def products_of(draft: Draft) -> KnownProducts | None:
    """Reads which products a bundle has; None where every item is one.

    Raises:
        ValueError: An item table is damaged.
    """
    column = draft.base.product_column
    if column is None:
        return None
    pictures: dict[str, list[str]] = {}
    start = 0
    for record in draft.segments:
        held = _read_items(draft, record, ("item_id", column))
        live = np.ones(record.num_rows, dtype=np.bool_)
        here = (draft.removed >= start) & (draft.removed < start + record.num_rows)
        live[draft.removed[here] - start] = False
        rows = integer_array(np.flatnonzero(live))
        ids, products = (held[name].take(rows).to_pylist() for name in ("item_id", column))
        for item_id, product in zip(ids, products, strict=True):
            pictures.setdefault(product, []).append(item_id)
        start += record.num_rows
    return KnownProducts(column, pictures)


def as_pictures(items: BundleItems, known: KnownProducts) -> BundleItems:
    """Returns items with the product that each is a picture of, and an id for those without one.

    Raises:
        ValueError: An item is no picture of the product that it names, or its id is the picture of
            another product.
    """
    product_of = {one: product for product, ids in known.pictures.items() for one in ids}
    given = items.columns.get(known.column, [""] * len(items))
    ids, products = list(items.item_ids), list(given)
    starts = {*known.pictures, *ids}
    highest: dict[str, int] = {}  # product -> the highest number of a picture of it
    for row, item_id in enumerate(ids):
        if not products[row]:
            start = item_id.rpartition("~")[0]
            is_further = start in starts and picture_number(item_id, start) > 0
            products[row] = product_of.get(item_id, start if is_further else item_id)
        product = products[row]
        if product not in highest:
            own = known.pictures.get(product, ())
            highest[product] = max((picture_number(one, product) for one in own), default=0)
        if not item_id:
            continue
        number = picture_number(item_id, product)
        if not number or product_of.get(item_id, product) != product:
            other = product_of.get(item_id, product)
            is_there = f", and is there as one of {other!r}" if other != product else ""
            raise ValueError(
                f"the item {item_id!r} is said to be a picture of the product {product!r}"
                f"{is_there}; expected an id such as "
                f"{picture_id(product, max(2, highest[product] + 1))!r}, or none: the next one is "
                "then given"
            )
        highest[product] = max(highest[product], number)
    for row, item_id in enumerate(ids):
        if not item_id:
            highest[products[row]] += 1
            ids[row] = picture_id(products[row], highest[products[row]])
            if ids[row] in product_of:
                raise ValueError(
                    f"the next picture of the product {products[row]!r} would be {ids[row]!r}, "
                    f"which is one of {product_of[ids[row]]!r}; expected a free id: give it one"
                )
    return replace(items, item_ids=ids, columns={**items.columns, known.column: products})


def _find(draft: Draft, item_ids: Sequence[str]) -> tuple[NDArray[np.int64], set[str]]:
    """Returns rows, rising, that can be found under these ids, and which of the ids those are."""
    import pyarrow.compute as pc

    wanted = text_array([one for one in item_ids if is_unicode(one)])
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    found: set[str] = set()
    start = 0
    for record in draft.segments:
        ids = _read_items(draft, record, ("item_id",))["item_id"]
        local = np.flatnonzero(flags_of(pc.is_in(ids, value_set=wanted)))
        local = local[~np.isin(local + start, draft.removed, assume_unique=True)]
        rows.append(local + start)
        found.update(ids.take(integer_array(local)).to_pylist())
        start += record.num_rows
    return np.concatenate(rows), found


def _read_items(draft: Draft, record: SegmentRecord, columns: Sequence[str]) -> dict[str, pa.Array]:
    name = segment_files(record.folder)[0]
    path = check_file(draft.folder, name, draft.base.files[name], hashed=True)
    return read_items(path, record.num_rows, columns)


def _tidied(
    draft: Draft, tidy: bool, num_threads: int | None, on_progress: Progress | None
) -> bool:
    """Brings the draft into order for its new rows; says whether it was rebuilt."""
    if tidy and is_worn(draft):
        rebuild_rows(draft)
        build_index(draft, num_threads=num_threads, on_progress=on_progress)
        return True
    merge_segments(draft)
    complete_index(draft, num_threads)
    return False


def _committed(draft: Draft, is_rebuilt: bool, **counts: int) -> Change:
    return _change(draft.commit(), is_rebuilt=is_rebuilt, **counts)


def _change(manifest: BundleManifest, *, is_rebuilt: bool, **counts: int) -> Change:
    nothing = dict.fromkeys(
        ("num_added", "num_replaced", "num_removed", "num_products_added", "num_products_removed"),
        0,
    )
    numbers: Mapping[str, int] = {**nothing, **counts}
    return Change(
        **numbers,
        num_items=manifest.num_items,
        generation=manifest.generation,
        is_rebuilt=is_rebuilt,
        plan=SearchPlan.from_json(manifest.index.plan),
    )
