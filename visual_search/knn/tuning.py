"""How far an approximate index has to look to find the share of neighbours that is wanted.

Items are held out of the index, asked as new products will be, and then added: an item that the
index holds already would find itself and, in a graph, its own links, and promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.exact_store import ExactSearcher
from visual_search.knn.plan import SearchPlan
from visual_search.knn.store import EmbeddingStore

SAMPLE_SIZE = 512  # the mean recall of so many queries is known to about half a percent
SAMPLE_SHARE = 10  # at most every tenth item
SEED = 0
# Candidates that are compared exactly, as multiples of the neighbours asked for.
CANDIDATE_FACTORS = (1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# Reading an embedding at a random place of the store costs about four times its bytes in a row.
RANDOM_READ = 4
HOPELESS_STEPS = 6  # so many steps of effort, eightfold in all, that gain together less than
HOPELESS_GAIN = 0.005  # this: looking further does not help any more

Candidates = Callable[[NDArray[np.float32], int, int], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Items that are asked before they are added.

    Attributes:
        rows: ``[S] int64``, ascending; empty where the store is too small to spare one.
        queries: ``[S, D] float32``.
        kth: ``[S] float64``, squared distance to the last of the exact ``k`` nearest among the
            other N - S items.
        k: Neighbours that count.
    """

    rows: NDArray[np.int64]
    queries: NDArray[np.float32]
    kth: NDArray[np.float64]
    k: int


@dataclass(frozen=True)
class Tuned:
    """What was chosen.

    Attributes:
        effort: Lists to look into, or HNSW's ef.
        num_candidates: Candidates that are compared exactly.
        recall: The mean measured with them; None without a sample.
        is_reached: Whether that is enough.
    """

    effort: int
    num_candidates: int
    recall: float | None
    is_reached: bool


def sample_rows(num_rows: int) -> NDArray[np.int64]:
    """Returns the rows that are held out, ascending, ``[S] int64``; the same for the same N."""
    size = min(SAMPLE_SIZE, num_rows // SAMPLE_SHARE)
    chosen = np.random.default_rng(SEED).choice(num_rows, size, replace=False)
    return np.sort(chosen).astype(np.int64)


def hold_out(store: EmbeddingStore, recall_k: int) -> HeldOut:
    """Returns the items that are held out, with what an exact search answers them."""
    rows = sample_rows(len(store))
    queries = store.take(rows)  # [S, D]
    k = min(recall_k, len(store) - len(rows))
    if not len(rows):
        return HeldOut(rows, queries, np.empty(0), k)
    others = np.ones(len(store), dtype=np.bool_)
    others[rows] = False
    _, squared = ExactSearcher(store).nearest(queries, k, others)
    return HeldOut(rows, queries, squared[:, -1], k)


def efforts(first: int, last: int) -> list[int]:
    """Returns the efforts to try, each about 1.4 times the one before, ending with ``last``.

    Example:
        >>> efforts(1, 20)
        [1, 2, 3, 4, 6, 8, 12, 16, 20]
    """
    steps = {first, last}
    power = 1
    while power <= last:
        steps |= {step for step in (power, power * 3 // 2) if first <= step <= last}
        power *= 2
    return sorted(steps)


def tune(
    store: EmbeddingStore,
    held_out: HeldOut,
    candidates: Candidates,
    ladder: list[int],
    *,
    target_recall: float,
    max_factor: int,
    bytes_per_effort: float,
) -> Tuned:
    """Raises the effort and the number of candidates until enough neighbours are found.

    One search with many candidates tells the recall for every smaller number of them: a neighbour
    among the first r candidates is among the answers once r are compared exactly. Of the pairs
    that reach the target, the one that reads the fewest bytes is taken. The target counts as
    reached when the mean recall less its standard error does.

    Args:
        store: All embeddings.
        held_out: The sample and its exact answers.
        candidates: ``(queries [S, D], effort, count)`` -> rows ``[S, <= count]``, the nearest
            first, -1 where there are fewer.
        ladder: Efforts, ascending.
        target_recall: What is wanted.
        max_factor: The largest of `CANDIDATE_FACTORS` to try.
        bytes_per_effort: What one more effort reads.
    """
    counts = [
        math.ceil(factor * held_out.k) for factor in CANDIDATE_FACTORS if factor <= max_factor
    ]
    if not len(held_out.rows):
        return Tuned(ladder[-1], counts[-1], None, is_reached=False)
    read = RANDOM_READ * 4 * store.dim
    chosen: tuple[float, Tuned] | None = None
    best = Tuned(ladder[-1], counts[-1], 0.0, is_reached=False)
    most: list[float] = []
    for effort in ladder:
        recalls, errors = _recalls(store, held_out, candidates, effort, counts)
        most.append(recalls[-1])
        if best.recall is None or recalls[-1] > best.recall:
            best = Tuned(effort, counts[-1], recalls[-1], is_reached=False)
        enough = [
            place for place in range(len(counts)) if recalls[place] - errors[place] >= target_recall
        ]
        if enough:
            count, recall = counts[enough[0]], recalls[enough[0]]
            cost = effort * bytes_per_effort + count * read
            if chosen is not None and cost >= chosen[0]:
                break  # looking further and comparing less does not pay any more
            chosen = (cost, Tuned(effort, count, recall, is_reached=True))
            if enough[0] == 0:
                break  # there is nothing left to save
        elif len(most) > HOPELESS_STEPS and most[-1] - most[-1 - HOPELESS_STEPS] < HOPELESS_GAIN:
            break
    return chosen[1] if chosen is not None else best


def tuned_plan(
    kind: str,
    reason: str,
    params: Mapping[str, int | float],
    store: EmbeddingStore,
    held_out: HeldOut,
    candidates: Candidates,
    ladder: list[int],
    *,
    effort_name: str,
    target_recall: float,
    recall_k: int,
    max_factor: int,
    bytes_per_effort: float,
) -> SearchPlan:
    """Returns the plan of an index that is built but for the rows held out; see `tune`.

    Args:
        kind: Of the index.
        reason: Why it is this kind; what was measured is added where it is not what was wanted.
        params: How it was built; ``effort_name`` and ``num_candidates`` are added.
        store: As of `tune`, like all that follow but ``effort_name`` and ``recall_k``.
        held_out: The sample.
        candidates: Proposes rows.
        ladder: Efforts.
        effort_name: Of the parameter that an effort is.
        target_recall: What is wanted.
        recall_k: Neighbours that the recall counts.
        max_factor: Of candidates.
        bytes_per_effort: What one more effort reads.
    """
    tuned = tune(
        store,
        held_out,
        candidates,
        ladder,
        target_recall=target_recall,
        max_factor=max_factor,
        bytes_per_effort=bytes_per_effort,
    )
    if tuned.recall is None:
        reason += "; too few items to measure its recall"
    elif not tuned.is_reached:
        reason += (
            f"; the target of {target_recall:g} was not safely reached: recall@{held_out.k} is "
            f"{tuned.recall:.4f} with the largest parameters that were tried"
        )
    # Plans speak of recall_k neighbours, even where the store had fewer to measure.
    num_candidates = math.ceil(tuned.num_candidates * recall_k / held_out.k)
    return SearchPlan(
        kind,
        reason,
        {**params, effort_name: tuned.effort, "num_candidates": num_candidates},
        target_recall=target_recall,
        recall_k=recall_k,
        recall=tuned.recall,
        num_sample=len(held_out.rows),
        num_trained_rows=len(store),
    )


def _recalls(
    store: EmbeddingStore,
    held_out: HeldOut,
    candidates: Candidates,
    effort: int,
    counts: list[int],
) -> tuple[list[float], list[float]]:
    """Returns the mean recall within each number of candidates, and its standard error."""
    found = candidates(held_out.queries, effort, counts[-1])  # [S, R]
    is_near = np.zeros((len(found), counts[-1]), dtype=np.bool_)
    is_near[:, : found.shape[1]] = near_enough(store, held_out.queries, found, held_out.kth)
    hits = np.minimum(np.cumsum(is_near, axis=1), held_out.k)[:, np.array(counts) - 1]
    shares = hits / held_out.k  # [S, counts]
    errors = shares.std(axis=0) / math.sqrt(len(shares))
    return shares.mean(axis=0).tolist(), errors.tolist()


def near_enough(
    store: EmbeddingStore,
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    kth: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Says which candidates are as near as the last exact neighbour, ``[Q, C] bool``.

    Counting by distance, not by row, finds no fault with another copy of the same picture.

    Args:
        store: The embeddings.
        queries: ``[Q, D] float32``.
        rows: ``[Q, C] int64``; -1, where there is none, is never near.
        kth: ``[Q] float64`` squared distances.
    """
    near = np.zeros(rows.shape, dtype=np.bool_)
    for number, query in enumerate(queries):
        present = np.flatnonzero(rows[number] >= 0)
        difference = store.take(rows[number, present]).astype(np.float64) - query
        near[number, present] = np.square(difference).sum(axis=1) <= kth[number]
    return near
