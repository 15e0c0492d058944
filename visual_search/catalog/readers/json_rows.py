"""Tables as JSON: one object a line, or a list of objects; every value the text that it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from visual_search.catalog.catalog import Choice, RefusedItem
from visual_search.catalog.readers.delimited import MAX_VALUES, RawTable, decode

# Python's objects take ten times a list's text; lines are read one by one.
MAX_LIST_BYTES = 2**28
_WHERE_A_PICTURE_IS = ("src", "url", "href", "path")  # as the interfaces of shops say it


def read_json_lines(data: bytes, encoding: str | None = None) -> RawTable:
    r"""Returns the texts of JSON lines: one object a line, its keys the columns.

    Numbers stay as they are written, null is empty, what is nested deeper than a list stays JSON. A
    key that a line lacks is empty there. A line that is no object of texts is refused.

    Args:
        data: The file's bytes.
        encoding: As of `delimited.read_csv`.

    Raises:
        ValueError: The encoding is none or not certain, no line holds an object, or they come to
            over 50 million values.

    Example:
        >>> table = read_json_lines(b'{"sku": "007", "price": 1.10, "photos": ["a", "b"]}\n')
        >>> table.columns, table.rows, table.lists
        (['sku', 'price', 'photos'], [['007', '1.10', 'a, b']], {'photos': [('a', 'b')]})
    """
    text, chosen = decode(data, encoding)

    def found() -> Iterator[tuple[str, object]]:
        for number, line in enumerate(io.StringIO(text, newline=""), 1):
            if line.strip():
                yield f"line {number}", _parsed(line)

    return _table(found(), chosen)


def read_json_list(data: bytes, encoding: str | None = None) -> RawTable:
    """Returns the texts of a list of JSON objects, alone or under one key of an object.

    Args:
        data: The file's bytes.
        encoding: As of `delimited.read_csv`.

    Raises:
        ValueError: It holds no such list, has over 256 MiB, or as of `read_json_lines`.

    Example:
        >>> read_json_list(b'{"products": [{"sku": "1"}]}').rows
        [['1']]
    """
    if len(data) > MAX_LIST_BYTES:
        raise ValueError(
            f"it is a list of {len(data) / 2**20:.0f} MiB; expected at most "
            f"{MAX_LIST_BYTES / 2**20:.0f} MiB: write JSON lines (.jsonl), one object a line"
        )
    text, chosen = decode(data, encoding)
    whole = _parsed(text)
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = lists[0] if len(lists) == 1 else whole
    if isinstance(whole, _Unread) or not isinstance(whole, list):
        why = whole.reason if isinstance(whole, _Unread) else "it holds no list"
        raise ValueError(
            f"{why}; expected a list of JSON objects, one a product: write it so, or as JSON lines "
            "(.jsonl)"
        )
    return _table(((f"entry {number}", one) for number, one in enumerate(whole, 1)), chosen)


class _Unread:
    """A line that is not read, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _parsed(text: str) -> Any:
    try:
        return json.loads(
            text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_object
        )
    except RecursionError:
        return _Unread("it is nested too deep")
    except ValueError as error:
        return _Unread(f"it is no JSON ({error})")


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _table(found: Iterator[tuple[str, object]], chosen: Choice | None) -> RawTable:
    places: list[str] = []
    records: list[dict[str, str | tuple[str, ...]]] = []
    refused: list[RefusedItem] = []
    columns: dict[str, bool] = {}  # and whether a value of it is a list
    for place, one in found:
        try:
            record = _record(one)
        except ValueError as error:
            refused.append(RefusedItem(place, "", str(error)))
            continue
        for name, value in record.items():
            columns[name] = columns.get(name, False) or isinstance(value, tuple)
        records.append(record)
        places.append(place)
        if len(records) * len(columns) > MAX_VALUES:
            raise ValueError(
                f"the table has over {MAX_VALUES:,} values in {len(columns):,} column(s); expected "
                "at most that: split it, or leave out the keys that are not needed"
            )
    if not columns:
        first = f": {refused[0].item_id} {refused[0].reason}" if refused else ""
        raise ValueError(f"the table is empty{first}; expected an object for each product")
    rows = []
    lists: dict[str, list[tuple[str, ...]]] = {name: [] for name in columns if columns[name]}
    for record in records:
        values = {name: record.get(name, "") for name in columns}
        rows.append([v if isinstance(v, str) else ", ".join(v) for v in values.values()])
        for name, each in lists.items():
            value = values[name]
            each.append(value if isinstance(value, tuple) else (value,) if value else ())
    choices = () if chosen is None else (chosen,)
    return RawTable(list(columns), rows, places, tuple(refused), choices, lists)


def _record(one: object) -> dict[str, str | tuple[str, ...]]:
    """Returns the texts of an object by its keys.

    Raises:
        ValueError: It is none, or holds what no table does.
    """
    if isinstance(one, _Unread):
        raise ValueError(one.reason)
    if not isinstance(one, dict):
        raise ValueError("holds no object; expected one, as {...}, with the columns as its keys")
    record: dict[str, str | tuple[str, ...]] = {}
    for name, value in one.items():
        plain = name.strip()
        if not plain or plain in record:
            raise ValueError(f"has the key {name!r}; expected names, each once")
        record[plain] = tuple(map(_text, value)) if isinstance(value, list) else _text(value)
    for value in (*record, *record.values()):
        for text in (value,) if isinstance(value, str) else value:
            if "\0" in text:
                raise ValueError("holds a NUL character; expected text: write the table anew")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError("holds what is no Unicode; expected text: write it anew") from None
    return record


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):  # numbers as well: see `_parsed`
        return value
    if isinstance(value, dict):
        for key in _WHERE_A_PICTURE_IS:
            if isinstance(value.get(key), str):
                return str(value[key])
    return json.dumps(value, ensure_ascii=False)
