"""Excel's workbooks: the sheet with the products, every cell the text that it shows, bounded."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from visual_search.catalog.catalog import Choice, RefusedItem
from visual_search.catalog.readers.delimited import (
    MAX_TEXT_BYTES,
    RawTable,
    column_names,
    header_place,
)
from visual_search.catalog.readers.parquet_columns import TextBudget, texts_of

_MAX_ROWS = 2**20  # that a sheet of Excel has
_SAMPLE_ROWS = 200
_LEADING_ZEROS = re.compile("0{2,}")  # a number's format, as of articles 00042


def read_workbook(data: bytes, origin: str, needed: Sequence[str] = ()) -> RawTable:
    """Returns the texts of the sheet that has the columns which are needed, or else most rows.

    Whole numbers have no fraction, those with a format of zeros alone their leading zeros, dates
    are as 2024-05-31. Of a formula its last result is read.

    Args:
        data: The bytes of an ``.xlsx`` or ``.xlsm`` file.
        origin: What is read, for messages.
        needed: Columns that it is to have: the row with them is the header.

    Raises:
        ValueError: openpyxl is not installed, the file is no readable workbook or too large, or no
            sheet holds a table.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(
            f"a workbook needs a package that is not installed ({error}); expected the extra of "
            "that name, run: pip install 'visual-search[excel]'; or save the sheet as CSV in UTF-8"
        ) from error
    with _readable():
        num_bytes = _unpacked_bytes(data)
    if num_bytes > MAX_TEXT_BYTES:
        raise ValueError(
            f"it unpacks to {num_bytes / 2**30:.1f} GiB; expected at most "
            f"{MAX_TEXT_BYTES / 2**30:.1f} GiB: split it"
        )
    with _readable():
        book = openpyxl.load_workbook(
            io.BytesIO(data), read_only=True, data_only=True, keep_links=False
        )
    budget = TextBudget(origin)
    sheets = {
        sheet.title: _cells(sheet, budget)
        for sheet in book.worksheets
        if sheet.sheet_state == "visible"
    }
    filled = {title: rows for title, rows in sheets.items() if rows}
    if not filled:
        raise ValueError("the workbook is empty; expected a sheet with a header and rows")

    def fits(title: str) -> tuple[int, int]:
        names = (set(map(str.strip, cells)) for _, cells in filled[title][:_SAMPLE_ROWS])
        return max(len(found & set(needed)) for found in names), len(filled[title])

    chosen = max(filled, key=fits)
    choices = []
    if len(filled) > 1:
        others = ", ".join(repr(title) for title in filled if title != chosen)
        choices.append(Choice("", f"read from the sheet {chosen!r}", f"not from {others}"))
    return _table(filled[chosen], needed, choices)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turns what openpyxl raises within, which is whatever XML and zip do, into one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"it is no readable workbook ({type(error).__name__}: {error}); expected one of Excel "
            "(.xlsx) without a password: save it anew, or as CSV in UTF-8"
        ) from error


def _unpacked_bytes(data: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # which reads no more than is declared
        return sum(member.file_size for member in archive.infolist())


def _cells(sheet: Any, budget: TextBudget) -> list[tuple[int, list[str]]]:
    """Returns the rows that hold something, by number, without the empty cells at their ends."""
    found: list[tuple[int, list[object]]] = []
    sheet.reset_dimensions()  # what it announces may be wrong
    for number, row in enumerate(_rows(sheet), 1):
        if number > _MAX_ROWS:
            raise ValueError(
                f"a sheet has over {_MAX_ROWS:,} rows; expected at most that: split it"
            )
        values = [_value(cell) for cell in row]
        while values and (values[-1] is None or values[-1] == ""):
            values.pop()
        lengths = sum(len(value) if isinstance(value, str) else 8 for value in values)
        budget.spend(lengths + len(row), sheet.title, len(row))
        if values:
            found.append((number, values))
    width = max((len(values) for _, values in found), default=0)
    # by columns, not with what stands above: whether all of its numbers are whole
    columns = [
        texts_of([row[n] if n < len(row) else None for _, row in found]) for n in range(width)
    ]
    return [
        (number, [column[place] for column in columns[: len(row)]])
        for place, (number, row) in enumerate(found)
    ]


def _rows(sheet: Any) -> Iterator[Sequence[Any]]:
    rows = iter(sheet.iter_rows())
    while True:
        with _readable():
            row = next(rows, None)
        if row is None:
            return
        yield row


def _value(cell: Any) -> object:
    import datetime

    value: object = cell.value
    if isinstance(value, int) and not isinstance(value, bool):
        shown = str(cell.number_format)
        return str(value).zfill(len(shown)) if _LEADING_ZEROS.fullmatch(shown) else value
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date()
    return value


def _table(
    sheet: Sequence[tuple[int, list[str]]], needed: Sequence[str], choices: Sequence[Choice]
) -> RawTable:
    sample = [cells for _, cells in sheet[:_SAMPLE_ROWS]]
    width = max(map(len, sample))
    padded = [cells + [""] * (width - len(cells)) for cells in sample]
    place = header_place(padded, needed, width)
    above = [sheet[n][0] for n in range(place)]
    if above:
        shown = "; ".join(
            repr(" ".join(filter(None, sample[n]))[:60]) for n in range(min(place, 3))
        )
        choices = [
            *choices,
            Choice("", f"row {', '.join(map(str, above))} above the header left out", shown),
        ]
    columns = column_names(padded[place])
    rows, places, refused = [], [], []
    for number, cells in sheet[place + 1 :]:
        if len(cells) > len(columns):
            reason = f"has {len(cells)} cells; the header has {len(columns)}: name all columns"
            refused.append(RefusedItem(f"row {number}", "", reason))
        else:
            rows.append(cells + [""] * (len(columns) - len(cells)))
            places.append(f"row {number}")
    return RawTable(columns, rows, places, tuple(refused), tuple(choices))
