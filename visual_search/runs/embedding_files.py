"""Embeddings from files: of another program, and those that runs have saved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.reading import SAVED, DamagedFileError, read_array, read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    from numpy.typing import NDArray

ID_COLUMN = "item_id"
EMBEDDING_COLUMN = "embedding"
BESIDE = (".csv", ".txt", ".parquet")  # where the ids of an .npy are looked for


@dataclass(frozen=True, eq=False)
class GivenEmbeddings:
    """Embeddings by item id.

    Attributes:
        path: The file.
        item_ids: n ids, each once.
        embeddings: ``[n, D] float32``, finite.
        columns: Of a table, those that were read as embedding, in their order.
        left_out: Its other columns but the ids.
    """

    path: Path
    item_ids: Sequence[str]
    embeddings: NDArray[np.float32]
    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """D."""
        return int(self.embeddings.shape[1])

    def sentence(self) -> str:
        """Returns what was read, in a sentence."""
        text = f"{self.path}: {len(self.item_ids):,} embeddings of {self.dim:,} numbers"
        if self.columns:
            text += f" from {_shown(self.columns)}"
        return f"{text}; not read: {_shown(self.left_out)}" if self.left_out else text

    def digest(self) -> str:
        """Returns a SHA-256 (hex) of ids and values."""
        digest = hashlib.sha256("\x1f".join(self.item_ids).encode())
        digest.update(self.embeddings.tobytes())
        return digest.hexdigest()

    def of_items(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Returns the embeddings ``[m, D]`` of these items.

        Raises:
            ValueError: An item has none.
        """
        row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}
        missing = [item_id for item_id in item_ids if item_id not in row_of]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(item_ids)} items have no embedding in {self.path}, such "
                f"as {missing[:3]}; expected one for every item that searches or is searched: "
                f"embed them too (the file's ids look like {list(self.item_ids[:3])})"
            )
        return self.embeddings[[row_of[item_id] for item_id in item_ids]]


def read_embeddings(path: str, ids: str | None = None) -> GivenEmbeddings:
    """Reads embeddings of another program.

    A Parquet file has ``item_id`` and either ``embedding`` (a list a row) or one numeric column a
    value, numbered from 0 or 1 behind one name (``e0``, ``e1``, ...); other columns are left alone,
    and named. An ``.npy`` file holds ``[n, D]``; its ids are in a file of their own.

    Args:
        path: ``.parquet`` or ``.npy``.
        ids: Of an ``.npy``: a text file with one id a line, or a CSV or Parquet with ``item_id``;
            None looks for the same name with another ending.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file cannot be read, has another shape, holds NaN, unpacks to far more than
            embeddings do, has numeric columns of which it is not certain that they are the
            embedding, or an id stands twice or could not be found again; ``ids`` is given for a
            Parquet file, which holds its own.
    """
    import numpy as np
    import pandas as pd

    from visual_search.catalog.identity import id_problem
    from visual_search.catalog.readers.parquet_columns import open_parquet, read_numbers

    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file at {file}; expected embeddings as .npy or .parquet")
    if file.suffix.lower() == ".parquet":
        if ids is not None:
            raise ValueError(
                f"ids={ids} is given for {file}, which holds its ids in {ID_COLUMN!r}; expected "
                "one of them: leave ids out"
            )
        values: NDArray[np.generic]
        with open_parquet(file) as (opened, (num_bytes, _)):
            names = opened.schema_arrow.names
            if ID_COLUMN not in names:
                raise ValueError(_no_ids(file, names))
            columns = _embedding_columns(opened.schema_arrow, file)
            left_out = tuple(name for name in names if name not in (ID_COLUMN, *columns))
            try:
                values = read_numbers(opened, columns, str(file), num_bytes)
            except ValueError as error:
                raise ValueError(
                    f"{file}: the embeddings cannot be read: {error}; expected in "
                    f"{EMBEDDING_COLUMN!r} a list of numbers in every row, all of one length, or "
                    "one numeric column a value: embed all items with one model"
                ) from error
            item_ids = _ids_of_table(opened, file)
    elif file.suffix.lower() == ".npy":
        values = _read_array(file)
        item_ids = _read_ids(file, ids)
    else:
        raise ValueError(f"{file} ends in {file.suffix!r}; expected .npy or .parquet: save as one")
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{file} holds {values.dtype} of shape {values.shape}; expected numbers [items, width]:"
            " save one row an item"
        )
    if len(values) != len(item_ids):
        raise ValueError(
            f"{file} holds {len(values)} embeddings, and there are {len(item_ids)} ids; expected "
            "one id a row: give the ids that belong to it with ids=FILE"
        )
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        embeddings = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{file}: the embedding of {item_ids[bad[0]]!r} is not finite as float32 ({len(bad)} "
            "such row(s)); expected numbers: look at what made them"
        )
    for item_id in item_ids:
        if problem := id_problem(item_id):
            raise ValueError(f"{file}: the id {item_id!r} {problem}")
    if len(set(item_ids)) < len(item_ids):
        twice = pd.Series(item_ids).value_counts().index[0]
        raise ValueError(f"{file}: id {twice!r} stands twice; expected each id once: drop one")
    return GivenEmbeddings(file, item_ids, embeddings, columns, left_out)


def saved_embeddings(folders: Sequence[Path]) -> dict[str, NDArray[np.float32]]:
    """Returns what runs and evaluations saved: the picture's content key -> embedding ``[D]``.

    Args:
        folders: With ``gallery.npy``, ``queries.npy`` and their items; what lacks is passed over.

    Raises:
        DamagedFileError: A file is not what a run saves.
    """
    known: dict[str, NDArray[np.float32]] = {}
    for folder in folders:
        for side in ("gallery", "queries"):
            array, items = folder / f"{side}.npy", folder / f"{side}.parquet"
            if not (array.is_file() and items.is_file()):
                continue
            table = read_table(items, SAVED)
            if "content_key" not in table.columns:
                continue
            values = read_array(array, SAVED)
            if values.ndim != 2 or len(values) != len(table):
                reason = f"it has the shape {values.shape}, and {items.name} {len(table)} rows"
                raise DamagedFileError(array, reason, SAVED)
            known |= dict(zip(table["content_key"].tolist(), values, strict=True))
    return known


def read_id_lines(path: Path) -> list[str]:
    """Returns the ids of a text file with one a line, blanks at their ends included.

    Lines of nothing but blanks are passed over, as is a byte order mark.

    Raises:
        ValueError: The file is no text, or in an encoding that is not certain.
    """
    from visual_search.catalog.readers.delimited import read_lines

    try:
        return read_lines(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is no text that can be read ({error}); expected one id a line, or a CSV or "
            f"Parquet with {ID_COLUMN!r}"
        ) from error


def _read_ids(file: Path, ids: str | None) -> list[str]:
    from visual_search.catalog.readers.delimited import read_csv
    from visual_search.catalog.readers.parquet_columns import open_parquet

    if ids is None:
        found = [file.with_suffix(ending) for ending in BESIDE]
        path = next((beside for beside in found if beside.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"the ids of {file} are missing; expected one of {[f.name for f in found]} beside "
                "it, or ids=FILE"
            )
    else:
        path = Path(ids)
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}; expected the ids of {file}")
    if path.suffix.lower() == ".parquet":
        with open_parquet(path) as (opened, _):
            return _ids_of_table(opened, path)
    if path.suffix.lower() not in (".csv", ".tsv"):
        return read_id_lines(path)
    try:
        raw = read_csv(path.read_bytes(), name=path.name, needed=[ID_COLUMN])
    except ValueError as error:
        raise ValueError(
            f"{path} is no text that can be read ({error}); expected one id a line, or a CSV or "
            f"Parquet with {ID_COLUMN!r}"
        ) from error
    if ID_COLUMN not in raw.columns:
        raise ValueError(_no_ids(path, raw.columns))
    if raw.refused:
        first = raw.refused[0]
        raise ValueError(
            f"{path} has {len(raw.refused)} row(s) that cannot be read, the first is "
            f"{first.item_id}: {first.reason}; expected an id in every row: mend them"
        )
    place = raw.columns.index(ID_COLUMN)
    return _filled([row[place] for row in raw.rows], path)


def _ids_of_table(opened: pyarrow.parquet.ParquetFile, path: Path) -> list[str]:
    from visual_search.catalog.readers.parquet_columns import TextBudget, read_columns, texts_of

    names = opened.schema_arrow.names
    if ID_COLUMN not in names:
        raise ValueError(_no_ids(path, names))
    values = read_columns(opened, [ID_COLUMN], str(path), TextBudget(str(path)))[ID_COLUMN]
    return _filled(texts_of(values), path)


def _no_ids(path: Path, columns: Sequence[str]) -> str:
    return (
        f"{path} has the columns {list(columns)[:8]}; expected {ID_COLUMN!r} among them: name the "
        "column of ids so"
    )


def _filled(item_ids: Sequence[str], path: Path) -> list[str]:
    if not all(item_ids):
        row = next(row for row, item_id in enumerate(item_ids) if not item_id)
        raise ValueError(f"{path}: row {row} has no id; expected one in every row: fill it")
    return list(item_ids)


def _embedding_columns(schema: pyarrow.Schema, file: Path) -> tuple[str, ...]:
    """Returns the column of lists, or the numeric columns that are one numbered series.

    A label or a price is a number as well: only a series says that its columns belong together.
    """
    import pyarrow.types as types

    if EMBEDDING_COLUMN in schema.names:
        kind = schema.field(EMBEDDING_COLUMN).type
        if not types.is_nested(kind):
            raise ValueError(
                f"{file}: the embeddings cannot be read: {EMBEDDING_COLUMN!r} holds {kind}; "
                "expected a list of numbers in every row: embed all items with one model"
            )
        return (EMBEDDING_COLUMN,)
    numeric = [
        field.name
        for field in schema
        if (types.is_floating(field.type) or types.is_integer(field.type))
        and field.name != ID_COLUMN
        and not field.name.startswith("__index_level_")
    ]
    series: dict[str, dict[int, str]] = {}
    for name in numeric:
        found = re.fullmatch(r"(.*?)([0-9]+)", name, re.ASCII | re.DOTALL)
        if found is not None:
            series.setdefault(found[1], {})[int(found[2])] = name
    whole = [
        tuple(by_number[number] for number in sorted(by_number))
        for by_number in series.values()
        if sorted(by_number) in (list(range(len(by_number))), list(range(1, len(by_number) + 1)))
    ]
    covered = sum(map(len, whole))
    numbered = sum(map(len, series.values()))
    if len(whole) != 1 or covered < numbered or len(whole[0]) < 2:
        lists = [field.name for field in schema if types.is_nested(field.type)]
        beside = f" and the columns of lists {_shown(lists)}" if lists else ""
        raise ValueError(
            f"{file} has the numeric columns {_shown(numeric)}{beside}, of which it is not certain "
            f"that all are the embedding; expected a column {EMBEDDING_COLUMN!r} of lists, or one "
            "series of columns numbered without a gap, as e0, e1, e2: rename them, and leave out "
            "what is no embedding"
        )
    return whole[0]


def _shown(columns: Sequence[str]) -> str:
    """Returns columns by name, the middle of many left out."""
    names = list(columns)
    if len(names) > 8:
        names[3:-2] = ["..."]
    return f"{', '.join(names) or 'none'}" + (
        f" ({len(columns):,} columns)" if len(columns) > 8 else ""
    )


def _read_array(file: Path) -> NDArray[np.generic]:
    """Reads an array; a file that holds Python objects, which could run code, is refused."""
    import numpy as np

    try:
        values = np.load(file, allow_pickle=False)
    except Exception as error:  # a header of brackets, one that announces 10^12 numbers, ...
        raise ValueError(
            f"{file} cannot be read as .npy: {error}; expected an array [items, width]: save "
            "numbers with numpy.save"
        ) from error
    if not isinstance(values, np.ndarray):
        raise ValueError(
            f"{file} holds several arrays (.npz); expected one array [items, width]: save it with "
            "numpy.save"
        )
    return values
