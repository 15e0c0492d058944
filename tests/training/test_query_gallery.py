"""Who asks whom: every kind of leak, what each way of handling it does, and what is none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.sources import ArraySource
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.protocols import (
    cold_start,
    cross_domain,
    gallery_query,
    instance,
    leave_one_out,
    reference_2023,
)
from visual_search.training.query_gallery import LeakError, Sides, choose_sides

COLUMNS = ["item_id", "category", "group", "split", "source", "picture"]
CLEAN = pd.DataFrame(
    [
        ("g1", "hat", "G1", "train", "shop", 1),
        ("g2", "hat", "G2", "train", "shop", 2),
        ("g3", "shoe", "G3", "train", "shop", 3),
        ("q1", "hat", "Q1", "test", "scene", 4),
        ("q2", "hat", "Q2", "test", "scene", 5),
        ("q3", "shoe", "Q3", "test", "scene", 6),
    ],
    columns=COLUMNS,
)


def changed(items: pd.DataFrame = CLEAN, **fields: dict[str, Any]) -> pd.DataFrame:
    """The clean items with fields of some replaced: ``group={"q1": "G1"}``."""
    table = items.copy()
    for column, values in fields.items():
        table[column] = (
            table["item_id"].map(values).fillna(table[column]).astype(table[column].dtype)
        )
    return table


def choose(
    protocol: Protocol,
    items: pd.DataFrame,
    on_progress: Callable[[int, int], None] | None = None,
    **rules: Any,
) -> Sides:
    """The sides of a protocol with other rules, over items whose pictures are plain colours."""
    numbers = items["picture"].to_numpy(dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (len(items), 3, 8, 8)).copy()
    table = items.drop(columns="picture").assign(image=items["item_id"])
    source = ArraySource(pictures.transpose(0, 2, 3, 1), table["item_id"].tolist())
    catalog, chosen = Catalog("shop", table, source), replace(protocol, **rules)
    return choose_sides(chosen, catalog, pictures, "test", on_progress)  # type: ignore[arg-type]


def ids(items: pd.DataFrame, rows: NDArray[np.int64]) -> list[str]:
    found: list[str] = items["item_id"].iloc[rows].tolist()
    return found


GROUP_LEAK = changed(group={"q1": "G1"})
PIXEL_LEAK = changed(picture={"q2": 2})


def test_clean_sides_are_as_the_protocol_chose_them() -> None:
    calls: list[tuple[int, int]] = []
    sides = choose(gallery_query(), CLEAN, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    assert ids(CLEAN, sides.selection.gallery_rows) == ["g1", "g2", "g3"]
    assert ids(CLEAN, sides.selection.query_rows) == ["q1", "q2", "q3"]
    assert not sides.leaks
    assert sides.leaks is not None
    assert sides.leaks.num_pairs == {"pixels": 0, "group": 0}
    assert (sides.trained_leaks, sides.num_dropped) == (None, 0)
    with pytest.raises(ValueError, match="did you mean 'category'"):
        choose(gallery_query(relevance=["categori"]), CLEAN)


@pytest.mark.parametrize(
    ("items", "kind", "pair"),
    [
        (GROUP_LEAK, "group", "'q1' and gallery item 'g1'"),
        (PIXEL_LEAK, "pixels", "'q2' and gallery item 'g2'"),
    ],
    ids=["group", "pixels"],
)
def test_a_leak_is_an_error_that_names_the_pair_and_the_way_out(
    items: pd.DataFrame, kind: str, pair: str
) -> None:
    with pytest.raises(LeakError) as caught:
        choose(gallery_query(), items)
    for text in (
        f"{kind}: query {pair}", "protocol 'gallery_query', test queries", "1 query leaks",
        "data.group=COLUMN", "protocol.exclude=group", "protocol.on_leak=drop leaves 1 query out",
        "protocol.on_leak=allow",
    ):  # fmt: skip
        assert text in str(caught.value), text


BY_GROUP = gallery_query(exclude="group")
OWN_COPY = changed(group={"q1": "G1"}, picture={"q1": 1})
BOTH_COPY = changed(group={"q1": "G1"}, picture={"q1": 1, "q2": 1})
TWO_COPIES = changed(group={"q1": "G1"}, picture={"q1": 1, "g2": 1})
PAIR = changed(group={"q2": "Q1"})
ACROSS = cross_domain("source", "scene", "shop")


@pytest.mark.parametrize(
    ("protocol", "items", "pairs"),
    [
        pytest.param(gallery_query(), GROUP_LEAK, ["q1 g1"], id="a shared group"),
        pytest.param(gallery_query(), PIXEL_LEAK, ["q2 g2"], id="a copy"),
        pytest.param(gallery_query(), OWN_COPY, ["q1 g1"], id="both"),
        pytest.param(BY_GROUP, GROUP_LEAK, [], id="the group is excluded"),
        pytest.param(BY_GROUP, OWN_COPY, [], id="a copy within the excluded group"),
        pytest.param(BY_GROUP, PIXEL_LEAK, ["q2 g2"], id="a copy in another group"),
        # q1 and q2 show what g1 shows: q1 belongs to g1's group, q2 does not.
        pytest.param(BY_GROUP, BOTH_COPY, ["q2 g1"], id="only the other group's is a pair"),
        pytest.param(BY_GROUP, TWO_COPIES, ["q1 g2"], id="nor is the own one beside it"),
        pytest.param(leave_one_out(), PAIR, [], id="neither the query nor its group"),
        pytest.param(leave_one_out(exclude="item"), PAIR, ["q1 q2", "q2 q1"], id="its group"),
        # Where the group is what is asked for, only copies leak.
        pytest.param(ACROSS, GROUP_LEAK, [], id="the group is asked for"),
        pytest.param(ACROSS, OWN_COPY, ["q1 g1"], id="a copy in the group that is asked for"),
        pytest.param(instance(), PAIR.assign(product=PAIR["group"]), [], id="the product is"),
    ],
)
def test_what_leaks_and_what_becomes_of_it(
    protocol: Protocol, items: pd.DataFrame, pairs: list[str]
) -> None:
    allowed = choose(protocol, items, on_leak="allow")
    assert ids(items, allowed.selection.query_rows) == ["q1", "q2", "q3"]
    assert allowed.num_dropped == 0
    assert allowed.leaks is not None
    assert sorted({f"{p.query_id} {p.gallery_id}" for p in allowed.leaks.pairs}) == pairs
    concerned = {pair.split()[0] for pair in pairs}
    if protocol.exclude == "group":
        assert allowed.leaks.num_pairs == {"pixels": len(pairs)}
    if not pairs:
        assert not choose(protocol, items).leaks
        return
    with pytest.raises(LeakError, match=pairs[0].split()[1]):
        choose(protocol, items)
    if protocol.name != "leave_one_out":
        sides = choose(protocol, items, on_leak="drop")
        kept = [query for query in ("q1", "q2", "q3") if query not in concerned]
        assert ids(items, sides.selection.query_rows) == kept
        assert ids(items, sides.selection.gallery_rows) == ["g1", "g2", "g3"]
        assert sides.num_dropped == len(concerned)
        assert sides.leaks is not None
        assert set(sides.leaks.query_ids) == concerned  # what was found stays told


def test_nothing_left_after_dropping_is_an_error() -> None:
    items = changed(group={"q1": "G1", "q2": "G1", "q3": "G1"})
    with pytest.raises(ValueError, match=r"on_leak=drop would take out all 3 queries of the test"):
        choose(gallery_query(on_leak="drop"), items)


def test_the_rule_of_2023_checks_nothing() -> None:
    sides = choose(reference_2023(), PIXEL_LEAK)
    assert sides.leaks is None
    assert len(sides.selection.query_rows) == 6


def test_cold_start_is_held_against_the_training_items() -> None:
    cold = changed(category={"q1": "bag", "q2": "bag", "q3": "bag"})
    sides = choose(cold_start(), cold)
    for rows in (sides.selection.query_rows, sides.selection.gallery_rows):
        assert ids(cold, rows) == ["q1", "q2", "q3"]
    assert sides.trained_leaks is not None
    assert not sides.trained_leaks

    copied = changed(cold, picture={"q2": 2})
    with pytest.raises(LeakError, match=r"(?s)against the training items.*'q2'.*'g2'"):
        choose(cold_start(), copied)
    sides = choose(cold_start(on_leak="drop"), copied)
    for rows in (sides.selection.query_rows, sides.selection.gallery_rows):  # nor is it found
        assert ids(cold, rows) == ["q1", "q3"]
    assert sides.num_dropped == 1

    grouped = changed(cold, group={"q1": "G1"})
    with pytest.raises(LeakError, match=r"(?s)against the training items.*group: query 'q1'.*'g1'"):
        choose(cold_start(exclude="item"), grouped)
    assert choose(cold_start(on_leak="allow"), grouped).trained_leaks
