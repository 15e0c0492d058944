from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.equality import count_equal, equal_codes


def test_many_columns_of_many_values_are_told_apart():
    """The product of the columns' sizes, 500^12, is far above what an integer holds."""
    rng = np.random.default_rng(0)
    names = [f"c{n}" for n in range(12)]
    table = pd.DataFrame({name: rng.permutation(500).astype(str) for name in names})
    table = pd.concat([table, table.iloc[::-1]], ignore_index=True)
    codes = equal_codes(table, np.arange(1000), names)
    assert codes.dtype == np.int64
    assert len(set(codes[:500].tolist())) == 500
    assert codes[:500].tolist() == codes[:499:-1].tolist()


@pytest.mark.parametrize("empty_is_none", [False, True])
def test_against_a_comparison_of_every_pair(empty_is_none):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({name: rng.choice(["", "x", "y"], 30).tolist() for name in "abc"})
    rows = rng.permutation(30)[:20]
    for columns in (["a"], ["a", "b"], ["c", "b", "a"], []):
        codes = equal_codes(table, rows, columns, empty_is_none=empty_is_none)
        values = [tuple(table[name][row] for name in columns) for row in rows]
        for (i, a), (j, b) in itertools.product(enumerate(values), repeat=2):
            if empty_is_none and not all(a):
                assert codes[i] == -1
            else:
                assert codes[i] >= 0
                assert (codes[i] == codes[j]) == (a == b)


def test_counts_against_a_loop():
    rng = np.random.default_rng(2)
    for num, queries, parts in itertools.product((0, 1, 12), (0, 1, 9), (1, 2, 3)):
        codes = [rng.integers(-1, 4, num + queries) for _ in range(parts)]
        keys = list(zip(*(part.tolist() for part in codes), strict=True))
        expected = [keys[:num].count(key) for key in keys[num:]]
        assert count_equal(num, *codes).tolist() == expected
