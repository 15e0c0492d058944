from __future__ import annotations

import numpy as np
import pytest

from tests.knn.galleries import GALLERY, brute_force, noise
from tests.knn.test_search_index import APPROXIMATE
from visual_search.knn import tuning
from visual_search.knn.indexes import build_index
from visual_search.knn.store import ArrayStore
from visual_search.knn.tuning import efforts, hold_out, near_enough, sample_rows, tune

STORE = ArrayStore(GALLERY)
HELD_OUT = hold_out(STORE, 10)


def tuned_by(candidates, target_recall, bytes_per_effort=1e6, held_out=HELD_OUT):
    return tune(
        STORE, held_out, candidates, [1, 2, 4, 8], target_recall=target_recall,
        max_factor=4, bytes_per_effort=bytes_per_effort,
    )  # fmt: skip


@pytest.fixture(scope="module")
def order() -> np.ndarray:
    """The exact order of all rows that are not held out, for each held-out item."""
    others = np.setdiff1d(np.arange(len(STORE)), HELD_OUT.rows)
    distances = ((HELD_OUT.queries[:, None].astype(np.float64) - GALLERY[others]) ** 2).sum(axis=2)
    return others[np.argsort(distances, axis=1, kind="stable")]


def test_held_out_items_are_answered_by_the_others_alone():
    others = ~np.isin(np.arange(1500), HELD_OUT.rows)
    _, squared = brute_force(GALLERY, HELD_OUT.queries, 10, others)
    np.testing.assert_allclose(HELD_OUT.kth, squared[:, -1], rtol=1e-12)


def test_effort_rises_until_enough_is_found(order):
    def finds_more_with_effort(queries, effort, count):
        rows = order[:, :count].copy()
        rows[:, min(10, 2 * effort) : 10] = -1  # 2, 4, 8 and 10 of the 10 nearest
        return rows

    tuned = tuned_by(finds_more_with_effort, 0.75)
    assert (tuned.effort, tuned.recall, tuned.is_reached) == (4, pytest.approx(0.8), True)
    tuned = tuned_by(finds_more_with_effort, 0.81)
    assert (tuned.effort, tuned.recall, tuned.is_reached) == (8, 1.0, True)
    assert tuned.num_candidates == 15


def test_candidates_are_as_many_as_the_rough_order_needs(order):
    def finds_them_late(queries, effort, count):
        rough = np.concatenate([order[:, 20:35], order[:, :10], order[:, 35:]], axis=1)
        return rough[:, :count]

    tuned = tuned_by(finds_them_late, 0.95)
    assert (tuned.effort, tuned.num_candidates, tuned.recall) == (1, 30, 1.0)


def test_more_effort_is_chosen_where_it_reads_less(order):
    def late_at_first(queries, effort, count):
        shift = 20 if effort == 1 else 0
        return np.concatenate([order[:, 100 : 100 + shift], order], axis=1)[:, :count]

    saved = 15 * 4 * (4 * STORE.dim)  # candidates that are not read, each as costly as 4 in a row
    assert tuned_by(late_at_first, 0.95, bytes_per_effort=saved - 1).effort == 2
    assert tuned_by(late_at_first, 0.95, bytes_per_effort=saved + 1).effort == 1


def test_a_target_out_of_reach_gives_the_best_and_says_so(order):
    def finds_half(queries, effort, count):
        rows = order[:, :count].copy()
        rows[:, 5:10] = -1
        return rows

    tuned = tuned_by(finds_half, 0.9)
    assert (tuned.recall, tuned.is_reached, tuned.num_candidates) == (0.5, False, 40)


def test_the_uncertainty_of_the_sample_counts_against_the_target(order):
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


def test_efforts_rise_to_the_last_and_the_sample_is_seeded_and_at_most_a_tenth():
    assert efforts(5, 5) == [5]
    assert efforts(16, 100) == [16, 24, 32, 48, 64, 96, 100]
    assert [len(set(sample_rows(count))) for count in (9, 1500, 1_000_000)] == [0, 150, 512]
    np.testing.assert_array_equal(sample_rows(1500), sample_rows(1500))


NOISE = ArrayStore(noise(1500, 24))


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_higher_target_looks_farther_and_the_plan_tells_the_recall(kind):
    plans = [build_index(NOISE, kind, target_recall=t, recall_k=5).plan for t in (0.3, 0.97)]
    for plan in plans:  # measured on items that the index did not hold
        assert (plan.num_sample, plan.num_trained_rows, plan.recall_k) == (150, 1500, 5)
        assert plan.recall >= plan.target_recall
        assert plan.reason == f"{kind} was asked for"
    effort = "ef_search" if kind == "hnsw" else "num_probes"
    assert plans[0].params[effort] < plans[1].params[effort]
    assert plans[0].recall < 0.97


def test_a_target_out_of_reach_is_told_in_the_plan(monkeypatch):
    monkeypatch.setattr(tuning, "CANDIDATE_FACTORS", (1,))
    # Product codes of 3 bytes cannot tell 24 random numbers apart well enough.
    plan = build_index(NOISE, "ivfpq", target_recall=0.99).plan
    assert plan.recall < 0.9
    assert plan.reason == (
        "ivfpq was asked for; the target of 0.99 was not safely reached: recall@10 is "
        f"{plan.recall:.4f} with the largest parameters that were tried"
    )


def test_too_few_items_to_measure_are_told_in_the_plan():
    plan = build_index(ArrayStore(GALLERY[:8]), "ivf").plan
    assert (plan.recall, plan.num_sample) == (None, 0)
    assert "too few items to measure its recall" in plan.reason
