"""Who asks whom: every kind of leak, what each way of handling it does, and what is none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.sources import ArraySource
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.protocols import (
    cold_start,
    cross_domain,
    gallery_query,
    leave_one_out,
    reference_2023,
)
from visual_search.training.query_gallery import LeakError, Sides, choose_sides

# id, category, group, split, source, number of the picture
Row = tuple[str, str, str, str, str, int]
CLEAN: list[Row] = [
    ("g1", "hat", "G1", "train", "shop", 1),
    ("g2", "hat", "G2", "train", "shop", 2),
    ("g3", "shoe", "G3", "train", "shop", 3),
    ("q1", "hat", "Q1", "test", "scene", 4),
    ("q2", "hat", "Q2", "test", "scene", 5),
    ("q3", "shoe", "Q3", "test", "scene", 6),
]


def changed(**fields: dict[str, Any]) -> list[Row]:
    """The clean rows with fields of some items replaced: ``group={"q1": "G1"}``."""
    table = pd.DataFrame(
        CLEAN, columns=["item_id", "category", "group", "split", "source", "picture"]
    )
    for column, values in fields.items():
        for item_id, value in values.items():
            table.loc[table["item_id"] == item_id, column] = value
    return list(table.itertuples(index=False, name=None))


def choose(protocol: Protocol, rows: list[Row], split: str = "test", **rules: Any) -> Sides:
    """The sides of a protocol with other rules, over rows whose pictures are plain colours."""
    table = pd.DataFrame(
        rows, columns=["item_id", "category", "group", "split", "source", "picture"]
    )
    numbers = table.pop("picture").to_numpy(dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (len(table), 3, 8, 8)).copy()
    names = table["item_id"].tolist()
    table["image"] = names
    source = ArraySource(pictures.transpose(0, 2, 3, 1), names)
    chosen = replace(protocol, **rules) if rules else protocol
    return choose_sides(chosen, Catalog("shop", table, source), pictures, split)  # type: ignore[arg-type]


def queries(sides: Sides, rows: list[Row]) -> list[str]:
    return [rows[row][0] for row in sides.selection.query_rows]


def gallery(sides: Sides, rows: list[Row]) -> list[str]:
    return [rows[row][0] for row in sides.selection.gallery_rows]


GROUP_LEAK = changed(group={"q1": "G1"})
PIXEL_LEAK = changed(picture={"q2": 2})


def test_clean_sides_are_as_the_protocol_chose_them() -> None:
    sides = choose(gallery_query(), CLEAN)
    assert gallery(sides, CLEAN) == ["g1", "g2", "g3"]
    assert queries(sides, CLEAN) == ["q1", "q2", "q3"]
    assert not sides.leaks
    assert sides.leaks is not None
    assert sides.leaks.num_pairs == {"pixels": 0, "group": 0}
    assert sides.trained_leaks is None
    assert sides.num_dropped == 0


@pytest.mark.parametrize(
    ("rows", "kind", "pair", "concerned"),
    [
        pytest.param(GROUP_LEAK, "group", "'q1' and gallery item 'g1'", "q1", id="group"),
        pytest.param(PIXEL_LEAK, "pixels", "'q2' and gallery item 'g2'", "q2", id="pixels"),
    ],
)
def test_a_leak_is_an_error_that_names_the_pair_and_the_way_out(
    rows: list[Row], kind: str, pair: str, concerned: str
) -> None:
    with pytest.raises(LeakError) as caught:
        choose(gallery_query(), rows)
    message = str(caught.value)
    for text in (
        f"{kind}: query {pair}", "protocol 'gallery_query', test queries", "1 query leaks",
        "data.group=COLUMN", "protocol.exclude=group", "protocol.on_leak=drop leaves 1 query out",
        "protocol.on_leak=allow",
    ):  # fmt: skip
        assert text in message, text


BY_GROUP = gallery_query(exclude="group")
OWN_COPY = changed(group={"q1": "G1"}, picture={"q1": 1})
BOTH_COPY = changed(group={"q1": "G1"}, picture={"q1": 1, "q2": 1})
TWO_COPIES = changed(group={"q1": "G1"}, picture={"q1": 1, "g2": 1})
PAIR = changed(group={"q2": "Q1"})
ACROSS = cross_domain("source", "scene", "shop")


@pytest.mark.parametrize(
    ("protocol", "rows", "pairs"),
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
    ],
)
def test_what_leaks_and_what_becomes_of_it(
    protocol: Protocol, rows: list[Row], pairs: list[str]
) -> None:
    allowed = choose(protocol, rows, on_leak="allow")
    assert queries(allowed, rows) == ["q1", "q2", "q3"]
    assert allowed.num_dropped == 0
    assert allowed.leaks is not None
    assert sorted({f"{p.query_id} {p.gallery_id}" for p in allowed.leaks.pairs}) == pairs
    concerned = {pair.split()[0] for pair in pairs}
    if protocol.exclude == "group":
        assert allowed.leaks.num_pairs == {"pixels": len(pairs)}
    if not pairs:
        assert not choose(protocol, rows).leaks
        return
    with pytest.raises(LeakError, match=pairs[0].split()[1]):
        choose(protocol, rows)
    if len(concerned) < 3 and protocol.name != "leave_one_out":
        sides = choose(protocol, rows, on_leak="drop")
        assert queries(sides, rows) == [q for q in ("q1", "q2", "q3") if q not in concerned]
        assert gallery(sides, rows) == ["g1", "g2", "g3"]
        assert sides.num_dropped == len(concerned)
        assert sides.leaks is not None
        assert set(sides.leaks.query_ids) == concerned  # what was found stays told


def test_nothing_left_after_dropping_is_an_error() -> None:
    rows = changed(group={"q1": "G1", "q2": "G1", "q3": "G1"})
    with pytest.raises(ValueError, match=r"on_leak=drop would take out all 3 queries of the test"):
        choose(gallery_query(on_leak="drop"), rows)


def test_the_rule_of_2023_checks_nothing() -> None:
    sides = choose(reference_2023(), PIXEL_LEAK)
    assert sides.leaks is None
    assert len(sides.selection.query_rows) == 6


COLD = changed(category={"q1": "bag", "q2": "bag", "q3": "bag"})


def test_cold_start_is_held_against_the_training_items() -> None:
    sides = choose(cold_start(), COLD)
    assert queries(sides, COLD) == gallery(sides, COLD) == ["q1", "q2", "q3"]
    assert sides.trained_leaks is not None
    assert not sides.trained_leaks


def test_a_copy_of_a_training_item_leaks_under_cold_start() -> None:
    rows = [(*row[:5], 2) if row[0] == "q2" else row for row in COLD]
    with pytest.raises(LeakError, match=r"(?s)against the training items.*'q2'.*'g2'"):
        choose(cold_start(), rows)
    sides = choose(cold_start(on_leak="drop"), rows)
    assert queries(sides, rows) == gallery(sides, rows) == ["q1", "q3"]  # nor is it found
    assert sides.num_dropped == 1


def test_a_group_that_was_trained_on_leaks_under_cold_start() -> None:
    rows = [("q1", "bag", "G1", "test", "scene", 4) if row[0] == "q1" else row for row in COLD]
    with pytest.raises(LeakError, match=r"(?s)against the training items.*group: query 'q1'.*'g1'"):
        choose(cold_start(exclude="item"), rows)
    assert choose(cold_start(on_leak="allow"), rows).trained_leaks


def test_every_picture_is_counted_in_the_progress() -> None:
    table = pd.DataFrame(CLEAN, columns=["item_id", "category", "group", "split", "s", "image"])
    table["image"] = table["item_id"]
    pictures = np.random.default_rng(0).integers(0, 255, (6, 3, 8, 8), dtype=np.uint8)
    source = ArraySource(pictures.transpose(0, 2, 3, 1), table["item_id"].tolist())
    calls: list[tuple[int, int]] = []
    choose_sides(
        gallery_query(), Catalog("shop", table, source), pictures, "test",  # type: ignore[arg-type]
        lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls[-1] == (6, 6)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'category'"):
        choose(gallery_query(relevance=["categori"]), CLEAN)
