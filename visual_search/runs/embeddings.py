"""The embeddings of a finished run: the saved ones, and of the rest what its network says."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, get_args

from visual_search.config.builders import ConfigError, one_of, told_as_config
from visual_search.config.schemas import EmbeddingConfig, EvaluateSchema, TrainSchema
from visual_search.launcher import is_first_process
from visual_search.runs.code import code_of
from visual_search.runs.run import EVALUATIONS, Run
from visual_search.wording import many

if TYPE_CHECKING:
    import numpy as np
    from lightning import Trainer
    from numpy.typing import NDArray

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.training.module import EncoderModule
    from visual_search.training.query_gallery import Sides


def changed_embedding(own: EmbeddingConfig, asked: EmbeddingConfig) -> list[str]:
    """Returns what an evaluation indexes differently, as short texts for the folder's name."""
    before = vars(own)
    return [f"{name}={value}" for name, value in vars(asked).items() if value != before[name]]


def precision_here(own: Any, accelerator: Any, devices: Any) -> Any:
    """Returns a run's own precision, or float32 (said) where this machine does not compute in it.

    Args:
        own: As its summary has it.
        accelerator: Of the command.
        devices: Of the command.

    Raises:
        ConfigError: This machine does not have what is asked for.
    """
    from visual_search.training.devices import usable_precision

    with told_as_config():
        precision, reason = usable_precision(own, accelerator, devices)
    if reason and is_first_process():
        print(f"The run computed in {own}, but {reason}: what is embedded now is in {precision}.")
    return precision


class RunEmbedding:
    """Returns a run's embeddings: those that were saved, and of the rest what its network says.

    Args:
        run: Finished.
        own: Its settings.
        merged: The same with what the evaluation replaces.
        settings: Of the evaluation.
        precision: The run's own, or another one: then nothing of the run's is taken over.
    """

    def __init__(
        self,
        run: Run,
        own: TrainSchema,
        merged: TrainSchema,
        settings: EvaluateSchema,
        precision: str | None,
    ) -> None:
        import lightning.pytorch  # noqa: F401 - it sets its logger's level, so before we do

        from visual_search.runs.parts import Parts, new_trainer, quieten
        from visual_search.training.devices import Accelerator, num_devices

        quieten()
        asked = settings.trainer
        node = {**own.trainer, **vars(asked), "precision": precision or "auto"}
        node |= {"num_nodes": 1, "strategy": "auto", "enable_progress_bar": False}
        accelerator = one_of("trainer.accelerator", asked.accelerator, get_args(Accelerator))
        if num_devices(accelerator, asked.devices) != 1:
            raise ConfigError(
                f"trainer.devices={asked.devices}; expected one device, which a measurement "
                "needs: set trainer.devices=1, or [1] for the second card"
            )
        self.run, self.loader, self.precision = run, settings.loader, precision
        self.own, self.code = own.embedding, code_of(str(own.model["_target_"]))
        self.changed = changed_embedding(own.embedding, merged.embedding)
        self.parts = Parts(merged)
        self.trainer: Trainer = new_trainer(node, folder=run.folder)
        # Otherwise pinned memory would belong to the first card, whichever computes.
        self.trainer.accelerator.setup_device(self.trainer.strategy.root_device)

    def of_sides(self, cached: CachedCatalog, sides: Sides) -> tuple[NDArray[np.float32], float]:
        """Returns ``[n, D]``, a row for every catalogue row that is needed, and seconds an item.

        Saved ones are found by the content of the pictures. Seconds are NaN where all were saved.
        """
        import numpy as np

        from visual_search.runs.embedding_files import saved_embeddings

        catalog, selection = cached.catalog, sides.selection
        rows = np.union1d(selection.gallery_rows, selection.query_rows)
        if self.changed:
            return self._anew(cached, rows, selection.gallery_rows)
        keys = catalog.source.content_keys(catalog.table["image"].iloc[rows].tolist())
        places = [self.run, *map(Run, sorted((self.run.folder / EVALUATIONS).glob("*/")))]
        alike = [place.folder for place in places if self._is_alike(place)]
        known = saved_embeddings([folder / "embeddings" for folder in alike])
        table = np.zeros((len(catalog), int(self.run.summary()["embedding_dim"])), np.float32)
        missing = []
        for row, key in zip(rows.tolist(), keys, strict=True):
            if key in known:
                table[row] = known[key]
            else:
                missing.append(row)
        if not missing:
            print(f"Saved before: all {many(len(rows), 'embedding')}; none is computed.")
            return table, math.nan
        kept = len(rows) - len(missing)
        print(f"Saved before: {kept:,} of {many(len(rows), 'embedding')}.")
        module = self._module()
        features, seconds = self._features(module, cached, np.array(missing))
        table[missing] = module.head.embed(features)
        return table, seconds / len(missing)

    def _is_alike(self, place: Run) -> bool:
        """Returns whether a measurement holds embeddings as asked for; a damaged one is named."""
        try:
            return (
                place.state == "finished"
                and place.summary().get("precision") == self.precision
                and place.settings().embedding == self.own
                and place.status().get("code", {}).get("model", self.code) == self.code
            )
        except (OSError, ValueError) as error:
            print(f"Left out: {error}", file=sys.stderr)
            return False

    def _anew(
        self, cached: CachedCatalog, rows: NDArray[np.int64], gallery_rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], float]:
        """Returns the same for another embedding of the network, which no file has."""
        import numpy as np

        print(f"The network's values are taken anew: {', '.join(self.changed)}.")
        module = self._module()
        module.head = self.parts.head(module.model)
        features, seconds = self._features(module, cached, rows)
        module.head.fit(features[np.searchsorted(rows, gallery_rows)])
        embeddings = module.head.embed(features)
        table = np.zeros((len(cached.catalog), embeddings.shape[1]), np.float32)
        table[rows] = embeddings
        return table, seconds / len(rows)

    def _module(self) -> EncoderModule:
        from visual_search.runs.parts import load_module

        return load_module(self.run).to(self.trainer.strategy.root_device)

    def _features(
        self, module: EncoderModule, cached: CachedCatalog, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], float]:
        from visual_search.training.datamodule import CatalogDataModule
        from visual_search.training.devices import memory_told
        from visual_search.training.features import features_of_rows
        from visual_search.views.progress import progress_bar

        datamodule = CatalogDataModule(cached.catalog, cached.pictures, **vars(self.loader))
        datamodule.trainer = self.trainer  # whose device its loader serves
        started = time.perf_counter()
        batch_size, device = self.loader.batch_size, self.trainer.strategy.root_device
        with (
            progress_bar("Embedding", " pictures") as advance,
            memory_told(batch_size, device),
        ):
            found = features_of_rows(module, datamodule, self.trainer, rows, advance)
        return found, time.perf_counter() - started
