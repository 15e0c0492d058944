"""Pictures decoded when they are needed, ahead of their reader: none is kept.

What a cache is to training, which reads each picture many times, this is to who reads it once. The
pixels are the same. Memory is bounded by what is decoded ahead, whatever the catalogue's size.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import PictureSource, RefusedItem
from visual_search.catalog.images import Fit, PictureError, decode, fit_array

# What reading one picture may raise: a lost file, a damaged or encrypted member of a zip.
_ZIP_ERRORS = (KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
LOAD_ERRORS = (OSError, ValueError, *_ZIP_ERRORS)

TASK_ROWS = 8  # that a thread decodes before it asks for more: asking takes the others' time
_AHEAD_TASKS = 4  # a thread: some pictures take a hundred times as long as others
_AHEAD_BYTES = 64 * 2**20  # of pixels that wait to be asked for


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """A picture that was read.

    Attributes:
        pixels: ``[3, S, S] uint8``; None where there are none.
        content_key: As its source gives it; empty where it cannot be read.
        reason: Why there are no pixels; empty where there are some.
    """

    pixels: NDArray[np.uint8] | None
    content_key: str
    reason: str


@dataclass(frozen=True)
class ItemPictures:
    """How pictures become batches.

    Attributes:
        source: Loads them.
        catalog: Its name, for messages.
        size_px: Side S of the network's input.
        fit: As in `visual_search.catalog.images.decode`.
        batch_size: Pictures a batch.
        num_threads: That decode; None takes one a usable core.
        stops_at_bad_item: Whether nothing is to come of items one of whose pictures cannot be used:
            the others are then read, to name all bad ones, and go to no network.
    """

    source: PictureSource
    catalog: str
    size_px: int
    fit: Fit
    batch_size: int
    num_threads: int | None
    stops_at_bad_item: bool


class ReadItems:
    """Some items whose pictures were all read: the good ones, and the others with the reason.

    Args:
        table: The good ones' rows of the catalogue's table, in its order.
        content_keys: One of each.
        refused: The others.
    """

    # No dataclass: Lightning would look into one for tensors, in every batch.
    def __init__(
        self, table: pd.DataFrame, content_keys: list[str], refused: list[RefusedItem]
    ) -> None:
        self.table = table
        self.content_keys = content_keys
        self.refused = refused


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """Pictures for one step of a network.

    Attributes:
        images: ``[B, 3, S, S] uint8``; B is one number for all batches of the same items, so the
            last is filled up with its last picture.
        num_kept: How many of them are items: the first ones.
        items: With the last batch, what was read.
    """

    images: NDArray[np.uint8]
    num_kept: int
    items: ReadItems | None


def read_picture(source: PictureSource, image: str, size_px: int, fit: Fit) -> ReadPicture:
    """Reads and decodes one picture; what is wrong with it is told in the result."""
    try:
        loaded, key = source.load_keyed(image)
    except LOAD_ERRORS as error:
        return ReadPicture(None, "", unreadable(error))
    pixels = brought_to(loaded, size_px, fit)
    if isinstance(pixels, str):
        return ReadPicture(None, key, pixels)
    return ReadPicture(pixels, key, "")


def brought_to(
    loaded: bytes | NDArray[np.uint8], size_px: int, fit: Fit
) -> NDArray[np.uint8] | str:
    """Returns what a source loaded as ``[3, S, S] uint8``, or the reason why that cannot be."""
    try:
        if isinstance(loaded, bytes):
            return decode(loaded, size_px, fit)
        return fit_array(loaded, size_px, fit)
    except PictureError as error:
        return str(error)


def unreadable(error: BaseException) -> str:
    """Returns one of `LOAD_ERRORS` as the reason why an item is refused."""
    return f"cannot be read: {type(error).__name__}: {error}"


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: respects taskset and container limits
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_reading(source: PictureSource, num_cores: int | None = None) -> int:
    """Returns how many threads read and decode pictures: one a core, or as many as a source wants.

    Those that read across a network wait for it most of the time.

    Args:
        source: Loads them; where it has ``num_readers``, these at least.
        num_cores: That they may use; None takes all usable ones.
    """
    return max(num_cores or usable_cores(), getattr(source, "num_readers", 1))


def read_pictures(
    source: PictureSource,
    images: Sequence[str],
    *,
    size_px: int,
    fit: Fit,
    num_threads: int | None = None,
) -> Iterator[ReadPicture]:
    """Yields pictures in their order, decoded by threads ahead of whoever asks.

    Args:
        source: Loads them.
        images: Their names.
        size_px: Side S, in pixels.
        fit: As in `visual_search.catalog.images.decode`.
        num_threads: That decode; None takes one a usable core.
    """
    threads = num_threads or num_reading(source)
    ahead = max(threads, min(_AHEAD_TASKS * threads * TASK_ROWS, _AHEAD_BYTES // (3 * size_px**2)))
    task_rows = max(1, min(TASK_ROWS, ahead // threads))
    waiting: deque[Future[list[ReadPicture]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def read(some: Sequence[str]) -> list[ReadPicture]:
        return [read_picture(source, image, size_px, fit) for image in some]

    try:
        for start in range(0, len(images), task_rows):
            waiting.append(pool.submit(read, images[start : start + task_rows]))
            if len(waiting) * task_rows > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_batches(table: pd.DataFrame, pictures: ItemPictures) -> Iterator[PictureBatch]:
    """Yields the pictures of some items in batches, at least one, and with the last what was read.

    Args:
        table: Rows of the catalogue's table, at least one.
        pictures: How they become batches.
    """
    size = max(1, min(pictures.batch_size, len(table)))
    side = pictures.size_px
    kept: list[int] = []
    keys: list[str] = []
    refused: list[RefusedItem] = []
    held: list[NDArray[np.uint8]] = []
    ready: PictureBatch | None = None  # goes out when it is known whether it is the last
    found = read_pictures(
        pictures.source,
        table["image"].tolist(),
        size_px=side,
        fit=pictures.fit,
        num_threads=pictures.num_threads,
    )
    for row, (item_id, image, picture) in enumerate(
        zip(table["item_id"], table["image"], found, strict=True)
    ):
        if picture.pixels is None:
            refused.append(RefusedItem(item_id, image, picture.reason))
            continue
        if refused and pictures.stops_at_bad_item:
            continue  # nothing comes of these items any more: the rest is only tried
        kept.append(row)
        keys.append(picture.content_key)
        held.append(picture.pixels)
        if len(held) == size:
            if ready is not None:
                yield ready
            ready, held = PictureBatch(np.stack(held), size, None), []
    if refused and pictures.stops_at_bad_item:
        ready, held = None, []
    items = ReadItems(table.iloc[kept], keys, refused)
    if held:
        if ready is not None:
            yield ready
        filled = held + [held[-1]] * (size - len(held))
        yield PictureBatch(np.stack(filled), len(held), items)
    elif ready is not None:
        yield PictureBatch(ready.images, ready.num_kept, items)
    else:  # none is good, or to be used
        yield PictureBatch(np.zeros((size, 3, side, side), np.uint8), 0, items)
