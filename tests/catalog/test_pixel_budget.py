"""How much is decoded at the same time, and what a file may make its reader do."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from visual_search.catalog.images import PictureError, PictureLimits, decode, decode_whole
from visual_search.catalog.pixel_budget import BudgetExceededError, PixelBudget

MILLION = 1_000_000


def encoded(kind: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind, **options)
    return file.getvalue()


class Watched(PixelBudget):
    """Notes every share, and the most that were held at once."""

    def __init__(self, total_px: int, **further: Any) -> None:
        super().__init__(total_px, **further)
        self.shares: list[int] = []
        self.most = 0

    @contextmanager
    def share(self, num_px: int) -> Iterator[None]:
        with super().share(num_px):
            self.shares.append(num_px)
            self.most = max(self.most, self.taken_px)
            yield


def asked(data: bytes, total_px: int = 64 * MILLION) -> int:
    """Pixels that a picture asked for at most, at one go."""
    budget = Watched(total_px)
    decode(data, 32, "letterbox", PictureLimits(budget=budget))
    assert budget.taken_px == 0
    return max(budget.shares)


def test_pictures_that_are_decoded_together_stay_within_the_budget() -> None:
    budget = Watched(3 * MILLION)
    limits = PictureLimits(budget=budget)
    picture = encoded("PNG", 1_200, 1_000)
    together = threading.Barrier(8)

    def one(_: int) -> tuple[int, ...]:
        together.wait(20)
        return decode(picture, 16, "stretch", limits).shape

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(8))) == [(3, 16, 16)] * 8
    assert budget.shares.count(1_200_000) == 8
    assert 1_200_000 <= budget.most <= 3 * MILLION
    assert budget.taken_px == 0


def test_a_picture_counts_what_it_takes() -> None:
    size = (3_000, 2_000)
    assert asked(encoded("JPEG", *size)) <= MILLION  # drafted to 375 x 250
    assert asked(encoded("JPEG", *size, progressive=True)) == 6 * MILLION
    assert asked(encoded("PNG", *size)) == 6 * MILLION
    assert asked(encoded("WEBP", *size)) == 12 * MILLION
    with pytest.raises(PictureError, match=r"3000 x 2000 .* WEBP .* 12,000,000; at most 7,000,000"):
        asked(encoded("WEBP", *size), total_px=7 * MILLION)
    avif = encoded("AVIF", 30, 20)  # its frames may be larger than it says
    assert asked(avif) >= 30 * MILLION
    assert asked(avif, total_px=2000) == 2000
    budget = Watched(64 * MILLION)
    assert decode_whole(encoded("JPEG", *size), PictureLimits(budget=budget)).shape == (
        *size[::-1],
        3,
    )
    assert max(budget.shares) >= 6 * MILLION


def test_a_jpeg_in_several_scans_without_progression_counts_whole() -> None:
    """Each colour in a scan of its own: libjpeg keeps all coefficients here too."""
    data = encoded("JPEG", 2_000, 1_000)
    start = data.rindex(b"\xff\xda")
    assert data[start + 4] == 3
    one_colour = b"\xff\xda\0\x08\x01" + data[start + 5 : start + 7] + b"\0\x3f\0"
    assert asked(data[:start] + one_colour + data[start + 14 :]) == 2 * MILLION


def test_shares_come_in_their_turn_and_in_time() -> None:
    budget = PixelBudget(100, patience_s=0.02)
    with budget.share(60):
        with budget.share(40):
            assert budget.taken_px == 100
        with pytest.raises(BudgetExceededError, match=r"60 of 100 pixels for 0.02 s; expected 50"):
            budget.share(50).__enter__()
        with budget.share(40):  # who gave up is no longer in the way
            pass
    assert budget.taken_px == 0
    with pytest.raises(ValueError, match="101 pixels; expected at most 100"):
        budget.share(101).__enter__()
    with pytest.raises(ValueError, match="total_px is 0"):
        PixelBudget(0)
    with budget.share(100):
        limits = PictureLimits(budget=budget)
        with pytest.raises(BudgetExceededError):  # no picture is at fault
            decode(encoded("PNG", 4, 4), 4, "stretch", limits)


@pytest.mark.parametrize("cut", [40, 200, 2_000])
def test_a_damaged_picture_gives_its_share_back(cut: int) -> None:
    budget = Watched(4 * MILLION)
    with pytest.raises(PictureError):
        decode(encoded("PNG", 2_000, 2_000)[:cut], 8, "stretch", PictureLimits(budget=budget))
    assert budget.taken_px == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    picture = encoded("PNG", 1_200, 1_000)
    with PictureLimits().budget.share(160 * MILLION):
        child = os.fork()
        if child == 0:
            os._exit(0 if decode(picture, 8, "stretch").any() == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def bmp_of_runs(side: int, runs: bytes) -> bytes:
    head = struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 256)
    return b"BM" + head + info + bytes(1024) + runs


def test_texts_of_a_png_count_with_its_pixels() -> None:
    plain = encoded("PNG", 1_200, 1_000)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MILLION)))
    assert asked(plain[:33] + 20 * text + plain[33:]) == 1_200_000 + 20 * 2**20 // 8


JPEG, PNG = encoded("JPEG", 8, 8), encoded("PNG", 8, 8)
PROGRESSIVE = encoded("JPEG", 64, 64, progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]


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
    ],
    ids=["segments", "junk", "padding", "scans", "chunks", "empty pixels", "runs"],
)  # fmt: skip
def test_more_parts_than_a_real_file_has_are_refused_unread(data: bytes, what: str) -> None:
    """Each would keep a thread, most of them the whole process, for seconds to hours."""
    with pytest.raises(PictureError, match=rf"{what}.*at most [\d,]+ are read"):
        decode(data, 8, "stretch")


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
    ],
    ids=["profile", "padding", "film", "film, progressive", "scans", "texts", "runs"],
)  # fmt: skip
def test_what_real_files_hold_is_read(data: bytes) -> None:
    assert decode(data, 8, "stretch").shape == (3, 8, 8)


def test_a_jpeg_cut_anywhere_ends_as_a_picture_or_a_picture_error() -> None:
    for end in range(2, len(PROGRESSIVE), 3):
        with contextlib.suppress(PictureError):
            decode(PROGRESSIVE[:end], 8, "stretch")
