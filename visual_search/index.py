"""Changes a bundle without retraining, and brings a vector database to what it holds.

``python -m visual_search.index add|remove|rebuild|info bundle=DIR ...`` and ``push|verify
bundle=DIR to=DATABASE ...``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, told_as_config
from visual_search.config.schemas import IndexSchema, Node
from visual_search.runs.index_settings import check_index_settings
from visual_search.wording import first_by_size, listed, many, shown

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle
    from visual_search.bundle.items import BundleItems
    from visual_search.bundle.writing import Change
    from visual_search.catalog.catalog import Catalog, RefusedItem

MAX_NAMED = 60  # categories that are printed; the bundle holds all
ACTIONS = ("add", "remove", "rebuild", "info", "push", "verify")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("index", index_command)


def index_command(settings: IndexSchema) -> None:
    """Changes the bundle or the collection that the config names, and prints what became of it."""
    from visual_search.runs.vector_database import push_items, verify_items

    if settings.action == "push":
        push_items(settings)
    elif settings.action == "verify":
        verify_items(settings)
    else:
        print_changed(change_bundle(settings))


@dataclass(frozen=True)
class Changed:
    """What became of a bundle.

    Attributes:
        folder: The bundle's, or its address on object storage.
        change: What was done; None where it was only looked at.
        left_out: Columns of the catalogue that the bundle does not have.
        refused: Items that were not added, with the reason.
        new_categories: Categories that no item had before.
        num_apart: Further pictures of the catalogue's products, in a bundle where each item is a
            product: they are found beside their first one.
    """

    folder: Path | str
    change: Change | None
    left_out: tuple[str, ...] = ()
    refused: tuple[RefusedItem, ...] = ()
    new_categories: tuple[str, ...] = ()
    num_apart: int = 0


@dataclass(frozen=True)
class _New:
    """Items to add, the bundle as it was before, and what became of the catalogue's rest."""

    bundle: Bundle
    items: BundleItems
    left_out: tuple[str, ...] = ()
    refused: tuple[RefusedItem, ...] = ()
    num_apart: int = 0


def change_bundle(settings: IndexSchema) -> Changed:
    """Does what ``conf/index.yaml``'s ``action`` says to a bundle.

    Args:
        settings: The composed config.

    Raises:
        ConfigError: No bundle or action is named, an action lacks what it needs, or the bundle to
            change is on object storage.
        ValueError: The bundle is damaged, or an item cannot be used.
        BundleLockedError: Another writer did not finish in time.
    """
    from visual_search.bundle.remote import check_is_folder
    from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items
    from visual_search.views.progress import progress_bar

    action = settings.action
    if action not in ACTIONS:
        raise ConfigError(
            f"got the action {action!r}; expected one of {', '.join(ACTIONS)}, as in "
            "python -m visual_search.index add bundle=DIR data=folder data.root=new_pictures"
        )
    if not settings.bundle:
        raise ConfigError("no bundle is named; expected bundle=DIR, the folder of one")
    if action == "info":
        return Changed(settings.bundle, None)
    with told_as_config():
        folder = check_is_folder(settings.bundle)
    check_index_settings(settings.index, settings.target_recall, settings.num_threads)
    wait_s, threads = settings.wait_s, settings.num_threads
    if action == "remove":
        ids, products = _ids(settings)
        try:
            change = remove_items(
                folder,
                ids,
                product_ids=products,
                skip_missing=settings.skip_missing,
                wait_seconds=wait_s,
            )
            return Changed(folder, change)
        except KeyError as error:
            raise ConfigError(str(error.args[0])) from error
    if action == "rebuild":
        with progress_bar("Building the index", " items") as advance:
            change = rebuild_bundle(
                folder,
                kind=settings.index,
                target_recall=settings.target_recall,
                on_progress=advance,
                wait_seconds=wait_s,
                num_threads=threads,
            )
        return Changed(folder, change)
    new = _new_items(folder, settings)
    made_by = new.bundle.manifest.encoder.sha256
    with progress_bar("Building the index", " items") as advance:
        change = add_items(
            folder,
            new.items,
            made_by=made_by,
            on_progress=advance,
            wait_seconds=wait_s,
            num_threads=threads,
        )
    known = new.bundle.values_of("category")
    unknown = sorted(set(new.items.columns["category"]) - set(known))
    return Changed(folder, change, new.left_out, new.refused, tuple(unknown), new.num_apart)


def _ids(settings: IndexSchema) -> tuple[list[str], list[str]]:
    """Returns the items to take out, those that are named and those of a file, and the products."""
    from visual_search.runs.embedding_files import read_id_lines

    ids, products = _several(settings.item), _several(settings.product)
    if settings.ids:
        path = Path(settings.ids)
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}; expected one item id a line: check ids=")
        ids += read_id_lines(path)
    if not ids and not products:
        raise ConfigError(
            "nothing to remove; expected item=ID, item=[ID,ID], product=ID, or ids=FILE with one "
            "item id a line"
        )
    return ids, products


def _several(given: str | list[str] | None) -> list[str]:
    return list(given) if isinstance(given, list) else [given] if given is not None else []


def _new_items(folder: Path, settings: IndexSchema) -> _New:
    """Returns the items to add, embedded by the bundle's own encoder."""
    from visual_search.bundle.bundle import Bundle

    if bool(settings.data) == bool(settings.image):
        raise ConfigError(
            "add needs either a catalogue or one picture; expected data=folder data.root=DIR (or "
            "another of conf/data/), or image=PICTURE item=ID category=NAME"
        )
    if settings.data and settings.product is not None:
        raise ConfigError(
            f"product={settings.product} with data of its own; expected it with image=PICTURE: the "
            "pictures of a catalogue say by their column 'product' whose they are"
        )
    bundle = Bundle.open(folder, num_threads=settings.num_threads)
    if settings.image:
        return _New(bundle, _one_item(bundle, Path(settings.image), settings))
    return _items_of_catalogue(bundle, settings)


def _one_item(bundle: Bundle, path: Path, settings: IndexSchema) -> BundleItems:
    from visual_search.bundle.items import BundleItems
    from visual_search.catalog.images import PictureError
    from visual_search.catalog.thumbnails import thumbnail

    item_id, columns = _named(bundle, settings)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}; expected a file: check image=")
    data = path.read_bytes()
    try:
        picture = bundle.encoder.decode(data)  # [3, S, S]
    except PictureError as error:
        raise ValueError(f"{path}: {error}") from error
    return BundleItems(
        item_ids=[item_id],
        columns={name: [value] for name, value in columns.items()},
        embeddings=bundle.encoder.embed(picture[None]),
        thumbnails=[thumbnail(data)],
    )


def _named(bundle: Bundle, settings: IndexSchema) -> tuple[str, dict[str, str]]:
    """Returns the one picture's id, empty where its product gives it one, and its columns.

    What is not said of a further picture of a product is what its other pictures have.
    """
    product, item_id = settings.product, settings.item
    attributes = settings.attributes or {}
    _check_columns(bundle, attributes)
    columns = {}
    if product is not None:
        if not bundle.is_by_picture:
            raise ConfigError(
                f"product={product}, and every item of {bundle.folder} is a product of one "
                "picture; expected item=ID: a bundle whose products have several is exported from "
                "a catalogue that has them"
            )
        if not isinstance(product, str):
            raise ConfigError(f"product={product}; expected one product of the one picture")
        if product in bundle:
            columns = dict(bundle.item(bundle.pictures_of(bundle.product_of(product))[0]))
            columns.pop("item_id")
        columns[str(bundle.product_column)] = product
    columns |= attributes
    if settings.category is not None:
        columns["category"] = settings.category
    is_named = isinstance(item_id, str) or (item_id is None and product is not None)
    if not is_named or not columns.get("category"):
        raise ConfigError(
            f"image={settings.image} needs one item=ID and a category=NAME, or product=ID of a "
            "product that is there; expected them: they say what the picture shows"
        )
    return item_id or "", columns


def _check_columns(bundle: Bundle, attributes: Mapping[str, str]) -> None:
    if "category" in attributes:
        raise ConfigError(
            f"attributes names category, as {attributes['category']!r}; expected it by its own "
            "key: set category=NAME, and leave it out of attributes"
        )
    if bundle.product_column in attributes:
        raise ConfigError(
            f"attributes names {bundle.product_column}, as "
            f"{attributes[str(bundle.product_column)]!r}; expected it by its own key: set "
            "product=ID, and leave it out of attributes"
        )
    unknown = [name for name in attributes if name not in bundle.columns]
    if unknown:
        raise ConfigError(
            f"the bundle has no column {unknown[0]!r}; expected one of "
            f"{', '.join(bundle.attributes)}: a new column needs a new export"
        )


def _items_of_catalogue(bundle: Bundle, settings: IndexSchema) -> _New:
    import numpy as np

    from visual_search.bundle.encoder import embed_rows
    from visual_search.bundle.items import BundleItems
    from visual_search.catalog.thumbnails import thumbnails
    from visual_search.runs.catalogs import build_catalog, prepare
    from visual_search.views.progress import progress_bar

    encoder = bundle.encoder
    data = _read_as_products(settings.data) if bundle.is_by_picture else settings.data
    catalog = build_catalog(data)
    cached = prepare(
        catalog,
        data,
        size_px=encoder.image_size_px,
        fit=encoder.fit,
        cache_dir=settings.pictures.cache_dir,
    )
    catalog = cached.catalog
    with progress_bar("Embedding", " pictures") as advance:
        every_row = np.arange(len(catalog), dtype=np.int64)
        found = embed_rows(encoder, cached.pictures, every_row, advance)
    with progress_bar("Making thumbnails", " pictures") as advance:
        small = thumbnails(catalog, range(len(catalog)), on_progress=advance)
    names = ["category", *catalog.attributes]
    items = BundleItems(
        item_ids=_picture_ids(catalog, bundle.product_column),
        columns={name: catalog.table[name].tolist() for name in names if name in bundle.columns},
        embeddings=found,
        thumbnails=small,
    )
    left_out = tuple(name for name in names if name not in bundle.columns)
    further = len(catalog) - len(set(catalog.products or catalog.table["item_id"]))
    num_apart = 0 if bundle.is_by_picture else further
    return _New(bundle, items, left_out, catalog.refused, num_apart)


def _read_as_products(data: Node) -> Node:
    """Returns the node of data for a bundle of products: a few folders cannot tell that they are.

    What is read from many folders, or says so itself, is left as it is.
    """
    from visual_search.config.builders import build

    if data.get("products", False) is not None:
        return data
    found: Catalog = build("data", data)
    if found.settings.get("products") is not False:
        return data
    print(f"{found.name}: data.products=true (so are those of the bundle; false adds items)")
    return {**data, "products": True}


def _picture_ids(catalog: Catalog, product_column: str | None) -> list[str]:
    """Returns a catalogue's ids; empty where a product of the bundle gives its next picture one."""
    from visual_search.catalog.identity import picture_number

    ids: list[str] = catalog.table["item_id"].tolist()
    if product_column is None or product_column not in catalog.attributes:
        return ids
    products = catalog.table[product_column]
    return [
        "" if product and not picture_number(item_id, product) else item_id
        for item_id, product in zip(ids, products, strict=True)
    ]


def print_changed(changed: Changed) -> None:
    """Prints what was done and what the bundle holds now."""
    from visual_search.bundle.bundle import Bundle
    from visual_search.knn.plan import SearchPlan
    from visual_search.views.progress import progress_bar

    change = changed.change
    with progress_bar("Copying", " files") as advance:
        bundle = Bundle.open(changed.folder, verify="sizes", on_progress=advance)
    if change is not None:
        done = [
            f"{many(number, 'picture') if bundle.is_by_picture else f'{number:,}'} {word}"
            for number, word in (
                (change.num_added, "added"),
                (change.num_replaced, "replaced"),
                (change.num_removed, "removed"),
            )
            if number
        ]
        if bundle.is_by_picture and change.num_products_added:
            done.append(many(change.num_products_added, "new product"))
        if bundle.is_by_picture and change.num_products_removed:
            done.append(f"{many(change.num_products_removed, 'product')} with the last of them")
        if change.is_rebuilt:
            done.append("the index was built anew")
        print(f"{changed.folder}: {', '.join(done) or 'nothing to do'}.")
    if changed.left_out:
        columns = shown(", ".join(changed.left_out))
        print(f"Columns that the bundle does not have were left out: {columns}")
    if changed.num_apart:
        print(
            f"{many(changed.num_apart, 'further picture')} of products became items of their own: "
            "this bundle has one picture a product. Export a run again with this catalogue to find "
            "each product once."
        )
    _print_refused(changed.refused)
    if changed.new_categories:
        new = shown(listed(changed.new_categories, MAX_NAMED))
        print(f"Categories that no item had before: {new}")
    plan = SearchPlan.from_json(bundle.manifest.index.plan)
    counts = bundle.values_of("category", by_product=True)
    print(
        f"{bundle.name}, generation {bundle.manifest.generation}: {bundle.holding} in "
        f"{many(len(counts), 'category', 'categories')}; index "
        f"{plan.sentence(bundle.manifest.num_rows)}."
    )
    if change is None:
        chosen = first_by_size(list(counts), list(counts.values()), MAX_NAMED)
        for place, (name, count) in enumerate(counts.items()):
            if place in chosen:
                print(f"  {shown(name)}: {count:,}")
        if len(chosen) < len(counts):
            rest = many(len(counts) - len(chosen), "smaller category", "smaller categories")
            print(f"  and {rest}")
        if bundle.attributes:
            print(f"Attributes: {shown(', '.join(bundle.attributes))}")


def _print_refused(refused: Sequence[RefusedItem]) -> None:
    if refused:
        print(f"{many(len(refused), 'item was', 'items were')} not added:")
        for item in refused[:10]:
            print(shown(f"  {item.item_id!r} ({item.image}): {item.reason}"))
        if len(refused) > 10:
            print(f"  ... and {len(refused) - 10:,} more")


if __name__ == "__main__":
    main()
