import os
import re
import zipfile
from pathlib import Path

import pytest

from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers.folder import folder

SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", Path(__file__).parents[2].parent / "shared"))
PHOTOS = SHARED / "datasets" / "clothing-photos-sample.zip"


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def pack(root: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return path


def test_a_sub_folder_is_a_category(tmp_path: Path) -> None:
    fill(tmp_path, "shoes/b.PNG", "coats & jackets/winter/ü 1.jpeg", "shoes/a.jpg")
    catalog = folder(tmp_path)
    ids = ["coats & jackets/winter/ü 1.jpeg", "shoes/a.jpg", "shoes/b.PNG"]
    assert catalog.table.to_dict("list") == {
        "item_id": ids,
        "image": ids,
        "category": ["coats & jackets", "shoes", "shoes"],
        "group": ids,
        "split": ["", "", ""],
    }
    assert catalog.name == tmp_path.name
    assert catalog.source.load(ids[1]) == b"shoes/a.jpg"


def test_hidden_and_system_files_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "a/.DS_Store", "a/Thumbs.db", ".git/x.jpg", "__MACOSX/a/._1.jpg")
    catalog = folder(tmp_path)
    assert list(catalog.table["item_id"]) == ["a/1.jpg"]
    assert catalog.refused == ()


def test_what_cannot_be_an_item_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a/1.jpg", "a/notes.txt", "a/README", "loose.jpg")
    fill(tmp_path, "out.jpg")
    (root / "a" / "out.jpg").symlink_to(tmp_path / "out.jpg")
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
    with pytest.raises(BadItemsError, match="6 bad item") as caught:
        folder(root)
    assert {item.item_id for item in caught.value.refused} == set(expected)
    catalog = folder(root, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["a/1.jpg"]
    reasons = {item.item_id: item.reason for item in catalog.refused}
    for item_id, reason in expected.items():
        assert re.search(reason, reasons[item_id])


@pytest.mark.parametrize("prefix", ["", "photos/", "./"])
def test_a_zip_works_as_well(tmp_path: Path, prefix: str) -> None:
    root = fill(tmp_path / "root", "a/1.jpg", "b/deep/2.jpg", "a/.DS_Store")
    (root / "empty").mkdir()
    path = pack(root, tmp_path / "shop.zip", prefix)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._x", "")
    catalog = folder(path, on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["a/1.jpg", "b/deep/2.jpg"]
    assert [catalog.source.load(image) for image in catalog.table["image"]] == [
        b"a/1.jpg",
        b"b/deep/2.jpg",
    ]
    assert [item.item_id for item in catalog.refused] == ["empty"]
    assert catalog.name == "shop"


def test_a_stray_file_makes_no_category_of_the_folder_around_all(tmp_path: Path) -> None:
    names = ("coats/1.jpg", "coats/2.jpg", "hats/1.jpg", "README.txt", "loose.jpg")
    path = pack(fill(tmp_path / "root", *names), tmp_path / "shop.zip", "shop/")
    catalog = folder(path, on_bad_item="skip")
    assert catalog.table["category"].tolist() == ["coats", "coats", "hats"]
    assert [item.item_id for item in catalog.refused] == ["README.txt", "loose.jpg"]
    # a folder of pictures with a few in a deeper one is a category
    lone = fill(tmp_path / "lone", "coats/1.jpg", "coats/new/2.jpg", "coats/new/3.jpg")
    assert set(folder(pack(lone, tmp_path / "lone.zip")).table["category"]) == {"coats"}


def test_a_zip_of_one_category_is_not_unwrapped(tmp_path: Path) -> None:
    path = pack(fill(tmp_path / "root", "dress/1.jpg", "dress/deep/2.jpg"), tmp_path / "a.zip")
    assert set(folder(path).table["category"]) == {"dress"}


def test_members_that_leave_the_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/1.jpg", "../a/2.jpg", "/a/3.jpg", "a/../../4.jpg"):
            archive.writestr(name, "")
    catalog = folder(tmp_path / "a.zip", on_bad_item="skip")
    assert list(catalog.table["item_id"]) == ["a/1.jpg"]
    assert {item.item_id for item in catalog.refused} >= {"../a/2.jpg", "/a/3.jpg", "a/../../4.jpg"}


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder(tmp_path / "nowhere")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    with pytest.raises(ValueError, match="cannot be read as a zip"):
        folder(tmp_path / "a.txt")


def test_no_picture_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives no item"):
        folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"gives no item \(1 refused\)"):
        folder(tmp_path, on_bad_item="skip")


def test_another_word_for_bad_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_bad_item is 'ignore'; expected 'error'"):
        folder(tmp_path, on_bad_item="ignore")  # type: ignore[arg-type]


def test_splits_stand_above_the_categories(tmp_path: Path) -> None:
    names = ["test/shoes/a.jpg", "train/coats/a.jpg", "train/coats/deep/b.jpg", "train/shoes/a.jpg"]
    names += ["val/coats/a.jpg"]
    for root in (fill(tmp_path / "root", *names), pack(tmp_path / "root", tmp_path / "a.zip")):
        catalog = folder(root, splits=True)
        assert catalog.table.to_dict("list") == {
            "item_id": names,
            "image": names,
            "category": ["shoes", "coats", "coats", "shoes", "coats"],
            "group": names,
            "split": ["test", "train", "train", "train", "val"],
        }
        assert catalog.source.load("val/coats/a.jpg") == b"val/coats/a.jpg"


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Train", "train"),
        ("training", "train"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        ("dev", "val"),
        ("testing", "test"),
    ],
)
def test_other_words_for_a_split(tmp_path: Path, word: str, split: str) -> None:
    catalog = folder(fill(tmp_path, f"{word}/coats/a.jpg"), splits=True)
    assert catalog.table[["item_id", "split"]].to_numpy().tolist() == [
        [f"{word}/coats/a.jpg", split]
    ]


def test_what_lies_outside_splits_and_categories_is_named(tmp_path: Path) -> None:
    good = "train/coats/a.jpg"
    fill(tmp_path, good, "train/loose.jpg", "extra/coats/b.jpg", "top.jpg", "train/coats/n.txt")
    (tmp_path / "val").mkdir()
    (tmp_path / "test" / "coats").mkdir(parents=True)
    (tmp_path / "train" / ".hidden").mkdir()
    expected = {
        "train/loose.jpg": "lies in no category; move it",
        "extra/coats/b.jpg": r"lies in no split; move it into a category below one of \['train'",
        "top.jpg": "lies in no split",
        "train/coats/n.txt": r"\.txt is no picture's",
        "val": "the split has no picture",
        "test": "the split has no picture",
        "test/coats": "the category has no picture",
    }
    with pytest.raises(BadItemsError, match="bad item"):
        folder(tmp_path, splits=True)
    catalog = folder(tmp_path, on_bad_item="skip", splits=True)
    assert list(catalog.table["item_id"]) == [good]
    reasons = {item.item_id: item.reason for item in catalog.refused}
    assert set(reasons) == set(expected)
    for item_id, reason in expected.items():
        assert re.search(reason, reasons[item_id])


@pytest.mark.parametrize("prefix", ["", "photos/"])
@pytest.mark.parametrize("names", [["train/a/1.jpg"], ["train/a/1.jpg", "val/a/1.jpg"]])
def test_a_zip_of_splits_may_be_wrapped(tmp_path: Path, prefix: str, names: list[str]) -> None:
    path = pack(fill(tmp_path / "root", *names), tmp_path / "shop.zip", prefix)
    catalog = folder(path, splits=True)
    assert list(catalog.table["item_id"]) == names
    assert list(catalog.table["split"]) == ["train", "val"][: len(names)]
    assert catalog.source.load(prefix + names[0]) == names[0].encode()


def test_splits_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "coats/1.jpg", "shoes/1.jpg")
    match = (
        r"has no folder of a split; it has \['coats', 'shoes'\]; expected .*set data.splits=false"
    )
    with pytest.raises(ValueError, match=match):
        folder(tmp_path, splits=True)


@pytest.mark.parametrize("names", [["train", "val"], ["Train", "valid", "other"], ["test"]])
def test_splits_taken_for_categories_are_an_error(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, *(f"{name}/coats/1.jpg" for name in names))
    found = re.escape(str(sorted(set(names) - {"other"})))
    with pytest.raises(ValueError, match=f"has the folders {found}, .*set data.splits=true"):
        folder(tmp_path)


@pytest.mark.parametrize("names", [["train", "dolls"], ["test", "val", "coats"]])
def test_a_category_may_be_called_like_a_split(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert set(folder(tmp_path).categories) == set(names)


@pytest.mark.skipif(not PHOTOS.exists(), reason="the home photos are not on this machine")
def test_the_home_photos() -> None:
    catalog = folder(PHOTOS)
    assert (len(catalog), len(catalog.categories), len(catalog.refused)) == (600, 10, 0)
    assert "t-shirt" in catalog.categories
    picture = catalog.source.load(catalog.table["image"][599])
    assert isinstance(picture, bytes)
    assert picture[:2] == b"\xff\xd8"


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
    with pytest.raises(BadItemsError, match=r"caf\\xe9\.jpg"):
        folder(tmp_path)


def test_a_zip_packed_on_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"{('Hats', 'Coats')[number % 2]}\\{number}.jpg", b"x")
    catalog = folder(tmp_path / "shop.zip")
    assert list(catalog.table["category"]) == ["Coats", "Coats", "Hats", "Hats"]
    assert catalog.source.load("Hats/0.jpg") == b"x"
