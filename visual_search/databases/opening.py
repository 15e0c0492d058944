"""A collection by kind and address; each kind's client is loaded when it is asked for."""

from __future__ import annotations

import re

from visual_search.databases.database import KINDS, VectorDatabase
from visual_search.databases.urls import database_url

COLLECTION = "products"
SEARCH_TIMEOUT_S = 5.0  # somebody waits for a search
WRITE_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


def open_database(
    kind: str, url: str | None, collection: str = COLLECTION, *, timeout_s: float = WRITE_TIMEOUT_S
) -> VectorDatabase:
    """Returns a collection, which need not be there yet; nothing is asked of the server.

    Args:
        kind: One of `KINDS`.
        url: Its address; see `urls.database_url` for where it comes from otherwise.
        collection: The collection's (table's) name.
        timeout_s: Of every request.

    Raises:
        ValueError: There is no such kind, no address, or no database takes such a name.
        DatabaseError: The kind's extra is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no vector database; expected one of {', '.join(KINDS)}")
    if not _NAME.fullmatch(collection):
        raise ValueError(
            f"collection={collection!r}; expected letters, digits and underscores, 48 at most and "
            "no digit first: every database takes such a name"
        )
    address = database_url(url, kind)
    if kind == "pgvector":
        from visual_search.databases.pgvector import PgvectorCollection

        return PgvectorCollection(address, collection, timeout_s)
    if kind == "qdrant":
        from visual_search.databases.qdrant import QdrantCollection

        return QdrantCollection(address, collection, timeout_s)
    if kind == "milvus":
        from visual_search.databases.milvus import MilvusCollection

        return MilvusCollection(address, collection, timeout_s)
    from visual_search.databases.lancedb import LanceCollection

    return LanceCollection(address, collection, timeout_s)
