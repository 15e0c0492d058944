"""Adding, replacing, removing, rebuilding."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundle.small_bundles import (
    IDS,
    JPEG,
    change_manifest,
    check_content,
    create,
    embedding,
    files_in,
    items_of,
)
from visual_search.bundle import generation, tidying, writing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.manifest import read_manifest
from visual_search.bundle.tidying import first_to_merge
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items


def test_items_are_added_replaced_and_removed(bundle_folder: Path) -> None:
    change = add_items(bundle_folder, items_of(["item-3", "new-1", "new-20"], mark="b-"))
    assert (change.num_added, change.num_replaced, change.num_removed) == (2, 1, 0)
    assert (change.num_items, change.generation, change.is_rebuilt) == (14, 2, False)
    assert change.plan.kind == "flat"
    marks = dict.fromkeys(["item-3", "new-1", "new-20"], "b-")
    check_content(Bundle.open(bundle_folder), [*IDS, "new-1", "new-20"], marks)
    change = remove_items(bundle_folder, ["new-1", "item-0"])
    assert (change.num_removed, change.num_items, change.generation) == (2, 12, 3)
    left = [one for one in [*IDS, "new-20"] if one != "item-0"]
    bundle = Bundle.open(bundle_folder)
    check_content(bundle, left, marks)
    assert "new-1" not in bundle
    # A removed id may come again.
    add_items(bundle_folder, items_of(["new-1"]))
    check_content(Bundle.open(bundle_folder), [*left, "new-1"], {**marks, "new-1": ""})


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_random_history_is_that_of_a_dict(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    folder = create(tmp_path / "bundle", ["id-0"], kind=kind)
    followed, expected = Bundle.open(folder), {"id-0": ""}
    for step in range(24):
        chosen = [f"id-{n}" for n in rng.choice(30, size=int(rng.integers(1, 6)), replace=False)]
        tidy, chance = bool(rng.integers(2)), rng.random()
        if chance < 0.3:
            remove_items(folder, chosen, skip_missing=True, tidy=tidy)
            expected = {one: mark for one, mark in expected.items() if one not in chosen}
        elif chance < 0.4 and expected:
            rebuild_bundle(folder)
        else:
            add_items(folder, items_of(chosen, mark=f"{step}-"), tidy=tidy)
            expected |= dict.fromkeys(chosen, f"{step}-")
        followed = followed.refreshed()
        if step % 3 == 2:
            check_content(followed, list(expected), expected)
    check_content(Bundle.open(folder), list(expected), expected)


def test_a_column_that_items_lack_is_empty(bundle_folder: Path) -> None:
    some = BundleItems(["x"], {"category": ["hats"]}, embedding("x")[None], [JPEG])
    add_items(bundle_folder, some)
    found = Bundle.open(bundle_folder).item("x")
    assert found == {"item_id": "x", "category": "hats", "colour": ""}
    other = BundleItems(["y"], {"category": ["a"], "size": ["b"]}, embedding("y")[None])
    with pytest.raises(ValueError, match="have the column 'size'; expected some of category, col"):
        add_items(bundle_folder, other)


@pytest.mark.parametrize(
    ("ids", "error", "reason"),
    [
        (["item-1", "u2", "u1"], KeyError, r"has no item 'u1', 'u2'; .* nothing was removed"),
        ([f"u{n}" for n in range(8)], KeyError, "and 3 more"),
        ("item-1", TypeError, "put one id into a list"),
        ([3], TypeError, "expected a list of texts"),
    ],
)
def test_an_unknown_id_removes_nothing(
    bundle_folder: Path, ids: Any, error: type[Exception], reason: str
) -> None:
    before = files_in(bundle_folder)
    with pytest.raises(error, match=reason):
        remove_items(bundle_folder, ids)
    change = remove_items(bundle_folder, ["u1", "\ud800"], skip_missing=True)
    assert (change.num_removed, change.generation) == (0, 1)
    assert remove_items(bundle_folder, []).generation == 1
    assert files_in(bundle_folder) - {".lock"} == before - {".lock"}
    assert remove_items(bundle_folder, ["u1", "item-1"], skip_missing=True).num_removed == 1


def test_a_rebuild_leaves_one_segment_and_the_same_answers(tmp_path: Path) -> None:
    folder = create(tmp_path / "bundle", IDS, kind="hnsw", target_recall=0.9)
    add_items(folder, items_of(["item-3", "new"], mark="b-"), tidy=False)
    remove_items(folder, ["item-7"], tidy=False)
    left = [one for one in [*IDS, "new"] if one != "item-7"]
    marks = {"item-3": "b-", "new": "b-"}
    before = Bundle.open(folder)
    check_content(before, left, marks)
    told: list[tuple[int, int]] = []
    change = rebuild_bundle(folder, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert change.is_rebuilt
    assert (change.plan.kind, change.plan.target_recall, change.num_items) == ("hnsw", 0.9, 12)
    after = Bundle.open(folder)
    check_content(after, left, marks)
    assert after.item_ids() == before.item_ids()
    assert len(after.manifest.segments) == 1
    assert (after.manifest.num_removed, after.manifest.removed) == (0, None)
    check_content(before, left, marks)  # whoever had it open goes on
    assert rebuild_bundle(folder, kind="flat", target_recall=0.8).plan.kind == "flat"
    assert rebuild_bundle(folder).plan.target_recall == 0.8  # asked for again
    wrong: dict[str, Any] = {"kind": "best", "target_recall": 2, "max_bytes": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} is {value!r}"):
            rebuild_bundle(folder, **{name: value})
    check_content(Bundle.open(folder), left, marks)


def test_nothing_cannot_be_rebuilt(bundle_folder: Path) -> None:
    remove_items(bundle_folder, IDS)
    with pytest.raises(ValueError, match="holds no item; expected at least one"):
        rebuild_bundle(bundle_folder)
    assert add_items(bundle_folder, items_of(["a"])).is_rebuilt
    check_content(Bundle.open(bundle_folder), ["a"])


def test_removed_rows_are_dropped_beyond_a_fifth(bundle_folder: Path) -> None:
    assert not remove_items(bundle_folder, IDS[:2]).is_rebuilt
    assert not remove_items(bundle_folder, IDS[2:3], tidy=False).is_rebuilt
    change = remove_items(bundle_folder, IDS[3:4])
    assert change.is_rebuilt
    assert Bundle.open(bundle_folder).manifest.num_rows == 8
    check_content(Bundle.open(bundle_folder), IDS[4:])


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_many_small_segments_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tidying, "MAX_SEGMENTS", 5)
    ids = [f"first-{n}" for n in range(40)]
    folder = create(tmp_path / "bundle", ids, kind=kind)
    segments = []
    for n in range(7):
        ids.append(f"more-{n}")
        add_items(folder, items_of(ids[-1:]))
        if n == 2:
            remove_items(folder, ["more-1"])
            ids.remove("more-1")
        segments.append(len(read_manifest(folder)[0].segments))
    assert segments == [2, 3, 4, 5, 2, 3, 4]
    bundle = Bundle.open(folder)
    check_content(bundle, ids)
    assert bundle.manifest.num_removed == 1  # merging keeps every row's number
    assert bundle.manifest.index.num_rows == (47 if kind == "flat" else 40)


@pytest.mark.parametrize(
    ("sizes", "first"),
    [
        ([1] * 32, None),
        ([1] * 33, 0),
        ([9] + [1] * 32, 0),
        ([90] + [1] * 32, 1),
        ([2**n for n in range(40, 0, -1)], 0),
        ([3**n for n in range(40, 0, -1)], 38),  # two at least, or nothing would become fewer
    ],
)
def test_which_segments_are_merged(sizes: list[int], first: int | None) -> None:
    assert first_to_merge(sizes) == first


def test_an_index_file_that_is_far_behind_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visual_search.bundle.indexing.MAX_LATE_ROWS", 5)
    folder = create(tmp_path / "bundle", IDS, kind="hnsw")
    first = read_manifest(folder)[0].index
    add_items(folder, items_of([f"a{n}" for n in range(5)]))
    assert read_manifest(folder)[0].index == first
    add_items(folder, items_of(["a5"]))
    second = read_manifest(folder)[0].index
    assert second.file != first.file
    assert (first.num_rows, second.num_rows) == (12, 18)
    check_content(Bundle.open(folder), [*IDS, *(f"a{n}" for n in range(6))])


def test_a_bundle_with_a_lancedb_table_of_before_is_searched_exactly(tmp_path: Path) -> None:
    folder = create(tmp_path / "bundle", IDS)
    table = "index/000001-0a1b2c3d.lance"
    (folder / table).mkdir(parents=True)
    (folder / table / "data").write_bytes(b"rows")
    record = {"sha256": hashlib.sha256(b"rows").hexdigest(), "num_bytes": 4}

    def as_before(content: dict[str, Any]) -> None:
        content["files"][f"{table}/data"] = record
        content["index"]["file"] = table
        content["index"]["asked"]["kind"] = content["index"]["plan"]["kind"] = "lancedb"
        content["index"]["plan"]["params"] = {"version": 1, "num_rows": len(IDS)}

    change_manifest(folder, as_before)
    bundle = Bundle.open(folder)
    check_content(bundle, IDS)
    assert "index rebuild" in str(bundle.manifest.index.plan["reason"])
    add_items(folder, items_of(["a"]))
    check_content(Bundle.open(folder), [*IDS, "a"])
    assert rebuild_bundle(folder).plan.kind == "flat"
    assert not any("lance" in name for name in read_manifest(folder)[0].files)


def test_files_of_the_generation_before_stay_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "KEPT_SECONDS", 1e6)  # on the slowest machine
    folder = create(tmp_path / "bundle", IDS)
    first = set(read_manifest(folder)[0].files)
    rebuild_bundle(folder)
    assert first < files_in(folder)
    remove_items(folder, ["item-1"])
    assert first < files_in(folder)  # still within KEPT_SECONDS
    monkeypatch.setattr(generation, "KEPT_SECONDS", 0.0)
    remove_items(folder, ["item-2"])
    remove_items(folder, ["item-3"], tidy=False)
    found = files_in(folder)
    assert not {name for name in first if name.startswith("segments")} & found
    check_content(Bundle.open(folder), [one for one in IDS if one not in IDS[1:4]])


def test_leftovers_are_deleted_and_other_files_stay(bundle_folder: Path) -> None:
    left = ["segments/000002-dead/items.parquet", "index/.x.tmp.faiss", ".bundle.0123abcd.tmp.json"]
    mine = ["mine.txt", "more/mine.txt", ".hidden"]
    for name in left + mine:
        (bundle_folder / name).parent.mkdir(exist_ok=True)
        (bundle_folder / name).write_text("x")
    add_items(bundle_folder, items_of(["a"]))
    found = files_in(bundle_folder)
    assert not set(left) & found
    assert set(mine) < found
    assert not (bundle_folder / "segments/000002-dead").exists()


class Full:
    """Lets the disk be full from the n-th call on, or as long as a check says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_full: Callable[[int], bool]) -> None:
        self.num_calls = 0
        self._fsync, self._is_full = os.fsync, is_full
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.num_calls += 1
        if self._is_full(self.num_calls):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fsync(handle)


WRITES: dict[str, Callable[[Path], object]] = {
    "add": lambda folder: add_items(folder, items_of(["a", "item-2"])),
    "remove": lambda folder: remove_items(folder, ["item-2"]),
    "rebuild": rebuild_bundle,
}


@pytest.mark.parametrize("kind", ["add", "remove", "rebuild"])
def test_a_full_disk_leaves_the_old_generation(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    remove_items(bundle_folder, ["item-1"])
    old = [one for one in IDS if one != "item-1"]
    before, data = files_in(bundle_folder), (bundle_folder / "bundle.json").read_bytes()
    num_refused = 0
    while True:
        error = None
        with monkeypatch.context() as patch:
            full = Full(patch, num_refused.__lt__)
            try:
                WRITES[kind](bundle_folder)
            except OSError as raised:
                error = raised
        if (bundle_folder / "bundle.json").read_bytes() != data:
            break
        assert error is not None
        assert error.errno == errno.ENOSPC
        assert "the bundle stays as it was, generation 2: make room" in str(error)
        assert files_in(bundle_folder) - {".reserve"} == before - {".reserve"}
        check_content(Bundle.open(bundle_folder), old)
        num_refused += 1
    if kind != "remove":  # which tries a second time, with its reserve
        # After the rename only the folder's own fsync is left: the new generation is there.
        assert full.num_calls == num_refused + 1
    assert num_refused >= {"add": 8, "remove": 4, "rebuild": 8}[kind]
    new = {"add": [*old, "a"], "remove": [one for one in old if one != "item-2"], "rebuild": old}
    check_content(Bundle.open(bundle_folder), new[kind])


def test_items_are_removed_on_a_full_disk(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = bundle_folder / ".reserve"
    assert reserve.stat().st_size >= 2**16
    with monkeypatch.context() as patch:
        Full(patch, lambda _: reserve.exists())
        change = remove_items(bundle_folder, IDS[:6])
    assert (change.num_removed, change.is_rebuilt) == (6, False)
    check_content(Bundle.open(bundle_folder), IDS[6:])
    remove_items(bundle_folder, IDS[6:7])  # where there is room again, that is kept once more
    assert reserve.stat().st_size >= 2**16


def test_a_reserve_that_is_a_link_leads_nowhere(bundle_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("x")
    (bundle_folder / ".reserve").unlink()
    (bundle_folder / ".reserve").symlink_to(mine)
    remove_items(bundle_folder, IDS[:1])
    assert mine.read_text() == "x"
    assert not (bundle_folder / ".reserve").is_symlink()


def test_a_failing_write_of_the_index_leaves_the_old_generation(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no memory")

    before = files_in(bundle_folder)
    monkeypatch.setattr(writing, "build_index", fail)
    with pytest.raises(MemoryError):
        rebuild_bundle(bundle_folder)
    assert files_in(bundle_folder) - {".lock"} == before - {".lock"}
    check_content(Bundle.open(bundle_folder), IDS)


def test_a_copied_bundle_goes_on_by_itself(bundle_folder: Path) -> None:
    shutil.copytree(bundle_folder, bundle_folder.parent / "copy")
    add_items(bundle_folder.parent / "copy", items_of(["a"]))
    check_content(Bundle.open(bundle_folder), IDS)
    check_content(Bundle.open(bundle_folder.parent / "copy"), [*IDS, "a"])
