"""Which queries are shown as the worst and the best."""

import pandas as pd

from visual_search.retrieval.extremes import best_first, worst_first

COLUMNS = ["category", "precision", "neighbour_squared_distances", "neighbour_relevant"]


def order_of(how, queries: dict[str, tuple], turned: bool = False) -> list[str]:
    table = pd.DataFrame(list(queries.values()), columns=COLUMNS).assign(query_id=list(queries))
    if turned:
        table = table.iloc[::-1].reset_index(drop=True)
    return table["query_id"].iloc[how(table, "precision")].tolist()


NOTHING_RIGHT = {
    "q1": ("hat", 0.0, [0.50, 0.60], [False, False]),
    "q2": ("hat", 0.0, [0.01, 0.02], [False, False]),
    "q3": ("hat", 0.0, [0.02, 0.03], [False, False]),
    "q4": ("shoe", 0.0, [0.90, 0.95], [False, False]),
    "q5": ("bag", 0.5, [0.00, 0.01], [True, False]),
    "q6": ("bag", float("nan"), [0.00, 0.01], [False, False]),
}


def test_the_worst_are_spread_over_categories_the_surest_mistake_first() -> None:
    """A score of 0.5 waits for every 0; the order of the rows does not matter."""
    for turned in (False, True):
        assert order_of(worst_first, NOTHING_RIGHT, turned) == ["q2", "q4", "q3", "q1", "q5"]
    assert order_of(best_first, NOTHING_RIGHT) == order_of(best_first, NOTHING_RIGHT, True)


def test_the_best_are_those_that_found_right_ones_nearest() -> None:
    queries = {
        "far": ("hat", 1.0, [0.9], [True]),
        "near": ("hat", 1.0, [0.1], [True]),
        "half": ("hat", 0.5, [0.0], [True]),
        "other": ("bag", 1.0, [2.0], [True]),
    }
    assert order_of(best_first, queries) == ["near", "other", "far", "half"]


def test_queries_that_found_nothing_come_last_among_equals() -> None:
    queries = {"a": ("hat", 0.0, [], []), "b": ("hat", 0.0, [0.1], [False])}
    assert order_of(worst_first, queries) == ["b", "a"]
