"""What shows that a long step is alive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with (done, total); a bar appears if it takes longer than a second."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, leave=False, delay=1.0) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
