"""What a shopper would see: queries and the items found for them."""

from __future__ import annotations

import numpy as np
from lightning import Callback, LightningModule, Trainer

from visual_search import builder
from visual_search.retrieval.extremes import worst_first
from visual_search.training.datamodule import datamodule_of
from visual_search.training.pictures import (
    check_counts,
    evaluation_to_draw,
    fixed_rows,
    search_row,
    show,
)
from visual_search.views.picture_grids import search_grid


@builder("callbacks")
class SearchResults(Callback):
    """Draws the neighbours of fixed queries and of the worst ones, at the end.

    Args:
        num_fixed: Queries that are the same for every run on the same data.
        num_worst: Queries of the lowest score; of equal ones from as many categories as there are,
            those whose wrong hit was the surest.
    """

    def __init__(self, num_fixed: int = 8, num_worst: int = 8) -> None:
        check_counts("search_results", num_fixed=num_fixed, num_worst=num_worst)
        self.num_fixed = num_fixed
        self.num_worst = num_worst

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws ``search_results/fixed`` and ``search_results/worst``."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is None:
            return
        datamodule = datamodule_of(trainer)
        rows = fixed_rows(datamodule.catalog, evaluation.query_rows, self.num_fixed)
        fixed = np.searchsorted(evaluation.query_rows, rows)
        headline = evaluation.report.summary["headline"]
        worst = worst_first(evaluation.report.per_query, headline["column"])[: self.num_worst]
        k = evaluation.protocol.k
        title_of_score = headline["title"].removeprefix("m")
        for name, queries, title in (
            ("fixed", fixed, f"The {k} nearest items of fixed queries"),
            ("worst", worst, f"The {k} nearest items of the worst queries"),
        ):
            if len(queries):
                shown = [
                    search_row(datamodule.catalog, datamodule.pictures, evaluation, int(query))
                    for query in queries
                ]
                show(trainer, f"search_results/{name}", search_grid(shown, title, title_of_score))
