"""Opening and searching a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bundle.small_bundles import IDS, check_content, encoder_file, items_of
from tests.bundle.small_bundles import embedding as embedding_of
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.writing import add_items, remove_items

ONE = np.zeros((1, 4), np.float32)


def brute_force(ids: list[str], query: np.ndarray, k: int) -> list[str]:
    distances = {one: ((embedding_of(one) - query).astype(float) ** 2).sum() for one in ids}
    return sorted(ids, key=distances.__getitem__)[:k]


def test_a_bundle_gives_what_was_put_in(bundle: Bundle) -> None:
    check_content(bundle, IDS)
    assert (bundle.name, bundle.dim, len(bundle)) == ("shop", 4, 12)
    assert bundle.columns == ("category", "colour")
    assert bundle.manifest.generation == 1
    assert bundle.manifest.facts == {"map_at_5": 0.5}
    assert bundle.file("note.md").read_text() == "Hello"
    assert [one in bundle for one in ("item-3", "item-99", 3)] == [True, False, False]
    assert bundle.encoder.image_size_px == 64
    assert bundle.encoder is bundle.encoder


def test_the_nearest_are_those_of_brute_force(bundle: Bundle) -> None:
    queries = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for query, hits in zip(queries, bundle.search(queries, 5), strict=True):
        assert [hit.item_id for hit in hits] == brute_force(IDS, query, 5)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        for hit in hits:
            item = bundle.item(hit.item_id)
            assert {"item_id": hit.item_id, "category": hit.category, **hit.attributes} == item
            expected = ((embedding_of(hit.item_id) - query).astype(float) ** 2).sum()
            assert hit.squared_distance == pytest.approx(expected, rel=1e-5)
    assert bundle.search(queries[:0], 3) == []


def test_exactly_k_come_where_k_exist(bundle_folder: Path) -> None:
    add_items(bundle_folder, items_of(["item-3", "item-20"]), tidy=False)
    remove_items(bundle_folder, ["item-5", "item-6"], tidy=False)
    bundle = Bundle.open(bundle_folder)
    left = [one for one in [*IDS, "item-20"] if one not in ("item-5", "item-6")]
    queries = np.stack([embedding_of(one) for one in IDS])
    for k in (1, 10, 11, 50):
        for query, hits in zip(queries, bundle.search(queries, k), strict=True):
            assert [hit.item_id for hit in hits] == brute_force(left, query, k)
        excluded: list[str | None] = [*IDS[:-1], None]
        found = bundle.search(queries, k, exclude_ids=excluded)
        for query, without, hits in zip(queries, excluded, found, strict=True):
            others = [one for one in left if one != without]
            assert [hit.item_id for hit in hits] == brute_force(others, query, k)


def test_a_search_keeps_to_its_filter(bundle: Bundle) -> None:
    colours = dict(zip(IDS, items_of(IDS).columns["colour"], strict=True))
    query = embedding_of("item-2")[None]
    for accepted in (["red"], ["red", ""], ["red", "blue"], ["blue"]):
        fitting = [one for one in IDS if colours[one] in accepted]
        for k in (1, 2, 40):
            [hits] = bundle.search(query, k, where={"colour": accepted})
            assert [hit.item_id for hit in hits] == brute_force(fitting, query[0], k)
        assert bundle.count({"colour": accepted}) == len(fitting)
        assert bundle.item_ids(where={"colour": accepted}) == fitting
    both = {"colour": ["red", "green"], "category": ["category-1"]}
    fitting = [one for one in IDS if colours[one] and len(one) % 2 == 1]
    assert 0 < len(fitting) < 12
    [hits] = bundle.search(query, 2, where=both, exclude_ids=[fitting[0]])
    assert [hit.item_id for hit in hits] == brute_force(fitting[1:], query[0], 2)


def test_ids_come_in_pages_and_values_are_counted_over_all_segments(bundle_folder: Path) -> None:
    for name in ("a", "b", "item-1"):
        add_items(bundle_folder, items_of([name], mark=f"{name}-"), tidy=False)
    remove_items(bundle_folder, ["b"], tidy=False)
    bundle = Bundle.open(bundle_folder)
    order = [one for one in IDS if one != "item-1"] + ["a", "item-1"]
    assert bundle.item_ids() == order
    assert bundle.item_ids(start=3, limit=4) == order[3:7]
    assert bundle.item_ids(start=99) == bundle.item_ids(limit=0) == []
    expected = {"category-0": 9, "category-1": 2, "a-category-1": 1, "item-1-category-0": 1}
    counted = bundle.values_of("category")
    assert counted == expected
    assert list(counted.values()) == [9, 2, 1, 1]
    more = [bundle.has_more_values("category", than) for than in (0, 3, 4)]
    assert more == [True, True, False]
    assert bundle.count({"category": ["b-category-1"]}) == 0


def test_a_bundle_without_items_answers_nothing(bundle_folder: Path) -> None:
    assert remove_items(bundle_folder, IDS).num_items == 0
    bundle = Bundle.open(bundle_folder)
    assert len(bundle) == bundle.count() == 0
    assert bundle.search(np.zeros((2, 4), np.float32), 3) == [[], []]
    assert bundle.item_ids() == []
    assert bundle.values_of("colour") == {}


def test_a_bundle_without_attributes(tmp_path: Path) -> None:
    plain = BundleItems(["a"], {"category": ["hats"]}, ONE)
    create_bundle(tmp_path / "b", name="b", encoder_onnx=encoder_file(tmp_path), items=plain)
    bundle = Bundle.open(tmp_path / "b")
    [[hit]] = bundle.search(ONE + 1, 1)
    assert (hit.item_id, hit.category, hit.squared_distance) == ("a", "hats", 4.0)
    assert hit.attributes == {}
    assert bundle.thumbnail("a") == b""


QUESTIONS: list[tuple[Callable[[Bundle], object], type[Exception], str]] = [
    (lambda b: b.search(ONE.astype(float), 1), TypeError, "float64; expected a NumPy array of fl"),
    (lambda b: b.search(ONE[:, :3], 1), ValueError, "3 wide, the index 4"),
    (lambda b: b.search(ONE + np.nan, 1), ValueError, "holds NaN or infinity"),
    (lambda b: b.search(ONE, 0), ValueError, "k is 0; expected at least 1"),
    (lambda b: b.search(ONE, 1.5), TypeError, r"k is 1\.5"),  # type: ignore[arg-type]
    (lambda b: b.search(ONE, 1, exclude_ids=["a", "b"]), ValueError, "expected 1, one id or None"),
    (lambda b: b.search(ONE, 1, exclude_ids=[3]), TypeError, "exclude_ids holds 3"),  # type: ignore[list-item]
    (lambda b: b.search(ONE, 1, where={"color": ["red"]}), ValueError,
     "column 'color'; expected one of category, colour"),
    (lambda b: b.count({"colour": [3]}), TypeError, "holds 3"),  # type: ignore[list-item]
    (lambda b: b.item_ids(start=-1), ValueError, "start is -1"),
    (lambda b: b.values_of("item_id"), ValueError, "no column 'item_id'; expected one of category"),
    (lambda b: b.has_more_values("size", 3), ValueError, "no column 'size'; expected one of categ"),
    (lambda b: Bundle.open(b.folder, verify="none"), ValueError, "verify is 'none'"),  # type: ignore[arg-type]
    (lambda b: b.file("x.md"), KeyError, r"no file 'x\.md'; expected one of encoder\.onnx, note\."),
    (lambda b: b.file("../secret"), ValueError, "lead out of the bundle"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "error", "reason"), QUESTIONS)
def test_wrong_questions_are_refused(
    bundle: Bundle, ask: Callable[[Bundle], object], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        ask(bundle)


@pytest.mark.parametrize("ask", ["embedding_of", "item", "thumbnail"])
@pytest.mark.parametrize("unknown", ["item-99", 5, "\ud800"])
def test_an_unknown_item_is_named(bundle: Bundle, ask: str, unknown: object) -> None:
    with pytest.raises(KeyError, match=r"'shop' has no item .* expected one of its 12 ids"):
        getattr(bundle, ask)(unknown)
