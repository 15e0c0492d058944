"""Pictures as they are given from Python: files, bytes, Pillow images, arrays."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from visual_search.catalog.images import Fit


def encoded(picture: str | os.PathLike[str] | bytes | Image.Image, number: int) -> bytes:
    """Returns a picture's file.

    Args:
        picture: A file, its bytes, or a Pillow image.
        number: Its place among others, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: It is something else.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        if not path.is_file():
            raise FileNotFoundError(f"picture {number}: no file at {path}; expected one")
        return path.read_bytes()
    if not hasattr(picture, "save"):
        raise TypeError(
            f"picture {number} is of {type(picture).__name__}; expected a path, bytes, a Pillow "
            "image or a [H, W, 3] uint8 array"
        )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def prepared(
    picture: str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8],
    number: int,
    size_px: int,
    fit: Fit,
) -> NDArray[np.uint8]:
    """Returns a picture as a network takes it, ``[3, S, S] uint8``.

    Args:
        picture: A file, its bytes, a Pillow image, or a ``[H, W, 3] uint8`` array.
        number: Its place among others, for messages.
        size_px: S.
        fit: As `visual_search.catalog.images.Fit`.

    Raises:
        PictureError: It is damaged, or too large.
    """
    import numpy as np

    from visual_search.catalog.images import PictureError, decode, fit_array

    if isinstance(picture, np.ndarray):
        return fit_array(picture, size_px, fit)
    try:
        return decode(encoded(picture, number), size_px, fit)
    except PictureError as error:
        name = picture if isinstance(picture, str | os.PathLike) else f"picture {number}"
        raise PictureError(f"{name}: {error}") from error
