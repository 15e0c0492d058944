"""What each objective with labels computes, against torch, loops and the library."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NormalizedSoftmaxLoss
from torch import Tensor

from tests.models.objectives.small import COUNT, DIM, SIDE, Fixed, batch_of
from visual_search.models.objectives.classification import item_losses, mean_over
from visual_search.models.objectives.objective import Objective, StepBatch
from visual_search.models.objectives.supervised import (
    arcface,
    cosine_softmax,
    cross_entropy,
    multi_head,
    proxy_anchor,
    supcon,
)

LABELS = torch.tensor([2, 0, -1, 1, 0, 2])
KNOWN = LABELS >= 0


@pytest.fixture
def encoder() -> Fixed:
    torch.manual_seed(0)
    return Fixed(torch.randn(6, DIM))


@pytest.fixture
def batch() -> StepBatch:
    colours = torch.tensor([0, 1, -1, 1, -1, -1])
    return batch_of(num_items=6, labels={"category": LABELS, "colour": colours})


def checked_errors(objective: Objective, encoder: Fixed, batch: StepBatch) -> Tensor:
    found = objective.errors(encoder, batch)
    assert found is not None
    assert encoder.seen[-1] is batch.images
    return found


def test_item_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [9.0, 1.0]])
    labels = torch.tensor([1, 0, -1])
    found = item_losses(logits, labels)
    torch.testing.assert_close(found, torch.tensor([math.log(4 / 3), math.log(2), 0.0]))
    smoothed = item_losses(logits, labels, label_smoothing=0.5)  # targets 0.25 and 0.75
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    torch.testing.assert_close(smoothed, torch.tensor([expected, math.log(2), 0.0]))


def test_mean_over_nothing_is_0() -> None:
    losses = torch.tensor([1.0, 3.0, 8.0])
    assert mean_over(losses, torch.tensor([True, True, False])).item() == 2
    assert mean_over(losses, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_cross_entropy_agrees_with_torch(encoder: Fixed, batch: StepBatch) -> None:
    objective = cross_entropy(DIM, COUNT, label_smoothing=0.2)
    logits = objective.classifier(encoder.embeddings)
    expected = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], label_smoothing=0.2)
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)
    assert encoder.seen[0] is batch.views[0]
    errors = checked_errors(objective, encoder, batch)
    assert errors.isnan().tolist() == (~KNOWN).tolist()
    single = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], reduction="none")
    torch.testing.assert_close(errors[KNOWN], single)


class Mixture(torch.nn.Module):
    """Returns the seen picture's first value back as both logits' difference."""

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(embeddings)), embeddings[:, 0]], dim=1)


class FirstPixel(Fixed):
    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images[:, 0, 0, :1]


def test_mixup_blends_pictures_and_losses_alike() -> None:
    values = torch.linspace(-0.9, 0.9, 8)
    labels = torch.tensor([0, 1, 1, -1, 0, 1, 0, 0])
    view = values.reshape(8, 1, 1, 1).expand(8, 3, SIDE, SIDE)
    batch = StepBatch(view, (view,), rows=torch.arange(8), labels={"category": labels})
    objective = cross_entropy(1, COUNT, label_smoothing=0.0, mixup=0.7)
    objective.classifier = Mixture()
    encoder = FirstPixel(torch.zeros(1, 1))
    torch.manual_seed(3)
    found = objective(encoder, batch)["loss"].item()
    torch.manual_seed(3)
    share = torch.distributions.Beta(0.7, 0.7).sample().item()
    order = torch.randperm(8).tolist()
    assert 0.05 < share < 0.95  # else one side of the blend hardly counts
    total, count, different = 0.0, 0, 0
    for i, j in enumerate(order):
        mixed = share * values[i].item() + (1 - share) * values[j].item()
        assert encoder.seen[0][i].unique().item() == pytest.approx(mixed)
        if labels[i] == -1 or labels[j] == -1:
            continue
        right = {1: 1 / (1 + math.exp(-mixed)), 0: 1 / (1 + math.exp(mixed))}
        total -= share * math.log(right[int(labels[i])])
        total -= (1 - share) * math.log(right[int(labels[j])])
        count += 1
        different += bool(labels[i] != labels[j])
    assert different > 0
    assert count < 7  # an item with a label whose partner has none
    assert found == pytest.approx(total / count, rel=1e-5)


def test_cosine_softmax_agrees_with_the_library(encoder: Fixed, batch: StepBatch) -> None:
    objective = cosine_softmax(DIM, COUNT, scale=8.0, label_smoothing=0.0)
    library = NormalizedSoftmaxLoss(3, DIM, temperature=1 / 8)
    with torch.no_grad():
        library.W.copy_(objective.classifier.weight.T)
    expected = library(encoder.embeddings[KNOWN], LABELS[KNOWN])
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)
    before = checked_errors(objective, encoder, batch)
    encoder.embeddings = encoder.embeddings * torch.arange(1, 7)[:, None]
    torch.testing.assert_close(
        checked_errors(objective, encoder, batch), before, equal_nan=True
    )  # the length says nothing


def test_cosine_softmax_smooths(encoder: Fixed, batch: StepBatch) -> None:
    objective = cosine_softmax(DIM, COUNT, label_smoothing=0.3)
    logits = 20 * F.cosine_similarity(
        encoder.embeddings[:, None], objective.classifier.weight[None], dim=2
    )
    expected = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], label_smoothing=0.3)
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)


def test_multi_head_averages_its_columns(encoder: Fixed, batch: StepBatch) -> None:
    objective = multi_head(DIM, COUNT, ["category", "colour"], [3.0, 1.0], label_smoothing=0.0)
    found = objective(encoder, batch)
    single = {}
    for number, column in enumerate(("category", "colour")):
        labels = batch.labels[column]
        logits = objective.classifiers[number](encoder.embeddings)
        expected = F.cross_entropy(logits[labels >= 0], labels[labels >= 0])
        torch.testing.assert_close(found[f"cross_entropy/{column}"], expected.detach())
        single[column] = F.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
    parts = [found["cross_entropy/category"], found["cross_entropy/colour"]]
    torch.testing.assert_close(found["loss"].detach(), 0.75 * parts[0] + 0.25 * parts[1])
    errors = checked_errors(objective, encoder, batch)
    torch.testing.assert_close(errors[0], 0.75 * single["category"][0] + 0.25 * single["colour"][0])
    torch.testing.assert_close(errors[4], single["category"][4])  # its colour is unknown
    assert errors.isnan().tolist() == [False, False, True, False, False, False]


def test_arcface_by_the_definition(encoder: Fixed, batch: StepBatch) -> None:
    objective = arcface(DIM, COUNT, margin_degrees=20.0, scale=8.0)
    cosines = F.normalize(encoder.embeddings, dim=1) @ F.normalize(objective.loss.W, dim=0)
    logits = 8 * cosines.double()
    errors = checked_errors(objective, encoder, batch)
    assert errors.isnan().tolist() == (~KNOWN).tolist()
    plain = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], reduction="none").float()
    torch.testing.assert_close(errors[KNOWN], plain)
    for item, label in enumerate(LABELS.tolist()):
        if label >= 0:
            angle = math.acos(cosines[item, label].item())
            assert angle < math.pi - math.radians(20)  # the rule for larger ones is not tested
            logits[item, label] = 8 * math.cos(angle + math.radians(20))
    expected = F.cross_entropy(logits[KNOWN], LABELS[KNOWN]).float()
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)


def test_arcface_stays_finite_where_an_embedding_is_its_own_direction(batch: StepBatch) -> None:
    # The derivative of the arc cosine is infinite at 1.
    for seed in range(10):
        torch.manual_seed(seed)
        objective = arcface(DIM, COUNT, scale=1.0)
        embeddings = objective.loss.W.detach().T[LABELS].clone().requires_grad_()
        objective(Fixed(embeddings), batch)["loss"].backward()
        assert embeddings.grad is not None
        assert torch.isfinite(embeddings.grad).all()
        assert torch.isfinite(objective.loss.W.grad).all()


def test_proxy_anchor_by_the_definition(encoder: Fixed, batch: StepBatch) -> None:
    objective = proxy_anchor(DIM, COUNT, margin=0.2, alpha=4.0)
    cosines = F.normalize(encoder.embeddings, dim=1) @ F.normalize(objective.loss.proxies, dim=1).T
    pull, push = [], []
    for value in range(3):
        of_value = [cosines[i, value] for i, label in enumerate(LABELS) if label == value]
        others = [cosines[i, value] for i, label in enumerate(LABELS) if label not in (value, -1)]
        pull.append(math.log1p(sum(math.exp(-4 * (c.item() - 0.2)) for c in of_value)))
        push.append(math.log1p(sum(math.exp(4 * (c.item() + 0.2)) for c in others)))
    expected = sum(pull) / 3 + sum(push) / 3
    assert objective(encoder, batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert objective.errors(encoder, batch) is None


def test_supcon_agrees_with_the_slow_loop(batch: StepBatch) -> None:
    torch.manual_seed(0)
    encoder = Fixed(torch.randn(12, DIM))
    objective = supcon(DIM, temperature=0.4, projection_dim=5)
    found = objective(encoder, batch)["loss"].item()
    assert torch.equal(encoder.seen[0], torch.cat(batch.views))
    unit = F.normalize(objective.projector(encoder.embeddings), dim=1)
    cosines = (unit @ unit.T).tolist()
    labels = LABELS.repeat(2).tolist()
    known = [i for i, label in enumerate(labels) if label >= 0]
    total = 0.0
    for i in known:
        others = [j for j in known if j != i]
        alike = [j for j in others if labels[j] == labels[i]]
        whole = math.log(sum(math.exp(cosines[i][j] / 0.4) for j in others))
        total += sum(whole - cosines[i][j] / 0.4 for j in alike) / len(alike)
    assert found == pytest.approx(total / len(known), rel=1e-5)
    assert objective.errors(encoder, batch) is None


def test_supcon_of_one_value_has_no_loss_but_a_gradient() -> None:
    torch.manual_seed(0)
    batch = batch_of(num_items=3, labels={"category": torch.tensor([1, 1, -1])})
    embeddings = torch.randn(6, DIM, requires_grad=True)
    loss = supcon(DIM)(Fixed(embeddings), batch)["loss"]
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
