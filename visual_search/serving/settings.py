"""What a search server is told; the command's schema holds the defaults, which suit one machine."""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_TOKEN_LENGTH = 16
_AT_LEAST_ONE = (
    "max_upload_bytes", "max_pixels", "max_write_bytes", "max_items_per_write", "max_k",
    "default_k", "max_page_size", "max_batch", "max_searches", "num_threads",
)  # fmt: skip
_POSITIVE = ("read_seconds", "refresh_seconds", "shutdown_seconds")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a search server listens, what it lets in and how much it does at once.

    Attributes:
        host: Address to listen on; ``127.0.0.1`` is reachable from this machine only.
        port: TCP port; 0 takes a free one.
        trusted_hosts: Names by which the server may be asked (the ``Host`` header, without its
            port). Other names are refused: a foreign page whose name was rebound to this machine
            would otherwise read the catalogue. ``"*"`` accepts all.
        write_token: Who sends it as ``Authorization: Bearer`` may add and remove items; None
            leaves writing off.
        max_upload_bytes: Largest picture, in bytes.
        max_pixels: Largest width x height of a picture, and most pixels that are decoded at the
            same time; further pictures wait, and after 5 seconds are answered 503. Each takes 8
            bytes; those that take more (WebP, AVIF: 16) count twice. A JPEG in one scan is decoded
            to what the encoder needs, so 12 million pixels count as 0.2 million.
        max_write_bytes: Largest request that adds items, in bytes.
        max_items_per_write: Most items of one request that adds or removes.
        max_k: Most neighbours of one search.
        default_k: Neighbours where a request names no number.
        max_page_size: Most items of one page of ``GET /api/items``.
        max_batch: Most pictures that the encoder takes at once.
        max_searches: Searches that may be read, decoded or waiting at the same time; further ones
            are answered 503. Together with ``max_upload_bytes`` it bounds the memory for uploads.
        num_threads: Threads that decode, embed and search, one a search: also the most pictures
            that can come together for the encoder.
        read_seconds: Longest time that a request's head may take to arrive, then its body, and
            that a client may take to read on in an answer.
        refresh_seconds: Pause between looks for a newer generation of the bundles.
        shutdown_seconds: Longest time that running requests get after a signal to stop.

    Raises:
        ValueError: A number is below what makes sense, ``default_k`` is above ``max_k``, there is
            no trusted host, or the token is too short or cannot be sent in a header.
    """

    host: str
    port: int
    trusted_hosts: tuple[str, ...]
    max_upload_bytes: int
    max_pixels: int
    max_write_bytes: int
    max_items_per_write: int
    max_k: int
    default_k: int
    max_page_size: int
    max_batch: int
    max_searches: int
    num_threads: int
    read_seconds: float
    refresh_seconds: float
    shutdown_seconds: float
    write_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected at least 1; leave it out for the "
                    "default"
                )
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected more than 0 seconds; leave it out "
                    "for the default"
                )
        if not 0 <= self.port <= 65535:
            raise ValueError(
                f"port is {self.port}; expected 0 to 65535; 8000 is the default, 0 takes a free one"
            )
        if self.default_k > self.max_k:
            raise ValueError(
                f"default_k is {self.default_k}, above max_k {self.max_k}; expected at most as "
                "much; raise max_k"
            )
        if not self.trusted_hosts:
            raise ValueError(
                "trusted_hosts is empty, so that every request would be refused; expected names "
                "such as 'localhost'; leave it out for this machine only"
            )
        token = self.write_token
        if token is not None and (len(token) < MIN_TOKEN_LENGTH or not _is_sendable(token)):
            raise ValueError(
                f"write_token has {len(token)} characters; expected at least {MIN_TOKEN_LENGTH}, "
                "printable ASCII without blanks; make one with `openssl rand -hex 32`"
            )


def _is_sendable(token: str) -> bool:
    return all("!" <= character <= "~" for character in token)
