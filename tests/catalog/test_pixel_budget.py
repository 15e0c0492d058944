"""How much is decoded at the same time, and what a file may make its reader do."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from tests.catalog.odd_pictures import chunk, encoded
from tests.catalog.shops import refuses
from visual_search.catalog.images import PictureError, PictureLimits, decode, decode_whole
from visual_search.catalog.pixel_budget import BudgetExceededError, PixelBudget

MILLION = 1_000_000


def blank(kind: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.new(mode, (width, height)), kind, **options)


class Watched(PixelBudget):
    """Notes every share, and the most that were held at once."""

    def __init__(self, total_px: int) -> None:
        super().__init__(total_px)
        self.shares: list[int] = []
        self.most = 0

    @contextmanager
    def share(self, num_px: int) -> Iterator[None]:
        with super().share(num_px):
            self.shares.append(num_px)
            self.most = max(self.most, self.taken_px)
            yield


def asked(data: bytes, total_px: int = 64 * MILLION, *, whole: bool = False) -> int:
    """Pixels that a picture asked for at most, at one go."""
    limits = PictureLimits(budget=(budget := Watched(total_px)))
    if whole:
        decode_whole(data, limits)
    else:
        decode(data, 32, "letterbox", limits)
    assert budget.taken_px == 0
    return max(budget.shares)


def test_pictures_that_are_decoded_together_stay_within_the_budget() -> None:
    budget = Watched(3 * MILLION)
    picture = blank("PNG", 1_200, 1_000)
    together = threading.Barrier(8)

    def one(_: int) -> tuple[int, ...]:
        together.wait(20)
        return decode(picture, 16, "stretch", PictureLimits(budget=budget)).shape

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(8))) == [(3, 16, 16)] * 8
    assert budget.shares.count(1_200_000) == 8
    assert 1_200_000 <= budget.most <= 3 * MILLION
    assert budget.taken_px == 0


def test_a_picture_counts_what_it_takes() -> None:
    size = (2_000, 1_500)
    assert asked(blank("JPEG", *size)) <= MILLION  # drafted to a part of it
    assert asked(blank("JPEG", *size, progressive=True)) == 3 * MILLION
    assert asked(blank("PNG", *size)) == 3 * MILLION
    assert asked(blank("PNG", *size, mode="LA")) == 4.5 * MILLION
    assert asked(blank("JPEG", *size), whole=True) == 4.5 * MILLION
    webp = blank("WEBP", *size)
    assert asked(webp) == 6 * MILLION
    message = r"2000 x 1500 .* WEBP .* 6,000,000; at most 5,000,000"
    refuses(PictureError, message, asked, webp, total_px=5 * MILLION)
    avif = blank("AVIF", 30, 20)  # its frames may be larger than it says
    assert asked(avif) >= 30 * MILLION
    assert asked(avif, total_px=2000) == 2000


def test_tiff_and_heic_count_as_they_take() -> None:
    assert asked(blank("TIFF", 1_200, 1_000, compression="tiff_lzw")) == 1_800_000
    pillow_heif.register_heif_opener()
    # an HEIC may hide what it holds, as an AVIF
    assert asked(blank("HEIF", 1_200, 1_000), 64 * MILLION) == 30 * MILLION


def test_a_jpeg_in_several_scans_without_progression_counts_whole() -> None:
    """Each colour in a scan of its own: libjpeg keeps all coefficients here too."""
    data = blank("JPEG", 2_000, 1_000)
    start = data.rindex(b"\xff\xda")
    assert data[start + 4] == 3
    one_colour = b"\xff\xda\0\x08\x01" + data[start + 5 : start + 7] + b"\0\x3f\0"
    assert asked(data[:start] + one_colour + data[start + 14 :]) == 2 * MILLION


def test_shares_come_in_their_turn_and_in_time() -> None:
    budget = PixelBudget(100, patience_s=0.02)
    with budget.share(60):
        with budget.share(40):
            assert budget.taken_px == 100
        message = r"60 of 100 pixels for 0.02 s; expected 50"
        refuses(BudgetExceededError, message, budget.share(50).__enter__)
        with budget.share(40):  # who gave up is no longer in the way
            pass
    assert budget.taken_px == 0
    refuses(ValueError, "101 pixels; expected at most 100", budget.share(101).__enter__)
    refuses(ValueError, "total_px is 0", PixelBudget, 0)
    with budget.share(100), pytest.raises(BudgetExceededError):  # no picture is at fault
        decode(blank("PNG", 4, 4), 4, "stretch", PictureLimits(budget=budget))


@pytest.mark.parametrize("cut", [40, 200, 2_000])
def test_a_damaged_picture_gives_its_share_back(cut: int) -> None:
    limits = PictureLimits(budget=Watched(4 * MILLION))
    with pytest.raises(PictureError):
        decode(blank("PNG", 2_000, 2_000)[:cut], 8, "stretch", limits)
    assert limits.budget.taken_px == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    picture = blank("PNG", 1_200, 1_000)
    with PictureLimits().budget.share(160 * MILLION):
        child = os.fork()
        if child == 0:
            os._exit(0 if decode(picture, 8, "stretch").any() == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0


def bmp_of_runs(side: int, runs: bytes) -> bytes:
    head = struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 256)
    return b"BM" + head + info + bytes(1024) + runs


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF of nothing but tags: number, type, count, value or place."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


JPEG, PNG, TIFF = blank("JPEG", 8, 8), blank("PNG", 8, 8), blank("TIFF", 8, 8)
PROGRESSIVE = blank("JPEG", 64, 64, progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]


def test_texts_of_a_png_count_with_its_pixels() -> None:
    plain = blank("PNG", 1_200, 1_000)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MILLION)))
    assert asked(plain[:33] + 20 * text + plain[33:]) == 1_200_000 + 20 * 2**20 // 8


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (JPEG[:2] + b"\xff\xe5\0\x04ab" * 50_000 + JPEG[2:], "segments"),
        (JPEG[:2] + b"\xff\xe5\0\x04ab" + b"a" * 100_000 + JPEG[2:], "between its segments"),
        (JPEG[:2] + b"\xff" * 100_000 + JPEG[3:], "between its segments"),
        (PROGRESSIVE[:-2] + LAST_SCAN * 200 + b"\xff\xd9", "scans"),
        (PNG[:33] + chunk(b"abCd", b"") * 50_000 + PNG[33:], "chunks"),
        (PNG[:33] + chunk(b"IDAT", b"") * 200_000 + PNG[33:], "chunks"),
        (bmp_of_runs(4_000, b"\x01\x01" * 2 * MILLION), "run-length"),
        (tiff((270, 2, MILLION, 8)) + b"a" * 100, "bytes of tags"),
        (tiff(*[(33_000 + n, 2, 600_000, 8) for n in range(9)]) + b"a" * MILLION, "bytes of tags"),
        (tiff((34665, 4, 1, 26)) + b"\xff\xff", "tags"),
        (tiff((273, 4, MILLION, 8)) + bytes(4 * MILLION), "strips"),
        (tiff((322, 4, 1, 2**16), (323, 4, 1, 2**16)), "pixels in a tile"),
        (b"II+\0" + TIFF[4:], "BigTIFF"),
    ],
    ids=["segments", "junk", "padding", "scans", "chunks", "empty pixels", "runs", "one long tag",
         "tags that share", "tags of Exif", "strips", "tiles", "BigTIFF"],
)  # fmt: skip
def test_more_parts_than_a_real_file_has_are_refused_unread(data: bytes, what: str) -> None:
    """Each would keep a thread, most of them the whole process, for seconds to hours."""
    refuses(PictureError, rf"{what}.*at most .* read", decode, data, 8, "stretch")


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + b"\xff\xe2\0\x04ab" * 255 + JPEG[2:],
        JPEG[:2] + b"\xff\xff\xff" + JPEG[3:],
        JPEG + b"\xff\xda" * 5_000,  # a telephone's film behind its picture
        PROGRESSIVE + b"\xff\xda" * 5_000,
        PROGRESSIVE,
        PNG[:33] + chunk(b"tEXt", b"k\0v") * 255 + PNG[33:],
        bmp_of_runs(4, b"\x04\x01\0\0" * 4 + b"\0\x01"),
        TIFF,
        blank("TIFF", 20, 3_000, compression="tiff_lzw", tiffinfo={278: 1}),
    ],
    ids=["profile", "padding", "film", "film, progressive", "scans", "texts", "runs", "TIFF",
         "strips of a row"],
)  # fmt: skip
def test_what_real_files_hold_is_read(data: bytes) -> None:
    assert decode(data, 8, "stretch").shape == (3, 8, 8)


def test_a_jpeg_cut_anywhere_ends_as_a_picture_or_a_picture_error() -> None:
    for end in range(2, len(PROGRESSIVE), 3):
        with contextlib.suppress(PictureError):
            decode(PROGRESSIVE[:end], 8, "stretch")
