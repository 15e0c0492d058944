"""Which rows come when: a function of seed, epoch and position alone; and in which shard."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.conftest import NewDatamodule, trainer_in
from visual_search.training.datamodule import (
    CatalogDataModule,
    EvaluationBatches,
    TrainingBatches,
)

ROWS = np.arange(100, 123, dtype=np.int64)


def batches(batch_size: int, **settings: int) -> TrainingBatches:
    """The batches of ROWS, shuffled as a run of seed 0 shuffles them."""

    def order(epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([0, epoch]).permutation(ROWS)

    return TrainingBatches(order, len(ROWS), batch_size, **settings)


def rows_of(sampler: TrainingBatches) -> list[list[int]]:
    return [batch.rows.tolist() for batch in sampler]


def test_an_epoch_sees_every_row_once_in_another_order() -> None:
    sampler = batches(5)
    first = list(chain.from_iterable(rows_of(sampler)))
    sampler.set_epoch(1)
    second = list(chain.from_iterable(rows_of(sampler)))
    assert sorted(first) == sorted(second) == ROWS.tolist()
    assert first != second
    assert len(list(sampler)) == len(sampler) == 5

    whole = rows_of(batches(5, epoch=2))
    sampler = batches(5, epoch=2, start_batch=3)  # in the middle: the same order
    assert rows_of(sampler) == whole[3:]
    assert rows_of(sampler) == whole  # the next pass is a whole one


def test_a_last_batch_of_one_item_is_given_a_second() -> None:
    *_, last = batches(11)  # 23 items: 11, 11 and 1
    assert last.positions.tolist() == [22, 0]
    assert [len(batch.rows) for batch in batches(1)] == [1] * 23


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_each_global_batch_whose_places_are_numbered(world_size: int) -> None:
    parts = [list(batches(5, rank=rank, world_size=world_size)) for rank in range(world_size)]
    order = np.random.default_rng([0, 0]).permutation(ROWS)
    for shares, whole in zip(zip(*parts, strict=True), rows_of(batches(5)), strict=True):
        assert set(chain.from_iterable(share.rows.tolist() for share in shares)) == set(whole)
        assert len({len(share.rows) for share in shares}) == 1
        for share in shares:
            assert share.rows.tolist() == order[share.positions].tolist()
    met = {place for batch in chain.from_iterable(parts) for place in batch.positions.tolist()}
    assert met == set(range(23))


@pytest.mark.parametrize("world_size", [1, 3, 30])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_every_row_in_batches_of_one_size(world_size: int, batch_size: int) -> None:
    parts = [
        list(EvaluationBatches(ROWS, batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {row for part in parts for batch in part for row in batch} == set(ROWS.tolist())
    assert {len(batch) for part in parts for batch in part} == {min(batch_size, 23)}
    assert len({len(part) for part in parts}) == 1


def test_a_batch_holds_the_pictures_of_its_rows(new_datamodule: NewDatamodule) -> None:
    datamodule, other = new_datamodule(), new_datamodule()
    batch = next(iter(datamodule.train_dataloader()))
    rows = batch["rows"].numpy()
    assert batch["images"].dtype.is_floating_point is False
    np.testing.assert_array_equal(batch["images"].numpy(), datamodule.pictures[rows])
    assert set(rows) <= set(datamodule.rows("train"))
    other.seed = 4
    assert next(iter(other.train_dataloader()))["rows"].tolist() != rows.tolist()


@pytest.mark.parametrize(("argument", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_impossible_settings_are_refused(
    new_datamodule: NewDatamodule, argument: str, value: int
) -> None:
    other = new_datamodule()
    with pytest.raises(ValueError, match=f"{argument} {value}"):
        CatalogDataModule(other.catalog, other.pictures, **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 12),  # 40 items in batches of 10, thrice
        ({"accumulate_grad_batches": 3}, 6),
        ({"limit_train_batches": 3}, 9),
        ({"limit_train_batches": 0.5}, 6),
        ({"max_epochs": 0}, 4),  # a schedule of no steps could not be built
        ({"max_epochs": None, "limit_train_batches": 0}, 1),
    ],
)
def test_a_schedule_knows_all_steps_of_a_run(
    new_datamodule: NewDatamodule, tmp_path: Path, settings: dict[str, float], steps: int
) -> None:
    datamodule = new_datamodule()
    assert len(datamodule.rows("train")) == 40
    datamodule.trainer = trainer_in(tmp_path, **{"max_epochs": 3} | settings)
    assert datamodule.num_training_steps() == steps
