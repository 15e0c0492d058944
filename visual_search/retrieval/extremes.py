"""Which queries to look at: those that went worst and best, spread over the categories."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def worst_first(per_query: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Returns the places of the scored queries, the lowest score first.

    Many queries share the score 0. Among equal scores no category comes a second time before every
    other one has come once, and within a category comes first whose wrong hit was the surest: the
    nearest one. What is left is in the order of the ids.

    Args:
        per_query: Of a retrieval report.
        column: The score's column, such as ``average_precision``; rows with NaN are left out.

    Example:
        >>> table = pd.DataFrame({
        ...     "query_id": ["a", "b", "c", "d"], "category": ["hat", "hat", "bag", "bag"],
        ...     "average_precision": [0.0, 0.0, 0.0, 1.0],
        ...     "neighbour_squared_distances": [[0.9], [0.1], [0.5], [0.1]],
        ...     "neighbour_relevant": [[False], [False], [False], [True]]})
        >>> worst_first(table, "average_precision").tolist()
        [1, 2, 0, 3]
    """
    return _ordered(per_query, column, relevant=False)


def best_first(per_query: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Returns the places of the scored queries, the highest score first, likewise.

    Among equal scores of a category comes first whose nearest relevant hit was the nearest.

    Args:
        per_query: Of a retrieval report.
        column: The score's column; rows with NaN are left out.
    """
    return _ordered(per_query, column, relevant=True)


def _ordered(per_query: pd.DataFrame, column: str, *, relevant: bool) -> NDArray[np.int64]:
    values = per_query[column].to_numpy(dtype=np.float64)
    places = np.flatnonzero(~np.isnan(values))
    distances, hits = (
        per_query[name].tolist() for name in ("neighbour_squared_distances", "neighbour_relevant")
    )
    table = pd.DataFrame(
        {
            "place": places,
            "score": -values[places] if relevant else values[places],
            "category": per_query["category"].to_numpy(dtype=object)[places],
            "nearest": [_nearest(distances[i], hits[i], relevant) for i in places],
            "query_id": per_query["query_id"].to_numpy(dtype=object)[places],
        }
    ).sort_values(["score", "nearest", "query_id"], kind="stable")
    table["turn"] = table.groupby(["score", "category"]).cumcount()
    ordered = table.sort_values(["score", "turn", "nearest", "query_id"], kind="stable")
    return ordered["place"].to_numpy(dtype=np.int64)


def _nearest(distances: Sequence[float], hits: Sequence[bool], relevant: bool) -> float:
    """Returns the squared distance of the first hit of this kind; infinity where there is none."""
    of_kind = (d for d, hit in zip(distances, hits, strict=True) if bool(hit) is relevant)
    return next(of_kind, math.inf)
