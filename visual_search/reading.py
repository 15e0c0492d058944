"""Files of a run as they are read: whole and as they were written, or refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Of a file that is read whole. A summary that lists 100,000 refused items has 20 MB.
MAX_TEXT_BYTES = 128 * 2**20


class DamagedFileError(ValueError):
    """A file is not what was written there; the message names it and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str, expected: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}; expected {expected}")


def read_text(path: str | os.PathLike[str], expected: str) -> str:
    """Gives a file's text.

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


def check_readable(path: Path, expected: str) -> None:
    """Refuses what no run writes as text: no file, or one that memory should not hold.

    Args:
        path: Of the file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, such as a pipe, or too large.
    """
    if path.exists() and not path.is_file():
        raise DamagedFileError(path, "it is no file", expected)
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise DamagedFileError(
            path, f"it has {size:,} bytes, more than {MAX_TEXT_BYTES:,}", expected
        )


def read_table(path: str | os.PathLike[str], expected: str, **options: Any) -> pd.DataFrame:
    """Returns a CSV that a run left, as pandas reads it.

    Args:
        path: Of the file.
        expected: As of `read_text`.
        **options: Of `pandas.read_csv`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, too large, or no table.
    """
    import pandas as pd

    check_readable(Path(path), expected)
    try:
        table: pd.DataFrame = pd.read_csv(path, encoding="utf-8", **options)
    except (OSError, ValueError) as error:  # every kind of pandas' own is a ValueError
        raise DamagedFileError(path, str(error).strip(), expected) from error
    return table


def read_json(path: str | os.PathLike[str], expected: str) -> dict[str, Any]:
    """Gives the object in a JSON file.

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
