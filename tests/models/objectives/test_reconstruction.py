"""What each reconstruction objective computes, by hand."""

import math
from dataclasses import replace

import pytest
import torch
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from tests.models.objectives.small import CASES, DIM, SIDE, Fixed, SmallEncoder, case_objective
from visual_search.models.objectives.objective import StepBatch
from visual_search.models.objectives.reconstruction import (
    denoising,
    kl_to_standard_normal,
    masked,
    mixed,
    mse,
    random_patches,
    sparse,
    ssim,
    structural_similarity,
    variational,
)

SHAPE = (2, 3, SIDE, SIDE)


def off_by(amounts: list[float]) -> tuple[Fixed, StepBatch]:
    """Pictures of 0 whose reconstructions are off by these amounts."""
    shift = torch.tensor(amounts).reshape(-1, 1, 1, 1)
    pictures = torch.zeros(len(amounts), *SHAPE[1:])
    encoder = Fixed(torch.tensor([[0.5, -1.5]]).expand(len(amounts), 2), pictures + shift)
    return encoder, StepBatch(pictures, (pictures,), rows=torch.arange(len(amounts)))


def test_mse_and_sparse_by_hand() -> None:
    encoder, batch = off_by([1.0, 0.5])
    assert mse()(encoder, batch)["loss"].item() == (1.0 + 0.25) / 2
    assert encoder.seen[0] is batch.images
    found = {name: value.item() for name, value in sparse(weight=0.1)(encoder, batch).items()}
    mean = (0.5 + 1.5) / 2  # of the embedding's absolute values
    expected = {"reconstruction": 0.625, "activity": mean, "loss": 0.625 + 0.1 * mean}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.network is not SmallEncoder])
def test_the_error_is_the_clean_picture_s_in_every_objective(name: str) -> None:
    encoder, batch = off_by([1.0, 0.5])
    found = case_objective(name).errors(encoder, replace(batch, views=()))
    assert found is not None
    assert found.tolist() == [1.0, 0.25]
    assert encoder.seen[0] is batch.images


def test_denoising_sees_a_noisy_view_and_is_measured_on_the_clean_picture() -> None:
    clean, view = torch.zeros(SHAPE), torch.full(SHAPE, 0.5)
    encoder = Fixed(torch.zeros(2, DIM), torch.full(SHAPE, 0.1))
    torch.manual_seed(0)
    found = denoising(noise=0.2)(encoder, StepBatch(clean, (view,), rows=torch.arange(2)))
    assert found["loss"].item() == pytest.approx(0.01)
    added = encoder.seen[0] - view
    assert added.std().item() == pytest.approx(0.2, rel=0.1)
    assert added.mean().item() == pytest.approx(0.0, abs=0.02)


def test_kl_agrees_with_torch() -> None:
    mean, log_variance = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros(5, DIM), torch.ones(5, DIM))
    expected = torch.distributions.kl_divergence(normal, standard).mean()
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)


class FixedPosterior(Fixed):
    """Every embedding's distribution is the same; what it gives is to be learned."""

    mean = torch.full((512, DIM), 3.0, requires_grad=True)
    log_variance = torch.full((512, DIM), math.log(4), requires_grad=True)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_variance


def test_variational_samples_around_the_mean_and_weighs_the_kl() -> None:
    pictures = torch.zeros(512, *SHAPE[1:])
    encoder = FixedPosterior(torch.zeros(512, DIM), pictures + 0.5)
    torch.manual_seed(0)
    objective, batch = variational(beta=0.1), StepBatch(pictures, (), rows=torch.arange(512))
    found = {name: value.item() for name, value in objective(encoder, batch).items()}
    sample = encoder.decoded[0]
    assert sample.mean().item() == pytest.approx(3.0, abs=0.1)
    assert sample.std().item() == pytest.approx(2.0, abs=0.1)
    kl = (9 + 4 - 1 - math.log(4)) / 2
    assert found == pytest.approx({"kl": kl, "reconstruction": 0.25, "loss": 0.25 + 0.1 * kl})
    for gradient in torch.autograd.grad(
        sample.square().sum(), (encoder.mean, encoder.log_variance)
    ):
        assert gradient.all()  # both are learned through the sample


def test_ssim_agrees_with_scikit_image() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    second = (first + 0.5 * torch.randn(3, 64, 64, generator=generator)).clamp(-1, 1)
    expected = skimage_ssim(
        *((picture.double().numpy() + 1) / 2 for picture in (first, second)),
        data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    # 0.003: scikit-image leaves out a border of 5 px.
    found = structural_similarity(first[None], second[None]).item()
    assert found == pytest.approx(expected, abs=0.003)
    assert expected < 0.9  # else the two pictures are too alike to tell anything
    assert structural_similarity(first[None], first[None]).item() == pytest.approx(1)


def test_ssim_treats_gray_as_a_brightness_and_not_as_black() -> None:
    # Around 0 the term of the means of values in -1..1 would change its sign.
    darker, lighter = torch.full((1, 3, 16, 16), -0.05), torch.full((1, 3, 16, 16), 0.05)
    assert structural_similarity(darker, lighter).item() > 0.98


def test_mixed_blends_both() -> None:
    encoder, batch = off_by([1.0, 0.5])
    found = {name: value.item() for name, value in ssim()(encoder, batch).items()}
    similarity = structural_similarity(encoder.reconstructions, batch.images).mean().item()
    ends = {"ssim": similarity, "reconstruction": 0.625}
    assert found == pytest.approx({"loss": 1 - similarity, **ends})
    blend = {name: v.item() for name, v in mixed(ssim_weight=0.25)(encoder, batch).items()}
    assert blend == pytest.approx({"loss": 0.75 * 0.625 + 0.25 * (1 - similarity), **ends})


def hidden_pixels(seen: Tensor, view: Tensor) -> Tensor:
    """Where the network saw gray instead of the view, which is nowhere gray, ``[B, S, S]``."""
    assert torch.equal(seen == 0, (seen == 0)[:, :1].expand_as(seen))
    assert torch.equal(torch.where(seen == 0, view, seen), view)
    return (seen == 0)[:, 0]


def test_masked_measures_hidden_pixels_alone() -> None:
    view = torch.full(SHAPE, 0.5)
    batch = StepBatch(torch.full(SHAPE, -1.0), (view,), rows=torch.arange(2))
    encoder = Fixed(torch.zeros(2, DIM), torch.zeros(SHAPE))
    objective = masked(mask_ratio=0.5, patch_px=4)

    def loss(reconstructions: Tensor) -> float:
        encoder.reconstructions = reconstructions
        torch.manual_seed(0)
        return float(objective(encoder, batch)["loss"])

    assert loss(view + 0.2) == pytest.approx(0.04)
    hidden = hidden_pixels(encoder.seen[-1], view)[:, None]
    assert loss(torch.where(hidden, view + 0.2, torch.rand(SHAPE))) == pytest.approx(0.04)
    assert loss(torch.where(hidden, view, torch.rand(SHAPE))) == 0
    half = torch.where(hidden & (torch.arange(2) == 0).reshape(2, 1, 1, 1), view + 0.2, view)
    assert loss(half) == pytest.approx(0.02)  # one of the two pictures is off


@pytest.mark.parametrize(("ratio", "expected"), [(0.6, 10), (0.01, 1), (0.99, 15), (0.5, 8)])
def test_every_picture_hides_as_many_patches(ratio: float, expected: int) -> None:
    torch.manual_seed(0)
    mask = random_patches(torch.zeros(256, 3, SIDE, SIDE), ratio, patch_px=4)
    patches = mask.reshape(256, 4, 4, 4, 4).permute(0, 1, 3, 2, 4).flatten(3)
    assert torch.equal(patches.all(dim=3), patches.any(dim=3))  # a patch is hidden as a whole
    assert (patches.all(dim=3).sum(dim=(1, 2)) == expected).all()
    assert len(mask.flatten(1).unique(dim=0)) > 10  # each picture its own
    assert mask.any(dim=0).all()  # and each patch in some
