"""What every encoder layer answers to a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning import Callback, LightningModule, Trainer

from visual_search import builder
from visual_search.training.datamodule import datamodule_of
from visual_search.training.module import as_numpy, to_network
from visual_search.training.pictures import check_counts, draws, fixed_rows, show
from visual_search.views.feature_maps import feature_map_grid

if TYPE_CHECKING:
    from visual_search.training.module import EncoderModule


@builder("callbacks")
class FeatureMaps(Callback):
    """Draws the maps of every encoder layer for chosen test items, at the end.

    Args:
        num_items: How many fixed items to choose, where none is named.
        item_ids: Test items to draw instead.
    """

    def __init__(self, num_items: int = 3, item_ids: list[str] | None = None) -> None:
        check_counts("feature_maps", num_items=num_items)
        self.num_items = num_items
        self.item_ids = item_ids

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws one figure an item.

        Raises:
            ValueError: A named item is not in the catalogue.
        """
        if not draws(trainer):
            return
        module: EncoderModule = pl_module  # type: ignore[assignment]
        datamodule = datamodule_of(trainer)
        table = datamodule.catalog.table
        if self.item_ids is None:
            rows = fixed_rows(datamodule.catalog, datamodule.rows("test"), self.num_items).tolist()
        else:
            row_of = {item_id: row for row, item_id in enumerate(table["item_id"])}
            unknown = [item_id for item_id in self.item_ids if item_id not in row_of]
            if unknown:
                raise ValueError(
                    f"got the item id(s) {unknown}, expected ids of the catalogue, such as "
                    f"{table['item_id'].iat[0]!r}; correct callbacks.feature_maps.item_ids"
                )
            rows = [row_of[item_id] for item_id in self.item_ids]
        for number, row in enumerate(rows):
            picture = datamodule.pictures[[row]]
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                images = to_network(torch.from_numpy(picture).to(module.device))
                layers = {
                    name: as_numpy(output)[0]
                    for name, output in module.model.layers(images).items()
                }
            label = f"{table['category'].iat[row]} · {table['item_id'].iat[row]}"
            figure = feature_map_grid(picture[0], layers, label)
            show(trainer, f"feature_maps/item_{number + 1}", figure)
