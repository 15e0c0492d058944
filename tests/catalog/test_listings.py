import os
from pathlib import Path

import pytest

from tests.catalog.shops import refuses, saved, zipped
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import listings
from visual_search.catalog.readers.sources import FolderSource, ZipSource, open_source


def sources(tmp_path: Path, *names: str) -> list[FolderSource | ZipSource]:
    """Returns a folder and a zip with the same files, whose text is their name."""
    root = saved(tmp_path / "a", {name: f"\ufeff{name}" for name in names})
    return [FolderSource(root), ZipSource(zipped(root, tmp_path / "a.zip"))]


def test_the_least_deep_file_is_found_equally_deep_ones_are_asked_about(tmp_path: Path) -> None:
    names = ("x/y/list.txt", "x/list.txt", ".hidden/list.txt", "__MACOSX/list.txt", "mylist.txt")
    for source in sources(tmp_path / "1", *names):
        assert listings.find_file(source, "list.txt", "") == "x/list.txt"
        assert (
            listings.read_text(source, "x/list.txt") == "x/list.txt"
        )  # without the mark at its start
        message = r"there is no no\.txt in .*; fetch it"
        refuses(FileNotFoundError, message, listings.find_file, source, "no.txt", "fetch it")
    for source in sources(tmp_path / "2", "x/list.txt", "y/list.txt", "z/list.txt/4"):
        message = r"stands 2 times in .*\['x/list\.txt', 'y/list\.txt'"
        refuses(ValueError, message, listings.find_file, source, "list.txt", "")


def test_listings_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, zipped = sources(tmp_path, "list.txt")
    for source in (folder, zipped):
        for read in (listings.read_listing, listings.read_text):
            refuses(FileNotFoundError, r"no\.txt", read, source, "no.txt")
            with monkeypatch.context() as patch:
                patch.setattr(listings, "MAX_LISTING_BYTES", 10)
                refuses(ValueError, "expected at most", read, source, "list.txt")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"\xef\xbb\xbflist", b"\xef\xbb\xbflost", 1))
    for read in (listings.read_listing, listings.read_text):
        refuses(ValueError, r"'list\.txt' .* is damaged", read, zipped, "list.txt")
    saved(tmp_path / "a", {"list.txt": b"a\nb\xff"})
    message = r"line 2 of 'list\.txt' in .* is not UTF-8 \(byte 0xff\)"
    refuses(ValueError, message, listings.read_text, folder, "list.txt")
    os.mkfifo(tmp_path / "a" / "products.csv")  # nobody waits at a pipe
    refuses(ValueError, r"products\.csv is no file", listings.read_listing, folder, "products.csv")
    refuses(ValueError, r"products\.csv is no file", open_source, tmp_path / "a" / "products.csv")


def test_columns_and_choices() -> None:
    listings.check_columns(["a", "b"], ["b"], "x.csv")
    listings.check_choice("data.x", "a", ["a", "b"])
    message = r"x\.csv has no column \['price'\].*nearest is 'prize'"
    refuses(ValueError, message, listings.check_columns, ["prize", "b"], ["price", "b"], "x.csv")
    message = r"no column \['z'\]; it has \['a'\]; expected the file as"
    refuses(ValueError, message, listings.check_columns, ["a"], ["z"], "x.csv")
    message = r"data\.x is 'pric'; expected one of .*mean 'price'\?"
    refuses(ValueError, message, listings.check_choice, "data.x", "pric", ["price"])


def test_splits_in_names_and_columns_left_out() -> None:
    said = {
        "train-00000-of-00002.parquet": "train",
        "imagenet_val_01.tar": "val",
        "Test/0000.parquet": "test",
        "test/train.tar": "train",
        "default/validation/0.tar": "val",
        **dict.fromkeys(["retrain.tar", "latest.tar", "valid2.tar", "shop.parquet"], ""),
    }
    assert {name: listings.split_of_name(name) for name in said} == said
    for number, more in ((20, ""), (21, " and 1 more")):
        (choice,) = listings.left_out_choice([f"c{place:02}" for place in range(number)], "why")
        assert choice.value.endswith(f"c19{more}")
    words = {"DEV": "val", "testing": "test", "": "", "other ": "other"}
    assert {word: listings.split_of_word(word) for word in words} == words


def test_good_and_bad_rows(tmp_path: Path) -> None:
    (source, _) = sources(tmp_path, "1.jpg", "2.jpg")
    items = listings.Items(source, ["colour"])
    for number, (item_id, image, category) in enumerate(
        (
            ("1", "./1.jpg", " Hats "),
            ("1", "2.jpg", "Hats"),
            ("", "2.jpg", "Hats"),
            ("3", "2.jpg", " "),
            ("4", "/2.jpg", "Hats"),
            ("5", "5.jpg", "Hats"),
        ),
        1,
    ):
        row = {"item_id": item_id, "image": image, "category": category, "attributes": ["red"]}
        items.add(f"line {number}", **row)
    more = {"group": "g", "split": "test", "attributes": [""], "fragment": "#1"}
    items.add("line 7", item_id="2", image="2.jpg", category="A", **more)
    items.refuse("line 8", "8", "8.jpg", "is broken")
    message = r"6 bad item\(s\) in x\.csv"
    refuses(BadItemsError, message, items.conclude, "x", on_bad_item="error", origin="x.csv")
    catalog = items.conclude("x", on_bad_item="skip", origin="x.csv")
    assert catalog.source is source
    assert catalog.table.to_dict("list") == {
        "item_id": ["1", "2"],
        "image": ["1.jpg", "2.jpg#1"],
        "category": ["Hats", "A"],
        "group": ["1", "g"],
        "split": ["", "test"],
        "colour": ["red", ""],
    }
    assert [(item.item_id, item.reason.split(";")[0]) for item in catalog.refused] == [
        ("1", "line 2: the id stands in line 1 already"),
        ("line 3", "line 3: the id is empty"),
        ("3", "line 4: the category is empty"),
        ("4", "line 5: picture path '/2.jpg' is absolute"),
        ("5", f"line 6: no picture '5.jpg' in {tmp_path / 'a'}"),
        ("8", "line 8: is broken"),
    ]
    conclude, message = listings.Items(source).conclude, r"x\.csv gives no item \(0 refused\)"
    refuses(ValueError, message, conclude, "x", on_bad_item="skip", origin="x.csv")
    for attributes in (["image"], ["a", "b", "a"], ["split", "a"]):
        refuses(ValueError, r"\['\w+'\] cannot be attributes", listings.Items, source, attributes)
