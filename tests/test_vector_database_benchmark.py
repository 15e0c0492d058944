"""The benchmark of vector databases: its numbers mean what they say, and it runs to its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import vector_databases

pytestmark = pytest.mark.slow


def test_a_filter_lets_through_its_share_and_recall_counts_exact_rows() -> None:
    drawn = vector_databases.Drawn(4_000, 8, 3, seed=0)
    assert [round(float(one.mean()), 1) for one in drawn.allowed.values()] == [1.0, 0.1, 0.0, 0.0]
    ids, columns, embeddings = next(drawn.blocks())
    assert [one == "yes" for one in columns["0.1"]] == drawn.allowed[0.1].tolist()
    assert (ids[7], len(embeddings)) == ("7", 4_000)
    exact = np.arange(30).reshape(3, 10)
    answers = iter([[0, 1, 2], list(range(10, 20)), []])
    found = vector_databases.compared(lambda query: next(answers), drawn.queries, exact)
    assert found == {"recall": round(13 / 30, 4), "rows": round(13 / 3, 2)}


def test_it_compares_a_database_with_the_own_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    monkeypatch.setattr(vector_databases, "NUM_CLIENTS", (1, 2))
    out = tmp_path / "results.json"
    given = ["--num-items", "2000", "--dim", "8", "--num-queries", "4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["x", *given, "--own", "flat"])
    vector_databases.main()
    monkeypatch.setattr(sys, "argv", ["x", *given, "--own", "--", f"lancedb={tmp_path / 'there'}"])
    vector_databases.main()
    results = json.loads(out.read_text())["results"]
    assert set(results) == {"own flat", "lancedb"}
    for result in results.values():
        assert [one["share"] for one in result["questions"]] == [1.0, 0.1, 0.01, 0.001]
        assert all(one["recall"] == 1 for one in result["questions"])
        assert all(one["rows"] == one["available"] for one in result["questions"])
        assert result["bytes"] >= 2_000 * 8 * 4
    with pytest.raises(ValueError, match="is there; expected none"):
        vector_databases.main()


def test_the_results_are_of_the_page() -> None:
    root = Path(__file__).resolve().parent.parent
    page = (root / "docs" / "vector_databases.md").read_text(encoding="utf-8")
    for name in ("vector_databases_2_cores.json", "vector_databases_1000000_2_cores.json"):
        results = json.loads((root / "benchmarks" / "results" / name).read_text())["results"]
        for kind, result in results.items():
            p50s = [one["clients"]["1"]["p50_ms"] for one in result["questions"]]
            shown = " / ".join(f"{p50:.2g}" if p50 < 10 else f"{p50:.0f}" for p50 in p50s)
            lines = [one for one in page.splitlines() if one.startswith(f"| {kind} |")]
            assert any(f"| {shown} |" in line for line in lines), (name, kind, shown)
