"""Who is query, who is gallery, and what counts as relevant.

A table is a catalogue's: one row an item, with the text columns ``item_id``, ``category``,
``group`` and ``split``. Rows are its row numbers, 0..n-1.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_k
from visual_search.reading import Rules

Rows: TypeAlias = NDArray[np.int64]
Exclude = Literal["item", "group", "nothing"]
PRODUCT = "product"  # the column of a catalogue whose products have several pictures
OnLeak = Literal["error", "drop", "allow"]

EXCLUSION_RULE = (
    "The query is excluded from its own neighbours, and from R, by its item id: never by rank or "
    "by zero distance."
)
TIE_RULE = "Items at the same squared distance are ranked by their item ids, in code point order."

MAX_PER_CATEGORY = 1000  # the reference study's index


def stable_order(item_ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Returns the positions of the ids in a shuffled order that each id decides for itself.

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
    """Returns the splits that the gallery is drawn from: the split that is asking is left out.

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
    max_per_category: int | None = MAX_PER_CATEGORY,
    num_items: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Chooses the gallery: the same items for every model on the same data.

    Args:
        table: The catalogue's table.
        splits: Where the items come from; see `gallery_splits`.
        kind: ``per_category`` takes at most ``max_per_category`` items of each category,
            ``random`` takes ``num_items`` whatever their category.
        max_per_category: For ``per_category``; None takes all.
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
    check_columns(table, ("item_id", "category", "split"))
    splits = [splits] if isinstance(splits, str) else list(splits)
    rows = np.flatnonzero(table["split"].isin(splits).to_numpy())  # [n]
    if not len(rows):
        raise ValueError(_no_items(table, f"the gallery's split(s) {splits}"))
    ids = table["item_id"].to_numpy(dtype=object)[rows]
    shuffled = rows[stable_order(ids.tolist(), seed)]  # [n]
    if kind == "per_category":
        most = len(rows) if max_per_category is None else max_per_category
        if most < 1:
            raise ValueError(f"max_per_category is {max_per_category}; expected at least 1")
        categories = table["category"].iloc[shuffled]
        chosen = shuffled[(categories.groupby(categories).cumcount() < most).to_numpy()]
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
    """Returns the rows of the split that asks, ascending (``[Q] int64``).

    Raises:
        ValueError: The column is missing, or the split holds nothing.

    Example:
        >>> select_queries(pd.DataFrame({"split": ["train", "val", "val"]}), "val")
        array([1, 2])
    """
    check_columns(table, ("split",))
    rows = np.flatnonzero((table["split"] == split).to_numpy()).astype(np.int64)
    if not len(rows):
        raise ValueError(_no_items(table, f"the query split {split!r}"))
    return rows


@dataclass(frozen=True, eq=False)
class Selection:
    """Who asks whom: rows of the catalogue's table.

    Attributes:
        gallery_rows: ``[N] int64``, ascending.
        query_rows: ``[Q] int64``, ascending.
        apart_from: ``[n] int64``: rows that neither side may share anything with, such as the
            training items under cold start; empty where a protocol asks for nothing of the kind.
    """

    gallery_rows: Rows
    query_rows: Rows
    apart_from: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


Select: TypeAlias = Callable[[pd.DataFrame, str], Selection]


@dataclass(frozen=True)
class Protocol:
    """The rules of one measurement; `visual_search.retrieval.protocols` builds them by name.

    Attributes:
        name: Such as ``gallery_query``.
        question: Who asks whom, in one sentence.
        k: How deep one looks.
        select: ``(table, split) -> Selection``: the sides, where ``split`` asks.
        relevance: Columns: a gallery item is relevant to a query when both have the same value in
            every one of them. An empty value equals nothing.
        hierarchy: Columns from coarse to fine that grade relevance for nDCG: the number of leading
            ones that agree. None of them: nDCG is binary, by ``relevance``.
        report_by: Columns that the table is broken down by, and that macro means average over. None
            of them: ``relevance``, or the category where that is by product or group.
        restrict_to: Columns: only gallery items with the query's values are searched.
        exclude: What is left out of a query's neighbours and of R: its own ``item`` (by id), its
            whole ``group``, or ``nothing`` (the rule of 2023, which counts the query).
        on_leak: What a leak between the sides does: ``error``, ``drop`` the queries, or ``allow``.
        to_r: Whether one also looks as deep as there is to find, for mAP@R.

    Raises:
        TypeError: ``k`` is no integer.
        ValueError: A setting has another value than those above, or relevance is by product or
            group and the query's group is excluded.
    """

    name: str
    question: str
    k: int
    select: Select
    relevance: tuple[str, ...] = ("category",)
    hierarchy: tuple[str, ...] = ()
    report_by: tuple[str, ...] = ()
    restrict_to: tuple[str, ...] = ()
    exclude: Exclude = "item"
    on_leak: OnLeak = "error"
    to_r: bool = False

    def __post_init__(self) -> None:
        check_k(self.k)
        for name, value, choices in (
            ("exclude", self.exclude, get_args(Exclude)),
            ("on_leak", self.on_leak, get_args(OnLeak)),
        ):
            if value not in choices:
                raise ValueError(
                    f"protocol.{name} is {value!r}; expected one of {', '.join(choices)}: "
                    "choose one"
                )
        if not self.relevance:
            raise ValueError(
                "protocol.relevance is empty; expected at least one column: [category] is usual"
            )
        if self.finds_the_product and self.exclude == "group":
            raise ValueError(
                f"protocol.relevance is {list(self.relevance)} and protocol.exclude 'group': all "
                "that is relevant is left out; expected protocol.exclude=item with relevance by "
                "product or group"
            )
        if not self.report_by:  # of products there are thousands, of a few items each
            by = ("category",) if self.finds_the_product else self.relevance
            object.__setattr__(self, "report_by", by)

    @property
    def finds_the_product(self) -> bool:
        """Whether what the query itself shows is to be found, so that both share their group."""
        return bool({PRODUCT, "group"} & set(self.relevance))

    @property
    def counts_the_query(self) -> bool:
        """Whether a query is among its own neighbours, as in the study of 2023."""
        return self.exclude == "nothing"

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the rules look at."""
        named = (*self.relevance, *self.hierarchy, *self.report_by, *self.restrict_to)
        return tuple(dict.fromkeys(named))

    @property
    def title(self) -> str:
        """The name with what is relevant, where that is not the category."""
        usual = self.relevance == ("category",)
        return self.name if usual else f"{self.name} by {' + '.join(self.relevance)}"

    def rules(self) -> Rules:
        """Returns what decides a number once the sides are chosen, as plain values."""
        return {
            "name": self.name,
            "k": self.k,
            "relevance": list(self.relevance),
            "hierarchy": list(self.hierarchy),
            "report_by": list(self.report_by),
            "restrict_to": list(self.restrict_to),
            "exclude": self.exclude,
        }

    def sentences(self) -> dict[str, str]:
        """Returns the rules in words, to stand beside the numbers."""
        equal = " and ".join(self.relevance)
        excluded = {
            "item": EXCLUSION_RULE,
            "group": "The query's whole group is excluded from its neighbours, and from R.",
            "nothing": "The query stays in the gallery and counts as its own hit.",
        }
        sentences = {
            "question": self.question,
            "relevance": f"A gallery item is relevant to a query when both have the same {equal}.",
            "self_exclusion": excluded[self.exclude],
            "ties": TIE_RULE,
        }
        if self.restrict_to:
            same = " and ".join(self.restrict_to)
            sentences["restriction"] = f"Only gallery items of the query's {same} are searched."
        if self.hierarchy:
            levels = ", ".join(self.hierarchy)
            sentences["grades"] = f"An item's grade counts the leading levels that agree: {levels}."
        return sentences

    def choose(self, table: pd.DataFrame, split: str) -> Selection:
        """Chooses the sides, and checks that the table has what the rules look at.

        Args:
            table: The catalogue's table, splits assigned.
            split: The split that asks.

        Raises:
            ValueError: A column is missing, or a side is empty.
        """
        check_columns(table, self.columns)
        selection = self.select(table, split)
        for side, rows in (("gallery", selection.gallery_rows), ("queries", selection.query_rows)):
            if not len(rows):
                raise ValueError(
                    f"protocol {self.name!r} finds no item for the {side} (asking split {split!r}, "
                    f"{len(table)} items); expected at least one: look at the protocol's settings "
                    "and at the catalogue's splits and columns"
                )
        return selection


def labels(table: pd.DataFrame, rows: Rows, columns: Sequence[str]) -> NDArray[np.object_]:
    """Returns one label a row, the columns' values joined by " / "; empty where any of them is.

    Rows with the same label are equal in every column: of several columns, a slash that stands
    alone within a value is doubled.

    Returns:
        ``[n] object`` of str.

    Example:
        >>> table = pd.DataFrame({"category": ["hat", "shoe"], "colour": ["red", ""]})
        >>> labels(table, np.array([0, 1]), ["category", "colour"]).tolist()
        ['hat / red', '']
        >>> slashes = pd.DataFrame({"a": ["x / y", "x"], "b": ["z", "y / z"]})
        >>> labels(slashes, np.array([0, 1]), ["a", "b"]).tolist()
        ['x // y / z', 'x / y // z']
    """
    values = [table[column].to_numpy(dtype=object)[rows].tolist() for column in columns]
    if len(columns) > 1:
        alone = re.compile(r"(?<![^ ])(/+)(?![^ ])")  # between spaces or at an end
        values = [[alone.sub(r"\1\1", value) for value in column] for column in values]
    joined = [" / ".join(parts) if all(parts) else "" for parts in zip(*values, strict=True)]
    return np.array([*joined, None], dtype=object)[:-1]


def answerable(selection: Selection, table: pd.DataFrame, relevance: Sequence[str]) -> Selection:
    """Returns the selection, or its queries among themselves where no query can be answered.

    Where relevance is by product and products are split whole, the training split has no answer for
    a validation query; its other pictures stand in the validation split.

    Example:
        >>> table = pd.DataFrame({"product": ["a", "b", "b"]})
        >>> found = answerable(Selection(np.array([0]), np.array([1, 2])), table, ["product"])
        >>> found.gallery_rows.tolist(), found.query_rows.tolist()
        ([1, 2], [1, 2])
    """
    wanted = set(labels(table, selection.query_rows, relevance)) - {""}
    if wanted.isdisjoint(labels(table, selection.gallery_rows, relevance)):
        return Selection(selection.query_rows, selection.query_rows)
    return selection


def fingerprint(*parts: Sequence[str]) -> str:
    """Returns a SHA-256 (hex) of lists of texts, order and lengths included.

    Example:
        >>> fingerprint(["a", "b"]) == fingerprint(["ab"])
        False
    """
    return hashlib.sha256(json.dumps([list(part) for part in parts]).encode()).hexdigest()


def check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Refuses a table without one of these columns.

    Raises:
        ValueError: Names the missing ones, what the table has, and the nearest name.
    """
    missing = [column for column in needed if column not in table.columns]
    if missing:
        close = difflib.get_close_matches(missing[0], list(table.columns), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"the table lacks the column(s) {missing}; it has {list(table.columns)}: name columns "
            f"of the catalogue{hint}"
        )


def _no_items(table: pd.DataFrame, what: str) -> str:
    counts = {str(split): int(n) for split, n in table["split"].value_counts().items()}
    return (
        f"{what} hold(s) none of the {len(table)} item(s); expected a split among {counts}: choose "
        "one of them, or assign the splits first"
    )
