from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from visual_search.knn.codecs import codecs_for, decoded_gallery
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.size_quality import (
    SizeQuality,
    measure_codecs,
    search_decoded,
    verdict,
)
from visual_search.retrieval.statistics import bootstrap_interval, paired_difference

FAST = {"num_resamples": 200}


def shop(num: int = 120, dim: int = 64, **settings):
    """Three categories that lie apart in the last few numbers, among noise."""
    rng = np.random.default_rng(0)
    rows = np.arange(num)
    table = pd.DataFrame(
        {
            "item_id": [f"item-{row:03}" for row in rows],
            "category": [f"c{row % 3}" for row in rows],
            "group": [f"g{row // 2}" for row in rows],
        },
        dtype=object,
    )
    embeddings = rng.normal(size=(num, dim)).astype(np.float32)
    embeddings[:, -4:] += 1.2 * np.eye(4, dtype=np.float32)[rows % 3]
    selection = Selection(rows[: num // 2], rows[num // 2 :])
    protocol = Protocol("test", "As tested.", 5, lambda table, split: selection, **settings)
    sides = embeddings[selection.gallery_rows], embeddings[selection.query_rows]
    return (*sides, table, protocol, selection)


def lines(rows: list[tuple[str, str, int, float, float, float]]) -> SizeQuality:
    """A result with these (codec, family, bytes, difference, low, high)."""
    names = ["codec", "family", "bytes_per_item", "difference", "low", "high"]
    table = pd.DataFrame([("Flat", "flat", 1024, 0.0, 0.0, 0.0), *rows], columns=names)
    table = table.assign(
        title=table["codec"].str.lower(),
        shared_bytes=[66_560 if codec.startswith("PCA") else 0 for codec in table["codec"]],
        value=0.5 + table["difference"],
        times_smaller=1024 / table["bytes_per_item"],
    )
    headline = {"title": "mAP@5", "statistic": "micro"}
    return SizeQuality(table, {}, headline, False, 60, 30)


def test_each_codec_is_measured_on_its_decoded_gallery() -> None:
    gallery, queries, table, protocol, selection = shop()
    codecs, _ = codecs_for(64, len(gallery))
    steps: list[tuple[int, int]] = []
    found = measure_codecs(
        codecs, gallery, queries, table, protocol, selection,
        on_progress=lambda done, total: steps.append((done, total)), **FAST,
    )  # fmt: skip
    assert found.table["codec"].tolist() == [codec.name for codec in codecs]
    assert steps == [(done, len(codecs)) for done in range(1, len(codecs) + 1)]
    assert (found.num_queries, found.num_groups) == (60, 30)
    flat = search_decoded(gallery, queries, table, protocol, selection)
    exact = flat.per_query["average_precision"]
    labels = flat.per_query["group"], flat.per_query["category"]
    for codec in codecs:
        line = found.table.set_index("codec").loc[codec.name]
        report = search_decoded(
            decoded_gallery(gallery, codec), queries, table, protocol, selection
        )
        values = report.per_query["average_precision"]
        assert line["value"] == line["micro"] == report.summary["micro_map_at_5"]
        assert line["macro"] == report.summary["macro_map_at_5"]
        ends = bootstrap_interval(values, *labels, **FAST)
        assert (line["value_low"], line["value_high"]) == (ends.low, ends.high)
        assert line["times_smaller"] == 256 / line["bytes_per_item"]
        if codec.family != "flat":
            lost = paired_difference(values, exact, *labels, **FAST)
            told = [line["difference"], line["low"], line["high"]]
            assert told == [lost.difference, lost.low, lost.high]
    first = found.table.iloc[0]
    assert (first["difference"], first["low"], first["high"]) == (0, 0, 0)
    assert found.table["difference"].min() < -0.01, "the smallest codecs lose something"


def test_a_known_flat_result_is_not_measured_again() -> None:
    gallery, queries, *rest = shop()
    flat = search_decoded(gallery, queries, *rest)
    changed = replace(flat, per_query=flat.per_query.assign(average_precision=1.0))
    found = measure_codecs(codecs_for(64, 60)[0][:1], gallery, queries, *rest, flat=changed, **FAST)
    assert found.table["value"].tolist() == [1.0]


def test_exclusions_and_ties_are_the_protocols() -> None:
    """One codeword for all: every distance ties, so ids decide, and no query finds its group."""
    gallery, _, table, protocol, _ = shop(exclude="group")
    rows = np.arange(60)
    selection = Selection(rows, rows)
    same = np.zeros_like(gallery)
    report = search_decoded(same, gallery, table, protocol, selection)
    for query, found in zip(report.per_query["query_id"], report.per_query["neighbour_ids"],
                            strict=True):  # fmt: skip
        group = table.set_index("item_id").loc[query, "group"]
        others = table["item_id"][:60][(table["group"] != group)[:60]]
        assert found == sorted(others)[:5]


def test_what_cannot_hold_the_values_is_left_out() -> None:
    gallery, queries, *rest = shop()
    scale = np.float32(1e6)
    found = measure_codecs(
        codecs_for(64, 60)[0][:3], gallery * scale, queries * scale, *rest, **FAST
    )
    assert found.table["codec"].tolist() == ["Flat", "SQ8"]
    assert "finite" in found.left_out["float16"]


def test_unit_length_is_said() -> None:
    gallery, queries, *rest = shop()
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    assert measure_codecs(codecs_for(64, 60)[0][:1], gallery, queries, *rest, **FAST).unit_length


def test_without_flat_or_a_scored_query_nothing_is_measured() -> None:
    gallery, queries, table, *rest = shop()
    with pytest.raises(ValueError, match="the first codec is 'SQfp16'; expected flat"):
        measure_codecs(codecs_for(64, 60)[0][1:], gallery, queries, table, *rest)
    with pytest.raises(ValueError, match="the first codec is 'none'"):
        measure_codecs([], gallery, queries, table, *rest)
    table["category"] = [f"c{row}" for row in range(len(table))]
    with pytest.raises(ValueError, match="none of the 60 queries is scored"):
        measure_codecs(codecs_for(64, 60)[0], gallery, queries, table, *rest)
    with pytest.raises(TypeError, match="expected a NumPy array of float32"):
        search_decoded(gallery.astype(np.float64), queries, table, *rest)


# --- the verdict ----------------------------------------------------------------------------------


def test_the_smallest_within_the_loss_is_named() -> None:
    found = verdict(
        lines(
            [
                ("SQ8", "scalar", 256, 0.001, -0.002, 0.004),
                ("PCA8", "pca", 64, -0.004, -0.009, 0.001),
                ("PQ8", "product", 64, -0.006, -0.009, 0.001),
                ("PQ4", "product", 4, -0.2, -0.3, -0.1),
            ]
        )
    )
    assert (found.smallest, found.smallest_sure) == ("PCA8", "PCA8")
    assert (found.reached, found.reached_surely, found.goal_bytes) == (True, True, 128.0)
    assert found.sentence == (
        "mAP@5 by micro mean over 60 queries is 0.500 at 1,024 bytes an item (flat float32); the "
        "smallest that loses at most 0.010 is pca8 (64 bytes beside 66.6 kB shared, 16 times "
        "smaller, difference -0.004 [-0.009, +0.001]); its interval stays above -0.010; the goal, "
        "8 times smaller (128 bytes), is reached."
    )


def test_an_interval_below_the_limit_is_said() -> None:
    found = verdict(
        lines(
            [
                ("SQ8", "scalar", 256, -0.001, -0.004, 0.004),
                ("PCA8", "pca", 64, -0.009, -0.02, 0.001),
            ]
        )
    )
    assert (found.smallest, found.smallest_sure) == ("PCA8", "SQ8")
    assert (found.reached, found.reached_surely) == (True, False)
    assert "its interval reaches below -0.010, and the smallest whose does not is sq8" in (
        found.sentence
    )
    assert "is reached by the mean alone" in found.sentence


def test_an_unreached_goal_is_said() -> None:
    large = lines([("SQ8", "scalar", 256, -0.001, -0.004, 0.004)])
    found = verdict(large)
    assert (found.smallest, found.reached) == ("SQ8", False)
    assert found.sentence.endswith("is not reached: no codec is that small.")
    lossy = lines([("PQ8", "product", 8, -0.2, math.nan, math.nan)])
    found = verdict(lossy)
    assert (found.smallest, found.smallest_sure, found.reached) == ("Flat", None, False)
    assert "nothing smaller loses at most 0.010" in found.sentence
    assert "the best of that size is pq8 (8 bytes, 128 times smaller" in found.sentence
    assert verdict(lossy, max_loss=0.2, times_smaller=100).reached, "limits can be set"


def test_no_interval_promises_nothing() -> None:
    found = verdict(lines([("PQ8", "product", 8, 0.0, math.nan, math.nan)]))
    assert (found.smallest, found.smallest_sure) == ("PQ8", None)
    assert "no codec's interval stays above -0.010" in found.sentence


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_loss": -0.1}, "max_loss is -0.1; expected 0 or more"),
        ({"max_loss": math.nan}, "max_loss is nan"),
        ({"times_smaller": 1}, "times_smaller is 1; expected above 1"),
    ],
)
def test_impossible_limits_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verdict(lines([]), **limits)
