from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bundle.small_bundles import IDS, StandInEncoder, create
from visual_search.bundle import indexing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.writing import remove_items


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "make_encoder", StandInEncoder)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nobody changes."""
    place = tmp_path_factory.mktemp("made") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "make_encoder", StandInEncoder)
        return create(place, IDS, facts={"map_at_5": 0.5}, files={"note.md": "Hello"})


@pytest.fixture(scope="session")
def bundle(made_once: Path) -> Bundle:
    return Bundle.open(made_once)


@pytest.fixture
def bundle_folder(made_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_once, tmp_path / "bundle")


@pytest.fixture
def full_folder(tmp_path: Path) -> Path:
    """A bundle that has every kind of file: an index of its own and removed rows."""
    folder = create(tmp_path / "bundle", IDS, kind="hnsw", files={"note.md": "Hello"})
    remove_items(folder, ["item-4"], tidy=False)
    return folder
