"""Opening and searching a bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bundle.conftest import IDS
from tests.bundle.small_bundles import check_content, create, embedding, items_of
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.writing import add_items, remove_items


def brute_force(ids: list[str], query: np.ndarray, k: int) -> list[str]:
    distances = {one: float(((embedding(one) - query).astype(float) ** 2).sum()) for one in ids}
    return sorted(ids, key=lambda one: distances[one])[:k]


def test_a_bundle_gives_what_was_put_in(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    check_content(bundle, IDS)
    assert (bundle.name, bundle.dim, len(bundle)) == ("shop", 4, 12)
    assert bundle.columns == ("category", "colour")
    assert bundle.manifest.generation == 1
    assert bundle.manifest.facts == {"map_at_5": 0.5}
    assert bundle.file("note.md").read_text() == "Hello"
    assert "item-3" in bundle
    assert "item-99" not in bundle
    assert 3 not in bundle
    assert bundle.encoder.image_size_px == 64
    assert bundle.encoder is bundle.encoder


def test_the_nearest_are_those_of_brute_force(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    queries = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for query, hits in zip(queries, bundle.search(queries, 5), strict=True):
        assert [hit.item_id for hit in hits] == brute_force(IDS, query, 5)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        for hit in hits:
            item = bundle.item(hit.item_id)
            assert {"item_id": hit.item_id, "category": hit.category, **hit.attributes} == item
            expected = ((embedding(hit.item_id) - query).astype(float) ** 2).sum()
            assert hit.squared_distance == pytest.approx(expected, rel=1e-5)


def test_exactly_k_come_where_k_exist(bundle_folder: Path) -> None:
    add_items(bundle_folder, items_of(["item-3", "item-20"]), tidy=False)
    remove_items(bundle_folder, ["item-5", "item-6"], tidy=False)
    bundle = Bundle.open(bundle_folder)
    left = [one for one in [*IDS, "item-20"] if one not in ("item-5", "item-6")]
    queries = np.stack([embedding(one) for one in IDS])
    for k in (1, 3, 10, 11, 50):
        for query, hits in zip(queries, bundle.search(queries, k), strict=True):
            assert [hit.item_id for hit in hits] == brute_force(left, query, k)
        excluded: list[str | None] = [*IDS[:-1], None]
        found = bundle.search(queries, k, exclude_ids=excluded)
        for query, without, hits in zip(queries, excluded, found, strict=True):
            others = [one for one in left if one != without]
            assert [hit.item_id for hit in hits] == brute_force(others, query, k)


def test_a_search_keeps_to_its_filter(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    colours = dict(zip(IDS, items_of(IDS).columns["colour"], strict=True))
    query = embedding("item-2")[None]
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


def test_ids_come_in_pages_and_values_are_counted(bundle_folder: Path) -> None:
    add_items(bundle_folder, items_of(["item-1", "item-30"]), tidy=False)
    bundle = Bundle.open(bundle_folder)
    order = [one for one in IDS if one != "item-1"] + ["item-1", "item-30"]
    assert bundle.item_ids() == order
    assert bundle.item_ids(start=3, limit=4) == order[3:7]
    assert bundle.item_ids(start=99) == []
    assert bundle.item_ids(limit=0) == []
    colours = items_of(order).columns["colour"]
    counted = bundle.values_of("colour")
    assert counted == {one: colours.count(one) for one in set(colours)}
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
    assert [bundle.has_more_values("colour", than) for than in (0, 2, 3)] == [True, True, False]


def test_values_are_counted_over_all_segments(bundle_folder: Path) -> None:
    for name in ("a", "b", "item-1"):
        add_items(bundle_folder, items_of([name], mark=f"{name}-"), tidy=False)
    remove_items(bundle_folder, ["b"], tidy=False)
    bundle = Bundle.open(bundle_folder)
    expected = {"category-0": 9, "category-1": 2, "a-category-1": 1, "item-1-category-0": 1}
    assert bundle.values_of("category") == expected
    assert bundle.has_more_values("category", 3)
    assert not bundle.has_more_values("category", 4)
    assert bundle.count({"category": ["b-category-1"]}) == 0


def test_a_bundle_without_items_answers_nothing(bundle_folder: Path) -> None:
    assert remove_items(bundle_folder, IDS).num_items == 0
    bundle = Bundle.open(bundle_folder)
    assert len(bundle) == bundle.count() == 0
    assert bundle.search(np.zeros((2, 4), np.float32), 3) == [[], []]
    assert bundle.item_ids() == []
    assert bundle.values_of("colour") == {}


def test_no_query_gets_no_answer(bundle_folder: Path) -> None:
    assert Bundle.open(bundle_folder).search(np.zeros((0, 4), np.float32), 3) == []


def test_a_bundle_without_attributes(tmp_path: Path) -> None:
    plain = BundleItems(["a"], {"category": ["hats"]}, np.zeros((1, 4), np.float32))
    folder = create(tmp_path / "other", ["b"])
    from visual_search.bundle.creating import create_bundle

    create_bundle(
        tmp_path / "plain", name="plain", encoder_onnx=folder / "encoder.onnx", items=plain
    )
    bundle = Bundle.open(tmp_path / "plain")
    [[hit]] = bundle.search(np.ones((1, 4), np.float32), 1)
    assert (hit.item_id, hit.category, hit.squared_distance) == ("a", "hats", 4.0)
    assert hit.attributes == {}
    assert bundle.thumbnail("a") == b""


def test_wrong_questions_are_refused(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    one = np.zeros((1, 4), np.float32)
    with pytest.raises(TypeError, match="float64; expected a NumPy array of float32"):
        bundle.search(one.astype(float), 1)
    with pytest.raises(ValueError, match="3 wide, the index 4"):
        bundle.search(one[:, :3], 1)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        bundle.search(one + np.nan, 1)
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        bundle.search(one, 0)
    with pytest.raises(TypeError, match=r"k is 1\.5"):
        bundle.search(one, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"exclude_ids is .*; expected 1, one id or None"):
        bundle.search(one, 1, exclude_ids=["a", "b"])
    with pytest.raises(TypeError, match="exclude_ids holds 3"):
        bundle.search(one, 1, exclude_ids=[3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="column 'color'; expected one of category, colour"):
        bundle.search(one, 1, where={"color": ["red"]})
    with pytest.raises(TypeError, match="holds 3"):
        bundle.count({"colour": [3]})  # type: ignore[list-item]
    with pytest.raises(ValueError, match="start is -1"):
        bundle.item_ids(start=-1)
    with pytest.raises(ValueError, match="no column 'item_id'; expected one of category, colour"):
        bundle.values_of("item_id")
    with pytest.raises(ValueError, match="no column 'size'; expected one of category, colour"):
        bundle.has_more_values("size", 3)
    with pytest.raises(ValueError, match="verify is 'none'"):
        Bundle.open(bundle_folder, verify="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("ask", ["embedding_of", "item", "thumbnail"])
def test_an_unknown_item_is_named(bundle_folder: Path, ask: str) -> None:
    bundle = Bundle.open(bundle_folder)
    for unknown in ("item-99", 5, "\ud800"):
        with pytest.raises(KeyError, match=r"'shop' has no item .* expected one of its 12 ids"):
            getattr(bundle, ask)(unknown)


def test_an_unknown_file_is_named(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    with pytest.raises(KeyError, match=r"no file 'x\.md'; expected one of encoder\.onnx, note\.md"):
        bundle.file("x.md")
    with pytest.raises(ValueError, match="lead out of the bundle"):
        bundle.file("../secret")


def test_a_bundle_is_answered_without_torch_lightning_and_pandas(bundle_folder: Path) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "pandas", "onnxruntime", "matplotlib"):
            asked.append(name)
            raise ModuleNotFoundError(name)
asked = []
sys.meta_path.insert(0, Refuse())
import numpy as np
from visual_search.bundle.bundle import Bundle
from visual_search.bundle import creating, writing
bundle = Bundle.open(sys.argv[1])
[hits] = bundle.search(np.zeros((1, 4), np.float32), 3, where={"colour": ["red"]})
writing.remove_items(sys.argv[1], ["item-1"])
print(len(hits), len(bundle.refreshed()), asked)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "11", "[]"]
