"""Every picture decoded once: a memory-mapped uint8 store ``[rows, 3, S, S]`` on the disk.

A store is a folder named after the transform, and pictures are found in it by their content::

    <cache_dir>/128px-stretch-v1-pillow13.0.0/
      pictures.u8   rows of 3 x S x S bytes, one picture each; rows are only ever added
      journal.txt   one line a finished row: hash of the content key, number of the row
      lock          held by the process that adds rows

A line enters the journal after the bytes of its row have reached the disk. So a build that was
killed goes on where it was: rows without a line are never read, a torn last line is not 48 bytes
long and is passed over. Neither file is ever shortened or rewritten, which keeps the maps of other
running processes valid. Delete the folder to get the space of outdated pictures back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import PIL
from numpy.typing import NDArray

from visual_search.atomic import telling_full_disk
from visual_search.catalog.catalog import BadItemsError, Catalog, PictureSource, RefusedItem
from visual_search.catalog.images import DECODER_VERSION, Fit, check_target
from visual_search.catalog.streaming import (
    LOAD_ERRORS,
    TASK_ROWS,
    brought_to,
    num_reading,
    unreadable,
)
from visual_search.locking import file_lock

OnBadItem = Literal["error", "skip", "skip_any"]

# 36 hex digits of the key's SHA-256 (144 bits: no two keys meet), the row, the line's end.
_LINE = re.compile(rb"([0-9a-f]{36}) ([0-9]{10})")

# Rows decoded between two flushes: what a kill costs at most, and half of the memory in use. The
# threads wait for the last flush alone: a small one.
_CHUNK_BYTES, _CHUNK_ROWS = 32 * 2**20, 128


@dataclass(frozen=True, eq=False)
class Pictures:
    """The cached pictures of a catalogue: row i is the picture of row i of its table.

    Cheap to pickle, and safe in forked workers: the file is mapped on the first access in each
    process, read-only.

    Attributes:
        path: The store's file.
        store_rows: Row in the file of each picture (``[N] int64``).
        size_px: ``S``, the side of a picture in pixels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pictures.u8"
        >>> _ = path.write_bytes(bytes(range(24)))  # two pictures of 2 x 2
        >>> pictures = Pictures(path, store_rows=np.array([1, 0, 1]), size_px=2)
        >>> len(pictures), pictures[[1, 2]][:, 0].tolist()
        (3, [[[0, 1], [2, 3]], [[12, 13], [14, 15]]])
    """

    path: Path
    store_rows: NDArray[np.int64]
    size_px: int

    def __len__(self) -> int:
        return len(self.store_rows)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Returns the pictures of these rows as a copy: ``[n, 3, S, S] uint8``, contiguous.

        Raises:
            TypeError: ``rows`` is no one-dimensional sequence of integers.
            IndexError: A row is not in 0..N-1 (also a negative one).
            RuntimeError: The store's file has been shortened since it was opened.
        """
        wanted = np.asarray(rows)
        if wanted.ndim == 1 and wanted.size == 0:
            wanted = wanted.astype(np.int64)
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise TypeError(
                f"rows is {type(rows).__name__} with shape {list(wanted.shape)} and dtype "
                f"{wanted.dtype}; expected a one-dimensional sequence of row numbers, as [3]"
            )
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise IndexError(
                f"row {int(outside[0])} is not among the {len(self)} pictures; expected "
                f"0..{len(self) - 1}"
            )
        if not len(wanted):
            return np.empty((0, 3, self.size_px, self.size_px), np.uint8)
        pixels: NDArray[np.uint8] = self._map()[self.store_rows[wanted]]
        return pixels

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "store_rows": self.store_rows, "size_px": self.size_px}

    def _map(self) -> NDArray[np.uint8]:
        mapped: NDArray[np.uint8] | None = self.__dict__.get("_mapped")
        if mapped is None:
            shape = (int(self.store_rows.max()) + 1, 3, self.size_px, self.size_px)
            # Reading a map past the file's end kills the process (SIGBUS), so look first.
            if self.path.stat().st_size < np.prod(shape):
                raise RuntimeError(
                    f"{self.path} has {self.path.stat().st_size:,} bytes; expected at least "
                    f"{np.prod(shape):,}; delete its folder and start again"
                )
            # asarray: indexing the memmap class itself costs several times as much.
            mapped = np.asarray(np.memmap(self.path, np.uint8, mode="r", shape=shape))
            object.__setattr__(self, "_mapped", mapped)
        return mapped


@dataclass(frozen=True)
class CachedCatalog:
    """A catalogue whose every picture lies decoded in the cache.

    Attributes:
        catalog: The catalogue without the refused items; ``refused`` names them.
        pictures: Its pictures, in the order of its table.
        num_decoded: Different pictures that were decoded now.
        num_reused: Different pictures that were in the cache already.
    """

    catalog: Catalog
    pictures: Pictures
    num_decoded: int
    num_reused: int


def cache_pictures(
    catalog: Catalog,
    *,
    size_px: int,
    fit: Fit,
    cache_dir: str | os.PathLike[str],
    on_bad_item: OnBadItem,
    num_threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CachedCatalog:
    """Returns the catalogue with its pictures decoded, reusing what earlier runs decoded.

    Items that share a picture's content share its row. Pictures that do not decode are not
    remembered: the next call tries and reports them again. Several processes may call this at the
    same time; one decodes, the others wait and reuse.

    Args:
        catalog: Items whose pictures are wanted.
        size_px: ``S``, the side in pixels.
        fit: As in :func:`visual_search.catalog.images.decode`.
        cache_dir: Folder of all stores; is made if missing.
        on_bad_item: ``error`` refuses the catalogue if one picture is missing or does not decode,
            after trying all; ``skip`` leaves these items out and lists them in
            ``catalog.refused``, which may leave a category without items.
        num_threads: Threads that decode; by default one a usable core.
        on_progress: Called in this thread with (done, total) pictures to decode. Not called when
            nothing is to decode.

    Raises:
        ValueError: ``size_px``, ``fit``, ``on_bad_item`` or ``num_threads`` is out of range, or no
            item is left.
        BadItemsError: With ``error``: pictures are missing or do not decode.
        OSError: The disk lacks the space (nothing has been decoded then), or cannot be written.
    """
    check_target(size_px, fit)
    if on_bad_item not in get_args(OnBadItem):
        raise ValueError(
            f"on_bad_item is {on_bad_item!r}; expected one of {list(get_args(OnBadItem))}"
        )
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; expected at least 1, or None")

    images = list(catalog.table["image"])
    keys, reasons = _content_keys(catalog.source, images)
    image_of_key = {key: image for image, key in zip(images, keys, strict=True) if key is not None}
    store = _Store(Path(cache_dir).resolve(), size_px, fit)
    row_of_key = store.rows(image_of_key)
    missing = {key: image for key, image in image_of_key.items() if key not in row_of_key}
    num_decoded = 0
    failures: dict[str, str] = {}  # key -> reason
    if missing:
        with store.lock():
            row_of_key |= store.rows(missing)  # another process may just have added them
            missing = {key: image for key, image in missing.items() if key not in row_of_key}
            threads = num_threads or num_reading(catalog.source)
            added, failures = _decode_into(store, catalog.source, missing, threads, on_progress)
            row_of_key |= added
            num_decoded = len(added)

    refused = tuple(
        RefusedItem(item_id, image, reasons[image] if key is None else failures[key])
        for item_id, image, key in zip(catalog.table["item_id"], images, keys, strict=True)
        if key is None or key in failures
    )
    kept = catalog
    if refused:
        if on_bad_item == "error":
            raise BadItemsError(refused, f"catalogue {catalog.name!r}")
        good = [i for i, key in enumerate(keys) if key is not None and key not in failures]
        if not good:
            raise ValueError(
                f"no item of catalogue {catalog.name!r} is left: all {len(refused)} pictures were "
                f"refused, the first, {refused[0].image}, because: {refused[0].reason}; check the "
                "column and the folder that the pictures are read from"
            )
        kept = replace(catalog.take(good), refused=(*catalog.refused, *refused))
    store_rows = [row_of_key[key] for key in keys if key is not None and key in row_of_key]
    return CachedCatalog(
        catalog=kept,
        pictures=Pictures(store.pictures_path, np.array(store_rows, dtype=np.int64), size_px),
        num_decoded=num_decoded,
        num_reused=len(row_of_key) - num_decoded,
    )


class _Store:
    """One folder of decoded pictures, all brought to the same size in the same way."""

    def __init__(self, cache_dir: Path, size_px: int, fit: Fit) -> None:
        self.size_px = size_px
        self.fit: Fit = fit
        self.row_bytes = 3 * size_px * size_px
        # Pillow is part of the name: a new release may bring decoders that round differently.
        transform = f"{size_px}px-{fit}-v{DECODER_VERSION}-pillow{PIL.__version__}"
        self.folder = cache_dir / transform
        self.pictures_path = self.folder / "pictures.u8"
        self.journal_path = self.folder / "journal.txt"

    def rows(self, keys: Mapping[str, str]) -> dict[str, int]:
        """Returns the finished row of each of these keys that has one."""
        try:
            journal = self.journal_path.read_bytes()
            num_rows = self.pictures_path.stat().st_size // self.row_bytes
        except FileNotFoundError:
            return {}
        row_of_hash: dict[bytes, int] = {}
        for line in journal.split(b"\n"):
            found = _LINE.fullmatch(line)
            # A line beyond the file's end is left over when somebody shortened the file.
            if found and (row := int(found[2])) < num_rows:
                row_of_hash[found[1]] = row
        hashes = {key: _key_hash(key) for key in keys}
        return {key: row_of_hash[h] for key, h in hashes.items() if h in row_of_hash}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Waits until no other process adds rows, and keeps the others waiting meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / "lock", wait_seconds=None):
            yield

    def check_space(self, num_rows: int) -> None:
        needed = num_rows * self.row_bytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{num_rows:,} pictures of {self.size_px} px take {needed / 2**30:.2f} GiB, and "
                f"{free / 2**30:.2f} GiB are free; make room, choose another cache folder or a "
                "smaller size",
                str(self.folder),
            )

    def append(self, keys: Sequence[str], pixels: Sequence[NDArray[np.uint8]]) -> dict[str, int]:
        """Adds pictures (each ``[3, S, S] uint8``) under the lock; gives their rows."""
        with telling_full_disk(self.pictures_path), open(self.pictures_path, "ab") as file:
            # Whole rows and half a row that an interrupted build left are passed over.
            first = -(-os.fstat(file.fileno()).st_size // self.row_bytes)
            file.truncate(first * self.row_bytes)  # fills up the half row
            for picture in pixels:
                file.write(np.ascontiguousarray(picture).data)
            file.flush()
            os.fsync(file.fileno())
        rows = {key: first + i for i, key in enumerate(keys)}
        lines = b"".join(b"%s %010d\n" % (_key_hash(key), row) for key, row in rows.items())
        with telling_full_disk(self.journal_path), open(self.journal_path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read(1) not in (b"", b"\n"):  # a torn last line must not swallow ours
                lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        return rows


def _decode_into(
    store: _Store,
    source: PictureSource,
    image_of_key: Mapping[str, str],
    num_threads: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, int], dict[str, str]]:
    """Decodes pictures in threads into the store; gives key -> row and key -> reason."""
    store.check_space(len(image_of_key))
    keys = list(image_of_key)
    chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // store.row_bytes))
    chunks = [keys[start : start + chunk_rows] for start in range(0, len(keys), chunk_rows)]
    added: dict[str, int] = {}
    failures: dict[str, str] = {}
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")

    def decode_some(some: Sequence[str]) -> list[NDArray[np.uint8] | str]:
        return [_load_one(source, image_of_key[key], store) for key in some]

    def submit(chunk: Sequence[str]) -> list[Future[list[NDArray[np.uint8] | str]]]:
        starts = range(0, len(chunk), TASK_ROWS)
        return [pool.submit(decode_some, chunk[start : start + TASK_ROWS]) for start in starts]

    try:
        done = 0
        ahead = submit(chunks[0]) if chunks else []
        for number, chunk in enumerate(chunks):
            futures = ahead
            # The threads go on with the next chunk while this one is written.
            ahead = submit(chunks[number + 1]) if number + 1 < len(chunks) else []
            good: dict[str, NDArray[np.uint8]] = {}
            results = (result for future in futures for result in future.result())
            for key, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    failures[key] = result
                else:
                    good[key] = result
                done += 1
                if on_progress is not None:
                    on_progress(done, len(keys))
            if good:
                added |= store.append(list(good), list(good.values()))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return added, failures


def _load_one(source: PictureSource, image: str, store: _Store) -> NDArray[np.uint8] | str:
    """Returns the picture (``[3, S, S] uint8``), or the reason why there is none."""
    try:
        loaded = source.load(image)
    except LOAD_ERRORS as error:
        return unreadable(error)
    return brought_to(loaded, store.size_px, store.fit)


def _content_keys(
    source: PictureSource, images: Sequence[str]
) -> tuple[list[str | None], dict[str, str]]:
    """Returns each image's content key, ``None`` where it cannot be read, and image -> reason."""
    try:
        return list(source.content_keys(images)), {}
    except LOAD_ERRORS:
        pass  # one is bad: ask for each alone, to name it
    keys: list[str | None] = []
    reasons: dict[str, str] = {}
    for image in images:
        try:
            keys.append(source.content_keys([image])[0])
        except LOAD_ERRORS as error:
            keys.append(None)
            reasons[image] = unreadable(error)
    return keys, reasons


def _key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).hexdigest()[:36].encode()
