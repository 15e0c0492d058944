"""Pictures inside tar archives, read where they lie: nothing is unpacked to the disk."""

from __future__ import annotations

import os
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO

from visual_search.catalog.readers.picture_names import MAX_PICTURE_BYTES, safe_name
from visual_search.catalog.readers.sources import HashedSource
from visual_search.storage.seekable import ObjectFile, open_object
from visual_search.storage.uris import ObjectUri, Place

_KEPT_TARS = 4  # a member's name and place take some 200 bytes, and a tar may have 10,000


@dataclass(frozen=True)
class TarMember:
    """A plain file in a tar.

    Attributes:
        offset: Where its bytes begin in the tar.
        size: How many they are.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class Tar:
    """One archive, as it was when its members were listed.

    Attributes:
        path: Where it lies.
        stamp: Size in bytes and time of modification in ns.
        members: The plain files by name.
        refused: Members that cannot be used, and why.
        opened: One on object storage, open.
    """

    path: Place
    stamp: tuple[int, int]
    members: Mapping[str, TarMember]
    refused: tuple[tuple[str, str], ...] = ()
    opened: ObjectFile | None = None

    def read(self, name: str, max_bytes: int) -> bytes:
        """Returns the bytes of a member.

        Raises:
            FileNotFoundError: No member has this name, or the tar is gone.
            ValueError: It is larger than ``max_bytes``, or the tar has changed since it was listed.
        """
        member = self.members.get(name)
        if member is None:
            raise FileNotFoundError(f"no member {name!r} in {self.path}")
        if member.size > max_bytes:
            raise ValueError(
                f"{name!r} in {self.path} has {member.size:,} bytes; expected at most "
                f"{max_bytes:,}: leave it out"
            )
        if self.opened is not None:
            return self.opened.read_at(member.offset, member.size)
        with open(str(self.path), "rb") as file:
            if _stamp(file.fileno()) != self.stamp:
                raise ValueError(
                    f"{self.path} has changed since it was listed; expected the same file: start "
                    "again"
                )
            file.seek(member.offset)
            return file.read(member.size)


def list_tar(path: Place) -> Tar:
    """Returns the members of an uncompressed tar; reads their headers and none of their bytes.

    Folders do not count. Links, devices, sparse files, unsafe names and a name that stands twice
    are refused. A tar on object storage is read by blocks, whole.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        ValueError: It is no tar, a compressed one, or cut off or damaged between two members.
        StorageError: Object storage does not answer, or refuses.
    """
    if isinstance(path, ObjectUri):
        opened = open_object(path)
        found = _listed(opened, path, (opened.status.num_bytes, opened.status.mtime_ns))
        return replace(found, opened=opened)
    with open(path, "rb") as file:
        return _listed(file, path, _stamp(file.fileno()))


def _listed(file: IO[bytes] | ObjectFile, path: Place, stamp: tuple[int, int]) -> Tar:
    members: dict[str, TarMember] = {}
    refused: list[tuple[str, str]] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for found in archive:
                name, reason = _judge(found)
                if not reason and name in members:
                    reason = "the name stands twice in the tar; the first one counts"
                if reason:
                    refused.append((name, reason))
                elif not found.isdir():
                    members[name] = TarMember(found.offset_data, found.size)
            end = archive.offset
    # the last two: headers in a long chain, and one that declares more than there can be
    except (
        tarfile.TarError,
        ValueError,
        OverflowError,
        EOFError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as a tar ({str(error) or type(error).__name__}); expected "
            "a whole, uncompressed one: unpack a .tar.gz with gunzip, fetch a damaged one again"
        ) from error
    # tarfile takes a damaged header for the end; the real one is a block of zeros or nothing
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise ValueError(
            f"{path} is damaged at byte {end}: what stands there is no header of a member; "
            "fetch it again"
        )
    return Tar(path, stamp, members, tuple(refused))


class ListedTars(Mapping[str, Tar]):
    """Tars whose members are listed when they are asked for; the lists of the last few are kept.

    What is asked for in the order of the tars is listed once. A tar that changed since it was
    listed first is refused. Can be shared between threads, and pickled.

    Args:
        paths: The tars by name.
    """

    def __init__(self, paths: Mapping[str, Place]) -> None:
        self._paths = dict(paths)
        self._stamps: dict[str, tuple[int, int]] = {}
        self._kept: OrderedDict[str, Tar] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ListedTars], tuple[Mapping[str, Place]], object]:
        return type(self), (self._paths,), {"_stamps": self._stamps}

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def __getitem__(self, name: str) -> Tar:
        with self._lock:  # else every thread would list the same tar
            if name not in self._kept:
                tar = list_tar(self._paths[name])
                if self._stamps.setdefault(name, tar.stamp) != tar.stamp:
                    raise ValueError(
                        f"{tar.path} has changed since it was listed; expected the same file: "
                        "start again"
                    )
                while len(self._kept) >= _KEPT_TARS:
                    self._kept.popitem(last=False)
                self._kept[name] = tar
            self._kept.move_to_end(name)
            return self._kept[name]


def _judge(found: tarfile.TarInfo) -> tuple[str, str]:
    """Returns the clean name, and the reason why the member cannot be used, or nothing."""
    if found.isdir():
        return found.name, ""
    try:
        name = safe_name(found.name)
    except ValueError as error:
        return found.name, str(error)
    if not found.isreg() or found.issparse():
        return name, "it is a link, a device or a sparse file; expected a plain file"
    return name, ""


def _stamp(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


class TarSource(HashedSource):
    """Pictures inside tars, named ``<tar>/<member>``.

    Args:
        tars: The archives by name.
    """

    def __init__(self, tars: Mapping[str, Tar]) -> None:
        super().__init__()
        self._tars = tars

    def __repr__(self) -> str:
        return f"TarSource({len(self._tars)} tar(s))"

    def load(self, image: str) -> bytes:
        """Returns the member's bytes.

        Raises:
            FileNotFoundError: No member has this name, or the tar is gone.
            ValueError: The member is larger than 64 MiB, or the tar has changed since it was
                listed.
        """
        tar, name = self._locate(image)
        return tar.read(name, MAX_PICTURE_BYTES)

    def problem(self, image: str) -> str | None:
        """Returns the reason why ``image`` cannot be loaded, or ``None``; reads no member."""
        try:
            tar, name = self._locate(image)
        except FileNotFoundError as error:
            return str(error)
        size = tar.members[name].size
        if size > MAX_PICTURE_BYTES:
            return f"it has {size:,} bytes; expected at most {MAX_PICTURE_BYTES:,}"
        return None

    def _locate(self, image: str) -> tuple[Tar, str]:
        # the name of a tar ends in .tar, and so may a folder's around it or within it
        end = image.find(".tar/")
        while end >= 0:
            tar = self._tars.get(image[: end + 4])
            if tar is not None and image[end + 5 :] in tar.members:
                return tar, image[end + 5 :]
            end = image.find(".tar/", end + 1)
        raise FileNotFoundError(f"no picture {image!r} in {self!r}")
