"""Shards: which rows, in which batches, by which process."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from visual_search.catalog.cache import CachedCatalog
from visual_search.training.datamodule import PictureDataset
from visual_search.training.module import EncoderModule
from visual_search.training.shards import ShardBatches, ShardEmbedder, rows_of_shard


@pytest.mark.parametrize(("num_items", "shard_size"), [(1, 1), (7, 3), (6, 3), (5, 100)])
def test_shards_hold_every_row_once(num_items: int, shard_size: int) -> None:
    num_shards = -(-num_items // shard_size)
    parts = [rows_of_shard(number, shard_size, num_items) for number in range(num_shards)]
    assert all(1 <= len(part) <= shard_size for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(num_items))


def test_batches_stay_within_a_shard_and_have_its_one_size() -> None:
    batches = ShardBatches([np.arange(10), np.arange(30, 33)], batch_size=4)
    found = list(batches)
    assert len(batches) == len(found) == 4
    assert found[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert found[3] == [30, 31, 32]
    assert list(ShardBatches([], batch_size=4)) == []


def test_a_process_whose_first_process_ended_writes_nothing(
    cached: CachedCatalog, new_module: Callable[[], EncoderModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    helper = ShardEmbedder(
        new_module(), cached.pictures, [0, 1], shard_size=4, batch_size=4, num_workers=0,
        write=lambda number, embeddings: written.append(number),
    )  # fmt: skip
    monkeypatch.setattr(ShardEmbedder, "global_rank", 1)
    batches = PictureDataset(cached.pictures)
    assert helper.predict_step(batches[range(4)], 0) == 4
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(RuntimeError, match=r"that started this one has ended"):
        helper.predict_step(batches[range(4, 8)], 1)
    assert written == [0]
