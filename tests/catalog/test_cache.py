"""Decoded pictures on the disk: made once, found again, whole after a kill and beside others."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded, noise
from tests.catalog.shops import CHECKOUT, catalog_of, refuses
from visual_search.catalog import cache
from visual_search.catalog.cache import CachedCatalog, Pictures, cache_pictures
from visual_search.catalog.catalog import BadItemsError, Catalog, RefusedItem
from visual_search.catalog.images import decode
from visual_search.catalog.readers.sources import ArraySource, FolderSource


class Folder(FolderSource):
    """Counts what it loads."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.loaded: list[str] = []

    def load(self, image: str) -> bytes:
        self.loaded.append(image)
        return super().load(image)


def save_noise(path: Path, seed: int) -> None:
    path.write_bytes(encoded(noise(9, 12, seed)))


def items(folder: Path, source: Any = None, images: Sequence[str] = ()) -> Catalog:
    names = list(images) or sorted(path.name for path in folder.iterdir())
    return catalog_of(source or Folder(folder), image=names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty different pictures."""
    (tmp_path / "shop").mkdir()
    for number in range(30):
        save_noise(tmp_path / "shop" / f"{number:02d}.png", number)
    return tmp_path / "shop"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def build(catalog: Catalog, cache_dir: Path, **changed: Any) -> CachedCatalog:
    arguments = {"size_px": 8, "fit": "stretch", "on_bad_item": "error"} | changed
    return cache_pictures(catalog, cache_dir=cache_dir, **arguments)


def counts(result: CachedCatalog) -> tuple[int, int]:
    return result.num_decoded, result.num_reused


def check_pixels(result: CachedCatalog, folder: Path, size_px: int = 8) -> None:
    """Compares every cached picture with its file, decoded again."""
    images = list(result.catalog.table["image"])
    assert len(result.pictures) == len(images) == len(result.catalog)
    expected = [decode((folder / image).read_bytes(), size_px, "stretch") for image in images]
    np.testing.assert_array_equal(result.pictures[range(len(images))], expected)


@pytest.mark.parametrize("num_threads", [None, 1, 3])
def test_row_i_is_the_picture_of_item_i_and_nothing_is_loaded_twice(
    folder: Path, cache_dir: Path, num_threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK_ROWS", 7)  # 30 pictures: four chunks and a rest
    result = build(items(folder), cache_dir, num_threads=num_threads)
    assert counts(result) == (30, 0)
    check_pixels(result, folder)
    source = Folder(folder)
    again = build(items(folder, source), cache_dir)
    assert (source.loaded, counts(again)) == ([], (0, 30))
    np.testing.assert_array_equal(again.pictures[range(30)], result.pictures[range(30)])
    part = build(items(folder).take([5, 2, 29]), cache_dir)  # another order, too
    assert counts(part) == (0, 3)
    check_pixels(part, folder)


def test_a_changed_and_a_new_picture_alone_are_decoded(folder: Path, cache_dir: Path) -> None:
    before = build(items(folder), cache_dir).pictures
    old = before[[3]]
    save_noise(folder / "03.png", 103)
    save_noise(folder / "new.png", 104)
    source = Folder(folder)
    result = build(items(folder, source), cache_dir)
    assert sorted(source.loaded) == ["03.png", "new.png"]
    assert counts(result) == (2, 29)
    check_pixels(result, folder)
    np.testing.assert_array_equal(before[[3]], old)  # a running process keeps what it opened


def test_another_size_or_fit_is_another_store(folder: Path, cache_dir: Path) -> None:
    build(items(folder), cache_dir)
    larger = build(items(folder), cache_dir, size_px=10)
    boxed = build(items(folder), cache_dir, fit="letterbox")
    assert larger.num_decoded == boxed.num_decoded == 30
    check_pixels(larger, folder, size_px=10)
    assert (boxed.pictures[[0]][:, :, :, 0] == 255).all()  # 9 x 12: white at both sides
    assert len(list(cache_dir.glob("*/pictures.u8"))) == 3
    assert build(items(folder), cache_dir).num_decoded == 0


def test_items_that_share_a_picture_share_its_row(folder: Path, cache_dir: Path) -> None:
    shutil.copy(folder / "00.png", folder / "twin.png")
    source = Folder(folder)
    result = build(items(folder, source, ["00.png", "twin.png", "01.png"]), cache_dir)
    assert (len(source.loaded), counts(result)) == (2, (2, 0))
    assert result.pictures.store_rows[0] == result.pictures.store_rows[1]
    check_pixels(result, folder)


def test_decoded_arrays_and_large_jpegs(cache_dir: Path, tmp_path: Path) -> None:
    arrays = np.stack([np.full((28, 28), value, np.uint8) for value in (7, 9)])
    made = build(items(tmp_path, ArraySource(arrays, "ab"), ["a", "b"]), cache_dir).pictures
    assert made[[1, 0]].mean(axis=(1, 2, 3)).tolist() == [9, 7]
    photo = Image.radial_gradient("L").resize((900, 600)).convert("RGB")
    (tmp_path / "a.jpg").write_bytes(encoded(photo, "JPEG"))
    result = build(items(tmp_path, images=["a.jpg"]), cache_dir, size_px=128)
    check_pixels(result, tmp_path, size_px=128)


def test_progress_counts_what_is_decoded(folder: Path, cache_dir: Path) -> None:
    calls: list[tuple[int, int]] = []
    threads = set()

    def note(done: int, total: int) -> None:
        calls.append((done, total))
        threads.add(threading.current_thread())

    for catalog in (items(folder).take(range(10)), items(folder), items(folder)):
        build(catalog, cache_dir, on_progress=note)
    assert calls == [(done, total) for total in (10, 20) for done in range(1, total + 1)]
    assert threads == {threading.main_thread()}


# ---- bad items


@pytest.fixture
def with_bad(folder: Path) -> Catalog:
    """Thirty good pictures, a text file and a missing file."""
    (folder / "bad.png").write_bytes(b"<html>not found</html>")
    names = sorted(path.name for path in folder.iterdir())
    return items(folder, images=[*names[:5], "gone.png", *names[5:]])


def test_error_names_all_bad_items_at_the_end(
    folder: Path, with_bad: Catalog, cache_dir: Path
) -> None:
    with pytest.raises(BadItemsError, match=r"2 bad item\(s\) in catalogue 'toy'") as caught:
        build(with_bad, cache_dir)
    assert {item.image for item in caught.value.refused} == {"bad.png", "gone.png"}
    assert "FileNotFoundError" in str(caught.value)
    assert "starts with b'<html>not fo'" in str(caught.value)
    (folder / "bad.png").unlink()
    assert build(items(folder), cache_dir).num_decoded == 0  # the good ones were kept


def test_skip_leaves_out_and_lists_them(folder: Path, with_bad: Catalog, cache_dir: Path) -> None:
    earlier = RefusedItem("earlier", "x.png", "by the reader")
    for _ in range(2):  # bad pictures are reported each time
        result = build(replace(with_bad, refused=(earlier,)), cache_dir, on_bad_item="skip")
        assert result.catalog.refused[0] == earlier
        assert [item.image for item in result.catalog.refused[1:]] == ["gone.png", "bad.png"]
        check_pixels(result, folder)
    twice = items(folder, images=["bad.png", "00.png", "bad.png"])  # each item of it is refused
    refused = build(twice, cache_dir, on_bad_item="skip").catalog.refused
    assert [item.item_id for item in refused] == ["i000", "i002"]
    alone = items(folder, images=["bad.png"])
    message = "no item of catalogue 'toy' is left: all 1 pictures"
    refuses(ValueError, message, build, alone, cache_dir, on_bad_item="skip")


@pytest.mark.parametrize(
    "error",
    [
        *(FileNotFoundError("lost"), PermissionError("locked"), ValueError("leaves its root")),
        *(KeyError("no such"), zipfile.BadZipFile("Bad CRC-32"), RuntimeError("is encrypted")),
        TypeError("a mistake in the source is no bad picture"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_source_raises_refuses_it(folder: Path, cache_dir: Path, error: Exception) -> None:
    class Broken(Folder):
        def load(self, image: str) -> bytes:
            if image == "07.png":
                raise error
            return super().load(image)

    catalog = items(folder, Broken(folder))
    if isinstance(error, TypeError):
        refuses(TypeError, "a mistake", build, catalog, cache_dir, on_bad_item="skip")
        return
    (refused,) = build(catalog, cache_dir, on_bad_item="skip").catalog.refused
    assert refused.image == "07.png"
    assert refused.reason.startswith(f"cannot be read: {type(error).__name__}: ")


def test_bad_arguments_and_a_full_disk_are_refused_before_decoding(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changed, match in (
        ({"size_px": 0}, "size_px is 0"),
        ({"fit": "crop"}, "fit is 'crop'"),
        ({"on_bad_item": "ignore"}, "on_bad_item is 'ignore'; expected one of"),
        ({"num_threads": 0}, "num_threads is 0; expected at least 1"),
    ):
        refuses(ValueError, match, build, items(folder), cache_dir, **changed)
    assert not cache_dir.exists()
    usage = shutil.disk_usage(folder)._replace(free=30 * 192 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    source = Folder(folder)
    refuses(OSError, r"30 pictures of 8 px.* make room", build, items(folder, source), cache_dir)
    assert source.loaded == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=30 * 192))
    assert build(items(folder), cache_dir).num_decoded == 30


# ---- pictures


def test_pictures_gives_copies_and_refuses_other_rows(folder: Path, cache_dir: Path) -> None:
    pictures = build(items(folder), cache_dir).pictures
    batch = pictures[np.array([4, 4, 0])]
    assert (type(batch), batch.shape, batch.dtype) == (np.ndarray, (3, 3, 8, 8), np.uint8)
    flags = batch.flags
    assert [flags.c_contiguous, flags.owndata, flags.writeable] == [True] * 3
    before = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(pictures[[4, 4, 0]], before)
    assert (pictures[[]].shape, pictures.size_px) == ((0, 3, 8, 8), 8)
    for rows in (3, 1.5, [0.0], [[1]], [True, False], slice(0, 2), ["1"]):
        refuses(TypeError, "expected a one-dimensional seq", pictures.__getitem__, rows)
    for row in (-1, 30):
        refuses(IndexError, rf"row {row} .* 30 pictures.*0\.\.29", pictures.__getitem__, [0, row])
    assert pictures[[29]].shape == (1, 3, 8, 8)


def _mean_of(pictures: Pictures, queue: multiprocessing.Queue[float]) -> None:
    queue.put(float(pictures[[1, 2]].mean()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pictures_in_other_processes(folder: Path, cache_dir: Path, method: str) -> None:
    pictures = build(items(folder), cache_dir).pictures
    expected = float(pictures[[1, 2]].mean())  # the map is open when the worker starts
    assert len(pickle.dumps(pictures)) < 2000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pictures))[[1]], pictures[[1]])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=_mean_of, args=(pictures, queue))
    worker.start()
    assert queue.get(timeout=60) == expected
    worker.join()


def test_the_folder_may_be_relative(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = build(items(folder), Path("here"))
    monkeypatch.chdir("/")
    check_pixels(result, folder)


def test_memory_holds_two_chunks(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK_ROWS", 5)
    written = 0
    ahead: list[int] = []
    append = cache._Store.append

    def counting(self: cache._Store, keys: Sequence[str], pixels: Sequence[np.ndarray]) -> object:
        nonlocal written
        time.sleep(0.02)  # the threads have the time to run ahead
        ahead.append(len(source.loaded) - written)
        written += len(keys)
        return append(self, keys, pixels)

    monkeypatch.setattr(cache._Store, "append", counting)
    source = Folder(folder)
    build(items(folder, source), cache_dir)
    assert len(ahead) == 6
    assert max(ahead) <= 10
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 100)  # less than the 192 of a row: one a chunk
    check_pixels(build(items(folder), cache_dir / "other"), folder)
    assert len(ahead) == 36


# ---- after a kill, beside other processes, with damaged files

# Run in a process of its own: builds until a picture of this name, at which it stays for good.
BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from tests.catalog.test_cache import Folder, build, items
from visual_search.catalog import cache
cache._CHUNK_ROWS = 4
class Slow(Folder):
    def load(self, image):
        time.sleep(0.02 if image < sys.argv[3] else 3600)
        return super().load(image)
folder = Path(sys.argv[1])
build(items(folder, Slow(folder)), sys.argv[2], num_threads=2)
"""


def store_file(cache_dir: Path, name: str) -> Path:
    (found,) = cache_dir.glob(f"*/{name}")
    return found


def start_slow_build(
    folder: Path, cache_dir: Path, until: str, num_lines: int
) -> subprocess.Popen[bytes]:
    """Returns the process when it has written so many lines."""
    command = [sys.executable, "-c", BUILD_SLOWLY, str(folder), str(cache_dir), until]
    process = subprocess.Popen(command, cwd=CHECKOUT)
    deadline = time.monotonic() + 300
    while sum(j.read_bytes().count(b"\n") for j in cache_dir.glob("*/journal.txt")) < num_lines:
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            raise AssertionError(f"no {num_lines} lines within five minutes")
        time.sleep(0.01)
    return process


def test_a_killed_build_goes_on_where_it_was(folder: Path, cache_dir: Path) -> None:
    process = start_slow_build(folder, cache_dir, "20.png", 8)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    result = build(items(folder), cache_dir)
    assert result.num_reused >= 8
    assert result.num_decoded >= 1
    assert sum(counts(result)) == 30
    check_pixels(result, folder)


def test_two_processes_at_once_share_the_work(folder: Path, cache_dir: Path) -> None:
    process = start_slow_build(folder, cache_dir, "all", 1)
    try:
        result = build(items(folder), cache_dir)  # waits for the other one
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
        process.wait()
    assert counts(result) == (0, 30)
    check_pixels(result, folder)
    assert store_file(cache_dir, "pictures.u8").stat().st_size == 30 * 192


def test_many_threads_of_one_process_at_once(folder: Path, cache_dir: Path) -> None:
    results: list[CachedCatalog] = []

    def add() -> None:
        results.append(build(items(folder), cache_dir))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.num_decoded for result in results) == [0, 0, 0, 30]
    for result in results:
        check_pixels(result, folder)


@pytest.mark.parametrize("cut", [1, 2, 11, 13, 47])
def test_a_torn_last_line_is_passed_over(folder: Path, cache_dir: Path, cut: int) -> None:
    build(items(folder), cache_dir)
    journal = store_file(cache_dir, "journal.txt")
    journal.write_bytes(journal.read_bytes()[:-cut])
    result = build(items(folder), cache_dir)
    # Without its line end alone (cut 1) the last line is whole and counts.
    assert counts(result) == ((0, 30) if cut == 1 else (1, 29))
    check_pixels(result, folder)
    save_noise(folder / "new.png", 99)
    check_pixels(build(items(folder), cache_dir), folder)
    assert counts(build(items(folder), cache_dir)) == (0, 31)


@pytest.mark.parametrize("junk", [b"\0" * 100, b"\n\nnonsense\n", b"0" * 36 + b" 12\n"])
def test_junk_and_rows_without_a_line_are_none(folder: Path, cache_dir: Path, junk: bytes) -> None:
    build(items(folder).take(range(10)), cache_dir)
    for name, more in (("journal.txt", junk), ("pictures.u8", b"\x55" * (4 * len(junk)))):
        file = store_file(cache_dir, name)
        file.write_bytes(file.read_bytes() + more)
    result = build(items(folder), cache_dir)
    assert counts(result) == (20, 10)
    check_pixels(result, folder)
    assert build(items(folder), cache_dir).num_decoded == 0


@pytest.mark.parametrize("left", [0, 5 * 192, 5 * 192 + 7])
def test_a_shortened_store_is_filled_again(folder: Path, cache_dir: Path, left: int) -> None:
    pictures = build(items(folder), cache_dir).pictures
    store = store_file(cache_dir, "pictures.u8")
    store.write_bytes(store.read_bytes()[:left])
    refuses(RuntimeError, "expected at least 5,760; delete its folder", pictures.__getitem__, [0])
    result = build(items(folder), cache_dir)
    assert counts(result) == (30 - left // 192, left // 192)
    check_pixels(result, folder)


def test_a_finished_store_may_be_read_only(folder: Path, cache_dir: Path) -> None:
    build(items(folder), cache_dir)
    (store_folder,) = cache_dir.iterdir()
    store_file(cache_dir, "lock").unlink()
    store_folder.chmod(0o500)
    try:
        check_pixels(build(items(folder), cache_dir), folder)
        assert not (store_folder / "lock").exists()  # even root takes no lock to read
    finally:
        store_folder.chmod(0o700)
