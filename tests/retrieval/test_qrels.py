from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.measure import count_admitted
from visual_search.retrieval.protocol import Exclude, Protocol, Selection
from visual_search.retrieval.qrels import admitted_pairs, hides_only_itself, relevant_pairs


def unasked(table: pd.DataFrame, split: str) -> Selection:
    raise AssertionError("the sides are given")


def drawn(rng: np.random.Generator) -> tuple[pd.DataFrame, Selection]:
    """30 items, of which some ask and some are found, some of them both."""
    table = pd.DataFrame({name: rng.choice(["", "x", "y"], 30) for name in ("category", "colour")})
    table["item_id"] = [f"i{row}" for row in range(30)]
    table["group"] = rng.choice(["g", "h", "k", "l"], 30)
    sides = [np.sort(rng.permutation(30)[:12]) for _ in range(2)]
    return table, Selection(*sides)


@pytest.mark.parametrize("exclude", ["item", "group", "nothing"])
@pytest.mark.parametrize("restrict_to", [(), ("colour",)])
def test_pairs_are_those_of_a_loop_over_all(exclude: Exclude, restrict_to: tuple[str, ...]) -> None:
    rng = np.random.default_rng(3)
    for relevance in (("category",), ("category", "colour")):
        table, selection = drawn(rng)
        rules: dict[str, Any] = {"relevance": relevance, "restrict_to": restrict_to}
        protocol = Protocol("p", "?", 5, unasked, exclude=exclude, **rules)
        own = {"item": "item_id", "group": "group", "nothing": None}[exclude]
        sides = selection.query_rows, selection.gallery_rows
        wanted: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for (query, q), (item, g) in itertools.product(*(enumerate(side) for side in sides)):
            asks, found = table.iloc[q], table.iloc[g]
            hidden = own is not None and asks[own] == found[own]
            if hidden or any(asks[column] != found[column] for column in restrict_to):
                continue
            wanted[False].append((query, item))
            if all(asks[column] == found[column] != "" for column in relevance):
                wanted[True].append((query, item))
        for pairs, is_relevant in ((relevant_pairs, True), (admitted_pairs, False)):
            given = pairs(table, protocol, selection)
            found = list(zip(given.queries.tolist(), given.gallery.tolist(), strict=True))
            assert found == wanted[is_relevant]
            columns = relevance if is_relevant else ()
            counts = count_admitted(table, protocol, selection, columns)
            assert np.bincount(given.queries, minlength=12).tolist() == counts.tolist()
        whole = [pair for pair in itertools.product(range(12), range(12))
                 if exclude == "nothing" or sides[0][pair[0]] != sides[1][pair[1]]]  # fmt: skip
        assert hides_only_itself(table, protocol, selection) == (wanted[False] == whole)


def test_groups_of_one_item_hide_no_more_than_the_item() -> None:
    table = pd.DataFrame({"item_id": ["a", "b"], "group": ["a", "b"], "category": ["x", "x"]})
    selection = Selection(np.array([0, 1]), np.array([0, 1]))
    protocol = Protocol("p", "?", 1, unasked, exclude="group")
    assert hides_only_itself(table, protocol, selection)
    assert relevant_pairs(table, protocol, selection).gallery.tolist() == [1, 0]
