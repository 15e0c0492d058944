"""One contract for all kinds."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.knn.galleries import DIM, GALLERY, QUERIES, PlainStore, brute_force, recall_of
from visual_search.knn import faiss_index
from visual_search.knn.engine import faiss_threads, load_faiss
from visual_search.knn.indexes import build_index
from visual_search.knn.store import ArrayStore

APPROXIMATE = ("hnsw", "ivf", "ivfpq")
OURS = ("flat", *APPROXIMATE)
approximate_too = pytest.mark.usefixtures("_always_approximate")


def assert_sound(rows, squared, queries, gallery, k, allowed=None) -> None:
    """Whatever was found is allowed, stands once, is at its distance and in its order."""
    assert (rows.dtype, squared.dtype) == (np.int64, np.float32)
    assert rows.shape == squared.shape == (len(queries), k)
    assert rows.min() >= 0
    assert allowed is None or allowed[rows].all()
    exact = ((queries[:, None].astype(np.float64) - gallery[rows]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared, exact, rtol=1e-5)
    for found, distances in zip(rows, exact, strict=True):
        pairs = list(zip(distances, found, strict=True))
        assert pairs == sorted(pairs)
        assert len(set(found)) == k


@approximate_too
@pytest.mark.parametrize("kind", OURS)
def test_finds_the_neighbours(indexes, kind):
    index = indexes[kind]
    assert (len(index), index.dim, index.plan.kind) == (1500, DIM, kind)
    rows, squared = index.search(QUERIES, 10)
    assert_sound(rows, squared, QUERIES, GALLERY, 10)
    expected, _ = brute_force(GALLERY, QUERIES, 10)
    assert recall_of(rows, expected) >= (1 if kind == "flat" else 0.93)
    for number in (0, 17):  # one query has the answer that it has among others
        alone, _ = index.search(QUERIES[number : number + 1], 10)
        np.testing.assert_array_equal(alone[0], rows[number])
    rows, squared = index.search(QUERIES[:2], 5000)  # k beyond all rows gives all rows
    assert_sound(rows, squared, QUERIES[:2], GALLERY, 1500)
    assert index.search(QUERIES[:0], 10)[0].shape == (0, 10)


@approximate_too
@pytest.mark.parametrize("share", ["all-but-one", "half", "far-away", "thirty", "three", "none"])
@pytest.mark.parametrize("kind", OURS)
def test_a_restriction_gives_exactly_what_exists(indexes, kind, share):
    numbers = np.arange(1500)
    order = np.argsort(GALLERY @ GALLERY[0])
    allowed = {
        "all-but-one": numbers != 3,
        "half": numbers % 2 == 0,
        "far-away": np.isin(numbers, order[:300]),
        "thirty": numbers % 50 == 1,
        "three": numbers < 3,
        "none": numbers < 0,
    }[share]
    rows, squared = indexes[kind].search(QUERIES, 10, allowed)
    k = min(10, int(allowed.sum()))
    assert rows.shape == squared.shape == (40, k)
    if k:
        assert_sound(rows, squared, QUERIES, GALLERY, k, allowed)
        expected, _ = brute_force(GALLERY, QUERIES, k, allowed)
        assert recall_of(rows, expected) >= (1 if kind == "flat" or k < 10 else 0.93)


@approximate_too
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_where_faiss_comes_across_too_few_the_exact_way_answers(indexes, kind, monkeypatch):
    found: list[int] = []

    def half_blind(*arguments):
        rows = search(*arguments)
        rows[::2, 4:] = -1  # every second query
        found.append(rows.shape[1])
        return rows

    search = faiss_index._search
    monkeypatch.setattr(faiss_index, "_search", half_blind)
    rows, squared = indexes[kind].search(QUERIES, 10)
    assert found  # it was asked
    assert_sound(rows, squared, QUERIES, GALLERY, 10)
    expected, _ = brute_force(GALLERY, QUERIES, 10)
    np.testing.assert_array_equal(rows[::2], expected[::2])


@approximate_too
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_a_query_far_from_what_is_allowed_is_not_searched_among_everything(
    indexes, kind, monkeypatch
):
    index = indexes[kind]
    order = ((GALLERY - GALLERY[0]) ** 2).sum(axis=1).argsort()
    allowed = ~np.isin(np.arange(1500), order[:400])  # share 0.73: its own surroundings are gone
    wanted, _ = brute_force(GALLERY, GALLERY[:1], 5, allowed)
    monkeypatch.setattr(index, "_exact", None)  # a search among everything would fail
    rows, squared = index.search(GALLERY[:1], 5, allowed)
    assert_sound(rows, squared, GALLERY[:1], GALLERY, 5, allowed)
    assert kind == "ivfpq" or recall_of(rows, wanted) >= 0.8  # parts of so few items are coarse


@approximate_too
@pytest.mark.parametrize("kind", OURS)
def test_any_store_gives_the_same_index(indexes, kind):
    seen: list[tuple[int, int]] = []
    again = build_index(PlainStore(GALLERY), kind, on_progress=lambda *now: seen.append(now))
    assert again.plan == indexes[kind].plan
    rows, squared = again.search(QUERIES, 10)
    expected_rows, expected = indexes[kind].search(QUERIES, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(squared, expected, rtol=1e-6)
    assert seen[-1] == (1500, 1500)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_handful_of_items_is_enough(kind, count):
    rows, _ = build_index(ArrayStore(GALLERY[:count]), kind).search(QUERIES, 10)
    np.testing.assert_array_equal(rows, brute_force(GALLERY[:count], QUERIES, 10)[0])


def test_an_empty_store_has_no_neighbours():
    index = build_index(ArrayStore(GALLERY[:0]))
    rows, squared = index.search(QUERIES, 10)
    assert rows.shape == squared.shape == (40, 0)
    assert index.search(QUERIES[:0], 10)[0].shape == (0, 0)


def test_auto_is_decided_and_says_why():
    index = build_index(ArrayStore(GALLERY))
    assert index.plan.kind == "flat"
    assert "1,500 items of 16 numbers" in index.plan.reason
    small = build_index(ArrayStore(GALLERY), max_bytes=60_000)
    assert small.plan.kind == "ivf"
    assert small.num_bytes < 150_000  # as given below 10,000 rows


def test_threads_are_as_asked_inside_and_put_back(monkeypatch):
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    index = build_index(ArrayStore(GALLERY), "flat", num_threads=before + 2)
    seen: list[int] = []
    monkeypatch.setattr(
        index._exact, "nearest", lambda *a: seen.append(faiss.omp_get_max_threads()) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        index.search(QUERIES, 3)
    assert seen == [before + 2]
    assert faiss.omp_get_max_threads() == before


def test_another_threads_number_of_threads_is_not_touched():
    faiss = load_faiss()
    inside, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with faiss_threads(7):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=elsewhere)
    before = faiss.omp_get_max_threads()
    thread.start()
    assert inside.wait(10)
    assert faiss.omp_get_max_threads() == before
    done.set()
    thread.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "annoy"}, "kind is 'annoy'; expected one of flat, hnsw"),
        ({"target_recall": 0.0}, "target_recall is 0"),
        ({"recall_k": 0}, "recall_k is 0"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
    ],
)
def test_build_refuses_what_cannot_be_meant(changes, message):
    with pytest.raises(ValueError, match=message):
        build_index(ArrayStore(GALLERY), **changes)


WITH_NAN = GALLERY.copy()
WITH_NAN[1234, 3] = np.nan


@pytest.mark.parametrize(
    ("gallery", "kind", "message"),
    [
        *((WITH_NAN, kind, "gallery embedding row 1234 holds NaN") for kind in OURS),
        *((GALLERY[:0], kind, "the store holds 0 embedding") for kind in APPROXIMATE),
        (GALLERY[:999], "ivfpq", r"999 embedding.*at least 1,000 for ivfpq"),
    ],
)
def test_build_refuses_values_and_sizes(gallery, kind, message):
    with pytest.raises(ValueError, match=message):
        build_index(ArrayStore(gallery), kind)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((QUERIES.astype(np.float64), 3), TypeError, "query embeddings are float64"),
        ((QUERIES.tolist(), 3), TypeError, "query embeddings are list"),
        ((QUERIES[0], 3), ValueError, "query embeddings have shape"),
        ((QUERIES[:, :8], 3), ValueError, "8 wide, the index 16"),
        ((np.full((2, DIM), np.inf, np.float32), 3), ValueError, "query embedding row 0 holds NaN"),
        ((np.full((2, DIM), 1e19, np.float32), 3), ValueError, "query embedding row 0 has length"),
        ((QUERIES, 0), ValueError, "k is 0"),
        ((QUERIES, 2.0), TypeError, "k is 2.0"),
        ((QUERIES, 3, np.ones(1499, bool)), ValueError, r"allowed has shape \(1499,\)"),
        ((QUERIES, 3, np.ones(1500, int)), TypeError, "allowed is int64"),
        ((QUERIES, 3, [True] * 1500), TypeError, "allowed is list"),
    ],
)
def test_search_refuses_what_faiss_would_answer(indexes, kind, arguments, error, message):
    with pytest.raises(error, match=message):
        indexes[kind].search(*arguments)


@pytest.mark.slow
def test_faiss_changed_by_its_torch_helpers_is_searched() -> None:
    program = (
        "import numpy as np; import faiss.contrib.torch_utils\n"
        "from visual_search.knn import faiss_index\n"
        "from visual_search.knn.indexes import build_index\n"
        "from visual_search.knn.store import ArrayStore\n"
        "faiss_index.EXACT_VALUES = 0\n"
        "gallery = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)\n"
        "for kind in ('hnsw', 'ivf'):\n"
        "    rows, _ = build_index(ArrayStore([gallery]), kind).search(gallery[:50], 3)\n"
        "    print((rows[:, 0] == np.arange(50)).mean() > 0.9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == ["True"] * 2, ended.stderr
