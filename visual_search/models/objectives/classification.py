"""Classifiers on the embedding, over one column of the catalogue or several.

The builders are in ``supervised.py``. Shapes: ``C`` different values of a column.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import NumLabels, Objective, StepBatch
from visual_search.models.objectives.precision import without_autocast
from visual_search.models.objectives.settings import (
    check_above_zero,
    check_not_negative,
    check_share,
    num_values,
)

UNKNOWN = -1


def item_losses(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns each item's cross-entropy ``[B] float32`` in nats; 0 where its label is unknown.

    Args:
        logits: ``[B, C]``.
        labels: ``[B] int64``, -1 where unknown.
        label_smoothing: Share of the target that is spread evenly over all C values.

    Example:
        >>> item_losses(torch.zeros(2, 4), torch.tensor([3, -1])).tolist()  # log 4, and unknown
        [1.3862943649291992, 0.0]
    """
    return F.cross_entropy(
        logits.float(),
        labels,
        ignore_index=UNKNOWN,
        reduction="none",
        label_smoothing=label_smoothing,
    )


def mean_over(losses: Tensor, known: Tensor) -> Tensor:
    """Returns the mean of the losses ``[B]`` that are known ``[B] bool``; 0 where none is."""
    return (losses * known).sum() / known.sum().clamp(min=1)


class CosineClassifier(nn.Module):
    """Logits ``[B, C]``: scale times the cosine of an embedding and each value's own direction."""

    def __init__(self, embedding_dim: int, num_values: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(num_values, embedding_dim))  # random directions

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the logits of embeddings ``[B, D]``."""
        return self.scale * F.linear(
            F.normalize(embeddings, dim=1), F.normalize(self.weight, dim=1)
        )


class Classification(Objective):
    """See `cross_entropy` and `cosine_softmax`.

    Args:
        classifier: Embeddings ``[B, D]`` -> logits ``[B, C]``.
        column: Whose labels it predicts.
        label_smoothing: In 0..1.
        mixup: Both parameters of the Beta distribution of a batch's mixing share; 0 mixes nothing.
    """

    error_name = "cross-entropy"

    def __init__(
        self, classifier: nn.Module, column: str, label_smoothing: float, mixup: float = 0.0
    ) -> None:
        super().__init__()
        check_share("label_smoothing", label_smoothing)
        check_not_negative("mixup", mixup)
        self.classifier = classifier
        self.columns = (column,)
        self.label_smoothing = label_smoothing
        self.mixup = mixup

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        view, labels = batch.views[0], batch.labels[self.columns[0]]
        if not self.mixup:
            losses = item_losses(self._logits(encoder.encode(view)), labels, self.label_smoothing)
            return {"loss": mean_over(losses, labels != UNKNOWN)}
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        order = torch.randperm(len(view), device=view.device)
        logits = self._logits(encoder.encode(share * view + (1 - share) * view[order]))
        losses = share * item_losses(logits, labels, self.label_smoothing)
        losses = losses + (1 - share) * item_losses(logits, labels[order], self.label_smoothing)
        return {"loss": mean_over(losses, (labels != UNKNOWN) & (labels[order] != UNKNOWN))}

    def errors(self, encoder: Encoder, batch: StepBatch) -> Tensor:
        """Returns the cross-entropy ``[B] float32`` of each clean picture, without smoothing."""
        labels = batch.labels[self.columns[0]]
        losses = item_losses(self._logits(batch.embedded(encoder)), labels)
        return losses.masked_fill(labels == UNKNOWN, torch.nan)

    def _logits(self, embeddings: Tensor) -> Tensor:
        with without_autocast(embeddings):
            return cast(Tensor, self.classifier(embeddings.float()))


class MultiHead(Objective):
    """Classification by several columns at once, a linear layer each.

    The loss is the weighted mean of the columns' losses, each the mean over the items that have a
    value in it; they are logged as ``cross_entropy/<column>``.

    Args:
        embedding_dim: D of the network.
        num_labels: Column -> number of its values.
        columns: Whose values are learned; ``category`` by default.
        weights: One a column, above 0; equal by default. Only their ratios count.
        label_smoothing: Share of the target that is spread evenly over all values.

    Raises:
        ValueError: ``columns`` is empty or names one twice, ``weights`` has another length or a
            value that is not above 0, a column has fewer than two values, or ``label_smoothing``
            is not in 0..1.
    """

    error_name = "cross-entropy"

    def __init__(
        self,
        embedding_dim: int,
        num_labels: NumLabels,
        columns: list[str] | None = None,
        weights: list[float] | None = None,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        columns = ["category"] if columns is None else columns
        check_share("label_smoothing", label_smoothing)
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(
                f"got columns {list(columns)}, expected at least one, each once; set "
                "objective.columns"
            )
        weights = [1.0] * len(columns) if weights is None else weights
        if len(weights) != len(columns):
            raise ValueError(
                f"got {len(weights)} weights for {len(columns)} columns, expected one each; set "
                "objective.weights"
            )
        for weight in weights:
            check_above_zero("weights", weight)
        self.columns = tuple(columns)
        self.weights = [weight / sum(weights) for weight in weights]
        self.label_smoothing = label_smoothing
        # A list, not a dict by column: a module's name may hold no dot, a column's may.
        self.classifiers = nn.ModuleList(
            nn.Linear(embedding_dim, num_values(num_labels, column)) for column in columns
        )

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        losses = {}
        for column, logits in self._logits(encoder.encode(batch.views[0])):
            labels = batch.labels[column]
            found = item_losses(logits, labels, self.label_smoothing)
            losses[column] = mean_over(found, labels != UNKNOWN)
        weighted = [w * loss for w, loss in zip(self.weights, losses.values(), strict=True)]
        parts = {f"cross_entropy/{column}": loss.detach() for column, loss in losses.items()}
        return {"loss": torch.stack(weighted).sum(), **parts}

    def errors(self, encoder: Encoder, batch: StepBatch) -> Tensor:
        """Returns the weighted mean cross-entropy ``[B] float32`` of the labels that an item has.

        Of the clean picture, without smoothing; NaN where it has none.
        """
        total, known = torch.zeros(2, len(batch.images), device=batch.images.device)
        for weight, (column, logits) in zip(
            self.weights, self._logits(batch.embedded(encoder)), strict=True
        ):
            labels = batch.labels[column]
            total = total + weight * item_losses(logits, labels)
            known = known + weight * (labels != UNKNOWN)
        mean: Tensor = total / known  # 0 / 0 is NaN
        return mean

    def _logits(self, embeddings: Tensor) -> list[tuple[str, Tensor]]:
        with without_autocast(embeddings):
            given = embeddings.float()
            return [
                (column, classifier(given))
                for column, classifier in zip(self.columns, self.classifiers, strict=True)
            ]
