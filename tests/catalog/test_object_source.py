"""Catalogues on object storage: what a folder of the same files gives, and what a fault does."""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.catalog.published_sets import SETS, drawn
from tests.catalog.shops import saved, zipped
from tests.catalog.test_row_blocks import check_like_whole, defaults
from tests.catalog.test_webdataset import pack
from tests.composing import typed
from tests.storage.s3_server import S3Server
from visual_search.catalog.cache import cache_pictures
from visual_search.catalog.catalog import BadItemsError, Catalog
from visual_search.catalog.readers import object_source, row_blocks
from visual_search.catalog.readers.folder import folder
from visual_search.catalog.readers.object_source import ObjectSource
from visual_search.catalog.readers.parquet import parquet
from visual_search.catalog.readers.row_blocks import large_parquet, large_table, large_webdataset
from visual_search.catalog.readers.sources import open_source
from visual_search.catalog.readers.table import TableSettings, table
from visual_search.catalog.readers.webdataset import webdataset
from visual_search.catalog.streaming import read_pictures
from visual_search.runs.catalogs import build_catalog
from visual_search.storage import bucket as requests
from visual_search.storage.bucket import StorageError
from visual_search.storage.uris import object_uri


def _put(s3: S3Server, bucket: str, root: Path, prefix: str = "shop") -> str:
    """Copies a folder into a bucket and returns its address."""
    files = {
        f"{prefix}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
    s3.put(bucket, files)
    s3.asked.clear()
    return f"s3://{bucket}/{prefix}"


def _gets(s3: S3Server, ending: str) -> int:
    return sum(method == "GET" and path.endswith(ending) for method, path in s3.asked)


def _alike(there: Catalog, here: Catalog) -> None:
    pd.testing.assert_frame_equal(there.table, here.table)
    assert there.name == here.name
    assert there.fingerprint() == here.fingerprint()
    assert [one.item_id for one in there.refused] == [one.item_id for one in here.refused]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """40 pictures in four categories, with a stray file and one that is no picture."""
    names = [
        f"{name}/{number}.jpg" for name in ("hats", "Füße", "a b+c", "d#e") for number in range(10)
    ]
    files: dict[str, bytes | str] = {name: drawn(seed) for seed, name in enumerate(names)}
    return saved(tmp_path / "shop", {**files, "hats/.DS_Store": "x"})


def test_a_folder_gives_the_catalogue_that_it_gives_on_this_machine(
    s3: S3Server, shop: Path
) -> None:
    there = folder(_put(s3, "folder", shop))
    assert s3.asked.count(("GET", "/folder")) == 2  # whether it is a zip, and listed once
    assert not _gets(s3, ".jpg")  # and nothing read for it
    _alike(there, folder(shop))


def test_pictures_are_read_for_their_keys_once_a_machine(s3: S3Server, shop: Path) -> None:
    place = _put(s3, "hashed", shop)
    first = folder(place).fingerprint()
    assert _gets(s3, ".jpg") == 40
    assert folder(place).fingerprint() == first
    assert _gets(s3, ".jpg") == 40
    s3.put("hashed", {"shop/hats/0.jpg": drawn(99, 64)})
    assert folder(place).fingerprint() != first
    assert _gets(s3, ".jpg") == 41


def test_a_zip_is_copied_and_read(s3: S3Server, shop: Path, tmp_path: Path) -> None:
    packed = (
        zipped(shop, tmp_path / "zips" / "shop.zip")
        if (tmp_path / "zips").mkdir() is None
        else None
    )
    place = _put(s3, "zipped", tmp_path / "zips", "in")
    assert packed is not None
    _alike(folder(f"{place}/shop.zip"), folder(packed))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_lies_beside_its_pictures(
    s3: S3Server, shop: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = sorted(path for path in shop.rglob("*.jpg"))
    frame = pd.DataFrame(
        {
            "item_id": [f"{number:03}" for number in range(len(pictures))],
            "image": [path.relative_to(shop).as_posix() for path in pictures],
            "category": [path.parent.name for path in pictures],
        }
    )
    frame.loc[3, "image"] = "hats/none.jpg"
    here = shop / f"products{suffix}"
    if suffix == ".csv":
        frame.to_csv(here, index=False)
    else:
        frame.to_parquet(here)
    place = _put(s3, f"table-{suffix[1:]}", shop)
    s3.put(f"table-{suffix[1:]}", {"other/far/away.jpg": b"x"})
    there = table(f"{place}/products{suffix}", on_bad_item="skip")
    _alike(there, table(here, on_bad_item="skip"))
    with pytest.raises(BadItemsError, match=r"no picture 'hats/none.jpg' in s3://table-"):
        table(f"{place}/products{suffix}")

    for name, value in (("LARGE_BYTES", 200), ("BLOCK_CHARACTERS", 300), ("LARGE_ROWS", 9)):
        monkeypatch.setattr(row_blocks, name, value)
    bound = inspect.signature(table).bind(object_uri(f"{place}/products{suffix}"))
    bound.apply_defaults()
    asked = TableSettings(**{
        name: value for name, value in bound.arguments.items()
        if name in TableSettings.__dataclass_fields__
    })  # fmt: skip
    found = large_table(asked, name=None, category_depth=None, on_bad_item="skip")
    assert found is not None
    s3.asked.clear()
    rows = pd.concat([part for part, _ in found.parts])
    assert len(rows) == 40  # whether a picture is there is found out when it is read
    assert not [path for method, path in s3.asked if "list-type" in path or ".jpg" in path]
    source = pickle.loads(pickle.dumps(found.source))
    read = list(read_pictures(source, rows["image"].tolist(), size_px=32, fit="letterbox"))
    assert [one.reason for one in read if one.pixels is None] == [
        f"cannot be read: FileNotFoundError: nothing at {place}/hats/none.jpg; check the address"
    ]


def _tars(root: Path) -> Callable[..., Catalog]:
    for number in range(3):
        members: dict[str, str | bytes | dict[str, Any]] = {}
        for item in range(30):
            members |= {f"{item:02}.jpg": drawn(30 * number + item), f"{item:02}.cls": "hat"}
        pack(root / "train" / f"{number}.tar", members)
    return webdataset


def _parquets(root: Path) -> Callable[..., Catalog]:
    for number in range(3):
        root.mkdir(exist_ok=True)
        pictures = [{"bytes": drawn(10 * number + n), "path": "x"} for n in range(10)]
        columns = {"image": pa.array(pictures), "label": ["hat", "shoe"] * 5}
        pq.write_table(pa.table(columns), root / f"train-{number}.parquet", row_group_size=4)
    return parquet


@pytest.mark.parametrize("written", [_tars, _parquets])
def test_files_with_pictures_are_copied_once_or_read_there(
    s3: S3Server, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = written(tmp_path / "shop")
    place = _put(s3, written.__name__[1:], tmp_path / "shop")
    here, there = reader(tmp_path / "shop"), reader(place)
    _alike(there, here)
    num_read = len(s3.asked)
    _alike(reader(place), here)
    assert len(s3.asked) - num_read < 10  # looked at, and not copied anew
    if reader is webdataset:
        single = reader(f"{place}/train/0.tar")
        _alike(single, reader(tmp_path / "shop" / "train" / "0.tar"))

    monkeypatch.setattr(row_blocks, "LARGE_TAR_BYTES", 100)
    monkeypatch.setattr(row_blocks, "LARGE_ROWS", 9)
    s3.asked.clear()
    large = large_webdataset if reader is webdataset else large_parquet
    check_like_whole(large(**defaults(reader, path=object_uri(place))), here)
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.suffix == ".part"]


def test_a_fault_in_the_middle_is_passed_over(s3: S3Server, shop: Path, tmp_path: Path) -> None:
    place = _put(s3, "faulty", shop)

    def every_third(method: str, path: str, before: int) -> Any:
        fault = ("busy", "cut", "closed")[len(s3.asked) % 3]
        return fault if before == 0 and len(s3.asked) % 3 == 0 else None

    with s3.disturbed(every_third):
        catalog = folder(place)
        cached = cache_pictures(
            catalog, size_px=32, fit="letterbox", cache_dir=tmp_path / "cache", on_bad_item="error"
        )
    assert len(cached.pictures) == 40
    _alike(catalog, folder(shop))


def test_storage_that_stays_away_leaves_no_picture_out(
    s3: S3Server, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = folder(_put(s3, "gone", shop))
    monkeypatch.setattr(requests, "ATTEMPTS", 2)
    requests._connection.cache_clear()
    for reads in (
        lambda: cache_pictures(
            catalog, size_px=32, fit="letterbox", cache_dir=tmp_path / "cache", on_bad_item="skip"
        ),
        lambda: list(
            read_pictures(
                catalog.source, catalog.table["image"].tolist(), size_px=32, fit="letterbox"
            )
        ),
    ):
        with (
            s3.disturbed(lambda method, path, before: "busy"),
            pytest.raises(StorageError, match=r"s3://gone/shop/.* cannot be read"),
        ):
            reads()


def test_names_in_another_spelling_and_ways_out(s3: S3Server, shop: Path) -> None:
    source = open_source(_put(s3, "names", shop))
    assert isinstance(source, ObjectSource)
    data = (shop / "Füße/1.jpg").read_bytes()
    for name in ("Füße/1.jpg", "./Füße//1.jpg", "Fu\u0308ße/1.jpg", "Füße\\1.jpg", "Füße/1.JPG"):
        assert source.load(name) == data
        assert source.problem(name) is None
    assert source.below("s3://names/shop/hats/1.jpg", "hats") == "hats/1.jpg"
    for name in ("../shop/hats/1.jpg", "/hats/1.jpg", "s3://other/1.jpg", "hats", "hats/11.jpg"):
        assert source.problem(name)
    with pytest.raises(FileNotFoundError, match="nothing below s3://names/none"):
        folder("s3://names/none")


def test_threads_of_a_new_process_list_once(s3: S3Server, shop: Path) -> None:
    source = pickle.loads(pickle.dumps(folder(_put(s3, "threads", shop)).source))
    s3.asked.clear()
    read = read_pictures(
        source, [f"hats/{n % 10}.jpg" for n in range(256)], size_px=8, fit="stretch"
    )
    assert not [one.reason for one in read if one.reason]
    assert s3.asked.count(("GET", "/threads")) == 1


def test_what_is_too_large_for_a_picture_is_not_read(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("large", {"a.jpg": bytes(1000)})
    monkeypatch.setattr(object_source, "MAX_PICTURE_BYTES", 999)
    source = ObjectSource(object_uri("s3://large"))
    for one in (source, source.unlisted()):
        with pytest.raises(ValueError, match="expected at most"):
            one.load("a.jpg")


@pytest.mark.parametrize("name", SETS)
def test_published_sets_are_read_from_there(name: str, s3: S3Server, tmp_path: Path) -> None:
    said = SETS[name](tmp_path / "shop")
    place = _put(s3, name.replace("_", "-"), tmp_path / "shop")
    found = []
    for root in (str(tmp_path / "shop"), place):
        words = [word.replace(str(tmp_path / "shop"), root) for word in said]
        found.append(build_catalog(typed("train", f"data={name}", *words).data))
    _alike(found[1], found[0])


def test_a_picture_of_a_table_may_be_named_by_its_address(s3: S3Server) -> None:
    rows = "item_id,image,category\n" + "".join(
        f"{n},s3://addresses/shop/in/{n}.jpg,hat\n" for n in range(3)
    )
    objects = {f"shop/in/{n}.jpg": drawn(n) for n in range(3)} | {"shop/a.csv": rows.encode()}
    s3.put("addresses", objects)
    catalog = table("s3://addresses/shop/a.csv")
    assert catalog.table["image"].tolist() == [f"in/{n}.jpg" for n in range(3)]
    assert io.BytesIO(catalog.source.load("in/1.jpg")).getvalue() == drawn(1)  # type: ignore[arg-type]


def test_what_is_no_address_of_a_place_says_what_is(s3: S3Server) -> None:
    for place, told in {
        "s3://shop-a//in//shop": "has an empty part.* write it 's3://shop-a/in/shop'",
        "s3a://shop-a/in": "an address of s3a:// is not known here.*s3://BUCKET/KEY",
        "https://key:secret@server.example/shop": "an address of https:// is not known here",
        "S3://key:secret@shop-a/in": "an address of S3:// is not known here",
    }.items():
        for reads in (folder, table, webdataset, parquet):
            with pytest.raises(ValueError, match=told) as error:
                reads(place)
            assert "secret@" not in str(error.value)


def test_messages_name_the_zip_there_and_not_its_copy(
    s3: S3Server, shop: Path, tmp_path: Path
) -> None:
    (tmp_path / "zips").mkdir()
    packed = zipped(shop, tmp_path / "zips" / "shop.zip")
    (tmp_path / "zips" / "none.zip").write_bytes(b"no zip")
    place = _put(s3, "named", packed.parent, "in")
    with pytest.raises(ValueError, match=f"^{place}/none.zip cannot be read as a zip"):
        folder(f"{place}/none.zip")
    source = pickle.loads(pickle.dumps(open_source(f"{place}/shop.zip")))
    assert repr(source) == f"ZipSource('{place}/shop.zip')"
    with pytest.raises(FileNotFoundError, match=f"no picture 'hats/none.jpg' in {place}/shop.zip"):
        source.load("hats/none.jpg")


def test_a_picture_that_cannot_be_asked_for_says_why(s3: S3Server) -> None:
    rows = "item_id,image,category\n1,hats/1.jpg,hat\n2,s3://asked/far/1.jpg,hat\n"
    objects = {"shop/hats/1.jpg": drawn(1), "shop/hats//2.jpg": drawn(2), "far/1.jpg": drawn(3)}
    s3.put("asked", {**objects, "tables/shop/a.csv": rows.encode(), "tables/shop/hats/1.jpg": b"x"})
    (refused,) = folder("s3://asked/shop", on_bad_item="skip").refused
    assert "has a part that is empty or '.'" in refused.reason
    (refused,) = table("s3://asked/tables/shop/a.csv", on_bad_item="skip").refused
    assert "is an address outside the data's folder" in refused.reason
