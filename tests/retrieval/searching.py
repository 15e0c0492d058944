"""A search result's numbers without a catalogue, for tests that state what was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from visual_search.knn.gallery_index import NearestItems
from visual_search.retrieval.measure import Neighbours, score
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.report import RetrievalReport


def evaluate_retrieval(
    result: NearestItems,
    query_categories: Sequence[str],
    gallery_categories: Sequence[str],
    gallery_ids: Sequence[str],
    k: int = 5,
) -> RetrievalReport:
    """Measures by category; every query is its own group."""
    ids = [*gallery_ids, *result.query_ids.tolist()]
    categories = [*gallery_categories, *query_categories]
    table = pd.DataFrame({"item_id": ids, "group": ids, "category": categories}, dtype=object)
    num = len(gallery_ids)
    selection = Selection(np.arange(num), np.arange(num, len(ids)))
    protocol = Protocol("search_result", "As searched.", k, lambda table, split: selection)
    neighbours = Neighbours(
        result.rows[:, :k],
        result.squared_distances[:, :k].astype(np.float64),
        np.full(len(result), k, dtype=np.int64),
    )
    return score(table, protocol, selection, neighbours)
