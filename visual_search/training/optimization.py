"""Optimiser and learning-rate schedule, chosen by plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Optimization:
    """How weights are changed.

    Attributes:
        learning_rate: The highest of the run.
        optimizer: ``adam`` and ``adamw`` with PyTorch's own betas, ``sgd`` with Nesterov momentum.
        momentum: Of ``sgd``.
        weight_decay: On matrices and kernels; biases and the parameters of normalisations have
            none.
        schedule: ``constant``, or ``cosine`` (Loshchilov & Hutter 2016, arXiv 1608.03983), which
            falls to 0 at the last step.
        warmup_fraction: Share of all steps in which the rate rises linearly from 0.
        backbone_factor: The network's own parameters learn at this share of the rate, the
            objective's (classifier, projector) and a projection's at the whole rate.

    Raises:
        ValueError: A value is outside its range.
    """

    learning_rate: float = 3e-4
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup_fraction: float = 0.0
    backbone_factor: float = 1.0

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", Optimizer), ("schedule", Schedule)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(
                    f"got {name} {value!r}, expected one of {', '.join(get_args(choices))}; set "
                    f"training.{name}"
                )
        for name, good, expected in (
            ("learning_rate", self.learning_rate > 0, "a number above 0"),
            ("momentum", 0 <= self.momentum < 1, "0 or more and below 1"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup_fraction", 0 <= self.warmup_fraction < 1, "0 or more and below 1"),
            ("backbone_factor", self.backbone_factor > 0, "a number above 0"),
        ):
            if not good:
                raise ValueError(
                    f"got {name} {getattr(self, name)}, expected {expected}; set training.{name}"
                )

    def build(self, module: nn.Module, num_steps: int) -> Any:
        """Returns what ``configure_optimizers`` of a module with ``model`` and ``objective`` gives.

        Args:
            module: Parameters that need no gradient are left out.
            num_steps: Optimiser steps of the whole run.
        """
        groups = self._groups(module)
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0
            )
        elif self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        else:
            optimizer = torch.optim.Adam(groups, lr=self.learning_rate)
        if self.schedule == "constant" and not self.warmup_fraction:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.rate_at(step, num_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def rate_at(self, step: int, num_steps: int) -> float:
        """Returns the share of the learning rate at a step, counted from 0.

        Example:
            >>> one = Optimization(schedule="cosine", warmup_fraction=0.2)
            >>> [round(one.rate_at(step, 10), 2) for step in (0, 1, 2, 6, 10)]
            [0.5, 1.0, 1.0, 0.5, 0.0]
        """
        import math

        warmup = round(self.warmup_fraction * num_steps)
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        return 0.5 * (1 + math.cos(math.pi * done))

    def _groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Returns the parameter groups that differ in rate or decay; one where none does."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            own = name.startswith("model.") and not name.startswith("model.projection.")
            rate = self.learning_rate * (self.backbone_factor if own else 1.0)
            decay = self.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]
