"""How often a 95 % interval covers the truth, and how often a comparison cries wolf.

Each line draws queries from a known distribution many times over and asks
`visual_search.retrieval.statistics`. What should come out: 93-97 % covered, and at most 5 % wolf
(two query samples of one model, of which none is better, called different). An average precision
is simulated from five ranks that are hits with the query's own probability, drawn from a Beta
distribution: many exact zeros and ones, as in real results. ``!`` marks what is outside 93-97 %
(above it the interval is wider than it had to be), ``-`` what is below it.

``python benchmarks/statistics_coverage.py [--draws 1000] [--resamples 1000]`` (some minutes)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from visual_search.retrieval.statistics import (
    Statistic,
    bootstrap_interval,
    holm,
    paired_difference,
)

Floats = NDArray[np.float64]
Queries = tuple[Floats, NDArray[np.int64], NDArray[np.int64]]  # values, groups, categories
Draw = Callable[[np.random.Generator], Queries]

SHAPES = {"weak": (0.4, 1.6), "middling": (0.7, 0.7), "strong": (3.0, 0.4)}


def average_precision(rng: np.random.Generator, rates: Floats) -> Floats:
    """AP@5 of queries whose ranks are hits at these rates (``[Q] -> [Q]``), for R >= 5."""
    hits = rng.random((len(rates), 5)) < rates[:, None]
    return (np.cumsum(hits, axis=1) / np.arange(1, 6) * hits).sum(axis=1) / 5


def mean_average_precision(shape: tuple[float, float]) -> float:
    """The exact mean: E AP = sum over r of (E p + (r - 1) E p^2) / r / 5."""
    a, b = shape
    first = a / (a + b)
    second = first * (a + 1) / (a + b + 1)
    return sum((first + (rank - 1) * second) / rank for rank in range(1, 6)) / 5


def lone(num_queries: int, values: Callable[[np.random.Generator, int], Floats]) -> Draw:
    def draw(rng: np.random.Generator) -> Queries:
        groups = np.arange(num_queries)
        return values(rng, num_queries), groups, np.zeros_like(groups)

    return draw


def retrieval(shape: tuple[float, float]) -> Callable[[np.random.Generator, int], Floats]:
    return lambda rng, n: average_precision(rng, rng.beta(*shape, n))


def clustered(num_groups: int, shape: tuple[float, float]) -> Draw:
    """Groups of 1 to 7 queries that share their rate."""

    def draw(rng: np.random.Generator) -> Queries:
        groups = np.repeat(np.arange(num_groups), rng.integers(1, 8, num_groups))
        rates = rng.beta(*shape, num_groups)[groups]
        return average_precision(rng, rates), groups, np.zeros_like(groups)

    return draw


def categories(sizes: list[int], shapes: list[tuple[float, float]]) -> Draw:
    def draw(rng: np.random.Generator) -> Queries:
        values = [retrieval(shape)(rng, n) for n, shape in zip(sizes, shapes, strict=True)]
        category = np.repeat(np.arange(len(sizes)), sizes)
        return np.concatenate(values), np.arange(len(category)), category

    return draw


def coverage_lines(num_draws: int, num_resamples: int) -> None:
    lines: list[tuple[str, Draw, float, Statistic]] = []
    for num_queries in (10, 20, 30, 50, 200, 1000):
        for name, shape in SHAPES.items():
            truth = mean_average_precision(shape)
            draw = lone(num_queries, retrieval(shape))
            lines.append((f"AP, {name}, {num_queries} queries", draw, truth, "micro"))
    for num_queries in (20, 50, 200):
        draw = lone(num_queries, lambda rng, n: rng.beta(0.5, 2, n))
        lines.append((f"Beta(0.5, 2), {num_queries} queries", draw, 0.2, "micro"))
        for rate in (0.5, 0.1, 0.02):
            draw = lone(num_queries, lambda rng, n, rate=rate: (rng.random(n) < rate) * 1.0)
            lines.append((f"hit rate {rate}, {num_queries} queries", draw, rate, "micro"))
    for num_groups in (5, 10, 20, 50, 200):
        shape = SHAPES["middling"]
        truth = mean_average_precision(shape)
        name = f"AP, middling, {num_groups} groups of 1-7"
        lines.append((name, clustered(num_groups, shape), truth, "micro"))
    mixed = list(SHAPES.values())
    for sizes in ([10] * 3, [20] * 3, [50] * 3, [5] * 12, [20] * 12, [2] * 12, [200, 20, 5] * 2):
        shapes = (mixed * 4)[: len(sizes)]
        truth = float(np.mean([mean_average_precision(shape) for shape in shapes]))
        shown = f"{len(sizes)} categories of {'/'.join(str(n) for n in dict.fromkeys(sizes))}"
        lines.append((f"macro AP, {shown}", categories(sizes, shapes), truth, "macro"))
    print(f"{'95 % interval':44}{'truth':>7}{'covered %':>11}{'below':>7}{'above':>7}{'width':>8}")
    for name, draw, truth, statistic in lines:
        rng = np.random.default_rng(20)
        found = []
        for number in range(num_draws):
            values, groups, category = draw(rng)
            interval = bootstrap_interval(
                values, groups, category, statistic, num_resamples=num_resamples, seed=number
            )
            found.append((interval.low, interval.high))
        low, high = np.array(found).T
        below, above = 100 * np.mean(truth < low), 100 * np.mean(truth > high)
        covered = 100 - below - above
        mark = "-" if covered < 93 else "!" if covered > 97 else ""
        width = np.mean(high - low)
        print(f"{name:44}{truth:7.3f}{covered:10.1f}{mark:1}{below:7.1f}{above:7.1f}{width:8.3f}")


def wolf_lines(num_draws: int, num_resamples: int) -> None:
    """One model on two query samples, from which neither can come out better."""
    print(f"\n{'one model, two query samples':44}{'p <= 5 %':>10}{'0 outside':>11}")
    for num_groups in (10, 20, 50, 200):
        for per_group in (1, 4):
            rng = np.random.default_rng(21)
            wolf, outside = 0, 0
            groups = np.repeat(np.arange(num_groups), per_group)
            for number in range(num_draws):
                rates = rng.beta(*SHAPES["middling"], (2, num_groups))[:, groups]
                a, b = average_precision(rng, rates[0]), average_precision(rng, rates[1])
                found = paired_difference(
                    a, b, groups, num_resamples=num_resamples, num_permutations=1000, seed=number
                )
                wolf += found.p_value <= 0.05
                outside += not found.low <= 0 <= found.high
            name = f"{num_groups} groups of {per_group}"
            print(f"{name:44}{100 * wolf / num_draws:9.1f}%{100 * outside / num_draws:10.1f}%")
    rng = np.random.default_rng(22)
    wolf = 0
    for number in range(num_draws):
        pairs = average_precision(rng, np.repeat(rng.beta(0.7, 0.7, 30), 20)).reshape(30, 10, 2)
        p_values = [
            paired_difference(
                pairs[:, test, 0],
                pairs[:, test, 1],
                range(30),
                num_resamples=100,
                num_permutations=1000,
                seed=number * 10 + test,
            ).p_value
            for test in range(10)
        ]
        wolf += holm(p_values).min() <= 0.05
    print(f"{'any of 10 tests after Holm, 30 queries':44}{100 * wolf / num_draws:9.1f}%")


def speed_line() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random(10_000), rng.integers(8_000, size=10_000)
    category = rng.integers(20, size=10_000)
    taken = []
    for statistic in ("micro", "macro"):
        start = time.perf_counter()
        bootstrap_interval(values, groups, category, statistic)
        taken.append(f"{statistic} {time.perf_counter() - start:.1f} s")
    print(f"\n10,000 queries x 2,000 resamples: {', '.join(taken)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    coverage_lines(arguments.draws, arguments.resamples)
    wolf_lines(arguments.draws, arguments.resamples)
    speed_line()


if __name__ == "__main__":
    main()
