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
ALL = [shuffled, balanced, weak_categories, lambda: per_category(2, 5)]


def counts(order: NDArray[np.int64]) -> dict[str, int]:
    names, number = np.unique(CATEGORIES[order - 1000], return_counts=True)
    return dict(zip(names.tolist(), number.tolist(), strict=True))


def times(order: NDArray[np.int64], category: str) -> NDArray[np.int64]:
    """How often each item of a category comes."""
    return np.bincount(order - 1000, minlength=len(ROWS))[category == CATEGORIES]


@pytest.mark.parametrize("new", ALL)
@pytest.mark.parametrize("as_object", [False, True])
def test_an_order_is_a_function_of_its_arguments(
    new: Callable[[], Sampling], as_object: bool
) -> None:
    categories = CATEGORIES.astype(object) if as_object else CATEGORIES
    first = new().order(ROWS, categories, 3, 5, RATINGS)
    assert first.shape == ROWS.shape
    assert first.dtype == np.int64
    assert set(first.tolist()) <= set(ROWS.tolist())
    np.testing.assert_array_equal(first, new().order(ROWS, CATEGORIES, 3, 5, RATINGS))
    for seed, epoch in ((3, 6), (4, 5)):
        assert (first != new().order(ROWS, CATEGORIES, seed, epoch, RATINGS)).any()


def test_shuffled_is_the_permutation_of_seed_and_epoch() -> None:
    for seed, epoch in ((0, 0), (7, 3)):
        expected = np.random.default_rng([seed, epoch]).permutation(ROWS)
        found = shuffled().order(ROWS, CATEGORIES, seed, epoch, RATINGS)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_shares_are_kept_within_one_item_and_exact_on_average(power: float) -> None:
    weights = {name: size ** (1 - power) for name, size in SIZES.items()}
    expected = {name: 400 * weight / sum(weights.values()) for name, weight in weights.items()}
    epochs = [counts(balanced(power).order(ROWS, CATEGORIES, 0, epoch, {})) for epoch in range(300)]
    for name, share in expected.items():
        found = np.array([epoch[name] for epoch in epochs])
        assert np.abs(found - share).max() < 1
        assert found.mean() == pytest.approx(share, abs=0.12)  # 4 standard errors


def test_no_item_comes_again_before_all_others_of_its_category() -> None:
    order = balanced().order(ROWS, CATEGORIES, 0, 0, {})
    another = balanced().order(ROWS, CATEGORIES, 0, 1, {})  # takes others of a big category
    assert (times(order, "bags") != times(another, "bags")).any()
    for name, places in counts(order).items():
        often = times(order, name)
        assert often.sum() == places
        assert often.max() - often.min() <= 1  # big: once or not at all; small: 6 or 7 times
        assert often.max() == -(-places // SIZES[name])


def test_repeats_are_spread_over_the_epoch() -> None:
    order = balanced().order(ROWS, CATEGORIES, 0, 0, {})
    halves = [counts(half)["hats"] for half in np.split(order, 2)]
    assert min(halves) > 40  # of 133


def test_weak_categories_weighs_by_size_and_rating() -> None:
    weights = {name: SIZES[name] ** 0.5 * (1 + 2 * (1 - RATINGS[name])) for name in SIZES}
    order = weak_categories(0.5, 2.0).order(ROWS, CATEGORIES, 0, 0, RATINGS)
    for name, places in counts(order).items():
        assert abs(places - 400 * weights[name] / sum(weights.values())) < 1


@pytest.mark.parametrize("ratings", [{}, {"scarves": 0.3}, dict.fromkeys(SIZES, 0.4)])
def test_without_a_difference_in_ratings_it_is_balanced(ratings: dict[str, float]) -> None:
    np.testing.assert_array_equal(
        weak_categories(0.5, 1.0).order(ROWS, CATEGORIES, 0, 0, ratings),
        balanced(0.5).order(ROWS, CATEGORIES, 0, 0, {}),
    )


def test_an_unrated_category_counts_as_the_mean_of_the_rated_ones() -> None:
    some = {"bags": 0.9, "shoes": 0.1, "scarves": 0.0}  # no training item is a scarf
    np.testing.assert_array_equal(
        weak_categories().order(ROWS, CATEGORIES, 0, 0, some),
        weak_categories().order(ROWS, CATEGORIES, 0, 0, some | {"hats": 0.5}),
    )


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


@pytest.mark.parametrize("new", [shuffled, balanced, lambda: per_category(2, 5)])
def test_other_samplings_augment_as_usual(new: Callable[[], Sampling]) -> None:
    strength = new().augmentation_strength(CATEGORIES, RATINGS)
    np.testing.assert_array_equal(strength, np.ones(400, dtype=np.float32))


@pytest.mark.parametrize(("num", "items"), [(2, 10), (3, 8), (3, 30), (1, 5), (3, 200)])
def test_a_batch_holds_some_categories_with_the_same_number_of_items(num: int, items: int) -> None:
    sampling = per_category(num, items)
    order = sampling.order(ROWS, CATEGORIES, 0, 0, {})
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
    order = per_category(2, 10).order(ROWS, CATEGORIES, 0, 0, {})
    places = counts(order).values()
    assert max(places) - min(places) <= 10


def test_one_category_and_one_item_are_enough() -> None:
    one = np.array([7], dtype=np.int64)
    for sampling in (shuffled(), balanced(), weak_categories(), per_category(1, 4)):
        assert sampling.order(one, np.array(["a"]), 0, 0, {"a": 1.0}).tolist() == [7]
        same = sampling.order(ROWS, np.full(400, "a"), 0, 0, {})
        assert sorted(same.tolist()) == ROWS.tolist()
        assert sampling.augmentation_strength(np.array(["a"]), {}).tolist() == [1.0]


def test_a_batch_size_has_to_hold_whole_groups() -> None:
    for size in (32, 64):
        assert per_category(4, 8).for_batches(size) == per_category(4, 8)
    assert balanced().for_batches(7) == balanced()
    with pytest.raises(ValueError, match="got batch_size 40, expected a multiple of 32"):
        per_category(4, 8).for_batches(40)


def test_without_a_number_of_items_the_categories_share_a_batch() -> None:
    assert per_category(3).for_batches(24) == per_category(3, 8)
    assert per_category().for_batches(16) == per_category(8, 2)
    assert per_category(3).for_batches(24).for_batches(48) == per_category(3, 8)
    with pytest.raises(ValueError, match="got batch_size 16, expected a multiple of 3"):
        per_category(3).for_batches(16)
    with pytest.raises(ValueError, match=r"None, expected a number .* for_batches\(batch_size\)"):
        per_category(3).order(ROWS, CATEGORIES, 0, 0, {})


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (lambda: balanced(1.5), "got sampler.power 1.5, expected 0 to 1"),
        (lambda: balanced(float("nan")), "got sampler.power nan"),
        (lambda: weak_categories(-0.1), "got sampler.power -0.1"),
        (lambda: weak_categories(weakness=-1.0), "sampler.weakness -1.0, expected a finite"),
        (lambda: weak_categories(weakness=float("inf")), "sampler.weakness inf"),
        (
            lambda: weak_categories(stronger_augmentation=0.5),
            "sampler.stronger_augmentation 0.5, expected a finite number, 1 or above",
        ),
        (lambda: per_category(0, 4), "got sampler.categories_per_batch 0, expected 1 or more"),
        (lambda: per_category(4, 0), "got sampler.items_per_category 0"),
    ],
)
def test_impossible_settings_are_refused(new: Callable[[], Sampling], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new()


@pytest.mark.parametrize("new", ALL)
def test_wrong_arguments_are_refused(new: Callable[[], Sampling]) -> None:
    sampling = new()
    with pytest.raises(ValueError, match=r"categories_per_batch 4, .* 3 categories"):
        per_category(4, 2).order(ROWS, CATEGORIES, 0, 0, {})
    with pytest.raises(ValueError, match=r"rows has shape \(400,\) and categories \(3,\)"):
        sampling.order(ROWS, CATEGORIES[:3], 0, 0, {})
    with pytest.raises(ValueError, match="got no training rows"):
        sampling.order(ROWS[:0], CATEGORIES[:0], 0, 0, {})
    with pytest.raises(ValueError, match="got no training rows"):
        sampling.augmentation_strength(CATEGORIES[:0], {})
    with pytest.raises(ValueError, match="got seed -1"):
        sampling.order(ROWS, CATEGORIES, -1, 0, {})
    with pytest.raises(ValueError, match="got epoch -3"):
        sampling.order(ROWS, CATEGORIES, 0, -3, {})
    for rating in (1.2, float("nan")):
        with pytest.raises(ValueError, match=f"rating of category 'hats' is {rating}"):
            sampling.order(ROWS, CATEGORIES, 0, 0, {"hats": rating})
        with pytest.raises(ValueError, match=f"rating of category 'hats' is {rating}"):
            sampling.augmentation_strength(CATEGORIES, {"hats": rating})
