"""Which rows of a table are equal in some columns, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def equal_codes(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    columns: Sequence[str],
    *,
    empty_is_none: bool = False,
) -> Codes:
    """Returns rows that are equal in every column equal numbers; without a column all are equal.

    Args:
        table: Text columns.
        rows: ``[n] int64``, row numbers.
        columns: Those that are compared.
        empty_is_none: Give -1 where a value is empty, instead of calling empty values equal.

    Returns:
        ``[n] int64``, from 0 on, or -1.

    Example:
        >>> table = pd.DataFrame({"category": ["hat", "shoe", "hat"], "colour": ["", "red", ""]})
        >>> equal_codes(table, np.arange(3), ["category", "colour"])
        array([0, 1, 0])
        >>> equal_codes(table, np.arange(3), ["category", "colour"], empty_is_none=True)
        array([-1,  1, -1])
    """
    codes: Codes = np.zeros(len(rows), dtype=np.int64)
    empty = np.zeros(len(rows), dtype=bool)
    for column in columns:
        values = table[column].to_numpy(dtype=object)[rows]
        numbers, names = pd.factorize(values)
        # Counted anew at every column: n rows have at most n codes, and n * n fits into int64.
        codes = pd.factorize(codes * max(1, len(names)) + numbers)[0].astype(np.int64)
        empty |= np.asarray(values == "", dtype=bool)
    return np.where(empty, -1, codes) if empty_is_none else codes


def count_equal(num: int, *codes: Codes) -> Codes:
    """Counts, for each query, the gallery items that have all of its codes.

    Args:
        num: N, gallery items.
        codes: ``[N + Q] int64`` each, at least one, from -1 on: the gallery's, then the queries'.

    Returns:
        ``[Q] int64``.

    Example:
        Three gallery items and two queries; the second one's colour is nowhere.

        >>> category, colour = np.array([0, 0, 1, 0, 0]), np.array([4, 4, 4, 4, 5])
        >>> count_equal(3, category), count_equal(3, category, colour)
        (array([2, 2]), array([2, 0]))
    """
    joint = np.zeros(len(codes[0]), dtype=np.int64)
    for part in codes:
        width = int(part.max(initial=0)) + 2  # -1 is a code as well
        joint = pd.factorize(joint * width + part + 1)[0].astype(np.int64)
    counts = np.bincount(joint[:num], minlength=int(joint.max(initial=0)) + 1)
    return counts[joint[num:]].astype(np.int64)
