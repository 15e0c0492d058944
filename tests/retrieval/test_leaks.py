from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.leaks import KINDS, find_leaks


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["item_id", "group", "pixels"])


def random_table(number: int, seed: int) -> pd.DataFrame:
    """An item is the same in every table: its group and pixels follow from its id."""
    ids = np.random.default_rng(seed).choice(number * 2, number, replace=False)
    return frame(*((f"i{i:05d}", f"g{i * 7 % 8}", f"p{i * 13 % 11}") for i in ids))


GALLERY, QUERIES = random_table(60, 1), random_table(40, 2)


def by_hand(check: tuple[str, ...]) -> list[tuple]:
    """Every pair of GALLERY and QUERIES looked at: the slow, obvious way."""
    found = []
    for query in QUERIES.itertuples():
        for item in GALLERY.itertuples():
            if query.item_id == item.item_id:
                shared = {"item": query.item_id}
            else:
                both = {"pixels": query.pixels, "group": query.group}
                shared = {k: v for k, v in both.items() if v == getattr(item, k)}
            kinds = [kind for kind in shared if kind in check]
            if kinds:
                found.append((kinds[0], query.item_id, item.item_id, shared[kinds[0]]))
    return sorted(found, key=lambda pair: (KINDS.index(pair[0]), pair[1], pair[2]))


@pytest.mark.parametrize(
    "check", [KINDS, ("item",), ("pixels",), ("group",), ("group", "item"), ("pixels", "group")]
)
def test_all_pairs_as_by_hand_and_in_any_order_of_rows(check: tuple[str, ...]) -> None:
    expected = by_hand(check)
    leaks = find_leaks(GALLERY, QUERIES, check=check, max_listed=10_000)
    assert [tuple(pair) for pair in leaks.pairs] == expected
    assert expected
    counts = pd.Series([pair[0] for pair in expected]).value_counts().to_dict()
    assert leaks.num_pairs == {kind: counts.get(kind, 0) for kind in KINDS if kind in check}
    assert leaks.query_ids == tuple(sorted({pair[1] for pair in expected}))
    assert leaks
    kept = QUERIES[~QUERIES["item_id"].isin(leaks.query_ids)]
    assert not find_leaks(GALLERY, kept, check=check)
    shuffled = [table.sample(frac=1, random_state=3) for table in (GALLERY, QUERIES)]
    assert find_leaks(*shuffled, check=check, max_listed=10_000) == leaks


def test_fewer_listed_are_the_first_and_counts_stay() -> None:
    every = find_leaks(GALLERY, QUERIES, max_listed=10_000)
    for number in (0, 1, 17, 40):
        some = find_leaks(GALLERY, QUERIES, max_listed=number)
        assert some.pairs == every.pairs[:number]
        assert (some.num_pairs, some.query_ids) == (every.num_pairs, every.query_ids)
    assert len(every.pairs) > 100
    assert find_leaks(GALLERY, QUERIES).pairs == every.pairs[:100]


def test_a_query_and_itself_is_only_ever_an_item() -> None:
    table = frame(("a", "g", "p"))
    for queries in (table, frame(("a", "h", "q"))):  # another group on each side leaks once
        leaks = find_leaks(table, queries)
        assert leaks.num_pairs == {"item": 1, "pixels": 0, "group": 0}
        assert [tuple(pair) for pair in leaks.pairs] == [("item", "a", "a", "a")]
    assert not find_leaks(table, table, check=("pixels", "group"))


def test_no_leak_and_empty_tables() -> None:
    gallery, queries = frame(("a", "g", "p")), frame(("b", "h", "q"))
    leaks = find_leaks(gallery, queries)
    assert not leaks
    assert leaks.describe().startswith("No leak: 1 query and 1 gallery item, and no item or pixels")
    for left, right in ((frame(), queries), (gallery, frame()), (frame(), frame())):
        assert not find_leaks(left, right)


def test_the_text_counts_and_names() -> None:
    key = "0123456789abcdef" * 3
    gallery = frame(("a", "g", key), ("b", "h", "x"), ("c", "h", "y"), ("q2", "k", "z"))
    leaks = find_leaks(gallery, frame(("q1", "h", key), ("q2", "k", "z")))
    assert leaks.describe().splitlines() == [
        "2 queries leak into the gallery, in 4 pairs:",
        "  1 by item (the query itself is in the gallery)",
        "  1 by pixels (two items, every pixel the same)",
        "  2 by group (two items of one group, such as a board or a product)",
        "The first of them, of 2 queries and 4 gallery items:",
        "  item: query 'q2' is itself in the gallery",
        "  pixels: query 'q1' and gallery item 'a' share the pixels '0123456789ab…'",
        "  group: query 'q1' and gallery item 'b' share the group 'h'",
        "  group: query 'q1' and gallery item 'c' share the group 'h'",
    ]
    short = leaks.describe(max_shown=1)
    assert short.endswith("is itself in the gallery\n  ... and 3 more pairs")
    assert "The first" not in leaks.describe(max_shown=0)


def test_one_group_that_holds_everything_is_counted_without_a_list() -> None:
    """6e8 pairs: no memory would hold a list of them."""
    sides = (("g", 60_000), ("q", 10_000))
    gallery, queries = (
        pd.DataFrame({"item_id": [f"{side}{i}" for i in range(number)]}).assign(
            group="all", pixels="same"
        )
        for side, number in sides
    )
    queries.loc[9_999, "pixels"] = "other"
    leaks = find_leaks(gallery, queries, max_listed=5)
    assert leaks.num_pairs == {"item": 0, "pixels": 9_999 * 60_000, "group": 60_000}
    assert (len(leaks.query_ids), len(leaks.pairs)) == (10_000, 5)


GOOD = frame(("a", "g", "p"))


@pytest.mark.parametrize(
    ("gallery", "queries", "more", "message"),
    [
        *((GOOD, GOOD, {"check": check}, r"check is .*; expected one or more of \['item', 'pix")
          for check in ("item", (), ("items",))),
        (GOOD, GOOD.drop(columns="pixels"), {}, r"query table lacks the column\(s\) \['pixels'\]"),
        (frame(("a", "g", "p"), ("b", "", "p")), GOOD, {},
         "gallery table holds '' as group in row 1"),
        (GOOD, GOOD.assign(pixels=[None]), {}, "query table holds None as pixels in row 0"),
        (frame(("a", "g", "p"), ("a", "h", "q")), GOOD, {}, r"1 gallery id\(s\) .* first 'a'"),
        (GOOD, GOOD, {"max_listed": -1}, "max_listed is -1; expected 0 or above"),
    ],
)  # fmt: skip
def test_tables_and_settings_that_are_refused(gallery, queries, more, message) -> None:
    with pytest.raises(ValueError, match=message):
        find_leaks(gallery, queries, **more)


def test_a_column_that_is_not_compared_may_lack() -> None:
    assert not find_leaks(GOOD, GOOD.drop(columns="pixels"), check=("group",))
