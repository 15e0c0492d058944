"""Builds Lightning's Trainer from plain arguments, with the precision that the hardware likes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from visual_search.training.checkpointing import AtomicCheckpointIO

ResolvedPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
Precision = Literal["auto"] | ResolvedPrecision


def resolve_precision(precision: Precision, accelerator: str) -> ResolvedPrecision:
    """Gives the precision to use where ``auto`` is asked for.

    bf16 autocast trains ``plus_layer`` 2.6 times as fast as float32 on a CPU that has bf16
    instructions (AMX or AVX-512 BF16); without them it is slower, so float32 stays.
    """
    if precision != "auto":
        return precision
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "16-mixed"
    if accelerator in ("auto", "cpu") and _cpu_has_bf16():
        return "bf16-mixed"
    return "32-true"


def _cpu_has_bf16() -> bool:
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return bool(amx() or avx512())


def build_trainer(
    *,
    folder: str | Path,
    max_epochs: int,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
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
    detect_anomaly: bool = False,
    profiler: Profiler | None = None,
    enable_progress_bar: bool = True,
) -> Trainer:
    """Gives a Trainer; the arguments are Lightning's own, but for ``precision="auto"``.

    The sampler is ours (`TrainingBatches`, `EvaluationBatches`), checkpoints are written by
    `AtomicCheckpointIO`, and Lightning's own ``ModelCheckpoint`` is off.
    """
    resolved = resolve_precision(precision, accelerator)
    if strategy == "ddp":
        # An objective may leave parts without gradients, as SimCLR an autoencoder's decoder.
        strategy = "ddp_find_unused_parameters_true"
    plugins: list[Any] = [AtomicCheckpointIO()]
    return Trainer(
        default_root_dir=folder,
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=resolved,
        check_val_every_n_epoch=check_val_every_n_epoch,
        log_every_n_steps=log_every_n_steps,
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        num_sanity_val_steps=num_sanity_val_steps,
        fast_dev_run=fast_dev_run,
        overfit_batches=overfit_batches,
        gradient_clip_val=gradient_clip_val,
        detect_anomaly=detect_anomaly,
        profiler=profiler,
        enable_progress_bar=enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        plugins=plugins,
    )
