"""Who may ask which host when: the order, the rate and the patience of a download's threads."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from visual_search.catalog.downloads.settings import DownloadSettings, WantedPicture
from visual_search.catalog.downloads.urls import Url

_FAILURES_BEFORE_A_PAUSE = 3
_LONGEST_WAIT_S = 1.0  # then a waiting thread looks again, whatever it was told


class Stopped(Exception):  # noqa: N818 - no error: the caller asked for it
    """The download is to end; what was begun is left as it is."""


@dataclass
class PendingPicture:
    """A picture on its way.

    Attributes:
        wanted: The picture.
        url: Its URL, checked.
        tries: How often it was asked for so far.
    """

    wanted: WantedPicture
    url: Url
    tries: int = 0


@dataclass
class _Host:
    queue: deque[PendingPicture] = field(default_factory=deque)
    num_open: int = 0  # requests under way
    open_at: float = 0.0  # not asked before; `time.monotonic`
    num_failures: int = 0  # in a row
    num_pauses: int = 0  # in a row, since something came
    is_listed: bool = False  # among those whose queue may hold a job
    given_up: str = ""  # why


class Turn:
    """The right to send one request to one place, given back at the end of a ``with`` block."""

    def __init__(self, turns: Turns, host: _Host) -> None:
        self._turns = turns
        self._host = host

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turns._give_back(self._host)


class Turns:
    """Hands out jobs and the right to send requests; shared by the threads of one download.

    Args:
        jobs: What is to be done; each goes to the place of its URL first.
        settings: Rate, connections a host, and when a host is given up.
    """

    def __init__(self, jobs: Iterable[PendingPicture], settings: DownloadSettings) -> None:
        self._settings = settings
        self._interval_s = 1 / settings.requests_per_s
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}
        self._listed: deque[_Host] = deque()  # asked in turn
        self._waiting: list[tuple[float, int, PendingPicture]] = []  # heap: not before, order, job
        self._order = itertools.count()
        self._next_request_at = 0.0
        self._num_unfinished = 0
        self._left: list[PendingPicture] = []
        self._is_stopped = False
        for job in jobs:
            self._num_unfinished += 1
            self._enqueue(job)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing new is to be started."""
        return self._is_stopped

    @property
    def given_up(self) -> dict[str, str]:
        """The places that are not asked any more, with the reason."""
        with self._changed:
            return {place: host.given_up for place, host in self._hosts.items() if host.given_up}

    def take(self) -> tuple[PendingPicture, Turn] | None:
        """Waits for a job that may be done now; ``None`` when there is none left, or at a stop."""
        with self._changed:
            while self._num_unfinished and not self._is_stopped:
                now = time.monotonic()
                while self._waiting and self._waiting[0][0] <= now:
                    self._enqueue(heapq.heappop(self._waiting)[2])
                if now >= self._next_request_at:
                    host = self._ready_host(now)
                    if host is not None:
                        job = host.queue.popleft()
                        return job, self._begin(host, now)
                self._changed.wait(self._patience_s(now))
            return None

    def turn(self, place: str) -> Turn:
        """Waits for the right to send one more request, as after a redirect.

        Raises:
            Stopped: The download is to end, or the place is not asked any more.
        """
        with self._changed:
            host = self._hosts.setdefault(place, _Host())
            while not self._is_stopped and not host.given_up:
                now = time.monotonic()
                if now >= self._next_request_at and self._is_free(host, now):
                    return self._begin(host, now)
                self._changed.wait(self._patience_s(now))
            raise Stopped

    def put_back(self, job: PendingPicture, wait_s: float = 0.0) -> None:
        """Takes a job that is not finished, to hand it out again after ``wait_s``."""
        with self._changed:
            host = self._hosts[job.url.place]
            if host.given_up or self._is_stopped:
                self._leave(job)
            elif wait_s > 0:
                entry = (time.monotonic() + wait_s, next(self._order), job)
                heapq.heappush(self._waiting, entry)
            else:
                self._enqueue(job)
            self._changed.notify_all()

    def leave(self, job: PendingPicture) -> None:
        """Takes a job that is not to be handed out again: it stays undone."""
        with self._changed:
            self._leave(job)
            self._changed.notify_all()

    def finish(self) -> None:
        """Notes that a job is done."""
        with self._changed:
            self._num_unfinished -= 1
            self._changed.notify_all()

    def note_answer(self, place: str) -> None:
        """Notes that a place answers: it is up, whatever it said."""
        with self._changed:
            host = self._hosts[place]
            host.num_failures = host.num_pauses = 0

    def note_failure(self, place: str) -> None:
        """Notes that a place did not answer, or not now.

        When several in a row did not come, the whole place is left alone, the longer the more often
        that was in vain; in the end it is given up.
        """
        with self._changed:
            host = self._hosts[place]
            host.num_failures += 1
            now = time.monotonic()
            # Requests that were under way when the pause began do not make it longer.
            if host.num_failures < _FAILURES_BEFORE_A_PAUSE or now < host.open_at:
                return
            host.num_pauses += 1
            if host.num_pauses > self._settings.give_up_after:
                self._give_up(
                    host, f"no answer of use in {host.num_failures} requests, with pauses between"
                )
            else:
                host.open_at = now + backoff_s(self._settings, host.num_pauses, random=0.0)
            self._changed.notify_all()

    def pause(self, place: str, wait_s: float) -> None:
        """Leaves a place alone for as long as it asks; for good when that is too long."""
        with self._changed:
            host = self._hosts.setdefault(place, _Host())
            if wait_s > self._settings.max_retry_after_s:
                self._give_up(
                    host,
                    f"it asked to wait {wait_s:,.0f} s; at most "
                    f"{self._settings.max_retry_after_s:,.0f} s are waited",
                )
            else:
                host.open_at = max(host.open_at, time.monotonic() + wait_s)
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends `take` for every thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def left(self) -> list[PendingPicture]:
        """Returns the jobs that nobody has finished, in no order; when all threads have ended."""
        with self._changed:
            queued = [job for host in self._hosts.values() for job in host.queue]
            return [*self._left, *queued, *(job for _, _, job in self._waiting)]

    def _enqueue(self, job: PendingPicture) -> None:
        host = self._hosts.setdefault(job.url.place, _Host())
        host.queue.append(job)
        if not host.is_listed:
            host.is_listed = True
            self._listed.append(host)

    def _leave(self, job: PendingPicture) -> None:
        self._left.append(job)
        self._num_unfinished -= 1

    def _ready_host(self, now: float) -> _Host | None:
        for _ in range(len(self._listed)):
            host = self._listed.popleft()
            host.is_listed = bool(host.queue)
            if host.is_listed:
                self._listed.append(host)  # behind the others
                if self._is_free(host, now):
                    return host
        return None

    def _is_free(self, host: _Host, now: float) -> bool:
        return host.num_open < self._settings.max_connections_per_host and now >= host.open_at

    def _begin(self, host: _Host, now: float) -> Turn:
        host.num_open += 1
        # Strictly apart: what was not used is not saved up for a burst.
        self._next_request_at = now + self._interval_s
        return Turn(self, host)

    def _give_back(self, host: _Host) -> None:
        with self._changed:
            host.num_open -= 1
            self._changed.notify_all()

    def _give_up(self, host: _Host, reason: str) -> None:
        host.given_up = host.given_up or reason
        while host.queue:
            self._leave(host.queue.popleft())
        kept = []
        for entry in self._waiting:
            if self._hosts[entry[2].url.place] is host:
                self._leave(entry[2])
            else:
                kept.append(entry)
        heapq.heapify(kept)
        self._waiting = kept

    def _patience_s(self, now: float) -> float:
        """Returns how long nothing can change by itself; what others do is told."""
        moments = [host.open_at for host in self._listed if host.open_at > now]
        if self._waiting:
            moments.append(self._waiting[0][0])
        if self._next_request_at > now:
            # Nobody may ask before, whoever is ready.
            return min(self._next_request_at - now, _LONGEST_WAIT_S)
        return min((moment - now for moment in moments), default=_LONGEST_WAIT_S)


def backoff_s(settings: DownloadSettings, num_tries: int, random: float) -> float:
    """Returns how long to wait after so many tries: doubled with each, a random quarter taken off.

    Args:
        settings: First and longest wait.
        num_tries: So far, 1 or more.
        random: Of [0, 1).

    Example:
        >>> settings = DownloadSettings(backoff_s=1.0, max_backoff_s=60.0)
        >>> [backoff_s(settings, num_tries, random=0.0) for num_tries in (1, 2, 3, 9)]
        [1.0, 2.0, 4.0, 60.0]
    """
    longest = settings.backoff_s * 2.0 ** min(num_tries - 1, 30)
    return min(longest, settings.max_backoff_s) * (1 - random / 4)
