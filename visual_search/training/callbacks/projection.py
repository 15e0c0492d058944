"""The gallery's embeddings in three dimensions, in TensorBoard's projector and as a figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from lightning import Callback, LightningModule, Trainer

from visual_search import builder
from visual_search.atomic import atomic_path
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.training.datamodule import datamodule_of
from visual_search.training.pictures import (
    check_counts,
    evaluation_to_draw,
    show,
    tensorboard_folder,
)
from visual_search.views.progress import moves
from visual_search.views.projection import project_embeddings, projection_figure
from visual_search.views.projector import ProjectorView, write_projector
from visual_search.wording import many

MAX_EMBEDDING_BYTES = 2**25  # that a browser loads of the embedding: 16,384 items of 512 values


@builder("callbacks")
class EmbeddingProjection(Callback):
    """Projects gallery items by UMAP, with neighbours from the index, at the end.

    TensorBoard's projector gets both: the points, and the embedding that they are a projection of.

    Args:
        max_items: Of a larger gallery so many are taken, evenly spaced over its rows; of embeddings
            wider than 838 values fewer stand in the projector, 32 MiB of them.
        num_neighbours: UMAP's n_neighbors.
        min_dist: UMAP's min_dist.
        seed: Of UMAP.
    """

    def __init__(
        self,
        max_items: int = 10_000,
        num_neighbours: int = 15,
        min_dist: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_counts("projection", max_items=max_items)
        self.max_items = max_items
        self.num_neighbours = num_neighbours
        self.min_dist = min_dist
        self.seed = seed

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes ``figures/projection.png``, the points, and the projector's files."""
        evaluation = evaluation_to_draw(trainer, pl_module)
        if evaluation is None:
            return
        datamodule = datamodule_of(trainer)
        num_items = len(evaluation.gallery_rows)
        chosen = np.unique(np.linspace(0, num_items - 1, min(num_items, self.max_items), dtype=int))
        rows = evaluation.gallery_rows[chosen]
        embeddings = evaluation.gallery_embeddings[chosen]
        index = evaluation.index
        if len(chosen) < num_items:
            index = EmbeddingIndex.build(embeddings, list(index.item_ids[chosen]), device="cpu")
        neighbours = None
        if len(chosen) > self.num_neighbours:
            found = index.search(
                embeddings, self.num_neighbours - 1, exclude_ids=list(index.item_ids)
            )
            neighbours = (found.rows, np.sqrt(found.squared_distances))
        projection = project_embeddings(
            embeddings,
            num_neighbours=self.num_neighbours,
            min_dist=self.min_dist,
            seed=self.seed,
            neighbours=neighbours,
            show_progress=trainer.progress_bar_callback is not None and moves(),
        )
        table = datamodule.catalog.table.iloc[rows].reset_index(drop=True)
        title = f"Gallery embeddings, {many(evaluation.epoch, 'epoch')}"
        figure = projection_figure(
            projection.points, list(table["category"]), title, projection.description, num_items
        )
        show(trainer, "projection", figure)
        points = pd.DataFrame(projection.points, columns=["x", "y", "z"])
        points.insert(0, "item_id", table["item_id"])
        points.attrs["description"] = projection.description  # pandas keeps it in the file
        with atomic_path(f"{trainer.default_root_dir}/embeddings/projection.parquet") as temporary:
            points.to_parquet(temporary, index=False)
        folder = tensorboard_folder(trainer)
        if folder is None:
            return
        metadata, pictures = table.drop(columns=["image", "split"]), datamodule.pictures[rows]
        view = ProjectorView(projection.description, projection.points)
        name = f"gallery_{projection.method}"
        write_projector(folder, name, projection.points, metadata, pictures, view)
        most = max(MAX_EMBEDDING_BYTES // embeddings[0].nbytes, 1)
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most), dtype=int))
        write_projector(
            folder,
            "gallery_embedding",
            embeddings[some],
            metadata.iloc[some],
            pictures[some],
            ProjectorView(projection.description, projection.points[some]),
        )
