"""Checkpoints: whole or absent, and without code in them."""

import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import trainer_in
from visual_search.training.checkpointing import (
    AtomicCheckpointIO,
    Interruption,
    RunCheckpoint,
    Terminated,
    load_checkpoint,
)
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.module import EncoderModule, Preprocessing

pytestmark = pytest.mark.slow


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)


def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def torn(content: Any, target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_temporary_file_lies_beside_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "deep" / "last.ckpt")
    assert load_checkpoint(tmp_path / "deep" / "last.ckpt") == {"step": 1}


def test_a_missing_checkpoint_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        load_checkpoint(tmp_path / "nothing.ckpt")


def test_a_checkpoint_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Harmful()))
    for name in ("harmful.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match="tensors and plain values"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / name, weights_only=False)
    assert not (tmp_path / "harm").exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="rerun=true"):
        load_checkpoint(path)


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


def test_another_preprocessing_is_refused(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    run_folder: Path,
) -> None:
    keeper = RunCheckpoint(run_folder)
    trainer_in(run_folder, keeper, max_epochs=0).fit(new_module(), new_datamodule())
    other = new_module()
    other.preprocessing = Preprocessing(other.preprocessing.image_size_px, "letterbox")
    with pytest.raises(ValueError, match=r"letterbox.*pictures\.fit"):
        trainer_in(run_folder).fit(other, new_datamodule(), ckpt_path=keeper.path)
