from __future__ import annotations

import numpy as np
import pytest

from tests.knn.galleries import HARD_GALLERIES, brute_force, noise
from visual_search.knn.gallery_index import EmbeddingIndex, NearestItems


def item_ids(count: int) -> list[str]:
    return [f"item-{n:05d}" for n in range(count)]


def build(embeddings: np.ndarray, ids: list[str] | None = None) -> EmbeddingIndex:
    return EmbeddingIndex.build(embeddings, ids or item_ids(len(embeddings)), device="cpu")


def assert_same_as_brute_force(index, queries, k, exclude_ids=None):
    """The obvious way, over the items in the order of their ids."""
    result = index.search(queries, k, exclude_ids)
    order = np.argsort(index.item_ids)
    ids, gallery = index.item_ids[order], index.embeddings[order]
    for number, query in enumerate(queries):
        allowed = None if exclude_ids is None else ids != exclude_ids[number]
        rows, squared = brute_force(gallery, query[None], k, allowed)
        assert result.item_ids[number].tolist() == ids[rows[0]].tolist()
        np.testing.assert_allclose(result.squared_distances[number], squared[0], rtol=1e-12)
    assert index.item_ids[result.rows].tolist() == result.item_ids.tolist()


@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_equals_brute_force(name):
    gallery = HARD_GALLERIES[name]()
    ids = [f"item-{n:05d}" for n in np.random.default_rng(9).permutation(len(gallery))]
    index, some = build(gallery, ids), np.arange(0, len(gallery), 19)
    assert_same_as_brute_force(index, gallery[some], 5, [ids[n] for n in some])
    assert_same_as_brute_force(index, gallery[some] * np.float32(1.01), 5)


@pytest.mark.parametrize("name", HARD_GALLERIES)
def test_shuffling_the_gallery_or_splitting_the_queries_changes_nothing(name):
    gallery = HARD_GALLERIES[name]()
    ids = item_ids(len(gallery))
    expected = build(gallery, ids).search(gallery, 7, ids)
    order = np.random.default_rng(1).permutation(len(gallery))
    shuffled = build(gallery[order], [ids[n] for n in order])
    for rows in (slice(None), [0], [17], [99]):
        answer = shuffled.search(gallery[rows], 7, np.array(ids)[rows].tolist())
        assert answer.item_ids.tolist() == expected.item_ids[rows].tolist()
        # To the last bit: sums do not depend on who is asked together.
        assert answer.squared_distances.tolist() == expected.squared_distances[rows].tolist()


def test_every_k_up_to_the_whole_gallery():
    gallery = np.round(noise(40, 2))
    for k in (1, 2, 20, 38, 39):
        assert_same_as_brute_force(build(gallery), gallery[::3], k, item_ids(40)[::3])
    assert_same_as_brute_force(build(gallery), gallery[::3], 40)


def test_many_copies_then_another_k_and_back():
    gallery = np.concatenate([np.zeros((600, 4), np.float32), noise(50, 4)])
    index = build(gallery, item_ids(650)[::-1])
    for k in (5, 300, 5):
        asked = [0, 640]
        assert_same_as_brute_force(index, gallery[asked], k, index.item_ids[asked].tolist())


def test_query_order_ids_and_dtypes():
    gallery, ids = noise(50, 4), item_ids(50)
    index = build(gallery, ids)
    asked = [31, 2, 44]
    result = index.search(gallery[asked], 3, [ids[n] for n in asked])
    assert result.query_ids.tolist() == [ids[n] for n in asked]
    assert (len(result), result.k) == (3, 3)
    arrays = (result.rows, result.squared_distances, result.item_ids)
    assert [array.dtype for array in arrays] == [np.int64, np.float64, object]
    unnamed = index.search(gallery[asked], 1)
    assert unnamed.query_ids.tolist() == ["0", "1", "2"]
    assert unnamed.item_ids[:, 0].tolist() == [ids[n] for n in asked]
    named = index.search(gallery[:2], 1, query_ids=["upload", "upload"])
    assert named.query_ids.tolist() == ["upload", "upload"]
    assert index.search(gallery[:0], 3).item_ids.shape == (0, 3)
    # an excluded id outside the gallery excludes nothing
    found = index.search(gallery[:1], 50, ["stranger"])
    assert (found.k, found.rows[0, 0]) == (50, 0)


def test_progress_reaches_the_end_and_never_goes_back():
    gallery, seen = HARD_GALLERIES["tight-far-clusters"](), []
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
    assert (index.metric, index.manifest) == ("l2", None)
    np.testing.assert_array_equal(index.embeddings, noise(20, 4))
    with pytest.raises(ValueError, match="read-only"):
        index.embeddings[0] = 1


def test_a_view_that_is_not_contiguous_is_fine():
    gallery = noise(30, 8)[:, ::2]
    index = build(np.ascontiguousarray(gallery))
    expected, result = index.search(gallery[:3].copy(), 4), build(gallery).search(gallery[:3], 4)
    assert result.rows.tolist() == expected.rows.tolist()


def spoilt(rows: slice | int, value: object) -> np.ndarray:
    gallery = noise(5, 3)
    gallery[rows] = value
    return gallery


OPPOSITE = np.float32([np.inf, -np.inf, 0])
TWO, ONE = noise(2, 2), noise(1, 3)


@pytest.mark.parametrize(
    ("gallery", "more", "error", "message"),
    [
        *((bad, {}, TypeError, "expected a NumPy array of float32")
          for bad in ([[1.0, 2.0]], np.zeros((2, 3)), np.zeros((2, 3), np.float16))),
        *((np.zeros(shape, np.float32), {}, ValueError, r"have shape .* expected \[items, width")
          for shape in ((2,), (2, 0), (1, 2, 2))),
        (np.zeros((0, 3), np.float32), {"item_ids": []}, ValueError, "the gallery is empty"),
        *((spoilt(slice(2, 4), value), {}, ValueError, r"row 2 \('i2'\) holds NaN .*2 such row")
          for value in (np.nan, np.inf, -np.inf, OPPOSITE)),
        (spoilt(4, 3e18), {}, ValueError, r"row 4 .* length 5\.2e\+18; .* scale"),
        (TWO, {"item_ids": ["b", "b"]}, ValueError, "item id 'b' stands 2 times"),
        *((TWO, {"item_ids": ids}, ValueError, "expected 2, one a row")
          for ids in (["a"], "ab", ["a", "b", "c"])),
        (TWO, {"item_ids": ["a", 7]}, TypeError, r"item_ids, row 1, is 7 \(int\); expected text"),
        (TWO, {"item_ids": ["a", ""]}, ValueError, "item_ids, row 1, is empty"),
        (TWO, {"metric": "cosine"}, ValueError, "metric is 'cosine'; expected 'l2'"),
        (TWO, {"device": "tpu"}, ValueError, "device is 'tpu'; expected 'auto', 'cpu' or 'gpu'"),
        (TWO, {"columns": {"category": ["x"]}}, ValueError, "column 'category' is 1 value"),
        (TWO, {"columns": {"category": [None, "x"]}}, TypeError, "'category', row 0, is None"),
        (TWO, {"columns": {"item_id": ["x", "y"]}}, ValueError, "columns holds 'item_id'"),
    ],
)  # fmt: skip
def test_a_gallery_that_cannot_be_searched_is_refused(gallery, more, error, message):
    ids = [f"i{row}" for row in range(len(gallery))]
    with pytest.raises(error, match=message):
        EmbeddingIndex.build(gallery, **{"item_ids": ids, **more})


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
    ids, rows = np.array(["a"], dtype=object), np.zeros((1, 2), dtype=np.int64)
    with pytest.raises(ValueError, match=r"expected \[Q\] and three times \[Q, K\]"):
        NearestItems(ids, ids[None], rows, rows.astype(float))
    with pytest.raises(ValueError, match="rows holds -1"):
        NearestItems(ids, np.array([["b", "c"]], dtype=object), rows - 1, rows.astype(float))


# --- what it costs ------------------------------------------------------------------------------


class Counting:
    """Passes on, and notes how many queries were asked for how many candidates."""

    def __init__(self, searcher):
        self.searcher, self.asked = searcher, []

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        return self.searcher.search(queries, k)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        # Without centring, the offsets would make every query ask for the whole gallery.
        *((name, [(num, 22)]) for name, num in
          (("noise", 300), ("wide", 120), ("large-offset", 300), ("tiny-differences", 300))),
        ("one-huge-outlier", [(301, 22), (1, 44), (1, 88), (1, 176)]),  # only itself is uncertain
    ],
)  # fmt: skip
def test_the_first_candidates_settle_what_is_not_degenerate(name, asked):
    gallery = HARD_GALLERIES[name]()
    index = build(gallery)
    index._searcher = Counting(index._searcher)
    index.search(gallery, 5, item_ids(len(gallery)))
    assert index._searcher.asked == asked


def test_a_collapsed_network_costs_nothing():
    """All embeddings the same: six copies remain to be looked at instead of 400."""
    gallery = HARD_GALLERIES["everything-the-same"]()
    index = build(gallery)
    index.search(gallery, 5, item_ids(400))
    assert len(index._thinned[2]) == 6


def test_an_ordinary_gallery_is_kept_once():
    assert not build(HARD_GALLERIES["noise"]())._gallery.centre.any()
    assert build(HARD_GALLERIES["large-offset"]())._gallery.centre.all()
