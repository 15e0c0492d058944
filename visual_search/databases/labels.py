"""An item's texts as labels to filter by, and the key that changes with what an item is.

A database gets one list of labels an item, ``["category=Shoes", "colour=red"]``, whatever the
columns are called: one index over it serves every filter, and names need no quoting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.filters import is_unicode

MAX_LABEL_BYTES = 500  # an entry of PostgreSQL's GIN has 2,700 at most, Milvus asks for a number
_NAME = str.maketrans({"%": "%25", "=": "%3D"})


def label(column: str, value: str) -> str:
    """Returns the label of a column's value; of a long one, its SHA-256.

    Example:
        >>> label("category", "Shoes"), label("a=b", "c=d")
        ('category=Shoes', 'a%3Db=c=d')
        >>> len(label("story", "once " * 1_000))
        71
    """
    name = column.translate(_NAME)
    text = f"{name}={value}"
    if len(text.encode("utf-8", "surrogatepass")) <= MAX_LABEL_BYTES:
        return text
    return f"{name[:100]}=#{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def labels_of(columns: Mapping[str, Sequence[str]], number: int) -> list[str]:
    """Returns the labels of one item of a table; an empty text gives none.

    Example:
        >>> labels_of({"category": ["Hats", "Shoes"], "colour": ["red", ""]}, 1)
        ['category=Shoes']
    """
    return [label(name, texts[number]) for name, texts in columns.items() if texts[number]]


def conditions_of(where: Sequence[tuple[str, Sequence[str]]]) -> list[list[str]] | None:
    """Returns conditions of labels; None where labels cannot say them.

    An item without a text has no label of the column, so that looking for the empty text cannot be
    said; nor can a text that is no Unicode.

    Args:
        where: Columns with accepted values, as `visual_search.bundle.filters.check_where` gives.

    Example:
        >>> conditions_of([("category", ("Hats", "Shoes"))])
        [['category=Hats', 'category=Shoes']]
        >>> conditions_of([("colour", ("red", ""))]) is None
        True
    """
    if any(not value or not is_unicode(value) for _, values in where for value in values):
        return None
    return [[label(column, value) for value in values] for column, values in where]


def content_key(embedding: NDArray[np.float32], labels: Sequence[str]) -> str:
    """Returns 32 hexadecimal digits that change with an item's embedding and with its texts.

    Args:
        embedding: ``[D] float32``.
        labels: Its labels, in any order.

    Example:
        >>> zeros = np.zeros(4, np.float32)
        >>> content_key(zeros, ["a=1", "b=2"]) == content_key(zeros, ["b=2", "a=1"])
        True
        >>> content_key(zeros, ["a=1"]) == content_key(zeros, ["a=2"])
        False
    """
    digest = hashlib.sha256(np.ascontiguousarray(embedding, dtype="<f4").data)
    for one in sorted(labels):
        data = one.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]
