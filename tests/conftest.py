"""What tests of several files read, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_runs import run_here
from tests.storage.s3_server import S3Server, started
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server with S3's protocol; tests ask for `s3`."""
    server = started()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, which this process and its children find by their environment."""
    for name, value in s3_server.environment(tmp_path / "copies").items():
        monkeypatch.setenv(name, value)
    s3_server.asked.clear()
    return s3_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow ones first, so that no process is left with one while the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def cache_of(run: Run) -> str:
    return f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
