"""What stands on both sides, among the queries and in the gallery, before a number is computed.

The same item, the same pixels or the same group on both sides is a mistake in the data or its
splits: an error, with the pairs named. What only looks the same is in `near_duplicates.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.wording import many

LeakKind = Literal["item", "pixels", "group"]
KINDS: tuple[LeakKind, ...] = get_args(LeakKind)  # the strongest first
_MEANING = {
    "item": "the query itself is in the gallery",
    "pixels": "two items, every pixel the same",
    "group": "two items of one group, such as a board or a product",
}


class LeakedPair(NamedTuple):
    """A query and a gallery item that must not stand on both sides, and what they share."""

    kind: LeakKind
    query_id: str
    gallery_id: str
    shared: str


@dataclass(frozen=True)
class Leaks:
    """What queries and gallery share; true when that is anything.

    Attributes:
        num_pairs: Kind -> pairs, for each kind that was checked, the strongest first. A pair counts
            once, under the strongest of its kinds.
        query_ids: The queries of all these pairs, sorted: without them nothing leaks.
        pairs: The first of the pairs, by kind, then query id, then gallery id.
        num_queries: Queries that were checked.
        num_gallery: Gallery items that were checked.
    """

    num_pairs: dict[LeakKind, int]
    query_ids: tuple[str, ...]
    pairs: tuple[LeakedPair, ...]
    num_queries: int
    num_gallery: int

    def __bool__(self) -> bool:
        return bool(self.query_ids)

    def describe(self, max_shown: int = 10) -> str:
        """Returns the text for an error or a report: the counts, then the first pairs by name."""
        sides = (
            f"{many(self.num_queries, 'query', 'queries')} and "
            f"{many(self.num_gallery, 'gallery item')}"
        )
        if not self:
            checked = " or ".join(self.num_pairs)
            return f"No leak: {sides}, and no {checked} on both sides."
        total = sum(self.num_pairs.values())
        which = many(len(self.query_ids), "query leaks", "queries leak")
        lines = [f"{which} into the gallery, in {many(total, 'pair')}:"]
        lines += [
            f"  {number:,} by {kind} ({_MEANING[kind]})" for kind, number in self.num_pairs.items()
        ]
        shown = self.pairs[: max(0, max_shown)]
        if shown:
            lines.append(f"The first of them, of {sides}:")
            lines += [f"  {_sentence(pair)}" for pair in shown]
            if total > len(shown):
                lines.append(f"  ... and {many(total - len(shown), 'more pair')}")
        return "\n".join(lines)


def find_leaks(
    gallery: pd.DataFrame,
    queries: pd.DataFrame,
    *,
    check: Sequence[LeakKind] = KINDS,
    max_listed: int = 100,
) -> Leaks:
    """Looks for items, pixels and groups that stand on both sides.

    A pair of a query and a gallery item is reported once, under the strongest kind that is checked:
    ``item`` before ``pixels`` before ``group``. A query and itself is a matter of ``item`` alone:
    where that is not checked, as in leave-one-out, where the search excludes the query by its id,
    the two are no pair at all. Every pair is counted, also where there are too many to list.

    Args:
        gallery: One row an item: ``item_id`` (each once), ``group`` where groups are checked, and
            ``pixels``, the key of the picture's pixels, where these are checked. Text, not empty.
        queries: The same for the queries.
        check: The kinds to look for.
        max_listed: Pairs to list; all are counted.

    Returns:
        The same for every order of the rows.

    Raises:
        ValueError: A column that is needed is missing or empty in a row, an item id stands twice on
            one side, ``check`` is empty or names another kind, or ``max_listed`` is negative.

    Example:
        >>> columns = ["item_id", "group", "pixels"]
        >>> gallery = [["a", "board-1", "5f"], ["b", "board-2", "07"]]
        >>> queries = [["q", "board-1", "07"], ["r", "board-3", "c4"]]
        >>> tables = [pd.DataFrame(rows, columns=columns) for rows in (gallery, queries)]
        >>> leaks = find_leaks(*tables)
        >>> leaks.num_pairs, leaks.query_ids
        ({'item': 0, 'pixels': 1, 'group': 1}, ('q',))
        >>> [tuple(pair) for pair in leaks.pairs]
        [('pixels', 'q', 'b', '07'), ('group', 'q', 'a', 'board-1')]
    """
    if isinstance(check, str) or not check or set(check) - set(KINDS):
        raise ValueError(
            f"check is {check!r}; expected one or more of {list(KINDS)}: name what must not stand "
            "on both sides"
        )
    check_max_listed(max_listed)
    kinds = [kind for kind in KINDS if kind in check]
    columns = ["item_id", *(kind for kind in kinds if kind != "item")]
    gallery = _checked_table(gallery, "gallery", columns)
    queries = _checked_table(queries, "query", columns)
    ids, query_ids = gallery["item_id"].to_numpy(), queries["item_id"].to_numpy()
    itself = rows_of(ids, query_ids)  # [Q], -1 for none
    shared = {kind: _Shared(gallery[kind], queries[kind], itself) for kind in columns[1:]}

    num_pairs: dict[LeakKind, NDArray[np.int64]] = {}  # kind -> [Q]
    for kind in kinds:
        num_pairs[kind] = (itself >= 0).astype(np.int64) if kind == "item" else shared[kind].count()
    if "pixels" in shared and "group" in shared:  # what shares both is counted as pixels
        num_pairs["group"] -= shared["group"].count(also=shared["pixels"])

    pairs: list[LeakedPair] = []
    for kind in kinds:
        for query in np.flatnonzero(num_pairs[kind]).tolist():  # ascending: by id
            room = max_listed - len(pairs)
            if room <= 0:
                break
            query_id = query_ids[query]
            if kind == "item":
                pairs.append(LeakedPair(kind, query_id, query_id, query_id))
                continue
            rows = shared[kind].gallery_rows(query)
            if kind == "group" and "pixels" in shared:
                rows = rows[~shared["pixels"].same(query, rows)]
            value = str(queries[kind].iloc[query])
            pairs += [LeakedPair(kind, query_id, ids[row], value) for row in rows[:room]]
    concerned = np.sum(list(num_pairs.values()), axis=0) > 0  # [Q]
    return Leaks(
        num_pairs={kind: int(numbers.sum()) for kind, numbers in num_pairs.items()},
        query_ids=tuple(query_ids[concerned]),
        pairs=tuple(pairs),
        num_queries=len(queries),
        num_gallery=len(gallery),
    )


class _Shared:
    """Which gallery rows have a query's value in one column; the query itself is left out."""

    def __init__(self, gallery: pd.Series, queries: pd.Series, itself: NDArray[np.int64]) -> None:
        codes: NDArray[np.int64] = pd.factorize(pd.concat([gallery, queries]))[0].astype(np.int64)
        self.gallery, self.queries = codes[: len(gallery)], codes[len(gallery) :]  # [N], [Q]
        self.itself = itself
        self._order = np.argsort(self.gallery, kind="stable")
        self._sorted = self.gallery[self._order]

    def count(self, also: _Shared | None = None) -> NDArray[np.int64]:
        """Counts each query's gallery rows, those that share ``also`` if given: ``[Q] int64``."""
        gallery, queries = self.gallery, self.queries
        if also is not None:
            width = 1 + max(also.gallery.max(initial=0), also.queries.max(initial=0))
            gallery, queries = gallery * width + also.gallery, queries * width + also.queries
        ordered = np.sort(gallery)
        first = np.searchsorted(ordered, queries, side="left")
        end = np.searchsorted(ordered, queries, side="right")
        numbers: NDArray[np.int64] = (end - first).astype(np.int64)
        known = np.flatnonzero(self.itself >= 0)
        numbers[known] -= gallery[self.itself[known]] == queries[known]
        return numbers

    def gallery_rows(self, query: int) -> NDArray[np.int64]:
        """Returns the gallery rows of one query, ascending: ``[n] int64``."""
        first, end = np.searchsorted(self._sorted, [self.queries[query], self.queries[query] + 1])
        rows = self._order[first:end]
        return np.asarray(rows[rows != self.itself[query]], dtype=np.int64)

    def same(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self.gallery[rows] == self.queries[query])


def rows_of(ids: NDArray[np.object_], wanted: NDArray[np.object_]) -> NDArray[np.int64]:
    """Returns the row of each wanted id among the ids, -1 where it has none."""
    row_of_id = {item_id: row for row, item_id in enumerate(ids)}
    return np.array([row_of_id.get(item_id, -1) for item_id in wanted], dtype=np.int64)


def _checked_table(table: pd.DataFrame, side: str, columns: Sequence[str]) -> pd.DataFrame:
    """Returns these columns as Python texts, the rows in the order of their ids."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"the {side} table lacks the column(s) {missing}; expected {list(columns)}: add them "
            "(catalog.duplicates.pixel_keys gives `pixels`), or leave them out of `check`"
        )
    table = table[list(columns)].astype(object)
    for column in columns:
        bad = np.flatnonzero([not isinstance(v, str) or not v for v in table[column]])
        if len(bad):
            raise ValueError(
                f"the {side} table holds {table[column].iloc[bad[0]]!r} as {column} in row "
                f"{bad[0]} ({len(bad)} such row(s)); expected text that is not empty: fill it, "
                "since empty values would match each other"
            )
    check_once(list(table["item_id"]), side)
    order = np.argsort(table["item_id"].to_numpy(), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def check_once(item_ids: Sequence[str], side: str) -> None:
    """Checks that no item id stands twice on one side.

    Args:
        item_ids: The ids.
        side: ``gallery`` or ``query``, for the message.

    Raises:
        ValueError: An id stands twice; the message names the first.
    """
    ids = pd.Series(list(item_ids), dtype=object)
    twice = ids[ids.duplicated()]
    if len(twice):
        raise ValueError(
            f"{len(twice)} {side} id(s) stand twice, first {twice.iloc[0]!r}; expected each item "
            "once on each side: remove the copies"
        )


def check_max_listed(max_listed: int) -> None:
    """Checks how many pairs are to be listed.

    Raises:
        ValueError: It is negative.
    """
    if max_listed < 0:
        raise ValueError(f"max_listed is {max_listed}; expected 0 or above: 0 counts only")


def _sentence(pair: LeakedPair) -> str:
    if pair.kind == "item":
        return f"item: query {pair.query_id!r} is itself in the gallery"
    shared = (
        f"{pair.shared[:12]}…" if len(pair.shared) > 32 and pair.kind == "pixels" else pair.shared
    )
    what = "the pixels" if pair.kind == "pixels" else "the group"
    return (
        f"{pair.kind}: query {pair.query_id!r} and gallery item {pair.gallery_id!r} share {what} "
        f"{shared!r}"
    )
