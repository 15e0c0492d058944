"""docs/vector_databases.md: what it has people type runs, on shards and on a bundle."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.databases.postgres import PostgresServer
from tests.serving.drawn_bundle import drawn, products, write_bundle
from visual_search import index, search
from visual_search.bundle import indexing
from visual_search.catalog.synthetic import synthetic
from visual_search.databases.labels import label
from visual_search.databases.opening import open_database
from visual_search.databases.urls import URL_VARIABLE
from visual_search.runs.embedding_shards import ShardFolder, ShardSettings, read_shards

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vector_databases.md"
TEXT = PAGE.read_text("utf-8")
LINES = re.findall(r"^python -m visual_search\.(.*)$", TEXT, re.MULTILINE)
MAKE_ENCODER = indexing.make_encoder
D = 12


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards at ./embedded."""
    monkeypatch.chdir(tmp_path)
    found = synthetic(20, ["Shoes", "Hats", "Handbags"], image_size_px=32)
    settings = ShardSettings(
        run="outputs/plus_layer/0123456789",
        model_hash="a" * 64,
        preprocessing_hash="b" * 64,
        embedding_hash="c" * 64,
        precision="32-true",
        dim=D,
        catalog=found.name,
        catalog_fingerprint=found.fingerprint(),
        columns=tuple(found.table.columns),
        num_items=len(found),
        shard_size=25,
    )
    folder = ShardFolder("embedded", settings)
    folder.claim()
    values = np.random.default_rng(0).normal(size=(len(found), D)).astype(np.float32)
    for number in range(settings.num_shards):
        rows = slice(25 * number, 25 * (number + 1))
        table = found.table.iloc[rows]
        keys = found.source.content_keys(table["image"].tolist())
        folder.write(number, table, keys, values[rows])
    folder.conclude([])


def typed(lines: list[str], monkeypatch: pytest.MonkeyPatch, url: str = "") -> None:
    monkeypatch.setenv(URL_VARIABLE, "")  # where an address with a password goes
    for line in lines:
        command, *words = shlex.split(line)
        given = [f"url={url}" if url and one.startswith("url=") else one for one in words]
        monkeypatch.setattr("sys.argv", [command, *given])
        {"index": index.main, "search": search.main}[command]()


def nearest_shoes(query: NDArray[np.float32]) -> list[str]:
    """By brute force over the shards, the nearest first."""
    found = []
    for items, embeddings in read_shards("embedded"):
        squared = ((embeddings - query) ** 2).sum(axis=1)
        chosen = (items["category"] == "Shoes").to_numpy()
        found += list(zip(squared[chosen], items["item_id"][chosen], strict=True))
    return [item_id for _, item_id in sorted(found)[:5]]


@pytest.mark.usefixtures("embedded")
def test_shards_are_pushed_verified_and_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    lines = [line for line in LINES if "from=embedded" in line]
    assert [line.split()[1] for line in lines] == ["push", "verify"]
    typed(lines, monkeypatch)
    assert "holds the same 60 items" in capsys.readouterr().out
    _, embeddings = next(read_shards("embedded"))
    database = open_database("lancedb", "products.lancedb")
    (found,) = database.search(embeddings[:1], 5, [[label("category", "Shoes")]])
    assert list(found.item_ids) == nearest_shoes(embeddings[0])


def test_a_bundle_is_pushed_verified_searched_and_asked_in_sql(
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import psycopg

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(indexing, "make_encoder", MAKE_ENCODER)  # no stand-in
    write_bundle(tmp_path).rename("shop")
    Path("photo.jpg").write_bytes(drawn("Hats", "red"))
    lines = [line for line in LINES if "bundle=shop" in line and not line.startswith("serve")]
    assert [line.split()[:2] for line in lines] == [
        ["index", "push"],
        ["index", "verify"],
        ["search", "bundle=shop"],
    ]
    typed(lines, monkeypatch, postgres.url)
    said = capsys.readouterr().out
    assert "holds the same 48 items" in said
    assert "Hats" in said
    (question,) = re.findall(r"^```sql\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert question.count("'15970'") == 1
    with psycopg.connect(postgres.url) as connection:
        rows = connection.execute(question.replace("'15970'", "'p0'")).fetchall()
    items = products()
    squared = np.square(items.embeddings - items.embeddings[0]).sum(axis=1)
    shoes = [n for n in np.argsort(squared) if items.columns["category"][n] == "Shoes"][:10]
    assert [row[0] for row in rows] == [items.item_ids[n] for n in shoes]
    np.testing.assert_allclose([row[1] ** 2 for row in rows], squared[shoes], rtol=1e-4, atol=1e-6)
