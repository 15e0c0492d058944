"""Augmentation of whole batches on their device, each picture with parameters of its own.

torchvision's v2 transforms draw one set of parameters for a whole batch, from the global random
state: two views of one item would then differ in the same way as two views of any other, which a
contrastive loss learns at once. Here the parameters come from given numbers, every picture is
resampled once, and all its colour changes are one 3x4 matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# What each of a picture's numbers decides. Every one has its fixed place: turning one change off
# leaves the draws of all others as they are.
from visual_search import builder

DRAWS = (
    "flip",
    "scale",
    "stretch",
    "shift_x",
    "shift_y",
    "rotation",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "grayscale",
    "blur",
    "blur_sigma",
    "erasing",
    "erased_area",
    "erased_shape",
    "erased_x",
    "erased_y",
)
_ERASED_SHAPE = 0.3  # height : width lies between this and its inverse, as in the paper

# Luma and the two chroma axes of YIQ (NTSC). A grey has no chroma, so what only turns or scales
# chroma leaves every grey as it is, white among them.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_LUMA = _YIQ[0]
_TO_GREY = np.ones((3, 1)) * _LUMA  # [3, 3]: each channel becomes the luma
_CHROMA = np.eye(3) - _TO_GREY
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _YIQ


@builder("augmentation")
@dataclass(frozen=True)
class Augmentation:
    """Changes pictures within these ranges; the defaults change nothing.

    A picture is flipped, then the part of it that is seen is chosen (a rectangle, which may be
    smaller or larger than the picture, turned, stretched and moved; around the picture all is
    white), blurred, changed in colour, and a rectangle of it is erased.

    Attributes:
        flip: Probability of a left-right flip.
        min_scale: Smallest side of the part that is seen, as a share of the picture's side: 0.6
            zooms in on 60 % of it. Drawn uniformly in its logarithm.
        max_scale: Largest side of that part; 1.25 shrinks the picture to 80 % of the side.
        max_shift: The part may lie anywhere within the picture (or the picture within the part,
            if that is larger) and beyond that by so much, as a share of the side.
        max_rotation_degrees: Turn to either side.
        max_stretch: Largest width : height, or height : width, of the part; 1 keeps it square.
        brightness: Largest relative change, 0..1: 0.2 multiplies the values (of 0..1) by 0.8 to 1,
            or divides their distance to white by 1 to 1.2. White is never passed, or a bright
            product on white would vanish.
        contrast: Largest relative change of the distance to the picture's mean luma, 0..1. Where
            white would be passed, all values are scaled so that it is just reached.
        saturation: Largest relative change of the distance to grey, 0..1.
        hue: Largest rotation of the chroma, as a share of a whole turn, 0..0.5.
        grayscale: Probability that only the luma is left.
        blur: Probability of a Gaussian blur.
        blur_sigma: Its largest standard deviation, as a share of the side (0.01 of 64 px is
            0.64 px); uniform from 0.
        erasing: Probability that a rectangle takes the picture's mean colour.
        min_erased_area: Smallest share of the picture's area that is erased.
        max_erased_area: Largest one.

    Raises:
        ValueError: A setting is not finite or outside its range, or a smallest one is larger than
            its largest.

    Sources: random crops, flips, colour and blur as in SimCLR (Chen et al. 2020, arXiv
    2002.05709); random erasing (Zhong et al. 2017, arXiv 1708.04896), there also with the mean.

    Example:
        >>> pictures = torch.rand(4, 3, 8, 8) * 2 - 1
        >>> numbers = uniform_numbers(0, 0, np.arange(4), 0, Augmentation.num_numbers)
        >>> augment = Augmentation(flip=0.5, min_scale=0.5, brightness=0.2)
        >>> augment(pictures, torch.from_numpy(numbers)).shape
        torch.Size([4, 3, 8, 8])
    """

    num_numbers: ClassVar[int] = len(DRAWS)
    """Numbers that each picture needs, P."""

    flip: float = 0.0
    min_scale: float = 1.0
    max_scale: float = 1.0
    max_shift: float = 0.0
    max_rotation_degrees: float = 0.0
    max_stretch: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 0.01
    erasing: float = 0.0
    min_erased_area: float = 0.02
    max_erased_area: float = 0.2

    def __post_init__(self) -> None:
        limits = {
            "min_scale": (0.05, 10.0),
            "max_scale": (0.05, 10.0),
            "max_rotation_degrees": (0.0, 180.0),
            "max_stretch": (1.0, 10.0),
            "hue": (0.0, 0.5),
        }
        for name in (field.name for field in fields(self)):
            value, (low, high) = getattr(self, name), limits.get(name, (0.0, 1.0))
            if not low <= value <= high:  # False for NaN too
                raise ValueError(
                    f"got augmentation.{name} {value}, expected {low:g} to {high:g}; set "
                    f"augmentation.{name}"
                )
        for name in ("scale", "erased_area"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(
                    f"got augmentation.min_{name} {low} above augmentation.max_{name} {high}; "
                    f"expected at most {high}; lower the first or raise the second"
                )

    def __call__(self, images: Tensor, numbers: Tensor, strength: Tensor | None = None) -> Tensor:
        """Returns the changed pictures, shaped and laid out in memory like ``images``.

        A picture's result depends on itself, its numbers and its strength alone. Keep ``numbers``
        and ``strength`` on the CPU: from a GPU they have to be waited for.

        Args:
            images: ``[B, 3, S, S] float32`` in -1..1.
            numbers: ``[B, P]`` floats in 0..1, P `num_numbers`, as of `uniform_numbers`.
            strength: Multiplies every range and probability of a picture, ``[B]`` floats, 0 or
                above: 1 is as configured, 0 gives the picture itself, bit for bit.

        Returns:
            ``[B, 3, S, S] float32`` in -1..1; ``images`` itself where nothing changes.

        Raises:
            TypeError: ``images`` is not float32.
            ValueError: A shape is wrong, a number is outside 0..1, or a strength is negative or
                not finite.
        """
        _check_images(images)
        draws = _Draws.of(numbers, strength, len(images))
        if not self._changes():
            return images
        in_pixels = images.is_contiguous(memory_format=torch.channels_last)
        # The kernels below are fastest on planes, and in float32 whatever surrounds the call.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            view = images.contiguous()
            if self.flip:
                view = _where(draws.happens("flip", self.flip), view.flip(3), view)
            view = self._blurred(self._resampled(view, draws), draws)
            view = self._erased(self._coloured(view, draws), draws)
            if strength is not None:
                view = _where(draws.strength == 0, images, view)
            return view.contiguous(memory_format=torch.channels_last) if in_pixels else view

    def _changes(self) -> bool:
        return any((self.flip, self.blur, self.erasing)) or self._moves() or self._colours()

    def _moves(self) -> bool:
        ratios = {self.min_scale, self.max_scale, self.max_stretch}
        return ratios != {1.0} or any((self.max_shift, self.max_rotation_degrees))

    def _colours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.grayscale))

    def _resampled(self, view: Tensor, draws: _Draws) -> Tensor:
        """Returns the part that is seen: one bilinear sampling, white outside the picture."""
        if not self._moves():
            return view
        low, high = math.log(self.min_scale), math.log(self.max_scale)
        scale = torch.exp(draws.strength * (low + draws.uniform("scale") * (high - low)))
        half_stretch = torch.exp(draws.symmetric("stretch") * math.log(self.max_stretch) / 2)
        scale_x, scale_y = scale * half_stretch, scale / half_stretch
        reach = draws.strength * self.max_shift
        shift_x = (2 * draws.uniform("shift_x") - 1) * ((1 - scale_x).abs() / 2 + reach)
        shift_y = (2 * draws.uniform("shift_y") - 1) * ((1 - scale_y).abs() / 2 + reach)
        angle = draws.symmetric("rotation") * math.radians(self.max_rotation_degrees)
        cos, sin = torch.cos(angle), torch.sin(angle)
        # Where a point of the result, both sides -1..1, lies in the picture; a side is 2 long.
        across = torch.stack([cos * scale_x, -sin * scale_y, 2 * shift_x], dim=1)
        down = torch.stack([sin * scale_x, cos * scale_y, 2 * shift_y], dim=1)
        matrices = torch.stack([across, down], dim=1).to(view)  # [B, 2, 3]
        grid = F.affine_grid(matrices, list(view.shape), align_corners=False)
        # Outside the picture the sampling reads 0; white is 0 here, and comes back exactly.
        seen = F.grid_sample(view - 1, grid, padding_mode="zeros", align_corners=False)
        return seen.add_(1).clamp_(-1, 1)

    def _blurred(self, view: Tensor, draws: _Draws) -> Tensor:
        """Returns the chosen pictures convolved with their Gaussians; white is around them."""
        chosen = draws.happens("blur", self.blur).nonzero()[:, 0]
        if not len(chosen):
            return view
        side = view.shape[-1]
        sigma = (draws.uniform("blur_sigma") * draws.strength)[chosen] * self.blur_sigma * side
        sigma = sigma.clamp(min=1e-3)[:, None]  # px; at this one all weight is on the pixel itself
        steps = torch.arange(side, dtype=torch.float64)
        falling = torch.exp(-(steps**2) / (2 * sigma**2))  # [b, S], by distance
        falling *= falling > 1e-9  # the denormal numbers of the tails take ten times as long
        falling /= 2 * falling.sum(dim=1, keepdim=True) - 1
        distance = (steps[:, None] - steps[None, :]).abs().long()
        # A convolution as a matrix with constant diagonals: each picture has a width of its own.
        kernels = falling[:, distance][:, None].to(view)  # [b, 1, S, S]
        places = chosen.to(view.device)
        blurred = kernels @ (view[places] - 1) @ kernels
        return view.index_copy(0, places, blurred.add_(1).clamp_(-1, 1))

    def _coloured(self, view: Tensor, draws: _Draws) -> Tensor:
        """Returns the pictures in their new colours, by one matrix and one offset each."""
        if not self._colours():
            return view
        brightness = (1 + self.brightness * draws.symmetric("brightness")).clamp(min=0).to(view)
        contrast = (1 + self.contrast * draws.symmetric("contrast")).clamp(min=0).to(view)
        saturation = (1 + self.saturation * draws.symmetric("saturation")).clamp(min=0)
        saturation = saturation * ~draws.happens("grayscale", self.grayscale)
        angle = 2 * math.pi * self.hue * draws.symmetric("hue")
        grey, chroma, quarter = map(torch.from_numpy, (_TO_GREY, _CHROMA, _QUARTER_TURN))
        turned = _each(torch.cos(angle)) * chroma + _each(torch.sin(angle)) * quarter
        matrices = (grey + _each(saturation) * turned).to(view)  # [B, 3, 3], white stays white
        # A grey v in 0..1 becomes gain v + offset, as white does.
        gain = torch.minimum(brightness, 1 / brightness)
        offset = (1 - gain) * (brightness > 1)
        mean = (view.mean(dim=(2, 3)) @ torch.from_numpy(_LUMA).to(view) + 1) / 2  # [B], 0..1
        offset = offset + (1 - contrast) * gain * mean
        gain = contrast * gain
        # Pictures on white are nearly white already: more light would leave nothing of a white
        # shirt. White may become darker but never lighter than it is.
        white = (gain + offset).clamp(min=1)
        gain, offset = gain / white, offset / white
        matrices, offset = _each(gain) * matrices, _each(gain + 2 * offset - 1)  # of -1..1
        changed = torch.baddbmm(offset, matrices, view.flatten(2))
        return changed.clamp_(-1, 1).view_as(view)

    def _erased(self, view: Tensor, draws: _Draws) -> Tensor:
        """Returns the chosen pictures with one rectangle in their mean colour."""
        chosen = draws.happens("erasing", self.erasing)
        if not chosen.any():
            return view
        low, high = self.min_erased_area, self.max_erased_area
        area = draws.strength * (low + draws.uniform("erased_area") * (high - low))
        shape = torch.exp((2 * draws.uniform("erased_shape") - 1) * math.log(_ERASED_SHAPE))
        side = view.shape[-1]
        across, down = (area / shape).sqrt().clamp(max=1), (area * shape).sqrt().clamp(max=1)
        left = (draws.uniform("erased_x") * (1 - across))[:, None]
        top = (draws.uniform("erased_y") * (1 - down))[:, None]
        middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side  # of the pixels, 0..1
        columns = (middles >= left) & (middles < left + across[:, None])  # [B, S]
        lines = (middles >= top) & (middles < top + down[:, None]) & chosen[:, None]
        columns, lines = columns.to(view.device), lines.to(view.device)
        inside = lines[:, None, :, None] & columns[:, None, None, :]  # [B, 1, S, S]
        return torch.where(inside, view.mean(dim=(2, 3), keepdim=True), view)


@dataclass(frozen=True, eq=False)
class _Draws:
    """The numbers of a batch by what they decide, ``[B] float64`` on the CPU each."""

    numbers: Tensor  # [B, P]
    strength: Tensor  # [B]

    @classmethod
    def of(cls, numbers: Tensor, strength: Tensor | None, num_images: int) -> _Draws:
        if numbers.shape != (num_images, len(DRAWS)):
            raise ValueError(
                f"numbers has shape {tuple(numbers.shape)}, expected ({num_images}, "
                f"{len(DRAWS)}): one line a picture; draw Augmentation.num_numbers of them"
            )
        # In float64 on the CPU, so that every device gets the same parameters.
        numbers = numbers.detach().to("cpu", torch.float64)
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise ValueError(
                f"numbers lie between {numbers.min():g} and {numbers.max():g}, expected 0 to 1; "
                "draw them with uniform_numbers"
            )
        if strength is None:
            return cls(numbers, torch.ones(num_images, dtype=torch.float64))
        if strength.shape != (num_images,):
            raise ValueError(
                f"strength has shape {tuple(strength.shape)}, expected ({num_images},): give one "
                "number a picture"
            )
        strength = strength.detach().to("cpu", torch.float64)
        if not (strength.isfinite() & (strength >= 0)).all():
            raise ValueError(
                f"strength lies between {strength.min():g} and {strength.max():g}, expected finite "
                "numbers, 0 or above; give 1 for what is configured"
            )
        return cls(numbers, strength)

    def uniform(self, name: str) -> Tensor:
        """Returns the numbers themselves, 0..1."""
        return self.numbers[:, DRAWS.index(name)]

    def symmetric(self, name: str) -> Tensor:
        """Returns numbers from minus to plus strength."""
        return self.strength * (2 * self.uniform(name) - 1)

    def happens(self, name: str, probability: float) -> Tensor:
        """Returns ``[B] bool``: True with the probability, times the strength."""
        return self.uniform(name) < probability * self.strength


def uniform_numbers(
    seed: int, epoch: int, positions: NDArray[np.int64], view: int, num: int
) -> NDArray[np.float32]:
    """Returns the numbers of some pictures: a function of seed, epoch, position and view alone.

    Neither the batch, nor the process, nor where a run was interrupted changes them. The four are
    hashed into the start of a SplitMix64 sequence a picture (Steele, Lea and Flood 2014, "Fast
    splittable pseudorandom number generators", OOPSLA).

    Args:
        seed: Of the run, 0 or above, as the following.
        epoch: Number of the epoch.
        positions: Places in the epoch's order, ``[B] int64``.
        view: Number of the view; another one for every further use of the same positions.
        num: Numbers a picture, P; more of them leave the first as they are.

    Returns:
        ``[B, P] float32``, uniform, 0 or above and below 1: multiples of 2**-24.

    Raises:
        ValueError: An argument is negative, or ``positions`` is not one-dimensional.

    Example:
        >>> uniform_numbers(0, 0, np.array([7, 8]), view=0, num=3).shape
        (2, 3)
    """
    for name, value in (("seed", seed), ("epoch", epoch), ("view", view), ("num", num)):
        if value < 0:
            raise ValueError(f"got {name} {value}, expected 0 or above; count it from 0")
    if positions.ndim != 1 or (positions < 0).any():
        raise ValueError(
            f"got positions of shape {positions.shape}, the smallest {positions.min(initial=0)}; "
            "expected [B] of 0 or above: give each picture's place in the epoch"
        )
    state = np.zeros(1, dtype=np.uint64)
    for part in ([seed], [epoch], [view], positions):
        # Another part gives another state: each step can be undone.
        state = _mixed((state + _GOLDEN) ^ np.asarray(part).astype(np.uint64))
    steps = np.arange(1, num + 1, dtype=np.uint64) * _GOLDEN
    bits = _mixed(state[:, None] + steps)  # [B, P]
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns SplitMix64's output for its state; the arithmetic is modulo 2**64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.float32:
        raise TypeError(
            f"got pictures of {images.dtype}, expected float32 in -1..1; convert them with "
            "to_network"
        )
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"got pictures of shape {tuple(images.shape)}, expected [B, 3, S, S]; give square RGB "
            "pictures"
        )


def _each(values: Tensor) -> Tensor:
    """Returns one number a picture as ``[B, 1, 1]``."""
    return values[:, None, None]


def _where(chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Returns the chosen pictures (``[B] bool``) of the first batch, the others of the second."""
    return torch.where(chosen.to(first.device)[:, None, None, None], first, second)
