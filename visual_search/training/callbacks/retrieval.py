"""Measures retrieval during training (validation asks) and at its end (test asks)."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from tqdm import tqdm

from visual_search.retrieval.device import Device
from visual_search.retrieval.protocol import gallery_splits, select_gallery
from visual_search.retrieval.report import RetrievalReport
from visual_search.training.evaluation import embed_rows, evaluate_embeddings

if TYPE_CHECKING:
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import AutoencoderModule


class RetrievalEvaluation(Callback):
    """Embeds the gallery, searches the queries in it, logs ``<split>/map_at_5`` and its kin.

    The queries' embeddings come from the validation or test steps, the gallery's from one pass
    here. The result is left on the module as ``evaluation`` for the callbacks that draw.

    Args:
        k: How deep one looks.
        gallery: Arguments of `visual_search.retrieval.protocol.select_gallery`; the split that
            asks is left out of its splits.
        every_n_epochs: Evaluate after every n-th epoch of training.
        index_device: ``auto``, ``cpu`` or ``gpu``.
    """

    def __init__(
        self,
        *,
        k: int,
        gallery: dict[str, Any],
        every_n_epochs: int = 5,
        index_device: Device = "auto",
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"got every_n_epochs {every_n_epochs}, expected at least 1; set "
                "training.evaluate_every_n_epochs"
            )
        self.k = k
        self.gallery = gallery
        self.every_n_epochs = every_n_epochs
        self.index_device = index_device

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Chooses both galleries once before training, so that a wrong choice shows at once.

        Raises:
            ValueError: There is no test item, or a gallery cannot be chosen or is below k.
        """
        datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if not len(datamodule.rows("test")):
            raise ValueError(
                f"none of the {len(datamodule.catalog)} items is in the test split; expected at "
                "least one query; raise split.test_fraction, or name the table's split column"
            )
        for split in ("val", "test"):
            self._gallery_rows(trainer, split)

    def _gallery_rows(self, trainer: Trainer, split: str) -> NDArray[np.int64]:
        datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
        choice = {**self.gallery, "splits": gallery_splits(split, self.gallery["splits"])}
        rows = select_gallery(datamodule.catalog.table, **choice)
        if len(rows) < self.k:
            raise ValueError(
                f"protocol.k is {self.k}, but the gallery for the {split} queries holds "
                f"{len(rows)} item(s); expected at least k; lower protocol.k or enlarge the gallery"
            )
        return rows

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates after every n-th epoch."""
        pl_module.evaluation = None  # type: ignore[assignment]
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and not trainer.sanity_checking and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._evaluate(trainer, pl_module, "val")  # type: ignore[arg-type]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the test queries."""
        pl_module.evaluation = None  # type: ignore[assignment]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._evaluate(trainer, pl_module, "test")  # type: ignore[arg-type]

    def _evaluate(self, trainer: Trainer, module: AutoencoderModule, split: str) -> None:
        datamodule: CatalogDataModule = trainer.datamodule  # type: ignore[attr-defined]
        catalog = datamodule.catalog
        queries = module.evaluation_outputs()
        gallery_rows = self._gallery_rows(trainer, split)
        started = time.perf_counter()
        with tqdm(
            desc="Embedding the gallery",
            total=len(gallery_rows),
            unit=" pictures",
            leave=False,
            disable=not trainer.is_global_zero or trainer.progress_bar_callback is None,
        ) as bar:
            gallery_embeddings = embed_rows(
                module, datamodule, trainer, gallery_rows, lambda n, _: _advance(bar, n)
            )
        seconds = time.perf_counter() - started
        metrics: dict[str, float] = {}
        if trainer.is_global_zero:
            module.evaluation = evaluate_embeddings(
                catalog,
                split=split,
                epoch=trainer.current_epoch + (split == "val"),
                gallery_rows=gallery_rows,
                gallery_embeddings=gallery_embeddings,
                query_rows=queries.rows,
                query_embeddings=queries.embeddings,
                k=self.k,
                index_device=self.index_device,
                seconds_per_item=seconds / len(gallery_rows),
            )
            metrics = _logged(split, module.evaluation.report, self.k)
        metrics = trainer.strategy.broadcast(metrics)
        for name, value in metrics.items():
            headline = name == f"{split}/map_at_{self.k}"
            module.log(name, value, prog_bar=headline, rank_zero_only=False)


def _advance(bar: tqdm[NoReturn], done: int) -> None:
    bar.update(done - bar.n)


def _logged(split: str, report: RetrievalReport, k: int) -> dict[str, float]:
    """Gives what is logged: the means over queries, over categories, and mAP@k by category."""
    names = (f"map_at_{k}", f"precision_at_{k}", "hit_at_1", f"mrr_at_{k}")
    logged = {f"{split}/{name}": report.summary[f"micro_{name}"] for name in names}
    logged |= {f"{split}/macro_{name}": report.summary[f"macro_{name}"] for name in names}
    by_category = zip(
        report.per_category["category"], report.per_category[f"map_at_{k}"], strict=True
    )
    logged |= {f"{split}/map_at_{k}/{category}": float(value) for category, value in by_category}
    return {name: value for name, value in logged.items() if math.isfinite(value)}
