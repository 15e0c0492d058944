"""Which card a worker of a sweep takes: they spread over those that are there."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from filelock import BaseFileLock, Timeout

from visual_search.locking import file_lock

CARDS = "VISUAL_SEARCH_CARDS"  # the sweep's own process tells its workers what there is
VISIBLE = "CUDA_VISIBLE_DEVICES"
SEAT = ".worker-{}"  # in the sweep's folder

_SEATS: list[BaseFileLock] = []  # of this process, one at most, held to its end


def visible_cards() -> str:
    """Returns the cards that this process may use, as ``CUDA_VISIBLE_DEVICES`` has them.

    To be asked in a process that trains nothing: CUDA reads the variable once.
    """
    given = os.environ.get(VISIBLE)
    if given is not None:
        return given
    import torch

    return ",".join(map(str, range(torch.cuda.device_count())))


def take_a_card(folder: Path, devices: object) -> None:
    """Leaves a worker one card, in turns with the other workers of its sweep.

    The number of its turn is the first that no living process holds: a lock on a file, which the
    system gives back however the process ends.

    Args:
        folder: The sweep's.
        devices: ``trainer.devices``; where it names a card, that one is taken.
    """
    cards = [card.strip() for card in os.environ.get(CARDS, "").split(",") if card.strip()]
    if _SEATS or len(cards) < 2 or not isinstance(devices, int | str) or "," in str(devices):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        seat = file_lock(folder / SEAT.format(number))
        try:
            seat.acquire()
        except Timeout:  # another worker's
            continue
        _SEATS.append(seat)
        os.environ[VISIBLE] = cards[number % len(cards)]
        return
