from __future__ import annotations

import numpy as np
import pytest

from tests.knn import galleries
from visual_search.knn.embeddings import check_lengths
from visual_search.knn.store import ArrayStore, blocks_from


def noise(count: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    return galleries.noise(count, dim, seed)


def stores(embeddings: np.ndarray, folder) -> dict[str, ArrayStore]:
    np.save(folder / "embeddings.npy", embeddings)
    return {
        "one array": ArrayStore(embeddings),
        "segments, one empty": ArrayStore([embeddings[:7], embeddings[7:7], embeddings[7:]]),
        "memory-mapped": ArrayStore(np.load(folder / "embeddings.npy", mmap_mode="r")),
        "strided": ArrayStore(np.repeat(embeddings, 2, axis=0)[::2]),
    }


def test_every_store_gives_the_same_rows(tmp_path):
    embeddings = noise(20)
    rows = np.array([19, 0, 7, 6, 7])
    for name, store in stores(embeddings, tmp_path).items():
        assert (len(store), store.dim) == (20, 5), name
        np.testing.assert_array_equal(store.take(rows), embeddings[rows], err_msg=name)
        for size in (1, 6, 100):
            seen = list(store.blocks(size))
            assert max(len(block) for _, block in seen) <= size
            assert [start for start, _ in seen] == np.cumsum(
                [0, *(len(block) for _, block in seen[:-1])]
            ).tolist()
            np.testing.assert_array_equal(np.concatenate([block for _, block in seen]), embeddings)


def test_squared_distances_are_those_of_the_rows(tmp_path):
    embeddings, queries = noise(20), noise(3, seed=1)
    rows = np.array([[0, 19, 7], [6, -1, 6], [-1, -1, -1]])
    expected = np.square(queries[:, None].astype(np.float64) - embeddings[rows]).sum(axis=2)
    expected[rows < 0] = np.inf
    for store in stores(embeddings, tmp_path).values():
        np.testing.assert_allclose(store.squared_distances(queries, rows), expected, rtol=1e-6)
    empty = ArrayStore(embeddings[:0])
    assert np.isinf(empty.squared_distances(queries, np.full((3, 2), -1))).all()


def test_an_empty_store_has_a_width_and_no_rows():
    store = ArrayStore(np.empty((0, 4), dtype=np.float32))
    assert (len(store), store.dim, list(store.blocks(3))) == (0, 4, [])
    assert store.take(np.empty(0, dtype=np.int64)).shape == (0, 4)


def test_blocks_from_starts_in_the_middle_of_a_block():
    store = ArrayStore([noise(7), noise(6, seed=1)])
    seen = list(blocks_from(store, 5, 4))
    assert [start for start, _ in seen] == [5, 7, 11]
    np.testing.assert_array_equal(
        np.concatenate([block for _, block in seen]), store.take(np.arange(5, 13))
    )


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([], ValueError, "arrays is empty"),
        ([[1.0, 2.0]], TypeError, "gallery embeddings are list; expected a NumPy array"),
        (noise(3).astype(np.float64), TypeError, "gallery embeddings are float64"),
        (noise(3)[0], ValueError, r"have shape \(5,\)"),
        ([noise(3), noise(3, 4)], ValueError, "are 4 wide, the index 5"),
    ],
)
def test_what_is_no_store_is_refused(arrays, error, message):
    with pytest.raises(error, match=message):
        ArrayStore(arrays)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda store: store.take(np.array([0, -1])), IndexError, "row -1 is asked of 6; .*0 to 5"),
        (lambda store: store.take(np.array([0, 6])), IndexError, "row 6 is asked of 6; .*0 to 5"),
        (lambda store: store.squared_distances(noise(1), np.array([[0, 6]])), IndexError,
         "row 6 is asked of 6"),
        (lambda store: store.squared_distances(noise(1, 4), np.array([[0]])), ValueError,
         r"queries have shape \(1, 4\); expected \(1, 5\)"),
        (lambda store: list(store.blocks(0)), ValueError, "size is 0; expected at least 1"),
    ],
)  # fmt: skip
def test_rows_and_sizes_out_of_range_are_refused(ask, error, message):
    with pytest.raises(error, match=message):
        ask(ArrayStore([noise(3), noise(3)]))


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinity"), (np.inf, "NaN"), (1e19, "length 1e\\+19")]
)
def test_bad_values_are_named_by_their_row(value, message):
    embeddings = noise(9)
    embeddings[6, 2] = value
    with pytest.raises(ValueError, match=f"gallery embedding row 6 .*{message}"):
        list(blocks_from(ArrayStore(embeddings), 2, 3))
    with pytest.raises(ValueError, match="query embedding row 106 "):
        check_lengths(embeddings, "query", first_row=100)
