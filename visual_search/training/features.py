"""What a network makes of rows of a catalogue, whichever process computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray

from visual_search.training.distributed import gather
from visual_search.training.module import as_numpy

if TYPE_CHECKING:
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import EncoderModule


def features_of_rows(
    module: EncoderModule,
    datamodule: CatalogDataModule,
    trainer: Trainer,
    rows: NDArray[np.int64],
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Returns the features ``[n, F] float32`` of catalogue rows ``[n] int64``, in their order.

    They are what `EmbeddingHead` makes embeddings of. Every process has to call it: each computes
    its share, and all get all of them. The module has to
    be in evaluation mode; the trainer's precision and device are used.
    """
    loader = datamodule.evaluation_loader(rows)
    found_rows: list[NDArray[np.int64]] = []
    found: list[NDArray[np.float32]] = []
    done = 0
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        for batch in loader:
            images = batch["images"].to(module.device, non_blocking=True)
            found.append(as_numpy(module.features(images)))
            found_rows.append(batch["rows"].numpy())
            done += len(found[-1]) * trainer.world_size
            if on_progress is not None:
                on_progress(min(done, len(rows)), len(rows))
    features, order = gather(np.concatenate(found)), gather(np.concatenate(found_rows))
    unique, first = np.unique(order, return_index=True)  # filled-up batches repeat rows
    return np.ascontiguousarray(features[first[np.searchsorted(unique, rows)]])
