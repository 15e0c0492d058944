"""What tests of several files read, made once."""

from __future__ import annotations

import pytest

from tests.small_runs import run_here
from visual_search.runs.run import Run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with a fitted head, to be read alone.

    It trained on a few of its catalogue's 72 items; pictures lie in `cache_of`.
    """
    head = ["embedding.pca=8", "embedding.normalize=true", "embedding.whiten=0.5"]
    target = "visual_search.training.callbacks.reconstructions.Reconstructions"
    drawn = [f"+callbacks.reconstructions._target_={target}"]  # nothing: it has no decoder
    run = run_here(tmp_path_factory.mktemp("trained"), *head, *drawn)
    assert not (run.folder / "figures" / "reconstructions").exists()
    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow ones first, so that no process is left with one while the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def cache_of(run: Run) -> str:
    return f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
