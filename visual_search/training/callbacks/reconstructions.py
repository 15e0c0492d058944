"""Reconstructions beside originals, the same items every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning import Callback, LightningModule, Trainer

from visual_search import builder
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.encoder import evaluating
from visual_search.models.objectives.reconstruction import squared_errors
from visual_search.training.datamodule import datamodule_of
from visual_search.training.module import as_numpy, to_network, to_pictures
from visual_search.training.pictures import Epochs, check_counts, draws, fixed_rows, show
from visual_search.views.picture_grids import reconstruction_grid

if TYPE_CHECKING:
    from visual_search.training.module import EncoderModule


@builder("callbacks")
class Reconstructions(Callback):
    """Draws fixed validation items, what the network makes of them, and the error.

    Args:
        num_items: How many; from as many categories as there are.
        every_n_epochs: Draw after every n-th epoch, null after 1, 2, 5, 10, 20, 50, ...; always
            after the last.
    """

    def __init__(self, num_items: int = 8, every_n_epochs: int | None = None) -> None:
        check_counts("reconstructions", num_items=num_items, every_n_epochs=every_n_epochs)
        self.num_items = num_items
        self.epochs = Epochs(every_n_epochs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws where it is time."""
        if draws(trainer) and self.epochs.is_due(trainer):
            self._draw(trainer, pl_module, self.epochs.newest)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last epoch, wherever the training ended."""
        if draws(trainer) and self.epochs.is_last_missing():
            self._draw(trainer, pl_module, self.epochs.newest)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Draws; nothing of a network without decoder."""
        module: EncoderModule = pl_module  # type: ignore[assignment]
        if not isinstance(module.model, Autoencoder):
            return  # it has no way back to a picture
        datamodule = datamodule_of(trainer)
        rows = fixed_rows(datamodule.catalog, datamodule.rows("val"), self.num_items)
        originals = datamodule.pictures[rows]
        with evaluating(module), trainer.precision_plugin.forward_context():
            images = to_network(torch.from_numpy(originals).to(module.device))
            restored = module.model(images)
            errors = as_numpy(squared_errors(restored, images))
        table = datamodule.catalog.table
        labels = [f"{table['category'].iat[row]} · {table['item_id'].iat[row]}" for row in rows]
        figure = reconstruction_grid(originals, to_pictures(restored), errors, labels, epoch)
        show(trainer, "reconstructions", figure, file_name=f"reconstructions/epoch_{epoch:04d}")
