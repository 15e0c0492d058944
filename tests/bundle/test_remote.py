"""A bundle on object storage is a bundle: copied once, checked by hash, read and never written."""

from __future__ import annotations

import importlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import visual_search as vs
from tests.bundle.small_bundles import (
    IDS,
    check_content,
    create,
    files_in,
    flip_last_byte,
    items_of,
)
from tests.bundle.uploads import asked_for, upload
from tests.storage.s3_server import SECRET, Fault, S3Server
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.files import DamagedError
from visual_search.bundle.manifest import MANIFEST_FILE, read_manifest
from visual_search.bundle.remote import local_encoder, local_folder
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items
from visual_search.storage import bucket as requests
from visual_search.storage.bucket import Bucket, StorageError
from visual_search.storage.uris import object_uri


def test_it_is_copied_once(s3: S3Server, full_folder: Path) -> None:
    address = upload(s3, full_folder, "bundle-once")
    seen: list[tuple[int, int]] = []
    bundle = Bundle.open(address, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(bundle.manifest.files), len(bundle.manifest.files))
    check_content(bundle, [one for one in IDS if one != "item-4"])
    assert (bundle.name, bundle.place, bundle.address) == ("shop", address, address)
    needed = {*read_manifest(full_folder)[0].files, MANIFEST_FILE}
    assert asked_for(s3) == needed
    assert files_in(bundle.folder) == needed  # and not what only writers need
    again = Bundle.open(f"{address}/")
    assert again.folder == bundle.folder
    assert asked_for(s3) == {MANIFEST_FILE}
    assert bundle.is_current()
    assert bundle.refreshed() is bundle


def test_those_who_open_it_at_once_copy_it_once(s3: S3Server, bundle_folder: Path) -> None:
    address = upload(s3, bundle_folder, "bundle-together")
    with ThreadPoolExecutor(3) as threads:
        opened = list(threads.map(Bundle.open, [address] * 3))
    for bundle in opened:
        check_content(bundle, IDS)
    read = Counter(path for method, path in s3.asked if method == "GET" and "/shop/" in path)
    assert read.pop(f"/bundle-together/shop/{MANIFEST_FILE}") == 3
    assert len(read) == len(opened[0].manifest.files)
    assert set(read.values()) == {1}


@pytest.mark.parametrize("fault", ["busy", "cut", "closed"])
def test_a_fault_in_the_middle_is_passed_over(
    s3: S3Server, fault: Fault, full_folder: Path
) -> None:
    address = upload(s3, full_folder, f"bundle-{fault}")
    with s3.disturbed(lambda method, path, before: fault if before == 0 else None):
        check_content(Bundle.open(address), [one for one in IDS if one != "item-4"])


def test_a_newer_generation_is_seen_and_only_it_is_copied(s3: S3Server, full_folder: Path) -> None:
    address = upload(s3, full_folder, "bundle-newer")
    bundle = Bundle.open(address)
    add_items(full_folder, items_of(["further"]), tidy=False)
    upload(s3, full_folder, "bundle-newer")
    assert not bundle.is_current()
    newer = bundle.refreshed()
    ids = [one for one in IDS if one != "item-4"]
    check_content(newer, [*ids, "further"])
    check_content(bundle, ids)
    segment = newer.manifest.segments[-1].folder
    assert {name.rpartition("/")[0] for name in asked_for(s3)} == {"", segment}
    rebuild_bundle(full_folder)
    upload(s3, full_folder, "bundle-newer")
    check_content(Bundle.open(address), [*ids, "further"])
    assert files_in(bundle.folder) == {*read_manifest(full_folder)[0].files, MANIFEST_FILE}
    check_content(newer, [*ids, "further"])  # who has it open goes on


def test_a_bundle_that_is_replaced_while_it_is_copied_is_the_new_one(
    s3: S3Server, bundle_folder: Path, tmp_path: Path
) -> None:
    address = upload(s3, bundle_folder, "bundle-replaced")
    other = create(tmp_path / "other", ["a", "b"])
    segment = read_manifest(bundle_folder)[0].segments[0].folder
    replaced = []

    def replace(method: str, path: str, before: int) -> None:
        if segment in path and not replaced:
            replaced.append(path)
            upload(s3, other, "bundle-replaced")

    with s3.disturbed(replace):
        check_content(Bundle.open(address), ["a", "b"])
    assert replaced


def test_a_file_that_was_not_uploaded_is_named(s3: S3Server, bundle_folder: Path) -> None:
    address = upload(s3, bundle_folder, "bundle-half")
    name = f"{read_manifest(bundle_folder)[0].segments[0].folder}/embeddings.npy"
    Bucket(object_uri(address)).remove(name)
    with pytest.raises(FileNotFoundError, match=f"{address}/{name} is missing"):
        Bundle.open(address)
    with pytest.raises(FileNotFoundError, match=f"nothing at {address}/none/bundle.json"):
        Bundle.open(f"{address}/none")


def test_a_damaged_object_is_refused_and_a_damaged_copy_made_anew(
    s3: S3Server, bundle_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{read_manifest(bundle_folder)[0].segments[0].folder}/embeddings.npy"
    flip_last_byte(bundle_folder / name)
    address = upload(s3, bundle_folder, "bundle-damaged")
    for _ in range(2):
        with pytest.raises(DamagedError, match=f"{address}/{name} has SHA-256"):
            Bundle.open(address)
    flip_last_byte(bundle_folder / name)
    upload(s3, bundle_folder, "bundle-damaged")
    folder = Bundle.open(address).folder
    flip_last_byte(folder / name)
    asked_for(s3)
    check_content(Bundle.open(address), IDS)
    assert asked_for(s3) == {MANIFEST_FILE, name}
    assert str(folder / name) in caplog.text
    for torn in (MANIFEST_FILE, name):
        (folder / torn).write_bytes(b"{")
        check_content(Bundle.open(address), IDS)


def test_an_encoder_is_copied_alone(s3: S3Server, bundle_folder: Path) -> None:
    address = upload(s3, bundle_folder, "bundle-encoder")
    folder, manifest = local_encoder(address)
    assert files_in(folder) == {manifest.encoder.file}
    assert manifest == local_encoder(bundle_folder)[1]
    check_content(Bundle.open(address), IDS)  # what is missing is still copied


def test_storage_that_stays_away_is_said_without_a_secret(
    s3: S3Server, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ATTEMPTS", 2)
    requests._connection.cache_clear()
    address = upload(s3, bundle_folder, "bundle-away")
    bundle = Bundle.open(address)
    with s3.disturbed(lambda method, path, before: "busy"):
        for ask in (lambda: Bundle.open(address), bundle.is_current, bundle.refreshed):
            with pytest.raises(StorageError, match=f"{address}/bundle.json cannot be read") as told:
                ask()
            assert SECRET not in str(told.value)
    check_content(bundle, IDS)


def test_nobody_writes_there(bundle_folder: Path, tmp_path: Path) -> None:
    address, files = "s3://bundle-written/shop", files_in(bundle_folder)
    for write in (
        lambda: add_items(address, items_of(["a"])),
        lambda: remove_items(address, ["a"]),
        lambda: rebuild_bundle(address),
        lambda: create_bundle(
            address, name="a", encoder_onnx=bundle_folder / "encoder.onnx", items=items_of(["a"])
        ),
    ):
        with pytest.raises(ValueError, match=f"{address} is on object storage.*upload it"):
            write()
    assert files_in(bundle_folder) == files


def typed(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> None:
    module = importlib.import_module(f"visual_search.{command}")
    monkeypatch.setattr("sys.argv", [command, *arguments])
    module.main()


def test_commands_take_an_address_as_a_folder(
    s3: S3Server,
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = upload(s3, bundle_folder, "bundle-commands")
    told = []
    for place in (address, f"{bundle_folder}"):
        typed(monkeypatch, "search", f"bundle={place}", "item=item-1", "format=json")
        typed(monkeypatch, "index", "info", f"bundle={place}")
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert vs.open_bundle(address).similar("item-1") == vs.open_bundle(bundle_folder).similar(
        "item-1"
    )
    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    to = ("to=lancedb", f"url={tmp_path / 'lancedb'}")
    typed(monkeypatch, "index", "push", f"bundle={address}", *to)
    typed(monkeypatch, "index", "verify", f"bundle={bundle_folder}", *to)
    assert "holds the same 12 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "index add bundle=s3://a/shop image=a.jpg item=a category=b",
        "index remove bundle=s3://a/shop item=a",
        "index rebuild bundle=s3://a/shop",
        "export run=a out=s3://a/shop",
        "serve bundles=[shop,s3://a/shop]",
    ],
)
def test_commands_that_write_say_what_to_do_instead(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUAL_SEARCH_TOKEN", "0123456789abcdef")  # of serve
    with pytest.raises(SystemExit) as end:
        typed(monkeypatch, *arguments.split())
    assert end.value.code == 2
    assert "error: s3://a/shop is on object storage" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["search item=a", "serve port=0"])
def test_commands_say_in_a_sentence_that_storage_is_away(
    command: str,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(requests, "ATTEMPTS", 1)
    requests._connection.cache_clear()
    s3.put("bundle-not-there", {})
    with (
        s3.disturbed(lambda method, path, before: "busy"),
        pytest.raises(SystemExit) as end,
    ):
        typed(monkeypatch, *command.split(), "bundle=s3://bundle-not-there/shop")
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: s3://bundle-not-there/shop/bundle.json cannot be read")
    assert len(lines) == 2  # and how to see more
    assert SECRET not in lines[0]


def test_an_address_with_a_secret_is_refused_and_a_folder_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected s3://BUCKET/KEY") as told:
        Bundle.open("s3://key:secret@shop/a")
    assert "secret@" not in str(told.value)
    assert local_folder(tmp_path) == tmp_path
