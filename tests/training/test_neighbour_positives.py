"""Whose picture stands in: mutual neighbours beside brute force, chosen, shown, gone on with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from tests.models.networks import small_autoencoder
from tests.training.conftest import SIDE, NewDatamodule, NewModule, trainer_in
from visual_search.catalog.identity import picture_id
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.handcrafted import DescriptorProjection, describe_beside
from visual_search.models.objectives.contrastive import simclr
from visual_search.models.objectives.objective import StepBatch
from visual_search.training.callbacks.neighbour_positives import NeighbourPartners
from visual_search.training.datamodule import Batch, CatalogDataModule
from visual_search.training.module import EncoderModule, Preprocessing, to_network
from visual_search.training.neighbour_positives import (
    Partners,
    first_of_product,
    mutual_neighbours,
    same_product,
)

LISTS = {4: [6, 9, 12], 6: [4], 9: [], 12: [4, 6]}
PARTNERS = Partners(
    np.array(list(LISTS), dtype=np.int64),
    np.cumsum([len(each) for each in LISTS.values()]),
    np.array([row for each in LISTS.values() for row in each], dtype=np.int64),
)


def slow_mutual_neighbours(embeddings: NDArray[np.float32], k: int) -> list[list[int]]:
    """Brute force in float64: sort all others of each item, then look both ways."""
    exact = embeddings.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    nearest: list[list[int]] = []
    for i in range(len(exact)):
        others = [j for j in range(len(exact)) if j != i and lengths[i] and lengths[j]]
        cosine = {j: round(exact[i] @ exact[j] / lengths[i] / lengths[j], 6) for j in others}
        nearest.append(sorted(others, key=lambda j: (-cosine[j], j))[:k])
    return [[j for j in mine if i in nearest[j]] for i, mine in enumerate(nearest)]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_mutual_neighbours_are_those_of_brute_force(k: int) -> None:
    embeddings = np.random.default_rng(k).normal(size=(60, 6)).astype(np.float32)
    embeddings *= np.linspace(0.1, 50, 60, dtype=np.float32)[:, None]  # lengths do not count
    partners = mutual_neighbours(embeddings, k)
    expected = slow_mutual_neighbours(embeddings, k)
    assert [partners.of(row).tolist() for row in range(60)] == expected
    assert 0 < len(partners.neighbours) < 60 * k
    pairs = {(row, other) for row in range(60) for other in partners.of(row).tolist()}
    assert pairs == {(other, row) for row, other in pairs}
    assert all(row != other for row, other in pairs)


def test_equally_near_items_come_by_their_row() -> None:
    directions = np.eye(3, dtype=np.float32)
    embeddings = np.concatenate([directions] * 7)  # seven copies of each
    partners = mutual_neighbours(embeddings, 3)
    assert [partners.of(row).tolist() for row in range(21)] == slow_mutual_neighbours(embeddings, 3)
    assert partners.of(0).tolist() == [3, 6, 9]
    assert partners.of(18).tolist() == []  # it has the first three, which have each other


def test_neighbours_are_named_by_catalogue_rows_and_an_embedding_of_zeros_has_none() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    embeddings[[3, 7]] = 0
    rows, calls = np.arange(20, dtype=np.int64) * 3 + 100, []
    partners = mutual_neighbours(  # all others
        embeddings, 17, rows=rows, on_progress=lambda *told: calls.append(told)
    )
    assert len(partners) == 20
    assert calls[-1] == (18, 18)
    for row in rows.tolist():
        others = [] if row in (109, 121) else sorted(set(rows.tolist()) - {109, 121, row})
        assert sorted(partners.of(row).tolist()) == others


def test_every_partner_is_chosen_equally_often() -> None:
    numbers = (np.arange(4000) + 0.5) / 4000
    chosen = PARTNERS.choose(np.full(4000, 4), numbers, own_probability=0.4)
    rows, times = np.unique(chosen, return_counts=True)
    assert rows.tolist() == [4, 6, 9, 12]
    assert times.tolist() == [1600, 800, 800, 800]
    ends = np.array([4, 4, 12]), np.array([0, 1, 1], dtype=np.float32)  # are within the list
    assert PARTNERS.choose(*ends, 0.0).tolist() == [6, 12, 6]
    assert PARTNERS.choose(*ends, 1.0).tolist() == [4, 4, 12]


def test_without_partners_an_item_is_its_own() -> None:
    rows = np.array([9, 5, 0, 99, 6])  # an empty list, three unknown rows, one partner
    for own_probability, last in ((0.0, 4), (1.0, 6)):
        chosen = PARTNERS.choose(rows, np.full(5, 0.99), own_probability)
        assert chosen.tolist() == [9, 5, 0, 99, last]
        assert chosen.dtype == np.int64
    nobody = Partners(*(np.zeros(0, dtype=np.int64) for _ in range(3)))
    assert nobody.choose(rows, np.zeros(5), 0.0).tolist() == rows.tolist()


GOOD = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BROKEN = np.where(np.arange(5)[:, None] == 2, np.nan, GOOD).astype(np.float32)


def partners_of(rows: list[int], ends: list[int], neighbours: list[int]) -> Partners:
    return Partners(*(np.array(each, dtype=np.int64) for each in (rows, ends, neighbours)))


def choose(**changed: Any) -> NDArray[np.int64]:
    arguments = {"rows": np.array([4, 6]), "numbers": np.zeros(2), "own_probability": 0.5}
    return PARTNERS.choose(**(arguments | changed))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partners_of([4, 4], [0, 0], []), r"\(2,\) do not ascend"),
        (lambda: partners_of([6, 4], [0, 0], []), "do not ascend"),
        (lambda: partners_of([4, 6], [1], [6]), r"ends has shape \(1,\) for 2 rows"),
        (lambda: partners_of([4, 6], [2, 1], [6, 6]), "must not fall"),
        (lambda: partners_of([4, 6], [1, 2], [6]), "2 neighbours, but 1"),
        (lambda: choose(numbers=np.zeros(3)), r"rows has shape \(2,\) and numbers \(3,\)"),
        (lambda: choose(numbers=np.array([0.5, 1.5])), "between 0.5 and 1.5"),
        (lambda: choose(numbers=np.array([0.5, np.nan])), "between nan"),
        (lambda: choose(own_probability=1.1), "own_probability 1.1"),
        (lambda: mutual_neighbours(GOOD[0], 1), r"shape \(3,\), expected \[n, D\]"),
        (lambda: mutual_neighbours(GOOD, 0), "k 0, expected 1 to 4"),
        (lambda: mutual_neighbours(GOOD, 5), "k 5, expected 1 to 4"),
        (lambda: mutual_neighbours(GOOD * 0, 1), "0 of 5 embeddings"),
        (lambda: mutual_neighbours(GOOD, 1, rows=np.arange(4)), r"\(4,\) for 5 embeddings"),
        (lambda: mutual_neighbours(BROKEN, 1, rows=np.arange(5) + 10), "row 12 is not finite"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="float64, expected a float32 array"):
        mutual_neighbours(GOOD.astype(np.float64), 1)  # type: ignore[arg-type]


class Seen(Callback):
    """Keeps which partner each row of each batch had, and what the objective saw."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], list[int]]] = []
        self.steps: list[StepBatch] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.batches.append((batch["rows"].tolist(), batch["partner_rows"].tolist()))

    def pairs(self) -> set[tuple[int, int]]:
        return {pair for batch in self.batches for pair in zip(*batch, strict=True)}


def new_simclr(embedding: EmbeddingSettings | None = None) -> EncoderModule:
    torch.manual_seed(0)
    model = small_autoencoder()
    objective, head = simclr(model.embedding_dim, projection_dim=8), EmbeddingHead(model, embedding)
    return EncoderModule(model, Preprocessing(SIDE, "stretch"), objective=objective, head=head)


def partners_in(folder: Path, source: str = "pixels_8", **settings: Any) -> NeighbourPartners:
    return NeighbourPartners(source, folder, num_neighbours=3, **settings)


def fit(
    partners: NeighbourPartners, datamodule: CatalogDataModule, module: EncoderModule | None = None
) -> tuple[Seen, EncoderModule]:
    seen, module = Seen(), module or new_simclr()
    module.objective.register_forward_pre_hook(lambda _, given: seen.steps.append(given[1]))
    trainer_in(partners.scratch_dir, partners, seen, max_epochs=4).fit(module, datamodule)
    return seen, module


@pytest.mark.slow
def test_partners_are_near_and_never_from_another_split(
    tmp_path: Path, new_datamodule: NewDatamodule
) -> None:
    datamodule = new_datamodule()
    seen, _ = fit(partners_in(tmp_path, own_probability=0.0), datamodule)
    train = set(datamodule.rows("train").tolist())
    categories = datamodule.catalog.table["category"].to_numpy()
    assert {row for pair in seen.pairs() for row in pair} <= train
    other = [(row, partner) for row, partner in seen.pairs() if row != partner]
    # Pictures of a category have its colour, so a neighbour is of the same.
    assert len(other) > len(train)
    assert all(categories[row] == categories[partner] for row, partner in other)

    for step in seen.steps:
        assert step.partner_rows is not None
        for view, rows in zip(step.views, (step.rows, step.partner_rows), strict=True):
            assert torch.equal(
                view, to_network(torch.from_numpy(datamodule.pictures[rows.numpy()]))
            )


@pytest.fixture
def of_products(new_datamodule: NewDatamodule) -> CatalogDataModule:
    """The same pictures, four of each product; three of them where the catalogue ends."""
    datamodule = new_datamodule()
    table = datamodule.catalog.table.copy()
    products = [f"p{row // 4}" for row in range(len(table))]
    table["item_id"] = [picture_id(p, row % 4 + 1) for row, p in enumerate(products)]
    catalog = replace(datamodule.catalog, table=table.assign(product=products))
    assert catalog.products == products
    return CatalogDataModule(catalog, datamodule.pictures, batch_size=10, num_workers=0, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("source", [None, "pixels_8"])
def test_pictures_of_a_product_are_positives_and_never_negatives(
    tmp_path: Path, of_products: CatalogDataModule, source: str | None
) -> None:
    products = of_products.catalog.products
    assert products is not None
    model = small_autoencoder()
    objective, head = simclr(model.embedding_dim, projection_dim=8), EmbeddingHead(model)
    module = EncoderModule(model, Preprocessing(SIDE, "stretch"), objective=objective, head=head,
                           products=products)  # fmt: skip
    partners = NeighbourPartners(source, tmp_path, num_neighbours=3, own_probability=0.0)
    fit(partners, of_products, module)
    train, chosen = of_products.rows("train"), partners.state_dict()
    held = Partners(*(chosen[name].numpy() for name in ("rows", "ends", "neighbours")))
    for row in train.tolist():
        own = {other for other in train.tolist()
               if products[other] == products[row] and other != row}  # fmt: skip
        found = set(held.of(row).tolist())
        assert own <= found
        assert (found == own) == (source is None) or found == own

    batch = next(iter(of_products.train_dataloader()))
    seen = module._step_batch(batch)
    assert seen.partner_rows is not None
    firsts = first_of_product(products)
    assert seen.rows.tolist() == firsts[batch["rows"].numpy()].tolist()
    pairs = zip(batch["rows"].tolist(), batch["partner_rows"].tolist(), strict=True)
    if source is None:
        assert torch.equal(seen.rows, seen.partner_rows)
        assert all(products[row] == products[other] != "" for row, other in pairs)


def test_partners_of_a_product_are_its_other_pictures_of_the_split() -> None:
    partners = same_product(["hat", "shoe", "hat", "hat", "bag"], np.array([0, 1, 3, 4]))
    assert {row: partners.of(row).tolist() for row in (0, 1, 3, 4)} == {
        0: [3],
        1: [],
        3: [0],
        4: [],
    }


@pytest.mark.slow
def test_the_own_picture_is_shown_as_often_as_asked_and_partners_are_chosen_anew(
    tmp_path: Path, new_datamodule: NewDatamodule
) -> None:
    partners = partners_in(tmp_path, own_probability=1.0, refresh_every_n_epochs=2)
    seen, module = fit(partners, new_datamodule())
    assert all(rows == others for rows, others in seen.batches)
    assert partners.chosen_at_epoch == 2
    assert module.training  # left in the mode that it was in


@pytest.mark.slow
def test_the_runs_own_descriptor_can_choose(tmp_path: Path, new_datamodule: NewDatamodule) -> None:
    embedding = EmbeddingSettings(normalize=True, pca=8, beside="hog_shape", beside_pca=8)
    datamodule = new_datamodule()
    partners = partners_in(tmp_path, "beside", refresh_every_n_epochs=2)
    seen, module = fit(partners, datamodule, new_simclr(embedding))
    assert partners.chosen_at_epoch == 2
    assert not module.head.is_fitted  # choosing leaves no trace on what is indexed

    def described(rows: Any) -> Any:
        with torch.inference_mode():
            images = to_network(torch.from_numpy(datamodule.pictures[rows]))
            return describe_beside("hog_shape", images).numpy()

    # In the second half the run's whole embedding chose, the network's values and the descriptor's.
    rows = datamodule.rows("train")
    alone = DescriptorProjection("hog_shape", 8)
    alone.fit(described(rows))
    first = mutual_neighbours(alone(torch.from_numpy(described(rows))).numpy(), 3, rows=rows)
    for batch, others in seen.batches[: len(seen.batches) // 4]:  # of the first of 4 epochs
        for row, other in zip(batch, others, strict=True):
            assert other == row or other in first.of(row)
    # What is validated holds the descriptor, too.
    trainer_in(tmp_path).validate(module, datamodule, verbose=False)
    outputs = module.evaluation_outputs()
    found = outputs.features[:, module.head.num_learned :]
    np.testing.assert_allclose(found, described(outputs.rows), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("refresh", [None, 2])
def test_a_resumed_run_has_the_same_partners(
    tmp_path: Path, new_datamodule: NewDatamodule, refresh: int | None
) -> None:
    fitted, again = (
        partners_in(tmp_path / name, refresh_every_n_epochs=refresh) for name in ("whole", "again")
    )
    whole, _ = fit(fitted, new_datamodule())
    again.load_state_dict(fitted.state_dict())
    assert again.chosen_at_epoch == fitted.chosen_at_epoch
    trainer, datamodule = trainer_in(tmp_path), new_datamodule()
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    again.on_fit_start(trainer, new_simclr())
    assert datamodule.partners is not None
    rows, expected = whole.batches[-1]
    num_before = sum(len(batch) for batch, _ in whole.batches[:-1]) % len(datamodule.rows("train"))
    found = datamodule.partners(np.array(rows), 3, num_before + np.arange(len(rows)))
    assert found.tolist() == expected


def test_a_run_that_cannot_use_partners_is_refused(
    tmp_path: Path, new_module: NewModule, new_datamodule: NewDatamodule
) -> None:
    with pytest.raises(ValueError, match=r"embedding.beside is null; .*embedding.beside=hog_shape"):
        fit(partners_in(tmp_path, "beside"), new_datamodule())
    with pytest.raises(ValueError, match=r"sees 0 view\(s\) of a picture; .*objective=simclr"):
        fit(partners_in(tmp_path), new_datamodule(), new_module())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "hogg"}, r"source 'hogg', expected one of .*hog"),
        ({"num_neighbours": 0}, "num_neighbours 0"),
        ({"own_probability": 1.5}, r"own_probability 1\.5"),
        ({"refresh_every_n_epochs": 0}, "refresh_every_n_epochs 0"),
    ],
)
def test_wrong_settings_of_partners_are_refused(settings: dict[str, Any], message: str) -> None:
    given = {"source": "pixels_8", **settings}
    with pytest.raises(ValueError, match=message):
        NeighbourPartners(scratch_dir=Path(), **given)
