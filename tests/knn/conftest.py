from __future__ import annotations

import pytest

from tests.knn.test_search_index import GALLERY, OURS
from visual_search.knn import faiss_index
from visual_search.knn.indexes import build_index
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore


@pytest.fixture(scope="session")
def indexes() -> dict[str, SearchIndex]:
    store = ArrayStore([GALLERY[:700], GALLERY[700:]])
    return {kind: build_index(store, kind) for kind in OURS}


@pytest.fixture
def _always_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets small galleries be searched as large ones are."""
    monkeypatch.setattr(faiss_index, "EXACT_VALUES", 0)
