"""Requests to one bucket: listed, read, written, and repeated where it does not answer."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from visual_search.storage.uris import ObjectUri

if TYPE_CHECKING:
    from pyarrow import fs

T = TypeVar("T")
R = TypeVar("R")

NUM_READERS = 32  # requests at once: each waits some tens of milliseconds for its answer
ATTEMPTS = 8  # of a request, with pauses that double, to 20 s
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 10.0, 60.0
LOOK_ATTEMPTS, LOOK_TIMEOUT_S = 2, 3.0  # where nobody may have to wait
_MAX_PAUSE_S = 20.0
_PART_BYTES = 8 * 2**20  # of a file that is copied: a request each
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class StorageError(Exception):
    """Object storage does not answer, or refuses.

    No `OSError`: that one picture cannot be read is no reason to leave it out, as a lost file is.
    """


@dataclass(frozen=True)
class ObjectStatus:
    """What a listing says of an object.

    Attributes:
        num_bytes: Its size.
        mtime_ns: When it was written, in ns since 1970; of an object the whole second, since some
            servers tell parts of it in a listing and none where one object is asked for.
    """

    num_bytes: int
    mtime_ns: int


class Bucket:
    """The objects below an address, by their names there; for any number of threads and processes.

    Each process connects when it first asks, also after a fork.

    Args:
        root: The address.
    """

    def __init__(self, root: ObjectUri) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Bucket({str(self.root)!r})"

    def listed(self, folder: str = "", *, deep: bool = True) -> dict[str, ObjectStatus]:
        """Returns all objects below a folder, by their names below the root, sorted.

        Args:
            folder: Below the root; empty for all.
            deep: Those in its folders too.

        Raises:
            StorageError: The bucket does not answer, is not there, or refuses.
        """
        from pyarrow import fs

        start = len(self.root.path) + 1
        return {
            one.path[start:]: _status_of(one)
            for one in self._found(folder, deep=deep)
            if one.type == fs.FileType.File
        }

    def names(self) -> list[str]:
        """Returns what lies directly below the address, objects and folders, sorted.

        Raises:
            StorageError: The bucket does not answer, is not there, or refuses.
        """
        return [one.base_name for one in self._found("", deep=False)]

    def _found(self, folder: str, *, deep: bool) -> list[fs.FileInfo]:
        from pyarrow import fs

        place = self.root / folder
        try:
            with _told(place, "listed"):
                found = _connected(place).get_file_info(fs.FileSelector(place.path, recursive=deep))
        except FileNotFoundError:  # the bucket is there, and nothing below the folder
            return []
        return sorted(found, key=lambda one: str(one.path))

    def status(self, name: str = "") -> ObjectStatus | None:
        """Returns size and time of an object; None where there is none of this name.

        Raises:
            StorageError: The bucket does not answer, or refuses.
        """
        from pyarrow import fs

        place = self.root / name
        with _told(place, "looked at"):
            found = _connected(place).get_file_info(place.path)
        if found.type != fs.FileType.File:
            return None
        return _status_of(found)

    def read(
        self, name: str = "", max_bytes: int | None = None, *, is_patient: bool = True
    ) -> bytes:
        """Returns an object's bytes.

        Args:
            name: Its name.
            max_bytes: Most that are read.
            is_patient: Wait for storage that is away; False gives up within seconds, for a look
                that is soon repeated anyway, and for which nobody may have to wait.

        Raises:
            FileNotFoundError: There is no such object.
            ValueError: They are more than ``max_bytes``.
            StorageError: The bucket does not answer, refuses, or gives another number of bytes than
                it says.
        """
        place = self.root / name
        with (
            _told(place, "read"),
            _connected(place, is_patient).open_input_stream(place.path, compression=None) as stream,
        ):
            said = int(stream.metadata().get("Content-Length", -1))
            too_large = max_bytes is not None and said > max_bytes
            data = b"" if too_large else _answered(stream.read, is_patient)
        if max_bytes is not None and too_large:
            raise ValueError(
                f"{place} has {said / 2**20:.0f} MiB; expected at most {max_bytes / 2**20:.0f} MiB"
            )
        if said not in (-1, len(data)):
            raise StorageError(f"{place} gives {len(data)} of {said} bytes; start again")
        return data

    def read_part(self, name: str, start: int, num_bytes: int) -> bytes:
        """Returns some of an object's bytes; fewer where it ends before.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: The bucket does not answer, or refuses.
        """
        place = self.root / name
        with _told(place, "read"), _connected(place).open_input_file(place.path) as file:
            if start >= file.size():  # which Arrow refuses
                return b""
            return _answered(functools.partial(file.read_at, num_bytes, start))

    def copy_to(self, name: str, file: BinaryIO) -> int:
        """Writes an object's bytes to an open file, some MiB at a time; returns their number.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: The bucket does not answer, or refuses.
        """
        place, written = self.root / name, 0
        with _told(place, "read"):
            stream = _connected(place).open_input_stream(place.path, compression=None)
        with stream:
            while True:
                with _told(place, "read"):
                    part = _answered(functools.partial(stream.read, _PART_BYTES))
                if not part:
                    return written
                written += file.write(part)

    def write(self, name: str, file: Path) -> ObjectStatus:
        """Writes a file of this machine as an object, which is there whole or not at all.

        Raises:
            OSError: The file cannot be read.
            StorageError: The bucket does not answer, or refuses.
        """
        place = self.root / name
        with open(file, "rb") as data:
            with _told(place, "written"):
                stream = _connected(place).open_output_stream(place.path, compression=None)
            try:
                while part := data.read(_PART_BYTES):
                    with _told(place, "written"):
                        stream.write(part)
                with _told(place, "written"):
                    stream.close()
            except BaseException:
                _leave_open(stream)
                raise
        status = self.status(name)
        if status is None or status.num_bytes != os.path.getsize(file):
            raise StorageError(f"{place} was written and is not there as a whole; start again")
        return status

    def remove(self, name: str) -> None:
        """Removes an object; one that is not there is none to remove.

        `pyarrow.fs` writes an empty object for its folder, ``folder/``, which no listing here has.

        Raises:
            StorageError: The bucket does not answer, or refuses.
        """
        place = self.root / name
        with suppress(FileNotFoundError), _told(place, "removed"):
            _connected(place).delete_file(place.path)


def _leave_open(stream: object) -> None:
    """Keeps a stream from being closed, which makes an object of what was written until then.

    One that nobody has any more is closed as well, also at the end of the process: somebody has it.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def _status_of(found: fs.FileInfo) -> ObjectStatus:
    return ObjectStatus(found.size, (found.mtime_ns or 0) // 10**9 * 10**9)


@contextmanager
def _told(place: ObjectUri, done: str) -> Iterator[None]:
    """Says what of which object failed, in the storage's words, without the environment's secrets.

    Raises:
        FileNotFoundError: There is no such object.
        StorageError: Everything else.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"nothing at {place}; check the address") from error
    except OSError as error:
        text = " ".join(str(error).split())
        for variable in _SECRETS:
            secret = os.environ.get(variable, "")
            if len(secret) > 7:  # a shorter one is none, and part of many words
                text = text.replace(secret, "***")
        raise StorageError(
            f"{place} cannot be {done}: {text}; expected a bucket that answers and allows it: look "
            "at its name, at AWS_ENDPOINT_URL and AWS_REGION, and at the credentials "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE); then start the same "
            "command again"
        ) from error


def _answered(read: Callable[[], bytes], is_patient: bool = True) -> bytes:
    """Returns what a stream gives, asked again where the answer was an error without room.

    Arrow holds room for the bytes that it asks for alone. What a busy server says is longer than a
    small object, and Arrow then raises this instead of repeating the request.
    """
    for attempt in range(1, ATTEMPTS if is_patient else LOOK_ATTEMPTS):
        try:
            return read()
        except OSError as error:
            if "Failed to flush response stream" not in str(error):
                raise
        time.sleep(min(_MAX_PAUSE_S, 0.05 * 2**attempt))
    return read()


def _connected(place: ObjectUri, is_patient: bool = True) -> fs.FileSystem:
    # A connection and its threads do not survive a fork.
    return _connection(place.scheme, place.bucket, os.getpid(), is_patient)


@functools.lru_cache(8)
def _connection(scheme: str, bucket: str, process: int, is_patient: bool) -> fs.FileSystem:
    from pyarrow import fs

    if scheme != "s3":
        found, _path = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
        return found
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    protocol, _sep, endpoint = given.rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region or "us-east-1",
        endpoint_override=endpoint or None,
        scheme=protocol or "https",
        connect_timeout=CONNECT_TIMEOUT_S if is_patient else LOOK_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S if is_patient else LOOK_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(
            max_attempts=ATTEMPTS if is_patient else LOOK_ATTEMPTS
        ),
        background_writes=False,
    )


def in_parallel(
    call: Callable[[T], R],
    over: Sequence[T],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """Returns what a request gives for each of many, `NUM_READERS` at a time, in their order.

    Args:
        call: The request.
        over: What for.
        on_progress: Called with how many of how many are done.

    Raises:
        Exception: The first that a request raised; those that wait are not made then.
    """
    results: list[R] = []
    pool = ThreadPoolExecutor(min(NUM_READERS, max(1, len(over))), thread_name_prefix="storage")
    try:
        for result in pool.map(call, over):
            results.append(result)
            if on_progress is not None:
                on_progress(len(results), len(over))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results
