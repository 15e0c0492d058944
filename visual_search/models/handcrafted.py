"""Descriptors that stand beside what a network learned, in one embedding.

A descriptor learns nothing, sees what a network trained on few pictures may miss, and costs a
millisecond. Shapes: ``B`` pictures, ``S`` side in pixels, ``K`` values of a descriptor.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visual_search.models.gradients import hog, hog_dim
from visual_search.models.letterbox import content_boxes, log_aspect, stretched
from visual_search.models.pca_whitening import PcaWhitening

Beside = Literal["hog", "hog_shape"]

HOG_SIZE_PX = 64
ANGLE = 1.4  # radians of the circle that a factor of e in width to height is apart


def beside_dim(name: Beside) -> int:
    """Returns the number of values K of a descriptor.

    Raises:
        ValueError: There is no descriptor of that name.

    Example:
        >>> beside_dim("hog"), beside_dim("hog_shape")
        (2352, 2354)
    """
    check_beside(name)
    return hog_dim(HOG_SIZE_PX) + num_shape_values(name)


def num_shape_values(name: Beside) -> int:
    """Returns how many of a descriptor's values, the last ones, PCA leaves alone."""
    return 2 if name == "hog_shape" else 0


def check_beside(name: str) -> None:
    """Refuses a name that no descriptor has.

    Raises:
        ValueError: There is no descriptor of that name.
    """
    if name not in get_args(Beside):
        raise ValueError(
            f"got the descriptor {name!r}, expected one of {', '.join(get_args(Beside))}; set "
            "embedding.beside, or null"
        )


def describe_beside(name: Beside, images: Tensor) -> Tensor:
    """Returns what a descriptor says of pictures, ``[B, K] float32``.

    ``hog``: histograms of oriented gradients of the picture at 64 x 64 px. ``hog_shape``: those of
    the picture without its white padding, stretched to 64 x 64 px, and its width to height as a
    point on a circle of radius 1, so that the distance of two grows with the ratio of their shapes
    and no shape is nearer to all than another. Pictures that were not letterboxed
    (``pictures.fit=stretch``) have one shape, apart from white margins of their own.

    Args:
        name: Which.
        images: ``[B, 3, S, S]`` in -1..1, as networks take them.

    Raises:
        ValueError: There is no descriptor of that name.
    """
    check_beside(name)
    with torch.autocast(images.device.type, enabled=False):
        # 0..255: the whole values that they were, so that ties below are ties on every device
        pixels = ((images.float() + 1) * 127.5).round()
        if name == "hog":
            side = pixels.shape[-1]
            whole = pixels.new_tensor([0, 0, side, side]).expand(pixels.shape[0], 4)
            return hog(stretched(pixels, whole, HOG_SIZE_PX).round())
        boxes = content_boxes(pixels)
        angles = ANGLE * log_aspect(boxes)
        gradients = hog(stretched(pixels, boxes, HOG_SIZE_PX).round())
        circle = torch.stack([torch.cos(angles), torch.sin(angles)], dim=1)
        return torch.cat([gradients, circle], dim=1)


class DescriptorProjection(nn.Module):
    """Makes descriptions short: PCA and length 1 of the gradients, the shape as it is.

    Args:
        name: The descriptor.
        num_components: The most components of its gradients to keep.
        whiten: As of `PcaWhitening`, by pairs: by its variance, whitening makes HOG worse.

    Attributes:
        num_features: Its number of values K.
        gradients: What is fitted on the gallery.
    """

    def __init__(self, name: Beside, num_components: int, whiten: float = 0.0) -> None:
        super().__init__()
        self.num_features = beside_dim(name)
        self.num_shape_values = num_shape_values(name)
        self.gradients = PcaWhitening(
            self.num_features - self.num_shape_values,
            num_components,
            normalize=True,
            before=False,
            whiten=whiten,
            by_pairs=whiten > 0,
        )

    @property
    def dim(self) -> int:
        """Width of what comes out; before the fit the most that it can be."""
        return self.gradients.dim + self.num_shape_values

    def fit(self, descriptions: NDArray[np.float32]) -> None:
        """Fits PCA on descriptions ``[n, K]``."""
        self.gradients.fit(descriptions[:, : self.gradients.num_features])

    def refit(self, descriptions: NDArray[np.float32], pairs: NDArray[np.int64]) -> None:
        """See `PcaWhitening.refit`."""
        self.gradients.refit(descriptions[:, : self.gradients.num_features], pairs)

    def forward(self, descriptions: Tensor) -> Tensor:
        """Returns ``[B, D] float32`` of descriptions ``[B, K]``; has to be fitted."""
        width = self.gradients.num_features
        short: Tensor = self.gradients(descriptions[:, :width])
        return torch.cat([short, descriptions[:, width:]], dim=1)
