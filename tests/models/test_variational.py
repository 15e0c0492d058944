"""The variational autoencoder: what it calls the posterior, and that training it is stable."""

from __future__ import annotations

import pytest
import torch

from visual_search.models.variational import (
    MAX_LOG_VARIANCE,
    VariationalAutoencoder,
    variational,
)


def small() -> VariationalAutoencoder:
    torch.manual_seed(0)
    return variational(8, 32, width=4)


def test_the_embedding_is_the_mean_of_the_posterior() -> None:
    model = small().eval()
    pictures = torch.rand(3, 3, 32, 32)
    mean, log_variance = model.posterior(pictures)
    assert mean.shape == log_variance.shape == (3, 8)
    assert torch.equal(model.encode(pictures), mean)
    assert not torch.equal(mean, log_variance)


def test_the_log_variance_stays_in_its_range() -> None:
    model = small().eval()
    pictures = torch.rand(3, 3, 32, 32)
    bias = torch.tensor([-1e6, 1e6] * 4)
    model.log_variance.bias.data.copy_(bias)
    _, log_variance = model.posterior(pictures)
    assert torch.equal(log_variance, bias.sign().expand(3, 8) * MAX_LOG_VARIANCE)
    assert torch.isfinite(log_variance.exp()).all()


def test_training_with_draws_lowers_the_bound() -> None:
    model = small()
    pictures = torch.rand(8, 3, 1, 1).expand(8, 3, 32, 32) * 2 - 1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        mean, log_variance = model.posterior(pictures)
        draws = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = (model.decode(draws) - pictures).square().mean() + 1e-3 * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="got embedding_dim 0, expected at least 1"):
        variational(embedding_dim=0)
    with pytest.raises(ValueError, match=r"got width 0, expected at least 1; set model\.width"):
        variational(width=0)
    with pytest.raises(ValueError, match="got image_size_px 72, expected a multiple of 16"):
        variational(image_size_px=72)


def test_embeddings_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), expected \[B, 8\]; decode what"):
        small().decode(torch.zeros(2, 3))
