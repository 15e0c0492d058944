"""One contract for every objective."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch

from tests.models.objectives.small import (
    BATCH,
    CASES,
    COUNT,
    DIM,
    SUPERVISED,
    Case,
    SmallAutoencoder,
    SmallEncoder,
    batch_of,
)
from visual_search.config.builders import BUILDERS
from visual_search.models.encoder import Encoder
from visual_search.models.objectives import contrastive, reconstruction, supervised
from visual_search.models.objectives.objective import Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.projection_head import projector


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def built(case: Case, seed: int = 0) -> tuple[Encoder, Objective]:
    torch.manual_seed(seed)
    return case.network(), case.build()


def step(
    encoder: Encoder, objective: Objective, batch: StepBatch, seed: int = 0
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    found: dict[str, torch.Tensor] = objective(encoder, batch)
    return found


def test_every_builder_has_a_case() -> None:
    names = {name.rpartition(".")[2] for name in BUILDERS["objective"]}
    assert names == set(CASES) - {"mixup"}


def test_a_step(case: Case) -> None:
    """It says what it needs; the loss alone has a gradient, which reaches every parameter."""
    encoder, objective = built(case)
    objective.check_encoder(encoder)
    assert (objective.num_views, objective.columns) == (case.num_views, case.columns)
    found = step(encoder, objective, batch_of(num_views=case.num_views))
    assert set(found) == {"loss", *case.parts}
    for name, value in found.items():
        assert (value.shape, value.dtype) == ((), torch.float32)
        assert torch.isfinite(value)
        assert value.requires_grad == (name == "loss")
    found["loss"].backward()
    own = dict(objective.named_parameters())
    for name, parameter in (*encoder.named_parameters(), *own.items()):
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert name in own or parameter.grad.any(), name
    assert not own or any(p.grad is not None and p.grad.any() for p in own.values())


def test_the_loss_goes_down(case: Case) -> None:
    encoder, objective = built(case)
    batch = batch_of(num_views=case.num_views)
    optimizer = torch.optim.Adam(chain(encoder.parameters(), objective.parameters()), lr=5e-3)
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
    for parameter in chain(encoder.parameters(), objective.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_the_seed_and_the_state_decide(case: Case) -> None:
    batch = batch_of(num_views=case.num_views)
    encoder, objective = built(case)
    _, other = built(case, seed=1)
    other.load_state_dict(objective.state_dict())
    expected = step(*built(case), batch)["loss"]
    assert torch.equal(step(encoder, objective, batch)["loss"], expected)
    assert torch.equal(step(*built(case)[:1], other, batch)["loss"], expected)


def test_errors_are_one_number_an_item_without_views(case: Case) -> None:
    encoder, objective = built(case)
    encoder.eval()
    objective.eval()
    with torch.no_grad():
        found = objective.errors(encoder, batch_of(num_views=0))
    assert (found is not None) == case.has_errors == bool(objective.error_name)
    if found is not None:
        assert (found.shape, found.dtype) == ((BATCH,), torch.float32)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_batch_of_unknown_labels_has_no_loss_and_gradients_of_0(name: str) -> None:
    encoder, objective = built(SUPERVISED[name])
    unknown = torch.full((BATCH,), -1)
    loss = step(encoder, objective, batch_of(labels=dict.fromkeys(("category", "colour"), unknown)))
    loss["loss"].backward()
    assert loss["loss"].item() == 0
    for parameter in chain(encoder.parameters(), objective.parameters()):
        assert parameter.grad is not None  # several processes wait for every gradient
        assert not parameter.grad.any()


@pytest.mark.parametrize("name", sorted(set(SUPERVISED) - {"mixup"}))  # mixup: its own test
def test_items_with_unknown_labels_are_left_out(name: str) -> None:
    encoder, objective = built(SUPERVISED[name])
    encoder.eval()  # else the batch norms see the items that are left out
    objective.eval()
    whole = batch_of()
    known = torch.arange(BATCH) < 8
    hidden = {column: labels.where(known, -1) for column, labels in whole.labels.items()}
    fewer = StepBatch(
        whole.images[:8],
        tuple(view[:8] for view in whole.views),
        whole.rows[:8],
        labels={column: labels[:8] for column, labels in whole.labels.items()},
    )
    found = step(encoder, objective, replace(whole, labels=hidden))["loss"]
    torch.testing.assert_close(found, step(encoder, objective, fewer)["loss"])
    assert not torch.isclose(found, step(encoder, objective, whole)["loss"])


SETTINGS: list[tuple[Callable[..., Objective], dict[str, list[Any]]]] = [
    (reconstruction.denoising, {"noise": [-1e-9, float("nan"), float("inf")]}),
    (reconstruction.sparse, {"weight": [-1.0]}),
    (reconstruction.variational, {"beta": [-1.0]}),
    (reconstruction.mixed, {"ssim_weight": [-0.1, 1.5, float("nan")]}),
    (reconstruction.masked, {"mask_ratio": [0.0, 1.0], "patch_px": [0, float("inf")]}),
    (contrastive.simclr, {"temperature": [0.0, -1.0, float("nan")], "projection_dim": [0]}),
    (
        contrastive.reconstruction_contrastive,
        {"temperature": [0.0], "reconstruction_weight": [-1.0], "projection_dim": [-1]},
    ),
    (
        contrastive.vicreg,
        {"projection_dim": [0], "invariance": [-1.0], "variance": [-1.0], "covariance": [-1.0]},
    ),
    (supervised.cross_entropy, {"label_smoothing": [1.5], "mixup": [-0.2]}),
    (supervised.cosine_softmax, {"label_smoothing": [-0.1], "scale": [0.0]}),
    (supervised.arcface, {"margin_degrees": [200.0, -1.0], "scale": [0.0]}),
    (supervised.proxy_anchor, {"margin": [-0.1], "alpha": [0.0]}),
    (supervised.supcon, {"temperature": [-1.0], "projection_dim": [0]}),
    (
        supervised.multi_head,
        {
            "label_smoothing": [1.5],
            "columns": [[], ["category", "category"]],
            "weights": [[1.0, 2.0], [0.0]],
        },
    ),
]


def supplied(build: Callable[..., Objective]) -> dict[str, Any]:
    """What a command passes itself."""
    if build.__module__ == reconstruction.__name__:
        return {}
    counts = build in SUPERVISED_BUILDERS and build is not supervised.supcon
    return {"embedding_dim": DIM, **({"num_labels": COUNT} if counts else {})}


SUPERVISED_BUILDERS = [getattr(supervised, name) for name in SUPERVISED if name != "mixup"]


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(build, name, value) for build, names in SETTINGS for name in names for value in names[name]],
)
def test_settings_out_of_range_are_named(
    build: Callable[..., Objective], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{name}"):
        build(**supplied(build), **{name: value})


def test_settings_at_their_limits_pass() -> None:
    reconstruction.denoising(noise=0)
    reconstruction.mixed(ssim_weight=0)
    reconstruction.mixed(ssim_weight=1.0)
    contrastive.simclr(DIM, temperature=1e-9)
    assert supervised.multi_head(DIM, COUNT).columns == ("category",)
    # a module's name may hold no dot, a column's may
    assert supervised.multi_head(DIM, lambda _: 2, ["a.b", "c"]).columns == ("a.b", "c")


@pytest.mark.parametrize("build", SUPERVISED_BUILDERS)
def test_the_named_column_is_needed_and_has_two_values(build: Callable[..., Objective]) -> None:
    given, named = supplied(build), {"column": "colour"}
    if build is supervised.multi_head:
        named = {"columns": ["colour"]}  # type: ignore[dict-item]
    assert build(**given, **named).columns == ("colour",)
    if "num_labels" in given:
        for count in (0, 1):
            with pytest.raises(ValueError, match=rf"'colour' has {count}"):
                build(**given | {"num_labels": lambda _: count}, **named)  # noqa: B023


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.network is not SmallEncoder])
def test_a_network_that_lacks_a_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"SmallEncoder.*model=plus_layer"):
        CASES[name].build().check_encoder(SmallEncoder())
    if name == "variational":
        with pytest.raises(ValueError, match=r"SmallAutoencoder.*model=variational"):
            CASES[name].build().check_encoder(SmallAutoencoder())


@pytest.mark.parametrize("patch_px", [5, 16, 32])
def test_patches_that_do_not_divide_the_picture_are_refused(patch_px: int) -> None:
    with pytest.raises(ValueError, match=rf"patch_px {patch_px} .*16.*objective\.patch_px"):
        reconstruction.masked(patch_px=patch_px).check_encoder(SmallAutoencoder())


def test_projector_normalises_between_layers_and_not_at_the_end() -> None:
    layers = projector([8, 6, 4, 2])
    kinds = [torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.ReLU] * 2 + [torch.nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert layers(torch.randn(3, 8)).shape == (3, 2)
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
