"""What embeddings and their ids must be before this room works with them."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.exact import row_lengths

MAX_LENGTH = 2.0**61  # (|x| + |y|)^2 of two centred embeddings then stays within float32


def check_array(embeddings: NDArray[np.float32], role: str, dim: int | None = None) -> None:
    """Checks the kind and shape of ``[n, D] float32`` embeddings.

    Args:
        embeddings: What was given.
        role: ``gallery`` or ``query``, for the message.
        dim: The width that they must have; None allows any.

    Raises:
        TypeError: They are no NumPy array of float32.
        ValueError: They are not two-dimensional, or D is 0 or another than ``dim``.
    """
    if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
        kind = getattr(embeddings, "dtype", type(embeddings).__name__)
        raise TypeError(
            f"the {role} embeddings are {kind}; expected a NumPy array of float32: convert them "
            "once with np.asarray(embeddings, dtype=np.float32)"
        )
    if embeddings.ndim != 2 or embeddings.shape[1] < 1:
        raise ValueError(
            f"the {role} embeddings have shape {embeddings.shape}; expected [items, width]: "
            "give one embedding as embeddings[None]"
        )
    if dim is not None and embeddings.shape[1] != dim:
        raise ValueError(
            f"the {role} embeddings are {embeddings.shape[1]} wide, the index {dim}; expected the "
            "same width: embed both with one model"
        )


def check_values(embeddings: NDArray[np.float32], ids: Sequence[str], role: str) -> None:
    """Checks what FAISS would take and answer with nonsense.

    Args:
        embeddings: ``[n, D] float32``.
        ids: Their n ids.
        role: ``gallery``, where an id may stand only once, or ``query``.

    Raises:
        ValueError: A row is not finite or longer than 2.3e18, or a gallery id stands twice; the
            message names the first.
    """
    check_lengths(embeddings, role, ids=ids)
    if role == "gallery" and len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise ValueError(
            f"item id {twice!r} stands {count} times in the gallery; expected each id once: an id "
            "names one item"
        )


def check_lengths(
    embeddings: NDArray[np.float32], role: str, first_row: int = 0, ids: Sequence[str] | None = None
) -> None:
    """Checks that embeddings have distances.

    Args:
        embeddings: ``[n, D] float32``.
        role: ``gallery`` or ``query``, for the message.
        first_row: The number of the first of them, for the message.
        ids: Their n ids, for the message.

    Raises:
        ValueError: One is not finite or longer than 2.3e18; the message names the first.
    """
    if not embeddings.size:
        return
    # No number above the limit / sqrt(D): no row is too long. Three times as fast as the lengths;
    # NaN fails every comparison.
    largest = max(float(embeddings.max()), -float(embeddings.min()))
    if largest <= MAX_LENGTH / math.sqrt(embeddings.shape[1]):
        return
    lengths = row_lengths(embeddings)
    bad = np.flatnonzero(~(lengths <= MAX_LENGTH))  # also NaN
    if len(bad):
        row = int(bad[0])
        name = "" if ids is None else f" ({ids[row]!r})"
        what = (
            f"has length {lengths[row]:.3g}; expected at most {MAX_LENGTH:.3g}, beyond which "
            "squared distances overflow float32: scale the embeddings down"
            if np.isfinite(lengths[row])
            else "holds NaN or infinity; expected finite numbers: look at the picture and the model"
        )
        raise ValueError(
            f"{role} embedding row {first_row + row}{name} {what} ({len(bad)} such row(s))"
        )


def check_texts(
    values: Sequence[str], count: int, what: str, *, may_be_empty: bool = False
) -> list[str]:
    """Returns ids, categories or other texts as a list of plain str, one a row.

    Args:
        values: What was given.
        count: Rows that they belong to.
        what: Their name, for the message.
        may_be_empty: Allow the empty text.

    Raises:
        TypeError: A value is no text.
        ValueError: They are not ``count``, or a value is empty and may not be.
    """
    texts = [values] if isinstance(values, str) else list(values)
    if isinstance(values, str) or len(texts) != count:
        shown = repr(values) if isinstance(values, str) else f"{len(texts)} value(s)"
        raise ValueError(f"{what} is {shown}; expected {count}, one a row: align them")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{what}, row {row}, is {text!r} ({type(text).__name__}); expected text: read ids "
                "and categories with dtype=str"
            )
        if not text and not may_be_empty:
            raise ValueError(f"{what}, row {row}, is empty; expected an id: fill it")
    return [str(text) for text in texts]


def check_k(k: int) -> int:
    """Returns ``k`` as a plain int.

    Raises:
        TypeError: ``k`` is no integer.
        ValueError: ``k`` is below 1.

    Example:
        >>> check_k(np.int64(5))
        5
    """
    try:
        number = operator.index(k)
    except TypeError:
        number = None
    if number is None or isinstance(k, bool):
        raise TypeError(f"k is {k!r} ({type(k).__name__}); expected a whole number such as 5")
    if number < 1:
        raise ValueError(f"k is {number}; expected at least 1: ask for one neighbour or more")
    return number
