"""Listings that are published as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from visual_search.catalog.readers.listings import read_text
from visual_search.catalog.readers.sources import FileSource

Hook = Callable[[Sequence[tuple[str, object]]], object]


def read_json(source: FileSource, inner: str, expected: str, hook: Hook | None = None) -> object:
    """Returns what a JSON file of up to 2 GiB holds.

    Args:
        source: Where it lies.
        inner: Its path there.
        expected: What it should be, for messages.
        hook: Gives what stands for an object of these keys and values, as ``object_pairs_hook`` of
            `json.loads`: what is large and not needed can go while the rest is read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON or no UTF-8, larger, or a damaged member of a zip.
    """
    text = read_text(source, inner)
    try:
        return json.loads(text, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{inner} in {source!r} is no JSON ({error}); expected {expected}: fetch it again"
        ) from error


def is_number(value: object) -> bool:
    """Returns whether a value of JSON is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
