"""Where pictures come from: a folder, a zip, an address of object storage, arrays in memory.

Each source can be shared between threads, pickled, and used after a fork: none keeps a file open.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visual_search.catalog.readers.object_source import ObjectSource
from visual_search.catalog.readers.picture_names import (
    MAX_PICTURE_BYTES,
    bare_name,
    by_bare_name,
    check_size,
    fitting_names,
    is_clutter,
    no_picture,
    safe_name,
)
from visual_search.storage.bucket import Bucket, in_parallel
from visual_search.storage.copies import copied_file
from visual_search.storage.seekable import open_object
from visual_search.storage.uris import ObjectUri, Place, place_of

_RACY_NS = 2 * 10**9  # a file this young may change again within one tick of its time stamp


def is_file(place: Place) -> bool:
    """Returns whether one file lies at a place.

    Raises:
        StorageError: Object storage does not answer, or refuses.
    """
    if isinstance(place, ObjectUri):
        return bool(place.key) and Bucket(place.parent).status(place.name) is not None
    return place.is_file()


def num_bytes_of(place: Place) -> int:
    """Returns the size of a file.

    Raises:
        FileNotFoundError: There is none.
        StorageError: Object storage does not answer, or refuses.
    """
    if isinstance(place, ObjectUri):
        return open_object(place).status.num_bytes
    return place.stat().st_size


def stem_of(path: str | os.PathLike[str] | ObjectUri) -> str:
    """Returns the last part of a path or an address, without its suffix.

    Example:
        >>> stem_of("s3://shop/products.csv"), stem_of("data/photos/")
        ('products', 'photos')
    """
    place = place_of(path)
    return place.stem if isinstance(place, ObjectUri) else place.absolute().stem


def open_source(root: str | os.PathLike[str] | ObjectUri) -> FileSource:
    """Returns the source for a folder or a ``.zip``, of this machine or on object storage.

    A zip from there is copied first.

    Raises:
        FileNotFoundError: Nothing is at ``root``.
        ValueError: ``root`` is a file, but no readable zip; or neither file nor folder.
        StorageError: Object storage does not answer, or refuses.
    """
    path = place_of(root)
    if isinstance(path, ObjectUri):
        return ZipSource(copied_file(path), path) if is_file(path) else ObjectSource(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(
            f"{path} is no file, and nobody waits at a pipe; expected a folder or a zip: save it"
        )
    return FolderSource(path) if path.is_dir() else ZipSource(path)


def files_below(folder: Place, suffix: str) -> dict[str, Place]:
    """Returns the files of a folder, at any depth, that end in a suffix, by their names below it.

    Raises:
        FileNotFoundError: There is no such folder.
        StorageError: Object storage does not answer, or refuses.
    """
    source = ObjectSource(folder) if isinstance(folder, ObjectUri) else FolderSource(folder)
    return {
        name: source.root / name
        for name in source.names()
        if name.lower().endswith(suffix) and not is_clutter(name)
    }


def local_files(
    files: Mapping[str, Place], on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """Returns files by the same names, those on object storage as copies on this machine.

    Args:
        files: By their names.
        on_progress: Called with how many of how many are copied.

    Raises:
        FileNotFoundError: One is gone.
        StorageError: Object storage does not answer, or refuses.
    """
    found = {name: place for name, place in files.items() if isinstance(place, Path)}
    there = {name: place for name, place in files.items() if isinstance(place, ObjectUri)}
    if there:
        copies = in_parallel(copied_file, list(there.values()), on_progress)
        found |= dict(zip(there, copies, strict=True))
    return {name: found[name] for name in files}


class FolderSource:
    """Pictures in files below one folder, named by their relative path with ``/``.

    A name in another Unicode spelling, with another case of its suffix or with backslashes finds
    its file where no file has the very name, and one alone fits.

    Args:
        root: The folder. No name leads out of it, not even through a link.

    Raises:
        FileNotFoundError: ``root`` is no folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder at {self.root}; give the path of an existing one")
        self._real_root = os.path.realpath(self.root)
        self._real_folders: dict[str, str] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}
        # path -> (size, mtime, ctime, inode) and the key that they had
        self._keys: dict[str, tuple[tuple[int, int, int, int], str]] = {}

    def __repr__(self) -> str:
        return f"FolderSource({str(self.root)!r})"

    def load(self, image: str) -> bytes:
        """Returns the file's bytes.

        Raises:
            FileNotFoundError: No file has this name.
            ValueError: The name is unsafe or leads out of the root, is no plain file, or the file
                is larger than 64 MiB.
        """
        with open(self._locate(image)[0], "rb") as file:
            return file.read()

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        """Returns the file's bytes and their SHA-256.

        Raises:
            FileNotFoundError: No file has this name.
            ValueError: As in ``load``.
        """
        data = self.load(image)
        return data, hashlib.sha256(data).hexdigest()

    def read(self, name: str, max_bytes: int) -> bytes:
        """Returns the bytes of any file up to ``max_bytes``, links out of the root followed.

        Raises:
            FileNotFoundError: No file has this name.
            ValueError: The name is unsafe, it is no plain file, or larger.
        """
        path = self.root / safe_name(name)
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path} is no file, and nobody waits at a pipe; expected a table: save it"
            )
        check_size(str(path), path.stat().st_size, max_bytes)
        return path.read_bytes()

    def problem(self, image: str) -> str | None:
        """Returns the reason why ``image`` cannot be loaded, or ``None``; reads no file."""
        try:
            self._locate(image)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the SHA-256 of each file; a file that has not changed is hashed once a process.

        Raises:
            FileNotFoundError: No file has this name.
            ValueError: A name is refused, as in ``load``.
        """
        # one thread: 12,000 small files take 0.4 s, and 0.8 s when threads compete for the GIL
        return [self._key(image) for image in images]

    def below(self, image: str, folder: str = ".") -> str:
        """Returns a path relative to the root: one that is relative to a folder of it, or absolute.

        Raises:
            ValueError: It leads out of the root.
        """
        for root in (self.root.as_posix(), self._real_root):
            if image.startswith(f"{root}/"):
                return safe_name(image.removeprefix(f"{root}/").lstrip("/"))
        return safe_name(f"{folder}/{safe_name(image)}")

    def names(self) -> list[str]:
        """Returns the relative path of every file, sorted; a link to a folder counts as a file."""
        return sorted(self._walk(self._real_root, ""))

    def top_folders(self, base: str = "") -> list[str]:
        """Returns the names of the folders directly below ``base`` (``""`` or ``"a/"``), sorted."""
        with os.scandir(os.path.join(self._real_root, base)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(entry.path, f"{prefix}{entry.name}/")
                else:
                    yield prefix + entry.name

    def _locate(self, image: str) -> tuple[str, os.stat_result]:
        name = safe_name(image)
        try:
            return self._find(image, name)
        except (FileNotFoundError, NotADirectoryError):
            return self._find(image, self._respelled(name))

    def _find(self, image: str, name: str) -> tuple[str, os.stat_result]:
        path = os.path.join(self._real_root, name)
        try:
            status = os.lstat(path)
            real = self._real_path(path, is_link=stat.S_ISLNK(status.st_mode))
            status = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                raise
            raise ValueError(f"{image!r} cannot be opened: {error.strerror}") from error
        if os.path.commonpath([real, self._real_root]) != self._real_root:
            raise ValueError(
                f"{image!r} is a link that leads out of {self.root}, to {real}; "
                "expected a file inside: copy it there"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{image!r} is no plain file (a folder or a device); expected a file")
        check_size(image, status.st_size)
        return real, status

    def _respelled(self, image: str) -> str:
        """Returns the file's name as it is on the disk, step by step from the root.

        Raises:
            FileNotFoundError: None fits, or several.
        """
        parts = re.split(r"[/\\]", image)
        found = ""
        for place, part in enumerate(parts):
            alike = self._alike_in(found).get(bare_name(part), [])
            fitting = fitting_names(part, alike)
            if len(fitting) != 1:
                there = [f"{found}{name}" for name in fitting or alike]
                raise FileNotFoundError(no_picture(image, str(self.root), there))
            found += fitting[0] + ("/" if place < len(parts) - 1 else "")
        return found

    def _alike_in(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._alike:
            try:
                names = os.listdir(os.path.join(self._real_root, folder))
            except OSError:
                names = []
            self._alike[folder] = by_bare_name(names)
        return self._alike[folder]

    def _real_path(self, path: str, *, is_link: bool) -> str:
        if is_link:
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._real_folders:  # realpath asks for every level: 40 us a picture
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    def _key(self, image: str) -> str:
        path, status = self._locate(image)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._keys.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        with open(path, "rb") as file:
            key = hashlib.sha256(file.read()).hexdigest()
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS:
            self._keys[path] = (stamp, key)
        return key


class ZipSource:
    """Pictures inside a zip, named by their member name, backslashes in it read as slashes.

    Another spelling of a name finds its member, as for `FolderSource`.

    The list of members is read once. A picture is read by opening the file anew at the member's
    offset: an open ``ZipFile`` shares one file position between threads and forked processes, and
    a new one costs a pass over all members (0.1 s at 12,000).

    Args:
        path: The zip file.
        address: Of the object that it is a copy of, which messages then name.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        ValueError: The file is no zip.
    """

    def __init__(self, path: str | os.PathLike[str], address: ObjectUri | None = None) -> None:
        self.path = Path(path).absolute()
        self._address = address
        self._called = str(address or self.path)
        if not self.path.exists():
            raise FileNotFoundError(f"no folder or zip at {self.path}; give an existing path")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self._called} has a member whose name is no UTF-8 ({error.object!r}), and says "
                "that it is; expected names of text: rename the file and pack it again"
            ) from error
        # The last is what zipfile raises for a file that is packed in a way unknown to it.
        except (zipfile.BadZipFile, IsADirectoryError, NotImplementedError) as error:
            raise ValueError(
                f"{self._called} cannot be read as a zip ({error}); expected a folder or a zip"
            ) from error
        # where two have one name, the one that is written with slashes, as the format has it
        members.sort(key=lambda member: "\\" not in member.filename)
        self._members = {_member_key(member.filename): member for member in members}
        self._alike: dict[str, list[str]] | None = None

    def __repr__(self) -> str:
        return f"ZipSource({self._called!r})"

    def __reduce__(self) -> tuple[type[ZipSource], tuple[Path, ObjectUri | None]]:
        return type(self), (self.path, self._address)

    def load(self, image: str) -> bytes:
        """Returns the member's bytes, whose CRC-32 is checked.

        Raises:
            FileNotFoundError: No member has this name.
            ValueError: The name is unsafe, the member is encrypted, a link, a folder, compressed
                by a rare method, declared larger than 64 MiB, or damaged.
        """
        return self.read(image, MAX_PICTURE_BYTES)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Returns the bytes of any member up to ``max_bytes``; see ``load``."""
        member = self._locate(name, max_bytes)
        with open(self.path, "rb") as file:
            file.seek(member.header_offset)
            header = file.read(30)
            # PKZIP appnote 4.3.7: the local header ends with the lengths of the name and the extra
            # field, which may differ from those in the central directory
            skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            file.seek(skip, os.SEEK_CUR)
            data = file.read(member.compress_size) if header[:4] == b"PK\x03\x04" else b""
        try:
            if member.compress_type == zipfile.ZIP_DEFLATED:
                # one byte more than declared is enough to see that the declaration lies
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1)
        except zlib.error as error:
            raise ValueError(f"member {name!r} of {self._called} is damaged: {error}") from error
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise ValueError(
                f"member {name!r} of {self._called} is damaged: its size or CRC-32 is not the "
                "declared one; fetch the zip again, and do not replace it while it is read"
            )
        return data

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        """Returns the member's bytes, and their CRC-32 and size.

        Raises:
            FileNotFoundError: No member has this name.
            ValueError: As in ``load``.
        """
        return self.load(image), self.content_keys([image])[0]

    def problem(self, image: str) -> str | None:
        """Returns the reason why ``image`` cannot be loaded, or ``None``; reads no member."""
        try:
            self._locate(image, MAX_PICTURE_BYTES)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the CRC-32 and size of each member, from the zip's own list.

        Raises:
            FileNotFoundError: No member has this name.
            ValueError: A name is refused, as in ``load``.
        """
        members = (self._locate(image, MAX_PICTURE_BYTES) for image in images)
        return [f"crc32-{member.CRC:08x}-{member.file_size}" for member in members]

    def below(self, image: str, folder: str = ".") -> str:
        """Returns a path relative to a folder of the zip relative to its root.

        Raises:
            ValueError: It leads out of the root.
        """
        return safe_name(f"{folder}/{safe_name(image)}")

    def names(self) -> list[str]:
        """Returns the name of every member that is no folder, sorted."""
        return sorted(name for name in self._members if not name.endswith(("/", "\\")))

    def top_folders(self, base: str = "") -> list[str]:
        """Returns the names of the folders directly below ``base`` (``""`` or ``"a/"``), sorted."""
        inside = [name.removeprefix(base) for name in self._members if name.startswith(base)]
        return sorted({name.split("/")[0] for name in inside if "/" in name})

    def _locate(self, image: str, max_bytes: int) -> zipfile.ZipInfo:
        name = safe_name(image)
        member = self._members.get(name)
        if member is None:
            if self._alike is None:
                self._alike = by_bare_name(self.names())
            alike = self._alike.get(bare_name(name), [])
            fitting = fitting_names(name, alike)
            if len(fitting) != 1:
                raise FileNotFoundError(no_picture(image, self._called, fitting or alike))
            member = self._members[fitting[0]]
        if member.flag_bits & 0x1:
            raise ValueError(f"member {image!r} is encrypted; make the zip without a password")
        if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"member {image!r} is a folder or a link; expected a file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"member {image!r} is compressed by method {member.compress_type}; expected "
                "stored (0) or deflated (8): make the zip with a common tool"
            )
        check_size(image, member.file_size, max_bytes)
        return member


FileSource = FolderSource | ZipSource | ObjectSource
"""Files by their names below one root: pictures, and what lists them."""


class HashedSource(ABC):
    """A source of pictures that cannot change while it lives: a changed file is refused."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}

    @abstractmethod
    def load(self, image: str) -> bytes:
        """Returns the encoded picture."""

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        """Returns the encoded picture and the SHA-256 of its bytes.

        Raises:
            FileNotFoundError: No picture has this name.
            ValueError: It is refused, as in ``load``.
        """
        data = self.load(image)
        return data, hashlib.sha256(data).hexdigest()

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the SHA-256 of each picture's bytes; each is read for it once a process.

        Raises:
            FileNotFoundError: No picture has this name.
            ValueError: One is refused, as in ``load``.
        """
        for image in images:
            if image not in self._keys:
                self._keys[image] = hashlib.sha256(self.load(image)).hexdigest()
        return [self._keys[image] for image in images]


class ArraySource:
    """Pictures that are decoded already, in one array.

    Args:
        arrays: ``[N, H, W]`` gray or ``[N, H, W, 3]`` RGB, uint8. It is kept, not copied.
        names: One name a row.

    Raises:
        TypeError: The array is not uint8.
        ValueError: The shape is another one, the names are not as many as the rows, or one stands
            twice.
    """

    def __init__(self, arrays: NDArray[np.uint8], names: Iterable[str]) -> None:
        if arrays.dtype != np.uint8:
            raise TypeError(f"the pictures are {arrays.dtype}; expected uint8 in 0..255")
        if not (arrays.ndim == 3 or (arrays.ndim == 4 and arrays.shape[3] == 3)):
            raise ValueError(
                f"the pictures have the shape {arrays.shape}; expected [N, H, W] or [N, H, W, 3]"
            )
        listed = list(names)
        self._arrays = arrays
        self._rows = {name: row for row, name in enumerate(listed)}
        if len(listed) != len(arrays) or len(self._rows) != len(listed):
            raise ValueError(
                f"{len(arrays)} picture(s) have {len(listed)} name(s), {len(self._rows)} of them "
                "different; expected one name a picture, each once"
            )

    def __repr__(self) -> str:
        return f"ArraySource({len(self._arrays)} pictures of {self._arrays.shape[1:]})"

    def load(self, image: str) -> NDArray[np.uint8]:
        """Returns a copy of the picture, ``[H, W]`` or ``[H, W, 3]`` uint8.

        Raises:
            FileNotFoundError: No picture has this name.
        """
        picture: NDArray[np.uint8] = self._arrays[self._row(image)].copy()
        return picture

    def load_keyed(self, image: str) -> tuple[NDArray[np.uint8], str]:
        """Returns a copy of the picture, and the SHA-256 of its shape and pixels.

        Raises:
            FileNotFoundError: No picture has this name.
        """
        return self.load(image), self.content_keys([image])[0]

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the SHA-256 of each picture's shape and pixels.

        Raises:
            FileNotFoundError: No picture has this name.
        """
        start = hashlib.sha256(repr(self._arrays.shape[1:]).encode())
        keys = []
        for image in images:
            digest = start.copy()
            digest.update(self._arrays[self._row(image)].tobytes())
            keys.append(digest.hexdigest())
        return keys

    def _row(self, image: str) -> int:
        if image not in self._rows:
            raise FileNotFoundError(f"no picture {image!r} among the {len(self._rows)} in memory")
        return self._rows[image]


def _member_key(name: str) -> str:
    """Returns the clean name, folders with their ``/``; an unsafe name stays, to be refused."""
    slashed = name.replace("\\", "/")
    try:
        return safe_name(slashed) + ("/" if slashed.endswith("/") else "")
    except ValueError:
        return name
