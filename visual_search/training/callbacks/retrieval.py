"""Measures retrieval during training (validation asks) and at its end (test asks)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from visual_search.knn.device import Device
from visual_search.reading import number_in
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.report import RetrievalReport, with_intervals
from visual_search.training.datamodule import CatalogDataModule, datamodule_of
from visual_search.training.evaluation import Floor, evaluate_embeddings, index_place
from visual_search.training.features import features_of_rows
from visual_search.training.floors import Floors, best_floor
from visual_search.training.module import weights_fingerprint
from visual_search.training.query_gallery import (
    Sides,
    check_depth,
    check_test_items,
    choose_sides,
)
from visual_search.training.tensorboard import FLOOR
from visual_search.views.progress import progress_bar

if TYPE_CHECKING:
    from visual_search.training.module import EncoderModule

MAX_LOGGED = 100  # categories, those with most queries; per_category.csv has all of them


class RetrievalEvaluation(Callback):
    """Embeds both sides, searches, logs ``<split>/map_at_5`` and its kin, with the floors beside.

    Of the floors those of the test queries are logged (``floor/map_at_5/hog``), and the best one of
    the validation queries with every evaluation (``val_floor/map_at_5/hog``).

    What the network computes of validation or test items comes from their steps, of the others
    from one pass here; the gallery's fits the PCA, where the embedding has one. The result is left
    on the module as ``evaluation`` for the callbacks that draw; None where a limit on the batches
    kept every query from being seen. The headline by category goes to the data module as
    ``ratings``; of the 100 categories with most queries it is logged.

    Args:
        protocol: Who asks whom, and what counts.
        every_n_epochs: Evaluate after every n-th epoch of training.
        index_device: ``auto``, ``cpu`` or ``gpu``.
        floors: Measures what embeddings that learn nothing reach on the same queries; None leaves
            them out.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        every_n_epochs: int = 5,
        index_device: Device = "auto",
        floors: Floors | None = None,
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"got every_n_epochs {every_n_epochs}, expected at least 1; set "
                "training.evaluate_every_n_epochs"
            )
        self.protocol = protocol
        self.every_n_epochs = every_n_epochs
        self.index_device = index_device
        self.floors = floors
        self._sides: dict[str, Sides] = {}
        self._measured: dict[str, tuple[Floor, ...]] = {}
        self._kept: tuple[tuple[str, bytes], NDArray[np.float32], float] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Chooses the sides and looks for leaks before training, so that both show at once.

        Raises:
            ValueError: There is no test item, a side cannot be chosen, no query can find k, or the
                sides leak (`visual_search.training.query_gallery.LeakError`).
        """
        datamodule = datamodule_of(trainer)
        check_test_items(datamodule.catalog)
        for split in ("val", "test"):
            if split not in self._sides and len(datamodule.rows(split)):
                self._sides[split] = self._choose(trainer, datamodule, split)

    def _choose(self, trainer: Trainer, datamodule: CatalogDataModule, split: str) -> Sides:
        with _bar(trainer, "Looking for leaks") as advance:
            sides = choose_sides(
                self.protocol, datamodule.catalog, datamodule.pictures, split, advance
            )
        check_depth(self.protocol, datamodule.catalog, sides.selection, split)
        return sides

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates after every n-th epoch."""
        pl_module.evaluation = None  # type: ignore[assignment]
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and not trainer.sanity_checking and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._evaluate(trainer, pl_module, "val")  # type: ignore[arg-type]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the test queries, and the floors beside them."""
        pl_module.evaluation = None  # type: ignore[assignment]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._evaluate(trainer, pl_module, "test")  # type: ignore[arg-type]

    def _evaluate(self, trainer: Trainer, module: EncoderModule, split: str) -> None:
        datamodule = datamodule_of(trainer)
        catalog = datamodule.catalog
        steps = module.evaluation_outputs()
        sides = _of_steps(self._sides[split], steps.rows, datamodule.rows(split))
        selection = sides.selection
        if not len(selection.query_rows):
            return
        wanted = np.union1d(selection.gallery_rows, selection.query_rows)
        missing = np.setdiff1d(wanted, steps.rows)
        features, seconds = steps.features, 0.0
        if len(missing):
            computed, seconds = self._features(trainer, module, missing)
            features = np.concatenate([features, computed])
        place_of = np.zeros(len(catalog), dtype=np.int64)
        place_of[np.concatenate([steps.rows, missing])] = np.arange(len(features))
        # Every process fits the same: later embeddings need it on all of them.
        module.head.fit(np.ascontiguousarray(features[place_of[selection.gallery_rows]]))

        def embedded(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return module.head.embed(np.ascontiguousarray(features[place_of[rows]]))

        metrics: dict[str, float] = {}
        headline = ""
        if trainer.is_global_zero:
            device, gpu = index_place(self.index_device, trainer)
            evaluation = evaluate_embeddings(
                catalog,
                self.protocol,
                sides,
                split=split,
                epoch=trainer.current_epoch + (split == "val"),
                gallery_embeddings=embedded(selection.gallery_rows),
                query_embeddings=embedded(selection.query_rows),
                index_device=device,
                index_gpu=gpu,
                seconds_per_item=seconds / len(missing) if len(missing) else math.nan,
            )
            headline = f"{split}/{evaluation.report.summary['headline']['mean']}"
            metrics = _measured(split, evaluation.report)
            if split not in self._measured:  # every epoch asks the same validation queries
                self._measured[split] = self._measure_floors(trainer, module, split, selection)
            evaluation = replace(evaluation, floors=self._measured[split])
            best = best_floor(evaluation.floors)
            if split == "val" and best:
                mean = evaluation.report.summary["headline"]["mean"]
                metrics[f"{FLOOR}{mean}/{best.name}"] = best.headline
            if split == "test":
                evaluation = replace(evaluation, report=with_intervals(evaluation.report))
                metrics |= _logged_floors(evaluation.floors)
            module.evaluation = evaluation
        headline, metrics = trainer.strategy.broadcast((headline, metrics))
        if split == "val":
            datamodule.ratings = ratings(metrics, f"{headline}/")
        for name, value in _drawn(metrics, headline).items():
            module.log(name, value, prog_bar=name == headline, rank_zero_only=False)

    def _features(
        self, trainer: Trainer, module: EncoderModule, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], float]:
        """Returns what the network makes of these rows, and the seconds of that pass.

        After the last epoch the validation embeds the gallery, and the test would once more by the
        same weights: on 11,029 items of 128 px that is 54 s on two cores.
        """
        key = (weights_fingerprint(module.model), rows.tobytes())
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == key:
            return kept[1], kept[2]
        started = time.perf_counter()
        with _bar(trainer, "Embedding the gallery") as advance:
            features = features_of_rows(module, datamodule_of(trainer), trainer, rows, advance)
        seconds = time.perf_counter() - started
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.state.fn == "fit":
            self._kept = key, features, seconds
        return features, seconds

    def _measure_floors(
        self, trainer: Trainer, module: EncoderModule, split: str, selection: Selection
    ) -> tuple[Floor, ...]:
        if self.floors is None:
            return ()
        datamodule = datamodule_of(trainer)
        with _bar(trainer, "Embedding the floors") as advance:
            return self.floors.measure(
                datamodule.catalog,
                datamodule.pictures,
                self.protocol,
                selection,
                device=module.device,
                precision=trainer.precision_plugin,
                beside=[self._sides["test"].selection] if split == "val" else [],
                on_progress=advance,
            )


def _of_steps(sides: Sides, seen: NDArray[np.int64], split: NDArray[np.int64]) -> Sides:
    """Leaves out the queries that a limit on the batches kept from being seen."""
    unseen = np.setdiff1d(split, seen)
    if not len(unseen):
        return sides
    rows = np.setdiff1d(sides.selection.query_rows, unseen)
    return replace(sides, selection=replace(sides.selection, query_rows=rows))


def _bar(
    trainer: Trainer, title: str
) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
    shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
    return progress_bar(title, " pictures", shown=shown)


def _measured(split: str, report: RetrievalReport) -> dict[str, float]:
    """Returns means over queries, over categories, and the headline by category.

    The categories with most queries come first.
    """
    summary = report.summary
    k, headline = summary["k"], summary["headline"]["mean"]
    others = [f"precision_at_{k}", "hit_at_1", f"mrr_at_{k}", f"ndcg_at_{k}"]
    names = [headline, *(name for name in others if f"micro_{name}" in summary)]
    logged = {f"{split}/{name}": number_in(summary, f"micro_{name}") for name in names}
    logged |= {f"{split}/macro_{name}": number_in(summary, f"macro_{name}") for name in names}
    table = report.per_category.sort_values(
        ["num_queries_scored", "category"], ascending=[False, True]
    )
    by_category = zip(table["category"], table[headline], strict=True)
    logged |= {f"{split}/{headline}/{category}": float(value) for category, value in by_category}
    return {name: value for name, value in logged.items() if math.isfinite(value)}


def _drawn(metrics: Mapping[str, float], headline: str) -> dict[str, float]:
    """Leaves out what would be a curve too many: categories beyond the first `MAX_LOGGED`."""
    rest = set([name for name in metrics if name.startswith(f"{headline}/")][MAX_LOGGED:])
    return {name: value for name, value in metrics.items() if name not in rest}


def _logged_floors(floors: tuple[Floor, ...]) -> dict[str, float]:
    """Returns the floors' headline under names of their own: ``floor/map_at_5/hog``."""
    logged = {
        f"floor/{floor.report.summary['headline']['mean']}/{floor.name}": floor.headline
        for floor in floors
    }
    return {name: value for name, value in logged.items() if math.isfinite(value)}


def ratings(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Returns the headline by category out of what was logged under ``<prefix><category>``."""
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }
