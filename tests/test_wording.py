"""How numbers are written, wherever they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from visual_search.wording import (
    count,
    difference,
    duration,
    file_size,
    interval,
    number,
    p_value,
    signed,
    three_digits,
)


@pytest.mark.parametrize(
    "write", [number, count, signed, p_value, file_size, three_digits, duration]
)
@pytest.mark.parametrize("value", [None, float("nan"), np.float32("inf"), pd.NA, pd.NaT])
def test_what_is_no_number_is_a_dash(write: Any, value: Any) -> None:
    assert write(value) == "\u2013"
    assert interval(value, 1.0) == interval(0.0, value) == "\u2013"
    assert difference(value, 0.0, 1.0) == "\u2013"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count(np.int64(3)), "3"), (p_value(1.0), "1.000"), (three_digits(0.123456), "0.123"),
        (file_size(999), "999 bytes"), (file_size(45_000_000), "45 MB"),
        (file_size(999_600), "1,000 kB"), (file_size(2_500_000_000), "2.5 GB"),
        (duration(59.6), "1 min 00 s"), (duration(3600), "1 h 00 min"),
        # an end that is not 0 does not read 0, and both have as many digits
        (interval(-0.00004, 0.2), "[-0.00004, 0.20000]"), (interval(0.0, 1.0), "[0.000, 1.000]"),
        (difference(0.0, -0.1, 0.0002), "+0.0000 [-0.1000, +0.0002]"),
        (difference(-0.004, -0.01, 1e-17), "-0.004 [-0.010, +0.000]"),
        (difference(-0.1, -0.2, 0.1, rough=True), "-0.100 ~[-0.200, +0.100]"),
        # a p-value keeps its side
        (p_value(0.0009999), "< 0.001"), (p_value(0.001), "0.001"), (p_value(0.04996), "0.04996"),
        (p_value(0.05), "0.050"), (p_value(0.0504), "0.050"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_one_reads_them(written: str, expected: str) -> None:
    assert written == expected
