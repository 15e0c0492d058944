"""Which pictures are the same: a key of the exact pixels, and a hash that survives recompression.

Both are taken from decoded pictures, never from files: two files of one picture differ, and their
decoded pixels may not. What they say about queries and gallery is in `retrieval/leaks.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NO_HASH = 0
"""The hash of a picture that has too little contrast for one; it matches nothing, itself included.

No other picture can have it: the hash marks the coefficients above their median, half of the 64.
"""

# Gray levels of 255, over the picture shrunk to 32 px. Below it noise draws the hash: white with
# random values up to 16 levels darker, compressed as JPEG, has 0.1 to 0.9. The faintest of 12,225
# product crops, a fine necklace on white, has 3.5; of the 200 faintest, 199 keep their hash within
# 4 bits when they are compressed again at quality 75.
MIN_CONTRAST = 1.5
_HASH_SIDE_PX = 32  # pHash: 8 coefficients a side, 4 pixels each
_BLOCK_BYTES = 16 * 2**20


class PictureRows(Protocol):
    """Pictures that are read by their rows: the cache's, or an array ``[N, 3, S, S] uint8``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


def pixel_keys(
    pictures: PictureRows,
    rows: Sequence[int] | NDArray[np.integer[Any]],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Returns a key of each picture's pixels: equal if, and only if, every pixel is the same.

    BLAKE2b of 20 bytes over height, width and pixels, as 40 hexadecimal digits. Keys of pictures
    that were decoded to different sizes, or cropped and fitted differently, never match.

    Args:
        pictures: `visual_search.catalog.cache.Pictures`, or ``[N, 3, S, S] uint8``.
        rows: Their rows to read, each in 0..N-1, in any order and also twice; may be empty.
        on_progress: Called with (done, total) pictures.

    Returns:
        One key a row, in the order of ``rows``.

    Raises:
        TypeError: ``rows`` is no one-dimensional sequence of integers.
        ValueError: The pictures are no ``[n, 3, S, S] uint8``.
        IndexError: A row is not in 0..N-1.

    Example:
        >>> white = np.full((3, 3, 8, 8), 255, np.uint8)
        >>> white[1, 0, 0, 0] = 254
        >>> first, second, third = pixel_keys(white, [0, 1, 2])
        >>> first == third, first == second, len(first)
        (True, False, 40)
    """
    keys: list[str] = []
    for block, total in _blocks(pictures, rows):  # [n, 3, H, W]
        shape = f"{block.shape[2]}x{block.shape[3]}:".encode()
        for picture in block:
            digest = hashlib.blake2b(shape, digest_size=20)
            digest.update(picture.tobytes())
            keys.append(digest.hexdigest())
        if on_progress is not None:
            on_progress(len(keys), total)
    return keys


def perceptual_hashes(
    pictures: PictureRows,
    rows: Sequence[int] | NDArray[np.integer[Any]],
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint64]:
    """Returns the 64-bit pHash of each picture: few bits differ where two pictures look the same.

    The picture is made gray and shrunk to 32 × 32 px; of its cosine transform, the 8 × 8 lowest
    frequencies give one bit each, whether they lie above their median. The size to which a
    picture was decoded therefore hardly matters (at most a few bits); whether it was stretched or
    padded does. The bits that differ are always an even number, since every hash has 32 ones.

    A picture of almost one colour has no shape to hash: pHash gives every plain white, gray or
    coloured picture the same bits, so that all of them would match, and gives pictures with a
    little noise random ones. Below a contrast of 1.5 gray levels (standard deviation) the hash is
    therefore `NO_HASH`, 0, which is to be compared with nothing.

    Args:
        pictures: `visual_search.catalog.cache.Pictures`, or ``[N, 3, S, S] uint8``.
        rows: Their rows to read, each in 0..N-1, in any order and also twice; may be empty.
        on_progress: Called with (done, total) pictures.

    Returns:
        ``[n] uint64``, in the order of ``rows``. The first bit of the first row of frequencies is
        the highest; ``f"{value:016x}"`` is the text that imagehash prints.

    Raises:
        TypeError: ``rows`` is no one-dimensional sequence of integers.
        ValueError: The pictures are no ``[n, 3, S, S] uint8``.
        IndexError: A row is not in 0..N-1.

    Source:
        N. Krawetz, "Looks Like It" (hackerfactor.com, 2011), as the library imagehash has it.

    Example:
        >>> ramp = np.linspace(0, 255, 64).astype(np.uint8)
        >>> picture = np.broadcast_to(ramp, (1, 3, 64, 64)).copy()
        >>> darker = (picture * 0.9).astype(np.uint8)
        >>> plain = np.full_like(picture, 255)
        >>> pictures = np.concatenate([picture, darker, plain])
        >>> first, second, third = perceptual_hashes(pictures, [0, 1, 2])
        >>> int(np.bitwise_count(first ^ second)) <= 4, int(third)
        (True, 0)
    """
    import imagehash  # it loads scipy's and PyWavelets' transforms, which nothing else here needs

    side = (_HASH_SIDE_PX, _HASH_SIDE_PX)
    hashes: list[int] = []
    for block, total in _blocks(pictures, rows):
        for picture in block:
            image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
            # what phash does first; done here, the contrast is that of the pixels it goes on with
            small = image.convert("L").resize(side, Image.Resampling.LANCZOS)
            if float(np.asarray(small, dtype=np.float64).std()) < MIN_CONTRAST:
                hashes.append(NO_HASH)
                continue
            bits = imagehash.phash(small).hash  # [8, 8] bool
            hashes.append(int.from_bytes(np.packbits(bits).tobytes(), "big"))
        if on_progress is not None:
            on_progress(len(hashes), total)
    return np.array(hashes, dtype=np.uint64)


def _blocks(
    pictures: PictureRows, rows: Sequence[int] | NDArray[np.integer[Any]]
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yields the pictures of the rows, some 16 MB at a time, with the number of rows in all."""
    wanted = np.asarray(rows)
    if wanted.ndim == 1 and not wanted.size:
        return
    if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise TypeError(
            f"rows has the shape {list(wanted.shape)} and holds {wanted.dtype}; expected a "
            "one-dimensional sequence of row numbers, as [0, 3]"
        )
    outside = wanted[(wanted < 0) | (wanted >= len(pictures))]
    if len(outside):
        raise IndexError(
            f"row {int(outside[0])} is not among the {len(pictures)} pictures; expected "
            f"0..{len(pictures) - 1}: take the rows of the table that the pictures belong to"
        )
    wanted = wanted.astype(np.int64)
    first = _checked(pictures[wanted[:1]])
    step = max(1, _BLOCK_BYTES // max(1, first.nbytes))
    for start in range(0, len(wanted), step):
        yield _checked(pictures[wanted[start : start + step]]), len(wanted)


def _checked(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if block.ndim != 4 or block.shape[1] != 3 or not block.size or block.dtype != np.uint8:
        raise ValueError(
            f"the pictures are {list(block.shape)} {block.dtype}; expected [n, 3, S, S] uint8 "
            "(channels first, values 0 to 255): take them from the cache, or convert them before"
        )
    return block
