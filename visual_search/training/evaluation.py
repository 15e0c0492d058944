"""One embedding pass over gallery and queries, and everything that is computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning import Trainer
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.catalog.catalog import Catalog
from visual_search.knn.device import Device
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.reading import number_in
from visual_search.retrieval.measure import Neighbours, find_neighbours, score
from visual_search.retrieval.products import ProductScores
from visual_search.retrieval.protocol import Protocol
from visual_search.retrieval.report import RetrievalReport
from visual_search.training.query_gallery import Sides


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found; index, metrics, projection and figures all come from here.

    Attributes:
        split: The split that asked: ``val`` or ``test``.
        epoch: Epochs trained so far.
        protocol: The rules.
        sides: Who asked whom, and what leaked.
        gallery_embeddings: ``[N, D] float32``.
        query_embeddings: ``[Q, D] float32``.
        index: The gallery's index; row i is ``gallery_rows[i]``.
        neighbours: The first k of each query.
        report: The numbers.
        seconds_per_item: Time of the embedding pass over the gallery.
        floors: What embeddings that learn nothing reach on the same sides; empty during training.
    """

    split: str
    epoch: int
    protocol: Protocol
    sides: Sides
    gallery_embeddings: NDArray[np.float32]
    query_embeddings: NDArray[np.float32]
    index: EmbeddingIndex
    neighbours: Neighbours
    report: RetrievalReport
    seconds_per_item: float
    floors: tuple[Floor, ...] = ()

    @property
    def gallery_rows(self) -> NDArray[np.int64]:
        """Catalogue rows of the gallery, ``[N] int64``."""
        return self.sides.selection.gallery_rows

    @property
    def query_rows(self) -> NDArray[np.int64]:
        """Catalogue rows of the queries, ``[Q] int64``."""
        return self.sides.selection.query_rows

    def found_rows(self, query: int) -> NDArray[np.int64]:
        """Catalogue rows of what one query found, the nearest first, ``[<= k] int64``."""
        count = min(int(self.neighbours.num_found[query]), self.protocol.k)
        return self.gallery_rows[self.neighbours.positions[query, :count]]


def index_place(index_device: Device, trainer: Trainer) -> tuple[Device, int]:
    """Returns who answers searches beside a trainer, and on which GPU: where the trainer computes.

    ``gpu`` beside a trainer on the CPU means the first card; ``auto`` then stays on the CPU.
    """
    root = trainer.strategy.root_device
    if root.type == "cuda":
        return index_device, root.index or 0
    return ("cpu" if index_device == "auto" else index_device), 0


def evaluate_embeddings(
    catalog: Catalog,
    protocol: Protocol,
    sides: Sides,
    *,
    split: str,
    epoch: int,
    gallery_embeddings: NDArray[np.float32],
    query_embeddings: NDArray[np.float32],
    index_device: Device,
    seconds_per_item: float,
    index_gpu: int = 0,
) -> Evaluation:
    """Builds the index, asks it every query, and measures the answers."""
    selection = sides.selection
    ids = catalog.table["item_id"].to_numpy()[selection.gallery_rows]
    categories = catalog.table["category"].to_numpy()[selection.gallery_rows]
    index = EmbeddingIndex.build(
        gallery_embeddings,
        list(ids),
        device=index_device,
        gpu=index_gpu,
        columns={"category": list(categories)},
    )
    neighbours = find_neighbours(index, catalog.table, protocol, selection, query_embeddings)
    index.leave_gpu()  # it is kept until the next evaluation, and training wants the memory
    return Evaluation(
        split=split,
        epoch=epoch,
        protocol=protocol,
        sides=sides,
        gallery_embeddings=gallery_embeddings,
        query_embeddings=query_embeddings,
        index=index,
        neighbours=neighbours,
        report=score(catalog.table, protocol, selection, neighbours),
        seconds_per_item=seconds_per_item,
    )


def save_embeddings(evaluation: Evaluation, catalog: Catalog, folder: Path) -> None:
    """Writes ``gallery.npy`` and ``queries.npy`` (``[n, D] float32``) and their items (Parquet).

    ``content_key`` tells which picture was embedded, whatever its name.
    """
    parts = {
        "gallery": (evaluation.gallery_rows, evaluation.gallery_embeddings),
        "queries": (evaluation.query_rows, evaluation.query_embeddings),
    }
    for name, (rows, embeddings) in parts.items():
        with atomic_path(folder / f"{name}.npy", num_bytes=embeddings.nbytes) as temporary:
            np.save(temporary, embeddings)
        table = catalog.take(rows).table
        keys = catalog.source.content_keys(table["image"].tolist())
        with atomic_path(folder / f"{name}.parquet") as temporary:
            table.assign(content_key=keys).to_parquet(temporary, index=False)


@dataclass(frozen=True, eq=False)
class Floor:
    """A floor and what it reached.

    Attributes:
        name: As `FloorModel.name`.
        title: As in tables.
        definition: What it is.
        dim: Its width as it came out.
        report: Its numbers, on the same sides and by the same rules as the run's.
        products: The same with one answer a product; None where that is not measured.
    """

    name: str
    title: str
    definition: str
    dim: int
    report: RetrievalReport
    products: ProductScores | None = None

    @property
    def headline(self) -> float:
        """The micro mean of the headline; NaN where no query is scored."""
        return number_in(self.report.summary, f"micro_{self.report.summary['headline']['mean']}")
