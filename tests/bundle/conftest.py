from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.small_bundles import StandInEncoder, create
from visual_search.bundle import indexing

IDS = [f"item-{n}" for n in range(12)]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(data: bytes, num_threads: int | None) -> StandInEncoder:
        return StandInEncoder(data, num_threads=num_threads)

    monkeypatch.setattr(indexing, "make_encoder", make)


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    return create(tmp_path / "bundle", IDS, facts={"map_at_5": 0.5}, files={"note.md": "Hello"})
