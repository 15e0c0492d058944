"""Reports on disk: per query (Parquet), per category (CSV), summary (JSON)."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from visual_search.atomic import atomic_path, write_text
from visual_search.reading import DamagedFileError, Summary, read_json, read_table
from visual_search.retrieval.report import RetrievalReport
from visual_search.wording import as_cell, from_cell

Read = TypeVar("Read")
PER_QUERY_FILE = "per_query.parquet"
PER_CATEGORY_FILE = "per_category.csv"
SUMMARY_FILE = "summary.json"

TEXT_COLUMNS = ("query_id", "category", "group")
COUNTS = ("category", "num_gallery", "num_queries", "num_queries_scored", "num_left_out")
LIST_COLUMNS = (
    "neighbour_ids",
    "neighbour_categories",
    "neighbour_squared_distances",
    "neighbour_relevant",
)


def save_report(report: RetrievalReport, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Writes ``per_query.parquet``, ``per_category.csv`` and ``summary.json``.

    NaN and infinity become null, since JSON has neither.

    A category that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-``,
    ``@``, a tab or a line break, and is no number) gets an apostrophe in front in the CSV, and so
    does one that begins with an apostrophe; `load_report` takes it away again.

    Returns:
        File name -> path.
    """
    paths = {name: Path(folder) / name for name in (PER_QUERY_FILE, PER_CATEGORY_FILE)}
    with atomic_path(paths[PER_QUERY_FILE]) as temporary:
        report.per_query.to_parquet(temporary, index=False)
    save_table(report.per_category, paths[PER_CATEGORY_FILE])
    text = json.dumps(plain(report.summary), indent=2, ensure_ascii=False, allow_nan=False)
    paths[SUMMARY_FILE] = write_text(Path(folder) / SUMMARY_FILE, text + "\n")
    return paths


def save_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Writes a table as CSV (UTF-8), its texts as `as_cell` gives them; numbers stay numbers."""
    cells = table.copy()
    bare = False
    for column in cells.columns:
        if not pd.api.types.is_numeric_dtype(cells[column]):
            values = [as_cell(v) if isinstance(v, str) else v for v in cells[column]]
            bare |= any("\r" in v for v in values if isinstance(v, str))
            cells[column] = pd.Series(values, index=cells.index, dtype=object)
    # Python 3.11 leaves a lone carriage return unquoted, and readers end the line there.
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    with atomic_path(path) as temporary:
        cells.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)
    return Path(path)


def load_report(folder: str | os.PathLike[str]) -> RetrievalReport:
    """Reads what `save_report` wrote, with the same values and types.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file cannot be read as what it should be.
    """
    per_query = _read(Path(folder) / PER_QUERY_FILE, _read_per_query)
    per_category = _read(Path(folder) / PER_CATEGORY_FILE, _read_per_category)
    summary = _read(Path(folder) / SUMMARY_FILE, _read_summary)
    return RetrievalReport(per_query, per_category, summary)


def _read(path: Path, reader: Callable[[Path], Read]) -> Read:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; expected the three files of a saved report: evaluate the run again"
        )
    try:
        return reader(path)
    except DamagedFileError:
        raise
    except Exception as error:  # Arrow has kinds of its own, of no common base
        raise ValueError(
            f"{path} cannot be read: {str(error).strip()}; expected what saving a report writes: "
            "evaluate the run again"
        ) from error


def _read_per_query(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    for column in LIST_COLUMNS:
        table[column] = [values.tolist() for values in table[column]]
    return table.astype(dict.fromkeys(TEXT_COLUMNS, object))


def _read_per_category(path: Path) -> pd.DataFrame:
    # All as text: a category may be called NA or 007, and float() reads a number exactly.
    table = read_table(
        path,
        "what saving a report writes: evaluate the run again",
        dtype=str,
        na_filter=False,
        index_col=False,
    )
    missing = [column for column in COUNTS if column not in table.columns]
    if missing:
        raise ValueError(f"it lacks the column(s) {missing}")
    table["category"] = table["category"].map(from_cell)
    for column in table.columns[1:]:
        if column in ("few_queries", "rough"):
            table[column] = [{"True": True, "False": False}[value] for value in table[column]]
            continue
        if column.startswith("num_"):
            table[column] = np.array([int(value) for value in table[column]], dtype=np.int64)
        else:
            numbers = [float(value) if value else math.nan for value in table[column]]
            table[column] = np.array(numbers, dtype=np.float64)
    return table.astype({"category": object})


def _read_summary(path: Path) -> Summary:
    content = read_json(path, "what saving a report writes: evaluate the run again")
    if not isinstance(content["k"], int):
        raise ValueError(f"k is {content['k']!r}")
    for name, value in content.items():
        if value is None or name in ("floors", "intervals"):
            content[name] = _with_nan(value)
    summary: Summary = content
    return summary


def _with_nan(value: object) -> Any:
    """Takes back what `plain` did to numbers."""
    if isinstance(value, dict):
        return {name: _with_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_nan(inner) for inner in value]
    return math.nan if value is None else value


def plain(value: object) -> Any:
    """Returns the value with NaN and infinity as None, in dicts and lists too: JSON has neither.

    Example:
        >>> plain({"micro": math.nan, "floors": [{"low": math.inf}], "n": 3})
        {'micro': None, 'floors': [{'low': None}], 'n': 3}
    """
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
