"""The API's answers, as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from visual_search.serving.problems import KINDS


class Picture(BaseModel):
    """A picture of a product, and where it is."""

    item_id: str
    thumbnail: str = Field(description="Address of the small picture.")


_PRODUCT = Field(description="Id of the product; the item's own where each has one picture.")
_PICTURES = Field(description="The product's other pictures, in their order.")


class FoundItem(BaseModel):
    """A product that was found, by one of its pictures."""

    rank: int = Field(description="From 1, the nearest.")
    item_id: str = Field(description="Id of the picture that was found.")
    category: str
    squared_distance: float = Field(description="Squared Euclidean distance of the embeddings.")
    attributes: Mapping[str, str]
    thumbnail: str = Field(description="Address of the item's small picture.")
    product: str = _PRODUCT
    pictures: list[Picture] = _PICTURES


class SearchResult(BaseModel):
    """The answer to a search."""

    bundle: str
    generation: int = Field(description="Generation of the bundle that was searched.")
    item: str | None = Field(description="The item that was looked for; null for a picture.")
    k: int
    products: str = Field(description="How products of several pictures were found.")
    hits: list[FoundItem] = Field(description="Nearest first; fewer than k only where no more fit.")
    seconds: Mapping[str, float] = Field(description="Seconds of decode, embed and search.")


class ShownItem(BaseModel):
    """An item of the catalogue."""

    item_id: str
    category: str
    attributes: Mapping[str, str]
    thumbnail: str
    product: str = _PRODUCT
    pictures: list[Picture] = _PICTURES


class ItemPage(BaseModel):
    """Some of the items, in the order in which they were added."""

    bundle: str
    generation: int
    items: list[ShownItem]
    start: int
    limit: int
    total: int = Field(description="Products, or with products=all items, that fit the filter.")
    next: str | None = Field(description="Address of the next page; null on the last one.")


class BundleInfo(BaseModel):
    """A bundle that is served."""

    name: str
    generation: int
    num_items: int
    num_products: int = Field(description="As many as items where each product has one picture.")
    embedding_dim: int
    columns: list[str]
    filters: Mapping[str, Mapping[str, int]] = Field(
        description="Column -> value -> products, the most frequent first, at most 200; of "
        '"category" and the columns that have no more.'
    )
    num_values: Mapping[str, int] = Field(
        description="Of the same columns, how many values there are; all of them can be asked for."
    )


class ChangeResult(BaseModel):
    """What a write changed."""

    bundle: str
    num_added: int
    num_replaced: int
    num_removed: int
    num_items: int
    num_products: int
    num_products_added: int
    num_products_removed: int
    generation: int


class Health(BaseModel):
    """Whether searches are answered."""

    status: str = Field(description='"ok", or "failing" with status 503.')
    bundles: Mapping[str, Mapping[str, int | bool]]


class ProblemDetails(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was wrong, what was expected, what to do.")


PROBLEM_TYPE = "application/problem+json"
_ALWAYS = ("wrong-host", "failed")
_WITH_BODY = ("bad-request", "cross-site", "too-slow", "too-large", "wrong-media-type")


def problems(*kinds: str, has_body: bool = False) -> dict[int | str, dict[str, Any]]:
    """Returns the answers to an operation where something is wrong, status by status.

    Args:
        kinds: What is its own among `KINDS`.
        has_body: It reads a body, with all that can be wrong there.
    """
    described: dict[int, list[str]] = {}
    for kind in (*kinds, *_ALWAYS, *(_WITH_BODY if has_body else ())):
        status, title = KINDS[kind]
        described.setdefault(status, []).append(f"`{kind}`: {title}.")
    headers = {
        401: {"WWW-Authenticate": _header("How the token is sent.")},
        503: {"Retry-After": _header("Seconds after which to try again.")},
    }
    return {
        status: {
            "model": ProblemDetails,
            "description": " ".join(texts),
            **({"headers": headers[status]} if status in headers else {}),
        }
        for status, texts in sorted(described.items())
    }


def _header(description: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": "string"}}
