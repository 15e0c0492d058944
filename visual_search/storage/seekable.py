"""A large object as an open file: read by blocks, of which the last few are kept."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict

from visual_search.storage.bucket import Bucket, ObjectStatus, StorageError, in_parallel
from visual_search.storage.uris import ObjectUri

BLOCK_BYTES = 8 * 2**20  # a request each
_KEPT_BLOCKS = 4


def open_object(place: ObjectUri) -> ObjectFile:
    """Returns an object to be read anywhere.

    Raises:
        FileNotFoundError: There is none.
        StorageError: The bucket does not answer, or refuses.
    """
    status = Bucket(place.parent).status(place.name)
    if status is None:
        raise FileNotFoundError(f"nothing at {place}; check the address")
    return ObjectFile(place, status)


class ObjectFile(io.RawIOBase):
    """An object, open to be read anywhere; `read_at` may be called by any thread.

    Args:
        place: Its address.
        status: Its size and time.
    """

    def __init__(self, place: ObjectUri, status: ObjectStatus) -> None:
        super().__init__()
        self.status = status
        self._bucket, self._name = Bucket(place.parent), place.name
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def readable(self) -> bool:
        """Returns that it can be read."""
        return True

    def seekable(self) -> bool:
        """Returns that it can be read anywhere."""
        return True

    def tell(self) -> int:
        """Returns where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a byte, counted from the beginning, from here or from the end."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.status.num_bytes}
        self._at = max(0, starts[whence] + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer as far as there are bytes, and returns their number; see `read_at`."""
        data = self.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def read_at(self, start: int, num_bytes: int) -> bytes:
        """Returns bytes from a place on, as many as there are.

        Raises:
            FileNotFoundError: The object is gone.
            StorageError: The bucket does not answer or refuses, or the object is another one than
                it was when it was opened.
        """
        end = min(start + num_bytes, self.status.num_bytes)
        if end <= start:
            return b""
        first, last = start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        with self._lock:  # of threads that read on, one asks for the block that all need
            blocks = self._read(range(first, last + 1))
        return b"".join(blocks)[start - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    def _read(self, numbers: range) -> list[bytes]:
        wanted = [number for number in numbers if number not in self._blocks]
        self._blocks |= zip(wanted, in_parallel(self._block, wanted), strict=True)
        for number in numbers:
            self._blocks.move_to_end(number)
        blocks = [self._blocks[number] for number in numbers]
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return blocks

    def _block(self, number: int) -> bytes:
        start = number * BLOCK_BYTES
        data = self._bucket.read_part(self._name, start, BLOCK_BYTES)
        expected = min(BLOCK_BYTES, self.status.num_bytes - start)
        if len(data) != expected or self._bucket.status(self._name) != self.status:
            raise StorageError(
                f"{self._bucket.root / self._name} has changed since it was opened; expected the "
                "same object, of which no part is mixed with another's: start again"
            )
        return data
