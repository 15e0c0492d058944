"""Runs become results, and results the tables of docs/."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def laboratory() -> ModuleType:
    path = ROOT / "benchmarks" / "laboratory.py"
    spec = importlib.util.spec_from_file_location("laboratory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_imports(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.main)


def write_run(folder: Path, seed: int, shift: float, **status: Any) -> Path:
    """Writes what `collect` reads of a finished run of 40 queries."""
    values = np.clip(np.linspace(0, 1, 40) + shift, 0, 1)
    categories = ["hat", "shoe"] * 20
    per_query = pd.DataFrame(
        {
            "query_id": [f"q{n:02d}" for n in range(40)],
            "group": [f"g{n // 2}" for n in range(40)],
            "category": categories,
            "average_precision_at_5": values,
        }
    )
    by_category = per_query.groupby("category")["average_precision_at_5"].mean()
    micro = float(values.mean())
    summary = {
        "device": "cpu",
        "identity": {"data": "shop"},
        "catalog_fingerprint": "abc",
        "embedding_dim": 512,
        "num_parameters": 1000,
        "epochs": 3,
        "num_training": 400,
        "num_queries_scored": 40,
        "num_gallery": 400,
        "floors": [{"title": "HOG", "micro_map_at_5": 0.4}],
        "standing": "above",
        "micro_map_at_5": micro,
        "macro_map_at_5": float(by_category.mean()),
        "micro_precision_at_5": micro,
        "micro_hit_at_1": micro,
        "headline": {"column": "average_precision_at_5", "mean": "map_at_5"},
    }
    config = {"seed": seed, "pictures": {"size_px": 64}, "protocol": {"relevance": ["category"]}}
    environment = {
        "processor": "a chip",
        "num_cpus": 2,
        "packages": {"torch": "1"},
        "command": [
            "train.py",
            "data.path=somewhere/else/crops.zip",
            "outputs=there",
            "seed=1",
            "training.start_from=/home/a/runs/best/0123456789",
        ],
    }
    reference = {"headline": {"mean": "precision_at_5"}, "macro_precision_at_5": 0.5 + shift}
    files = {
        "status.json": {"state": "finished", "seconds": 60.0, **status},
        "environment.json": environment,
        "metrics/summary.json": summary,
        "evaluations/reference_2023-category-0/metrics/summary.json": reference,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    per_query.to_parquet(folder / "metrics" / "per_query.parquet")
    return folder


def test_seeds_of_an_experiment_become_one_line(laboratory: ModuleType, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "simclr" / "b", 1, 0.1),
        write_run(tmp_path / "simclr" / "a", 0, 0.0),
        write_run(tmp_path / "residual" / "c", 0, -0.2),
    ]
    entries = laboratory.collect(runs, queries=tmp_path / "queries")
    assert [entry["experiment"] for entry in entries] == ["simclr", "residual"]
    first = entries[0]
    assert [seed["seed"] for seed in first["seeds"]] == [0, 1]
    means = [seed["micro_map_at_5"] for seed in first["seeds"]]
    mean, low, high = first["micro_interval"]
    assert mean == pytest.approx(np.mean(means))
    assert low < mean < high
    assert first["command"] == (
        "python -m visual_search.train data.path=crops.zip seed=1 "
        "training.start_from=outputs/best/0123456789"
    )
    line = laboratory.table(entries, "shop").splitlines()[2]
    assert line.startswith("| `simclr` | 0.547 [")
    assert line.endswith("(0.500-0.594) | 0.547 | 0.550 | 64 | 512 | 3 | 2 | 1 min |")
    assert len(laboratory.table(entries, "another").splitlines()) == 2


def test_seeds_collected_before_stay_beside_new_ones(
    laboratory: ModuleType, tmp_path: Path
) -> None:
    runs = [write_run(tmp_path / "simclr" / name, n, 0.1 * n) for n, name in enumerate("abc")]
    queries = tmp_path / "queries"
    first = laboratory.collect(runs[:2], queries=queries)
    both = laboratory.collect(runs[2:], first, queries)
    (at_once,) = laboratory.collect(runs, queries=tmp_path / "others")
    assert both == [at_once]
    assert [seed["seed"] for seed in both[0]["seeds"]] == [0, 1, 2]


def test_a_seed_collected_again_takes_the_older_one_s_place(
    laboratory: ModuleType, tmp_path: Path
) -> None:
    queries = tmp_path / "queries"
    old = laboratory.collect([write_run(tmp_path / "simclr" / "a", 0, 0.0)], queries=queries)
    new = laboratory.collect([write_run(tmp_path / "simclr" / "b", 0, 0.1)], old, queries)
    assert len(new) == 1
    assert [seed["seed"] for seed in new[0]["seeds"]] == [0]
    assert new[0]["micro_interval"][0] > old[0]["micro_interval"][0]


def test_a_seed_whose_queries_are_gone_is_left_out_and_said(
    laboratory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / "simclr" / name, n, 0.1 * n) for n, name in enumerate("ab")]
    queries = tmp_path / "queries"
    old = laboratory.collect(runs[:1], queries=queries)
    (path,) = queries.iterdir()
    path.unlink()
    (entry,) = laboratory.collect(runs[1:], old, queries)
    assert [seed["seed"] for seed in entry["seeds"]] == [1]
    assert "simclr, seed 0: left out" in capsys.readouterr().out


def test_unfinished_runs_and_other_queries_are_refused(
    laboratory: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is interrupted, expected a finished run"):
        laboratory.read_run(write_run(tmp_path / "a", 0, 0.0, state="interrupted"))
    runs = [write_run(tmp_path / "s" / name, n, 0.0) for n, name in enumerate("bc")]
    table = pd.read_parquet(runs[1] / "metrics" / "per_query.parquet")
    table.assign(query_id="x").to_parquet(runs[1] / "metrics" / "per_query.parquet")
    with pytest.raises(ValueError, match="the seeds have different queries"):
        laboratory.collect(runs, queries=tmp_path / "queries")


def test_the_table_stands_between_its_markers(laboratory: ModuleType, tmp_path: Path) -> None:
    run = write_run(tmp_path / "simclr" / "a", 0, 0.0)
    made = laboratory.table(laboratory.collect([run], queries=tmp_path / "queries"), "shop")
    begin, end = "<!-- laboratory: made by `make results` -->", "<!-- /laboratory -->"
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    found = laboratory.with_table(page, made)
    assert found.startswith(f"before\n{begin}\n| experiment |")
    assert found.endswith(f"\n{end}\nafter\n")
    assert "old" not in found
    assert laboratory.with_table(found, made) == found
    with pytest.raises(ValueError, match=r"docs/results\.md has no"):
        laboratory.with_table("nothing", made)
    with pytest.raises(ValueError, match=r"<!-- variants: made by"):
        laboratory.with_table(page, made, which="variants")  # the other table stays


def test_variants_stand_best_first(laboratory: ModuleType) -> None:
    weak = {
        "name": "residual", "labels": False, "micro": [0.36, 0.34, 0.38], "macro": 0.29,
        "untrained": 0.238, "error": 0.0712, "dim": 512, "epochs": 5,
    }  # fmt: skip
    best = weak | {"name": "supcon", "labels": True, "micro": [0.7, 0.68, 0.72], "error": None}
    lines = laboratory.variants_table([weak, best | {"untrained": None}]).splitlines()[2:]
    assert lines == [
        "| `supcon` | yes | 0.700 [0.680, 0.720] | 0.290 |  |  | 512 | 5 |",
        "| `residual` |  | 0.360 [0.340, 0.380] | 0.290 | 0.238 | 0.071 | 512 | 5 |",
    ]


def test_the_pages_have_the_tables_of_their_results(laboratory: ModuleType) -> None:
    entries = json.loads(laboratory.RESULTS.read_text())
    variants = json.loads(laboratory.STUDY.read_text())["variants"]
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert laboratory.table(entries, laboratory.BENCHMARK) in page
    experiments = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert laboratory.elsewhere(entries) in experiments
    assert laboratory.variants_table(variants) in experiments


def test_the_page_of_two_labels_has_the_numbers_of_its_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "multi_head.json").read_text())
    by_label = [results["relevance"][name] for name in ("category", "baseColour")]
    experiments = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = experiments.partition("## One network for two labels")[2].partition("## ")[0]
    names = {"cross_entropy": "`cross_entropy`, learned subCategory",
             "multi_head": "`multi_head`, learned both",
             "multi_head, weights 4 to 1": "the same, `objective.weights=[4,1]`"}  # fmt: skip
    for name, shown in names.items():
        runs = [next(run for run in one["runs"] if run["run"] == name) for one in by_label]
        cells = [
            f"{run['micro']:.3f} [{run['micro_low']:.3f}, {run['micro_high']:.3f}]" for run in runs
        ]
        assert f"| {' | '.join([shown, *cells])} |" in section
    floors = {
        "HOG + PCA-256 + unit length": "HOG + PCA-256 + unit length, *nothing learned*",
        "colour histogram": "colour histogram, *nothing learned*",
        "own network, untrained": "own network, *untrained*",
    }
    for title, shown in floors.items():
        cells = [f"{one['floors'][title]['micro']:.3f}" for one in by_label]
        assert f"| {' | '.join([shown, *cells])} |" in section


def test_other_catalogues_stand_beside_their_best_floor(
    laboratory: ModuleType, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "simclr" / "a", 0, 0.0)
    entries = laboratory.collect([run], queries=tmp_path / "queries")
    (line,) = laboratory.elsewhere(entries).splitlines()[2:]
    assert line.startswith("| shop | `simclr` | 0.500 [")
    assert line.endswith("| 0.500 |  | 0.400: HOG | 1 | 1 min |")
    benchmark = {**entries[0], "catalog": laboratory.BENCHMARK}
    assert len(laboratory.elsewhere([benchmark]).splitlines()) == 2
