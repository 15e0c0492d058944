"""A finished run from Python: its numbers, and what its network makes of pictures."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.api.given import prepared
from visual_search.config.schemas import TrainSchema
from visual_search.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from lightning import Trainer
    from numpy.typing import NDArray
    from PIL import Image

    from visual_search.api.bundles import OpenedBundle
    from visual_search.reading import Summary
    from visual_search.training.module import EncoderModule

BATCH_SIZE = 64  # pictures that the network sees at once


class Report:
    """What was measured: numbers with their definition, n, intervals and floors.

    In a notebook it shows itself as its page.

    Args:
        folder: Of a finished run, or of a measurement.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from visual_search.runs.finished import measured_in

        self.run: Run = measured_in(os.fspath(folder))

    @property
    def folder(self) -> Path:
        """Where everything lies: tables, figures, ``report.html``."""
        return self.run.folder

    @property
    def summary(self) -> Summary:
        """The numbers by name, with intervals, definitions and floors, as ``summary.json``."""
        return self.run.summary()

    @property
    def standing(self) -> str:
        """Where the numbers stand beside embeddings that learn nothing, in a sentence."""
        return self.summary.get("standing", "")

    @property
    def per_category(self) -> pd.DataFrame:
        """One row a category: its number of queries, its metrics, its intervals."""
        import pandas as pd

        return pd.read_csv(self.folder / "metrics" / "per_category.csv", keep_default_na=False)

    @property
    def per_query(self) -> pd.DataFrame:
        """One row a query: its metrics, whom it found."""
        import pandas as pd

        return pd.read_parquet(self.folder / "metrics" / "per_query.parquet")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.folder)!r}): {self.standing}"

    def _repr_html_(self) -> str:
        page = html.escape((self.folder / "report.html").read_text(encoding="utf-8"))
        frame = "width:100%;height:42em;border:1px solid #ccc"
        return f'<iframe srcdoc="{page}" style="{frame}" title="Report"></iframe>'


class TrainedRun(Report):
    """A finished run; made by `open_run` and `visual_search.train`."""

    @cached_property
    def settings(self) -> TrainSchema:
        """Its settings, as today's schema has them."""
        return self.run.settings()

    def embed(
        self, pictures: Sequence[str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Returns the embeddings of pictures, ``[N, D] float32``, as the run's index holds them.

        Args:
            pictures: Files, encoded bytes, Pillow images, or ``[H, W, 3] uint8`` arrays (RGB).

        Raises:
            FileNotFoundError: There is no such file.
            PictureError: One is damaged, or too large; the message names its place.
        """
        import numpy as np
        import torch

        from visual_search.training.module import as_numpy

        if isinstance(pictures, str | bytes | os.PathLike):
            raise TypeError(f"got one picture ({pictures!r:.60}); expected a list: give [PICTURE]")
        module, trainer = self._network
        seen = module.preprocessing
        found = [np.zeros((0, module.head.embedding_dim), np.float32)]
        for start in range(0, len(pictures), BATCH_SIZE):
            batch = np.stack(
                [
                    prepared(one, number, seen.image_size_px, seen.fit)
                    for number, one in enumerate(pictures[start : start + BATCH_SIZE], start)
                ]
            )
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                images = torch.from_numpy(batch).to(module.device)
                found.append(module.head.embed(as_numpy(module.features(images))))
        return np.concatenate(found)

    def export(self, out: str | os.PathLike[str], *overrides: str) -> OpenedBundle:
        """Makes a search bundle of the run, as the command does, and opens it.

        Args:
            out: Its folder, which has to be new.
            overrides: As behind ``python -m visual_search.export``.

        Raises:
            ConfigError: A setting is wrong.
            FileExistsError: The folder holds something already.
            ValueError: The exported encoder differs from the network, or the data cannot be read.
        """
        from visual_search.api.bundles import open_bundle
        from visual_search.api.settings import settings_of
        from visual_search.export import export_run

        settings = settings_of("export", *overrides)
        settings.run, settings.out = os.fspath(self.folder), os.fspath(out)
        return open_bundle(export_run(settings).folder)

    @cached_property
    def _network(self) -> tuple[EncoderModule, Trainer]:
        from visual_search.runs.embedding_networks import new_trainer_of
        from visual_search.runs.parts import load_module, quieten

        quieten()
        trainer = new_trainer_of(self.run)
        return load_module(self.run).to(trainer.strategy.root_device), trainer


def open_run(folder: str | os.PathLike[str]) -> TrainedRun:
    """Opens a finished run.

    Args:
        folder: ``outputs/<experiment>/<hash>``.

    Raises:
        ConfigError: There is none, it is not finished, or a plug-in that it needs is not here.
    """
    from visual_search.runs.finished import finished_run

    return TrainedRun(finished_run(os.fspath(folder)).folder)
