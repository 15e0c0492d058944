"""Checkpoints: whole or absent, and without code in them."""

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import NewDatamodule, NewModule, trainer_in
from visual_search.training.checkpointing import (
    AtomicCheckpointIO,
    Interruption,
    RunCheckpoint,
    Terminated,
    load_checkpoint,
)
from visual_search.training.module import Preprocessing


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)


def save(content: dict[str, Any], path: Path) -> Path:
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")  # the temporary file lies beside the target
    path = save({"step": 1}, tmp_path / "deep" / "last.ckpt")

    def torn(content: Any, target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        save({"step": 2}, path)
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_what_runs_code_is_damaged_or_missing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Harmful()))
    for name in ("harmful.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match="tensors and plain values"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / name, weights_only=False)
    assert not (tmp_path / "harm").exists()
    path = save({"w": torch.zeros(1000)}, tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="rerun=true"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        load_checkpoint(tmp_path / "nothing.ckpt")


def test_a_signal_ends_at_once_outside_a_step_and_waits_within() -> None:
    with Interruption() as interruption:
        interruption.deferred = lambda: True
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        with pytest.raises(Terminated) as caught:  # a second signal waits for nothing
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.code == 143
    with Interruption(), pytest.raises(Terminated) as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 130


@pytest.mark.slow
def test_another_preprocessing_is_refused(
    new_module: NewModule, new_datamodule: NewDatamodule, run_folder: Path
) -> None:
    keeper = RunCheckpoint(run_folder)
    trainer_in(run_folder, keeper, max_epochs=0).fit(new_module(), new_datamodule())
    other = new_module()
    other.preprocessing = Preprocessing(other.preprocessing.image_size_px, "letterbox")
    with pytest.raises(ValueError, match=r"letterbox.*pictures\.fit"):
        trainer_in(run_folder).fit(other, new_datamodule(), ckpt_path=keeper.path)
