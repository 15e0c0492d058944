"""Asking again, a little later each time, while a database is not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from visual_search.databases.database import DatabaseUnavailableError

FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
T = TypeVar("T")


def retried(call: Callable[[], T], patience_s: float) -> T:
    """Returns what a call gives, which is repeated while the database is not available.

    Every request here may be repeated: what was written already is written again as it is.

    Args:
        call: The request.
        patience_s: Seconds from the first failure until the last one is passed on.

    Raises:
        DatabaseUnavailableError: It did not come back in that time.

    Example:
        >>> retried(lambda: 5, patience_s=1)
        5
    """
    pause, failed_at = FIRST_PAUSE_S, None
    while True:
        try:
            return call()
        except DatabaseUnavailableError:
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            if now + pause > failed_at + patience_s:
                raise
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_S)
