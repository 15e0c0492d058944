"""A collection becomes what its source is, whatever was there and whatever comes between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundle.small_bundles import IDS, items_of
from tests.databases.conftest import on_every_server
from tests.databases.postgres import PostgresServer
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.snapshot import open_snapshot
from visual_search.bundle.writing import add_items, remove_items
from visual_search.config.schemas import IndexSchema
from visual_search.databases import lancedb, pgvector
from visual_search.databases.bundle_source import BundleSource
from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    DatabaseUnavailableError,
    VectorDatabase,
)
from visual_search.databases.labels import content_key, label
from visual_search.databases.opening import open_database
from visual_search.databases.pushing import push
from visual_search.databases.urls import URL_VARIABLE
from visual_search.databases.verifying import verify
from visual_search.index import main

pytestmark = pytest.mark.slow


class Drawn:
    """Many items, in blocks."""

    def __init__(self, num_items: int = 3_000, dim: int = 16, seed: int = 0) -> None:
        self.facts = CollectionFacts("a", "b", "c", dim)
        generator = np.random.default_rng(seed)
        self.embeddings = generator.normal(size=(num_items, dim)).astype(np.float32)
        self.ids = [f"item-{n}" for n in range(num_items)]
        self.categories = [f"c{n % 7}" for n in range(num_items)]

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(
        self,
    ) -> Iterator[tuple[Sequence[str], Mapping[str, Sequence[str]], NDArray[np.float32]]]:
        for start in range(0, len(self), 500):
            rows = slice(start, start + 500)
            yield self.ids[rows], {"category": self.categories[rows]}, self.embeddings[rows]


def counts(source: BundleSource | Drawn, database: VectorDatabase) -> tuple[int, int, int, int]:
    found = push(source, database)
    return found.num_added, found.num_updated, found.num_removed, found.num_items


def source_of(folder: Path) -> BundleSource:
    return BundleSource(open_snapshot(folder, hashed=False))


@on_every_server
def test_only_what_changed_is_sent(
    shop: Path, database: VectorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counts(source_of(shop), database) == (12, 0, 0, 12)
    assert counts(source_of(shop), database) == (0, 0, 0, 12)
    remove_items(shop, [IDS[3]])
    add_items(shop, items_of(["further"]), made_by=Bundle.open(shop).manifest.encoder.sha256)
    changed = items_of([IDS[5]], mark="other ")
    add_items(shop, changed, made_by=Bundle.open(shop).manifest.encoder.sha256)
    sent: list[str] = []
    upsert = type(database).upsert

    def noted(self: VectorDatabase, items: CollectionItems) -> None:
        sent.extend(items.item_ids)
        upsert(self, items)

    monkeypatch.setattr(type(database), "upsert", noted)
    source = source_of(shop)
    assert counts(source, database) == (1, 1, 1, 12)
    assert sorted(sent) == sorted(["further", IDS[5]])
    assert verify(source, database).is_same


def test_a_text_that_changes_is_sent(database: VectorDatabase) -> None:
    source = Drawn(20)
    push(source, database)
    source.categories[4] = "corrected"
    assert counts(source, database) == (0, 1, 0, 20)
    (found,) = database.search(source.embeddings[:1], 5, [[label("category", "corrected")]])
    assert list(found.item_ids) == ["item-4"]


def test_another_model_is_refused(database: VectorDatabase) -> None:
    source = Drawn(20)
    push(source, database)
    source.facts = CollectionFacts("another", "b", "c", 16)
    with pytest.raises(ValueError, match="model_hash a there, another here"):
        push(source, database)
    with pytest.raises(ValueError, match="model_hash a there, another here"):
        verify(source, database)


@on_every_server
def test_what_differs_is_found(database: VectorDatabase) -> None:
    source = Drawn(90)  # so few that all are looked at
    push(source, database)
    assert verify(source, database).is_same
    database.delete(["item-1", "item-2"])
    labels = ["category=c3"]
    strange = np.zeros((2, 16), np.float32)
    keys = ["key", content_key(source.embeddings[3], labels)]  # the second one's key lies
    database.upsert(CollectionItems(["strange", "item-3"], keys, [[], labels], strange))
    found = verify(source, database)
    assert (found.missing, found.foreign) == (["item-1", "item-2"], ["strange"])
    assert not found.changed
    assert not found.is_same
    assert list(found.embeddings) == ["item-3"]


def test_lancedb_finds_what_came_before_and_after_its_index(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    database = open_database("lancedb", str(tmp_path), "indexed")
    source = Drawn(lancedb.MIN_INDEXED, 8)
    assert push(source, database).tended == "an index over 20,000 items was made"
    assert verify(source, database).is_same
    further = Drawn(300, 8, seed=1)
    source.ids = [*source.ids[10:], *(f"further-{one}" for one in further.ids)]
    source.categories = [*source.categories[10:], *further.categories]
    source.embeddings = np.concatenate([source.embeddings[10:], further.embeddings])
    source.embeddings[5] += 3  # and its row in the index is another one's now
    assert counts(source, database) == (300, 1, 10, 20_290)
    assert verify(source, database).is_same
    asked = np.concatenate([source.embeddings[[5]], further.embeddings[:50]])
    nearest = [found.item_ids[0] for found in database.search(asked, 1)]
    assert nearest == ["item-15", *(f"further-item-{n}" for n in range(50))]


@pytest.mark.parametrize(
    ("dim", "tended"), [(2_000, "an HNSW index over 300 items was made"), (2_001, "")]
)
def test_pgvector_compares_wide_embeddings_one_by_one(
    dim: int, tended: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "MIN_INDEXED", 300)
    database = open_database("pgvector", postgres.url, f"wide_{dim}", timeout_s=20)
    source = Drawn(300, dim)
    assert push(source, database).tended == tended
    assert counts(source, database) == (0, 0, 0, 300)
    assert verify(source, database).is_same
    for found in database.search(source.embeddings[:3], 5, [[label("category", "c1")]]):
        assert len(found.item_ids) == 5
        assert {int(one.removeprefix("item-")) % 7 for one in found.item_ids} == {1}
    database.close()


def test_a_push_goes_on_when_the_server_was_killed(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Drawn()
    database = open_database("pgvector", postgres.url, "killed", timeout_s=20)
    upsert, times = type(database).upsert, []

    def killing(self: VectorDatabase, items: CollectionItems) -> None:
        times.append(time.monotonic())
        if len(times) == 3:
            postgres.kill()
            threading.Thread(target=postgres.start).start()
        upsert(self, items)

    monkeypatch.setattr(type(database), "upsert", killing)
    assert counts(source, database) == (3_000, 0, 0, 3_000)
    assert len(times) > 6  # six blocks, and what was repeated
    assert verify(source, database).is_same


def test_a_push_that_was_killed_is_gone_on_with(
    database: VectorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Drawn()
    upsert, sent = type(database).upsert, []

    def killed(self: VectorDatabase, items: CollectionItems) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(len(items))
        upsert(self, items)

    monkeypatch.setattr(type(database), "upsert", killed)
    with pytest.raises(KeyboardInterrupt):
        push(source, database)
    monkeypatch.setattr(type(database), "upsert", upsert)
    assert counts(source, database) == (3_000 - sum(sent), 0, 0, 3_000)


def test_a_server_that_stays_away_ends_a_push(postgres: PostgresServer) -> None:
    url = postgres.url.replace(f":{postgres.port}/", ":1/")
    database = open_database("pgvector", url, timeout_s=2)
    with pytest.raises(DatabaseUnavailableError, match=r"shop:\*\*\*@127.*does not answer"):
        push(Drawn(20), database, patience_s=0.5)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["index", *arguments])
    main()


def test_the_command_pushes_and_verifies(
    shop: Path,
    kind: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    new_database: Callable[[], VectorDatabase],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL_VARIABLE, url)
    name = new_database().place.rpartition(" ")[2]
    to = [f"bundle={shop}", f"to={kind}", f"collection={name}"]
    command(monkeypatch, "push", *to)
    assert "12 added" in capsys.readouterr().out
    command(monkeypatch, "verify", *to)
    assert "holds the same 12 items" in capsys.readouterr().out
    remove_items(shop, IDS[:2])
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "verify", *to)
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "2 items only in the collection: 'item-0', 'item-1'" in said.out
    assert "hunter2" not in said.out + said.err


def test_what_nobody_foresaw_does_not_tell_the_password(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "")  # where the command puts it

    def fails(settings: IndexSchema) -> None:
        raise TypeError("nobody foresaw this")

    monkeypatch.setattr("visual_search.runs.vector_database.push_items", fails)
    secret = "url=postgresql://shop:hunter2@localhost/shop"
    with pytest.raises(SystemExit):
        command(monkeypatch, "push", f"bundle={shop}", "to=pgvector", secret)
    said = capsys.readouterr()
    assert "nobody foresaw this" in said.err
    assert "hunter2" not in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to=pgvector"], "either bundle=DIR or from=DIR"),
        (["bundle=shop", "from=embedded", "to=pgvector"], "either bundle=DIR or from=DIR"),
        (["from=embedded"], "embedded/manifest.json; expected a folder of shards"),
        (
            ["to=oracle", "bundle={shop}"],
            "'oracle' is no vector database; expected one of",
        ),
        (["bundle={shop}"], "expected to=KIND, one of pgvector"),
        (["to=qdrant", "bundle={shop}"], f"url=ADDRESS, or the variable {URL_VARIABLE}"),
    ],
)
def test_a_wrong_push_is_refused(
    arguments: list[str],
    message: str,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(SystemExit):
        command(monkeypatch, "push", *(one.format(shop=shop) for one in arguments))
    assert message in " ".join(capsys.readouterr().err.split())
