"""The contract of an objective: from what a step sees to the number that training lowers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from visual_search.models.encoder import Encoder

NumLabels = Callable[[str], int]
"""Column of the catalogue -> how many different values the training split has in it."""


@dataclass(frozen=True, eq=False)
class StepBatch:
    """What one step sees.

    Attributes:
        images: The pictures as they are, ``[B, 3, S, S] float32`` in -1..1.
        views: Augmented copies, ``Objective.num_views`` of them, each shaped like ``images``. The
            second one shows the items' partners where the loader chose some.
        rows: Catalogue rows, ``[B] int64``; of a product with several pictures its first.
        partner_rows: Catalogue rows that the second view shows, ``[B] int64``; None where it shows
            the items themselves.
        labels: Column -> ``[B] int64``, numbers of the values; -1 where an item has none, or one
            that the training split does not know.
        embeddings: Of ``images``, ``[B, D]``, where somebody has computed them already.
    """

    images: Tensor
    views: tuple[Tensor, ...]
    rows: Tensor
    partner_rows: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None

    def embedded(self, encoder: Encoder) -> Tensor:
        """Returns the embeddings ``[B, D]`` of the pictures as they are, computed once at most."""
        return encoder.encode(self.images) if self.embeddings is None else self.embeddings


class Objective(nn.Module, ABC):
    """What a network is trained for, with the parts (projector, classifier) that only it needs.

    Attributes:
        num_views: Augmented copies of each picture that a step needs.
        columns: Columns of the catalogue whose labels a step needs.
        error_name: What `errors` gives, as tables call it; empty where it gives nothing.
    """

    num_views: int = 1
    error_name: str = ""
    columns: tuple[str, ...] = ()

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuses a network that cannot be trained for this; any encoder is fine by default.

        Raises:
            ValueError: The network lacks something; the message names a model that has it.
        """

    @abstractmethod
    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """Returns ``loss``, a scalar to lower, and further scalars to log beside it."""

    def errors(self, encoder: Encoder, batch: StepBatch) -> Tensor | None:
        """Returns each item's error ``[B] float32`` in evaluation, as ``val/loss`` averages it.

        No view is given then. None where the objective has no error of a single item; NaN where
        this item has none.
        """
        return None


class NoObjective(Objective):
    """Of a network that only embeds, as after training."""

    num_views = 0

    def forward(self, encoder: Encoder, batch: StepBatch) -> dict[str, Tensor]:
        """Refuses to train.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "this network was opened to embed, not to train; expected an objective; give "
            "EncoderModule one"
        )
