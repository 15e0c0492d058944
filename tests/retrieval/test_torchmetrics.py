"""Against torchmetrics, where its definitions coincide with ours.

It is fed positive scores: torchmetrics 1.9 scores a perfect ranking 0.0 on negative distances.
"""

from __future__ import annotations

import numpy as np
import pytest

from visual_search.retrieval import metrics

pytestmark = pytest.mark.slow

LENGTH = 12  # the whole gallery: all relevant items are among the ranks


@pytest.fixture(scope="module")
def ranked():
    rng = np.random.default_rng(0)
    relevance = rng.random((200, LENGTH)) < rng.random((200, 1)) * 0.8
    relevance[:3] = False  # nothing to find: left out by both
    return relevance, relevance.sum(axis=1)


def theirs(metric, relevance: np.ndarray) -> float:
    import torch

    scores = torch.arange(LENGTH, 0, -1, dtype=torch.float32).repeat(len(relevance))
    queries = torch.arange(len(relevance)).repeat_interleave(LENGTH)
    return float(metric(scores, torch.from_numpy(relevance).reshape(-1), indexes=queries))


@pytest.mark.parametrize(
    ("ours", "name", "settings", "k"),
    [
        (metrics.precision_at_k, "RetrievalPrecision", {"top_k": 5}, 5),
        (metrics.recall_at_k, "RetrievalRecall", {"top_k": 5}, 5),
        (metrics.hit_at_k, "RetrievalHitRate", {"top_k": 5}, 5),
        (metrics.hit_at_k, "RetrievalHitRate", {"top_k": 1}, 1),
        (metrics.reciprocal_rank_at_k, "RetrievalMRR", {"top_k": 5}, 5),
        (metrics.reciprocal_rank_at_k, "RetrievalMRR", {}, LENGTH),
        # Only over the whole gallery: there hits = R = min(R, k), and all definitions of AP agree.
        (metrics.average_precision_at_k, "RetrievalMAP", {}, LENGTH),
    ],
)
def test_the_means_agree(ranked, ours, name, settings, k):
    from torchmetrics import retrieval

    metric = getattr(retrieval, name)(empty_target_action="skip", **settings)
    relevance, num_relevant = ranked
    assert np.nanmean(ours(relevance, num_relevant, k)) == pytest.approx(
        theirs(metric, relevance), abs=1e-6
    )


def test_average_precision_differs_where_the_reference_study_says_so():
    from torchmetrics.retrieval import RetrievalMAP

    relevance = np.zeros((1, LENGTH), dtype=bool)
    relevance[0, [0, 8, 9]] = True  # one hit within 5, at rank 1, of R = 3
    assert theirs(RetrievalMAP(top_k=5), relevance) == pytest.approx(1.0)  # S / h
    ours = metrics.average_precision_at_k(relevance, np.array([3]), 5)
    assert ours.tolist() == pytest.approx([1 / 3])  # S / min(R, k)
