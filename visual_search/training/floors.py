"""What embeddings that learn nothing reach on the same sides, found once and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.plugins import Precision
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.catalog.catalog import Catalog
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.encoder import evaluating
from visual_search.models.floor_items import FloorEmbeddings, FloorItems
from visual_search.models.floors import FLOORS, FloorModel, embed_floors
from visual_search.retrieval.measure import Neighbours, find_neighbours, score, search_depth
from visual_search.retrieval.products import depth_of_products, score_products
from visual_search.retrieval.protocol import Protocol, Selection, labels
from visual_search.training.evaluation import Floor
from visual_search.training.module import EncoderModule, as_numpy, weights_fingerprint

if TYPE_CHECKING:
    from visual_search.catalog.cache import Pictures

VERSION = "1"  # of the floors: another one finds none of what was kept


def best_floor(floors: Sequence[Floor]) -> Floor | None:
    """Returns the floor with the highest micro mean of the headline; None where none has one."""
    scored = [floor for floor in floors if math.isfinite(floor.headline)]
    return max(scored, key=lambda floor: floor.headline) if scored else None


def floors_per_category(floors: Sequence[Floor]) -> pd.DataFrame:
    """Returns the headline by category: ``category`` and one column a floor, by its name."""
    columns = {}
    for floor in floors:
        mean = floor.report.summary["headline"]["mean"]
        columns[floor.name] = floor.report.per_category.set_index("category")[mean]
    return pd.DataFrame(columns).rename_axis("category").reset_index()


def floors_per_query(floors: Sequence[Floor]) -> pd.DataFrame:
    """Returns the headline's values: ``query_id`` and one column a floor, in the queries' order."""
    if not floors:
        return pd.DataFrame({"query_id": pd.Series([], dtype=object)})
    table = floors[0].report.per_query[["query_id"]].copy()
    for floor in floors:
        column = floor.report.summary["headline"]["column"]
        table[floor.name] = floor.report.per_query[column].to_numpy()
    return table


class Floors:
    """Finds the neighbours of every floor, or reads them where they were found before.

    What is kept is the search (a Parquet file a floor, a few bytes a neighbour), under a key of
    whatever decides it: the floor, the pictures and ids of both sides in order, how pictures are
    fitted, the rules of the search. Scoring by another relevance searches nothing anew. A file
    that is damaged counts as none and is written anew.

    Args:
        cache_dir: Where the searches are kept, in the folder ``floors``.
        names: Floors, out of `FLOORS`.
        first_weights: Gives a module with the network's first weights, for the floor "own network,
            untrained" (or "not adapted", if it is pretrained); None leaves it out.
        seed: Of the floors.
    """

    def __init__(
        self,
        cache_dir: str | Path,
        *,
        names: Sequence[str] = tuple(FLOORS),
        first_weights: Callable[[], EncoderModule] | None = None,
        seed: int = 0,
    ) -> None:
        self.folder = Path(cache_dir) / "floors"
        self.names = tuple(names)
        self.first_weights = first_weights
        self.seed = seed

    def measure(
        self,
        catalog: Catalog,
        pictures: Pictures,
        protocol: Protocol,
        selection: Selection,
        *,
        device: torch.device | str = "cpu",
        precision: Precision | None = None,
        beside: Sequence[Selection] = (),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Floor, ...]:
        """Returns every floor, in the order of `FLOORS`, the network's own last.

        What is missing is found for other queries of the same gallery at the same time: to describe
        11,029 gallery items takes minutes, and their queries a tenth of it.

        Args:
            catalog: Splits assigned.
            pictures: Row i is the picture of the catalogue's row i.
            protocol: The rules.
            selection: The sides.
            device: Where the run's own network embeds.
            precision: In which precision it embeds, as the trainer's; None is float32.
            beside: Sides whose floors will be asked for later.
            on_progress: Called with (done, total) items, see `embed_floors`.
        """
        table = catalog.table
        module = self.first_weights() if self.first_weights is not None else None
        models = {name: FLOORS[name] for name in self.names}
        parts = {name: [name, VERSION, str(self.seed)] for name in models}
        if module is not None:
            weights = weights_fingerprint(module.model)
            own = _own_floor(module.to(device), precision)
            models[own.name] = own
            rounding = str(precision.precision) if precision is not None else "32"
            parts[own.name] = [own.name, VERSION, weights, rounding]
        ends: dict[str, list[str]] = {}
        if module is not None and module.head.settings != EmbeddingSettings():
            ends[own.name] = [repr(module.head.settings)]

        def keys_of(sides: Selection) -> dict[str, str]:
            content = self._content(catalog, pictures, protocol, sides)
            return {name: _key(*parts[name], content, *ends.get(name, ())) for name in models}

        keys = keys_of(selection)
        depth = _depth(table, protocol, selection)
        found = {name: self._read(key, depth, selection) for name, key in keys.items()}
        missing = [name for name, kept in found.items() if kept is None]
        if missing:
            asking = [(selection, keys)]
            asking += [
                (other, keys_of(other))
                for other in beside
                if np.array_equal(other.gallery_rows, selection.gallery_rows)
            ]
            gallery, queries = (
                FloorItems(table["item_id"].iloc[rows].tolist(), PicturesOfRows(pictures, rows))
                for rows in (
                    selection.gallery_rows,
                    np.concatenate([sides.query_rows for sides, _ in asking]),
                )
            )
            cuts = np.cumsum([len(sides.query_rows) for sides, _ in asking])[:-1]
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, embeddings in embed_floors(
                [models[name] for name in missing],
                gallery,
                queries,
                seed=self.seed,
                scratch_dir=self.folder,
                on_progress=on_progress,
            ):
                if module is not None and name not in FLOORS:
                    embeddings = _by_head(module.head, embeddings)
                index = EmbeddingIndex.build(
                    embeddings.gallery, list(gallery.item_ids), device="cpu"
                )
                for (sides, own_keys), asked in zip(
                    asking, np.split(embeddings.queries, cuts), strict=True
                ):
                    deep = _depth(table, protocol, sides)
                    deeper = replace(protocol, k=deep, to_r=False)
                    neighbours = find_neighbours(index, table, deeper, sides, asked)
                    self._write(own_keys[name], neighbours, embeddings.dim)
                    if sides is selection:
                        found[name] = (neighbours, embeddings.dim)
        floors = []
        shallow = search_depth(table, protocol, selection)
        by_product = depth_of_products(table, protocol, selection) > 0
        for name, kept in found.items():
            assert kept is not None
            neighbours, dim = kept
            report = score(table, protocol, selection, neighbours.first(shallow))
            products = (
                score_products(table, protocol, selection, neighbours) if by_product else None
            )
            model = models[name]
            floors.append(Floor(name, model.title, model.definition, dim, report, products))
        return tuple(floors)

    def _content(
        self, catalog: Catalog, pictures: Pictures, protocol: Protocol, selection: Selection
    ) -> str:
        """Returns what decides a search besides the floor: pictures, ids, exclusions."""
        digest = hashlib.sha256()
        transform = pictures.path.parent.name  # the store's: size, fit, version of the decoder
        depth = _depth(catalog.table, protocol, selection)
        search = [depth, protocol.exclude, protocol.restrict_to, transform]
        digest.update(json.dumps(search).encode())
        table = catalog.table
        for rows in (selection.gallery_rows, selection.query_rows):
            part = table.iloc[rows]
            columns = [part["item_id"].tolist()]
            columns.append(catalog.source.content_keys(part["image"].tolist()))
            if protocol.exclude == "group":
                columns.append(part["group"].tolist())
            if protocol.restrict_to:
                columns.append(labels(table, rows, protocol.restrict_to).tolist())
            digest.update(json.dumps(columns).encode())
        return digest.hexdigest()

    def _read(self, key: str, k: int, selection: Selection) -> tuple[Neighbours, int] | None:
        """Returns a search that was kept and its embeddings' width; None without a whole file."""
        path = self.folder / f"{key}.parquet"
        if not path.is_file():
            return None
        try:
            table = pd.read_parquet(path)
            places = table[[f"position_{rank}" for rank in range(k)]].to_numpy(dtype=np.int64)
            squared = table[[f"squared_distance_{rank}" for rank in range(k)]].to_numpy(
                dtype=np.float64
            )
            num_found = table["num_found"].to_numpy(dtype=np.int64)
            dim = int(table["dim"].iloc[0])
        except (OSError, ValueError, KeyError, IndexError):
            return None
        inside = (places >= 0) & (places < len(selection.gallery_rows))
        if len(table) != len(selection.query_rows) or not inside.all():
            return None
        return Neighbours(places, squared, num_found), dim

    def _write(self, key: str, neighbours: Neighbours, dim: int) -> None:
        ranks = range(neighbours.positions.shape[1])
        parts = [
            pd.DataFrame(neighbours.positions).set_axis([f"position_{i}" for i in ranks], axis=1),
            pd.DataFrame(neighbours.squared_distances).set_axis(
                [f"squared_distance_{i}" for i in ranks], axis=1
            ),
        ]
        table = pd.concat(parts, axis=1).assign(num_found=neighbours.num_found, dim=dim)
        with atomic_path(self.folder / f"{key}.parquet") as temporary:
            table.to_parquet(temporary, index=False)


class PicturesOfRows:
    """The pictures of these rows of the catalogue, counted from 0."""

    def __init__(self, pictures: Pictures, rows: NDArray[np.int64]) -> None:
        self.pictures, self.rows = pictures, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: NDArray[np.int64], /) -> NDArray[np.uint8]:
        return self.pictures[self.rows[places]]


def _depth(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> int:
    """Returns how deep one search goes, so that pictures and products can be scored by it."""
    by_picture = search_depth(table, protocol, selection)
    return max(by_picture, depth_of_products(table, protocol, selection))


def _own_floor(module: EncoderModule, precision: Precision | None) -> FloorModel:
    """Returns the floor that a run's own network is before its first step: what its head takes."""

    def describe(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(pictures).to(module.device)
        with (
            evaluating(module),
            precision.forward_context() if precision is not None else nullcontext(),
        ):
            found: NDArray[np.float32] = as_numpy(module.features(images))
        return found

    name, before = "untrained", "with its first random weights, before any training"
    if module.model.is_pretrained:
        name, before = "not_adapted", "as pretrained on other pictures, before this training"
    beside = module.head.settings.beside
    title = f"own network, {name.replace('_', ' ')}" + (f", {beside} beside it" if beside else "")
    dim = module.head.num_features
    return FloorModel(name, title, dim, f"The run's own network {before}.", describe)


def _by_head(head: EmbeddingHead, features: FloorEmbeddings) -> FloorEmbeddings:
    """Returns what a head, fitted on the gallery's features, makes of both sides'."""
    gallery, queries = np.array(features.gallery), np.array(features.queries)  # torch's to write
    head.fit(gallery)
    return FloorEmbeddings(head.embed(gallery), head.embed(queries))


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
