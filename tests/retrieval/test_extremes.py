"""Which queries are shown as the worst and the best."""

import pandas as pd

from visual_search.retrieval.extremes import best_first, worst_first


def table(*lines: tuple[str, str, float, list[float], list[bool]]) -> pd.DataFrame:
    columns = ["query_id", "category", "precision"]
    columns += ["neighbour_squared_distances", "neighbour_relevant"]
    return pd.DataFrame(list(lines), columns=columns)


NOTHING_RIGHT = [
    ("q1", "hat", 0.0, [0.50, 0.60], [False, False]),
    ("q2", "hat", 0.0, [0.01, 0.02], [False, False]),
    ("q3", "hat", 0.0, [0.02, 0.03], [False, False]),
    ("q4", "shoe", 0.0, [0.90, 0.95], [False, False]),
    ("q5", "bag", 0.5, [0.00, 0.01], [True, False]),
    ("q6", "bag", float("nan"), [0.00, 0.01], [False, False]),
]


def test_the_worst_are_spread_over_categories_the_surest_mistake_first() -> None:
    queries = table(*NOTHING_RIGHT)
    order = queries["query_id"].iloc[worst_first(queries, "precision")].tolist()
    assert order == ["q2", "q4", "q3", "q1", "q5"], "a score of 0.5 waits for every 0"


def test_the_best_are_those_that_found_right_ones_nearest() -> None:
    queries = table(
        ("far", "hat", 1.0, [0.9], [True]),
        ("near", "hat", 1.0, [0.1], [True]),
        ("half", "hat", 0.5, [0.0], [True]),
        ("other", "bag", 1.0, [2.0], [True]),
    )
    order = queries["query_id"].iloc[best_first(queries, "precision")].tolist()
    assert order == ["near", "other", "far", "half"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    queries = table(*NOTHING_RIGHT)
    turned = queries.iloc[::-1].reset_index(drop=True)
    for order in (worst_first, best_first):
        ids = [q["query_id"].iloc[order(q, "precision")].tolist() for q in (queries, turned)]
        assert ids[0] == ids[1]


def test_queries_that_found_nothing_come_last_among_equals() -> None:
    queries = table(("a", "hat", 0.0, [], []), ("b", "hat", 0.0, [0.1], [False]))
    assert worst_first(queries, "precision").tolist() == [1, 0]
