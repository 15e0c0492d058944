"""Optimiser and schedule from plain values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from visual_search.training.optimization import Optimization


class Trained(nn.Module):
    """Named as a module under training names its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.objective = nn.Linear(4, 2)


def test_the_default_is_the_studys_adam_in_one_group() -> None:
    optimizer = Optimization().build(Trained(), 10)
    assert isinstance(optimizer, torch.optim.Adam)
    assert len(optimizer.param_groups) == 1
    assert optimizer.param_groups[0]["lr"] == 3e-4
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_only_matrices_and_kernels_decay() -> None:
    optimizer = Optimization(optimizer="adamw", weight_decay=0.1).build(Trained(), 10)
    by_decay = {group["weight_decay"]: group["params"] for group in optimizer.param_groups}
    assert {parameter.ndim for parameter in by_decay[0.1]} == {2, 4}
    assert {parameter.ndim for parameter in by_decay[0.0]} == {1}


def test_a_backbone_learns_at_its_share_of_the_rate() -> None:
    module = Trained()
    optimizer = Optimization(learning_rate=1.0, optimizer="sgd", backbone_factor=0.1).build(
        module, 10
    )
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rate[id(p)] for p in module.model.parameters()} == {0.1}
    assert {rate[id(p)] for p in module.objective.parameters()} == {1.0}


def test_frozen_parameters_are_left_out() -> None:
    module = Trained()
    module.model.requires_grad_(False)
    optimizer = Optimization().build(module, 10)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_warms_up_and_falls(schedule: Any) -> None:
    chosen = Optimization(learning_rate=1.0, schedule=schedule, warmup_fraction=0.25)
    built = chosen.build(Trained(), 40)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    if schedule == "constant":
        assert set(rates[10:]) == {1.0}
    else:
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[25] == pytest.approx(0.5)
        assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lion"}, r"got optimizer 'lion', expected one of adam, adamw, sgd"),
        ({"schedule": "step"}, r"got schedule 'step', expected one of constant, cosine"),
        ({"learning_rate": 0.0}, r"got learning_rate 0\.0, expected a number above 0"),
        ({"learning_rate": math.nan}, "got learning_rate nan"),
        ({"momentum": 1.0}, r"got momentum 1\.0"),
        ({"weight_decay": -0.1}, r"got weight_decay -0\.1"),
        ({"warmup_fraction": 1.0}, r"got warmup_fraction 1\.0"),
        ({"backbone_factor": 0.0}, r"got backbone_factor 0\.0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimization(**settings)
