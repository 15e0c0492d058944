from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.serving.running import wait_until
from visual_search.serving.batching import Batcher, QueueFullError

Pictures = NDArray[np.uint8]


def first_pixels(pictures: Pictures) -> NDArray[np.float32]:
    return pictures.reshape(len(pictures), -1)[:, :1].astype(np.float32)


def picture(value: int, number: int = 1) -> Pictures:
    return np.full((number, 3, 2, 2), value, np.uint8)


class Busy:
    """A batcher that embeds a 0 until it is let; others ask meanwhile, in a known order."""

    def __init__(self, max_batch: int = 4, max_waiting: int = 64) -> None:
        self.batches: list[list[int]] = []
        self._let = threading.Event()
        self._threads = ThreadPoolExecutor(64)
        self.batcher = Batcher(self._embed, max_batch=max_batch, max_waiting=max_waiting)
        self.asked = [self.ask(0)]
        wait_until(lambda: self.batches == [[0]])

    def _embed(self, pictures: Pictures) -> NDArray[np.float32]:
        self.batches.append([int(picture.flat[0]) for picture in pictures])
        assert self._let.wait(120)
        if 13 in pictures:
            raise ValueError("no thirteen")
        return first_pixels(pictures)

    def ask(self, value: int, number: int = 1) -> Future[NDArray[np.float32]]:
        return self._threads.submit(self.batcher.embed, picture(value, number))

    def ask_and_wait(self, value: int, number: int = 1) -> None:
        """Asks, and comes back when the caller waits for its turn."""
        before = self.batcher.num_waiting
        self.asked.append(self.ask(value, number))
        wait_until(lambda: self.batcher.num_waiting > before)

    def answers(self) -> list[list[float] | str]:
        self._let.set()
        return [
            str(one.exception()) if one.exception(120) else one.result()[:, 0].tolist()
            for one in self.asked
        ]


def test_a_lone_picture_goes_at_once_and_in_its_own_thread() -> None:
    threads = []

    def embed(pictures: Pictures) -> NDArray[np.float32]:
        threads.append(threading.current_thread())
        return first_pixels(pictures)

    batcher = Batcher(embed, max_batch=16, max_waiting=64)
    assert batcher.embed(picture(3)).tolist() == [[3.0]]
    assert batcher.embed(picture(4)).tolist() == [[4.0]]
    assert threads == [threading.current_thread()] * 2


def test_what_comes_while_the_encoder_runs_goes_together() -> None:
    busy = Busy()
    for value in range(2, 8):
        busy.ask_and_wait(value)
    assert busy.answers() == [[0.0], *([float(value)] for value in range(2, 8))]
    assert busy.batches == [[0], [2, 3, 4, 5], [6, 7]]


def test_several_pictures_of_a_caller_stay_together() -> None:
    busy = Busy()
    for value, number in ((1, 2), (2, 2), (3, 3), (4, 9)):
        busy.ask_and_wait(value, number)
    assert busy.answers() == [[0.0], [1.0] * 2, [2.0] * 2, [3.0] * 3, [4.0] * 9]
    assert [len(batch) for batch in busy.batches] == [1, 4, 3, 9]


def test_a_full_queue_refuses() -> None:
    busy = Busy(max_waiting=2)
    for value in (1, 2):
        busy.ask_and_wait(value)
    with pytest.raises(QueueFullError, match="2 wait for the encoder, expected fewer than 2; try"):
        busy.batcher.embed(picture(3))
    assert busy.answers() == [[0.0], [1.0], [2.0]]


def test_a_failing_batch_fails_its_own_callers_and_nobody_else() -> None:
    busy = Busy(max_batch=2)
    for value in (13, 1, 2):
        busy.ask_and_wait(value)
    assert busy.answers() == [[0.0], "no thirteen", "no thirteen", [2.0]]
    assert busy.batcher.embed(picture(5)).tolist() == [[5.0]]


def test_an_encoder_that_gives_too_few_is_found_out() -> None:
    batcher = Batcher(lambda pictures: np.zeros((1, 2), np.float32), max_batch=16, max_waiting=64)
    with pytest.raises(ValueError, match="1 embeddings for 2 pictures"):
        batcher.embed(picture(1, 2))


def test_many_threads_get_their_own_and_one_batch_runs_at_a_time() -> None:
    running = threading.Lock()
    sizes = []

    def embed(pictures: Pictures) -> NDArray[np.float32]:
        assert running.acquire(blocking=False)
        sizes.append(len(pictures))
        found = first_pixels(pictures)
        running.release()
        return found

    batcher = Batcher(embed, max_batch=7, max_waiting=1000)

    def asks(value: int) -> list[list[float]]:
        return [batcher.embed(picture(value))[0].tolist() for _ in range(50)]

    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(asks, range(32)))
    assert found == [[[float(value)]] * 50 for value in range(32)]
    assert sum(sizes) == 32 * 50
    assert max(sizes) <= 7
    assert batcher.num_waiting == 0
