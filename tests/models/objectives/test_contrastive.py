"""What each contrastive objective computes, against loops and the library."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss, VICRegLoss
from torch import Tensor

from tests.models.objectives.small import DIM, Fixed, SmallEncoder, batch_of
from visual_search.models.objectives.contrastive import (
    nt_xent,
    reconstruction_contrastive,
    simclr,
    vicreg,
)


def projections(num_items: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, num_items, 5, generator=generator)
    return first.requires_grad_(), second.requires_grad_()


def slow_nt_xent(
    first: Tensor, second: Tensor, temperature: float, rows: list[int], partners: list[int]
) -> float:
    """The definition: every picture, every other picture."""
    pictures = [*first, *second]
    pairs = [{row, partner} for row, partner in zip(rows, partners, strict=True)] * 2
    shown = [*rows, *partners]
    total = 0.0
    for i, anchor in enumerate(pictures):
        other = (i + len(rows)) % len(pictures)
        weights = {
            j: math.exp(F.cosine_similarity(anchor, picture, dim=0).item() / temperature)
            for j, picture in enumerate(pictures)
            if j == other or not (shown[j] in pairs[i] or shown[i] in pairs[j])
        }
        total -= math.log(weights[other] / sum(weights.values()))
    return total / len(pictures)


def test_nt_xent_agrees_with_the_library_in_value_and_gradient() -> None:
    pair = projections(9)
    rows = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:9]
    expected = SelfSupervisedLoss(NTXentLoss(temperature=0.3))(*pair)
    found = nt_xent(*pair, temperature=0.3, rows=rows)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, pair) for loss in (found, expected)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = nt_xent(*pair, 0.01, rows)  # a low temperature shows the least rounding
    torch.testing.assert_close(rounded, nt_xent(*pair, 0.01, rows))


@pytest.mark.parametrize(
    ("rows", "partners"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 1, 2, 3], [10, 11, 12, 13]),  # partners from outside the batch
        ([0, 1, 2, 3], [1, 0, 2, 10]),  # two that are each other's partner, one by itself
        ([0, 1, 2, 3], [1, 2, 3, 0]),  # a ring
        ([5, 5, 5, 1], [6, 7, 5, 2]),  # a sampler that drew an item three times
    ],
)
def test_nt_xent_agrees_with_the_slow_loop(rows: list[int], partners: list[int]) -> None:
    pair = projections(4)
    found = nt_xent(*pair, 0.5, torch.tensor(rows), torch.tensor(partners))
    assert found.item() == pytest.approx(slow_nt_xent(*pair, 0.5, rows, partners), rel=1e-5)


def test_pictures_of_similar_items_neither_attract_nor_repel() -> None:
    pair = projections(3)
    # Item 0's partner is row 1, which stands in the batch itself as item 1, with partner 7.
    rows, partners = torch.tensor([0, 1, 2]), torch.tensor([1, 7, 8])
    positive_then_negatives = [  # pictures 0 to 2 are the first views, 3 to 5 the second
        [3, 2, 4, 5],  # row 0: not picture 1, which shows its partner's row
        [4, 2, 5],  # row 1: not 3, which shows row 1, nor 0, whose partner row 1 is
        [5, 0, 1, 3, 4],
        [0, 2, 5],  # row 1 again: not 1, nor 4, which shows row 1's partner
        [1, 0, 2, 5],  # row 7: not 3, which shows its partner's row
        [2, 0, 1, 3, 4],
    ]
    unit = F.normalize(torch.cat(pair), dim=1)
    seen = list(zip(unit @ unit.T / 0.5, positive_then_negatives, strict=True))
    expected = sum(row[those].logsumexp(0) - row[those[0]] for row, those in seen) / len(seen)
    torch.testing.assert_close(nt_xent(*pair, 0.5, rows, partners), expected)
    assert not torch.isclose(nt_xent(*pair, 0.5, rows), expected)


def test_one_pair_has_no_loss() -> None:
    first, second = projections(1)
    loss = nt_xent(first, second, 0.2, torch.tensor([3]))
    loss.backward()
    assert loss.item() == 0
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_simclr_contrasts_the_projections_of_both_views_in_one_pass() -> None:
    torch.manual_seed(0)
    batch = batch_of(num_items=4)
    encoder = Fixed(torch.randn(8, DIM), batch.views[0] + 0.5)
    torch.manual_seed(1)
    objective = simclr(DIM, temperature=0.5, projection_dim=6)
    found = objective(encoder, batch)["loss"].item()
    assert len(encoder.seen) == 1
    assert torch.equal(encoder.seen[0], torch.cat(batch.views))
    first, second = objective.projector(encoder.embeddings).chunk(2)
    assert first.shape == (4, 6)
    rows, partners = batch.rows.tolist(), batch.rows.roll(1)
    assert found == pytest.approx(slow_nt_xent(first, second, 0.5, rows, rows), rel=1e-5)
    partnered = objective(encoder, replace(batch, partner_rows=partners))["loss"].item()
    expected = slow_nt_xent(first, second, 0.5, rows, partners.tolist())
    assert partnered == pytest.approx(expected, rel=1e-5)
    assert partnered != pytest.approx(found, rel=1e-3)

    torch.manual_seed(1)  # the same projector, and the first view's error
    both = reconstruction_contrastive(DIM, 0.5, reconstruction_weight=3.0, projection_dim=6)
    parts = {name: value.item() for name, value in both(encoder, batch).items()}
    assert torch.equal(encoder.decoded[0], encoder.embeddings[:4])
    expected_parts = {"loss": found + 0.75, "contrastive": found, "reconstruction": 0.25}
    assert parts == pytest.approx(expected_parts)


def test_vicreg_agrees_with_the_library_s_sum() -> None:
    torch.manual_seed(0)
    encoder = Fixed(torch.randn(12, DIM))
    objective = vicreg(DIM, projection_dim=7, invariance=3.0, variance=5.0, covariance=2.0)
    found = objective(encoder, batch_of(num_items=6))
    first, second = objective.projector(encoder.embeddings).chunk(2)
    library = VICRegLoss(invariance_lambda=3.0, variance_mu=5.0, covariance_v=2.0)
    torch.testing.assert_close(found["loss"], library(first, ref_emb=second))
    weighted = 3 * found["invariance"] + 5 * found["variance"] + 2 * found["covariance"]
    torch.testing.assert_close(found["loss"].detach(), weighted)


def test_vicreg_s_parts_by_hand_of_which_one_item_has_the_first() -> None:
    objective = vicreg(2, projection_dim=2)
    objective.projector = torch.nn.Sequential()
    first = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # variance 0.5, covariance 0.5
    second = torch.tensor([[0.0, 0.0], [0.0, 3.0]])  # variances 0 and 4.5, covariance 0
    found = objective(Fixed(torch.cat([first, second])), batch_of(num_items=2))
    assert found["invariance"].item() == pytest.approx((1 + 4) / 4)
    spread = (1 - math.sqrt(0.5001)) + (1 - math.sqrt(1e-4)) / 2  # means over two dimensions
    assert found["variance"].item() == pytest.approx(spread / 2)
    assert found["covariance"].item() == pytest.approx(2 * 0.25 / 2)
    found = vicreg(DIM)(SmallEncoder(), batch_of(num_items=1))
    assert set(found) == {"loss", "invariance"}
    torch.testing.assert_close(found["loss"].detach(), 25 * found["invariance"])
