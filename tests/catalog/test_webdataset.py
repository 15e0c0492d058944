import gzip
import io
import json
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.shops import one_refused, refuses
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import tar_source
from visual_search.catalog.readers import webdataset as module
from visual_search.catalog.readers.tar_source import TarSource, list_tar
from visual_search.catalog.readers.webdataset import webdataset

Members = Mapping[str, str | bytes | dict[str, Any]]


def pack(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            data = text.encode() if isinstance(text, str) else text
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


SAMPLES: Members = {
    "0000.jpg": b"zero",
    "0000.cls": "3\n",
    "0000.json": {"label": "hats", "colour": "red", "price": 9.5, "box": [1], "group": "x"},
    "./0001.JPG": b"one",
    "0001.cls": "4",
    "0001.json": {"label": "shoes", "sold": True, "colour": None, "made": {"in": "Peru"}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return pack(tmp_path / "a.tar", SAMPLES)


def test_a_folder_of_shards(tmp_path: Path) -> None:
    pack(tmp_path / "train-0000.tar", SAMPLES)
    pack(tmp_path / "val" / "0000.tar", {"a/0000.png": b"a", "a/0000.cls": "3", "readme": "x"})
    (tmp_path / "sizes.json").write_text("{}")
    catalog = webdataset(tmp_path, name="shop")
    ids = ["train-0000.tar/0000", "train-0000.tar/0001", "val/0000.tar/a/0000"]
    assert catalog.table.to_dict("list") == {
        "item_id": ids,
        "image": [
            item_id + end for item_id, end in zip(ids, (".jpg", ".JPG", ".png"), strict=True)
        ],
        "category": ["3", "4", "3"],
        "group": ids,
        "split": ["train", "train", "val"],
        "label": ["hats", "shoes", ""],
        "colour": ["red", "", ""],
        "price": ["9.5", "", ""],
        "sold": ["", "True", ""],
    }
    assert catalog.name == "shop"
    source = pickle.loads(pickle.dumps(catalog.source))
    assert [source.load(image) for image in catalog.table["image"]] == [b"zero", b"one", b"a"]
    keys = source.content_keys(list(catalog.table["image"]))
    assert len(set(keys)) == 3
    assert keys == catalog.source.content_keys(list(catalog.table["image"]))
    *others, chosen = catalog.choices
    assert (chosen.key, "train-0000.tar" in chosen.why) == ("data.split", True)
    # a field of lists and one with a name of the catalogue's are not read without a word
    assert [name in str(others) for name in ("box", "made", "group")] == [True] * 3
    without = webdataset(tmp_path, split=False)
    assert (set(without.table["split"]), without.choices) == ({""}, tuple(others))


def test_what_holds_what_is_named_by_the_caller(tmp_path: Path, path: Path) -> None:
    members: Members = {
        "7.front.jpg": b"front",
        "7.back.jpg": b"back",
        "7.txt": "  a Hat ",
        "7.sku": "007",
        "7.json": {"board": {"id": 12}, "part": "Validation", "tags": ["a"], "size": "S"},
    }
    catalog = webdataset(
        pack(tmp_path / "shop.tar", members),
        category="txt",
        image="back.jpg",
        item_id="sku",
        group="json.board.id",
        split="json.part",
        attributes=["size", "tags"],
    )
    item = {"item_id": "007", "image": "shop.tar/7.back.jpg", "category": "a Hat", "group": "12"}
    assert catalog.table.to_dict("records") == [item | {"split": "val", "size": "S", "tags": ""}]
    assert catalog.source.load("shop.tar/7.back.jpg") == b"back"
    # JSON alone, and a file of another name
    catalog = webdataset(path.rename(tmp_path / "shop.data"), category="json.label")
    assert list(catalog.table["category"]) == ["hats", "shoes"]
    assert "label" not in catalog.attributes
    assert catalog.source.load("shop.data.tar/0000.jpg") == b"zero"


def test_tars_in_folders_that_are_named_like_tars(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar" / "b.tar", {"c.tar/0.jpg": b"inner", "c.tar/0.cls": "1"})
    catalog = webdataset(tmp_path)
    assert catalog.source.load(catalog.table["image"][0]) == b"inner"


BAD_SAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"1.cls": "3"}, r"1: has 0 pictures among \['cls'\]; expected one"),
    "two pictures": (
        {"1.jpg": "a", "1.png": "b", "1.cls": "3"},
        r"1: has 2 pictures among \['cls', 'jpg', 'png'\].*data\.image",
    ),
    "no category": ({"1.jpg": "a"}, "1: the category is empty"),
    "binary category": ({"1.jpg": "a", "1.cls": b"\xff"}, r"'1\.cls' is not UTF-8"),
    "long category": ({"1.jpg": "a", "1.cls": "x" * 61}, r"'1\.cls' in .* has 61 bytes"),
    "long json": ({"1.json": {"label": "x" * 99}}, "its json cannot be read: .*expected at most"),
    "no json": ({"1.json": "{"}, "its json cannot be read"),
    "a json list": ({"1.json": "[]"}, "its json holds a list"),
    "a deep json": ({"1.json": "[" * 200_000}, "its json cannot be read"),
    "the same id": ({"1.json": {"sku": "000"}}, r"the id stands in a\.tar/0 already"),
    "a list as id": ({"1.json": {"sku": [1]}}, r"json\.sku is a list; expected one plain value"),
    "another split": (
        {"1.json": {"part": "extra"}},
        r"the split is 'extra'; expected one of \['train'",
    ),
}


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_a_bad_sample_is_refused_and_named(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "a deep json":
        monkeypatch.setattr(module, "MAX_TEXT_BYTES", 60)
    members, message = BAD_SAMPLES[kind]
    if "1.json" in members:
        members = {"1.jpg": "a", "1.cls": "3"} | members
    good = {"0.jpg": b"zero", "0.cls": "3" * 60, "0.json": {"sku": "000", "part": "train"}}
    by = {"item_id": "json.sku", "split": "json.part"} if "sku" in str(members) else {}
    by |= {"split": "json.part"} if "part" in str(members) else {}
    path = pack(tmp_path / "a.tar", good | members)
    (kept,) = one_refused(message, webdataset, path, **by)
    assert kept == by.get("item_id", "a.tar/0").replace("json.sku", "000")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def test_links_devices_and_unsafe_names_are_refused(path: Path) -> None:
    kinds = {"folder.jpg": tarfile.DIRTYPE, "4.jpg": tarfile.CHRTYPE, "5.jpg": tarfile.FIFOTYPE}
    kinds |= {"6.jpg": tarfile.GNUTYPE_SPARSE}
    kinds |= dict.fromkeys(["../7.jpg", "/etc/8.jpg", "0000.jpg"], tarfile.REGTYPE)
    with tarfile.open(path, "a") as archive:
        archive.addfile(special("2.jpg", tarfile.SYMTYPE, "/etc/passwd"))
        archive.addfile(special("3.jpg", tarfile.LNKTYPE, "0000.jpg"))
        for name, kind in kinds.items():
            archive.addfile(special(name, kind))
    with pytest.raises(BadItemsError, match=r"8 bad item") as caught:
        webdataset(path)
    reasons = {item.item_id: item.reason for item in caught.value.refused}
    assert all("it is a link, a device or" in reasons[f"a.tar/{n}.jpg"] for n in range(2, 7))
    assert "has a '..'" in reasons["a.tar/../7.jpg"]
    assert "is absolute" in reasons["a.tar//etc/8.jpg"]
    assert "the name stands twice" in reasons["a.tar/0000.jpg"]
    catalog = webdataset(path, on_bad_item="skip")
    assert len(catalog) == 2
    assert catalog.source.load("a.tar/0000.jpg") == b"zero"
    refuses(FileNotFoundError, r"no picture 'a\.tar/2\.jpg'", catalog.source.load, "a.tar/2.jpg")


def test_limits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = webdataset(path).source
    monkeypatch.setattr(tar_source, "MAX_PICTURE_BYTES", 3)
    refuses(ValueError, r"'0000\.jpg'.* has 4 bytes.*at most 3", source.load, "a.tar/0000.jpg")
    refuses(ValueError, "has 4 bytes", source.content_keys, ["a.tar/0000.jpg"])
    assert one_refused("it has 4 bytes; expected at most 3", webdataset, path) == ["a.tar/0001"]
    monkeypatch.setattr(module, "MAX_ATTRIBUTES", 3)
    refuses(ValueError, r"json has 4 different fields; .*data\.attributes", webdataset, path)


def test_what_is_no_such_data(tmp_path: Path) -> None:
    refuses(FileNotFoundError, r"nothing at .*nowhere", webdataset, tmp_path / "nowhere")
    refuses(FileNotFoundError, r"no \.tar in .*not compressed", webdataset, tmp_path)
    path = pack(tmp_path / "a.tar", SAMPLES)
    for settings, message in (
        ({"on_bad_item": "drop"}, "on_bad_item is 'drop'"),
        ({"category": "json"}, r"data\.category is 'json'; expected an extension, as 'cls'"),
        ({"group": ""}, r"data\.group is ''; expected"),
        ({"attributes": ("split",)}, r"column\(s\) \['split'\] cannot be attributes"),
        ({"category": "txt", "on_bad_item": "skip"}, "gives no item"),
    ):
        refuses(ValueError, message, webdataset, path, **settings)


# ---- the tar itself


def test_damaged_tars_are_named(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    middle = list_tar(path).members["0001.JPG"].offset
    chain = special("x", tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) * 5000
    for number, damaged in enumerate(
        [
            gzip.compress(data),
            b"",
            b"no tar" * 500,
            data[: middle - 100],  # within a header
            data[: middle + 2],  # within a picture
            data[: middle - 512] + b"\xff" * 512 + data[middle:],  # no header at all
            chain,
        ]
    ):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(damaged)
        refuses(ValueError, rf"{number}\.tar (cannot be read|is damaged)", list_tar, path)
    refuses(FileNotFoundError, "nowhere", list_tar, tmp_path / "nowhere.tar")


def test_a_tar_without_its_end_is_read(path: Path) -> None:
    last = list_tar(path).members["0001.json"]
    path.write_bytes(path.read_bytes()[: -(-(last.offset + last.size) // 512) * 512])
    assert len(list_tar(path).members) == 6


def test_a_tar_that_changes_is_refused(path: Path) -> None:
    source = TarSource({"a.tar": list_tar(path)})
    now = path.stat().st_mtime_ns
    for moment in (1, now + 10**9):  # older or newer
        os.utime(path, ns=(moment, moment))
        refuses(ValueError, r"a\.tar has changed", source.load, "a.tar/0000.jpg")
    os.utime(path, ns=(now, now))
    assert source.load("a.tar/0000.jpg") == b"zero"
    path.unlink()
    refuses(FileNotFoundError, r"a\.tar", source.load, "a.tar/0000.jpg")


def test_names_that_are_none(path: Path) -> None:
    tar = list_tar(path)
    source = TarSource({"a.tar": tar})
    assert source.problem("a.tar/0000.jpg") is None
    for name in ("a.tar/2.jpg", "b.tar/0000.jpg", "0000.jpg", "a.tar", ""):
        assert "no picture" in str(source.problem(name))
        refuses(FileNotFoundError, "no picture", source.content_keys, [name])
    refuses(FileNotFoundError, r"no member '2\.jpg'", tar.read, "2.jpg", 9)
