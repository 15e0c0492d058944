"""What a file gets of steps that go on, and what a terminal."""

from __future__ import annotations

import io
import time

import pytest

from visual_search.views import progress
from visual_search.views.progress import Bar, progress_bar, write_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only place."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_last_line", 0.0)
    return now


def test_a_file_gets_a_line_a_second_at_most_whoever_writes_them(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = Bar("Embedding", " pictures"), Bar("Reading", " files")
    for second in range(100):
        clock[0] = 1000 + second / 4
        for bar in (one, other):
            bar.advance(second, 400)
        write_line(f"Epoch {second}")
    assert write_line("the last", always=True)
    lines = capsys.readouterr().err.splitlines()
    assert 20 <= len(lines) <= 27  # of 25 seconds
    assert lines[-1] == "the last"
    assert not any("\r" in line for line in lines)
    steps = [line for line in lines if line.startswith("Embedding")]
    assert len(steps) == 2
    assert "40/400" in steps[0]
    assert "pictures/s" in steps[0]


def test_a_short_step_and_one_that_is_not_shown_leave_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("Embedding", " pictures") as advance:
        advance(1, 2)
        clock[0] += 5
        advance(2, 2)
    with progress_bar("Embedding", " pictures", shown=False) as advance:
        clock[0] += 500
        advance(2, 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_moves_in_a_terminal_and_starts_again_with_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = Bar("Embedding", " pictures", delay=0.0)
    for done, title in ((64, "First"), (1, "Again")):
        time.sleep(0.11)  # tqdm draws ten times a second
        bar.advance(done, 128, title=title, state="so far")
    bar.close()
    text = terminal.getvalue()
    assert "First:  50%" in text
    assert "Again" in text
    assert "so far" in text
    assert "\n" not in text
    assert text.rstrip(" ").endswith("\r"), "nothing of it is left"
