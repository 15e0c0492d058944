"""The tables of cases of docs/metrics.md: every cell is computed again, where its library is there.

torchmetrics, pytorch-metric-learning, trec_eval (through pytrec_eval) and scikit-learn are called.
Open Metric Learning 4.0.0 wants NumPy below 2, so its formulas are written out; these are compared
with the library itself where that is importable.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.retrieval import metrics
from visual_search.retrieval.graded import ndcg_at_k

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
K = 5
OURS, TORCH, OML = "ours", "torchmetrics", "Open Metric Learning"
PML, TREC, SKLEARN = "pytorch-metric-learning", "trec_eval", "scikit-learn"
MODULES = {TORCH: "torchmetrics", PML: "pytorch_metric_learning", TREC: "pytrec_eval"}
NOTHING = "nothing to find"


def table(heading: str) -> list[dict[str, str]]:
    """The first table under a heading, one dict a row."""
    section = PAGE.read_text("utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    lines = re.findall(r"(?:^\|.*\n)+", section + "\n", re.MULTILINE)[0].splitlines()
    names, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


class Case(NamedTuple):
    """One query: what is listed, in order, and R."""

    listed: tuple[bool, ...]
    num_relevant: int

    @property
    def num_behind(self) -> int:
        return self.num_relevant - sum(self.listed)


def case_of(row: dict[str, str]) -> Case:
    hits = [int(rank) for rank in re.findall(r"\d+", row["hits at"])]
    return Case(tuple(n + 1 in hits for n in range(int(row["listed"]))), int(row["R"]))


CASES = {row["case"]: case_of(row) for row in table("AP@5")}
*AGREEING, EMPTY = table("recall, hit and MRR")

# --- what each library prints for one query -----------------------------------------------------


def padded(values) -> np.ndarray:
    """``[1, K]``: where fewer are listed, the rest are misses."""
    return np.array([[*values, *[0] * K][:K]])


def ours(metric: metrics.Metric, case: Case) -> float:
    return float(metric(padded(case.listed).astype(bool), np.array([case.num_relevant]), K)[0])


def torchmetrics_value(name: str, gains, scores=None) -> float:
    import torch
    from torchmetrics.functional import retrieval

    target = torch.tensor(list(gains))
    scores = range(len(gains), 0, -1) if scores is None else scores
    scores = torch.tensor(list(scores), dtype=torch.float32)
    return float(getattr(retrieval, name)(scores, target, top_k=K))


# open-metric-learning 4.0.0, oml/functional/metrics.py: map_single, precision_single and cmc_single
# inside calc_map, calc_precision and calc_cmc, for a list that is not empty.
def oml_map(case: Case) -> float:
    listed = case.listed[:K]
    total = sum(sum(listed[: i + 1]) / (i + 1) for i, hit in enumerate(listed) if hit)
    return total / (sum(listed) or math.inf)


def oml_precision(case: Case) -> float:
    best = min(case.num_relevant, K, len(case.listed))
    return sum(case.listed[:K]) / best if best else math.nan


def oml_cmc(case: Case) -> float:
    return float(any(case.listed[:K]))


def pml_value(name: str, case: Case, *, first_label: int = 0) -> float:
    """The query stands at 0, what is listed at 1, 2, ..., the other relevant items far behind."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    places = [*range(1, len(case.listed) + 1), *range(100, 100 + case.num_behind)]
    labels = [0 if hit else place for place, hit in enumerate(case.listed, start=1)]
    labels += [0] * case.num_behind
    # Asked for MRR alone, 2.9.0 forgets to search and ends with a KeyError.
    calculator = AccuracyCalculator(("precision_at_1", name), k=K, device=torch.device("cpu"))
    found = calculator.get_accuracy(
        torch.zeros(1, 1),
        torch.tensor([first_label]),
        torch.tensor(places, dtype=torch.float32)[:, None],
        torch.tensor(labels) + first_label,
    )
    return float(found[name])


def trec_value(measure: str, gains, behind=()) -> float:
    from pytrec_eval import RelevanceEvaluator

    judged = {str(i): int(gain) for i, gain in enumerate([*gains, *behind])}
    run = {str(i): float(len(gains) - i) for i in range(len(gains))}
    asked = measure.replace("_5", ".5")
    return RelevanceEvaluator({"q": judged}, {asked}).evaluate({"q": run})["q"][measure]


def our_ndcg(gains: list[int], behind: list[int]) -> float:
    gallery = sorted([*gains, *behind], reverse=True)
    return float(ndcg_at_k(padded(gains), padded(gallery), K)[0])


def sklearn_ndcg(gains: list[int], scores=None) -> float | None:
    from sklearn.metrics import ndcg_score

    try:
        return float(ndcg_score([gains], [scores or range(len(gains), 0, -1)], k=K))
    except ValueError as refusal:
        assert "more than 1 document" in str(refusal)  # noqa: PT017  # and returns None
        return None


# Of a metric by its name in the library: name, case -> value.
CALLS: dict[str, Callable[[str, Case], float]] = {
    TORCH: lambda name, case: torchmetrics_value(name, [*case.listed, *[True] * case.num_behind]),
    OML: lambda name, case: {"calc_cmc": oml_cmc, "map": oml_map, "p": oml_precision}[name](case),
    PML: pml_value,
    TREC: lambda name, case: trec_value(name, case.listed, [1] * case.num_behind),
}
NAMES = {
    "AP@5": {TORCH: "retrieval_average_precision", OML: "map", PML: "mean_average_precision",
             TREC: "map_cut_5"},
    "precision@5": {TORCH: "retrieval_precision", OML: "p", TREC: "P_5"},
}  # fmt: skip
OUR_METRICS = {
    "AP@5": metrics.average_precision_at_k,
    "precision@5": metrics.precision_at_k,
    "recall@5": metrics.recall_at_k,
    "hit@5": metrics.hit_at_k,
    "MRR@5": metrics.reciprocal_rank_at_k,
}
NDCG: dict[str, Callable[[list[int], list[int]], float | None]] = {
    OURS: our_ndcg,
    TORCH: lambda gains, behind: torchmetrics_value("retrieval_normalized_dcg", [*gains, *behind]),
    SKLEARN: lambda gains, behind: sklearn_ndcg([*gains, *behind]),
    TREC: lambda gains, behind: trec_value("ndcg_cut_5", gains, behind),
}


def value_of(name: str, case: Case, heading: str = "AP@5") -> float:
    if name == OURS:
        return ours(OUR_METRICS[heading], case)
    return CALLS[name](NAMES[heading][name], case)


def value_in(heading: str, name: str, row: dict[str, str]) -> float | None:
    if heading != "nDCG@5":
        return value_of(name, CASES[row["case"]], heading)
    behind = re.match(r"(\d+) x (\d+)", row["behind"])
    gains = [int(gain) for gain in row["gains"].split()]
    return NDCG[name](gains, [int(behind[2])] * int(behind[1]) if behind else [])


# --- the page -----------------------------------------------------------------------------------


def library(name: str) -> None:
    if name in MODULES:
        reason = f"{MODULES[name]} is no part of this installation: pip install '.[dev]'"
        pytest.importorskip(MODULES[name], reason=reason)


def of_library(*values) -> object:
    """The parameters of a test whose last one is a library; those that load torch are slow."""
    return pytest.param(*values, marks=[pytest.mark.slow] if values[-1] in (TORCH, PML) else [])


def check(cell: str, value: float | None, of: object) -> None:
    if value is None:
        assert cell == "refused", of
    else:
        said = ("left out", "nan") if math.isnan(value) else (f"{value:.3f}",)
        assert cell in said, of


COLUMNS = {
    "AP@5": ["case", "hits at", "R", "listed", OURS, TORCH, OML, PML, TREC],
    "precision@5": ["case", OURS, TORCH, OML, TREC],
    "nDCG@5": ["case", "gains", "behind", OURS, TORCH, SKLEARN, TREC],
    "recall, hit and MRR": [OURS, TORCH, OML, PML, TREC],
    "Traps": ["trap", "library", "metric", "it prints", "ours"],
}


def test_the_page_has_these_tables():
    assert {heading: list(table(heading)[0]) for heading in COLUMNS} == COLUMNS
    assert {row["case"] for row in table("precision@5")} == set(CASES) > {NOTHING}
    assert {row[OURS] for row in AGREEING} == {"recall@5", "hit@5", "MRR@5"}
    assert set(TRAP_ROWS) == set(TRAPS)


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        of_library(heading, name)
        for heading in ("AP@5", "precision@5", "nDCG@5")
        for name in COLUMNS[heading]
        if name in (OURS, TORCH, OML, PML, TREC, SKLEARN)
    ],
)
def test_every_cell_is_what_its_library_prints(heading, name):
    library(name)
    for row in table(heading):
        check(row[name], value_in(heading, name, row), row["case"])


@pytest.mark.parametrize(
    ("row", "name"),
    [of_library(row, name) for row in AGREEING for name in CALLS if row[name] != "-"],
)
def test_recall_hit_and_mrr_agree_but_for_nothing_to_find(row, name):
    library(name)
    for case, listed in CASES.items():
        value, mine = (
            CALLS[name](row[name].strip("`"), listed),
            ours(OUR_METRICS[row[OURS]], listed),
        )
        if case == NOTHING:
            assert math.isnan(mine)
            check(EMPTY[name], value, case)
        else:
            assert value == pytest.approx(mine, abs=1e-6), case


def negative_distances(name: str) -> float:
    return torchmetrics_value(name, [True, True, True, False, False], [-0.0, -1, -2, -3, -4])


def trec_tie(hit: str) -> float:
    from pytrec_eval import RelevanceEvaluator

    judged = {document: int(document == hit) for document in "ab"}
    scores = RelevanceEvaluator({"q": judged}, {"recip_rank"}).evaluate({"q": {"a": 1, "b": 1}})
    return scores["q"]["recip_rank"]


def our_tie(hit: str) -> float:
    index = EmbeddingIndex.build(np.ones((2, 1), dtype=np.float32), ["b", "a"])
    ranked = index.search(np.zeros((1, 1), dtype=np.float32), k=2).item_ids == hit
    return float(metrics.reciprocal_rank_at_k(ranked, np.array([1]), 2)[0])


def study_value(ranked: list[str], category: str) -> float:
    """hits / 5, the query among the five: the rule that the post's notebooks apply."""
    return len([found for found in ranked[:5] if found == category]) / 5


WITH_ITSELF = Case((True, False, False, False, False), 1)  # what a library sees
TWO, PERFECT = Case((True, True), 2), Case((True, True, True, False, False), 3)
NECKTIE = "the only necktie asks, itself in the gallery"
NEGATIVE = "negative distances as scores, a perfect list"
LARGE, PADDED = "labels from 2^24 on, nothing to find", "two items, both relevant, k = 5"
FIRST, LAST = "a tie, the hit first by id", "a tie, the hit last by id"


def nothing_to_find() -> float:
    return value_of(OURS, CASES[NOTHING])


# (trap, library, metric): what it prints, ours.
TRAPS: dict[tuple[str, str, str], tuple[Callable[[], float | None], Callable[[], float]]] = {
    (NEGATIVE, TORCH, "AP@5"): (
        lambda: negative_distances("retrieval_average_precision"), lambda: value_of(OURS, PERFECT)),
    (NEGATIVE, TORCH, "hit@5"): (
        lambda: negative_distances("retrieval_hit_rate"), lambda: ours(metrics.hit_at_k, PERFECT)),
    **{(NECKTIE, name, "AP@5"): (lambda name=name: value_of(name, WITH_ITSELF), nothing_to_find)
       for name in (TORCH, TREC, PML)},
    (NECKTIE, "the study of 2023", '"mAP@5"'): (
        lambda: study_value(["necktie", "hat", "hat", "shoe", "hat"], "necktie"), nothing_to_find),
    (LARGE, PML, "AP@5"): (
        # Labels 16,777,217 to 16,777,221 in float32; the first of them becomes the query's.
        lambda: pml_value("mean_average_precision", CASES[NOTHING], first_label=2**24),
        nothing_to_find),
    (PADDED, PML, "AP@5"): (lambda: value_of(PML, TWO), lambda: value_of(OURS, TWO)),
    (FIRST, TREC, "MRR@5"): (lambda: trec_tie("a"), lambda: our_tie("a")),
    (LAST, TREC, "MRR@5"): (lambda: trec_tie("b"), lambda: our_tie("b")),
    (FIRST, SKLEARN, "nDCG@5"): (
        lambda: sklearn_ndcg([1, 0], [1, 1]), lambda: our_ndcg([1, 0], [])),
    (FIRST, TORCH, "nDCG@5"): (
        lambda: torchmetrics_value("retrieval_normalized_dcg", [1, 0], [1, 1]),
        lambda: our_ndcg([1, 0], [])),
}  # fmt: skip
TRAP_ROWS = {(row["trap"], row["library"], row["metric"]): row for row in table("Traps")}


@pytest.mark.slow
@pytest.mark.parametrize("key", TRAPS, ids=" - ".join)
def test_trap(key):
    theirs, mine = TRAPS[key]
    check(TRAP_ROWS[key]["ours"], mine(), key)
    library(key[1])
    check(TRAP_ROWS[key]["it prints"], theirs(), key)


def test_faiss_does_not_find_the_query_at_distance_zero():
    import faiss

    embeddings = np.random.default_rng(0).standard_normal((500, 512)).astype(np.float32) + 10
    index = faiss.IndexFlatL2(512)
    index.add(embeddings)
    assert (index.search(embeddings, 1)[0] > 0).any()


@pytest.mark.slow
def test_open_metric_learning_itself():
    reason = "open-metric-learning wants NumPy below 2: run this file where it is installed"
    oml = pytest.importorskip("oml.functional.metrics", reason=reason, exc_type=ImportError)
    import torch

    formulas = {oml.calc_map: oml_map, oml.calc_precision: oml_precision, oml.calc_cmc: oml_cmc}
    for case, (calculate, formula) in itertools.product(CASES.values(), formulas.items()):
        listed, counts = [torch.BoolTensor(case.listed)], [case.num_relevant]
        value = float(calculate(listed, counts, (K,))[0][0])
        assert value == pytest.approx(formula(case), abs=1e-6, nan_ok=True)
        assert float(calculate([torch.BoolTensor([])], [0], (K,))[0][0]) == 1.0  # as the page says
