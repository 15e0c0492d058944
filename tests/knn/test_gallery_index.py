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
    assert build(gallery).search(gallery[:1], 5, ["stranger"]).rows.tolist()[0][0] == 0


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


class TestBuildRefuses:
    @pytest.mark.parametrize("bad", [[[1.0, 2.0]], np.zeros((2, 3)), np.zeros((2, 3), np.float16)])
    def test_what_is_not_float32(self, bad):
        with pytest.raises(TypeError, match="expected a NumPy array of float32"):
            EmbeddingIndex.build(bad, ["a", "b"])

    @pytest.mark.parametrize("shape", [(3,), (3, 0), (1, 3, 2)])
    def test_other_shapes(self, shape):
        with pytest.raises(ValueError, match=r"have shape .* expected \[items, width\]"):
            EmbeddingIndex.build(np.zeros(shape, np.float32), ["a", "b", "c"])

    def test_an_empty_gallery(self):
        with pytest.raises(ValueError, match="the gallery is empty"):
            EmbeddingIndex.build(np.zeros((0, 3), np.float32), [])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite(self, value):
        gallery = noise(5, 3)
        gallery[2:4, 1] = value
        with pytest.raises(ValueError, match=r"row 2 \('item-00002'\) holds NaN .*2 such row"):
            build(gallery)

    def test_opposite_infinities_in_one_row(self):
        gallery = noise(3, 4)
        gallery[1, :2] = np.inf, -np.inf
        with pytest.raises(ValueError, match=r"row 1 \('item-00001'\) holds NaN or infinity"):
            build(gallery)

    def test_numbers_whose_squares_overflow(self):
        gallery = noise(5, 3)
        gallery[4] = 3e18
        with pytest.raises(ValueError, match=r"row 4 .* length 5\.2e\+18; .* scale"):
            build(gallery)

    def test_an_id_that_stands_twice(self):
        with pytest.raises(ValueError, match="item id 'b' stands 2 times"):
            EmbeddingIndex.build(noise(3, 2), ["a", "b", "b"])

    @pytest.mark.parametrize("ids", [["a"], "ab", ["a", "b", "c"]])
    def test_ids_that_do_not_fit(self, ids):
        with pytest.raises(ValueError, match="expected 2, one a row"):
            EmbeddingIndex.build(noise(2, 2), ids)

    def test_ids_that_are_no_text(self):
        with pytest.raises(TypeError, match=r"item_ids, row 1, is 7 \(int\); expected text"):
            EmbeddingIndex.build(noise(2, 2), ["a", 7])

    def test_an_empty_id(self):
        with pytest.raises(ValueError, match="item_ids, row 1, is empty"):
            EmbeddingIndex.build(noise(2, 2), ["a", ""])

    def test_another_metric(self):
        with pytest.raises(ValueError, match="metric is 'cosine'; expected 'l2'"):
            EmbeddingIndex.build(noise(2, 2), ["a", "b"], metric="cosine")

    def test_another_device(self):
        with pytest.raises(ValueError, match="device is 'tpu'; expected 'auto', 'cpu' or 'gpu'"):
            EmbeddingIndex.build(noise(2, 2), ["a", "b"], device="tpu")

    def test_columns_that_do_not_fit(self):
        with pytest.raises(ValueError, match="column 'category' is 1 value"):
            EmbeddingIndex.build(noise(2, 2), ["a", "b"], columns={"category": ["x"]})
        with pytest.raises(TypeError, match="column 'category', row 0, is None"):
            EmbeddingIndex.build(noise(2, 2), ["a", "b"], columns={"category": [None, "x"]})
        with pytest.raises(ValueError, match="columns holds 'item_id'"):
            EmbeddingIndex.build(noise(2, 2), ["a", "b"], columns={"item_id": ["x", "y"]})


class TestSearchRefuses:
    @pytest.fixture
    def index(self) -> EmbeddingIndex:
        return build(noise(6, 3))

    def test_what_is_not_float32(self, index):
        with pytest.raises(TypeError, match="query embeddings are float64"):
            index.search(np.zeros((1, 3)), 1)

    def test_another_width(self, index):
        with pytest.raises(ValueError, match="are 4 wide, the index 3"):
            index.search(noise(1, 4), 1)

    def test_one_embedding_without_its_axis(self, index):
        with pytest.raises(ValueError, match=r"shape \(3,\); expected \[items, width\]"):
            index.search(noise(1, 3)[0], 1)

    def test_nan_and_names_the_query(self, index):
        queries = noise(2, 3)
        queries[1, 0] = np.nan
        with pytest.raises(ValueError, match=r"query embedding row 1 \('second'\) holds NaN"):
            index.search(queries, 1, query_ids=["first", "second"])

    def test_a_query_that_is_too_long(self, index):
        with pytest.raises(ValueError, match=r"query embedding row 0 \('0'\) has length"):
            index.search(np.full((1, 3), 1e19, np.float32), 1)

    def test_k_above_the_gallery(self, index):
        with pytest.raises(
            ValueError, match=r"k is 7, but this gallery of 6 item\(s\) can give 6;"
        ):
            index.search(noise(1, 3), 7)

    def test_k_above_the_gallery_without_the_query(self, index):
        with pytest.raises(ValueError, match=r"k is 6, .* can give 5 once the query itself"):
            index.search(noise(1, 3), 6, ["item-00001"])
        assert index.search(noise(1, 3), 6, ["stranger"]).k == 6

    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one(self, index, k):
        with pytest.raises(ValueError, match="expected at least 1"):
            index.search(noise(1, 3), k)

    def test_k_that_is_no_integer(self, index):
        with pytest.raises(TypeError, match="expected a whole number"):
            index.search(noise(1, 3), 2.0)

    def test_ids_that_do_not_fit(self, index):
        with pytest.raises(ValueError, match=r"exclude_ids is 1 value"):
            index.search(noise(2, 3), 1, ["a"])
        with pytest.raises(ValueError, match=r"query_ids is 1 value"):
            index.search(noise(2, 3), 1, query_ids=["a"])
        with pytest.raises(TypeError, match=r"exclude_ids, row 0, is None"):
            index.search(noise(1, 3), 1, [None])


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
