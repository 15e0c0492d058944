from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.retrieval.measure import find_neighbours, score
from visual_search.retrieval.products import find_products, over_products
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.protocols import gallery_query, instance, leave_one_out


def shop(rng: np.random.Generator, num: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Products of one to five pictures, in eight groups of products and three categories."""
    products = [f"p{place}" for place in range(num)]
    pictures = rng.integers(1, 6, num)
    table = pd.DataFrame({"product": np.repeat(products, pictures)})
    number = table.groupby("product").cumcount() + 1
    table["item_id"] = [
        p if n == 1 else f"{p}~{n}" for p, n in zip(table["product"], number, strict=True)
    ]
    place = table["product"].str[1:].astype(int)
    table["category"] = [["hat", "shoe", "bag"][p % 3] for p in place]
    table["group"] = [f"g{p % 8}" for p in place]
    table["split"] = ["test" if p % 4 == 0 else "train" for p in place]
    embeddings = rng.normal(size=(len(table), 4)) + 0.7 * (place.to_numpy() % 3)[:, None]
    return table, embeddings.astype(np.float32)


def by_hand(
    table: pd.DataFrame, embeddings: np.ndarray, selection: Selection, k: int, exclude: str
) -> tuple[float, int]:
    """Mean over products of the mean over pictures, and how many products had something to find."""
    of_product: dict[str, list[float]] = {}
    for q in selection.query_rows.tolist():
        asks = table.iloc[q]
        nearest: dict[str, tuple[float, str, bool]] = {}
        relevant = set()
        for g in selection.gallery_rows.tolist():
            found = table.iloc[g]
            if found["product"] == asks["product"]:
                continue
            if exclude == "group" and found["group"] == asks["group"]:
                continue
            distance = float(((embeddings[q] - embeddings[g]).astype(np.float64) ** 2).sum())
            this = (distance, found["item_id"], found["category"] == asks["category"])
            nearest[found["product"]] = min(this, nearest.get(found["product"], this))
            relevant |= {found["product"]} if this[2] else set()
        hits = [right for _, _, right in sorted(nearest.values())]
        if not relevant:
            continue
        total = sum(sum(hits[: i + 1]) / (i + 1) for i in range(min(k, len(hits))) if hits[i])
        of_product.setdefault(asks["product"], []).append(total / min(len(relevant), k))
    means = [sum(values) / len(values) for values in of_product.values()]
    return sum(means) / len(means), len(means)


@pytest.mark.parametrize("exclude", ["item", "group"])
@pytest.mark.parametrize("kind", [gallery_query, leave_one_out])
def test_each_product_answers_and_asks_once(exclude, kind) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        table, embeddings = shop(rng)
        if seed == 2:  # pictures of one product in several categories
            table["category"] = rng.permutation(table["category"])
        protocol: Protocol = kind(k=5, exclude=exclude)
        selection = protocol.choose(table, "test")
        ids = table["item_id"].iloc[selection.gallery_rows].tolist()
        index = EmbeddingIndex.build(embeddings[selection.gallery_rows], ids, device="cpu")
        scores = find_products(index, table, protocol, selection, embeddings[selection.query_rows])
        mean, num = by_hand(table, embeddings, selection, 5, exclude)
        assert scores is not None
        asked = set(table["product"].iloc[selection.query_rows])
        assert set(scores.per_product["query_id"]) == asked
        found = over_products(scores)
        assert found["mean"] == pytest.approx(mean)
        assert (found["num_products_scored"], found["num_products_asking"]) == (num, 15)
        assert found["low"] < mean < found["high"]


def test_nothing_is_said_where_there_are_no_products_or_they_are_asked_for() -> None:
    table, embeddings = shop(np.random.default_rng(0))
    single = table.drop_duplicates("product").reset_index(drop=True)
    for data, protocol in (
        (table.drop(columns="product"), leave_one_out()),
        (single, leave_one_out(exclude="item")),
        (table, instance()),
        (table, leave_one_out(relevance=["group"], exclude="item")),
        (table.assign(group=table["item_id"]), leave_one_out(exclude="item")),  # a brand's line
    ):
        selection = protocol.choose(data, "test")
        values = embeddings[: len(data)]
        ids = data["item_id"].iloc[selection.gallery_rows].tolist()
        index = EmbeddingIndex.build(values[selection.gallery_rows], ids, device="cpu")
        asked = values[selection.query_rows]
        assert find_products(index, data, protocol, selection, asked) is None


def test_an_instance_protocol_finds_the_other_pictures_of_a_product() -> None:
    table, embeddings = shop(np.random.default_rng(1))
    protocol = instance(k=2)
    selection = protocol.choose(table, "test")
    rows = selection.query_rows
    ids = table["item_id"].iloc[rows].tolist()
    index = EmbeddingIndex.build(embeddings[rows], ids, device="cpu")
    neighbours = find_neighbours(index, table, protocol, selection, embeddings[rows])
    report = score(table, protocol, selection, neighbours)
    at_r, hit = [], []
    for q in rows.tolist():
        order = sorted((float(((embeddings[q] - embeddings[g]) ** 2).sum()), table["item_id"][g], g)
                       for g in rows.tolist() if g != q)  # fmt: skip
        right = [table["product"][g] == table["product"][q] for _, _, g in order]
        if not any(right):
            at_r.append(np.nan)
            continue
        r = sum(right)
        hit.append(right[0])
        at_r.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(r) if right[i]) / r)
    given = report.per_query["average_precision_at_r"].to_numpy()
    assert given == pytest.approx(np.array(at_r), nan_ok=True)
    assert np.isnan(at_r).any()
    assert report.summary["micro_map_at_r"] == pytest.approx(np.nanmean(at_r))
    assert report.summary["micro_hit_at_1"] == pytest.approx(np.mean(hit))
    assert "first R" in report.summary["definitions"]["map_at_r"]
    assert all(len(names) == 2 for names in report.per_query["neighbour_ids"])
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['product'\]"):
        protocol.choose(table.drop(columns="product"), "test")
