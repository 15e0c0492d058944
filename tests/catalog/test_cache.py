from __future__ import annotations

import hashlib
import io
import multiprocessing
import pickle
import shutil
import threading
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visual_search.catalog import cache
from visual_search.catalog.cache import CachedCatalog, Pictures, cache_pictures
from visual_search.catalog.catalog import BadItemsError, Catalog, RefusedItem
from visual_search.catalog.images import decode


class Folder:
    """Files of a folder, keyed by their SHA-256; counts what it loads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loaded: list[str] = []

    def load(self, image: str) -> bytes:
        self.loaded.append(image)
        return (self.root / image).read_bytes()

    def content_keys(self, images: Sequence[str]) -> list[str]:
        return [hashlib.sha256((self.root / image).read_bytes()).hexdigest() for image in images]


def save_noise(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def catalog_of(folder: Path, source: object = None, images: Sequence[str] = ()) -> Catalog:
    names = list(images) or sorted(path.name for path in folder.iterdir())
    table = pd.DataFrame(
        {
            "item_id": [f"id-{number}-{name}" for number, name in enumerate(names)],
            "image": names,
            "category": "shoes",
            "group": names,
            "split": "",
        }
    )
    return Catalog("toy", table, source or Folder(folder))  # type: ignore[arg-type]


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


def build(catalog: Catalog, cache_dir: Path, **changed: object) -> CachedCatalog:
    arguments: dict[str, object] = {
        "size_px": 8,
        "fit": "stretch",
        "cache_dir": cache_dir,
        "on_bad_item": "error",
        **changed,
    }
    return cache_pictures(catalog, **arguments)  # type: ignore[arg-type]


def check_pixels(result: CachedCatalog, folder: Path, size_px: int = 8) -> None:
    """Compares every cached picture with its file, decoded again."""
    images = list(result.catalog.table["image"])
    assert len(result.pictures) == len(images) == len(result.catalog)
    expected = [decode((folder / image).read_bytes(), size_px, "stretch") for image in images]
    np.testing.assert_array_equal(result.pictures[range(len(images))], expected)


@pytest.mark.parametrize("num_threads", [None, 1, 3])
def test_row_i_is_the_picture_of_item_i(
    folder: Path, cache_dir: Path, num_threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK_ROWS", 7)  # 30 pictures: four chunks and a rest
    result = build(catalog_of(folder), cache_dir, num_threads=num_threads)
    assert (result.num_decoded, result.num_reused) == (30, 0)
    check_pixels(result, folder)


def test_the_second_time_nothing_is_loaded(folder: Path, cache_dir: Path) -> None:
    first = build(catalog_of(folder), cache_dir)
    again = Folder(folder)
    second = build(catalog_of(folder, again), cache_dir)
    assert again.loaded == []
    assert (second.num_decoded, second.num_reused) == (0, 30)
    np.testing.assert_array_equal(second.pictures[range(30)], first.pictures[range(30)])


def test_a_changed_and_a_new_picture_alone_are_decoded(folder: Path, cache_dir: Path) -> None:
    before = build(catalog_of(folder), cache_dir).pictures
    old = before[[3]]
    save_noise(folder / "03.png", 103)
    save_noise(folder / "new.png", 104)
    source = Folder(folder)
    result = build(catalog_of(folder, source), cache_dir)
    assert sorted(source.loaded) == ["03.png", "new.png"]
    assert (result.num_decoded, result.num_reused) == (2, 29)
    check_pixels(result, folder)
    np.testing.assert_array_equal(before[[3]], old)  # a running process keeps what it opened


def test_another_order_or_part_of_the_catalogue_reuses(folder: Path, cache_dir: Path) -> None:
    catalog = catalog_of(folder)
    build(catalog, cache_dir)
    result = build(catalog.take([5, 2, 29]), cache_dir)
    assert (result.num_decoded, result.num_reused) == (0, 3)
    check_pixels(result, folder)


def test_another_size_or_fit_is_another_store(folder: Path, cache_dir: Path) -> None:
    build(catalog_of(folder), cache_dir)
    larger = build(catalog_of(folder), cache_dir, size_px=10)
    boxed = build(catalog_of(folder), cache_dir, fit="letterbox")
    assert larger.num_decoded == boxed.num_decoded == 30
    check_pixels(larger, folder, size_px=10)
    assert (boxed.pictures[[0]][:, :, :, 0] == 255).all()  # 9 x 12: white at both sides
    assert len(list(cache_dir.glob("*/pictures.u8"))) == 3
    assert build(catalog_of(folder), cache_dir).num_decoded == 0


def test_items_that_share_a_picture_share_its_row(folder: Path, cache_dir: Path) -> None:
    (folder / "twin.png").write_bytes((folder / "00.png").read_bytes())
    source = Folder(folder)
    result = build(catalog_of(folder, source, ["00.png", "twin.png", "01.png"]), cache_dir)
    assert len(source.loaded) == 2
    assert (result.num_decoded, result.num_reused) == (2, 0)
    assert result.pictures.store_rows[0] == result.pictures.store_rows[1]
    check_pixels(result, folder)


def test_decoded_arrays(cache_dir: Path, tmp_path: Path) -> None:
    class Arrays:
        def load(self, image: str) -> np.ndarray:
            return np.full((28, 28), int(image), np.uint8)

        def content_keys(self, images: Sequence[str]) -> list[str]:
            return list(images)

    catalog = catalog_of(tmp_path, Arrays(), ["7", "9"])
    assert build(catalog, cache_dir).pictures[[1, 0]].mean(axis=(1, 2, 3)).tolist() == [9, 7]


def test_progress_counts_what_is_decoded(folder: Path, cache_dir: Path) -> None:
    calls: list[tuple[int, int]] = []
    threads = set()

    def note(done: int, total: int) -> None:
        calls.append((done, total))
        threads.add(threading.current_thread())

    build(catalog_of(folder).take(range(10)), cache_dir, on_progress=note)
    assert calls == [(done, 10) for done in range(1, 11)]
    build(catalog_of(folder), cache_dir, on_progress=note)
    assert calls[10:] == [(done, 20) for done in range(1, 21)]
    build(catalog_of(folder), cache_dir, on_progress=note)
    assert len(calls) == 30
    assert threads == {threading.main_thread()}


# ------------------------------------------------------------------------------------ bad items


def with_bad_items(folder: Path) -> Catalog:
    """Thirty good pictures, a text file and a missing file."""
    (folder / "bad.png").write_bytes(b"<html>not found</html>")
    names = sorted(path.name for path in folder.iterdir())
    return catalog_of(folder, images=[*names[:5], "gone.png", *names[5:]])


def test_error_names_every_bad_item_after_trying_all(folder: Path, cache_dir: Path) -> None:
    with pytest.raises(BadItemsError, match=r"2 bad item\(s\) in catalogue 'toy'") as caught:
        build(with_bad_items(folder), cache_dir)
    assert {item.image for item in caught.value.refused} == {"bad.png", "gone.png"}
    assert "FileNotFoundError" in str(caught.value)
    assert "starts with b'<html>not fo'" in str(caught.value)
    (folder / "bad.png").unlink()
    assert build(catalog_of(folder), cache_dir).num_decoded == 0  # the good ones were kept


def test_skip_leaves_bad_items_out_and_lists_them(folder: Path, cache_dir: Path) -> None:
    catalog = with_bad_items(folder)
    earlier = RefusedItem("earlier", "x.png", "by the reader")
    catalog = Catalog(catalog.name, catalog.table, catalog.source, refused=(earlier,))
    for _ in range(2):  # bad pictures are reported each time
        result = build(catalog, cache_dir, on_bad_item="skip")
        assert len(result.catalog) == 30
        assert result.catalog.refused[0] == earlier
        assert [item.image for item in result.catalog.refused[1:]] == ["gone.png", "bad.png"]
        check_pixels(result, folder)


def test_every_item_of_a_bad_picture_is_refused(folder: Path, cache_dir: Path) -> None:
    (folder / "bad.png").write_bytes(b"junk")
    catalog = catalog_of(folder, images=["bad.png", "00.png", "bad.png"])
    result = build(catalog, cache_dir, on_bad_item="skip")
    assert [item.item_id for item in result.catalog.refused] == ["id-0-bad.png", "id-2-bad.png"]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("lost"),
        PermissionError("locked"),
        ValueError("leaves its root"),
        KeyError("no such member"),
        zipfile.BadZipFile("Bad CRC-32"),
        RuntimeError("is encrypted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_source_raises_refuses_the_item(
    folder: Path, cache_dir: Path, error: Exception
) -> None:
    class Broken(Folder):
        def load(self, image: str) -> bytes:
            if image == "07.png":
                raise error
            return super().load(image)

    result = build(catalog_of(folder, Broken(folder)), cache_dir, on_bad_item="skip")
    (refused,) = result.catalog.refused
    assert refused.image == "07.png"
    assert refused.reason.startswith(f"cannot be read: {type(error).__name__}: ")


def test_a_mistake_in_a_source_is_not_taken_for_a_bad_picture(
    folder: Path, cache_dir: Path
) -> None:
    class Wrong(Folder):
        def load(self, image: str) -> bytes:
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        build(catalog_of(folder, Wrong(folder)), cache_dir, on_bad_item="skip")


def test_nothing_left_is_an_error(folder: Path, cache_dir: Path) -> None:
    (folder / "bad.png").write_bytes(b"junk")
    catalog = catalog_of(folder, images=["bad.png"])
    with pytest.raises(ValueError, match="no item of catalogue 'toy' is left: all 1 pictures"):
        build(catalog, cache_dir, on_bad_item="skip")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"size_px": 0}, "size_px is 0"),
        ({"fit": "crop"}, "fit is 'crop'"),
        ({"on_bad_item": "ignore"}, "on_bad_item is 'ignore'; expected one of"),
        ({"num_threads": 0}, "num_threads is 0; expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(
    folder: Path, cache_dir: Path, changed: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        build(catalog_of(folder), cache_dir, **changed)
    assert not cache_dir.exists()


def test_a_full_disk_is_said_before_decoding(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)._replace(free=30 * 192 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    source = Folder(folder)
    with pytest.raises(OSError, match=r"30 pictures of 8 px take .* are free; make room"):
        build(catalog_of(folder, source), cache_dir)
    assert source.loaded == []


# ------------------------------------------------------------------------------------- Pictures


def test_pictures_gives_copies(folder: Path, cache_dir: Path) -> None:
    pictures = build(catalog_of(folder), cache_dir).pictures
    batch = pictures[np.array([4, 4, 0])]
    assert batch.shape == (3, 3, 8, 8)
    assert batch.dtype == np.uint8
    assert type(batch) is np.ndarray
    assert batch.flags.c_contiguous
    assert batch.flags.owndata
    assert batch.flags.writeable
    before = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(pictures[[4, 4, 0]], before)
    assert pictures[[]].shape == (0, 3, 8, 8)
    assert pictures.size_px == 8


@pytest.mark.parametrize("rows", [3, 1.5, [0.0], [[1]], [True, False], slice(0, 2), ["1"]])
def test_pictures_refuses_other_rows(folder: Path, cache_dir: Path, rows: object) -> None:
    pictures = build(catalog_of(folder), cache_dir).pictures
    with pytest.raises(TypeError, match="expected a one-dimensional sequence of row numbers"):
        pictures[rows]  # type: ignore[index]


@pytest.mark.parametrize("row", [-1, 30])
def test_pictures_refuses_rows_outside(folder: Path, cache_dir: Path, row: int) -> None:
    pictures = build(catalog_of(folder), cache_dir).pictures
    with pytest.raises(IndexError, match=rf"row {row} is not among the 30 pictures.*0\.\.29"):
        pictures[[0, row]]


def _mean_of(pictures: Pictures, queue: multiprocessing.Queue[float]) -> None:
    queue.put(float(pictures[[1, 2]].mean()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pictures_in_other_processes(folder: Path, cache_dir: Path, method: str) -> None:
    pictures = build(catalog_of(folder), cache_dir).pictures
    expected = float(pictures[[1, 2]].mean())  # the map is open when the worker starts
    assert len(pickle.dumps(pictures)) < 2000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pictures))[[1]], pictures[[1]])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=_mean_of, args=(pictures, queue))
    worker.start()
    assert queue.get(timeout=60) == expected
    worker.join()


def test_the_cache_directory_may_be_relative(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = build(catalog_of(folder), Path("here"))
    monkeypatch.chdir("/")
    check_pixels(result, folder)


def test_a_large_row_is_a_chunk_of_its_own(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 100)  # less than the 192 of a row
    check_pixels(build(catalog_of(folder), cache_dir), folder)


def test_memory_holds_two_chunks_at_most(
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
    build(catalog_of(folder, source), cache_dir)
    assert len(ahead) == 6
    assert max(ahead) <= 10


def test_jpegs_of_a_real_size(tmp_path: Path, cache_dir: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    file = io.BytesIO()
    Image.radial_gradient("L").resize((900, 600)).convert("RGB").save(file, "JPEG")
    (folder / "a.jpg").write_bytes(file.getvalue())
    check_pixels(build(catalog_of(folder), cache_dir, size_px=128), folder, size_px=128)
