"""The cache after a kill, beside other processes, and with damaged files."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.catalog.test_cache import build, catalog_of, check_pixels, save_noise
from visual_search.catalog.cache import CachedCatalog

# Run by the tests that need a process of their own; prints nothing.
BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from tests.catalog.test_cache import Folder, catalog_of
from visual_search.catalog import cache
cache._CHUNK_ROWS = 4
class Slow(Folder):
    def load(self, image):
        time.sleep(0.05 if image < sys.argv[3] else 3600)
        return super().load(image)
folder = Path(sys.argv[1])
cache.cache_pictures(
    catalog_of(folder, Slow(folder)), size_px=8, fit="stretch", cache_dir=sys.argv[2],
    on_bad_item="error", num_threads=2,
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty different pictures."""
    path = tmp_path / "shop"
    path.mkdir()
    for number in range(30):
        save_noise(path / f"{number:02d}.png", number)
    return path


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def store_file(cache_dir: Path, name: str) -> Path:
    (found,) = cache_dir.glob(f"*/{name}")
    return found


def start_slow_build(folder: Path, cache_dir: Path, until: str = "all") -> subprocess.Popen[bytes]:
    """Builds until a picture of this name, at which it stays for good."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BUILD_SLOWLY, str(folder), str(cache_dir), until]
    return subprocess.Popen(command, cwd=root)


def wait_for_lines(cache_dir: Path, num_lines: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for journal in cache_dir.glob("*/journal.txt"):
            if journal.read_bytes().count(b"\n") >= num_lines:
                return
        time.sleep(0.01)
    raise AssertionError(f"no {num_lines} lines within five minutes")


def test_a_killed_build_goes_on_where_it_was(folder: Path, cache_dir: Path) -> None:
    process = start_slow_build(folder, cache_dir, until="20.png")
    try:
        wait_for_lines(cache_dir, 8)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    result = build(catalog_of(folder), cache_dir)
    assert result.num_reused >= 8
    assert result.num_decoded >= 1
    assert result.num_decoded + result.num_reused == 30
    check_pixels(result, folder)


def test_two_processes_at_once_share_the_work(folder: Path, cache_dir: Path) -> None:
    process = start_slow_build(folder, cache_dir)
    try:
        wait_for_lines(cache_dir, 1)
        result = build(catalog_of(folder), cache_dir)  # waits for the other one
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
        process.wait()
    assert (result.num_decoded, result.num_reused) == (0, 30)
    check_pixels(result, folder)
    assert store_file(cache_dir, "pictures.u8").stat().st_size == 30 * 192


def test_many_threads_of_one_process_at_once(folder: Path, cache_dir: Path) -> None:
    results: list[CachedCatalog] = []
    threads = [
        threading.Thread(target=lambda: results.append(build(catalog_of(folder), cache_dir)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.num_decoded for result in results) == [0, 0, 0, 30]
    for result in results:
        check_pixels(result, folder)


@pytest.mark.parametrize("cut", range(1, 48, 9))
def test_a_torn_last_line_is_passed_over(folder: Path, cache_dir: Path, cut: int) -> None:
    build(catalog_of(folder), cache_dir)
    journal = store_file(cache_dir, "journal.txt")
    journal.write_bytes(journal.read_bytes()[:-cut])
    result = build(catalog_of(folder), cache_dir)
    # Without its line end alone (cut 1) the last line is whole and counts.
    assert (result.num_decoded, result.num_reused) == ((0, 30) if cut == 1 else (1, 29))
    check_pixels(result, folder)
    save_noise(folder / "new.png", 99)
    check_pixels(build(catalog_of(folder), cache_dir), folder)
    last = build(catalog_of(folder), cache_dir)
    assert (last.num_decoded, last.num_reused) == (0, 31)


@pytest.mark.parametrize("junk", [b"\0" * 100, b"\n\nnonsense\n", b"0" * 36 + b" 12\n"])
def test_junk_in_the_journal_is_passed_over(folder: Path, cache_dir: Path, junk: bytes) -> None:
    build(catalog_of(folder).take(range(10)), cache_dir)
    journal = store_file(cache_dir, "journal.txt")
    journal.write_bytes(journal.read_bytes() + junk)
    result = build(catalog_of(folder), cache_dir)
    assert (result.num_decoded, result.num_reused) == (20, 10)
    check_pixels(result, folder)
    assert build(catalog_of(folder), cache_dir).num_decoded == 0


@pytest.mark.parametrize("extra", [1, 192, 500])
def test_rows_without_a_line_are_never_read(folder: Path, cache_dir: Path, extra: int) -> None:
    build(catalog_of(folder).take(range(10)), cache_dir)
    store = store_file(cache_dir, "pictures.u8")
    store.write_bytes(store.read_bytes() + b"\x55" * extra)  # killed between row and line
    check_pixels(build(catalog_of(folder), cache_dir), folder)


@pytest.mark.parametrize("left", [0, 5 * 192, 5 * 192 + 7])
def test_a_shortened_store_is_filled_again(folder: Path, cache_dir: Path, left: int) -> None:
    pictures = build(catalog_of(folder), cache_dir).pictures
    store = store_file(cache_dir, "pictures.u8")
    store.write_bytes(store.read_bytes()[:left])
    with pytest.raises(RuntimeError, match="expected at least 5,760; delete its folder"):
        pictures[[0]]
    result = build(catalog_of(folder), cache_dir)
    assert (result.num_decoded, result.num_reused) == (30 - left // 192, left // 192)
    check_pixels(result, folder)


def test_a_finished_store_may_be_read_only(folder: Path, cache_dir: Path) -> None:
    build(catalog_of(folder), cache_dir)
    (store_folder,) = cache_dir.iterdir()
    store_file(cache_dir, "lock").unlink()
    store_folder.chmod(0o500)
    try:
        check_pixels(build(catalog_of(folder), cache_dir), folder)
        assert not (store_folder / "lock").exists()  # even root takes no lock to read
    finally:
        store_folder.chmod(0o700)
