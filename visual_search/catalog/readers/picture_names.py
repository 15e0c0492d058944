"""What a picture may be called, and which is meant by another spelling of its name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from visual_search.storage.uris import is_object_uri

MAX_PICTURE_BYTES = 64 * 2**20  # the largest photo of a shop is far below; a bomb is far above
_CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}


def safe_name(image: str) -> str:
    """Returns the name with needless ``./`` and ``//`` removed, when it stays inside its root.

    Backslashes count as separators when judging, since a zip or a table may come from Windows.

    Example:
        >>> safe_name("./images//1.jpg")
        'images/1.jpg'

    Raises:
        ValueError: The name is empty, a URL, absolute, has a ``..`` or a drive letter, or is not
            text that UTF-8 can hold.
    """
    reason = ""
    parts = re.split(r"[/\\]", image)
    if not image.strip():
        reason = "is empty"
    elif "\0" in image or not _is_utf8(image):
        reason = "is not valid UTF-8 text; rename the file"
    elif is_object_uri(image):
        reason = "is an address outside the data's folder; put the table above the pictures"
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", image):
        reason = (
            "is a URL; fetch the pictures first: data.download=true of data=table does, or "
            "visual_search.download urls=FILE.csv"
        )
    elif not parts[0]:
        reason = "is absolute"
    elif re.match(r"[A-Za-z]:", image):
        reason = "has a drive letter"
    elif ".." in parts:
        reason = "has a '..'"
    elif str(PurePosixPath(image)) == ".":
        reason = "names the root itself"
    if reason:
        raise ValueError(f"picture path {image!r} {reason}; expected a path below the data's root")
    return str(PurePosixPath(image))


def is_clutter(name: str) -> bool:
    """Returns whether a relative path is hidden or the operating system's own.

    Example:
        >>> is_clutter("coats/.DS_Store"), is_clutter("coats/Thumbs.db"), is_clutter("coats/1.jpg")
        (True, True, False)
    """
    return any(
        (part.startswith(".") and part != "..") or part.lower() in _CLUTTER
        for part in name.split("/")
    )


def by_bare_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns names by what they have in common with others."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(bare_name(name), []).append(name)
    return alike


def bare_name(name: str) -> str:
    """Returns what a name has in common with all that may be meant by it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).replace(
        "\\", "/"
    )


def fitting_names(wanted: str, names: Sequence[str]) -> list[str]:
    """Returns what is meant: the name, but for Unicode, backslashes or the suffix's case."""

    def composed(name: str) -> str:
        return unicodedata.normalize("NFC", name).replace("\\", "/")

    def without_case(name: str) -> str:
        stem, suffix = os.path.splitext(composed(name))
        return stem + suffix.lower()

    for spelled in (str, composed, without_case):
        found = [name for name in names if spelled(name) == spelled(wanted)]
        if found:
            return found
    return []


def no_picture(image: str, root: str, alike: Sequence[str]) -> str:
    """Returns the message that a root has no picture of a name, with those that are alike."""
    if not alike:
        return f"no picture {image!r} in {root}"
    there = " and ".join(repr(name) for name in sorted(alike)[:3])
    return f"no picture {image!r} in {root}; there is {there}: write it as the file is named"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_size(image: str, size: int, max_bytes: int = MAX_PICTURE_BYTES) -> None:
    """Refuses a file of more bytes.

    Raises:
        ValueError: It has more.
    """
    if size > max_bytes:
        raise ValueError(
            f"{image!r} has {size / 2**20:.0f} MiB; expected at most {max_bytes / 2**20:.0f} MiB: "
            "save it smaller, or split it"
        )
