"""Histograms of oriented gradients in PyTorch: on any device, on whole batches, exportable.

The numbers are scikit-image's, with which `visual_search.models.descriptors.hog` measures floors.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_ORIENTATIONS = 12
CELL_PX = 8
BLOCK_CELLS = 2
CLIP = 0.2  # of L2-Hys
EPSILON = 1e-5


def hog_dim(side: int) -> int:
    """Returns the number of values that `hog` has of pictures of S x S px.

    Example:
        >>> hog_dim(64)
        2352
    """
    blocks = side // CELL_PX - BLOCK_CELLS + 1
    return blocks**2 * BLOCK_CELLS**2 * NUM_ORIENTATIONS


def hog(images: Tensor) -> Tensor:
    """Returns histograms of oriented gradients, ``[B, F] float32`` in 0..1.

    8 x 8 px cells, 12 unsigned orientations, of each pixel the channel with the largest gradient,
    overlapping blocks of 2 x 2 cells, L2-Hys. Source: N. Dalal and B. Triggs, "Histograms of
    Oriented Gradients for Human Detection", CVPR 2005, as scikit-image computes it.

    Args:
        images: ``[B, 3, S, S]`` in 0..255, whole values: the block norm blows rounding errors in
            flat regions up to full gradients.

    Raises:
        ValueError: The shape is another, or S is not a multiple of 8 of at least 16.
    """
    side = images.shape[-1]
    if images.ndim != 4 or images.shape[1:] != (3, side, side) or side < 16 or side % CELL_PX:
        raise ValueError(
            f"got pictures of shape {tuple(images.shape)}, expected [B, 3, S, S] with S a multiple "
            f"of {CELL_PX} and at least {BLOCK_CELLS * CELL_PX}; resize them first"
        )
    pixels = images.float()
    down = F.pad(pixels[:, :, 2:] - pixels[:, :, :-2], (0, 0, 1, 1))
    across = F.pad(pixels[:, :, :, 2:] - pixels[:, :, :, :-2], (1, 1))
    strongest = (down**2 + across**2).argmax(dim=1, keepdim=True)
    down = down.gather(1, strongest)  # [B, 1, S, S]
    across = across.gather(1, strongest)
    magnitude = torch.sqrt(down**2 + across**2)

    # Turned into the upper half plane a gradient lies in orientation o when it has passed o of the
    # 11 boundaries between orientations: no arc tangent, whose rounding decides at boundaries.
    turn = (down < 0) | ((down == 0) & (across < 0))
    down, across = torch.where(turn, -down, down), torch.where(turn, -across, across)
    orientation = torch.zeros_like(magnitude)
    for boundary in range(1, NUM_ORIENTATIONS):
        cosine, sine = _direction(math.pi * boundary / NUM_ORIENTATIONS)
        orientation += (cosine * down - sine * across >= 0).float()
    places = torch.arange(NUM_ORIENTATIONS, device=images.device).view(1, -1, 1, 1)
    cells = F.avg_pool2d((orientation == places).float() * magnitude, CELL_PX)  # [B, 12, C, C]

    num = cells.shape[-1] - BLOCK_CELLS + 1
    corners = [
        cells[:, :, y : y + num, x : x + num]
        for y in range(BLOCK_CELLS)
        for x in range(BLOCK_CELLS)
    ]
    blocks = torch.stack(corners, dim=1).permute(0, 3, 4, 1, 2).flatten(3)  # [B, n, n, 4 * 12]
    blocks = _scaled(_scaled(blocks).clamp(max=CLIP))
    return blocks.flatten(1)


def _direction(angle: float) -> tuple[float, float]:
    """Returns cosine and sine, with the exact 0 of a quarter turn."""
    return round(math.cos(angle), 15), round(math.sin(angle), 15)


def _scaled(blocks: Tensor) -> Tensor:
    # At least, not plus: exporting to ONNX drops a constant this small, and 0 / 0 is left. Where
    # there is a gradient, the two differ by less than float32 tells apart.
    lengths = torch.sqrt((blocks**2).sum(dim=-1, keepdim=True).clamp(min=EPSILON**2))
    found: Tensor = blocks / lengths
    return found
