"""Python texts and NumPy arrays -> Arrow arrays, without pandas.

``pyarrow.array`` imports pandas where it is installed, at the first list or NumPy array: half a
second that a search server would spend at its first filter. Arrow's own buffers do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def text_array(texts: Sequence[str]) -> pa.Array:
    """Returns texts as an Arrow array of large strings.

    Raises:
        UnicodeEncodeError: A text holds half of a surrogate pair.

    Example:
        >>> text_array(["hat", "", "été"]).to_pylist()
        ['hat', '', 'été']
    """
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def integer_array(numbers: NDArray[Any]) -> pa.Array:
    """Returns ``[n]`` int32 or int64 as an Arrow array over the same memory.

    Example:
        >>> integer_array(np.array([3, 1])).to_pylist()
        [3, 1]
    """
    import pyarrow as pa

    kind = {"int32": pa.int32(), "int64": pa.int64()}[numbers.dtype.name]
    data = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(kind, len(numbers), [None, data])


def flag_array(flags: NDArray[np.bool_]) -> pa.Array:
    """Returns ``[n] bool`` as an Arrow array, which packs eight into a byte.

    Example:
        >>> flag_array(np.array([True, False, True])).to_pylist()
        [True, False, True]
    """
    import pyarrow as pa

    packed = pa.py_buffer(np.packbits(flags, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, packed])


def integers_of(array: pa.Array) -> NDArray[Any]:
    """Returns an Arrow array of integers, none of them missing, as a NumPy array of its memory.

    Example:
        >>> integers_of(integer_array(np.array([5, 3, 1]))[1:]).tolist()
        [3, 1]
    """
    kind = {"int32": np.int32, "int64": np.int64}[str(array.type)]
    end = array.offset + len(array)
    return (
        np.frombuffer(array.buffers()[1], kind, end)[array.offset :] if end else np.empty(0, kind)
    )


def flags_of(array: pa.Array) -> NDArray[np.bool_]:
    """Returns an Arrow array of booleans, none of them missing, as ``[n] bool``.

    Example:
        >>> flags_of(flag_array(np.array([True, False, True]))[1:]).tolist()
        [False, True]
    """
    end = array.offset + len(array)
    if not end:
        return np.empty(0, np.bool_)
    packed = np.frombuffer(array.buffers()[1], np.uint8)
    return np.unpackbits(packed, count=end, bitorder="little")[array.offset :].view(np.bool_)
