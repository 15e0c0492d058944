"""A bundle that is searched through a collection answers as it does with its own index."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.databases.conftest import on_every_server
from tests.databases.postgres import PostgresServer
from tests.serving.drawn_bundle import (
    GridEncoder,
    drawn,
    products,
    several_pictures,
    write_bundle,
)
from tests.serving.running import ALLOWED, TOKEN, client, wait_until
from visual_search.bundle import indexing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.snapshot import Snapshot, open_snapshot
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import SearchSchema, ServeSchema
from visual_search.databases.bundle_source import BundleSource
from visual_search.databases.database import DatabaseError, VectorDatabase
from visual_search.databases.opening import open_database
from visual_search.databases.pushing import push
from visual_search.databases.served_index import ServedIndex
from visual_search.runs.vector_database import searched_through
from visual_search.search import search_bundle
from visual_search.serve import serve_command

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _grid_encoder(_stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "make_encoder", GridEncoder)


def pushed(folder: Path, database: VectorDatabase) -> Path:
    push(BundleSource(open_snapshot(folder, hashed=False)), database)
    return folder


def opened(folder: Path, database: VectorDatabase) -> Bundle:
    def through(snapshot: Snapshot) -> ServedIndex:
        return ServedIndex(database, snapshot)

    return Bundle.open(folder, through=through)


@pytest.mark.parametrize("how", ["best", "mean", "all"])
@pytest.mark.parametrize("where", [None, {"category": ["Hats", "Bags"], "material": ["wool"]}])
def test_answers_are_those_of_the_own_index(
    database: VectorDatabase, tmp_path: Path, how: str, where: dict[str, list[str]] | None
) -> None:
    folder = pushed(
        write_bundle(tmp_path, items=several_pictures(), product_column="product"), database
    )
    own, through = Bundle.open(folder), opened(folder, database)
    ids = own.item_ids()[::5]
    queries = np.stack([own.embedding_of(one) for one in ids])
    for k in (1, 7, 200):
        asked = {"where": where, "products": how, "exclude_ids": ids}
        assert through.search(queries, k, **asked) == own.search(queries, k, **asked)


def test_nothing_is_short_where_the_collection_lags(
    database: VectorDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = pushed(write_bundle(tmp_path), database)
    through, own = opened(folder, database), Bundle.open(folder)
    queries = np.stack([own.embedding_of(one) for one in own.item_ids()[:5]])
    through.search(queries, 5)
    database.delete([f"p{n}" for n in range(0, 40, 2)])  # by somebody else
    assert through.search(queries, 40) == own.search(queries, 40)  # 28 are left there
    late = opened(folder, database)
    assert late.search(queries, 12) == own.search(queries, 12)
    assert "lacks 20 of the bundle's items" in caplog.text


def test_an_empty_text_is_found(database: VectorDatabase, tmp_path: Path) -> None:
    items = products(12)
    columns = {**items.columns, "material": ["" if n % 3 else "silk" for n in range(12)]}
    folder = pushed(write_bundle(tmp_path, items=replace(items, columns=columns)), database)
    where = {"material": [""]}
    hits = opened(folder, database).search(items.embeddings[:1], 20, where=where)
    assert hits == Bundle.open(folder).search(items.embeddings[:1], 20, where=where)
    assert len(hits[0]) == 8


def test_another_bundles_collection_is_refused(database: VectorDatabase, tmp_path: Path) -> None:
    pushed(write_bundle(tmp_path / "one", encoder=b"one"), database)
    other = opened(write_bundle(tmp_path / "other", encoder=b"other"), database)
    with pytest.raises(DatabaseError, match=r"other embeddings \(model_hash"):
        other.search(np.zeros((1, GridEncoder.embedding_dim), np.float32), 3)


@pytest.fixture
def shop_client(
    database: VectorDatabase, tmp_path: Path, kind: str, url: str
) -> Iterator[TestClient]:
    """A server of a bundle through its collection, with one product of each shape and colour."""
    folder = pushed(write_bundle(tmp_path), database)
    name = database.place.rpartition(" ")[2]
    through = searched_through(kind, url, name)
    bundle = Bundle.open(folder, through=through)
    with client(bundle, write_token=TOKEN, refresh_seconds=0.2) as one:
        yield one


def found(one: TestClient, item: str, **more: object) -> list[str]:
    answer = one.post("/api/search", json={"item": item, **more})
    assert answer.status_code == 200, answer.text
    return [hit["item_id"] for hit in answer.json()["hits"]]


@on_every_server
def test_page_and_api_search_add_and_remove(
    shop_client: TestClient, database: VectorDatabase
) -> None:
    assert len(found(shop_client, "p0", k=10)) == 10
    assert "p0" not in found(shop_client, "p0", k=100)
    hats = [f"p{n}" for n in range(48) if n % 4 == 3]
    assert sorted(found(shop_client, "p0", k=100, where=["category:Hats"])) == sorted(hats)
    page = shop_client.get("/", params={"item": "p0"}, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "p24" in page.text
    added = shop_client.post(
        "/api/items",
        data={"items": '[{"item_id": "new", "category": "Hats", "colour": "red"}]'},
        files={"image": drawn("Hats", "red")},
        headers=ALLOWED,
    )
    assert added.status_code == 201, added.text
    assert "new" in database.keys_of(["new"])  # in the collection when it is answered
    assert "new" in found(shop_client, "p3", k=3, where=["category:Hats"])
    removed = shop_client.delete("/api/items/p24", headers=ALLOWED)
    assert removed.status_code == 200, removed.text
    assert database.keys_of(["p24"]) == {}
    assert "p24" not in found(shop_client, "p0", k=100)


def test_a_server_away_is_503_until_it_is_back(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = open_database("pgvector", postgres.url, "away", timeout_s=20)
    folder = pushed(write_bundle(tmp_path), database)
    bundle = Bundle.open(folder, through=searched_through("pgvector", postgres.url, "away"))
    with client(bundle, write_token=TOKEN, refresh_seconds=0.1) as one:
        assert len(found(one, "p0", k=5)) == 5
        postgres.kill()
        answer = one.post("/api/search", json={"item": "p0"})
        assert answer.status_code == 503
        assert answer.json()["type"] == "/docs#problem-no-database"
        assert "down, too slow or starting" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "5"
        page = one.get("/", params={"item": "p0"}, headers={"accept": "text/html"})
        assert "not available just now" in page.text
        removed = one.delete("/api/items/p7", headers=ALLOWED)  # the bundle has it, at once
        assert removed.status_code == 200
        wait_until(lambda: one.get("/healthz").status_code == 503)
        postgres.start()
        wait_until(lambda: one.get("/healthz").status_code == 200)
        assert len(found(one, "p0", k=100)) == 46
        wait_until(lambda: not database.keys_of(["p7"]))  # what was missed is made up for
    assert "does not answer" in caplog.text
    assert "answers again" in caplog.text
    assert "hunter2" not in caplog.text + answer.text


def test_a_server_that_stands_still_is_503_in_time(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visual_search.databases.opening.SEARCH_TIMEOUT_S", 0.5)
    database = open_database("pgvector", postgres.url, "still", timeout_s=20)
    folder = pushed(write_bundle(tmp_path), database)
    bundle = Bundle.open(folder, through=searched_through("pgvector", postgres.url, "still"))
    with client(bundle) as one:
        assert len(found(one, "p0", k=5)) == 5
        postgres.signal(signal.SIGSTOP)
        try:
            assert one.post("/api/search", json={"item": "p0"}).status_code == 503
        finally:
            postgres.signal(signal.SIGCONT)
        assert len(found(one, "p0", k=5)) == 5


def test_a_server_may_come_after_the_bundle_was_opened(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = open_database("pgvector", postgres.url, "later", timeout_s=20)
    folder = pushed(write_bundle(tmp_path), database)
    postgres.kill()
    try:
        bundle = Bundle.open(folder, through=searched_through("pgvector", postgres.url, "later"))
        with pytest.raises(DatabaseError, match="does not answer"):
            bundle.search(np.zeros((1, GridEncoder.embedding_dim), np.float32), 3)
    finally:
        postgres.start()
    assert len(bundle.search(np.zeros((1, GridEncoder.embedding_dim), np.float32), 3)[0]) == 3


def test_the_search_command_asks_the_collection(
    database: VectorDatabase, tmp_path: Path, kind: str, url: str
) -> None:
    folder = pushed(write_bundle(tmp_path), database)
    own = search_bundle(SearchSchema(bundle=str(folder), item=["p0", "p7"], category="Hats"))
    name = database.place.rpartition(" ")[2]
    asked = SearchSchema(
        bundle=str(folder), item=["p0", "p7"], category="Hats", index=kind, url=url, collection=name
    )
    assert search_bundle(asked).answers == own.answers
    asked.collection = "nobody"
    with pytest.raises(ValueError, match=r"no collection at .*index push"):
        search_bundle(asked)


def test_one_collection_is_not_two_bundles() -> None:
    with pytest.raises(ConfigError, match="index=pgvector with 2 bundles; expected one"):
        serve_command(ServeSchema(bundles=["old", "new"], index="pgvector"))


def test_an_empty_collection_is_refused_with_the_command(
    database: VectorDatabase, tmp_path: Path, kind: str, url: str
) -> None:
    folder = write_bundle(tmp_path)
    through = searched_through(kind, url, database.place.rpartition(" ")[2])
    with pytest.raises(ValueError, match=r"no collection at .*index push"):
        Bundle.open(folder, through=through)
