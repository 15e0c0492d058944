"""A callback: a number beside the others, after every evaluation."""

import numpy as np
from lightning import Callback, LightningModule, Trainer

from visual_search import builder


@builder("callbacks")
class EffectiveDim(Callback):
    """Logs in how many directions the gallery's embeddings vary: the participation ratio."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs ``val/effective_dim`` where there is an evaluation."""
        evaluation = pl_module.evaluation
        if evaluation is not None:
            variances = np.linalg.eigvalsh(np.cov(evaluation.gallery_embeddings, rowvar=False))
            pl_module.log("val/effective_dim", float(variances.sum() ** 2 / (variances**2).sum()))
