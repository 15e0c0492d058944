"""Who may be asked next, and when: the order, the rate and the patience of a download.

It holds no clock and waits for nothing: whoever asks says what time it is, as of `time.monotonic`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from visual_search.catalog.downloads.settings import Patience, WantedPicture
from visual_search.catalog.downloads.urls import Url

_FAILURES_BEFORE_A_PAUSE = 3


@dataclass
class PendingPicture:
    """A picture on its way.

    Attributes:
        wanted: The picture.
        asked: Its URL, checked.
        url: What to ask for next: ``asked``, or where that redirects to.
        tries: How often it was asked for so far.
        num_redirects: Of this try.
        spent_s: Of this try, without waiting.
    """

    wanted: WantedPicture
    asked: Url
    url: Url = field(init=False)
    tries: int = 0
    num_redirects: int = 0
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        self.url = self.asked


@dataclass
class _Host:
    queue: deque[PendingPicture] = field(default_factory=deque)
    num_open: int = 0  # requests under way
    open_at: float = 0.0  # not asked before
    num_failures: int = 0  # in a row
    num_pauses: int = 0  # in a row, since something came
    is_listed: bool = False  # among those whose queue may hold a picture
    given_up: str = ""  # why


class Scheduler:
    """Says which picture to ask for, host by host in turn.

    Args:
        pictures: What is to be done.
        requests_per_s: To all hosts together.
        patience: Connections, and when a host is given up.
    """

    def __init__(
        self, pictures: Iterable[PendingPicture], requests_per_s: float, patience: Patience
    ) -> None:
        self._patience = patience
        self._interval_s = 1 / requests_per_s
        self._hosts: dict[str, _Host] = {}
        self._listed: deque[_Host] = deque()  # asked in turn
        self._waiting: list[tuple[float, int, PendingPicture]] = []  # heap: not before, order
        self._order = itertools.count()
        self._next_request_at = 0.0
        self._num_open = 0
        self._left: list[PendingPicture] = []
        for picture in pictures:
            self.put_back(picture, 0.0)

    @property
    def given_up(self) -> dict[str, str]:
        """The places that are not asked any more, with the reason."""
        return {place: host.given_up for place, host in self._hosts.items() if host.given_up}

    @property
    def is_done(self) -> bool:
        """Whether nothing is left that may be asked for, now or later."""
        return not self._waiting and not any(host.queue for host in self._listed)

    def left(self) -> list[PendingPicture]:
        """Returns the pictures that nobody has finished, in no order."""
        queued = [picture for host in self._hosts.values() for picture in host.queue]
        return [*self._left, *queued, *(picture for _, _, picture in self._waiting)]

    def next(self, now: float) -> PendingPicture | None:
        """Returns a picture to ask for now, until `release`; ``None`` while there is none."""
        while self._waiting and self._waiting[0][0] <= now:
            self.put_back(heapq.heappop(self._waiting)[2], now)
        if now < self._next_request_at or self._num_open >= self._patience.max_connections:
            return None
        for _ in range(len(self._listed)):
            host = self._listed.popleft()
            host.is_listed = bool(host.queue)
            if not host.is_listed:
                continue
            self._listed.append(host)  # behind the others
            if host.num_open < self._patience.max_connections_per_host and now >= host.open_at:
                host.num_open += 1
                self._num_open += 1
                # Strictly apart: what was not used is not saved up for a burst.
                self._next_request_at = now + self._interval_s
                return host.queue.popleft()
        return None

    def wait_s(self, now: float, longest_s: float) -> float:
        """Returns how long nothing can change by itself; requests under way may end before."""
        moments = [host.open_at for host in self._listed if host.open_at > now]
        if self._waiting:
            moments.append(self._waiting[0][0])
        if self._next_request_at > now:
            moments = [self._next_request_at]  # nobody may ask before, whoever is ready
        return min([longest_s, *(moment - now for moment in moments)])

    def release(self, place: str) -> None:
        """Notes that a request to a place has ended."""
        self._hosts[place].num_open -= 1
        self._num_open -= 1

    def put_back(self, picture: PendingPicture, now: float, wait_s: float = 0.0) -> None:
        """Takes a picture to ask for, as a further time after ``wait_s``."""
        host = self._hosts.setdefault(picture.url.place, _Host())
        if host.given_up:
            self._left.append(picture)
        elif wait_s > 0:
            heapq.heappush(self._waiting, (now + wait_s, next(self._order), picture))
        else:
            # a redirect is followed at once: where it leads to may hold for a short time only
            add = host.queue.appendleft if picture.num_redirects else host.queue.append
            add(picture)
            if not host.is_listed:
                host.is_listed = True
                self._listed.append(host)

    def note_answer(self, place: str) -> None:
        """Notes that a place answers: it is up, whatever it said."""
        host = self._hosts[place]
        host.num_failures = host.num_pauses = 0

    def note_failure(self, place: str, now: float) -> None:
        """Notes that a place did not answer, or not now.

        When several in a row did not come, the whole place is left alone, the longer the more often
        that was in vain; in the end it is given up.
        """
        host = self._hosts[place]
        host.num_failures += 1
        # Requests that were under way when the pause began do not make it longer.
        if host.num_failures < _FAILURES_BEFORE_A_PAUSE or now < host.open_at:
            return
        host.num_pauses += 1
        if host.num_pauses > self._patience.give_up_after:
            self._give_up(
                host, f"no answer of use in {host.num_failures} requests, with pauses between"
            )
        else:
            host.open_at = now + backoff_s(self._patience, host.num_pauses, random=0.0)

    def pause(self, place: str, now: float, wait_s: float) -> None:
        """Leaves a place alone for as long as it asks; for good when that is too long."""
        host = self._hosts[place]
        longest_s = self._patience.max_retry_after_s
        if wait_s > longest_s:
            self._give_up(
                host, f"it asked to wait {wait_s:,.0f} s; at most {longest_s:,.0f} s are waited"
            )
        else:
            host.open_at = max(host.open_at, now + wait_s)

    def _give_up(self, host: _Host, reason: str) -> None:
        host.given_up = host.given_up or reason
        self._left += host.queue
        host.queue.clear()
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            if self._hosts[entry[2].url.place] is host:
                self._left.append(entry[2])
            else:
                heapq.heappush(self._waiting, entry)


def backoff_s(patience: Patience, num_tries: int, random: float) -> float:
    """Returns how long to wait after so many tries: doubled with each, a random quarter taken off.

    Args:
        patience: First and longest wait.
        num_tries: So far, 1 or more.
        random: Of [0, 1).

    Example:
        >>> [backoff_s(Patience(), num_tries, random=0.0) for num_tries in (1, 2, 3, 9)]
        [1.0, 2.0, 4.0, 60.0]
    """
    longest = patience.backoff_s * 2.0 ** min(num_tries - 1, 30)
    return min(longest, patience.max_backoff_s) * (1 - random / 4)
