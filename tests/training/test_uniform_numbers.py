"""Numbers that are a function of seed, epoch, position and view, and look like drawn ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from visual_search.training.augmentation import uniform_numbers

POSITIONS = np.arange(10_000)


def flat(
    seed: int = 0, epoch: int = 0, positions: NDArray[np.int64] = POSITIONS, view: int = 0
) -> NDArray[np.float64]:
    return uniform_numbers(seed, epoch, positions, view, 10).astype(np.float64).ravel()


GOLDEN, WHOLE = 0x9E3779B97F4A7C15, 2**64 - 1


def mixed(value: int) -> int:
    """SplitMix64's output for its state, by whole numbers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WHOLE
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WHOLE
    return value ^ (value >> 31)


def test_they_are_a_splitmix64_sequence_a_picture() -> None:
    # The first outputs for this start that the authors' and many other programs print.
    found = [mixed((1234567 + step * GOLDEN) & WHOLE) for step in (1, 2, 3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for seed, epoch, view, position in ((0, 0, 0, 0), (3, 1, 1, 7), (2**63, 9, 0, 2**32)):
        state = 0
        for part in (seed, epoch, view, position):
            state = mixed(((state + GOLDEN) & WHOLE) ^ part)
        expected = [(mixed((state + s * GOLDEN) & WHOLE) >> 40) * 2**-24 for s in range(1, 6)]
        drawn = uniform_numbers(seed, epoch, np.array([position]), view, 5)
        assert drawn[0].tolist() == expected


def test_they_are_uniform() -> None:
    values = flat()
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.01
    counts = np.histogram(values, bins=256, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 0.01
    # The highest and the lowest bits that are left, too.
    lowest = (values * 2**24).astype(np.int64) % 256
    assert stats.chisquare(np.bincount(lowest, minlength=256)).pvalue > 0.01


def test_each_of_a_pictures_numbers_is_uniform() -> None:
    for column in uniform_numbers(5, 2, POSITIONS, 1, 18).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    "other",
    [
        lambda: flat(positions=POSITIONS + 1),
        lambda: flat(positions=POSITIONS + 2**32),
        lambda: flat(positions=POSITIONS[::-1]),
        lambda: flat(epoch=1),
        lambda: flat(view=1),
        lambda: flat(seed=1),
        lambda: flat(seed=2**63),
        lambda: np.roll(flat(), 1),  # the number before, in the same picture
    ],
    ids=["next", "far", "reversed", "epoch", "view", "seed", "large seed", "within"],
)
def test_neighbours_are_independent(other: Callable[[], NDArray[np.float64]]) -> None:
    first, second = flat(), other()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(first))
    pairs = np.histogram2d(first, second, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_a_picture_has_its_numbers_in_any_batch() -> None:
    whole = uniform_numbers(7, 3, POSITIONS, 1, 18)
    assert whole.dtype == np.float32
    assert whole.shape == (10_000, 18)
    some = np.array([9_999, 5, 128, 5])
    np.testing.assert_array_equal(uniform_numbers(7, 3, some, 1, 18), whole[some])
    np.testing.assert_array_equal(uniform_numbers(7, 3, some, 1, 4), whole[some, :4])
    assert uniform_numbers(7, 3, some[:0], 1, 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": -1}, "got seed -1, expected 0 or above"),
        ({"epoch": -2}, "got epoch -2"),
        ({"view": -1}, "got view -1"),
        ({"num": -1}, "got num -1"),
        ({"positions": np.array([3, -4])}, r"got positions of shape \(2,\), the smallest -4"),
        ({"positions": np.zeros((2, 2), dtype=np.int64)}, r"got positions of shape \(2, 2\)"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, Any], message: str) -> None:
    arguments = {"seed": 0, "epoch": 0, "positions": np.arange(3), "view": 0, "num": 2}
    with pytest.raises(ValueError, match=message):
        uniform_numbers(**(arguments | changed))  # type: ignore[arg-type]
