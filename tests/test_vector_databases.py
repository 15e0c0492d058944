"""docs/vector_databases.md: its blocks import real shards and find what brute force finds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.synthetic import synthetic
from visual_search.runs.embedding_shards import ShardFolder, ShardSettings, read_shards

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "vector_databases.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
D = 12


def block(name: str) -> str:
    (found,) = [text for text in BLOCKS if f"import {name}" in text or f"from {name} " in text]
    return found


def test_every_block_is_tried_here() -> None:
    assert len(BLOCKS) == 3
    assert {block(name) for name in ("lancedb", "qdrant_client", "pymilvus")} == set(BLOCKS)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Embedded in shards at ./embedded."""
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
    drawn = np.random.default_rng(0).normal(size=(len(found), D)).astype(np.float32)
    for number in range(settings.num_shards):
        rows = slice(25 * number, 25 * (number + 1))
        table = found.table.iloc[rows]
        keys = found.source.content_keys(table["image"].tolist())
        folder.write(number, table, keys, drawn[rows])
    folder.conclude([])
    return found


def nearest_shoes(query: NDArray[np.float32]) -> list[tuple[str, str, float]]:
    """By brute force over the shards, the nearest first."""
    found = []
    for items, embeddings in read_shards("embedded"):
        squared = ((embeddings - query) ** 2).sum(axis=1)
        chosen = items["category"] == "Shoes"
        found += list(zip(items["item_id"][chosen], squared[chosen.to_numpy()], strict=True))
    return [(item, "Shoes", d) for item, d in sorted(found, key=lambda pair: pair[1])[:5]]


def check_printed(text: str, query: NDArray[np.float32]) -> None:
    lines = [line.split() for line in text.strip().splitlines()]
    expected = nearest_shoes(query)
    assert [line[:2] for line in lines] == [[item, category] for item, category, _ in expected]
    distances = [float(line[2]) for line in lines]
    np.testing.assert_allclose(distances, [d for _, _, d in expected], rtol=1e-4, atol=1e-4)
    assert distances[-1] > 1  # else squared or not would look alike


def embeddings_of(shard: int) -> NDArray[np.float32]:
    return [embeddings for _, embeddings in read_shards("embedded")][shard]


@pytest.mark.usefixtures("catalog")
def test_lancedb(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    exec(block("lancedb"), {})
    check_printed(capsys.readouterr().out, embeddings_of(0)[0])


@pytest.mark.usefixtures("catalog")
def test_qdrant(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("qdrant_client", reason="no part of this project")
    text = block("qdrant_client")
    assert text.count('"http://localhost:6333"') == 1
    exec(text.replace('"http://localhost:6333"', '":memory:"'), {})
    check_printed(capsys.readouterr().out, embeddings_of(-1)[0])


@pytest.mark.usefixtures("catalog")
def test_milvus(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymilvus", reason="no part of this project")
    pytest.importorskip("milvus_lite", reason="no part of this project")
    text = block("pymilvus")
    assert text.count('"http://localhost:19530"') == 1
    exec(text.replace('"http://localhost:19530"', '"products.db"'), {})
    check_printed(capsys.readouterr().out, embeddings_of(-1)[0])
