from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from visual_search.retrieval.near_duplicates import (
    EmbeddedPictures,
    NearDuplicates,
    near_duplicates,
)

NUM_GALLERY, NUM_QUERIES, DIM, K = 60, 20, 8, 3


class Case:
    """Random hashes and embeddings with copies planted, and exact neighbours by brute force."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.gallery_ids = [f"g{i:03d}" for i in range(NUM_GALLERY)]
        self.query_ids = [f"q{i:03d}" for i in range(NUM_QUERIES)]
        self.gallery_hashes = rng.integers(1, 2**63, NUM_GALLERY, dtype=np.uint64)
        self.query_hashes = rng.integers(1, 2**63, NUM_QUERIES, dtype=np.uint64)
        self.gallery = rng.standard_normal((NUM_GALLERY, DIM)).astype(np.float32)
        self.queries = rng.standard_normal((NUM_QUERIES, DIM)).astype(np.float32)
        self.query_hashes[0] = self.gallery_hashes[5] ^ np.uint64(0b1)  # by hash alone
        self.queries[1] = self.gallery[6]  # by embedding alone
        self.query_hashes[2] = self.gallery_hashes[7] ^ np.uint64(0b11)  # by both
        self.queries[2] = self.gallery[7] + np.float32(0.01)
        self.gallery_hashes[[8, 9]] = self.query_hashes[[3, 4]] = 0  # plain pictures

    def distances(self) -> NDArray[np.float64]:
        difference = self.queries[:, None].astype(np.float64) - self.gallery[None]
        return (difference**2).sum(axis=2)  # [Q, N]

    def embedded(self) -> EmbeddedPictures:
        distances = self.distances()
        nearest = np.argsort(distances, axis=1)[:, :K]
        ids = np.array(self.gallery_ids, dtype=object)[nearest]
        found = np.take_along_axis(distances, nearest, axis=1)
        return EmbeddedPictures(self.gallery, self.queries, ids, found)

    def search(self, **changed: object) -> NearDuplicates:
        settings: dict[str, object] = {"max_bits": 2, "max_relative_distance": 0.01, **changed}
        sides = (self.gallery_ids, self.gallery_hashes, self.query_ids, self.query_hashes)
        return near_duplicates(*sides, **settings)


@pytest.fixture
def case() -> Case:
    return Case()


def test_planted_pairs_are_found_by_what_they_share(case: Case) -> None:
    found = case.search(embedded=case.embedded())
    scale = found.median_squared_distance
    assert scale == pytest.approx(np.median(case.distances()), rel=0.05)
    assert found.num_pairs == {"both": 1, "hash": 1, "embedding": 1}
    assert found.query_ids == ("q000", "q001", "q002")
    table = found.table
    columns = ["query_id", "gallery_id", "hash_bits", "relative_squared_distance", "by"]
    assert table.columns.tolist() == columns
    # 0 of 0.01; DIM * 0.01^2 of the median; 1 of 3 bits
    assert table.drop(columns=columns[3]).to_numpy().tolist() == [
        ["q001", "g006", -1, "embedding"],
        ["q002", "g007", 2, "both"],
        ["q000", "g005", 1, "hash"],
    ]
    assert table["relative_squared_distance"].tolist() == pytest.approx(
        [0, DIM * 1e-4 / scale, case.distances()[0, 5] / scale], rel=1e-3
    )
    assert "at most 2 bits" in found.definition
    assert "at most 0.01 times the median" in found.definition
    assert (found.max_bits, found.max_relative_distance) == (2, 0.01)


@pytest.mark.parametrize("max_bits", [0, 1, 28, 64])
def test_pairs_by_hash_alone_as_by_hand(case: Case, max_bits: int) -> None:
    expected = sorted(
        (int(asked ^ hashed).bit_count(), query, item)
        for query, asked in zip(case.query_ids, case.query_hashes, strict=True)
        for item, hashed in zip(case.gallery_ids, case.gallery_hashes, strict=True)
        if asked and hashed and int(asked ^ hashed).bit_count() <= max_bits
    )
    found = case.search(max_bits=max_bits, max_listed=10_000)
    columns = found.table[["hash_bits", "query_id", "gallery_id"]]
    assert [tuple(row) for row in columns.to_numpy().tolist()] == expected
    assert found.num_pairs == {"both": 0, "hash": len(expected), "embedding": 0}
    assert set(found.table["by"]) <= {"hash"}
    assert found.table["relative_squared_distance"].isna().all()
    assert np.isnan(found.median_squared_distance)
    assert "times the median" not in found.definition
    assert found.query_ids == tuple(sorted({pair[1] for pair in expected}))
    if max_bits == 64:  # all but those with a picture without hash
        assert len(expected) == (NUM_GALLERY - 2) * (NUM_QUERIES - 2)


def test_neither_what_is_listed_nor_the_order_of_the_sides_changes_what_is_found(
    case: Case,
) -> None:
    every = case.search(embedded=case.embedded(), max_bits=30, max_listed=10_000)
    counts = every.table["by"].value_counts().to_dict()
    assert counts == {by: number for by, number in every.num_pairs.items() if number}
    rng = np.random.default_rng(1)
    for side, name in (("gallery", "gallery"), ("query", "queries")):
        order = rng.permutation(len(getattr(case, f"{side}_ids")))
        setattr(case, f"{side}_ids", [getattr(case, f"{side}_ids")[i] for i in order])
        for numbers in (f"{side}_hashes", name):
            setattr(case, numbers, getattr(case, numbers)[order])
    for number in (0, 2, 7, 10_000):
        some = case.search(embedded=case.embedded(), max_bits=30, max_listed=number)
        pd.testing.assert_frame_equal(some.table, every.table.head(number))
        assert (some.num_pairs, some.query_ids) == (every.num_pairs, every.query_ids)
        assert some.median_squared_distance == every.median_squared_distance


def test_neither_itself_nor_a_collapsed_network_makes_a_duplicate(case: Case) -> None:
    case.query_ids[0], case.query_ids[1] = "g005", "g006"
    found = case.search(embedded=case.embedded())
    assert found.num_pairs == {"both": 1, "hash": 0, "embedding": 0}
    case.gallery[:] = case.queries[:] = 1
    found = case.search(embedded=case.embedded())
    assert found.median_squared_distance == 0
    assert found.num_pairs == {"both": 0, "hash": 1, "embedding": 0}
    assert found.table["relative_squared_distance"].isna().all()


@pytest.mark.parametrize(
    ("num_gallery", "num_queries", "expected"),
    [(0, 4, [(4, 4)]), (4, 0, []), (0, 0, []), (1, 600, [(256, 600), (512, 600), (600, 600)])],
)
def test_progress_and_an_empty_side(num_gallery: int, num_queries: int, expected: list) -> None:
    calls: list[tuple[int, int]] = []
    sides, nobody = [], [[]] * num_queries
    for side, num in (("g", num_gallery), ("q", num_queries)):
        sides += [[f"{side}{i}" for i in range(num)], np.arange(1, num + 1, dtype=np.uint64) << 8]
    embeddings = [np.ones((num, 3), np.float32) for num in (num_gallery, num_queries)]
    embedded = EmbeddedPictures(*embeddings, nobody, nobody)
    found = near_duplicates(*sides, embedded=embedded, on_progress=lambda *call: calls.append(call))
    assert calls == expected
    if not num_gallery or not num_queries:
        assert (len(found.table), found.query_ids) == (0, ())
        assert found.num_pairs == {"both": 0, "hash": 0, "embedding": 0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bits": 65}, "max_bits is 65 and max_relative"),
        ({"max_relative_distance": np.nan}, "max_relative_distance nan; expected 0 to 64 and 0 <="),
        ({"max_listed": -1}, "max_listed is -1"),
    ],
)
def test_settings_that_are_refused(case: Case, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case.search(**settings)


def test_sides_that_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"59 gallery ids have hashes of shape \[60\]"):
        near_duplicates(case.gallery_ids[1:], case.gallery_hashes, [], case.query_hashes[:0])
    with pytest.raises(TypeError, match="query hashes are int64; expected a NumPy array of uint64"):
        near_duplicates([], case.gallery_hashes[:0], ["a"], np.array([1]))
    embedded = case.embedded()
    case.gallery_ids[6] = "other"
    with pytest.raises(ValueError, match=r"neighbour 'g006' of query 'q0.* among the 60 gallery"):
        case.search(embedded=embedded)
    case.query_ids[1] = "q000"
    with pytest.raises(ValueError, match=r"1 query id\(s\) stand twice, first 'q000'"):
        case.search()


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("queries", np.s_[:, 1:], r"shapes \(60, 8\) and \(20, 7\); expected \[N, D\]"),
        ("neighbour_ids", np.s_[1:], "20 query embeddings have 19 lists of 57 neighbours"),
        ("neighbour_squared_distances", np.s_[:, 1:], "20 lists of 40 distances; expected one"),
    ],
)
def test_embeddings_that_are_refused(case: Case, name: str, cut: object, message: str) -> None:
    embedded = case.embedded()
    with pytest.raises(ValueError, match=message):
        replace(embedded, **{name: np.asarray(getattr(embedded, name))[cut]})
