"""Trains a network for each kind of objective on two devices: ``python -m ... FOLDER``.

The network can do whatever any objective asks for, so most leave some of it without gradients.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.models.objectives.small import SIDE, SmallVariational, case_objective
from tests.training.conftest import coloured_pictures, trainer_in
from visual_search.runs.parts import quieten
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.labels import Labels
from visual_search.training.module import EncoderModule, Preprocessing

# One that leaves alone the posterior, the decoder, both or nothing, and has parts of its own.
KINDS = ("mse", "variational", "simclr", "reconstruction_contrastive", "multi_head", "arcface")


def main(folder: Path) -> None:
    """Starts a second process like this one, and prints name, steps and processes."""
    quieten()
    cached = coloured_pictures(folder / os.environ.get("LOCAL_RANK", "0"))
    table = cached.catalog.table.assign(colour=["red", "green"] * 29)
    catalog = replace(cached.catalog, table=table)
    for name in KINDS:
        torch.manual_seed(1)
        objective = case_objective(name)
        module = EncoderModule(
            SmallVariational(),
            Preprocessing(SIDE, "stretch"),
            objective=objective,
            labels=Labels.of_catalog(catalog, objective.columns),
        )
        trainer = trainer_in(folder, devices=2, limit_train_batches=2, limit_val_batches=0)
        trainer.fit(module, CatalogDataModule(catalog, cached.pictures, batch_size=10))
        if trainer.is_global_zero:
            print(name, trainer.global_step, trainer.world_size, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
