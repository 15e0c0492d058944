"""Charts: how many items of each category, and how well each is found."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from visual_search import builder
from visual_search.reading import ends_of, number_in
from visual_search.retrieval.floor_comparison import headline_statistic
from visual_search.retrieval.report import RetrievalReport, with_intervals
from visual_search.training.datamodule import datamodule_of
from visual_search.training.floors import best_floor, floors_per_category
from visual_search.training.pictures import Epochs, check_counts, evaluation_to_draw, show
from visual_search.views.evaluation_charts import FloorBar, floor_bars
from visual_search.views.figures import category_bars, class_distribution

if TYPE_CHECKING:
    from visual_search.training.evaluation import Floor


@builder("callbacks")
class ClassDistribution(Callback):
    """Draws how many items of each category train, are searched and ask, at the end."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws once the gallery and the queries are known."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is None:
            return
        datamodule = datamodule_of(trainer)
        categories = datamodule.catalog.table["category"].to_numpy()
        sets = {
            "training": datamodule.rows("train"),
            "gallery": evaluation.gallery_rows,
            "queries": evaluation.query_rows,
        }
        counts = {name: Counter(categories[rows].tolist()) for name, rows in sets.items()}
        show(trainer, "class_distribution", class_distribution(counts))


@builder("callbacks")
class CategoryChart(Callback):
    """Draws mAP@k by category after evaluations, best first.

    Args:
        every_n_epochs: After that of every n-th epoch, null after those of 1, 2, 5, 10, 20, 50, ...
            or the next one that is measured; always after the last and of the test.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        check_counts("category_chart", every_n_epochs=every_n_epochs)
        self.epochs = Epochs(every_n_epochs)
        self._newest: tuple[RetrievalReport, tuple[Floor, ...]] | None = None  # if not drawn

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was found, where it was evaluated and is time."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is None:
            return
        self._newest = evaluation.report, evaluation.floors
        if self.epochs.is_due(trainer):
            self._draw(trainer, evaluation.split, *self._newest)
            self._newest = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last evaluation of the training."""
        if self._newest is not None:
            self._draw(trainer, "val", *self._newest)
            self._newest = None

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the test queries found."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is not None:
            self._draw(trainer, evaluation.split, evaluation.report, evaluation.floors)

    def _draw(
        self, trainer: Trainer, split: str, report: RetrievalReport, floors: tuple[Floor, ...]
    ) -> None:
        summary = report.summary
        metric = summary["headline"]["mean"]
        best = best_floor(floors)
        figure = category_bars(
            report.per_category,
            metric,
            micro=number_in(summary, f"micro_{metric}"),
            macro=number_in(summary, f"macro_{metric}"),
            floors=floors_per_category(floors) if best else None,
            floor=best.name if best else None,
            floor_title=best.title if best else None,
        )
        show(trainer, f"{metric}_by_category/{split}", figure)


@builder("callbacks")
class FloorChart(Callback):
    """Draws the run beside embeddings that learn nothing, at the end."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws once the floors are measured."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is None or not evaluation.floors:
            return
        summary = evaluation.report.summary
        bars = [
            floor_bar("this run", evaluation.report, is_run=True),
            *(floor_bar(floor.title, with_intervals(floor.report)) for floor in evaluation.floors),
        ]
        title = summary["headline"]["title"]
        over = "queries" if headline_statistic(title) == "micro" else "categories"
        figure = floor_bars(bars, "The run and its floors", f"{title}, mean over {over}")
        show(trainer, "floors", figure)


def floor_bar(title: str, report: RetrievalReport, *, is_run: bool = False) -> FloorBar:
    """Returns a bar of `floor_bars`: the mean that the verdict is about, with its interval."""
    summary = report.summary
    statistic = headline_statistic(summary["headline"]["title"])
    interval = ends_of(summary, statistic)
    return {
        "title": title,
        "value": number_in(summary, f"{statistic}_{summary['headline']['mean']}"),
        "low": interval["low"],
        "high": interval["high"],
        "rough": interval.get("rough", False),
        "is_run": is_run,
    }
