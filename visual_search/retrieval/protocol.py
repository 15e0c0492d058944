"""Who is query, who is gallery, what counts as relevant, and what leaks from one to the other.

A table is a catalogue's: one row an item, with the text columns ``item_id``, ``category``,
``group`` and ``split``. Rows are its row numbers, 0..n-1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RELEVANCE_RULE = "A gallery item is relevant to a query when both have the same category."
EXCLUSION_RULE = (
    "The query is excluded from its own neighbours, and from R, by its item id: never by rank or "
    "by zero distance."
)
TIE_RULE = "Items at the same squared distance are ranked by their item ids, in code point order."

MAX_PER_CATEGORY = 1000  # the reference study's index


def stable_order(item_ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Gives the positions of the ids in a shuffled order that each id decides for itself.

    The order is that of SHA-256 over seed and id: the same on every machine and for every model,
    and an item that is added takes a place between the others without moving them.

    Returns:
        ``[n] int64``, a permutation of 0..n-1.

    Example:
        >>> ids = ["a", "b", "c", "d", "e"]
        >>> [ids[i] for i in stable_order(ids, seed=0)]
        ['c', 'd', 'b', 'e', 'a']
        >>> fewer = ["e", "d", "b"]
        >>> [fewer[i] for i in stable_order(fewer, seed=0)]
        ['d', 'b', 'e']
    """
    keys = [hashlib.sha256(f"{seed}\x1f{item_id}".encode()).digest() for item_id in item_ids]
    order = sorted(range(len(keys)), key=lambda i: (keys[i], item_ids[i]))
    return np.array(order, dtype=np.int64)


def gallery_splits(query_split: str, splits: Sequence[str] = ("train",)) -> tuple[str, ...]:
    """Gives the splits that the gallery is drawn from: the split that is asking is left out.

    Args:
        query_split: Where the queries come from.
        splits: Where gallery items may come from.

    Raises:
        ValueError: No split remains.

    Example:
        >>> gallery_splits("test", ["train", "val", "test"])
        ('train', 'val')
    """
    if isinstance(splits, str):
        splits = [splits]
    remaining = tuple(dict.fromkeys(split for split in splits if split != query_split))
    if not remaining:
        raise ValueError(
            f"the gallery's splits are {list(splits)}, and the queries come from {query_split!r}; "
            "expected at least one other split: name one, such as 'train'"
        )
    return remaining


def select_gallery(
    table: pd.DataFrame,
    *,
    splits: Sequence[str] = ("train",),
    kind: Literal["per_category", "random"] = "per_category",
    max_per_category: int = MAX_PER_CATEGORY,
    num_items: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Chooses the gallery: the same items for every model on the same data.

    Args:
        table: The catalogue's table.
        splits: Where the items come from; see `gallery_splits`.
        kind: ``per_category`` takes at most ``max_per_category`` items of each category,
            ``random`` takes ``num_items`` whatever their category.
        max_per_category: For ``per_category``.
        num_items: For ``random``.
        seed: Another seed chooses other items. Items that are added to the catalogue displace only
            those that they come before in the `stable_order`.

    Returns:
        Row numbers, ascending, ``[N] int64``.

    Raises:
        ValueError: A column is missing, ``kind`` has another name, a number is missing, below 1 or
            above what the splits hold, or the splits hold nothing.

    Example:
        >>> table = pd.DataFrame({
        ...     "item_id": ["a", "b", "c", "d"],
        ...     "category": ["hat", "hat", "shoe", "hat"],
        ...     "split": ["train", "train", "train", "test"],
        ... })
        >>> select_gallery(table, max_per_category=1)
        array([1, 2])
    """
    _check_columns(table, ("item_id", "category", "split"))
    splits = [splits] if isinstance(splits, str) else list(splits)
    rows = np.flatnonzero(table["split"].isin(splits).to_numpy())  # [n]
    if not len(rows):
        raise ValueError(_no_items(table, f"the gallery's split(s) {splits}"))
    ids = table["item_id"].to_numpy(dtype=object)[rows]
    shuffled = rows[stable_order(ids.tolist(), seed)]  # [n]
    if kind == "per_category":
        if max_per_category < 1:
            raise ValueError(f"max_per_category is {max_per_category}; expected at least 1")
        categories = table["category"].iloc[shuffled]
        chosen = shuffled[(categories.groupby(categories).cumcount() < max_per_category).to_numpy()]
    elif kind == "random":
        if num_items is None or not 1 <= num_items <= len(rows):
            raise ValueError(
                f"num_items is {num_items}; expected a number from 1 to {len(rows)}, the items of "
                f"the split(s) {splits}, for a random gallery: set it within that"
            )
        chosen = shuffled[:num_items]
    else:
        raise ValueError(f"kind is {kind!r}; expected 'per_category' or 'random': choose one")
    return np.sort(chosen).astype(np.int64)


def select_queries(table: pd.DataFrame, split: str) -> NDArray[np.int64]:
    """Gives the rows of the split that asks, ascending (``[Q] int64``).

    Raises:
        ValueError: The column is missing, or the split holds nothing.

    Example:
        >>> select_queries(pd.DataFrame({"split": ["train", "val", "val"]}), "val")
        array([1, 2])
    """
    _check_columns(table, ("split",))
    rows = np.flatnonzero((table["split"] == split).to_numpy()).astype(np.int64)
    if not len(rows):
        raise ValueError(_no_items(table, f"the query split {split!r}"))
    return rows


def relevant(
    query_categories: Sequence[str] | NDArray[np.object_],
    neighbour_categories: NDArray[np.object_],
) -> NDArray[np.bool_]:
    """Says which neighbours have their query's category (``[Q] and [Q, K] -> [Q, K] bool``).

    Example:
        >>> relevant(["hat"], np.array([["hat", "shoe"]], dtype=object))
        array([[ True, False]])
    """
    queries = np.array([*query_categories, None], dtype=object)[:-1]  # [Q]
    return np.asarray(neighbour_categories == queries[:, None], dtype=np.bool_)


def count_relevant(
    query_ids: Sequence[str],
    query_categories: Sequence[str],
    gallery_ids: Sequence[str],
    gallery_categories: Sequence[str],
) -> NDArray[np.int64]:
    """Counts R: the gallery items of the query's category, the query itself excluded by id.

    Returns:
        ``[Q] int64``.

    Example:
        >>> count_relevant(["a", "x"], ["hat", "hat"], ["a", "b"], ["hat", "hat"]).tolist()
        [1, 2]
    """
    totals = pd.Series(list(gallery_categories), dtype=object).value_counts().to_dict()
    category_of = dict(zip(gallery_ids, gallery_categories, strict=True))
    return np.array(
        [
            totals.get(category, 0) - (category_of.get(query_id) == category)
            for query_id, category in zip(query_ids, query_categories, strict=True)
        ],
        dtype=np.int64,
    )


@dataclass(frozen=True)
class Leaks:
    """What queries and gallery share.

    Attributes:
        num_same_items: Queries whose item is in the gallery. Within one split that is leave-one-out
            and fine, since a query is excluded by id; they are listed in ``num_pairs`` only
            where the splits differ.
        num_pairs: Pairs of a query and a gallery item from different splits with one group (a
            board, a product): what the split should have kept together.
        pairs: The first of them, as (query id, gallery id, group), sorted.
    """

    num_same_items: int
    num_pairs: int
    pairs: tuple[tuple[str, str, str], ...]

    def __bool__(self) -> bool:
        return self.num_pairs > 0


def find_leaks(gallery: pd.DataFrame, queries: pd.DataFrame, *, max_listed: int = 100) -> Leaks:
    """Looks for groups that stand on both sides although the splits should keep them apart.

    Args:
        gallery: Rows of a table with ``item_id``, ``group`` and ``split``.
        queries: The same for the queries.
        max_listed: Pairs to list; all are counted.

    Raises:
        ValueError: A column is missing.

    Example:
        >>> columns = ["item_id", "group", "split"]
        >>> gallery = pd.DataFrame([["a", "board-1", "train"]], columns=columns)
        >>> queries = pd.DataFrame([["b", "board-1", "test"]], columns=columns)
        >>> find_leaks(gallery, queries)
        Leaks(num_same_items=0, num_pairs=1, pairs=(('b', 'a', 'board-1'),))
    """
    needed = ("item_id", "group", "split")
    for table in (gallery, queries):
        _check_columns(table, needed)
    members: dict[str, list[tuple[str, str]]] = {}  # group -> (gallery id, split)
    for item_id, group, split in gallery[list(needed)].itertuples(index=False, name=None):
        members.setdefault(group, []).append((item_id, split))
    num_pairs = 0
    pairs: list[tuple[str, str, str]] = []
    rows = sorted(queries[list(needed)].itertuples(index=False, name=None))
    for item_id, group, split in rows:
        found = sorted(other for other, where in members.get(group, ()) if where != split)
        num_pairs += len(found)
        pairs += [(item_id, other, group) for other in found[: max_listed - len(pairs)]]
    same_items = set(gallery["item_id"]) & set(queries["item_id"])
    return Leaks(len(same_items), num_pairs, tuple(pairs))


def _check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise ValueError(
            f"the table lacks the column(s) {missing}; expected {list(needed)}: pass a catalogue's "
            "table"
        )


def _no_items(table: pd.DataFrame, what: str) -> str:
    counts = {str(split): int(n) for split, n in table["split"].value_counts().items()}
    return (
        f"{what} hold(s) none of the {len(table)} item(s); expected a split among {counts}: choose "
        "one of them, or assign the splits first"
    )
