"""A process that helps to embed shards; with real processes: tests/test_embed_processes.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from visual_search.catalog.cache import CachedCatalog
from visual_search.catalog.streaming import ItemPictures, PictureBatch, ReadItems, read_batches
from visual_search.training.module import EncoderModule
from visual_search.training.shards import ShardEmbedder


@dataclass
class TwoShards:
    """The first eight items."""

    cached: CachedCatalog
    missing: tuple[int, ...] = (0, 1)
    num_items: int = 8
    written: list[int] = field(default_factory=list)

    def batches(self, number: int) -> Iterator[PictureBatch]:
        catalog = self.cached.catalog
        asked = ItemPictures(catalog.source, "colours", 16, "stretch", 4, 1, True)
        yield from read_batches(catalog.table.iloc[4 * number : 4 * number + 4], asked)

    def write(self, number: int, items: ReadItems, embeddings: Any) -> None:
        assert len(embeddings) == len(items.table)
        self.written.append(number)


def test_a_process_whose_first_process_ended_writes_nothing(
    cached: CachedCatalog, new_module: Callable[[], EncoderModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = TwoShards(cached)
    helper = ShardEmbedder(new_module(), job)
    monkeypatch.setattr(ShardEmbedder, "global_rank", 1)
    first, second = helper._batches(job.missing, pin=False)
    assert helper.predict_step(first, 0) == 4
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(RuntimeError, match=r"that started this one has ended"):
        helper.predict_step(second, 1)
    assert job.written == [0]
