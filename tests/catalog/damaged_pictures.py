"""Damaged files by the thousand, decoded in a process of their own, so that its crash is a result.

``python -m tests.catalog.damaged_pictures --files 20000`` from the project's folder (`make fuzz`)
prints what became of them; the tests run fewer. The same numbers and seed give the same files.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, features

from tests.catalog.odd_pictures import encoded
from visual_search.catalog.images import PictureError, decode, decode_whole

FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF"),
    *(("AVIF",) if features.check("avif") else ()),
)
DAMAGES = ("cut", "three bytes", "one bit")
SEED = 20240607

# What takes longer has hung: whole files take a thousandth of a second.
MAX_CPU_S = 20.0
MAX_WAIT_S = 120.0  # on a machine that does other things as well
# A damaged header may announce the 64 million pixels that are allowed. Pillow takes 4 bytes for
# each, once as stored and twice more while transparent parts are put on white.
MAX_GROWTH_BYTES = 3 * 4 * 64_000_000 + 128 * 2**20
MAX_FAILURES = 20  # then the run ends: each costs a new process

Decode = Callable[[bytes, int], np.ndarray]


@dataclass
class Report:
    """What became of the files.

    Attributes:
        outcomes: (format, damage, ``picture`` or ``refused``) -> how many.
        failures: One line for each file that ended in another way.
        slowest: CPU seconds and number of the slowest file.
        growth_bytes: Peak of resident memory above what the process had before the first file.
    """

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    growth_bytes: int = 0

    def note(self, number: int, seed: int, outcome: str, cpu_s: float, growth_bytes: int) -> None:
        """Counts one file."""
        if outcome in ("picture", "refused"):
            self.outcomes[(*_kind_of(number), outcome)] += 1
        else:
            self.failures.append(f"{_name(number, seed)} {outcome}")
        self.slowest = max(self.slowest, (cpu_s, number))
        self.growth_bytes = max(self.growth_bytes, growth_bytes)


@functools.cache
def whole_files() -> dict[str, list[bytes]]:
    """Returns files of each format, in the ways that have parsers of their own."""
    pillow_heif.register_heif_opener()
    y, x = np.mgrid[:60, :80]
    pixels = np.stack([255 * x / 80, 255 * y / 60, 128 + 0 * x, 255 - 2 * x], axis=-1)
    rgba = Image.fromarray(pixels.astype(np.uint8))
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    palette = rgb.quantize(64)
    deep = Image.fromarray(np.asarray(grey.resize((40, 30))).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    frames = {"save_all": True, "append_images": [rgb.rotate(180)], "duration": 40}
    files: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
        "JPEG": [
            (rgb, {"exif": exif}),
            (rgb, {"progressive": True, "restart_marker_rows": 1}),
            (rgb.convert("CMYK"), {}),
            (grey, {"icc_profile": bytes(200)}),
        ],
        "PNG": [(rgba, {"exif": exif}), (palette, {"transparency": 3}), (deep, {}), (rgb, frames)],
        "GIF": [(palette, {"transparency": 3}), (grey, {"interlace": 1}), (rgb, frames)],
        "WEBP": [(rgb, {"exif": exif}), (rgba, {"lossless": True}), (rgba, {}), (rgb, frames)],
        "BMP": [(rgb, {}), (palette, {}), (grey.convert("1"), {})],
        "TIFF": [
            (rgb, {"compression": "tiff_lzw", "exif": exif}),
            (rgba, {}),
            (rgb, {"compression": "jpeg"}),
            (deep, {"compression": "tiff_deflate"}),
        ],
        "HEIF": [(rgb, {"exif": exif}), (rgba, {})],
        "AVIF": [(rgb, {"exif": exif, "speed": 8}), (rgba, {"speed": 8}), (rgb, frames)],
    }
    return {
        kind: [encoded(image, kind, **options) for image, options in files[kind]]
        for kind in FORMATS
    }


def damaged(
    number: int, wholes: Mapping[str, Sequence[bytes]], seed: int = SEED
) -> tuple[str, str, bytes]:
    """Returns the format, the damage and the bytes of one file."""
    kind, damage = _kind_of(number)
    rng = np.random.default_rng([seed, number])
    data = bytearray(wholes[kind][int(rng.integers(len(wholes[kind])))])
    if damage == "cut":
        del data[int(rng.integers(len(data))) :]
        return kind, damage, bytes(data)
    # One time in two among the first 200 bytes: headers, where it hurts.
    end = min(len(data), 200) if rng.integers(2) else len(data)
    if damage == "three bytes":
        for position in rng.choice(end, 3, replace=False):
            data[position] ^= int(rng.integers(1, 256))
    else:
        data[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return kind, damage, bytes(data)


def decode_in_turns(data: bytes, number: int) -> np.ndarray:
    """Decodes as the product does: stretched, in a letterbox, or whole."""
    turn = number // (len(FORMATS) * len(DAMAGES)) % 3
    whole, size_px = turn == 2, 32
    picture = decode_whole(data) if whole else decode(data, size_px, ("stretch", "letterbox")[turn])
    assert picture.dtype == np.uint8
    assert picture.shape[2:] == (3,) if whole else picture.shape == (3, size_px, size_px)
    return picture


def fuzz(
    num_files: int,
    *,
    seed: int = SEED,
    decode_one: Decode = decode_in_turns,
    max_cpu_s: float = MAX_CPU_S,
    max_wait_s: float = MAX_WAIT_S,
) -> Report:
    """Decodes the files 0 to ``num_files - 1`` in another process, in a new one after a crash.

    A file is a failure if it kills the process, raises anything but a ``PictureError`` with a
    reason, or takes more than ``max_cpu_s`` or ``max_wait_s``.

    Args:
        num_files: How many files.
        seed: Other files.
        decode_one: Given the bytes and the number of each file; an importable function.
        max_cpu_s: CPU seconds for one file; beyond them the system ends the process.
        max_wait_s: Seconds for one file on the wall; the same.
    """
    context = multiprocessing.get_context("spawn")  # no memory and no threads of the parent
    report, wholes, done = Report(), whole_files(), 0
    while done < num_files and len(report.failures) < MAX_FAILURES:
        receiving, sending = context.Pipe(duplex=False)
        numbers, limits = range(done, num_files), (max_cpu_s, max_wait_s)
        arguments = (sending, wholes, numbers, seed, decode_one, limits)
        process = context.Process(target=_decode_all, args=arguments)
        process.start()
        sending.close()  # only the other process holds it now: its death ends the stream
        try:
            while done < num_files:
                report.note(done, seed, *receiving.recv())
                done += 1
        except EOFError:
            process.join()  # it is dying on its own: its status says of what
            report.failures.append(f"{_name(done, seed)} {_death(process.exitcode)}")
            done += 1
        finally:
            process.kill()
            process.join()
            receiving.close()
    return report


def _decode_all(
    sending: Connection,
    wholes: Mapping[str, Sequence[bytes]],
    numbers: range,
    seed: int,
    decode_one: Decode,
    limits: tuple[float, float],
) -> None:
    warnings.simplefilter("ignore")  # Pillow's about odd EXIF and many pixels
    for files in wholes.values():
        for data in files:
            decode_whole(data)  # loads the libraries, before memory is measured
    start_bytes = _peak_bytes()
    for number in numbers:
        data = damaged(number, wholes, seed)[2]
        # CPU time and time on the wall: either signal ends the process, also within a decoder
        # written in C.
        for timer, limit_s in zip((signal.ITIMER_PROF, signal.ITIMER_REAL), limits, strict=True):
            signal.setitimer(timer, limit_s)
        began = time.process_time()
        outcome = "picture"
        try:
            decode_one(data, number)
        except PictureError as error:
            outcome = "refused" if str(error) else "no reason"
        except BaseException as error:
            outcome = f"raised {type(error).__name__}: {error}"
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        sending.send((outcome, time.process_time() - began, _peak_bytes() - start_bytes))


def _kind_of(number: int) -> tuple[str, str]:
    """Returns the format and the damage: every combination in turn."""
    return FORMATS[number % len(FORMATS)], DAMAGES[number // len(FORMATS) % len(DAMAGES)]


def _name(number: int, seed: int) -> str:
    kind, damage = _kind_of(number)
    return f"file {number} of seed {seed} ({kind}, {damage})"


def _death(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended the process with status {exitcode}"
    return f"ended the process by {signal.Signals(-exitcode).name}"


def _peak_bytes() -> int:
    """Returns largest resident memory so far of this process, not of the one that started it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # macOS, where the number is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the outcomes; the exit status is 1 if a file failed or memory grew too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", type=int, metavar="NUMBER", help="write this file to stdout")
    options = parser.parse_args(arguments)
    if options.write is not None:
        sys.stdout.buffer.write(damaged(options.write, whole_files(), options.seed)[2])
        return 0
    began = time.perf_counter()
    report = fuzz(options.files, seed=options.seed)
    print(f"{'format':8}{'damage':14}{'picture':>9}{'refused':>9}")
    for kind in FORMATS:
        for damage in DAMAGES:
            counts = [report.outcomes[kind, damage, end] for end in ("picture", "refused")]
            print(f"{kind:8}{damage:14}{counts[0]:9,}{counts[1]:9,}")
    print(
        f"{sum(report.outcomes.values()):,} files in {time.perf_counter() - began:.0f} s; slowest "
        f"{report.slowest[0]:.2f} s of CPU (file {report.slowest[1]}); memory grew by "
        f"{report.growth_bytes / 2**20:.0f} MiB, at most {MAX_GROWTH_BYTES / 2**20:.0f} allowed"
    )
    for failure in report.failures:
        print(f"FAILED   {failure}")
    return int(bool(report.failures) or report.growth_bytes > MAX_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
