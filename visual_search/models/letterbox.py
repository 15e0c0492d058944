"""What a letterboxed picture shows: where its content lies, its shape, the content by itself.

``pictures.fit=letterbox`` pads a picture with white to a square. Here the padding is found again,
so that a descriptor can look at the content alone and know its width to height.

Shapes: ``B`` pictures, ``S`` side of a picture in pixels, ``s`` the side that content is brought
to. Pictures are float tensors in 0..255.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITE = 254.5  # of 0..255: what rounds to less is content


def content_boxes(images: Tensor) -> Tensor:
    """Returns the smallest box that holds everything which is not white, ``[B, 4] float32``.

    Args:
        images: ``[B, 3, S, S]`` in 0..255.

    Returns:
        Left, top, right, bottom in pixels; right and bottom are the first ones outside. A picture
        that is all white has the whole square.

    Example:
        >>> image = torch.full((1, 3, 4, 4), 255.0)
        >>> image[0, :, 1:3, 0:4] = 0.0
        >>> content_boxes(image).tolist()
        [[0.0, 1.0, 4.0, 3.0]]
    """
    shown = (images < WHITE).any(dim=1)  # [B, S, S]
    shown = shown | ~shown.any(dim=2).any(dim=1)[:, None, None]
    left, right = _ends(shown.any(dim=1))
    top, bottom = _ends(shown.any(dim=2))
    return torch.stack([left, top, right, bottom], dim=1)


def _ends(taken: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first place that is taken and the first after the last, ``[B] float32`` both."""
    side = taken.shape[1]
    places = torch.arange(side, device=taken.device, dtype=torch.float32)
    first = torch.where(taken, places, side).amin(dim=1)
    last = torch.where(taken, places, -1.0).amax(dim=1)
    return first, last + 1


def log_aspect(boxes: Tensor) -> Tensor:
    """Returns ``log(width / height)`` of boxes ``[B, 4]``, ``[B] float32``.

    Example:
        >>> log_aspect(torch.tensor([[0.0, 1.0, 4.0, 3.0]])).round(decimals=3).tolist()
        [0.6930000185966492]
    """
    return torch.log((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]))


def stretched(images: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """Brings the content of every box to a square, ``[B, 3, s, s] float32``, s being ``size_px``.

    Bilinear, and a triangle as wide as the step where the content is made smaller, as Pillow's
    `BILINEAR` does: pixels outside the box are not looked at.

    Args:
        images: ``[B, 3, S, S]``.
        boxes: As `content_boxes` gives them.
        size_px: Side s.

    Example:
        >>> image = torch.tensor([[0.0, 9.0], [9.0, 9.0]]).expand(1, 3, 2, 2)
        >>> stretched(image, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2)[0, 0].tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    side = images.shape[-1]
    across = _weights(boxes[:, 0], boxes[:, 2], side, size_px)  # [B, s, S]
    down = _weights(boxes[:, 1], boxes[:, 3], side, size_px)
    rows = down[:, None] @ images.to(down.dtype)  # [B, 3, s, S]
    sums = rows @ across[:, None].transpose(2, 3)  # [B, 3, s, s]
    totals = down.sum(dim=2)[:, :, None] * across.sum(dim=2)[:, None]  # [B, s, s]
    return (sums / totals[:, None]).float()


def _weights(start: Tensor, end: Tensor, side: int, size_px: int) -> Tensor:
    """Returns how much each source pixel counts for each target pixel, ``[B, s, S]``.

    Places are measured in 1 / (2 s) of a source pixel: there weights are whole numbers, and so are
    their sums over whole pixels, which float64 holds exactly. What lies half-way between two
    values is then rounded the same way on every device, in every batch and in an exported network.
    """
    # Apple's GPUs have no float64: ties are rounded there as it comes.
    exact = torch.float32 if start.device.type == "mps" else torch.float64
    start, end = start.to(exact)[:, None, None], end.to(exact)[:, None, None]  # [B, 1, 1]
    targets = 2 * torch.arange(size_px, device=start.device, dtype=exact)[:, None] + 1  # [s, 1]
    centres = 2 * size_px * start + targets * (end - start)  # [B, s, 1]
    pixels = size_px * (2 * torch.arange(side, device=start.device, dtype=exact) + 1)  # [S]
    reach = (2 * (end - start)).clamp(min=2 * size_px)
    weights = (reach - (pixels - centres).abs()).clamp(min=0)  # [B, s, S]
    inside = (pixels > 2 * size_px * start) & (pixels < 2 * size_px * end)  # [B, 1, S]
    return weights * inside
