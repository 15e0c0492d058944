"""`find_neighbours` and `score` against the obvious way, over random small catalogues."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.retrieval.test_measure import a_table, evaluate, find, rules
from visual_search.retrieval.protocol import Selection

METRICS = (
    "average_precision", "precision", "recall", "hit_at_1", "hit_at_k", "reciprocal_rank", "ndcg",
)  # fmt: skip


def slow_query(lines, protocol, gallery, query, embeddings):
    """One query, the obvious way: what it finds, R, and every metric."""

    def equal(a, b, columns):
        return all(lines[a][name] == lines[b][name] for name in columns)

    def grade(row, levels):
        grades = 0
        for level in levels:
            if not lines[query][level] or lines[row][level] != lines[query][level]:
                break
            grades += 1
        return grades

    def is_relevant(row):
        named = all(lines[query][name] for name in protocol.relevance)
        return named and equal(row, query, protocol.relevance)

    left_out = {"item": ["item_id"], "group": ["group"], "nothing": None}[protocol.exclude]
    admitted = [
        row
        for row in gallery
        if equal(row, query, protocol.restrict_to)
        and (left_out is None or not equal(row, query, left_out))
    ]
    distance = {
        row: sum(float(x - y) ** 2 for x, y in zip(embeddings[row], embeddings[query], strict=True))
        for row in admitted
    }
    ranked = sorted(admitted, key=lambda row: (distance[row], lines[row]["item_id"]))
    found, k = ranked[: protocol.k], protocol.k
    hits = [is_relevant(row) for row in found]
    num_relevant = sum(is_relevant(row) for row in admitted)
    answer = {
        "neighbour_ids": [lines[row]["item_id"] for row in found],
        "neighbour_squared_distances": [distance[row] for row in found],
        "neighbour_relevant": hits,
        "num_relevant": num_relevant,
    }
    if protocol.exclude == "nothing":
        return answer | {"reference_2023": sum(hits) / k}
    levels = protocol.hierarchy
    grades = [grade(row, levels) if levels else int(is_relevant(row)) for row in ranked]
    best = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grades, reverse=True)[:k]))
    gained = sum(g / math.log2(i + 2) for i, g in enumerate(grades[:k]))
    total = sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit)
    values = (
        lambda: total / min(num_relevant, k),
        lambda: sum(hits) / k,
        lambda: sum(hits) / num_relevant,
        lambda: float(hits[0]) if hits else 0.0,
        lambda: float(any(hits)),
        lambda: 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        lambda: gained / best if best else math.nan,
    )
    numbers = [value() if num_relevant else math.nan for value in values]
    return answer | dict(zip(METRICS, numbers, strict=True))


def mean(values):
    scored = [value for value in values if not math.isnan(value)]
    return sum(scored) / len(scored) if scored else math.nan


def test_against_a_slow_evaluation_of_random_catalogues():
    seen = dict.fromkeys(
        ("refused", "short", "nothing found", "left out", "absent query", "tie"), 0
    )
    settings = itertools.product(
        [("category",), ("category", "colour"), ("colour",), ("group",)],
        [(), ("category", "colour", "kind"), ("kind",)],
        [(), ("category",), ("colour",), ("category", "kind")],
        ["item", "group", "nothing"],
    )
    for seed, (relevance, hierarchy, restrict_to, exclude) in enumerate(list(settings)[::2]):
        if exclude == "group" and "group" in relevance:
            continue
        rng = np.random.default_rng(seed)
        count = int(rng.integers(4, 26))
        table = a_table(rng, count)
        embeddings = rng.integers(0, 3, (count, 2)).astype(np.float32)  # many ties
        chosen = [np.sort(rng.permutation(count)[: rng.integers(1, count + 1)]) for _ in range(2)]
        selection = Selection(*chosen)
        by = [(), ("kind",), ("category", "colour")][seed % 3]
        protocol = rules(
            selection,
            k=int(rng.integers(1, 7)),
            relevance=relevance,
            hierarchy=hierarchy,
            restrict_to=restrict_to,
            exclude=exclude,
            report_by=by,
        )
        lines = table.to_dict("records")
        gallery, queries = (rows.tolist() for rows in chosen)
        slow = [slow_query(lines, protocol, gallery, query, embeddings) for query in queries]
        most = max(len(answer["neighbour_ids"]) for answer in slow)
        if most < protocol.k:
            seen["refused"] += 1
            with pytest.raises(ValueError, match=f"no query finds more than {most} item"):
                find(table, protocol, selection, embeddings)
            continue
        report = evaluate(table, protocol, selection, embeddings)
        column = "reference_2023" if exclude == "nothing" else "average_precision"
        names = ("reference_2023",) if exclude == "nothing" else METRICS
        held = [name for name in (*METRICS, "reference_2023") if name in report.per_query]
        assert held == list(names)
        found = report.per_query.to_dict("records")
        for answer, line, query in zip(slow, found, queries, strict=True):
            for name, value in answer.items():
                assert line[name] == pytest.approx(value, abs=1e-12, nan_ok=True), (seed, name)
            assert (line["query_id"], line["group"]) == (
                lines[query]["item_id"],
                lines[query]["group"],
            )
            distances = answer["neighbour_squared_distances"]
            seen["short"] += len(distances) < protocol.k
            seen["nothing found"] += not distances
            seen["left out"] += math.isnan(line[column])
            seen["absent query"] += query not in gallery
            seen["tie"] += len(set(distances)) < len(distances)

        def key(row, columns=protocol.report_by):
            values = tuple(lines[row][name] for name in columns)  # noqa: B023
            return values if all(values) else ()

        lists = {key(row): [] for row in [*gallery, *queries]}
        for query, answer in zip(queries, slow, strict=True):
            lists[key(query)].append(answer[column])
        assert len(report.per_category) == len(lists)
        headline = report.summary["headline"]["mean"]
        by_category = sorted(map(mean, lists.values()), key=str)
        assert sorted(report.per_category[headline], key=str) == pytest.approx(
            by_category, abs=1e-12, nan_ok=True
        )
        macro = report.summary[f"macro_{headline}"]
        assert macro == pytest.approx(mean(by_category), abs=1e-12, nan_ok=True)
        micro = mean([answer[column] for answer in slow])
        assert report.summary[f"micro_{headline}"] == pytest.approx(micro, abs=1e-12, nan_ok=True)
    assert all(number >= 5 for number in seen.values()), seen
