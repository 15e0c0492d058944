"""A loss: what the network is trained for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from visual_search import builder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import Objective, StepBatch


@builder("objective")
class AlignUniform(Objective):
    """Two views of an item lie together, all items spread over the sphere; arXiv 2005.10242.

    Args:
        uniformity: What spreading counts, when lying together counts 1.
    """

    num_views = 2

    def __init__(self, uniformity: float = 1.0) -> None:
        super().__init__()
        self.uniformity = uniformity

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """Returns the loss and its two terms."""
        one, other = (F.normalize(encoder.encode(view)) for view in batch.views)
        align = (one - other).square().sum(dim=1).mean()
        apart = torch.pdist(torch.cat([one, other])).square()
        uniform = apart.mul(-2).exp().mean().log()
        return {
            "loss": align + self.uniformity * uniform,
            "align": align.detach(),
            "uniform": uniform.detach(),
        }
