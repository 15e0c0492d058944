"""What a shopper would see: queries and the items found for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from visual_search.training.pictures import draws, fixed_rows, show
from visual_search.views.picture_grids import SearchRow, search_grid

if TYPE_CHECKING:
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.evaluation import Evaluation


class SearchResults(Callback):
    """Draws the neighbours of fixed queries and of the worst ones, at the end.

    Args:
        num_fixed: Queries that are the same for every run on the same data.
        num_worst: Queries of the lowest average precision (ties by id).
    """

    def __init__(self, num_fixed: int = 8, num_worst: int = 8) -> None:
        if num_fixed < 1 or num_worst < 1:
            raise ValueError(
                f"got num_fixed {num_fixed} and num_worst {num_worst}, expected at least 1; "
                "callbacks.search_results=null leaves the pictures out"
            )
        self.num_fixed = num_fixed
        self.num_worst = num_worst

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws ``search_results/fixed`` and ``search_results/worst``."""
        evaluation: Evaluation | None = pl_module.evaluation  # type: ignore[assignment]
        if not draws(trainer) or evaluation is None:
            return
        datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
        rows = fixed_rows(datamodule.catalog, evaluation.query_rows, self.num_fixed)
        fixed = np.searchsorted(evaluation.query_rows, rows)
        scored = evaluation.report.per_query.reset_index(drop=True)
        scored = scored[scored["num_relevant"] > 0]
        worst = scored.sort_values(["average_precision", "query_id"]).index[: self.num_worst]
        k = evaluation.neighbours.k
        for name, queries, title in (
            ("fixed", fixed, f"The {k} nearest items of fixed queries"),
            ("worst", worst.to_numpy(), f"The {k} nearest items of the worst queries"),
        ):
            if len(queries):
                shown = [self._row(evaluation, datamodule, int(query)) for query in queries]
                show(trainer, f"search_results/{name}", search_grid(shown, title, f"AP@{k}"))

    def _row(self, evaluation: Evaluation, datamodule: CatalogDataModule, query: int) -> SearchRow:
        table = datamodule.catalog.table
        categories = table["category"].to_numpy()
        row = int(evaluation.query_rows[query])
        found: NDArray[np.int64] = evaluation.gallery_rows[evaluation.neighbours.rows[query]]
        return SearchRow(
            query_image=datamodule.pictures[[row]][0],
            query_label=str(table["item_id"].iat[row]),
            query_category=categories[row],
            neighbour_images=datamodule.pictures[found],
            neighbour_labels=table["item_id"].to_numpy()[found].tolist(),
            neighbour_categories=categories[found].tolist(),
            squared_distances=evaluation.neighbours.squared_distances[query],
            correct=np.asarray(categories[found] == categories[row]),
            score=float(evaluation.report.per_query["average_precision"].iloc[query]),
        )
