"""The workers of a sweep spread over the cards that are there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from visual_search.cli.cards import CARDS, VISIBLE, visible_cards

WORKER = """
import os, sys
from pathlib import Path
from visual_search.cli.cards import VISIBLE, take_a_card
for _ in range(2):  # two jobs of one worker
    take_a_card(Path(sys.argv[1]), eval(sys.argv[2]))
print(os.environ.get(VISIBLE), flush=True)
sys.stdin.read()
"""


@contextmanager
def workers(
    folder: Path, devices: list[Any], monkeypatch: pytest.MonkeyPatch, cards: str
) -> Iterator[list[str]]:
    """Starts one worker after another, which all live, and yields the cards that they took."""
    monkeypatch.setenv(CARDS, cards)
    monkeypatch.delenv(VISIBLE, raising=False)
    processes, taken = [], []
    try:
        for asked in devices:
            command = [sys.executable, "-c", WORKER, str(folder), repr(asked)]
            processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert processes[-1].stdout is not None
            taken.append(processes[-1].stdout.readline().strip())
        yield taken
    finally:
        for process in processes:
            process.communicate()


def test_workers_take_the_cards_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with workers(tmp_path, [1, "1", 1, 1], monkeypatch, "GPU-a,GPU-b,2") as taken:
        assert taken == ["GPU-a", "GPU-b", "2", "GPU-a"]
    with workers(tmp_path, [1], monkeypatch, "GPU-a,GPU-b,2") as taken:
        assert taken == ["GPU-a"]  # the places of those that have ended are free


@pytest.mark.parametrize(("devices", "cards"), [([1], "0,1"), ("1,", "0,1"), (1, "0"), (1, "")])
def test_a_card_that_was_named_or_is_the_only_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: Any, cards: str
) -> None:
    with workers(tmp_path, [devices, devices], monkeypatch, cards) as taken:
        assert taken == ["None", "None"]


def test_the_cards_are_those_that_the_sweep_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv(VISIBLE, raising=False)
    assert visible_cards() == "0,1,2"
    for given in ("2,5", "", "MIG-1,MIG-2"):
        monkeypatch.setenv(VISIBLE, given)
        assert visible_cards() == given
