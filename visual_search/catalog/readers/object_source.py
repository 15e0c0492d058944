"""Pictures on object storage, and what lists them there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from visual_search.catalog.readers.picture_names import (
    MAX_PICTURE_BYTES,
    bare_name,
    by_bare_name,
    check_size,
    fitting_names,
    no_picture,
    safe_name,
)
from visual_search.storage.bucket import NUM_READERS, Bucket, ObjectStatus, in_parallel
from visual_search.storage.hashes import keep_hashes, known_hashes
from visual_search.storage.uris import ObjectUri, is_object_uri, object_uri

_HASHED_AT_ONCE = 4096  # pictures between two notes of their hashes


class ObjectSource:
    """Pictures below an address of object storage, named by their relative keys.

    What is asked for is listed once: of a name the first folder in it, whole. Another spelling of a
    name finds its object, as for `FolderSource`.

    Args:
        root: The address.
        is_listed: Whether names are looked for in the listing. Without, which is for more objects
            than can be kept in mind, whether one is there is found out when it is read.
    """

    num_readers = NUM_READERS

    def __init__(self, root: ObjectUri, *, is_listed: bool = True) -> None:
        self.root = root
        self._is_listed = is_listed
        self._bucket = Bucket(root)
        self._objects: dict[str, ObjectStatus] = {}
        self._folders: set[str] = set()  # those that are listed: "" for what lies in none, "a/"
        self._is_whole = False
        self._alike: dict[str, list[str]] = {}
        self._hashes: dict[str, tuple[ObjectStatus, str]] | None = None
        self._lock = threading.RLock()  # of threads that miss a listing, one asks for it

    def __repr__(self) -> str:
        return f"ObjectSource({str(self.root)!r})"

    def __reduce__(self) -> tuple[type[ObjectSource], tuple[ObjectUri], dict[str, object]]:
        return type(self), (self.root,), {"_is_listed": self._is_listed}

    def unlisted(self) -> ObjectSource:
        """Returns the same without a listing."""
        return ObjectSource(self.root, is_listed=False)

    def load(self, image: str) -> bytes:
        """Returns the object's bytes.

        Raises:
            FileNotFoundError: No object has this name.
            ValueError: The name is unsafe, or the object is larger than 64 MiB.
            StorageError: The bucket does not answer, or refuses.
        """
        return self.read(image, MAX_PICTURE_BYTES)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Returns the bytes of any object up to ``max_bytes``; see `load`."""
        if not self._is_listed:
            return self._bucket.read(safe_name(name), max_bytes)
        found, status = self._locate(name)
        check_size(name, status.num_bytes, max_bytes)
        return self._bucket.read(found, max_bytes)

    def load_keyed(self, image: str) -> tuple[bytes, str]:
        """Returns the object's bytes and their SHA-256.

        Raises:
            FileNotFoundError: No object has this name.
            ValueError: As in `load`.
            StorageError: The same.
        """
        data = self.load(image)
        return data, hashlib.sha256(data).hexdigest()

    def problem(self, image: str) -> str | None:
        """Returns the reason why ``image`` cannot be loaded, or ``None``; reads no object.

        Raises:
            StorageError: The bucket does not answer, or refuses.
        """
        try:
            if not self._is_listed:
                safe_name(image)
                return None
            _, status = self._locate(image)
            check_size(image, status.num_bytes)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        return None

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns the SHA-256 of each object; one that has not changed is read once a machine.

        Raises:
            FileNotFoundError: No object has this name.
            ValueError: A name is refused, as in `load`.
            StorageError: The bucket does not answer, or refuses.
        """
        located = [self._locate(image) for image in images]
        if self._hashes is None:
            self._hashes = known_hashes(self.root)
        known = self._hashes
        asked = dict(located)
        new = [name for name, status in asked.items() if known.get(name, ("",))[0] != status]
        for start in range(0, len(new), _HASHED_AT_ONCE):
            some = new[start : start + _HASHED_AT_ONCE]
            found = dict(zip(some, in_parallel(self._hash, some), strict=True))
            kept = {name: (asked[name], digest) for name, digest in found.items()}
            keep_hashes(self.root, kept)
            known |= kept
        return [known[name][1] for name, _ in located]

    def below(self, image: str, folder: str = ".") -> str:
        """Returns a path relative to the root: one relative to a folder of it, or an address.

        Raises:
            ValueError: It leads out of the root.
        """
        if is_object_uri(image) and image.startswith(f"{self.root}/"):
            return safe_name(object_uri(image).key[len(self.root.key) :].lstrip("/"))
        return safe_name(f"{folder}/{safe_name(image)}")

    def names(self) -> list[str]:
        """Returns the relative key of every object, sorted.

        Raises:
            FileNotFoundError: There is none.
            StorageError: The bucket does not answer, or refuses.
        """
        with self._lock:
            if not self._is_whole:
                self._note(self._bucket.listed())
                self._is_whole = True
        if not self._objects:
            raise FileNotFoundError(f"nothing below {self.root}; check the address")
        return sorted(self._objects)

    def top_folders(self, base: str = "") -> list[str]:
        """Returns the names of the folders directly below ``base`` (``""`` or ``"a/"``), sorted."""
        inside = [name.removeprefix(base) for name in self.names() if name.startswith(base)]
        return sorted({name.split("/")[0] for name in inside if "/" in name})

    def _locate(self, image: str) -> tuple[str, ObjectStatus]:
        name = safe_name(image)
        if name not in self._objects:
            self._list_folder_of(name)
        status = self._objects.get(name)
        if status is not None:
            return name, status
        if image in self._objects:
            raise ValueError(
                f"the object {image!r} has a part that is empty or '.', and cannot be asked for; "
                f"expected {name!r}: rename it"
            )
        with self._lock:
            if not self._alike:
                self.names()
                self._alike = by_bare_name(self._objects)
        alike = self._alike.get(bare_name(name), [])
        fitting = fitting_names(name, alike)
        if len(fitting) != 1:
            raise FileNotFoundError(no_picture(image, str(self.root), fitting or alike))
        return fitting[0], self._objects[fitting[0]]

    def _list_folder_of(self, name: str) -> None:
        top, inside, _ = name.partition("/")
        folder = f"{top}/" if inside else ""
        with self._lock:
            if not self._is_whole and folder not in self._folders:
                self._note(self._bucket.listed(top if inside else "", deep=bool(inside)))
                self._folders.add(folder)

    def _note(self, listed: dict[str, ObjectStatus]) -> None:
        self._objects |= listed
        self._alike = {}

    def _hash(self, name: str) -> str:
        return hashlib.sha256(self._bucket.read(name, MAX_PICTURE_BYTES)).hexdigest()
