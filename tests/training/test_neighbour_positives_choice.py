"""Second views that show a neighbour: chosen, handed over, chosen anew, gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from tests.training.conftest import SIDE, small_autoencoder, trainer_in
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.handcrafted import DescriptorProjection, describe_beside
from visual_search.models.objectives.contrastive import simclr
from visual_search.training.callbacks.neighbour_positives import NeighbourPartners
from visual_search.training.datamodule import Batch, CatalogDataModule
from visual_search.training.module import EncoderModule, Preprocessing, to_network
from visual_search.training.neighbour_positives import mutual_neighbours

pytestmark = pytest.mark.slow  # trains


class Seen(Callback):
    """Keeps which partner each row of each batch had."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], list[int]]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.batches.append((batch["rows"].tolist(), batch["partner_rows"].tolist()))


def new_simclr(embedding: EmbeddingSettings | None = None) -> EncoderModule:
    torch.manual_seed(0)
    model = small_autoencoder()
    return EncoderModule(
        model,
        Preprocessing(SIDE, "stretch"),
        objective=simclr(model.embedding_dim, projection_dim=8),
        head=EmbeddingHead(model, embedding),
    )


def fit(
    folder: Path,
    datamodule: CatalogDataModule,
    *extra: Callback,
    source: str = "pixels_8",
    embedding: EmbeddingSettings | None = None,
    **settings: Any,
) -> tuple[NeighbourPartners, Seen, EncoderModule]:
    partners = NeighbourPartners(source, folder, num_neighbours=3, **settings)
    seen, module = Seen(), new_simclr(embedding)
    trainer_in(folder, partners, seen, *extra, max_epochs=4).fit(module, datamodule)
    return partners, seen, module


def test_partners_are_near_and_never_from_another_split(
    tmp_path: Path, new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    datamodule = new_datamodule()
    _, seen, _ = fit(tmp_path, datamodule, own_probability=0.0)
    pairs = {pair for rows, others in seen.batches for pair in zip(rows, others, strict=True)}
    train = set(datamodule.rows("train").tolist())
    categories = datamodule.catalog.table["category"].to_numpy()
    assert {row for pair in pairs for row in pair} <= train
    other = [(row, partner) for row, partner in pairs if row != partner]
    # Pictures of a category have its colour, so a neighbour is of the same.
    assert len(other) > len(train)
    assert all(categories[row] == categories[partner] for row, partner in other)


def test_the_own_picture_is_shown_as_often_as_asked_and_partners_are_chosen_anew(
    tmp_path: Path, new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    partners, always, module = fit(
        tmp_path, new_datamodule(), own_probability=1.0, refresh_every_n_epochs=2
    )
    assert all(rows == others for rows, others in always.batches)
    assert partners.chosen_at_epoch == 2
    assert module.training  # left in the mode that it was in


def test_the_runs_own_descriptor_can_choose(
    tmp_path: Path, new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    embedding = EmbeddingSettings(normalize=True, pca=8, beside="hog_shape", beside_pca=8)
    datamodule = new_datamodule()
    partners, seen, module = fit(
        tmp_path, datamodule, source="beside", embedding=embedding, refresh_every_n_epochs=2
    )
    assert partners.chosen_at_epoch == 2
    assert not module.head.is_fitted  # choosing leaves no trace on what is indexed
    # By then the run's whole embedding chose, the network's values and the descriptor's.
    rows = datamodule.rows("train")
    head = module.head
    with torch.inference_mode():
        images = to_network(torch.from_numpy(datamodule.pictures[rows]))
        described = describe_beside("hog_shape", images).numpy()
    alone = DescriptorProjection("hog_shape", 8)
    alone.fit(described)
    first = mutual_neighbours(alone(torch.from_numpy(described)).numpy(), 3, rows=rows)
    for batch, others in seen.batches[: len(seen.batches) // 4]:  # of the first of 4 epochs
        for row, other in zip(batch, others, strict=True):
            assert other == row or other in first.of(row)
    # What is validated holds the descriptor, too.
    trainer_in(tmp_path).validate(module, datamodule, verbose=False)
    outputs = module.evaluation_outputs()
    with torch.inference_mode():
        images = to_network(torch.from_numpy(datamodule.pictures[outputs.rows]))
        expected = describe_beside("hog_shape", images).numpy()
    np.testing.assert_allclose(outputs.features[:, head.num_learned :], expected, atol=1e-6)


def test_a_run_without_a_descriptor_has_none_that_could_choose(
    tmp_path: Path, new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    with pytest.raises(ValueError, match=r"embedding.beside is null; .*embedding.beside=hog_shape"):
        fit(tmp_path, new_datamodule(), source="beside")


def test_an_objective_without_a_second_view_is_refused(
    tmp_path: Path,
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
) -> None:
    trainer = trainer_in(tmp_path, NeighbourPartners("pixels_8", tmp_path))
    with pytest.raises(ValueError, match=r"sees 0 view\(s\) of a picture; .*objective=simclr"):
        trainer.fit(new_module(), new_datamodule())


@pytest.mark.parametrize("refresh", [None, 2])
def test_a_resumed_run_has_the_same_partners(
    tmp_path: Path, new_datamodule: Callable[..., CatalogDataModule], refresh: int | None
) -> None:
    fitted, whole, _ = fit(tmp_path / "whole", new_datamodule(), refresh_every_n_epochs=refresh)
    partners = NeighbourPartners(
        "pixels_8", tmp_path / "again", num_neighbours=3, refresh_every_n_epochs=refresh
    )
    partners.load_state_dict(fitted.state_dict())
    assert partners.chosen_at_epoch == fitted.chosen_at_epoch
    datamodule = new_datamodule()
    trainer = trainer_in(tmp_path)
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    partners.on_fit_start(trainer, new_simclr())
    assert datamodule.partners is not None
    rows, expected = whole.batches[-1]
    num_before = sum(len(batch) for batch, _ in whole.batches[:-1]) % len(datamodule.rows("train"))
    positions = num_before + np.arange(len(rows))
    found = datamodule.partners(np.array(rows), 3, positions)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "hogg"}, r"source 'hogg', expected one of .*hog"),
        ({"num_neighbours": 0}, "num_neighbours 0"),
        ({"own_probability": 1.5}, r"own_probability 1\.5"),
        ({"refresh_every_n_epochs": 0}, "refresh_every_n_epochs 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    given = {"source": "pixels_8", **settings}
    with pytest.raises(ValueError, match=message):
        NeighbourPartners(scratch_dir=tmp_path, **given)
