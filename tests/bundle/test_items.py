"""What items must be, and how filters, names and plain arrays are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundle.small_bundles import JPEG
from visual_search.bundle.arrow import flag_array, flags_of, integer_array, integers_of, text_array
from visual_search.bundle.files import check_file, check_name, open_array
from visual_search.bundle.filters import check_where
from visual_search.bundle.items import MAX_TEXT_LENGTH, MAX_THUMBNAIL_BYTES, BundleItems
from visual_search.reading import record_file

TWO = np.zeros((2, 3), np.float32)
COLUMNS = {"category": ["a", "b"]}


def test_items_are_kept_as_plain_lists() -> None:
    items = BundleItems(("x", "y"), {"category": ("a", "a "), "size": (" M ", "")}, TWO)
    assert items.item_ids == ["x", "y"]
    assert items.columns == {"category": ["a", "a"], "size": [" M ", ""]}
    assert items.thumbnails == [b"", b""]


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"embeddings": TWO.astype(float)}, TypeError, "expected a NumPy array of float32"),
        ({"embeddings": TWO[0]}, ValueError, "expected .items, width"),
        ({"embeddings": TWO[:0]}, ValueError, "there is no item; expected at least one"),
        ({"embeddings": TWO + np.inf}, ValueError, "holds NaN or infinity"),
        ({"item_ids": ["x"]}, ValueError, "item_ids is 1 value"),
        ({"item_ids": ["x", "x"]}, ValueError, "item id 'x' stands 2 times"),
        ({"item_ids": ["x", ""]}, ValueError, "item_ids, row 1, is empty"),
        ({"item_ids": ["x", 3]}, TypeError, "item_ids, row 1, is 3"),
        ({"item_ids": ["x", "\ud800"]}, ValueError, "no Unicode"),
        ({"item_ids": ["x", " "]}, ValueError, "id ' ' is blank; expected"),
        ({"item_ids": ["x", "a\nb"]}, ValueError, r"id 'a\\nb' holds .* U\+000A"),
        ({"columns": {}}, ValueError, "expected 'category' and attributes"),
        ({"columns": {**COLUMNS, "item_id": ["x", "y"]}}, ValueError, "without 'item_id'"),
        ({"columns": {**COLUMNS, "": ["x", "y"]}}, ValueError, "a column is called ''"),
        ({"columns": {**COLUMNS, "a\n": ["x", "y"]}}, ValueError, "expected printable text"),
        ({"columns": {"category": ["a"]}}, ValueError, "column 'category' is 1 value"),
        ({"columns": {"category": ["a", None]}}, TypeError, "row 1, is None"),
        ({"columns": {"category": ["a", " \t"]}}, ValueError, "category of item 'y' is blank"),
        ({"columns": COLUMNS | dict.fromkeys(map(str, range(256)))}, ValueError, "at most 256"),
        ({"columns": {"category": ["a", "x" * (MAX_TEXT_LENGTH + 1)]}}, ValueError, "of 10,001"),
        ({"thumbnails": [b""]}, ValueError, r"1 thumbnail\(s\) for 2 item"),
        ({"thumbnails": [JPEG, "x"]}, TypeError, "the thumbnail of 'y' is str"),
        ({"thumbnails": [JPEG, b"<html>"]}, ValueError, "starts with b'<htm'; expected a JPEG"),
        ({"thumbnails": [JPEG, JPEG + bytes(MAX_THUMBNAIL_BYTES)]}, ValueError, "most 1,048,576"),
    ],
)  # fmt: skip
def test_wrong_items_are_refused(
    change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    right: dict[str, Any] = {"item_ids": ["x", "y"], "columns": COLUMNS, "embeddings": TWO}
    assert len(BundleItems(**right)) == 2
    with pytest.raises(error, match=reason):
        BundleItems(**(right | change))


@pytest.mark.parametrize(
    ("where", "error", "reason"),
    [
        (["red"], TypeError, r"where is \['red'\]; expected column"),
        ({"size": ["m"]}, ValueError, "column 'size'; expected one of category, colour"),
        ({"item_id": ["m"]}, ValueError, "column 'item_id'; expected one of"),
        ({"colour": "red"}, TypeError, "is 'red'; expected a list of texts"),
        ({"colour": 3}, TypeError, "is 3; expected a list of texts"),
        ({"colour": {"red": 1}}, TypeError, "expected a list of texts"),
        ({"colour": ["red", None]}, TypeError, r"holds None \(NoneType\); expected text"),
        ({"colour": []}, ValueError, "is empty; expected at least one accepted value"),
    ],
)
def test_wrong_filters_are_refused(where: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        check_where(where, ["category", "colour"])


def test_filters_that_mean_the_same_are_the_same() -> None:
    first = check_where({"b": ["2", "1"], "a": ("x",)}, ["a", "b"])
    assert first == check_where({"a": ["x"], "b": ["1", "2", "1"]}, ["a", "b"])
    assert check_where(None, ["a"]) == check_where({}, ["a"]) == ()


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a/..", ".a", "a/.b", "a//b", "a/", "a\\b", "a\nb", None]
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="may lead out of the bundle's folder"):
        check_name(name)


def test_a_file_is_compared_with_its_record(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"shoe")
    record = record_file(tmp_path / "a")
    assert check_file(tmp_path, "a", record, hashed=True) == tmp_path / "a"
    (tmp_path / "a").write_bytes(b"boot")
    check_file(tmp_path, "a", record, hashed=False)
    with pytest.raises(ValueError, match="has SHA-256"):
        check_file(tmp_path, "a", record, hashed=True)
    for read in (
        lambda: check_file(tmp_path, "b", record, hashed=False),
        lambda: record_file(tmp_path / "b"),
        lambda: open_array(tmp_path / "b", np.float32, (1,)),
    ):
        with pytest.raises(FileNotFoundError, match="b"):
            read()


@pytest.mark.parametrize("shape", [(3, 2), (0, 2)])
def test_plain_arrays_are_mapped_read_only(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    found = open_array(tmp_path / "a.npy", np.float32, shape)
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable or not found.size


def test_arrow_arrays_hold_what_was_given() -> None:
    import pyarrow as pa

    texts = ["", "hat", "été", "帽子", ""]
    assert text_array(texts).equals(pa.array(texts, pa.large_string()))
    assert text_array([]).equals(pa.array([], pa.large_string()))
    text_array(texts).validate(full=True)
    with pytest.raises(UnicodeEncodeError):
        text_array(["\ud800"])
    for kind in (np.int32, np.int64):
        numbers = np.arange(9, dtype=kind)[::2]
        array = integer_array(numbers)
        assert array.equals(pa.array(numbers))
        np.testing.assert_array_equal(integers_of(array.slice(2, 2)), numbers[2:4])
        assert integers_of(array.slice(0, 0)).dtype == kind
    for count in (0, 1, 8, 21):
        flags = np.random.default_rng(count).random(count) < 0.5
        assert flag_array(flags).equals(pa.array(flags.tolist(), pa.bool_()))
        np.testing.assert_array_equal(flags_of(flag_array(flags)), flags)
        np.testing.assert_array_equal(flags_of(flag_array(flags)[3:]), flags[3:])
