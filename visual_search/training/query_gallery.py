"""The sides of a measurement, chosen and checked: nothing may be on both of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.duplicates import pixel_keys
from visual_search.retrieval.expectation import (
    FEWEST_GROUPS,
    FEWEST_QUERIES,
    LARGEST_GROUP,
    expect,
)
from visual_search.retrieval.leaks import LeakKind, Leaks, find_leaks
from visual_search.retrieval.measure import EXCLUDED_BY
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.wording import many

if TYPE_CHECKING:
    from visual_search.catalog.cache import Pictures


class LeakError(ValueError):
    """Queries and gallery share what should be kept apart; the message names the pairs."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Who asks whom, and what was found when they were compared.

    Attributes:
        selection: The sides, without the queries that were dropped.
        leaks: Between queries and gallery, before any was dropped; None where nothing is checked.
        trained_leaks: Between either side and the training items; None where the protocol does
            not keep them apart.
        num_dropped: Queries that ``on_leak=drop`` took out.
    """

    selection: Selection
    leaks: Leaks | None
    trained_leaks: Leaks | None
    num_dropped: int


def choose_sides(
    protocol: Protocol,
    catalog: Catalog,
    pictures: Pictures,
    split: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sides:
    """Chooses the sides of a protocol and looks for leaks between them.

    The query itself is no leak where the protocol excludes it, nor is its group where it excludes
    that, nor a shared group where relevance is by product or group: it is what is asked for.

    Args:
        protocol: The rules.
        catalog: Splits assigned.
        pictures: Row i is the picture of the catalogue's row i.
        split: The split that asks.
        on_progress: Called with (pictures compared, all of them).

    Raises:
        LeakError: There is a leak, and ``protocol.on_leak`` is ``error``.
        ValueError: A side is empty or a column is missing; nothing is left after dropping.
    """
    table = catalog.table
    selection = protocol.choose(table, split)
    asked = np.concatenate([selection.gallery_rows, selection.query_rows, selection.apart_from])
    rows = np.unique(asked)
    compared = table.iloc[rows][["item_id", "group"]].copy()
    compared["pixels"] = pixel_keys(pictures, rows, on_progress)
    compared.index = pd.Index(rows)
    gallery, queries = compared.loc[selection.gallery_rows], compared.loc[selection.query_rows]
    kinds = _kinds(protocol)
    leaks = None
    if kinds and protocol.exclude == "group":
        leaks = _across_groups(gallery, queries)
    elif kinds:
        leaks = find_leaks(gallery, queries, check=kinds)
    trained_leaks = None
    concerned = set(leaks.query_ids) if leaks is not None else set()
    if len(selection.apart_from):
        both = np.union1d(selection.gallery_rows, selection.query_rows)
        trained = compared.loc[selection.apart_from]
        trained_leaks = find_leaks(trained, compared.loc[both])
        concerned |= set(trained_leaks.query_ids)
    if concerned and protocol.on_leak == "error":
        raise LeakError(_explain(protocol, leaks, trained_leaks, len(concerned), split))
    if not concerned or protocol.on_leak == "allow":
        return Sides(selection, leaks, trained_leaks, 0)
    known = set(trained_leaks.query_ids) if trained_leaks is not None else set()
    kept = replace(
        selection,
        gallery_rows=_without(selection.gallery_rows, table, known),
        query_rows=_without(selection.query_rows, table, concerned),
    )
    if not len(kept.query_rows) or not len(kept.gallery_rows):
        raise ValueError(
            f"protocol.on_leak=drop would take out all {len(selection.query_rows)} queries of the "
            f"{split} split; expected some without a leak: {_way_out(protocol)}"
        )
    dropped = len(selection.query_rows) - len(kept.query_rows)
    return Sides(kept, leaks, trained_leaks, dropped)


def check_test_items(catalog: Catalog) -> None:
    """Refuses a catalogue on which nothing could be measured at the end.

    Raises:
        ValueError: No item is in the test split.
    """
    if not len(catalog.rows_of_split("test")):
        raise ValueError(
            f"none of the {len(catalog)} items is in the test split; expected at least one query; "
            "raise split.test_fraction, or name the table's split column"
        )


def check_train_items(catalog: Catalog) -> None:
    """Refuses a catalogue that is only to be measured on.

    Raises:
        ValueError: No item is in the train split.
    """
    if not len(catalog.rows_of_split("train")):
        raise ValueError(
            f"none of the {len(catalog)} items is in the train split: the data puts all of them "
            "into test; expected some to train on: measure another run on it, by "
            "visual_search.evaluate run=PATH with this data"
        )


def expected_of(catalog: Catalog, selection: Selection) -> str:
    """Returns how exactly a measurement will tell, and why; nothing where it is exact enough.

    Args:
        catalog: Splits assigned.
        selection: The sides.
    """
    expectation = expect(catalog.table["group"].iloc[selection.query_rows].tolist())
    asking = set(catalog.table["category"].iloc[selection.query_rows])
    silent = len(catalog.categories) - len(asking)
    if expectation.is_enough and not silent:
        return ""
    why = []
    if expectation.largest > LARGEST_GROUP and expectation.num_groups > 1:
        why.append(f"one of which holds {expectation.largest:.0%}")
    if silent:
        categories = many(len(catalog.categories), "category", "categories")
        why.append(f"with no query of {silent:,} of {categories}")
    said = many(expectation.num_queries, "query", "queries")
    if expectation.num_groups < expectation.num_queries:
        said += f" of {many(expectation.num_groups, 'group')}"
    said = ", ".join([said, *why])
    return f"{said}: expect a mean over them to be known to {expectation.width()}"


def check_enough(catalog: Catalog, selection: Selection, split: str) -> None:
    """Refuses a measurement that could say next to nothing.

    Raises:
        ValueError: There are too few queries, or they are of too few groups.
    """
    expectation = expect(catalog.table["group"].iloc[selection.query_rows].tolist())
    if expectation.is_too_little:
        raise ValueError(
            f"the {split} split has {expected_of(catalog, selection)}; expected at least "
            f"{FEWEST_QUERIES} queries of {FEWEST_GROUPS} groups: give more items or groups, raise "
            f"split.{split}_fraction, or allow it by split.allow_few=true"
        )


def check_depth(protocol: Protocol, catalog: Catalog, selection: Selection, split: str) -> None:
    """Refuses a k that no query can reach.

    Raises:
        ValueError: Every query finds fewer items in the gallery than ``protocol.k``.
    """
    num_gallery = most = len(selection.gallery_rows)
    for column in EXCLUDED_BY[protocol.exclude]:
        values = catalog.table[column].to_numpy()
        held = Counter(values[selection.gallery_rows].tolist())
        most -= min(held[value] for value in values[selection.query_rows].tolist())
    if most < protocol.k:
        raise ValueError(
            f"protocol.k is {protocol.k}, but no {split} query can find more than {most} of the "
            f"gallery's {num_gallery} item(s); expected at least k; lower protocol.k or enlarge "
            "the gallery"
        )


def _kinds(protocol: Protocol) -> Sequence[LeakKind]:
    if protocol.counts_the_query:
        return ()
    if protocol.exclude == "group" or protocol.finds_the_product:
        return ("pixels",)
    return ("group", "pixels")


def _across_groups(gallery: pd.DataFrame, queries: pd.DataFrame) -> Leaks:
    """Looks for copies of pixels in two groups; those within one group never meet."""
    held = gallery[["pixels", "group"]].drop_duplicates()
    met = queries.merge(held, on="pixels", suffixes=("", "_found"))
    concerned = set(met.loc[met["group"] != met["group_found"], "item_id"])
    alone = queries["pixels"] + " " + queries["item_id"]  # a key that no gallery item has
    asking = queries.assign(
        pixels=queries["pixels"].where(queries["item_id"].isin(concerned), alone)
    )
    leaks = find_leaks(gallery, asking, check=("pixels",))
    # A query with a copy in another group may have one in its own as well: that is no pair.
    joined = [
        side.assign(pixels=side["pixels"] + " " + side["group"]) for side in (gallery, asking)
    ]
    num_within = find_leaks(*joined, check=("pixels",)).num_pairs["pixels"]
    group_of = dict(zip(gallery["item_id"], gallery["group"], strict=True))
    own = dict(zip(queries["item_id"], queries["group"], strict=True))
    return replace(
        leaks,
        num_pairs={"pixels": leaks.num_pairs["pixels"] - num_within},
        pairs=tuple(p for p in leaks.pairs if own[p.query_id] != group_of[p.gallery_id]),
    )


def _without(rows: NDArray[np.int64], table: pd.DataFrame, ids: set[str]) -> NDArray[np.int64]:
    return rows[~table["item_id"].iloc[rows].isin(ids).to_numpy()]


def _explain(
    protocol: Protocol, leaks: Leaks | None, trained_leaks: Leaks | None, num: int, split: str
) -> str:
    parts = [f"protocol {protocol.name!r}, {split} queries: {leaks.describe()}"] if leaks else []
    if trained_leaks:
        parts.append(f"against the training items: {trained_leaks.describe()}")
    text = "\n".join(parts)
    return (
        f"{text}\nA number over such sides would be too good. {_way_out(protocol)} "
        f"protocol.on_leak=drop leaves {many(num, 'query', 'queries')} out, protocol.on_leak=allow "
        "keeps them and says so beside the numbers."
    )


def _way_out(protocol: Protocol) -> str:
    if protocol.exclude == "item" and not protocol.finds_the_product:
        return (
            "Split by group (data.group=COLUMN), or leave a query's own group out of its answers "
            "(protocol.exclude=group);"
        )
    return "Remove the copies from the catalogue, or give them one group (data.group=COLUMN);"
