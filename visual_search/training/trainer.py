"""Builds Lightning's Trainer from plain arguments, in terms of the machine that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy

from visual_search.training.checkpointing import AtomicCheckpointIO
from visual_search.training.devices import (
    Accelerator,
    Devices,
    Nodes,
    Precision,
    Strategy,
    find_hardware,
)
from visual_search.training.distributed import WAIT


def build_trainer(
    *,
    folder: str | Path,
    max_epochs: int,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    num_nodes: Nodes = "auto",
    strategy: Strategy = "auto",
    precision: Precision = "auto",
    check_val_every_n_epoch: int = 1,
    log_every_n_steps: int = 1,
    limit_train_batches: int | float = 1.0,
    limit_val_batches: int | float = 1.0,
    limit_test_batches: int | float = 1.0,
    num_sanity_val_steps: int = 0,
    fast_dev_run: bool | int = False,
    overfit_batches: int | float = 0.0,
    gradient_clip_val: float | None = None,
    accumulate_grad_batches: int = 1,
    deterministic: bool | Literal["warn"] = False,
    benchmark: bool = False,
    detect_anomaly: bool = False,
    profiler: Profiler | None = None,
    enable_progress_bar: bool = True,
    by_channel: bool = False,
) -> Trainer:
    """Returns a Trainer; the arguments are Lightning's own, but for what `find_hardware` finds.

    The sampler is ours (`TrainingBatches`, `EvaluationBatches`), checkpoints are written by
    `AtomicCheckpointIO`, and Lightning's own ``ModelCheckpoint`` is off. float32 is float32: torch
    would let cuDNN compute convolutions in TF32, which has 10 bits of it; whoever wants the speed
    takes ``bf16-mixed``, as ``auto`` does.

    Raises:
        ValueError: This machine does not have what is asked for, or a number is below 1.
    """
    if accumulate_grad_batches < 1:
        raise ValueError(
            f"got trainer.accumulate_grad_batches={accumulate_grad_batches}, expected 1 or more; "
            "set trainer.accumulate_grad_batches=1"
        )
    hardware = find_hardware(
        accelerator, devices, strategy, precision, by_channel, num_nodes=num_nodes
    )
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return Trainer(
        default_root_dir=folder,
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        accelerator=hardware.kind,
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy=_strategy(hardware.strategy),
        precision=hardware.precision,
        check_val_every_n_epoch=check_val_every_n_epoch,
        log_every_n_steps=log_every_n_steps,
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        num_sanity_val_steps=num_sanity_val_steps,
        fast_dev_run=fast_dev_run,
        overfit_batches=overfit_batches,
        gradient_clip_val=gradient_clip_val,
        accumulate_grad_batches=accumulate_grad_batches,
        deterministic=deterministic,
        benchmark=benchmark,
        detect_anomaly=detect_anomaly,
        profiler=profiler,
        enable_progress_bar=enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
    )


def _strategy(name: str) -> LightningStrategy | str:
    """Returns how processes are joined, with the patience that what one does alone needs."""
    if name == "auto":
        return name
    return DDPStrategy(find_unused_parameters=not name.endswith("_false"), timeout=WAIT)
