"""Requests to object storage: what is listed, read and written, and what a fault does."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import pytest

from tests.storage.s3_server import SECRET, Fault, S3Server
from visual_search.bundle.bundle import Bundle
from visual_search.catalog.readers.sources import open_source
from visual_search.runs.embedding_stores import open_store
from visual_search.storage import bucket as requests
from visual_search.storage.bucket import Bucket, StorageError, in_parallel
from visual_search.storage.uris import is_object_uri, object_uri, refuse_secrets

ODD = "ü #%20 a+b?&=.jpg"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer attempts, since their pauses double."""
    monkeypatch.setattr(requests, "ATTEMPTS", 3)
    requests._connection.cache_clear()


def _bucket(s3: S3Server, name: str, objects: dict[str, bytes]) -> Bucket:
    s3.put(name, objects)
    s3.asked.clear()
    return Bucket(object_uri(f"s3://{name}/shop/"))


def test_objects_are_listed_by_their_names_and_read(s3: S3Server) -> None:
    kept = {f"shop/{name}": name.encode() for name in ("a/1.jpg", "a/2.jpg", ODD, "b.csv")}
    bucket = _bucket(
        s3, "listing", {**kept, "shop/empty/": b"", "other/c": b"c", "shopping/d": b""}
    )
    listed = bucket.listed()
    assert sorted(listed) == sorted(name.removeprefix("shop/") for name in kept)
    assert listed["a/1.jpg"].num_bytes == len("a/1.jpg")
    assert listed["a/1.jpg"].mtime_ns > 10**18
    assert listed["a/1.jpg"] == bucket.status("a/1.jpg")
    assert sorted(bucket.listed(deep=False)) == sorted(["b.csv", ODD])
    assert bucket.read(ODD) == ODD.encode()
    assert bucket.status("a") is None
    assert pickle.loads(pickle.dumps(bucket)).read("b.csv") == b"b.csv"


def test_a_thousand_objects_and_more_are_listed(s3: S3Server) -> None:
    bucket = _bucket(s3, "pages", {f"shop/{number:04d}": b"" for number in range(1005)})
    assert len(bucket.listed()) == 1005


def test_what_is_not_there_is_named(s3: S3Server, quick: None) -> None:
    bucket = _bucket(s3, "missing", {"shop/a": b"a"})
    with pytest.raises(FileNotFoundError, match="nothing at s3://missing/shop/b"):
        bucket.read("b")
    assert bucket.status("b") is None
    assert Bucket(object_uri("s3://missing/nowhere")).listed() == {}
    with pytest.raises(
        StorageError, match=r"s3://nobody-made-it cannot be listed: .*NO_SUCH_BUCKET"
    ):
        Bucket(object_uri("s3://nobody-made-it")).listed()


def test_a_file_becomes_an_object_and_goes(s3: S3Server, tmp_path: Path) -> None:
    bucket = _bucket(s3, "written", {})
    file = tmp_path / "file.gz"  # whose suffix is no reason to pack or unpack it
    file.write_bytes(os.urandom(9 * 2**20))  # of more than one part
    status = bucket.write("in/it.gz", file)
    assert status.num_bytes == file.stat().st_size
    assert bucket.read("in/it.gz") == file.read_bytes()
    bucket.remove("in/it.gz")
    bucket.remove("in/it.gz")
    assert bucket.status("in/it.gz") is None


@pytest.mark.parametrize("fault", ["busy", "cut", "closed"])
def test_a_request_that_fails_once_is_made_again(
    s3: S3Server, fault: Fault, tmp_path: Path
) -> None:
    bucket = _bucket(s3, f"fault-{fault}", {"shop/a": b"a" * 100_000, "shop/small": b"small"})
    (tmp_path / "file").write_bytes(b"b" * 100_000)
    with s3.disturbed(lambda method, path, before: fault if before == 0 else None):
        assert bucket.read("a") == b"a" * 100_000
        assert bucket.read("small") == b"small"
        assert list(bucket.listed()) == ["a", "small"]
        bucket.write("b", tmp_path / "file")
    assert bucket.read("b") == b"b" * 100_000


def test_storage_that_stays_away_is_an_error_of_its_own(s3: S3Server, quick: None) -> None:
    bucket = _bucket(s3, "away", {"shop/a": b"a"})
    with (
        s3.disturbed(lambda method, path, before: "busy"),
        pytest.raises(StorageError, match="s3://away/shop/a cannot be read: ") as error,
    ):
        bucket.read("a")
    assert SECRET not in str(error.value)
    assert not isinstance(error.value, OSError)  # else a picture would be left out for it
    assert len(s3.asked) == 3


def test_an_object_of_which_a_part_failed_is_not_there(
    s3: S3Server, quick: None, tmp_path: Path
) -> None:
    bucket = _bucket(s3, "parts", {})
    file = tmp_path / "file"
    file.write_bytes(os.urandom(20 * 2**20))
    parts = []

    def fault(method: str, path: str, before: int) -> Fault | None:
        parts.extend(["part"] * (method == "PUT"))
        return "busy" if method == "PUT" and len(parts) > 1 else None

    with s3.disturbed(fault), pytest.raises(StorageError, match="file cannot be written"):
        bucket.write("file", file)
    gc.collect()  # the stream would be closed, which makes an object of the first part
    assert len(parts) > 1
    assert bucket.status("file") is None
    assert bucket.write("file", file).num_bytes == file.stat().st_size


def test_times_are_whole_seconds_everywhere(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.s3.models import FakeKey

    told = property(lambda key: key.last_modified.strftime("%Y-%m-%dT%H:%M:%S.789Z"))
    monkeypatch.setattr(FakeKey, "last_modified_ISO8601", told)  # as MinIO's listings have it
    bucket = _bucket(s3, "seconds", {"shop/a": b"a"})
    assert bucket.listed()["a"] == bucket.status("a")


def test_names_are_those_of_objects_and_folders(s3: S3Server) -> None:
    bucket = _bucket(s3, "names", {"shop/b/1": b"", "shop/b/2": b"", "shop/a.csv": b"", "c": b""})
    assert bucket.names() == ["a.csv", "b"]
    assert Bucket(object_uri("s3://names/nowhere")).names() == []


def test_a_look_gives_up_where_nobody_answers(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LOOK_TIMEOUT_S", 1.0)
    requests._connection.cache_clear()
    bucket, end = _bucket(s3, "silent", {"shop/a": b"a"}), threading.Event()

    def silent(method: str, path: str, before: int) -> None:
        end.wait()

    try:
        with s3.disturbed(silent), pytest.raises(StorageError, match="s3://silent/shop/a cannot"):
            bucket.read("a", is_patient=False)
    finally:
        end.set()
    assert len(s3.asked) == requests.LOOK_ATTEMPTS < requests.ATTEMPTS
    assert bucket.read("a", is_patient=False) == b"a"


def test_a_secret_is_blotted_out_of_what_storage_says(s3: S3Server) -> None:
    with pytest.raises(StorageError) as error, requests._told(object_uri("s3://shop/a"), "read"):
        raise OSError(f"key {SECRET} is not known")
    assert "key *** is not known" in str(error.value)


def test_it_works_in_a_forked_child(s3: S3Server) -> None:
    bucket = _bucket(s3, "forked", {"shop/a": b"a"})
    assert bucket.read("a") == b"a"
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(bucket.read("a")))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == b"a"


def test_the_first_error_of_many_requests_ends_them() -> None:
    done = []

    def call(number: int) -> int:
        done.append(number)
        if number == 3:
            raise FileNotFoundError(number)
        return 2 * number

    assert in_parallel(call, [0, 1, 2]) == [0, 2, 4]
    with pytest.raises(FileNotFoundError):
        in_parallel(call, range(10_000))
    assert len(done) < 10_000


@pytest.mark.parametrize(
    "place", ["s3://key:secret@shop/a", "s3://shop/a?secret_key=secret", "s3:///a", "s3://-/a"]
)
def test_an_address_with_secrets_or_without_bucket_is_refused(place: str) -> None:
    assert is_object_uri(place)
    with pytest.raises(ValueError, match="expected s3://BUCKET/KEY") as error:
        object_uri(place)
    assert "secret@" not in str(error.value)
    assert "=secret" not in str(error.value)


def test_parts_of_an_address() -> None:
    place = object_uri("s3://shop/a/b.tar.gz")
    assert (place.bucket, place.name, place.stem) == ("shop", "b.tar.gz", "b.tar")
    assert str(place.parent.parent / "c") == "s3://shop/c"
    assert str(object_uri("s3://shop").parent) == "s3://shop"
    assert not is_object_uri("http://shop/a")


def test_what_is_typed_may_hold_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from visual_search.check import main

    refuse_secrets("data.root=s3://shop/a@b/what?.jpg")
    for typed in (
        "data.root=s3://key:hidden@shop/a",
        "data.path='s3://shop/a?secret_key=hidden'",
        "data.root=s3a://key:hidden@shop/a",
        "data.root=S3://key:hidden@shop/a",
    ):
        monkeypatch.setattr("sys.argv", ["check", "data=folder", typed])
        with pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr()
        assert "expected s3://BUCKET/KEY alone" in printed.err
        assert "hidden" not in printed.err + printed.out


def test_a_config_may_hold_no_password_that_a_multirun_would_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from visual_search.train import main

    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "shop.yaml").write_text(
        "defaults: [folder]\nroot: s3://key:hidden@shop/a\n"
    )
    monkeypatch.chdir(tmp_path)
    search = f"hydra.searchpath=[file://{tmp_path / 'configs'}]"
    monkeypatch.setattr("sys.argv", ["train", "-m", "data=shop", "seed=1,2", search])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert "data.root: an address of s3:// holds credentials" in said.err
    assert "hidden" not in said.err + said.out
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


@pytest.mark.parametrize("place", ["s3a://shop/a", "S3://shop/a", "https://shop.example/a"])
def test_an_address_of_another_kind_is_no_folder_of_that_name(place: str) -> None:
    for opened in (open_store, open_source, Bundle.open):
        with pytest.raises(ValueError, match="is not known here; expected a path of this machine"):
            opened(place)
