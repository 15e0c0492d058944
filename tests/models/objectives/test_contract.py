"""One contract for every objective."""

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch

from tests.models.objectives.small import (
    BATCH,
    BUILDS,
    CASES,
    DIM,
    SUPERVISED,
    SmallAutoencoder,
    SmallEncoder,
    batch_of,
    build,
    case_objective,
)
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.projection_head import projector

for_each_objective = pytest.mark.parametrize("name", CASES)


def built(name: str, seed: int = 0) -> tuple[Encoder, Objective]:
    torch.manual_seed(seed)
    return CASES[name].network(), case_objective(name)


def step(encoder: Encoder, objective: Objective, batch: StepBatch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found: dict[str, torch.Tensor] = objective(encoder, batch)
    return found


def test_every_builder_has_a_case() -> None:
    assert set(BUILDS) == set(CASES) - {"mixup"}


@for_each_objective
def test_a_step(name: str) -> None:
    """It says what it needs; the loss alone has a gradient, which reaches every parameter.

    In autocast, too, where the loss stays in float32 and close.
    """
    case, (encoder, objective) = CASES[name], built(name)
    objective.check_encoder(encoder)
    assert (objective.num_views, objective.columns) == (case.num_views, case.columns)
    batch = batch_of(num_views=case.num_views)
    exact = step(encoder, objective, batch)
    assert set(exact) == {"loss", *case.parts}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = step(encoder, objective, batch)
    torch.testing.assert_close(rounded["loss"], exact["loss"], rtol=0.05, atol=0.02)
    own = dict(objective.named_parameters())
    for found in (exact, rounded):
        for part, value in found.items():
            assert (value.shape, value.dtype) == ((), torch.float32)
            assert torch.isfinite(value)
            assert value.requires_grad == (part == "loss")
        encoder.zero_grad()
        objective.zero_grad()
        found["loss"].backward()
        for key, parameter in (*encoder.named_parameters(), *own.items()):
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert key in own or parameter.grad.any(), key
        assert not own or any(p.grad is not None and p.grad.any() for p in own.values())


@for_each_objective
def test_the_loss_goes_down(name: str) -> None:
    encoder, objective = built(name)
    batch = batch_of(num_views=CASES[name].num_views)
    optimizer = torch.optim.Adam(chain(encoder.parameters(), objective.parameters()), lr=5e-3)
    losses = []
    for number in range(30):
        torch.manual_seed(number)
        loss = objective(encoder, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() - CASES[name].least_loss)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@for_each_objective
def test_the_seed_and_the_state_decide_and_an_error_is_one_number_an_item(name: str) -> None:
    batch = batch_of(num_views=CASES[name].num_views)
    encoder, objective = built(name)
    _, other = built(name, seed=1)
    other.load_state_dict(objective.state_dict())
    expected = step(*built(name), batch)["loss"]
    assert torch.equal(step(encoder, objective, batch)["loss"], expected)
    assert torch.equal(step(*built(name)[:1], other, batch)["loss"], expected)
    with torch.no_grad():
        found = objective.eval().errors(encoder.eval(), batch_of(num_views=0))
    assert (found is not None) == CASES[name].has_errors == bool(objective.error_name)
    if found is not None:
        assert (found.shape, found.dtype) == ((BATCH,), torch.float32)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", SUPERVISED)
def test_items_with_unknown_labels_are_left_out(name: str) -> None:
    encoder, objective = built(name)
    unknown = dict.fromkeys(("category", "colour"), torch.full((BATCH,), -1))
    nothing = step(encoder, objective, batch_of(labels=unknown))["loss"]
    nothing.backward()
    assert nothing.item() == 0
    for parameter in chain(encoder.parameters(), objective.parameters()):
        assert parameter.grad is not None  # several processes wait for every gradient
        assert not parameter.grad.any()
    if name == "mixup":
        return  # blends all items of a batch: test_supervised
    encoder.eval()  # else the batch norms see the items that are left out
    objective.eval()
    whole, known = batch_of(), torch.arange(BATCH) < 8
    hidden = {column: labels.where(known, -1) for column, labels in whole.labels.items()}
    shown = {column: labels[:8] for column, labels in whole.labels.items()}
    views = tuple(view[:8] for view in whole.views)
    fewer = StepBatch(whole.images[:8], views, whole.rows[:8], labels=shown)
    found = step(encoder, objective, replace(whole, labels=hidden))["loss"]
    torch.testing.assert_close(found, step(encoder, objective, fewer)["loss"])
    assert not torch.isclose(found, step(encoder, objective, whole)["loss"])


NAN, INF = float("nan"), float("inf")
WRONG: dict[str, dict[str, list[Any]]] = {
    "denoising": {"noise": [-1e-9, NAN, INF]},
    "sparse": {"weight": [-1.0]},
    "variational": {"beta": [-1.0]},
    "mixed": {"ssim_weight": [-0.1, 1.5, NAN]},
    "masked": {"mask_ratio": [0.0, 1.0], "patch_px": [0, INF]},
    "simclr": {"temperature": [0.0, -1.0, NAN], "projection_dim": [0]},
    "reconstruction_contrastive": {
        "temperature": [0.0], "reconstruction_weight": [-1.0], "projection_dim": [-1],
    },
    "vicreg": {
        "projection_dim": [0], "invariance": [-1.0], "variance": [-1.0], "covariance": [-1.0],
    },
    "cross_entropy": {"label_smoothing": [1.5], "mixup": [-0.2]},
    "cosine_softmax": {"label_smoothing": [-0.1], "scale": [0.0]},
    "arcface": {"margin_degrees": [200.0, -1.0], "scale": [0.0]},
    "proxy_anchor": {"margin": [-0.1], "alpha": [0.0]},
    "supcon": {"temperature": [-1.0], "projection_dim": [0]},
    "multi_head": {
        "label_smoothing": [1.5],
        "columns": [[], ["category", "category"]],
        "weights": [[1.0, 2.0], [0.0]],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_settings_out_of_range_are_named(name: str) -> None:
    for setting, values in WRONG[name].items():
        for value in values:
            with pytest.raises(ValueError, match=rf"objective\.{setting}"):
                build(name, **{setting: value})


def test_settings_at_their_limits_pass() -> None:
    build("denoising", noise=0)
    build("mixed", ssim_weight=0)
    build("mixed", ssim_weight=1.0)
    build("simclr", temperature=1e-9)
    assert build("multi_head").columns == ("category",)


@pytest.mark.parametrize("name", sorted(set(SUPERVISED) - {"mixup"}))
def test_the_named_column_is_needed_and_has_two_values(name: str) -> None:
    named: dict[str, Any] = {"column": "colour"}
    if name == "multi_head":
        named = {"columns": ["colour"]}
    assert build(name, **named).columns == ("colour",)
    for count in (0, 1) if name != "supcon" else ():
        with pytest.raises(ValueError, match=rf"'colour' has {count}"):
            build(name, num_labels=lambda _: count, **named)  # noqa: B023


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.network is not SmallEncoder])
def test_a_network_that_lacks_a_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"SmallEncoder.*model=plus_layer"):
        case_objective(name).check_encoder(SmallEncoder())
    if name == "variational":
        with pytest.raises(ValueError, match=r"SmallAutoencoder.*model=variational"):
            case_objective(name).check_encoder(SmallAutoencoder())
    if name == "masked":
        for patch_px in (5, 16, 32):  # which do not divide the picture into two or more
            with pytest.raises(ValueError, match=rf"patch_px {patch_px} .*16.*objective\.patch_px"):
                build(name, patch_px=patch_px).check_encoder(SmallAutoencoder())


def test_projector_normalises_between_layers_and_not_at_the_end() -> None:
    layers = projector([DIM, 6, 4, 2])
    kinds = [torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.ReLU] * 2 + [torch.nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert layers(torch.randn(3, DIM)).shape == (3, 2)
    assert layers[0].bias is None
    assert layers[-1].bias is not None
    for widths in ([8], [8, 0], [8, 8, -1]):
        with pytest.raises(ValueError, match=r"objective\.projection_dim"):
            projector(widths)


def test_without_autocast_switches_back_on() -> None:
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(ones):
            assert (ones @ ones).dtype == torch.float32
        assert (ones @ ones).dtype == torch.bfloat16
