"""Checks of the numbers that an objective is built from."""

from __future__ import annotations

import math

from visual_search.models.objectives.objective import NumLabels


def check_above_zero(name: str, value: float) -> None:
    """Refuses what is not a finite number above 0.

    Raises:
        ValueError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"got {name} {value}, expected a number above 0; set objective.{name}")


def check_not_negative(name: str, value: float) -> None:
    """Refuses what is not a finite number of at least 0.

    Raises:
        ValueError: It is not.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"got {name} {value}, expected a number of at least 0; set objective.{name}"
        )


def check_share(name: str, value: float) -> None:
    """Refuses what is not a number in 0..1.

    Raises:
        ValueError: It is not.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"got {name} {value}, expected a number in 0..1; set objective.{name}")


def num_values(num_labels: NumLabels, column: str) -> int:
    """Returns how many values a column has.

    Raises:
        ValueError: It has fewer than two, and tells no items apart.
    """
    found = num_labels(column)
    if found < 2:
        raise ValueError(
            f"column {column!r} has {found} value(s) in the training split, expected at least 2; "
            "train on another column of the catalogue"
        )
    return found
