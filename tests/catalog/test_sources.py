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

from visual_search.catalog.readers import sources
from visual_search.catalog.readers.sources import (
    ArraySource,
    FolderSource,
    ZipSource,
    open_source,
    safe_name,
)

UNSAFE = ["../1.jpg", "a/../../1.jpg", "/etc/passwd", "C:\\1.jpg", "c:1.jpg", "..\\1.jpg"]
UNSAFE += ["\\\\host\\1.jpg", "", " ", ".", "a\0.jpg", "\udcff.jpg"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "images").mkdir(parents=True)
    (root / "images" / "1.jpg").write_bytes(b"one")
    (root / "images" / "zwei ü.jpg").write_bytes(b"two" * 1000)
    return root


@pytest.fixture
def shop_zip(shop: Path) -> Path:
    path = shop.parent / "shop.zip"
    with zipfile.ZipFile(path, "w") as archive:
        one = zipfile.ZipInfo("images/1.jpg")
        one.extra = b"\xfe\xca\x04\x00more"  # 8 bytes between the name and the picture
        archive.writestr(one, (shop / "images" / "1.jpg").read_bytes())
        archive.write(shop / "images" / "zwei ü.jpg", "images/zwei ü.jpg", zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("image", UNSAFE)
def test_unsafe_names_are_refused_by_folder_and_zip(shop: Path, shop_zip: Path, image: str) -> None:
    for source in (FolderSource(shop), ZipSource(shop_zip)):
        with pytest.raises(ValueError, match="expected a path below the data's root"):
            source.load(image)
        with pytest.raises(ValueError, match="expected a path below the data's root"):
            source.content_keys([image])
        assert "expected a path below" in (source.problem(image) or "")


def test_a_url_is_no_path() -> None:
    with pytest.raises(ValueError, match=r"'https://a\.org/1\.jpg' is a URL; fetch the pictures"):
        safe_name("https://a.org/1.jpg")


def test_safe_names_with_dots_are_kept() -> None:
    assert safe_name("images/..hidden..jpg") == "images/..hidden..jpg"
    assert safe_name("a b/ü.jpg") == "a b/ü.jpg"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folder_and_zip_give_the_same_bytes(shop: Path, shop_zip: Path, kind: str) -> None:
    source = open_source(shop if kind == "folder" else shop_zip)
    again = pickle.loads(pickle.dumps(source))
    for one in (source, again):
        assert one.names() == ["images/1.jpg", "images/zwei ü.jpg"]
        assert one.top_folders() == ["images"]
        assert one.load("images/1.jpg") == b"one"
        assert one.load("./images//zwei ü.jpg") == b"two" * 1000
        assert one.problem("images/1.jpg") is None
        with pytest.raises(FileNotFoundError, match=r"no picture 'images/2\.jpg'"):
            one.load("images/2.jpg")
        with pytest.raises(FileNotFoundError, match="no picture"):
            one.content_keys(["images/2.jpg"])
        assert "no picture" in (one.problem("images/2.jpg") or "")
    assert source.content_keys(source.names()) == again.content_keys(source.names())


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_name_in_another_spelling_finds_its_file(tmp_path: Path, kind: str) -> None:
    decomposed = "Ja\u0308cken/e\u0301 1.JPG"
    contents = {decomposed: b"1", "Ja\u0308cken/2.jpg": b"2", "Ja\u0308cken/2.JPG": b"3"}
    root = tmp_path / "shop"
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        root = tmp_path / "shop.zip"
    source = open_source(root)
    for name in ("J\u00e4cken/\u00e9 1.jpg", "J\u00e4cken\\\u00e9 1.Jpg", decomposed):
        assert source.load(name) == b"1"
        assert source.problem(name) is None
        assert source.content_keys([name]) == source.content_keys([decomposed])
    assert source.load("J\u00e4cken/2.JPG") == b"3"  # the very name first
    with pytest.raises(FileNotFoundError, match=r"2\.JPG.*2\.jpg"):
        source.load("J\u00e4cken/2.Jpg")  # two would fit
    # another case of the name itself is another name, and is told
    with pytest.raises(FileNotFoundError, match=re.escape(decomposed.split("/")[1])):
        source.load("J\u00e4cken/\u00c9 1.jpg")


def test_a_zip_packed_with_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.writestr("Hats\\1.jpg", b"1")
        archive.writestr("Hats\\", b"")
        archive.writestr("Coats/2.jpg", b"2")
        archive.writestr("Coats\\2.jpg", b"3")  # the one with slashes is the member of the name
    source = ZipSource(tmp_path / "windows.zip")
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
        with pytest.raises(ValueError, match=r"absolute|has a '\.\.'"):
            source.below(name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_many_threads_read_the_right_pictures(tmp_path: Path, kind: str) -> None:
    contents = {f"images/{i}.jpg": os.urandom(50) * (i + 1) for i in range(300)}
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        archive.extractall(tmp_path / "all")
    source = open_source(tmp_path / ("all" if kind == "folder" else "all.zip"))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.load, contents)) == list(contents.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_zip_is_read_by_forked_processes(shop_zip: Path) -> None:
    source = ZipSource(shop_zip)
    source.load("images/1.jpg")
    with get_context("fork").Pool(2) as pool:
        assert pool.map(source.load, ["images/1.jpg"] * 50) == [b"one"] * 50


def test_links_that_lead_out_of_the_root_are_refused(shop: Path) -> None:
    secret = shop.parent / "secret.jpg"
    secret.write_bytes(b"secret")
    (shop / "images" / "link.jpg").symlink_to(secret)
    (shop / "away").symlink_to(shop.parent)
    (shop / "inside.jpg").symlink_to(shop / "images" / "1.jpg")
    (shop / "loop.jpg").symlink_to(shop / "loop.jpg")
    source = FolderSource(shop)
    for image in ("images/link.jpg", "away/secret.jpg"):
        with pytest.raises(ValueError, match="is a link that leads out of"):
            source.load(image)
        with pytest.raises(ValueError, match="is a link that leads out of"):
            source.content_keys([image])
    assert source.load("inside.jpg") == b"one"
    with pytest.raises(ValueError, match=r"loop\.jpg"):
        source.load("loop.jpg")
    assert "away" in source.names(), "a link to a folder is listed, and not walked"


def test_a_folder_that_is_a_link_itself_is_a_good_root(shop: Path) -> None:
    link = shop.parent / "link"
    link.symlink_to(shop)
    assert FolderSource(link).load("images/1.jpg") == b"one"


def test_folders_and_devices_are_no_pictures(shop: Path) -> None:
    os.mkfifo(shop / "pipe.jpg")
    for image in ("images", "pipe.jpg"):
        with pytest.raises(ValueError, match="is no plain file"):
            FolderSource(shop).load(image)


def test_huge_files_are_refused_before_they_are_read(
    shop: Path, shop_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(shop / "huge.jpg", "wb") as file:
        file.truncate(sources.MAX_PICTURE_BYTES + 1)
    with pytest.raises(ValueError, match="64 MiB; expected at most 64 MiB"):
        FolderSource(shop).load("huge.jpg")
    with zipfile.ZipFile(shop_zip, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(shop / "huge.jpg", "huge.jpg")
    source = ZipSource(shop_zip)
    with pytest.raises(ValueError, match="expected at most 64 MiB"):
        source.load("huge.jpg")
    assert len(source.read("huge.jpg", 2**30)) == sources.MAX_PICTURE_BYTES + 1


def test_missing_roots_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder or zip at .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no folder at .*nowhere"):
        FolderSource(tmp_path / "nowhere")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "false.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"false\.zip cannot be read as a zip"):
        open_source(tmp_path / "false.zip")


def test_folder_keys_change_if_and_only_if_the_bytes_do(shop: Path) -> None:
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


def test_an_old_file_is_hashed_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(shop)
    hashed: list[int] = []
    sha256 = sources.hashlib.sha256

    def counted(data: bytes) -> object:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr(sources.hashlib, "sha256", counted)
    monkeypatch.setattr(sources, "_RACY_NS", -(10**12))  # every file counts as old
    first = source.content_keys(["images/1.jpg"])
    assert source.content_keys(["images/1.jpg"]) == first
    assert hashed == [3]
    (shop / "images" / "1.jpg").write_bytes(b"three")
    assert source.content_keys(["images/1.jpg"]) != first
    assert hashed == [3, 5]


def test_a_file_just_written_is_not_remembered(shop: Path) -> None:
    source = FolderSource(shop)
    source.content_keys(["images/1.jpg"])
    assert not source._keys, "it may change again within one tick of the clock"


def test_zip_keys_change_if_and_only_if_the_bytes_do(tmp_path: Path) -> None:
    def key(data: bytes, method: int) -> list[str]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("1.jpg", data)
        return ZipSource(tmp_path / "a.zip").content_keys(["1.jpg"])

    assert key(b"one", zipfile.ZIP_STORED) == key(b"one", zipfile.ZIP_DEFLATED)
    assert key(b"one", zipfile.ZIP_STORED) != key(b"two", zipfile.ZIP_STORED)


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
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1  # the flag "encrypted" of the last member
    path.write_bytes(data)
    source = ZipSource(path)
    for image, reason in {
        "link.jpg": "is a folder or a link",
        "folder": "no picture 'folder'",
        "rare.jpg": "compressed by method 14",
        "locked.jpg": "is encrypted",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            source.load(image)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_damaged_byte_of_a_member_is_noticed(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    content = bytes(range(256)) * 2
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("1.jpg", content)
    whole = path.read_bytes()
    source = ZipSource(path)
    start = 30 + len("1.jpg")
    stop = whole.index(b"PK\x01\x02")
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
    with pytest.raises(ValueError, match=r"member '1\.jpg' of .* is damaged"):
        source.load("1.jpg")


def test_a_member_that_unpacks_to_more_than_declared_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(10 * 2**20))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 100)
    data[central + 16 : central + 20] = struct.pack("<I", zlib.crc32(bytes(100)))
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged: its size or CRC-32"):
        ZipSource(path).load("1.jpg")


def test_a_zip_behind_other_bytes_is_read(shop_zip: Path) -> None:
    shop_zip.write_bytes(b"#!/bin/sh\n" + shop_zip.read_bytes())
    assert ZipSource(shop_zip).load("images/1.jpg") == b"one"


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3)])
def test_arrays_are_given_by_name(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    source = pickle.loads(pickle.dumps(ArraySource(arrays, ["a", "b", "c"])))
    np.testing.assert_array_equal(source.load("b"), arrays[1])
    keys = source.content_keys(["a", "b", "c"])
    assert len(set(keys)) == 3
    changed = arrays.copy()
    changed[1, 0, 0] ^= 1
    assert [
        old == new
        for old, new in zip(
            keys, ArraySource(changed, "abc").content_keys(["a", "b", "c"]), strict=True
        )
    ] == [True, False, True]
    source.load("a")[:] = 0
    np.testing.assert_array_equal(source.load("a"), arrays[0])
    for call in (source.load, lambda name: source.content_keys([name])):
        with pytest.raises(FileNotFoundError, match="no picture 'd' among the 3"):
            call("d")


def test_equal_pixels_of_another_shape_have_another_key() -> None:
    flat, tall = np.zeros((1, 2, 6), np.uint8), np.zeros((1, 6, 2), np.uint8)
    assert ArraySource(flat, "a").content_keys(["a"]) != ArraySource(tall, "a").content_keys(["a"])


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="float64; expected uint8"):
        ArraySource(np.zeros((1, 2, 2)), ["a"])  # type: ignore[arg-type]
    for shape in ((2, 2), (1, 2, 2, 4)):
        with pytest.raises(ValueError, match="have the shape"):
            ArraySource(np.zeros(shape, np.uint8), ["a"])
    for names in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="expected one name a picture"):
            ArraySource(np.zeros((2, 2, 2), np.uint8), names)
