"""The projector, the precision of a loss, and the checks of settings."""

import pytest
import torch
from torch import nn

from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.projection_head import projector
from visual_search.models.objectives.settings import (
    check_above_zero,
    check_not_negative,
    check_share,
    num_values,
)


def test_projector_normalises_between_layers_and_not_at_the_end() -> None:
    layers = projector([8, 6, 4, 2])
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert layers(torch.randn(3, 8)).shape == (3, 2)
    assert layers[0].bias is None
    assert layers[-1].bias is not None


@pytest.mark.parametrize("widths", [[8], [8, 0], [8, 8, -1]])
def test_projector_refuses_wrong_widths(widths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"projector widths \[8.*two or more of at least 1"):
        projector(widths)


def test_without_autocast_switches_back_on() -> None:
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(ones):
            assert (ones @ ones).dtype == torch.float32
        assert (ones @ ones).dtype == torch.bfloat16


def test_settings_at_their_limits_pass() -> None:
    check_above_zero("scale", 1e-9)
    check_not_negative("weight", 0)
    check_share("share", 0)
    check_share("share", 1.0)
    assert num_values({"category": 2}.__getitem__, "category") == 2


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_check_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match=rf"got scale {value}, .*set objective.scale"):
        check_above_zero("scale", value)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_check_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match=rf"got weight {value}, .*set objective.weight"):
        check_not_negative("weight", value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_check_share(value: float) -> None:
    with pytest.raises(ValueError, match=rf"got share {value}, .*set objective.share"):
        check_share("share", value)


@pytest.mark.parametrize("found", [0, 1])
def test_a_column_needs_two_values(found: int) -> None:
    with pytest.raises(ValueError, match=rf"column 'colour' has {found} value.*another column"):
        num_values(lambda column: found, "colour")
