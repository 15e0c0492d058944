from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundle.small_bundles import StandInEncoder
from tests.databases.postgres import PostgresServer, postgres_server
from visual_search.bundle import indexing
from visual_search.databases.database import VectorDatabase
from visual_search.databases.opening import open_database

KINDS = ["pgvector"]
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "make_encoder", StandInEncoder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """The address of a running server of that kind."""
    return str(request.getfixturevalue("postgres").url)


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
