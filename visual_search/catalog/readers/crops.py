"""Crops of another source's pictures: a picture and a box on it name one item's picture.

A crop is named ``<picture>#<x>,<y>,<width>,<height>``: the box in fractions of the upright picture,
the corner at the top left being 0, 0. The name is what stands in a catalogue's ``image`` column;
`crop_name` makes it and `split_crop_name` takes it apart, to the same picture and the same box.
"""

from __future__ import annotations

import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from visual_search.catalog.catalog import PictureSource
from visual_search.catalog.images import decode_whole

# Raise it whenever a box gives other pixels than before: it is in the crops' content keys.
CROP_VERSION = 1

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"  # as Python writes a float
_CROP = re.compile(rf"(.*)#({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})", re.DOTALL)
_MAX_REMEMBERED_BYTES = 32 * 2**20  # a thread: a board of 400 px takes 0.5 MB, a photo 24 MB


class BoxError(ValueError):
    """A box cuts nothing out of a picture; the message says why."""


@dataclass(frozen=True)
class Box:
    """A part of a picture, in fractions of its width and height.

    It may stick out of the picture: what is outside is cut off.

    Attributes:
        x: Left edge, in fractions of the picture's width.
        y: Top edge, in fractions of the picture's height.
        width: In fractions of the picture's width.
        height: In fractions of the picture's height.

    Raises:
        TypeError: A value is no number.
        BoxError: A value is not finite, the box has no area, or lies outside the picture.

    Example:
        >>> str(Box(0, 0.25, 0.5, 2.5e-1))
        '0.0,0.25,0.5,0.25'
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        for field in fields(self):
            number = _as_float(getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, number)
        if not all(map(math.isfinite, astuple(self))):
            raise BoxError(f"the box {self} is not finite; expected fractions of the picture")
        if self.width <= 0 or self.height <= 0:
            raise BoxError(f"the box {self} has no area; expected a width and height above 0")
        if self.x >= 1 or self.y >= 1 or self.x + self.width <= 0 or self.y + self.height <= 0:
            raise BoxError(
                f"the box {self} lies entirely outside the picture; expected fractions of it, not "
                "pixels: x, y, width, height"
            )

    @classmethod
    def from_edges(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """Returns the box between these edges, in fractions of the picture.

        Raises:
            TypeError: A value is no number.
            BoxError: As for `Box`.

        Example:
            >>> Box.from_edges(0.25, 0.5, 1, 0.75)
            Box(x=0.25, y=0.5, width=0.75, height=0.25)
        """
        left, right = _as_float(left, "left edge"), _as_float(right, "right edge")
        top, bottom = _as_float(top, "top edge"), _as_float(bottom, "bottom edge")
        return cls(left, top, right - left, bottom - top)

    def __str__(self) -> str:
        return ",".join(repr(value) for value in astuple(self))

    def pixels(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom in a picture of this size, at least 1 x 1 pixel.

        Edges are rounded to the nearest pixel, halves to even, as Pillow's ``crop`` does; what
        sticks out is cut off.

        Example:
            >>> Box(0.5, -0.25, 0.75, 0.5).pixels(width_px=400, height_px=200)
            (200, 0, 400, 50)
        """
        left, right = _span(self.x, self.width, width_px)
        top, bottom = _span(self.y, self.height, height_px)
        return left, top, right, bottom


def _as_float(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"the box's {name} is {value!r}; expected a number, a fraction of the picture's size"
        )
    try:
        return float(value) + 0.0  # -0.0 becomes 0.0: one name a box
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _span(start: float, length: float, size_px: int) -> tuple[int, int]:
    first = min(max(round(start * size_px), 0), size_px - 1)
    return first, max(min(round((start + length) * size_px), size_px), first + 1)


def crop_name(picture: str, box: Box) -> str:
    """Returns the name of a crop.

    Example:
        >>> crop_name("boards/a#1.jpg", Box(0.1, 0, 0.5, 2.3436546e-4))
        'boards/a#1.jpg#0.1,0.0,0.5,0.00023436546'
    """
    return f"{picture}#{box}"


def split_crop_name(image: str) -> tuple[str, Box | None]:
    """Returns picture and box of a crop's name, and ``None`` for the box where it names none.

    A picture whose own name ends like a box can only be named with a box: ``0,0,1,1`` is all of it.

    Raises:
        BoxError: The box has no area or lies outside the picture.

    Example:
        >>> split_crop_name("a.jpg#0.1,0.0,0.5,1e-05")
        ('a.jpg', Box(x=0.1, y=0.0, width=0.5, height=1e-05))
        >>> split_crop_name("a.jpg")
        ('a.jpg', None)
    """
    found = _CROP.fullmatch(image)
    if found is None:
        return image, None
    return found[1], Box(*(float(found[group]) for group in (2, 3, 4, 5)))


AnyBox = TypeVar("AnyBox")


class PartSource(ABC, Generic[AnyBox]):
    """Parts of another source's pictures, and its whole pictures.

    A name without a box is given as the other source gives it. Each thread remembers the picture
    that it decoded last, so that crops of one board that follow each other cost one decoding; the
    file is read each time, and one that changed is decoded anew.

    Args:
        pictures: Where the whole pictures come from.
    """

    version: str  # of how a box becomes pixels, in the content keys

    def __init__(self, pictures: PictureSource) -> None:
        self.pictures = pictures
        self._last = threading.local()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pictures!r})"

    @property
    def num_readers(self) -> int:
        """As many threads as the other source wants to be read by."""
        return getattr(self.pictures, "num_readers", 1)

    def __reduce__(self) -> tuple[type[PartSource[AnyBox]], tuple[PictureSource]]:
        return type(self), (self.pictures,)

    @abstractmethod
    def split_name(self, image: str) -> tuple[str, AnyBox | None]:
        """Returns the picture and the box that a name holds, ``None`` where it holds none."""

    @abstractmethod
    def edges(self, box: AnyBox, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of a box in a picture of this size."""

    def load(self, image: str) -> bytes | NDArray[np.uint8]:
        """Returns a crop as ``[h, w, 3] uint8``, RGB; or a whole picture, as the other source does.

        What sticks out of the picture is cut off.

        Raises:
            FileNotFoundError: No picture has this name.
            BoxError: The box has no area or lies outside the picture.
            PictureError: The picture does not decode.
            ValueError: The other source refuses the name or the file.
        """
        picture, box = self.split_name(image)
        return self._part(image, self.pictures.load(picture), box)

    def load_keyed(self, image: str) -> tuple[bytes | NDArray[np.uint8], str]:
        """Returns the same with its content key.

        Raises:
            FileNotFoundError: No picture has this name.
            ValueError: As in ``load``.
        """
        picture, box = self.split_name(image)
        loaded, key = self.pictures.load_keyed(picture)
        return self._part(image, loaded, box), self._key(key, box)

    def _part(
        self, image: str, loaded: bytes | NDArray[np.uint8], box: AnyBox | None
    ) -> bytes | NDArray[np.uint8]:
        if box is None:
            return loaded
        whole = self._decoded(loaded) if isinstance(loaded, bytes) else loaded
        left, top, right, bottom = self.edges(box, whole.shape[1], whole.shape[0])
        crop = whole[top:bottom, left:right]  # [h, w] or [h, w, 3]
        if not crop.size:
            raise BoxError(
                f"the box of {image!r} cuts nothing out of {whole.shape[1]} x {whole.shape[0]} px; "
                "expected a part of the picture: are these the pictures that it was drawn on?"
            )
        return np.repeat(crop[:, :, np.newaxis], 3, axis=2) if crop.ndim == 2 else crop.copy()

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the picture's own key, and the box for a crop.

        Raises:
            FileNotFoundError: No picture has this name.
            ValueError: A box is none, or the other source refuses a name.
        """
        named = [self.split_name(image) for image in images]
        once = list(dict.fromkeys(picture for picture, _ in named))
        key_of = dict(zip(once, self.pictures.content_keys(once), strict=True))
        return [self._key(key_of[picture], box) for picture, box in named]

    def _key(self, key: str, box: AnyBox | None) -> str:
        return key if box is None else f"{key}-{self.version}-{box}"

    def _decoded(self, data: bytes) -> NDArray[np.uint8]:
        held: tuple[bytes, NDArray[np.uint8]] | None = getattr(self._last, "held", None)
        if held is not None and held[0] == data:
            return held[1]
        whole = decode_whole(data)
        if len(data) + whole.nbytes <= _MAX_REMEMBERED_BYTES:
            self._last.held = (data, whole)
        return whole


class CropSource(PartSource[Box]):
    """Crops whose boxes are fractions of their picture; see `PartSource`."""

    version = f"crop{CROP_VERSION}"

    def split_name(self, image: str) -> tuple[str, Box | None]:
        """Returns what `split_crop_name` does."""
        return split_crop_name(image)

    def edges(self, box: Box, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Returns the box's pixels."""
        return box.pixels(width_px, height_px)
