"""Charts: how many items of each category, and how well each is found."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from visual_search.training.pictures import draws, show
from visual_search.views.figures import category_bars, class_distribution

if TYPE_CHECKING:
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.evaluation import Evaluation


class ClassDistribution(Callback):
    """Draws how many items of each category train, are searched and ask, at the end."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws once the gallery and the queries are known."""
        evaluation: Evaluation | None = pl_module.evaluation  # type: ignore[assignment]
        if not draws(trainer) or evaluation is None:
            return
        datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
        categories = datamodule.catalog.table["category"].to_numpy()
        sets = {
            "training": datamodule.rows("train"),
            "gallery": evaluation.gallery_rows,
            "queries": evaluation.query_rows,
        }
        counts = {name: Counter(categories[rows].tolist()) for name, rows in sets.items()}
        show(trainer, "class_distribution", class_distribution(counts))


class CategoryChart(Callback):
    """Draws mAP@k by category after every evaluation, best first."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what validation found, where it was evaluated."""
        self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the test found."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        evaluation: Evaluation | None = module.evaluation  # type: ignore[assignment]
        if not draws(trainer) or evaluation is None:
            return
        metric = f"map_at_{evaluation.neighbours.k}"
        summary = evaluation.report.summary
        figure = category_bars(
            evaluation.report.per_category,
            metric,
            micro=summary[f"micro_{metric}"],
            macro=summary[f"macro_{metric}"],
        )
        show(trainer, f"{metric}_by_category/{evaluation.split}", figure)
