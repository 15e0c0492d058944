"""The tables of cases of docs/metrics.md: every cell is computed again.

Ours always, another library's where it is installed. Open Metric Learning's cells are checked by
its formulas, and these against the library itself where that is importable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.retrieval.library_values import (
    AP,
    CALLS,
    CASES,
    NDCG,
    OML,
    OURS,
    PML,
    PRECISION,
    SKLEARN,
    STUDY,
    TORCH,
    TREC,
    Case,
    K,
    oml_cmc,
    oml_map,
    oml_precision,
    our_ndcg,
    ours,
    pml_value,
    table,
)
from visual_search.retrieval import metrics

MODULES = {TORCH: "torchmetrics", PML: "pytorch_metric_learning", TREC: "pytrec_eval"}
LOADS_TORCH = (TORCH, PML)


def library(name: str) -> None:
    if name in MODULES:
        reason = f"{MODULES[name]} is no part of this installation: pip install '.[dev]'"
        pytest.importorskip(MODULES[name], reason=reason)


def cells(heading: str, *libraries: str) -> list:
    """One test a cell: its row, the library, what it says."""
    return [
        pytest.param(
            row,
            name,
            row[name],
            id=f"{row['case']}: {name}",
            marks=[pytest.mark.slow] if name in LOADS_TORCH else [],
        )
        for row in table(heading)
        for name in libraries
    ]


def check(cell: str, value: float | None) -> None:
    if value is None:
        assert cell == "refused"
    else:
        said = ("left out", "nan") if math.isnan(value) else (f"{value:.3f}",)
        assert cell in said


NOTHING = "nothing to find"


def test_the_page_has_these_tables():
    shapes = {
        heading: (len(rows), list(rows[0]))
        for heading in ("AP@5", "precision@5", "recall, hit and MRR", "nDCG@5", "Traps")
        if (rows := table(heading))
    }
    assert shapes == {
        "AP@5": (9, ["case", "hits at", "R", "listed", *AP]),
        "precision@5": (9, ["case", *PRECISION]),
        "recall, hit and MRR": (4, [OURS, TORCH, OML, PML, TREC]),
        "nDCG@5": (7, ["case", "gains", "behind", OURS, TORCH, SKLEARN, TREC]),
        "Traps": (12, ["trap", "library", "metric", "it prints", "ours"]),
    }
    assert {row["case"] for row in table("precision@5")} == set(CASES)


@pytest.mark.parametrize(("row", "name", "cell"), cells("AP@5", *AP))
def test_average_precision(row, name, cell):
    library(name)
    check(cell, AP[name](CASES[row["case"]]))


@pytest.mark.parametrize(("row", "name", "cell"), cells("precision@5", *PRECISION))
def test_precision(row, name, cell):
    library(name)
    check(cell, PRECISION[name](CASES[row["case"]]))


OUR_METRICS = {
    "recall@5": metrics.recall_at_k,
    "hit@5": metrics.hit_at_k,
    "MRR@5": metrics.reciprocal_rank_at_k,
}
*AGREEING, EMPTY = table("recall, hit and MRR")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("ours_name", "name", "call"),
    [
        pytest.param(
            row[OURS],
            name,
            row[name].strip("`"),
            id=f"{row[OURS]}: {name}",
            marks=[pytest.mark.slow] if name in LOADS_TORCH else [],
        )
        for row in AGREEING
        for name in CALLS
        if row[name] != "-"
    ],
)
def test_recall_hit_and_mrr_agree_but_for_nothing_to_find(case, ours_name, name, call):
    library(name)
    value, mine = CALLS[name](call, CASES[case]), ours(OUR_METRICS[ours_name], CASES[case])
    if case == NOTHING:
        assert math.isnan(mine)
        check(EMPTY[name], value)
    else:
        assert value == pytest.approx(mine, abs=1e-6)


def gains_of(row: dict[str, str]) -> tuple[list[int], list[int]]:
    behind = re.match(r"(\d+) x (\d+)", row["behind"])
    return [int(gain) for gain in row["gains"].split()], (
        [int(behind[2])] * int(behind[1]) if behind else []
    )


@pytest.mark.parametrize(("row", "name", "cell"), cells("nDCG@5", *NDCG))
def test_ndcg(row, name, cell):
    library(name)
    check(cell, NDCG[name](*gains_of(row)))


def negative_distances(name: str) -> float:
    import torch
    from torchmetrics.functional import retrieval

    distances = torch.arange(K, dtype=torch.float32)
    target = torch.tensor([True, True, True, False, False])
    return float(getattr(retrieval, name)(-distances, target, top_k=K))


def trec_tie(hit: str) -> float:
    from pytrec_eval import RelevanceEvaluator

    judged = {document: int(document == hit) for document in "ab"}
    scores = RelevanceEvaluator({"q": judged}, {"recip_rank"}).evaluate({"q": {"a": 1, "b": 1}})
    return scores["q"]["recip_rank"]


def our_tie(hit: str) -> float:
    from visual_search.knn.gallery_index import EmbeddingIndex

    index = EmbeddingIndex.build(np.ones((2, 1), dtype=np.float32), ["b", "a"])
    ranked = index.search(np.zeros((1, 1), dtype=np.float32), k=2).item_ids == hit
    return float(metrics.reciprocal_rank_at_k(ranked, np.array([1]), 2)[0])


def sklearn_tie() -> float:
    from sklearn.metrics import ndcg_score

    return float(ndcg_score([[1, 0]], [[1, 1]], k=K))


def torchmetrics_tie() -> float:
    import torch
    from torchmetrics.functional.retrieval import retrieval_normalized_dcg

    return float(retrieval_normalized_dcg(torch.ones(2), torch.tensor([1, 0]), top_k=K))


def study_value(ranked: list[str], category: str) -> float:
    """hits / 5, the query among the five: the rule that the post's notebooks apply."""
    return len([found for found in ranked[:5] if found == category]) / 5


WITH_ITSELF = Case((True, False, False, False, False), 1)  # what a library sees
TWO = Case((True, True), 2)
NECKTIE = "the only necktie asks, itself in the gallery"
NEGATIVE = "negative distances as scores, a perfect list"
PERFECT = Case((True, True, True, False, False), 3)
LARGE, PADDED = "labels from 2^24 on, nothing to find", "two items, both relevant, k = 5"
FIRST, LAST = "a tie, the hit first by id", "a tie, the hit last by id"


def nothing_to_find() -> float:
    return AP[OURS](CASES[NOTHING])


# (trap, library, metric): what it prints, ours.
TRAPS: dict[tuple[str, str, str], tuple[Callable[[], float], Callable[[], float]]] = {
    (NEGATIVE, TORCH, "AP@5"): (
        lambda: negative_distances("retrieval_average_precision"),
        lambda: AP[OURS](PERFECT),
    ),
    (NEGATIVE, TORCH, "hit@5"): (
        lambda: negative_distances("retrieval_hit_rate"),
        lambda: ours(metrics.hit_at_k, PERFECT),
    ),
    (NECKTIE, TORCH, "AP@5"): (lambda: AP[TORCH](WITH_ITSELF), nothing_to_find),
    (NECKTIE, TREC, "AP@5"): (lambda: AP[TREC](WITH_ITSELF), nothing_to_find),
    (NECKTIE, PML, "AP@5"): (lambda: AP[PML](WITH_ITSELF), nothing_to_find),
    (NECKTIE, STUDY, '"mAP@5"'): (
        lambda: study_value(["necktie", "hat", "hat", "shoe", "hat"], "necktie"),
        nothing_to_find,
    ),
    (LARGE, PML, "AP@5"): (
        # Labels 16,777,217 to 16,777,221 in float32; the first of them becomes the query's.
        lambda: pml_value("mean_average_precision", CASES[NOTHING], first_label=2**24),
        nothing_to_find,
    ),
    (PADDED, PML, "AP@5"): (lambda: AP[PML](TWO), lambda: AP[OURS](TWO)),
    (FIRST, TREC, "MRR@5"): (lambda: trec_tie("a"), lambda: our_tie("a")),
    (LAST, TREC, "MRR@5"): (lambda: trec_tie("b"), lambda: our_tie("b")),
    (FIRST, SKLEARN, "nDCG@5"): (sklearn_tie, lambda: our_ndcg([1, 0], [])),
    (FIRST, TORCH, "nDCG@5"): (torchmetrics_tie, lambda: our_ndcg([1, 0], [])),
}
TRAP_ROWS = {(row["trap"], row["library"], row["metric"]): row for row in table("Traps")}


def test_the_page_names_these_traps():
    assert set(TRAP_ROWS) == set(TRAPS)


@pytest.mark.slow
@pytest.mark.parametrize("key", TRAPS, ids=" - ".join)
def test_trap(key):
    theirs, mine = TRAPS[key]
    check(TRAP_ROWS[key]["ours"], mine())
    library(key[1])
    check(TRAP_ROWS[key]["it prints"], theirs())


def test_faiss_does_not_find_the_query_at_distance_zero():
    import faiss

    nonzero = 0
    for dim in (128, 512, 4096):
        embeddings = np.random.default_rng(0).standard_normal((500, dim)).astype(np.float32) + 10
        index = faiss.IndexFlatL2(dim)
        index.add(embeddings)
        nonzero += int((index.search(embeddings, 1)[0] > 0).sum())
    assert nonzero > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_open_metric_learning_itself(name):
    reason = "open-metric-learning wants NumPy below 2: run this file where it is installed"
    oml = pytest.importorskip("oml.functional.metrics", reason=reason, exc_type=ImportError)
    import torch

    case = CASES[name]
    listed, counts = [torch.BoolTensor(case.listed)], [case.num_relevant]
    for calculate, formula in (
        (oml.calc_map, oml_map),
        (oml.calc_precision, oml_precision),
        (oml.calc_cmc, oml_cmc),
    ):
        value = float(calculate(listed, counts, (K,))[0][0])
        assert value == pytest.approx(formula(case), abs=1e-6, nan_ok=True)
        assert float(calculate([torch.BoolTensor([])], [0], (K,))[0][0]) == 1.0  # as the page says
