"""The items that are to be embedded, on the disk: a shard's rows are read without the others.

A Parquet file with a row group a shard. What embeds needs no more of a catalogue than this file and
the source of its pictures, whatever its size.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LISTING_FILE = "items.parquet"


@dataclass(frozen=True)
class Listed:
    """What a listing holds.

    Attributes:
        columns: Of the catalogue's table.
        num_items: Rows.
        fingerprint: SHA-256 (hex) of its columns and texts.
    """

    columns: tuple[str, ...]
    num_items: int
    fingerprint: str


def write_listing(path: Path, tables: Iterable[pd.DataFrame], shard_size: int) -> Listed:
    """Writes the rows of tables one after the other; holds a table and a shard's rows at most.

    Args:
        path: Of the new file.
        tables: At least one; of one set of columns, all of text.
        shard_size: Rows of a row group.

    Raises:
        ValueError: A later table has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remaining = iter(tables)
    first = next(remaining)
    columns = [str(name) for name in first.columns]
    schema = pa.schema([(name, pa.string()) for name in columns])
    digest, num_items = hashlib.sha256("\x1f".join(columns).encode()), 0
    held = schema.empty_table()  # rows that make no whole shard yet
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in itertools.chain([first], remaining):
            if (names := [str(name) for name in table.columns]) != columns:
                raise ValueError(
                    f"a later part of the catalogue has the columns {names}, the first has "
                    f"{columns}; expected the same: name those to keep by data.attributes"
                )
            for row in table.itertuples(index=False, name=None):
                digest.update("\x1f".join(row).encode() + b"\x1e")
            num_items += len(table)
            texts = [pa.array(table[name].tolist(), pa.string()) for name in columns]
            held = pa.concat_tables([held, pa.table(texts, schema)])
            while len(held) >= shard_size:
                writer.write_table(held.slice(0, shard_size), row_group_size=shard_size)
                held = held.slice(shard_size)
        if len(held):
            writer.write_table(held, row_group_size=shard_size)
    return Listed(tuple(columns), num_items, digest.hexdigest())


def read_listing(path: Path, number: int) -> pd.DataFrame:
    """Returns the rows of a shard, all text, by their places in it.

    Raises:
        ValueError: The file is damaged.
    """
    import pandas as pd

    from visual_search.catalog.readers.parquet_columns import open_parquet

    with open_parquet(path) as (opened, _):
        group = opened.read_row_group(number)
        columns = {name: group.column(name).to_pylist() for name in group.column_names}
    return pd.DataFrame(columns, dtype=object)
