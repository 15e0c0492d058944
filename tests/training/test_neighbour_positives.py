"""Whose picture stands in: mutual neighbours beside brute force, and the choice among them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_search.training.neighbour_positives import Partners, mutual_neighbours

LISTS = {4: [6, 9, 12], 6: [4], 9: [], 12: [4, 6]}
PARTNERS = Partners(
    np.array(list(LISTS), dtype=np.int64),
    np.cumsum([len(each) for each in LISTS.values()]),
    np.array([row for each in LISTS.values() for row in each], dtype=np.int64),
)


def slow_mutual_neighbours(embeddings: NDArray[np.float32], k: int) -> list[list[int]]:
    """Brute force in float64: sort all others of each item, then look both ways."""
    exact = embeddings.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    nearest: list[list[int]] = []
    for i in range(len(exact)):
        others = [j for j in range(len(exact)) if j != i and lengths[i] and lengths[j]]
        cosine = {j: round(exact[i] @ exact[j] / lengths[i] / lengths[j], 6) for j in others}
        nearest.append(sorted(others, key=lambda j: (-cosine[j], j))[:k])
    return [[j for j in mine if i in nearest[j]] for i, mine in enumerate(nearest)]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_mutual_neighbours_are_those_of_brute_force(k: int) -> None:
    embeddings = np.random.default_rng(k).normal(size=(60, 6)).astype(np.float32)
    embeddings *= np.linspace(0.1, 50, 60, dtype=np.float32)[:, None]  # lengths do not count
    partners = mutual_neighbours(embeddings, k)
    expected = slow_mutual_neighbours(embeddings, k)
    assert [partners.of(row).tolist() for row in range(60)] == expected
    assert 0 < len(partners.neighbours) < 60 * k
    pairs = {(row, other) for row in range(60) for other in partners.of(row).tolist()}
    assert pairs == {(other, row) for row, other in pairs}
    assert all(row != other for row, other in pairs)


def test_equally_near_items_come_by_their_row() -> None:
    directions = np.eye(3, dtype=np.float32)
    embeddings = np.concatenate([directions] * 7)  # seven copies of each
    partners = mutual_neighbours(embeddings, 3)
    assert [partners.of(row).tolist() for row in range(21)] == slow_mutual_neighbours(embeddings, 3)
    assert partners.of(0).tolist() == [3, 6, 9]
    assert partners.of(18).tolist() == []  # it has the first three, which have each other


def test_an_embedding_of_zeros_has_no_neighbours() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    embeddings[[3, 7]] = 0
    partners = mutual_neighbours(embeddings, 17)  # all others
    for row in range(20):
        others = [] if row in (3, 7) else sorted(set(range(20)) - {3, 7, row})
        assert sorted(partners.of(row).tolist()) == others


def test_neighbours_are_named_by_catalogue_rows() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    rows = np.arange(20, dtype=np.int64) * 3 + 100
    calls: list[tuple[int, int]] = []
    named = mutual_neighbours(
        embeddings, 4, rows=rows, on_progress=lambda done, total: calls.append((done, total))
    )
    plain = mutual_neighbours(embeddings, 4)
    assert len(named) == 20
    assert calls[-1] == (20, 20)
    for place, row in enumerate(rows):
        assert named.of(int(row)).tolist() == rows[plain.of(place)].tolist()


def test_every_partner_is_chosen_equally_often() -> None:
    numbers = (np.arange(4000) + 0.5) / 4000
    chosen = PARTNERS.choose(np.full(4000, 4), numbers, own_probability=0.4)
    rows, times = np.unique(chosen, return_counts=True)
    assert rows.tolist() == [4, 6, 9, 12]
    assert times.tolist() == [1600, 800, 800, 800]


def test_without_partners_an_item_is_its_own() -> None:
    rows = np.array([9, 5, 0, 99, 6])  # an empty list, three unknown rows, one partner
    for own_probability, last in ((0.0, 4), (1.0, 6)):
        chosen = PARTNERS.choose(rows, np.full(5, 0.99), own_probability)
        assert chosen.tolist() == [9, 5, 0, 99, last]
        assert chosen.dtype == np.int64
    nobody = Partners(*(np.zeros(0, dtype=np.int64) for _ in range(3)))
    assert nobody.choose(rows, np.zeros(5), 0.0).tolist() == rows.tolist()


def test_the_ends_of_the_range_are_within_the_list() -> None:
    rows = np.array([4, 4, 12])
    numbers = np.array([0, 1, 1], dtype=np.float32)
    assert PARTNERS.choose(rows, numbers, 0.0).tolist() == [6, 12, 6]
    assert PARTNERS.choose(rows, numbers, 1.0).tolist() == [4, 4, 12]


GOOD = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BROKEN = np.where(np.arange(5)[:, None] == 2, np.nan, GOOD).astype(np.float32)


def partners_of(rows: list[int], ends: list[int], neighbours: list[int]) -> Partners:
    return Partners(*(np.array(each, dtype=np.int64) for each in (rows, ends, neighbours)))


def choose(**changed: Any) -> NDArray[np.int64]:
    arguments = {"rows": np.array([4, 6]), "numbers": np.zeros(2), "own_probability": 0.5}
    return PARTNERS.choose(**(arguments | changed))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partners_of([4, 4], [0, 0], []), r"\(2,\) do not ascend"),
        (lambda: partners_of([6, 4], [0, 0], []), "do not ascend"),
        (lambda: partners_of([4, 6], [1], [6]), r"ends has shape \(1,\) for 2 rows"),
        (lambda: partners_of([4, 6], [2, 1], [6, 6]), "must not fall"),
        (lambda: partners_of([4, 6], [1, 2], [6]), "2 neighbours, but 1"),
        (lambda: choose(numbers=np.zeros(3)), r"rows has shape \(2,\) and numbers \(3,\)"),
        (lambda: choose(numbers=np.array([0.5, 1.5])), "between 0.5 and 1.5"),
        (lambda: choose(numbers=np.array([0.5, np.nan])), "between nan"),
        (lambda: choose(own_probability=1.1), "own_probability 1.1"),
        (lambda: mutual_neighbours(GOOD[0], 1), r"shape \(3,\), expected \[n, D\]"),
        (lambda: mutual_neighbours(GOOD, 0), "k 0, expected 1 to 4"),
        (lambda: mutual_neighbours(GOOD, 5), "k 5, expected 1 to 4"),
        (lambda: mutual_neighbours(GOOD * 0, 1), "0 of 5 embeddings"),
        (lambda: mutual_neighbours(GOOD, 1, rows=np.arange(4)), r"\(4,\) for 5 embeddings"),
        (lambda: mutual_neighbours(BROKEN, 1, rows=np.arange(5) + 10), "row 12 is not finite"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="float64, expected a float32 array"):
        mutual_neighbours(GOOD.astype(np.float64), 1)  # type: ignore[arg-type]
