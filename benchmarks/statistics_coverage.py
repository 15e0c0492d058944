"""How often a 95 % interval covers the truth, and how often a comparison cries wolf.

Each line draws queries from a known distribution many times over and asks
`visual_search.retrieval.statistics`. What should come out: 93-97 % covered, and at most 5 % wolf
(two query samples of one model, of which none is better, called different). An average precision
is simulated from five ranks that are hits with the query's own probability, drawn from a Beta
distribution: many exact zeros and ones, as in real results. Queries of one group share that
probability, all of them (``alike`` 1), some or none. ``!`` marks what is above 97 % (the interval
is wider than it had to be), ``-`` what is below 93 %; ``rough`` is how often it says so of itself.

``python benchmarks/statistics_coverage.py [--draws 1000] [--resamples 1000] [--only TEXT]``
(half an hour on one core; ``--only Pareto`` takes the lines with that text)
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

from visual_search.retrieval.statistics import (
    Statistic,
    bootstrap_interval,
    holm,
    paired_difference,
    rank_intervals,
)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Queries = tuple[Floats, Counts, Counts]  # values, groups, categories
Draw = Callable[[np.random.Generator], Queries]
Sizes = Callable[[np.random.Generator], Counts]  # of the groups
Line = tuple[str, Draw, float, Statistic]

SHAPES = {"weak": (0.4, 1.6), "middling": (0.7, 0.7), "strong": (3.0, 0.4)}
NEAR_0 = ((0.003, 0.997), (0.02, 2.0), (0.3, 40.0), (0.1, 10.0), (0.01, 0.3))


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


def retrieval(shape: tuple[float, float]) -> Callable[[np.random.Generator, int], Floats]:
    return lambda rng, n: average_precision(rng, rng.beta(*shape, n))


def lone(num_queries: int, values: Callable[[np.random.Generator, int], Floats]) -> Draw:
    def draw(rng: np.random.Generator) -> Queries:
        groups = np.arange(num_queries)
        return values(rng, num_queries), groups, np.zeros_like(groups)

    return draw


def rates_of(
    rng: np.random.Generator, sizes: Counts, shape: tuple[float, float], alike: float
) -> tuple[Floats, Counts]:
    """The rates of groups' queries: with probability ``alike`` the group's, else their own."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    own, shared = rng.beta(*shape, len(groups)), rng.beta(*shape, len(sizes))[groups]
    return np.where(rng.random(len(groups)) < alike, shared, own), groups


def clustered(sizes: Sizes, shape: tuple[float, float], alike: float = 1.0) -> Draw:
    def draw(rng: np.random.Generator) -> Queries:
        rates, groups = rates_of(rng, sizes(rng), shape, alike)
        return average_precision(rng, rates), groups, np.zeros_like(groups)

    return draw


def by_size(sizes: Counts, small: float, large: float) -> tuple[Draw, float]:
    """Groups whose mean rate goes from ``small`` to ``large`` with the rank of their size."""
    means = small + (large - small) * np.argsort(np.argsort(sizes)) / (len(sizes) - 1)
    shapes = np.stack([1.4 * means, 1.4 * (1 - means)], axis=1)
    exact = np.array([mean_average_precision((a, b)) for a, b in shapes])

    def draw(rng: np.random.Generator) -> Queries:
        groups = np.repeat(np.arange(len(sizes)), sizes)
        return average_precision(rng, rng.beta(*shapes.T)[groups]), groups, np.zeros_like(groups)

    return draw, float(exact @ sizes / sizes.sum())


def categories(sizes: list[int], shapes: list[tuple[float, float]]) -> Draw:
    def draw(rng: np.random.Generator) -> Queries:
        values = [retrieval(shape)(rng, n) for n, shape in zip(sizes, shapes, strict=True)]
        category = np.repeat(np.arange(len(sizes)), sizes)
        return np.concatenate(values), np.arange(len(category)), category

    return draw


def grouped_categories(
    sizes: list[Counts], shapes: list[tuple[float, float]], alike: float
) -> Draw:
    """Categories with groups of their own, of such sizes."""

    def draw(rng: np.random.Generator) -> Queries:
        values, groups, category, start = [], [], [], 0
        for code, (counts, shape) in enumerate(zip(sizes, shapes, strict=True)):
            rates, mine = rates_of(rng, counts, shape, alike)
            values.append(average_precision(rng, rates))
            groups.append(mine + start)
            category.append(np.full(len(mine), code))
            start += len(counts)
        return np.concatenate(values), np.concatenate(groups), np.concatenate(category)

    return draw


def crossed_categories(num_groups: int, shapes: list[tuple[float, float]]) -> Draw:
    """Groups of 2 to 12 queries that each touch several categories, as a person's photos do."""

    def draw(rng: np.random.Generator) -> Queries:
        groups = np.repeat(np.arange(num_groups), rng.integers(2, 13, num_groups))
        category = rng.integers(len(shapes), size=len(groups))
        category[: len(shapes)] = np.arange(len(shapes))
        place = rng.random(num_groups)[groups]  # of the group in its category's distribution
        a, b = np.array(shapes)[category].T
        return average_precision(rng, betaincinv(a, b, place)), groups, category

    return draw


def fixed(*parts: tuple[int, int]) -> Sizes:
    """So many groups of such a size: ``(number, size)``."""
    counts = np.concatenate([np.full(number, size) for number, size in parts])
    return lambda rng: counts


def pareto(num_groups: int, exponent: float) -> Sizes:
    return lambda rng: np.minimum(1 + rng.pareto(exponent, num_groups), 2000).astype(np.int64)


UNEQUAL: dict[str, Sizes] = {
    "1,150 groups, one of 300": fixed((1, 300), (1149, 1)),
    "100 groups, Pareto 1": pareto(100, 1.0),
    "100 groups, Pareto 1.5": pareto(100, 1.5),
    "50 groups, 1 in 20 of 100": lambda rng: np.where(rng.random(50) < 0.05, 100, 1),
    "50 groups, 3 of 100": fixed((3, 100), (47, 1)),
    "10 groups of 1 to 40": lambda rng: np.array([1, 1, 2, 2, 3, 4, 6, 10, 20, 40]),
    "20 groups of 1 to 30": fixed((8, 1), (6, 3), (4, 8), (2, 30)),
}


def all_lines() -> list[Line]:
    """What is simulated: title, draw, truth, statistic."""
    lines: list[Line] = []
    for num_queries in (5, 10, 20, 50, 200, 1000):
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
    for rate in (0.003, 0.01, 0.99):
        draw = lone(300, lambda rng, n, rate=rate: (rng.random(n) < rate) * 1.0)
        lines.append((f"hit rate {rate}, 300 queries", draw, rate, "micro"))
    for shape in NEAR_0:
        truth = mean_average_precision(shape)
        lines.append((f"AP, Beta{shape}, 300 queries", lone(300, retrieval(shape)), truth, "micro"))
    for num_groups in (5, 10, 20, 50, 200):
        for name, shape in SHAPES.items():
            truth = mean_average_precision(shape)
            sizes: Sizes = lambda rng, n=num_groups: rng.integers(1, 8, n)  # noqa: E731
            shown = f"AP, {name}, {num_groups} groups of 1-7"
            lines.append((shown, clustered(sizes, shape), truth, "micro"))
    for title, sizes in UNEQUAL.items():
        for name, shape in SHAPES.items():
            for alike in (0.0, 0.5, 1.0):
                truth = mean_average_precision(shape)
                shown = f"{title}: {name}, alike {alike:g}"
                lines.append((shown, clustered(sizes, shape, alike), truth, "micro"))
    for title in ("1,150 groups, one of 300", "50 groups, 3 of 100", "20 groups of 1 to 30"):
        for ends in ((0.3, 0.7), (0.7, 0.3)):
            draw, truth = by_size(UNEQUAL[title](np.random.default_rng(0)), *ends)
            lines.append((f"{title}: rate {ends[0]} to {ends[1]}", draw, truth, "micro"))
    mixed = list(SHAPES.values())
    for counts in ([10] * 3, [20] * 3, [50] * 3, [5] * 12, [20] * 12, [2] * 12, [200, 20, 5] * 2):
        shapes = (mixed * 4)[: len(counts)]
        truth = float(np.mean([mean_average_precision(shape) for shape in shapes]))
        shown = f"{len(counts)} categories of {'/'.join(str(n) for n in dict.fromkeys(counts))}"
        lines.append((f"macro AP, {shown}", categories(counts, shapes), truth, "macro"))
    few, many = np.array([1, 1, 2, 3, 5, 20]), np.array([100] + [1] * 99)
    for title, sizes_of in (
        ("6 categories of 6 groups, 1 to 20", [few] * 6),
        ("12 categories of 6 groups, 1 to 20", [few] * 12),
        ("6 categories of 100 groups, one of 100", [many] * 6),
        ("3 categories, one of 100 groups with one of 100", [many, few, few]),
        ("12 categories of 1 to 6 groups", [few[:number] for number in (1, 2, 3, 4, 5, 6)] * 2),
    ):
        for alike in (0.0, 1.0):
            shapes = (mixed * 4)[: len(sizes_of)]
            truth = float(np.mean([mean_average_precision(shape) for shape in shapes]))
            draw = grouped_categories(sizes_of, shapes, alike)
            lines.append((f"macro, {title}, alike {alike:g}", draw, truth, "macro"))
    for num_groups in (10, 40):
        truth = float(np.mean([mean_average_precision(shape) for shape in mixed * 2]))
        draw = crossed_categories(num_groups, mixed * 2)
        shown = f"macro, {num_groups} groups across 6 categories"
        lines.append((shown, draw, truth, "macro"))
    return lines


def coverage_lines(num_draws: int, num_resamples: int, only: str) -> None:
    head = f"{'95 % interval of a mean':54}{'truth':>7}{'covered %':>11}{'below':>7}{'above':>7}"
    print(f"{head}{'width':>8}{'rough %':>9}")
    for name, draw, truth, statistic in all_lines():
        if only not in name:
            continue
        rng = np.random.default_rng(20)
        found = []
        for number in range(num_draws):
            values, groups, category = draw(rng)
            interval = bootstrap_interval(
                values, groups, category, statistic, num_resamples=num_resamples, seed=number
            )
            found.append((interval.low, interval.high, interval.rough))
        low, high, rough = np.array(found).T
        below, above = 100 * np.mean(truth < low), 100 * np.mean(truth > high)
        covered = 100 - below - above
        mark = "-" if covered < 93 else "!" if covered > 97 else ""
        width = np.mean(high - low)
        ends = f"{truth:7.3f}{covered:10.1f}{mark:1}{below:7.1f}{above:7.1f}{width:8.3f}"
        print(f"{name:54}{ends}{100 * np.mean(rough):9.0f}", flush=True)


def paired_lines(num_draws: int, num_resamples: int, only: str) -> None:
    """Two models that share a query's difficulty; b is worse on some of its hits, or is not."""
    head = f"{'95 % interval of a difference':54}{'truth':>7}{'covered %':>11}{'p < 5 %':>9}"
    print(f"\n{head}{'0 outside':>11}{'width':>8}")
    cases: dict[str, Sizes] = {
        **UNEQUAL,
        **{f"{n} groups of 4": fixed((n, 4)) for n in (5, 10, 20, 50)},
        "300 groups of 1": fixed((300, 1)),
    }
    for (title, sizes), alike, lost in itertools.product(cases.items(), (0.5, 1.0), (0.0, 0.25)):
        name = f"{title}: alike {alike:g}"
        if only not in name:
            continue
        rng = np.random.default_rng(23)
        a, b = SHAPES["middling"]
        truth = mean_average_precision((a, b)) - worse_average_precision(a, b, lost)
        found = []
        for number in range(num_draws):
            rates, groups = rates_of(rng, sizes(rng), (a, b), alike)
            other, _ = rates_of(rng, np.bincount(groups), (a, b), alike)
            same = rng.random(len(rates)) < 0.7  # of the queries: both have one rate
            first = average_precision(rng, rates)
            second = average_precision(rng, np.where(same, rates, other) * (1 - lost))
            test = paired_difference(
                first, second, groups,
                num_resamples=num_resamples, num_permutations=num_resamples, seed=number,
            )  # fmt: skip
            found.append((test.low, test.high, test.p_value))
        low, high, p_value = np.array(found).T
        covered = 100 * np.mean((low <= truth) & (truth <= high))
        mark = "-" if covered < 93 else "!" if covered > 97 else ""
        outside = 100 * np.mean((low > 0) | (high < 0))
        ends = f"{truth:7.3f}{covered:10.1f}{mark:1}{100 * np.mean(p_value < 0.05):9.1f}"
        print(f"{name:54}{ends}{outside:11.1f}{np.mean(high - low):8.3f}", flush=True)


def worse_average_precision(a: float, b: float, lost: float) -> float:
    """The exact mean where every rate is 1 - ``lost`` of one drawn from Beta(a, b)."""
    first = a / (a + b) * (1 - lost)
    second = a / (a + b) * (a + 1) / (a + b + 1) * (1 - lost) ** 2
    return sum((first + (rank - 1) * second) / rank for rank in range(1, 6)) / 5


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


# How much of a query's hits each of a table's models loses; equal ones share their ranks.
TABLES: dict[str, tuple[float, ...]] = {
    "4 equal": (0.0,) * 4,
    "20 equal": (0.0,) * 20,
    "3 equal, 3 worse": (0.0,) * 3 + (0.2,) * 3,
    "10 in small steps": tuple(0.02 * step for step in range(10)),
    "20, of which 1 is better": (0.0,) + (0.15,) * 19,
}


def rank_lines(num_draws: int, num_resamples: int, only: str) -> None:
    """Tables of models: all rank intervals at once must hold the true ranks."""
    head = f"{'95 % rank intervals of a table':54}{'all hold %':>12}{'ranks held':>12}"
    print(f"\n{head}{'for the top':>13}")
    cases: dict[str, Sizes] = {
        "8 groups of 4": fixed((8, 4)),
        "30 groups of 4": fixed((30, 4)),
        "300 groups of 1": fixed((300, 1)),
        "1,150 groups, one of 300": UNEQUAL["1,150 groups, one of 300"],
        "100 groups, Pareto 1": UNEQUAL["100 groups, Pareto 1"],
    }
    for (title, sizes), (table, lost) in itertools.product(cases.items(), TABLES.items()):
        for even in (False, True):  # every second model finds all queries equally hard
            name = f"{title}: {table}{', every second even' * even}"
            if only not in name:
                continue
            rng = np.random.default_rng(24)
            keeps = 1 - np.array(lost)
            true = np.stack([1 + (keeps > keeps[:, None]).sum(1), (keeps >= keeps[:, None]).sum(1)])
            held, widths, top = 0, [], []
            for number in range(num_draws):
                rates, groups = rates_of(rng, sizes(rng), SHAPES["middling"], 0.5)
                models = []
                for place, keep in enumerate(keeps):
                    own, _ = rates_of(rng, np.bincount(groups), SHAPES["middling"], 0.5)
                    mixed = np.where(rng.random(len(rates)) < 0.7, rates, own)
                    if even and place % 2:
                        mixed = np.full(len(rates), EVEN_RATE)
                    found = average_precision(rng, mixed)
                    models.append(np.where(rng.random(len(rates)) < keep, found, 0.0))
                ends = rank_intervals(models, groups, num_resamples=num_resamples, seed=number)
                held += bool((ends[:, 0] <= true[0]).all() and (true[1] <= ends[:, 1]).all())
                widths.append(float((ends[:, 1] - ends[:, 0] + 1).mean()))
                top.append(int((ends[:, 0] == 1).sum()))
            covered = 100 * held / num_draws
            mark = "-" if covered < 93 else ""
            ends_text = f"{covered:11.1f}{mark:1}{np.mean(widths):12.1f}{np.mean(top):13.1f}"
            print(f"{name:54}{ends_text}", flush=True)


def _even_rate() -> float:
    """The rate at which all queries alike have the mean AP of the middling shape."""
    low, high, wanted = 0.0, 1.0, mean_average_precision(SHAPES["middling"])
    for _ in range(60):
        rate = (low + high) / 2
        mean = sum((rate + (rank - 1) * rate**2) / rank for rank in range(1, 6)) / 5
        low, high = (rate, high) if mean < wanted else (low, rate)
    return rate


EVEN_RATE = _even_rate()


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
    parser.add_argument("--only", default="", help="only lines whose title holds this text")
    arguments = parser.parse_args()
    coverage_lines(arguments.draws, arguments.resamples, arguments.only)
    paired_lines(arguments.draws, arguments.resamples, arguments.only)
    rank_lines(arguments.draws, arguments.resamples, arguments.only)
    if not arguments.only:
        wolf_lines(arguments.draws, arguments.resamples)
        speed_line()


if __name__ == "__main__":
    main()
