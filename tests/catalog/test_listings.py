import os
import zipfile
from pathlib import Path

import pytest

from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import listings
from visual_search.catalog.readers.listings import (
    Items,
    check_choice,
    check_columns,
    find_file,
    read_listing,
    read_text,
    split_of_name,
    split_of_word,
)
from visual_search.catalog.readers.sources import FolderSource, ZipSource, open_source


def sources(tmp_path: Path, *names: str) -> list[FolderSource | ZipSource]:
    """Returns a folder and a zip with the same files, whose text is their name."""
    for name in names:
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text(f"\ufeff{name}", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "a" / name, name)
    return [FolderSource(tmp_path / "a"), ZipSource(tmp_path / "a.zip")]


def test_the_least_deep_file_is_found(tmp_path: Path) -> None:
    names = ("x/y/list.txt", "x/list.txt", ".hidden/list.txt", "__MACOSX/list.txt", "mylist.txt")
    for source in sources(tmp_path, *names):
        assert find_file(source, "list.txt", "") == "x/list.txt"
        assert read_text(source, "x/list.txt") == "x/list.txt"  # without the mark at its start
        with pytest.raises(FileNotFoundError, match=r"there is no no\.txt in .*; fetch it"):
            find_file(source, "no.txt", "fetch it")


def test_equally_deep_files_are_asked_about(tmp_path: Path) -> None:
    for source in sources(tmp_path, "x/list.txt", "y/list.txt", "z/list.txt/4"):
        with pytest.raises(ValueError, match=r"stands 2 times in .*\['x/list\.txt', 'y/list\.txt'"):
            find_file(source, "list.txt", "")


def test_listings_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in sources(tmp_path, "list.txt"):
        with pytest.raises(FileNotFoundError, match=r"no\.txt"):
            read_listing(source, "no.txt")
        with pytest.raises(FileNotFoundError, match=r"no\.txt"):
            read_text(source, "no.txt")
        with monkeypatch.context() as patch:
            patch.setattr(listings, "MAX_LISTING_BYTES", 10)
            with pytest.raises(ValueError, match="expected at most"):
                read_listing(source, "list.txt")
            with pytest.raises(ValueError, match="expected at most"):
                read_text(source, "list.txt")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"\xef\xbb\xbflist", b"\xef\xbb\xbflost", 1))
    for read in (read_listing, read_text):
        with pytest.raises(ValueError, match=r"'list\.txt' .* is damaged"):
            read(ZipSource(tmp_path / "a.zip"), "list.txt")
    (tmp_path / "a" / "list.txt").write_bytes(b"a\nb\xff")
    with pytest.raises(ValueError, match=r"line 2 of 'list\.txt' in .* is not UTF-8 \(byte 0xff\)"):
        read_text(FolderSource(tmp_path / "a"), "list.txt")


def test_columns_and_choices() -> None:
    check_columns(["a", "b"], ["b"], "x.csv")
    check_choice("data.x", "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"x\.csv has no column \['price'\].*nearest is 'prize'"):
        check_columns(["prize", "b"], ["price", "b"], "x.csv")
    with pytest.raises(
        ValueError, match=r"no column \['z'\]; it has \['a'\]; expected the file as"
    ):
        check_columns(["a"], ["z"], "x.csv")
    with pytest.raises(ValueError, match=r"data\.x is 'pric'; expected one of .*mean 'price'\?"):
        check_choice("data.x", "pric", ["price"])


def test_splits_in_names() -> None:
    said = {
        "train-00000-of-00002.parquet": "train",
        "imagenet_val_01.tar": "val",
        "Test/0000.parquet": "test",
        "test/train.tar": "train",
        "default/validation/0.tar": "val",
        "retrain.tar": "",
        "latest.tar": "",
        "valid2.tar": "",
        "shop.parquet": "",
    }
    assert {name: split_of_name(name) for name in said} == said
    assert [split_of_word(word) for word in ("DEV", "testing", "", "other ")] == [
        "val", "test", "", "other",
    ]  # fmt: skip


class TestItems:
    def test_good_and_bad_rows(self, tmp_path: Path) -> None:
        (source, _) = sources(tmp_path, "1.jpg", "2.jpg")
        items = Items(source, ["colour"])
        for place, item_id, image, category in (
            ("line 1", "1", "./1.jpg", " Hats "),
            ("line 2", "1", "2.jpg", "Hats"),
            ("line 3", "", "2.jpg", "Hats"),
            ("line 4", "3", "2.jpg", " "),
            ("line 5", "4", "/2.jpg", "Hats"),
            ("line 6", "5", "5.jpg", "Hats"),
        ):
            items.add(place, item_id=item_id, image=image, category=category, attributes=["red"])
        items.add("line 7", item_id="2", image="2.jpg", category="A", group="g", split="test",
                  attributes=[""], fragment="#1")  # fmt: skip
        items.refuse("line 8", "8", "8.jpg", "is broken")
        with pytest.raises(BadItemsError, match=r"6 bad item\(s\) in x\.csv"):
            items.conclude("x", on_bad_item="error", origin="x.csv")
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

    def test_no_row_is_left(self, tmp_path: Path) -> None:
        (source, _) = sources(tmp_path, "1.jpg")
        with pytest.raises(ValueError, match=r"x\.csv gives no item \(0 refused\)"):
            Items(source).conclude("x", on_bad_item="skip", origin="x.csv")

    @pytest.mark.parametrize("attributes", [["image"], ["a", "b", "a"], ["split", "a"]])
    def test_attributes_that_cannot_be(self, tmp_path: Path, attributes: list[str]) -> None:
        (source, _) = sources(tmp_path, "1.jpg")
        with pytest.raises(ValueError, match=r"column\(s\) \['\w+'\] cannot be attributes"):
            Items(source, attributes)


def test_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "products.csv")
    with pytest.raises(ValueError, match=r"products\.csv is no file"):
        listings.read_listing(FolderSource(tmp_path), "products.csv")
    with pytest.raises(ValueError, match=r"products\.csv is no file"):
        open_source(tmp_path / "products.csv")
