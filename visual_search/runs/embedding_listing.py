"""The items that are to be embedded, on the disk: a shard's rows are read without the others.

A Parquet file with a row group a shard. What embeds needs no more of a catalogue than this file and
the source of its pictures, whatever its size.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.atomic import scratch_folder
from visual_search.config.builders import ConfigError

if TYPE_CHECKING:
    import pandas as pd

LISTING_FILE = "items.parquet"
_MEMORY = "512MB"  # of DuckDB


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


def listed_tables(path: Path, without: Container[int]) -> Iterator[pd.DataFrame]:
    """Yields the rows of a listing, a shard's at a time, but for some.

    Args:
        path: Of the listing.
        without: Places of the rows that are left out, from 0.
    """
    import pyarrow.parquet as pq

    start = 0
    for number in range(pq.read_metadata(path).num_row_groups):
        rows = read_listing(path, number)
        kept = [row for row in range(len(rows)) if start + row not in without]
        yield rows.iloc[kept]
        start += len(rows)


@dataclass(frozen=True)
class LaterRow:
    """A row of a listing whose id an earlier row has.

    Attributes:
        item_id: The id.
        image: Its own picture.
        first_row: Place of the first row with the id, from 0.
    """

    item_id: str
    image: str
    first_row: int


def later_rows(path: Path) -> dict[int, LaterRow]:
    """Returns the rows whose ids earlier ones have, by their places; found on the disk by DuckDB.

    Args:
        path: Of the listing; what does not fit into `_MEMORY` lies beside it meanwhile.

    Raises:
        ConfigError: DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError(
            "a catalogue that is read in parts needs DuckDB, which finds ids that stand twice, and "
            f"{error.name} is not installed; expected the extra 'duckdb'; run: pip install "
            "'visual-search[duckdb]'"
        ) from error
    found: dict[int, LaterRow] = {}
    first: tuple[str, int] | None = None
    with (
        scratch_folder(path.parent, "ids") as scratch,
        duckdb.connect(
            config={"memory_limit": _MEMORY, "temp_directory": str(scratch), "threads": 2}
        ) as database,
    ):
        # By the hashes of ids, which are 8 bytes each: the few that meet are compared.
        rows = database.execute(
            "WITH ids AS (SELECT hash(item_id) AS id FROM read_parquet($path)),"
            " twice AS (SELECT id FROM ids GROUP BY id HAVING count(*) > 1)"
            " SELECT item_id, image, file_row_number"
            " FROM read_parquet($path, file_row_number = true)"
            " WHERE hash(item_id) IN (SELECT id FROM twice)"
            " ORDER BY item_id, file_row_number",
            {"path": str(path)},
        )
        while some := rows.fetchmany(10_000):
            for item_id, image, row in some:
                if first is None or first[0] != item_id:
                    first = (item_id, row)
                else:
                    found[row] = LaterRow(item_id, image, first[1])
    return dict(sorted(found.items()))
