"""Files of a run as they are read: whole and as they were written, or refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Of a file that is read whole. A summary that lists 100,000 refused items has 20 MB.
MAX_TEXT_BYTES = 128 * 2**20
SAVED = "what a run saves beside its numbers: restore the file, or measure the run again"


class DamagedFileError(ValueError):
    """A file is not what was written there; the message names it and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str, expected: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}; expected {expected}")


def read_text(path: str | os.PathLike[str], expected: str) -> str:
    """Returns a file's text.

    Args:
        path: Of the file.
        expected: What should be there and what to do where it is not, for the message.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, too large, not UTF-8, or cannot be read.
    """
    file = Path(path)
    try:
        check_readable(file, expected)
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no file at {file}; expected {expected}") from error
    except OSError as error:
        raise DamagedFileError(file, str(error.strerror), expected) from error
    except UnicodeDecodeError as error:
        raise DamagedFileError(file, "it is no text (not UTF-8)", expected) from error


def check_is_file(path: Path, expected: str) -> None:
    """Refuses a pipe, at which a reader would wait for ever, and a folder.

    Raises:
        DamagedFileError: It is no file.
    """
    if path.exists() and not path.is_file():
        raise DamagedFileError(path, "it is no file", expected)


def check_readable(path: Path, expected: str) -> None:
    """Refuses what no run writes as text: no file, or one that memory should not hold.

    Args:
        path: Of the file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, such as a pipe, or too large.
    """
    check_is_file(path, expected)
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise DamagedFileError(
            path, f"it has {size:,} bytes, more than {MAX_TEXT_BYTES:,}", expected
        )


def read_table(path: str | os.PathLike[str], expected: str, **options: Any) -> pd.DataFrame:
    """Returns a table that a run left, as pandas reads it.

    Args:
        path: Of a CSV or a Parquet file.
        expected: As of `read_text`.
        **options: Of `pandas.read_csv` or `pandas.read_parquet`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, too large, or no table.
    """
    import pandas as pd

    table: pd.DataFrame
    file = Path(path)
    try:
        if file.suffix == ".parquet":
            check_is_file(file, expected)
            table = pd.read_parquet(file, **options)
        else:
            check_readable(file, expected)
            table = pd.read_csv(file, encoding="utf-8", **options)
    except (FileNotFoundError, DamagedFileError):
        raise
    except Exception as error:  # Arrow has kinds of its own, of no common base
        raise DamagedFileError(path, str(error).strip(), expected) from error
    return table


def read_array(path: str | os.PathLike[str], expected: str) -> NDArray[Any]:
    """Returns an array that a run left, mapped and not loaded; one of Python objects is refused.

    Args:
        path: Of an ``.npy`` file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, or no whole array.
    """
    import numpy as np

    check_is_file(Path(path), expected)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header of brackets, one that announces 10^12 numbers, ...
        raise DamagedFileError(path, str(error).strip(), expected) from error
    return array


def read_json(path: str | os.PathLike[str], expected: str) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
        path: Of the file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "status.json"
        >>> _ = path.write_text('["no", "object"]')
        >>> try:
        ...     read_json(path, "a status")
        ... except DamagedFileError as error:
        ...     print(str(error).removeprefix(f"{path} cannot be read: "))
        it holds a JSON list, no object; expected a status
    """
    text = read_text(path, expected)
    if not text.strip():
        raise DamagedFileError(path, "it is empty", expected)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"it is no JSON ({error})", expected) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DamagedFileError(path, f"it holds a JSON {kind}, no object", expected)
    return content
