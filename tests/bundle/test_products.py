"""Products of several pictures: found once each, and changed picture by picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundle.small_bundles import JPEG, change_manifest, embedding, encoder_file, start_python
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.manifest import MANIFEST_FILE
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items
from visual_search.catalog.identity import picture_id

COLOURS = ("red", "green", "blue")


def pictures(ids: Sequence[str], products: Sequence[str] | None, **columns: Any) -> BundleItems:
    """Returns items whose colours their products decide, and whose embeddings their ids do."""
    given = {} if products is None else {"product": list(products)}
    return BundleItems(
        item_ids=list(ids),
        columns={
            "category": ["shoes"] * len(ids),
            "colour": [COLOURS[len(one) % 3] for one in products or ids],
            **given,
            **columns,
        },
        embeddings=np.stack([embedding(f"{one}{n}") for n, one in enumerate(ids)]),
        thumbnails=[JPEG + one.encode() for one in ids],
    )


def many_pictures(num_items: int = 240) -> BundleItems:
    """Returns products of 1 to about 100 pictures, in any order."""
    drawn = np.random.default_rng(4).zipf(1.7, num_items) % 50
    products = ["p" * (1 + n % 3) + str(n) for n in drawn.tolist()]
    ids = [picture_id(one, 1 + products[:row].count(one)) for row, one in enumerate(products)]
    return pictures(ids, products)


def make(folder: Path, items: BundleItems, **more: Any) -> Path:
    given = {"product_column": "product", **more}
    encoder = encoder_file(folder.parent / "given", items.embeddings.shape[1])
    create_bundle(folder, name="shop", encoder_onnx=encoder, items=items, **given)
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Three products: shoe of three pictures, hat of two, bag of one."""
    ids = ["shoe", "shoe~2", "hat", "hat~2", "bag", "shoe~3"]
    return make(tmp_path / "shop", pictures(ids, [one.partition("~")[0] for one in ids]))


def by_hand(
    items: BundleItems, query: NDArray[np.float32], allowed: Sequence[bool], without: str | None
) -> list[tuple[str, str]]:
    """Returns product and nearest picture, the nearest first, by looking at every picture."""
    squared = ((items.embeddings.astype(np.float64) - query) ** 2).sum(axis=1)
    found: dict[str, str] = {}
    for row in np.argsort(squared, kind="stable").tolist():
        product = items.columns["product"][row]
        if allowed[row] and product != without:
            found.setdefault(product, items.item_ids[row])
    return list(found.items())


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_the_k_nearest_products_are_found_each_by_its_nearest_picture(
    tmp_path: Path, kind: str
) -> None:
    items = many_pictures()
    bundle = Bundle.open(make(tmp_path / "shop", items, kind=kind))
    queries = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    without = [items.columns["product"][0], None, items.columns["product"][9], None]
    named = [items.item_ids[0], None, items.item_ids[9], "nobody"]
    num_products = len(set(items.columns["product"]))
    assert (bundle.num_products, len(bundle)) == (num_products, 240)
    for where, k in ((None, 5), (None, 1000), ({"colour": ["red"]}, 7)):
        allowed = [where is None or one == "red" for one in items.columns["colour"]]
        answers = bundle.search(queries, k, where=where, exclude_ids=named)
        for query, hits, left_out in zip(queries, answers, without, strict=True):
            wanted = by_hand(items, query, allowed, left_out)[:k]
            assert [(hit.product, hit.item_id) for hit in hits] == wanted
            squared = [hit.squared_distance for hit in hits]
            assert squared == sorted(squared)
    hit = bundle.search(queries[:1], 1)[0][0]
    own = [i for i, p in zip(items.item_ids, items.columns["product"], strict=True)
           if p == hit.product]  # fmt: skip
    assert {hit.item_id, *hit.pictures} == set(own) == set(bundle.pictures_of(hit.product))


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivfpq"])
def test_an_approximate_search_finds_k_products_each_once_through_changes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visual_search.knn.faiss_index.EXACT_VALUES", 0)  # small ones too
    items = many_pictures(1_500)
    folder = make(tmp_path / "shop", items, kind=kind)
    queries = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    ids, products, live = list(items.item_ids), list(items.columns["product"]), [True] * 1_500
    rows = items.embeddings
    num_right = num_hits = 0
    for step in ("made", "one more", "one less"):
        if step == "one more":
            more = pictures([""], [products[3]])
            assert add_items(folder, more).num_products_added == 0
            ids.append(picture_id(products[3], 1 + products.count(products[3])))
            products, live = [*products, products[3]], [*live, True]
            rows = np.concatenate([rows, more.embeddings])
            [[hit]] = Bundle.open(folder).search(more.embeddings, 1)
            assert (hit.product, hit.item_id) == (products[3], ids[-1])
        elif step == "one less":
            alone = next(row for row, one in enumerate(products) if products.count(one) == 1)
            assert remove_items(folder, [ids[alone]]).num_products_removed == 1
            live[alone] = False
        bundle = Bundle.open(folder)
        held = BundleItems(ids, {"category": products, "product": products}, rows)
        for where, k in ((None, 5), (None, 1000), ({"colour": ["red"]}, 7)):
            allowed = [
                is_there and (where is None or COLOURS[len(one) % 3] == "red")
                for is_there, one in zip(live, products, strict=True)
            ]
            named = [ids[0], None, ids[9], "nobody"]
            answers = bundle.search(queries, k, where=where, exclude_ids=named)
            without = [products[0], None, products[9], None]
            for query, hits, left_out in zip(queries, answers, without, strict=True):
                wanted = by_hand(held, query, allowed, left_out)[:k]
                found = [(hit.product, hit.item_id) for hit in hits]
                assert len({hit.product for hit in hits}) == len(found) == len(wanted)
                squared = [hit.squared_distance for hit in hits]
                assert squared == sorted(squared)
                num_right += len(set(found) & set(wanted))
                num_hits += len(wanted)
    assert num_right >= 0.9 * num_hits


@pytest.mark.parametrize("is_unit", [False, True])
def test_products_are_ranked_by_their_mean_embedding_where_that_is_asked(
    tmp_path: Path, is_unit: bool
) -> None:
    items = many_pictures()
    lengths = np.linalg.norm(items.embeddings, axis=1, keepdims=True)
    rows = items.embeddings / lengths if is_unit else items.embeddings
    items = BundleItems(items.item_ids, items.columns, rows.astype(np.float32))
    bundle = Bundle.open(make(tmp_path / "shop", items))
    query = np.array([0.1, -0.4, 0.3, 0.2], np.float32)
    named, where = items.item_ids[0], {"colour": ["red", "blue"]}
    squared = {}
    for product in set(items.columns["product"]) - {items.columns["product"][0]}:
        own = [row for row, one in enumerate(items.columns["product"]) if one == product]
        mean = items.embeddings[own].astype(np.float64).mean(axis=0)
        if is_unit:
            mean /= np.linalg.norm(mean)
        if items.columns["colour"][own[0]] != "green":
            squared[product] = ((mean - query) ** 2).sum()
    [hits] = bundle.search(query[None], 12, where=where, exclude_ids=[named], products="mean")
    assert [hit.product for hit in hits] == sorted(squared, key=squared.__getitem__)[:12]
    assert [hit.squared_distance for hit in hits] == pytest.approx(
        [squared[hit.product] for hit in hits], abs=1e-5
    )
    nearest = dict(by_hand(items, query, [True] * len(items), None))
    assert all(hit.item_id == nearest[hit.product] for hit in hits)


def test_every_picture_is_a_hit_where_all_are_asked_for(shop: Path) -> None:
    bundle = Bundle.open(shop)
    query = bundle.embedding_of("shoe~2")[None]
    [best] = bundle.search(query, 9)
    [every] = bundle.search(query, 9, products="all")
    assert [hit.product for hit in best] != [hit.product for hit in every]
    assert {hit.item_id for hit in every} == {"shoe", "shoe~2", "shoe~3", "hat", "hat~2", "bag"}
    first = every[0]
    assert (first.item_id, first.product, first.pictures) == ("shoe~2", "shoe", ("shoe", "shoe~3"))
    # a product is not like itself, by whichever picture it is asked; a picture only not itself
    [others] = bundle.search(query, 9, exclude_ids=["shoe~2"])
    assert {hit.product for hit in others} == {"hat", "bag"}
    [others] = bundle.search(query, 9, exclude_ids=["shoe~2"], products="all")
    assert {hit.item_id for hit in others} == {"shoe", "shoe~3", "hat", "hat~2", "bag"}
    with pytest.raises(ValueError, match=r"'worst'.*'best'"):
        bundle.search(query, 9, products="worst")  # type: ignore[arg-type]


def test_products_are_listed_and_counted_once(shop: Path) -> None:
    bundle = Bundle.open(shop)
    assert bundle.item_ids(by_product=True) == ["shoe", "hat", "bag"]
    assert bundle.item_ids(by_product=True, start=1, limit=1) == ["hat"]
    assert (bundle.count(), bundle.count(by_product=True)) == (6, 3)
    where = {"colour": ["green"]}
    assert bundle.count(where, by_product=True) == len(
        bundle.item_ids(where=where, by_product=True)
    )
    assert bundle.values_of("category") == {"shoes": 6}
    assert bundle.values_of("category", by_product=True) == {"shoes": 3}
    assert bundle.product_of("hat~2") == "hat"
    with pytest.raises(KeyError, match="'boot'"):
        bundle.pictures_of("boot")


def test_pictures_are_added_to_their_products(shop: Path) -> None:
    # without an id: the next of the product; a product that is not there begins with its own id
    change = add_items(shop, pictures(["", "", "", ""], ["shoe", "boot", "boot", "shoe"]))
    assert (change.num_added, change.num_replaced, change.num_items) == (4, 0, 10)
    assert (change.num_products, change.num_products_added) == (4, 1)
    bundle = Bundle.open(shop)
    assert bundle.pictures_of("shoe") == ["shoe", "shoe~2", "shoe~3", "shoe~4", "shoe~5"]
    assert bundle.pictures_of("boot") == ["boot", "boot~2"]
    # without the column: what is there stays where it is, and an id of its kind says whose it is
    change = add_items(shop, pictures(["hat~2", "hat~7", "cap", "cap~2"], None))
    assert (change.num_added, change.num_replaced, change.num_products_added) == (3, 1, 1)
    bundle = Bundle.open(shop)
    assert bundle.pictures_of("hat") == ["hat", "hat~2", "hat~7"]
    assert bundle.pictures_of("cap") == ["cap", "cap~2"]
    assert bundle.num_products == change.num_products == 5
    rebuild = rebuild_bundle(shop)
    assert (rebuild.num_products, rebuild.num_products_added) == (5, 0)
    assert Bundle.open(shop).pictures_of("hat") == ["hat", "hat~2", "hat~7"]


@pytest.mark.parametrize(
    ("item_id", "product", "said"),
    [("front", "shoe", "shoe~4"), ("hat~2", "hat~2", "hat"), ("shoe~01", "shoe", "shoe~4")],
)
def test_what_is_no_picture_of_its_product_is_not_added(
    shop: Path, item_id: str, product: str, said: str
) -> None:
    before = (shop / MANIFEST_FILE).read_bytes()
    with pytest.raises(ValueError, match=f"{item_id!r}.*{said!r}"):
        add_items(shop, pictures([item_id], [product]))
    assert (shop / MANIFEST_FILE).read_bytes() == before


@pytest.mark.slow
def test_two_writers_at_once_never_give_two_pictures_one_id(shop: Path) -> None:
    code = """
import sys
from tests.bundle.test_products import pictures
from visual_search.bundle.writing import add_items
for _ in range(3):
    add_items(sys.argv[1], pictures([""], ["bag"]))
"""
    writers = [start_python(code, str(shop)) for _ in range(2)]
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ""
        assert writer.returncode == 0
    assert Bundle.open(shop).pictures_of("bag") == ["bag", *(f"bag~{n}" for n in range(2, 8))]


def test_a_picture_is_taken_out_alone_and_a_product_with_all(shop: Path) -> None:
    change = remove_items(shop, ["shoe"])
    assert (change.num_removed, change.num_products, change.num_products_removed) == (1, 3, 0)
    bundle = Bundle.open(shop)
    assert bundle.pictures_of("shoe") == ["shoe~2", "shoe~3"]
    # the product is still asked for by its id
    assert "shoe" in bundle
    assert bundle.item("shoe")["item_id"] == "shoe~2"
    [hits] = bundle.search(bundle.embedding_of("shoe")[None], 9, exclude_ids=["shoe"])
    assert {hit.product for hit in hits} == {"hat", "bag"}
    change = remove_items(shop, ["bag"], product_ids=["shoe"])
    assert (change.num_removed, change.num_products, change.num_products_removed) == (3, 1, 2)
    assert Bundle.open(shop).item_ids() == ["hat", "hat~2"]
    with pytest.raises(KeyError, match="'shoe'"):
        remove_items(shop, product_ids=["shoe", "hat"])
    change = remove_items(shop, product_ids=["shoe", "hat"], skip_missing=True)
    assert (change.num_removed, change.num_items, change.num_products) == (2, 0, 0)
    empty = Bundle.open(shop)
    assert empty.search(np.zeros((1, 4), np.float32), 3) == [[]]
    assert (empty.num_products, empty.item_ids(by_product=True)) == (0, [])


def test_an_open_bundle_sees_a_change_when_it_is_refreshed(shop: Path) -> None:
    bundle = Bundle.open(shop)
    assert bundle.num_products == 3
    add_items(shop, pictures(["", "cap"], ["bag", "cap"]))
    newer = bundle.refreshed()
    assert bundle.pictures_of("bag") == ["bag"]
    assert newer.pictures_of("bag") == ["bag", "bag~2"]
    assert (bundle.num_products, newer.num_products) == (3, 4)


def test_a_column_of_that_name_is_an_attribute_where_nothing_says_more(tmp_path: Path) -> None:
    items = pictures(["a", "b", "c"], ["Air", "Air", ""])
    bundle = Bundle.open(make(tmp_path / "lines", items, product_column=None))
    assert "product_column" not in json.loads((tmp_path / "lines" / MANIFEST_FILE).read_text())
    assert (bundle.product_column, bundle.num_products) == (None, 3)
    [hits] = bundle.search(bundle.embedding_of("a")[None], 9)
    assert [hits[0].item_id, hits[0].attributes["product"]] == ["a", "Air"]
    assert len(hits) == 3
    assert [hit.product for hit in hits] == [hit.item_id for hit in hits]
    assert not any(hit.pictures for hit in hits)
    for products in ("mean", "all"):
        assert bundle.search(bundle.embedding_of("a")[None], 9, products=products) == [hits]
    change = remove_items(tmp_path / "lines", product_ids=["b"])
    assert (change.num_products, change.num_products_removed) == (2, 1)
    with pytest.raises(ValueError, match="no id"):
        add_items(tmp_path / "lines", pictures([""], ["Air"]))


@pytest.mark.parametrize(
    ("ids", "products", "column", "said"),
    [
        (["a", "b"], ["Air", "Air"], "product", "'Air~2'"),
        (["a", "b"], ["a", ""], "product", "''"),
        (["a"], ["a"], "brand", "'brand'"),
        (["a"], ["a"], "category", "'category'"),
        ([""], ["a"], "product", "''"),
    ],
)
def test_a_bundle_is_not_made_of_pictures_of_nobody(
    tmp_path: Path, ids: list[str], products: list[str], column: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make(tmp_path / "shop", pictures(ids, products), product_column=column)
    assert not (tmp_path / "shop").exists()


def test_a_bundle_that_names_another_column_or_leaves_it_empty_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "lines", pictures(["a", "b"], ["a", ""]), product_column=None)
    for column, said in (("brand", "'brand'"), ("category", "'category'"), ("product", "empty")):
        change_manifest(folder, lambda held, column=column: held.update(product_column=column))  # type: ignore[misc]
        with pytest.raises(ValueError, match=said):
            Bundle.open(folder)
