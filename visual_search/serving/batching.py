"""Pictures that are asked for at the same time go through the encoder together.

There is no thread for the encoder: whoever finds it free takes all that waits and embeds it in its
own thread, so a lone picture goes at once and is handed to nobody. Who comes meanwhile waits; the
first of them takes the next batch. Nobody ever waits for company.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class QueueFullError(RuntimeError):
    """As many wait as are allowed to."""


class _Job:
    """Pictures of one caller: woken when they are embedded, or when it is the caller's turn."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self.pictures = pictures  # [n, 3, S, S]
        self.embeddings: NDArray[np.float32] | None = None  # [n, D]
        self.error: Exception | None = None
        self.woken = threading.Event()


class Batcher:
    """Embeds for many threads, several callers' pictures in one batch, each getting its own.

    Args:
        embed: ``[B, 3, S, S] uint8 -> [B, D] float32``; one call at a time, from any thread.
        max_batch: Most pictures of one call; one caller's that are more go alone.
        max_waiting: Most callers that wait; those whose pictures are being embedded do not count.
        on_batch: Called with the number of pictures before every batch.

    Example:
        >>> def first_two(pictures):
        ...     return pictures.reshape(len(pictures), -1)[:, :2].astype(np.float32)
        >>> batcher = Batcher(first_two, max_batch=16, max_waiting=64)
        >>> batcher.embed(np.full((1, 3, 4, 4), 7, np.uint8)).tolist()
        [[7.0, 7.0]]
    """

    def __init__(
        self,
        embed: Embed,
        *,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._embed = embed
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._is_busy = False  # somebody embeds, or was woken to

    @property
    def num_waiting(self) -> int:
        """Callers that wait for the encoder."""
        return len(self._waiting)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the embeddings ``[n, D]`` of pictures ``[n, 3, S, S]``; returns when it has them.

        Raises:
            QueueFullError: As many wait as are allowed to.
            Exception: What the encoder raised at a batch with these pictures.
        """
        job = _Job(pictures)
        with self._lock:
            if self._is_busy and len(self._waiting) >= self._max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} wait for the encoder, expected fewer than "
                    f"{self._max_waiting}; try again a little later"
                )
            self._waiting.append(job)
            is_first = not self._is_busy
            self._is_busy = True
        if not is_first:
            job.woken.wait()
        if job.embeddings is None and job.error is None:  # it is this caller's turn
            try:
                self._answer(self._take())
            finally:
                self._pass_on()
        if job.error is not None:
            raise job.error
        assert job.embeddings is not None
        return job.embeddings

    def _take(self) -> list[_Job]:
        """Takes the jobs that go together, from the longest waiting one on."""
        with self._lock:
            jobs = [self._waiting.popleft()]
            num_pictures = len(jobs[0].pictures)
            while self._waiting:
                num_pictures += len(self._waiting[0].pictures)
                if num_pictures > self._max_batch:
                    break
                jobs.append(self._waiting.popleft())
            return jobs

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.set()
            else:
                self._is_busy = False

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            pictures = np.concatenate([job.pictures for job in jobs])  # [B, 3, S, S]
            if self._on_batch is not None:
                self._on_batch(len(pictures))
            embeddings = self._embed(pictures)  # [B, D]
            if len(embeddings) != len(pictures):
                raise ValueError(
                    f"the encoder gave {len(embeddings)} embeddings for {len(pictures)} pictures; "
                    "expected one each; check the encoder"
                )
        except Exception as error:
            for job in jobs:
                job.error = error
        else:
            start = 0
            for job in jobs:
                job.embeddings = embeddings[start : start + len(job.pictures)]
                start += len(job.pictures)
        for job in jobs:
            job.woken.set()
