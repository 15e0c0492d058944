"""The benchmark of a large index: its numbers mean what they say, and it runs from end to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def large_index() -> ModuleType:
    path = ROOT / "benchmarks" / "large_index.py"
    spec = importlib.util.spec_from_file_location("large_index", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_embeddings_are_seeded_unit_and_clustered(large_index):
    mixture, again = (large_index.Mixture(5000, 32, seed=3) for _ in range(2))
    embeddings, categories = mixture.draw(2, 500)
    np.testing.assert_array_equal(embeddings, again.draw(2, 500)[0])
    assert not np.array_equal(embeddings, mixture.draw(3, 500)[0])
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    squared = 2 - 2 * embeddings @ embeddings.T
    np.fill_diagonal(squared, np.inf)
    nearest = categories[squared.argmin(axis=1)]
    assert (nearest == categories).mean() > 0.5  # one in a hundred by chance


def test_recall_counts_the_exact_neighbours(large_index):
    exact = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert large_index.recall_of(exact[:, ::-1], exact) == 1
    assert large_index.recall_of(np.array([[0, 1, 9, 8], [4, 8, 9, 10]]), exact) == 3 / 8


def test_overhead_is_ours_over_raw(large_index, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(large_index.time, "perf_counter", lambda: clock[0])

    def takes(seconds: float):
        return lambda part: clock.__setitem__(0, clock[0] + seconds * len(part))

    ways = {"raw": takes(0.002), "ours": takes(0.003)}
    found = large_index.time_in_turns(ways, np.zeros((70, 4), np.float32), batch=32, rounds=3)
    assert found["num_batches"] == 6  # two whole batches, three times
    assert found["overhead"] == {"raw": pytest.approx(1.5)}
    assert found["raw"]["p50_ms"] == pytest.approx(64)


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_was(large_index, tmp_path, monkeypatch, capsys):
    arguments = ["--num-items", "3000", "--dim", "24", "--kind", "ivf", "--num-threads", "1"]
    arguments += ["--folder", str(tmp_path / "scratch"), "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["large_index.py", *arguments])
    large_index.main()
    first = json.loads((tmp_path / "out.json").read_text())
    assert first["recall_at_10"]["ours"] >= first["recall_at_10"]["raw"] > 0.9
    assert [timing["batch_size"] for timing in first["search"]] == [1, 32, 1000]
    assert len(first["restricted"]) == 3
    assert str(tmp_path) not in (tmp_path / "out.json").read_text()
    assert "aims: recall@10 at least 0.95" in capsys.readouterr().out
    index = tmp_path / "scratch" / "index.faiss"
    made = index.stat().st_mtime_ns
    large_index.main()
    assert index.stat().st_mtime_ns == made
    again = json.loads((tmp_path / "out.json").read_text())
    assert again["build"]["seconds"] == first["build"]["seconds"]
    assert again["recall_at_10"] == first["recall_at_10"]
    monkeypatch.setattr(sys, "argv", ["large_index.py", *arguments, "--seed", "1"])
    large_index.main()
    assert index.stat().st_mtime_ns != made
