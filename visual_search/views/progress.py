"""What shows that a long step is alive: a bar in a terminal, a line now and then in a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

BEAT_SECONDS = 10.0  # between two lines of steps that go on
LINE_SECONDS = 1.0  # between any two lines
DELAY_SECONDS = 1.0  # a step that is over sooner shows nothing

_last_line = -LINE_SECONDS  # when the newest line was written, of whatever step


def moves() -> bool:
    """Returns whether there is a terminal in which a bar can move."""
    return sys.stderr is not None and sys.stderr.isatty()


def write_line(text: str, *, file: TextIO | None = None, always: bool = False) -> bool:
    """Writes a line, unless another one was written within the last second.

    Args:
        text: The line.
        file: stderr where None.
        always: Whether it is written nonetheless.

    Returns:
        Whether it was written.
    """
    global _last_line
    now = time.monotonic()
    if not always and now - _last_line < LINE_SECONDS:
        return False
    _last_line = now
    print(text, file=file or sys.stderr, flush=True)
    return True


class Bar:
    """A step's progress, on stderr: results on stdout stay apart from it.

    Args:
        title: What is being done.
        unit: What is counted, with a blank in front.
        shown: False shows nothing.
        shape: tqdm's ``bar_format``; None is its own.
        delay: Seconds before anything shows.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        *,
        shown: bool = True,
        shape: str | None = None,
        delay: float = DELAY_SECONDS,
    ) -> None:
        from tqdm import tqdm

        self.shown = shown
        self._settings: dict[str, Any] = {"unit": unit, "bar_format": shape}
        self._title, self._done, self._started = title, 0, time.monotonic()
        self._beat = self._started
        self._moving: tqdm[Any] | None = None
        if shown and moves():
            self._moving = tqdm(
                desc=title, leave=False, delay=delay, dynamic_ncols=True, **self._settings
            )

    def advance(self, done: int, total: int | None, *, title: str = "", state: str = "") -> None:
        """Shows how far the step is; fewer than before is a step that starts again.

        Args:
            done: So many are.
            total: Of so many, if that is known.
            title: Another one than before.
            state: Behind the bar.
        """
        self._title = title or self._title
        if done < self._done:
            self._started = time.monotonic()
        if self._moving is not None:
            self._moving.set_description(self._title, refresh=False)
            if done < self._done:
                self._moving.reset(total)
            self._moving.total = total
            self._moving.set_postfix_str(state, refresh=False)
            self._moving.update(done - self._moving.n)
        elif self.shown and time.monotonic() - self._beat >= BEAT_SECONDS:
            self._beat += BEAT_SECONDS * write_line(self._text(done, total, state))
        self._done = done

    def _text(self, done: int, total: int | None, state: str) -> str:
        """Returns a file's line: tqdm's without the bar."""
        from tqdm import tqdm

        return str(
            tqdm.format_meter(
                done,
                total,  # type: ignore[arg-type]  # None is "not known", as its code has it
                time.monotonic() - self._started,
                ncols=0,
                prefix=self._title,
                unit=self._settings["unit"],
                postfix=state or None,
            )
        )

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._moving is not None:
            self._moving.close()
            self._moving = None


@contextlib.contextmanager
def progress_bar(
    title: str, unit: str, *, shown: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with (done, total) of a step that may take longer than a second."""
    bar = Bar(title, unit, shown=shown)
    try:
        yield bar.advance
    finally:
        bar.close()
