import os
import pickle
import re
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.catalog.shops import refuses, saved, zip_of, zipped
from visual_search.catalog.readers import sources
from visual_search.catalog.readers.picture_names import safe_name
from visual_search.catalog.readers.sources import ArraySource, FolderSource, ZipSource, open_source

UNSAFE = ["../1.jpg", "a/../../1.jpg", "/etc/passwd", "C:\\1.jpg", "c:1.jpg", "..\\1.jpg"]
UNSAFE += ["\\\\host\\1.jpg", "", " ", ".", "a\0.jpg", "\udcff.jpg"]
Source = FolderSource | ZipSource


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    pictures = {"images/1.jpg": b"one", "images/zwei ü.jpg": b"two" * 1000}
    return saved(tmp_path / "shop", pictures)


@pytest.fixture
def shop_zip(shop: Path) -> Path:
    path = shop.parent / "shop.zip"
    with zipfile.ZipFile(path, "w") as archive:
        one = zipfile.ZipInfo("images/1.jpg")
        one.extra = b"\xfe\xca\x04\x00more"  # 8 bytes between the name and the picture
        archive.writestr(one, b"one")
        archive.write(shop / "images" / "zwei ü.jpg", "images/zwei ü.jpg", zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, shop: Path, shop_zip: Path) -> Source:
    return open_source(shop if request.param == "folder" else shop_zip)


def test_unsafe_names_are_refused(source: Source) -> None:
    message = "expected a path below the data's root"
    for image in UNSAFE:
        refuses(ValueError, message, source.load, image)
        refuses(ValueError, message, source.content_keys, [image])
        assert message in (source.problem(image) or "")
    refuses(ValueError, "is a URL; fetch the pictures", safe_name, "https://a.org/1.jpg")
    assert safe_name("images/..hidden..jpg") == "images/..hidden..jpg"
    assert safe_name("a b/ü.jpg") == "a b/ü.jpg"


def test_folder_and_zip_give_the_same_bytes(source: Source) -> None:
    again = pickle.loads(pickle.dumps(source))
    for one in (source, again):
        assert one.names() == ["images/1.jpg", "images/zwei ü.jpg"]
        assert one.top_folders() == ["images"]
        assert one.load("images/1.jpg") == b"one"
        assert one.load("./images//zwei ü.jpg") == b"two" * 1000
        assert one.problem("images/1.jpg") is None
        refuses(FileNotFoundError, r"no picture 'images/2\.jpg'", one.load, "images/2.jpg")
        refuses(FileNotFoundError, "no picture", one.content_keys, ["images/2.jpg"])
        assert "no picture" in (one.problem("images/2.jpg") or "")
    assert source.content_keys(source.names()) == again.content_keys(source.names())


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_name_in_another_spelling_finds_its_file(tmp_path: Path, kind: str) -> None:
    decomposed = "Ja\u0308cken/e\u0301 1.JPG"
    contents = {decomposed: b"1", "Ja\u0308cken/2.jpg": b"2", "Ja\u0308cken/2.JPG": b"3"}
    write = {"folder": saved, "zip": zip_of}[kind]
    source = open_source(write(tmp_path / f"shop.{kind}", contents))
    for name in ("J\u00e4cken/\u00e9 1.jpg", "J\u00e4cken\\\u00e9 1.Jpg", decomposed):
        assert source.load(name) == b"1"
        assert source.problem(name) is None
        assert source.content_keys([name]) == source.content_keys([decomposed])
    assert source.load("J\u00e4cken/2.JPG") == b"3"  # the very name first
    refuses(FileNotFoundError, r"2\.JPG.*2\.jpg", source.load, "J\u00e4cken/2.Jpg")  # two would fit
    # another case of the name itself is another name, and is told
    told = re.escape(decomposed.split("/")[1])
    refuses(FileNotFoundError, told, source.load, "J\u00e4cken/\u00c9 1.jpg")


def test_a_zip_packed_with_backslashes(tmp_path: Path) -> None:
    # the one with slashes is the member of the name
    members = {"Hats\\1.jpg": b"1", "Hats\\": b"", "Coats/2.jpg": b"2", "Coats\\2.jpg": b"3"}
    source = ZipSource(zip_of(tmp_path / "windows.zip", members))
    assert source.names() == ["Coats/2.jpg", "Hats/1.jpg"]
    assert source.top_folders() == ["Coats", "Hats"]
    assert (source.load("Hats/1.jpg"), source.load("Coats/2.jpg")) == (b"1", b"2")


def test_an_absolute_path_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source = FolderSource(tmp_path / "link")
    for root in ("link", "real"):
        assert source.below(f"{tmp_path}/{root}/a/1.jpg") == "a/1.jpg"
    assert source.below("a/1.jpg", "shop") == "shop/a/1.jpg"
    for name in (f"{tmp_path}/other/1.jpg", f"{tmp_path}/real/../1.jpg", "../1.jpg"):
        refuses(ValueError, r"absolute|has a '\.\.'", source.below, name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_threads_and_forked_processes_read_the_right_pictures(tmp_path: Path, kind: str) -> None:
    contents = {f"images/{i}.jpg": os.urandom(50) * (i + 1) for i in range(100)}
    path = saved(tmp_path / "all", contents)
    source = open_source(path if kind == "folder" else zipped(path, tmp_path / "all.zip"))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.load, contents)) == list(contents.values())
    if hasattr(os, "fork"):
        with get_context("fork").Pool(2) as processes:
            assert processes.map(source.load, contents) == list(contents.values())


def test_links_that_lead_out_of_the_root_are_refused(shop: Path) -> None:
    secret = saved(shop.parent, ["secret.jpg"]) / "secret.jpg"
    (shop / "images" / "link.jpg").symlink_to(secret)
    (shop / "away").symlink_to(shop.parent)
    (shop / "inside.jpg").symlink_to(shop / "images" / "1.jpg")
    (shop / "loop.jpg").symlink_to(shop / "loop.jpg")
    source = FolderSource(shop)
    for image in ("images/link.jpg", "away/secret.jpg"):
        refuses(ValueError, "is a link that leads out of", source.load, image)
        refuses(ValueError, "is a link that leads out of", source.content_keys, [image])
    assert source.load("inside.jpg") == b"one"
    refuses(ValueError, r"loop\.jpg", source.load, "loop.jpg")
    assert "away" in source.names(), "a link to a folder is listed, and not walked"
    (shop.parent / "root").symlink_to(shop)  # a root may be a link itself
    assert FolderSource(shop.parent / "root").load("images/1.jpg") == b"one"
    os.mkfifo(shop / "pipe.jpg")
    for image in ("images", "pipe.jpg"):
        refuses(ValueError, "is no plain file", source.load, image)


def test_huge_files_are_refused_before_reading(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size, name in ((0, "large.jpg"), (1, "huge.jpg")):
        with open(shop / name, "wb") as file:
            file.truncate(sources.MAX_PICTURE_BYTES + size)
    folder = FolderSource(shop)
    refuses(ValueError, "64 MiB; expected at most 64 MiB", folder.load, "huge.jpg")
    assert folder.problem("large.jpg") is None
    zipped = ZipSource(zip_of(shop.parent / "a.zip", {"huge.jpg": bytes(2**20 + 1)}))
    refuses(ValueError, "expected at most 1 MiB", zipped.read, "huge.jpg", 2**20)
    assert zipped.read("huge.jpg", 2**20 + 1) == zipped.load("huge.jpg") == bytes(2**20 + 1)
    monkeypatch.setattr(sources, "MAX_PICTURE_BYTES", 2**20)
    refuses(ValueError, "expected at most 1 MiB", zipped.load, "huge.jpg")
    assert "expected at most" in (zipped.problem("huge.jpg") or "")


def test_roots_that_are_missing_or_no_zip_are_named(tmp_path: Path) -> None:
    lost = tmp_path / "nowhere"
    refuses(FileNotFoundError, r"no folder or zip at .*nowhere", open_source, lost)
    refuses(FileNotFoundError, r"no folder at .*nowhere", FolderSource, lost)
    false = saved(tmp_path, ["false.zip"]) / "false.zip"
    refuses(ValueError, r"false\.zip cannot be read as a zip", open_source, false)


def test_keys_change_if_and_only_if_the_bytes_do(shop: Path, tmp_path: Path) -> None:
    source = FolderSource(shop)
    path = shop / "images" / "1.jpg"
    before = source.content_keys(["images/1.jpg"])
    path.touch()
    assert source.content_keys(["images/1.jpg"]) == before
    stamp = path.stat()
    path.write_bytes(b"TWO")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert source.content_keys(["images/1.jpg"]) != before, "same size and time, other bytes"
    path.write_bytes(b"one")
    assert source.content_keys(["images/1.jpg"]) == before
    assert not source._keys, "just written, it may change again within one tick of the clock"

    def key(data: bytes, method: int) -> list[str]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("1.jpg", data)
        return ZipSource(tmp_path / "a.zip").content_keys(["1.jpg"])

    assert key(b"one", zipfile.ZIP_STORED) == key(b"one", zipfile.ZIP_DEFLATED)
    assert key(b"one", zipfile.ZIP_STORED) != key(b"two", zipfile.ZIP_STORED)


def test_an_old_file_is_hashed_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(shop)
    hashed: list[int] = []
    sha256 = sources.hashlib.sha256
    monkeypatch.setattr(sources.hashlib, "sha256", lambda d: hashed.append(len(d)) or sha256(d))
    monkeypatch.setattr(sources, "_RACY_NS", -(10**12))  # every file counts as old
    first = source.content_keys(["images/1.jpg"])
    assert source.content_keys(["images/1.jpg"]) == first
    assert hashed == [3]
    (shop / "images" / "1.jpg").write_bytes(b"three")
    assert source.content_keys(["images/1.jpg"]) != first
    assert hashed == [3, 5]


# ---- odd and damaged members of a zip


def test_encrypted_links_folders_and_rare_methods_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("folder/", "")
        archive.writestr("rare.jpg", b"x" * 100, zipfile.ZIP_LZMA)
        archive.writestr("locked.jpg", b"y")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag "encrypted" of the last member
    path.write_bytes(data)
    source = ZipSource(path)
    refuses(ValueError, "is a folder or a link", source.load, "link.jpg")
    refuses(FileNotFoundError, "no picture 'folder'", source.load, "folder")
    refuses(ValueError, "compressed by method 14", source.load, "rare.jpg")
    refuses(ValueError, "is encrypted", source.load, "locked.jpg")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_damaged_byte_of_a_member_is_noticed(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    content = bytes(range(0, 256, 2)) * 2
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("1.jpg", content)
    whole = path.read_bytes()
    source = ZipSource(path)
    start, stop = 30 + len("1.jpg"), whole.index(b"PK\x01\x02")
    noticed = 0
    for position in range(start, stop):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            assert source.load("1.jpg") == content, "a spare bit of the compression"
        except ValueError:
            noticed += 1
    assert noticed >= stop - start - 2
    path.write_bytes(whole[:start] + b"\xff\xff\xff" + whole[start + 3 :])
    refuses(ValueError, r"member '1\.jpg' of .* is damaged", source.load, "1.jpg")


def test_a_member_that_unpacks_to_more_than_declared_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(2**20))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 100)
    data[central + 16 : central + 20] = struct.pack("<I", zlib.crc32(bytes(100)))
    path.write_bytes(data)
    refuses(ValueError, "is damaged: its size or CRC-32", ZipSource(path).load, "1.jpg")


def test_a_zip_behind_other_bytes_is_read(shop_zip: Path) -> None:
    shop_zip.write_bytes(b"#!/bin/sh\n" + shop_zip.read_bytes())
    assert ZipSource(shop_zip).load("images/1.jpg") == b"one"


# ---- arrays


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3)])
def test_arrays_are_given_by_name(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    source = pickle.loads(pickle.dumps(ArraySource(arrays, ["a", "b", "c"])))
    np.testing.assert_array_equal(source.load("b"), arrays[1])
    keys = source.content_keys(["a", "b", "c"])
    assert len(set(keys)) == 3
    changed = arrays.copy()
    changed[1, 0, 0] ^= 1
    others = ArraySource(changed, "abc").content_keys(["a", "b", "c"])
    assert [old == new for old, new in zip(keys, others, strict=True)] == [True, False, True]
    source.load("a")[:] = 0
    np.testing.assert_array_equal(source.load("a"), arrays[0])
    for call in (source.load, lambda name: source.content_keys([name])):
        refuses(FileNotFoundError, "no picture 'd' among the 3", call, "d")
    flat, tall = (ArraySource(np.zeros(s, np.uint8), "a") for s in ((1, 2, 6), (1, 6, 2)))
    assert flat.content_keys(["a"]) != tall.content_keys(["a"]), "another shape of equal pixels"


def test_arrays_of_another_kind_are_refused() -> None:
    refuses(TypeError, "float64; expected uint8", ArraySource, np.zeros((1, 2, 2)), ["a"])
    for shape in ((2, 2), (1, 2, 2, 4)):
        refuses(ValueError, "have the shape", ArraySource, np.zeros(shape, np.uint8), ["a"])
    for names in (["a"], ["a", "a"]):
        message, arrays = "expected one name a picture", np.zeros((2, 2, 2), np.uint8)
        refuses(ValueError, message, ArraySource, arrays, names)
