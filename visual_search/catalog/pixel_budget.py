"""What all decodes of a process may take together: each waits for its share.

A file of a kilobyte may announce 64 million pixels. Refusing larger ones bounds one picture; what
bounds eight of them at once is a sum that all of them share.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# From so many pixels on (8 bytes each) freed memory is handed back to the system at once. The C
# library keeps some for each thread otherwise: 193 MiB stayed after one WebP file of 2 KB.
_GIVE_BACK_PX = 2_000_000


class BudgetExceededError(RuntimeError):
    """Others took all pixels for as long as this one was ready to wait."""


class PixelBudget:
    """Pixels that may be decoded at the same time, by all threads together.

    Shares are given in the order in which they were asked for, so that a large picture is not
    overtaken for ever by small ones.

    Args:
        total_px: Pixels of all shares together.
        patience_s: Longest wait for a share; None waits as long as it takes.

    Raises:
        ValueError: ``total_px`` is below 1.

    Example:
        >>> budget = PixelBudget(100)
        >>> with budget.share(60):
        ...     budget.taken_px
        60
    """

    def __init__(self, total_px: int, *, patience_s: float | None = None) -> None:
        if total_px < 1:
            raise ValueError(
                f"total_px is {total_px}; expected at least 1; leave it out for the default"
            )
        self.total_px = total_px
        self.patience_s = patience_s
        self.forget()

    @property
    def taken_px(self) -> int:
        """Pixels of the shares that are held now."""
        return self._taken_px

    def forget(self) -> None:
        """Starts anew, as a forked process must: whoever held a share is not in it."""
        self._taken_px = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def share(self, num_px: int) -> Iterator[None]:
        """Holds so many pixels for as long as the block takes; first waits until they are free.

        Whoever holds a share must not ask for another one: two who do may wait for each other.

        Args:
            num_px: At most `total_px`.

        Raises:
            ValueError: There are not so many in all.
            BudgetExceededError: They did not become free within `patience_s`.
        """
        if num_px > self.total_px:
            raise ValueError(
                f"a share of {num_px:,} pixels; expected at most {self.total_px:,}; refuse it"
            )
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                has_turn = self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._taken_px + num_px <= self.total_px,
                    self.patience_s,
                )
                if not has_turn:
                    raise BudgetExceededError(
                        f"other pictures took {self._taken_px:,} of {self.total_px:,} pixels for "
                        f"{self.patience_s:g} s; expected {num_px:,} to become free"
                    )
                self._taken_px += num_px
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken_px -= num_px
                self._changed.notify_all()
            if num_px >= _GIVE_BACK_PX:
                _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    """Returns glibc's ``malloc_trim``; elsewhere what does nothing: others have no such."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            return trim  # type: ignore[no-any-return]
    return lambda pad: 0
