"""Objectives that pull two views of an item together; nobody has to label anything.

The second view shows the item itself, or a partner that the loader judged similar (as in NNCLR,
Dwibedi et al. 2021, arXiv 2104.14548). In a training over several processes each compares the items
of its own share of the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from visual_search import builder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.projection_head import projector
from visual_search.models.objectives.reconstruction import (
    Reconstruction,
    mean_squared_error,
    with_decoder,
)
from visual_search.models.objectives.settings import check_above_zero, check_not_negative


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float,
    rows: Tensor,
    partner_rows: Tensor | None = None,
) -> Tensor:
    """Returns the normalised temperature-scaled cross-entropy of B pairs, a float32 scalar.

    Each of the 2 B pictures has to pick its pair's other picture out of the batch by cosine:
    ``-log(exp(cos / T) / sum(exp(cos / T)))``, averaged over the pictures; the sum goes over the
    other picture and the negatives. Negatives are all pictures but those that the pair may be
    similar to: two pictures are no negatives of each other where one of them shows a catalogue
    row that the other one's pair shows. Without negatives the loss is 0. Source: Chen et al.
    (2020), arXiv 2002.05709. The memory is quadratic in B; pytorch-metric-learning's ``NTXentLoss``
    needs cubic memory, and knows labels, not pairs that share rows.

    Args:
        first: Projections of the first views, ``[B, P]``.
        second: Of the second views.
        temperature: T, above 0.
        rows: Catalogue rows that the first views show, ``[B] int64``.
        partner_rows: Those that the second views show; the same rows by default.

    Example:
        >>> pairs = torch.eye(2)
        >>> loss = nt_xent(pairs, pairs, temperature=1.0, rows=torch.tensor([4, 7]))
        >>> f"{loss:.4f}"  # log(e + 2) - 1: one positive at cosine 1, two negatives at cosine 0
        '0.5514'
    """
    with without_autocast(first):
        unit = F.normalize(torch.cat([first, second]).float(), dim=1)  # [2B, P]
        logits = unit @ unit.T / temperature  # [2B, 2B]
    left_out = _left_out(rows, rows if partner_rows is None else partner_rows)
    positives = torch.arange(len(logits), device=logits.device).roll(len(rows))
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), positives)


def _left_out(rows: Tensor, partner_rows: Tensor) -> Tensor:
    """Returns which pictures are neither positive nor negative of which, ``[2B, 2B] bool``."""
    shown = torch.cat([rows, partner_rows])
    beside = torch.cat([partner_rows, rows])  # what the pair's other picture shows
    in_pair = (shown[:, None] == shown) | (beside[:, None] == shown)  # [i, j]: j, of i's pair
    left_out = in_pair | in_pair.T
    pictures = torch.arange(len(shown), device=shown.device)
    left_out[pictures, pictures.roll(len(rows))] = False
    return left_out


class SimClr(Objective):
    """SimCLR: each view has to find its item's other view in the batch, see `nt_xent`.

    Between embedding and loss stands a projector of one hidden layer, D wide. Source: Chen et al.
    (2020), arXiv 2002.05709.

    Args:
        embedding_dim: D of the network.
        temperature: Divides the cosines; a lower one looks at the nearest negatives more.
        projection_dim: Width in which cosines are taken.

    Raises:
        ValueError: ``temperature`` is not above 0, or ``projection_dim`` below 1.
    """

    num_views = 2

    def __init__(
        self, embedding_dim: int, temperature: float = 0.2, projection_dim: int = 128
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature)
        self.temperature = temperature
        self.projector = projector([embedding_dim, embedding_dim, projection_dim])

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        return {"loss": self.contrast(encode_views(encoder, batch), batch)}

    def contrast(self, embeddings: Tensor, batch: StepBatch) -> Tensor:
        """Returns the loss of both views' embeddings, ``[2B, D]``, the first views first."""
        first, second = self.projector(embeddings).chunk(2)
        return nt_xent(first, second, self.temperature, batch.rows, batch.partner_rows)


def encode_views(encoder: Encoder, batch: StepBatch) -> Tensor:
    """Returns embeddings ``[2B, D]`` of both views, the first views first.

    In one pass: it is faster, and a batch norm that saw only one view at a time could tell them
    apart.
    """
    return encoder.encode(torch.cat(batch.views))


class ReconstructionContrastive(SimClr, Reconstruction):
    """SimCLR and reconstruction at once: its loss + reconstruction_weight * MSE.

    The first view is reconstructed from its own embedding. Logs ``contrastive`` and
    ``reconstruction``, both before weighting.

    Args:
        embedding_dim: D of the network.
        temperature: Divides the cosines; a lower one looks at the nearest negatives more.
        reconstruction_weight: Of the mean squared error, in -1..1.
        projection_dim: Width in which cosines are taken.

    Raises:
        ValueError: ``temperature`` is not above 0, ``reconstruction_weight`` negative, or
            ``projection_dim`` below 1.
    """

    def __init__(
        self,
        embedding_dim: int,
        temperature: float = 0.2,
        reconstruction_weight: float = 1.0,
        projection_dim: int = 128,
    ) -> None:
        super().__init__(embedding_dim, temperature, projection_dim)
        check_not_negative("reconstruction_weight", reconstruction_weight)
        self.reconstruction_weight = reconstruction_weight

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        embeddings = encode_views(encoder, batch)
        contrast = self.contrast(embeddings, batch)
        reconstructions = with_decoder(encoder).decode(embeddings.chunk(2)[0])
        reconstruction = mean_squared_error(reconstructions, batch.views[0])
        return {
            "loss": contrast + self.reconstruction_weight * reconstruction,
            "contrastive": contrast.detach(),
            "reconstruction": reconstruction.detach(),
        }


class VicReg(Objective):
    """VICReg: views alike, every dimension in use, no two dimensions saying the same.

    The loss is the weighted sum of three parts, logged before weighting: ``invariance``, the mean
    squared difference of the two views' projections; ``variance``, the mean over dimensions of
    ``max(0, 1 - standard deviation)``, averaged over the views; ``covariance``, the sum of the
    squared covariances of different dimensions over their number, summed over the views. The
    projector has two hidden layers. A batch of one item has the first part alone. Source: Bardes
    et al. (2021), arXiv 2105.04906; pytorch-metric-learning.

    Args:
        embedding_dim: D of the network.
        projection_dim: Width of the projector's layers; the paper's is 8192.
        invariance: Weight of the first part.
        variance: Of the second.
        covariance: Of the third.

    Raises:
        ValueError: A weight is negative, or ``projection_dim`` below 1.
    """

    num_views = 2

    def __init__(
        self,
        embedding_dim: int,
        projection_dim: int = 1024,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        from pytorch_metric_learning.losses import VICRegLoss

        super().__init__()
        weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        for name, weight in weights.items():
            check_not_negative(name, weight)
        self.weights = weights
        self.terms = VICRegLoss()  # asked for its terms, which are logged, and weighted here
        self.projector = projector([embedding_dim, *[projection_dim] * 3])

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        projections = self.projector(encode_views(encoder, batch))
        with without_autocast(projections):
            pair = projections.float().chunk(2)  # [B, projection_dim] each
            parts = {"invariance": self.terms.invariance_loss(*pair).mean()}
            if len(batch.rows) > 1:  # one item has neither variance nor covariance
                parts["variance"] = sum(part.mean() for part in self.terms.variance_loss(*pair))
                parts["covariance"] = self.terms.covariance_loss(*pair)
            loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}


# As configs name them.
simclr = builder("objective")(SimClr)
reconstruction_contrastive = builder("objective")(ReconstructionContrastive)
vicreg = builder("objective")(VicReg)
