"""Odd pictures of 16 x 16 pixels: four flat quarters of 8 x 8, which even a JPEG keeps exactly."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

Color = tuple[int, ...]
Quarters = Sequence[Color]  # upper left, upper right, lower left, lower right

WHITE = (255, 255, 255)
GREYS: Quarters = [(10,), (90,), (170,), (250,)]
COLORS: Quarters = [(250, 10, 20), (30, 240, 40), (50, 60, 230), (128, 128, 128)]


def quarters(values: Quarters, dtype: type = np.uint8) -> np.ndarray:
    """Returns ``[16, 16]`` for single values, ``[16, 16, C]`` else."""
    corners = np.array(values, dtype).reshape(2, 2, -1)
    return np.kron(corners, np.ones((8, 8, 1), dtype)).squeeze()


def rgb(values: Quarters) -> np.ndarray:
    """Returns what a picture of these quarters decodes to: ``[3, 16, 16] uint8``."""
    three = [value * 3 if len(value) == 1 else value for value in values]
    return quarters(three).transpose(2, 0, 1)


def image(values: Quarters, mode: str) -> Image.Image:
    found = Image.fromarray(quarters(values))
    assert found.mode in (mode, "RGBA")  # four channels may be CMYK just as well
    return found if found.mode == mode else Image.frombytes(mode, found.size, found.tobytes())


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def palette(transparency: object = None) -> Image.Image:
    """A palette picture whose entries 0 to 3 are the colours."""
    picture = Image.fromarray(quarters([(0,), (1,), (2,), (3,)]))
    picture.putpalette([channel for color in COLORS for channel in color])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


def animation(kind: str, **options: object) -> bytes:
    """A file whose first frame has the grey quarters; the second is white."""
    first = image(GREYS, "L").convert("RGB")
    second = Image.new("RGB", first.size, WHITE)
    return encoded(first, kind, save_all=True, append_images=[second], duration=100, **options)


def oriented(kind: str, orientation: int) -> bytes:
    """The grey quarters as stored, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(image(GREYS, "L").convert("RGB"), kind, exif=exif, **options)


def cmyk_jpeg(values: Quarters, *, transform: int = 0) -> bytes:
    """A JPEG of four channels: inverted, and with Adobe's marker, as Photoshop and Pillow write it.

    Args:
        values: C, M, Y, K of the quarters.
        transform: The marker's last byte: 2 says that the first three channels are YCbCr.
    """
    data = bytearray(encoded(image(values, "CMYK"), "JPEG"))
    data[data.index(b"\xff\xee\x00\x0eAdobe") + 15] = transform
    return bytes(data)


def without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:start] + data[start + 16 :]


def chunk(name: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + crc


def png(
    width: int, height: int, bit_depth: int, color_type: int, rows: bytes, *, extra: bytes = b""
) -> bytes:
    """A PNG written by hand, as Pillow cannot write all that it must read."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + extra + pixels + chunk(b"IEND", b"")


def png_16_bit(values: Quarters, color_type: int, transparent: Color = ()) -> bytes:
    """16 bits a channel, most significant byte first; each row opens with its filter, 0."""
    trns = struct.pack(f">{len(transparent)}H", *transparent)
    extra = chunk(b"tRNS", trns) if transparent else b""
    pixels = quarters(values, np.uint16).astype(">u2").reshape(16, -1)
    return png(
        16, 16, 16, color_type, b"".join(b"\0" + row.tobytes() for row in pixels), extra=extra
    )


def bmp_upside_down() -> bytes:
    """A BMP of negative height: its first row is the uppermost."""
    data = bytearray(encoded(image(COLORS, "RGB"), "BMP"))
    start = int.from_bytes(data[10:14], "little")
    data[22:26] = struct.pack("<i", -16)
    row = 16 * 3
    rows = [data[start + i * row : start + (i + 1) * row] for i in range(16)]
    return bytes(data[:start]) + b"".join(map(bytes, reversed(rows)))
