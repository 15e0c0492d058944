import gzip
import hashlib
import importlib.util
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.catalog.shops import refuses, saved
from tests.storage.s3_server import S3Server
from visual_search.catalog.readers import fashion_mnist as module
from visual_search.catalog.readers.fashion_mnist import CATEGORIES, fashion_mnist, read_idx

NAMES = [f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1")]
NAMES += [f"{part}-ubyte" for part in ("t10k-images-idx3", "t10k-labels-idx1")]
Files = dict[str, bytes]
PACKED = sorted(f"{name}.gz" for name in NAMES)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    """The four files, small; nothing outside the test's folder is asked."""
    chance = np.random.default_rng(0)
    pictures = [chance.integers(0, 256, (number, 28, 28)) for number in (12, 3)]
    arrays = [pictures[0], np.arange(12) % 10, pictures[1], np.array([9, 0, 3])]
    files = {name: idx(array) for name, array in zip(NAMES, arrays, strict=True)}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(module, "MD5_OF_CONTENT", sums)
    monkeypatch.setattr(module, "SYSTEM_FOLDER", tmp_path / "system")
    for place in ("_fetch_from_mirrors", "_fetch_from_debian"):
        monkeypatch.setattr(module, place, unreachable)
    return files


def unreachable(folder: Path) -> Path:
    raise module._NotFoundHereError(f"nobody answers {folder.name[:13]}")


def fill(folder: Path, contents: Files) -> Path:
    return saved(folder, {f"{name}.gz": gzip.compress(data) for name, data in contents.items()})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("save", [fill, saved])
def test_the_files_become_a_catalogue(
    tmp_path: Path, contents: Files, save: Callable[..., Path]
) -> None:
    catalog = fashion_mnist(save(tmp_path / "data", contents))
    ids = [f"train-{i:05d}" for i in range(12)] + [f"test-{i:05d}" for i in range(3)]
    assert (catalog.name, len(CATEGORIES)) == ("fashion_mnist", 10)
    assert list(catalog.table["item_id"]) == list(catalog.table["group"]) == ids
    assert list(catalog.table["split"]) == ["train"] * 12 + ["test"] * 3
    categories = list(catalog.table["category"])
    assert categories[:2] == ["T-shirt/top", "Trouser"]
    assert categories[12:] == ["Ankle boot", "T-shirt/top", "Dress"]
    expected = np.frombuffer(contents[NAMES[2]][-28 * 28 :], np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(catalog.source.load("test-00002"), expected)


def test_of_object_storage_the_four_files_alone_are_copied(
    s3: S3Server, tmp_path: Path, contents: Files
) -> None:
    others = {"in/back\\slash": b"x", "in/deep/large.bin": b"x", "in/notes.txt": b"x"}
    s3.put("mnist", {f"in/{name}": data for name, data in contents.items()} | others)
    here = fashion_mnist(saved(tmp_path / "data", contents))
    assert fashion_mnist("s3://mnist/in").fingerprint() == here.fingerprint()
    copies = [path for path in (tmp_path / "copies").rglob("files/*") if path.is_file()]
    assert sorted(path.name for path in copies) == sorted(NAMES)
    s3.put("mnist", {f"few/{NAMES[0]}.gz": b"x"})
    with pytest.raises(FileNotFoundError, match=f"s3://mnist/few lacks {NAMES[1]}, "):
        fashion_mnist("s3://mnist/few")  # and nothing is fetched
    s3.put("mnist", {f"in/{NAMES[1]}": contents[NAMES[1]] + b"x"})
    with pytest.raises(ValueError, match=r"copied from s3://mnist/in: .*; upload it anew"):
        fashion_mnist("s3://mnist/in")


def test_debians_own_folder_is_read_in_place(tmp_path: Path, contents: Files) -> None:
    fill(tmp_path / "system", contents)
    assert len(fashion_mnist(tmp_path / "data", download=False)) == 15
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("place", ["_fetch_from_mirrors", "_fetch_from_debian"])
def test_what_was_fetched_is_kept_in_the_root(
    tmp_path: Path, contents: Files, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(module, place, lambda folder: fill(folder / "found", contents))
    progress: list[tuple[int, int]] = []
    root = fill(tmp_path / "data", {NAMES[0]: contents[NAMES[0]]})  # a partial one is completed
    assert len(fashion_mnist(root, on_progress=lambda *call: progress.append(call))) == 15
    assert names_in(root) == PACKED
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(module, place, unreachable)
    assert len(fashion_mnist(root)) == 15


def test_a_fetched_file_with_other_content_is_not_kept(
    tmp_path: Path, contents: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = contents | {NAMES[1]: idx(np.zeros(12))}
    monkeypatch.setattr(module, "_fetch_from_mirrors", lambda folder: fill(folder, changed))
    message = r"mirrors: train-labels-idx1-ubyte .* MD5"
    refuses(FileNotFoundError, message, fashion_mnist, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_nowhere_says_what_was_tried_and_what_to_do(tmp_path: Path, contents: Files) -> None:
    root = fill(tmp_path / "data", {NAMES[0]: contents[NAMES[0]]})
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist(root)
    parts = [
        "in none of these places",
        "data: lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte",
        "system: no such folder",
        "torchvision's mirrors: nobody answers",
        "Debian's package dataset-fashion-mnist: nobody answers",
        "apt-get install dataset-fashion-mnist",
    ]
    for line, part in zip(str(caught.value).splitlines(), parts, strict=True):
        assert part in line
    message = "not asked, since download is false"
    refuses(FileNotFoundError, message, fashion_mnist, root, download=False)
    refuses(ValueError, "on_bad_item is 'x'", fashion_mnist, root, on_bad_item="x")


def test_damaged_files_in_the_root_are_named_and_kept(
    tmp_path: Path, contents: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "data", contents)
    path = root / f"{NAMES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-200])
    refuses(ValueError, r"t10k-images-idx3-ubyte\.gz does not unpack", fashion_mnist, root)
    path.write_bytes(gzip.compress(contents[NAMES[2]] + b"x"))
    refuses(ValueError, r"t10k-images-idx3-ubyte in .* MD5 .* expected", fashion_mnist, root)
    monkeypatch.setattr(module, "_MAX_CONTENT_BYTES", 1000)
    refuses(ValueError, "unpacks to over 64 MiB", fashion_mnist, root)
    assert names_in(root) == PACKED


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(11) % 10, "11 labels up to 9"),
        (np.full(12, 10), "12 labels up to 10"),
        (np.zeros(0), "0 labels up to 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path,
    contents: Files,
    monkeypatch: pytest.MonkeyPatch,
    labels: np.ndarray,
    said: str,
) -> None:
    contents[NAMES[1]] = idx(labels)
    md5 = hashlib.md5(contents[NAMES[1]]).hexdigest()
    monkeypatch.setitem(module.MD5_OF_CONTENT, NAMES[1], md5)
    root = fill(tmp_path / "data", contents)
    refuses(ValueError, f"12 train pictures have {said}", fashion_mnist, root)


def test_idx_files_with_a_wrong_magic_or_length_are_refused() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    good = idx(array)
    np.testing.assert_array_equal(read_idx(good, num_dims=3), array)
    refuses(ValueError, "begins with 00000803; .* 00000801", read_idx, good, num_dims=1)
    for bad in (good[:-1], good + b"x", good[:9], good[:4] + b"\xff" * 12):
        refuses(ValueError, "its header promises", read_idx, bad, num_dims=3)
    refuses(ValueError, "begins with", read_idx, b"", num_dims=3)


posix = pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")
UNPACK = 'PATH=/usr/bin:/bin; mkdir -p "$3$SYSTEM" && cp "$FILES"/* "$3$SYSTEM"'
FETCH = "echo x > dataset-fashion-mnist_0_all.deb"


def debian(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> Path:
    """Fetches with shell scripts that stand for programs on the PATH."""
    for name, script in scripts.items():
        saved(folder, {name.replace("_", "-"): f"#!/bin/sh\n{script}\n"})
        (folder / name.replace("_", "-")).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    (folder / "files").mkdir(parents=True)
    return module._fetch_from_debian(folder / "files")


@posix
def test_debians_package_is_unpacked_without_root(
    tmp_path: Path, contents: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("FILES", str(fill(tmp_path / "files", contents)))
    monkeypatch.setenv("SYSTEM", str(module.SYSTEM_FOLDER))
    found = debian(tmp_path / "good", monkeypatch, apt_get=FETCH, dpkg=UNPACK)
    assert names_in(found) == PACKED
    # without usable package lists: a first download fails, lists of its own make it work
    stale = f'case "$*" in *Dir::State*update) ;; *Dir::State*) {FETCH} ;; *) exit 100 ;; esac'
    assert debian(tmp_path / "stale", monkeypatch, apt_get=stale, dpkg=UNPACK).is_dir()


@posix
def test_why_debians_package_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "echo E: Unable to locate package >&2; exit 100"
    broken = "echo bad archive >&2; exit 2"
    cases: dict[str, dict[str, str]] = {
        "there is no apt-get here": {},
        r"ended with 100: E: Unable to locate.*own, `apt-get update` ended": {"apt_get": failing},
        "left 0 packages": {"apt_get": "true"},
        "there is no dpkg here": {"apt_get": FETCH},
        "dpkg -x .* ended with 2: bad archive": {"apt_get": FETCH, "dpkg": broken},
        r"took over 0\.2 s": {"apt_get": "exec /bin/sleep 20"},
    }
    for i, (reason, scripts) in enumerate(cases.items()):
        if "took" in reason:
            monkeypatch.setattr(module, "_APT_TIMEOUT_S", 0.2)
        error = module._NotFoundHereError
        refuses(error, reason, debian, tmp_path / f"tools{i}", monkeypatch, **scripts)


def test_mirrors_are_tried_in_turn(
    tmp_path: Path, contents: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec("torchvision")  # importing it takes 5 s: its text has the name
    assert found is not None
    text = (Path(found.origin or "").parent / "datasets" / "mnist.py").read_text()
    assert "mirrors = [" in text.partition("class FashionMNIST(")[2]
    monkeypatch.undo()
    good, missing = fill(tmp_path / "good", contents), (tmp_path / "missing").as_uri()
    published = SimpleNamespace(mirrors=[missing, good.as_uri() + "/"])
    torchvision = SimpleNamespace(FashionMNIST=published)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", torchvision)
    fetch, error = module._fetch_from_mirrors, module._NotFoundHereError
    (tmp_path / "to").mkdir()
    assert names_in(fetch(tmp_path / "to")) == PACKED
    published.mirrors = [missing]
    refuses(error, "missing: <urlopen error", fetch, tmp_path / "to")
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # not installed
    refuses(error, "torchvision cannot be imported", fetch, tmp_path / "to")


def test_the_published_checksums_are_those_of_the_four_files() -> None:
    assert list(module.MD5_OF_CONTENT) == NAMES
