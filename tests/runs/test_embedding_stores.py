"""Shards on object storage: the files of a folder, and what faults, kills and strangers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.runs.test_embedding_shards import EMBEDDINGS, KEYS, SETTINGS, TABLE, write
from tests.storage.s3_server import SECRET, Fault, S3Server
from visual_search.catalog.streaming import ItemPictures
from visual_search.catalog.synthetic import synthetic
from visual_search.runs.embedding_job import EmbeddingJob
from visual_search.runs.embedding_shards import ShardFolder, read_shard_manifest, read_shards
from visual_search.runs.embedding_stores import open_store
from visual_search.runs.run import RunLockedError
from visual_search.storage import bucket as requests
from visual_search.storage.bucket import StorageError


def written(folder: str | Path) -> ShardFolder:
    shards = ShardFolder(folder, SETTINGS)
    shards.claim()
    for number in range(3):
        write(shards, number)
    return shards


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def objects(s3: S3Server, bucket: str) -> dict[str, bytes]:
    return {
        key.removeprefix("embedded/"): data for key, data in s3.objects(bucket).items()
    }  # fmt: skip


def copies(tmp_path: Path) -> list[str]:
    """Returns what is left of files on this machine, but for locks."""
    return [name for name, data in files(tmp_path / "copies").items() if data]


def kinds(s3: S3Server) -> list[str]:
    """Returns the requests since the last look: LIST, or the method and the last name."""
    asked = [
        "LIST" if method == "GET" and path.strip("/").count("/") == 0
        else f"{method} {path.rpartition('/')[2]}"
        for method, path in s3.asked
    ]  # fmt: skip
    s3.asked.clear()
    return asked


def without_times(found: dict[str, bytes]) -> dict[str, object]:
    """Returns files, the records without the time at which their shard was written."""
    return {
        name: {**json.loads(data), "mtime_ns": 0} if name.startswith("finished/") else data
        for name, data in found.items()
    }


def test_the_objects_are_those_of_a_folder(s3: S3Server, tmp_path: Path) -> None:
    s3.put("same", {})
    local = written(tmp_path / "local").conclude([])
    assert written("s3://same/embedded").conclude([]) == local
    found = objects(s3, "same")
    assert list(found) == [
        *(f"finished/{number:05d}.json" for number in range(3)),
        "manifest.json",
        "settings.json",
        *(f"shards/{number:05d}.parquet" for number in range(3)),
    ]
    assert without_times(found) == without_times(files(tmp_path / "local"))
    assert not [name for name, data in found.items() if SECRET.encode() in data]
    assert copies(tmp_path) == []
    assert not list(tmp_path.glob("s3*"))


def test_what_is_finished_is_known_by_one_listing(s3: S3Server) -> None:
    s3.put("known", {})
    written("s3://known/embedded")
    again = ShardFolder("s3://known/embedded/", replace(SETTINGS, run="moved"))
    kinds(s3)
    again.claim()
    assert list(again.finished()) == [0, 1, 2]
    asked = kinds(s3)
    assert asked.count("LIST") == 1
    assert not [one for one in asked if one.endswith(".parquet")]
    other = ShardFolder("s3://known/embedded", replace(SETTINGS, model_hash="e" * 64))
    with pytest.raises(ValueError, match=r"s3://known/embedded holds shards of other settings"):
        other.claim()
    assert other.finished() == {}


def test_objects_that_were_copied_elsewhere_are_read_once(s3: S3Server, tmp_path: Path) -> None:
    found = files(written(tmp_path / "local").folder)  # whose times are others
    s3.put("copied", {f"embedded/{name}": data for name, data in found.items()})
    shards = ShardFolder("s3://copied/embedded", SETTINGS)
    kinds(s3)
    assert list(shards.finished()) == [0, 1, 2]
    assert len([one for one in kinds(s3) if one.endswith(".parquet") and "GET" in one]) == 3
    assert list(shards.finished()) == [0, 1, 2]
    assert not [one for one in kinds(s3) if one.endswith(".parquet")]
    torn = found["shards/00001.parquet"][:-1] + b"?"
    s3.put("copied", {"embedded/shards/00001.parquet": torn, "embedded/finished/00000.json": b"{"})
    shards = ShardFolder("s3://copied/embedded", SETTINGS)
    record = json.loads(objects(s3, "copied")["finished/00001.json"])
    again = json.dumps(record | {"mtime_ns": 1}).encode()  # as if the second were another one
    s3.put("copied", {"embedded/finished/00001.json": again})
    assert list(shards.finished()) == [2]
    assert shards.record(1) is None
    assert shards.record(2) is not None
    assert copies(tmp_path) == []


def test_shards_are_read_one_at_a_time_and_leave_nothing(s3: S3Server, tmp_path: Path) -> None:
    s3.put("read", {})
    written("s3://read/embedded").conclude([])
    parts = []
    for part in read_shards("s3://read/embedded"):
        assert copies(tmp_path) == []
        parts.append(part)
    table = pd.concat([items for items, _ in parts], ignore_index=True)
    expected = TABLE.drop(columns="image").assign(content_key=KEYS)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    np.testing.assert_array_equal(np.concatenate([found for _, found in parts]), EMBEDDINGS)

    spoilt = bytearray(objects(s3, "read")["shards/00001.parquet"])
    spoilt[50] ^= 1
    s3.put("read", {"embedded/shards/00001.parquet": bytes(spoilt)})
    reading = read_shards("s3://read/embedded")
    next(reading)
    with pytest.raises(ValueError, match=r"^s3://read/embedded/shards/00001\.parquet is not the"):
        next(reading)
    open_store("s3://read/embedded").remove("shards/00001.parquet")
    reading = read_shards("s3://read/embedded")
    next(reading)
    with pytest.raises(FileNotFoundError, match=r"00001\.parquet is missing; expected 2 items"):
        next(reading)
    assert copies(tmp_path) == []


def test_requests_that_fail_at_first_change_nothing(s3: S3Server, tmp_path: Path) -> None:
    s3.put("faults", {})
    faults: list[Fault] = []

    def fault(method: str, path: str, before: int) -> Fault | None:
        if before or method == "HEAD":
            return None
        kinds: tuple[Fault, ...] = ("busy", "cut", "closed")
        faults.append(kinds[len(faults) % 3])
        return faults[-1]

    expected = written(tmp_path / "local").conclude([])
    with s3.disturbed(fault):
        assert written("s3://faults/embedded").conclude([]) == expected
        found = np.concatenate([values for _, values in read_shards("s3://faults/embedded")])
    assert len(faults) > 12
    np.testing.assert_array_equal(found, EMBEDDINGS)
    assert without_times(objects(s3, "faults")) == without_times(files(tmp_path / "local"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are made twice, since pauses between them double."""
    monkeypatch.setattr(requests, "ATTEMPTS", 2)
    requests._connection.cache_clear()


def during(method: str, name: str) -> Callable[[str, str, int], Fault | None]:
    return lambda asked, path, before: (
        "busy" if asked == method and path.endswith(name) else None
    )  # fmt: skip


@pytest.mark.parametrize("name", ["shards/00001.parquet", "finished/00001.json"])
def test_storage_that_stays_away_loses_no_more_than_the_shard(
    s3: S3Server, impatient: None, tmp_path: Path, name: str
) -> None:
    bucket = f"away-{name[:6]}"
    s3.put(bucket, {})
    with (
        s3.disturbed(during("PUT", name)),
        pytest.raises(StorageError, match=f"s3://{bucket}/embedded/{name} cannot be written"),
    ):
        written(f"s3://{bucket}/embedded")
    assert copies(tmp_path) == []
    assert f"embedded/{name}" not in s3.objects(bucket)
    again = ShardFolder(f"s3://{bucket}/embedded", SETTINGS)
    assert list(again.finished()) == [0]
    expected = written(tmp_path / "local").conclude([])
    assert written(again.folder).conclude([]) == expected


def test_a_place_with_something_else_is_refused(s3: S3Server) -> None:
    s3.put(
        "strange",
        {"mine/pictures/1.jpg": b"1", "other/notes.txt": b"2", "items/items.parquet": b""},
    )
    for place, names in (("mine", r"\['pictures'\]"), ("other", r"\['notes\.txt'\]")):
        with pytest.raises(ValueError, match=f"s3://strange/{place} holds {names} and no settings"):
            ShardFolder(f"s3://strange/{place}", SETTINGS).claim()
    ShardFolder("s3://strange/items", SETTINGS).claim()  # killed before it wrote the settings
    with pytest.raises(FileNotFoundError, match=r"s3://strange/items/manifest\.json.*unfinished"):
        read_shard_manifest("s3://strange/items")
    with pytest.raises(
        FileNotFoundError, match=r"s3://strange/mine/manifest\.json.*check the path"
    ):
        read_shard_manifest("s3://strange/mine")


def test_one_command_of_a_machine_writes_at_a_time(s3: S3Server, tmp_path: Path) -> None:
    s3.put("locked", {})
    for place in ("s3://locked/embedded", str(tmp_path / "embedded")):
        first, second = open_store(place), open_store(place)
        with first.locked(), pytest.raises(RunLockedError, match="embedded is in use by"):
            second.locked().__enter__()
        with second.locked():
            pass


def test_a_bucket_that_is_not_there_is_told_before_any_work(s3: S3Server) -> None:
    store = open_store("s3://nobody-has-it/embedded")
    with pytest.raises(StorageError, match="s3://nobody-has-it/embedded cannot be listed"):
        store.locked().__enter__()
    s3.put("nobody-has-it", {})
    with store.locked():  # the lock was given back
        pass


def test_a_folder_that_another_machine_finished_is_told(s3: S3Server) -> None:
    s3.put("both", {})
    shards = written("s3://both/embedded")
    source = synthetic(2, ["Shoes"], image_size_px=32).source
    pictures = ItemPictures(source, "shop", 32, "stretch", 2, 1, stops_at_bad_item=True)
    job = EmbeddingJob(shards.folder, SETTINGS, pictures, missing=(2,))
    shards.conclude([])
    with pytest.raises(RuntimeError, match=r"items\.parquet is gone; .*start this one again"):
        next(job.batches(2))


def test_a_listing_is_copied_once_for_a_machine(s3: S3Server, tmp_path: Path) -> None:
    s3.put("listing", {})
    store = open_store("s3://listing/embedded")
    with store.writing("items.parquet") as path:
        path.write_bytes(b"items")
    kinds(s3)
    paths = {store.kept("items.parquet") for _ in range(3)}
    assert [path.read_bytes() for path in paths] == [b"items"]
    assert kinds(s3).count("GET items.parquet") == 1
    store.remove("items.parquet")
    assert copies(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="nothing at s3://listing/embedded/items"):
        store.kept("items.parquet")


def test_text_that_is_none_is_named_by_its_address(s3: S3Server) -> None:
    s3.put("text", {"embedded/settings.json": b"\xff"})
    with pytest.raises(ValueError, match=r"s3://text/embedded/settings\.json cannot be read"):
        ShardFolder("s3://text/embedded", SETTINGS).claim()


def test_an_address_with_a_password_is_refused() -> None:
    for call in (open_store, read_shard_manifest):
        with pytest.raises(ValueError, match="holds credentials or settings") as error:
            call(f"s3://key:{SECRET}@shop/embedded")
        assert SECRET not in str(error.value)
