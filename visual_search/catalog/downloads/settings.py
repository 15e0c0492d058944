"""What a download is allowed to do, and how patient and how polite it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from visual_search.catalog.downloads.urls import check_place
from visual_search.catalog.readers.picture_names import MAX_PICTURE_BYTES, is_clutter, safe_name

Status = Literal["saved", "gone", "refused", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class WantedPicture:
    """A picture to download.

    Attributes:
        name: Where it goes: a path below the folder, with ``/``.
        url: Where it comes from. A URL that may not be asked for is a refused picture, no error:
            one bad row of a long list does not stop the others.

    Raises:
        ValueError: The name leads out of the folder, or is hidden or the system's own.
    """

    name: str
    url: str

    def __post_init__(self) -> None:
        if safe_name(self.name) != self.name or "\\" in self.name:
            raise ValueError(
                f"picture name {self.name!r} is not in its plain form; expected a path with single "
                "'/' between its parts, no './' and no '\\'; clean it with safe_name"
            )
        if is_clutter(self.name):
            raise ValueError(
                f"picture name {self.name!r} is hidden or the system's own; expected one whose "
                "parts do not start with '.'"
            )
        longest = max(len(part.encode()) for part in self.name.split("/"))
        if longest > 230:  # file systems hold 255 bytes; a temporary name takes 14 more
            raise ValueError(
                f"picture name {self.name[:40]!r}... has a part of {longest} bytes; expected at "
                "most 230; shorten it, as by a hash"
            )


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    """What is asked for, of whom and how fast; the defaults are those of ``conf/download.yaml``.

    Attributes:
        requests_per_s: Requests start at least 1 / ``requests_per_s`` seconds apart, to all hosts
            together, tries and redirects counted.
        max_bytes: Largest body.
        allowed_hosts: Where redirects may lead besides the place that was asked.
        http_hosts: Places that may be asked without TLS.
        private_hosts: Places whose addresses may be loopback, private, link-local or reserved.
        try_again: Pictures with these outcomes in the manifest are tried again. Those that failed
            are by default; ``gone`` (404, 410) and ``refused`` ones are not.
        check_saved: How a picture that the manifest holds as saved is checked before it is
            believed: by its ``size``, or by its ``sha256``, which reads every file.
        user_agent: How requests introduce themselves; a contact address is polite.

    A place is a host, with a port where it is not the scheme's own: ``127.0.0.1:8000``.

    Raises:
        ValueError: A value is out of its range, or a place is none.
    """

    requests_per_s: float = 10.0
    max_bytes: int = 20 * 2**20
    allowed_hosts: tuple[str, ...] = ()
    http_hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    try_again: tuple[str, ...] = ("failed",)
    check_saved: str = "size"
    user_agent: str = "visual-search"

    def __post_init__(self) -> None:
        if not 0 < self.requests_per_s < math.inf:
            raise ValueError(
                f"requests_per_s is {self.requests_per_s}; expected a number above 0; leave it out "
                "for the default"
            )
        if not 1 <= self.max_bytes <= MAX_PICTURE_BYTES or self.max_bytes != int(self.max_bytes):
            raise ValueError(
                f"max_bytes is {self.max_bytes}; expected a whole number of 1 to "
                f"{MAX_PICTURE_BYTES}, the largest picture that is read; leave it out for the "
                "default"
            )
        for name in ("allowed_hosts", "http_hosts", "private_hosts"):
            places = getattr(self, name)
            if isinstance(places, str):
                raise ValueError(f"{name} is the text {places!r}; expected a list of places")
            object.__setattr__(self, name, tuple(check_place(place) for place in places))
        object.__setattr__(self, "try_again", tuple(self.try_again))
        unknown = sorted(set(self.try_again) - set(STATUSES[1:]))
        if unknown:
            raise ValueError(
                f"try_again holds {unknown}; expected some of {list(STATUSES[1:])}, or none"
            )
        if self.check_saved not in ("size", "sha256"):
            raise ValueError(
                f"check_saved is {self.check_saved!r}; expected 'size' (quick) or 'sha256' (reads "
                "every file)"
            )
        if not self.user_agent.isprintable() or not self.user_agent.isascii():
            raise ValueError(
                f"user_agent is {self.user_agent!r}; expected printable ASCII, as "
                "'visual-search (me@example.org)'"
            )


@dataclass(frozen=True)
class Patience:
    """How many requests are open at once, and how long a download waits; times are seconds.

    No settings: nobody needs to turn them, since the same download again goes on where one ended.

    Attributes:
        max_connections: Open at once, to all hosts together.
        max_connections_per_host: Open at once to one host and port.
        max_tries: Of one picture in one run, when an answer may be better the next time: no
            connection, a time-out, a body cut short, status 408, 425, 429 or 5xx.
        backoff_s: Wait before the second try; it doubles with each further one, and a random
            quarter is taken off, so that pictures that failed together do not come back together.
        max_backoff_s: Longest such wait.
        max_retry_after_s: Longest wait that a host may ask for by ``Retry-After`` (status 429 and
            503). The whole host is left alone meanwhile. Of one that asks for more no further
            picture is tried in this run.
        give_up_after: A host of which three requests in a row had no answer of use (no connection,
            a time-out, 429, 5xx) is left alone as a whole, for ``backoff_s``, then for twice as
            long, and so on. After so many pauses without an answer its other pictures are not
            tried in this run; that is after three minutes.
        connect_timeout_s: To connect, TLS included.
        read_timeout_s: Between two pieces of an answer.
        total_timeout_s: One try, from connecting to the last byte, redirects included.
        max_redirects: One try follows at most so many.
    """

    max_connections: int = 16
    max_connections_per_host: int = 6
    max_tries: int = 4
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_retry_after_s: float = 300.0
    give_up_after: int = 8
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    total_timeout_s: float = 60.0
    max_redirects: int = 5


PATIENCE = Patience()
