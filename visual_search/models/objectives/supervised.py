"""Objectives that learn from labels: the values of the catalogue's columns.

An item whose label is unknown (-1) is left out of the loss; a batch that knows none has a loss of
0, with a gradient of 0 for every parameter, as training in several processes needs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from visual_search import builder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.classification import (
    UNKNOWN,
    Classification,
    CosineClassifier,
    MultiHead,
    item_losses,
)
from visual_search.models.objectives.contrastive import encode_views
from visual_search.models.objectives.objective import NumLabels, Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.projection_head import projector
from visual_search.models.objectives.settings import (
    check_above_zero,
    check_not_negative,
    num_values,
)


class LabelledLoss(Objective):
    """A loss of pytorch-metric-learning over embeddings and labels."""

    def __init__(self, loss: Any, column: str) -> None:
        super().__init__()
        self.loss = loss
        self.columns = (column,)

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        labels = batch.labels[self.columns[0]]
        return {"loss": self.known_loss(encoder.encode(batch.views[0]), labels)}

    def known_loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of the embeddings ``[B, D]`` whose labels ``[B]`` are known."""
        known = labels != UNKNOWN
        with without_autocast(embeddings):
            given = embeddings.float()
            if not known.any():
                # Every parameter takes part with a gradient of 0.
                return 0 * torch.stack([given.sum(), *(p.sum() for p in self.parameters())]).sum()
            return cast(Tensor, self.loss(given[known], labels[known]))


class ArcFace(LabelledLoss):
    """See `arcface`."""

    error_name = "cross-entropy without margin"

    def errors(self, encoder: Encoder, batch: StepBatch) -> Tensor:
        """Returns the cross-entropy ``[B] float32`` of each clean picture, without the margin."""
        labels = batch.labels[self.columns[0]]
        embeddings = batch.embedded(encoder)
        with without_autocast(embeddings):
            losses = item_losses(self.loss.get_logits(embeddings.float()), labels)
        return losses.masked_fill(labels == UNKNOWN, torch.nan)


class SupCon(LabelledLoss):
    """Supervised contrast: views of one value attract each other, all others repel.

    A view is compared with both views of all items; a partner in the second view counts as of its
    item's value. A batch in which all items have one value has a loss of 0. Between embedding and
    loss stands a projector of one hidden layer, D wide. Source: Khosla et al. (2020), arXiv
    2004.11362 (its L_out); pytorch-metric-learning.

    Args:
        embedding_dim: D of the network.
        column: Whose values are learned.
        temperature: Divides the cosines.
        projection_dim: Width in which cosines are taken.

    Raises:
        ValueError: ``temperature`` is not above 0, or ``projection_dim`` below 1.
    """

    num_views = 2

    def __init__(
        self,
        embedding_dim: int,
        column: str = "category",
        temperature: float = 0.1,
        projection_dim: int = 128,
    ) -> None:
        from pytorch_metric_learning.losses import SupConLoss

        check_above_zero("temperature", temperature)
        super().__init__(SupConLoss(temperature=temperature), column)
        self.projector = projector([embedding_dim, embedding_dim, projection_dim])

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        projections = self.projector(encode_views(encoder, batch))
        return {"loss": self.known_loss(projections, batch.labels[self.columns[0]].repeat(2))}


@builder("objective")
def cross_entropy(
    embedding_dim: int,
    num_labels: NumLabels,
    column: str = "category",
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
) -> Objective:
    """Returns classification by a linear layer on the embedding.

    With mixup each view is blended with another one of the batch, ``s * a + (1 - s) * b``, and the
    loss is blended likewise; s is drawn from Beta(mixup, mixup) once a batch. A blend counts where
    both labels are known. Source: Zhang et al. (2017), arXiv 1710.09412; label smoothing: Szegedy
    et al. (2015), arXiv 1512.00567.

    Args:
        embedding_dim: D of the network.
        num_labels: Column -> number of its values.
        column: Whose values are learned.
        label_smoothing: Share of the target that is spread evenly over all values.
        mixup: Parameter of the Beta distribution; 0 blends nothing, 0.2 a little.

    Raises:
        ValueError: The column has fewer than two values, ``label_smoothing`` is not in 0..1, or
            ``mixup`` negative.
    """
    classifier = nn.Linear(embedding_dim, num_values(num_labels, column))
    return Classification(classifier, column, label_smoothing, mixup)


@builder("objective")
def cosine_softmax(
    embedding_dim: int,
    num_labels: NumLabels,
    column: str = "category",
    scale: float = 20.0,
    label_smoothing: float = 0.1,
) -> Objective:
    """Returns classification by cosines: the embedding's length says nothing, as in a search.

    Cross-entropy over ``scale * cos(embedding, direction of a value)``; the directions are learned.
    Source: Wang et al. (2017), arXiv 1704.06369 (NormFace).

    Args:
        embedding_dim: D of the network.
        num_labels: Column -> number of its values.
        column: Whose values are learned.
        scale: Largest logit.
        label_smoothing: Share of the target that is spread evenly over all values.

    Raises:
        ValueError: The column has fewer than two values, ``scale`` is not above 0, or
            ``label_smoothing`` not in 0..1.
    """
    check_above_zero("scale", scale)
    classifier = CosineClassifier(embedding_dim, num_values(num_labels, column), scale)
    return Classification(classifier, column, label_smoothing)


@builder("objective")
def arcface(
    embedding_dim: int,
    num_labels: NumLabels,
    column: str = "category",
    margin_degrees: float = 28.6,
    scale: float = 30.0,
) -> Objective:
    """Returns classification by angles, the right one made wider by a margin during training.

    Cross-entropy over ``scale * cos(angle)``, with ``margin_degrees`` added to the angle between
    an item and its own value's direction. Source: Deng et al. (2018), arXiv 1801.07698;
    pytorch-metric-learning.

    Args:
        embedding_dim: D of the network.
        num_labels: Column -> number of its values.
        column: Whose values are learned.
        margin_degrees: In 0..180; the paper's is 28.6 (0.5 radians).
        scale: Largest logit; the paper's is 64, for many thousand values.

    Raises:
        ValueError: The column has fewer than two values, ``margin_degrees`` is not in 0..180, or
            ``scale`` not above 0.
    """
    from pytorch_metric_learning.losses import ArcFaceLoss

    check_above_zero("scale", scale)
    if not 0 <= margin_degrees <= 180:
        raise ValueError(
            f"got margin_degrees {margin_degrees}, expected a number in 0..180; set "
            "objective.margin_degrees"
        )
    loss = ArcFaceLoss(num_values(num_labels, column), embedding_dim, margin_degrees, scale)
    return ArcFace(loss, column)


@builder("objective")
def proxy_anchor(
    embedding_dim: int,
    num_labels: NumLabels,
    column: str = "category",
    margin: float = 0.1,
    alpha: float = 32.0,
) -> Objective:
    """Returns the proxy anchor loss: a learned proxy a value pulls its items and pushes the others.

    Items that are far from where they should be pull more. Source: Kim et al. (2020), arXiv
    2003.13911; pytorch-metric-learning. The paper trains the proxies 100 times faster than the
    network; here both have one learning rate.

    Args:
        embedding_dim: D of the network.
        num_labels: Column -> number of its values.
        column: Whose values are learned.
        margin: Of the cosines, at least 0.
        alpha: How much more the hardest items count, above 0.

    Raises:
        ValueError: The column has fewer than two values, ``margin`` is negative, or ``alpha`` not
            above 0.
    """
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    check_not_negative("margin", margin)
    check_above_zero("alpha", alpha)
    loss = ProxyAnchorLoss(num_values(num_labels, column), embedding_dim, margin, alpha)
    return LabelledLoss(loss, column)


# As configs name them.
multi_head = builder("objective")(MultiHead)
supcon = builder("objective")(SupCon)
