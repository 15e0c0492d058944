"""Crops whose boxes are published in pixels: `crops.py` needs fractions, and so the picture's size.

A crop is named ``<picture>#xywh=pixel:<x>,<y>,<width>,<height>``, as W3C's Media Fragments URI 1.0
(section 4.2.2) names a part of a picture; the pixels are those of the upright picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visual_search.catalog.catalog import PictureSource
from visual_search.catalog.images import decode_whole
from visual_search.catalog.readers.crops import BoxError

# Raise it whenever a box gives other pixels than before: it is in the crops' content keys.
PIXEL_CROP_VERSION = 1

_CROP = re.compile(r"(.*)#xywh=pixel:([0-9]+),([0-9]+),([0-9]+),([0-9]+)", re.DOTALL | re.ASCII)


def pixel_box(left: int, top: int, right: int, bottom: int) -> str:
    """Returns what follows the picture's path in the name of a crop.

    Args:
        left: First column of the box, from 0.
        top: First row of the box, from 0.
        right: The column behind its last.
        bottom: The row behind its last.

    Raises:
        BoxError: An edge is negative, or the box has no area.

    Example:
        >>> "coat.jpg" + pixel_box(50, 43, 195, 214)
        'coat.jpg#xywh=pixel:50,43,145,171'
    """
    if min(left, top) < 0 or right <= left or bottom <= top:
        raise BoxError(
            f"the box has left={left}, top={top}, right={right}, bottom={bottom}; expected pixels "
            "from 0, left below right and top below bottom"
        )
    return f"#xywh=pixel:{left},{top},{right - left},{bottom - top}"


class PixelCropSource:
    """Crops of another source's pictures, and its whole pictures.

    A name without a box is given as the other source gives it.

    Args:
        pictures: Where the whole pictures come from.
    """

    def __init__(self, pictures: PictureSource) -> None:
        self.pictures = pictures

    def __repr__(self) -> str:
        return f"PixelCropSource({self.pictures!r})"

    def load(self, image: str) -> bytes | NDArray[np.uint8]:
        """Returns a crop as ``[h, w, 3] uint8``, RGB; or a whole picture, as the other source does.

        What sticks out of the picture on the right and below is cut off.

        Raises:
            FileNotFoundError: No picture has this name.
            BoxError: The box lies outside the picture, or has no area.
            PictureError: The picture does not decode.
            ValueError: The other source refuses the name or the file.
        """
        picture, box = _split_name(image)
        loaded = self.pictures.load(picture)
        if box is None:
            return loaded
        whole = decode_whole(loaded) if isinstance(loaded, bytes) else loaded
        x, y, width, height = box
        crop = whole[y : y + height, x : x + width]  # [h, w] or [h, w, 3]
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
            ValueError: The other source refuses a name.
        """
        named = [_split_name(image) for image in images]
        once = list(dict.fromkeys(picture for picture, _ in named))
        key_of = dict(zip(once, self.pictures.content_keys(once), strict=True))
        return [
            key_of[picture] if box is None else f"{key_of[picture]}-px{PIXEL_CROP_VERSION}-{box}"
            for picture, box in named
        ]


def _split_name(image: str) -> tuple[str, tuple[int, ...] | None]:
    found = _CROP.fullmatch(image)
    if found is None:
        return image, None
    return found[1], tuple(int(number) for number in found.groups()[1:])
