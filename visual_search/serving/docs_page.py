"""The API's documentation: one page, made from the OpenAPI document, that loads nothing foreign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visual_search.serving.problems import KINDS
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
    examples: Sequence[str]
    needs_token: bool


@dataclass(frozen=True)
class Group:
    """Operations under one heading."""

    name: str
    operations: list[Operation] = field(default_factory=list)


def docs_page(
    document: Mapping[str, Any], *, server: str, item: str, category: str, can_write: bool
) -> str:
    """Gives the page.

    Args:
        document: The OpenAPI document.
        server: What examples call, as ``http://127.0.0.1:8000``.
        item: The item that they ask for.
        category: What they filter by.
        can_write: Whether a token is set.
    """
    values = {"server": server, "item": item, "category": category}
    groups: dict[str, Group] = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            name = described.get("tags", ["Further"])[0]
            group = groups.setdefault(name, Group(name))
            group.operations.append(_operation(method.upper(), path, described, values))
    return render("docs.html", groups=list(groups.values()), kinds=KINDS, can_write=can_write)


def for_examples(texts: Iterable[str], otherwise: str) -> str:
    """Gives the first text that an example can hold without quoting.

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
