"""Several writers at once, and readers beside them."""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.bundle.small_bundles import (
    IDS,
    check_content,
    create,
    embedding,
    flip_last_byte,
    items_of,
    start_python,
)
from visual_search.bundle import generation, snapshot
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.locking import BundleLockedError, write_lock
from visual_search.bundle.writing import add_items, rebuild_bundle

ADD = """
import sys
from visual_search.bundle.writing import add_items
folder, own, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for n in range(count):
    add_items(folder, items_of([f"{own}-{n}", "shared"], mark=f"{own}-{n}-"), wait_seconds=100)
"""


@pytest.mark.slow
def test_several_processes_add_at_once_and_nothing_is_lost(bundle_folder: Path) -> None:
    writers = [start_python(ADD, str(bundle_folder), f"w{n}", "4") for n in range(3)]
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    bundle = Bundle.open(bundle_folder)
    added = [f"w{w}-{n}" for w in range(3) for n in range(4)]
    marks = {one: f"{one}-" for one in added}
    shared = bundle.thumbnail("shared")
    marks["shared"] = next(
        m for m in marks.values() if items_of(["shared"], mark=m).thumbnails[0] == shared
    )
    check_content(bundle, [*IDS, *added, "shared"], marks)
    assert bundle.manifest.generation == 1 + 12


def test_threads_of_one_process_wait_for_each_other(bundle_folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: add_items(bundle_folder, items_of([f"t{n}"])), range(6)))
    assert sorted(change.generation for change in done) == list(range(2, 8))
    check_content(Bundle.open(bundle_folder), [*IDS, *(f"t{n}" for n in range(6))])


def test_a_second_writer_waits_and_then_says_who_holds_the_lock(bundle_folder: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from visual_search.bundle.locking import write_lock
with write_lock(Path(sys.argv[1]), 0):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = start_python(code, str(bundle_folder))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        start = time.monotonic()
        said = rf"being written by process {holder.pid} on .* since 20.*waited 0.3 seconds"
        with pytest.raises(BundleLockedError, match=said):
            add_items(bundle_folder, items_of(["a"]), wait_seconds=0.3)
        assert time.monotonic() - start >= 0.3
        check_content(Bundle.open(bundle_folder), IDS)  # reading waits for nobody
    finally:
        holder.kill()
        holder.communicate()
    assert add_items(bundle_folder, items_of(["a"]), wait_seconds=0).num_items == 13
    assert (bundle_folder / ".lock").read_text() == ""


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_the_lock_checks_its_time(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="wait_seconds is"), write_lock(tmp_path, seconds):
        pass


def test_a_lock_without_a_readable_holder(tmp_path: Path) -> None:
    with write_lock(tmp_path, 0):
        (tmp_path / ".lock").write_text("{")
        with (
            pytest.raises(BundleLockedError, match="written by another process"),
            write_lock(tmp_path, 0),
        ):
            pass


def test_a_newer_generation_is_seen_and_shares_what_stayed(bundle_folder: Path) -> None:
    first = Bundle.open(bundle_folder)
    assert first.is_current()
    assert first.refreshed() is first
    encoder = first.encoder
    add_items(bundle_folder, items_of(["a", "item-2"], mark="b-"))
    second = first.refreshed()
    assert [first.is_current(), second.is_current()] == [False, True]
    assert second.manifest.generation == 2
    assert second.encoder is encoder
    assert second._snapshot.segments[0] is first._snapshot.segments[0]
    check_content(first, IDS)  # a snapshot does not change
    rebuild_bundle(bundle_folder)
    for newer in (second, second.refreshed(), first.refreshed()):
        check_content(newer, [*IDS, "a"], {"a": "b-", "item-2": "b-"})


def test_new_damage_is_found_at_refreshing(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    add_items(bundle_folder, items_of(["a"]))
    new = Bundle.open(bundle_folder).manifest.segments[1].folder
    flip_last_byte(bundle_folder / new / "embeddings.npy")
    with pytest.raises(ValueError, match=r"embeddings\.npy has SHA-256"):
        bundle.refreshed()
    check_content(bundle, IDS)


def test_a_bundle_that_is_gone_or_another_one(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    encoder = bundle.encoder
    os.rename(bundle_folder, tmp_path / "moved")
    assert not bundle.is_current()
    with pytest.raises(FileNotFoundError, match=r"no bundle\.json"):
        bundle.refreshed()
    create(bundle_folder, ["x", "y"])
    check_content(bundle.refreshed(), ["x", "y"])
    assert bundle.refreshed().encoder is encoder  # the same file
    check_content(bundle, IDS)


def test_a_reader_that_opens_while_files_go_reads_again(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the first openings finds its segment gone: writers rebuilt the bundle twice."""
    monkeypatch.setattr(generation, "KEPT_SECONDS", 0.0)
    opened, num_calls = snapshot.open_segment, 0

    def slow(*arguments: object) -> object:
        nonlocal num_calls
        num_calls += 1
        if num_calls <= 3:
            with monkeypatch.context() as patch:
                patch.setattr("visual_search.bundle.tidying.open_segment", opened)
                rebuild_bundle(bundle_folder)
                rebuild_bundle(bundle_folder)
        return opened(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "open_segment", slow)
    bundle = Bundle.open(bundle_folder)
    assert num_calls == 4
    assert bundle.manifest.generation == 7
    check_content(bundle, IDS)
    num_calls = -1000  # always: it gives up in the end
    with pytest.raises(FileNotFoundError, match="is missing"):
        Bundle.open(bundle_folder)
    assert num_calls == -1000 + snapshot.MAX_ATTEMPTS


REPLACE_ALL = """
import sys, time
from pathlib import Path
from visual_search.bundle.writing import add_items
ids = [f"item-{n}" for n in range(40)]
for n in range(1, 9):
    add_items(sys.argv[1], items_of(ids, mark=f"{n}-"), tidy=n % 4 == 0)
    while n % 4 == 0 and not Path(sys.argv[2], f"seen-{n // 4 + 1}").exists():
        time.sleep(0.01)  # however slow the machine: readers have seen so many generations
"""


@pytest.mark.slow
def test_eight_threads_search_while_another_process_writes(tmp_path: Path) -> None:
    """Every write replaces all items: an answer that mixes two generations would show."""
    ids = [f"item-{n}" for n in range(40)]
    held = [Bundle.open(create(tmp_path / "bundle", ids))]
    done = threading.Event()
    seen: set[int] = set()
    query = np.stack([embedding(one) for one in ids[:3]])

    def read() -> int:
        for count in itertools.count():
            if done.is_set():
                return count
            bundle = held[0]
            number = bundle.manifest.generation
            mark = "" if number == 1 else f"{number - 1}-"
            for hits in bundle.search(query, 50, where={"category": [f"{mark}category-0"]}):
                assert {hit.category for hit in hits} == {f"{mark}category-0"}
                assert sorted(hit.item_id for hit in hits) == sorted(ids[:10])
            for hits in bundle.search(query, 40, exclude_ids=ids[:3]):
                assert len({hit.item_id for hit in hits}) == 39
                assert {hit.category.split("category")[0] for hit in hits} == {mark}
            wanted = embedding(f"{mark}item-7")
            np.testing.assert_array_equal(bundle.embedding_of("item-7"), wanted)
            assert bundle.count() == sum(bundle.values_of("colour").values()) == 40
            seen.add(number)
        raise AssertionError

    def refresh() -> int:
        for number in range(len(seen) + 1):
            (tmp_path / f"seen-{number}").touch()
        held[0] = held[0].refreshed()
        assert len(Bundle.open(held[0].folder)) == 40  # a new reader, at whatever moment this is
        assert not any(reader.done() for reader in readers)
        return held[0].manifest.generation

    writer = start_python(REPLACE_ALL, str(held[0].folder), str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(8)]
        try:
            while writer.poll() is None or refresh() not in seen:
                refresh()
        finally:
            done.set()
            if writer.poll() is None:
                writer.kill()  # something failed above: it may be waiting for readers
        counts = [reader.result() for reader in readers]
    assert (writer.communicate()[1], writer.returncode) == ("", 0)
    assert min(counts) > 0
    assert len(seen) > 2
    assert held[0].manifest.generation == 9
