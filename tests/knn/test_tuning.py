from __future__ import annotations

import numpy as np
import pytest

from tests.knn.test_search_index import APPROXIMATE, GALLERY, brute_force, clustered
from visual_search.knn import tuning
from visual_search.knn.indexes import build_index
from visual_search.knn.store import ArrayStore
from visual_search.knn.tuning import (
    HeldOut,
    efforts,
    hold_out,
    near_enough,
    sample_rows,
    tune,
)

STORE = ArrayStore(GALLERY)


def tuned_by(candidates, target_recall: float, ladder=(1, 2, 4, 8), max_factor: int = 4, **other):
    held_out = other.get("held_out") or hold_out(STORE, 10)
    return tune(
        STORE,
        held_out,
        candidates,
        list(ladder),
        target_recall=target_recall,
        max_factor=max_factor,
        bytes_per_effort=other.get("bytes_per_effort", 1e6),
    )


def ranked(held_out: HeldOut) -> np.ndarray:
    """The exact order of all rows that are not held out, for each held-out item."""
    others = np.setdiff1d(np.arange(len(STORE)), held_out.rows)
    distances = ((held_out.queries[:, None].astype(np.float64) - GALLERY[others]) ** 2).sum(axis=2)
    return others[np.argsort(distances, axis=1, kind="stable")]


def test_the_sample_is_seeded_and_at_most_a_tenth():
    assert sample_rows(9).tolist() == []
    assert len(sample_rows(1500)) == 150
    assert len(sample_rows(1_000_000)) == 512
    np.testing.assert_array_equal(sample_rows(1500), sample_rows(1500))
    assert len(set(sample_rows(1500))) == 150


def test_held_out_items_are_answered_by_the_others_alone():
    held_out = hold_out(STORE, 10)
    others = np.ones(1500, dtype=bool)
    others[held_out.rows] = False
    _, squared = brute_force(GALLERY, held_out.queries, 10, others)
    np.testing.assert_allclose(held_out.kth, squared[:, -1], rtol=1e-12)


def test_effort_rises_until_enough_is_found():
    held_out = hold_out(STORE, 10)
    order = ranked(held_out)

    def finds_more_with_effort(queries, effort, count):
        rows = order[:, :count].copy()
        rows[:, min(10, 2 * effort) : 10] = -1  # 2, 4, 8 and 10 of the 10 nearest
        return rows

    tuned = tuned_by(finds_more_with_effort, 0.75)
    assert (tuned.effort, tuned.recall, tuned.is_reached) == (4, pytest.approx(0.8), True)
    tuned = tuned_by(finds_more_with_effort, 0.81)
    assert (tuned.effort, tuned.recall, tuned.is_reached) == (8, 1.0, True)
    assert tuned.num_candidates == 15


def test_candidates_are_as_many_as_the_rough_order_needs():
    order = ranked(hold_out(STORE, 10))

    def finds_them_late(queries, effort, count):
        rough = np.concatenate([order[:, 20:35], order[:, :10], order[:, 35:]], axis=1)
        return rough[:, :count]

    tuned = tuned_by(finds_them_late, 0.95)
    assert (tuned.effort, tuned.num_candidates, tuned.recall) == (1, 30, 1.0)


def test_more_effort_is_chosen_where_it_reads_less():
    order = ranked(hold_out(STORE, 10))

    def late_at_first(queries, effort, count):
        shift = 20 if effort == 1 else 0
        return np.concatenate([order[:, 100 : 100 + shift], order], axis=1)[:, :count]

    assert tuned_by(late_at_first, 0.95, bytes_per_effort=1).effort == 2
    assert tuned_by(late_at_first, 0.95, bytes_per_effort=1e9).effort == 1


def test_a_target_out_of_reach_gives_the_best_and_says_so():
    order = ranked(hold_out(STORE, 10))

    def finds_half(queries, effort, count):
        rows = order[:, :count].copy()
        rows[:, 5:10] = -1
        return rows

    tuned = tuned_by(finds_half, 0.9)
    assert (tuned.recall, tuned.is_reached, tuned.num_candidates) == (0.5, False, 40)


def test_the_uncertainty_of_the_sample_counts_against_the_target():
    order = ranked(hold_out(STORE, 10))

    def fails_for_every_tenth(queries, effort, count):
        rows = order[:, :count].copy()
        if effort == 1:
            rows[::10, :10] = -1
        return rows

    mean, error = 0.9, np.sqrt(0.9 * 0.1 / 150)
    assert tuned_by(fails_for_every_tenth, mean - 1.1 * error).effort == 1
    assert tuned_by(fails_for_every_tenth, mean - 0.9 * error).effort == 2


def test_a_copy_at_the_same_distance_is_as_good():
    gallery = np.array([[0], [2], [2], [9]], dtype=np.float32)
    near = near_enough(ArrayStore(gallery), gallery[:1], np.array([[2, 3, -1, 1]]), np.array([4.0]))
    assert near.tolist() == [[True, False, False, True]]


def test_without_a_sample_everything_is_looked_at():
    held_out = hold_out(ArrayStore(GALLERY[:9]), 10)
    assert (len(held_out.rows), held_out.k) == (0, 9)
    tuned = tuned_by(None, 0.9, held_out=held_out)
    assert (tuned.effort, tuned.recall, tuned.is_reached) == (8, None, False)


def test_efforts_rise_to_the_last():
    assert efforts(5, 5) == [5]
    assert efforts(16, 100) == [16, 24, 32, 48, 64, 96, 100]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_plan_tells_the_recall_of_items_that_it_did_not_hold(kind):
    gallery = clustered(4000, seed=11)
    plan = build_index(ArrayStore(gallery), kind, target_recall=0.9, recall_k=5).plan
    assert (plan.num_sample, plan.num_trained_rows, plan.recall_k) == (400, 4000, 5)
    assert plan.recall >= plan.target_recall == 0.9
    assert plan.reason == f"{kind} was asked for"


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_higher_target_looks_farther(kind):
    store = ArrayStore(np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32))
    low, high = (build_index(store, kind, target_recall=target).plan for target in (0.3, 0.97))
    effort = "ef_search" if kind == "hnsw" else "num_probes"
    assert low.params[effort] < high.params[effort]
    assert low.recall < 0.97 <= high.recall


def test_a_target_out_of_reach_is_told_in_the_plan(monkeypatch):
    monkeypatch.setattr(tuning, "CANDIDATE_FACTORS", (1,))
    # Product codes of 3 bytes cannot tell 24 random numbers apart well enough.
    store = ArrayStore(np.random.default_rng(0).standard_normal((1500, 24)).astype(np.float32))
    plan = build_index(store, "ivfpq", target_recall=0.99).plan
    assert plan.recall < 0.9
    assert plan.reason == (
        "ivfpq was asked for; the target of 0.99 was not safely reached: recall@10 is "
        f"{plan.recall:.4f} with the largest parameters that were tried"
    )


def test_too_few_items_to_measure_are_told_in_the_plan():
    plan = build_index(ArrayStore(GALLERY[:8]), "ivf").plan
    assert (plan.recall, plan.num_sample) == (None, 0)
    assert "too few items to measure its recall" in plan.reason
