"""The folder of shards by itself: written bit by bit, read back, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from visual_search.catalog.catalog import RefusedItem
from visual_search.reading import FileRecord
from visual_search.runs import embedding_shards
from visual_search.runs.embedding_listing import (
    later_rows,
    listed_tables,
    read_listing,
    write_listing,
)
from visual_search.runs.embedding_shards import (
    ShardFolder,
    ShardSettings,
    read_shard_manifest,
    read_shards,
)

SETTINGS = ShardSettings(
    run="outputs/plus_layer/0123456789",
    model_hash="a" * 64,
    preprocessing_hash="b" * 64,
    embedding_hash="c" * 64,
    precision="32-true",
    dim=3,
    catalog="shop",
    catalog_fingerprint="d" * 64,
    columns=("item_id", "category", "colour"),
    num_items=5,
    shard_size=2,
)
TABLE = pd.DataFrame(
    {
        "item_id": list("abcde"),
        "category": ["Hats", "Shoes", "Hats", "Hüte, 帽子", "Shoes"],
        "colour": ["", "red", "red", "", 'a "b"'],
        "image": list("vwxyz"),  # not among the columns: it stays out
    }
).astype(object)
KEYS = [f"key-{n}" for n in range(5)]
EMBEDDINGS = np.arange(15, dtype=np.float32).reshape(5, 3) / 7


def rows(number: int) -> slice:
    return slice(2 * number, 2 * number + 2)


def write(shards: ShardFolder, number: int, embeddings: NDArray[np.float32] = EMBEDDINGS) -> None:
    part = rows(number)
    shards.write(number, TABLE.iloc[part], KEYS[part], embeddings[part])


@pytest.fixture
def shards(tmp_path: Path) -> ShardFolder:
    folder = ShardFolder(tmp_path / "out", SETTINGS)
    folder.claim()
    return folder


@pytest.fixture
def finished(shards: ShardFolder) -> Path:
    for number in (2, 0, 1):
        write(shards, number)
    shards.conclude([RefusedItem("f", "f.jpg", "no picture")])
    return shards.folder


def test_what_was_written_is_read_back(finished: Path) -> None:
    seen: list[tuple[int, int]] = []
    parts = list(read_shards(finished, on_progress=lambda *done: seen.append(done)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    table = pd.concat([items for items, _ in parts], ignore_index=True)
    expected = TABLE.drop(columns="image").assign(content_key=KEYS)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert {type(value) for value in table.to_numpy().ravel()} == {str}
    embeddings = np.concatenate([found for _, found in parts])
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, EMBEDDINGS)
    manifest = read_shard_manifest(finished)
    assert manifest["refused"] == [{"item_id": "f", "image": "f.jpg", "reason": "no picture"}]


def test_reading_is_lazy(finished: Path) -> None:
    (finished / "shards" / "00002.parquet").unlink()
    reading = read_shards(finished)
    assert [len(next(reading)[0]) for _ in range(2)] == [2, 2]
    with pytest.raises(FileNotFoundError, match=r"00002\.parquet is missing; expected 1 items"):
        next(reading)


def test_shards_that_are_finished_are_recognised(shards: ShardFolder) -> None:
    write(shards, 0)
    first = (shards.folder / "shards" / "00000.parquet").read_bytes()
    write(shards, 0)
    assert (shards.folder / "shards" / "00000.parquet").read_bytes() == first
    write(shards, 2)
    seen: list[tuple[int, int]] = []
    found = shards.finished(lambda *done: seen.append(done))
    assert list(found) == [0, 2]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (found[2].first_row, found[2].num_items) == (4, 1)
    other = ShardFolder(shards.folder, replace(SETTINGS, model_hash="e" * 64))
    assert other.finished() == {}
    moved = ShardFolder(shards.folder, replace(SETTINGS, run="elsewhere", catalog="renamed"))
    assert list(moved.finished()) == [0, 2]
    with pytest.raises(ValueError, match=r"lacks 1 of 3 shard\(s\), the first is 00001"):
        shards.conclude([])


def test_a_finished_shard_is_hashed_only_where_its_time_is_another(
    shards: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shards, 0)
    path = shards.folder / "shards" / "00000.parquet"
    read: list[Path] = []
    hashed = embedding_shards.difference

    def counting(file: Path, expected: FileRecord) -> str:
        read.append(file)
        return hashed(file, expected)

    monkeypatch.setattr(embedding_shards, "difference", counting)
    assert list(shards.finished()) == [0]
    assert read == []
    os.utime(path, ns=(1, 1))  # as of a copy
    assert [list(shards.finished()) for _ in range(2)] == [[0], [0]]
    assert read == [path]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert shards.finished() == {}


def test_refused_items_are_in_the_manifest_and_their_shard_may_be_empty(
    shards: ShardFolder,
) -> None:
    write(shards, 0)
    gone = [RefusedItem(item_id, f"{item_id}.jpg", "no picture") for item_id in "cde"]
    shards.write(1, TABLE.iloc[:0], [], EMBEDDINGS[:0], gone[:2])
    shards.write(2, TABLE.iloc[:0], [], EMBEDDINGS[:0], gone[2:])
    manifest = shards.conclude([RefusedItem("f", "f.jpg", "twice")])
    assert [item["item_id"] for item in manifest["refused"]] == ["f", "c", "d", "e"]
    assert (manifest["num_items"], len(manifest["shards"])) == (2, 3)
    assert [len(items) for items, _ in read_shards(shards.folder)] == [2]


def test_a_listing_gives_each_shard_its_rows(tmp_path: Path) -> None:
    whole = TABLE[["item_id", "category", "colour"]]
    parts = [whole.iloc[:1], whole.iloc[1:1], whole.iloc[1:]]
    listed = write_listing(tmp_path / "a.parquet", parts, 2)
    assert listed == write_listing(tmp_path / "b.parquet", [whole], 2)
    assert (listed.columns, listed.num_items) == (tuple(whole.columns), 5)
    found = [read_listing(tmp_path / "a.parquet", number) for number in range(3)]
    assert [len(rows) for rows in found] == [2, 2, 1]
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), whole, check_dtype=False)
    moved = write_listing(tmp_path / "c.parquet", [whole.iloc[::-1]], 2)
    assert moved.fingerprint != listed.fingerprint
    with pytest.raises(ValueError, match=r"a later part .* has the columns \['item_id'\]"):
        write_listing(tmp_path / "d.parquet", [whole, whole[["item_id"]]], 2)


def test_ids_that_stand_again_are_found_on_the_disk(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="the extra 'duckdb' is not installed")
    ids = list("abcabxbb")
    table = pd.DataFrame({"item_id": ids, "image": [f"{n}.jpg" for n in range(8)]}, dtype=object)
    write_listing(tmp_path / "items.parquet", [table], 3)
    found = later_rows(tmp_path / "items.parquet")
    assert {row: (one.item_id, one.image, one.first_row) for row, one in found.items()} == {
        3: ("a", "3.jpg", 0), 4: ("b", "4.jpg", 1), 6: ("b", "6.jpg", 1), 7: ("b", "7.jpg", 1)
    }  # fmt: skip
    kept = pd.concat(listed_tables(tmp_path / "items.parquet", without=found))
    assert kept["item_id"].tolist() == list("abcx")


def test_what_a_killed_process_left_is_swept_away(shards: ShardFolder) -> None:
    write(shards, 0)
    left = [".00001.0123abcd.tmp.parquet", "../finished/.00001.0123abcd.tmp.json"]
    for name in left:
        (shards.folder / "shards" / name).write_bytes(b"half")
    shards.sweep()
    assert [path.name for path in (shards.folder / "shards").iterdir()] == ["00000.parquet"]
    assert [path.name for path in (shards.folder / "finished").iterdir()] == ["00000.json"]


def test_a_record_cannot_point_elsewhere(shards: ShardFolder) -> None:
    write(shards, 0)
    path = shards.folder / "finished" / "00000.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"file": "../other.parquet"}), encoding="utf-8")
    assert shards.finished() == {}


def test_embeddings_that_do_not_fit_are_refused(shards: ShardFolder) -> None:
    with pytest.raises(
        ValueError, match=r"shard 1 have shape \(2, 2\); expected finite .*\(2, 3\)"
    ):
        write(shards, 1, EMBEDDINGS[:, :2])
    spoilt = EMBEDDINGS.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"shape \(2, 3\), not finite of 'd'; expected finite"):
        write(shards, 1, spoilt)
    assert shards.finished() == {}
    assert not list((shards.folder).rglob("*.parquet"))


def test_other_settings_are_refused(shards: ShardFolder) -> None:
    shards.claim()  # the same ones are not
    for change, message in (
        ({"shard_size": 3}, r"shard_size 2 there, 3 here\)"),
        ({"model_hash": "f" * 64}, r"model_hash a{12}\.\.\. there, f{12}\.\.\. here\)"),
        ({"columns": ("item_id",)}, r"columns .* there, \['item_id'\] here\)"),
    ):
        other = ShardFolder(shards.folder, replace(SETTINGS, **change))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            other.claim()
    path = shards.folder / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"format": "embeddings/9"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="format embeddings/9 there, visual_search"):
        shards.claim()


def test_a_folder_without_a_manifest_is_refused(shards: ShardFolder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="it is unfinished: start its command again"):
        read_shard_manifest(shards.folder)
    with pytest.raises(FileNotFoundError, match="expected a folder of shards; check the path"):
        next(read_shards(tmp_path))


def test_a_manifest_that_was_changed_is_refused(finished: Path) -> None:
    path = finished / "manifest.json"
    text = path.read_text(encoding="utf-8")
    for spoilt, message in (
        (text.replace('"num_items": 5', '"num_items": 6'), "its own checksum"),
        (text.replace("embedding_shards/1", "embedding_shards/7"), "its format is"),
        (text[:40], "is no JSON"),
        ("[]", "no object"),
        ("{}", "format is 'None'"),
    ):
        path.write_text(spoilt, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_shard_manifest(finished)


def test_a_shard_that_was_changed_is_refused(finished: Path) -> None:
    path = finished / "shards" / "00001.parquet"
    spoilt = bytearray(path.read_bytes())
    spoilt[50] ^= 1
    path.write_bytes(spoilt)
    reading = read_shards(finished)
    next(reading)
    with pytest.raises(ValueError, match=r"00001\.parquet is not the file that was written"):
        next(reading)
