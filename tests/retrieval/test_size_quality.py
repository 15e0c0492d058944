from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.retrieval.test_comparison import queries
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


def shop(**settings):
    """Three categories that lie apart in the last few numbers, among noise."""
    rows = np.arange(120)
    table = queries(120).rename(columns={"query_id": "item_id"})
    embeddings = np.random.default_rng(0).normal(size=(120, 64)).astype(np.float32)
    embeddings[:, -4:] += 1.2 * np.eye(4, dtype=np.float32)[rows % 3]
    selection = Selection(rows[:60], rows[60:])
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


CODECS, _ = codecs_for(64, 60)


def measured(codecs, gallery, queries, *rest, **more) -> SizeQuality:
    return measure_codecs(codecs, gallery, queries, *rest, **FAST, **more)


def test_each_codec_is_measured_on_its_decoded_gallery() -> None:
    gallery, queries, *rest = shop()
    steps: list[tuple[int, int]] = []
    codecs = CODECS[::3]
    found = measured(codecs, gallery, queries, *rest, on_progress=lambda *now: steps.append(now))
    assert found.table["codec"].tolist() == [codec.name for codec in codecs]
    assert steps == [(done, len(codecs)) for done in range(1, len(codecs) + 1)]
    assert (found.num_queries, found.num_groups) == (60, 30)
    flat = search_decoded(gallery, queries, *rest).per_query
    labels = flat["group"], flat["category"]
    for codec, line in zip(codecs, found.table.to_dict("records"), strict=True):
        report = search_decoded(decoded_gallery(gallery, codec), queries, *rest)
        values = report.per_query["average_precision"]
        assert line["value"] == line["micro"] == report.summary["micro_map_at_5"]
        assert line["macro"] == report.summary["macro_map_at_5"]
        ends = bootstrap_interval(values, *labels, **FAST)
        assert (line["value_low"], line["value_high"]) == (ends.low, ends.high)
        assert line["times_smaller"] == 256 / line["bytes_per_item"]
        told = [line["difference"], line["low"], line["high"]]
        if codec.family == "flat":
            assert told == [0, 0, 0]
        else:
            lost = paired_difference(values, flat["average_precision"], *labels, **FAST)
            assert told == [lost.difference, lost.low, lost.high]
    assert found.table["difference"].min() < -0.01, "the smallest codecs lose something"
    assert not found.unit_length


def test_a_known_flat_result_is_not_measured_again_and_unit_length_is_said() -> None:
    gallery, queries, *rest = shop()
    flat = search_decoded(gallery, queries, *rest)
    changed = replace(flat, per_query=flat.per_query.assign(average_precision=1.0))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    found = measured(CODECS[:1], gallery, queries, *rest, flat=changed)
    assert found.table["value"].tolist() == [1.0]
    assert found.unit_length


def test_exclusions_and_ties_are_the_protocols() -> None:
    """One codeword for all: every distance ties, so ids decide, and no query finds its group."""
    gallery, _, table, protocol, _ = shop(exclude="group")
    selection = Selection(np.arange(60), np.arange(60))
    report = search_decoded(np.zeros_like(gallery), gallery, table, protocol, selection)
    known = table[:60]
    for line in report.per_query.itertuples():
        others = known["item_id"][known["group"] != line.group]
        assert line.neighbour_ids == sorted(others)[:5]


def test_what_cannot_hold_the_values_is_left_out() -> None:
    gallery, queries, *rest = shop()
    scale = np.float32(1e6)
    found = measured(CODECS[:3], gallery * scale, queries * scale, *rest)
    assert found.table["codec"].tolist() == ["Flat", "SQ8"]
    assert "finite" in found.left_out["float16"]


def test_without_flat_or_a_scored_query_nothing_is_measured() -> None:
    gallery, queries, table, *rest = shop()
    with pytest.raises(ValueError, match="the first codec is 'SQfp16'; expected flat"):
        measured(CODECS[1:], gallery, queries, table, *rest)
    with pytest.raises(ValueError, match="the first codec is 'none'"):
        measured([], gallery, queries, table, *rest)
    with pytest.raises(TypeError, match="expected a NumPy array of float32"):
        search_decoded(gallery.astype(np.float64), queries, table, *rest)
    alone = table.assign(category=table["item_id"])
    with pytest.raises(ValueError, match="none of the 60 queries is scored"):
        measured(CODECS, gallery, queries, alone, *rest)


# --- the verdict ----------------------------------------------------------------------------------

SQ8, PCA8 = ("SQ8", "scalar", 256), ("PCA8", "pca", 64)
PQ8, PQ4 = ("PQ8", "product", 8), ("PQ4", "product", 4)


def test_the_smallest_within_the_loss_is_named() -> None:
    found = verdict(
        lines(
            [(*SQ8, 0.001, -0.002, 0.004), (*PCA8, -0.004, -0.009, 0.001),
             ("PQ64", "product", 64, -0.006, -0.009, 0.001), (*PQ4, -0.2, -0.3, -0.1)]
        )
    )  # fmt: skip
    assert (found.smallest, found.smallest_sure) == ("PCA8", "PCA8")
    assert (found.reached, found.reached_surely, found.goal_bytes) == (True, True, 128.0)
    assert found.sentence == (
        "mAP@5 by micro mean over 60 queries is 0.500 at 1,024 bytes an item (flat float32); the "
        "smallest that loses at most 0.010 is pca8 (64 bytes beside 66.6 kB shared, 16 times "
        "smaller, difference -0.004 [-0.009, +0.001]); its interval stays above -0.010; the goal, "
        "8 times smaller (128 bytes), is reached."
    )


NAN = math.nan


@pytest.mark.parametrize(
    ("rows", "smallest", "sure", "reached", "said"),
    [
        ([(*SQ8, -0.001, -0.004, 0.004), (*PCA8, -0.009, -0.02, 0.001)], "PCA8", "SQ8", True,
         ["its interval reaches below -0.010, and the smallest whose does not is sq8",
          "is reached by the mean alone"]),
        ([(*SQ8, -0.001, -0.004, 0.004)], "SQ8", "SQ8", False,
         ["is not reached: no codec is that small."]),
        ([(*PQ8, -0.2, NAN, NAN)], "Flat", None, False,
         ["nothing smaller loses at most 0.010",
          "the best of that size is pq8 (8 bytes, 128 times smaller"]),
        ([(*PQ8, 0.0, NAN, NAN)], "PQ8", None, True,  # no interval promises nothing
         ["no codec's interval stays above -0.010"]),
    ],
)  # fmt: skip
def test_what_is_not_sure_or_not_reached_is_said(rows, smallest, sure, reached, said) -> None:
    found = verdict(lines(rows))
    assert (found.smallest, found.smallest_sure, found.reached) == (smallest, sure, reached)
    assert not found.reached_surely
    assert all(words in found.sentence for words in said), found.sentence


def test_intervals_that_few_groups_carry_are_said_to_be_rough() -> None:
    found = verdict(replace(lines([(*SQ8, 0, 0, 0)]), rough=True, effective_groups=2.04))
    assert "intervals are rough: 2.0 effective groups of 30 carry them" in found.sentence


def test_limits_can_be_set() -> None:
    assert verdict(lines([(*PQ8, -0.2, NAN, NAN)]), max_loss=0.2, times_smaller=100).reached


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
