"""Crops whose boxes are published in pixels: `crops.py` needs fractions, and so the picture's size.

A crop is named ``<picture>#xywh=pixel:<x>,<y>,<width>,<height>``, as W3C's Media Fragments URI 1.0
(section 4.2.2) names a part of a picture; the pixels are those of the upright picture.
"""

from __future__ import annotations

import re

from visual_search.catalog.readers.crops import BoxError, PartSource

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


PixelBox = tuple[int, int, int, int]  # left, top, width, height


class PixelCropSource(PartSource[PixelBox]):
    """Crops whose boxes are pixels of their picture; see `PartSource`."""

    version = f"px{PIXEL_CROP_VERSION}"

    def split_name(self, image: str) -> tuple[str, PixelBox | None]:
        """Returns picture and box of a crop's name, and ``None`` where it names none."""
        found = _CROP.fullmatch(image)
        if found is None:
            return image, None
        x, y, width, height = (int(number) for number in found.groups()[1:])
        return found[1], (x, y, width, height)

    def edges(self, box: PixelBox, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom as they were published."""
        x, y, width, height = box
        return x, y, x + width, y + height
