"""SHA-256 of objects that were read once on this machine, so that none is read for it again.

A line an object, in ``hashes.txt`` beside the copies; lines are only ever added, and of two that
name one object the later counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from visual_search.locking import file_lock
from visual_search.storage.bucket import ObjectStatus
from visual_search.storage.copies import kept_folder, made_folder
from visual_search.storage.uris import ObjectUri

Known = Mapping[str, tuple[ObjectStatus, str]]


def known_hashes(root: ObjectUri) -> dict[str, tuple[ObjectStatus, str]]:
    """Returns size, time and SHA-256 (hex) of objects by their names below an address."""
    known: dict[str, tuple[ObjectStatus, str]] = {}
    try:
        lines = (kept_folder(root) / "hashes.txt").read_bytes().split(b"\n")
    except FileNotFoundError:
        return known
    for line in lines:
        try:
            name, num_bytes, mtime_ns, digest = json.loads(line)
            known[name] = ObjectStatus(num_bytes, mtime_ns), digest
        except (ValueError, TypeError):  # torn, as a killed process leaves its last one
            continue
    return known


def keep_hashes(root: ObjectUri, found: Known) -> None:
    """Adds what was found to what is known.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    if not found:
        return
    folder = made_folder(root)
    lines = [
        json.dumps([name, status.num_bytes, status.mtime_ns, digest])
        for name, (status, digest) in found.items()
    ]
    with (
        file_lock(folder / "lock", wait_seconds=None),
        open(folder / "hashes.txt", "a", encoding="utf-8") as file,
    ):
        file.write("\n" + "\n".join(lines) + "\n")  # behind a torn line, too
