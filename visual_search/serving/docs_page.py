"""The API's documentation: one page, made from the OpenAPI document, that loads nothing foreign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visual_search.serving.limits import FORM_BYTES, MAX_FIELDS, MIN_BYTES_PER_SECOND
from visual_search.serving.problems import KINDS
from visual_search.serving.settings import ServeSettings
from visual_search.serving.templating import render

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")  # needs no quoting in a shell, JSON or an address


@dataclass(frozen=True)
class Parameter:
    """Something that an operation takes."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True)
class Operation:
    """A method of an address."""

    method: str
    path: str
    description: str
    parameters: Sequence[Parameter]
    answers: Sequence[str]
    examples: Sequence[str]
    needs_token: bool


@dataclass(frozen=True)
class Group:
    """Operations under one heading."""

    name: str
    operations: list[Operation] = field(default_factory=list)


def docs_page(
    document: Mapping[str, Any], *, server: str, item: str, category: str, settings: ServeSettings
) -> str:
    """Returns the page.

    Args:
        document: The OpenAPI document.
        server: What examples call, as ``http://127.0.0.1:8000``.
        item: The item that they ask for.
        category: What they filter by.
        settings: What the server was told: its limits, and whether a token is set.
    """
    values = {"server": server, "item": item, "category": category}
    groups: dict[str, Group] = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            name = described.get("tags", ["Further"])[0]
            group = groups.setdefault(name, Group(name))
            group.operations.append(_operation(method.upper(), path, described, values))
    can_write = settings.write_token is not None
    return render(
        "docs.html",
        groups=list(groups.values()),
        kinds=KINDS,
        limits=_limits(settings),
        can_write=can_write,
    )


def _limits(settings: ServeSettings) -> list[tuple[str, str]]:
    """Returns what is refused or waited for no longer, and which problem says so."""
    return [
        (f"{settings.max_upload_bytes:,} bytes of a picture", "too-large"),
        (f"{settings.max_pixels:,} pixels of a picture; WebP and AVIF count twice", "bad-picture"),
        (f"{settings.max_pixels:,} pixels that are decoded at the same time", "overloaded"),
        (f"{settings.max_searches:,} searches at the same time", "overloaded"),
        (f"{FORM_BYTES:,} bytes of JSON, or of a form without a picture", "too-large"),
        (f"{MAX_FIELDS:,} values of a search", "invalid"),
        (f"{settings.max_k:,} neighbours of a search", "invalid"),
        (f"{settings.max_page_size:,} items of a page", "invalid"),
        (f"{settings.max_items_per_write:,} items of one request that adds or removes", "invalid"),
        (f"{settings.max_write_bytes:,} bytes of a request that adds items", "too-large"),
        (f"{settings.read_seconds:g} seconds for a request's body", "too-slow"),
        (f"{MIN_BYTES_PER_SECOND:,} bytes of it a second", "too-slow"),
    ]


def for_examples(texts: Iterable[str], otherwise: str) -> str:
    """Returns the first text that an example can hold without quoting.

    Example:
        >>> for_examples(["Coats & Jackets", "Hats"], "Shoes"), for_examples(["a/b"], "Shoes")
        ('Hats', 'Shoes')
    """
    return next((text for text in texts if _PLAIN.fullmatch(text)), otherwise)


def _operation(
    method: str, path: str, described: Mapping[str, Any], values: Mapping[str, str]
) -> Operation:
    return Operation(
        method,
        path,
        " ".join(described.get("description", described.get("summary", "")).split()),
        _parameters(described),
        list(described["responses"]),
        [example.format(**values) for example in described.get("x-examples", ())],
        "security" in described,
    )


def _parameters(described: Mapping[str, Any]) -> list[Parameter]:
    found = [
        Parameter(one["name"], _kind(one["schema"], one["in"]), one.get("description", ""))
        for one in described.get("parameters", ())
    ]
    bodies = described.get("requestBody", {}).get("content", {})
    in_bodies: dict[str, Parameter] = {}
    for body in bodies.values():
        for name, schema in body["schema"].get("properties", {}).items():
            in_bodies.setdefault(
                name, Parameter(name, _kind(schema, "body"), schema.get("description", ""))
            )
    return found + list(in_bodies.values())


def _kind(schema: Mapping[str, Any], place: str) -> str:
    if schema.get("type") == "array":
        inner = schema["items"]
        return "files" if inner.get("format") == "binary" else f"{inner.get('type')}s, {place}"
    if schema.get("format") == "binary":
        return "file"
    return f"{schema.get('type', 'text')}, {place}"
