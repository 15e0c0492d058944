"""Fashion-MNIST: 70,000 gray pictures of 28 x 28 px in ten categories (arXiv 1708.07747, MIT)."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visual_search import builder
from visual_search.atomic import atomic_path, scratch_folder
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.sources import ArraySource
from visual_search.storage.bucket import Bucket
from visual_search.storage.copies import copied_files
from visual_search.storage.uris import ObjectUri, place_of

# The names of the labels 0..9, https://github.com/zalandoresearch/fashion-mnist
CATEGORIES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# MD5 of the content, unpacked: Debian compressed the files anew, so the packed ones differ
MD5_OF_CONTENT = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
DEBIAN_PACKAGE = "dataset-fashion-mnist"

_MAX_CONTENT_BYTES = 64 * 2**20  # the largest file unpacks to 45 MiB
_CONNECT_TIMEOUT_S = 8
_APT_TIMEOUT_S = 180


class _NotFoundHereError(Exception):
    """A place does not give the files; the message says why."""


@builder("data")
def fashion_mnist(
    root: str | os.PathLike[str] = "data/fashion-mnist",
    download: bool = True,
    on_bad_item: OnBadItem = "error",
    on_progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Returns Fashion-MNIST, its own ``train`` and ``test`` splits assigned.

    The four files (``train-images-idx3-ubyte`` and so on, plain or ``.gz``) are looked for in
    ``root``, then where Debian's package installs them. With ``download`` they are then fetched
    into ``root``: from the mirrors that torchvision knows, or out of Debian's package (30 MB),
    which needs no root. On object storage they are all, and nothing is fetched into it. The MD5 of
    each file's content is checked wherever it comes from.

    Args:
        root: The folder of the four files, or its address on object storage.
        download: Whether to fetch what is missing.
        on_bad_item: As in every reader; the checksum leaves no item that could be bad.
        on_progress: Called with (files ready, 4) while they are fetched.

    Returns:
        70,000 items ``train-00000`` ... ``test-09999``, each a group of its own; pictures are
        ``[28, 28]`` uint8, white on black as published.

    Raises:
        FileNotFoundError: The files are nowhere; the message says what was tried and what to do.
        ValueError: A file in ``root`` is damaged, or ``on_bad_item`` is another word.
        StorageError: Object storage does not answer, or refuses.
    """
    check_on_bad_item(on_bad_item)
    place = place_of(root)
    if isinstance(place, ObjectUri):
        folder = _copied(place, on_progress)
    else:
        folder = _find_files(place, download, on_progress or (lambda done, total: None))
    pictures, item_ids, categories, splits = [], [], [], []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(_content(folder, f"{prefix}-images-idx3-ubyte"), num_dims=3)
        labels = read_idx(_content(folder, f"{prefix}-labels-idx1-ubyte"), num_dims=1)
        if len(images) != len(labels) or int(labels.max(initial=0)) >= len(CATEGORIES):
            raise ValueError(
                f"{folder}: {len(images)} {split} pictures have {len(labels)} labels up to "
                f"{labels.max(initial=0)}; expected one each, 0 to 9; fetch the files again"
            )
        pictures.append(images)
        item_ids += [f"{split}-{i:05d}" for i in range(len(images))]
        categories += [CATEGORIES[label] for label in labels]
        splits += [split] * len(images)
    columns = {
        "item_id": item_ids,
        "image": item_ids,
        "category": categories,
        "group": item_ids,
        "split": splits,
    }
    source = ArraySource(np.concatenate(pictures), item_ids)
    return conclude(
        "fashion_mnist", columns, source, (), on_bad_item=on_bad_item, origin=str(folder)
    )


def read_idx(content: bytes, num_dims: int) -> NDArray[np.uint8]:
    """Returns the array of an IDX file: two zero bytes, 8 (uint8), the rank, the sizes, the values.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), num_dims=1)
        array([7, 8, 9], dtype=uint8)

    Raises:
        ValueError: The magic number or the length is another one than expected.
    """
    magic = bytes([0, 0, 8, num_dims])
    if content[:4] != magic:
        raise ValueError(
            f"the file begins with {content[:4].hex()}; expected the magic number {magic.hex()} "
            f"of an IDX file with {num_dims} dimension(s); fetch it again"
        )
    start = 4 + 4 * num_dims
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise ValueError(
            f"the file has {len(content)} bytes; its header promises {shape}, {expected} bytes; "
            "fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _copied(place: ObjectUri, on_progress: Callable[[int, int], None] | None) -> Path:
    """Returns the folder of this machine with copies of the four files, checked."""
    bucket = Bucket(place)
    wanted = {
        name: status
        for name, status in bucket.listed(deep=False).items()
        if name.removesuffix(".gz") in MD5_OF_CONTENT
    }
    missing = [name for name in MD5_OF_CONTENT if not {name, f"{name}.gz"} & wanted.keys()]
    if missing:
        raise FileNotFoundError(
            f"{place} lacks {', '.join(missing)}; expected the four files of Fashion-MNIST, each "
            "plain or .gz: upload them from https://github.com/zalandoresearch/fashion-mnist"
        )
    folder = next(iter(copied_files(bucket, wanted, on_progress).values())).parent
    try:
        _check_folder(folder)
    except ValueError as error:
        raise ValueError(f"copied from {place}: {error}; upload it anew") from error
    return folder


def _find_files(root: Path, download: bool, on_progress: Callable[[int, int], None]) -> Path:
    """Returns a folder with all four files, checked; fetches them into ``root`` if need be."""
    try:
        _check_folder(root)
        return root
    except _NotFoundHereError as error:
        tried = [f"{root}: {error}"]
    try:
        _check_folder(SYSTEM_FOLDER)
        return SYSTEM_FOLDER
    except (_NotFoundHereError, ValueError) as error:
        tried.append(f"{SYSTEM_FOLDER}: {error}")
    fetchers: Mapping[str, Callable[[Path], Path]] = {}
    if download:
        fetchers = {
            "torchvision's mirrors": _fetch_from_mirrors,
            f"Debian's package {DEBIAN_PACKAGE}": _fetch_from_debian,
        }
    else:
        tried.append("the network: not asked, since download is false")
    for place, fetch in fetchers.items():
        with scratch_folder(tempfile.gettempdir(), "fashion-mnist") as temporary:
            try:
                found = fetch(temporary)
                _check_folder(found)
            except (_NotFoundHereError, ValueError) as error:
                tried.append(f"{place}: {error}")
                continue
            for done, name in enumerate(MD5_OF_CONTENT):
                with atomic_path(root / f"{name}.gz") as packed:
                    packed.write_bytes(_packed_path(found, name).read_bytes())
                on_progress(done + 1, len(MD5_OF_CONTENT))
        return root
    listed = "\n".join(f"  - {line}" for line in tried)
    raise FileNotFoundError(
        f"Fashion-MNIST is in none of these places:\n{listed}\n"
        f"Run `sudo apt-get install {DEBIAN_PACKAGE}`, or put {', '.join(MD5_OF_CONTENT)} "
        f"(each plain or .gz, from https://github.com/zalandoresearch/fashion-mnist) into {root}"
    )


def _check_folder(folder: Path) -> None:
    """Returns when the folder holds the four files and each has the right content."""
    missing = [name for name in MD5_OF_CONTENT if not _exists(folder, name)]
    if missing:
        where = "no such folder" if not folder.is_dir() else f"lacks {', '.join(missing)}"
        raise _NotFoundHereError(where)
    for name, expected in MD5_OF_CONTENT.items():
        md5 = hashlib.md5(_content(folder, name), usedforsecurity=False).hexdigest()
        if md5 != expected:
            raise ValueError(
                f"{name} in {folder} has the content MD5 {md5}; expected {expected}; remove the "
                "file and run again"
            )


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def _content(folder: Path, name: str) -> bytes:
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        with open(plain, "rb") if plain.is_file() else gzip.open(packed) as file:
            content = file.read(_MAX_CONTENT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{packed} does not unpack ({error}); remove it and run again") from error
    if len(content) > _MAX_CONTENT_BYTES:
        raise ValueError(f"{name} in {folder} unpacks to over 64 MiB; remove it and run again")
    return bytes(content)


def _packed_path(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    if not packed.is_file():
        packed.write_bytes(gzip.compress(_content(folder, name), 6, mtime=0))
    return packed


def _fetch_from_mirrors(folder: Path) -> Path:
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError as error:
        raise _NotFoundHereError(f"torchvision cannot be imported ({error})") from error

    reasons = []
    for mirror in FashionMNIST.mirrors:
        try:
            for name in MD5_OF_CONTENT:
                url = f"{mirror.rstrip('/')}/{name}.gz"
                # torchvision's own download waits without limit where packets are dropped
                with urllib.request.urlopen(url, timeout=_CONNECT_TIMEOUT_S) as answer:
                    (folder / f"{name}.gz").write_bytes(answer.read(_MAX_CONTENT_BYTES))
        except (OSError, ValueError) as error:
            reasons.append(f"{mirror}: {error}")
        else:
            return folder
    raise _NotFoundHereError("; ".join(reasons))


def _fetch_from_debian(folder: Path) -> Path:
    """Downloads the package and unpacks it; installs nothing, so it needs no root."""
    try:
        _run(["apt-get", "download", DEBIAN_PACKAGE], folder)
    except _NotFoundHereError as first:
        # the lists of packages are absent or old, and only root may renew the system's: own ones
        options = ["-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
        options += ["-o", "APT::Sandbox::User=root"]  # else root's apt changes to a user that
        for part in ("state/lists/partial", "cache/archives/partial"):  # may not write here
            (folder / part).mkdir(parents=True)
        try:
            _run(["apt-get", *options, "update"], folder)
            _run(["apt-get", *options, "download", DEBIAN_PACKAGE], folder)
        except _NotFoundHereError as second:
            raise _NotFoundHereError(
                f"{first}; then, with package lists of its own, {second}"
            ) from (second)
    packages = sorted(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"))
    if len(packages) != 1:
        raise _NotFoundHereError(f"apt-get download left {len(packages)} packages; expected one")
    _run(["dpkg", "-x", packages[0].name, "unpacked"], folder)
    return folder / "unpacked" / SYSTEM_FOLDER.relative_to("/")


def _run(command: list[str], folder: Path) -> None:
    shown = " ".join(word for word in command if word != "-o" and "=" not in word)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _NotFoundHereError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise _NotFoundHereError(f"`{shown}` took over {_APT_TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join(lines[:3]) or done.stderr.strip()[-200:] or "no message"
        raise _NotFoundHereError(f"`{shown}` ended with {done.returncode}: {reason}")
