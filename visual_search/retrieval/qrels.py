"""Who is relevant to whom and who may be found by whom, pair by pair, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from visual_search.retrieval.equality import Codes, count_equal, equal_codes
from visual_search.retrieval.measure import EXCLUDED_BY
from visual_search.retrieval.protocol import Protocol, Rows, Selection


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a query and a gallery item, by query.

    Attributes:
        queries: ``[n] int64``: places in `Selection.query_rows`, ascending.
        gallery: ``[n] int64``: places in `Selection.gallery_rows`, ascending within a query.
    """

    queries: Rows
    gallery: Rows

    def __len__(self) -> int:
        return len(self.queries)


def relevant_pairs(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> Pairs:
    """Returns the relevant pairs: R of a query is the number of its own.

    Args:
        table: The catalogue's table.
        protocol: The rules: equal in all of ``relevance``, none of them empty, and admitted.
        selection: The sides.
    """
    return _pairs(table, protocol, selection, protocol.relevance)


def admitted_pairs(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> Pairs:
    """Returns the pairs that a protocol admits, relevant or not."""
    return _pairs(table, protocol, selection, ())


def hides_only_itself(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> bool:
    """Tells whether a query may find the whole gallery but for the item of its own id."""
    num = len(selection.gallery_rows)
    if len(np.unique(_both(table, selection, protocol.restrict_to))) > 1:
        return False
    hidden = count_equal(num, _both(table, selection, EXCLUDED_BY[protocol.exclude]))
    itself = count_equal(num, _both(table, selection, ["item_id"]))
    return protocol.counts_the_query or bool((hidden == itself).all())


def _pairs(
    table: pd.DataFrame, protocol: Protocol, selection: Selection, columns: Sequence[str]
) -> Pairs:
    num = len(selection.gallery_rows)
    codes = _both(table, selection, columns, empty_is_none=True)
    within = _both(table, selection, protocol.restrict_to)
    hidden = _both(table, selection, EXCLUDED_BY[protocol.exclude])
    joint = pd.factorize(codes * (int(within.max(initial=0)) + 1) + within)[0]
    order = np.argsort(joint[:num], kind="stable")
    starts = np.searchsorted(joint[:num][order], np.arange(joint.max(initial=0) + 2))
    queries, gallery = [], []
    for place in range(len(selection.query_rows)):
        at = num + place
        if codes[at] < 0:
            continue
        found = order[starts[joint[at]] : starts[joint[at] + 1]]
        if not protocol.counts_the_query:
            found = found[hidden[found] != hidden[at]]
        queries.append(np.full(len(found), place, dtype=np.int64))
        gallery.append(found.astype(np.int64))
    nothing = np.zeros(0, dtype=np.int64)
    return Pairs(np.concatenate([nothing, *queries]), np.concatenate([nothing, *gallery]))


def _both(
    table: pd.DataFrame,
    selection: Selection,
    columns: Sequence[str],
    *,
    empty_is_none: bool = False,
) -> Codes:
    rows = np.concatenate([selection.gallery_rows, selection.query_rows])
    return equal_codes(table, rows, columns, empty_is_none=empty_is_none)
