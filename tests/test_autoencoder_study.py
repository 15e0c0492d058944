"""The study of autoencoders reads run folders and draws what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
OWN = {"layer": None, "pool": "flatten", "normalize": True, "pca": None, "whiten": 0.0}


@pytest.fixture(scope="module")
def study() -> ModuleType:
    path = ROOT / "benchmarks" / "autoencoder_study.py"
    spec = importlib.util.spec_from_file_location("autoencoder_study", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_evaluation(
    run: Path,
    name: str,
    value: float,
    split: str = "val",
    protocol: str = "gallery_query",
    **embedding: Any,
) -> None:
    folder = run / "evaluations" / name
    (folder / "metrics").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"embedding": OWN | embedding, "protocol": {"_target_": protocol}})
    )
    summary = {
        "query_split": split,
        "embedding_dim": 512,
        "macro_map_at_5": value - 0.1,
        "num_queries_scored": 1_139,
        "intervals": {"micro": {"mean": value, "low": value - 0.02, "high": value + 0.02}},
        "floors": [
            {
                "name": "untrained",
                "title": "own network, untrained",
                "micro_map_at_5": 0.48,
                "macro_map_at_5": 0.37,
            }
        ],
    }
    (folder / "metrics" / "summary.json").write_text(json.dumps(summary))


def write_run(folder: Path, value: float, error: float | None, state: str = "finished") -> Path:
    (folder / "metrics").mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "seconds": 60.0}))
    environment = {
        "command": ["train.py", "experiment=residual", "data.path=/somewhere/shop.zip"],
        "processor": "CPU",
        "num_cpus": 2,
        "packages": {"torch": "2.15.0"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    loss = (
        {"val_loss": error, "loss_name": "MSE in -1..1"} if error is not None else {"val_loss": 1}
    )
    own = {"device": "cpu", "embedding_dim": 512, "epochs": 4, **loss}
    (folder / "metrics" / "summary.json").write_text(json.dumps(own))
    config: dict[str, Any] = {"embedding": OWN, "protocol": {"_target_": "gallery_query"}}
    config |= {"objective": {"_target_": "visual_search.models.objectives.reconstruction.mse"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4],
            "val/loss": [0.4, 0.3, 0.2, 0.1],
            "val/map_at_5": [None, 0.2, None, value],
            "val/macro_map_at_5": [None, 0.1, None, value - 0.1],
        }
    )
    history.to_csv(folder / "metrics" / "history.csv", index=False)
    write_evaluation(folder, "gallery_query-category-0123", value)
    return folder


def test_a_curve_has_what_was_measured_and_its_floors(study: ModuleType, tmp_path: Path) -> None:
    curve = study.curve_of(write_run(tmp_path / "plus_layer" / "0", 0.4, 0.1))
    assert curve["measured_epochs"] == [2, 4]
    assert curve["micro"] == [0.2, 0.4]
    assert curve["val_loss"] == [0.4, 0.3, 0.2, 0.1]
    assert curve["floors"]["untrained"]["micro"] == 0.48
    assert curve["command"].endswith("experiment=residual data.path=shop.zip")
    figure = study.draw_curve(curve)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "own network, untrained  0.480" in texts
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.48, 0.2, 0.4]  # it starts untrained


def test_other_embeddings_and_protocols_are_not_taken_for_the_run(
    study: ModuleType, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "plus_layer" / "0", 0.4, 0.1)
    write_evaluation(run, "a", 0.9, pca=64)  # before the run's own by name
    write_evaluation(run, "b", 0.8, protocol="reference_2023")
    assert study.validation_summary(run)["intervals"]["micro"]["mean"] == 0.4


def test_layers_are_drawn_in_their_order(study: ModuleType, tmp_path: Path) -> None:
    run = write_run(tmp_path / "plus_layer" / "0", 0.4, 0.1)
    for layer, value in (("conv10", 0.2), ("conv2", 0.5), ("stem", 0.1)):
        write_evaluation(run, f"x-layer_{layer}", value, layer=layer, pool="average")
    write_evaluation(run, "of_the_test_queries", 0.9, split="test")
    found = study.embeddings_of(run)
    assert {entry["layer"] for entry in found["embeddings"]} == {None, "stem", "conv2", "conv10"}
    figure = study.draw_embeddings([found])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "stem", "conv2", "conv10", "embedding",
    ]  # fmt: skip


def test_variants_stand_at_their_error_and_their_map(study: ModuleType, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "residual" / "0", 0.4, 0.1),
        write_run(tmp_path / "ssim" / "0", 0.3, None),
    ]
    found = [study.variant_of(run) for run in runs]
    assert [variant["error"] for variant in found] == [0.1, None]  # another error is no MSE
    assert found[0]["untrained"] == 0.48
    assert not found[0]["labels"]
    assert found[0]["macro"] == pytest.approx(0.3)
    figure = study.draw_variants(found)
    assert isinstance(figure, Figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["residual"]
    narrow = found[0] | {"dim": 32, "micro": [0.401, 0.38, 0.42]}
    texts = study.draw_variants([found[0], narrow]).axes[0].texts
    assert [text.get_text() for text in texts] == ["residual", "residual, 32-d"]
    assert texts[1].xy[1] - texts[0].xy[1] > 0.003  # names of points that meet stand apart


def test_unfinished_and_unevaluated_runs_are_refused(study: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is interrupted, expected a finished run"):
        study.variant_of(write_run(tmp_path / "a", 0.4, 0.1, state="interrupted"))
    run = write_run(tmp_path / "b", 0.4, 0.1)
    (run / "evaluations" / "gallery_query-category-0123" / "metrics" / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="no evaluation on validation queries"):
        study.variant_of(run)
