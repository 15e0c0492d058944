"""Positives from other items: pictures of the same product, and who is near by an embedding."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from visual_search.models.embedding import rows_to_fit
from visual_search.models.floor_items import FloorItems
from visual_search.models.floors import FLOORS, embed_floors
from visual_search.models.handcrafted import DescriptorProjection, describe_beside
from visual_search.training.augmentation import uniform_numbers
from visual_search.training.datamodule import CatalogDataModule, datamodule_of
from visual_search.training.features import features_of_rows
from visual_search.training.floors import PicturesOfRows
from visual_search.training.module import to_network
from visual_search.training.neighbour_positives import Partners, mutual_neighbours, same_product

if TYPE_CHECKING:
    from visual_search.models.embedding import EmbeddingHead
    from visual_search.models.objectives.objective import Objective
    from visual_search.training.module import EncoderModule

BESIDE = "beside"  # the source that is the run's own descriptor

_DRAW = 1_000  # number of the draw: views count from 0
_BLOCK = 256  # pictures described at once


def check_partners(source: str | None, objective: Objective, head: EmbeddingHead) -> None:
    """Refuses a source of partners that a run cannot use; None is fine.

    Raises:
        ValueError: The objective has no second view that could show a partner, or the run has no
            descriptor that could choose one.
    """
    if source is not None and objective.num_views < 2:
        raise ValueError(
            f"partners.source={source} is set, but the objective sees {objective.num_views} "
            "view(s) of a picture; expected one that sees two, such as objective=simclr; set "
            "partners.source=null, or change the objective"
        )
    if source == BESIDE and head.settings.beside is None:
        raise ValueError(
            f"partners.source={BESIDE} is set, but embedding.beside is null; expected a "
            "descriptor there: set embedding.beside=hog_shape, or another partners.source"
        )


class NeighbourPartners(Callback):
    """Lets the second view of an item show another picture of its product, or a neighbour.

    Where products have several pictures, the others of its own are an item's partners, whatever
    the source: of these it is certain.

    Two items are partners when each is among the other's nearest by the source's embedding: on the
    complete-the-look crops 76 % of the five nearest by HOG are of the query's category, and 87 % of
    the mutual ones. After every n-th epoch the embedding that the run indexes, beside the source's,
    can choose anew. Nobody's labels are looked at. After NNCLR (Dwibedi et al. 2021, arXiv
    2104.14548).

    Args:
        source: Whose neighbours are partners: a floor by name, as ``hog_pca_256_unit``; or
            ``beside``, the descriptor that stands in the run's own embedding
            (``embedding.beside``); None: nobody's.
        scratch_dir: Where descriptions are kept while they are made.
        num_neighbours: How many nearest each looks at.
        own_probability: How often the item itself is shown nonetheless, 0..1.
        refresh_every_n_epochs: Choose anew after so many epochs; None keeps the first choice.
        seed: Of the choice in every step.

    Raises:
        ValueError: No source has that name, or a number is outside its range.
    """

    def __init__(
        self,
        source: str | None,
        scratch_dir: str | Path,
        *,
        num_neighbours: int = 5,
        own_probability: float = 0.3,
        refresh_every_n_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        if source not in (None, BESIDE, *FLOORS):
            raise ValueError(
                f"got the source {source!r}, expected one of {', '.join(FLOORS)}, {BESIDE}; set "
                "partners.source, or null"
            )
        if num_neighbours < 1 or not 0 <= own_probability <= 1:
            raise ValueError(
                f"got num_neighbours {num_neighbours} and own_probability {own_probability}, "
                "expected at least 1 and 0..1; set partners.num_neighbours and "
                "partners.own_probability"
            )
        if refresh_every_n_epochs is not None and refresh_every_n_epochs < 1:
            raise ValueError(
                f"got refresh_every_n_epochs {refresh_every_n_epochs}, expected at least 1; set "
                "partners.refresh_every_n_epochs, or null"
            )
        self.source = source
        self.scratch_dir = Path(scratch_dir)
        self.num_neighbours = num_neighbours
        self.own_probability = own_probability
        self.refresh_every_n_epochs = refresh_every_n_epochs
        self.seed = seed
        self.chosen_at_epoch = -1
        self._partners: Partners | None = None
        self._source: NDArray[np.float32] | None = None  # described once, for every choice

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses by the source alone, unless a checkpoint brought the choice.

        Raises:
            ValueError: See `check_partners`.
        """
        module: EncoderModule = pl_module  # type: ignore[assignment]
        check_partners(self.source, module.objective, module.head)
        if self._partners is None:
            datamodule = datamodule_of(trainer)
            if self.source is None:
                catalog = datamodule.catalog  # each a product where the other pictures are broken
                products = catalog.products or catalog.table["item_id"].tolist()
                self._partners = same_product(products, datamodule.rows("train"))
            else:
                self._choose(trainer, self._source_embeddings(datamodule, module))
            self.chosen_at_epoch = trainer.current_epoch
        self._hand_over(datamodule_of(trainer))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses anew when it is time, by the source's and the run's own embedding."""
        epoch, every = trainer.current_epoch, self.refresh_every_n_epochs
        if self.source is None or every is None or epoch % every or epoch <= self.chosen_at_epoch:
            return
        datamodule = datamodule_of(trainer)
        module: EncoderModule = pl_module  # type: ignore[assignment]
        module.eval()
        features = features_of_rows(module, datamodule, trainer, datamodule.rows("train"))
        module.train()
        head = copy.deepcopy(module.head)
        head.fit(features)
        embeddings = head.embed(features)
        if self.source != BESIDE:  # which is in the run's own embedding
            source = self._source_embeddings(datamodule, module)
            embeddings = np.concatenate([_standardised(embeddings), _standardised(source)], axis=1)
        self._choose(trainer, embeddings)
        self.chosen_at_epoch = epoch
        self._hand_over(datamodule)

    def _source_embeddings(
        self, datamodule: CatalogDataModule, module: EncoderModule
    ) -> NDArray[np.float32]:
        if self._source is None:
            rows = datamodule.rows("train")
            pictures = PicturesOfRows(datamodule.pictures, rows)
            if self.source == BESIDE:
                self._source = _described(module, pictures)
            else:
                ids = datamodule.catalog.table["item_id"].iloc[rows].tolist()
                self._source = self._floor_embeddings(ids, pictures)
        return self._source

    def _floor_embeddings(self, ids: list[str], pictures: PicturesOfRows) -> NDArray[np.float32]:
        # Nobody asks here, but embedding takes both sides: the first item stands for the queries.
        asking = FloorItems(ids[:1], PicturesOfRows(pictures.pictures, pictures.rows[:1]))
        items = FloorItems(ids, pictures)
        self.scratch_dir.mkdir(parents=True, exist_ok=True)
        assert self.source is not None
        made = embed_floors([FLOORS[self.source]], items, asking, scratch_dir=self.scratch_dir)
        return dict(made)[self.source].gallery

    def _choose(self, trainer: Trainer, embeddings: NDArray[np.float32]) -> None:
        datamodule = datamodule_of(trainer)
        rows = datamodule.rows("train")
        self._partners = mutual_neighbours(embeddings, self.num_neighbours, rows=rows)
        products = datamodule.catalog.products
        if products is not None:
            self._partners = self._partners.joined(same_product(products, rows))

    def _hand_over(self, datamodule: CatalogDataModule) -> None:
        partners = self._partners
        assert partners is not None

        def choose(
            rows: NDArray[np.int64], epoch: int, positions: NDArray[np.int64]
        ) -> NDArray[np.int64]:
            numbers = uniform_numbers(self.seed, epoch, positions, _DRAW, 1)[:, 0]
            return partners.choose(rows, numbers, self.own_probability)

        datamodule.partners = choose

    def state_dict(self) -> dict[str, object]:
        """Returns the choice; a resumed run goes on with it."""
        if self._partners is None:
            return {}
        arrays = {field.name: getattr(self._partners, field.name) for field in fields(Partners)}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {"chosen_at_epoch": self.chosen_at_epoch, **tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        if state_dict:
            arrays = dict(state_dict)
            self.chosen_at_epoch = int(arrays.pop("chosen_at_epoch"))
            self._partners = Partners(**{name: a.numpy() for name, a in arrays.items()})


def _described(module: EncoderModule, pictures: PicturesOfRows) -> NDArray[np.float32]:
    """Returns what the descriptor beside the network makes of pictures, ``[n, D] float32``."""
    name = module.head.settings.beside
    assert name is not None
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BLOCK):
            block = pictures[np.arange(start, min(start + _BLOCK, len(pictures)))]
            images = to_network(torch.from_numpy(block).to(module.device))
            found.append(describe_beside(name, images).cpu().numpy())
        features = np.concatenate(found)
        projection = DescriptorProjection(name, module.head.settings.beside_pca)
        projection.fit(features[rows_to_fit(len(features))])
        embeddings: NDArray[np.float32] = projection(torch.from_numpy(features)).numpy()
    return embeddings


def _standardised(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the embeddings centred and of length 1, so that neither side outweighs the other."""
    centred = embeddings - embeddings.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    found: NDArray[np.float32] = centred / np.maximum(lengths, 1e-12)
    return found.astype(np.float32)
