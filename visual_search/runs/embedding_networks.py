"""The networks that embed shards: a finished run's, under Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visual_search.config.schemas import EmbedTrainer
from visual_search.runs.run import Run

if TYPE_CHECKING:
    from lightning import Trainer


def new_trainer_of(run: Run, asked: EmbedTrainer | None = None) -> Trainer:
    """Returns a trainer that embeds in a run's own precision, where this machine has it.

    Args:
        run: Finished.
        asked: Where, and how exactly; by default wherever it is quickest.
    """
    from visual_search.runs.embeddings import precision_here
    from visual_search.runs.parts import new_trainer

    given = dict(vars(asked or EmbedTrainer()))
    own = run.summary().get("precision")
    if given["precision"] == "auto" and own is not None:
        given["precision"] = precision_here(own, given["accelerator"], given["devices"])
    node = {
        "_target_": "visual_search.training.trainer.build_trainer",
        "max_epochs": 1,
        "enable_progress_bar": False,
        **given,
    }
    return new_trainer(node, folder=run.folder)
