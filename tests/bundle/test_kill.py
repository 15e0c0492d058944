"""A writer that is killed at every step of its way: the bundle is the old one or the new one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.bundle.killed_writer import writer_to_kill
from tests.bundle.small_bundles import IDS, check_content, create, files_in, items_of
from visual_search.bundle import generation
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.manifest import read_manifest
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items

# What the bundle of `start` holds after each write of `killed_writer`, and the marks of its items.
WRITES = {
    "add and merge": ([*IDS[2:], "a"], {"a": "b-", "item-5": "b-"}),
    "remove": (IDS[3:], {}),
    "rebuild": (IDS[2:], {}),
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with removed rows, retired files and something that a killed writer left."""
    monkeypatch.setattr(generation, "KEPT_SECONDS", 1e6)  # however long the test takes
    folder = create(tmp_path / "start", IDS)
    remove_items(folder, ["item-0"], tidy=False)
    rebuild_bundle(folder)
    remove_items(folder, ["item-1"], tidy=False)
    (folder / "segments/000009-dead").mkdir()
    (folder / "segments/000009-dead/items.parquet").write_text("x")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITES)
def test_a_writer_killed_at_any_step_leaves_old_or_new(
    start: Path, tmp_path: Path, kind: str
) -> None:
    ids, marks = WRITES[kind]
    old = read_manifest(start)[0].generation
    found: list[int] = []
    left: set[str] = set()
    with writer_to_kill() as write:
        num_steps = write(kind, shutil.copytree(start, tmp_path / "trial"))
        assert num_steps > 10
        for step in range(1, num_steps + 1):
            folder = shutil.copytree(start, tmp_path / f"step-{step}")
            assert write(kind, folder, at=step) == -signal.SIGKILL
            bundle = Bundle.open(folder)
            found.append(bundle.manifest.generation - old)
            now, now_marks = (ids, marks) if found[-1] else (IDS[2:], {})
            check_content(bundle, now, now_marks)
            left, before = {re.sub("[0-9a-f]{8}", "", name) for name in files_in(folder)}, left
            if left != before:  # which a step that fills a file leaves as it was
                # The next writer goes on from there, and deletes what nobody names.
                remove_items(folder, ["item-6"], tidy=False)
                after = Bundle.open(folder)
                check_content(after, [one for one in now if one != "item-6"], now_marks)
                named = set(after.manifest.files) | {one.file for one in after.manifest.retired}
                assert files_in(folder) - named == {"bundle.json", ".lock", ".reserve"}
            shutil.rmtree(folder)
    assert found == sorted(found)  # old, old, ..., new, new
    assert set(found) == {0, 1}


@pytest.mark.slow
def test_a_creator_killed_at_any_step_leaves_nothing_or_all(tmp_path: Path) -> None:
    place = tmp_path / "place"
    create(place / "other", IDS)
    found: list[bool] = []
    is_killed = True
    with writer_to_kill() as write:
        while is_killed:
            is_killed = write("create", place, at=1 + 3 * len(found)) == -signal.SIGKILL
            found.append((place / "bundle").exists())
            if found[-1]:
                check_content(Bundle.open(place / "bundle"), IDS)
                shutil.rmtree(place / "bundle")
    assert len(found) > 10
    assert found == sorted(found)
    assert found[-1]
    # What the killed ones left lay beside, under hidden names, and the last one deleted it.
    assert {path.name for path in place.iterdir()} == {"given", "other"}


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_everything_is_on_the_disk_before_the_manifest_names_it(
    start: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fsync, replace = os.fsync, os.replace
    known = {start / name for name in read_manifest(start)[0].files}
    synced: set[int] = set()

    def note(handle: int) -> None:
        fsync(handle)
        synced.add(os.fstat(handle).st_ino)

    def rename(source: Path, target: Path) -> None:
        if target.name == "bundle.json":
            new = {start / name for name in json.loads(source.read_text())["files"]} - known
            assert new
            for path in [source, start, *new, *(path.parent for path in new)]:
                assert path.stat().st_ino in synced, path
            known.update(new)
            synced.clear()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", rename)
    for write in (
        lambda: rebuild_bundle(start, kind=kind),
        lambda: remove_items(start, ["item-4"], tidy=False),
        lambda: add_items(start, items_of(["a", "item-3"]), tidy=False),
    ):
        num_known = len(known)
        write()
        assert len(known) > num_known
        assert start.stat().st_ino in synced, "so that the new name lasts"
