"""The network between an embedding and a contrastive loss; thrown away after training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def projector(widths: Sequence[int]) -> nn.Sequential:
    """Returns linear layers of these widths, batch norm and ReLU between them.

    Losses that pull views together make what they see insensitive to the augmentation. With a
    projector that happens behind the embedding, which keeps more (Chen et al. 2020, arXiv
    2002.05709, section 4.2).

    Args:
        widths: Of the input, of every hidden layer, of the output.

    Raises:
        ValueError: There are fewer than two widths, or one is below 1.

    Example:
        >>> [type(layer).__name__ for layer in projector([8, 8, 4])]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f"got projector widths {list(widths)}, expected two or more of at least 1; set "
            "objective.projection_dim"
        )
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        if number == len(widths) - 1:
            layers.append(nn.Linear(before, after))
        else:  # no bias: the batch norm has one
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers)
