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


def shop(count: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    table = a_table(rng, count)
    rows = np.arange(count)
    embeddings = rng.integers(0, 4, (count, 3)).astype(np.float32)
    return table, Selection(rows[: count // 2], rows[count // 3 :]), embeddings


def test_one_large_group_costs_only_its_own_queries():
    """Whoever asks from a group of 300 gets the ranks behind it; nobody else searches as deep."""
    count = 400
    table = pd.DataFrame(
        {
            "item_id": [f"i{n:03}" for n in range(count)],
            "group": ["large"] * 300 + [f"g{n}" for n in range(100)],
            "category": ["hat"] * count,
        }
    )
    embeddings = np.arange(count, dtype=np.float32)[:, None]
    selection = Selection(np.arange(count), np.array([0, 350]))
    found = find(table, rules(selection, exclude="group"), selection, embeddings)
    assert found.positions.tolist() == [[300, 301, 302, 303, 304], [349, 351, 348, 352, 347]]
    held = np.zeros(count, dtype=np.int64)
    held[300:] = np.arange(1, 101)
    members, own = np.arange(4), np.array([0, 7, 8, 1000])
    batches = [(d, rows.tolist()) for d, rows in measure._batches(members, held, own, 5)]
    assert batches == [(5, [3]), (6, [1, 2]), (400, [0])]


def test_a_search_in_small_batches_finds_the_same(monkeypatch):
    table, selection, embeddings = shop()
    calls: list[tuple[int, int]] = []
    for settings in ({"exclude": "group"}, {"restrict_to": ("colour", "kind"), "k": 2}):
        protocol = rules(selection, **settings)
        whole = find(table, protocol, selection, embeddings)
        with monkeypatch.context() as patch:
            patch.setattr(measure, "BATCH_PAIRS", 20)
            calls.clear()
            parts = find(
                table, protocol, selection, embeddings, on_progress=lambda *now: calls.append(now)
            )
        for name, values in vars(whole).items():
            np.testing.assert_array_equal(values, getattr(parts, name))
        done = [now for now, _ in calls]
        assert len(set(done)) > 3
        assert done == sorted(done)
        assert calls[-1] == (40, 40)


def test_queries_whose_part_of_the_gallery_is_empty_are_counted_as_answered():
    table = pd.DataFrame(
        {"item_id": ["a", "b", "q", "r"], "group": list("abqr"), "category": ["x", "x", "x", "y"]}
    )
    selection = Selection(np.array([0, 1]), np.array([2, 3]))
    protocol = rules(selection, k=2, restrict_to=("category",))
    calls: list[tuple[int, int]] = []
    embeddings = np.eye(4, dtype=np.float32)
    found = find(table, protocol, selection, embeddings, on_progress=lambda *n: calls.append(n))
    assert found.num_found.tolist() == [2, 0]
    assert found.found.tolist() == [[True, True], [False, False]]
    assert found.squared_distances.tolist() == [[2.0, 2.0], [math.inf, math.inf]]
    assert calls[-1] == (2, 2)
    report = score(table, protocol, selection, found)
    assert report.per_query["neighbour_ids"].tolist() == [["a", "b"], []]
    assert report.summary["num_left_out"] == 1


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
    named = identity(table, protocol, selection)
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(len(table))
        place = np.argsort(order)
        other_table = table.iloc[order].reset_index(drop=True)
        sides = (selection.gallery_rows, selection.query_rows)
        other_sides = Selection(*(np.sort(place[rows]) for rows in sides))
        other = evaluate(other_table, protocol, other_sides, embeddings[order])
        assert other.summary == report.summary
        pd.testing.assert_frame_equal(other.per_category, report.per_category, check_exact=True)
        first, second = (
            one.per_query.sort_values("query_id", ignore_index=True) for one in (report, other)
        )
        pd.testing.assert_frame_equal(first, second, check_exact=True)
        assert identity(other_table, protocol, other_sides) == named


def test_random_embeddings_score_at_chance():
    """Precision at k is then the share of relevant items among those that are admitted."""
    rng = np.random.default_rng(0)
    count = 2000
    table = pd.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(count)],
            "group": [f"g{n // 2}" for n in range(count)],
            "category": rng.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1]),
        }
    )
    rows = np.arange(count)
    selection = Selection(rows, rows)
    protocol = rules(selection, exclude="group")
    embeddings = rng.standard_normal((count, 8)).astype(np.float32)
    report = evaluate(table, protocol, selection, embeddings)
    chance = float((table["category"].value_counts(normalize=True) ** 2).sum())
    assert report.summary["micro_precision_at_5"] == pytest.approx(chance, abs=0.02)
    assert report.summary["macro_precision_at_5"] == pytest.approx(1 / 3, abs=0.03)


class TestIdentity:
    def differs(self, first, second):
        """Which of the three hashes differ; each side is (table, protocol, selection)."""
        a, b = identity(*first), identity(*second)
        return [key for key in ("gallery", "queries", "protocol") if a[key] != b[key]]

    def test_what_the_rules_look_at_counts(self):
        table, sides, _ = shop()
        plain, coloured = rules(sides), rules(sides, relevance=("category", "colour"))
        repainted = table.assign(colour="red")
        regrouped = table.assign(group=table["item_id"])
        known = (table, plain, sides)
        assert self.differs(known, known) == []
        assert self.differs(known, (repainted, plain, sides)) == []  # nobody looks at it
        assert self.differs((table, coloured, sides), (repainted, coloured, sides)) == [
            "gallery",
            "queries",
        ]
        assert self.differs(known, (regrouped, plain, sides)) == ["gallery", "queries"]
        assert self.differs(known, (table, coloured, sides)) == ["gallery", "queries", "protocol"]

    def test_the_items_and_the_pictures_count(self):
        table, sides, _ = shop()
        known = (table, rules(sides), sides)
        fewer = Selection(sides.gallery_rows[:-1], sides.query_rows)
        assert self.differs(known, (table, rules(sides), fewer)) == ["gallery"]
        fewer = Selection(sides.gallery_rows, sides.query_rows[1:])
        assert self.differs(known, (table, rules(sides), fewer)) == ["queries"]
        keys = [
            identity(*known, content_keys=lambda images, end=end: [i + end for i in images])
            for end in ("", "", "-again")
        ]
        assert keys[0] == keys[1] != keys[2]
        assert keys[0]["gallery"] not in (keys[2]["gallery"], identity(*known)["gallery"])

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"k": 4}, ["protocol"]),
            ({"exclude": "group"}, ["protocol"]),
            ({"on_leak": "drop"}, []),  # decides the sides, which have hashes of their own
        ],
    )
    def test_the_settings(self, settings, expected):
        table, sides, _ = shop()
        other = rules(sides, **settings)
        assert self.differs((table, rules(sides), sides), (table, other, sides)) == expected

    def test_another_seed_counts_only_where_it_chooses_other_items(self):
        table, _, _ = shop()
        table["split"] = ["train", "test"] * 30
        named = []
        for seed, most in itertools.product((0, 1), (100, 3)):
            protocol = gallery_query(gallery_seed=seed, max_per_category=most)
            named.append(identity(table, protocol, protocol.choose(table, "test")))
        all_0, few_0, all_1, few_1 = named
        assert all_0 == all_1
        assert few_0["gallery"] != few_1["gallery"]
        assert few_0["protocol"] == few_1["protocol"] == all_0["protocol"]

    def test_what_it_says(self):
        table, sides, _ = shop()
        named = identity(table, rules(sides), sides)
        assert (named["protocol_name"], named["num_gallery"], named["num_queries"]) == (
            "test",
            30,
            40,
        )
        assert named["rules"] == rules(sides).rules()
        assert all(len(named[key]) == 64 for key in ("gallery", "queries", "protocol"))


class TestRefusals:
    def test_another_index(self):
        table, sides, embeddings = shop()
        other = replace(sides, gallery_rows=sides.gallery_rows[::-1])
        index = EmbeddingIndex.build(embeddings[:30], table["item_id"].tolist()[:30], device="cpu")
        asked = embeddings[sides.query_rows]
        with pytest.raises(
            ValueError, match=r"index holds 30 item\(s\) that are not the gallery's"
        ):
            find_neighbours(index, table, rules(sides), other, asked)
        with pytest.raises(ValueError, match="39 query embeddings for 40 queries"):
            find_neighbours(index, table, rules(sides), sides, asked[1:])
        with pytest.raises(ValueError, match="are 2 wide, the index 3"):
            find_neighbours(index, table, rules(sides), sides, asked[:, :2])
        with pytest.raises(TypeError, match="query embeddings are float64"):
            find_neighbours(index, table, rules(sides), sides, asked.astype(float))
        asked[7] = math.nan
        name = table["item_id"][sides.query_rows[7]]
        with pytest.raises(ValueError, match=rf"row \d+ \('{name}'\) holds NaN"):
            find_neighbours(index, table, rules(sides, exclude="group"), sides, asked)

    @pytest.mark.parametrize("k", [30, 31])
    def test_k_that_no_query_can_be_given(self, k):
        table, sides, embeddings = shop()
        within = Selection(sides.gallery_rows, sides.gallery_rows)
        with pytest.raises(ValueError, match=rf"protocol.k is {k}, .* more than 29 item\(s\) in"):
            find(table, rules(within, k=k), within, embeddings)
        nobody = Selection(sides.gallery_rows, sides.query_rows[:0])
        with pytest.raises(ValueError, match=r"no query finds more than 0 item\(s\)"):
            find(table, rules(nobody), nobody, embeddings)

    def test_neighbours_of_another_search(self):
        table, sides, embeddings = shop()
        found = find(table, rules(sides), sides, embeddings)
        with pytest.raises(ValueError, match=r"neighbours are \(40, 5\); .* \(40, 4\)"):
            score(table, rules(sides, k=4), sides, found)
        fewer = Selection(sides.gallery_rows, sides.query_rows[1:])
        with pytest.raises(ValueError, match=r"neighbours are \(40, 5\); .* \(39, 5\)"):
            score(table, rules(fewer), fewer, found)
