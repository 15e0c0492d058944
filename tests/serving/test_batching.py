from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_search.serving.batching import Batcher, QueueFullError

Pictures = NDArray[np.uint8]


class Encoder:
    """Returns a picture's first pixel, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def embed(self, pictures: Pictures) -> NDArray[np.float32]:
        self.batches.append([int(picture.flat[0]) for picture in pictures])
        self.started.release()
        assert self.let.acquire(timeout=120)
        return first_pixels(pictures)


def first_pixels(pictures: Pictures) -> NDArray[np.float32]:
    return pictures.reshape(len(pictures), -1)[:, :1].astype(np.float32)


def picture(value: int, number: int = 1) -> Pictures:
    return np.full((number, 3, 2, 2), value, np.uint8)


class Callers:
    """Threads that ask, one after the other in a known order."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._threads = ThreadPoolExecutor(64)
        self._pause = threading.Event()

    def ask(self, value: int, number: int = 1) -> Future[NDArray[np.float32]]:
        return self._threads.submit(self._batcher.embed, picture(value, number))

    def ask_and_wait(self, value: int, number: int = 1) -> Future[NDArray[np.float32]]:
        """Asks, and comes back when the caller waits for its turn."""
        before = self._batcher.num_waiting
        asked = self.ask(value, number)
        while self._batcher.num_waiting == before:
            self._pause.wait(0.001)
        return asked


def values(future: Future[NDArray[np.float32]]) -> list[float]:
    return [float(row[0]) for row in future.result(timeout=120)]


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
    encoder = Encoder()
    callers = Callers(Batcher(encoder.embed, max_batch=4, max_waiting=64))
    first = callers.ask(1)
    assert encoder.started.acquire(timeout=120)
    others = [callers.ask_and_wait(value) for value in range(2, 8)]
    for _ in range(3):
        encoder.let.release()
    assert values(first) == [1.0]
    assert [values(future) for future in others] == [[float(v)] for v in range(2, 8)]
    assert encoder.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_several_pictures_of_a_caller_stay_together() -> None:
    encoder = Encoder()
    callers = Callers(Batcher(encoder.embed, max_batch=4, max_waiting=64))
    first = callers.ask(0)
    assert encoder.started.acquire(timeout=120)
    asked = [callers.ask_and_wait(v, number) for v, number in ((1, 3), (2, 2), (3, 9))]
    for _ in range(4):
        encoder.let.release()
    assert values(first) == [0.0]
    assert [values(one) for one in asked] == [[1.0] * 3, [2.0] * 2, [3.0] * 9]
    assert [len(batch) for batch in encoder.batches] == [1, 3, 2, 9]


def test_a_full_queue_refuses() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder.embed, max_batch=16, max_waiting=2)
    callers = Callers(batcher)
    running = callers.ask(0)
    assert encoder.started.acquire(timeout=120)
    waiting = [callers.ask_and_wait(value) for value in (1, 2)]
    with pytest.raises(QueueFullError, match="2 wait for the encoder, expected fewer than 2; try"):
        batcher.embed(picture(3))
    for _ in range(2):
        encoder.let.release()
    assert [values(one) for one in [running, *waiting]] == [[0.0], [1.0], [2.0]]


def test_a_failing_batch_fails_its_own_callers_and_nobody_else() -> None:
    encoder = Encoder()

    def embed(pictures: Pictures) -> NDArray[np.float32]:
        embeddings = encoder.embed(pictures)
        if 13 in pictures:
            raise ValueError("no thirteen")
        return embeddings

    callers = Callers(Batcher(embed, max_batch=2, max_waiting=64))
    first = callers.ask(0)
    assert encoder.started.acquire(timeout=120)
    asked = [callers.ask_and_wait(value) for value in (13, 1, 2)]
    for _ in range(4):
        encoder.let.release()
    assert values(first) == [0.0]
    for failed in asked[:2]:
        with pytest.raises(ValueError, match="no thirteen"):
            failed.result(timeout=120)
    assert values(asked[2]) == [2.0]
    assert values(callers.ask(5)) == [5.0]


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
