"""Embeddings from files: of another program, and those that runs have saved."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
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
    """

    path: Path
    item_ids: Sequence[str]
    embeddings: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """D."""
        return int(self.embeddings.shape[1])

    def digest(self) -> str:
        """Gives a SHA-256 (hex) of ids and values."""
        digest = hashlib.sha256("\x1f".join(self.item_ids).encode())
        digest.update(self.embeddings.tobytes())
        return digest.hexdigest()

    def of_items(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Gives the embeddings ``[m, D]`` of these items.

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
    value. An ``.npy`` file holds ``[n, D]``; its ids are in a file of their own.

    Args:
        path: ``.parquet`` or ``.npy``.
        ids: Of an ``.npy``: a text file with one id a line, or a CSV or Parquet with ``item_id``;
            None looks for the same name with another ending.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file cannot be read, has another shape, holds NaN, or an id stands twice or
            could not be found again; ``ids`` is given for a Parquet file, which holds its own.
    """
    import numpy as np
    import pandas as pd

    from visual_search.catalog.identity import id_problem

    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file at {file}; expected embeddings as .npy or .parquet")
    if file.suffix == ".parquet":
        if ids is not None:
            raise ValueError(
                f"ids={ids} is given for {file}, which holds its ids in {ID_COLUMN!r}; expected "
                "one of them: leave ids out"
            )
        table = _read_table(file)
        item_ids = _ids_of_table(table, file)
        values: NDArray[np.generic] = _values_of_table(table.drop(columns=[ID_COLUMN]), file)
    elif file.suffix == ".npy":
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
    return GivenEmbeddings(file, item_ids, embeddings)


def saved_embeddings(folders: Sequence[Path]) -> dict[str, NDArray[np.float32]]:
    """Gives what runs and evaluations saved: the picture's content key -> embedding ``[D]``.

    Args:
        folders: With ``gallery.npy``, ``queries.npy`` and their items; what lacks is passed over.
    """
    import numpy as np
    import pandas as pd

    known: dict[str, NDArray[np.float32]] = {}
    for folder in folders:
        for side in ("gallery", "queries"):
            array, items = folder / f"{side}.npy", folder / f"{side}.parquet"
            if not (array.is_file() and items.is_file()):
                continue
            table = pd.read_parquet(items)
            if "content_key" not in table.columns:
                continue
            values = np.load(array, mmap_mode="r", allow_pickle=False)
            known |= dict(zip(table["content_key"].tolist(), values, strict=True))
    return known


def read_id_lines(path: Path) -> list[str]:
    """Gives the ids of a text file with one a line, blanks at their ends included.

    Lines of nothing but blanks are passed over, as is a byte order mark.

    Raises:
        ValueError: The file is not UTF-8.
    """
    return [line for line in _read_text(path).split("\n") if line.strip()]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text ({error}); expected UTF-8, one id a line, or a CSV or Parquet with "
            f"{ID_COLUMN!r}"
        ) from error


def _read_ids(file: Path, ids: str | None) -> list[str]:
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
    if path.suffix == ".parquet":
        return _ids_of_table(_read_table(path), path)
    if path.suffix != ".csv":
        return read_id_lines(path)
    text = _read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if ID_COLUMN not in (reader.fieldnames or []):
        raise ValueError(
            f"{path} has the columns {list(reader.fieldnames or [])[:8]}; expected {ID_COLUMN!r} "
            "among them: name the column of ids so"
        )
    return _filled([row[ID_COLUMN] for row in reader], path)


def _ids_of_table(table: pd.DataFrame, path: Path) -> list[str]:
    if ID_COLUMN not in table.columns:
        raise ValueError(
            f"{path} has the columns {list(table.columns)[:8]}; expected {ID_COLUMN!r} among them: "
            "name the column of ids so"
        )
    given = table[ID_COLUMN].astype(object)
    return _filled([str(value) for value in given.where(given.notna(), "")], path)


def _filled(item_ids: Sequence[str | None], path: Path) -> list[str]:
    filled = [item_id for item_id in item_ids if item_id]
    if len(filled) < len(item_ids):
        row = next(row for row, item_id in enumerate(item_ids) if not item_id)
        raise ValueError(f"{path}: row {row} has no id; expected one in every row: fill it")
    return filled


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as Parquet: {error}; expected a table: write it anew"
        ) from error


def _read_array(file: Path) -> NDArray[np.generic]:
    """Reads an array; a file that holds Python objects, which could run code, is refused."""
    import numpy as np

    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
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


def _values_of_table(table: pd.DataFrame, file: Path) -> NDArray[np.generic]:
    """Gives the lists of the embedding column, or else all numeric columns, as ``[n, D]``."""
    import numpy as np

    try:
        if EMBEDDING_COLUMN not in table.columns:
            return table.select_dtypes("number").to_numpy(dtype=np.float32)
        rows = table[EMBEDDING_COLUMN].tolist()
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise ValueError(f"lists of {len(widths)} different lengths")
        return np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file}: the embeddings cannot be read: {error}; expected in {EMBEDDING_COLUMN!r} a "
            "list of numbers in every row, all of one length, or one numeric column a value: "
            "embed all items with one model"
        ) from error
