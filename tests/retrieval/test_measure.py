from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.retrieval import measure
from visual_search.retrieval.measure import Neighbours, find_neighbours, identity, score
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.protocols import gallery_query


def a_table(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Values that are easily taken for each other, some of them empty, groups that cross."""
    columns = {
        "category": ["a", "b", "a / b"],
        "colour": ["", "c", "b / c", "/ c"],
        "kind": ["", "x", "y"],
        "group": [f"g{n}" for n in range(max(2, count // 3))],
    }
    table = {name: rng.choice(values, count).tolist() for name, values in columns.items()}
    ids = rng.permutation([f"item-{n}" for n in range(count)]).tolist()
    return pd.DataFrame({"item_id": ids, "image": ids, **table})


def rules(selection: Selection | None = None, **settings) -> Protocol:
    sides = selection or Selection(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    settings = {"k": 5, "relevance": ("category",), **settings}
    return Protocol("test", "As tested.", select=lambda table, split: sides, **settings)


def find(table, protocol, selection, embeddings, **more) -> Neighbours:
    gallery = selection.gallery_rows
    ids = table["item_id"].iloc[gallery].tolist()
    index = EmbeddingIndex.build(embeddings[gallery], ids, device="cpu")
    asked = embeddings[selection.query_rows]
    return find_neighbours(index, table, protocol, selection, asked, **more)


def evaluate(table, protocol, selection, embeddings):
    return score(table, protocol, selection, find(table, protocol, selection, embeddings))


def named(count: int, **columns) -> pd.DataFrame:
    ids = [f"i{n:04}" for n in range(count)]
    return pd.DataFrame({"item_id": ids, "group": ids, "category": "hat", **columns})


def shop(count: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    table = a_table(rng, count)
    rows = np.arange(count)
    embeddings = rng.integers(0, 4, (count, 3)).astype(np.float32)
    return table, Selection(rows[: count // 2], rows[count // 3 :]), embeddings


def test_one_large_group_costs_only_its_own_queries():
    """Whoever asks from a group of 300 gets the ranks behind it; nobody else searches as deep."""
    table = named(400, group=["large"] * 300 + [f"g{n}" for n in range(100)])
    embeddings = np.arange(400, dtype=np.float32)[:, None]
    selection = Selection(np.arange(400), np.array([0, 350]))
    found = find(table, rules(selection, exclude="group"), selection, embeddings)
    assert found.positions.tolist() == [[300, 301, 302, 303, 304], [349, 351, 348, 352, 347]]
    held = np.zeros(400, dtype=np.int64)
    held[300:] = np.arange(1, 101)
    members, own = np.arange(4), np.array([0, 7, 8, 1000])
    batches = [(d, rows.tolist()) for d, rows in measure._batches(members, held, own, 5)]
    assert batches == [(5, [3]), (6, [1, 2]), (400, [0])]


@pytest.mark.parametrize(
    "settings", [{"exclude": "group"}, {"restrict_to": ("colour", "kind"), "k": 2}]
)
def test_a_search_in_small_batches_finds_the_same(monkeypatch, settings):
    table, selection, embeddings = shop()
    calls: list[tuple[int, int]] = []
    search = (table, rules(selection, **settings), selection, embeddings)
    whole = find(*search)
    monkeypatch.setattr(measure, "BATCH_PAIRS", 20)
    parts = find(*search, on_progress=lambda *now: calls.append(now))
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(values, getattr(parts, name))
    done = [now for now, _ in calls]
    assert len(set(done)) > 3
    assert done == sorted(done)
    assert calls[-1] == (40, 40)


def test_queries_whose_part_of_the_gallery_is_empty_are_counted_as_answered():
    table = named(4, category=["x", "x", "x", "y"])
    selection = Selection(np.array([0, 1]), np.array([2, 3]))
    rule = rules(selection, k=2, restrict_to=("category",))
    search = (table, rule, selection, np.eye(4, dtype=np.float32))
    calls: list[tuple[int, int]] = []
    found = find(*search, on_progress=lambda *now: calls.append(now))
    assert found.num_found.tolist() == [2, 0]
    assert found.found.tolist() == [[True, True], [False, False]]
    assert found.squared_distances.tolist() == [[2.0, 2.0], [math.inf, math.inf]]
    assert calls[-1] == (2, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude": "group", "hierarchy": ("category", "colour")},
        {"relevance": ("category", "colour"), "restrict_to": ("kind",), "k": 3},
        {"exclude": "nothing"},
    ],
)
def test_the_order_of_the_catalogue_changes_no_digit(settings):
    table, selection, embeddings = shop()
    protocol = rules(selection, **settings)
    report = evaluate(table, protocol, selection, embeddings)
    order = np.random.default_rng(1).permutation(len(table))
    turned = table.iloc[order].reset_index(drop=True)
    place = np.argsort(order)
    sides = (selection.gallery_rows, selection.query_rows)
    other_sides = Selection(*(np.sort(place[rows]) for rows in sides))
    other = evaluate(turned, protocol, other_sides, embeddings[order])
    assert other.summary == report.summary
    pd.testing.assert_frame_equal(other.per_category, report.per_category, check_exact=True)
    first, second = (
        one.per_query.sort_values("query_id", ignore_index=True) for one in (report, other)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    known = identity(table, protocol, selection)
    assert identity(turned, protocol, other_sides) == known


def test_random_embeddings_score_at_chance():
    """Precision at k is then the share of relevant items among those that are admitted."""
    rng, rows = np.random.default_rng(0), np.arange(2000)
    categories = rng.choice(["a", "b", "c"], 2000, p=[0.6, 0.3, 0.1])
    table = named(2000, group=[f"g{n // 2}" for n in rows], category=categories)
    selection = Selection(rows, rows)
    embeddings = rng.standard_normal((2000, 8)).astype(np.float32)
    report = evaluate(table, rules(selection, exclude="group"), selection, embeddings)
    chance = float((table["category"].value_counts(normalize=True) ** 2).sum())
    assert report.summary["micro_precision_at_5"] == pytest.approx(chance, abs=0.02)
    assert report.summary["macro_precision_at_5"] == pytest.approx(1 / 3, abs=0.03)


# --- identity -----------------------------------------------------------------------------------

TABLE, SIDES, EMBEDDINGS = shop()
PLAIN, COLOURED = rules(SIDES), rules(SIDES, relevance=("category", "colour"))
REPAINTED, REGROUPED = TABLE.assign(colour="red"), TABLE.assign(group=TABLE["item_id"])
FEWER_ITEMS = Selection(SIDES.gallery_rows[:-1], SIDES.query_rows)
FEWER_QUERIES = Selection(SIDES.gallery_rows, SIDES.query_rows[1:])


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ((TABLE, PLAIN, SIDES), (TABLE, PLAIN, SIDES), ""),
        ((TABLE, PLAIN, SIDES), (REPAINTED, PLAIN, SIDES), ""),  # nobody looks at the colour
        ((TABLE, COLOURED, SIDES), (REPAINTED, COLOURED, SIDES), "gallery queries"),
        ((TABLE, PLAIN, SIDES), (REGROUPED, PLAIN, SIDES), "gallery queries"),
        ((TABLE, PLAIN, SIDES), (TABLE, COLOURED, SIDES), "gallery queries protocol"),
        ((TABLE, PLAIN, SIDES), (TABLE, PLAIN, FEWER_ITEMS), "gallery"),
        ((TABLE, PLAIN, SIDES), (TABLE, PLAIN, FEWER_QUERIES), "queries"),
        ((TABLE, PLAIN, SIDES), (TABLE, rules(SIDES, k=4), SIDES), "protocol"),
        ((TABLE, PLAIN, SIDES), (TABLE, rules(SIDES, exclude="group"), SIDES), "protocol"),
        # decides the sides, which have hashes of their own
        ((TABLE, PLAIN, SIDES), (TABLE, rules(SIDES, on_leak="drop"), SIDES), ""),
    ],
)
def test_the_hashes_tell_what_the_rules_look_at(first, second, differs):
    a, b = identity(*first), identity(*second)
    parts = ("gallery", "queries", "protocol")
    assert [part for part in parts if a[part] != b[part]] == differs.split()


def test_the_pictures_count():
    known = identity(TABLE, PLAIN, SIDES)
    keys = [
        identity(
            TABLE, PLAIN, SIDES, content_keys=lambda images, end=end: [i + end for i in images]
        )
        for end in ("", "", "-again")
    ]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0]["gallery"] not in (keys[2]["gallery"], known["gallery"])


def test_another_seed_counts_only_where_it_chooses_other_items():
    table = TABLE.assign(split=["train", "test"] * 30)
    found = []
    for seed, most in itertools.product((0, 1), (100, 3)):
        protocol = gallery_query(gallery_seed=seed, max_per_category=most)
        found.append(identity(table, protocol, protocol.choose(table, "test")))
    all_0, few_0, all_1, few_1 = found
    assert all_0 == all_1
    assert few_0["gallery"] != few_1["gallery"]
    assert few_0["protocol"] == few_1["protocol"] == all_0["protocol"]


def test_what_the_identity_says():
    found = identity(TABLE, PLAIN, SIDES)
    told = [found[key] for key in ("protocol_name", "num_gallery", "num_queries", "rules")]
    assert told == ["test", 30, 40, PLAIN.rules()]
    assert all(len(found[key]) == 64 for key in ("gallery", "queries", "protocol"))


# --- refusals -----------------------------------------------------------------------------------


def with_nan(asked):
    return np.where(np.arange(40)[:, None] == 7, np.float32(math.nan), asked)


@pytest.mark.parametrize(
    ("sides", "change", "error", "message"),
    [
        (replace(SIDES, gallery_rows=SIDES.gallery_rows[::-1]), np.asarray, ValueError,
         r"index holds 30 item\(s\) that are not the gallery's"),
        (SIDES, lambda asked: asked[1:], ValueError, "39 query embeddings for 40 queries"),
        (SIDES, lambda asked: asked[:, :2], ValueError, "are 2 wide, the index 3"),
        (SIDES, lambda asked: asked.astype(float), TypeError, "query embeddings are float64"),
        (SIDES, with_nan, ValueError,
         rf"row \d+ \('{TABLE['item_id'][SIDES.query_rows[7]]}'\) holds NaN"),
    ],
)  # fmt: skip
def test_another_index_or_other_queries_are_refused(sides, change, error, message):
    index = EmbeddingIndex.build(EMBEDDINGS[:30], TABLE["item_id"].tolist()[:30], device="cpu")
    protocol = rules(SIDES, exclude="group")
    with pytest.raises(error, match=message):
        find_neighbours(index, TABLE, protocol, sides, change(EMBEDDINGS[SIDES.query_rows]))


@pytest.mark.parametrize("k", [30, 31])
def test_k_that_no_query_can_be_given_is_refused(k):
    within = Selection(SIDES.gallery_rows, SIDES.gallery_rows)
    with pytest.raises(ValueError, match=rf"protocol.k is {k}, .* more than 29 item\(s\) in"):
        find(TABLE, rules(within, k=k), within, EMBEDDINGS)
    nobody = Selection(SIDES.gallery_rows, SIDES.query_rows[:0])
    with pytest.raises(ValueError, match=r"no query finds more than 0 item\(s\)"):
        find(TABLE, rules(nobody), nobody, EMBEDDINGS)


@pytest.mark.parametrize(("k", "sides"), [(4, SIDES), (5, FEWER_QUERIES)])
def test_neighbours_of_another_search_are_refused(k, sides):
    found = find(TABLE, PLAIN, SIDES, EMBEDDINGS)
    with pytest.raises(ValueError, match=rf"\(40, 5\); .* \({len(sides.query_rows)}, {k}\)"):
        score(TABLE, rules(sides, k=k), sides, found)
