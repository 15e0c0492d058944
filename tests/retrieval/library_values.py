"""What each library prints for one query, and the tables of docs/metrics.md that say so.

torchmetrics, pytorch-metric-learning, trec_eval (through pytrec_eval) and scikit-learn are called.
Open Metric Learning 4.0.0 wants NumPy below 2, so its formulas are written out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visual_search.retrieval import metrics
from visual_search.retrieval.graded import ndcg_at_k

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
K = 5
OURS, TORCH, OML = "ours", "torchmetrics", "Open Metric Learning"
PML, TREC, SKLEARN = "pytorch-metric-learning", "trec_eval", "scikit-learn"
STUDY = "the study of 2023"


def table(heading: str) -> list[dict[str, str]]:
    """The first table under a heading, one dict a row."""
    flags = re.MULTILINE | re.DOTALL
    section = re.search(
        rf"^### {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE.read_text("utf-8"), flags
    )
    assert section, f"{PAGE.name} has no section {heading!r}"
    lines = re.findall(r"(?:^\|.*\n)+", section[1], re.MULTILINE)[0].splitlines()
    names, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Case:
    """One query: what is listed, in order, and R."""

    listed: tuple[bool, ...]
    num_relevant: int

    @property
    def num_behind(self) -> int:
        return self.num_relevant - sum(self.listed)


def case_of(row: dict[str, str]) -> Case:
    hits = {int(rank) for rank in re.findall(r"\d+", row["hits at"])}
    listed = tuple(rank in hits for rank in range(1, int(row["listed"]) + 1))
    return Case(listed, int(row["R"]))


CASES = {row["case"]: case_of(row) for row in table("AP@5")}


def ours(metric: metrics.Metric, case: Case) -> float:
    relevance = np.zeros((1, K), dtype=bool)  # where fewer are listed, the rest are misses
    relevance[0, : len(case.listed)] = case.listed
    return float(metric(relevance, np.array([case.num_relevant]), K)[0])


def torchmetrics_value(name: str, case: Case) -> float:
    import torch
    from torchmetrics.functional import retrieval

    target = torch.tensor([*case.listed, *[True] * case.num_behind])
    scores = torch.arange(len(target), 0, -1, dtype=torch.float32)
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


def trec_value(measure: str, case: Case) -> float:
    return trec_eval(measure, list(case.listed), [1] * case.num_behind)


def trec_eval(measure: str, gains: list[int], behind: list[int]) -> float:
    from pytrec_eval import RelevanceEvaluator

    judged = {f"listed-{i}": int(gain) for i, gain in enumerate(gains)}
    judged |= {f"behind-{i}": gain for i, gain in enumerate(behind)}
    run = {f"listed-{i}": float(len(gains) - i) for i in range(len(gains))}
    asked = measure.replace("_5", ".5")
    return RelevanceEvaluator({"q": judged}, {asked}).evaluate({"q": run})["q"][measure]


AP: dict[str, Callable[[Case], float]] = {
    OURS: lambda case: ours(metrics.average_precision_at_k, case),
    TORCH: lambda case: torchmetrics_value("retrieval_average_precision", case),
    OML: oml_map,
    PML: lambda case: pml_value("mean_average_precision", case),
    TREC: lambda case: trec_value("map_cut_5", case),
}
PRECISION: dict[str, Callable[[Case], float]] = {
    OURS: lambda case: ours(metrics.precision_at_k, case),
    TORCH: lambda case: torchmetrics_value("retrieval_precision", case),
    OML: oml_precision,
    TREC: lambda case: trec_value("P_5", case),
}


CALLS: dict[str, Callable[[str, Case], float]] = {
    TORCH: torchmetrics_value,
    OML: lambda name, case: {"calc_cmc": oml_cmc}[name](case),
    PML: pml_value,
    TREC: trec_value,
}


def our_ndcg(gains: list[int], behind: list[int]) -> float:
    found, best = np.zeros((1, K)), np.zeros((1, K))
    found[0, : len(gains)] = gains
    gallery = sorted([*gains, *behind], reverse=True)[:K]
    best[0, : len(gallery)] = gallery
    return float(ndcg_at_k(found, best, K)[0])


def torchmetrics_ndcg(gains: list[int], behind: list[int]) -> float:
    import torch
    from torchmetrics.functional.retrieval import retrieval_normalized_dcg

    target = torch.tensor([*gains, *behind])
    scores = torch.arange(len(target), 0, -1, dtype=torch.float32)
    return float(retrieval_normalized_dcg(scores, target, top_k=K))


def sklearn_ndcg(gains: list[int], behind: list[int]) -> float | None:
    from sklearn.metrics import ndcg_score

    target = [*gains, *behind]
    try:
        return float(ndcg_score([target], [np.arange(len(target), 0, -1)], k=K))
    except ValueError as refusal:
        assert "more than 1 document" in str(refusal)  # noqa: PT017  # and returns None
        return None


NDCG: dict[str, Callable[[list[int], list[int]], float | None]] = {
    OURS: our_ndcg,
    TORCH: torchmetrics_ndcg,
    SKLEARN: sklearn_ndcg,
    TREC: lambda gains, behind: trec_eval("ndcg_cut_5", gains, behind),
}
