from __future__ import annotations

import pytest

from tests.knn.galleries import GALLERY
from visual_search.knn import faiss_index
from visual_search.knn.indexes import build_index
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore


@pytest.fixture(scope="session")
def indexes() -> dict[str, SearchIndex]:
    """An index of each kind over GALLERY; the tests leave them as they are."""
    store = ArrayStore([GALLERY[:700], GALLERY[700:]])
    return {kind: build_index(store, kind) for kind in ("flat", "hnsw", "ivf", "ivfpq")}


@pytest.fixture
def _always_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets small galleries be searched as large ones are."""
    monkeypatch.setattr(faiss_index, "EXACT_VALUES", 0)
