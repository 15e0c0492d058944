"""Objectives that draw pictures again; their networks need a decoder.

In evaluation all of them give the same number, the mean squared error of the clean picture, so
that their runs can be compared. ``mse`` is the study's training; the others change one thing each.
Shapes: ``P`` patches of a picture.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from visual_search import builder
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.settings import (
    check_above_zero,
    check_not_negative,
    check_share,
)


@runtime_checkable
class Posterior(Protocol):
    """An encoder that knows how sure it is of an embedding."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance, both ``[B, D]``, of pictures ``[B, 3, S, S]``."""


def with_decoder(encoder: Encoder) -> Autoencoder:
    """Returns the same network as the autoencoder that it is.

    Raises:
        ValueError: It has no decoder.
    """
    if not isinstance(encoder, Autoencoder):
        raise ValueError(
            f"the objective reconstructs pictures and {type(encoder).__name__} has no decoder; "
            "expected an autoencoder; choose a model that has one, as model=plus_layer"
        )
    return encoder


def squared_errors(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Returns each picture's mean squared error ``[B] float32``, both ``[B, 3, S, S]`` in -1..1."""
    return (reconstructions.float() - images.float()).square().mean(dim=(1, 2, 3))


def mean_squared_error(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Returns the mean over all values of the batch, a float32 scalar."""
    return F.mse_loss(reconstructions.float(), images.float())


class Reconstruction(Objective):
    """The study's training: the picture from itself, by the mean squared error in -1..1.

    No augmentation is used, even where the loader has one. Source: "Powering Visual Search with
    Image Embedding" (2023).
    """

    num_views = 0
    error_name = "MSE in -1..1"

    def __init__(self) -> None:
        super().__init__()  # said here: torch's own takes any keyword, a config's too

    def check_encoder(self, encoder: Encoder) -> None:
        """See `Objective.check_encoder`.

        Raises:
            ValueError: The network has no decoder.
        """
        with_decoder(encoder)

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        return {"loss": mean_squared_error(with_decoder(encoder)(batch.images), batch.images)}

    def errors(self, encoder: Encoder, batch: StepBatch) -> Tensor:
        """Returns the mean squared error ``[B] float32`` of each clean picture, in -1..1."""
        restored = with_decoder(encoder).decode(batch.embedded(encoder))
        return squared_errors(restored, batch.images)


class Denoising(Reconstruction):
    """Training on an augmented, noisy view in and the clean picture out, by MSE.

    Where the augmentation moves or cuts the picture, the network has to undo that as well. Source:
    Vincent et al. (2008), "Extracting and composing robust features with denoising autoencoders".

    Args:
        noise: Standard deviation of the Gaussian noise added to each value, in units of -1..1.

    Raises:
        ValueError: ``noise`` is negative.
    """

    num_views = 1

    def __init__(self, noise: float = 0.1) -> None:
        super().__init__()
        check_not_negative("noise", noise)
        self.noise = noise

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        noisy = batch.views[0] + self.noise * torch.randn_like(batch.views[0])
        return {"loss": mean_squared_error(with_decoder(encoder)(noisy), batch.images)}


class Sparse(Reconstruction):
    """Training on MSE + weight * mean absolute value of the embedding (over B and D).

    Logs ``reconstruction`` (the MSE) and ``activity`` (the mean absolute value). Source: Olshausen
    & Field (1996), "Emergence of simple-cell receptive field properties by learning a sparse code
    for natural images"; Ng (2011), CS294A lecture notes, "Sparse autoencoder".

    Args:
        weight: Of the mean absolute value.

    Raises:
        ValueError: ``weight`` is negative.
    """

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__()
        check_not_negative("weight", weight)
        self.weight = weight

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        autoencoder = with_decoder(encoder)
        embeddings = autoencoder.encode(batch.images)
        reconstruction = mean_squared_error(autoencoder.decode(embeddings), batch.images)
        activity = embeddings.float().abs().mean()
        return {
            "loss": reconstruction + self.weight * activity,
            "reconstruction": reconstruction.detach(),
            "activity": activity.detach(),
        }


class Variational(Reconstruction):
    """The training of a beta-VAE: MSE of a sampled embedding's picture + beta * KL.

    The MSE is the mean over the 3 S^2 values of a picture, the KL the mean over the D dimensions,
    so that one beta serves several sizes. In the papers' sums, with a unit-variance Gaussian
    around the picture, this beta is beta_papers * 2 D / (3 S^2): their 1 is 0.02 here at D = 512
    and S = 128. Logs ``reconstruction`` and ``kl``, both before weighting. In evaluation the mean
    is decoded, not a sample. Source: Kingma & Welling (2013), arXiv 1312.6114; Higgins et al.
    (2017), "beta-VAE: Learning basic visual concepts with a constrained variational framework".

    Args:
        beta: Weight of the KL.

    Raises:
        ValueError: ``beta`` is negative.
    """

    def __init__(self, beta: float = 1e-3) -> None:
        super().__init__()
        check_not_negative("beta", beta)
        self.beta = beta

    def check_encoder(self, encoder: Encoder) -> None:
        """See `Objective.check_encoder`.

        Raises:
            ValueError: The network has no decoder, or gives no distribution of embeddings.
        """
        super().check_encoder(encoder)
        if not isinstance(encoder, Posterior):
            raise ValueError(
                f"the objective samples embeddings and {type(encoder).__name__} has no "
                "posterior(images); expected a network that gives mean and log variance; choose "
                "model=variational"
            )

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        mean, log_variance = cast(Posterior, encoder).posterior(batch.images)
        mean, log_variance = mean.float(), log_variance.float()
        sample = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        reconstructions = with_decoder(encoder).decode(sample)
        reconstruction = mean_squared_error(reconstructions, batch.images)
        kl = kl_to_standard_normal(mean, log_variance)
        return {
            "loss": reconstruction + self.beta * kl,
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
        }


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence from N(0, 1), in nats, averaged over B and D.

    One dimension has (mean^2 + variance - 1 - log variance) / 2 (Kingma & Welling 2013, arXiv
    1312.6114, appendix B).

    Args:
        mean: ``[B, D]``.
        log_variance: ``[B, D]``, natural logarithm.

    Example:
        >>> kl_to_standard_normal(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2)).item()
        1.0
    """
    mean, log_variance = mean.float(), log_variance.float()
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2


class StructuralSimilarity(Reconstruction):
    """Training on (1 - w) * MSE + w * (1 - SSIM), w being ``ssim_weight``.

    Logs ``reconstruction`` (the MSE) and ``ssim``.

    Args:
        ssim_weight: In 0..1.

    Raises:
        ValueError: ``ssim_weight`` is not in 0..1.
    """

    def __init__(self, ssim_weight: float = 0.5) -> None:
        super().__init__()
        check_share("ssim_weight", ssim_weight)
        self.ssim_weight = ssim_weight

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        reconstructions = with_decoder(encoder)(batch.images)
        reconstruction = mean_squared_error(reconstructions, batch.images)
        similarity = structural_similarity(reconstructions, batch.images).mean()
        loss = (1 - self.ssim_weight) * reconstruction + self.ssim_weight * (1 - similarity)
        return {
            "loss": loss,
            "reconstruction": reconstruction.detach(),
            "ssim": similarity.detach(),
        }


def structural_similarity(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Returns each picture's SSIM ``[B] float32``: at most 1, which only equal pictures reach.

    The index compares means, variances and covariance in Gaussian windows (standard deviation 1.5
    px). Its term of the means supposes values from 0 up: both pictures are moved to 0..2 first.
    Source: Wang et al. (2004), "Image quality assessment: from error visibility to structural
    similarity"; torchmetrics.

    Args:
        reconstructions: ``[B, 3, S, S]`` in -1..1, S at least 6.
        images: Likewise.

    Example:
        >>> white = torch.ones(1, 3, 16, 16)
        >>> structural_similarity(white, white).tolist()
        [1.0]
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    with without_autocast(images):
        similarities = structural_similarity_index_measure(
            reconstructions.float() + 1, images.float() + 1, reduction="none", data_range=2.0
        )
    return cast(Tensor, similarities)


class Masked(Reconstruction):
    """Training on views with hidden patches: MSE over the hidden patches alone.

    A hidden patch is gray (0). The network reconstructs the view that it sees parts of, so the
    augmentation need not be undone. What it draws where nothing was hidden is never trained, and
    the error of the clean picture in evaluation says little. Source: He et al. (2021), arXiv
    2111.06377, who drop the patches instead, as a transformer can.

    Args:
        mask_ratio: Share of the patches that are hidden.
        patch_px: Side of a patch.

    Raises:
        ValueError: ``mask_ratio`` is not between 0 and 1, or ``patch_px`` below 1.
    """

    num_views = 1

    def __init__(self, mask_ratio: float = 0.6, patch_px: int = 16) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(
                f"got mask_ratio {mask_ratio}, expected a number between 0 and 1, both excluded; "
                "set objective.mask_ratio"
            )
        check_above_zero("patch_px", patch_px)
        self.mask_ratio = mask_ratio
        self.patch_px = patch_px

    def check_encoder(self, encoder: Encoder) -> None:
        """See `Objective.check_encoder`.

        Raises:
            ValueError: The network has no decoder, or its pictures do not divide into two or more
                patches.
        """
        super().check_encoder(encoder)
        side = encoder.image_size_px
        if side % self.patch_px or side == self.patch_px:
            raise ValueError(
                f"got patch_px {self.patch_px} for pictures of {side} px, expected a smaller "
                f"number that divides {side}; set objective.patch_px"
            )

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        view = batch.views[0]
        mask = random_patches(view, self.mask_ratio, self.patch_px)
        reconstructions = with_decoder(encoder)(view.masked_fill(mask, 0.0))
        squares = (reconstructions.float() - view).square() * mask
        # Every picture hides the same number of values, three a pixel.
        return {"loss": squares.sum() / (3 * mask.sum())}


def random_patches(images: Tensor, mask_ratio: float, patch_px: int) -> Tensor:
    """Chooses patches of each picture: ``[B, 1, S, S] bool``, the same number in each.

    Of P patches ``mask_ratio`` times P are chosen, rounded, but at least one and not all.

    Example:
        >>> random_patches(torch.zeros(1, 3, 8, 8), mask_ratio=0.25, patch_px=4).sum().item()
        16
    """
    batch, side = len(images), images.shape[-1] // patch_px
    num_patches = side * side
    num_masked = min(max(round(mask_ratio * num_patches), 1), num_patches - 1)
    order = torch.rand(batch, num_patches, device=images.device).argsort(dim=1)  # [B, P]
    mask = (order < num_masked).reshape(batch, 1, side, side)  # a rank each, so num_masked of them
    return mask.repeat_interleave(patch_px, dim=2).repeat_interleave(patch_px, dim=3)


@builder("objective")
def ssim() -> Objective:
    """Returns training on 1 - SSIM, see `structural_similarity`.

    Logs ``reconstruction`` (the MSE, which is not trained) and ``ssim``.
    """
    return StructuralSimilarity(1.0)


# As configs name them.
mse = builder("objective")(Reconstruction)
denoising = builder("objective")(Denoising)
sparse = builder("objective")(Sparse)
variational = builder("objective")(Variational)
mixed = builder("objective")(StructuralSimilarity)
masked = builder("objective")(Masked)
