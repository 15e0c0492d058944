"""What every kind of collection has to do, each tried on a server of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.databases.conftest import on_every_server
from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    DatabaseError,
    VectorDatabase,
    check_facts,
)
from visual_search.databases.opening import open_database

pytestmark = [pytest.mark.slow, on_every_server]

DIM, N = 8, 600
FACTS = CollectionFacts("a" * 64, "b" * 64, "c" * 64, DIM)
COLOURS = ('red "dark"', "it's blue\\", "grün {x}\n")


def items(n: int = N, mark: str = "") -> CollectionItems:
    embeddings = np.random.default_rng(len(mark)).normal(size=(n, DIM)).astype(np.float32)
    return CollectionItems(
        [f"id'{number}\"ä" for number in range(n)],
        [f"{mark}key-{number}" for number in range(n)],
        [
            ["category=rare" if number in (3, 77) else "category=many", f"colour={colour}"]
            for number, colour in zip(range(n), COLOURS * n, strict=False)
        ],
        embeddings,
    )


@pytest.fixture
def filled(database: VectorDatabase) -> VectorDatabase:
    database.create(FACTS)
    database.upsert(items())
    return database


def nearest(given: CollectionItems, query: np.ndarray, k: int, label: str = "") -> list[str]:
    squared = np.square(given.embeddings.astype(np.float64) - query).sum(axis=1)
    chosen = [n for n in np.argsort(squared) if not label or label in given.labels[n]]
    return [given.item_ids[n] for n in chosen[:k]]


def all_keys(database: VectorDatabase) -> dict[str, str]:
    found, cursor = database.content_keys(None)
    while cursor is not None:
        page, cursor = database.content_keys(cursor)
        found |= page
    return found


def test_a_collection_says_what_filled_it(
    new_database: Callable[[], VectorDatabase], database: VectorDatabase
) -> None:
    assert database.facts() is None
    database.create(FACTS)
    database.create(replace(FACTS, model_hash="other"))  # the first one's stay
    assert check_facts(database.facts(), FACTS, database.place) == FACTS
    assert database.count() == 0
    with pytest.raises(ValueError, match=r"model_hash a{12}\.\.\. there, other here.*collection="):
        check_facts(database.facts(), replace(FACTS, model_hash="other"), database.place)
    with pytest.raises(ValueError, match="dim 8 there, 9 here"):
        check_facts(database.facts(), replace(FACTS, dim=9), database.place)
    with pytest.raises(ValueError, match=r"no collection at .*index push"):
        check_facts(new_database().facts(), FACTS, "here")


def test_searches_find_the_nearest(filled: VectorDatabase) -> None:
    given = items()
    queries = given.embeddings[:3] + np.float32(0.01)
    for is_thorough in (False, True):
        answers = filled.search(queries, 5, is_thorough=is_thorough)
        for query, found in zip(queries, answers, strict=True):
            assert list(found.item_ids) == nearest(given, query, 5)
            rows = [given.item_ids.index(one) for one in found.item_ids]
            squared = np.square(given.embeddings[rows] - query).sum(axis=1)
            np.testing.assert_allclose(found.squared_distances, squared, rtol=1e-4, atol=1e-5)
    for label in ("category=rare", *(f"colour={one}" for one in COLOURS)):
        (found,) = filled.search(queries[:1], 5, [[label, "colour=none"]])
        assert list(found.item_ids) == nearest(given, queries[0], 5, label)
        (found,) = filled.search(queries[:1], 5, [[label], ["category=none"]])
        assert not found.item_ids


def test_items_are_replaced_removed_and_listed(filled: VectorDatabase) -> None:
    given = items()
    assert all_keys(filled) == dict(zip(given.item_ids, given.content_keys, strict=True))
    changed = items(10, mark="new ")
    filled.upsert(changed)  # and what is searched at once is the new one
    (found,) = filled.search(changed.embeddings[:1], 1)
    assert (found.item_ids[0], round(found.squared_distances[0], 5)) == (given.item_ids[0], 0)
    assert filled.count() == N
    asked = [given.item_ids[0], given.item_ids[20], "nobody"]
    held = filled.embeddings_of(asked)
    assert set(held) == set(asked[:2])
    np.testing.assert_array_equal(held[asked[0]], changed.embeddings[0])
    np.testing.assert_array_equal(held[asked[1]], given.embeddings[20])
    assert filled.keys_of(asked) == {asked[0]: "new key-0", asked[1]: "key-20"}
    filled.delete([given.item_ids[0], "nobody"])
    assert filled.count() == N - 1
    assert given.item_ids[0] not in all_keys(filled)
    (found,) = filled.search(changed.embeddings[:1], N)
    assert given.item_ids[0] not in found.item_ids
    assert len(found.item_ids) == N - 1


def test_the_server_says_in_its_words_what_is_wrong(filled: VectorDatabase) -> None:
    wrong = CollectionItems(["one"], ["key"], [[]], np.zeros((1, DIM + 1), np.float32))
    with pytest.raises(DatabaseError, match=r"(?i)dim|length|width"):
        filled.upsert(wrong)
    assert filled.count() == N


def test_what_is_no_collection_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"drop table'; expected letters"):
        open_database(kind, "here", "x; drop table")
    with pytest.raises(ValueError, match=r"'oracle' is no vector database; expected one of pgv"):
        open_database("oracle", "here")
