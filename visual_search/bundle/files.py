"""A bundle's files: names that stay inside the folder, and what has to be on the disk."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from visual_search.reading import FileRecord, difference

Number = TypeVar("Number", bound=np.generic)
MAX_NAME_LENGTH = 255
_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_NAME = re.compile(f"{_PART}(/{_PART})*")


class DamagedError(ValueError):
    """A bundle's file is not what was written, or belongs to something else."""


class MissingFileError(DamagedError, FileNotFoundError):
    """A file that ``bundle.json`` names is not there."""


def check_name(name: object) -> str:
    """Returns a file's name inside a bundle back when it cannot lead out of the folder.

    Raises:
        ValueError: It is no text, absolute, hidden, too long, or holds ``..``, a backslash or
            anything else than letters, digits, ``.``, ``_``, ``+``, ``-`` and ``/``.

    Example:
        >>> check_name("segments/000001-ab12cd34/items.parquet")
        'segments/000001-ab12cd34/items.parquet'
    """
    if (
        not isinstance(name, str)
        or len(name) > MAX_NAME_LENGTH
        or not _NAME.fullmatch(name)
        or ".." in name
    ):
        raise ValueError(
            f"the file name {str(name)[:300]!r} may lead out of the bundle's folder; expected "
            "letters, digits, '.', '_', '+', '-' and '/' between them, relative and without '..': "
            "rename the file"
        )
    return name


def inside(folder: Path, name: str) -> Path:
    """Returns the path of a bundle's regular file, which no link may lead out of the folder.

    Args:
        folder: The bundle's folder.
        name: The file's name as ``bundle.json`` has it.

    Raises:
        ValueError: The name, or a link on the way, leads out of the folder.
        MissingFileError: There is no such file.
    """
    path = folder / check_name(name)
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise DamagedError(
            f"{path} is a link that leads out of the bundle, to {real}; expected a file inside "
            f"{folder}: copy the file in place of the link"
        )
    if not real.is_file():
        raise MissingFileError(
            f"{path} is missing, or no regular file; bundle.json names it: copy the whole bundle "
            "again, or create it again"
        )
    return path


def check_file(folder: Path, name: str, expected: FileRecord, *, hashed: bool) -> Path:
    """Compares a file with its record and gives its path.

    Args:
        folder: The bundle's folder.
        name: The file's name as ``bundle.json`` has it.
        expected: What was written.
        hashed: Compare the content too, not the size alone.

    Raises:
        ValueError: The file is another one, or lies outside the folder.
        MissingFileError: There is no such file.
    """
    path = inside(folder, name)
    try:
        found = difference(path, expected, hashed=hashed)
    except FileNotFoundError as error:  # between the look and the reading
        raise MissingFileError(f"{path} is missing; it was there a moment ago") from error
    if found:
        raise DamagedError(f"{path} {found}: copy the whole bundle again, or create it again")
    return path


def open_array(path: Path, dtype: type[Number], shape: tuple[int, ...]) -> NDArray[Number]:
    """Maps a ``.npy`` file into memory, read-only, once its header says what is expected.

    Only plain numbers are read: an array of Python objects, which a pickle would restore, or an
    archive is refused, and nothing is allocated by what a file announces.

    Args:
        path: The file.
        dtype: What it has to hold.
        shape: The shape that it has to have.

    Raises:
        ValueError: It holds something else, or less than its header announces.
        MissingFileError: There is no such file.
    """
    wanted = np.dtype(dtype)
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("it is not of the version 1.0")
            found, by_column, kind = np.lib.format.read_array_header_1_0(file)
            if found != shape or kind != wanted or (by_column and len(shape) > 1):
                raise ValueError(f"it announces {kind} {list(found)}")
            start, num_bytes = file.tell(), path.stat().st_size
            if num_bytes - start != wanted.itemsize * math.prod(shape):
                raise ValueError(f"it has {num_bytes - start:,} bytes after its header")
            if not math.prod(shape):
                return np.empty(shape, wanted)
            # Once mapped, the content stays even where another writer deletes the file's name.
            array = np.memmap(file, wanted, "r", offset=start, shape=shape).view(np.ndarray)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is missing; it was there a moment ago") from error
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise DamagedError(
            f"{path} cannot be read as a plain array: {str(error)[:300]}; expected {wanted} "
            f"{list(shape)}: copy the whole bundle again, or create it again"
        ) from error
    return array


def sync_folder(folder: Path) -> None:
    """Brings a folder's entries to the disk: what was renamed into it is there after a crash."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
