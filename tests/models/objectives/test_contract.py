"""One contract for every objective."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import nn

from tests.models.objectives.small import (
    BATCH,
    CASES,
    SUPERVISED,
    Case,
    batch_of,
)
from visual_search.models.encoder import Encoder
from visual_search.models.objectives import contrastive, reconstruction, supervised
from visual_search.models.objectives.objective import Objective, StepBatch


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def built(case: Case, seed: int = 0) -> tuple[Encoder, Objective]:
    torch.manual_seed(seed)
    return case.network(), case.build()


def parameters(*modules: nn.Module) -> Iterator[nn.Parameter]:
    return chain.from_iterable(module.parameters() for module in modules)


def step(
    encoder: Encoder, objective: Objective, batch: StepBatch, seed: int = 0
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    found: dict[str, torch.Tensor] = objective(encoder, batch)
    return found


def test_every_builder_has_a_case() -> None:
    builders = {
        name
        for module in (reconstruction, contrastive, supervised)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and inspect.signature(function, eval_str=True).return_annotation is Objective
    }
    assert len(builders) == 16
    assert builders == set(CASES) - {"mixup"}


def test_it_says_what_it_needs(case: Case) -> None:
    encoder, objective = built(case)
    objective.check_encoder(encoder)
    assert objective.num_views == case.num_views
    assert objective.columns == case.columns


def test_the_loss_is_one_float32_number_and_what_is_logged_has_no_gradient(case: Case) -> None:
    encoder, objective = built(case)
    found = step(encoder, objective, batch_of(num_views=case.num_views))
    assert set(found) == {"loss", *case.parts}
    assert found["loss"].requires_grad
    for name, value in found.items():
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert value.requires_grad == (name == "loss")


def test_gradients_reach_every_parameter(case: Case) -> None:
    encoder, objective = built(case)
    step(encoder, objective, batch_of(num_views=case.num_views))["loss"].backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if list(objective.parameters()):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())


def test_the_loss_goes_down(case: Case) -> None:
    encoder, objective = built(case)
    batch = batch_of(num_views=case.num_views)
    optimizer = torch.optim.Adam(parameters(encoder, objective), lr=5e-3)
    losses = []
    for number in range(30):
        loss = step(encoder, objective, batch, seed=number)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() - case.least_loss)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_autocast_leaves_the_loss_in_float32_and_close(case: Case) -> None:
    encoder, objective = built(case)
    batch = batch_of(num_views=case.num_views)
    exact = step(encoder, objective, batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = step(encoder, objective, batch)["loss"]
    rounded.backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)
    for parameter in parameters(encoder, objective):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_the_seed_decides(case: Case) -> None:
    batch = batch_of(num_views=case.num_views)
    first, second = (step(*built(case), batch)["loss"] for _ in range(2))
    assert torch.equal(first, second)


def test_state_survives_a_round_trip(case: Case) -> None:
    encoder, objective = built(case)
    _, other = built(case, seed=1)
    batch = batch_of(num_views=case.num_views)
    other.load_state_dict(objective.state_dict())
    expected = step(encoder, objective, batch)["loss"]
    assert torch.equal(step(encoder, other, batch)["loss"], expected)


def test_errors_are_one_number_an_item_without_views(case: Case) -> None:
    encoder, objective = built(case)
    encoder.eval()
    objective.eval()
    with torch.no_grad():
        found = objective.errors(encoder, batch_of(num_views=0))
    assert (found is not None) == case.has_errors
    if found is not None:
        assert found.shape == (BATCH,)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_batch_of_unknown_labels_has_no_loss_and_gradients_of_0(name: str) -> None:
    encoder, objective = built(SUPERVISED[name])
    unknown = torch.full((BATCH,), -1)
    batch = batch_of(labels={"category": unknown, "colour": unknown})
    loss = step(encoder, objective, batch)["loss"]
    loss.backward()
    assert loss.item() == 0
    for parameter in parameters(encoder, objective):
        assert parameter.grad is not None  # several processes wait for every gradient
        assert parameter.grad.abs().sum() == 0


@pytest.mark.parametrize("name", sorted(set(SUPERVISED) - {"mixup"}))  # mixup: its own test
def test_items_with_unknown_labels_are_left_out(name: str) -> None:
    encoder, objective = built(SUPERVISED[name])
    encoder.eval()  # else the batch norms see the items that are left out
    objective.eval()
    whole = batch_of()
    hidden = {column: labels.clone() for column, labels in whole.labels.items()}
    for labels in hidden.values():
        labels[8:] = -1
    fewer = StepBatch(
        whole.images[:8],
        tuple(view[:8] for view in whole.views),
        whole.rows[:8],
        labels={column: labels[:8] for column, labels in whole.labels.items()},
    )
    found = step(encoder, objective, replace(whole, labels=hidden))["loss"]
    torch.testing.assert_close(found, step(encoder, objective, fewer)["loss"])
    assert not torch.isclose(found, step(encoder, objective, whole)["loss"])
