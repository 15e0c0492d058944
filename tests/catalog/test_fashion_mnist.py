import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from visual_search.catalog.readers import fashion_mnist as module
from visual_search.catalog.readers.fashion_mnist import CATEGORIES, fashion_mnist, read_idx

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """The four files, small; nothing outside the test's folder is asked."""
    chance = np.random.default_rng(0)
    files = {
        NAMES[0]: idx(chance.integers(0, 256, (12, 28, 28))),
        NAMES[1]: idx(np.arange(12) % 10),
        NAMES[2]: idx(chance.integers(0, 256, (3, 28, 28))),
        NAMES[3]: idx(np.array([9, 0, 3])),
    }
    monkeypatch.setattr(
        module, "MD5_OF_CONTENT", {name: hashlib.md5(files[name]).hexdigest() for name in NAMES}
    )
    monkeypatch.setattr(module, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(module, "_fetch_from_mirrors", unreachable)
    monkeypatch.setattr(module, "_fetch_from_debian", unreachable)
    return files


def unreachable(folder: Path) -> Path:
    raise module._NotFoundHereError(f"nobody answers {folder.name[:13]}")


def fill(folder: Path, contents: dict[str, bytes], *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def test_the_published_checksums_are_those_of_the_four_files() -> None:
    assert list(module.MD5_OF_CONTENT) == NAMES
    assert len(CATEGORIES) == 10


@pytest.mark.parametrize("packed", [True, False])
def test_the_files_become_a_catalogue(
    tmp_path: Path, contents: dict[str, bytes], packed: bool
) -> None:
    catalog = fashion_mnist(fill(tmp_path / "data", contents, packed=packed))
    ids = [f"train-{i:05d}" for i in range(12)] + [f"test-{i:05d}" for i in range(3)]
    assert catalog.name == "fashion_mnist"
    assert list(catalog.table["item_id"]) == list(catalog.table["group"]) == ids
    assert list(catalog.table["split"]) == ["train"] * 12 + ["test"] * 3
    assert list(catalog.table["category"])[:2] == ["T-shirt/top", "Trouser"]
    assert list(catalog.table["category"])[12:] == ["Ankle boot", "T-shirt/top", "Dress"]
    picture = catalog.source.load("test-00002")
    assert isinstance(picture, np.ndarray)
    expected = np.frombuffer(contents[NAMES[2]][-28 * 28 :], np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(picture, expected)


def test_the_place_of_debians_package_is_read_in_place(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    fill(tmp_path / "system", contents)
    assert len(fashion_mnist(tmp_path / "data", download=False)) == 15
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("place", ["_fetch_from_mirrors", "_fetch_from_debian"])
def test_what_was_fetched_is_kept_in_the_root(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(module, place, lambda folder: fill(folder / "found", contents))
    progress: list[tuple[int, int]] = []
    root = tmp_path / "data"
    catalog = fashion_mnist(root, on_progress=lambda done, total: progress.append((done, total)))
    assert len(catalog) == 15
    assert sorted(path.name for path in root.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(module, place, unreachable)
    assert len(fashion_mnist(root)) == 15


def test_a_partial_root_is_completed(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "data", {NAMES[0]: contents[NAMES[0]]})
    monkeypatch.setattr(module, "_fetch_from_mirrors", lambda folder: fill(folder, contents))
    assert len(fashion_mnist(root)) == 15


def test_a_fetched_file_with_other_content_is_not_kept(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**contents, NAMES[1]: idx(np.zeros(12))}
    monkeypatch.setattr(module, "_fetch_from_mirrors", lambda folder: fill(folder, changed))
    with pytest.raises(FileNotFoundError, match=r"mirrors: train-labels-idx1-ubyte .* MD5"):
        fashion_mnist(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_nowhere_says_what_was_tried_and_what_to_do(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    fill(tmp_path / "data", {NAMES[0]: contents[NAMES[0]]})
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist(tmp_path / "data")
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for line, part in zip(
        lines,
        [
            "in none of these places",
            "data: lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte",
            "system: no such folder",
            "torchvision's mirrors: nobody answers",
            "Debian's package dataset-fashion-mnist: nobody answers",
            "apt-get install dataset-fashion-mnist",
        ],
        strict=True,
    ):
        assert part in line
    with pytest.raises(FileNotFoundError, match="not asked, since download is false"):
        fashion_mnist(tmp_path / "data", download=False)


def test_damaged_files_in_the_root_are_named_and_kept(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    root = fill(tmp_path / "data", contents)
    path = root / f"{NAMES[2]}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz does not unpack"):
        fashion_mnist(root)
    path.write_bytes(gzip.compress(contents[NAMES[2]] + b"x"))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte in .* MD5 .* expected"):
        fashion_mnist(root)
    assert path.exists()


def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_CONTENT_BYTES", 1000)
    with pytest.raises(ValueError, match="unpacks to over 64 MiB"):
        fashion_mnist(fill(tmp_path / "data", contents))


@pytest.mark.parametrize("labels", [np.arange(11) % 10, np.full(12, 10)])
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, labels: np.ndarray
) -> None:
    contents[NAMES[1]] = idx(labels)
    monkeypatch.setitem(
        module.MD5_OF_CONTENT, NAMES[1], hashlib.md5(contents[NAMES[1]]).hexdigest()
    )
    with pytest.raises(ValueError, match=r"12 train pictures have 1[12] labels up to"):
        fashion_mnist(fill(tmp_path / "data", contents))


def test_idx_arrays_come_back() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(read_idx(idx(array), num_dims=3), array)


def test_idx_files_with_a_wrong_magic_or_length_are_refused() -> None:
    good = idx(np.arange(6).reshape(1, 2, 3))
    with pytest.raises(
        ValueError, match="begins with 00000803; expected the magic number 00000801"
    ):
        read_idx(good, num_dims=1)
    for bad in (good[:-1], good + b"x", good[:9], good[:4] + b"\xff" * 12):
        with pytest.raises(ValueError, match="its header promises"):
            read_idx(bad, num_dims=3)
    with pytest.raises(ValueError, match="begins with"):
        read_idx(b"", num_dims=3)


def test_another_word_for_bad_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_bad_item is 'x'"):
        fashion_mnist(tmp_path, on_bad_item="x")  # type: ignore[arg-type]


def tools(folder: Path, **scripts: str) -> str:
    """Writes shell scripts that stand for programs, and gives a PATH of only these."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(folder)


UNPACK = 'PATH=/usr/bin:/bin; mkdir -p "$3$SYSTEM" && cp "$FILES"/* "$3$SYSTEM"'
FETCH = "echo x > dataset-fashion-mnist_0_all.deb"


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")
def test_debians_package_is_unpacked_without_root(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("FILES", str(fill(tmp_path / "files", contents)))
    monkeypatch.setenv("SYSTEM", str(module.SYSTEM_FOLDER))
    monkeypatch.setenv("PATH", tools(tmp_path / "good", apt_get=FETCH, dpkg=UNPACK))
    (tmp_path / "1").mkdir()
    found = module._fetch_from_debian(tmp_path / "1")
    assert sorted(path.name for path in found.iterdir()) == sorted(f"{n}.gz" for n in NAMES)

    # without usable package lists: a first download fails, lists of its own make it work
    stale = f'case "$*" in *Dir::State*update) ;; *Dir::State*) {FETCH} ;; *) exit 100 ;; esac'
    monkeypatch.setenv("PATH", tools(tmp_path / "stale", apt_get=stale, dpkg=UNPACK))
    (tmp_path / "2").mkdir()
    assert module._fetch_from_debian(tmp_path / "2").is_dir()


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")
def test_why_debians_package_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "there is no apt-get here": {},
        "download dataset-fashion-mnist` ended with 100: E: Unable to locate": {
            "apt_get": "echo E: Unable to locate package >&2; exit 100"
        },
        "left 0 packages": {"apt_get": "true"},
        "there is no dpkg here": {"apt_get": FETCH},
        "dpkg -x .* ended with 2: bad archive": {
            "apt_get": FETCH,
            "dpkg": "echo bad archive >&2; exit 2",
        },
    }
    for i, (reason, scripts) in enumerate(cases.items()):
        monkeypatch.setenv("PATH", tools(tmp_path / f"tools{i}", **scripts))
        (tmp_path / str(i)).mkdir()
        with pytest.raises(module._NotFoundHereError, match=reason):
            module._fetch_from_debian(tmp_path / str(i))
    monkeypatch.setattr(module, "_APT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("PATH", tools(tmp_path / "slow", apt_get="exec /bin/sleep 20"))
    (tmp_path / "slow-files").mkdir()
    with pytest.raises(module._NotFoundHereError, match=r"took over 0\.2 s"):
        module._fetch_from_debian(tmp_path / "slow-files")


@pytest.mark.slow  # importing torchvision takes 5 s
def test_mirrors_are_tried_in_turn(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST

    monkeypatch.undo()
    good = fill(tmp_path / "good", contents)
    missing = (tmp_path / "missing").as_uri()
    monkeypatch.setattr(FashionMNIST, "mirrors", [missing, good.as_uri() + "/"])
    (tmp_path / "to").mkdir()
    found = module._fetch_from_mirrors(tmp_path / "to")
    assert sorted(path.name for path in found.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    monkeypatch.setattr(FashionMNIST, "mirrors", [missing])
    with pytest.raises(module._NotFoundHereError, match="missing: <urlopen error"):
        module._fetch_from_mirrors(tmp_path / "to")
