"""Columns and accepted values -> which rows may be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.arrow import flags_of, integer_array, text_array
from visual_search.bundle.segments import TextColumn
from visual_search.bundle.snapshot import Snapshot

Where = Mapping[str, Sequence[str]]
Conditions = tuple[tuple[str, tuple[str, ...]], ...]


def check_where(where: Where | None, columns: Sequence[str]) -> Conditions:
    """Returns conditions in one order and form, the same for all that mean the same.

    Args:
        where: Column -> accepted values. All columns have to match, each by any of its values. A
            value that no item has matches nothing.
        columns: The columns that there are.

    Raises:
        TypeError: ``where`` is no mapping, or a column's values are no list of texts.
        ValueError: There is no such column, or it has no accepted value.

    Example:
        >>> check_where({"colour": ["red", "blue", "red"]}, ["category", "colour"])
        (('colour', ('blue', 'red')),)
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise TypeError(
            f"where is {where!r}; expected column -> accepted values, as "
            "{'category': ['shoes', 'boots']}"
        )
    for name, accepted in where.items():
        if name not in columns:
            raise ValueError(
                f"where names the column {name!r}; expected one of {', '.join(columns)}"
            )
        if isinstance(accepted, str) or not isinstance(accepted, Sequence):
            raise TypeError(
                f"where[{name!r}] is {accepted!r}; expected a list of texts, as "
                f"{{{name!r}: ['...']}}"
            )
        wrong = [value for value in accepted if not isinstance(value, str)]
        if wrong:
            raise TypeError(
                f"where[{name!r}] holds {wrong[0]!r} ({type(wrong[0]).__name__}); expected text: "
                "all columns are texts"
            )
        if not accepted:
            raise ValueError(
                f"where[{name!r}] is empty; expected at least one accepted value: leave the column "
                "out to accept all"
            )
    return tuple((name, tuple(sorted(set(where[name])))) for name in sorted(where))


def matching_rows(snapshot: Snapshot, conditions: Conditions) -> NDArray[np.bool_]:
    """Returns ``[N] bool``: the rows that can be found and match all conditions."""
    found = snapshot.live
    for name, accepted in conditions:
        parts = [_accepted(segment.columns[name], accepted) for segment in snapshot.segments]
        found = found & np.concatenate([np.empty(0, np.bool_), *parts])
    return found


def count_values(
    snapshot: Snapshot, column: str, products: NDArray[np.int64] | None = None
) -> dict[str, int]:
    """Returns value -> rows that can be found, the most frequent first, ties by the text.

    Args:
        snapshot: The generation.
        column: Its name.
        products: ``[N] int64``, each row's product: counts these, each once, and not the rows.
    """
    numbers: dict[str, int] = {}  # value -> its number, over all segments
    parts = [np.empty(0, np.int64)]
    for segment in snapshot.segments:
        own = segment.columns[column]
        values = [numbers.setdefault(text, len(numbers)) for text in own.values.to_pylist()]
        parts.append(np.array(values, np.int64)[own.codes])
    codes = np.concatenate(parts)[snapshot.live]
    if products is not None:
        own_products = products[snapshot.live]
        pairs = np.unique(codes * (int(own_products.max(initial=0)) + 1) + own_products)
        codes = pairs // (int(own_products.max(initial=0)) + 1)
    counts = np.bincount(codes, minlength=len(numbers)).tolist()
    found = {text: count for text, count in zip(numbers, counts, strict=True) if count}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def has_more_values(snapshot: Snapshot, column: str, than: int) -> bool:
    """Returns whether the rows that can be found have more than so many different values.

    Where they have, one segment mostly shows it by its codes, and no text is looked at.
    """
    found: set[str] = set()
    for segment, start in zip(snapshot.segments, snapshot.starts[:-1], strict=True):
        own = segment.columns[column]
        live = snapshot.live[start : start + len(segment)]
        used = np.flatnonzero(np.bincount(own.codes[live], minlength=len(own.values)))
        if len(used) > than:
            return True
        found.update(own.values.take(integer_array(used)).to_pylist())
    return len(found) > than


def _accepted(column: TextColumn, accepted: Sequence[str]) -> NDArray[np.bool_]:
    """Returns ``[n] bool``: the values are looked up, the rows only by their codes."""
    import pyarrow.compute as pc

    known = [text for text in accepted if is_unicode(text)]  # no item has the others
    flags = flags_of(pc.is_in(column.values, value_set=text_array(known)))
    found: NDArray[np.bool_] = flags[column.codes]
    return found


def is_unicode(text: str) -> bool:
    """Returns whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
