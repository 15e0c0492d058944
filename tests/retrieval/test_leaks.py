from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from visual_search.retrieval.leaks import KINDS, find_leaks

COLUMNS = ["item_id", "group", "pixels"]


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=COLUMNS)


def random_table(number: int, seed: int, values: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ids = rng.choice(number * 2, number, replace=False)
    return pd.DataFrame(
        {
            "item_id": [f"i{i:05d}" for i in ids],
            # an item is the same in both tables: its group and pixels follow from its id
            "group": [f"g{(i * 7) % values}" for i in ids],
            "pixels": [f"p{(i * 13) % (values + 3)}" for i in ids],
        }
    )


def by_hand(gallery: pd.DataFrame, queries: pd.DataFrame, check: tuple[str, ...]) -> list[tuple]:
    """Every pair looked at: the slow, obvious way."""
    found = []
    for query in queries.itertuples():
        for item in gallery.itertuples():
            if query.item_id == item.item_id:
                kinds = ["item"] if "item" in check else []
                shared = {"item": query.item_id}
            else:
                shared = {"pixels": query.pixels, "group": query.group}
                kinds = [k for k in ("pixels", "group") if k in check]
                kinds = [k for k in kinds if getattr(query, k) == getattr(item, k)]
            if kinds:
                found.append((kinds[0], query.item_id, item.item_id, shared[kinds[0]]))
    return sorted(found, key=lambda pair: (KINDS.index(pair[0]), pair[1], pair[2]))


@pytest.mark.parametrize(
    "check", [KINDS, ("item",), ("pixels",), ("group",), ("group", "item"), ("pixels", "group")]
)
def test_all_pairs_as_by_hand(check: tuple[str, ...]) -> None:
    gallery, queries = random_table(60, 1, 8), random_table(40, 2, 8)
    expected = by_hand(gallery, queries, check)
    leaks = find_leaks(gallery, queries, check=check, max_listed=10_000)
    assert [tuple(pair) for pair in leaks.pairs] == expected
    assert expected
    counts = pd.Series([pair[0] for pair in expected]).value_counts().to_dict()
    assert leaks.num_pairs == {kind: counts.get(kind, 0) for kind in KINDS if kind in check}
    assert leaks.query_ids == tuple(sorted({pair[1] for pair in expected}))
    assert leaks
    kept = queries[~queries["item_id"].isin(leaks.query_ids)]
    assert not find_leaks(gallery, kept, check=check)


def test_fewer_listed_are_the_first_and_counts_stay() -> None:
    gallery, queries = random_table(60, 1, 8), random_table(40, 2, 8)
    every = find_leaks(gallery, queries, max_listed=10_000)
    for number in (0, 1, 17, 40):
        some = find_leaks(gallery, queries, max_listed=number)
        assert some.pairs == every.pairs[:number]
        assert (some.num_pairs, some.query_ids) == (every.num_pairs, every.query_ids)


def test_the_order_of_rows_changes_nothing() -> None:
    gallery, queries = random_table(60, 1, 8), random_table(40, 2, 8)
    shuffled = [table.sample(frac=1, random_state=3) for table in (gallery, queries)]
    assert find_leaks(*shuffled) == find_leaks(gallery, queries)


def test_a_query_and_itself_is_only_ever_an_item() -> None:
    table = frame(("a", "g", "p"))
    leaks = find_leaks(table, table)
    assert leaks.num_pairs == {"item": 1, "pixels": 0, "group": 0}
    assert [tuple(pair) for pair in leaks.pairs] == [("item", "a", "a", "a")]
    assert not find_leaks(table, table, check=("pixels", "group"))


def test_one_item_with_another_group_on_each_side_leaks_once() -> None:
    leaks = find_leaks(frame(("a", "g", "p")), frame(("a", "h", "q")))
    assert leaks.num_pairs == {"item": 1, "pixels": 0, "group": 0}


def test_no_leak_and_empty_tables() -> None:
    gallery, queries = frame(("a", "g", "p")), frame(("b", "h", "q"))
    leaks = find_leaks(gallery, queries)
    assert not leaks
    assert leaks.describe() == (
        "No leak: 1 query and 1 gallery item, and no item or pixels or group on both sides."
    )
    for left, right in ((frame(), queries), (gallery, frame()), (frame(), frame())):
        assert not find_leaks(left, right)


def test_the_text_counts_and_names() -> None:
    key = "0123456789abcdef" * 3
    gallery = frame(("a", "g", key), ("b", "h", "x"), ("c", "h", "y"), ("q2", "k", "z"))
    queries = frame(("q1", "h", key), ("q2", "k", "z"))
    text = find_leaks(gallery, queries).describe()
    assert text.splitlines() == [
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
    short = find_leaks(gallery, queries).describe(max_shown=1)
    assert short.endswith("is itself in the gallery\n  ... and 3 more pairs")
    assert "The first" not in find_leaks(gallery, queries).describe(max_shown=0)


def test_one_group_that_holds_everything_is_counted_without_a_list() -> None:
    gallery = pd.DataFrame({"item_id": [f"g{i}" for i in range(60_000)], "group": "all"})
    queries = pd.DataFrame({"item_id": [f"q{i}" for i in range(10_000)], "group": "all"})
    gallery["pixels"] = "same"
    queries["pixels"] = ["same"] * 9_999 + ["other"]
    leaks = find_leaks(gallery, queries, max_listed=5)
    assert leaks.num_pairs == {"item": 0, "pixels": 9_999 * 60_000, "group": 60_000}
    assert len(leaks.query_ids) == 10_000
    assert len(leaks.pairs) == 5


@pytest.mark.parametrize("check", ["item", (), ("items",)])
def test_another_kind_is_refused(check: object) -> None:
    with pytest.raises(ValueError, match=r"check is .*; expected one or more of \['item', 'pix"):
        find_leaks(frame(), frame(), check=check)


def test_tables_that_are_refused() -> None:
    good = frame(("a", "g", "p"))
    with pytest.raises(ValueError, match=r"query table lacks the column\(s\) \['pixels'\]"):
        find_leaks(good, good.drop(columns="pixels"))
    assert not find_leaks(good, good.drop(columns="pixels"), check=("group",))
    with pytest.raises(ValueError, match="gallery table holds '' as group in row 1"):
        find_leaks(frame(("a", "g", "p"), ("b", "", "p")), good)
    with pytest.raises(ValueError, match="query table holds None as pixels in row 0"):
        find_leaks(good, good.assign(pixels=[None]))
    with pytest.raises(ValueError, match=r"1 gallery id\(s\) stand twice, first 'a'"):
        find_leaks(frame(("a", "g", "p"), ("a", "h", "q")), good)
    with pytest.raises(ValueError, match="max_listed is -1; expected 0 or above"):
        find_leaks(good, good, max_listed=-1)
