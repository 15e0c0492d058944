import os
import re
from pathlib import Path

import pytest

from tests.catalog.shops import SHARED, needs_shared, refuses, saved, zip_of, zipped
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.folder import folder


def check_refused(root: Path, expected: dict[str, str], kept: str, **settings: bool) -> None:
    with pytest.raises(BadItemsError, match=f"{len(expected)} bad item"):
        folder(root, **settings)
    catalog = folder(root, on_bad_item="skip", **settings)
    assert list(catalog.table["item_id"]) == [kept]
    reasons = {item.item_id: item.reason for item in catalog.refused}
    assert set(reasons) == set(expected)
    for item_id, reason in expected.items():
        assert re.search(reason, reasons[item_id])


def test_a_sub_folder_is_a_category_and_system_files_do_not_count(tmp_path: Path) -> None:
    ids = ["coats & jackets/winter/ü 1.jpeg", "shoes/a.jpg", "shoes/b.PNG"]
    saved(tmp_path, [*ids, ".DS_Store", "shoes/Thumbs.db", ".git/x.jpg", "__MACOSX/a/._1.jpg"])
    catalog = folder(tmp_path)
    assert catalog.table.to_dict("list") == {
        "item_id": ids,
        "image": ids,
        "category": ["coats & jackets", "shoes", "shoes"],
        "group": ids,
        "split": ["", "", ""],
    }
    assert (catalog.name, catalog.refused) == (tmp_path.name, ())
    assert catalog.source.load(ids[1]) == b"shoes/a.jpg"


def test_what_cannot_be_an_item_is_named(tmp_path: Path) -> None:
    root = saved(tmp_path / "root", ["a/1.jpg", "a/notes.txt", "a/README", "loose.jpg"])
    (root / "a" / "out.jpg").symlink_to(saved(tmp_path, ["out.jpg"]) / "out.jpg")
    (root / "linked").symlink_to(tmp_path)
    (root / "empty").mkdir()
    expected = {
        "a/notes.txt": r"\.txt is no picture's",
        "a/README": "no suffix is no picture's",
        "loose.jpg": "lies in no category; move it",
        "a/out.jpg": "a link that leads out of",
        "linked": "a link that leads out of",
        "empty": "the category has no picture",
    }
    check_refused(root, expected, "a/1.jpg")


@pytest.mark.parametrize("prefix", ["", "photos/", "./"])
def test_a_zip_works_as_well(tmp_path: Path, prefix: str) -> None:
    root = saved(tmp_path / "root", ["a/1.jpg", "b/deep/2.jpg", "a/.DS_Store", "__MACOSX/._x"])
    (root / "empty").mkdir()
    catalog = folder(zipped(root, tmp_path / "shop.zip", prefix), on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["a/1.jpg", "b/deep/2.jpg"]
    loaded = [catalog.source.load(image) for image in catalog.table["image"]]
    assert loaded == [b"a/1.jpg", b"b/deep/2.jpg"]
    assert [item.item_id for item in catalog.refused] == ["empty"]
    assert catalog.name == "shop"


def test_which_folder_of_a_zip_is_around_all_of_it(tmp_path: Path) -> None:
    names = ["coats/1.jpg", "coats/2.jpg", "hats/1.jpg", "README.txt", "loose.jpg"]
    path = zipped(saved(tmp_path / "root", names), tmp_path / "shop.zip", "shop/")
    catalog = folder(path, on_bad_item="skip")  # a stray file makes no category of it
    assert catalog.table["category"].tolist() == ["coats", "coats", "hats"]
    assert [item.item_id for item in catalog.refused] == ["README.txt", "loose.jpg"]
    # a folder of pictures with a few in a deeper one is a category, also where it is the only one
    for names in (["a/1.jpg", "a/new/2.jpg", "a/new/3.jpg"], ["a/1.jpg", "a/deep/2.jpg"]):
        assert set(folder(zip_of(tmp_path / "lone.zip", names)).table["category"]) == {"a"}


def test_odd_members_of_zips(tmp_path: Path) -> None:
    leaving = ["../a/2.jpg", "/a/3.jpg", "a/../../4.jpg"]
    catalog = folder(zip_of(tmp_path / "a.zip", ["a/1.jpg", *leaving]), on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["a/1.jpg"]
    assert {item.item_id for item in catalog.refused} >= set(leaving)
    windows = zip_of(tmp_path / "w.zip", [r"Hats\0.jpg", r"Coats\1.jpg", r"Hats\2.jpg"])
    catalog = folder(windows)
    assert list(catalog.table["category"]) == ["Coats", "Hats", "Hats"]
    assert catalog.source.load("Hats/0.jpg") == rb"Hats\0.jpg"


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    refuses(FileNotFoundError, "nowhere", folder, tmp_path / "nowhere")
    text = saved(tmp_path / "text", ["a.txt"]) / "a.txt"
    refuses(ValueError, "cannot be read as a zip", folder, text)
    (tmp_path / "root").mkdir()
    refuses(ValueError, "gives no item", folder, tmp_path / "root")
    (tmp_path / "root" / "empty").mkdir()
    message = r"gives no item \(1 refused\)"
    refuses(ValueError, message, folder, tmp_path / "root", on_bad_item="skip")
    refuses(ValueError, "on_bad_item is 'ignore'", folder, tmp_path, on_bad_item="ignore")


# ---- splits


def test_splits_stand_above_the_categories(tmp_path: Path) -> None:
    names = ["test/shoes/a.jpg", "train/coats/a.jpg", "train/coats/deep/b.jpg", "train/shoes/a.jpg"]
    names += ["val/coats/a.jpg"]
    root = saved(tmp_path / "root", names)
    for path in (root, zipped(root, tmp_path / "a.zip"), zipped(root, tmp_path / "b.zip", "b/")):
        catalog = folder(path, splits=True)
        assert list(catalog.table["item_id"]) == list(catalog.table["group"]) == names
        assert list(catalog.table["category"]) == ["shoes", "coats", "coats", "shoes", "coats"]
        assert list(catalog.table["split"]) == [name.split("/")[0] for name in names]
        assert catalog.source.load(catalog.table["image"][4]) == b"val/coats/a.jpg"
    for prefix in ("", "photos/"):
        alone = zip_of(tmp_path / "c.zip", [f"{prefix}train/a/1.jpg"])
        assert list(folder(alone, splits=True).table["item_id"]) == ["train/a/1.jpg"]


@pytest.mark.parametrize(
    ("words", "split"),
    [("Train training", "train"), ("valid VALIDATION dev", "val"), ("testing", "test")],
)
def test_other_words_for_a_split(tmp_path: Path, words: str, split: str) -> None:
    names = sorted(f"{word}/coats/a.jpg" for word in words.split())
    catalog = folder(saved(tmp_path, names), splits=True)
    assert catalog.table[["item_id", "split"]].to_numpy().tolist() == [[n, split] for n in names]


def test_what_lies_outside_splits_and_categories_is_named(tmp_path: Path) -> None:
    names = ["train/coats/a.jpg", "train/loose.jpg", "extra/coats/b.jpg", "top.jpg"]
    saved(tmp_path, [*names, "train/coats/n.txt"])
    for empty in ("val", "test/coats", "train/.hidden"):
        (tmp_path / empty).mkdir(parents=True)
    expected = {
        "train/loose.jpg": "lies in no category; move it",
        "extra/coats/b.jpg": r"lies in no split; move it into a category below one of \['train'",
        "top.jpg": "lies in no split",
        "train/coats/n.txt": r"\.txt is no picture's",
        "val": "the split has no picture",
        "test": "the split has no picture",
        "test/coats": "the category has no picture",
    }
    check_refused(tmp_path, expected, "train/coats/a.jpg", splits=True)


def test_splits_that_are_not_there_or_taken_for_categories_are_errors(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain", ["coats/1.jpg", "shoes/1.jpg"])
    refuses(ValueError, r"\['coats', 'shoes'\]; .*data.splits=false", folder, plain, splits=True)
    for names in (["train", "val"], ["Train", "valid", "other"], ["test"]):
        root = saved(tmp_path / "".join(names), [f"{name}/coats/1.jpg" for name in names])
        found = re.escape(str(sorted(set(names) - {"other"})))
        refuses(ValueError, f"has the folders {found}, .*set data.splits=true", folder, root)
    for names in (["train", "dolls"], ["test", "val", "coats"]):  # may be categories
        root = saved(tmp_path / "-".join(names), [f"{name}/1.jpg" for name in names])
        assert set(folder(root).categories) == set(names)


@needs_shared("clothing-photos-sample.zip")
def test_the_home_photos() -> None:
    catalog = folder(SHARED / "clothing-photos-sample.zip")
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (600, 10, 0)
    assert "t-shirt" in catalog.categories
    assert catalog.source.load(catalog.table["image"][599])[:2] == b"\xff\xd8"


def test_a_name_that_is_no_utf8_is_a_named_bad_item(tmp_path: Path) -> None:
    for name in (b"hats/1.jpg", b"hats/caf\xe9.jpg", b"r\xf6cke/1.jpg"):
        path = os.path.join(os.fsencode(tmp_path), name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass
        except OSError:
            pytest.skip("this file system holds names of text alone")
    catalog = folder(tmp_path, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["hats/1.jpg"]
    refused = {item.item_id for item in catalog.refused}
    assert {r"hats/caf\xe9.jpg", r"r\xf6cke/1.jpg"} <= refused
    print(*catalog.refused)  # can be printed
    refuses(BadItemsError, r"caf\\xe9\.jpg", folder, tmp_path)
