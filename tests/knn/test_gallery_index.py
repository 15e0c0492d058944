from __future__ import annotations

import numpy as np
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex, NearestItems


def item_ids(count: int) -> list[str]:
    return [f"item-{n:05d}" for n in range(count)]


def noise(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def build(embeddings: np.ndarray, ids: list[str] | None = None) -> EmbeddingIndex:
    return EmbeddingIndex.build(embeddings, ids or item_ids(len(embeddings)), device="cpu")


def brute_force(gallery, ids, queries, k, exclude_ids=None):
    """The obvious way: every distance by subtraction, Python's sort by (distance, id)."""
    answers = []
    for number, query in enumerate(queries):
        found = []
        for embedding, item_id in zip(gallery, ids, strict=True):
            if exclude_ids is None or item_id != exclude_ids[number]:
                difference = query.astype(np.float64) - embedding.astype(np.float64)
                found.append((float((difference**2).sum()), item_id))
        answers.append(sorted(found)[:k])
    return answers


def assert_same_as_brute_force(gallery, ids, queries, k, exclude_ids=None):
    result = build(gallery, ids).search(queries, k, exclude_ids)
    expected = brute_force(gallery, ids, queries, k, exclude_ids)
    assert result.item_ids.tolist() == [[item for _, item in answer] for answer in expected]
    np.testing.assert_allclose(
        result.squared_distances, [[d for d, _ in answer] for answer in expected], rtol=1e-12
    )
    assert np.array(ids, dtype=object)[result.rows].tolist() == result.item_ids.tolist()


HARD_GALLERIES = {
    "noise": lambda: noise(300, 16),
    "one dimension": lambda: noise(300, 1),
    "wide": lambda: noise(120, 2048),
    # FAISS's distances are lost behind the offset: 1000^2 * 32 = 3e7, rounded to steps of 2.
    "large offset": lambda: noise(300, 32) + np.float32(1000),
    "tiny differences": lambda: (1 + 1e-6 * noise(300, 32)).astype(np.float32),
    "everything the same": lambda: np.full((400, 8), 0.3, dtype=np.float32),
    "mostly the same": lambda: np.concatenate(
        [np.zeros((300, 8), dtype=np.float32), noise(100, 8)]
    ),
    "few values, many ties": lambda: (
        np.random.default_rng(0).integers(0, 2, (400, 6)).astype(np.float32)
    ),
    "one huge outlier": lambda: np.concatenate([noise(300, 8), np.full((1, 8), 1e6, np.float32)]),
    "tight far clusters": lambda: (
        np.repeat(1000 * noise(6, 8), 60, axis=0) + 1e-3 * noise(360, 8, seed=1)
    ).astype(np.float32),
    "underflowing squares": lambda: (1e-25 * noise(200, 8)).astype(np.float32),
    "nearly overflowing squares": lambda: (1e17 * noise(200, 8)).astype(np.float32),
}


@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_equals_brute_force(name):
    gallery = HARD_GALLERIES[name]()
    ids = [f"item-{n:05d}" for n in np.random.default_rng(9).permutation(len(gallery))]
    some = np.arange(0, len(gallery), 7)
    assert_same_as_brute_force(gallery, ids, gallery[some], 5, [ids[n] for n in some])
    assert_same_as_brute_force(gallery, ids, (gallery[some] * np.float32(1.01)), 5)


@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_shuffling_the_gallery_or_splitting_the_queries_changes_nothing(name):
    gallery = HARD_GALLERIES[name]()
    ids = item_ids(len(gallery))
    expected = build(gallery, ids).search(gallery, 7, ids)
    order = np.random.default_rng(1).permutation(len(gallery))
    shuffled = build(gallery[order], [ids[n] for n in order])
    answers = [
        shuffled.search(gallery, 7, ids),
        *(shuffled.search(gallery[n : n + 1], 7, [ids[n]]) for n in (0, 17, 99)),
    ]
    for answer, rows in zip(answers, (slice(None), [0], [17], [99]), strict=True):
        assert answer.item_ids.tolist() == expected.item_ids[rows].tolist()
        # To the last bit: sums do not depend on who is asked together.
        assert answer.squared_distances.tolist() == expected.squared_distances[rows].tolist()


def test_every_k_up_to_the_whole_gallery():
    gallery = np.round(noise(40, 2))
    ids = item_ids(40)
    for k in (1, 2, 20, 38, 39):
        assert_same_as_brute_force(gallery, ids, gallery, k, ids)
    assert_same_as_brute_force(gallery, ids, gallery, 40)


def test_copies_of_the_query_are_found_and_the_query_is_not():
    gallery = np.repeat(noise(100, 8), 3, axis=0)
    ids = item_ids(300)
    result = build(gallery, ids).search(gallery, 4, ids)
    assert not (result.item_ids == result.query_ids[:, None]).any()
    assert (result.squared_distances[:, :2] == 0).all()  # its two copies, exactly at zero
    assert (result.squared_distances[:, 2] > 0).all()


def test_ties_go_by_id_and_not_by_row():
    gallery = np.zeros((6, 3), dtype=np.float32)
    index = build(gallery, ["f", "b", "e", "a", "d", "c"])
    assert index.search(gallery[:1], 3).item_ids.tolist() == [["a", "b", "c"]]
    assert index.search(gallery[:1], 3, ["b"]).item_ids.tolist() == [["a", "c", "d"]]
    assert index.search(gallery[:1], 3).rows.tolist() == [[3, 1, 5]]


def test_many_copies_then_another_k_and_back():
    gallery = np.concatenate([np.zeros((600, 4), np.float32), noise(50, 4)])
    ids = item_ids(650)[::-1]
    index = build(gallery, ids)
    for k in (5, 300, 5):
        expected = brute_force(gallery, ids, gallery[[0, 640]], k, [ids[0], ids[640]])
        result = index.search(gallery[[0, 640]], k, [ids[0], ids[640]])
        assert result.item_ids.tolist() == [[item for _, item in answer] for answer in expected]


def test_noise_scores_at_chance():
    gallery, ids = noise(2000, 32), item_ids(2000)
    categories = np.random.default_rng(5).integers(0, 10, 2000)
    result = build(gallery, ids).search(gallery, 5, ids)
    share = (categories[result.rows] == categories[:, None]).mean()
    assert share == pytest.approx(0.1, abs=0.015)  # 10,000 neighbours: 5 standard errors


def test_query_order_ids_and_dtypes():
    gallery, ids = noise(50, 4), item_ids(50)
    index = build(gallery, ids)
    asked = [31, 2, 44]
    result = index.search(gallery[asked], 3, [ids[n] for n in asked])
    assert result.query_ids.tolist() == [ids[n] for n in asked]
    assert (len(result), result.k) == (3, 3)
    assert result.rows.dtype == np.int64
    assert result.squared_distances.dtype == np.float64
    assert result.item_ids.dtype == object
    assert index.search(gallery[asked], 1).query_ids.tolist() == ["0", "1", "2"]
    assert index.search(gallery[asked], 1).item_ids[:, 0].tolist() == [ids[n] for n in asked]
    named = index.search(gallery[:2], 1, query_ids=["upload", "upload"])
    assert named.query_ids.tolist() == ["upload", "upload"]
    assert index.search(gallery[:0], 3).item_ids.shape == (0, 3)


def test_an_excluded_id_outside_the_gallery_excludes_nothing():
    gallery = noise(5, 4)
    found = build(gallery).search(gallery[:1], 5, ["stranger"])
    assert (found.k, found.rows[0, 0]) == (5, 0)


def test_progress_reaches_the_end_and_never_goes_back():
    gallery, seen = HARD_GALLERIES["tight far clusters"](), []
    build(gallery).search(gallery, 5, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (360, 360)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_the_index_says_about_itself():
    gallery, ids = noise(20, 4), item_ids(20)
    index = EmbeddingIndex.build(gallery, ids, columns={"category": ["=hat", ""] * 10})
    gallery[:] = 0  # the index keeps its own copy
    assert (len(index), index.dim, index.num_bytes, index.bytes_per_item) == (20, 4, 320, 16)
    assert "item-00003" in index
    assert "item-00020" not in index
    assert index.item_ids.tolist() == ids
    assert index.items["category"].tolist()[:2] == ["=hat", ""]
    assert index.metric == "l2"
    assert index.manifest is None
    np.testing.assert_array_equal(index.embeddings, noise(20, 4))
    with pytest.raises(ValueError, match="read-only"):
        index.embeddings[0] = 1


def test_a_view_that_is_not_contiguous_is_fine():
    gallery = noise(30, 8)
    expected = build(np.ascontiguousarray(gallery[:, ::2])).search(gallery[:3, ::2].copy(), 4)
    result = build(gallery[:, ::2]).search(gallery[:3, ::2], 4)
    assert result.rows.tolist() == expected.rows.tolist()


def spoilt(rows: slice | int, value: object) -> np.ndarray:
    gallery = noise(5, 3)
    gallery[rows] = value
    return gallery


OPPOSITE = np.float32([np.inf, -np.inf, 0])
TWO, AB = noise(2, 2), ["a", "b"]


@pytest.mark.parametrize(
    ("gallery", "more", "error", "message"),
    [
        *(
            (bad, {}, TypeError, "expected a NumPy array of float32")
            for bad in ([[1.0, 2.0]], np.zeros((2, 3)), np.zeros((2, 3), np.float16))
        ),
        *(
            (np.zeros(shape, np.float32), {}, ValueError, r"have shape .* expected \[items, width")
            for shape in ((2,), (2, 0), (1, 2, 2))
        ),
        (np.zeros((0, 3), np.float32), {"item_ids": []}, ValueError, "the gallery is empty"),
        *(
            (spoilt(slice(2, 4), value), {}, ValueError, r"row 2 \('i2'\) holds NaN .*2 such row")
            for value in (np.nan, np.inf, -np.inf, OPPOSITE)
        ),
        (spoilt(4, 3e18), {}, ValueError, r"row 4 .* length 5\.2e\+18; .* scale"),
        (TWO, {"item_ids": ["b", "b"]}, ValueError, "item id 'b' stands 2 times"),
        *(
            (TWO, {"item_ids": ids}, ValueError, "expected 2, one a row")
            for ids in (["a"], "ab", ["a", "b", "c"])
        ),
        (TWO, {"item_ids": ["a", 7]}, TypeError, r"item_ids, row 1, is 7 \(int\); expected text"),
        (TWO, {"item_ids": ["a", ""]}, ValueError, "item_ids, row 1, is empty"),
        (TWO, {"metric": "cosine"}, ValueError, "metric is 'cosine'; expected 'l2'"),
        (TWO, {"device": "tpu"}, ValueError, "device is 'tpu'; expected 'auto', 'cpu' or 'gpu'"),
        (TWO, {"columns": {"category": ["x"]}}, ValueError, "column 'category' is 1 value"),
        (TWO, {"columns": {"category": [None, "x"]}}, TypeError, "'category', row 0, is None"),
        (TWO, {"columns": {"item_id": ["x", "y"]}}, ValueError, "columns holds 'item_id'"),
    ],
)
def test_a_gallery_that_cannot_be_searched_is_refused(gallery, more, error, message):
    ids = [f"i{row}" for row in range(len(gallery))]
    with pytest.raises(error, match=message):
        EmbeddingIndex.build(gallery, **{"item_ids": ids, **more})


ONE = noise(1, 3)


@pytest.mark.parametrize(
    ("queries", "k", "more", "error", "message"),
    [
        (np.zeros((1, 3)), 1, {}, TypeError, "query embeddings are float64"),
        (noise(1, 4), 1, {}, ValueError, "are 4 wide, the index 3"),
        (ONE[0], 1, {}, ValueError, r"shape \(3,\); expected \[items, width\]"),
        (spoilt(1, np.nan), 1, {"query_ids": list("abcde")}, ValueError,
         r"query embedding row 1 \('b'\) holds NaN"),
        (np.full((1, 3), 1e19, np.float32), 1, {}, ValueError, r"row 0 \('0'\) has length"),
        (ONE, 7, {}, ValueError, r"k is 7, but this gallery of 6 item\(s\) can give 6;"),
        (ONE, 6, {"exclude_ids": ["item-00001"]}, ValueError,
         "k is 6, .* can give 5 once the query itself"),
        (ONE, 0, {}, ValueError, "expected at least 1"),
        (ONE, -1, {}, ValueError, "expected at least 1"),
        (ONE, 2.0, {}, TypeError, "expected a whole number"),
        (noise(2, 3), 1, {"exclude_ids": ["a"]}, ValueError, "exclude_ids is 1 value"),
        (noise(2, 3), 1, {"query_ids": ["a"]}, ValueError, "query_ids is 1 value"),
        (ONE, 1, {"exclude_ids": [None]}, TypeError, "exclude_ids, row 0, is None"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_answered_is_refused(queries, k, more, error, message):
    with pytest.raises(error, match=message):
        build(noise(6, 3)).search(queries, k, **more)


def test_a_result_whose_fields_do_not_fit_is_refused():
    ids = np.array(["a"], dtype=object)
    rows = np.zeros((1, 2), dtype=np.int64)
    with pytest.raises(ValueError, match=r"expected \[Q\] and three times \[Q, K\]"):
        NearestItems(ids, np.array([["b"]], dtype=object), rows, rows.astype(float))
    with pytest.raises(ValueError, match="rows holds -1"):
        NearestItems(ids, np.array([["b", "c"]], dtype=object), rows - 1, rows.astype(float))


class Counting:
    """Passes on, and notes how many queries were asked for how many candidates."""

    def __init__(self, searcher):
        self.searcher, self.asked = searcher, []

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        return self.searcher.search(queries, k)


@pytest.mark.parametrize("name", ["noise", "wide", "large offset", "tiny differences"])
def test_the_first_candidates_settle_what_is_not_degenerate(name):
    """Without centring, the offsets would make every query ask for the whole gallery."""
    gallery = HARD_GALLERIES[name]()
    index = build(gallery)
    index._searcher = Counting(index._searcher)
    index.search(gallery, 5, item_ids(len(gallery)))
    assert index._searcher.asked == [(len(gallery), 22)]


def test_an_outlier_makes_only_itself_uncertain():
    gallery = HARD_GALLERIES["one huge outlier"]()
    index = build(gallery)
    index._searcher = Counting(index._searcher)
    index.search(gallery, 5, item_ids(301))
    assert [queries for queries, _ in index._searcher.asked] == [301, 1, 1, 1]


def test_a_collapsed_network_costs_nothing():
    """All embeddings the same: six copies remain to be looked at instead of 400."""
    gallery = HARD_GALLERIES["everything the same"]()
    index = build(gallery)
    index.search(gallery, 5, item_ids(400))
    assert len(index._thinned[2]) == 6


def test_an_ordinary_gallery_is_kept_once():
    gallery = HARD_GALLERIES["noise"]()
    assert not build(gallery)._gallery.centre.any()
    assert build(HARD_GALLERIES["large offset"]())._gallery.centre.all()
