"""The manifest of a download: appended to, read after a kill, held by one process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.catalog.shops import refuses
from visual_search.catalog.downloads.manifest import (
    MANIFEST_NAME,
    Manifest,
    PictureRecord,
    read_manifest,
)

RECORD = PictureRecord(
    "a/1.jpg",
    "https://pictures.example.org/1.jpg",
    "saved",
    3,
    "ab" * 32,
    1,
    "",
    "2024-05-31T12:00:00Z",
)


def records(num: int) -> list[PictureRecord]:
    return [replace(RECORD, name=f"{number}.jpg") for number in range(num)]


def write(folder: Path, *added: PictureRecord) -> Path:
    with Manifest(folder) as manifest:
        for record in added:
            manifest.add(record)
    return manifest.path


def test_records_come_back_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / MANIFEST_NAME) == {}  # no file is an empty one
    strange = replace(RECORD, name="zwei \u2028 ü.jpg", status="refused", error='a "page"\nof HTML')
    path = write(tmp_path / "new", replace(RECORD, status="failed"), strange, RECORD)
    assert path == tmp_path / "new" / MANIFEST_NAME
    assert read_manifest(path) == {RECORD.name: RECORD, strange.name: strange}
    with Manifest(tmp_path / "new") as manifest:
        assert manifest.records == read_manifest(path)
    frame = pd.read_json(write(tmp_path, *records(3)), lines=True)  # anybody can read it
    assert list(frame.columns) == list(asdict(RECORD))
    assert frame["name"].tolist() == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("cut", [1, 2, 50, 200, 260])
def test_a_torn_last_line_is_passed_over_and_replaced(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, *records(4))
    path.write_bytes(path.read_bytes()[:-cut])
    expected = {record.name: record for record in records(3 if cut > 1 else 4)}
    if cut > len(json.dumps(asdict(RECORD), separators=(",", ":"))):
        expected.popitem()
    assert read_manifest(path) == expected
    added = replace(RECORD, name="new.jpg")
    write(tmp_path, added)
    assert read_manifest(path) == expected | {"new.jpg": added}
    assert len(path.read_bytes().splitlines()) == len(expected) + 1


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, *records(2))
    spoilt: list[Any] = [{"status": "lost"}, {"size": "3"}, {"size": True}, {"tries": None}]
    with open(path, "a") as file:
        for number, changed in enumerate([*spoilt, {"more": 1}]):
            line = asdict(RECORD) | {"name": f"bad {number}.jpg"} | changed
            file.write(json.dumps(line) + "\n")
        file.write('"text"\nnull\n' + "[" * 100_000 + "\n" + "\xff\n\n")
    assert list(read_manifest(path)) == ["0.jpg", "1.jpg"]


def test_old_lines_are_dropped_when_they_are_the_most(tmp_path: Path) -> None:
    path = write(tmp_path, *records(3) * 3)
    assert len(path.read_text().splitlines()) == 9
    before = read_manifest(path)
    write(tmp_path)
    assert len(path.read_text().splitlines()) == 3
    assert read_manifest(path) == before


def test_one_process_at_a_time_holds_it(tmp_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    num_files = len(os.listdir(open_files)) if open_files.is_dir() else 0
    with Manifest(tmp_path):
        for _ in range(3):
            refuses(ValueError, "expected one at a time; wait for it", Manifest, tmp_path)
    with Manifest(tmp_path):
        pass
    if num_files:
        assert len(os.listdir(open_files)) == num_files
