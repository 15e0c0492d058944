"""What a file takes to decode, found before it is decoded: parts, scans, memory.

Pillow reads a file's parts one by one in Python: 12 MB of empty ones take 13 s, during which no
other thread runs. libjpeg goes through the whole picture for every scan: 16 MB of empty ones of a
picture of 64 million pixels take a day. Neither has a limit of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image

# Memory at its peak, measured at 25 to 49 million pixels (Pillow 13), in bytes a pixel: 1 to 5 as
# PNG, GIF and BMP, 6 as a JPEG in several scans, 8 as PNG with alpha, 1 to 8 as TIFF, of which
# libtiff keeps a strip besides (all of it, where there is one). Each counts as one pixel of 8
# bytes, so that 64 million bound 512 MiB. More take 16 as WebP, 9 to 14 as AVIF and 7 to 13 as HEIC
# (deeper colours twice their planes), 12 as a PNG in grey with alpha, and what is kept at its own
# size a copy.
BYTES_PER_PX = 8
_COST_OF_FORMAT = {"WEBP": 2.0, "AVIF": 2.0, "TIFF": 1.5, "HEIF": 2.0}
_COST_OF_MODE = {"LA": 1.5, "PA": 1.5}
_COST_WHOLE = 1.5
# An AVIF's size stands twice in it, and libavif decodes up to 16,384 x 16,384 pixels before it sees
# that its frames are larger than its header says: 1.3 KB that say 70 x 70 took 100 MiB for 7,000 x
# 7,000. So few of them are decoded together.
_HIDDEN_PX = {"AVIF": 30_000_000, "HEIF": 30_000_000}

# Real files have below 300 (an ICC profile ends at 255), and about ten scans.
MAX_PARTS = 2_000
MAX_JUNK_BYTES = 64 * 2**10
MAX_SCANS = 64
MAX_PNG_CHUNKS = 100_000  # most are the pixels', in parts of 8 KB
MAX_RLE_BYTES = 2 * 2**20  # Pillow unpacks a BMP's runs in Python: 1 s for a megabyte

MAX_STRIPS = 100_000  # of a TIFF: Pillow makes an object of each; real ones have a row each at most
MAX_TILE_PX = 2**24  # libtiff unpacks a tile whole, however small the picture; real ones have 2**18

_TIFF = {b"II*\0": "little", b"MM\0*": "big"}
_OTHER_TIFF = (b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")  # BigTIFF, and what Pillow reads for TIFF
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_TAGS = (0x8769, 0x8825, 0xA005)  # of further tags: Exif, GPS, interoperability
_TILE_SIDES, _STRIPS = (322, 323), (273, 324)
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
_TEXT_PX = 2**20 // BYTES_PER_PX  # Pillow unpacks at most 1 MiB of each, 64 MiB in all
_MAX_TEXTS = 64
_RLE = (b"\x01\0\0\0", b"\x02\0\0\0")  # of 8 and 4 bits
# In front of a scan any marker, within one (0 is stuffing, D0..D7 restarts it) what ends it.
_MARKER, _SCAN_END = re.compile(rb"\xff[^\x00\xff]"), re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = (0x01, *range(0xD0, 0xD8), _SOI)  # markers that have no length
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)


class TooManyPartsError(ValueError):
    """A file has more parts than real ones have; the message says of which."""


@dataclass(frozen=True)
class PictureSizes:
    """What an encoded file consists of, as far as it decides what decoding takes.

    Attributes:
        num_texts: Compressed texts and profiles of a PNG.
        keeps_coefficients: A JPEG in several scans: libjpeg keeps all of the picture's
            coefficients, however much smaller it then gives it.
    """

    num_texts: int = 0
    keeps_coefficients: bool = False

    @property
    def opening_px(self) -> int:
        """Pixels that count for what is read before a picture's size is known."""
        return min(self.num_texts, _MAX_TEXTS) * _TEXT_PX


def parts_of(data: bytes) -> PictureSizes:
    """Returns what an encoded file consists of, if that can be gone through in short time.

    Of other formats than JPEG, PNG and TIFF nothing is said: their parts cost nothing.

    Raises:
        TooManyPartsError: It cannot.

    Example:
        >>> parts_of(b"GIF89a")
        PictureSizes(num_texts=0, keeps_coefficients=False)
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg_parts(data)
    if data.startswith(_PNG):
        return _png_parts(data)
    if data[:4] in _TIFF:
        _check_tiff(data)
    if data[:4] in _OTHER_TIFF:
        raise TooManyPartsError(
            "the file is a BigTIFF, or no plain TIFF; at most what 4 GB hold is read; save it anew "
            "as TIFF, JPEG or PNG"
        )
    if data.startswith(b"BM") and data[30:34] in _RLE and len(data) > MAX_RLE_BYTES:
        raise _too_many("bytes of run-length encoded BMP", len(data), MAX_RLE_BYTES)
    return PictureSizes()


def decoding_px(
    image: Image.Image, parts: PictureSizes, stored_size: tuple[int, int], *, is_whole: bool = False
) -> int:
    """Returns the pixels that count for decoding a picture of which only the header was read.

    Args:
        image: As Pillow opened it, or drafted it to a smaller size.
        parts: What its file consists of.
        stored_size: Width and height before it was drafted.
        is_whole: It is kept at its own size.
    """
    width, height = stored_size if parts.keeps_coefficients else image.size
    factor = max(
        _COST_OF_FORMAT.get(str(image.format), 1.0),
        _COST_OF_MODE.get(image.mode, 1.0),
        _COST_WHOLE if is_whole else 1.0,
    )
    return math.ceil(width * height * factor)


def hidden_px(image: Image.Image) -> int:
    """Returns the pixels that have to be free for a picture, as its header may say too few."""
    return _HIDDEN_PX.get(str(image.format), 0)


def _png_parts(data: bytes) -> PictureSizes:
    place, num_chunks, num_texts, num_before = len(_PNG), 0, 0, 0
    has_pixels = False
    while place + 8 <= len(data):
        kind = data[place + 4 : place + 8]
        num_chunks += 1
        num_texts += kind in _TEXT_CHUNKS
        has_pixels = has_pixels or kind == b"IDAT"
        num_before += not has_pixels
        if num_before > MAX_PARTS:
            raise _too_many("chunks before its pixels", num_before, MAX_PARTS)
        if num_chunks > MAX_PNG_CHUNKS:
            raise _too_many("chunks", num_chunks, MAX_PNG_CHUNKS)
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return PictureSizes(num_texts=num_texts)


def _jpeg_parts(data: bytes) -> PictureSizes:
    num_components, num_scans, is_progressive = 0, 0, False
    for number, (marker, place) in enumerate(_jpeg_segments(data), 1):
        if number > MAX_PARTS:
            raise _too_many("segments", number, MAX_PARTS)
        if marker in _FRAMES:
            is_progressive = is_progressive or marker in _PROGRESSIVE
            num_components = data[place + 7] if place + 7 < len(data) else 0
        elif marker == _SOS:
            num_scans += 1
            of_scan = data[place + 2] if place + 2 < len(data) else 0
            if num_scans == 1 and not is_progressive and of_scan >= num_components:
                return PictureSizes()  # one scan holds all of it
            if num_scans > MAX_SCANS:
                raise _too_many("scans", num_scans, MAX_SCANS)
    return PictureSizes(keeps_coefficients=True)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields a JPEG's markers, each with where its length stands."""
    place, junk, pattern = 0, 0, _MARKER
    while (found := pattern.search(data, place)) is not None:
        if pattern is _MARKER:
            junk += found.start() - place
            if junk > MAX_JUNK_BYTES:
                raise _too_many("bytes between its segments", junk, MAX_JUNK_BYTES)
        marker, place = data[found.end() - 1], found.end()
        yield marker, place
        if marker == _EOI:
            return
        if marker not in _ALONE:
            length = int.from_bytes(data[place : place + 2], "big")
            place += max(2, length)
        pattern = _SCAN_END if marker == _SOS else _MARKER


def _check_tiff(data: bytes) -> None:
    """Refuses a TIFF whose tags, strips or tiles take more than the file can hold."""
    order: Literal["little", "big"] = "little" if _TIFF[data[:4]] == "little" else "big"

    def number(start: int, end: int) -> int:
        return int.from_bytes(data[start:end], order)

    places, seen = [number(4, 8)], set[int]()
    num_tags, num_bytes, tile_px = 0, 0, 1
    while places:
        start = places.pop()
        if start in seen:
            continue
        seen.add(start)
        num_tags += number(start, start + 2)
        if num_tags > MAX_PARTS:
            raise _too_many("tags", num_tags, MAX_PARTS)
        for at in range(start + 2, start + 2 + 12 * number(start, start + 2), 12):
            tag, kind, count = number(at, at + 2), number(at + 2, at + 4), number(at + 4, at + 8)
            size = _TIFF_BYTES.get(kind, 8) * count
            num_bytes += size if size > 4 else 0
            value = number(at + 8, at + 10) if kind == 3 else number(at + 8, at + 12)
            if tag in _TIFF_TAGS:
                places.append(value)
            if tag in _TILE_SIDES:
                tile_px *= max(1, value)
            if tag in _STRIPS and count > MAX_STRIPS:
                raise _too_many("strips", count, MAX_STRIPS)
    # tags that share their bytes: a file of 1 MB could take 60 GB
    if num_bytes > len(data):
        raise _too_many("bytes of tags", num_bytes, len(data))
    if tile_px > MAX_TILE_PX:
        raise _too_many("pixels in a tile", tile_px, MAX_TILE_PX)


def _too_many(what: str, number: int, most: int) -> TooManyPartsError:
    return TooManyPartsError(
        f"the file has {number:,} {what} or more; at most {most:,} are read; save it anew as JPEG "
        "or PNG"
    )
