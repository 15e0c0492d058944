"""What a run takes of a machine, and what it says of the one that computed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.composing import typed
from visual_search.config.builders import ConfigError
from visual_search.runs.identity import run_hash
from visual_search.runs.machine import device_sentence, processor_facts
from visual_search.runs.run import Run
from visual_search.train import train

CPUINFO = {
    "Xeon": ("model name\t: Xeon\nflags\t\t: avx2 avx512f avx512_bf16 amx_bf16 fma\n", "AMX"),
    "EPYC": ("model name\t: EPYC\nflags\t\t: avx2 avx512f avx512_bf16 fma\n", "AVX-512 BF16"),
    "Old": ("model name\t: Old\nflags\t\t: avx2 fma\n", "emulated in float32"),
    "Graviton": ("model name\t: Graviton\nFeatures\t: asimd sve bf16\n", "Arm BF16"),
}


@pytest.mark.parametrize("name", CPUINFO)
def test_the_processor_says_what_computes_its_bf16(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content, bf16 = CPUINFO[name]
    monkeypatch.setattr(Path, "read_text", lambda *args, **kwargs: content)
    facts = processor_facts()
    assert (facts["processor"], facts["bf16"]) == (name, bf16)
    assert set(facts["instructions"]) == set(content.rpartition(": ")[2].split())


def test_a_processor_that_says_nothing_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert processor_facts()["processor"]


CARD = {"device": "cuda:0", "device_name": "H200", "num_devices": 1, "precision": "bf16-mixed"}
CPU = {"device": "cpu", "device_name": "EPYC", "num_devices": 1, "precision": "32-true",
       "num_threads": 2, "bf16": "AMX"}  # fmt: skip


def test_a_run_that_goes_on_elsewhere_names_both_devices(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def start(device: dict[str, Any]) -> list[str]:
        run.save_environment()
        run.save_environment(device)
        content = json.loads((tmp_path / "environment.json").read_text())
        assert content["processor"]
        return [one["device_name"] for one in content["computed_on"]]

    assert start(CARD) == ["H200"]
    assert start(CPU) == ["EPYC"]  # nothing was saved before: it began anew
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    assert start(CPU) == ["EPYC"]
    assert start(CARD) == ["EPYC", "H200"]
    assert start(CPU | {"num_threads": 1}) == ["EPYC", "H200", "EPYC"]


def test_a_line_has_whatever_moves_a_number() -> None:
    changes = [{}, {"num_threads": 1}, {"precision": "bf16-mixed"}, {"device_name": "Xeon"},
               {"num_devices": 2}, {"precision": "bf16-mixed", "bf16": "AVX-512 BF16"}]  # fmt: skip
    assert len({device_sentence(CPU | change) for change in changes}) == len(changes)


def digest(*overrides: str) -> str:
    return run_hash(typed("train", *overrides), "x")


@pytest.mark.parametrize(
    "change",
    ["trainer.devices=[3]", "trainer.devices='2,'", "trainer.devices='1'", "trainer=gpu",
     "trainer.benchmark=true"],
)  # fmt: skip
def test_which_card_computes_is_no_part_of_a_runs_identity(change: str) -> None:
    assert digest(change) == digest()


def test_what_moves_a_result_is_part_of_a_runs_identity() -> None:
    changes = ["seed=0", "trainer.devices=2", "trainer.accumulate_grad_batches=2",
               "trainer.deterministic=true", "trainer.deterministic=warn"]  # fmt: skip
    assert len(set(map(digest, changes))) == len(changes)
    assert digest("trainer.devices=[0,3]") == digest("trainer.devices=2")


def test_a_run_from_before_these_settings_is_found() -> None:
    older = typed("train")
    for name in ("accumulate_grad_batches", "deterministic", "benchmark"):
        del older.trainer[name]
    assert run_hash(older, "x") == digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer=gpu", r"accelerator=gpu.*set trainer\.accelerator=auto"),
        ("trainer.precision=16-mixed", r"precision=16-mixed.*set trainer\.precision"),
        ("trainer.strategy=ddp_spawn", r"strategy=ddp_spawn.*set trainer\.strategy=auto"),
        ("trainer.devices=[1]", r"devices=\[1\].*set trainer\.devices=1"),
        ("index.device=cuda", r"index\.device is 'cuda'.*'gpu'"),
    ],
)
def test_what_the_machine_lacks_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    nowhere = ["data=folder", f"data.root={tmp_path}/nowhere", f"outputs={tmp_path}/outputs"]
    with pytest.raises(ConfigError, match=message):
        train(typed("train", *nowhere, override))
    assert list(tmp_path.iterdir()) == []
