"""A variational autoencoder: every picture becomes a distribution over embeddings.

Source: Kingma & Welling 2013, arXiv 1312.6114.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visual_search import builder
from visual_search.models.residual import ResidualAutoencoder

MAX_LOG_VARIANCE = 10.0
"""Log variances are kept within plus and minus this: standard deviations of 0.007 to 148, where
the prior has 1. Their exponential enters the loss, and one wild step early in training would
otherwise make it infinite; a posterior that was learned lies far inside."""


class VariationalAutoencoder(ResidualAutoencoder):
    """The network of `visual_search.models.residual.residual` with a second head.

    The embedding is the mean: the same picture always gets the same one. What is drawn around it
    during training, and what keeps it near the prior, is the objective's business.

    Args:
        embedding_dim: Width D of the embedding.
        image_size_px: Side S of the pictures; a multiple of 16, at least 32.
        width: Channels of the stem and of the first stage.
        num_blocks: Residual blocks in each of the encoder's four stages.
        stem_stride: 2, or 4 for a quarter of the encoder's work and coarser maps.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> import torch
        >>> model = variational(embedding_dim=8, image_size_px=32, width=4).eval()
        >>> mean, log_variance = model.posterior(torch.zeros(2, 3, 32, 32))
        >>> mean.shape, log_variance.shape
        (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        image_size_px: int = 128,
        width: int = 64,
        num_blocks: Sequence[int] = (1, 1, 1, 1),
        stem_stride: int = 2,
    ) -> None:
        super().__init__(embedding_dim, image_size_px, width, num_blocks, stem_stride)
        self.mean = nn.Linear(self.encoder.embedding_dim, embedding_dim)
        self.log_variance = nn.Linear(self.encoder.embedding_dim, embedding_dim)

    def encoded_dim(self, width: int) -> int:
        """Returns 8 times the stem's width: no projection, since the two heads follow."""
        return 8 * width

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance, both ``[B, D]``, of pictures ``[B, 3, S, S]`` in -1..1.

        The log variance lies in -10..10, see `MAX_LOG_VARIANCE`. Under autocast both have its
        dtype: take them to float32 before an exponential.
        """
        pooled = self.encoder.encode(images)  # [B, 8 w]
        log_variance = self.log_variance(pooled).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return self.mean(pooled), log_variance

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`: the posterior's mean."""
        embeddings: Tensor = self.mean(self.encoder.encode(images))
        return embeddings


# As configs name it.
variational = builder("model")(VariationalAutoencoder)
