"""What is to be embedded: a catalogue in memory, or a table that is larger, some rows at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.atomic import atomic_path
from visual_search.config.builders import ConfigError, bind
from visual_search.config.schemas import Node, SplitConfig
from visual_search.runs.catalogs import build_catalog, told
from visual_search.runs.embedding_listing import (
    Listed,
    later_rows,
    listed_tables,
    write_listing,
)
from visual_search.runs.embedding_shards import CONTENT_KEY, EMBEDDING
from visual_search.runs.moved import merged_settings, telling_moved_data
from visual_search.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from visual_search.catalog.catalog import PictureSource, RefusedItem
    from visual_search.catalog.readers.row_blocks import Part, RowBlocks

TABLE = "visual_search.catalog.readers.table.table"
PARQUET = "visual_search.catalog.readers.parquet.parquet"
WEBDATASET = "visual_search.catalog.readers.webdataset.webdataset"


@dataclass
class EmbeddingData:
    """The items that are to be embedded, to be read once.

    Attributes:
        name: Of the catalogue.
        source: Loads the pictures.
        parts: Tables with a catalogue's columns, and the items that are left out.
        is_whole: Whether there is one part, in which every id is there once.
        stops_at_bad_item: Whether an item that cannot be used is an error.
        refused: The items that were left out, of those that were read.
    """

    name: str
    source: PictureSource
    parts: Iterator[Part]
    is_whole: bool
    stops_at_bad_item: bool
    refused: list[RefusedItem] = field(default_factory=list)


def read_data(run: Run | None, data: Node, split: SplitConfig | None) -> EmbeddingData:
    """Returns the items of a run's catalogue, or of another one.

    Args:
        run: Whose catalogue it is where ``data`` says nothing else; None where it is said whole.
        data: In the place of the run's, whole or only some of its keys.
        split: In the place of the run's.

    Raises:
        ConfigError: A setting is wrong, or does not go with a table that is read in parts.
        ValueError: It cannot be read.
    """
    if run is None:
        return _read(data, None, split)
    own = run.settings()
    merged = merged_settings(own, data, split, own.pictures.cache_dir)
    with telling_moved_data("embed", run, merged.data, data):
        return _read(merged.data, run, split)


def _read(node: Node, run: Run | None, split: SplitConfig | None) -> EmbeddingData:
    from visual_search.runs.parts import Parts

    stops = node.get("on_bad_item", "error") == "error"
    if (blocks := _large(node)) is not None:
        if split is not None:
            raise ConfigError(
                f"split is set, and catalogue {blocks.name!r} is read in parts; expected the "
                "splits that the table has: leave split out, or name its column by data.split"
            )
        for line in told(blocks.choices):
            print(f"{blocks.name}: {line}")
        return EmbeddingData(blocks.name, blocks.source, blocks.parts, False, stops)
    if run is None:
        catalog = build_catalog(node)
    else:
        own = run.settings()
        catalog = Parts(merged_settings(own, node, split, own.pictures.cache_dir)).catalog
    part = (catalog.table, list(catalog.refused))
    return EmbeddingData(catalog.name, catalog.source, iter([part]), True, stops)


def _large(node: Node) -> RowBlocks | None:
    """Returns data in parts, where it is some that is too large to be read whole."""
    if node.get("_target_") not in (TABLE, PARQUET, WEBDATASET):
        return None
    from visual_search.catalog.readers.row_blocks import (
        large_parquet,
        large_table,
        large_webdataset,
    )
    from visual_search.catalog.readers.table import TableSettings
    from visual_search.storage.uris import place_of

    builder, arguments = bind("data", node)
    bound = inspect.signature(builder).bind(**arguments)
    bound.apply_defaults()
    given: dict[str, Any] = {**bound.arguments, "path": place_of(bound.arguments["path"])}
    if node["_target_"] == PARQUET:
        return large_parquet(**given)
    if node["_target_"] == WEBDATASET:
        return large_webdataset(**given)
    return large_table(
        TableSettings(**{one.name: given[one.name] for one in fields(TableSettings)}),
        name=given["name"],
        category_depth=given["category_depth"],
        on_bad_item=given["on_bad_item"],
    )


def list_items(path: Path, data: EmbeddingData, shard_size: int) -> Listed:
    """Writes the listing of the items that are to be embedded; each id is in it once.

    Args:
        path: Of the new file.
        data: The items; those that are left out are noted there.
        shard_size: Items a shard.

    Raises:
        BadItemsError: An item cannot be used, and that is an error.
        ConfigError: A column has a name of a shard's own, or the extra is not installed.
        ValueError: There is no item.
    """
    from visual_search.catalog.catalog import BadItemsError, RefusedItem

    listed = write_listing(path, _tables(data), shard_size)
    if not data.is_whole and (later := later_rows(path)):
        again = [
            RefusedItem(
                one.item_id,
                one.image,
                f"item {row + 1}: the id is that of item {one.first_row + 1} already; an id names "
                "one item",
            )
            for row, one in later.items()
        ]
        if data.stops_at_bad_item:
            raise BadItemsError(again, f"catalogue {data.name!r}")
        data.refused += again
        with atomic_path(path) as whole:
            listed = write_listing(whole, listed_tables(path, without=later), shard_size)
    if not listed.num_items:
        raise ValueError(
            f"catalogue {data.name!r} gives no item ({len(data.refused)} refused); expected at "
            "least one: look at what visual_search.check says of it"
        )
    return listed


def _tables(data: EmbeddingData) -> Iterator[pd.DataFrame]:
    from visual_search.views.progress import Bar

    bar, done = Bar("Listing the items", " items", shown=not data.is_whole), 0
    try:
        for table, refused in data.parts:
            taken = {CONTENT_KEY, EMBEDDING} & set(table.columns)
            if taken:
                raise ConfigError(
                    f"catalogue {data.name!r} has an attribute {min(taken)!r}, which a shard uses "
                    "itself; expected another name: rename the column, or leave it out with "
                    "data.attributes"
                )
            data.refused += refused
            yield table
            done += len(table)
            bar.advance(done, None)
    finally:
        bar.close()
