"""A bundle on object storage: what it needs is copied to this machine once, and opened there.

``bundle.json`` says what to copy, and stands among the copies last: whoever opens these, another
process too, finds one generation, as in any bundle's folder.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.atomic import atomic_path
from visual_search.bundle.files import DamagedError, MissingFileError
from visual_search.bundle.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    BundleManifest,
    parsed_manifest,
    read_manifest,
)
from visual_search.bundle.snapshot import Snapshot, open_snapshot
from visual_search.locking import file_lock
from visual_search.reading import FileRecord, difference

if TYPE_CHECKING:
    from visual_search.storage.bucket import Bucket
    from visual_search.storage.uris import ObjectUri

_logger = logging.getLogger(__name__)
_LOOKS = 3  # at a bundle that changes while it is copied
_UPLOAD = "upload the whole bundle again, bundle.json last"


def address_of(place: str | os.PathLike[str]) -> str | None:
    """Returns the address of a bundle on object storage; None of one in a folder.

    Raises:
        ValueError: The address has no bucket, or holds a password or settings.
    """
    from visual_search.storage.uris import ObjectUri, place_of

    found = place_of(place)
    return str(found) if isinstance(found, ObjectUri) else None


def check_is_folder(place: str | os.PathLike[str]) -> Path:
    """Returns the folder of a bundle that is to be written.

    Raises:
        ValueError: It is an address on object storage, where nothing is changed in place.
    """
    if (address := address_of(place)) is not None:
        raise ValueError(
            f"{address} is on object storage, where a bundle is read and not written; expected a "
            "folder: write there, and upload it, bundle.json last, or to another address"
        )
    return Path(place)


def newest_manifest(address: str) -> bytes:
    """Returns ``bundle.json`` as it stands on object storage.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is larger than any that was written.
        StorageError: The bucket does not answer, which is said within seconds, or refuses.
    """
    return _bucket(address).read(MANIFEST_FILE, MAX_MANIFEST_BYTES, is_patient=False)


def local_folder(
    place: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Returns a bundle's folder on this machine; of one on object storage, its newest generation's.

    What is there already is not copied again; what is copied is compared with its hash.

    Args:
        place: The bundle's folder or address.
        on_progress: Called with how many of how many files are copied.

    Raises:
        FileNotFoundError: There is no bundle at the address, or a file of it is missing.
        ValueError: The address cannot be used, or the bundle is damaged there.
        StorageError: The bucket does not answer or refuses, or the bundle changes all the time.
    """
    from visual_search.storage.bucket import StorageError

    address = address_of(place)
    if address is None:
        return Path(place)
    bucket = _bucket(address)
    with _copying(bucket.root) as folder:
        for _ in range(_LOOKS):
            data = bucket.read(MANIFEST_FILE, MAX_MANIFEST_BYTES)
            manifest = parsed_manifest(data, bucket.root / MANIFEST_FILE)
            missing = _missing(folder, manifest, manifest.files)
            if not missing and (folder / MANIFEST_FILE).read_bytes() == data:
                return folder
            try:
                _copy(bucket, folder, manifest, missing, on_progress)
            except FileNotFoundError:  # gone with a generation that was replaced, or truly missing
                if bucket.read(MANIFEST_FILE, MAX_MANIFEST_BYTES) == data:
                    raise
                continue
            with atomic_path(folder / MANIFEST_FILE) as temporary:
                temporary.write_bytes(data)
            _drop_others(bucket, folder, manifest)
            return folder
    raise StorageError(f"{address} changes while it is copied; expected a bundle that is finished")


def local_encoder(place: str | os.PathLike[str]) -> tuple[Path, BundleManifest]:
    """Returns a folder of this machine that holds at least a bundle's encoder, and its manifest.

    Raises:
        FileNotFoundError: There is no bundle, or its encoder is missing.
        ValueError: As of `local_folder`.
        StorageError: As of `local_folder`.
    """
    address = address_of(place)
    if address is None:
        return Path(place), read_manifest(Path(place))[0]
    bucket = _bucket(address)
    manifest = parsed_manifest(
        bucket.read(MANIFEST_FILE, MAX_MANIFEST_BYTES), bucket.root / MANIFEST_FILE
    )
    with _copying(bucket.root) as folder:
        _copy(bucket, folder, manifest, _missing(folder, manifest, [manifest.encoder.file]))
    return folder, manifest


def open_newest(
    place: str | os.PathLike[str],
    *,
    hashed: bool,
    num_threads: int | None = None,
    is_exact: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, Snapshot]:
    """Returns `local_folder` and the newest generation in it, opened as by `open_snapshot`.

    Copies of a bundle on object storage that differ from their hashes are made anew, and named.

    Raises:
        FileNotFoundError: There is no bundle, or a file of it is missing.
        ValueError: It is damaged, foreign, or does not fit itself.
        StorageError: As of `local_folder`.
    """
    folder, address = local_folder(place, on_progress), address_of(place)
    opened = functools.partial(
        open_snapshot, hashed=hashed, num_threads=num_threads, is_exact=is_exact
    )
    try:
        return folder, opened(folder)
    except DamagedError as error:
        if address is None:
            raise
        _logger.warning("%s: a copy on this machine is made anew: %s", address, error)
    _drop_damaged(address)
    folder = local_folder(address)
    return folder, opened(folder)


def _drop_damaged(address: str) -> None:
    """Removes the copies that differ from what their ``bundle.json`` says."""
    from visual_search.storage.copies import dropped

    bucket = _bucket(address)
    with _copying(bucket.root) as folder:
        manifest, _ = read_manifest(folder)
        dropped(bucket, [name for name in manifest.files if _differs(folder, manifest, name)])


def _bucket(address: str) -> Bucket:
    from visual_search.storage.bucket import Bucket
    from visual_search.storage.uris import object_uri

    return Bucket(object_uri(address))


@contextlib.contextmanager
def _copying(place: ObjectUri) -> Iterator[Path]:
    """Gives the folder of copies to one process at a time."""
    from visual_search.storage.copies import made_folder

    kept = made_folder(place)
    (kept / "files").mkdir(exist_ok=True)
    with file_lock(kept / "bundle.lock", wait_seconds=None):
        yield kept / "files"


def _missing(folder: Path, manifest: BundleManifest, names: Collection[str]) -> list[str]:
    """Returns the names without a copy, or with another one by the copies' ``bundle.json``.

    When an object was written says nothing: the same files may have been uploaded again.
    """
    known: Mapping[str, FileRecord] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        known = read_manifest(folder)[0].files
    return [
        name
        for name in names
        if known.get(name) != manifest.files[name] or _differs(folder, manifest, name, hashed=False)
    ]


def _differs(folder: Path, manifest: BundleManifest, name: str, *, hashed: bool = True) -> str:
    """Returns how a copy differs from what the manifest says; empty where it does not."""
    try:
        return difference(folder / name, manifest.files[name], hashed=hashed)
    except FileNotFoundError:
        return "is missing"


def _copy(
    bucket: Bucket,
    folder: Path,
    manifest: BundleManifest,
    names: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copies some files of a bundle, and compares them with their hashes."""
    from visual_search.storage.bucket import in_parallel
    from visual_search.storage.copies import copied_files, dropped

    listed = bucket.listed() if names else {}
    for name in names:
        if name not in listed:
            raise MissingFileError(
                f"{bucket.root / name} is missing; {MANIFEST_FILE} names it: {_UPLOAD}"
            )
    for _ in range(2):  # a copy that was there may be the damaged one
        copied_files(bucket, {name: listed[name] for name in names}, on_progress)
        found = in_parallel(functools.partial(_differs, folder, manifest), names)
        damaged = {name: how for name, how in zip(names, found, strict=True) if how}
        if not damaged:
            return
        dropped(bucket, list(damaged))
    name, how = next(iter(damaged.items()))
    raise DamagedError(f"{bucket.root / name} {how}: {_UPLOAD}")


def _drop_others(bucket: Bucket, folder: Path, manifest: BundleManifest) -> None:
    """Removes copies that only earlier generations name; who has opened these keeps them."""
    from visual_search.storage.copies import dropped

    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    dropped(bucket, [name for name in names if name not in {MANIFEST_FILE, *manifest.files}])
