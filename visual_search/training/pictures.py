"""Where a callback's pictures go, the run's ``figures`` folder and its loggers, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.splits import stable_unit
from visual_search.views.drawing import image_summary
from visual_search.views.figures import save_figure
from visual_search.views.picture_grids import SearchRow

if TYPE_CHECKING:
    from visual_search.catalog.cache import Pictures
    from visual_search.training.evaluation import Evaluation

_ROUND_EPOCHS = [first * 10**power for power in range(7) for first in (1, 2, 5)]


def draws(trainer: Trainer) -> bool:
    """Returns True where pictures are wanted: the first process, outside checks and dry runs."""
    return (
        trainer.is_global_zero and not trainer.sanity_checking and not trainer.fast_dev_run  # type: ignore[attr-defined]
    )


def evaluation_to_draw(trainer: Trainer, module: LightningModule) -> Evaluation | None:
    """Returns the newest evaluation; None where nothing was measured or no pictures are wanted."""
    evaluation: Evaluation | None = module.evaluation  # type: ignore[assignment]
    return evaluation if draws(trainer) else None


def check_counts(callback: str, **counts: int | None) -> None:
    """Refuses settings of a callback that would draw nothing; None is fine.

    Raises:
        ValueError: One is below 1.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(
                f"got {name} {count}, expected at least 1; set callbacks.{callback}.{name}, or "
                f"callbacks.{callback}=null, which leaves the pictures out"
            )


class Epochs:
    """After which epochs a callback draws: all early ones would be much of a run's time.

    Args:
        every_n_epochs: After every n-th; None after 1, 2, 5, 10, 20, 50, 100, ... Where nothing is
            validated or measured after such an epoch, the next one stands in for it.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        self.every_n_epochs = every_n_epochs
        self.newest = 0  # that was looked at
        self.drawn = 0

    def is_due(self, trainer: Trainer) -> bool:
        """Returns whether to draw after the running epoch, which is then taken as drawn."""
        before, self.newest = self.newest, trainer.current_epoch + 1
        n = self.every_n_epochs
        passed = (
            self.newest // n > before // n
            if n
            else any(before < epoch <= self.newest for epoch in _ROUND_EPOCHS)
        )
        if passed:
            self.drawn = self.newest
        return passed

    def is_last_missing(self) -> bool:
        """Returns whether, at the end of a training, its newest epoch is not drawn."""
        return self.newest > self.drawn


def show(trainer: Trainer, name: str, figure: Figure, *, file_name: str | None = None) -> None:
    """Writes ``figures/<file_name or name>.png``, and shows it in TensorBoard as ``views/<name>``.

    The group's name sorts behind those of the curves, which TensorBoard is opened for.
    """
    path = Path(trainer.default_root_dir) / "figures" / f"{file_name or name}.png"
    save_figure(figure, path)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # add_image would take pixels, and pack them anew
            writer = logger.experiment._get_file_writer()
            writer.add_summary(image_summary(f"views/{name}", path), trainer.global_step)


def tensorboard_folder(trainer: Trainer) -> Path | None:
    """Returns the folder of TensorBoard's event files, or None where it does not log."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return Path(logger.log_dir)
    return None


def fixed_rows(
    catalog: Catalog, rows: NDArray[np.int64], num_items: int, seed: int = 0
) -> NDArray[np.int64]:
    """Returns the same few rows every time, from as many categories as there are.

    Items are taken in the order of a hash of their id, one a category before a second of any.

    Args:
        catalog: Where the rows point to.
        rows: To choose from, ``[n] int64``.
        num_items: At most so many.
        seed: Of the hash.
    """
    ids = catalog.table["item_id"].tolist()
    categories = catalog.table["category"].tolist()
    by_category: dict[str, list[int]] = {}
    for row in sorted(rows.tolist(), key=lambda row: stable_unit(ids[row], seed)):
        by_category.setdefault(categories[row], []).append(row)
    ranked = sorted(
        (rank, stable_unit(category, seed), row)
        for category, members in by_category.items()
        for rank, row in enumerate(members)
    )
    return np.array(sorted(row for _, _, row in ranked[:num_items]), dtype=np.int64)


def search_row(
    catalog: Catalog, pictures: Pictures, evaluation: Evaluation, query: int
) -> SearchRow:
    """Returns one query of an evaluation and what was found for it, with pictures."""
    table = catalog.table
    row = int(evaluation.query_rows[query])
    found = evaluation.found_rows(query)
    answered = evaluation.report.per_query.iloc[query]
    return SearchRow(
        query_image=pictures[[row]][0],
        query_label=str(table["item_id"].iat[row]),
        query_category=str(answered["category"]),
        neighbour_images=pictures[found],
        neighbour_labels=table["item_id"].to_numpy()[found].tolist(),
        neighbour_categories=list(answered["neighbour_categories"]),
        squared_distances=evaluation.neighbours.squared_distances[query, : len(found)],
        correct=np.asarray(answered["neighbour_relevant"], dtype=np.bool_),
        score=float(answered[evaluation.report.summary["headline"]["column"]]),
    )
