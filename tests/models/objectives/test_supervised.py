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
    assert found.isnan().tolist() == (~KNOWN).tolist()
    assert encoder.seen[-1] is batch.images
    return found


def test_item_losses_and_their_mean_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [9.0, 1.0]])
    labels = torch.tensor([1, 0, -1])
    found = item_losses(logits, labels)
    torch.testing.assert_close(found, torch.tensor([math.log(4 / 3), math.log(2), 0.0]))
    smoothed = item_losses(logits, labels, label_smoothing=0.5)  # targets 0.25 and 0.75
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    torch.testing.assert_close(smoothed, torch.tensor([expected, math.log(2), 0.0]))
    losses = torch.tensor([1.0, 3.0, 8.0])
    assert mean_over(losses, torch.tensor([True, True, False])).item() == 2
    assert mean_over(losses, torch.zeros(3, dtype=torch.bool)).item() == 0  # over nothing


def test_cross_entropy_agrees_with_torch(encoder: Fixed, batch: StepBatch) -> None:
    objective = cross_entropy(DIM, COUNT, label_smoothing=0.2)
    logits = objective.classifier(encoder.embeddings)
    expected = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], label_smoothing=0.2)
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)
    assert encoder.seen[0] is batch.views[0]
    single = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], reduction="none")
    torch.testing.assert_close(checked_errors(objective, encoder, batch)[KNOWN], single)


class FirstPixel(Fixed):
    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images[:, 0, 0, :1]


def test_mixup_blends_pictures_and_losses_alike() -> None:
    values = torch.linspace(-0.9, 0.9, 8)
    labels = torch.tensor([0, 1, 1, -1, 0, 1, 0, 0])
    view = values.reshape(8, 1, 1, 1).expand(8, 3, SIDE, SIDE)
    batch = StepBatch(view, (view,), rows=torch.arange(8), labels={"category": labels})
    objective = cross_entropy(1, lambda _: 2, label_smoothing=0.0, mixup=0.7)
    objective.classifier.weight.data[:, 0] = torch.tensor([0.0, 1.0])  # the logits: 0 and the pixel
    objective.classifier.bias.data[:] = 0
    encoder = FirstPixel(torch.zeros(1, 1))
    torch.manual_seed(3)
    found = objective(encoder, batch)["loss"].item()
    torch.manual_seed(3)
    share = torch.distributions.Beta(0.7, 0.7).sample().item()
    order = torch.randperm(8)
    assert 0.05 < share < 0.95  # else one side of the blend hardly counts
    mixed = share * values + (1 - share) * values[order]
    torch.testing.assert_close(encoder.seen[0], mixed.reshape(8, 1, 1, 1).expand_as(view))
    losses = []
    for pixel, first, second in zip(mixed, labels, labels[order], strict=True):
        if -1 not in (first, second):
            right = [1 / (1 + math.exp(pixel)), 1 / (1 + math.exp(-pixel))]
            losses.append(-share * math.log(right[first]) - (1 - share) * math.log(right[second]))
    assert (labels != labels[order]).any()
    assert len(losses) < 7  # an item with a label whose partner has none
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_cosine_softmax_agrees_with_the_library(encoder: Fixed, batch: StepBatch) -> None:
    objective = cosine_softmax(DIM, COUNT, scale=8.0, label_smoothing=0.0)
    library = NormalizedSoftmaxLoss(3, DIM, temperature=1 / 8)
    with torch.no_grad():
        library.W.copy_(objective.classifier.weight.T)
    expected = library(encoder.embeddings[KNOWN], LABELS[KNOWN])
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)
    before = checked_errors(objective, encoder, batch)
    encoder.embeddings = encoder.embeddings * torch.arange(1, 7)[:, None]
    longer = checked_errors(objective, encoder, batch)
    torch.testing.assert_close(longer, before, equal_nan=True)  # the length says nothing

    objective = cosine_softmax(DIM, COUNT, label_smoothing=0.3)  # at the default scale, 20
    weights = objective.classifier.weight
    logits = 20 * F.cosine_similarity(encoder.embeddings[:, None], weights[None], dim=2)
    expected = F.cross_entropy(logits[KNOWN], LABELS[KNOWN], label_smoothing=0.3)
    torch.testing.assert_close(objective(encoder, batch)["loss"], expected)


def test_multi_head_averages_its_columns(encoder: Fixed, batch: StepBatch) -> None:
    objective = multi_head(DIM, COUNT, ["category", "colour"], [3.0, 1.0], label_smoothing=0.0)
    found = objective(encoder, batch)
    single, means = [], []
    for classifier, labels in zip(objective.classifiers, batch.labels.values(), strict=True):
        each = F.cross_entropy(
            classifier(encoder.embeddings), labels, reduction="none", ignore_index=-1
        )
        means.append(each[labels >= 0].mean())
        single.append(each)
    torch.testing.assert_close(found["cross_entropy/category"], means[0].detach())
    torch.testing.assert_close(found["cross_entropy/colour"], means[1].detach())
    torch.testing.assert_close(found["loss"], 0.75 * means[0] + 0.25 * means[1])
    errors = checked_errors(objective, encoder, batch)
    torch.testing.assert_close(errors[0], 0.75 * single[0][0] + 0.25 * single[1][0])
    torch.testing.assert_close(errors[4], single[0][4])  # its colour is unknown


def test_arcface_by_the_definition(encoder: Fixed, batch: StepBatch) -> None:
    objective = arcface(DIM, COUNT, margin_degrees=20.0, scale=8.0)
    cosines = F.normalize(encoder.embeddings, dim=1) @ F.normalize(objective.loss.W, dim=0)
    logits = 8 * cosines.double()
    errors = checked_errors(objective, encoder, batch)
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
    proxies = F.normalize(objective.loss.proxies.detach(), dim=1)
    cosines, expected = F.normalize(encoder.embeddings, dim=1) @ proxies.T, 0.0
    for value in range(3):
        own, others = cosines[value == LABELS, value], cosines[KNOWN & (value != LABELS), value]
        expected += math.log1p(sum(math.exp(-4 * (cosine - 0.2)) for cosine in own)) / 3  # pulled
        expected += math.log1p(sum(math.exp(4 * (cosine + 0.2)) for cosine in others)) / 3  # pushed
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

    batch = batch_of(num_items=3, labels={"category": torch.tensor([1, 1, -1])})  # one value
    embeddings = torch.randn(6, DIM, requires_grad=True)
    loss = supcon(DIM)(Fixed(embeddings), batch)["loss"]
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
