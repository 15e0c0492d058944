"""One side of a search as the floors see it: its items, and what describes their pictures.

Shapes: ``N`` gallery items, ``Q`` queries, ``n`` items of a block, ``D`` width of a description or
an embedding, ``S`` side of a picture in pixels.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import telling_full_disk
from visual_search.models.descriptors import Floats, check_pictures

OnProgress = Callable[[int, int], None]
Describe = Callable[[NDArray[np.uint8]], Floats]
"""Describes each picture by itself: ``[n, 3, S, S] uint8 -> [n, D] float32``."""

BLOCK_BYTES = 8 * 2**20  # of uint8 pixels at a time: 170 pictures of 128 px


class FloorPictures(Protocol):
    """Pictures by row number: an array ``[n, 3, S, S] uint8``, or the catalogue's cache of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class FloorItems:
    """One side of a search, the gallery or the queries: ids and pictures in the same order.

    Raises:
        ValueError: There is no item, or the lengths differ.
    """

    item_ids: Sequence[str]
    pictures: FloorPictures

    def __post_init__(self) -> None:
        if not len(self.pictures) or len(self.item_ids) != len(self.pictures):
            raise ValueError(
                f"got {len(self.item_ids)} item ids and {len(self.pictures)} pictures; expected "
                "one id for each of at least one picture: take both from the same rows"
            )

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True, eq=False)
class FloorEmbeddings:
    """What a floor gave.

    Attributes:
        gallery: ``[N, D] float32``, contiguous, finite.
        queries: ``[Q, D] float32``, contiguous, finite.
    """

    gallery: Floats
    queries: Floats

    @property
    def dim(self) -> int:
        """D as it came out: below `FloorModel.dim` where PCA found fewer components."""
        return int(self.gallery.shape[1])


class ItemCounter:
    """Counts items, and says how many of all are done."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._done = 0
        self._total = total
        self._on_progress = on_progress

    def add(self, num_items: int) -> None:
        """Counts further items."""
        self._done += num_items
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


class Described:
    """Descriptions of one side's pictures, made once into a file that is mapped into memory.

    The file has no name (where the system allows it, as POSIX does): its space is free again when
    nothing refers to the mapped descriptions any more, also when the process is killed.

    Args:
        side: Whose pictures are described.
        describe: Describes them.
        dim: D.
        scratch_dir: Folder of the file.
        progress: Told of each block that is described, and of each that is read later.

    Attributes:
        item_ids: Ids of the items, in the order of their rows.
        dim: D.

    Raises:
        OSError: The disk lacks the space.
        TypeError: The pictures are not uint8.
        ValueError: Their shape is not ``[n, 3, S, S]``, or ``describe`` gave something else.
    """

    def __init__(
        self,
        side: FloorItems,
        describe: Describe,
        dim: int,
        scratch_dir: Path,
        progress: ItemCounter,
    ) -> None:
        self.item_ids: Sequence[str] = side.item_ids
        self.dim = dim
        self._progress = progress
        first = side.pictures[np.arange(1)]
        check_pictures(first)
        self._step = max(1, BLOCK_BYTES // first.nbytes)  # a product's last bit depends on it
        _check_space(scratch_dir, len(side), dim)
        with (
            telling_full_disk(scratch_dir / "descriptions"),
            tempfile.TemporaryFile(dir=scratch_dir) as file,
        ):
            # Written, not assigned to the map: a disk that is full is an error then, no crash.
            for rows in self._blocks(np.arange(len(side))):
                found = describe(side.pictures[rows])
                if found.shape != (len(rows), dim) or found.dtype != np.float32:
                    raise ValueError(
                        f"pictures are described by {found.dtype} of shape {found.shape}; expected "
                        f"float32 of shape {(len(rows), dim)}: check dim, and convert to float32"
                    )
                file.write(np.ascontiguousarray(found).data)
                progress.add(len(rows))
            file.flush()
            # asarray: indexing the memmap class itself costs several times as much.
            self._mapped: Floats = np.asarray(
                np.memmap(file, np.float32, mode="r", shape=(len(side), dim))
            )

    def _blocks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (rows[start : start + self._step] for start in range(0, len(rows), self._step))

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Returns these rows in order, some at a time: rows ``[n]`` and ``[n, D] float32``."""
        for block in self._blocks(rows):
            yield block, self._mapped[block]
            self._progress.add(len(block))

    def all_rows(self) -> Floats:
        """Returns all descriptions as they are mapped, ``[N, D] float32``, read-only."""
        return self._mapped


def _check_space(scratch_dir: Path, num_items: int, dim: int) -> None:
    needed = num_items * dim * np.dtype(np.float32).itemsize
    free = shutil.disk_usage(scratch_dir).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the descriptions of {num_items:,} pictures take {needed / 2**30:.2f} GiB, and "
            f"{free / 2**30:.2f} GiB are free; make room, or choose another scratch_dir",
            str(scratch_dir),
        )
