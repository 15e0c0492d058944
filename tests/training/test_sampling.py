"""Which items an epoch trains on: lengths, shares, turns, and what repeats with the seed."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_search.training.sampling import (
    Sampling,
    balanced,
    per_category,
    shuffled,
    weak_categories,
)

SIZES = {"bags": 300, "hats": 20, "shoes": 80}
CATEGORIES = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
ROWS = np.arange(1000, 1400, dtype=np.int64)
RATINGS = {"bags": 0.9, "hats": 0.5, "shoes": 0.1}
ALL = {
    "shuffled": shuffled(),
    "balanced": balanced(),
    "weak_categories": weak_categories(),
    "per_category": per_category(2, 5),
}


def counts(order: NDArray[np.int64]) -> dict[str, int]:
    names, number = np.unique(CATEGORIES[order - 1000], return_counts=True)
    return dict(zip(names.tolist(), number.tolist(), strict=True))


def times(order: NDArray[np.int64], category: str) -> NDArray[np.int64]:
    """How often each item of a category comes."""
    return np.bincount(order - 1000, minlength=len(ROWS))[category == CATEGORIES]


def ordered(sampling: Sampling, ratings: dict[str, float] | None = None) -> NDArray[np.int64]:
    return sampling.order(ROWS, CATEGORIES, 0, 0, ratings or {})


@pytest.mark.parametrize("name", ALL)
def test_an_order_is_a_function_of_its_arguments(name: str) -> None:
    first = ALL[name].order(ROWS, CATEGORIES, 3, 5, RATINGS)
    assert first.shape == ROWS.shape
    assert first.dtype == np.int64
    assert set(first.tolist()) <= set(ROWS.tolist())
    again = ALL[name].order(ROWS, CATEGORIES.astype(object), 3, 5, RATINGS)
    np.testing.assert_array_equal(first, again)
    for seed, epoch in ((3, 6), (4, 5)):
        other = ALL[name].order(ROWS, CATEGORIES, seed, epoch, RATINGS)
        assert (first != other).any()
        if name == "shuffled":
            expected = np.random.default_rng([seed, epoch]).permutation(ROWS)
            np.testing.assert_array_equal(other, expected)
    if name != "weak_categories":
        strength = ALL[name].augmentation_strength(CATEGORIES, RATINGS)
        np.testing.assert_array_equal(strength, np.ones(400, dtype=np.float32))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_shares_are_kept_within_one_item_and_exact_on_average(power: float) -> None:
    weights = {name: size ** (1 - power) for name, size in SIZES.items()}
    expected = {name: 400 * weight / sum(weights.values()) for name, weight in weights.items()}
    sampling = balanced(power)
    epochs = [counts(sampling.order(ROWS, CATEGORIES, 0, epoch, {})) for epoch in range(150)]
    for name, share in expected.items():
        found = np.array([epoch[name] for epoch in epochs])
        assert np.abs(found - share).max() < 1
        assert found.mean() == pytest.approx(share, abs=0.16)  # 4 standard errors


def test_no_item_comes_again_before_all_others_and_repeats_are_spread() -> None:
    order = ordered(balanced())
    another = balanced().order(ROWS, CATEGORIES, 0, 1, {})  # takes others of a big category
    assert (times(order, "bags") != times(another, "bags")).any()
    for name, places in counts(order).items():
        often = times(order, name)
        assert often.sum() == places
        assert often.max() - often.min() <= 1  # big: once or not at all; small: 6 or 7 times
        assert often.max() == -(-places // SIZES[name])
    assert min(counts(half)["hats"] for half in np.split(order, 2)) > 40  # of 133


def test_weak_categories_weighs_by_size_and_rating() -> None:
    weights = {name: SIZES[name] ** 0.5 * (1 + 2 * (1 - RATINGS[name])) for name in SIZES}
    for name, places in counts(ordered(weak_categories(0.5, 2.0), RATINGS)).items():
        assert abs(places - 400 * weights[name] / sum(weights.values())) < 1
    some = {"bags": 0.9, "shoes": 0.1, "scarves": 0.0}  # no training item is a scarf
    mean = some | {"hats": 0.5}  # which an unrated one counts as, of the rated ones
    orders = [ordered(weak_categories(), ratings) for ratings in (some, mean)]
    np.testing.assert_array_equal(*orders)


@pytest.mark.parametrize("ratings", [{}, {"scarves": 0.3}, dict.fromkeys(SIZES, 0.4)])
def test_without_a_difference_in_ratings_it_is_balanced(ratings: dict[str, float]) -> None:
    found = ordered(weak_categories(0.5, 1.0), ratings)
    np.testing.assert_array_equal(found, ordered(balanced(0.5)))


def test_strength_grows_with_how_often_an_item_repeats() -> None:
    sampling = weak_categories(1.0, 1.0, 1.8)
    strength = sampling.augmentation_strength(CATEGORIES, RATINGS)
    assert strength.dtype == np.float32
    weights = {name: 2 - rating for name, rating in RATINGS.items()}
    for name, size in SIZES.items():
        repeats = 400 * weights[name] / sum(weights.values()) / size
        expected = 1 + 0.8 * (1 - 1 / repeats) if repeats > 1 else 1.0
        np.testing.assert_allclose(strength[name == CATEGORIES], expected, rtol=1e-6)
    assert strength.max() < 1.8
    assert (strength[CATEGORIES == "bags"] == 1).all()
    weaker = sampling.augmentation_strength(CATEGORIES, RATINGS | {"hats": 0.0})
    assert weaker.max() > strength.max()


@pytest.mark.parametrize(("num", "items"), [(2, 10), (3, 8), (3, 30), (1, 5), (3, 200)])
def test_a_batch_holds_some_categories_with_the_same_number_of_items(num: int, items: int) -> None:
    sampling = per_category(num, items)
    order = ordered(sampling)
    assert len(order) == 400
    for start in range(0, 400 - num * items + 1, num * items):
        batch = order[start : start + num * items]
        found = counts(batch)
        assert list(found.values()) == [items] * num
        for name in found:  # no item twice in a batch where there are enough
            often = times(batch, name)
            assert often.max() - often.min() <= 1
    for name in SIZES:
        often = times(order[: 400 - 400 % (num * items)], name)
        assert often.max() - often.min() <= 1


def test_categories_take_turns() -> None:
    places = counts(ordered(per_category(2, 10))).values()
    assert max(places) - min(places) <= 10


@pytest.mark.parametrize("sampling", [*list(ALL.values())[:3], per_category(1, 4)])
def test_one_category_and_one_item_are_enough(sampling: Sampling) -> None:
    one = np.array([7], dtype=np.int64)
    assert sampling.order(one, np.array(["a"]), 0, 0, {"a": 1.0}).tolist() == [7]
    same = sampling.order(ROWS, np.full(400, "a"), 0, 0, {})
    assert sorted(same.tolist()) == ROWS.tolist()
    assert sampling.augmentation_strength(np.array(["a"]), {}).tolist() == [1.0]


def test_a_batch_size_has_to_hold_whole_groups() -> None:
    for size in (32, 64):
        assert per_category(4, 8).for_batches(size) == per_category(4, 8)
    assert balanced().for_batches(7) == balanced()
    assert per_category(3).for_batches(24) == per_category(3, 8)  # the categories share a batch
    assert per_category().for_batches(16) == per_category(8, 2)
    assert per_category(3).for_batches(24).for_batches(48) == per_category(3, 8)
    for sampling, size, multiple in ((per_category(4, 8), 40, 32), (per_category(3), 16, 3)):
        with pytest.raises(
            ValueError, match=f"batch_size {size}, expected a multiple of {multiple}"
        ):
            sampling.for_batches(size)
    with pytest.raises(ValueError, match=r"None, expected a number .* for_batches\(batch_size\)"):
        ordered(per_category(3))


@pytest.mark.parametrize(
    ("new", "settings", "message"),
    [
        (balanced, {"power": 1.5}, "1.5, expected 0 to 1"),
        (balanced, {"power": float("nan")}, "nan"),
        (weak_categories, {"power": -0.1}, "-0.1"),
        (weak_categories, {"weakness": -1.0}, "-1.0, expected a finite"),
        (weak_categories, {"weakness": float("inf")}, "inf"),
        (weak_categories, {"stronger_augmentation": 0.5}, "0.5, expected a finite .*1 or above"),
        (per_category, {"categories_per_batch": 0}, "0, expected 1 or more"),
        (per_category, {"items_per_category": 0}, "0"),
    ],
)
def test_impossible_settings_are_refused(
    new: Callable[..., Sampling], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=f"got sampler.{next(iter(settings))} {message}"):
        new(**settings)


@pytest.mark.parametrize("name", ALL)
def test_wrong_arguments_are_refused(name: str) -> None:
    sampling, given = ALL[name], {"categories": CATEGORIES, "seed": 0, "epoch": 0, "ratings": {}}
    for wrong, message in (
        ({"categories": CATEGORIES[:3]}, r"rows has shape \(400,\) and categories \(3,\)"),
        ({"rows": ROWS[:0], "categories": CATEGORIES[:0]}, "got no training rows"),
        ({"seed": -1}, "got seed -1"),
        ({"epoch": -3}, "got epoch -3"),
        ({"ratings": {"hats": 1.2}}, "rating of category 'hats' is 1.2"),
        ({"ratings": {"hats": float("nan")}}, "rating of category 'hats' is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            sampling.order(**{"rows": ROWS} | given | wrong)  # type: ignore[arg-type]
        if "ratings" in wrong or "rows" in wrong:
            asked = given | wrong
            with pytest.raises(ValueError, match=message):
                sampling.augmentation_strength(asked["categories"], asked["ratings"])  # type: ignore[arg-type]
    if name == "per_category":
        with pytest.raises(ValueError, match=r"categories_per_batch 4, .* 3 categories"):
            ordered(per_category(4, 2))
