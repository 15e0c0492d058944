"""What Pinterest's two published formats share: signatures, and pictures that are not part of them.

Both name a picture by 32 hexadecimal digits, its signature, and leave fetching it to the reader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from visual_search.catalog.readers.listings import listing_at
from visual_search.catalog.readers.picture_names import safe_name
from visual_search.catalog.readers.sources import FileSource, open_source

_SIGNATURE = re.compile(r"[0-9a-f]{32}")


def signature_problem(signature: object) -> str:
    """Returns the reason why this is no picture's signature, or ``""``.

    Example:
        >>> signature_problem("00015b9d0c08164ed3b5dbb4613bb143")
        ''
    """
    if isinstance(signature, str) and _SIGNATURE.fullmatch(signature):
        return ""
    return f"the signature is {signature!r}; expected 32 hexadecimal digits in lower case"


def check_image_pattern(pattern: str, name: str = "image_pattern") -> None:
    """Refuses a pattern that does not give each signature a path of its own below the root.

    Raises:
        ValueError: The pattern is malformed, lacks ``{signature}``, or leads out of the root.
    """
    example = "00015b9d0c08164ed3b5dbb4613bb143"
    try:
        path = pattern.format(signature=example)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name} {pattern!r} is malformed: {type(error).__name__}: {error}; expected "
            "{signature} and nothing else in braces, as '{signature}.jpg'"
        ) from error
    if example not in path:
        raise ValueError(
            f"{name} {pattern!r} gives {path!r}; expected the whole signature in it, as "
            "'{signature}.jpg'"
        )
    safe_name(path)


def image_name(pattern: str, signature: str) -> str:
    """Returns the path of a signature's picture below the root.

    Example:
        >>> image_name("./{signature:.2}/{signature}.jpg", "00015b9d0c08164ed3b5dbb4613bb143")
        '00/00015b9d0c08164ed3b5dbb4613bb143.jpg'
    """
    return safe_name(pattern.format(signature=signature))


def open_pictures(
    pictures: str | os.PathLike[str] | None,
) -> FileSource | NoPictures:
    """Returns the source for a folder or zip, or the one without pictures for ``None``.

    Raises:
        FileNotFoundError: Nothing is at ``pictures``.
        ValueError: It is a file, but no readable zip.
    """
    return NoPictures() if pictures is None else open_source(pictures)


def read_text(path: str | os.PathLike[str], expected: str) -> str:
    """Returns the text of a file in UTF-8, without a byte-order mark.

    Args:
        path: The file.
        expected: What it should be, for messages.

    Raises:
        FileNotFoundError: No file is at ``path``.
        ValueError: It is not UTF-8.
    """
    data = listing_at(path, expected)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}, is not UTF-8 (byte {data[error.start]:#04x}); expected "
            f"{expected}: fetch it again"
        ) from error


class NoPictures:
    """In the place of pictures that are not there: the table alone is read, to check or count."""

    def load(self, image: str) -> bytes:
        """Returns nothing.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(
            f"no picture {image!r}: the table was read without pictures; give the folder or zip "
            "that holds them as data.pictures"
        )

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        """Returns nothing.

        Raises:
            FileNotFoundError: Always.
        """
        return self.load(image), ""

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the keys of no picture.

        Raises:
            FileNotFoundError: A picture is asked for.
        """
        return [str(self.load(image)) for image in images]

    def problem(self, image: str) -> str | None:
        """Returns ``None``: whether a picture could be loaded is not judged."""
        return None
