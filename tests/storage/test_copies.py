"""Copies of objects on this machine: made once, and anew where the object is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.s3_server import S3Server
from visual_search.storage.bucket import Bucket, StorageError
from visual_search.storage.copies import copied_file, copied_files, dropped
from visual_search.storage.hashes import keep_hashes
from visual_search.storage.uris import object_uri


def _num_read(s3: S3Server) -> int:
    count = sum(method == "GET" and not path.endswith("/") for method, path in s3.asked)
    s3.asked.clear()
    return count


def test_a_file_is_copied_once_and_anew_where_it_is_another_one(s3: S3Server) -> None:
    s3.put("copy-file", {"shop/items.csv": b"one", "shop/other": b""})
    place = object_uri("s3://copy-file/shop/items.csv")
    path = copied_file(place)
    assert (path.name, path.read_bytes()) == ("items.csv", b"one")
    _num_read(s3)
    assert copied_file(place) == path
    assert not [path for method, path in s3.asked if method == "GET"]
    s3.put("copy-file", {"shop/items.csv": b"second"})
    assert copied_file(place).read_bytes() == b"second"
    path.write_bytes(b"torn")
    assert copied_file(place).read_bytes() == b"second"
    with pytest.raises(FileNotFoundError, match="nothing at s3://copy-file/shop/none"):
        copied_file(object_uri("s3://copy-file/shop/none"))


def test_a_fault_in_the_middle_leaves_what_is_whole(s3: S3Server) -> None:
    s3.put("copy-fault", {f"shop/{number}": bytes([number]) * 50_000 for number in range(8)})
    bucket = Bucket(object_uri("s3://copy-fault/shop"))
    with s3.disturbed(lambda method, path, before: "cut" if before == 0 else None):
        paths = copied_files(bucket, bucket.listed())
    assert [paths[str(n)].read_bytes() for n in range(8)] == [bytes([n]) * 50_000 for n in range(8)]
    dropped(bucket, ["3"])
    assert not paths["3"].exists()


def test_an_object_that_changes_meanwhile_is_refused(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("copy-race", {"shop/a": b"first"})
    bucket = Bucket(object_uri("s3://copy-race/shop"))
    listed = bucket.listed()
    s3.put("copy-race", {"shop/a": b"another"})
    with pytest.raises(StorageError, match="s3://copy-race/shop/a has changed since it was listed"):
        copied_files(bucket, listed)


def test_a_name_that_leads_elsewhere_is_no_file(s3: S3Server, tmp_path: Path) -> None:
    s3.put("copy-names", {"shop/a": b"a"})
    bucket = Bucket(object_uri("s3://copy-names/shop"))
    status = bucket.listed()["a"]
    for name in ("../a", "a//b", "a\\b", "/a"):
        with pytest.raises(ValueError, match="has a name that no file can have"):
            copied_files(bucket, {name: status})
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="has a part of 251 bytes"):
        copied_files(bucket, {"n" * 251: status})


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("copy-closed", {"shop/a": b"a"})
    (tmp_path / "file").write_bytes(b"")  # where no folder can be, for root neither
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    place = object_uri("s3://copy-closed/shop")
    status = Bucket(place).listed()["a"]
    for writes in (
        lambda: copied_file(place / "a"),
        lambda: keep_hashes(place, {"a": (status, "0" * 64)}),
    ):
        with pytest.raises(OSError, match=r"cannot be written .*: set XDG_CACHE_HOME to one"):
            writes()
