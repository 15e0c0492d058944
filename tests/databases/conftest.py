from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.bundle.small_bundles import StandInEncoder
from tests.databases.postgres import PostgresServer, postgres_server
from visual_search.bundle import indexing
from visual_search.databases.database import VectorDatabase
from visual_search.databases.opening import open_database

KINDS = ["pgvector", "qdrant", "lancedb"]
# Milvus answers every request after 0.2 to 0.4 s: it does not get all of the tests.
on_every_server = pytest.mark.parametrize("kind", [*KINDS, "milvus"], indirect=True)
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "make_encoder", StandInEncoder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def milvus_url() -> Iterator[str]:
    """A Milvus server of the tests' own; a second one does not start beside it."""
    pytest.importorskip("pymilvus", reason="the extra 'milvus' is not installed")
    milvus = pytest.importorskip("milvus", reason="no Milvus server by wheel")
    folder = tempfile.mkdtemp(prefix="milvus-")
    with FileLock(Path(tempfile.gettempdir()) / f"milvus-{os.getuid()}.lock"):
        server = milvus.MilvusServer(wait_for_started=False)
        server.set_base_dir(folder)
        try:
            server.start()
            try:
                server.wait_started(timeout=60_000)
            except (TimeoutError, RuntimeError) as error:
                pytest.skip(f"no Milvus server starts here: {error}")
            yield f"http://127.0.0.1:{server.listen_port}"
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)
            logging.getLogger("pymilvus").setLevel(logging.NOTSET)


@pytest.fixture
def qdrant_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The client's local mode, one for all clients of a test: its server comes in no wheel."""
    client = pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    shared = client.QdrantClient(":memory:")
    monkeypatch.setattr("qdrant_client.QdrantClient", lambda **_: shared)
    monkeypatch.setattr(shared, "close", lambda: None)
    return "http://localhost:6333"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a running server of that kind."""
    if kind == "pgvector":
        return str(request.getfixturevalue("postgres").url)
    if kind == "lancedb":
        pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
        return str(tmp_path / "lancedb")
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
def new_database(kind: str, url: str) -> Iterator[Callable[[], VectorDatabase]]:
    """Gives collections that are not there yet."""
    made = []

    def new() -> VectorDatabase:
        made.append(open_database(kind, url, f"products_{next(_numbers)}", timeout_s=20))
        return made[-1]

    yield new
    for database in made:
        database.close()


@pytest.fixture
def database(new_database: Callable[[], VectorDatabase]) -> VectorDatabase:
    return new_database()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A bundle that the test may change."""
    from tests.bundle.small_bundles import IDS, create

    return create(tmp_path / "shop", IDS)
