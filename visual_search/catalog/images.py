"""Encoded pictures -> RGB uint8 arrays, safely; and back for display.

Pillow decodes, under an explicit list of formats and our own limits, and whatever goes wrong with
a file is a :class:`PictureError`. ``torchvision.io`` is not used: damaged files have crashed the
whole process there.

Shapes: ``S`` is the side of the square that the network sees, in pixels.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from visual_search.catalog.picture_costs import (
    PictureSizes,
    TooManyPartsError,
    decoding_px,
    hidden_px,
    parts_of,
)
from visual_search.catalog.pixel_budget import PixelBudget

Fit = Literal["stretch", "letterbox"]
Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels
Target = tuple[int, Fit] | None  # the side and fit that is aimed at; None keeps a picture's size
Use = Callable[[Image.Image, Box], NDArray[np.uint8]]

# Raise it whenever `decode` or `fit_array` gives other pixels than before: it is in the cache key.
DECODER_VERSION = 2

# How much larger than wanted a JPEG is decoded at least. Of photos of 400 px brought to 128 px, 1.5
# takes half the time of 2 (which decodes them whole) and moves a value by 0.5 of 255 in the mean.
_DRAFT_FACTOR = 1.5

# What shops keep their pictures in. Pillow reads 40 more, each one more parser of untrusted bytes.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF")
# Telephones' HEIC is one more, by pillow-heif, which calls it so.
HEIF = "HEIF"
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

# EXIF orientation -> what turns the stored picture upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# 65535 -> 255, rounded; Pillow's own conversion would clip at 255.
_SIXTEEN_TO_EIGHT_BIT = ((np.arange(65536) + 128) // 257).astype(np.uint8)

_STRIP_ROWS = 64  # brought to 8 bit at once: NumPy takes 8 bytes more for each value

# What all decodes of this process share that are given no other budget. It admits the dearest
# picture of `PictureLimits`, alone.
_PROCESS_BUDGET = PixelBudget(160_000_000)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_PROCESS_BUDGET.forget)

# Counted for every picture while its header is read. What costs no more is decoded at once.
_HEADER_PX = 1_000_000


class PictureError(ValueError):
    """A picture cannot be used; the message says why, the cause is attached."""


@dataclass(frozen=True)
class PictureLimits:
    """How large a picture may be before it is refused undecoded.

    Attributes:
        max_bytes: Largest encoded file, in bytes.
        max_pixels: Largest width x height that a file may announce. The default stays below
            Pillow's own limit of 89 million, which also holds.
        budget: What all decodes with these limits share: a picture waits for its part of it, and is
            refused where it would take more than all. A pixel that takes more memory than 8 bytes,
            as those of WebP and AVIF do, counts as several; of a JPEG in a single scan those count
            that it is decoded to.

    Raises:
        ValueError: A limit is below 1.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    budget: PixelBudget = field(default=_PROCESS_BUDGET, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected at least 1; leave it out for the "
                    "default"
                )


def decode(
    data: bytes, size_px: int, fit: Fit, limits: PictureLimits = PictureLimits()
) -> NDArray[np.uint8]:
    """Returns the picture of an encoded file as ``[3, S, S] uint8``, RGB, contiguous.

    Transparent parts become white, CMYK and grey become RGB, 16-bit grey is scaled to 8 bit, the
    EXIF orientation is applied, of an animation the first frame is taken. ICC profiles are not
    applied. A JPEG that is at least three times too large is decoded at a half, a quarter or an
    eighth of its size, never below one and a half times the size wanted.

    Args:
        data: The whole file, one of :data:`FORMATS`, recognised by its content.
        size_px: ``S``, the side of the result in pixels.
        fit: ``stretch`` resizes to S x S whatever the shape; ``letterbox`` keeps the aspect ratio,
            centres the picture and pads with white. Both resize bilinearly with antialiasing.
        limits: Beyond these the file is refused without decoding it.

    Raises:
        ValueError: ``size_px`` is below 1, or ``fit`` has another name.
        PictureError: The file is too large, truncated, damaged or of another format.
        BudgetExceededError: Other pictures took the budget for longer than it lets wait.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (2, 1), (200, 0, 0)).save(file, "PNG")
        >>> decode(file.getvalue(), size_px=4, fit="letterbox")[1]  # green: a bar between white
        array([[255, 255, 255, 255],
               [  0,   0,   0,   0],
               [  0,   0,   0,   0],
               [255, 255, 255, 255]], dtype=uint8)
    """
    check_target(size_px, fit)

    def finish(image: Image.Image, box: Box) -> NDArray[np.uint8]:
        eight_bit, orientation = _loaded(image)
        return _fit(eight_bit, size_px, fit, box, orientation)

    return _decoded(data, limits, (size_px, fit), finish)


def decode_whole(data: bytes, limits: PictureLimits = PictureLimits()) -> NDArray[np.uint8]:
    """Returns the picture of an encoded file at its own size: ``[H, W, 3] uint8``, RGB, upright.

    For those who need a part of a picture. Formats, transparency, modes, orientation and animations
    are treated as in :func:`decode`; nothing is resized.

    Args:
        data: The whole file, one of :data:`FORMATS`, recognised by its content.
        limits: Beyond these the file is refused without decoding it.

    Raises:
        PictureError: The file is too large, truncated, damaged or of another format.
        BudgetExceededError: Other pictures took the budget for longer than it lets wait.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGBA", (3, 2), (200, 0, 0, 0)).save(file, "PNG")  # transparent: white
        >>> decode_whole(file.getvalue())[0].tolist()
        [[255, 255, 255], [255, 255, 255], [255, 255, 255]]
    """

    def keep(image: Image.Image, box: Box) -> NDArray[np.uint8]:
        eight_bit, orientation = _loaded(image)
        whole = eight_bit.convert("RGB")
        if orientation in _UPRIGHT:
            whole = whole.transpose(_UPRIGHT[orientation])
        return np.array(whole)  # [H, W, 3], a copy that may be written to

    return _decoded(data, limits, None, keep)


def fit_array(array: NDArray[np.uint8], size_px: int, fit: Fit) -> NDArray[np.uint8]:
    """Returns an already decoded picture as ``[3, S, S] uint8``, RGB, contiguous.

    Args:
        array: ``[H, W]`` grey or ``[H, W, 3]`` RGB, uint8.
        size_px: ``S``, the side of the result in pixels.
        fit: As in :func:`decode`.

    Raises:
        ValueError: ``size_px`` is below 1, or ``fit`` has another name.
        PictureError: The array has another shape or dtype, or no pixels.

    Example:
        >>> fit_array(np.full((28, 28), 7, np.uint8), size_px=2, fit="stretch").tolist()
        [[[7, 7], [7, 7]], [[7, 7], [7, 7]], [[7, 7], [7, 7]]]
    """
    check_target(size_px, fit)
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_picture or array.size == 0:
        raise PictureError(
            f"the array has shape {list(array.shape)} and dtype {array.dtype}; expected [H, W] or "
            "[H, W, 3] uint8 with at least one pixel"
        )
    image = Image.fromarray(np.ascontiguousarray(array))
    return _fit(image, size_px, fit, box=(0, 0, *image.size), orientation=1)


def open_header(data: bytes) -> Image.Image:
    """Returns a picture of which only the header was read, as Pillow has it.

    Args:
        data: The whole file, HEIC or one of :data:`FORMATS`.

    Raises:
        PictureError: It is HEIC, and pillow-heif is not installed.
        UnidentifiedImageError: It is none of them, or damaged; other errors of Pillow's as well.
    """
    if not is_heic(data):
        return Image.open(io.BytesIO(data), formats=FORMATS)
    _register_heif()
    return Image.open(io.BytesIO(data), formats=(HEIF,))


def is_heic(data: bytes) -> bool:
    """Returns whether a file is HEIC by its first bytes: the brands that it says it is of.

    Example:
        >>> is_heic(bytes.fromhex("00000018667479706d696631000000006d69663168656963"))
        True
    """
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & _HEIC_BRANDS)


@functools.cache
def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise PictureError(
            f"it is HEIC, which needs a package that is not installed ({error}); run: pip install "
            "'visual-search[heif]', or save it anew as JPEG"
        ) from error
    pillow_heif.options.DECODE_THREADS = 1  # as many are decoded at once as the caller says
    pillow_heif.options.THUMBNAILS = False  # as Pillow would take one for the picture
    pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    pillow_heif.register_heif_opener()


def to_display(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns ``[3, H, W] uint8`` as ``[H, W, 3] uint8``, contiguous: what Pillow and plots take.

    Raises:
        ValueError: The array has another shape or dtype.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.dtype != np.uint8:
        raise ValueError(
            f"the picture has shape {list(picture.shape)} and dtype {picture.dtype}; expected "
            "[3, H, W] uint8; pass one picture, not yet scaled to floats"
        )
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def check_target(size_px: int, fit: str) -> None:
    """Checks what pictures are to be brought to.

    Raises:
        ValueError: ``size_px`` is below 1, or ``fit`` has another name.
    """
    if size_px < 1:
        raise ValueError(f"size_px is {size_px}; expected at least 1 pixel; the study uses 128")
    if fit not in get_args(Fit):
        raise ValueError(f"fit is {fit!r}; expected one of {list(get_args(Fit))}")


def _decoded(data: bytes, limits: PictureLimits, target: Target, use: Use) -> NDArray[np.uint8]:
    """Returns what ``use`` makes of a picture, with its part of the budget for as long as it takes.

    ``use`` gets the picture, of which only the header was read, and the part of it that is wanted.
    """
    if len(data) > limits.max_bytes:
        raise PictureError(
            f"the file has {len(data):,} bytes; at most {limits.max_bytes:,} are read; "
            "save it smaller"
        )
    budget = limits.budget
    with _named_errors(data):
        parts = parts_of(data)
    opening_px = min(_HEADER_PX + parts.opening_px, budget.total_px)
    with budget.share(opening_px), _named_errors(data):
        small, num_px = _if_small(data, limits, target, use, parts, opening_px)
    if small is not None:
        return small
    # Opened anew, not kept: who holds a share and waits for more may wait for ever.
    with budget.share(num_px), _named_errors(data):
        return _use(data, limits, target, use)


def _if_small(
    data: bytes,
    limits: PictureLimits,
    target: Target,
    use: Use,
    parts: PictureSizes,
    opening_px: int,
) -> tuple[NDArray[np.uint8] | None, int]:
    """Returns what is made of a picture that needs no further share, and what share it needs."""
    with _open(data, limits) as image:
        width, height = image.size
        box = _draft(image, target)
        num_px = decoding_px(image, parts, (width, height), is_whole=target is None)
        total_px = limits.budget.total_px
        if num_px > total_px:
            raise PictureError(
                f"the picture has {width} x {height} pixels, which as {image.format} take the "
                f"memory of {num_px:,}; at most {total_px:,} are decoded; save it smaller"
            )
        num_px = min(max(num_px, hidden_px(image)) + parts.opening_px, total_px)
        return (use(image, box) if num_px <= opening_px else None), num_px


def _use(data: bytes, limits: PictureLimits, target: Target, use: Use) -> NDArray[np.uint8]:
    with _open(data, limits) as image:
        return use(image, _draft(image, target))


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    """Returns a picture of which only the header was read."""
    image = open_header(data)
    width, height = image.size
    if width * height > limits.max_pixels:
        image.close()
        raise PictureError(
            f"the picture has {width} x {height} = {width * height:,} pixels; at most "
            f"{limits.max_pixels:,} are decoded; save it smaller"
        )
    return image


def _draft(image: Image.Image, target: Target) -> Box:
    """Has a JPEG decoded no larger than is needed; gives the part that is then the picture."""
    width, height = image.size
    if image.format in ("JPEG", "MPO") and target is not None:
        aim_w, aim_h = _fitted_size(width, height, *target)
        drafted = image.draft("RGB", (_at_least(aim_w), _at_least(aim_h)))
        if drafted is not None:
            return drafted[1]  # the size before rounding up: without it the picture would shift
    return (0, 0, width, height)


def _at_least(aim: int) -> int:
    return math.ceil(_DRAFT_FACTOR * aim)


def _loaded(image: Image.Image) -> tuple[Image.Image, int]:
    """Returns a picture in mode ``L`` or ``RGB``, not yet turned, and its EXIF orientation."""
    if image.format == "TIFF":
        image.load()  # which turns it upright
    transparent_value = _transparent_value(image)  # before a look at the EXIF loads a PNG
    orientation = _orientation(image)
    image.load()
    return _eight_bit(image, transparent_value), orientation


@contextlib.contextmanager
def _named_errors(data: bytes) -> Iterator[None]:
    """Turns whatever goes wrong with a file into a :class:`PictureError`; see :func:`decode`.

    The half of a picture that was decoded is forgotten at once, not with the error.
    """
    # Pillow and its libraries raise more kinds of errors at damaged bytes than they document
    # (struct.error, SyntaxError, zlib.error, MemoryError...): here every one means "no picture".
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        start = "the file is empty" if not data else f"the file starts with {data[:12]!r}"
        raise PictureError(
            f"not a picture in a format that is read here ({', '.join(FORMATS)}, HEIC), or its "
            f"header is damaged; save it anew as JPEG or PNG; {start}"
        ) from error
    except TooManyPartsError as error:
        raise PictureError(str(error)) from error
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise PictureError(f"does not decode: {type(error).__name__}: {error}") from error


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1 (upright) where there is none or the EXIF block is junk."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError):
        return 1  # the picture itself is fine, and browsers show it as stored
    return orientation if orientation in _UPRIGHT else 1


def _transparent_value(image: Image.Image) -> int | tuple[int, ...] | bytes | None:
    """Returns the transparent grey, colour or palette entry, in units of the decoded picture.

    Pillow (13.0) hands out what a PNG's tRNS chunk says without the scaling that the pixels get.
    """
    value: int | tuple[int, ...] | bytes | None = image.info.get("transparency")
    tile = getattr(image, "tile", None)
    rawmode = tile[0][3] if tile else None
    if isinstance(value, int) and rawmode in ("L;2", "L;4"):
        return value * (85 if rawmode == "L;2" else 17)  # 3 and 15 are white
    if isinstance(value, tuple) and rawmode == "RGB;16B":
        return tuple(channel >> 8 for channel in value)  # as Pillow reads the pixels
    return value


def _eight_bit(
    image: Image.Image, transparent_value: int | tuple[int, ...] | bytes | None = None
) -> Image.Image:
    """Returns the loaded picture in mode ``L`` or ``RGB``, transparent parts on white."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)  # [H, W] uint16
        scaled = np.empty(grey.shape, np.uint8)
        for start in range(0, len(grey), _STRIP_ROWS):
            strip = grey[start : start + _STRIP_ROWS]
            scaled[start : start + _STRIP_ROWS] = _SIXTEEN_TO_EIGHT_BIT[strip]
            if transparent_value is not None:
                scaled[start : start + _STRIP_ROWS][strip == transparent_value] = 255
        return Image.fromarray(scaled)
    if transparent_value is not None:
        image.info["transparency"] = transparent_value
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        on_white = Image.new("RGB", rgba.size, (255, 255, 255))
        on_white.paste(rgba, mask=rgba)  # whose alpha it takes, without a copy of it
        return on_white
    if image.mode in ("L", "RGB"):
        return image  # converting to the same mode would copy it
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "CMYK", "YCbCr", "RGBX"):
        return image.convert("RGB")
    raise PictureError(
        f"the picture has Pillow's mode {image.mode!r}, which has no agreed scale; "
        "save it as 8-bit RGB"
    )


def _fitted_size(width: float, height: float, size_px: int, fit: Fit) -> tuple[int, int]:
    """Returns the width and height that the picture itself takes within S x S."""
    if fit == "stretch":
        return size_px, size_px
    scale = size_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fit(
    image: Image.Image,
    size_px: int,
    fit: Fit,
    box: Box,
    orientation: int,
) -> NDArray[np.uint8]:
    """Resizes the part ``box`` of an ``L`` or ``RGB`` picture, then turns and pads it."""
    aim = _fitted_size(box[2] - box[0], box[3] - box[1], size_px, fit)
    small = image.resize(aim, Image.Resampling.BILINEAR, box=box)
    if orientation in _UPRIGHT:  # turned when it is small: the same pixels for less work
        small = small.transpose(_UPRIGHT[orientation])
    if small.size != (size_px, size_px):
        canvas = Image.new(small.mode, (size_px, size_px), "white")
        canvas.paste(small, ((size_px - small.width) // 2, (size_px - small.height) // 2))
        small = canvas
    pixels = np.asarray(small)  # [S, S] or [S, S, 3]
    if pixels.ndim == 2:
        return np.repeat(pixels[np.newaxis], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # [3, S, S]
